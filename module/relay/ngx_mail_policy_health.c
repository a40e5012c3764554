
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * When relays are checked, and what a check means.
 *
 *     healthy --- "fails" checks in a row fail ----> unhealthy
 *        ^                                               |
 *        +------- "passes" checks in a row pass ---------+
 *
 * When the next check of a relay is due is known to all workers: the first
 * whose timer finds it due takes it.  If that one dies, another does the next
 * one.
 *
 * Event: the timer of a group.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


static ngx_int_t ngx_mail_policy_health_parameter(
    ngx_mail_policy_health_t *health, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_health_msec(ngx_str_t *value, size_t skip,
    ngx_msec_t *msec);
static void ngx_mail_policy_health_timer_handler(ngx_event_t *ev);
static ngx_msec_t ngx_mail_policy_health_tick(
    ngx_mail_policy_health_t *health);
static ngx_uint_t ngx_mail_policy_health_due(ngx_mail_policy_peer_t *peer);


char *
ngx_mail_policy_health_directive(ngx_conf_t *cf,
    ngx_mail_policy_health_t *health)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    if (health->interval) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"health_check\" directive is duplicate");
        return NGX_CONF_ERROR;
    }

    health->interval = 5000;
    health->timeout = 10000;
    health->fails = 1;
    health->passes = 1;

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_health_parameter(health, &value[i]) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_mail_policy_health_parameter(ngx_mail_policy_health_t *health,
    ngx_str_t *value)
{
    ngx_int_t  n;

    if (ngx_strncmp(value->data, "interval=", 9) == 0) {
        return ngx_mail_policy_health_msec(value, 9, &health->interval);
    }

    if (ngx_strncmp(value->data, "timeout=", 8) == 0) {
        return ngx_mail_policy_health_msec(value, 8, &health->timeout);
    }

    if (ngx_strcmp(value->data, "jitter=0") == 0) {
        health->jitter = 0;
        return NGX_OK;
    }

    if (ngx_strncmp(value->data, "jitter=", 7) == 0) {
        return ngx_mail_policy_health_msec(value, 7, &health->jitter);
    }

    if (ngx_strncmp(value->data, "fails=", 6) == 0) {
        n = ngx_atoi(value->data + 6, value->len - 6);
        health->fails = n;

    } else if (ngx_strncmp(value->data, "passes=", 7) == 0) {
        n = ngx_atoi(value->data + 7, value->len - 7);
        health->passes = n;

    } else if (ngx_strncmp(value->data, "port=", 5) == 0) {
        n = ngx_atoi(value->data + 5, value->len - 5);

        if (n > 65535) {
            return NGX_ERROR;
        }

        health->port = (in_port_t) n;

    } else {
        return NGX_ERROR;
    }

    return n > 0 ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_health_msec(ngx_str_t *value, size_t skip, ngx_msec_t *msec)
{
    ngx_int_t  n;
    ngx_str_t  s;

    s.len = value->len - skip;
    s.data = value->data + skip;

    n = ngx_parse_time(&s, 0);

    if (n == NGX_ERROR || n == 0) {
        return NGX_ERROR;
    }

    *msec = n;

    return NGX_OK;
}


void
ngx_mail_policy_health_start(ngx_mail_policy_upstream_t *upstream,
    ngx_log_t *log)
{
    ngx_event_t  *ev;

    if (upstream->health.interval == 0) {
        return;
    }

    ngx_queue_init(&upstream->health.probes);

    ev = &upstream->health.timer;

    ev->handler = ngx_mail_policy_health_timer_handler;
    ev->data = upstream;
    ev->log = log;
    ev->cancelable = 1;

    ngx_add_timer(ev, 1);
}


void
ngx_mail_policy_health_stop(ngx_mail_policy_upstream_t *upstream)
{
    ngx_event_t  *ev;

    ev = &upstream->health.timer;

    if (ev->handler == NULL) {
        return;
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    ngx_mail_policy_health_probes_close(&upstream->health);
}


static void
ngx_mail_policy_health_timer_handler(ngx_event_t *ev)
{
    ngx_uint_t                   i;
    ngx_mail_policy_peer_t      *peer;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = ev->data;

    if (ngx_exiting) {
        return;
    }

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer && !peer->server->down && ngx_mail_policy_health_due(peer)) {
            ngx_mail_policy_health_probe(peer);
        }
    }

    ngx_add_timer(ev, ngx_mail_policy_health_tick(&upstream->health));
}


/* how late a check may be */

static ngx_msec_t
ngx_mail_policy_health_tick(ngx_mail_policy_health_t *health)
{
    return ngx_min(ngx_max(health->interval / 10, 10), 500);
}


/* one that is due is taken: it is not due to others until it must be over */

static ngx_uint_t
ngx_mail_policy_health_due(ngx_mail_policy_peer_t *peer)
{
    ngx_msec_t                     left;
    ngx_uint_t                     due;
    ngx_mail_policy_health_t      *health;
    ngx_mail_policy_peer_state_t  *state;

    state = peer->state;
    health = &peer->upstream->health;

    ngx_mail_policy_peer_lock(peer->upstream->zone);

    left = state->probe_due - ngx_current_msec;

    /*
     * Over, never set, or set by an interval that a reload has changed.  One
     * interval more, as a clock may lag behind that of who has just set it.
     */

    due = (left == 0
           || left > health->timeout + 2 * health->interval + health->jitter);

    if (due) {
        state->probe_due = ngx_current_msec + health->timeout
                           + health->interval;
    }

    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    return due;
}


void
ngx_mail_policy_health_verdict(ngx_mail_policy_peer_t *peer, const char *why)
{
    ngx_uint_t                     was, is;
    ngx_mail_policy_health_t      *health;
    ngx_mail_policy_peer_state_t  *state;

    state = peer->state;
    health = &peer->upstream->health;

    ngx_mail_policy_peer_lock(peer->upstream->zone);

    state->probe_due = ngx_current_msec + health->interval
                       + (health->jitter ? ngx_random() % health->jitter : 0);

    was = state->unhealthy;

    if (why) {
        state->probe_passes = 0;
        state->probe_fails++;

        if (state->probe_fails >= health->fails) {
            state->unhealthy = 1;
        }

    } else {
        state->probe_fails = 0;
        state->probe_passes++;

        if (was && state->probe_passes >= health->passes) {
            state->unhealthy = 0;
            state->fails = 0;

            if (peer->server->slow_start) {
                state->slow_since = ngx_current_msec | 1;
            }
        }
    }

    is = state->unhealthy;

    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    if (is && !was) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "relay \"%V\" of upstream \"%V\" is unhealthy: %s",
                      &peer->name, &peer->upstream->name, why);

    } else if (was && !is) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "relay \"%V\" of upstream \"%V\" is healthy again",
                      &peer->name, &peer->upstream->name);
    }
}
