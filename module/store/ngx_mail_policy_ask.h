
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of store/ share of an ask: the parts of it that go to
 * Redis, and the rates that are sent with them.
 */


#ifndef NGX_MAIL_POLICY_ASK_H
#define NGX_MAIL_POLICY_ASK_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis.h"
#include "ngx_mail_policy_shm.h"
#include "ngx_mail_policy_store.h"


/* octets of a plan's name */
#define NGX_MAIL_POLICY_PLAN  NGX_MAIL_POLICY_NAME_MAX


/* an own entry's plan, a domain and its plan, the default and its plan */
#define NGX_MAIL_POLICY_LEVELS  5

typedef struct ngx_mail_policy_level_s  ngx_mail_policy_level_t;


/* how one charge was asked */
struct ngx_mail_policy_sent_s {
    mpol_rate_t                 rates[NGX_MAIL_POLICY_UNITS];
    ngx_uint_t                  from[NGX_MAIL_POLICY_UNITS];
    ngx_str_t                   plan;   /* that the own entry names; room for
                                           NGX_MAIL_POLICY_PLAN octets */
    ngx_mail_policy_level_t    *levels[NGX_MAIL_POLICY_LEVELS];     /* held */
    unsigned                    forced:1;
};


/* what is one call: all charges, or in a Cluster those of one slot */
struct ngx_mail_policy_call_s {
    ngx_mail_policy_ask_t      *ask;
    ngx_mail_policy_redis_request_t  *request;  /* NULL: answered */
    ngx_uint_t                  slot;
    ngx_mail_policy_charge_t  **charges;
    ngx_mail_policy_sent_t    **sent;
    ngx_uint_t                  n;
    ngx_int_t                   rc;
};


/* <name>:{<key>}, of charge->name and key, on pool */
ngx_int_t ngx_mail_policy_store_id(ngx_pool_t *pool,
    ngx_mail_policy_charge_t *charge);

/* makes the id, member and client of a copied charge pool's own; no key */
ngx_int_t ngx_mail_policy_charge_copy(ngx_pool_t *pool,
    ngx_mail_policy_charge_t *charge);
void ngx_mail_policy_charge_keep_nothing(ngx_mail_policy_charge_t *charge);

/* renews the leases of an ask from now on, if it has any */
void ngx_mail_policy_ask_hold(ngx_mail_policy_ask_t *ask);

/* a worker that shuts down stays until Redis has got what is on its way */
void ngx_mail_policy_store_linger(ngx_mail_policy_store_t *store);

/* a question to Redis is judged by on_error; a worker's end is no such one */
void ngx_mail_policy_store_unanswered(ngx_mail_policy_store_t *store);

/* neither the event nor the request will find its owner any more */
void ngx_mail_policy_store_forget(ngx_event_t *ev,
    ngx_mail_policy_redis_request_t *request);


/*
 * Levels: entries of domains and for all, and plans, as cached by a worker.
 *
 * apply() sets the rates that a charge is asked with: below an own entry,
 * the domain's rate, or that of its plan, or the default's, or that of its
 * plan, or charge->conf.  With wait, entries that are missing or too old are
 * read, the ask is told when they are there, ask->pending counts them, and
 * none of them is forgotten until forget() or the next apply() with wait.
 * NGX_OK; NGX_AGAIN, without wait: an entry is none of those that are held;
 * NGX_ERROR: no memory.
 */

typedef struct ngx_mail_policy_levels_s  ngx_mail_policy_levels_t;

ngx_mail_policy_levels_t *ngx_mail_policy_levels_create(
    ngx_mail_policy_store_t *store, ngx_pool_t *pool);
void ngx_mail_policy_levels_destroy(ngx_mail_policy_levels_t *levels);
ngx_int_t ngx_mail_policy_levels_apply(ngx_mail_policy_levels_t *levels,
    ngx_mail_policy_charge_t *charge, ngx_mail_policy_sent_t *sent,
    ngx_mail_policy_ask_t *wait);

/* an ask that neither waits nor looks at its entries any more */
void ngx_mail_policy_levels_forget(ngx_mail_policy_ask_t *ask);

/* the plan that the own entry of an id was last seen to name */
void ngx_mail_policy_levels_plan(ngx_mail_policy_levels_t *levels,
    ngx_str_t *id, ngx_str_t *plan);
void ngx_mail_policy_levels_remember(ngx_mail_policy_levels_t *levels,
    ngx_str_t *id, ngx_str_t *plan);

/* the memory of these plans; plan->data has room for NGX_MAIL_POLICY_PLAN */

typedef struct ngx_mail_policy_plans_s  ngx_mail_policy_plans_t;

ngx_mail_policy_plans_t *ngx_mail_policy_plans_create(void);
void ngx_mail_policy_plans_get(ngx_mail_policy_plans_t *plans, ngx_str_t *id,
    ngx_str_t *plan);
void ngx_mail_policy_plans_set(ngx_mail_policy_plans_t *plans, ngx_str_t *id,
    ngx_str_t *plan);

/* of a worker: forgets all strings */
void ngx_mail_policy_string_stop(ngx_mail_policy_store_t *store);

/* one of the answers that pending counts has come; may end the ask's round */
void ngx_mail_policy_ask_arrived(ngx_mail_policy_ask_t *ask);


/*
 * Local: what was counted in shared memory while Redis was away is added
 * there when it is back.
 */

void ngx_mail_policy_local_start(ngx_mail_policy_store_t *store);

/* what is kept of an id goes to Redis now, in front of what is asked next */
void ngx_mail_policy_local_tell(ngx_mail_policy_store_t *store,
    ngx_str_t *id);
void ngx_mail_policy_local_stop(ngx_mail_policy_store_t *store);


/*
 * The questions to Redis.  NGX_OK: done(data, rc) will be called, unless the
 * request's data is set to NULL before; NGX_DECLINED: the store is away.
 */

/*
 * rc: NGX_OK, NGX_DECLINED, NGX_BUSY (part->sent has other plans now, and
 * nothing was charged), NGX_ERROR (no answer); done(part, rc)
 */
ngx_int_t ngx_mail_policy_redis_charge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_call_t *part, ngx_mail_policy_redis_done_pt done);

/* what is not kept of each; nobody waits for it */
void ngx_mail_policy_redis_give_back(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n, ngx_uint_t succeeded);
ngx_int_t ngx_mail_policy_redis_renew(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charge);

/*
 * Adds it, once for each id, however often it is sent.  done(data, NGX_OK):
 * it is there; NGX_ERROR: it may be there or not; NGX_DECLINED, from within
 * the call: it was not sent.
 */
void ngx_mail_policy_redis_merge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_shm_local_t *local, ngx_str_t *id,
    ngx_mail_policy_redis_done_pt done, void *data);


#endif /* NGX_MAIL_POLICY_ASK_H */
