
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of the provider "http://..." and "https://..." share.
 */


#ifndef NGX_MAIL_POLICY_AUTH_HTTP_H
#define NGX_MAIL_POLICY_AUTH_HTTP_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_http.h"


typedef struct {
    ngx_mail_policy_http_service_t  service;
    ngx_str_t                       host;       /* the header */
    ngx_str_t                       uri;
    unsigned                        tls:1;
} ngx_mail_policy_auth_http_t;


/* what an auth's server says */
ngx_mail_policy_auth_http_conf_t *ngx_mail_policy_auth_http_settings(
    ngx_mail_policy_auth_t *auth);

/*
 * The request for an auth, on its pool, to be wiped.  NGX_DECLINED: login or
 * password cannot be in one; NGX_ERROR: no memory, or something else cannot
 * (logged).
 */
ngx_int_t ngx_mail_policy_auth_http_request(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_http_t *provider, ngx_str_t *request);


#endif /* NGX_MAIL_POLICY_AUTH_HTTP_H */
