
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The relays that a transaction has asked, and the limits that it exceeded,
 * for the log.  No events arrive here: whoever asks, and hears of it, tells so.
 *
 *     try -> tried ... -> (try -> tried ...)
 *
 * A name is copied where a relay that the DNS names no more, or a group that
 * is made at run time, may be gone before the transaction is.  Most
 * transactions ask one relay of the configuration: that takes no memory.
 * Without memory the log lacks a try, and no more.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_log.h"


static ngx_mail_policy_try_t *ngx_mail_policy_record_add(
    ngx_mail_policy_record_t *record, ngx_pool_t *pool);
static void ngx_mail_policy_record_name(ngx_pool_t *pool, ngx_str_t *name);
static void ngx_mail_policy_record_hit_add(ngx_mail_policy_record_t *record,
    ngx_pool_t *pool, ngx_mail_policy_hit_t *hit);


void
ngx_mail_policy_record_try(ngx_mail_policy_record_t *record, ngx_pool_t *pool,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_try_t  *try;

    record->upstream = upstream->name;
    record->relay = peer->name;

    if (upstream->dynamic || peer->pool) {
        ngx_mail_policy_record_name(pool, &record->upstream);
        ngx_mail_policy_record_name(pool, &record->relay);
    }

    try = ngx_mail_policy_record_add(record, pool);
    if (try == NULL) {
        return;
    }

    ngx_memzero(try, sizeof(ngx_mail_policy_try_t));

    try->relay = record->relay;
    try->start = ngx_current_msec;
}


static ngx_mail_policy_try_t *
ngx_mail_policy_record_add(ngx_mail_policy_record_t *record, ngx_pool_t *pool)
{
    ngx_array_t            *tries;
    ngx_mail_policy_try_t  *last;

    tries = &record->tries;

    if (tries->nelts == 0) {
        tries->elts = &record->first;
        tries->nelts = 1;
        tries->size = sizeof(ngx_mail_policy_try_t);
        tries->nalloc = 1;
        tries->pool = pool;

        return tries->elts;
    }

    last = tries->elts;
    last += tries->nelts - 1;

    if (!last->ended) {
        last->time = ngx_current_msec - last->start;
        last->ended = 1;
    }

    if (tries->nelts == NGX_MAIL_POLICY_LOG_TRIES) {
        return last;
    }

    return ngx_array_push(tries);
}


static void
ngx_mail_policy_record_name(ngx_pool_t *pool, ngx_str_t *name)
{
    name->data = ngx_pstrdup(pool, name);

    if (name->data == NULL) {
        name->len = 0;
    }
}


void
ngx_mail_policy_record_tried(ngx_mail_policy_record_t *record,
    ngx_uint_t status)
{
    ngx_mail_policy_try_t  *last;

    if (record->tries.nelts == 0) {
        return;
    }

    last = record->tries.elts;
    last += record->tries.nelts - 1;

    last->status = status;
    last->time = ngx_current_msec - last->start;
    last->ended = 1;
}


void
ngx_mail_policy_record_hit(ngx_mail_policy_record_t *record, ngx_pool_t *pool,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_uint_t              i;
    ngx_mail_policy_hit_t  *hit, one;

    if (verdict->hits) {
        hit = verdict->hits->elts;

        for (i = 0; i < verdict->hits->nelts; i++) {
            ngx_mail_policy_record_hit_add(record, pool, &hit[i]);
        }

        return;
    }

    one.limit = verdict->limit;
    one.action = verdict->action;
    one.used = verdict->used;
    one.max = verdict->max;
    one.retry = verdict->retry;

    ngx_mail_policy_record_hit_add(record, pool, &one);
}


static void
ngx_mail_policy_record_hit_add(ngx_mail_policy_record_t *record,
    ngx_pool_t *pool, ngx_mail_policy_hit_t *hit)
{
    ngx_uint_t              i;
    ngx_array_t            *hits;
    ngx_mail_policy_hit_t  *h;

    hits = &record->hits;

    if (hits->elts == NULL
        && ngx_array_init(hits, pool, 1, sizeof(ngx_mail_policy_hit_t))
           != NGX_OK)
    {
        return;
    }

    h = hits->elts;

    for (i = 0; i < hits->nelts; i++) {
        if (h[i].limit.len == hit->limit.len
            && ngx_memcmp(h[i].limit.data, hit->limit.data, hit->limit.len)
               == 0)
        {
            h[i] = *hit;
            return;
        }
    }

    if (hits->nelts == NGX_MAIL_POLICY_LOG_HITS) {
        return;
    }

    h = ngx_array_push(hits);
    if (h) {
        *h = *hit;
    }
}
