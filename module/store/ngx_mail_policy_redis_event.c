
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The stream "events".  No events of ours arrive here, and nobody waits for
 * the answer.  What Redis does not say it has written is counted as lost, when
 * the request ends.
 *
 *     XADD <prefix>events MAXLEN ~ <n> * <name> <value> ...
 *
 * What is to be said once has a key that says so; who made it speaks:
 *
 *     SET <prefix>warned:<id>:<unit> 1 PX <ms> NX -> OK -> XADD
 *                                                \-> nothing: it was said
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_redis_script.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_EVENT_WORD  256     /* octets of a value, at most */


typedef struct {
    ngx_mail_policy_store_t  *store;
    ngx_str_t                 id;
    ngx_str_t                *words;
    ngx_uint_t                n;
    ngx_mail_policy_told_pt   told;
    ngx_uint_t                data;
} ngx_mail_policy_redis_once_t;


static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_event_request(
    ngx_uint_t argc);
static void ngx_mail_policy_redis_event_end(void *data);
static ngx_int_t ngx_mail_policy_redis_event_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_mail_policy_redis_once_t *ngx_mail_policy_redis_once_copy(
    ngx_pool_t *pool, ngx_str_t *id, ngx_str_t *words, ngx_uint_t n);
static ngx_int_t ngx_mail_policy_redis_once_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);


void
ngx_mail_policy_store_event(ngx_mail_policy_store_t *store,
    ngx_str_t *words, ngx_uint_t n)
{
    u_char                            max[NGX_INT_T_LEN];
    u_char                            key[64 + sizeof("events")];
    ngx_str_t                        *argv;
    ngx_uint_t                        i;
    ngx_mail_policy_redis_t          *redis;
    ngx_mail_policy_redis_request_t  *request;

    redis = store->redis;

    if (redis == NULL || store->events == 0 || store->exiting) {
        return;
    }

    request = ngx_mail_policy_redis_event_request(6 + n);
    if (request == NULL) {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_EVENTS_LOST, 1);
        return;
    }

    argv = request->argv;

    ngx_str_set(&argv[0], "XADD");
    argv[1].data = key;
    argv[1].len = ngx_sprintf(key, "%Vevents", &redis->prefix) - key;
    ngx_str_set(&argv[2], "MAXLEN");
    ngx_str_set(&argv[3], "~");
    argv[4].data = max;
    argv[4].len = ngx_sprintf(max, "%ui", store->events) - max;
    ngx_str_set(&argv[5], "*");

    for (i = 0; i < n; i++) {
        argv[6 + i] = words[i];
        argv[6 + i].len = ngx_min(words[i].len, NGX_MAIL_POLICY_EVENT_WORD);
    }

    request->slot = ngx_mail_policy_redis_slot(redis, &argv[1]);

    if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return;
    }

    /* it is written, and not sent again: the words are not ours */

    request->argc = 0;
    request->argv = NULL;
}


static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_event_request(ngx_uint_t argc)
{
    ngx_pool_cleanup_t               *cln;
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_request(argc,
                                          ngx_mail_policy_redis_event_answer);
    if (request == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(request->pool, 0);
    if (cln == NULL) {
        ngx_mail_policy_redis_request_free(request);
        return NULL;
    }

    cln->handler = ngx_mail_policy_redis_event_end;
    cln->data = request;

    return request;
}


/* ctx is set when it is known to be written */

static void
ngx_mail_policy_redis_event_end(void *data)
{
    ngx_mail_policy_redis_request_t *request = data;

    if (request->ctx == NULL) {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_EVENTS_LOST, 1);
    }
}


static ngx_int_t
ngx_mail_policy_redis_event_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_str_t                 name;
    ngx_mail_policy_redis_t  *redis;

    if (reply->type == NGX_MAIL_POLICY_REDIS_STRING) {
        request->ctx = request;
        return NGX_OK;
    }

    /* other errors have been logged; the id is of no interest */

    if (ngx_mail_policy_redis_is_error(reply, "WRONGTYPE")) {
        redis = request->conn->redis;
        ngx_str_set(&name, "events");

        if (ngx_mail_policy_redis_may_warn(redis, &name)) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "policy events are not written: \"%Vevents\" in "
                          "Redis is not a stream, delete it", &redis->prefix);
        }
    }

    return (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) ? NGX_OK : NGX_ERROR;
}


void
ngx_mail_policy_store_event_once(ngx_mail_policy_store_t *store,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit, uint64_t msec,
    ngx_str_t *words, ngx_uint_t n, ngx_mail_policy_told_pt told,
    ngx_uint_t data)
{
    u_char                           *p;
    ngx_str_t                        *argv, *name;
    ngx_mail_policy_redis_t          *redis;
    ngx_mail_policy_redis_once_t     *once;
    ngx_mail_policy_redis_request_t  *request;

    redis = store->redis;

    if (redis == NULL || store->exiting) {
        return;
    }

    request = ngx_mail_policy_redis_request(6,
                                           ngx_mail_policy_redis_once_answer);
    if (request == NULL) {
        return;
    }

    name = &ngx_mail_policy_store_units[unit];

    once = ngx_mail_policy_redis_once_copy(request->pool, &charge->id, words,
                                           n);

    p = ngx_pnalloc(request->pool, redis->prefix.len + sizeof("warned::")
                                   + charge->id.len + name->len
                                   + NGX_INT64_LEN);

    if (once == NULL || p == NULL) {
        goto failed;
    }

    once->store = store;
    once->told = told;
    once->data = data;

    argv = request->argv;

    ngx_str_set(&argv[0], "SET");
    argv[1].data = p;
    p = ngx_sprintf(p, "%Vwarned:%V:%V", &redis->prefix, &charge->id, name);
    argv[1].len = p - argv[1].data;
    ngx_str_set(&argv[2], "1");
    ngx_str_set(&argv[3], "PX");
    argv[4].data = p;
    argv[4].len = ngx_sprintf(p, "%uL", msec) - p;
    ngx_str_set(&argv[5], "NX");

    request->slot = ngx_mail_policy_redis_slot(redis, &argv[1]);
    request->ctx = once;
    request->writes = 1;

    if (ngx_mail_policy_redis_send(redis, request) == NGX_OK) {
        ngx_mail_policy_store_linger(store);
        return;
    }

failed:

    ngx_mail_policy_redis_request_free(request);
}


/* whom they belong to may be gone when the answer comes */

static ngx_mail_policy_redis_once_t *
ngx_mail_policy_redis_once_copy(ngx_pool_t *pool, ngx_str_t *id,
    ngx_str_t *words, ngx_uint_t n)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_once_t  *once;

    once = ngx_palloc(pool, sizeof(ngx_mail_policy_redis_once_t));
    if (once == NULL) {
        return NULL;
    }

    once->words = ngx_palloc(pool, n * sizeof(ngx_str_t));
    if (once->words == NULL) {
        return NULL;
    }

    once->n = n;
    once->id.len = id->len;
    once->id.data = ngx_pstrdup(pool, id);

    if (once->id.data == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        once->words[i] = words[i];
        once->words[i].len = ngx_min(words[i].len,
                                     NGX_MAIL_POLICY_EVENT_WORD);
        once->words[i].data = ngx_pstrdup(pool, &once->words[i]);

        if (once->words[i].data == NULL) {
            return NULL;
        }
    }

    return once;
}


static ngx_int_t
ngx_mail_policy_redis_once_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_mail_policy_redis_once_t  *once;

    once = request->ctx;

    switch (reply->type) {

    case NGX_MAIL_POLICY_REDIS_STATUS:
        ngx_mail_policy_store_event(once->store, once->words, once->n);
        once->told(&once->id, once->words, once->n, once->data);
        return NGX_OK;

    case NGX_MAIL_POLICY_REDIS_NIL:
    case NGX_MAIL_POLICY_REDIS_ERROR:
        return NGX_OK;

    default:
        return NGX_ERROR;
    }
}
