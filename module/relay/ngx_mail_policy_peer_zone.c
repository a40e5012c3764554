
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What all workers know of relays, in shared memory.  No events arrive here.
 *
 *     tree of nodes, by key -------- state, with the sum of connections
 *                 ^
 *                 | a share: references and connections of one process
 *                 v
 *     list of processes
 *
 * A process that dies leaves its shares behind: the next one that starts, in
 * its slot of the master's table or in another, gives them back.  A node that
 * nobody has a share in waits for the next that asks for it, as after a
 * reload, until its memory is needed.
 *
 * The zone has the lock of its pool, which the master opens if a worker dies
 * that holds it.  Its size is virtual: memory is taken by what is used.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


#define NGX_MAIL_POLICY_PEER_ZONE_SIZE  (4 * 1024 * 1024)


typedef struct {
    ngx_str_node_t                     sn;
    ngx_queue_t                        queue;       /* idle: no shares */
    ngx_uint_t                         shares;
    ngx_mail_policy_peer_state_t       state;
    u_char                             key[1];
} ngx_mail_policy_peer_node_t;


typedef struct {
    ngx_queue_t                        queue;
    ngx_queue_t                        shares;
    ngx_pid_t                          pid;
    ngx_int_t                          slot;
    ngx_uint_t                         opened;      /* by cycles of it */
} ngx_mail_policy_peer_process_t;


struct ngx_mail_policy_peer_share_s {
    ngx_queue_t                        queue;       /* of its process */
    ngx_mail_policy_peer_node_t       *node;
    ngx_uint_t                         refs;
    ngx_uint_t                         conns;
};


typedef struct {
    ngx_rbtree_t                       rbtree;
    ngx_rbtree_node_t                  sentinel;
    ngx_queue_t                        idle;
    ngx_queue_t                        processes;
} ngx_mail_policy_peer_shctx_t;


struct ngx_mail_policy_peer_zone_s {
    ngx_slab_pool_t                   *shpool;
    ngx_mail_policy_peer_shctx_t      *sh;
    ngx_mail_policy_peer_process_t    *process;     /* this one */
};


static ngx_int_t ngx_mail_policy_peer_zone_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_mail_policy_peer_process_t *ngx_mail_policy_peer_process_find(
    ngx_mail_policy_peer_zone_t *zone);
static ngx_uint_t ngx_mail_policy_peer_process_dead(
    ngx_mail_policy_peer_process_t *process);
static void ngx_mail_policy_peer_process_drop(
    ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_process_t *process);
static void ngx_mail_policy_peer_share_drop(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share);
static ngx_mail_policy_peer_share_t *ngx_mail_policy_peer_share_make(
    ngx_mail_policy_peer_zone_t *zone, ngx_mail_policy_peer_node_t *node);
static ngx_mail_policy_peer_node_t *ngx_mail_policy_peer_node_get(
    ngx_mail_policy_peer_zone_t *zone, ngx_str_t *key);
static void *ngx_mail_policy_peer_zone_alloc(ngx_mail_policy_peer_zone_t *zone,
    size_t size);


ngx_mail_policy_peer_zone_t *
ngx_mail_policy_peer_zone_add(ngx_conf_t *cf)
{
    ngx_shm_zone_t               *shm_zone;
    ngx_mail_policy_peer_zone_t  *zone;

    static ngx_str_t  name = ngx_string("mail_policy_relays");

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_peer_zone_t));
    if (zone == NULL) {
        return NULL;
    }

    shm_zone = ngx_shared_memory_add(cf, &name,
                                     NGX_MAIL_POLICY_PEER_ZONE_SIZE,
                                     &ngx_mail_policy_module);
    if (shm_zone == NULL) {
        return NULL;
    }

    shm_zone->init = ngx_mail_policy_peer_zone_init;
    shm_zone->data = zone;

    return zone;
}


static ngx_int_t
ngx_mail_policy_peer_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_mail_policy_peer_zone_t  *old = data;

    ngx_mail_policy_peer_zone_t  *zone;

    zone = shm_zone->data;

    if (old) {
        zone->sh = old->sh;
        zone->shpool = old->shpool;
        return NGX_OK;
    }

    zone->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        zone->sh = zone->shpool->data;
        return NGX_OK;
    }

    zone->sh = ngx_slab_calloc(zone->shpool,
                               sizeof(ngx_mail_policy_peer_shctx_t));
    if (zone->sh == NULL) {
        return NGX_ERROR;
    }

    zone->shpool->data = zone->sh;

    /* it is told where it matters */
    zone->shpool->log_nomem = 0;

    ngx_rbtree_init(&zone->sh->rbtree, &zone->sh->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&zone->sh->idle);
    ngx_queue_init(&zone->sh->processes);

    return NGX_OK;
}


void
ngx_mail_policy_peer_lock(ngx_mail_policy_peer_zone_t *zone)
{
    if (zone) {
        ngx_shmtx_lock(&zone->shpool->mutex);
    }
}


void
ngx_mail_policy_peer_unlock(ngx_mail_policy_peer_zone_t *zone)
{
    if (zone) {
        ngx_shmtx_unlock(&zone->shpool->mutex);
    }
}


void
ngx_mail_policy_peer_zone_open(ngx_mail_policy_peer_zone_t *zone)
{
    ngx_mail_policy_peer_process_t  *process;

    ngx_mail_policy_peer_zone_sweep(zone);

    ngx_mail_policy_peer_lock(zone);

    process = ngx_mail_policy_peer_process_find(zone);

    if (process == NULL) {
        process = ngx_mail_policy_peer_zone_alloc(zone,
                                      sizeof(ngx_mail_policy_peer_process_t));
        if (process) {
            process->pid = ngx_pid;
            process->slot = ngx_process_slot;
            ngx_queue_init(&process->shares);
            ngx_queue_insert_tail(&zone->sh->processes, &process->queue);
        }
    }

    if (process) {
        process->opened++;
    }

    zone->process = process;

    ngx_mail_policy_peer_unlock(zone);
}


/* a cycle that a single process has reloaded is closed, and the next is not */

void
ngx_mail_policy_peer_zone_close(ngx_mail_policy_peer_zone_t *zone)
{
    ngx_mail_policy_peer_process_t  *process;

    process = zone->process;
    zone->process = NULL;

    if (process == NULL) {
        return;
    }

    ngx_mail_policy_peer_lock(zone);

    if (--process->opened == 0) {
        ngx_mail_policy_peer_process_drop(zone, process);
    }

    ngx_mail_policy_peer_unlock(zone);
}


static ngx_mail_policy_peer_process_t *
ngx_mail_policy_peer_process_find(ngx_mail_policy_peer_zone_t *zone)
{
    ngx_queue_t                     *q;
    ngx_mail_policy_peer_process_t  *process;

    for (q = ngx_queue_head(&zone->sh->processes);
         q != ngx_queue_sentinel(&zone->sh->processes);
         q = ngx_queue_next(q))
    {
        process = ngx_queue_data(q, ngx_mail_policy_peer_process_t, queue);

        if (process->pid == ngx_pid) {
            return process;
        }
    }

    return NULL;
}


void
ngx_mail_policy_peer_zone_sweep(ngx_mail_policy_peer_zone_t *zone)
{
    ngx_queue_t                     *q, *next;
    ngx_mail_policy_peer_process_t  *process;

    ngx_mail_policy_peer_lock(zone);

    for (q = ngx_queue_head(&zone->sh->processes);
         q != ngx_queue_sentinel(&zone->sh->processes);
         q = next)
    {
        next = ngx_queue_next(q);
        process = ngx_queue_data(q, ngx_mail_policy_peer_process_t, queue);

        if (ngx_mail_policy_peer_process_dead(process)) {
            ngx_mail_policy_peer_process_drop(zone, process);
        }
    }

    ngx_mail_policy_peer_unlock(zone);
}


/* a number of a process may be taken again by another: then the slot tells */

static ngx_uint_t
ngx_mail_policy_peer_process_dead(ngx_mail_policy_peer_process_t *process)
{
    if (process->pid == ngx_pid) {
        return 0;
    }

    return process->slot == ngx_process_slot
           || (kill(process->pid, 0) == -1 && ngx_errno == NGX_ESRCH);
}


static void
ngx_mail_policy_peer_process_drop(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_process_t *process)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_peer_share_t  *share;

    while (!ngx_queue_empty(&process->shares)) {
        q = ngx_queue_head(&process->shares);
        share = ngx_queue_data(q, ngx_mail_policy_peer_share_t, queue);

        ngx_mail_policy_peer_share_drop(zone, share);
    }

    ngx_queue_remove(&process->queue);
    ngx_slab_free_locked(zone->shpool, process);
}


static void
ngx_mail_policy_peer_share_drop(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share)
{
    ngx_mail_policy_peer_node_t  *node;

    node = share->node;

    node->state.conns -= ngx_min(share->conns, node->state.conns);

    if (--node->shares == 0) {
        ngx_queue_insert_tail(&zone->sh->idle, &node->queue);
    }

    ngx_queue_remove(&share->queue);
    ngx_slab_free_locked(zone->shpool, share);
}


ngx_mail_policy_peer_share_t *
ngx_mail_policy_peer_share_get(ngx_mail_policy_peer_zone_t *zone,
    ngx_str_t *key, ngx_mail_policy_peer_state_t **state)
{
    ngx_mail_policy_peer_node_t   *node;
    ngx_mail_policy_peer_share_t  *share;

    if (zone == NULL || zone->process == NULL) {
        return NULL;
    }

    ngx_mail_policy_peer_lock(zone);

    share = NULL;
    node = ngx_mail_policy_peer_node_get(zone, key);

    if (node) {
        share = ngx_mail_policy_peer_share_make(zone, node);
        *state = &node->state;
    }

    ngx_mail_policy_peer_unlock(zone);

    return share;
}


/* this process' share in a node */

static ngx_mail_policy_peer_share_t *
ngx_mail_policy_peer_share_make(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_node_t *node)
{
    ngx_queue_t                   *q, *shares;
    ngx_mail_policy_peer_share_t  *share;

    shares = &zone->process->shares;

    for (q = ngx_queue_head(shares);
         q != ngx_queue_sentinel(shares);
         q = ngx_queue_next(q))
    {
        share = ngx_queue_data(q, ngx_mail_policy_peer_share_t, queue);

        if (share->node == node) {
            share->refs++;
            return share;
        }
    }

    if (node->shares++ == 0) {
        ngx_queue_remove(&node->queue);
    }

    share = ngx_mail_policy_peer_zone_alloc(zone,
                                       sizeof(ngx_mail_policy_peer_share_t));
    if (share == NULL) {
        if (--node->shares == 0) {
            ngx_queue_insert_tail(&zone->sh->idle, &node->queue);
        }

        return NULL;
    }

    share->node = node;
    share->refs = 1;

    ngx_queue_insert_head(shares, &share->queue);

    return share;
}


void
ngx_mail_policy_peer_share_put(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share)
{
    if (zone->process == NULL) {
        return;
    }

    ngx_mail_policy_peer_lock(zone);

    if (--share->refs == 0) {
        ngx_mail_policy_peer_share_drop(zone, share);
    }

    ngx_mail_policy_peer_unlock(zone);
}


void
ngx_mail_policy_peer_share_count(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share, ngx_int_t n)
{
    if (zone->process) {
        share->conns += n;
        share->node->state.conns += n;
    }
}


ngx_int_t
ngx_mail_policy_peer_zone_keys(ngx_mail_policy_peer_zone_t *zone,
    ngx_str_t *begin, ngx_pool_t *pool, ngx_array_t *keys)
{
    ngx_str_t                    *key;
    ngx_rbtree_t                 *tree;
    ngx_rbtree_node_t            *n;
    ngx_mail_policy_peer_node_t  *node;

    ngx_mail_policy_peer_lock(zone);

    tree = &zone->sh->rbtree;

    for (n = (tree->root == tree->sentinel)
             ? NULL : ngx_rbtree_min(tree->root, tree->sentinel);
         n;
         n = ngx_rbtree_next(tree, n))
    {
        node = (ngx_mail_policy_peer_node_t *) n;

        if (node->shares == 0
            || node->sn.str.len <= begin->len
            || ngx_memcmp(node->key, begin->data, begin->len) != 0)
        {
            continue;
        }

        key = ngx_array_push(keys);
        if (key == NULL) {
            break;
        }

        key->len = node->sn.str.len - begin->len;
        key->data = ngx_pnalloc(pool, key->len);

        if (key->data == NULL) {
            break;
        }

        ngx_memcpy(key->data, node->key + begin->len, key->len);
    }

    ngx_mail_policy_peer_unlock(zone);

    return n ? NGX_ERROR : NGX_OK;
}


/* a new one is idle */

static ngx_mail_policy_peer_node_t *
ngx_mail_policy_peer_node_get(ngx_mail_policy_peer_zone_t *zone,
    ngx_str_t *key)
{
    uint32_t                      hash;
    ngx_mail_policy_peer_node_t  *node;

    hash = ngx_crc32_short(key->data, key->len);

    node = (ngx_mail_policy_peer_node_t *)
               ngx_str_rbtree_lookup(&zone->sh->rbtree, key, hash);

    if (node) {
        return node;
    }

    node = ngx_mail_policy_peer_zone_alloc(zone,
                        offsetof(ngx_mail_policy_peer_node_t, key) + key->len);
    if (node == NULL) {
        return NULL;
    }

    node->sn.node.key = hash;
    node->sn.str.len = key->len;
    node->sn.str.data = node->key;
    ngx_memcpy(node->key, key->data, key->len);

    ngx_rbtree_insert(&zone->sh->rbtree, &node->sn.node);
    ngx_queue_insert_tail(&zone->sh->idle, &node->queue);

    return node;
}


/* what nobody uses makes room */

static void *
ngx_mail_policy_peer_zone_alloc(ngx_mail_policy_peer_zone_t *zone,
    size_t size)
{
    void                         *p;
    ngx_queue_t                  *q;
    ngx_mail_policy_peer_node_t  *node;

    for ( ;; ) {
        p = ngx_slab_calloc_locked(zone->shpool, size);

        if (p || ngx_queue_empty(&zone->sh->idle)) {
            return p;
        }

        q = ngx_queue_head(&zone->sh->idle);
        node = ngx_queue_data(q, ngx_mail_policy_peer_node_t, queue);

        ngx_queue_remove(q);
        ngx_rbtree_delete(&zone->sh->rbtree, &node->sn.node);
        ngx_slab_free_locked(zone->shpool, node);
    }
}
