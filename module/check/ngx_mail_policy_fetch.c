
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lookups on their way.
 *
 *     wanted -> asked -> found, or none
 *        |        \-> known at once, or the key is empty: none
 *        \-> its key needs another lookup: when that one is found
 *
 * Events: an answer of the store, which is noted, and posts the events of
 * those who wait for it: a handler may end the session, and this fetch.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_fetch.h"


typedef struct {
    ngx_mail_policy_found_value_t   found;
    ngx_mail_policy_string_t        string;
    ngx_mail_policy_fetch_t        *fetch;
} ngx_mail_policy_fetch_item_t;


static void ngx_mail_policy_fetch_run(void *data);
static uint64_t ngx_mail_policy_fetch_round(ngx_mail_policy_fetch_t *fetch);
static ngx_mail_policy_fetch_t *ngx_mail_policy_fetch_awaited(
    ngx_mail_policy_fetch_t *fetch, uint64_t mask);
static ngx_int_t ngx_mail_policy_fetch_ask(ngx_mail_policy_fetch_t *fetch,
    ngx_mail_policy_lookup_conf_t *lookup);
static ngx_int_t ngx_mail_policy_fetch_key(ngx_mail_policy_fetch_t *fetch,
    ngx_mail_policy_lookup_conf_t *lookup, ngx_str_t *key);
static void ngx_mail_policy_fetch_arrived(void *data, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_fetch_keep(
    ngx_mail_policy_fetch_item_t *item, ngx_str_t *value);
static void ngx_mail_policy_fetch_done(ngx_mail_policy_fetch_t *fetch,
    uint64_t bit, ngx_int_t rc);
static void ngx_mail_policy_fetch_tell(ngx_mail_policy_fetch_t *fetch);
static void ngx_mail_policy_fetch_wait_handler(ngx_event_t *ev);


ngx_mail_policy_fetch_t *
ngx_mail_policy_fetch_create(ngx_mail_policy_main_conf_t *conf,
    ngx_mail_policy_envelope_t *envelope, ngx_pool_t *pool,
    ngx_mail_policy_fetch_t *wider)
{
    ngx_mail_policy_fetch_t  *fetch;

    fetch = ngx_pcalloc(pool, sizeof(ngx_mail_policy_fetch_t));
    if (fetch == NULL) {
        return NULL;
    }

    fetch->conf = conf;
    fetch->envelope = envelope;
    fetch->pool = pool;
    fetch->wider = wider;
    fetch->found.wider = ngx_mail_policy_fetch_found(wider);

    ngx_queue_init(&fetch->waits);

    return fetch;
}


ngx_mail_policy_fetch_t *
ngx_mail_policy_fetch_alone(ngx_mail_policy_main_conf_t *conf,
    ngx_mail_policy_envelope_t *envelope)
{
    ngx_pool_t               *pool;
    ngx_mail_policy_fetch_t  *fetch;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    fetch = ngx_mail_policy_fetch_create(conf, envelope, pool, NULL);
    if (fetch == NULL) {
        ngx_destroy_pool(pool);
    }

    return fetch;
}


void
ngx_mail_policy_fetch_drop(ngx_mail_policy_fetch_t **fetch)
{
    ngx_pool_t  *pool;

    if (*fetch == NULL) {
        return;
    }

    pool = (*fetch)->pool;

    ngx_mail_policy_fetch_end(*fetch);

    (*fetch)->envelope->found = NULL;
    *fetch = NULL;

    ngx_destroy_pool(pool);
}


uint64_t
ngx_mail_policy_fetch_mask(ngx_mail_policy_srv_conf_t *conf, ngx_uint_t phase)
{
    uint64_t    mask;
    ngx_uint_t  i;

    mask = 0;

    for (i = 0; i <= phase; i++) {
        mask |= conf->lookups[i];
    }

    return mask;
}


void
ngx_mail_policy_fetch_start(ngx_mail_policy_fetch_t *fetch, uint64_t mask)
{
    fetch->wanted = mask;

    ngx_mail_policy_fetch_run(fetch);
}


/* asks for all that can be asked for now; what is known may be a key's part */

static void
ngx_mail_policy_fetch_run(void *data)
{
    ngx_mail_policy_fetch_t *fetch = data;

    uint64_t   needed, before;
    ngx_int_t  rc;

    do {
        before = fetch->wanted;
        needed = ngx_mail_policy_fetch_round(fetch);
    } while (fetch->wanted != before);

    /* answers to what this one has asked for run it again anyway */

    if (fetch->wanted & ~fetch->asked) {

        rc = ngx_mail_policy_fetch_wait(fetch->wider, needed, &fetch->blocked,
                                        ngx_mail_policy_fetch_run, fetch);

        if (rc == NGX_ERROR) {
            ngx_mail_policy_fetch_done(fetch, fetch->wanted & ~fetch->asked,
                                       NGX_ERROR);
        }
    }

    ngx_mail_policy_fetch_tell(fetch);
}


/* returns a mask: what the keys of those that have still to wait need */

static uint64_t
ngx_mail_policy_fetch_round(ngx_mail_policy_fetch_t *fetch)
{
    uint64_t                         bit, needed;
    ngx_int_t                        rc;
    ngx_uint_t                       i;
    ngx_mail_policy_lookup_conf_t  **lookup;

    lookup = fetch->conf->lookups.elts;
    needed = 0;

    for (i = 0; i < fetch->conf->lookups.nelts; i++) {
        bit = (uint64_t) 1 << i;

        if (!(fetch->wanted & bit) || (fetch->asked & bit)) {
            continue;
        }

        if (ngx_mail_policy_fetch_awaited(fetch, lookup[i]->key.lookups)) {
            needed |= lookup[i]->key.lookups;
            continue;
        }

        fetch->asked |= bit;

        rc = ngx_mail_policy_fetch_ask(fetch, lookup[i]);

        if (rc != NGX_AGAIN) {
            ngx_mail_policy_fetch_done(fetch, bit, rc);
        }
    }

    return needed;
}


/* the fetch that some of mask is awaited of, or NULL */

static ngx_mail_policy_fetch_t *
ngx_mail_policy_fetch_awaited(ngx_mail_policy_fetch_t *fetch, uint64_t mask)
{
    while (fetch && !(fetch->wanted & mask)) {
        fetch = fetch->wider;
    }

    return fetch;
}


static ngx_int_t
ngx_mail_policy_fetch_ask(ngx_mail_policy_fetch_t *fetch,
    ngx_mail_policy_lookup_conf_t *lookup)
{
    ngx_int_t                      rc;
    ngx_str_t                      key, value;
    ngx_mail_policy_fetch_item_t  *item;

    if (ngx_mail_policy_fetch_key(fetch, lookup, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_OK;
    }

    item = ngx_pcalloc(fetch->pool, sizeof(ngx_mail_policy_fetch_item_t));
    if (item == NULL) {
        return NGX_ERROR;
    }

    item->fetch = fetch;
    item->found.n = lookup->n;
    item->found.next = fetch->found.values;
    fetch->found.values = &item->found;

    item->string.pool = fetch->pool;
    item->string.handler = ngx_mail_policy_fetch_arrived;
    item->string.data = item;

    rc = ngx_mail_policy_string_get(fetch->conf->store, &key, &item->string,
                                    &value);

    return (rc == NGX_OK) ? ngx_mail_policy_fetch_keep(item, &value) : rc;
}


/* the envelope may be at another recipient by now, and is left as it is */

static ngx_int_t
ngx_mail_policy_fetch_key(ngx_mail_policy_fetch_t *fetch,
    ngx_mail_policy_lookup_conf_t *lookup, ngx_str_t *key)
{
    ngx_int_t                    rc;
    ngx_mail_policy_envelope_t  *e, saved;

    e = fetch->envelope;
    saved = *e;

    e->found = &fetch->found;

    if (fetch->recipient.len) {
        e->recipient = fetch->recipient;
        e->recipient_domain = fetch->recipient_domain;
    }

    if (fetch->login.len) {
        e->sasl_username = fetch->login;
    }

    rc = ngx_mail_policy_value_eval_name(fetch->pool, &lookup->key, e, key);

    *e = saved;

    return rc;
}


static void
ngx_mail_policy_fetch_arrived(void *data, ngx_str_t *value)
{
    ngx_mail_policy_fetch_item_t *item = data;

    ngx_mail_policy_fetch_t  *fetch;

    fetch = item->fetch;

    ngx_mail_policy_fetch_done(fetch, (uint64_t) 1 << item->found.n,
                               ngx_mail_policy_fetch_keep(item, value));

    ngx_mail_policy_fetch_run(fetch);
}


static ngx_int_t
ngx_mail_policy_fetch_keep(ngx_mail_policy_fetch_item_t *item,
    ngx_str_t *value)
{
    u_char  *p;

    if (value->data == NULL) {
        return NGX_OK;
    }

    p = ngx_pnalloc(item->fetch->pool, value->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, value->data, value->len);

    item->found.value.data = p;
    item->found.value.len = value->len;

    return NGX_OK;
}


static void
ngx_mail_policy_fetch_done(ngx_mail_policy_fetch_t *fetch, uint64_t bit,
    ngx_int_t rc)
{
    fetch->wanted &= ~bit;

    if (rc != NGX_OK) {
        fetch->found.failed |= bit;
    }
}


void
ngx_mail_policy_fetch_end(ngx_mail_policy_fetch_t *fetch)
{
    ngx_mail_policy_fetch_item_t   *item;
    ngx_mail_policy_found_value_t  *value;

    if (fetch == NULL) {
        return;
    }

    for (value = fetch->found.values; value; value = value->next) {
        item = (ngx_mail_policy_fetch_item_t *) value;
        ngx_mail_policy_string_forget(&item->string);
    }

    ngx_mail_policy_fetch_forget(&fetch->blocked);

    fetch->wanted = 0;
}


ngx_int_t
ngx_mail_policy_fetch_wait(ngx_mail_policy_fetch_t *fetch, uint64_t mask,
    ngx_mail_policy_fetch_wait_t **wait, ngx_mail_policy_fetch_pt handler,
    void *data)
{
    ngx_mail_policy_fetch_t       *awaited;
    ngx_mail_policy_fetch_wait_t  *w;

    awaited = ngx_mail_policy_fetch_awaited(fetch, mask);

    if (awaited == NULL) {
        ngx_mail_policy_fetch_forget(wait);
        return NGX_OK;
    }

    if (*wait) {
        return NGX_AGAIN;
    }

    w = ngx_pcalloc(fetch->pool, sizeof(ngx_mail_policy_fetch_wait_t));
    if (w == NULL) {
        return NGX_ERROR;
    }

    w->fetch = fetch;
    w->mask = mask;
    w->handler = handler;
    w->data = data;

    w->event.handler = ngx_mail_policy_fetch_wait_handler;
    w->event.data = wait;
    w->event.log = ngx_cycle->log;

    w->queued = 1;
    ngx_queue_insert_tail(&awaited->waits, &w->queue);

    *wait = w;

    return NGX_AGAIN;
}


void
ngx_mail_policy_fetch_forget(ngx_mail_policy_fetch_wait_t **wait)
{
    ngx_mail_policy_fetch_wait_t  *w;

    w = *wait;

    if (w == NULL) {
        return;
    }

    if (w->queued) {
        ngx_queue_remove(&w->queue);
    }

    if (w->event.posted) {
        ngx_delete_posted_event(&w->event);
    }

    *wait = NULL;
}


/* who waits for nothing any more is told; for a wider one, waits there */

static void
ngx_mail_policy_fetch_tell(ngx_mail_policy_fetch_t *fetch)
{
    ngx_queue_t                   *q, *next;
    ngx_mail_policy_fetch_t       *awaited;
    ngx_mail_policy_fetch_wait_t  *w;

    for (q = ngx_queue_head(&fetch->waits);
         q != ngx_queue_sentinel(&fetch->waits);
         q = next)
    {
        next = ngx_queue_next(q);
        w = ngx_queue_data(q, ngx_mail_policy_fetch_wait_t, queue);

        awaited = ngx_mail_policy_fetch_awaited(w->fetch, w->mask);

        if (awaited == fetch) {
            continue;
        }

        ngx_queue_remove(q);

        if (awaited) {
            ngx_queue_insert_tail(&awaited->waits, q);
            continue;
        }

        w->queued = 0;
        ngx_post_event(&w->event, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_fetch_wait_handler(ngx_event_t *ev)
{
    void                           *data;
    ngx_mail_policy_fetch_pt        handler;
    ngx_mail_policy_fetch_wait_t   *w, **wait;

    wait = ev->data;
    w = *wait;

    handler = w->handler;
    data = w->data;

    *wait = NULL;

    handler(data);
}
