
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The memory of policy_zone.  No events arrive here.
 *
 * A node holds what is kept under one key: its id and its state, as octets.
 * It is a chain of cells, all of one size, also those of other nodes: what
 * gives way leaves room for any.
 *
 * A node is in a tree by its id, in a tree by when something becomes of it
 * by itself, and in one of two queues, the one used last at the head.
 *
 *     (none) -- get() --> in queue ---- expires ----> freed
 *                           |  ^                        ^
 *          over its limit   |  |   not any more         |  no memory for
 *                           v  |                        |  another one
 *                        in refused ------------------->|
 *
 * What gives way to a new one: whatever has expired; if nothing has, the one
 * in queue that was used longest ago; if there is none, or if refused has more
 * than half of all, the one in refused.  So nobody is forgotten to be over his
 * limit because of new keys, nor are the others because of many who are.
 *
 * The pool's own mutex guards all of it: nginx unlocks that one should a
 * worker die with it.  What that one left half done is not looked at: the
 * zone begins anew.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/rand.h>

#include "ngx_mail_policy_shm_node.h"


#define NGX_MAIL_POLICY_SHM_CELL    256
#define NGX_MAIL_POLICY_SHM_SWEEP   2       /* looked at for each new one */
#define NGX_MAIL_POLICY_SHM_EXPIRE  64      /* the same, if memory is short */


struct ngx_mail_policy_shm_cell_s {
    ngx_mail_policy_shm_cell_t  *next;
    u_char                       data[NGX_MAIL_POLICY_SHM_CELL
                                      - sizeof(void *)];
};


/* a place in a chain of octets */
typedef struct {
    u_char                      *pos;
    u_char                      *last;
    ngx_mail_policy_shm_cell_t  *next;
} ngx_mail_policy_shm_chain_t;


#define NGX_MAIL_POLICY_SHM_HEAD                                              \
    (NGX_MAIL_POLICY_SHM_CELL - sizeof(ngx_mail_policy_shm_node_t))

#define NGX_MAIL_POLICY_SHM_FOREVER  ((uint32_t) -1)    /* seconds */


static void ngx_mail_policy_shm_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_uint_t ngx_mail_policy_shm_complain(ngx_mail_policy_shm_t *shm);
static ngx_int_t ngx_mail_policy_shm_compare(ngx_mail_policy_shm_chain_t *a,
    size_t len, ngx_mail_policy_shm_node_t *n);
static void ngx_mail_policy_shm_begin(ngx_mail_policy_shm_chain_t *chain,
    ngx_mail_policy_shm_node_t *n);
static size_t ngx_mail_policy_shm_piece(ngx_mail_policy_shm_chain_t *chain,
    size_t len);
static void ngx_mail_policy_shm_put(ngx_mail_policy_shm_chain_t *chain,
    u_char *data, size_t len);
static void ngx_mail_policy_shm_take_out(ngx_mail_policy_shm_chain_t *chain,
    u_char *out, size_t len);
static ngx_uint_t ngx_mail_policy_shm_cells(size_t len);
static ngx_int_t ngx_mail_policy_shm_resize(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, size_t len, uint64_t now);
static void ngx_mail_policy_shm_free_cells(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_cell_t *cell);
static void *ngx_mail_policy_shm_alloc(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *pinned, uint64_t now);
static void ngx_mail_policy_shm_expire(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *pinned, ngx_uint_t n, uint64_t now);
static ngx_uint_t ngx_mail_policy_shm_evict(ngx_mail_policy_shm_t *shm,
    ngx_queue_t *queue, ngx_mail_policy_shm_node_t *pinned);
static uint32_t ngx_mail_policy_shm_seconds(uint64_t usec);
static void ngx_mail_policy_shm_set_due(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n);


ngx_int_t
ngx_mail_policy_shm_create(ngx_mail_policy_shm_t *shm)
{
    ngx_uint_t                 i;
    ngx_mail_policy_shm_sh_t  *sh;

    sh = ngx_slab_calloc_locked(shm->shpool,
                                sizeof(ngx_mail_policy_shm_sh_t));
    if (sh == NULL) {
        return NGX_ERROR;
    }

    ngx_rbtree_init(&sh->ids, &sh->ids_sentinel, ngx_mail_policy_shm_insert);
    ngx_rbtree_init(&sh->due, &sh->due_sentinel, ngx_rbtree_insert_value);
    ngx_queue_init(&sh->queue);
    ngx_queue_init(&sh->refused);
    ngx_queue_init(&sh->waiting);

    if (RAND_bytes(sh->secret, sizeof(sh->secret)) != 1) {

        for (i = 0; i < sizeof(sh->secret); i++) {
            sh->secret[i] = (u_char) ngx_random();
        }
    }

    /* a full zone is the usual state of a busy one, eviction deals with it */
    shm->shpool->log_nomem = 0;

    shm->shpool->data = sh;
    shm->sh = sh;

    return NGX_OK;
}


void
ngx_mail_policy_shm_lock(ngx_mail_policy_shm_t *shm)
{
    ngx_slab_pool_t  *shpool;

    shpool = shm->shpool;

    ngx_shmtx_lock(&shpool->mutex);

    shm->sh = shpool->data;
    shm->forgot = (shm->sh == NULL || shm->sh->busy);

    if (shm->forgot) {

        /* it fitted once; until it does again, nobody else gets past here */

        shpool->data = NULL;
        ngx_memory_barrier();

        ngx_slab_init(shpool);
        (void) ngx_mail_policy_shm_create(shm);
    }

    shm->sh->busy = 1;
    ngx_memory_barrier();
}


void
ngx_mail_policy_shm_unlock(ngx_mail_policy_shm_t *shm, ngx_uint_t failed)
{
    ngx_uint_t  forgot;

    forgot = shm->forgot;

    if (failed) {
        failed = ngx_mail_policy_shm_complain(shm);
    }

    ngx_memory_barrier();
    shm->sh->busy = 0;

    ngx_shmtx_unlock(&shm->shpool->mutex);

    if (forgot) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "a worker died while it changed policy_zone, which "
                      "begins with nothing again");
    }

    if (failed) {
        ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                      "policy_zone is too small, some mail is not counted; "
                      "write a larger size");
    }
}


ngx_mail_policy_shm_node_t *
ngx_mail_policy_shm_find(ngx_mail_policy_shm_t *shm, ngx_str_t *id)
{
    uint32_t                      hash;
    ngx_int_t                     rc;
    ngx_rbtree_node_t            *node, *sentinel;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_chain_t   chain;

    hash = ngx_crc32_short(id->data, id->len);

    node = shm->sh->ids.root;
    sentinel = shm->sh->ids.sentinel;

    while (node != sentinel) {

        if (hash != node->key) {
            node = (hash < node->key) ? node->left : node->right;
            continue;
        }

        n = (ngx_mail_policy_shm_node_t *) node;

        chain.pos = id->data;
        chain.last = id->data + id->len;
        chain.next = NULL;

        rc = ngx_mail_policy_shm_compare(&chain, id->len, n);

        if (rc == 0) {
            return n;
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return NULL;
}


static void
ngx_mail_policy_shm_insert(ngx_rbtree_node_t *temp, ngx_rbtree_node_t *node,
    ngx_rbtree_node_t *sentinel)
{
    ngx_rbtree_node_t           **p;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_chain_t   chain;

    n = (ngx_mail_policy_shm_node_t *) node;

    for ( ;; ) {

        if (node->key != temp->key) {
            p = (node->key < temp->key) ? &temp->left : &temp->right;

        } else {
            ngx_mail_policy_shm_begin(&chain, n);

            p = (ngx_mail_policy_shm_compare(&chain, n->id_len,
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


/* equal hashes are ordered by the id, so that nobody can build a list */

static ngx_int_t
ngx_mail_policy_shm_compare(ngx_mail_policy_shm_chain_t *a, size_t len,
    ngx_mail_policy_shm_node_t *n)
{
    size_t                        size;
    ngx_int_t                     rc;
    ngx_mail_policy_shm_chain_t   b;

    if (len != n->id_len) {
        return (len < n->id_len) ? -1 : 1;
    }

    ngx_mail_policy_shm_begin(&b, n);

    while (len) {
        size = ngx_mail_policy_shm_piece(a, len);
        size = ngx_mail_policy_shm_piece(&b, size);

        rc = ngx_memcmp(a->pos, b.pos, size);
        if (rc != 0) {
            return rc;
        }

        a->pos += size;
        b.pos += size;
        len -= size;
    }

    return 0;
}


static void
ngx_mail_policy_shm_begin(ngx_mail_policy_shm_chain_t *chain,
    ngx_mail_policy_shm_node_t *n)
{
    chain->pos = (u_char *) n + sizeof(ngx_mail_policy_shm_node_t);
    chain->last = (u_char *) n + NGX_MAIL_POLICY_SHM_CELL;
    chain->next = n->cells;
}


/* how many of len octets are in one piece at pos; there are as many */

static size_t
ngx_mail_policy_shm_piece(ngx_mail_policy_shm_chain_t *chain, size_t len)
{
    ngx_mail_policy_shm_cell_t  *cell;

    if (chain->pos == chain->last) {
        cell = chain->next;

        chain->pos = cell->data;
        chain->last = cell->data + sizeof(cell->data);
        chain->next = cell->next;
    }

    return ngx_min(len, (size_t) (chain->last - chain->pos));
}


static void
ngx_mail_policy_shm_put(ngx_mail_policy_shm_chain_t *chain, u_char *data,
    size_t len)
{
    size_t  size;

    while (len) {
        size = ngx_mail_policy_shm_piece(chain, len);

        ngx_memcpy(chain->pos, data, size);

        chain->pos += size;
        data += size;
        len -= size;
    }
}


/* out may be NULL */

static void
ngx_mail_policy_shm_take_out(ngx_mail_policy_shm_chain_t *chain, u_char *out,
    size_t len)
{
    size_t  size;

    while (len) {
        size = ngx_mail_policy_shm_piece(chain, len);

        if (out) {
            out = ngx_cpymem(out, chain->pos, size);
        }

        chain->pos += size;
        len -= size;
    }
}


ngx_mail_policy_shm_node_t *
ngx_mail_policy_shm_get(ngx_mail_policy_shm_t *shm, ngx_str_t *id,
    uint64_t now)
{
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_chain_t   chain;

    n = ngx_mail_policy_shm_find(shm, id);

    if (n) {
        return n;
    }

    if (id->len > 65535) {
        return NULL;
    }

    ngx_mail_policy_shm_expire(shm, NULL, NGX_MAIL_POLICY_SHM_SWEEP, now);

    n = ngx_mail_policy_shm_alloc(shm, NULL, now);
    if (n == NULL) {
        return NULL;
    }

    ngx_memzero(n, sizeof(ngx_mail_policy_shm_node_t));

    if (ngx_mail_policy_shm_resize(shm, n, id->len, now) != NGX_OK) {
        ngx_slab_free_locked(shm->shpool, n);
        return NULL;
    }

    n->node.key = ngx_crc32_short(id->data, id->len);
    n->id_len = (uint16_t) id->len;
    n->expires = NGX_MAIL_POLICY_SHM_FOREVER;
    n->due.key = NGX_MAIL_POLICY_SHM_FOREVER;
    n->since = shm->sh->outage;
    n->outage = shm->sh->outage;

    ngx_mail_policy_shm_begin(&chain, n);
    ngx_mail_policy_shm_put(&chain, id->data, id->len);

    ngx_rbtree_insert(&shm->sh->ids, &n->node);
    ngx_rbtree_insert(&shm->sh->due, &n->due);
    ngx_queue_insert_head(&shm->sh->queue, &n->queue);
    shm->sh->nnodes++;

    return n;
}


void
ngx_mail_policy_shm_free(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n)
{
    ngx_mail_policy_shm_wait(shm, n, 0);

    shm->sh->nnodes--;
    shm->sh->nrefused -= n->is_refused;

    ngx_queue_remove(&n->queue);
    ngx_rbtree_delete(&shm->sh->due, &n->due);
    ngx_rbtree_delete(&shm->sh->ids, &n->node);

    ngx_mail_policy_shm_free_cells(shm, n->cells);
    ngx_slab_free_locked(shm->shpool, n);
}


void
ngx_mail_policy_shm_touch(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n)
{
    ngx_queue_remove(&n->queue);
    ngx_queue_insert_head(n->is_refused ? &shm->sh->refused : &shm->sh->queue,
                          &n->queue);
}


void
ngx_mail_policy_shm_read_id(ngx_mail_policy_shm_node_t *n, u_char *out)
{
    ngx_mail_policy_shm_chain_t  chain;

    ngx_mail_policy_shm_begin(&chain, n);
    ngx_mail_policy_shm_take_out(&chain, out, n->id_len);
}


void
ngx_mail_policy_shm_read(ngx_mail_policy_shm_node_t *n, u_char *out)
{
    ngx_mail_policy_shm_chain_t  chain;

    ngx_mail_policy_shm_begin(&chain, n);
    ngx_mail_policy_shm_take_out(&chain, NULL, n->id_len);
    ngx_mail_policy_shm_take_out(&chain, out, n->len);
}


ngx_int_t
ngx_mail_policy_shm_write(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, u_char *data, size_t len, uint64_t now)
{
    ngx_mail_policy_shm_chain_t  chain;

    if (ngx_mail_policy_shm_resize(shm, n, n->id_len + len, now) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_mail_policy_shm_begin(&chain, n);
    ngx_mail_policy_shm_take_out(&chain, NULL, n->id_len);
    ngx_mail_policy_shm_put(&chain, data, len);

    n->len = (uint32_t) len;

    return NGX_OK;
}


/* how many cells so many octets take behind the first */

static ngx_uint_t
ngx_mail_policy_shm_cells(size_t len)
{
    size_t  size;

    if (len <= NGX_MAIL_POLICY_SHM_HEAD) {
        return 0;
    }

    size = sizeof(((ngx_mail_policy_shm_cell_t *) NULL)->data);

    return (len - NGX_MAIL_POLICY_SHM_HEAD + size - 1) / size;
}


/* what the cells hold that remain is left as it is */

static ngx_int_t
ngx_mail_policy_shm_resize(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, size_t len, uint64_t now)
{
    ngx_uint_t                    count;
    ngx_mail_policy_shm_cell_t   *cell, *added, **p;

    p = &n->cells;

    for (count = ngx_mail_policy_shm_cells(len); count && *p; count--) {
        p = &(*p)->next;
    }

    added = NULL;

    for ( /* void */ ; count; count--) {
        cell = ngx_mail_policy_shm_alloc(shm, n, now);

        if (cell == NULL) {
            ngx_mail_policy_shm_free_cells(shm, added);
            return NGX_ERROR;
        }

        cell->next = added;
        added = cell;
    }

    ngx_mail_policy_shm_free_cells(shm, *p);
    *p = added;

    return NGX_OK;
}


static void
ngx_mail_policy_shm_free_cells(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_cell_t *cell)
{
    ngx_mail_policy_shm_cell_t  *next;

    for ( /* void */ ; cell; cell = next) {
        next = cell->next;
        ngx_slab_free_locked(shm->shpool, cell);
    }
}


/* a cell; pinned is not to be freed for it */

static void *
ngx_mail_policy_shm_alloc(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *pinned, uint64_t now)
{
    void         *p;
    ngx_queue_t  *first, *second;

    p = ngx_slab_alloc_locked(shm->shpool, NGX_MAIL_POLICY_SHM_CELL);

    if (p) {
        return p;
    }

    ngx_mail_policy_shm_expire(shm, pinned, NGX_MAIL_POLICY_SHM_EXPIRE, now);

    p = ngx_slab_alloc_locked(shm->shpool, NGX_MAIL_POLICY_SHM_CELL);

    if (p) {
        return p;
    }

    /*
     * Who is over a limit goes last, but a stranger who can be refused under
     * many keys must not leave the others no room.
     */

    first = &shm->sh->queue;
    second = &shm->sh->refused;

    if (shm->sh->nrefused > shm->sh->nnodes / 2) {
        first = &shm->sh->refused;
        second = &shm->sh->queue;
    }

    if (ngx_mail_policy_shm_evict(shm, first, pinned)
        || ngx_mail_policy_shm_evict(shm, second, pinned))
    {
        p = ngx_slab_alloc_locked(shm->shpool, NGX_MAIL_POLICY_SHM_CELL);
    }

    return p;
}


/* at most n of those that are due */

static void
ngx_mail_policy_shm_expire(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *pinned, ngx_uint_t n, uint64_t now)
{
    time_t                       sec;
    ngx_rbtree_node_t           *due;
    ngx_mail_policy_shm_node_t  *node;

    sec = now / 1000000;

    for ( /* void */ ; n; n--) {

        if (shm->sh->due.root == shm->sh->due.sentinel) {
            return;
        }

        due = ngx_rbtree_min(shm->sh->due.root, shm->sh->due.sentinel);

        node = (ngx_mail_policy_shm_node_t *)
               ((u_char *) due - offsetof(ngx_mail_policy_shm_node_t, due));

        if ((time_t) due->key > sec) {
            return;
        }

        if ((time_t) node->expires <= sec) {

            if (node == pinned) {
                return;
            }

            ngx_mail_policy_shm_free(shm, node);
            continue;
        }

        /* over its limit no more: as any other, used long ago */

        node->refused = 0;
        node->is_refused = 0;
        shm->sh->nrefused--;

        ngx_queue_remove(&node->queue);
        ngx_queue_insert_tail(&shm->sh->queue, &node->queue);

        ngx_mail_policy_shm_set_due(shm, node);
    }
}


/* 1 if one was freed, the one used longest ago */

static ngx_uint_t
ngx_mail_policy_shm_evict(ngx_mail_policy_shm_t *shm, ngx_queue_t *queue,
    ngx_mail_policy_shm_node_t *pinned)
{
    ngx_queue_t  *q;

    q = ngx_queue_last(queue);

    if (pinned && q == &pinned->queue) {
        q = ngx_queue_prev(q);
    }

    if (q == ngx_queue_sentinel(queue)) {
        return 0;
    }

    ngx_mail_policy_shm_free(shm, ngx_queue_data(q,
                                         ngx_mail_policy_shm_node_t, queue));

    return 1;
}


void
ngx_mail_policy_shm_schedule(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, uint64_t expires, uint64_t refused)
{
    n->expires = ngx_mail_policy_shm_seconds(expires);
    n->refused = ngx_max(n->refused, ngx_mail_policy_shm_seconds(refused));

    if (n->refused && !n->is_refused) {
        n->is_refused = 1;
        shm->sh->nrefused++;
        ngx_mail_policy_shm_touch(shm, n);
    }

    ngx_mail_policy_shm_set_due(shm, n);
}


static uint32_t
ngx_mail_policy_shm_seconds(uint64_t usec)
{
    usec = (usec + 999999) / 1000000;

    return (uint32_t) ngx_min(usec, NGX_MAIL_POLICY_SHM_FOREVER);
}


static void
ngx_mail_policy_shm_set_due(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n)
{
    uint32_t  due;

    due = n->is_refused ? ngx_min(n->expires, n->refused) : n->expires;

    if (n->due.key == due) {
        return;
    }

    ngx_rbtree_delete(&shm->sh->due, &n->due);
    n->due.key = due;
    ngx_rbtree_insert(&shm->sh->due, &n->due);
}


void
ngx_mail_policy_shm_wait(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_uint_t waits)
{
    if (waits == n->is_waiting) {
        return;
    }

    if (waits) {
        ngx_queue_insert_tail(&shm->sh->waiting, &n->waiting);
        shm->sh->nwaiting++;

    } else {
        ngx_queue_remove(&n->waiting);
        shm->sh->nwaiting--;
    }

    n->is_waiting = waits;
}


/* 1: it is time to say again that there is too little memory */

static ngx_uint_t
ngx_mail_policy_shm_complain(ngx_mail_policy_shm_t *shm)
{
    time_t  now;

    now = ngx_time();

    if (now - shm->sh->complained < 60) {
        return 0;
    }

    shm->sh->complained = now;

    return 1;
}
