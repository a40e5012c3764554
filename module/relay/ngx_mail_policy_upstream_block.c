
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The lines of "upstream name { ... }", and what they mean together.  No
 * events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


typedef struct {
    char          *name;
    char         *(*set)(ngx_conf_t *cf, ngx_mail_policy_upstream_t *upstream);
    ngx_uint_t     min;                 /* arguments, with the name */
    ngx_uint_t     max;                 /* 0: any number */
} ngx_mail_policy_upstream_line_t;


static char *ngx_mail_policy_upstream_least_conn(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_hash(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_random(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_health_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_keepalive(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_auth(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_resolver(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_resolver_timeout(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_zone(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_ip_hash(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_later(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static void ngx_mail_policy_upstream_method(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_method_e method);
static char *ngx_mail_policy_upstream_invalid(ngx_conf_t *cf,
    ngx_str_t *value);
static int ngx_libc_cdecl ngx_mail_policy_upstream_compare(const void *one,
    const void *two);


static ngx_mail_policy_upstream_line_t  ngx_mail_policy_upstream_lines[] = {
    { "server", ngx_mail_policy_upstream_server, 2, 0 },
    { "least_conn", ngx_mail_policy_upstream_least_conn, 1, 1 },
    { "hash", ngx_mail_policy_upstream_hash, 2, 3 },
    { "random", ngx_mail_policy_upstream_random, 1, 3 },
    { "health_check", ngx_mail_policy_upstream_health_check, 1, 0 },
    { "keepalive", ngx_mail_policy_upstream_keepalive, 1, 0 },
    { "keepalive_requests", ngx_mail_policy_upstream_keepalive, 1, 0 },
    { "keepalive_time", ngx_mail_policy_upstream_keepalive, 1, 0 },
    { "keepalive_timeout", ngx_mail_policy_upstream_keepalive, 1, 0 },
    { "proxy_auth", ngx_mail_policy_upstream_auth, 3, 3 },
    { "resolver", ngx_mail_policy_upstream_resolver, 2, 0 },
    { "resolver_timeout", ngx_mail_policy_upstream_resolver_timeout, 2, 2 },

    { "zone", ngx_mail_policy_upstream_zone, 1, 0 },
    { "ip_hash", ngx_mail_policy_upstream_ip_hash, 1, 0 },

    { "least_time", ngx_mail_policy_upstream_later, 1, 0 },
    { NULL, NULL, 0, 0 }
};


char *
ngx_mail_policy_upstream_entry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_upstream_t *upstream = conf;

    ngx_str_t                        *value;
    ngx_uint_t                        n;
    ngx_mail_policy_upstream_line_t  *line;

    n = cf->args->nelts;
    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "include") == 0 && n == 2) {
        return ngx_conf_include(cf, cmd, conf);
    }

    for (line = ngx_mail_policy_upstream_lines; line->name; line++) {

        if (ngx_strcmp(value[0].data, line->name) != 0) {
            continue;
        }

        if (n < line->min || (line->max && n > line->max)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"%V\" "
                               "directive", &value[0]);
            return NGX_CONF_ERROR;
        }

        return line->set(cf, upstream);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       ngx_strncmp(value[0].data, "proxy_", 6) == 0
                       ? "\"%V\" is not for an upstream, write it in the "
                         "server that has its \"proxy_pass\""
                       : "unknown directive \"%V\" in an upstream",
                       &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_least_conn(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_mail_policy_upstream_method(cf, upstream, NGX_MAIL_POLICY_LEAST_CONN);

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_upstream_hash(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t                *value;
    ngx_mail_policy_value_t  *key;

    value = cf->args->elts;

    if (cf->args->nelts == 3
        && ngx_strcmp(value[2].data, "consistent") != 0)
    {
        return ngx_mail_policy_upstream_invalid(cf, &value[2]);
    }

    key = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_value_t));

    if (key == NULL
        || ngx_mail_policy_value_compile(cf, &value[1], key) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_mail_policy_upstream_method(cf, upstream,
                                    cf->args->nelts == 3
                                    ? NGX_MAIL_POLICY_CONSISTENT
                                    : NGX_MAIL_POLICY_HASH);
    upstream->key = key;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_upstream_random(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (cf->args->nelts > 1 && ngx_strcmp(value[1].data, "two") != 0) {
        return ngx_mail_policy_upstream_invalid(cf, &value[1]);
    }

    if (cf->args->nelts > 2 && ngx_strcmp(value[2].data, "least_conn") != 0) {
        return ngx_mail_policy_upstream_invalid(cf, &value[2]);
    }

    ngx_mail_policy_upstream_method(cf, upstream,
                                    cf->args->nelts > 1
                                    ? NGX_MAIL_POLICY_RANDOM_TWO
                                    : NGX_MAIL_POLICY_RANDOM);
    return NGX_CONF_OK;
}


static void
ngx_mail_policy_upstream_method(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_method_e method)
{
    if (upstream->method != NGX_MAIL_POLICY_ROUND_ROBIN) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "load balancing method redefined");
    }

    upstream->method = method;
    upstream->key = NULL;
}


static char *
ngx_mail_policy_upstream_health_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    return ngx_mail_policy_health_directive(cf, &upstream->health);
}


static char *
ngx_mail_policy_upstream_keepalive(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    return ngx_mail_policy_keep_directive(cf, &upstream->keep);
}


static char *
ngx_mail_policy_upstream_auth(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    if (upstream->login) {
        return "is duplicate";
    }

    upstream->login = ngx_mail_policy_relay_login(cf);

    return upstream->login ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_resolver(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (upstream->resolver) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"resolver\" directive is duplicate");
        return NGX_CONF_ERROR;
    }

    upstream->resolver = ngx_resolver_create(cf, &value[1],
                                             cf->args->nelts - 1);

    return upstream->resolver ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_resolver_timeout(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_int_t   timeout;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (upstream->resolver_timeout) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"resolver_timeout\" directive is duplicate");
        return NGX_CONF_ERROR;
    }

    timeout = ngx_parse_time(&value[1], 0);

    if (timeout == NGX_ERROR || timeout == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is no time, write \"resolver_timeout "
                           "30s;\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    upstream->resolver_timeout = timeout;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_upstream_zone(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"zone\" is not needed, remove it: all workers share "
                       "what they know of the relays in any case");
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_ip_hash(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "no \"ip_hash\" here, write \"hash $client_net "
                       "consistent;\"");
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_later(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" in an upstream is not supported by this "
                       "version", &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_invalid(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);
    return NGX_CONF_ERROR;
}


/* methods may stand behind the servers */

ngx_int_t
ngx_mail_policy_upstream_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    const char                *parameter;
    ngx_uint_t                 i, n, primary, chosen;
    ngx_mail_policy_server_t  *server;

    chosen = (upstream->method != NGX_MAIL_POLICY_ROUND_ROBIN
              && upstream->method != NGX_MAIL_POLICY_LEAST_CONN);
    primary = 0;

    n = upstream->servers.nelts;
    server = upstream->servers.elts;

    for (i = 0; i < n; i++) {

        parameter = server[i].backup ? "backup"
                    : server[i].slow_start ? "slow_start" : NULL;

        if (chosen && parameter) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "balancing method does not support parameter "
                               "\"%s\" of server \"%V\"",
                               parameter, &server[i].name);
            return NGX_ERROR;
        }

        primary |= !server[i].backup;
    }

    if (!primary) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no servers are inside upstream \"%V\"%s",
                           &upstream->name,
                           n ? ", only backup servers" : "");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* a server has its points once, however many addresses its name has */

ngx_int_t
ngx_mail_policy_upstream_points(ngx_mail_policy_upstream_t *upstream,
    ngx_pool_t *pool)
{
    size_t                     n;
    ngx_uint_t                 i;
    mpol_point_t              *points;
    ngx_mail_policy_server_t  *server;

    if (upstream->method != NGX_MAIL_POLICY_CONSISTENT) {
        return NGX_OK;
    }

    n = 0;
    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {
        n += server[i].weight * MPOL_POINTS;
    }

    points = ngx_palloc(pool, n * sizeof(mpol_point_t));
    if (points == NULL) {
        return NGX_ERROR;
    }

    upstream->points = points;

    for (i = 0; i < upstream->servers.nelts; i++) {
        n = server[i].weight * MPOL_POINTS;

        mpol_points_make(points, n, i, server[i].name.data,
                         server[i].name.len);
        points += n;
    }

    n = points - upstream->points;

    ngx_qsort(upstream->points, n, sizeof(mpol_point_t),
              ngx_mail_policy_upstream_compare);

    upstream->npoints = mpol_points_unique(upstream->points, n);

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_mail_policy_upstream_compare(const void *one, const void *two)
{
    const mpol_point_t  *first = one;
    const mpol_point_t  *second = two;

    return (first->hash > second->hash) - (first->hash < second->hash);
}
