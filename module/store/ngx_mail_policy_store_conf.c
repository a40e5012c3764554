
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives policy_zone, policy_redis and policy_redis_ssl_*.  No events
 * arrive here.
 *
 *     policy_redis  url...  [name=value]...  [cluster]
 *
 * No message shows a URL: there may be a password in it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/evp.h>

#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_ZONE_SIZE      (8 * 1024 * 1024)
#define NGX_MAIL_POLICY_ZONE_MIN       (256 * 1024)

/* some hundredths of a second */
#define NGX_MAIL_POLICY_SECRET_ITERATIONS  100000

typedef struct {
    ngx_str_t     name;                 /* "prefix=" */
    const char *(*set)(ngx_mail_policy_store_t *store, ngx_str_t *value);
} ngx_mail_policy_redis_param_t;


static ngx_int_t ngx_mail_policy_store_derive(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);
static ngx_int_t ngx_mail_policy_store_init_redis(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);
static ngx_uint_t ngx_mail_policy_redis_is_url(ngx_str_t *value);
static char *ngx_mail_policy_store_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf, char *(*set)(ngx_conf_t *cf, ngx_command_t *cmd, void *conf),
    size_t offset);
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
static const char *ngx_mail_policy_redis_set_cache(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_events(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_on_error(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_sentinel(
    ngx_mail_policy_store_t *store, ngx_str_t *value);
static const char *ngx_mail_policy_redis_set_cluster(
    ngx_mail_policy_store_t *store, ngx_str_t *value);


static ngx_mail_policy_redis_param_t  ngx_mail_policy_redis_params[] = {
    { ngx_string("prefix="), ngx_mail_policy_redis_set_prefix },
    { ngx_string("timeout="), ngx_mail_policy_redis_set_timeout },
    { ngx_string("connections="), ngx_mail_policy_redis_set_connections },
    { ngx_string("db="), ngx_mail_policy_redis_set_db },
    { ngx_string("cache="), ngx_mail_policy_redis_set_cache },
    { ngx_string("events="), ngx_mail_policy_redis_set_events },
    { ngx_string("on_error="), ngx_mail_policy_redis_set_on_error },
    { ngx_string("sentinel="), ngx_mail_policy_redis_set_sentinel },
    { ngx_string("cluster"), ngx_mail_policy_redis_set_cluster },
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
    ngx_mail_policy_store_t  *store;

    store = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_store_t));

    if (store) {
        store->ssl_verify = NGX_CONF_UNSET;
    }

    return store;
}


ngx_int_t
ngx_mail_policy_store_init(ngx_conf_t *cf, ngx_mail_policy_store_t *store)
{
    if (store->zone_size == 0) {
        store->zone_size = NGX_MAIL_POLICY_ZONE_SIZE;
    }

    if (ngx_mail_policy_store_init_redis(cf, store) != NGX_OK) {
        return NGX_ERROR;
    }

    store->shm = ngx_mail_policy_shm_add(cf, store->zone_size,
                                         &ngx_mail_policy_module);
    return store->shm ? NGX_OK : NGX_ERROR;
}


/*
 * Edges that share a Redis share its password.  What is made of the secret is
 * seen by clients (salts of SCRAM), who could try passwords against it.
 */

static ngx_int_t
ngx_mail_policy_store_derive(ngx_conf_t *cf, ngx_mail_policy_store_t *store)
{
    ngx_str_t  *password;

    password = &store->redis->password;

    if (password->len == 0) {
        return NGX_OK;
    }

    if (PKCS5_PBKDF2_HMAC((char *) password->data, password->len,
                          (u_char *) "mail_policy", sizeof("mail_policy") - 1,
                          NGX_MAIL_POLICY_SECRET_ITERATIONS, EVP_sha256(),
                          sizeof(store->secret), store->secret)
        != 1)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "no secret could be made of the password of Redis");
        return NGX_ERROR;
    }

    return NGX_OK;
}


u_char *
ngx_mail_policy_store_secret(ngx_mail_policy_store_t *store)
{
    return (store->redis && store->redis->password.len)
           ? store->secret : ngx_mail_policy_shm_secret(store->shm);
}


static ngx_int_t
ngx_mail_policy_store_init_redis(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store)
{
    ngx_mail_policy_redis_t  *redis;

    redis = store->redis;

    if (redis == NULL) {
        return NGX_OK;
    }

    ngx_conf_init_value(store->ssl_verify, 1);

    redis->ssl_verify = store->ssl_verify;
    redis->ssl_trusted = store->ssl_trusted_certificate;
    redis->ssl_name = store->ssl_name;

    if (ngx_mail_policy_store_derive(cf, store) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_mail_policy_redis_ssl_init(cf, redis);
}


ngx_uint_t
ngx_mail_policy_store_has_records(ngx_mail_policy_store_t *store)
{
    return store->redis != NULL;
}


ngx_str_t *
ngx_mail_policy_store_prefix(ngx_mail_policy_store_t *store)
{
    return store->redis ? &store->redis->prefix : NULL;
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
    ngx_uint_t                i, n, seen;
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
    store->cache = 2000;
    store->events = 10000;

    value = cf->args->elts;

    /* what URLs may be depends on the parameters, which are behind them */

    for (n = 1; n + 1 < cf->args->nelts; n++) {
        if (!ngx_mail_policy_redis_is_url(&value[n + 1])) {
            break;
        }
    }

    for (i = n + 1, seen = 0; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_redis_param(cf, store, &value[i], &seen)
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    text = ngx_mail_policy_redis_urls(cf, redis, &value[1], n);

    if (text) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid URL in \"policy_redis\": %s", text);
        return NGX_CONF_ERROR;
    }

    redis->meanwhile =
                  ngx_mail_policy_redis_on_error[store->on_error].meanwhile;

    return NGX_CONF_OK;
}


/* or something with a password in it that was meant to be one */

static ngx_uint_t
ngx_mail_policy_redis_is_url(ngx_str_t *value)
{
    return ngx_strlchr(value->data, value->data + value->len, '@') != NULL
           || ngx_strnstr(value->data, ":/", value->len) != NULL;
}


char *
ngx_mail_policy_redis_ssl_verify(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    return ngx_mail_policy_store_set(cf, cmd, conf, ngx_conf_set_flag_slot,
                               offsetof(ngx_mail_policy_store_t, ssl_verify));
}


char *
ngx_mail_policy_redis_ssl_trusted_certificate(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf)
{
    return ngx_mail_policy_store_set(cf, cmd, conf, ngx_conf_set_str_slot,
                  offsetof(ngx_mail_policy_store_t, ssl_trusted_certificate));
}


char *
ngx_mail_policy_redis_ssl_name(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_mail_policy_store_set(cf, cmd, conf, ngx_conf_set_str_slot,
                                 offsetof(ngx_mail_policy_store_t, ssl_name));
}


static char *
ngx_mail_policy_store_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf,
    char *(*set)(ngx_conf_t *cf, ngx_command_t *cmd, void *conf),
    size_t offset)
{
    ngx_command_t             to;
    ngx_mail_policy_store_t  *store;

    store = *(ngx_mail_policy_store_t **) ((u_char *) conf + cmd->offset);

    to = *cmd;
    to.offset = offset;

    return set(cf, &to, store);
}


static char *
ngx_mail_policy_redis_param(ngx_conf_t *cf, ngx_mail_policy_store_t *store,
    ngx_str_t *value, ngx_uint_t *seen)
{
    ngx_str_t                       rest;
    ngx_uint_t                      i;
    const char                     *text;
    ngx_mail_policy_redis_param_t  *param;

    if (ngx_mail_policy_redis_is_url(value)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a parameter of \"policy_redis\" stands in front "
                           "of a URL, write the URLs first");
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
                           "write prefix=, timeout=, connections=, db=, "
                           "sentinel=, cluster, cache=, events= or on_error=",
                           value);
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
    store->redis->db_set = 1;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_cache(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    ngx_int_t  cache;

    cache = ngx_parse_time(value, 0);

    if (cache == NGX_ERROR || cache > 3600000) {
        return "write how long entries of domains, defaults and plans are "
               "remembered, at most an hour, as \"cache=2s\"";
    }

    store->cache = cache;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_events(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n == NGX_ERROR || n > 10000000) {
        return "write how many events are kept, or 0 for none, as "
               "\"events=10000\"";
    }

    store->events = n;

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
ngx_mail_policy_redis_set_sentinel(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] <= ' ' || value->data[i] > '~') {
            break;
        }
    }

    if (i < value->len || value->len == 0 || value->len > 64) {
        return "write the name that the Sentinels have for the master, as "
               "\"sentinel=mymaster\"";
    }

    store->redis->sentinel = *value;

    return NULL;
}


static const char *
ngx_mail_policy_redis_set_cluster(ngx_mail_policy_store_t *store,
    ngx_str_t *value)
{
    if (value->len) {
        return "write \"cluster\"";
    }

    store->redis->cluster = 1;

    return NULL;
}
