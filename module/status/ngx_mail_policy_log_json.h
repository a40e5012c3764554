
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lines of the access log as JSON objects: the format "json".
 */


#ifndef NGX_MAIL_POLICY_LOG_JSON_H
#define NGX_MAIL_POLICY_LOG_JSON_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_log.h"


/*
 * A line with its end, on pool, of the envelope's record.  NGX_OK, or
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_log_json(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *line);


#endif /* NGX_MAIL_POLICY_LOG_JSON_H */
