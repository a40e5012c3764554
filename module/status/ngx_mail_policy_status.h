
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The state of the mail side, for whoever shows it.
 */


#ifndef NGX_MAIL_POLICY_STATUS_H
#define NGX_MAIL_POLICY_STATUS_H


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * One JSON object on pool, as README describes it; of a machine whose nginx
 * has no mail server with policy it says so.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_status_json(ngx_pool_t *pool, ngx_str_t *text);


#endif /* NGX_MAIL_POLICY_STATUS_H */
