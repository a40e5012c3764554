
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counters in shared memory: what others call.  No events arrive here.
 *
 * Each call locks the zone, finds the node of each charge, reads its state,
 * works on that and writes it back.  A node is made when something is
 * counted under its key, or learned that is worth it, never by a question
 * that was refused.  Nothing is logged under the lock.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_shm_node.h"


/* microseconds: answers that overtake one another are not so far apart */
#define NGX_MAIL_POLICY_SHM_LATE  5000000


static ngx_int_t ngx_mail_policy_shm_init(ngx_shm_zone_t *zone, void *data);
static ngx_uint_t ngx_mail_policy_shm_ask(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now);
static ngx_int_t ngx_mail_policy_shm_add_up(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t loaded);


ngx_mail_policy_shm_t *
ngx_mail_policy_shm_add(ngx_conf_t *cf, size_t size, void *tag)
{
    ngx_shm_zone_t         *zone;
    ngx_mail_policy_shm_t  *shm;

    static ngx_str_t  name = ngx_string("mail_policy");

    shm = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_shm_t));
    if (shm == NULL) {
        return NULL;
    }

    zone = ngx_shared_memory_add(cf, &name, size, tag);
    if (zone == NULL) {
        return NULL;
    }

    zone->init = ngx_mail_policy_shm_init;
    zone->data = shm;

    return shm;
}


static ngx_int_t
ngx_mail_policy_shm_init(ngx_shm_zone_t *zone, void *data)
{
    ngx_mail_policy_shm_t  *old = data;

    ngx_mail_policy_shm_t  *shm;

    shm = zone->data;

    if (old) {
        shm->sh = old->sh;
        shm->shpool = old->shpool;
        return NGX_OK;
    }

    shm->shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (zone->shm.exists) {
        shm->sh = shm->shpool->data;
        return NGX_OK;
    }

    return ngx_mail_policy_shm_create(shm);
}


ngx_int_t
ngx_mail_policy_shm_charge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n)
{
    uint64_t    now;
    ngx_uint_t  i, fits, failed;

    now = ngx_mail_policy_shm_now();
    fits = 1;
    failed = 0;

    ngx_mail_policy_shm_lock(shm);

    for (i = 0; i < n; i++) {
        charges[i]->at = now;
        charges[i]->local = 1;
        charges[i]->charged = ngx_mail_policy_shm_ask(shm, charges[i], now);

        fits &= charges[i]->charged | charges[i]->soft;
    }

    for (i = 0; i < n; i++) {
        charges[i]->charged &= fits;

        if (charges[i]->charged
            && ngx_mail_policy_shm_add_up(shm, charges[i], now, n == 1)
               != NGX_OK)
        {
            failed = 1;
        }
    }

    ngx_mail_policy_shm_unlock(shm, failed);

    return fits ? NGX_OK : NGX_DECLINED;
}


/* 1 if all units of it fit */

static ngx_uint_t
ngx_mail_policy_shm_ask(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now)
{
    uint64_t                      refused;
    ngx_uint_t                    fits, changed;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_state_t  *st;

    st = &ngx_mail_policy_shm_state;

    n = ngx_mail_policy_shm_find(shm, &charge->id);

    ngx_mail_policy_shm_load(n, st);
    fits = ngx_mail_policy_shm_judge(st, charge, now, &changed, &refused);

    charge->outage = n ? n->outage : shm->sh->outage;

    if (n == NULL) {
        return fits;
    }

    /* who is refused goes on being refused: keep it, too */
    ngx_mail_policy_shm_touch(shm, n);

    if (changed) {
        (void) ngx_mail_policy_shm_save(shm, n, st, now, refused);

    } else if (refused) {
        ngx_mail_policy_shm_schedule(shm, n, (uint64_t) n->expires * 1000000,
                                     refused);
    }

    return fits;
}


/* loaded: the state is in memory, as it was judged */

static ngx_int_t
ngx_mail_policy_shm_add_up(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t loaded)
{
    uint64_t                      refused;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_state_t  *st;

    if (ngx_mail_policy_shm_counted(charge) == 0) {
        return NGX_OK;
    }

    st = &ngx_mail_policy_shm_state;

    n = ngx_mail_policy_shm_find(shm, &charge->id);

    if (!loaded) {
        ngx_mail_policy_shm_load(n, st);
    }

    refused = ngx_mail_policy_shm_count(st, charge, now);

    return ngx_mail_policy_shm_update(shm, n, &charge->id, now, refused);
}


ngx_int_t
ngx_mail_policy_shm_update(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_str_t *id, uint64_t now,
    uint64_t refused)
{
    ngx_uint_t  made;

    made = 0;

    if (n == NULL) {
        n = ngx_mail_policy_shm_get(shm, id, now);
        if (n == NULL) {
            return NGX_ERROR;
        }

        made = 1;
    }

    if (ngx_mail_policy_shm_save(shm, n, &ngx_mail_policy_shm_state, now,
                                 refused)
        == NGX_OK)
    {
        return NGX_OK;
    }

    if (made) {
        ngx_mail_policy_shm_free(shm, n);
    }

    return NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_shm_give_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge, ngx_uint_t ok)
{
    uint64_t                      now;
    ngx_int_t                     rc;
    ngx_uint_t                    local, exempt;
    ngx_mail_policy_shm_node_t   *n;
    ngx_mail_policy_shm_state_t  *st;

    if (!charge->charged) {
        return NGX_OK;
    }

    st = &ngx_mail_policy_shm_state;
    local = charge->local;

    /* the clock may have gone back meanwhile; that of Redis is another */

    now = ngx_mail_policy_shm_now();
    now = local ? ngx_max(now, charge->at) : now;

    exempt = ok && (charge->asked
                    & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES));

    ngx_mail_policy_shm_lock(shm);

    n = ngx_mail_policy_shm_find(shm, &charge->id);

    if (n && local && (int32_t) (charge->outage - n->since) < 0) {
        local = 0;
    }

    rc = local ? NGX_OK : NGX_DECLINED;

    if (n || exempt) {
        ngx_mail_policy_shm_load(n, st);

        if (ngx_mail_policy_shm_uncount(st, charge, now, local, ok)) {
            (void) ngx_mail_policy_shm_update(shm, n, &charge->id, now, 0);
        }
    }

    ngx_mail_policy_shm_unlock(shm, 0);

    return rc;
}


void
ngx_mail_policy_shm_renew(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charge)
{
    uint64_t                     now;
    ngx_int_t                    rc;
    ngx_mail_policy_shm_node_t  *n;

    if (charge->units[NGX_MAIL_POLICY_SESSIONS].rate.period == 0) {
        return;
    }

    now = ngx_mail_policy_shm_now();

    ngx_mail_policy_shm_lock(shm);

    n = ngx_mail_policy_shm_find(shm, &charge->id);

    ngx_mail_policy_shm_load(n, &ngx_mail_policy_shm_state);
    ngx_mail_policy_shm_renew_lease(&ngx_mail_policy_shm_state, charge, now);

    rc = ngx_mail_policy_shm_update(shm, n, &charge->id, now, 0);

    ngx_mail_policy_shm_unlock(shm, rc != NGX_OK);
}


void
ngx_mail_policy_shm_learn(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n)
{
    uint64_t                      now, refused;
    ngx_uint_t                    i;
    ngx_mail_policy_shm_node_t   *node;
    ngx_mail_policy_shm_state_t  *st;

    st = &ngx_mail_policy_shm_state;
    now = ngx_mail_policy_shm_now();

    ngx_mail_policy_shm_lock(shm);

    for (i = 0; i < n; i++) {

        node = ngx_mail_policy_shm_find(shm, &charges[i]->id);

        /*
         * Another worker may have had a later answer before.  An earlier
         * time may be that of another Redis, too, after a failover.
         */

        if (node && charges[i]->at < node->heard
            && node->heard - charges[i]->at < NGX_MAIL_POLICY_SHM_LATE)
        {
            continue;
        }

        ngx_mail_policy_shm_load(node, st);

        if (ngx_mail_policy_shm_remember(st, charges[i], now, &refused)
            || node)
        {
            (void) ngx_mail_policy_shm_update(shm, node, &charges[i]->id, now,
                                              refused);

            if (node == NULL) {
                node = ngx_mail_policy_shm_find(shm, &charges[i]->id);
            }
        }

        if (node) {
            node->heard = charges[i]->at;
            ngx_mail_policy_shm_touch(shm, node);
        }
    }

    ngx_mail_policy_shm_unlock(shm, 0);
}


u_char *
ngx_mail_policy_shm_secret(ngx_mail_policy_shm_t *shm)
{
    return shm->sh->secret;
}


uint64_t
ngx_mail_policy_shm_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (uint64_t) tp->sec * 1000000 + (uint64_t) tp->msec * 1000;
}
