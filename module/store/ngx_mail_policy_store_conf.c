
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives policy_zone and policy_redis.  No events arrive here.
 *
 *     policy_redis  redis://[user:password@]host[:port][/db]  [name=value]...
 *     policy_redis  unix:/path  [db=number]  [name=value]...
 *
 * No message shows the URL: there may be a password in it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_ZONE_SIZE      (8 * 1024 * 1024)
#define NGX_MAIL_POLICY_ZONE_MIN       (256 * 1024)

#define NGX_MAIL_POLICY_REDIS_PORT     6379

#define NGX_MAIL_POLICY_REDIS_FORM                                           \
    "write \"redis://[user:password@]host[:port][/db]\" or \"unix:/path\""


typedef struct {
    ngx_str_t     name;                 /* "prefix=" */
    const char *(*set)(ngx_mail_policy_store_t *store, ngx_str_t *value);
} ngx_mail_policy_redis_param_t;


static const char *ngx_mail_policy_redis_url(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, ngx_str_t *url);
static const char *ngx_mail_policy_redis_userinfo(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, u_char *p, u_char *last);
static ngx_int_t ngx_mail_policy_redis_unescape(ngx_pool_t *pool,
    ngx_str_t *out, u_char *p, u_char *last);
static char *ngx_mail_policy_redis_param(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store, ngx_str_t *value, ngx_uint_t *seen);
static const char *ngx_mail_policy_redis_set_prefix(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_timeout(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_connections(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_db(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_on_error(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_later(
    ngx_mail_policy_store_t *store, ngx_str_t *value);


static ngx_mail_policy_redis_param_t  ngx_mail_policy_redis_params[] = {
    { ngx_string("prefix="), ngx_mail_policy_redis_set_prefix },
    { ngx_string("timeout="), ngx_mail_policy_redis_set_timeout },
    { ngx_string("connections="), ngx_mail_policy_redis_set_connections },
    { ngx_string("db="), ngx_mail_policy_redis_set_db },
    { ngx_string("on_error="), ngx_mail_policy_redis_set_on_error },
    { ngx_string("sentinel="), ngx_mail_policy_redis_set_later },
    { ngx_string("cluster"), ngx_mail_policy_redis_set_later },
    { ngx_null_string, NULL }
};


static const struct {
    ngx_str_t    name;
    const char  *meanwhile;
} ngx_mail_policy_redis_on_error[] = {
    { ngx_string("local"), "counting goes on locally" },
    { ngx_string("open"), "nothing is limited" },
    { ngx_string("closed"), "mail that is limited is deferred" }
};


ngx_mail_policy_store_t *
ngx_mail_policy_store_create(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_store_t));
}


ngx_int_t
ngx_mail_policy_store_init(ngx_conf_t *cf, ngx_mail_policy_store_t *store)
{
    if (store->zone_size == 0) {
        store->zone_size = NGX_MAIL_POLICY_ZONE_SIZE;
    }

    store->shm = ngx_mail_policy_shm_add(cf, store->zone_size,
                                         &ngx_mail_policy_module);

    return store->shm ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_mail_policy_store_has_records(ngx_mail_policy_store_t *store)
{
    return store->redis != NULL;
}


char *
ngx_mail_policy_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ssize_t                    size;
    ngx_str_t                 *value;
    ngx_mail_policy_store_t   *store;

    store = *(ngx_mail_policy_store_t **) ((u_char *) conf + cmd->offset);

    if (store->zone_size) {
        return "is duplicate";
    }

    value = cf->args->elts;

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is no size, write \"policy_zone 8m\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < NGX_MAIL_POLICY_ZONE_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is too small, write at least "
                           "\"policy_zone %uzk\"", &value[1],
                           (size_t) NGX_MAIL_POLICY_ZONE_MIN / 1024);
        return NGX_CONF_ERROR;
    }

    store->zone_size = size;

    return NGX_CONF_OK;
}


char *
ngx_mail_policy_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                *value;
    ngx_uint_t                i, seen;
    const char               *text;
    ngx_mail_policy_redis_t  *redis;
    ngx_mail_policy_store_t  *store;

    store = *(ngx_mail_policy_store_t **) ((u_char *) conf + cmd->offset);

    if (store->redis) {
        return "is duplicate";
    }

    redis = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_redis_t));
    if (redis == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_set(&redis->prefix, "mail:");
    redis->timeout = 200;
    redis->nconns = 2;

    store->redis = redis;
    store->on_error = NGX_MAIL_POLICY_ON_ERROR_LOCAL;

    value = cf->args->elts;

    for (i = 2, seen = 0; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_redis_param(cf, store, &value[i], &seen)
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    text = ngx_mail_policy_redis_url(cf, redis, &value[1]);

    if (text) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL in \"policy_redis\": %s", text);
        return NGX_CONF_ERROR;
    }

    redis->meanwhile =
                  ngx_mail_policy_redis_on_error[store->on_error].meanwhile;

    return NGX_CONF_OK;
}


/* NULL, or what is wrong */

static const char *
ngx_mail_policy_redis_url(ngx_conf_t *cf, ngx_mail_policy_redis_t *redis,
    ngx_str_t *url)
{
    u_char      *p, *at, *last, *slash;
    ngx_int_t    n;
    ngx_url_t    u;
    const char  *text;

    ngx_memzero(&u, sizeof(ngx_url_t));

    p = url->data;
    last = url->data + url->len;

    if (url->len > 6 && ngx_strncasecmp(p, (u_char *) "unix:/", 6) == 0) {

        u.url = *url;

    } else if (url->len > 8
               && ngx_strncasecmp(p, (u_char *) "redis://", 8) == 0)
    {
        p += 8;

        slash = ngx_strlchr(p, last, '/');

        if (slash) {
            n = (last - slash == 1) ? 0
                                    : ngx_atoi(slash + 1, last - slash - 1);

            if (n == NGX_ERROR) {
                return "what follows the host is no database number, "
                       NGX_MAIL_POLICY_REDIS_FORM ", and \"%2F\" for a \"/\" "
                       "in the password";
            }

            if (redis->db) {
                return "the database is set twice, leave out \"db=\"";
            }

            redis->db = n;
            last = slash;
        }

        for (at = last; at > p && at[-1] != '@'; at--) { /* void */ }

        if (at > p) {
            text = ngx_mail_policy_redis_userinfo(cf, redis, p, at - 1);
            if (text) {
                return text;
            }
        }

        u.url.data = at;
        u.url.len = last - at;

    } else if (url->len > 9
               && ngx_strncasecmp(p, (u_char *) "rediss://", 9) == 0)
    {
        return "TLS is not supported by this version, write \"redis://...\"";

    } else {
        return NGX_MAIL_POLICY_REDIS_FORM;
    }

    u.default_port = NGX_MAIL_POLICY_REDIS_PORT;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {

        p = ngx_pnalloc(cf->pool, 256);
        if (p == NULL) {
            return "no memory";
        }

        (void) ngx_snprintf(p, 256, "%s, " NGX_MAIL_POLICY_REDIS_FORM "%Z",
                            u.err ? u.err : "no address");

        return (char *) p;
    }

    redis->addrs = u.addrs;
    redis->naddrs = u.naddrs;

    redis->name.data = ngx_pnalloc(cf->pool, url->len + sizeof(" db=")
                                             + NGX_INT_T_LEN);
    if (redis->name.data == NULL) {
        return "no memory";
    }

    p = ngx_sprintf(redis->name.data, "%s%V",
                    (u.family == AF_UNIX) ? "" : "redis://", &u.url);

    if (redis->db) {
        p = ngx_sprintf(p, (u.family == AF_UNIX) ? " db=%ui" : "/%ui",
                        redis->db);
    }

    redis->name.len = p - redis->name.data;

    return NULL;
}


static const char *
ngx_mail_policy_redis_userinfo(ngx_conf_t *cf, ngx_mail_policy_redis_t *redis,
    u_char *p, u_char *last)
{
    u_char  *colon;

    colon = ngx_strlchr(p, last, ':');

    if (colon == NULL) {
        return "is it a user or a password before the \"@\"? write "
               "\"redis://user:password@...\" or \"redis://:password@...\"";
    }

    if (ngx_mail_policy_redis_unescape(cf->pool, &redis->user, p, colon)
        != NGX_OK
        || ngx_mail_policy_redis_unescape(cf->pool, &redis->password,
                                          colon + 1, last)
           != NGX_OK)
    {
        return "a \"%\" in user and password begins two hexadecimal digits, "
               "write \"%25\" for itself";
    }

    if (redis->password.len == 0) {
        return "the password is empty, write \"redis://host...\" for none";
    }

    return NULL;
}


/* the result is NUL-terminated, too */

static ngx_int_t
ngx_mail_policy_redis_unescape(ngx_pool_t *pool, ngx_str_t *out, u_char *p,
    u_char *last)
{
    u_char     *dst;
    ngx_int_t   n;

    out->data = ngx_pnalloc(pool, last - p + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    for (dst = out->data; p < last; p++) {

        if (*p != '%') {
            *dst++ = *p;
            continue;
        }

        if (last - p < 3) {
            return NGX_ERROR;
        }

        n = ngx_hextoi(p + 1, 2);

        if (n == NGX_ERROR || n == 0) {
            return NGX_ERROR;
        }

        *dst++ = (u_char) n;
        p += 2;
    }

    *dst = '\0';
    out->len = dst - out->data;

    return NGX_OK;
}


static char *
ngx_mail_policy_redis_param(ngx_conf_t *cf, ngx_mail_policy_store_t *store,
    ngx_str_t *value, ngx_uint_t *seen)
{
    ngx_str_t                       rest;
    ngx_uint_t                      i;
    const char                     *text;
    ngx_mail_policy_redis_param_t  *param;

    if (ngx_strlchr(value->data, value->data + value->len, '@')
        || ngx_strnstr(value->data, ":/", value->len))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "several servers in \"policy_redis\" are not "
                           "supported by this version, write one URL");
        return NGX_CONF_ERROR;
    }

    param = ngx_mail_policy_redis_params;

    for (i = 0; param[i].name.len; i++) {

        if (value->len >= param[i].name.len
            && ngx_strncmp(value->data, param[i].name.data,
                           param[i].name.len)
               == 0)
        {
            break;
        }
    }

    if (param[i].name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown parameter \"%V\" of \"policy_redis\", "
                           "write prefix=, timeout=, connections=, on_error= "
                           "or db=", value);
        return NGX_CONF_ERROR;
    }

    if (*seen & ((ngx_uint_t) 1 << i)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is set twice in \"policy_redis\", "
                           "write it once", &param[i].name);
        return NGX_CONF_ERROR;
    }

    *seen |= (ngx_uint_t) 1 << i;

    rest.data = value->data + param[i].name.len;
    rest.len = value->len - param[i].name.len;

    text = param[i].set(store, &rest);

    if (text) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of \"policy_redis\": %s",
                           value, text);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static const char *
ngx_mail_policy_redis_set_prefix(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] <= ' ' || value->data[i] > '~'
            || value->data[i] == '{' || value->data[i] == '}')
        {
            break;
        }
    }

    /* a brace would make it, and not the key, the hash tag of all keys */

    if (i < value->len || value->len > 64) {
        return "write at most 64 printable characters without \"{\" and "
               "\"}\", as \"prefix=mail:\"";
    }

    store->redis->prefix = *value;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_timeout(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    ngx_int_t  timeout;

    timeout = ngx_parse_time(value, 0);

    if (timeout == NGX_ERROR || timeout < 10 || timeout > 10000) {
        return "write a time between 10ms and 10s, as \"timeout=200ms\"";
    }

    store->redis->timeout = timeout;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_connections(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n == NGX_ERROR || n < 1 || n > 64) {
        return "write how many a worker opens, 1 to 64, as \"connections=2\"";
    }

    store->redis->nconns = n;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_db(ngx_mail_policy_store_t *store, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n == NGX_ERROR) {
        return "write the number of a database, as \"db=0\"";
    }

    store->redis->db = n;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_on_error(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    ngx_uint_t  i;

    for (i = 0; i <= NGX_MAIL_POLICY_ON_ERROR_CLOSED; i++) {

        if (value->len == ngx_mail_policy_redis_on_error[i].name.len
            && ngx_strncmp(value->data,
                           ngx_mail_policy_redis_on_error[i].name.data,
                           value->len)
               == 0)
        {
            store->on_error = i;
            return NULL;
        }
    }

    return "write \"on_error=local\", \"on_error=open\" or "
           "\"on_error=closed\"";
}


static const char *
ngx_mail_policy_redis_set_later(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    (void) store;
    (void) value;

    return "it is not supported by this version, write the URL of one Redis";
}
