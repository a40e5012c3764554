
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The local parts, on their way to Redis.  No events arrive here.
 *
 *     charged here --> waiting --take()--> learned, and with the caller
 *                         ^                        |
 *                         \-------put_back()-------/
 *
 * Each taking has a number, an "outage": a charge remembers the one before
 * which it was made, and a node the one since which its local part is.  What
 * was charged earlier is in Redis by now, and is given back there.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_shm_node.h"


#define NGX_MAIL_POLICY_SHM_TAGS  80        /* in one text, of 24 octets */


static ngx_int_t ngx_mail_policy_shm_take_one(ngx_mail_policy_shm_t *shm,
    ngx_str_t *id, ngx_mail_policy_shm_local_t *local, uint64_t now);
static void ngx_mail_policy_shm_told(ngx_mail_policy_shm_state_t *st,
    uint64_t now);
static mpol_set_entry_t *ngx_mail_policy_shm_marked(mpol_set_t *set,
    mpol_set_entry_t *entry);
static ngx_int_t ngx_mail_policy_shm_describe(ngx_pool_t *pool,
    ngx_mail_policy_shm_local_t *local);
static size_t ngx_mail_policy_shm_failed_text(mpol_set_t *set, u_char *out);
static ngx_int_t ngx_mail_policy_shm_copy(ngx_pool_t *pool, ngx_str_t *to,
    u_char *data, size_t len);
static void ngx_mail_policy_shm_untold(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_shm_state_t *before, uint64_t at, uint64_t now,
    ngx_uint_t made);


/* the node that is taken, as it was before */
static ngx_mail_policy_shm_state_t  ngx_mail_policy_shm_before;
static u_char  ngx_mail_policy_shm_octets[NGX_MAIL_POLICY_SHM_STATE_MAX];
static u_char  ngx_mail_policy_shm_id[65536];


ngx_uint_t
ngx_mail_policy_shm_waiting(ngx_mail_policy_shm_t *shm)
{
    ngx_uint_t  n;

    ngx_mail_policy_shm_lock(shm);

    n = shm->sh->nwaiting;

    ngx_mail_policy_shm_unlock(shm, 0);

    return n;
}


ngx_uint_t
ngx_mail_policy_shm_waits(ngx_mail_policy_shm_t *shm)
{
    return shm->sh->nwaiting != 0;
}


ngx_int_t
ngx_mail_policy_shm_take(ngx_mail_policy_shm_t *shm, ngx_str_t *id,
    ngx_pool_t *pool, ngx_mail_policy_shm_local_t *local)
{
    uint64_t   now;
    ngx_int_t  rc;

    ngx_memzero(local, sizeof(ngx_mail_policy_shm_local_t));

    now = ngx_mail_policy_shm_now();

    ngx_mail_policy_shm_lock(shm);

    rc = ngx_mail_policy_shm_take_one(shm, id, local, now);

    ngx_mail_policy_shm_unlock(shm, 0);

    if (rc != NGX_OK) {
        return rc;
    }

    /* nobody else works with what is read here */

    if (ngx_mail_policy_shm_describe(pool, local) != NGX_OK) {
        ngx_mail_policy_shm_put_back(shm, local);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_shm_take_one(ngx_mail_policy_shm_t *shm,
    ngx_str_t *id, ngx_mail_policy_shm_local_t *local, uint64_t now)
{
    uint64_t                      expires, until;
    ngx_queue_t                  *q;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_state_t  *st;

    if (ngx_queue_empty(&shm->sh->waiting)) {
        return NGX_DECLINED;
    }

    if (id) {
        n = ngx_mail_policy_shm_find(shm, id);

        if (n == NULL || !n->is_waiting) {
            return NGX_DECLINED;
        }

    } else {
        q = ngx_queue_head(&shm->sh->waiting);
        n = ngx_queue_data(q, ngx_mail_policy_shm_node_t, waiting);
    }

    st = &ngx_mail_policy_shm_state;

    local->at = now;
    local->since = n->since;
    local->id.len = n->id_len;
    local->id.data = ngx_mail_policy_shm_id;
    local->state.len = n->len;
    local->state.data = ngx_mail_policy_shm_octets;

    ngx_mail_policy_shm_read_id(n, local->id.data);
    ngx_mail_policy_shm_read(n, local->state.data);

    ngx_mail_policy_shm_unpack(st, local->state.data, local->state.len);
    ngx_mail_policy_shm_told(st, now);

    expires = (uint64_t) n->expires * 1000000;

    if (ngx_mail_policy_shm_save(shm, n, st, now, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    /* who charged it may come back for it */

    until = (uint64_t) n->expires * 1000000;
    ngx_mail_policy_shm_schedule(shm, n, ngx_max(expires, until), 0);

    n->outage = ++shm->sh->outage;
    n->since = n->outage;

    local->outage = n->outage;

    return NGX_OK;
}


static void
ngx_mail_policy_shm_told(ngx_mail_policy_shm_state_t *st, uint64_t now)
{
    ngx_uint_t         u, n;
    mpol_set_entry_t  *entry;

    for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
        mpol_local_told(&st->counters[u], now);
    }

    entry = NULL;

    for (n = 0; n < NGX_MAIL_POLICY_SHM_TAGS; n++) {

        entry = ngx_mail_policy_shm_marked(&st->failed.set, entry);
        if (entry == NULL) {
            break;
        }

        entry->flags = 0;
    }
}


/* the first one that is marked, behind entry if that is set */

static mpol_set_entry_t *
ngx_mail_policy_shm_marked(mpol_set_t *set, mpol_set_entry_t *entry)
{
    entry = entry ? entry + 1 : set->entries;

    for ( /* void */ ; entry < set->entries + set->n; entry++) {
        if (entry->flags & MPOL_SET_MARKED) {
            return entry;
        }
    }

    return NULL;
}


/* moves it all to the pool */

static ngx_int_t
ngx_mail_policy_shm_describe(ngx_pool_t *pool,
    ngx_mail_policy_shm_local_t *local)
{
    u_char                       *text;
    size_t                        len;
    ngx_uint_t                    u;
    ngx_mail_policy_shm_state_t  *before;

    u_char                        buf[NGX_MAIL_POLICY_SHM_TEXT];

    before = &ngx_mail_policy_shm_before;

    ngx_mail_policy_shm_unpack(before, local->state.data, local->state.len);

    text = buf;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        if (u < NGX_MAIL_POLICY_SHM_COUNTERS) {
            len = mpol_local_text(&before->counters[u], local->at, text);

        } else if (u == NGX_MAIL_POLICY_AUTH_FAILURES) {
            len = ngx_mail_policy_shm_failed_text(&before->failed.set, text);

        } else {
            /* their owners renew them */
            continue;
        }

        if (len
            && ngx_mail_policy_shm_copy(pool, &local->texts[u], text, len)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_mail_policy_shm_copy(pool, &local->id, local->id.data,
                                 local->id.len)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_shm_copy(pool, &local->state, local->state.data,
                                    local->state.len);
}


static size_t
ngx_mail_policy_shm_failed_text(mpol_set_t *set, u_char *out)
{
    u_char            *p;
    ngx_uint_t         n;
    mpol_set_entry_t  *entry;

    p = out;
    entry = NULL;

    for (n = 0; n < NGX_MAIL_POLICY_SHM_TAGS; n++) {

        entry = ngx_mail_policy_shm_marked(set, entry);
        if (entry == NULL) {
            break;
        }

        p = ngx_sprintf(p, "%s%uL:%04xuL", n ? " " : "", entry->expires,
                        entry->member & 0xffff);
    }

    return p - out;
}


static ngx_int_t
ngx_mail_policy_shm_copy(ngx_pool_t *pool, ngx_str_t *to, u_char *data,
    size_t len)
{
    u_char  *p;

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, data, len);

    to->data = p;
    to->len = len;

    return NGX_OK;
}


void
ngx_mail_policy_shm_put_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_local_t *local)
{
    uint64_t                      now;
    ngx_int_t                     rc;
    ngx_uint_t                    made;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_state_t  *st;

    st = &ngx_mail_policy_shm_state;
    now = ngx_mail_policy_shm_now();

    ngx_mail_policy_shm_unpack(&ngx_mail_policy_shm_before,
                               local->state.data, local->state.len);

    ngx_mail_policy_shm_lock(shm);

    n = ngx_mail_policy_shm_find(shm, &local->id);
    made = (n == NULL);

    ngx_mail_policy_shm_load(n, st);
    ngx_mail_policy_shm_untold(st, &ngx_mail_policy_shm_before, local->at,
                               now, made);

    rc = ngx_mail_policy_shm_update(shm, n, &local->id, now, 0);

    if (rc == NGX_OK) {
        n = ngx_mail_policy_shm_find(shm, &local->id);

        /* or it has been taken once more meanwhile */

        if (made || n->outage == local->outage) {
            n->since = local->since;
        }
    }

    ngx_mail_policy_shm_unlock(shm, rc != NGX_OK);
}


static void
ngx_mail_policy_shm_untold(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_shm_state_t *before, uint64_t at, uint64_t now,
    ngx_uint_t made)
{
    ngx_uint_t         u, n;
    mpol_set_t        *set;
    mpol_set_entry_t  *entry, *present;

    for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
        mpol_local_untold(&st->counters[u], &before->counters[u], at, now);
    }

    set = &st->failed.set;
    entry = NULL;

    for (n = 0; n < NGX_MAIL_POLICY_SHM_TAGS; n++) {

        entry = ngx_mail_policy_shm_marked(&before->failed.set, entry);
        if (entry == NULL) {
            break;
        }

        present = mpol_set_find(set, entry->member);

        if (present) {
            present->flags = MPOL_SET_MARKED;

        } else if (made && entry->expires > now) {
            (void) mpol_set_put(set, entry->member, entry->expires,
                                MPOL_SET_MARKED);
        }
    }
}
