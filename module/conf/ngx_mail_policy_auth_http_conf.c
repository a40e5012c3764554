
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives policy_auth_http_* and policy_auth_ssl_*: how services of
 * "policy_auth http://..." are asked.  No events arrive here.
 *
 * A server that has none of them shares those of mail{}, and connections that
 * are kept with them.
 *
 * No message shows the value of a header: it may be a key.
 */


#include "ngx_mail_policy_directive.h"


#define NGX_MAIL_POLICY_AUTH_HTTP_TIMEOUT  60000


static ngx_uint_t ngx_mail_policy_auth_http_token(ngx_str_t *name);
static ngx_int_t ngx_mail_policy_auth_http_join(ngx_conf_t *cf,
    ngx_mail_policy_auth_http_conf_t *conf);


ngx_mail_policy_auth_http_conf_t *
ngx_mail_policy_auth_http_create(ngx_conf_t *cf)
{
    ngx_mail_policy_auth_http_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_http_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->headers = NULL;
     *     conf->ssl_trusted = { 0, NULL };
     *     conf->ssl_name = { 0, NULL };
     *     conf->tls.ssl = NULL;
     */

    conf->timeout = NGX_CONF_UNSET_MSEC;
    conf->pass_client_cert = NGX_CONF_UNSET;
    conf->ssl_verify = NGX_CONF_UNSET;

    return conf;
}


ngx_int_t
ngx_mail_policy_auth_http_merge(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf, ngx_mail_policy_srv_conf_t *parent)
{
    ngx_mail_policy_auth_http_conf_t  *conf, *prev;

    conf = pscf->auth_http;
    prev = parent->auth_http;

    /* that of mail{} is completed by its first server */

    ngx_conf_init_msec_value(prev->timeout,
                             NGX_MAIL_POLICY_AUTH_HTTP_TIMEOUT);
    ngx_conf_init_value(prev->pass_client_cert, 0);
    ngx_conf_init_value(prev->ssl_verify, 1);

    if (prev->header.data == NULL
        && ngx_mail_policy_auth_http_join(cf, prev) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!conf->own) {
        pscf->auth_http = prev;
        return NGX_OK;
    }

    ngx_conf_merge_msec_value(conf->timeout, prev->timeout,
                              NGX_MAIL_POLICY_AUTH_HTTP_TIMEOUT);
    ngx_conf_merge_value(conf->pass_client_cert, prev->pass_client_cert, 0);
    ngx_conf_merge_value(conf->ssl_verify, prev->ssl_verify, 1);
    ngx_conf_merge_str_value(conf->ssl_trusted, prev->ssl_trusted, "");
    ngx_conf_merge_str_value(conf->ssl_name, prev->ssl_name, "");

    if (conf->headers == NULL) {
        conf->header = prev->header;
        return NGX_OK;
    }

    return ngx_mail_policy_auth_http_join(cf, conf);
}


/* the lines as they are sent */

static ngx_int_t
ngx_mail_policy_auth_http_join(ngx_conf_t *cf,
    ngx_mail_policy_auth_http_conf_t *conf)
{
    u_char        *p;
    size_t         len;
    ngx_uint_t     i;
    ngx_keyval_t  *header;

    if (conf->headers == NULL) {
        ngx_str_set(&conf->header, "");
        return NGX_OK;
    }

    header = conf->headers->elts;

    for (i = 0, len = 0; i < conf->headers->nelts; i++) {
        len += header[i].key.len + header[i].value.len
               + sizeof(": " CRLF) - 1;
    }

    p = ngx_pnalloc(cf->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    conf->header.data = p;
    conf->header.len = len;

    for (i = 0; i < conf->headers->nelts; i++) {
        p = ngx_sprintf(p, "%V: %V" CRLF, &header[i].key, &header[i].value);
    }

    return NGX_OK;
}


char *
ngx_mail_policy_auth_http_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    u_char                            *p;
    ngx_str_t                         *value;
    ngx_keyval_t                      *header;
    ngx_mail_policy_auth_http_conf_t  *ahcf;

    ahcf = pscf->auth_http;
    value = cf->args->elts;

    if (!ngx_mail_policy_auth_http_token(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid header name \"%V\", write letters, "
                           "digits and \"-\" without a colon", &value[1]);
        return NGX_CONF_ERROR;
    }

    for (p = value[2].data; p < value[2].data + value[2].len; p++) {
        if (*p < ' ' || *p == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the value of header \"%V\" has a control "
                               "character in it, remove that", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (ahcf->headers == NULL) {
        ahcf->headers = ngx_array_create(cf->pool, 2, sizeof(ngx_keyval_t));
        if (ahcf->headers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    header = ngx_array_push(ahcf->headers);
    if (header == NULL) {
        return NGX_CONF_ERROR;
    }

    header->key = value[1];
    header->value = value[2];

    ahcf->own = 1;

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_mail_policy_auth_http_token(ngx_str_t *name)
{
    u_char  *p, ch;

    for (p = name->data; p < name->data + name->len; p++) {
        ch = *p | 0x20;

        if ((ch < 'a' || ch > 'z') && (*p < '0' || *p > '9')
            && *p != '-' && *p != '_')
        {
            return 0;
        }
    }

    return name->len != 0;
}


/* offsets of the commands below are those in what server{} says */

char *
ngx_mail_policy_auth_http_flag(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    pscf->auth_http->own = 1;

    return ngx_conf_set_flag_slot(cf, cmd, pscf->auth_http);
}


char *
ngx_mail_policy_auth_http_str(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    pscf->auth_http->own = 1;

    return ngx_conf_set_str_slot(cf, cmd, pscf->auth_http);
}


char *
ngx_mail_policy_auth_http_msec(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    pscf->auth_http->own = 1;

    return ngx_conf_set_msec_slot(cf, cmd, pscf->auth_http);
}
