
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
 *     create -> send -> handler -> keep | settle | give_back
 *                  \-> give_back
 *
 * One that was refused may be put again after its handler has run.
 *
 * The owner ends its ownership by exactly one of
 *
 *     ngx_mail_policy_ask_keep()       the charge stands (or nothing was
 *                                      charged); the ask is freed
 *     ngx_mail_policy_ask_settle()     of each unit "kept" stands, the rest
 *                                      is taken back in the store that
 *                                      charged it; the ask is freed
 *     ngx_mail_policy_ask_give_back()  nothing stands, but charges that are
 *                                      "stands"; before the handler has run
 *                                      it will not run any more, and what is
 *                                      charged later is given back by
 *                                      itself; freed
 *
 * Leases (of the unit sessions) are renewed by the store until the ask that
 * took them is ended.
 *
 * The handler is never called from within send(): an answer that is there
 * at once (shared memory, store away) comes from a posted event.  It is
 * called once for each question, at the latest when policy_redis' timeout is
 * over; in a new worker, which has still to learn whether Redis is there, it
 * may take twice that.
 */


#ifndef NGX_MAIL_POLICY_STORE_H
#define NGX_MAIL_POLICY_STORE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_counter.h"


/* the first four are counters, the others sets whose members expire */
#define NGX_MAIL_POLICY_MESSAGES       0
#define NGX_MAIL_POLICY_RECIPIENTS     1
#define NGX_MAIL_POLICY_BYTES          2
#define NGX_MAIL_POLICY_CONNECTIONS    3
#define NGX_MAIL_POLICY_SESSIONS       4
#define NGX_MAIL_POLICY_AUTH_FAILURES  5
#define NGX_MAIL_POLICY_UNITS          6

#define ngx_mail_policy_asked(unit)    ((ngx_uint_t) 1 << (unit))


/* where the rate in force stands */
#define NGX_MAIL_POLICY_FROM_CONF      0
#define NGX_MAIL_POLICY_FROM_DEFAULT   1
#define NGX_MAIL_POLICY_FROM_PLAN      2
#define NGX_MAIL_POLICY_FROM_DOMAIN    3
#define NGX_MAIL_POLICY_FROM_OWN       4


#define NGX_MAIL_POLICY_ON_ERROR_LOCAL   0
#define NGX_MAIL_POLICY_ON_ERROR_OPEN    1
#define NGX_MAIL_POLICY_ON_ERROR_CLOSED  2


#define NGX_MAIL_POLICY_NAME_MAX         64
#define NGX_MAIL_POLICY_KEY_MAX          128    /* octets; longer ones are
                                                   hashed */


/* microseconds that a lease lasts without being renewed */
#define NGX_MAIL_POLICY_LEASE            ((uint64_t) 60 * 1000000)


typedef struct ngx_mail_policy_store_s   ngx_mail_policy_store_t;
typedef struct ngx_mail_policy_redis_s   ngx_mail_policy_redis_t;
typedef struct ngx_mail_policy_ask_s     ngx_mail_policy_ask_t;
typedef struct ngx_mail_policy_call_s    ngx_mail_policy_call_t;
typedef struct ngx_mail_policy_sent_s    ngx_mail_policy_sent_t;
typedef struct ngx_mail_policy_waiter_s  ngx_mail_policy_waiter_t;
typedef struct ngx_mail_policy_lookup_s  ngx_mail_policy_lookup_t;

typedef void (*ngx_mail_policy_ask_pt)(void *data, ngx_mail_policy_ask_t *ask);
typedef void (*ngx_mail_policy_lookup_pt)(void *data,
    ngx_mail_policy_lookup_t *lookup);


typedef struct {
    mpol_rate_t               rate;     /* out: in force */
    ngx_uint_t                from;     /* out: NGX_MAIL_POLICY_FROM_... */
    uint64_t                  amount;   /* in */
    uint64_t                  kept;     /* in, of settle(): what stands */
    mpol_decision_t           decision; /* out */
} ngx_mail_policy_charge_unit_t;


/* one limit under one key */
typedef struct {
    ngx_str_t                      name;    /* the limit's */
    ngx_str_t                      key;     /* the counted value, not empty;
                                               escaped by the store */
    mpol_rate_t                   *conf;    /* in: the directive's, of each
                                               unit, kind NONE if it sets
                                               none; outlives the ask */
    ngx_mail_policy_charge_unit_t  units[NGX_MAIL_POLICY_UNITS];
    ngx_uint_t                     asked;   /* mask of units */

    ngx_str_t                      member;  /* sessions: the lease's id, 64
                                               octets at the most;
                                               auth_failures: four hex digits
                                               for login and password */
    ngx_str_t                      client;  /* auth_failures: four hex digits
                                               for login and client */

    unsigned                       combined:1;  /* in: the key is made of
                                               several values */
    unsigned                       soft:1;  /* in: refuses nobody */
    unsigned                       stands:1;    /* in: not given back */

    /* the answer */

    unsigned                       charged:1;
    unsigned                       local:1; /* by shared memory */
    unsigned                       open:1;  /* by nobody: on_error=open */
    uint64_t                       at;      /* that store's time, microseconds
                                               */

    /* the store's own */

    unsigned                       forced:1;    /* own rates do not count */
    uint32_t                       outage;      /* see shm.h */
    ngx_str_t                      id;      /* <name>:{<key, escaped>} */
} ngx_mail_policy_charge_t;


struct ngx_mail_policy_ask_s {
    ngx_pool_t                    *pool;    /* for names, keys; freed with it */
    ngx_mail_policy_charge_t      *charges;
    ngx_uint_t                     ncharges;

    ngx_mail_policy_ask_pt         handler;
    void                          *data;

    unsigned                       succeeded:1; /* in, of give_back(): the
                                               login did; exempts its client */

    /* the answer: valid in the handler and until the ask is ended */

    ngx_int_t                      rc;      /* NGX_OK: charged, but for soft
                                               ones that did not fit;
                                               NGX_DECLINED: at least one did
                                               not fit, nothing charged;
                                               NGX_ERROR: store away and
                                               on_error=closed */

    /* the store's own */

    unsigned                       answered:1;
    unsigned                       expired:1;   /* the deadline is over */
    unsigned                       waited:1;    /* this round, for entries */
    ngx_uint_t                     round;
    ngx_uint_t                     pending; /* answers still to come */
    ngx_mail_policy_store_t       *store;
    ngx_pool_t                    *work;    /* for what follows; gone when it
                                               is answered */
    ngx_mail_policy_call_t        *parts;   /* what went to Redis, and how */
    ngx_uint_t                     nparts;
    ngx_mail_policy_sent_t        *sent;    /* rates, of each charge */
    ngx_mail_policy_waiter_t      *waiters; /* for entries that are read */
    ngx_event_t                    event;   /* deadline; then the answer */
    ngx_event_t                   *renew;   /* of leases; NULL: has none */
};


/* what an operator wrote: HMGET of a record, or GET of a string */
struct ngx_mail_policy_lookup_s {
    ngx_pool_t                    *pool;
    ngx_str_t                      key;     /* behind the prefix, as it is */
    ngx_str_t                     *fields;
    ngx_uint_t                     nfields;

    ngx_mail_policy_lookup_pt      handler;
    void                          *data;

    ngx_int_t                      rc;      /* NGX_OK, also if there is no
                                               such record; NGX_DECLINED: it
                                               is of another type; NGX_ERROR:
                                               store away */
    ngx_str_t                     *values;  /* nfields of them; data NULL
                                               where there is none; zeroed
                                               by the store when freed */

    unsigned                       string:1;    /* of one field, which has no
                                               name */
    unsigned                       starting:1;  /* waits for the store */
    ngx_mail_policy_store_t       *store;
    void                          *request;
    ngx_event_t                    event;
};


/*
 * What edges with one store have in common and clients do not know, of the
 * password of policy_redis; without one, what this machine alone knows.  20
 * octets.
 */
u_char *ngx_mail_policy_store_secret(ngx_mail_policy_store_t *store);

/* what no other worker on any machine has; on pool */
ngx_int_t ngx_mail_policy_store_unique(ngx_pool_t *pool, ngx_str_t *id);

/* names by NGX_MAIL_POLICY_...: of parameters, entries, in keys, scripts */
extern ngx_str_t  ngx_mail_policy_store_units[];

/*
 * 1 if a limit or a plan can have this name: 1 to NGX_MAIL_POLICY_NAME_MAX
 * letters, digits, "_" and "-".
 */
ngx_uint_t ngx_mail_policy_store_is_name(ngx_str_t *name);

/*
 * A value as part of a key, not empty: escaped, or its digest if that is too
 * long.  out has room for NGX_MAIL_POLICY_KEY_MAX octets; returns how many, 0:
 * no memory.
 */
size_t ngx_mail_policy_store_escape(ngx_str_t *key, u_char *out);

/* a rate of a unit as operators write it; MPOL_OK or a positive error */
int ngx_mail_policy_store_rate(ngx_uint_t unit, ngx_str_t *text,
    mpol_rate_t *rate);


/* configuration */

/* directives "policy_zone size" and "policy_redis url [name=value]..." */
char *ngx_mail_policy_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_mail_policy_redis(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_mail_policy_redis_ssl_verify(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_mail_policy_redis_ssl_trusted_certificate(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_mail_policy_redis_ssl_name(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/*
 * create: at the beginning of mail{}; init: at its end, adds the default
 * zone.  A store exists always.
 */
ngx_mail_policy_store_t *ngx_mail_policy_store_create(ngx_conf_t *cf);
ngx_int_t ngx_mail_policy_store_init(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);

/* 1 if policy_redis is set: lookups can be asked */
ngx_uint_t ngx_mail_policy_store_has_records(ngx_mail_policy_store_t *store);

/* of all keys in Redis; NULL without it */
ngx_str_t *ngx_mail_policy_store_prefix(ngx_mail_policy_store_t *store);

/*
 * 1 if counters are where they belong: always in shared memory; with
 * policy_redis, whose name *name becomes, if this worker has a connection.
 */
ngx_uint_t ngx_mail_policy_store_there(ngx_mail_policy_store_t *store,
    ngx_str_t *name);

/* worker's life: opens and closes the connections */
ngx_int_t ngx_mail_policy_store_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_store_t *store);
void ngx_mail_policy_store_exit_process(ngx_mail_policy_store_t *store);


/* NULL if there is no memory; charges are zeroed, to be filled */
ngx_mail_policy_ask_t *ngx_mail_policy_ask_create(
    ngx_mail_policy_store_t *store, ngx_uint_t ncharges,
    ngx_mail_policy_ask_pt handler, void *data);
void ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_again(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_settle(ngx_mail_policy_ask_t *ask);
void ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask);

/* 1 if all units that a charge asked of fitted */
ngx_uint_t ngx_mail_policy_charge_fits(ngx_mail_policy_charge_t *charge);

/*
 * A line for the help desk in the stream "events": n names and values, in
 * turns.  Nobody waits for it; nothing where there is no Redis.
 */
void ngx_mail_policy_store_event(ngx_mail_policy_store_t *store,
    ngx_str_t *words, ngx_uint_t n);

/*
 * The same, once in so many milliseconds for a charge and a unit on all edges
 * together, be it many that ask.  told(id, words, n, data), unless it was
 * before; never, if Redis does not say so; words are copies then.  Without
 * Redis this does nothing.
 */

typedef void (*ngx_mail_policy_told_pt)(ngx_str_t *id, ngx_str_t *words,
    ngx_uint_t n, ngx_uint_t data);

void ngx_mail_policy_store_event_once(ngx_mail_policy_store_t *store,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit, uint64_t msec,
    ngx_str_t *words, ngx_uint_t n, ngx_mail_policy_told_pt told,
    ngx_uint_t data);

/* the same for lookups; done() after the handler, cancel() before it */
ngx_mail_policy_lookup_t *ngx_mail_policy_lookup_create(
    ngx_mail_policy_store_t *store, ngx_uint_t nfields,
    ngx_mail_policy_lookup_pt handler, void *data);
void ngx_mail_policy_lookup_send(ngx_mail_policy_lookup_t *lookup);
void ngx_mail_policy_lookup_done(ngx_mail_policy_lookup_t *lookup);
void ngx_mail_policy_lookup_cancel(ngx_mail_policy_lookup_t *lookup);


/*
 * A string under a key behind the prefix, by way of what the worker remembers.
 *
 * NGX_OK: *value is known, until the next event, data NULL if there is none;
 * NGX_AGAIN: handler(data, value) will be called, once, unless it is forgotten
 * before; what was asked at the same time is one question.  NGX_ERROR: no
 * memory.  Where Redis is away, it is what it was when last known.
 */

typedef void (*ngx_mail_policy_string_pt)(void *data, ngx_str_t *value);

typedef struct {
    ngx_mail_policy_waiter_t    *waiter;    /* NULL: never waited */
    ngx_pool_t                  *pool;      /* outlives the wait */
    ngx_mail_policy_string_pt    handler;
    void                        *data;
} ngx_mail_policy_string_t;

ngx_int_t ngx_mail_policy_string_get(ngx_mail_policy_store_t *store,
    ngx_str_t *key, ngx_mail_policy_string_t *string, ngx_str_t *value);
void ngx_mail_policy_string_forget(ngx_mail_policy_string_t *string);


#endif /* NGX_MAIL_POLICY_STORE_H */
