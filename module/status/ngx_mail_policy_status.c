
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The store, and the groups of relays with what all workers know of them.  No
 * events arrive here.
 */


#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_status.h"


extern ngx_module_t  ngx_mail_module;


static ngx_mail_policy_main_conf_t *ngx_mail_policy_status_conf(void);
static void ngx_mail_policy_status_store(ngx_mail_policy_json_t *j,
    ngx_mail_policy_store_t *store);
static void ngx_mail_policy_status_upstream(ngx_mail_policy_json_t *j,
    ngx_mail_policy_upstream_t *upstream);
static void ngx_mail_policy_status_peer(ngx_mail_policy_json_t *j,
    ngx_mail_policy_peer_t *peer);
static void ngx_mail_policy_status_state(ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_peer_state_t *state, ngx_str_t *text);


ngx_int_t
ngx_mail_policy_status_json(ngx_pool_t *pool, ngx_str_t *text)
{
    ngx_str_t                      time;
    ngx_uint_t                     i;
    ngx_mail_policy_json_t         j;
    ngx_mail_policy_upstream_t   **upstream;
    ngx_mail_policy_main_conf_t   *mcf;

    ngx_memzero(&j, sizeof(ngx_mail_policy_json_t));
    j.pool = pool;

    time = *(ngx_str_t *) &ngx_cached_http_log_iso8601;

    ngx_mail_policy_json_raw(&j, "{\"time\":");
    ngx_mail_policy_json_value(&j, &time);
    ngx_mail_policy_json_num(&j, "pid", ngx_pid);

    mcf = ngx_mail_policy_status_conf();

    if (mcf == NULL) {
        ngx_mail_policy_json_raw(&j, ",\"mail\":false}\n");

    } else {
        ngx_mail_policy_json_raw(&j, ",\"mail\":true");
        ngx_mail_policy_status_store(&j, mcf->store);

        ngx_mail_policy_json_raw(&j, ",\"upstreams\":[");

        upstream = mcf->upstreams.elts;

        for (i = 0; i < mcf->upstreams.nelts; i++) {
            ngx_mail_policy_json_raw(&j, i ? "," : "");
            ngx_mail_policy_status_upstream(&j, upstream[i]);
        }

        ngx_mail_policy_json_raw(&j, "]}\n");
    }

    text->data = j.start;
    text->len = j.last - j.start;

    return j.error ? NGX_ERROR : NGX_OK;
}


/* NULL: no mail{}, or no server with policy in it */

static ngx_mail_policy_main_conf_t *
ngx_mail_policy_status_conf(void)
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


static void
ngx_mail_policy_status_store(ngx_mail_policy_json_t *j,
    ngx_mail_policy_store_t *store)
{
    ngx_str_t   name;
    ngx_uint_t  there;

    there = ngx_mail_policy_store_there(store, &name);

    ngx_mail_policy_json_raw(j, name.len ? ",\"store\":{\"kind\":\"redis\""
                                         : ",\"store\":{\"kind\":\"memory\"");
    ngx_mail_policy_json_str(j, "name", &name);
    ngx_mail_policy_json_raw(j, there ? ",\"state\":\"up\"}"
                                      : ",\"state\":\"away\"}");
}


static void
ngx_mail_policy_status_upstream(ngx_mail_policy_json_t *j,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t  i, n;

    ngx_mail_policy_json_raw(j, "{\"name\":");
    ngx_mail_policy_json_value(j, &upstream->name);
    ngx_mail_policy_json_raw(j, ",\"peers\":[");

    n = 0;

    for (i = 0; i < upstream->npeers; i++) {
        if (upstream->peers[i]) {
            ngx_mail_policy_json_raw(j, n++ ? "," : "");
            ngx_mail_policy_status_peer(j, upstream->peers[i]);
        }
    }

    ngx_mail_policy_json_raw(j, "]}");
}


static void
ngx_mail_policy_status_peer(ngx_mail_policy_json_t *j,
    ngx_mail_policy_peer_t *peer)
{
    ngx_str_t                     text;
    ngx_mail_policy_peer_state_t  state;

    ngx_mail_policy_peer_lock(peer->upstream->zone);
    state = *peer->state;
    ngx_mail_policy_peer_unlock(peer->upstream->zone);

    ngx_mail_policy_json_raw(j, "{\"server\":");
    ngx_mail_policy_json_value(j, &peer->server->name);
    ngx_mail_policy_json_str(j, "address", &peer->name);

    ngx_mail_policy_status_state(peer, &state, &text);
    ngx_mail_policy_json_str(j, "state", &text);

    ngx_mail_policy_json_raw(j, peer->server->backup ? ",\"backup\":true"
                                                     : ",\"backup\":false");
    ngx_mail_policy_json_num(j, "weight", peer->server->weight);
    ngx_mail_policy_json_num(j, "active", state.conns);
    ngx_mail_policy_json_num(j, "fails", state.fails);
    ngx_mail_policy_json_raw(j, "}");
}


/* as a choice would find it now */

static void
ngx_mail_policy_status_state(ngx_mail_policy_peer_t *peer,
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
