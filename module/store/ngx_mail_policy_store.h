
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The store: counters that many ask at once, and records that operators
 * write.  It knows names, keys and rates; it knows no mail.
 *
 * Two stores stand behind this interface: Redis, and the shared memory of
 * policy_zone.  Without policy_redis the latter is the store; with it, it
 * takes over while Redis is away (on_error=local).
 *
 * An ask is one question: "do these amounts fit under these limits?  If all
 * do, charge all; else none."  It lives on memory of its own, not on the
 * session's, so that it survives whoever asked.
 *
 *     create -> send -> handler -> keep | give_back
 *                  \-> cancel
 *
 * The owner ends its ownership by exactly one of
 *
 *     ngx_mail_policy_ask_keep()       the charge stands (or nothing was
 *                                      charged); the ask is freed
 *     ngx_mail_policy_ask_give_back()  what was charged is taken back, in
 *                                      the store that charged it; freed
 *     ngx_mail_policy_ask_cancel()     before the handler has run: it will
 *                                      not run any more; a charge that is
 *                                      answered later is given back by
 *                                      itself; freed then
 *
 * The handler is never called from within send(): an answer that is there
 * at once (shared memory, store away) comes from a posted event.  It is
 * called exactly once, at the latest when policy_redis' timeout is over.
 */


#ifndef NGX_MAIL_POLICY_STORE_H
#define NGX_MAIL_POLICY_STORE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_counter.h"


#define NGX_MAIL_POLICY_MESSAGES    0
#define NGX_MAIL_POLICY_RECIPIENTS  1
#define NGX_MAIL_POLICY_BYTES       2
#define NGX_MAIL_POLICY_UNITS       3


#define NGX_MAIL_POLICY_ON_ERROR_LOCAL   0
#define NGX_MAIL_POLICY_ON_ERROR_OPEN    1
#define NGX_MAIL_POLICY_ON_ERROR_CLOSED  2


typedef struct ngx_mail_policy_store_s   ngx_mail_policy_store_t;
typedef struct ngx_mail_policy_redis_s   ngx_mail_policy_redis_t;
typedef struct ngx_mail_policy_ask_s     ngx_mail_policy_ask_t;
typedef struct ngx_mail_policy_lookup_s  ngx_mail_policy_lookup_t;

typedef void (*ngx_mail_policy_ask_pt)(void *data, ngx_mail_policy_ask_t *ask);
typedef void (*ngx_mail_policy_lookup_pt)(void *data,
    ngx_mail_policy_lookup_t *lookup);


typedef struct {
    mpol_rate_t               rate;     /* in: the directive's, kind NONE if
                                           it sets none; out: in force */
    uint64_t                  amount;   /* in */
    mpol_decision_t           decision; /* out */
} ngx_mail_policy_charge_unit_t;


/* one limit under one key */
typedef struct {
    ngx_str_t                      name;    /* the limit's */
    ngx_str_t                      key;     /* the counted value, not empty;
                                               escaped by the store */
    ngx_mail_policy_charge_unit_t  units[NGX_MAIL_POLICY_UNITS];
    ngx_uint_t                     nunits;  /* how many of units are used,
                                               in the order of the numbers
                                               above */
    ngx_str_t                      id;      /* the store's own:
                                               <name>:{<key, escaped>} */
} ngx_mail_policy_charge_t;


struct ngx_mail_policy_ask_s {
    ngx_pool_t                    *pool;    /* for names, keys; freed with it */
    ngx_mail_policy_charge_t      *charges;
    ngx_uint_t                     ncharges;

    ngx_mail_policy_ask_pt         handler;
    void                          *data;

    /* the answer: valid in the handler and until the ask is ended */

    ngx_int_t                      rc;      /* NGX_OK: all charged;
                                               NGX_DECLINED: at least one did
                                               not fit, nothing charged;
                                               NGX_ERROR: store away and
                                               on_error=closed */
    uint64_t                       at;      /* store's time, microseconds */
    unsigned                       local:1; /* answered by shared memory */
    unsigned                       open:1;  /* NGX_OK because on_error=open */

    /* the store's own */

    unsigned                       sent:1;
    unsigned                       answered:1;
    ngx_mail_policy_store_t       *store;
    void                          *request;
    ngx_event_t                    event;
    ngx_queue_t                    queue;
};


/* HMGET of an operator's record */
struct ngx_mail_policy_lookup_s {
    ngx_pool_t                    *pool;
    ngx_str_t                      key;     /* behind the prefix, as it is */
    ngx_str_t                     *fields;
    ngx_uint_t                     nfields;

    ngx_mail_policy_lookup_pt      handler;
    void                          *data;

    ngx_int_t                      rc;      /* NGX_OK, also if there is no
                                               such record; NGX_ERROR: store
                                               away, or not a hash */
    ngx_str_t                     *values;  /* nfields of them; data NULL
                                               where there is none; zeroed
                                               by the store when freed */

    unsigned                       sent:1;
    ngx_mail_policy_store_t       *store;
    void                          *request;
    ngx_event_t                    event;
    ngx_queue_t                    queue;
};


/* configuration */

/* directives "policy_zone size" and "policy_redis url [name=value]..." */
char *ngx_mail_policy_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_mail_policy_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * create: at the beginning of mail{}; init: at its end, adds the default
 * zone.  A store exists always.
 */
ngx_mail_policy_store_t *ngx_mail_policy_store_create(ngx_conf_t *cf);
ngx_int_t ngx_mail_policy_store_init(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);

/* 1 if policy_redis is set: lookups can be asked */
ngx_uint_t ngx_mail_policy_store_has_records(ngx_mail_policy_store_t *store);

/* worker's life: opens and closes the connections */
ngx_int_t ngx_mail_policy_store_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_store_t *store);
void ngx_mail_policy_store_exit_process(ngx_mail_policy_store_t *store);


/* NULL if there is no memory; charges are zeroed, to be filled */
ngx_mail_policy_ask_t *ngx_mail_policy_ask_create(
    ngx_mail_policy_store_t *store, ngx_uint_t ncharges,
    ngx_mail_policy_ask_pt handler, void *data);
void ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_cancel(ngx_mail_policy_ask_t *ask);

/* the same for lookups; done() after the handler, cancel() before it */
ngx_mail_policy_lookup_t *ngx_mail_policy_lookup_create(
    ngx_mail_policy_store_t *store, ngx_uint_t nfields,
    ngx_mail_policy_lookup_pt handler, void *data);
void ngx_mail_policy_lookup_send(ngx_mail_policy_lookup_t *lookup);
void ngx_mail_policy_lookup_done(ngx_mail_policy_lookup_t *lookup);
void ngx_mail_policy_lookup_cancel(ngx_mail_policy_lookup_t *lookup);


#endif /* NGX_MAIL_POLICY_STORE_H */
