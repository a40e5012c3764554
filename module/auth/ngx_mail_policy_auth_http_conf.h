
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#ifndef NGX_MAIL_POLICY_AUTH_HTTP_CONF_H
#define NGX_MAIL_POLICY_AUTH_HTTP_CONF_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_http.h"


/*
 * policy_auth_http_* and policy_auth_ssl_*.  Providers are inherited with
 * what they have, so a server's own settings are not theirs: they are taken
 * from the session's server when it asks.  One that says nothing of its own
 * has those of mail{}, the very same.
 */
typedef struct {
    ngx_array_t                  *headers;      /* ngx_keyval_t, or NULL */
    ngx_str_t                     header;       /* the same, as sent */
    ngx_msec_t                    timeout;
    ngx_flag_t                    pass_client_cert;
    ngx_flag_t                    ssl_verify;
    ngx_str_t                     ssl_trusted;
    ngx_str_t                     ssl_name;
    ngx_mail_policy_http_tls_t    tls;          /* ssl NULL: not needed so
                                                   far */
    unsigned                      own:1;        /* something was set here */
} ngx_mail_policy_auth_http_conf_t;


#endif /* NGX_MAIL_POLICY_AUTH_HTTP_CONF_H */
