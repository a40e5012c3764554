
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The relays that a transaction has asked, for the log.  No events arrive
 * here: whoever asks a relay, and hears of it, tells so.
 *
 *     try -> tried ... -> (try -> tried ...)
 *
 * A name is copied, as a relay that the DNS names no more may be gone before
 * the transaction is.  Without memory the log lacks a try, and no more.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_log.h"


static ngx_mail_policy_try_t *ngx_mail_policy_record_add(
    ngx_mail_policy_record_t *record, ngx_pool_t *pool);
static void ngx_mail_policy_record_name(ngx_pool_t *pool, ngx_str_t *from,
    ngx_str_t *to);


void
ngx_mail_policy_record_try(ngx_mail_policy_record_t *record, ngx_pool_t *pool,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_try_t  *try;

    ngx_mail_policy_record_name(pool, &upstream->name, &record->upstream);
    ngx_mail_policy_record_name(pool, &peer->name, &record->relay);

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
    ngx_mail_policy_try_t  *last;

    if (record->tries == NULL) {
        record->tries = ngx_array_create(pool, 1,
                                         sizeof(ngx_mail_policy_try_t));
        if (record->tries == NULL) {
            return NULL;
        }
    }

    if (record->tries->nelts == 0) {
        return ngx_array_push(record->tries);
    }

    last = record->tries->elts;
    last += record->tries->nelts - 1;

    if (!last->ended) {
        last->time = ngx_current_msec - last->start;
        last->ended = 1;
    }

    if (record->tries->nelts == NGX_MAIL_POLICY_LOG_TRIES) {
        return last;
    }

    return ngx_array_push(record->tries);
}


static void
ngx_mail_policy_record_name(ngx_pool_t *pool, ngx_str_t *from, ngx_str_t *to)
{
    u_char  *p;

    p = ngx_pstrdup(pool, from);

    if (p == NULL) {
        ngx_str_null(to);
        return;
    }

    to->data = p;
    to->len = from->len;
}


void
ngx_mail_policy_record_tried(ngx_mail_policy_record_t *record,
    ngx_uint_t status)
{
    ngx_mail_policy_try_t  *last;

    if (record->tries == NULL || record->tries->nelts == 0) {
        return;
    }

    last = record->tries->elts;
    last += record->tries->nelts - 1;

    last->status = status;
    last->time = ngx_current_msec - last->start;
    last->ended = 1;
}
