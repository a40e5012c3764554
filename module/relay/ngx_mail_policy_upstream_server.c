
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A line "server address [parameters];" of a group.  No events arrive here.
 *
 * With "resolve" an address that is not known at the start is none that is
 * wrong: the name may be one of the "resolver", which workers ask.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


#define NGX_MAIL_POLICY_WEIGHT        1
#define NGX_MAIL_POLICY_MAX_FAILS     1
#define NGX_MAIL_POLICY_FAIL_TIMEOUT  10


static char *ngx_mail_policy_upstream_parameter(ngx_conf_t *cf,
    ngx_mail_policy_server_t *server, ngx_str_t *value);
static ngx_uint_t ngx_mail_policy_upstream_number(ngx_str_t *value,
    const char *name, ngx_int_t *n);
static ngx_int_t ngx_mail_policy_upstream_named(ngx_conf_t *cf,
    ngx_mail_policy_server_t *server);
static const char *ngx_mail_policy_upstream_scheme(ngx_str_t *url);


char *
ngx_mail_policy_upstream_server(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t                 *value;
    ngx_url_t                  u;
    ngx_uint_t                 i;
    ngx_mail_policy_server_t  *server;

    value = cf->args->elts;

    server = ngx_mail_policy_upstream_server_push(upstream, &value[1]);
    if (server == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_upstream_parameter(cf, server, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = value[1];
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) == NGX_OK && u.no_port) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no port in upstream \"%V\"", &u.url);
        return NGX_CONF_ERROR;
    }

    return ngx_mail_policy_upstream_server_addrs(cf, upstream, server)
           == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}


ngx_mail_policy_server_t *
ngx_mail_policy_upstream_server_push(ngx_mail_policy_upstream_t *upstream,
    ngx_str_t *name)
{
    ngx_uint_t                 i, ordinal;
    ngx_mail_policy_server_t  *server;

    ordinal = 0;
    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {
        if (server[i].name.len == name->len
            && ngx_strncmp(server[i].name.data, name->data, name->len) == 0)
        {
            ordinal++;
        }
    }

    server = ngx_array_push(&upstream->servers);
    if (server == NULL) {
        return NULL;
    }

    ngx_memzero(server, sizeof(ngx_mail_policy_server_t));

    server->name = *name;
    server->ordinal = ordinal;
    server->weight = NGX_MAIL_POLICY_WEIGHT;
    server->max_fails = NGX_MAIL_POLICY_MAX_FAILS;
    server->fail_timeout = NGX_MAIL_POLICY_FAIL_TIMEOUT;

    return server;
}


static char *
ngx_mail_policy_upstream_parameter(ngx_conf_t *cf,
    ngx_mail_policy_server_t *server, ngx_str_t *value)
{
    ngx_int_t  n;
    ngx_str_t  s;

    if (ngx_mail_policy_upstream_number(value, "weight=", &n)) {

        if (n == NGX_ERROR || n == 0 || n > NGX_MAIL_POLICY_MAX_WEIGHT) {
            goto invalid;
        }

        server->weight = n;

        return NGX_CONF_OK;
    }

    if (ngx_mail_policy_upstream_number(value, "max_fails=", &n)) {

        if (n == NGX_ERROR) {
            goto invalid;
        }

        server->max_fails = n;

        return NGX_CONF_OK;
    }

    if (ngx_mail_policy_upstream_number(value, "max_conns=", &n)) {

        if (n == NGX_ERROR) {
            goto invalid;
        }

        server->max_conns = n;

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "fail_timeout=", 13) == 0) {

        s.len = value->len - 13;
        s.data = value->data + 13;

        server->fail_timeout = ngx_parse_time(&s, 1);

        if (server->fail_timeout == (time_t) NGX_ERROR) {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "slow_start=", 11) == 0) {

        s.len = value->len - 11;
        s.data = value->data + 11;

        server->slow_start = ngx_parse_time(&s, 0);

        if (server->slow_start == (ngx_msec_t) NGX_ERROR) {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "backup") == 0) {
        server->backup = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "down") == 0) {
        server->down = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "resolve") == 0) {
        server->resolve = 1;
        return NGX_CONF_OK;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);
    return NGX_CONF_ERROR;
}


/* 1 if it has this name; n is NGX_ERROR if what follows is no number */

static ngx_uint_t
ngx_mail_policy_upstream_number(ngx_str_t *value, const char *name,
    ngx_int_t *n)
{
    size_t  len;

    len = ngx_strlen(name);

    if (ngx_strncmp(value->data, name, len) != 0) {
        return 0;
    }

    *n = ngx_atoi(value->data + len, value->len - len);

    return 1;
}


ngx_int_t
ngx_mail_policy_upstream_server_addrs(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_server_t *server)
{
    ngx_url_t  u;

    if (server->resolve
        && ngx_mail_policy_upstream_named(cf, server) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = server->name;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {

        if (u.err) {
            ngx_conf_log_error(server->resolve ? NGX_LOG_WARN : NGX_LOG_EMERG,
                               cf, 0, "%s in upstream \"%V\"%s", u.err, &u.url,
                               ngx_mail_policy_upstream_scheme(&u.url));
        }

        return server->resolve ? NGX_OK : NGX_ERROR;
    }

    server->addrs = u.addrs;
    server->naddrs = u.naddrs;

    return NGX_OK;
}


/* what is to be asked for; an address says all itself */

static ngx_int_t
ngx_mail_policy_upstream_named(ngx_conf_t *cf,
    ngx_mail_policy_server_t *server)
{
    ngx_url_t  u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = server->name;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in upstream \"%V\"%s",
                           u.err ? u.err : "no memory", &u.url,
                           ngx_mail_policy_upstream_scheme(&u.url));
        return NGX_ERROR;
    }

    if (u.naddrs) {
        server->resolve = 0;
        return NGX_OK;
    }

    server->host = u.host;
    server->port = u.port;

    return NGX_OK;
}


/* an address is no URL, as it is in http */

static const char *
ngx_mail_policy_upstream_scheme(ngx_str_t *url)
{
    return ngx_strnstr(url->data, "://", url->len)
           ? ", write the host and the port alone; TLS is for \"proxy_ssl\""
           : "";
}
