
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Between the parts of the provider "dovecot".
 */


#ifndef NGX_MAIL_POLICY_AUTH_DOVECOT_H
#define NGX_MAIL_POLICY_AUTH_DOVECOT_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_dovecot.h"


typedef struct {
    ngx_mail_policy_dovecot_service_t  *service;
    time_t                              logged; /* what is wrong with it */
} ngx_mail_policy_auth_dovecot_t;


typedef struct {
    ngx_mail_policy_auth_t             *auth;
    ngx_mail_policy_auth_dovecot_t     *conf;
    ngx_mail_policy_dovecot_request_t  *request;

    unsigned                            dialogue:1;
    unsigned                            refused:1;  /* a token; the FAIL is
                                                       still to come */
} ngx_mail_policy_auth_dovecot_ctx_t;


/*
 * OK and FAIL: NGX_OK with auth->told; NGX_DECLINED, perhaps with told.reply;
 * NGX_ERROR: unusable, or Dovecot itself cannot tell
 */
ngx_int_t ngx_mail_policy_auth_dovecot_ok(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args);
ngx_int_t ngx_mail_policy_auth_dovecot_fail(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args);

/* says it in the log, but not often; what has a "%V" for name */
void ngx_mail_policy_auth_dovecot_error(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, const char *what,
    ngx_str_t *name);


#endif /* NGX_MAIL_POLICY_AUTH_DOVECOT_H */
