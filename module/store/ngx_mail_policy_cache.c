
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Event: the answer of a lookup.  Entries are the worker's; the one used
 * longest ago gives way, unless it is being read or looked at.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_cache.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_CACHE_MAX    4096
#define NGX_MAIL_POLICY_CACHE_BUSY   65536  /* those being read included */
#define NGX_MAIL_POLICY_CACHE_EVICT  64     /* looked at for one that goes */
#define NGX_MAIL_POLICY_CACHE_AGAIN  50     /* ms, where there was no answer */


static ngx_mail_policy_entry_t *ngx_mail_policy_cache_add(
    ngx_mail_policy_cache_t *cache, ngx_str_t *key, uint32_t hash);
static void ngx_mail_policy_cache_evict(ngx_mail_policy_cache_t *cache);
static void ngx_mail_policy_cache_drop(ngx_mail_policy_entry_t *entry);
static void ngx_mail_policy_cache_handler(void *data,
    ngx_mail_policy_lookup_t *lookup);


void
ngx_mail_policy_cache_init(ngx_mail_policy_cache_t *cache)
{
    ngx_rbtree_init(&cache->rbtree, &cache->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&cache->queue);
}


void
ngx_mail_policy_cache_free(ngx_mail_policy_cache_t *cache)
{
    ngx_queue_t              *q;
    ngx_mail_policy_entry_t  *entry;

    while (!ngx_queue_empty(&cache->queue)) {
        q = ngx_queue_head(&cache->queue);
        entry = ngx_queue_data(q, ngx_mail_policy_entry_t, queue);

        if (entry->lookup) {
            ngx_mail_policy_lookup_cancel(entry->lookup);
        }

        ngx_mail_policy_cache_drop(entry);
    }
}


ngx_mail_policy_entry_t *
ngx_mail_policy_cache_get(ngx_mail_policy_cache_t *cache, ngx_str_t *key)
{
    uint32_t                  hash;
    ngx_mail_policy_entry_t  *entry;

    hash = ngx_crc32_short(key->data, key->len);

    entry = (ngx_mail_policy_entry_t *)
            ngx_str_rbtree_lookup(&cache->rbtree, key, hash);

    if (entry == NULL) {
        return ngx_mail_policy_cache_add(cache, key, hash);
    }

    ngx_queue_remove(&entry->queue);
    ngx_queue_insert_head(&cache->queue, &entry->queue);

    return entry;
}


static ngx_mail_policy_entry_t *
ngx_mail_policy_cache_add(ngx_mail_policy_cache_t *cache, ngx_str_t *key,
    uint32_t hash)
{
    ngx_mail_policy_entry_t  *entry;

    if (cache->n >= NGX_MAIL_POLICY_CACHE_MAX) {
        ngx_mail_policy_cache_evict(cache);
    }

    if (cache->n >= NGX_MAIL_POLICY_CACHE_BUSY) {
        return NULL;
    }

    entry = ngx_calloc(cache->size + key->len, ngx_cycle->log);
    if (entry == NULL) {
        return NULL;
    }

    entry->cache = cache;

    entry->str.str.len = key->len;
    entry->str.str.data = (u_char *) entry + cache->size;
    ngx_memcpy(entry->str.str.data, key->data, key->len);
    entry->str.node.key = hash;

    ngx_queue_init(&entry->waiters);
    ngx_rbtree_insert(&cache->rbtree, &entry->str.node);
    ngx_queue_insert_head(&cache->queue, &entry->queue);
    cache->n++;

    return entry;
}


/* two of them, so that there are less again when less are being read */

static void
ngx_mail_policy_cache_evict(ngx_mail_policy_cache_t *cache)
{
    ngx_uint_t                i, n;
    ngx_queue_t              *q, *prev;
    ngx_mail_policy_entry_t  *old;

    n = 0;

    for (i = 0, q = ngx_queue_last(&cache->queue);
         n < 2 && i < NGX_MAIL_POLICY_CACHE_EVICT
         && q != ngx_queue_sentinel(&cache->queue);
         i++, q = prev)
    {
        prev = ngx_queue_prev(q);
        old = ngx_queue_data(q, ngx_mail_policy_entry_t, queue);

        if (old->lookup == NULL && old->pins == 0) {
            ngx_mail_policy_cache_drop(old);
            n++;
        }
    }
}


static void
ngx_mail_policy_cache_drop(ngx_mail_policy_entry_t *entry)
{
    ngx_rbtree_delete(&entry->cache->rbtree, &entry->str.node);
    ngx_queue_remove(&entry->queue);
    entry->cache->n--;

    if (entry->text) {
        ngx_free(entry->text);
    }

    ngx_free(entry);
}


ngx_uint_t
ngx_mail_policy_cache_stale(ngx_mail_policy_entry_t *entry)
{
    return entry->lookup == NULL
           && (!entry->asked
               || ngx_current_msec - entry->when
                  >= entry->cache->store->cache);
}


ngx_mail_policy_lookup_t *
ngx_mail_policy_cache_lookup(ngx_mail_policy_entry_t *entry,
    ngx_uint_t nfields)
{
    return ngx_mail_policy_lookup_create(entry->cache->store, nfields,
                                         ngx_mail_policy_cache_handler,
                                         entry);
}


void
ngx_mail_policy_cache_read(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup)
{
    entry->lookup = lookup;
    entry->when = ngx_current_msec;
    entry->asked = 1;

    /* a worker that shuts down need not wait for what nobody waits for */

    lookup->event.cancelable = 1;

    ngx_mail_policy_lookup_send(lookup);
}


void
ngx_mail_policy_cache_wait(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_waiter_t *waiter)
{
    waiter->entry = entry;
    entry->lookup->event.cancelable = 0;

    ngx_queue_insert_tail(&entry->waiters, &waiter->queue);
}


ngx_uint_t
ngx_mail_policy_cache_forget(ngx_mail_policy_waiter_t *waiter)
{
    ngx_mail_policy_entry_t  *entry;

    if (waiter->data == NULL) {
        return 0;
    }

    waiter->data = NULL;
    ngx_queue_remove(&waiter->queue);

    entry = waiter->entry;

    if (entry->lookup && ngx_queue_empty(&entry->waiters)) {
        entry->lookup->event.cancelable = 1;
    }

    return 1;
}


static void
ngx_mail_policy_cache_handler(void *data, ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_entry_t *entry = data;

    void                       *owner;
    ngx_msec_t                  cache;
    ngx_queue_t                *q;
    ngx_mail_policy_waiter_t   *waiter;

    entry->lookup = NULL;

    if (lookup->rc == NGX_ERROR) {
        /* who needs it asks again, soon */

        cache = entry->cache->store->cache;

        entry->when = ngx_current_msec - cache
                      + ngx_min(cache, NGX_MAIL_POLICY_CACHE_AGAIN);

    } else {
        entry->cache->parse(entry, lookup);
    }

    ngx_mail_policy_lookup_done(lookup);

    entry->pins++;

    /*
     * Who asks again meanwhile finds it known.  Where nothing is remembered
     * (cache=0) it is read once more, but nobody here waits for that.
     */

    while (!ngx_queue_empty(&entry->waiters)) {
        q = ngx_queue_head(&entry->waiters);
        ngx_queue_remove(q);

        waiter = ngx_queue_data(q, ngx_mail_policy_waiter_t, queue);

        owner = waiter->data;
        waiter->data = NULL;

        waiter->handler(owner, entry);
    }

    entry->pins--;
}
