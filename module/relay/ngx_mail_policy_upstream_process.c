
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The groups of a worker: their peers get their states at its start, and what
 * others that have died had counted is given back.
 *
 * Event: a timer of the worker.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_dynamic.h"


#define NGX_MAIL_POLICY_UPSTREAM_TICK    5000
#define NGX_MAIL_POLICY_UPSTREAM_UNUSED  60     /* of run time, seconds */


static void ngx_mail_policy_upstream_tick_handler(ngx_event_t *ev);
static void ngx_mail_policy_upstream_cleanup(void *data);


ngx_int_t
ngx_mail_policy_upstream_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_upstreams_t *all)
{
    ngx_uint_t                    i, j;
    ngx_event_t                  *ev;
    ngx_pool_cleanup_t           *cln;
    ngx_mail_policy_upstream_t  **upstream;

    ngx_mail_policy_dynamic_init(all);

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ngx_mail_policy_peer_zone_open(all->zone);

    /* a single process goes on after a reload, and closes the old cycle */

    cln->handler = ngx_mail_policy_upstream_cleanup;
    cln->data = all;

    upstream = all->upstreams->elts;

    for (i = 0; i < all->upstreams->nelts; i++) {
        upstream[i]->zone = all->zone;

        for (j = 0; j < upstream[i]->npeers; j++) {
            if (ngx_mail_policy_peer_attach(upstream[i]->peers[j]) != NGX_OK) {
                return NGX_ERROR;
            }

            (void) ngx_mail_policy_peer_counters(upstream[i]->peers[j]);
        }

        ngx_mail_policy_upstream_resolve_start(upstream[i], cycle->log);
        ngx_mail_policy_health_start(upstream[i], cycle->log);
    }

    ev = &all->tick;

    ev->handler = ngx_mail_policy_upstream_tick_handler;
    ev->data = all;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_add_timer(ev, NGX_MAIL_POLICY_UPSTREAM_TICK);

    return NGX_OK;
}


static void
ngx_mail_policy_upstream_tick_handler(ngx_event_t *ev)
{
    ngx_mail_policy_upstreams_t  *all;

    all = ev->data;

    ngx_mail_policy_peer_zone_sweep(all->zone);
    ngx_mail_policy_dynamic_expire(all, NGX_MAIL_POLICY_UPSTREAM_UNUSED);

    ngx_add_timer(ev, NGX_MAIL_POLICY_UPSTREAM_TICK);
}


void
ngx_mail_policy_upstream_exit_process(ngx_mail_policy_upstreams_t *all)
{
    ngx_uint_t                    i;
    ngx_mail_policy_upstream_t  **upstream;

    if (all->tick.handler == NULL) {

        /* a single process has reloaded, and has begun nothing of this */

        return;
    }

    if (all->tick.timer_set) {
        ngx_del_timer(&all->tick);
    }

    upstream = all->upstreams->elts;

    /* a connection that is open still keeps its peer */

    for (i = 0; i < all->upstreams->nelts; i++) {
        ngx_mail_policy_upstream_leave(upstream[i]);
    }

    ngx_mail_policy_dynamic_expire(all, -1);

    ngx_mail_policy_peer_zone_close(all->zone);
}


static void
ngx_mail_policy_upstream_cleanup(void *data)
{
    ngx_mail_policy_upstream_exit_process(data);
}
