
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The counters of policy_zone: the store of a machine without Redis, and the
 * one that takes over while Redis is away.  Charges are identified by their
 * id.  Judging is exact: all under one lock, all charged or none.
 *
 * What is kept under a key has two parts.  The learned one is what Redis
 * said last: the rate in force, and what was used of it.  The local one is
 * what was charged here, and Redis does not know: it waits until it is taken
 * to be added there.  Both together are judged.
 *
 *     Redis answers -----> learn()
 *     Redis is away -----> charge(), renew(), give_back()
 *     Redis is back -----> waiting(), take(); put_back() if it failed
 *
 * Each call takes the zone's lock once, for as long as it lasts, and none
 * blocks otherwise.
 */


#ifndef NGX_MAIL_POLICY_SHM_H
#define NGX_MAIL_POLICY_SHM_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_store.h"


#define NGX_MAIL_POLICY_SHM_TEXT  2048      /* the longest of take() */


typedef struct ngx_mail_policy_shm_s  ngx_mail_policy_shm_t;


/* the local part of a key, on its way to Redis */
typedef struct {
    ngx_str_t   id;
    ngx_str_t   texts[NGX_MAIL_POLICY_UNITS];   /* as merge.lua takes them;
                                                   of len 0: nothing */

    /* for put_back() */
    uint64_t    at;
    uint32_t    since;
    uint32_t    outage;
    ngx_str_t   state;
} ngx_mail_policy_shm_local_t;


/* adds the zone; NULL on error, logged */
ngx_mail_policy_shm_t *ngx_mail_policy_shm_add(ngx_conf_t *cf, size_t size,
    void *tag);

/*
 * Judges all units that are asked, and charges as charge.lua does: NGX_OK,
 * all that are not soft fitted and are charged, and those soft ones that
 * fitted; NGX_DECLINED: nothing is charged.  Sets of each unit rate, from
 * and decision; of each charge at, charged, local and outage.  A rate that
 * was learned replaces a less specific one.  What finds no memory is not
 * counted and fits; that is logged.
 */
ngx_int_t ngx_mail_policy_shm_charge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n);

/*
 * Gives back amount - kept of each unit; ok: the login succeeded.  NGX_OK:
 * that was all.  NGX_DECLINED: it has to be given back in Redis, which
 * charged it or was handed it meanwhile; what was learned is corrected.  So
 * it is to be called whichever store has charged.
 */
ngx_int_t ngx_mail_policy_shm_give_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, ngx_uint_t ok);

/*
 * The session's lease begins anew, or is there again.  If charge->local is
 * not set, Redis has renewed it, too.
 */
void ngx_mail_policy_shm_renew(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge);

/*
 * The units of which a charge leaves a trace, as a mask, in whichever store:
 * none at the rates "unlimited" and "blocked".
 */
ngx_uint_t ngx_mail_policy_shm_counted(ngx_mail_policy_charge_t *charge);

/* Redis has answered, charged being set in those that it charged */
void ngx_mail_policy_shm_learn(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n);

/* how many keys have a local part; without Redis: all that are counted */
ngx_uint_t ngx_mail_policy_shm_waiting(ngx_mail_policy_shm_t *shm);

/* 0 if there is certainly none; without the lock */
ngx_uint_t ngx_mail_policy_shm_waits(ngx_mail_policy_shm_t *shm);

/*
 * Takes the local part of a key, id NULL: that has waited longest; all of
 * *local is from the pool.  It is learned then, as if Redis had said so.
 * NGX_OK; NGX_DECLINED: nothing waits; NGX_ERROR: no memory, nothing is
 * taken.  A key of which there is more than the texts may hold waits again.
 * All texts are empty if what waited counts no more.
 */
ngx_int_t ngx_mail_policy_shm_take(ngx_mail_policy_shm_t *shm, ngx_str_t *id,
    ngx_pool_t *pool, ngx_mail_policy_shm_local_t *local);

/* it could not be delivered: it is the key's local part again */
void ngx_mail_policy_shm_put_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_local_t *local);

/* 20 octets that last as long as the zone, and that only this machine knows */
u_char *ngx_mail_policy_shm_secret(ngx_mail_policy_shm_t *shm);

/* the time of this store, microseconds */
uint64_t ngx_mail_policy_shm_now(void);


#endif /* NGX_MAIL_POLICY_SHM_H */
