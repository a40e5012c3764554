
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Asks and lookups: their lives, and what is answered when Redis does not.
 *
 *     created -> sent --answer of Redis-----------> answered -> handler
 *                  |--no answer in time, lost--\        ^
 *                  \--shared memory, away------ on_error
 *
 * Events: one event each, "event".  As a timer it is the deadline; posted, it
 * calls the handler.  So the handler always runs from the event loop and
 * never from within send(), nor from within the connection to Redis.
 *
 * The deadline is not cancelable: a session that waits for an answer may
 * have no other timer, and a worker that shuts down has to wait for it.
 *
 * An ask is freed by its owner's keep, give_back or cancel, a lookup by done
 * or cancel, and nowhere else.  The request to Redis has a life of its own
 * and is only told that nobody waits any more.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/evp.h>

#include "mpol_text.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_KEY_MAX  128    /* longer ones are hashed */
#define NGX_MAIL_POLICY_LINGER   10     /* ms */
#define NGX_MAIL_POLICY_HURRY    500    /* ms behind worker_shutdown_timeout */


static void ngx_mail_policy_ask_done(void *data, ngx_int_t rc);
static void ngx_mail_policy_ask_on_error(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_local(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_open(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_answer(ngx_mail_policy_ask_t *ask,
    ngx_int_t rc);
static void ngx_mail_policy_ask_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_ask_free(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_store_linger(ngx_mail_policy_store_t *store);
static void ngx_mail_policy_store_linger_handler(ngx_event_t *ev);
static void ngx_mail_policy_lookup_finish(void *data, ngx_int_t rc);
static void ngx_mail_policy_lookup_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_lookup_free(ngx_mail_policy_lookup_t *lookup);
static void ngx_mail_policy_store_forget(ngx_event_t *ev, void *request);
static ngx_int_t ngx_mail_policy_store_id(ngx_pool_t *pool,
    ngx_mail_policy_charge_t *charge);
static ngx_int_t ngx_mail_policy_store_digest(ngx_str_t *key, u_char *out);


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

    return ngx_mail_policy_redis_init_process(store->redis, cycle);
}


void
ngx_mail_policy_store_exit_process(ngx_mail_policy_store_t *store)
{
    store->exiting = 1;

    if (store->redis) {
        ngx_mail_policy_redis_exit_process(store->redis);
    }
}


ngx_mail_policy_ask_t *
ngx_mail_policy_ask_create(ngx_mail_policy_store_t *store,
    ngx_uint_t ncharges, ngx_mail_policy_ask_pt handler, void *data)
{
    ngx_pool_t             *pool;
    ngx_mail_policy_ask_t  *ask;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    ask = ngx_pcalloc(pool, sizeof(ngx_mail_policy_ask_t));
    if (ask == NULL) {
        goto failed;
    }

    ask->charges = ngx_pcalloc(pool,
                               ncharges * sizeof(ngx_mail_policy_charge_t));
    if (ask->charges == NULL) {
        goto failed;
    }

    ask->pool = pool;
    ask->ncharges = ncharges;
    ask->handler = handler;
    ask->data = data;
    ask->store = store;

    ask->event.handler = ngx_mail_policy_ask_event_handler;
    ask->event.data = ask;
    ask->event.log = ngx_cycle->log;

    return ask;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                i;
    ngx_mail_policy_store_t  *store;

    ask->sent = 1;

    store = ask->store;

    for (i = 0; i < ask->ncharges; i++) {
        if (ngx_mail_policy_store_id(ask->pool, &ask->charges[i]) != NGX_OK) {
            ngx_mail_policy_ask_answer(ask, NGX_ERROR);
            return;
        }
    }

    if (ask->ncharges == 0) {
        ask->at = ngx_mail_policy_shm_now();
        ngx_mail_policy_ask_answer(ask, NGX_OK);
        return;
    }

    if (store->redis == NULL) {
        ngx_mail_policy_ask_local(ask);
        return;
    }

    if (ngx_mail_policy_redis_charge(store->redis, ask,
                                     ngx_mail_policy_ask_done)
        != NGX_OK)
    {
        ngx_mail_policy_ask_on_error(ask);
        return;
    }

    ngx_add_timer(&ask->event, store->redis->timeout);
}


/* Redis has answered, or will not */

static void
ngx_mail_policy_ask_done(void *data, ngx_int_t rc)
{
    ngx_mail_policy_ask_t *ask = data;

    ask->request = NULL;

    if (rc == NGX_ERROR) {
        ngx_mail_policy_ask_on_error(ask);
        return;
    }

    ngx_mail_policy_ask_answer(ask, rc);
}


static void
ngx_mail_policy_ask_on_error(ngx_mail_policy_ask_t *ask)
{
    if (ask->store->exiting) {
        ngx_mail_policy_ask_answer(ask, NGX_ERROR);
        return;
    }

    switch (ask->store->on_error) {

    case NGX_MAIL_POLICY_ON_ERROR_LOCAL:
        ngx_mail_policy_ask_local(ask);
        break;

    case NGX_MAIL_POLICY_ON_ERROR_OPEN:
        ngx_mail_policy_ask_open(ask);
        break;

    default: /* NGX_MAIL_POLICY_ON_ERROR_CLOSED */
        ngx_mail_policy_ask_answer(ask, NGX_ERROR);
    }
}


static void
ngx_mail_policy_ask_local(ngx_mail_policy_ask_t *ask)
{
    ngx_int_t  rc;

    ask->local = 1;

    rc = ngx_mail_policy_shm_charge(ask->store->shm, ask->charges,
                                    ask->ncharges, &ask->at);

    ngx_mail_policy_ask_answer(ask, rc);
}


static void
ngx_mail_policy_ask_open(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t        i, u;
    mpol_decision_t  *decision;

    ask->open = 1;
    ask->at = ngx_mail_policy_shm_now();

    for (i = 0; i < ask->ncharges; i++) {
        for (u = 0; u < ask->charges[i].nunits; u++) {
            decision = &ask->charges[i].units[u].decision;

            decision->used = 0;
            decision->remaining = MPOL_NEVER;
            decision->retry = 0;
            decision->fits = 1;
        }
    }

    ngx_mail_policy_ask_answer(ask, NGX_OK);
}


static void
ngx_mail_policy_ask_answer(ngx_mail_policy_ask_t *ask, ngx_int_t rc)
{
    ask->rc = rc;
    ask->answered = 1;

    if (ask->event.timer_set) {
        ngx_del_timer(&ask->event);
    }

    if (!ask->store->exiting) {
        ngx_post_event(&ask->event, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_ask_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_ask_t            *ask;
    ngx_mail_policy_redis_request_t  *request;

    ask = ev->data;

    if (!ask->answered) {
        request = ask->request;

        /* all who wait on this connection are answered and posted, we, too */
        ngx_mail_policy_redis_slow(request->conn);
        return;
    }

    ask->handler(ask->data, ask);
}


void
ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_ask_free(ask);
}


void
ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask)
{
    if (ask->answered && ask->rc == NGX_OK && !ask->open && ask->ncharges) {

        if (ask->local) {
            ngx_mail_policy_shm_give_back(ask->store->shm, ask->charges,
                                          ask->ncharges, ask->at);

        } else {
            ngx_mail_policy_redis_give_back(ask->store->redis, ask->charges,
                                            ask->ncharges, ask->at);
            ngx_mail_policy_store_linger(ask->store);
        }
    }

    if (ask->request) {
        ngx_mail_policy_store_linger(ask->store);
    }

    ngx_mail_policy_ask_free(ask);
}


/*
 * An answer may be there already, posted.  If it is still to come, the
 * request gives back by itself what it finds charged.
 */

void
ngx_mail_policy_ask_cancel(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_ask_give_back(ask);
}


static void
ngx_mail_policy_ask_free(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_store_forget(&ask->event, ask->request);

    ngx_destroy_pool(ask->pool);
}


/*
 * Nobody waits for these answers, but a charge that was given up is to be
 * given back when it comes; and a worker that shuts down waits for timers
 * only.
 */

static void
ngx_mail_policy_store_linger(ngx_mail_policy_store_t *store)
{
    if (store->exiting) {
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


ngx_mail_policy_lookup_t *
ngx_mail_policy_lookup_create(ngx_mail_policy_store_t *store,
    ngx_uint_t nfields, ngx_mail_policy_lookup_pt handler, void *data)
{
    ngx_pool_t                *pool;
    ngx_mail_policy_lookup_t  *lookup;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    lookup = ngx_pcalloc(pool, sizeof(ngx_mail_policy_lookup_t));
    if (lookup == NULL) {
        goto failed;
    }

    lookup->fields = ngx_pcalloc(pool, 2 * nfields * sizeof(ngx_str_t));
    if (lookup->fields == NULL) {
        goto failed;
    }

    lookup->values = lookup->fields + nfields;

    lookup->pool = pool;
    lookup->nfields = nfields;
    lookup->handler = handler;
    lookup->data = data;
    lookup->store = store;

    lookup->event.handler = ngx_mail_policy_lookup_event_handler;
    lookup->event.data = lookup;
    lookup->event.log = ngx_cycle->log;

    return lookup;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_lookup_send(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_redis_t  *redis;

    lookup->sent = 1;

    redis = lookup->store->redis;

    if (redis == NULL
        || ngx_mail_policy_redis_lookup(redis, lookup,
                                        ngx_mail_policy_lookup_finish)
           != NGX_OK)
    {
        ngx_mail_policy_lookup_finish(lookup, NGX_ERROR);
        return;
    }

    ngx_add_timer(&lookup->event, redis->timeout);
}


static void
ngx_mail_policy_lookup_finish(void *data, ngx_int_t rc)
{
    ngx_mail_policy_lookup_t *lookup = data;

    lookup->request = NULL;
    lookup->rc = rc;

    if (lookup->event.timer_set) {
        ngx_del_timer(&lookup->event);
    }

    if (!lookup->store->exiting) {
        ngx_post_event(&lookup->event, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_lookup_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_lookup_t         *lookup;
    ngx_mail_policy_redis_request_t  *request;

    lookup = ev->data;
    request = lookup->request;

    if (request) {
        ngx_mail_policy_redis_slow(request->conn);
        return;
    }

    lookup->handler(lookup->data, lookup);
}


void
ngx_mail_policy_lookup_done(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_lookup_free(lookup);
}


void
ngx_mail_policy_lookup_cancel(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_lookup_free(lookup);
}


static void
ngx_mail_policy_lookup_free(ngx_mail_policy_lookup_t *lookup)
{
    ngx_uint_t  i;

    ngx_mail_policy_store_forget(&lookup->event, lookup->request);

    for (i = 0; i < lookup->nfields; i++) {
        if (lookup->values[i].data) {
            ngx_explicit_memzero(lookup->values[i].data,
                                 lookup->values[i].len);
        }
    }

    ngx_destroy_pool(lookup->pool);
}


/* neither the event nor the request will find its owner any more */

static void
ngx_mail_policy_store_forget(ngx_event_t *ev, void *request)
{
    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }

    if (request) {
        ((ngx_mail_policy_redis_request_t *) request)->data = NULL;
    }
}


/*
 * <name>:{<key>}, the key escaped, or its digest if that is too long.  The
 * braces are the hash tag of a Redis Cluster; there are none in the key.
 */

static ngx_int_t
ngx_mail_policy_store_id(ngx_pool_t *pool, ngx_mail_policy_charge_t *charge)
{
    u_char  *p, key[NGX_MAIL_POLICY_KEY_MAX];
    size_t   len;

    len = mpol_key_escape(charge->key.data, charge->key.len, key,
                          sizeof(key));

    if (len > sizeof(key)) {
        if (ngx_mail_policy_store_digest(&charge->key, key) != NGX_OK) {
            return NGX_ERROR;
        }

        len = sizeof("sha256-") - 1 + 64;
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
