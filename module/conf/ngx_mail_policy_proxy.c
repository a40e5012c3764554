
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives proxy_*: how relays are spoken to.  No events arrive here.
 *
 * They are a module of their own behind ngx_mail_policy_module, so all groups
 * of relays are known when a server's come to be merged.  What comes out is
 * one ngx_mail_policy_relay_conf_t a server, which lives as long as the cycle.
 */


#include "ngx_mail_policy_proxy.h"


extern ngx_module_t  ngx_mail_proxy_module;


#define NGX_MAIL_POLICY_CONNECT_TIMEOUT  60000
#define NGX_MAIL_POLICY_FINAL_TIMEOUT    600000


/*
 * proxy_timeout's default of a day is meant for idle IMAP sessions.  A reply
 * of a relay is waited for as RFC 5321 section 4.5.3.2 says.
 */

#define NGX_MAIL_POLICY_REPLY_TIMEOUT    300000


static void *ngx_mail_policy_proxy_create_conf(ngx_conf_t *cf);
static char *ngx_mail_policy_proxy_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static const char *ngx_mail_policy_proxy_foreign(
    ngx_mail_policy_proxy_conf_t *conf);
static ngx_int_t ngx_mail_policy_proxy_stock(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf);
static void ngx_mail_policy_proxy_health_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_relay_conf_t *relay);
static char *ngx_mail_policy_proxy_next(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_mail_policy_proxy_time_post(ngx_conf_t *cf, void *post,
    void *data);
static char *ngx_mail_policy_proxy_final_time_post(ngx_conf_t *cf,
    void *post, void *data);
static char *ngx_mail_policy_proxy_ssl_name_post(ngx_conf_t *cf, void *post,
    void *data);


static ngx_conf_post_t  ngx_mail_policy_connect_timeout_post = {
    ngx_mail_policy_proxy_time_post
};


static ngx_conf_post_t  ngx_mail_policy_final_timeout_post = {
    ngx_mail_policy_proxy_final_time_post
};


static ngx_conf_post_t  ngx_mail_policy_ssl_name_post = {
    ngx_mail_policy_proxy_ssl_name_post
};


static ngx_conf_enum_t  ngx_mail_policy_proxy_starttls[] = {
    { ngx_string("off"), NGX_MAIL_POLICY_STARTTLS_OFF },
    { ngx_string("on"), NGX_MAIL_POLICY_STARTTLS_ON },
    { ngx_string("required"), NGX_MAIL_POLICY_STARTTLS_REQUIRED },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_mail_policy_proxy_protocol_versions[] = {
    { ngx_string("1"), 1 },
    { ngx_string("2"), 2 },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_mail_policy_proxy_auth_methods[] = {
    { ngx_string("plain"), MPOL_AUTH_PLAIN },
    { ngx_string("login"), MPOL_AUTH_LOGIN },
    { ngx_string("cram-md5"), MPOL_AUTH_CRAM_MD5 },
    { ngx_string("scram-sha-256"), MPOL_AUTH_SCRAM_SHA_256 },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_mail_policy_proxy_ssl_protocols[] = {
    { ngx_string("TLSv1"), NGX_SSL_TLSv1 },
    { ngx_string("TLSv1.1"), NGX_SSL_TLSv1_1 },
    { ngx_string("TLSv1.2"), NGX_SSL_TLSv1_2 },
    { ngx_string("TLSv1.3"), NGX_SSL_TLSv1_3 },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_mail_policy_proxy_next_masks[] = {
    { ngx_string("error"), NGX_MAIL_POLICY_NEXT_ERROR },
    { ngx_string("timeout"), NGX_MAIL_POLICY_NEXT_TIMEOUT },
    { ngx_string("invalid_response"), NGX_MAIL_POLICY_NEXT_INVALID },
    { ngx_string("setup"), NGX_MAIL_POLICY_NEXT_SETUP },
    { ngx_string("421"), NGX_MAIL_POLICY_NEXT_421 },
    { ngx_string("4xx"), NGX_MAIL_POLICY_NEXT_4XX },
    { ngx_string("off"), NGX_MAIL_POLICY_NEXT_OFF },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_mail_policy_proxy_commands[] = {

    { ngx_string("proxy_connect_timeout"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, connect_timeout),
      &ngx_mail_policy_connect_timeout_post },

    { ngx_string("proxy_final_timeout"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, final_timeout),
      &ngx_mail_policy_final_timeout_post },

    { ngx_string("proxy_next_upstream"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_proxy_next,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("proxy_next_upstream_tries"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, next_tries),
      NULL },

    { ngx_string("proxy_next_upstream_timeout"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, next_timeout),
      NULL },

    { ngx_string("proxy_ssl"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl),
      NULL },

    { ngx_string("proxy_starttls"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_enum_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, starttls),
      &ngx_mail_policy_proxy_starttls },

    { ngx_string("proxy_ssl_protocols"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_protocols),
      &ngx_mail_policy_proxy_ssl_protocols },

    { ngx_string("proxy_ssl_ciphers"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_ciphers),
      NULL },

    { ngx_string("proxy_ssl_conf_command"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE2,
      ngx_conf_set_keyval_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_conf_commands),
      NULL },

    { ngx_string("proxy_ssl_certificate"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_certificate),
      NULL },

    { ngx_string("proxy_ssl_certificate_key"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_certificate_key),
      NULL },

    { ngx_string("proxy_ssl_password_file"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_proxy_ssl_passwords,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("proxy_ssl_name"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_name),
      &ngx_mail_policy_ssl_name_post },

    { ngx_string("proxy_ssl_server_name"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_server_name),
      NULL },

    { ngx_string("proxy_ssl_session_reuse"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_session_reuse),
      NULL },

    { ngx_string("proxy_ssl_verify"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_verify),
      NULL },

    { ngx_string("proxy_ssl_verify_depth"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_verify_depth),
      NULL },

    { ngx_string("proxy_ssl_trusted_certificate"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_trusted_certificate),
      NULL },

    { ngx_string("proxy_ssl_crl"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, ssl_crl),
      NULL },

    { ngx_string("proxy_bind"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE12,
      ngx_mail_policy_proxy_bind,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("proxy_protocol_version"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_enum_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, protocol_version),
      &ngx_mail_policy_proxy_protocol_versions },

    { ngx_string("proxy_xclient_required"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, xclient_required),
      NULL },

    { ngx_string("proxy_auth"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE12,
      ngx_mail_policy_proxy_auth,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("proxy_auth_methods"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, auth_methods),
      &ngx_mail_policy_proxy_auth_methods },

    { ngx_string("proxy_auth_plaintext"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_proxy_conf_t, auth_plaintext),
      NULL },

      ngx_null_command
};


static ngx_mail_module_t  ngx_mail_policy_proxy_module_ctx = {
    NULL,                                  /* protocol */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_mail_policy_proxy_create_conf,     /* create server configuration */
    ngx_mail_policy_proxy_merge_conf       /* merge server configuration */
};


ngx_module_t  ngx_mail_policy_proxy_module = {
    NGX_MODULE_V1,
    &ngx_mail_policy_proxy_module_ctx,     /* module context */
    ngx_mail_policy_proxy_commands,        /* module directives */
    NGX_MAIL_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_mail_policy_proxy_create_conf(ngx_conf_t *cf)
{
    ngx_mail_policy_proxy_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_proxy_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->connect_timeout = NGX_CONF_UNSET_MSEC;
    conf->final_timeout = NGX_CONF_UNSET_MSEC;
    conf->next_tries = NGX_CONF_UNSET_UINT;
    conf->next_timeout = NGX_CONF_UNSET_MSEC;
    conf->protocol_version = NGX_CONF_UNSET_UINT;
    conf->xclient_required = NGX_CONF_UNSET;
    conf->login = NGX_CONF_UNSET_PTR;
    conf->auth_plaintext = NGX_CONF_UNSET;

    /*
     * set by ngx_pcalloc():
     *
     *     conf->auth_methods = 0;
     *     conf->bind = NULL;
     *     conf->bind_value = NULL;
     *     conf->bind_transparent = 0;
     *     conf->bind_set = 0;
     */

    ngx_mail_policy_proxy_ssl_create(conf);

    return conf;
}


static char *
ngx_mail_policy_proxy_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_mail_policy_proxy_conf_t *prev = parent;
    ngx_mail_policy_proxy_conf_t *conf = child;

    ngx_mail_core_srv_conf_t      *cscf;
    ngx_mail_policy_srv_conf_t    *pscf;
    ngx_mail_policy_relay_conf_t  *relay;

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    if (ngx_mail_policy_protocol_is(cscf)
        && ngx_mail_policy_protocol_refuse(cf,
                                           ngx_mail_policy_proxy_foreign(conf))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_conf_merge_msec_value(conf->connect_timeout, prev->connect_timeout,
                              NGX_MAIL_POLICY_CONNECT_TIMEOUT);
    ngx_conf_merge_msec_value(conf->final_timeout, prev->final_timeout,
                              NGX_MAIL_POLICY_FINAL_TIMEOUT);
    ngx_conf_merge_uint_value(conf->next_tries, prev->next_tries, 0);
    ngx_conf_merge_msec_value(conf->next_timeout, prev->next_timeout, 0);

    ngx_conf_merge_bitmask_value(conf->next_upstream, prev->next_upstream,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_MAIL_POLICY_NEXT_ERROR
                                  |NGX_MAIL_POLICY_NEXT_TIMEOUT
                                  |NGX_MAIL_POLICY_NEXT_INVALID
                                  |NGX_MAIL_POLICY_NEXT_SETUP
                                  |NGX_MAIL_POLICY_NEXT_421));

    ngx_conf_merge_uint_value(conf->protocol_version, prev->protocol_version,
                              1);
    ngx_conf_merge_value(conf->xclient_required, prev->xclient_required, 0);

    ngx_mail_policy_proxy_auth_merge(conf, prev);
    ngx_mail_policy_proxy_bind_merge(conf, prev);
    ngx_mail_policy_proxy_ssl_merge(conf, prev);

    pscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_policy_module);

    if (!pscf->policy) {
        return NGX_CONF_OK;
    }

    relay = &conf->relay;

    relay->connect_timeout = conf->connect_timeout;
    relay->final_timeout = conf->final_timeout;
    relay->min_data_rate = pscf->min_data_rate;
    relay->name = cscf->server_name;
    relay->log = cscf->error_log;

    if (ngx_mail_policy_proxy_stock(cf, conf) != NGX_OK
        || ngx_mail_policy_proxy_bind_init(cf, conf) != NGX_OK
        || ngx_mail_policy_proxy_ssl_init(cf, conf) != NGX_OK
        || ngx_mail_policy_proxy_auth_init(cf, conf) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_mail_policy_proxy_health_check(cf, pscf->upstream, relay);

    pscf->relay_conf = relay;

    pscf->next_upstream = conf->next_upstream | NGX_MAIL_POLICY_NEXT_UNABLE;
    pscf->next_tries = conf->next_tries;
    pscf->next_timeout = conf->next_timeout;

    return NGX_CONF_OK;
}


/* before it is merged: a directive that is written in the server itself */

static const char *
ngx_mail_policy_proxy_foreign(ngx_mail_policy_proxy_conf_t *conf)
{
    return conf->connect_timeout != NGX_CONF_UNSET_MSEC
           ? "proxy_connect_timeout"
         : conf->final_timeout != NGX_CONF_UNSET_MSEC ? "proxy_final_timeout"
         : conf->next_upstream ? "proxy_next_upstream"
         : conf->next_tries != NGX_CONF_UNSET_UINT
           ? "proxy_next_upstream_tries"
         : conf->next_timeout != NGX_CONF_UNSET_MSEC
           ? "proxy_next_upstream_timeout"
         : conf->ssl != NGX_CONF_UNSET ? "proxy_ssl"
         : conf->starttls != NGX_CONF_UNSET_UINT ? "proxy_starttls"
         : conf->ssl_protocols ? "proxy_ssl_protocols"
         : conf->ssl_ciphers.data ? "proxy_ssl_ciphers"
         : conf->ssl_conf_commands != NGX_CONF_UNSET_PTR
           ? "proxy_ssl_conf_command"
         : conf->ssl_certificate.data ? "proxy_ssl_certificate"
         : conf->ssl_certificate_key.data ? "proxy_ssl_certificate_key"
         : conf->ssl_passwords != NGX_CONF_UNSET_PTR
           ? "proxy_ssl_password_file"
         : conf->ssl_name.data ? "proxy_ssl_name"
         : conf->ssl_server_name != NGX_CONF_UNSET ? "proxy_ssl_server_name"
         : conf->ssl_session_reuse != NGX_CONF_UNSET
           ? "proxy_ssl_session_reuse"
         : conf->ssl_verify != NGX_CONF_UNSET ? "proxy_ssl_verify"
         : conf->ssl_verify_depth != NGX_CONF_UNSET_UINT
           ? "proxy_ssl_verify_depth"
         : conf->ssl_trusted_certificate.data
           ? "proxy_ssl_trusted_certificate"
         : conf->ssl_crl.data ? "proxy_ssl_crl"
         : conf->bind_set ? "proxy_bind"
         : conf->protocol_version != NGX_CONF_UNSET_UINT
           ? "proxy_protocol_version"
         : conf->xclient_required != NGX_CONF_UNSET ? "proxy_xclient_required"
         : conf->login != NGX_CONF_UNSET_PTR ? "proxy_auth"
         : conf->auth_methods ? "proxy_auth_methods"
         : conf->auth_plaintext != NGX_CONF_UNSET ? "proxy_auth_plaintext"
         : NULL;
}


/* relays that would never be well; which group a route gives is not known */

static void
ngx_mail_policy_proxy_health_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_relay_conf_t *relay)
{
    ngx_mail_core_srv_conf_t  *cscf;

    if (upstream == NULL || upstream->health.interval == 0
        || upstream->health.port
        || (!relay->ssl_at_once && !relay->proxy_protocol))
    {
        return;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "\"health_check\" of upstream \"%V\" is in clear and "
                  "without PROXY protocol, and \"%s\" says that its relays "
                  "are not: write \"health_check port=25;\" for one that "
                  "is, for server in %s:%ui", &upstream->name,
                  relay->ssl_at_once ? "proxy_ssl on" : "proxy_protocol",
                  cscf->file_name, cscf->line);
}


/* what counts of the stock module's directives */

static ngx_int_t
ngx_mail_policy_proxy_stock(ngx_conf_t *cf, ngx_mail_policy_proxy_conf_t *conf)
{
    ngx_flag_t                *xclient, *smtp_auth;
    ngx_msec_t                *timeout;
    ngx_uint_t                *protocol;
    ngx_mail_core_srv_conf_t  *cscf;

    xclient = ngx_mail_policy_stock_value(cf, &ngx_mail_proxy_module,
                                          "xclient");
    timeout = ngx_mail_policy_stock_value(cf, &ngx_mail_proxy_module,
                                          "proxy_timeout");
    smtp_auth = ngx_mail_policy_stock_value(cf, &ngx_mail_proxy_module,
                                            "proxy_smtp_auth");

    /* a flag, and an enumeration since 1.31.4: one size, 0 is off */

    protocol = ngx_mail_policy_stock_value(cf, &ngx_mail_proxy_module,
                                           "proxy_protocol");

    if (xclient == NULL || timeout == NULL || smtp_auth == NULL
        || protocol == NULL)
    {
        return NGX_ERROR;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    /* 0 would be for ever */

    if (*timeout == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"proxy_timeout 0\" gives relays no time: write "
                      "\"proxy_timeout 5m;\" for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    conf->relay.client_login = *smtp_auth;

    if (*protocol) {
        conf->relay.proxy_protocol = (*protocol == 1) ? conf->protocol_version
                                                      : *protocol;
    }

    conf->relay.xclient = *xclient;

    if (conf->xclient_required) {

        if (!*xclient) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"proxy_xclient_required on\" contradicts "
                          "\"xclient off\": write \"xclient on;\" for server "
                          "in %s:%ui", cscf->file_name, cscf->line);
            return NGX_ERROR;
        }

        conf->relay.xclient = NGX_MAIL_POLICY_XCLIENT_REQUIRED;
    }

    conf->relay.reply_timeout = ngx_min(*timeout,
                                        NGX_MAIL_POLICY_REPLY_TIMEOUT);

    return NGX_OK;
}


/* ngx_conf_set_bitmask_slot() does not say what may be written */

static char *
ngx_mail_policy_proxy_next(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_proxy_conf_t *pcf = conf;

    ngx_str_t           *value;
    ngx_uint_t           i;
    ngx_conf_bitmask_t  *mask;

    if (pcf->next_upstream) {
        return "is duplicate";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        for (mask = ngx_mail_policy_proxy_next_masks; mask->name.len; mask++) {
            if (mask->name.len == value[i].len
                && ngx_strncmp(mask->name.data, value[i].data, value[i].len)
                   == 0)
            {
                break;
            }
        }

        if (mask->name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid value \"%V\", write \"off\", or some "
                               "of \"error\", \"timeout\", "
                               "\"invalid_response\", \"setup\", \"421\" and "
                               "\"4xx\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (pcf->next_upstream & mask->mask) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate value \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        pcf->next_upstream |= NGX_CONF_BITMASK_SET | mask->mask;
    }

    if ((pcf->next_upstream & NGX_MAIL_POLICY_NEXT_OFF)
        && cf->args->nelts > 2)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"off\" excludes all others, write \"off\" alone "
                           "or leave it out");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_proxy_time_post(ngx_conf_t *cf, void *post, void *data)
{
    ngx_msec_t *np = data;

    return *np ? NGX_CONF_OK : "must be greater than 0";
}


/*
 * Who gives up before the relay has answered does not know whether the
 * message was taken, and the client sends it again: RFC 5321, 4.5.3.2.6.
 */

static char *
ngx_mail_policy_proxy_final_time_post(ngx_conf_t *cf, void *post, void *data)
{
    ngx_msec_t *np = data;

    if (*np == 0) {
        return "must be greater than 0";
    }

    if (*np < NGX_MAIL_POLICY_FINAL_TIMEOUT) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"proxy_final_timeout\" of less than 10 minutes "
                           "may deliver messages twice");
    }

    return NGX_CONF_OK;
}


/* what stands there is compared with certificates as it is */

static char *
ngx_mail_policy_proxy_ssl_name_post(ngx_conf_t *cf, void *post, void *data)
{
    ngx_str_t *name = data;

    return ngx_mail_policy_value_variables(name)
           ? "takes no variables here, write a name" : NGX_CONF_OK;
}
