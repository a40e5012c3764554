
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The addresses of a server with "resolve": each worker asks for them as long
 * as it runs.
 *
 *     timer --- ask() ---> the resolver --- answer() ---> timer
 *
 * How long an answer holds is the resolver's to say.  A name that does not
 * exist has no addresses; where no answer comes, those that were known are
 * kept.
 *
 * Events: the timer of a server, the answer of nginx's resolver.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


static void ngx_mail_policy_upstream_adopt(
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_server_t *server);
static unsigned ngx_mail_policy_upstream_idle(
    ngx_mail_policy_upstream_t *upstream);
static void ngx_mail_policy_upstream_ask_handler(ngx_event_t *ev);
static void ngx_mail_policy_upstream_answer(ngx_resolver_ctx_t *ctx);
static void ngx_mail_policy_upstream_update(ngx_mail_policy_server_t *server,
    ngx_resolver_ctx_t *ctx);
static ngx_uint_t ngx_mail_policy_upstream_named(ngx_resolver_ctx_t *ctx,
    ngx_mail_policy_peer_t *peer);
static ngx_uint_t ngx_mail_policy_upstream_known(
    ngx_mail_policy_server_t *server, struct sockaddr *sa, socklen_t len,
    ngx_uint_t port);
static void ngx_mail_policy_upstream_join(ngx_mail_policy_server_t *server,
    struct sockaddr *sa, socklen_t len);


void
ngx_mail_policy_upstream_resolve_start(ngx_mail_policy_upstream_t *upstream,
    ngx_log_t *log)
{
    ngx_uint_t                 i;
    ngx_mail_policy_server_t  *server;

    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {

        if (!server[i].resolve) {
            continue;
        }

        server[i].upstream = upstream;

        server[i].ask.handler = ngx_mail_policy_upstream_ask_handler;
        server[i].ask.data = &server[i];
        server[i].ask.log = log;

        ngx_mail_policy_upstream_adopt(upstream, &server[i]);

        server[i].ask.cancelable = ngx_mail_policy_upstream_idle(upstream);

        ngx_add_timer(&server[i].ask, 1);
    }
}


void
ngx_mail_policy_upstream_resolve_stop(ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t                 i;
    ngx_mail_policy_server_t  *server;

    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {

        if (server[i].ask.timer_set) {
            ngx_del_timer(&server[i].ask);
        }

        if (server[i].asking) {
            ngx_resolve_name_done(server[i].asking);
            server[i].asking = NULL;
        }
    }
}


/* until the first answer: what other workers use, as those before a reload */

static void
ngx_mail_policy_upstream_adopt(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_server_t *server)
{
    ngx_str_t    begin, *name;
    ngx_addr_t   addr;
    ngx_pool_t  *pool;
    ngx_uint_t   i;
    ngx_array_t  names;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    if (upstream->zone == NULL
        || ngx_array_init(&names, pool, 8, sizeof(ngx_str_t)) != NGX_OK
        || ngx_mail_policy_peer_key(upstream, server, NULL, &begin) == NULL)
    {
        ngx_destroy_pool(pool);
        return;
    }

    if (ngx_mail_policy_peer_zone_keys(upstream->zone, &begin, pool, &names)
        == NGX_OK)
    {
        name = names.elts;

        for (i = 0; i < names.nelts; i++) {

            if (ngx_parse_addr_port(pool, &addr, name[i].data, name[i].len)
                == NGX_OK
                && !ngx_mail_policy_upstream_known(server, addr.sockaddr,
                                                   addr.socklen, 1))
            {
                ngx_mail_policy_upstream_join(server, addr.sockaddr,
                                              addr.socklen);
            }
        }
    }

    ngx_free(begin.data);
    ngx_destroy_pool(pool);
}


/*
 * 0 if sessions may wait for the first answer: they have no other timer then,
 * and a worker that shuts down has to wait for them.
 */

static unsigned
ngx_mail_policy_upstream_idle(ngx_mail_policy_upstream_t *upstream)
{
    return !upstream->dynamic || upstream->present != 0;
}


static void
ngx_mail_policy_upstream_ask_handler(ngx_event_t *ev)
{
    ngx_resolver_ctx_t          *ctx;
    ngx_mail_policy_server_t    *server;
    ngx_mail_policy_upstream_t  *upstream;

    server = ev->data;
    upstream = server->upstream;

    ev->cancelable = 1;
    ngx_add_timer(ev, ngx_max(upstream->resolver_timeout, 1000));

    ctx = ngx_resolve_start(upstream->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return;
    }

    ctx->name = server->host;
    ctx->handler = ngx_mail_policy_upstream_answer;
    ctx->data = server;
    ctx->timeout = upstream->resolver_timeout;
    ctx->cancelable = ngx_mail_policy_upstream_idle(upstream);

    ngx_del_timer(ev);
    server->asking = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        server->asking = NULL;
        ngx_add_timer(ev, ngx_max(upstream->resolver_timeout, 1000));
    }
}


static void
ngx_mail_policy_upstream_answer(ngx_resolver_ctx_t *ctx)
{
    time_t                       now;
    ngx_msec_t                   next;
    ngx_mail_policy_server_t    *server;
    ngx_mail_policy_upstream_t  *upstream;

    server = ctx->data;
    server->asking = NULL;
    upstream = server->upstream;

    now = ngx_time();
    next = (ctx->valid > now) ? (ngx_msec_t) (ctx->valid - now) * 1000 : 1000;

    if (ctx->state) {
        ngx_log_error(NGX_LOG_ERR, server->ask.log, 0,
                      "%V could not be resolved (%i: %s) for upstream \"%V\"",
                      &ctx->name, ctx->state,
                      ngx_resolver_strerror(ctx->state), &upstream->name);

        if (ctx->state == NGX_RESOLVE_NXDOMAIN) {
            ctx->naddrs = 0;

        } else {
            next = ngx_max(upstream->resolver_timeout, 1000);
        }
    }

    if (ctx->state == 0 || ctx->state == NGX_RESOLVE_NXDOMAIN) {
        ngx_mail_policy_upstream_update(server, ctx);
    }

    ngx_resolve_name_done(ctx);

    ngx_add_timer(&server->ask, next);

    if (upstream->resolved) {
        upstream->resolved(upstream);
    }
}


static void
ngx_mail_policy_upstream_update(ngx_mail_policy_server_t *server,
    ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_mail_policy_peer_t      *peer;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = server->upstream;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer == NULL || peer->server != server
            || ngx_mail_policy_upstream_named(ctx, peer))
        {
            continue;
        }

        ngx_log_error(NGX_LOG_NOTICE, server->ask.log, 0,
                      "relay \"%V\" of upstream \"%V\" has left",
                      &peer->name, &upstream->name);

        ngx_mail_policy_upstream_peer_remove(upstream, peer);
    }

    for (i = 0; i < ctx->naddrs; i++) {
        if (!ngx_mail_policy_upstream_known(server, ctx->addrs[i].sockaddr,
                                            ctx->addrs[i].socklen, 0))
        {
            ngx_mail_policy_upstream_join(server, ctx->addrs[i].sockaddr,
                                          ctx->addrs[i].socklen);
        }
    }
}


static ngx_uint_t
ngx_mail_policy_upstream_named(ngx_resolver_ctx_t *ctx,
    ngx_mail_policy_peer_t *peer)
{
    ngx_uint_t  i;

    for (i = 0; i < ctx->naddrs; i++) {
        if (ngx_cmp_sockaddr(peer->sockaddr, peer->socklen,
                             ctx->addrs[i].sockaddr, ctx->addrs[i].socklen, 0)
            == NGX_OK)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_mail_policy_upstream_known(ngx_mail_policy_server_t *server,
    struct sockaddr *sa, socklen_t len, ngx_uint_t port)
{
    ngx_uint_t                   i;
    ngx_mail_policy_peer_t      *peer;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = server->upstream;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer && peer->server == server
            && ngx_cmp_sockaddr(peer->sockaddr, peer->socklen, sa, len, port)
               == NGX_OK)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_mail_policy_upstream_join(ngx_mail_policy_server_t *server,
    struct sockaddr *sa, socklen_t len)
{
    ngx_addr_t                   addr;
    ngx_pool_t                  *pool;
    ngx_mail_policy_peer_t      *peer;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = server->upstream;
    peer = NULL;

    pool = ngx_create_pool(512, server->ask.log);
    if (pool == NULL) {
        return;
    }

    addr.socklen = len;
    addr.sockaddr = ngx_palloc(pool, len);
    addr.name.data = ngx_pnalloc(pool, NGX_SOCKADDR_STRLEN);

    if (addr.sockaddr && addr.name.data) {
        ngx_memcpy(addr.sockaddr, sa, len);
        ngx_inet_set_port(addr.sockaddr, server->port);

        addr.name.len = ngx_sock_ntop(addr.sockaddr, len, addr.name.data,
                                      NGX_SOCKADDR_STRLEN, 1);

        peer = ngx_mail_policy_upstream_peer_add(upstream, server, &addr,
                                                 pool);
    }

    if (peer == NULL) {
        ngx_log_error(NGX_LOG_WARN, server->ask.log, 0,
                      "no room for all addresses of %V in upstream \"%V\"",
                      &server->host, &upstream->name);
        ngx_destroy_pool(pool);
        return;
    }

    if (ngx_mail_policy_peer_attach(peer) != NGX_OK) {
        peer->pool = pool;
        ngx_mail_policy_upstream_peer_remove(upstream, peer);
        return;
    }

    peer->pool = pool;

    ngx_log_error(NGX_LOG_NOTICE, server->ask.log, 0,
                  "relay \"%V\" of upstream \"%V\" has joined",
                  &peer->name, &upstream->name);
}
