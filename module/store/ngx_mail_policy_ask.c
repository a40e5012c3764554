
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Asks: their lives, and what is answered when Redis does not.
 *
 *     created -> round --all answers there--> complete -> answered -> handler
 *                ^  |                            |  |
 *                |  \-- deadline, Redis lost ----/  |
 *                \-- rates were not those, again ---/
 *
 * A round sends its parts (one call; in a Cluster one a slot) and the
 * questions for entries of domains, defaults and plans that are not known, in
 * one go.  Most often these say what was assumed.  If they do not, or if an
 * own entry names another plan, what was charged is given back and the next
 * round begins, with the rates that are known then.  Where that never ends, or
 * there is no memory for an entry, nobody knows what is in force: NGX_ERROR.
 *
 * Events: one, "event".  As a timer it is the deadline, of all rounds
 * together; posted, it calls the handler.  So the handler always runs from
 * the event loop and never from within send(), nor from within the connection
 * to Redis.  The deadline is not cancelable: a session that waits for an
 * answer may have no other timer, and a worker that shuts down has to wait
 * for it.  "renew" is a timer while the ask holds leases.
 *
 * An ask is freed by its owner's keep, settle or give_back, and nowhere
 * else.  The request to Redis has a life of its own and is only told that
 * nobody waits any more.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_ASK_ROUNDS  4
#define NGX_MAIL_POLICY_ASK_STARTING  5     /* ms */
#define NGX_MAIL_POLICY_ASK_CALL    32      /* charges in a call */
#define NGX_MAIL_POLICY_ASK_CALLS   32      /* looked at for one more */

/*
 * An ask in one piece, with a key of the usual length for each charge.  Many
 * charges are memory of their own, for which the pool needs no room.
 */
#define NGX_MAIL_POLICY_ASK_SIZE(n)                                          \
    (sizeof(ngx_pool_t) + sizeof(ngx_mail_policy_ask_t)                      \
     + (n) * (sizeof(ngx_mail_policy_charge_t) + 128))
#define NGX_MAIL_POLICY_ASK_SIZE_MAX  8192


static ngx_int_t ngx_mail_policy_ask_prepare(ngx_mail_policy_ask_t *ask);
static ngx_mail_policy_call_t *ngx_mail_policy_ask_part(
    ngx_mail_policy_ask_t *ask, ngx_uint_t slot);
static void ngx_mail_policy_ask_begin(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_round(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_parts(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_done(void *data, ngx_int_t rc);
static void ngx_mail_policy_ask_complete(ngx_mail_policy_ask_t *ask);
static ngx_uint_t ngx_mail_policy_ask_outdated(ngx_mail_policy_ask_t *ask);
static ngx_uint_t ngx_mail_policy_ask_same(mpol_rate_t *a, mpol_rate_t *b);
static ngx_int_t ngx_mail_policy_ask_on_error(ngx_mail_policy_ask_t *ask,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n);
static void ngx_mail_policy_ask_open(ngx_mail_policy_charge_t **charges,
    ngx_uint_t n);
static void ngx_mail_policy_ask_undo(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_answer(ngx_mail_policy_ask_t *ask,
    ngx_int_t rc);
static void ngx_mail_policy_ask_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_ask_deadline(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_back(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_rest(ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_ask_free(ngx_mail_policy_ask_t *ask);


ngx_mail_policy_ask_t *
ngx_mail_policy_ask_create(ngx_mail_policy_store_t *store,
    ngx_uint_t ncharges, ngx_mail_policy_ask_pt handler, void *data)
{
    size_t                  size;
    ngx_pool_t             *pool;
    ngx_mail_policy_ask_t  *ask;

    size = NGX_MAIL_POLICY_ASK_SIZE(ncharges);

    pool = ngx_create_pool(ngx_min(size, NGX_MAIL_POLICY_ASK_SIZE_MAX),
                           ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    ask = ngx_pcalloc(pool, sizeof(ngx_mail_policy_ask_t));
    if (ask == NULL) {
        goto failed;
    }

    ask->charges = ngx_pcalloc(pool,
                               ncharges * sizeof(ngx_mail_policy_charge_t));
    if (ask->charges == NULL) {
        goto failed;
    }

    ask->pool = pool;
    ask->ncharges = ncharges;
    ask->handler = handler;
    ask->data = data;
    ask->store = store;

    ask->event.handler = ngx_mail_policy_ask_event_handler;
    ask->event.data = ask;
    ask->event.log = ngx_cycle->log;

    return ask;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask)
{
    if (ask->ncharges == 0) {
        ngx_mail_policy_ask_answer(ask, NGX_OK);
        return;
    }

    if (ngx_mail_policy_ask_prepare(ask) != NGX_OK) {
        ngx_mail_policy_ask_answer(ask, NGX_ERROR);
        return;
    }

    ngx_mail_policy_ask_begin(ask);
}


void
ngx_mail_policy_ask_again(ngx_mail_policy_ask_t *ask)
{
    ask->answered = 0;
    ask->expired = 0;
    ask->round = 0;

    ngx_mail_policy_ask_send(ask);
}


/* a new worker is about to know whether Redis is there */

static void
ngx_mail_policy_ask_begin(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_redis_t  *redis;

    redis = ask->store->redis;

    if (redis && ngx_mail_policy_redis_starting(redis)) {
        ngx_add_timer(&ask->event, NGX_MAIL_POLICY_ASK_STARTING);
        return;
    }

    if (redis) {
        ngx_add_timer(&ask->event, redis->timeout);
    }

    ngx_mail_policy_ask_round(ask);
}


/* ids, what is known of plans, and which charges make one call */

static ngx_int_t
ngx_mail_policy_ask_prepare(ngx_mail_policy_ask_t *ask)
{
    u_char                     *plans;
    ngx_uint_t                  i, slot, n;
    ngx_mail_policy_call_t     *part;
    ngx_mail_policy_sent_t     *sent;
    ngx_mail_policy_redis_t    *redis;

    n = ask->ncharges;
    redis = ask->store->redis;

    ask->work = ngx_create_pool(1024, ngx_cycle->log);
    if (ask->work == NULL) {
        return NGX_ERROR;
    }

    sent = ngx_pcalloc(ask->work, n * sizeof(ngx_mail_policy_sent_t));
    part = ngx_pcalloc(ask->work, n * sizeof(ngx_mail_policy_call_t));
    plans = ngx_pnalloc(ask->work, n * NGX_MAIL_POLICY_PLAN);

    if (sent == NULL || part == NULL || plans == NULL) {
        return NGX_ERROR;
    }

    ask->sent = sent;
    ask->parts = part;

    for (i = 0; i < n; i++) {

        if (ask->charges[i].id.len == 0
            && ngx_mail_policy_store_id(ask->pool, &ask->charges[i])
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        sent[i].plan.data = plans + i * NGX_MAIL_POLICY_PLAN;
        slot = 0;

        if (redis) {
            ngx_mail_policy_levels_plan(ask->store->levels,
                                        &ask->charges[i].id, &sent[i].plan);

            slot = ngx_mail_policy_redis_slot(redis, &ask->charges[i].id);
        }

        part = ngx_mail_policy_ask_part(ask, slot);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->charges[part->n] = &ask->charges[i];
        part->sent[part->n] = &sent[i];
        part->n++;
    }

    return NGX_OK;
}


/*
 * The call that takes one more charge of a slot.  Those of one key stand
 * next to each other, so that the last calls are enough to look at; what a
 * call asks is bounded, as Redis does nothing else meanwhile.
 */

static ngx_mail_policy_call_t *
ngx_mail_policy_ask_part(ngx_mail_policy_ask_t *ask, ngx_uint_t slot)
{
    ngx_uint_t               i, n;
    ngx_mail_policy_call_t  *part;

    part = ask->parts + ask->nparts;

    for (i = ngx_min(ask->nparts, NGX_MAIL_POLICY_ASK_CALLS); i; i--) {
        if (part[-(ngx_int_t) i].slot == slot
            && part[-(ngx_int_t) i].n < NGX_MAIL_POLICY_ASK_CALL)
        {
            return &part[-(ngx_int_t) i];
        }
    }

    n = ngx_min(ask->ncharges, NGX_MAIL_POLICY_ASK_CALL);

    part->charges = ngx_palloc(ask->work, n * sizeof(void *));
    part->sent = ngx_palloc(ask->work, n * sizeof(void *));

    if (part->charges == NULL || part->sent == NULL) {
        return NULL;
    }

    part->ask = ask;
    part->slot = slot;
    ask->nparts++;

    return part;
}


static void
ngx_mail_policy_ask_round(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                 i, u;
    ngx_mail_policy_sent_t    *sent;
    ngx_mail_policy_charge_t  *charge;

    ask->pending = 1;
    ask->waited = 0;
    ask->round++;

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];
        sent = &ask->sent[i];

        charge->charged = 0;
        charge->local = 0;
        charge->open = 0;

        if (ngx_mail_policy_levels_apply(ask->store->levels, charge, sent,
                                         ask)
            == NGX_ERROR)
        {
            ngx_mail_policy_ask_answer(ask, NGX_ERROR);
            return;
        }

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            charge->units[u].rate = sent->rates[u];
            charge->units[u].from = sent->from[u];
        }

        charge->forced = sent->forced;
    }

    ngx_mail_policy_ask_parts(ask);
    ngx_mail_policy_ask_arrived(ask);
}


static void
ngx_mail_policy_ask_parts(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                i;
    ngx_mail_policy_call_t   *part;
    ngx_mail_policy_store_t  *store;

    store = ask->store;

    if (store->redis
        && store->on_error == NGX_MAIL_POLICY_ON_ERROR_LOCAL)
    {
        for (i = 0; i < ask->ncharges; i++) {
            ngx_mail_policy_local_tell(store, &ask->charges[i].id);
        }
    }

    for (i = 0; i < ask->nparts; i++) {
        part = &ask->parts[i];
        part->rc = NGX_ERROR;

        if (store->redis
            && ngx_mail_policy_redis_charge(store->redis, part,
                                            ngx_mail_policy_ask_done)
               == NGX_OK)
        {
            ask->pending++;
            continue;
        }

        ngx_mail_policy_store_unanswered(store);
    }
}


/* Redis has answered, or will not */

static void
ngx_mail_policy_ask_done(void *data, ngx_int_t rc)
{
    ngx_mail_policy_call_t *part = data;

    part->request = NULL;
    part->rc = rc;

    if (rc == NGX_ERROR) {
        ngx_mail_policy_store_unanswered(part->ask->store);
    }

    ngx_mail_policy_ask_arrived(part->ask);
}


void
ngx_mail_policy_ask_arrived(ngx_mail_policy_ask_t *ask)
{
    if (--ask->pending == 0) {
        ngx_mail_policy_ask_complete(ask);
    }
}


/* all answers of a round are there, or will not come */

static void
ngx_mail_policy_ask_complete(ngx_mail_policy_ask_t *ask)
{
    ngx_int_t                 rc;
    ngx_uint_t                i;
    ngx_mail_policy_call_t   *part;
    ngx_mail_policy_store_t  *store;

    store = ask->store;

    if (store->redis && !store->exiting && !ask->expired
        && ngx_mail_policy_ask_outdated(ask))
    {
        ngx_mail_policy_ask_undo(ask);

        if (ask->round < NGX_MAIL_POLICY_ASK_ROUNDS) {
            ngx_mail_policy_ask_round(ask);
        } else {
            ngx_mail_policy_ask_answer(ask, NGX_ERROR);
        }

        return;
    }

    rc = NGX_OK;

    for (i = 0; i < ask->nparts; i++) {
        part = &ask->parts[i];

        if (part->rc == NGX_DECLINED) {
            rc = NGX_DECLINED;
        }

        /* a refusal, too, says how much is used */

        if (store->on_error == NGX_MAIL_POLICY_ON_ERROR_LOCAL && store->redis
            && (part->rc == NGX_OK || part->rc == NGX_DECLINED))
        {
            ngx_mail_policy_shm_learn(store->shm, part->charges, part->n);
        }
    }

    for (i = 0; rc == NGX_OK && i < ask->nparts; i++) {
        part = &ask->parts[i];

        if (part->rc == NGX_OK) {
            continue;
        }

        rc = ngx_mail_policy_ask_on_error(ask, part->charges, part->n);
    }

    if (rc != NGX_OK) {
        ngx_mail_policy_ask_undo(ask);
    }

    ngx_mail_policy_ask_answer(ask, rc);
}


/*
 * 1 if what was asked was not right: an own entry names another plan, or an
 * entry that has been read meanwhile gives another rate than was thought.
 */

static ngx_uint_t
ngx_mail_policy_ask_outdated(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                 i, k, u, again;
    ngx_mail_policy_sent_t    *sent, now;
    ngx_mail_policy_call_t    *part;
    ngx_mail_policy_charge_t  *charge;

    again = 0;

    for (i = 0; i < ask->nparts; i++) {
        part = &ask->parts[i];

        if (part->rc == NGX_ERROR) {
            continue;
        }

        for (k = 0; k < part->n; k++) {
            charge = part->charges[k];
            sent = part->sent[k];

            if (part->rc == NGX_BUSY) {
                ngx_mail_policy_levels_remember(ask->store->levels,
                                                &charge->id, &sent->plan);
                again = 1;
                continue;
            }

            if (!ask->waited) {
                /* all entries were known, and not too old */
                continue;
            }

            now = *sent;

            /* a plan that was not looked for */

            if (ngx_mail_policy_levels_apply(ask->store->levels, charge, &now,
                                             NULL)
                != NGX_OK)
            {
                again = 1;
            }

            for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
                if ((charge->asked & ngx_mail_policy_asked(u))
                    && charge->units[u].from != NGX_MAIL_POLICY_FROM_OWN
                    && !ngx_mail_policy_ask_same(&now.rates[u],
                                                 &sent->rates[u]))
                {
                    again = 1;
                }
            }

            if (now.forced != sent->forced) {
                again = 1;
            }
        }
    }

    return again;
}


static ngx_uint_t
ngx_mail_policy_ask_same(mpol_rate_t *a, mpol_rate_t *b)
{
    return a->kind == b->kind && a->count == b->count
           && a->period == b->period && a->burst == b->burst;
}


static ngx_int_t
ngx_mail_policy_ask_on_error(ngx_mail_policy_ask_t *ask,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n)
{
    ngx_mail_policy_store_t  *store;

    store = ask->store;

    if (store->exiting) {
        return NGX_ERROR;
    }

    if (store->redis == NULL) {
        return ngx_mail_policy_shm_charge(store->shm, charges, n);
    }

    switch (store->on_error) {

    case NGX_MAIL_POLICY_ON_ERROR_LOCAL:
        ngx_mail_policy_local_start(store);
        return ngx_mail_policy_shm_charge(store->shm, charges, n);

    case NGX_MAIL_POLICY_ON_ERROR_OPEN:
        ngx_mail_policy_ask_open(charges, n);
        return NGX_OK;

    default: /* NGX_MAIL_POLICY_ON_ERROR_CLOSED */
        return NGX_ERROR;
    }
}


static void
ngx_mail_policy_ask_open(ngx_mail_policy_charge_t **charges, ngx_uint_t n)
{
    ngx_uint_t        i, u;
    mpol_decision_t  *decision;

    for (i = 0; i < n; i++) {
        charges[i]->open = 1;
        charges[i]->charged = 1;
        charges[i]->at = ngx_mail_policy_shm_now();

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            decision = &charges[i]->units[u].decision;

            decision->used = 0;
            decision->remaining = MPOL_NEVER;
            decision->retry = 0;
            decision->fits = 1;
        }
    }
}


/* nothing of this round shall stand */

static void
ngx_mail_policy_ask_undo(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t  i;

    for (i = 0; i < ask->ncharges; i++) {
        ngx_mail_policy_charge_keep_nothing(&ask->charges[i]);
    }

    ngx_mail_policy_ask_back(ask);

    for (i = 0; i < ask->ncharges; i++) {
        ask->charges[i].charged = 0;
    }
}


static void
ngx_mail_policy_ask_answer(ngx_mail_policy_ask_t *ask, ngx_int_t rc)
{
    ask->rc = rc;
    ask->answered = 1;

    ngx_mail_policy_ask_rest(ask);

    if (ask->event.timer_set) {
        ngx_del_timer(&ask->event);
    }

    if (ask->store->exiting) {
        return;
    }

    ngx_mail_policy_ask_hold(ask);

    ngx_post_event(&ask->event, &ngx_posted_events);
}


static void
ngx_mail_policy_ask_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_ask_t  *ask;

    ask = ev->data;

    if (ask->round == 0 && !ask->answered) {
        ngx_mail_policy_ask_begin(ask);
        return;
    }

    if (!ask->answered) {
        ngx_mail_policy_ask_deadline(ask);
        return;
    }

    ask->handler(ask->data, ask);
}


/*
 * Who waits on the same connection is told, too, and posted.  We are, when
 * the last of our own answers is given up.
 */

static void
ngx_mail_policy_ask_deadline(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t               i;
    ngx_mail_policy_call_t  *part;

    ask->expired = 1;
    ask->pending++;

    ngx_mail_policy_levels_forget(ask);

    for (i = 0; i < ask->nparts; i++) {
        part = &ask->parts[i];

        if (part->request) {
            ngx_mail_policy_redis_timedout(part->request);
        }
    }

    ngx_mail_policy_ask_arrived(ask);
}


void
ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_ask_free(ask);
}


void
ngx_mail_policy_ask_settle(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_ask_back(ask);
    ngx_mail_policy_ask_free(ask);
}


void
ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                 i;
    ngx_mail_policy_charge_t  *charge;

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];

        if (charge->stands) {
            charge->charged = 0;
        }

        ngx_mail_policy_charge_keep_nothing(charge);
    }

    ngx_mail_policy_ask_settle(ask);
}


/* takes back what is charged and not kept, where it was charged */

static void
ngx_mail_policy_ask_back(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                  i, u, n, units;
    ngx_mail_policy_store_t    *store;
    ngx_mail_policy_charge_t   *charge, **remote;

    store = ask->store;
    n = 0;

    remote = ngx_palloc(ask->pool, ask->ncharges * sizeof(void *));
    if (remote == NULL) {
        return;
    }

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];

        if (!charge->charged || charge->open) {
            continue;
        }

        units = ngx_mail_policy_shm_counted(charge);

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            if ((units & ngx_mail_policy_asked(u))
                && charge->units[u].amount > charge->units[u].kept)
            {
                break;
            }
        }

        if (u == NGX_MAIL_POLICY_UNITS) {
            continue;
        }

        /* NGX_DECLINED: Redis has charged it, or was handed it meanwhile */

        if ((store->redis == NULL
             || store->on_error == NGX_MAIL_POLICY_ON_ERROR_LOCAL)
            && (ngx_mail_policy_shm_give_back(store->shm, charge,
                                              ask->succeeded)
                == NGX_OK
                || store->redis == NULL))
        {
            continue;
        }

        remote[n++] = charge;
    }

    if (n) {
        ngx_mail_policy_redis_give_back(store->redis, remote, n,
                                        ask->succeeded);
        ngx_mail_policy_store_linger(store);
    }
}


/* nothing is on its way any more, or nobody waits for it */

static void
ngx_mail_policy_ask_rest(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t  i;

    if (ask->work == NULL) {
        return;
    }

    ngx_mail_policy_levels_forget(ask);

    for (i = 0; i < ask->nparts; i++) {
        if (ask->parts[i].request) {
            ask->parts[i].request->data = NULL;
            ngx_mail_policy_store_linger(ask->store);
        }
    }

    ngx_destroy_pool(ask->work);

    ask->work = NULL;
    ask->sent = NULL;
    ask->nparts = 0;
}


static void
ngx_mail_policy_ask_free(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_ask_rest(ask);

    if (ask->renew && ask->renew->timer_set) {
        ngx_del_timer(ask->renew);
    }

    ngx_mail_policy_store_forget(&ask->event, NULL);

    ngx_destroy_pool(ask->pool);
}
