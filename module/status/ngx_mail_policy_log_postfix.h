
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lines of the access log as Postfix's smtpd writes them, for what reads its
 * log: a line at once for a command that is refused and for a login that
 * failed, and one for each transaction.
 *
 *     NOQUEUE: reject: RCPT from host[ip]: 450 4.7.1 <rcpt>: ...; from=<> ...
 *     warning: host[ip]: SASL PLAIN authentication failed: ...
 *     QUEUEID: client=host[ip], ..., status=sent (250 2.0.0 ...)
 *
 * In front of each are the time, the machine and "postfix/smtpd[pid]: ".
 */


#ifndef NGX_MAIL_POLICY_LOG_POSTFIX_H
#define NGX_MAIL_POLICY_LOG_POSTFIX_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_log.h"


/*
 * A line with its end, on pool; message: the same without what is in front.
 * event: NULL for the transaction of the envelope's record.  NGX_OK, or
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_log_postfix(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_log_event_t *event,
    ngx_str_t *line, ngx_str_t *message);


#endif /* NGX_MAIL_POLICY_LOG_POSTFIX_H */
