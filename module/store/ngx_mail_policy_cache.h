
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a worker remembers of what operators wrote in Redis, by key.
 *
 *     unknown -> reading -> known -- cache time --> stale -> reading ...
 *
 * One that cannot be read as Redis is away stays what it was, and is read
 * again soon.  Whoever needs an entry that is being read can wait for that;
 * all who do wait for the same question.
 */


#ifndef NGX_MAIL_POLICY_CACHE_H
#define NGX_MAIL_POLICY_CACHE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_store.h"


typedef struct ngx_mail_policy_cache_s  ngx_mail_policy_cache_t;
typedef struct ngx_mail_policy_entry_s  ngx_mail_policy_entry_t;

typedef void (*ngx_mail_policy_entry_pt)(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup);
typedef void (*ngx_mail_policy_waiter_pt)(void *data,
    ngx_mail_policy_entry_t *entry);


/* the beginning of what its owner keeps of it */
struct ngx_mail_policy_entry_s {
    ngx_str_node_t              str;        /* the key */
    ngx_queue_t                 queue;      /* the one used last at the head */
    ngx_queue_t                 waiters;
    ngx_mail_policy_cache_t    *cache;
    ngx_mail_policy_lookup_t   *lookup;     /* NULL: it is not being read */
    ngx_msec_t                  when;       /* it was asked */
    ngx_uint_t                  pins;       /* how many look at it */
    void                       *text;       /* of the owner; freed with it */
    unsigned                    asked:1;
};


struct ngx_mail_policy_waiter_s {
    ngx_queue_t                 queue;      /* of the entry */
    ngx_mail_policy_waiter_t   *next;       /* the owner's */
    ngx_mail_policy_entry_t    *entry;
    ngx_mail_policy_waiter_pt   handler;
    void                       *data;       /* NULL: told */
};


struct ngx_mail_policy_cache_s {
    ngx_mail_policy_store_t    *store;
    size_t                      size;       /* of an entry */
    ngx_mail_policy_entry_pt    parse;      /* an answer, lookup->rc: NGX_OK,
                                               NGX_DECLINED: of another type */

    ngx_rbtree_t                rbtree;
    ngx_rbtree_node_t           sentinel;
    ngx_queue_t                 queue;
    ngx_uint_t                  n;
};


/* store, size and parse are set */
void ngx_mail_policy_cache_init(ngx_mail_policy_cache_t *cache);
void ngx_mail_policy_cache_free(ngx_mail_policy_cache_t *cache);

/* the entry of a key, a new one if need be; NULL: no memory, or too many */
ngx_mail_policy_entry_t *ngx_mail_policy_cache_get(
    ngx_mail_policy_cache_t *cache, ngx_str_t *key);

/* 1 if it is to be read: never asked, or too old, and nobody is at it */
ngx_uint_t ngx_mail_policy_cache_stale(ngx_mail_policy_entry_t *entry);

/*
 * A lookup of nfields to be filled and read(), or cancelled.  The waiters are
 * told when it is there: never from within read().
 */
ngx_mail_policy_lookup_t *ngx_mail_policy_cache_lookup(
    ngx_mail_policy_entry_t *entry, ngx_uint_t nfields);
void ngx_mail_policy_cache_read(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup);

/* for an entry that is being read; handler and data are set */
void ngx_mail_policy_cache_wait(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_waiter_t *waiter);

/* 1 if it was still to be told */
ngx_uint_t ngx_mail_policy_cache_forget(ngx_mail_policy_waiter_t *waiter);


#endif /* NGX_MAIL_POLICY_CACHE_H */
