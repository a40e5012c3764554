
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A peer and what becomes of it.  No events arrive here; who got a peer
 * reports once how it went.
 *
 *     available --- max_fails failures ---> set aside
 *         ^                                     | fail_timeout
 *         |                                     v
 *         +----- success ----- tried again, one session at a time
 *
 * It is freed with its last reference, if its group does not name it any
 * more.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_metrics.h"


static void ngx_mail_policy_peer_count(ngx_mail_policy_peer_t *peer,
    ngx_int_t n);
static void ngx_mail_policy_peer_free(ngx_mail_policy_peer_t *peer);


ngx_int_t
ngx_mail_policy_peer_attach(ngx_mail_policy_peer_t *peer)
{
    ngx_str_t                      key;
    ngx_mail_policy_peer_state_t  *state;

    state = NULL;

    if (ngx_mail_policy_peer_key(peer->upstream, peer->server, &peer->name,
                                 &key)
        == NULL)
    {
        return NGX_ERROR;
    }

    peer->share = ngx_mail_policy_peer_share_get(peer->upstream->zone, &key,
                                                 &state);
    ngx_free(key.data);

    if (peer->share == NULL) {

        if (peer->upstream->zone) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "no shared memory for relay \"%V\" of \"%V\": its "
                          "state is this worker's own", &peer->name,
                          &peer->upstream->name);
        }

        state = ngx_calloc(sizeof(ngx_mail_policy_peer_state_t),
                           ngx_cycle->log);
        if (state == NULL) {
            return NGX_ERROR;
        }
    }

    peer->state = state;

    ngx_mail_policy_peer_lock(peer->upstream->zone);

    if (state->weight != peer->server->weight) {
        state->weight = peer->server->weight;
        state->turn.effective = state->weight;
    }

    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    return NGX_OK;
}


u_char *
ngx_mail_policy_peer_key(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_server_t *server, ngx_str_t *name, ngx_str_t *key)
{
    u_char     *p;
    ngx_str_t   empty = ngx_null_string;

    if (name == NULL) {
        name = &empty;
    }

    key->len = upstream->name.len + server->name.len + name->len
               + NGX_INT_T_LEN + 3;

    key->data = ngx_alloc(key->len, ngx_cycle->log);
    if (key->data == NULL) {
        return NULL;
    }

    p = ngx_sprintf(key->data, "%V%Z%V%Z%ui%Z%V", &upstream->name,
                    &server->name, server->ordinal, name);
    key->len = p - key->data;

    return key->data;
}


void
ngx_mail_policy_peer_acquire(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_peer_ref(peer);
    ngx_mail_policy_peer_use(peer);
}


void
ngx_mail_policy_peer_acquire_locked(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_peer_ref(peer);
    ngx_mail_policy_peer_count(peer, 1);
}


void
ngx_mail_policy_peer_release(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_peer_rest(peer);
    ngx_mail_policy_peer_unref(peer);
}


void
ngx_mail_policy_peer_use(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_peer_lock(peer->upstream->zone);
    ngx_mail_policy_peer_count(peer, 1);
    ngx_mail_policy_peer_unlock(peer->upstream->zone);
}


void
ngx_mail_policy_peer_rest(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_peer_lock(peer->upstream->zone);
    ngx_mail_policy_peer_count(peer, -1);
    ngx_mail_policy_peer_unlock(peer->upstream->zone);
}


static void
ngx_mail_policy_peer_count(ngx_mail_policy_peer_t *peer, ngx_int_t n)
{
    if (peer->share) {
        ngx_mail_policy_peer_share_count(peer->upstream->zone, peer->share,
                                         n);

    } else {
        peer->state->conns += n;
    }
}


void
ngx_mail_policy_peer_ref(ngx_mail_policy_peer_t *peer)
{
    peer->refs++;
    peer->upstream->refs++;
}


void
ngx_mail_policy_peer_unref(ngx_mail_policy_peer_t *peer)
{
    peer->refs--;
    peer->upstream->refs--;

    if (peer->gone && peer->refs == 0) {
        ngx_mail_policy_peer_free(peer);
    }
}


void
ngx_mail_policy_peer_leave(ngx_mail_policy_peer_t *peer)
{
    peer->gone = 1;

    if (peer->refs == 0) {
        ngx_mail_policy_peer_free(peer);
    }
}


static void
ngx_mail_policy_peer_free(ngx_mail_policy_peer_t *peer)
{
    if (peer->share) {
        ngx_mail_policy_peer_share_put(peer->upstream->zone, peer->share);

    } else if (peer->state) {
        ngx_free(peer->state);
    }

    if (peer->pool) {
        ngx_destroy_pool(peer->pool);
    }
}


/*
 * Of the configuration's all are there from the start; those that are found
 * at run time have theirs when one is needed.
 */

ngx_uint_t
ngx_mail_policy_peer_counters(ngx_mail_policy_peer_t *peer)
{
    if (peer->counters == 0) {
        peer->counters = (peer->upstream->dynamic || peer->pool)
            ? ngx_mail_policy_metrics_block_dynamic(NGX_MAIL_POLICY_BLOCK_PEER,
                                          &peer->upstream->name, &peer->name)
            : ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_PEER,
                                          &peer->upstream->name, &peer->name);
    }

    return peer->counters;
}


ngx_uint_t
ngx_mail_policy_peer_unhealthy(ngx_mail_policy_peer_t *peer)
{
    /* it may have been found before a reload, which has ended the checks */

    return peer->upstream->health.interval && peer->state->unhealthy;
}


void
ngx_mail_policy_upstream_report(ngx_mail_policy_peer_t *peer,
    ngx_uint_t failed)
{
    time_t                         now;
    ngx_uint_t                     aside;
    ngx_mail_policy_server_t      *server;
    ngx_mail_policy_peer_state_t  *state;

    now = ngx_time();
    aside = 0;
    state = peer->state;
    server = peer->server;

    ngx_mail_policy_peer_lock(peer->upstream->zone);

    if (failed) {
        state->fails++;
        state->accessed = now;
        state->checked = now;

        mpol_turn_fail(&state->turn, server->weight, server->max_fails);

        aside = (server->max_fails && state->fails >= server->max_fails);

    } else if (state->accessed < state->checked) {

        /* it was tried again after fail_timeout, and is well */

        if (server->slow_start && server->max_fails
            && state->fails >= server->max_fails)
        {
            state->slow_since = ngx_current_msec | 1;
        }

        state->fails = 0;
    }

    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    if (aside && peer->upstream->present > 1) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "relay \"%V\" is set aside for %T s",
                      &peer->name, server->fail_timeout);
    }
}


void
ngx_mail_policy_upstream_learn(ngx_mail_policy_peer_t *peer, mpol_ehlo_t *ehlo)
{
    ngx_mail_policy_peer_lock(peer->upstream->zone);

    peer->state->known = 1;
    peer->state->extensions = ehlo->extensions;
    peer->state->size = ehlo->size;

    ngx_mail_policy_peer_unlock(peer->upstream->zone);
}
