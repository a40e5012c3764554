
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Gathers what there is to be seen.  Counters are read while others add to
 * them; locks are taken for the states of the relays, one at a time, and for
 * the boards.  No events arrive here.
 */


#include "ngx_mail_policy_snapshot.h"


extern ngx_module_t  ngx_mail_module;


static ngx_mail_policy_main_conf_t *ngx_mail_policy_snapshot_conf(void);
static ngx_int_t ngx_mail_policy_snapshot_init(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_store(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_store_t *store);
static ngx_int_t ngx_mail_policy_snapshot_upstream(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *s, ngx_mail_policy_upstream_t *upstream);
static ngx_int_t ngx_mail_policy_snapshot_peer(
    ngx_mail_policy_snapshot_t *s, ngx_array_t *peers,
    ngx_mail_policy_peer_t *peer);
static void ngx_mail_policy_snapshot_state(ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_peer_state_t *state, ngx_str_t *text);


ngx_str_t  ngx_mail_policy_snapshot_commands[] = {
    ngx_string("connect"),
    ngx_string("helo"),
    ngx_string("auth"),
    ngx_string("mail"),
    ngx_string("rcpt"),
    ngx_string("data"),
    ngx_string("end_of_data"),
    ngx_string("other")
};

ngx_str_t  ngx_mail_policy_snapshot_mechanisms[] = {
    ngx_string("PLAIN"),
    ngx_string("LOGIN"),
    ngx_string("CRAM-MD5"),
    ngx_string("SCRAM-SHA-256"),
    ngx_string("SCRAM-SHA-256-PLUS"),
    ngx_string("XOAUTH2"),
    ngx_string("OAUTHBEARER"),
    ngx_string("EXTERNAL"),
    ngx_string("unknown")
};

ngx_str_t  ngx_mail_policy_snapshot_logins[] = {
    ngx_string("success"),
    ngx_string("failure"),
    ngx_string("temporary"),
    ngx_string("aborted")
};

ngx_str_t  ngx_mail_policy_snapshot_answers[] = {
    ngx_string("pass"),
    ngx_string("edge"),
    ngx_string("defer"),
    ngx_string("reject"),
    ngx_string("none")
};

ngx_str_t  ngx_mail_policy_snapshot_results[] = {
    ngx_string("pass"),
    ngx_string("defer"),
    ngx_string("reject"),
    ngx_string("tarpit"),
    ngx_string("would_reject"),
    ngx_string("relay"),
    ngx_string("error")
};


ngx_mail_policy_snapshot_t *
ngx_mail_policy_snapshot(ngx_pool_t *pool)
{
    ngx_uint_t                     i;
    ngx_mail_policy_snapshot_t    *s;
    ngx_mail_policy_upstream_t   **upstream;
    ngx_mail_policy_main_conf_t   *mcf;

    s = ngx_pcalloc(pool, sizeof(ngx_mail_policy_snapshot_t));

    if (s == NULL || ngx_mail_policy_snapshot_init(pool, s) != NGX_OK) {
        return NULL;
    }

    mcf = ngx_mail_policy_snapshot_conf();

    if (mcf == NULL) {
        return s;
    }

    s->mail = 1;

    if (ngx_mail_policy_metrics) {
        s->metrics = 1;
        ngx_mail_policy_snapshot_past(s, ngx_mail_policy_metrics);

        if (ngx_mail_policy_snapshot_counters(s, ngx_mail_policy_metrics)
            != NGX_OK
            || ngx_mail_policy_board_get_refused(pool, ngx_mail_policy_metrics,
                                   NGX_MAIL_POLICY_SNAPSHOT_BOARD, &s->refused)
               != NGX_OK
            || ngx_mail_policy_board_get_near(pool, ngx_mail_policy_metrics,
                                   NGX_MAIL_POLICY_SNAPSHOT_BOARD, &s->near)
               != NGX_OK)
        {
            return NULL;
        }
    }

    ngx_mail_policy_snapshot_store(s, mcf->store);

    upstream = mcf->upstreams.elts;

    for (i = 0; i < mcf->upstreams.nelts; i++) {
        if (ngx_mail_policy_snapshot_upstream(pool, s, upstream[i])
            != NGX_OK)
        {
            return NULL;
        }
    }

    return s;
}


/* NULL: no mail{}, or no server with policy in it */

static ngx_mail_policy_main_conf_t *
ngx_mail_policy_snapshot_conf(void)
{
    ngx_mail_conf_ctx_t          *ctx;
    ngx_mail_policy_main_conf_t  *mcf;

    ctx = (ngx_mail_conf_ctx_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                               ngx_mail_module);
    if (ctx == NULL) {
        return NULL;
    }

    mcf = ctx->main_conf[ngx_mail_policy_module.ctx_index];

    return mcf->used ? mcf : NULL;
}


static ngx_int_t
ngx_mail_policy_snapshot_init(ngx_pool_t *pool, ngx_mail_policy_snapshot_t *s)
{
    s->now = ngx_time();
    s->time = *(ngx_str_t *) &ngx_cached_http_log_iso8601;

    if (ngx_array_init(&s->upstreams, pool, 4,
                       sizeof(ngx_mail_policy_snapshot_upstream_t)) != NGX_OK
        || ngx_array_init(&s->relays, pool, 8,
                          sizeof(ngx_mail_policy_snapshot_block_t)) != NGX_OK
        || ngx_array_init(&s->limits, pool, 8,
                          sizeof(ngx_mail_policy_snapshot_block_t)) != NGX_OK
        || ngx_array_init(&s->services, pool, 2,
                          sizeof(ngx_mail_policy_snapshot_block_t)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_snapshot_store(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_store_t *store)
{
    ngx_uint_t  there;

    there = ngx_mail_policy_store_there(store, &s->store_name);

    if (s->store_name.len) {
        ngx_str_set(&s->store_kind, "redis");

    } else {
        ngx_str_set(&s->store_kind, "memory");
    }

    if (there) {
        ngx_str_set(&s->store_state, "up");

    } else {
        ngx_str_set(&s->store_state, "away");
    }

    s->store_workers = s->gauges[NGX_MAIL_POLICY_GAUGE_STORE];
    s->store_up = s->gauges[NGX_MAIL_POLICY_GAUGE_STORE_UP];
}


static ngx_int_t
ngx_mail_policy_snapshot_upstream(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *s, ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t                            i;
    ngx_mail_policy_snapshot_upstream_t  *su;

    su = ngx_array_push(&s->upstreams);
    if (su == NULL) {
        return NGX_ERROR;
    }

    su->name = upstream->name;

    if (ngx_array_init(&su->peers, pool, ngx_max(upstream->npeers, 1),
                       sizeof(ngx_mail_policy_snapshot_peer_t)) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < upstream->npeers; i++) {

        if (upstream->peers[i]
            && ngx_mail_policy_snapshot_peer(s, &su->peers,
                                             upstream->peers[i])
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_snapshot_peer(ngx_mail_policy_snapshot_t *s,
    ngx_array_t *peers, ngx_mail_policy_peer_t *peer)
{
    ngx_uint_t                         i;
    ngx_mail_policy_peer_state_t       state;
    ngx_mail_policy_snapshot_peer_t   *sp;
    ngx_mail_policy_snapshot_block_t  *relay;

    sp = ngx_array_push(peers);
    if (sp == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(sp, sizeof(ngx_mail_policy_snapshot_peer_t));

    ngx_mail_policy_peer_lock(peer->upstream->zone);
    state = *peer->state;
    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    sp->server = peer->server->name;
    sp->address = peer->name;
    sp->backup = peer->server->backup;
    sp->weight = peer->server->weight;
    sp->active = state.conns;
    sp->fails = state.fails;

    ngx_mail_policy_snapshot_state(peer, &state, &sp->state);

    relay = s->relays.elts;

    for (i = 0; i < s->relays.nelts; i++) {

        if (ngx_mail_policy_metrics_block_is(&relay[i].name,
                                             &peer->upstream->name)
            && ngx_mail_policy_metrics_block_is(&relay[i].address,
                                                &peer->name))
        {
            relay[i].peer = 1;
            ngx_memcpy(sp->counters, relay[i].counters,
                       sizeof(sp->counters));
            return NGX_OK;
        }
    }

    relay = s->metrics ? ngx_array_push(&s->relays) : NULL;

    if (relay) {
        ngx_memzero(relay, sizeof(ngx_mail_policy_snapshot_block_t));

        /* as a block has them */
        relay->name = peer->upstream->name;
        relay->name.len = ngx_min(relay->name.len,
                                  NGX_MAIL_POLICY_METRICS_NAME);
        relay->address = peer->name;
        relay->address.len = ngx_min(relay->address.len,
                                     NGX_MAIL_POLICY_METRICS_NAME);
        relay->peer = 1;
    }

    return (relay || !s->metrics) ? NGX_OK : NGX_ERROR;
}


/* as a choice would find it now */

static void
ngx_mail_policy_snapshot_state(ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_peer_state_t *state, ngx_str_t *text)
{
    ngx_mail_policy_server_t  *server;

    server = peer->server;

    if (server->down) {
        ngx_str_set(text, "down");

    } else if (ngx_mail_policy_peer_unhealthy(peer)) {
        ngx_str_set(text, "unhealthy");

    } else if (peer->upstream->present > 1
               && server->max_fails && state->fails >= server->max_fails
               && ngx_time() - state->checked <= server->fail_timeout)
    {
        ngx_str_set(text, "failed");

    } else if (server->max_conns && state->conns >= server->max_conns) {
        ngx_str_set(text, "busy");

    } else {
        ngx_str_set(text, "up");
    }
}
