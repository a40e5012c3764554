
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "policy_auth_methods", "policy_auth_cache": the mechanisms that clients are
 * offered, as far as their session allows, and what they cost.  No events
 * arrive here.
 */


#include "ngx_mail_policy_auth_cache.h"
#include "ngx_mail_policy_directive.h"

#include <openssl/ssl.h>


static ngx_uint_t ngx_mail_policy_methods_stock(ngx_conf_t *cf);
static void ngx_mail_policy_methods_external(ngx_conf_t *cf);


char *
ngx_mail_policy_methods(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    u_char      *last;
    ngx_str_t   *value;
    ngx_uint_t   i, method;
    u_char       names[NGX_MAIL_POLICY_AUTH_NAMES];

    if (pscf->auth_methods) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        method = ngx_mail_policy_auth_method(value[i].data, value[i].len);

        if (method == 0) {
            last = ngx_mail_policy_auth_names(names, (ngx_uint_t) -1);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown mechanism \"%V\" in "
                               "\"policy_auth_methods\", write some of%*s",
                               &value[i], (size_t) (last - names), names);
            return NGX_CONF_ERROR;
        }

        if (pscf->auth_methods & method) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate mechanism \"%V\" in "
                               "\"policy_auth_methods\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        pscf->auth_methods |= method;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_mail_policy_methods_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf)
{
    u_char                    *last;
    ngx_uint_t                 missing;
    ngx_mail_core_srv_conf_t  *cscf;
    u_char                     names[NGX_MAIL_POLICY_AUTH_NAMES];

    if (ngx_mail_policy_auth_off(conf->auth)) {
        return NGX_OK;
    }

    if (conf->auth_methods == 0) {
        conf->auth_methods = ngx_mail_policy_methods_stock(cf);
    }

    missing = conf->auth_methods & ~ngx_mail_policy_auth_served(conf->auth);

    if (missing) {
        cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

        last = ngx_mail_policy_auth_names(names, missing);

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no provider of \"policy_auth\" can serve%*s: leave "
                      "that out of \"policy_auth_methods\", or of "
                      "\"smtp_auth\", for server in %s:%ui",
                      (size_t) (last - names), names,
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (conf->auth_methods & NGX_MAIL_POLICY_METHOD_EXTERNAL) {
        ngx_mail_policy_methods_external(cf);
    }

    if (conf->auth_cache == 0) {
        return NGX_OK;
    }

    conf->passwords = ngx_mail_policy_auth_cache_add(cf,
                                                     &ngx_mail_policy_module);

    return conf->passwords ? NGX_OK : NGX_ERROR;
}


static ngx_uint_t
ngx_mail_policy_methods_stock(ngx_conf_t *cf)
{
    ngx_uint_t                 methods;
    ngx_mail_smtp_srv_conf_t  *sscf;

    sscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_smtp_module);

    methods = 0;

    if (sscf->auth_methods & NGX_MAIL_AUTH_PLAIN_ENABLED) {
        methods |= NGX_MAIL_POLICY_METHOD_PLAIN;
    }

    if (sscf->auth_methods & NGX_MAIL_AUTH_LOGIN_ENABLED) {
        methods |= NGX_MAIL_POLICY_METHOD_LOGIN;
    }

    if (sscf->auth_methods & NGX_MAIL_AUTH_CRAM_MD5_ENABLED) {
        methods |= NGX_MAIL_POLICY_METHOD_CRAM_MD5;
    }

    if (sscf->auth_methods & NGX_MAIL_AUTH_EXTERNAL_ENABLED) {
        methods |= NGX_MAIL_POLICY_METHOD_EXTERNAL;
    }

    return methods;
}


/*
 * TLS-6: a session that is resumed has no handshake that verifies anything.
 * Clients make a whole one each time then, and need not know.
 */

static void
ngx_mail_policy_methods_external(ngx_conf_t *cf)
{
    ngx_mail_ssl_conf_t       *sslcf;
    ngx_mail_core_srv_conf_t  *cscf;

    sslcf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_ssl_module);

    if (sslcf->ssl.ctx == NULL || sslcf->verify == 0) {
        cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "no client is offered EXTERNAL without "
                      "\"ssl_verify_client\" for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return;
    }

    SSL_CTX_set_session_cache_mode(sslcf->ssl.ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(sslcf->ssl.ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(sslcf->ssl.ctx, 0);
}
