
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A worker's store: its beginning and its end, and what asks and lookups
 * share.  One event arrives here, "linger": a worker that shuts down waits
 * for timers only, and what is on its way to Redis has to arrive.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "mpol_text.h"
#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_LINGER   10     /* ms */
#define NGX_MAIL_POLICY_HURRY    500    /* ms behind worker_shutdown_timeout */


static void ngx_mail_policy_store_linger_handler(ngx_event_t *ev);
static ngx_int_t ngx_mail_policy_store_digest(ngx_str_t *key, u_char *out);


ngx_str_t  ngx_mail_policy_store_units[] = {
    ngx_string("messages"),
    ngx_string("recipients"),
    ngx_string("bytes"),
    ngx_string("connections"),
    ngx_string("sessions"),
    ngx_string("auth_failures")
};


ngx_uint_t
ngx_mail_policy_store_there(ngx_mail_policy_store_t *store, ngx_str_t *name)
{
    if (store->redis == NULL) {
        ngx_str_null(name);
        return 1;
    }

    *name = store->redis->name;

    return ngx_mail_policy_redis_there(store->redis);
}


ngx_int_t
ngx_mail_policy_store_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_store_t *store)
{
    /* the cache manager and its like ask nothing */

    if (store->redis == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    store->levels = ngx_mail_policy_levels_create(store, cycle->pool);
    if (store->levels == NULL) {
        return NGX_ERROR;
    }

    /* what the workers before this one counted may be waiting */

    if (store->on_error == NGX_MAIL_POLICY_ON_ERROR_LOCAL) {
        ngx_mail_policy_local_start(store);
    }

    return ngx_mail_policy_redis_init_process(store->redis, cycle);
}


void
ngx_mail_policy_store_exit_process(ngx_mail_policy_store_t *store)
{
    store->exiting = 1;

    if (store->levels) {
        ngx_mail_policy_levels_destroy(store->levels);
        ngx_mail_policy_string_stop(store);
        ngx_mail_policy_local_stop(store);
        ngx_mail_policy_redis_exit_process(store->redis);
    }
}


ngx_int_t
ngx_mail_policy_store_unique(ngx_pool_t *pool, ngx_str_t *id)
{
    static ngx_pid_t   pid;
    static uint32_t    worker[2];
    static ngx_uint_t  n;

    if (pid != ngx_pid) {

        if (RAND_bytes((u_char *) worker, sizeof(worker)) != 1) {
            ERR_clear_error();
            return NGX_ERROR;
        }

        pid = ngx_pid;
    }

    id->data = ngx_pnalloc(pool, 16 + 1 + NGX_INT_T_LEN);
    if (id->data == NULL) {
        return NGX_ERROR;
    }

    id->len = ngx_sprintf(id->data, "%08xD%08xD-%ui", worker[0], worker[1],
                          ++n)
              - id->data;

    return NGX_OK;
}


/* as in entry.lua */

ngx_uint_t
ngx_mail_policy_store_is_name(ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (name->len == 0 || name->len > NGX_MAIL_POLICY_NAME_MAX) {
        return 0;
    }

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9') || ch == '_' || ch == '-'))
        {
            return 0;
        }
    }

    return 1;
}


int
ngx_mail_policy_store_rate(ngx_uint_t unit, ngx_str_t *text,
    mpol_rate_t *rate)
{
    int       rc;
    unsigned  flags;

    flags = (unit == NGX_MAIL_POLICY_BYTES) ? MPOL_RATE_BYTES
            : (unit == NGX_MAIL_POLICY_SESSIONS) ? MPOL_RATE_SESSIONS
            : (unit == NGX_MAIL_POLICY_AUTH_FAILURES) ? MPOL_RATE_NO_BURST
            : 0;

    rc = mpol_rate_parse(text->data, text->len, flags, rate);

    if (rc == MPOL_OK && unit == NGX_MAIL_POLICY_SESSIONS) {
        rate->period = NGX_MAIL_POLICY_LEASE;
    }

    return rc;
}


/*
 * Nobody waits for these answers, but a charge that was given up is to be
 * given back when it comes; and a worker that shuts down waits for timers
 * only.
 */

void
ngx_mail_policy_store_linger(ngx_mail_policy_store_t *store)
{
    if (store->exiting || store->redis == NULL) {
        return;
    }

    store->linger.handler = ngx_mail_policy_store_linger_handler;
    store->linger.data = store;
    store->linger.log = ngx_cycle->log;
    store->linger_end = ngx_current_msec + store->redis->timeout;

    if (!store->linger.timer_set) {
        ngx_add_timer(&store->linger, NGX_MAIL_POLICY_LINGER);
    }
}


static void
ngx_mail_policy_store_linger_handler(ngx_event_t *ev)
{
    ngx_msec_t                hurry;
    ngx_mail_policy_store_t  *store = ev->data;

    hurry = store->redis->hurry;

    if (hurry && ngx_current_msec - hurry >= NGX_MAIL_POLICY_HURRY) {
        return;
    }

    if (ngx_mail_policy_redis_busy(store->redis)
        && (ngx_msec_int_t) (store->linger_end - ngx_current_msec) > 0)
    {
        ngx_add_timer(ev, NGX_MAIL_POLICY_LINGER);
    }
}


void
ngx_mail_policy_store_unanswered(ngx_mail_policy_store_t *store)
{
    if (store->redis && !store->exiting) {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_STORE_ERRORS, 1);
    }
}


/* neither the event nor the request will find its owner any more */

void
ngx_mail_policy_store_forget(ngx_event_t *ev,
    ngx_mail_policy_redis_request_t *request)
{
    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }

    if (request) {
        request->data = NULL;
    }
}


/*
 * <name>:{<key>}, the key escaped, or its digest if that is too long.  The
 * braces are the hash tag of a Redis Cluster; there are none in the key.
 */

ngx_int_t
ngx_mail_policy_store_id(ngx_pool_t *pool, ngx_mail_policy_charge_t *charge)
{
    u_char  *p, key[NGX_MAIL_POLICY_KEY_MAX];
    size_t   len;

    len = ngx_mail_policy_store_escape(&charge->key, key);
    if (len == 0) {
        return NGX_ERROR;
    }

    charge->id.len = charge->name.len + sizeof(":{}") - 1 + len;

    charge->id.data = ngx_pnalloc(pool, charge->id.len);
    if (charge->id.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(charge->id.data, charge->name.data, charge->name.len);
    *p++ = ':';
    *p++ = '{';
    p = ngx_cpymem(p, key, len);
    *p = '}';

    return NGX_OK;
}


size_t
ngx_mail_policy_store_escape(ngx_str_t *key, u_char *out)
{
    size_t  len;

    len = mpol_key_escape(key->data, key->len, out, NGX_MAIL_POLICY_KEY_MAX);

    if (len <= NGX_MAIL_POLICY_KEY_MAX) {
        return len;
    }

    if (ngx_mail_policy_store_digest(key, out) != NGX_OK) {
        return 0;
    }

    return sizeof("sha256-") - 1 + 64;
}


static ngx_int_t
ngx_mail_policy_store_digest(ngx_str_t *key, u_char *out)
{
    u_char      *p, *last, *end, part[256], md[EVP_MAX_MD_SIZE];
    EVP_MD_CTX  *ctx;
    ngx_int_t    rc;

    ctx = EVP_MD_CTX_new();
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        goto done;
    }

    p = key->data;
    last = key->data + key->len;

    while (p < last) {
        end = ngx_min(p + sizeof(part), last);

        ngx_strlow(part, p, end - p);

        if (EVP_DigestUpdate(ctx, part, end - p) != 1) {
            goto done;
        }

        p = end;
    }

    if (EVP_DigestFinal_ex(ctx, md, NULL) != 1) {
        goto done;
    }

    out = ngx_cpymem(out, "sha256-", sizeof("sha256-") - 1);
    (void) ngx_hex_dump(out, md, 32);

    rc = NGX_OK;

done:

    EVP_MD_CTX_free(ctx);

    return rc;
}
