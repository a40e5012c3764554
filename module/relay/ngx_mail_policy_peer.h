
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One address that relays: what a worker knows of it, and what all know.
 *
 * A peer is a worker's own.  It lives as long as its group names it, and on
 * until its last reference is gone.  Its state (failures, connections, what
 * its EHLO has offered) is shared by all workers of the machine, by group,
 * "server" and address, and lasts over a reload; where there is no memory for
 * that it is the worker's own.
 */


#ifndef NGX_MAIL_POLICY_PEER_H
#define NGX_MAIL_POLICY_PEER_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_balance.h"
#include "mpol_reply.h"


typedef struct ngx_mail_policy_upstream_s    ngx_mail_policy_upstream_t;
typedef struct ngx_mail_policy_server_s      ngx_mail_policy_server_t;
typedef struct ngx_mail_policy_peer_share_s  ngx_mail_policy_peer_share_t;
typedef struct ngx_mail_policy_peer_zone_s   ngx_mail_policy_peer_zone_t;


/* read and written under the lock of the zone */
typedef struct {
    ngx_uint_t         conns;           /* in use, of all workers */
    ngx_int_t          weight;          /* that turn goes by */
    mpol_turn_t        turn;

    ngx_uint_t         fails;
    time_t             accessed;        /* the last failure */
    time_t             checked;         /* ... or when it was tried again */
    ngx_msec_t         slow_since;      /* its slow start; 0: none */

    ngx_msec_t         probe_due;       /* health_check: the next one, and */
    ngx_uint_t         probe_fails;     /* ... how many of one kind */
    ngx_uint_t         probe_passes;

    uint64_t           size;            /* of a message; 0: no maximum */
    ngx_uint_t         extensions;      /* MPOL_RELAY_..., of its last EHLO */
    unsigned           known:1;         /* ... which it has answered */
    unsigned           unhealthy:1;     /* says health_check */
} ngx_mail_policy_peer_state_t;


typedef struct {
    struct sockaddr               *sockaddr;
    socklen_t                      socklen;
    ngx_str_t                      name;    /* address:port, for the log */

    ngx_mail_policy_upstream_t    *upstream;
    ngx_mail_policy_server_t      *server;
    ngx_mail_policy_peer_state_t  *state;
    ngx_mail_policy_peer_share_t  *share;   /* NULL: state is our own */

    ngx_pool_t                    *pool;    /* its own, or NULL */
    ngx_uint_t                     index;   /* in the group */
    ngx_uint_t                     counters;    /* its block; 0: not yet */
    ngx_uint_t                     refs;    /* without that of its group */
    unsigned                       gone:1;  /* no more in its group */
} ngx_mail_policy_peer_t;


/*
 * Connections to a peer keep it alive by a reference, and those in use are
 * counted (least_conn, max_conns).
 *
 * acquire, release: both.  ref, unref: a reference alone, of a connection
 * that waits for use.  rest: in use no more, stays referenced; use: the other
 * way round.
 */
void ngx_mail_policy_peer_acquire(ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_peer_release(ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_peer_ref(ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_peer_unref(ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_peer_rest(ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_peer_use(ngx_mail_policy_peer_t *peer);

/* the first of its counters, see ..._metrics.h */
ngx_uint_t ngx_mail_policy_peer_counters(ngx_mail_policy_peer_t *peer);

/* 1 if health_check has found that it is not well */
ngx_uint_t ngx_mail_policy_peer_unhealthy(ngx_mail_policy_peer_t *peer);

/* how it went with a peer; failed: it could not serve */
void ngx_mail_policy_upstream_report(ngx_mail_policy_peer_t *peer,
    ngx_uint_t failed);

/* keeps what a peer's EHLO has offered */
void ngx_mail_policy_upstream_learn(ngx_mail_policy_peer_t *peer,
    mpol_ehlo_t *ehlo);


/* of the groups: */

/* the key of its state, without an address (NULL), on the heap; NULL: none */
u_char *ngx_mail_policy_peer_key(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_server_t *server, ngx_str_t *name, ngx_str_t *key);

/* finds or makes its state; NGX_OK, or NGX_ERROR: no memory at all */
ngx_int_t ngx_mail_policy_peer_attach(ngx_mail_policy_peer_t *peer);

/* one connection more, under the lock; a reference as well */
void ngx_mail_policy_peer_acquire_locked(ngx_mail_policy_peer_t *peer);

/* its group names it no more: it may be freed now */
void ngx_mail_policy_peer_leave(ngx_mail_policy_peer_t *peer);


/* the zone of the states; NULL: no memory */

ngx_mail_policy_peer_zone_t *ngx_mail_policy_peer_zone_add(ngx_conf_t *cf);

/*
 * In a worker.  sweep: what dead processes have left is given back; open: so
 * that this one can have parts; close: gives them back.
 */
void ngx_mail_policy_peer_zone_sweep(ngx_mail_policy_peer_zone_t *zone);
void ngx_mail_policy_peer_zone_open(ngx_mail_policy_peer_zone_t *zone);
void ngx_mail_policy_peer_zone_close(ngx_mail_policy_peer_zone_t *zone);

void ngx_mail_policy_peer_lock(ngx_mail_policy_peer_zone_t *zone);
void ngx_mail_policy_peer_unlock(ngx_mail_policy_peer_zone_t *zone);

/*
 * A part in the state of a key, which is made where there is none.  NULL: no
 * memory.  Each has to be put back.
 */
ngx_mail_policy_peer_share_t *ngx_mail_policy_peer_share_get(
    ngx_mail_policy_peer_zone_t *zone, ngx_str_t *key,
    ngx_mail_policy_peer_state_t **state);
void ngx_mail_policy_peer_share_put(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share);

/*
 * The rest of those keys that begin with this, and that a worker has a part
 * in, as strings on the pool.
 */
ngx_int_t ngx_mail_policy_peer_zone_keys(ngx_mail_policy_peer_zone_t *zone,
    ngx_str_t *begin, ngx_pool_t *pool, ngx_array_t *keys);

/* n connections more, or less; under the lock */
void ngx_mail_policy_peer_share_count(ngx_mail_policy_peer_zone_t *zone,
    ngx_mail_policy_peer_share_t *share, ngx_int_t n);


#endif /* NGX_MAIL_POLICY_PEER_H */
