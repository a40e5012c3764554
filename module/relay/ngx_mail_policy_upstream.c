
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays, as they are configured and found again.  No events arrive
 * here.
 *
 * A group and the peers whose addresses are known at the start are made while
 * the configuration is read; each worker gives them their states.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_keep.h"


static ngx_mail_policy_upstream_t *ngx_mail_policy_upstream_new(
    ngx_conf_t *cf, ngx_array_t *upstreams, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_upstream_resolvers(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_upstreams_t *all);
static ngx_int_t ngx_mail_policy_upstream_peers(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static ngx_uint_t ngx_mail_policy_upstream_hole(
    ngx_mail_policy_upstream_t *upstream);


char *
ngx_mail_policy_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_main_conf_t *mcf = conf;

    char                        *rv;
    ngx_str_t                   *value;
    ngx_conf_t                   save;
    ngx_mail_policy_upstream_t  *upstream;

    value = cf->args->elts;

    if (ngx_mail_policy_upstream_find(&mcf->upstreams, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate upstream \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    upstream = ngx_mail_policy_upstream_new(cf, &mcf->upstreams, &value[1]);
    if (upstream == NULL) {
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->handler = ngx_mail_policy_upstream_entry;
    cf->handler_conf = (char *) upstream;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ngx_mail_policy_upstream_check(cf, upstream) != NGX_OK
        || ngx_mail_policy_upstream_peers(cf, upstream) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_add(ngx_conf_t *cf, ngx_array_t *upstreams,
    ngx_str_t *name)
{
    ngx_url_t                    u;
    ngx_mail_policy_server_t    *server;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = ngx_mail_policy_upstream_find(upstreams, name);
    if (upstream) {
        return upstream;
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *name;
    u.no_resolve = 1;

    /* a group that nobody has defined must not be asked of the DNS */

    if (ngx_parse_url(cf->pool, &u) == NGX_OK && u.no_port) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no upstream \"%V\" and no port in \"%V\"",
                           name, name);
        return NULL;
    }

    upstream = ngx_mail_policy_upstream_new(cf, upstreams, name);
    if (upstream == NULL) {
        return NULL;
    }

    upstream->implicit = 1;

    server = ngx_mail_policy_upstream_server_push(upstream, name);

    if (server == NULL
        || ngx_mail_policy_upstream_server_addrs(cf, upstream, server)
           != NGX_OK
        || ngx_mail_policy_upstream_peers(cf, upstream) != NGX_OK)
    {
        return NULL;
    }

    return upstream;
}


static ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_new(ngx_conf_t *cf, ngx_array_t *upstreams,
    ngx_str_t *name)
{
    ngx_mail_policy_upstream_t  *upstream, **upstreamp;

    upstream = ngx_mail_policy_upstream_create(cf->pool, name);
    if (upstream == NULL) {
        return NULL;
    }

    upstream->file = cf->conf_file->file.name.data;
    upstream->line = cf->conf_file->line;

    upstreamp = ngx_array_push(upstreams);
    if (upstreamp == NULL) {
        return NULL;
    }

    *upstreamp = upstream;

    return upstream;
}


ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_create(ngx_pool_t *pool, ngx_str_t *name)
{
    ngx_mail_policy_upstream_t  *upstream;

    upstream = ngx_pcalloc(pool, sizeof(ngx_mail_policy_upstream_t));
    if (upstream == NULL) {
        return NULL;
    }

    upstream->name = *name;

    ngx_mail_policy_keep_init(&upstream->keep);

    if (ngx_array_init(&upstream->servers, pool, 4,
                       sizeof(ngx_mail_policy_server_t))
        != NGX_OK)
    {
        return NULL;
    }

    return upstream;
}


ngx_int_t
ngx_mail_policy_upstream_init(ngx_conf_t *cf, ngx_mail_policy_upstreams_t *all)
{
    ngx_uint_t                    i;
    ngx_mail_core_srv_conf_t     *cscf;
    ngx_mail_policy_upstream_t  **upstream;

    all->zone = ngx_mail_policy_peer_zone_add(cf);
    if (all->zone == NULL) {
        return NGX_ERROR;
    }

    /* as it stands in mail{}, not yet merged */

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    all->resolver = cscf->resolver;
    all->resolver_timeout = cscf->resolver_timeout;

    ngx_conf_init_ptr_value(all->resolver, NULL);
    ngx_conf_init_msec_value(all->resolver_timeout, 30000);

    upstream = all->upstreams->elts;

    for (i = 0; i < all->upstreams->nelts; i++) {
        if (ngx_mail_policy_upstream_resolvers(cf, upstream[i], all)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* who is asked for the names of "resolve" */

static ngx_int_t
ngx_mail_policy_upstream_resolvers(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_upstreams_t *all)
{
    ngx_uint_t                 i;
    ngx_mail_policy_server_t  *server;

    if (upstream->resolver == NULL) {
        upstream->resolver = all->resolver;
    }

    if (upstream->resolver_timeout == 0) {
        upstream->resolver_timeout = all->resolver_timeout;
    }

    if (upstream->resolver) {
        return NGX_OK;
    }

    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {
        if (server[i].resolve) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "no resolver defined to resolve names at run time "
                          "in upstream \"%V\", write \"resolver address;\" "
                          "in it or in \"mail\", in %s:%ui",
                          &upstream->name, upstream->file, upstream->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* the servers are complete: their places do not change any more */

static ngx_int_t
ngx_mail_policy_upstream_peers(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t                 i, j, n;
    ngx_mail_policy_server_t  *server;

    n = 0;
    server = upstream->servers.elts;

    for (i = 0; i < upstream->servers.nelts; i++) {
        n = server[i].resolve ? NGX_MAIL_POLICY_PEERS : n + server[i].naddrs;
    }

    n = ngx_min(n, NGX_MAIL_POLICY_PEERS);

    if (ngx_mail_policy_upstream_room(upstream, n, cf->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < upstream->servers.nelts; i++) {
        for (j = 0; j < server[i].naddrs; j++) {

            if (upstream->present == NGX_MAIL_POLICY_PEERS) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "upstream \"%V\" has more than %d "
                                   "addresses", &upstream->name,
                                   NGX_MAIL_POLICY_PEERS);
                return NGX_ERROR;
            }

            if (ngx_mail_policy_upstream_peer_add(upstream, &server[i],
                                                  &server[i].addrs[j],
                                                  cf->pool)
                == NULL)
            {
                return NGX_ERROR;
            }
        }
    }

    return ngx_mail_policy_upstream_points(upstream, cf->pool);
}


ngx_int_t
ngx_mail_policy_upstream_room(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t n, ngx_pool_t *pool)
{
    upstream->peers = ngx_pcalloc(pool,
                                  n * sizeof(ngx_mail_policy_peer_t *) + 1);
    upstream->max_peers = n;

    return upstream->peers ? NGX_OK : NGX_ERROR;
}


ngx_mail_policy_peer_t *
ngx_mail_policy_upstream_peer_add(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_server_t *server, ngx_addr_t *addr, ngx_pool_t *pool)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    i = ngx_mail_policy_upstream_hole(upstream);

    if (i == upstream->max_peers) {
        return NULL;
    }

    peer = ngx_pcalloc(pool, sizeof(ngx_mail_policy_peer_t));
    if (peer == NULL) {
        return NULL;
    }

    peer->sockaddr = addr->sockaddr;
    peer->socklen = addr->socklen;
    peer->name = addr->name;
    peer->upstream = upstream;
    peer->server = server;
    peer->index = i;

    upstream->peers[i] = peer;
    upstream->npeers = ngx_max(upstream->npeers, i + 1);
    upstream->present++;

    return peer;
}


void
ngx_mail_policy_upstream_peer_remove(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_peer_t *peer)
{
    upstream->peers[peer->index] = NULL;
    upstream->present--;

    ngx_mail_policy_keep_forget(upstream, peer);
    ngx_mail_policy_peer_leave(peer);
}


void
ngx_mail_policy_upstream_leave(ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t  i;

    ngx_mail_policy_health_stop(upstream);
    ngx_mail_policy_upstream_resolve_stop(upstream);

    for (i = 0; i < upstream->npeers; i++) {
        if (upstream->peers[i]) {
            ngx_mail_policy_upstream_peer_remove(upstream,
                                                 upstream->peers[i]);
        }
    }
}


static ngx_uint_t
ngx_mail_policy_upstream_hole(ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t  i;

    for (i = 0; i < upstream->npeers; i++) {
        if (upstream->peers[i] == NULL) {
            break;
        }
    }

    return i;
}


ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_find(ngx_array_t *upstreams, ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_mail_policy_upstream_t  **upstream;

    upstream = upstreams->elts;

    for (i = 0; i < upstreams->nelts; i++) {
        if (upstream[i]->name.len == name->len
            && ngx_strncasecmp(upstream[i]->name.data, name->data, name->len)
               == 0)
        {
            return upstream[i];
        }
    }

    return NULL;
}


ngx_uint_t
ngx_mail_policy_upstream_lazy(ngx_mail_policy_upstream_t *upstream)
{
    return upstream->key && upstream->key->phase == NGX_MAIL_POLICY_AT_RCPT;
}


void
ngx_mail_policy_upstream_offers(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t *lacking, ngx_uint_t *unknown, uint64_t *size)
{
    ngx_uint_t                     i;
    ngx_mail_policy_peer_t        *peer;
    ngx_mail_policy_peer_state_t  *state;

    if (upstream->present == 0) {
        *unknown = 1;
    }

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer == NULL || peer->server->down) {
            continue;
        }

        state = peer->state;

        if (!state->known) {
            *unknown = 1;
            continue;
        }

        *lacking |= ~state->extensions;

        if (state->size && (*size == 0 || state->size < *size)) {
            *size = state->size;
        }
    }
}
