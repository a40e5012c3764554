
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of the counters in shared memory share: the zone, its nodes,
 * and what a node holds.  All but add() is called under the zone's lock.
 */


#ifndef NGX_MAIL_POLICY_SHM_NODE_H
#define NGX_MAIL_POLICY_SHM_NODE_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_local.h"
#include "mpol_set.h"
#include "ngx_mail_policy_shm.h"


/* units below are counters, those from there on sets */
#define NGX_MAIL_POLICY_SHM_COUNTERS   NGX_MAIL_POLICY_SESSIONS

/* a node's state is never longer: a few thousand members */
#define NGX_MAIL_POLICY_SHM_STATE_MAX  65536


typedef struct ngx_mail_policy_shm_cell_s  ngx_mail_policy_shm_cell_t;


typedef struct {
    ngx_rbtree_t                 ids;
    ngx_rbtree_node_t            ids_sentinel;
    ngx_rbtree_t                 due;       /* by when to look at it again */
    ngx_rbtree_node_t            due_sentinel;
    ngx_queue_t                  queue;     /* used last at the head */
    ngx_queue_t                  refused;   /* the same, of those over a
                                               limit */
    ngx_queue_t                  waiting;   /* has waited longest at the
                                               head */
    ngx_uint_t                   nwaiting;
    ngx_uint_t                   nnodes;
    ngx_uint_t                   nrefused;  /* of them */
    ngx_atomic_t                 busy;      /* somebody is at it */
    uint32_t                     outage;    /* the last number given */
    time_t                       complained;
    u_char                       secret[20];    /* drawn with the zone */
} ngx_mail_policy_shm_sh_t;


/* id and state follow, in the rest of the node's cell and in further ones */
typedef struct {
    ngx_rbtree_node_t            node;      /* key: hash of the id */
    ngx_rbtree_node_t            due;       /* key: seconds */
    ngx_queue_t                  queue;
    ngx_queue_t                  waiting;
    ngx_mail_policy_shm_cell_t  *cells;
    uint64_t                     heard;     /* Redis' time of what was
                                               learned last */
    uint32_t                     expires;   /* nothing counts from then on,
                                               seconds */
    uint32_t                     refused;   /* it is until then, seconds */
    uint32_t                     since;     /* the local part is of these */
    uint32_t                     outage;    /* outages, and those between */
    uint32_t                     len;       /* of the state */
    uint16_t                     id_len;
    unsigned                     is_refused:1;  /* in that queue */
    unsigned                     is_waiting:1;
} ngx_mail_policy_shm_node_t;


typedef struct {
    mpol_learned_t               learned;
    mpol_set_t                   set;       /* marked: Redis does not know */
    mpol_set_entry_t             entries[MPOL_SET_MAX];
} ngx_mail_policy_shm_set_t;


/* what a node holds */
typedef struct {
    mpol_local_t                 counters[NGX_MAIL_POLICY_SHM_COUNTERS];
    ngx_mail_policy_shm_set_t    sessions;
    ngx_mail_policy_shm_set_t    failed;
    ngx_mail_policy_shm_set_t    exempt;
} ngx_mail_policy_shm_state_t;


struct ngx_mail_policy_shm_s {
    ngx_mail_policy_shm_sh_t    *sh;
    ngx_slab_pool_t             *shpool;
    unsigned                     forgot:1;  /* under this lock: all of it */
};


/* the zone's memory */

/* NGX_ERROR: it is too small */
ngx_int_t ngx_mail_policy_shm_create(ngx_mail_policy_shm_t *shm);

/*
 * The zone's lock.  A worker that died with it has left nobody knows what:
 * the next one who takes it begins with an empty zone.  failed: something
 * found no memory.
 */
void ngx_mail_policy_shm_lock(ngx_mail_policy_shm_t *shm);
void ngx_mail_policy_shm_unlock(ngx_mail_policy_shm_t *shm,
    ngx_uint_t failed);

/* NULL: there is none; get() makes it then, NULL: no memory */
ngx_mail_policy_shm_node_t *ngx_mail_policy_shm_find(
    ngx_mail_policy_shm_t *shm, ngx_str_t *id);
ngx_mail_policy_shm_node_t *ngx_mail_policy_shm_get(
    ngx_mail_policy_shm_t *shm, ngx_str_t *id, uint64_t now);
void ngx_mail_policy_shm_free(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n);

/* it is the one used last; others give way before it */
void ngx_mail_policy_shm_touch(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n);

/* the octets of its id and of its state; write: NGX_ERROR, nothing changed */
void ngx_mail_policy_shm_read_id(ngx_mail_policy_shm_node_t *n, u_char *out);
void ngx_mail_policy_shm_read(ngx_mail_policy_shm_node_t *n, u_char *out);
ngx_int_t ngx_mail_policy_shm_write(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, u_char *data, size_t len, uint64_t now);

/* microseconds; refused: not earlier than it is by now, 0 if it is not */
void ngx_mail_policy_shm_schedule(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, uint64_t expires, uint64_t refused);
void ngx_mail_policy_shm_wait(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_uint_t waits);


/* a node's state */

/* NULL: there is no node */
void ngx_mail_policy_shm_load(ngx_mail_policy_shm_node_t *n,
    ngx_mail_policy_shm_state_t *st);

/* any octets, what is not understood is empty */
void ngx_mail_policy_shm_unpack(ngx_mail_policy_shm_state_t *st, u_char *data,
    size_t len);

/* NGX_ERROR: no memory, the state in it is as it was */
ngx_int_t ngx_mail_policy_shm_save(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_mail_policy_shm_state_t *st,
    uint64_t now, uint64_t refused);

/* and what is done to it */

/*
 * Judges all units asked.  *changed: something had to be brought to now;
 * *refused: until when it does not fit, 0 if it does.
 */
ngx_uint_t ngx_mail_policy_shm_judge(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t *changed,
    uint64_t *refused);

/* charges what was judged; returns until when the next one is refused, or 0 */
uint64_t ngx_mail_policy_shm_count(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now);

/* 1 if the state was changed */
ngx_uint_t ngx_mail_policy_shm_uncount(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t local,
    ngx_uint_t ok);

void ngx_mail_policy_shm_renew_lease(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now);

/* *refused as of count(); 1 if there is anything to be remembered */
ngx_uint_t ngx_mail_policy_shm_remember(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, uint64_t *refused);


/* writes ngx_mail_policy_shm_state; n is NULL: to a new node of this id */
ngx_int_t ngx_mail_policy_shm_update(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_str_t *id, uint64_t now,
    uint64_t refused);


/* for one state at a time, there is a worker's only one */
extern ngx_mail_policy_shm_state_t  ngx_mail_policy_shm_state;


#endif /* NGX_MAIL_POLICY_SHM_NODE_H */
