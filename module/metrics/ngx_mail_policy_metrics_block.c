
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Blocks of counters by name.  They are entered under the lock of the pool,
 * which the master opens if a worker dies that holds it; nblocks is raised
 * when a block is whole, so who reads needs none.  No events arrive here.
 *
 * The first blocks are those for what finds no room, one of each kind.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_metrics.h"


#define ngx_mail_policy_metrics_first(i)                                     \
    (NGX_MAIL_POLICY_METRIC_FIXED + (i) * NGX_MAIL_POLICY_METRICS_BLOCK)


static ngx_uint_t ngx_mail_policy_metrics_block_add(
    ngx_mail_policy_block_e kind, ngx_str_t *name, ngx_str_t *second,
    ngx_uint_t max);
static ngx_int_t ngx_mail_policy_metrics_block_find(
    ngx_mail_policy_metrics_shm_t *shm, ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second);
static void ngx_mail_policy_metrics_block_names(
    ngx_mail_policy_metrics_block_t *block, ngx_str_t *name,
    ngx_str_t *second);
static void ngx_mail_policy_metrics_block_put(
    ngx_mail_policy_metrics_shm_t *shm, ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second);


ngx_uint_t
ngx_mail_policy_metrics_block(ngx_mail_policy_block_e kind, ngx_str_t *name,
    ngx_str_t *second)
{
    return ngx_mail_policy_metrics_block_add(kind, name, second,
                                             NGX_MAIL_POLICY_METRICS_BLOCKS);
}


ngx_uint_t
ngx_mail_policy_metrics_block_dynamic(ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second)
{
    return ngx_mail_policy_metrics_block_add(kind, name, second,
                                          NGX_MAIL_POLICY_METRICS_BLOCKS / 2);
}


/* a new one is made while there are fewer than max */

static ngx_uint_t
ngx_mail_policy_metrics_block_add(ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second, ngx_uint_t max)
{
    ngx_int_t                       i;
    ngx_uint_t                      k;
    ngx_mail_policy_metrics_shm_t  *shm;

    static ngx_str_t  other = ngx_string("other"), none = ngx_null_string;

    if (ngx_mail_policy_metrics == NULL) {
        return ngx_mail_policy_metrics_first(0);
    }

    second = second ? second : &none;
    shm = ngx_mail_policy_metrics->shm;

    i = ngx_mail_policy_metrics_block_find(shm, kind, name, second);

    if (i != NGX_DECLINED) {
        return ngx_mail_policy_metrics_first(i);
    }

    ngx_shmtx_lock(&ngx_mail_policy_metrics->shpool->mutex);

    for (k = shm->nblocks; k < NGX_MAIL_POLICY_BLOCK_KINDS; k++) {
        ngx_mail_policy_metrics_block_put(shm, k, &other, &none);
    }

    i = ngx_mail_policy_metrics_block_find(shm, kind, name, second);

    if (i == NGX_DECLINED) {

        if (shm->nblocks < max) {
            i = shm->nblocks;
            ngx_mail_policy_metrics_block_put(shm, kind, name, second);

        } else {
            i = kind;
        }
    }

    ngx_shmtx_unlock(&ngx_mail_policy_metrics->shpool->mutex);

    return ngx_mail_policy_metrics_first(i);
}


static ngx_int_t
ngx_mail_policy_metrics_block_find(ngx_mail_policy_metrics_shm_t *shm,
    ngx_mail_policy_block_e kind, ngx_str_t *name, ngx_str_t *second)
{
    ngx_str_t                         first, last;
    ngx_uint_t                        i, n;
    ngx_mail_policy_metrics_block_t  *block;

    n = shm->nblocks;

    for (i = NGX_MAIL_POLICY_BLOCK_KINDS; i < n; i++) {
        block = &shm->blocks[i];

        ngx_mail_policy_metrics_block_names(block, &first, &last);

        if (block->kind == kind
            && ngx_mail_policy_metrics_block_is(&first, name)
            && ngx_mail_policy_metrics_block_is(&last, second))
        {
            return i;
        }
    }

    return NGX_DECLINED;
}


static void
ngx_mail_policy_metrics_block_names(ngx_mail_policy_metrics_block_t *block,
    ngx_str_t *name, ngx_str_t *second)
{
    name->len = block->len;
    name->data = block->name;

    second->len = block->second_len;
    second->data = block->second;
}


/* what is too long is told apart by its beginning */

ngx_uint_t
ngx_mail_policy_metrics_block_is(ngx_str_t *block, ngx_str_t *name)
{
    return block->len == ngx_min(name->len, NGX_MAIL_POLICY_METRICS_NAME)
           && ngx_memcmp(block->data, name->data, block->len) == 0;
}


ngx_uint_t
ngx_mail_policy_metrics_block_get(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t i, ngx_mail_policy_block_e *kind, ngx_str_t *name,
    ngx_str_t *second)
{
    ngx_mail_policy_metrics_block_t  *block;

    if (i >= metrics->shm->nblocks) {
        return 0;
    }

    ngx_memory_barrier();

    block = &metrics->shm->blocks[i];

    *kind = (ngx_mail_policy_block_e) block->kind;
    ngx_mail_policy_metrics_block_names(block, name, second);

    return ngx_mail_policy_metrics_first(i);
}


static void
ngx_mail_policy_metrics_block_put(ngx_mail_policy_metrics_shm_t *shm,
    ngx_mail_policy_block_e kind, ngx_str_t *name, ngx_str_t *second)
{
    ngx_mail_policy_metrics_block_t  *block;

    block = &shm->blocks[shm->nblocks];

    block->kind = kind;
    block->len = ngx_min(name->len, NGX_MAIL_POLICY_METRICS_NAME);
    block->second_len = ngx_min(second->len, NGX_MAIL_POLICY_METRICS_NAME);

    ngx_memcpy(block->name, name->data, block->len);
    ngx_memcpy(block->second, second->data, block->second_len);

    ngx_memory_barrier();

    shm->nblocks++;
}
