
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * proxy_ssl, proxy_starttls and proxy_ssl_*: how TLS is spoken to relays.  No
 * events arrive here.
 *
 * A certificate is verified unless that is switched off, but not where clear
 * text would do as well ("proxy_starttls on"), unless it is switched on.
 */


#include "ngx_mail_policy_proxy.h"


/* intermediate certificates between the relay's and the trusted one */
#define NGX_MAIL_POLICY_PROXY_SSL_DEPTH  4


static ngx_int_t ngx_mail_policy_proxy_ssl_named(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_mail_core_srv_conf_t *cscf);
static ngx_int_t ngx_mail_policy_proxy_ssl_context(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_ssl_t *ssl);
static ngx_int_t ngx_mail_policy_proxy_ssl_trust(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_ssl_t *ssl);


char *
ngx_mail_policy_proxy_ssl_passwords(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_mail_policy_proxy_conf_t *pcf = conf;

    ngx_str_t  *value;

    if (pcf->ssl_passwords != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    pcf->ssl_passwords = ngx_ssl_read_password_file(cf, &value[1]);

    return pcf->ssl_passwords ? NGX_CONF_OK : NGX_CONF_ERROR;
}


void
ngx_mail_policy_proxy_ssl_create(ngx_mail_policy_proxy_conf_t *conf)
{
    /*
     * set by ngx_pcalloc():
     *
     *     conf->ssl_protocols = 0;
     *     conf->ssl_ciphers = { 0, NULL }; and the other strings
     */

    conf->ssl = NGX_CONF_UNSET;
    conf->starttls = NGX_CONF_UNSET_UINT;
    conf->ssl_conf_commands = NGX_CONF_UNSET_PTR;
    conf->ssl_passwords = NGX_CONF_UNSET_PTR;
    conf->ssl_server_name = NGX_CONF_UNSET;
    conf->ssl_session_reuse = NGX_CONF_UNSET;
    conf->ssl_verify = NGX_CONF_UNSET;
    conf->ssl_verify_depth = NGX_CONF_UNSET_UINT;
}


void
ngx_mail_policy_proxy_ssl_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev)
{
    ngx_conf_merge_value(conf->ssl, prev->ssl, 0);
    ngx_conf_merge_uint_value(conf->starttls, prev->starttls,
                              NGX_MAIL_POLICY_STARTTLS_OFF);

    ngx_conf_merge_bitmask_value(conf->ssl_protocols, prev->ssl_protocols,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3));

    ngx_conf_merge_str_value(conf->ssl_ciphers, prev->ssl_ciphers, "DEFAULT");
    ngx_conf_merge_ptr_value(conf->ssl_conf_commands, prev->ssl_conf_commands,
                             NULL);

    ngx_conf_merge_str_value(conf->ssl_certificate, prev->ssl_certificate, "");
    ngx_conf_merge_str_value(conf->ssl_certificate_key,
                             prev->ssl_certificate_key, "");
    ngx_conf_merge_ptr_value(conf->ssl_passwords, prev->ssl_passwords, NULL);

    ngx_conf_merge_str_value(conf->ssl_name, prev->ssl_name, "");
    ngx_conf_merge_value(conf->ssl_server_name, prev->ssl_server_name, 1);
    ngx_conf_merge_value(conf->ssl_session_reuse, prev->ssl_session_reuse, 1);

    ngx_conf_merge_value(conf->ssl_verify, prev->ssl_verify,
                         conf->starttls != NGX_MAIL_POLICY_STARTTLS_ON);
    ngx_conf_merge_uint_value(conf->ssl_verify_depth, prev->ssl_verify_depth,
                              NGX_MAIL_POLICY_PROXY_SSL_DEPTH);
    ngx_conf_merge_str_value(conf->ssl_trusted_certificate,
                             prev->ssl_trusted_certificate, "");
    ngx_conf_merge_str_value(conf->ssl_crl, prev->ssl_crl, "");
}


ngx_int_t
ngx_mail_policy_proxy_ssl_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf)
{
    ngx_ssl_t                     *ssl;
    ngx_pool_cleanup_t            *cln;
    ngx_mail_core_srv_conf_t      *cscf;
    ngx_mail_policy_relay_conf_t  *relay;

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    if (conf->ssl && conf->starttls != NGX_MAIL_POLICY_STARTTLS_OFF) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"proxy_ssl on\" is TLS from the first octet on, and "
                      "\"proxy_starttls\" is TLS later: write "
                      "\"proxy_starttls off;\" or \"proxy_ssl off;\" for "
                      "server in %s:%ui", cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (!conf->ssl && conf->starttls == NGX_MAIL_POLICY_STARTTLS_OFF) {
        return NGX_OK;
    }

    if ((conf->ssl_certificate.len == 0) != (conf->ssl_certificate_key.len
                                             == 0))
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"proxy_ssl_certificate\" and "
                      "\"proxy_ssl_certificate_key\" go together, write both "
                      "for server in %s:%ui", cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (ngx_mail_policy_proxy_ssl_named(cf, conf, cscf) != NGX_OK) {
        return NGX_ERROR;
    }

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, conf->ssl_protocols, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(ssl);
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    if (ngx_mail_policy_proxy_ssl_context(cf, conf, ssl) != NGX_OK) {
        return NGX_ERROR;
    }

    relay = &conf->relay;

    if (conf->ssl_session_reuse) {
        relay->ssl_sessions = ngx_mail_policy_tls_sessions_create(cf->pool);
        if (relay->ssl_sessions == NULL) {
            return NGX_ERROR;
        }
    }

    relay->ssl = ssl;
    relay->ssl_name = conf->ssl_name;
    relay->ssl_at_once = conf->ssl;
    relay->ssl_verify = conf->ssl_verify;
    relay->ssl_server_name = conf->ssl_server_name;
    relay->starttls = conf->starttls;

    return NGX_OK;
}


/* what a certificate is to be for; of a route it shows when it is taken */

static ngx_int_t
ngx_mail_policy_proxy_ssl_named(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_mail_core_srv_conf_t *cscf)
{
    ngx_uint_t                   i;
    ngx_mail_policy_server_t    *server;
    ngx_mail_policy_srv_conf_t  *pscf;

    pscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_policy_module);

    if (!conf->ssl_verify || conf->ssl_name.len || pscf->upstream == NULL) {
        return NGX_OK;
    }

    server = pscf->upstream->servers.elts;

    for (i = 0; i < pscf->upstream->servers.nelts; i++) {

        if (server[i].name.len < 5
            || ngx_strncasecmp(server[i].name.data, (u_char *) "unix:", 5)
               != 0)
        {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "relay \"%V\" has no name for its certificate to be "
                      "verified with: write \"proxy_ssl_name name;\" or "
                      "\"proxy_ssl_verify off;\" for server in %s:%ui",
                      &server[i].name, cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_proxy_ssl_context(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_ssl_t *ssl)
{
    if (ngx_ssl_ciphers(cf, ssl, &conf->ssl_ciphers, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (conf->ssl_certificate.len
        && ngx_ssl_certificate(cf, ssl, &conf->ssl_certificate,
                               &conf->ssl_certificate_key,
                               conf->ssl_passwords)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->ssl_verify
        && ngx_mail_policy_proxy_ssl_trust(cf, conf, ssl) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_ssl_client_session_cache(cf, ssl, conf->ssl_session_reuse)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_ssl_conf_commands(cf, ssl, conf->ssl_conf_commands);
}


static ngx_int_t
ngx_mail_policy_proxy_ssl_trust(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_ssl_t *ssl)
{
    if (ngx_ssl_trusted_certificate(cf, ssl, &conf->ssl_trusted_certificate,
                                    conf->ssl_verify_depth)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->ssl_trusted_certificate.len == 0
        && SSL_CTX_set_default_verify_paths(ssl->ctx) == 0)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NGX_ERROR;
    }

    return ngx_ssl_crl(cf, ssl, &conf->ssl_crl);
}
