
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * proxy_auth and what goes with it: logging in to relays.  No events arrive
 * here.
 */


#include "ngx_mail_policy_proxy.h"


#if (NGX_THREADS)
#include <ngx_thread_pool.h>
#endif


static ngx_int_t ngx_mail_policy_proxy_auth_asked(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf);
static ngx_int_t ngx_mail_policy_proxy_auth_client(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf);
#if (NGX_THREADS)
static ngx_uint_t ngx_mail_policy_proxy_auth_used(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf);
#endif


/* proxy_auth name password|file:/path | off */

char *
ngx_mail_policy_proxy_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_proxy_conf_t *pcf = conf;

    ngx_str_t  *value;

    if (pcf->login != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2) {

        if (ngx_strcmp(value[1].data, "off") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "no password in \"proxy_auth %V\", write "
                               "\"proxy_auth %V file:/path;\", or "
                               "\"proxy_auth off;\"", &value[1], &value[1]);
            return NGX_CONF_ERROR;
        }

        pcf->login = NULL;
        return NGX_CONF_OK;
    }

    pcf->login = ngx_mail_policy_relay_login(cf);

    return pcf->login ? NGX_CONF_OK : NGX_CONF_ERROR;
}


void
ngx_mail_policy_proxy_auth_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev)
{
    ngx_conf_merge_ptr_value(conf->login, prev->login, NULL);
    ngx_conf_merge_value(conf->auth_plaintext, prev->auth_plaintext, 0);

    ngx_conf_merge_bitmask_value(conf->auth_methods, prev->auth_methods,
                                 (NGX_CONF_BITMASK_SET|MPOL_AUTH_PLAIN
                                  |MPOL_AUTH_LOGIN|MPOL_AUTH_CRAM_MD5
                                  |MPOL_AUTH_SCRAM_SHA_256));
}


/* conf->relay.client_login is known already */

ngx_int_t
ngx_mail_policy_proxy_auth_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf)
{
    ngx_uint_t                     login, asks;
    ngx_mail_core_srv_conf_t      *cscf;
    ngx_mail_policy_srv_conf_t    *pscf;
    ngx_mail_policy_relay_conf_t  *relay;

    relay = &conf->relay;

    relay->login = conf->login;
    relay->auth_methods = conf->auth_methods;
    relay->auth_plaintext = conf->auth_plaintext;

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    if (relay->login && relay->client_login) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"proxy_smtp_auth on\" is the client's own login and "
                      "\"proxy_auth\" another one, write \"proxy_auth off;\" "
                      "or \"proxy_smtp_auth off;\" for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    pscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_policy_module);

    asks = ngx_mail_policy_auth_asks(pscf->auth);

    if (asks && ngx_mail_policy_proxy_auth_asked(cf, pscf) != NGX_OK) {
        return NGX_ERROR;
    }

    /* whom a relay has let in, it is to know again */

    if (asks && relay->login == NULL) {
        relay->client_login = 1;
    }

    if (relay->client_login
        && ngx_mail_policy_proxy_auth_client(cf, pscf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* of the groups, the one that all mail goes to */

    login = relay->login || (pscf->upstream && pscf->upstream->login);

    /* passwords on the wire need TLS, or a word that they do not */

    if (relay->ssl == NULL && !conf->auth_plaintext
        && (relay->client_login || asks
            || (login
                && !(conf->auth_methods & (MPOL_AUTH_CRAM_MD5
                                           |MPOL_AUTH_SCRAM_SHA_256)))))
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%s\" needs TLS to send a password to a relay: write "
                      "\"proxy_starttls required;\" or \"proxy_ssl on;\", or "
                      "\"proxy_auth_plaintext on;\" for server in %s:%ui",
                      asks ? "policy_auth relay"
                      : relay->client_login ? "proxy_smtp_auth" : "proxy_auth",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

#if (NGX_THREADS)

    if ((conf->auth_methods & MPOL_AUTH_SCRAM_SHA_256)
        && ngx_mail_policy_proxy_auth_used(cf, conf))
    {
        relay->thread_pool = ngx_thread_pool_add(cf, NULL);
        if (relay->thread_pool == NULL) {
            return NGX_ERROR;
        }
    }

#endif

    if (relay->thread_pool == NULL) {
        relay->auth_methods &= ~MPOL_AUTH_SCRAM_SHA_256;
    }

    return NGX_OK;
}


/* "policy_auth relay": where to ask must be known before MAIL */

static ngx_int_t
ngx_mail_policy_proxy_auth_asked(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf)
{
    ngx_mail_core_srv_conf_t    *cscf;
    ngx_mail_policy_upstream_t  *upstream;

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);
    upstream = pscf->upstream;

    if (pscf->route && pscf->route->phase > NGX_MAIL_POLICY_AT_AUTH) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_auth relay\" asks a relay before there is a "
                      "sender or a recipient, which \"proxy_pass %V\" needs: "
                      "write one of the client and the login alone, as of "
                      "$sasl_username, for server in %s:%ui",
                      &pscf->route->text, cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (pscf->route && pscf->route == pscf->auth_route) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_auth relay\" asks a relay before there is "
                      "an $auth_relay: write a \"proxy_pass\" for server in "
                      "%s:%ui", cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (upstream && upstream->key
        && upstream->key->phase > NGX_MAIL_POLICY_AT_AUTH)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_auth relay\" asks a relay before there is a "
                      "sender or a recipient, which \"hash %V\" of upstream "
                      "\"%V\" needs: write \"hash $sasl_username;\", or "
                      "\"least_conn;\", for server in %s:%ui",
                      &upstream->key->text, &upstream->name,
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* who has said no password has none that a relay could be told */

static ngx_int_t
ngx_mail_policy_proxy_auth_client(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf)
{
    u_char                    *last;
    ngx_uint_t                 methods;
    ngx_mail_core_srv_conf_t  *cscf;
    u_char                     names[NGX_MAIL_POLICY_AUTH_NAMES];

    methods = pscf->auth_methods & ~(NGX_MAIL_POLICY_METHODS_PASSWORD
                                     |NGX_MAIL_POLICY_METHODS_TOKEN);

    if (methods == 0 || ngx_mail_policy_auth_off(pscf->auth)
        || ngx_mail_policy_auth_passwords(pscf->auth))
    {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    last = ngx_mail_policy_auth_names(names, methods);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "a client that logs in by%*s says no password that a relay "
                  "could be told: leave that out of \"policy_auth_methods\", "
                  "or write \"proxy_auth name file:/path;\", for server in "
                  "%s:%ui", (size_t) (last - names), names,
                  cscf->file_name, cscf->line);

    return NGX_ERROR;
}


#if (NGX_THREADS)

/* any group may be one of the server's */

static ngx_uint_t
ngx_mail_policy_proxy_auth_used(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf)
{
    ngx_uint_t                     i;
    ngx_array_t                   *upstreams;
    ngx_mail_policy_main_conf_t   *mcf;
    ngx_mail_policy_upstream_t   **upstream;

    if (conf->login || conf->relay.client_login) {
        return 1;
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    upstreams = &mcf->upstreams;
    upstream = upstreams->elts;

    for (i = 0; i < upstreams->nelts; i++) {
        if (upstream[i]->login) {
            return 1;
        }
    }

    return 0;
}

#endif
