
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What was counted in shared memory while Redis was away is added there when
 * it is back, so that an outage grants nobody a second budget: some keys at a
 * time, and those that are asked for in front of the question.  Any worker
 * that reaches Redis does it, for all of the machine.
 *
 *     counted locally -> taken -> on its way -> there
 *              ^                   |      ^
 *              |                   v      | sent again
 *              \-- too long ------ lost --/
 *
 * A connection that is lost does not say whether Redis has done what was sent
 * on it, so it is sent again as it was, with an id by which the script knows
 * it.  Shared memory takes it for told meanwhile.
 *
 * Event: a timer of the worker, as long as anything waits.  It is cancelable:
 * the workers that follow find what is left.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_LOCAL_DELAY  100    /* ms */
#define NGX_MAIL_POLICY_LOCAL_KEYS   64     /* on their way at a time */
#define NGX_MAIL_POLICY_LOCAL_TRIES  16     /* of servers that are away */

/* seconds that it is sent again; the script knows the id for 600 */
#define NGX_MAIL_POLICY_LOCAL_AGAIN  500


typedef struct {
    ngx_queue_t                   queue;    /* of those to be sent again */
    ngx_pool_t                   *pool;
    ngx_mail_policy_store_t      *store;
    ngx_mail_policy_shm_local_t   local;
    ngx_str_t                     id;
    time_t                        since;
    unsigned                      lost:1;   /* once, at least */
} ngx_mail_policy_local_t;


static void ngx_mail_policy_local_handler(ngx_event_t *ev);
static void ngx_mail_policy_local_again(ngx_mail_policy_store_t *store);
static ngx_int_t ngx_mail_policy_local_next(ngx_mail_policy_store_t *store,
    ngx_str_t *id);
static ngx_uint_t ngx_mail_policy_local_empty(ngx_mail_policy_local_t *l);
static void ngx_mail_policy_local_send(ngx_mail_policy_local_t *l);
static void ngx_mail_policy_local_done(void *data, ngx_int_t rc);
static void ngx_mail_policy_local_put_back(ngx_mail_policy_local_t *l);


void
ngx_mail_policy_local_start(ngx_mail_policy_store_t *store)
{
    if (store->local.timer_set || store->exiting) {
        return;
    }

    if (store->local.handler == NULL) {
        ngx_queue_init(&store->lost);

        store->local.handler = ngx_mail_policy_local_handler;
        store->local.data = store;
        store->local.log = ngx_cycle->log;
        store->local.cancelable = 1;
    }

    ngx_add_timer(&store->local, NGX_MAIL_POLICY_LOCAL_DELAY);
}


void
ngx_mail_policy_local_stop(ngx_mail_policy_store_t *store)
{
    ngx_queue_t  *q;

    if (store->local.handler == NULL) {
        return;
    }

    if (store->local.timer_set) {
        ngx_del_timer(&store->local);
    }

    while (!ngx_queue_empty(&store->lost)) {
        q = ngx_queue_head(&store->lost);
        ngx_queue_remove(q);

        ngx_mail_policy_local_put_back(ngx_queue_data(q,
                                             ngx_mail_policy_local_t, queue));
    }
}


static void
ngx_mail_policy_local_handler(ngx_event_t *ev)
{
    ngx_mail_policy_store_t  *store = ev->data;

    ngx_int_t   rc;
    ngx_uint_t  tries;

    if (ngx_mail_policy_redis_there(store->redis)) {
        ngx_mail_policy_local_again(store);

        tries = NGX_MAIL_POLICY_LOCAL_TRIES;

        while (tries && store->nlocal < NGX_MAIL_POLICY_LOCAL_KEYS) {

            rc = ngx_mail_policy_local_next(store, NULL);

            if (rc == NGX_DECLINED) {
                break;
            }

            if (rc == NGX_BUSY) {
                tries--;
            }
        }
    }

    if (!ngx_queue_empty(&store->lost)
        || store->nlocal || ngx_mail_policy_shm_waits(store->shm))
    {
        ngx_mail_policy_local_start(store);
    }
}


static void
ngx_mail_policy_local_again(ngx_mail_policy_store_t *store)
{
    ngx_uint_t                n;
    ngx_queue_t              *q;
    ngx_mail_policy_local_t  *l;

    for (n = NGX_MAIL_POLICY_LOCAL_KEYS; n; n--) {

        if (ngx_queue_empty(&store->lost)) {
            return;
        }

        q = ngx_queue_head(&store->lost);
        ngx_queue_remove(q);

        l = ngx_queue_data(q, ngx_mail_policy_local_t, queue);

        if (ngx_time() - l->since > NGX_MAIL_POLICY_LOCAL_AGAIN) {
            ngx_mail_policy_local_put_back(l);
            continue;
        }

        ngx_mail_policy_local_send(l);
    }
}


void
ngx_mail_policy_local_tell(ngx_mail_policy_store_t *store, ngx_str_t *id)
{
    if (ngx_mail_policy_shm_waits(store->shm)
        && ngx_mail_policy_redis_there(store->redis))
    {
        ngx_mail_policy_local_start(store);
        (void) ngx_mail_policy_local_next(store, id);
    }
}


/*
 * id NULL: what has waited longest.  NGX_OK: on its way; NGX_BUSY: it waits
 * again, behind all others, or counts no more; NGX_DECLINED: nothing waits,
 * or no memory
 */

static ngx_int_t
ngx_mail_policy_local_next(ngx_mail_policy_store_t *store, ngx_str_t *id)
{
    ngx_uint_t                n;
    ngx_pool_t               *pool;
    ngx_mail_policy_local_t  *l;

    if (!ngx_mail_policy_shm_waits(store->shm)) {
        return NGX_DECLINED;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_DECLINED;
    }

    l = ngx_pcalloc(pool, sizeof(ngx_mail_policy_local_t));
    if (l == NULL) {
        goto failed;
    }

    l->pool = pool;
    l->store = store;
    l->since = ngx_time();

    if (ngx_mail_policy_store_unique(pool, &l->id) != NGX_OK
        || ngx_mail_policy_shm_take(store->shm, id, pool, &l->local)
           != NGX_OK)
    {
        goto failed;
    }

    if (ngx_mail_policy_local_empty(l)) {
        ngx_destroy_pool(pool);
        return NGX_BUSY;
    }

    n = store->nlocal;

    ngx_mail_policy_local_send(l);

    return (store->nlocal > n) ? NGX_OK : NGX_BUSY;

failed:

    ngx_destroy_pool(pool);

    return NGX_DECLINED;
}


/* what waited may count no more */

static ngx_uint_t
ngx_mail_policy_local_empty(ngx_mail_policy_local_t *l)
{
    ngx_uint_t  u;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if (l->local.texts[u].len) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_mail_policy_local_send(ngx_mail_policy_local_t *l)
{
    l->store->nlocal++;

    ngx_mail_policy_redis_merge(l->store->redis, &l->local, &l->id,
                                ngx_mail_policy_local_done, l);
}


static void
ngx_mail_policy_local_done(void *data, ngx_int_t rc)
{
    ngx_mail_policy_local_t *l = data;

    ngx_mail_policy_store_t  *store;

    store = l->store;
    store->nlocal--;

    if (rc == NGX_OK) {
        ngx_destroy_pool(l->pool);

        /* the next one at once, the timer is for the first */

        if (!store->exiting && ngx_mail_policy_redis_there(store->redis)) {
            (void) ngx_mail_policy_local_next(store, NULL);
        }

        return;
    }

    if (store->exiting || (rc == NGX_DECLINED && !l->lost)) {
        ngx_mail_policy_local_put_back(l);
        return;
    }

    /* it may have been done already, if not this time */

    l->lost = 1;

    ngx_queue_insert_tail(&store->lost, &l->queue);
    ngx_mail_policy_local_start(store);
}


/* it is counted locally again, and may be counted twice: late, not early */

static void
ngx_mail_policy_local_put_back(ngx_mail_policy_local_t *l)
{
    ngx_mail_policy_shm_put_back(l->store->shm, &l->local);
    ngx_destroy_pool(l->pool);
}
