
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lines of the access log on their way out: to a file, at once or by a
 * buffer, or to syslog.  Nothing waits: a line that cannot be written is
 * lost.  It is counted then, and for each log it is said once a minute.
 */


#ifndef NGX_MAIL_POLICY_LOG_WRITE_H
#define NGX_MAIL_POLICY_LOG_WRITE_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_conf.h"


/* line: with its end, which syslog does not get */
void ngx_mail_policy_log_write(ngx_mail_policy_access_log_t *log,
    ngx_str_t *line, ngx_log_t *errlog);

/* there was no memory for a line */
void ngx_mail_policy_log_no_memory(ngx_mail_policy_access_log_t *log,
    ngx_log_t *errlog);

/*
 * Gives a file a buffer.  flush: how long a line may stay in it, 0 for ever.
 * NGX_DECLINED: it has another one; NGX_BUSY: it has one of another module.
 */
ngx_int_t ngx_mail_policy_log_buffer(ngx_conf_t *cf, ngx_open_file_t *file,
    size_t size, ngx_msec_t flush);

/* writes out what is in the buffers of a cycle */
void ngx_mail_policy_log_flush_all(ngx_cycle_t *cycle);


#endif /* NGX_MAIL_POLICY_LOG_WRITE_H */
