
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Leases of an ask that was answered: they are renewed until the ask is
 * ended.  One event, a timer; a worker that shuts down does not wait for it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_store_conf.h"


/* ms; a third of the lease, so that two may be lost */
#define NGX_MAIL_POLICY_ASK_RENEW   (NGX_MAIL_POLICY_LEASE / 3000)

/* of leases that Redis does not know yet */
#define NGX_MAIL_POLICY_ASK_TELL    1000


static ngx_uint_t ngx_mail_policy_ask_leased(
    ngx_mail_policy_charge_t *charge);
static void ngx_mail_policy_ask_renew_handler(ngx_event_t *ev);


/* leases are renewed as long as the ask is not ended */

void
ngx_mail_policy_ask_hold(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                 i;
    ngx_msec_t                 delay;
    ngx_mail_policy_charge_t  *charge;

    delay = 0;

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];

        if (!ngx_mail_policy_ask_leased(charge)) {
            continue;
        }

        if (charge->local && ask->store->redis) {
            delay = NGX_MAIL_POLICY_ASK_TELL;
            break;
        }

        delay = NGX_MAIL_POLICY_ASK_RENEW;
    }

    if (delay == 0) {
        return;
    }

    if (ask->renew == NULL) {

        ask->renew = ngx_pcalloc(ask->pool, sizeof(ngx_event_t));
        if (ask->renew == NULL) {
            /* they expire, and others may take their place too early */
            return;
        }

        ask->renew->handler = ngx_mail_policy_ask_renew_handler;
        ask->renew->data = ask;
        ask->renew->log = ngx_cycle->log;
        ask->renew->cancelable = 1;
    }

    ngx_add_timer(ask->renew, delay);
}


/* where sessions are unlimited there is no lease, nor may one be made */

static ngx_uint_t
ngx_mail_policy_ask_leased(ngx_mail_policy_charge_t *charge)
{
    return charge->charged && !charge->open
           && (ngx_mail_policy_shm_counted(charge)
               & ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS));
}


/*
 * A lease that Redis cannot be told of is held in shared memory meanwhile;
 * one that was taken there goes to Redis when that is back.
 */

static void
ngx_mail_policy_ask_renew_handler(ngx_event_t *ev)
{
    ngx_uint_t                 i;
    ngx_mail_policy_ask_t     *ask;
    ngx_mail_policy_store_t   *store;
    ngx_mail_policy_charge_t  *charge;

    ask = ev->data;
    store = ask->store;

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];

        if (!ngx_mail_policy_ask_leased(charge)) {
            continue;
        }

        charge->local = (store->redis == NULL
                         || ngx_mail_policy_redis_renew(store->redis, charge)
                            != NGX_OK);

        if (store->redis == NULL
            || store->on_error == NGX_MAIL_POLICY_ON_ERROR_LOCAL)
        {
            ngx_mail_policy_shm_renew(store->shm, charge);
        }
    }

    ngx_mail_policy_ask_hold(ask);
}
