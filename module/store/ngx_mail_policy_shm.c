
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counters in shared memory.  No events arrive here.
 *
 * A node holds the counters of one limit under one key, one for each unit.
 * Nodes are in a tree by the hash of their id and in a queue, the one used
 * last at its head.  A node is made when something is charged to it, never by
 * a question that was refused.
 *
 * All nodes take a slot of one size (2 kilobytes, with the longest id), also
 * those that count one unit only: one that gives way leaves room for any.
 *
 *     (none) -- charge --> counting -- time --> expired -- next insertion
 *                              |                                 |
 *                              \------ no memory: evicted ----> freed
 *
 * The pool's own mutex guards all of it: nginx unlocks that one should a
 * worker die with it.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_shm.h"


#define NGX_MAIL_POLICY_SHM_EXPIRE  2       /* looked at on each insertion */
#define NGX_MAIL_POLICY_SHM_EVICT   64      /* at most, for one insertion */


typedef struct {
    ngx_rbtree_t        rbtree;
    ngx_rbtree_node_t   sentinel;
    ngx_queue_t         queue;
    time_t              complained;
} ngx_mail_policy_shm_sh_t;


typedef struct {
    ngx_rbtree_node_t   node;
    ngx_queue_t         queue;
    uint64_t            expires;            /* nothing counts from then on */
    u_char             *id;                 /* behind the counters */
    size_t              len;
    mpol_counter_t      counters[NGX_MAIL_POLICY_UNITS];
} ngx_mail_policy_shm_node_t;


struct ngx_mail_policy_shm_s {
    ngx_mail_policy_shm_sh_t  *sh;
    ngx_slab_pool_t           *shpool;
};


static ngx_int_t ngx_mail_policy_shm_init(ngx_shm_zone_t *zone, void *data);
static void ngx_mail_policy_shm_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_int_t ngx_mail_policy_shm_compare(u_char *id, size_t len,
    ngx_mail_policy_shm_node_t *n);
static ngx_uint_t ngx_mail_policy_shm_judge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now);
static ngx_int_t ngx_mail_policy_shm_count(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now);
static ngx_mail_policy_shm_node_t *ngx_mail_policy_shm_find(
    ngx_mail_policy_shm_t *shm, ngx_str_t *id);
static ngx_mail_policy_shm_node_t *ngx_mail_policy_shm_get(
    ngx_mail_policy_shm_t *shm, ngx_str_t *id, uint64_t now);
static void *ngx_mail_policy_shm_alloc(ngx_mail_policy_shm_t *shm,
    size_t size, uint64_t now);
static void ngx_mail_policy_shm_expire(ngx_mail_policy_shm_t *shm,
    ngx_uint_t n, uint64_t now);
static void ngx_mail_policy_shm_free(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n);
static ngx_uint_t ngx_mail_policy_shm_units(
    ngx_mail_policy_charge_t *charge);


ngx_mail_policy_shm_t *
ngx_mail_policy_shm_add(ngx_conf_t *cf, size_t size, void *tag)
{
    ngx_shm_zone_t         *zone;
    ngx_mail_policy_shm_t  *shm;

    static ngx_str_t  name = ngx_string("mail_policy");

    shm = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_shm_t));
    if (shm == NULL) {
        return NULL;
    }

    zone = ngx_shared_memory_add(cf, &name, size, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_mail_policy_shm_init;
    zone->data = shm;

    return shm;
}


static ngx_int_t
ngx_mail_policy_shm_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_mail_policy_shm_t  *old = data;

    ngx_mail_policy_shm_t  *shm;

    shm = zone->data;

    if (old) {
        shm->sh = old->sh;
        shm->shpool = old->shpool;
        return NGX_OK;
    }

    shm->shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (zone->shm.exists) {
        shm->sh = shm->shpool->data;
        return NGX_OK;
    }

    shm->sh = ngx_slab_alloc(shm->shpool, sizeof(ngx_mail_policy_shm_sh_t));
    if (shm->sh == NULL) {
        return NGX_ERROR;
    }

    shm->shpool->data = shm->sh;

    ngx_rbtree_init(&shm->sh->rbtree, &shm->sh->sentinel,
                    ngx_mail_policy_shm_insert);
    ngx_queue_init(&shm->sh->queue);
    shm->sh->complained = 0;

    /* a full zone is the usual state of a busy one, eviction deals with it */
    shm->shpool->log_nomem = 0;

    return NGX_OK;
}


/* equal hashes are ordered by the id, so that nobody can build a list */

static ngx_int_t
ngx_mail_policy_shm_compare(u_char *id, size_t len,
    ngx_mail_policy_shm_node_t *n)
{
    if (len != n->len) {
        return (len < n->len) ? -1 : 1;
    }

    return ngx_memcmp(id, n->id, len);
}


static void
ngx_mail_policy_shm_insert(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t           **p;
    ngx_mail_policy_shm_node_t   *n;

    n = (ngx_mail_policy_shm_node_t *) node;

    for ( ;; ) {

        if (node->key != temp->key) {
            p = (node->key < temp->key) ? &temp->left : &temp->right;

        } else {
            p = (ngx_mail_policy_shm_compare(n->id, n->len,
                                       (ngx_mail_policy_shm_node_t *) temp)
                 < 0)
                ? &temp->left : &temp->right;
        }

        if (*p == sentinel) {
            break;
        }

        temp = *p;
    }

    *p = node;
    node->parent = temp;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


ngx_int_t
ngx_mail_policy_shm_charge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t *at)
{
    time_t      now;
    uint64_t    usec;
    ngx_uint_t  i, fits, failed;

    usec = ngx_mail_policy_shm_now();
    now = ngx_time();
    fits = 1;
    failed = 0;

    ngx_shmtx_lock(&shm->shpool->mutex);

    for (i = 0; i < n; i++) {
        fits &= ngx_mail_policy_shm_judge(shm, &charges[i], usec);
    }

    for (i = 0; fits && i < n; i++) {
        if (ngx_mail_policy_shm_count(shm, &charges[i], usec) != NGX_OK) {
            failed = 1;
        }
    }

    if (failed) {
        if (now - shm->sh->complained < 60) {
            failed = 0;

        } else {
            shm->sh->complained = now;
        }
    }

    ngx_shmtx_unlock(&shm->shpool->mutex);

    if (failed) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "policy_zone is too small, some mail is not counted; "
                      "write a larger size");
    }

    *at = usec;

    return fits ? NGX_OK : NGX_DECLINED;
}


void
ngx_mail_policy_shm_give_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t at)
{
    uint64_t                        now;
    ngx_uint_t                      i, u, units;
    ngx_mail_policy_shm_node_t     *node;
    ngx_mail_policy_charge_unit_t  *unit;

    /* the clock may have gone back meanwhile */
    now = ngx_max(ngx_mail_policy_shm_now(), at);

    ngx_shmtx_lock(&shm->shpool->mutex);

    for (i = 0; i < n; i++) {

        node = ngx_mail_policy_shm_find(shm, &charges[i].id);
        if (node == NULL) {
            continue;
        }

        units = ngx_mail_policy_shm_units(&charges[i]);

        for (u = 0; u < charges[i].nunits; u++) {
            unit = &charges[i].units[u];

            if (units & ((ngx_uint_t) 1 << u)) {
                mpol_counter_give_back(&node->counters[u], &unit->rate, now,
                                       at, unit->amount);
            }
        }
    }

    ngx_shmtx_unlock(&shm->shpool->mutex);
}


uint64_t
ngx_mail_policy_shm_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000000 + (uint64_t) tp->msec * 1000;
}


static ngx_uint_t
ngx_mail_policy_shm_judge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now)
{
    ngx_uint_t                      u, fits;
    mpol_counter_t                 *counter, empty;
    ngx_mail_policy_shm_node_t     *n;
    ngx_mail_policy_charge_unit_t  *unit;

    ngx_memzero(&empty, sizeof(mpol_counter_t));

    n = ngx_mail_policy_shm_find(shm, &charge->id);
    fits = 1;

    if (n) {
        /* who is refused goes on being refused: keep it, too */
        ngx_queue_remove(&n->queue);
        ngx_queue_insert_head(&shm->sh->queue, &n->queue);
    }

    for (u = 0; u < charge->nunits; u++) {
        unit = &charge->units[u];

        if (unit->rate.kind == MPOL_RATE_NONE) {
            unit->decision.used = 0;
            unit->decision.remaining = MPOL_NEVER;
            unit->decision.retry = 0;
            unit->decision.fits = 1;
            continue;
        }

        counter = n ? &n->counters[u] : &empty;

        mpol_counter_check(counter, &unit->rate, now, unit->amount,
                           &unit->decision);

        fits &= unit->decision.fits;
    }

    return fits;
}


static ngx_int_t
ngx_mail_policy_shm_count(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now)
{
    uint64_t                        expires;
    ngx_uint_t                      u, units;
    mpol_counter_t                 *counter;
    mpol_decision_t                 after;
    ngx_mail_policy_shm_node_t     *n;
    ngx_mail_policy_charge_unit_t  *unit;

    units = ngx_mail_policy_shm_units(charge);

    if (units == 0) {
        return NGX_OK;
    }

    n = ngx_mail_policy_shm_get(shm, &charge->id, now);
    if (n == NULL) {
        return NGX_ERROR;
    }

    for (u = 0; u < charge->nunits; u++) {

        if (!(units & ((ngx_uint_t) 1 << u))) {
            continue;
        }

        unit = &charge->units[u];
        counter = &n->counters[u];

        mpol_counter_charge(counter, &unit->rate, now, unit->amount);

        /* as charge.lua: what was used before, what remains after */
        mpol_counter_check(counter, &unit->rate, now, 0, &after);
        unit->decision.remaining = after.remaining;

        expires = mpol_counter_expires(counter, &unit->rate, now);
        n->expires = ngx_max(n->expires, expires);
    }

    return NGX_OK;
}


/* the units that this charge leaves a trace of */

static ngx_uint_t
ngx_mail_policy_shm_units(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t                      u, units;
    ngx_mail_policy_charge_unit_t  *unit;

    units = 0;

    for (u = 0; u < charge->nunits; u++) {
        unit = &charge->units[u];

        if (unit->amount
            && (unit->rate.kind == MPOL_RATE_WINDOW
                || unit->rate.kind == MPOL_RATE_BUCKET))
        {
            units |= (ngx_uint_t) 1 << u;
        }
    }

    return units;
}


static ngx_mail_policy_shm_node_t *
ngx_mail_policy_shm_find(ngx_mail_policy_shm_t *shm, ngx_str_t *id)
{
    uint32_t                     hash;
    ngx_int_t                    rc;
    ngx_rbtree_node_t           *node, *sentinel;
    ngx_mail_policy_shm_node_t  *n;

    hash = ngx_crc32_short(id->data, id->len);

    node = shm->sh->rbtree.root;
    sentinel = shm->sh->rbtree.sentinel;

    while (node != sentinel) {

        if (hash != node->key) {
            node = (hash < node->key) ? node->left : node->right;
            continue;
        }

        n = (ngx_mail_policy_shm_node_t *) node;

        rc = ngx_mail_policy_shm_compare(id->data, id->len, n);

        if (rc == 0) {
            return n;
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return NULL;
}


static ngx_mail_policy_shm_node_t *
ngx_mail_policy_shm_get(ngx_mail_policy_shm_t *shm, ngx_str_t *id,
    uint64_t now)
{
    ngx_mail_policy_shm_node_t  *n;

    n = ngx_mail_policy_shm_find(shm, id);

    if (n) {
        return n;
    }

    n = ngx_mail_policy_shm_alloc(shm, sizeof(ngx_mail_policy_shm_node_t)
                                       + id->len, now);
    if (n == NULL) {
        return NULL;
    }

    ngx_memzero(n, sizeof(ngx_mail_policy_shm_node_t));

    n->node.key = ngx_crc32_short(id->data, id->len);
    n->id = (u_char *) n + sizeof(ngx_mail_policy_shm_node_t);
    n->len = id->len;
    ngx_memcpy(n->id, id->data, id->len);

    ngx_rbtree_insert(&shm->sh->rbtree, &n->node);
    ngx_queue_insert_head(&shm->sh->queue, &n->queue);

    return n;
}


static void *
ngx_mail_policy_shm_alloc(ngx_mail_policy_shm_t *shm, size_t size,
    uint64_t now)
{
    void        *p;
    ngx_uint_t   i;

    ngx_mail_policy_shm_expire(shm, NGX_MAIL_POLICY_SHM_EXPIRE, now);

    p = ngx_slab_alloc_locked(shm->shpool, size);

    if (p) {
        return p;
    }

    /* prefer those in which nothing counts any more */

    ngx_mail_policy_shm_expire(shm, NGX_MAIL_POLICY_SHM_EVICT, now);

    for (i = 0; i <= NGX_MAIL_POLICY_SHM_EVICT; i++) {

        p = ngx_slab_alloc_locked(shm->shpool, size);

        if (p || ngx_queue_empty(&shm->sh->queue)) {
            break;
        }

        ngx_mail_policy_shm_free(shm,
                             ngx_queue_data(ngx_queue_last(&shm->sh->queue),
                                            ngx_mail_policy_shm_node_t,
                                            queue));
    }

    return p;
}


/* frees what has expired among the n that were used longest ago */

static void
ngx_mail_policy_shm_expire(ngx_mail_policy_shm_t *shm, ngx_uint_t n,
    uint64_t now)
{
    ngx_queue_t                 *q, *prev;
    ngx_mail_policy_shm_node_t  *node;

    for (q = ngx_queue_last(&shm->sh->queue);
         n && q != ngx_queue_sentinel(&shm->sh->queue);
         q = prev, n--)
    {
        prev = ngx_queue_prev(q);
        node = ngx_queue_data(q, ngx_mail_policy_shm_node_t, queue);

        if (node->expires <= now) {
            ngx_mail_policy_shm_free(shm, node);
        }
    }
}


static void
ngx_mail_policy_shm_free(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n)
{
    ngx_queue_remove(&n->queue);
    ngx_rbtree_delete(&shm->sh->rbtree, &n->node);
    ngx_slab_free_locked(shm->shpool, n);
}
