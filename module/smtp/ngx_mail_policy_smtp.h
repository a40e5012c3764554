
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What nginx calls: the entry points of the SMTP front door.
 */


#ifndef NGX_MAIL_POLICY_SMTP_H
#define NGX_MAIL_POLICY_SMTP_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>


/*
 * A copy of the stock SMTP protocol in which our functions stand; assigned
 * to cscf->protocol of a server with "policy on".
 */
ngx_mail_protocol_t *ngx_mail_policy_smtp_protocol(ngx_conf_t *cf,
    ngx_mail_protocol_t *stock);


#endif /* NGX_MAIL_POLICY_SMTP_H */
