
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays and the choice among them.  No events arrive here; who
 * got a peer reports once how it went.
 *
 *     available --- max_fails failures ---> set aside
 *         ^                                     | fail_timeout
 *         |                                     v
 *         +----- success ----- tried again, one session at a time
 *
 * Smooth weighted round robin: each choice raises every candidate by its
 * weight, takes the highest, and lowers that by the sum of all.  A failure
 * lowers a peer's weight for a while, so that it comes back slowly.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


#define NGX_MAIL_POLICY_PEERS         64
#define NGX_MAIL_POLICY_WEIGHT        1
#define NGX_MAIL_POLICY_MAX_FAILS     1
#define NGX_MAIL_POLICY_FAIL_TIMEOUT  10


/* of nginx's other upstreams, and not of this version */
static char  *ngx_mail_policy_upstream_later[] = {
    "hash",
    "health_check",
    "ip_hash",
    "least_conn",
    "least_time",
    "random",
    "zone",
    NULL
};


static char *ngx_mail_policy_upstream_entry(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_mail_policy_upstream_server(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);
static char *ngx_mail_policy_upstream_parameter(ngx_conf_t *cf,
    ngx_mail_policy_peer_t *peer, ngx_str_t *value);
static ngx_mail_policy_upstream_t *ngx_mail_policy_upstream_create(
    ngx_conf_t *cf, ngx_array_t *upstreams, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_upstream_resolve(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_peer_t *peer,
    ngx_url_t *u);
static ngx_mail_policy_peer_t *ngx_mail_policy_upstream_select(
    ngx_mail_policy_upstream_t *upstream, uint64_t *tried,
    ngx_uint_t backup);
static ngx_uint_t ngx_mail_policy_upstream_forget(
    ngx_mail_policy_upstream_t *upstream);


char *
ngx_mail_policy_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_main_conf_t *mcf = conf;

    char                        *rv;
    ngx_str_t                   *value;
    ngx_conf_t                   save;
    ngx_uint_t                   i;
    ngx_mail_policy_peer_t      *peer;
    ngx_mail_policy_upstream_t  *upstream;

    value = cf->args->elts;

    if (ngx_mail_policy_upstream_find(&mcf->upstreams, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate upstream \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    upstream = ngx_mail_policy_upstream_create(cf, &mcf->upstreams,
                                               &value[1]);
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

    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {
        if (!peer[i].backup) {
            break;
        }
    }

    if (i == upstream->peers.nelts) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no servers are inside upstream \"%V\"%s",
                           &upstream->name,
                           i ? ", only backup servers" : "");
        return NGX_CONF_ERROR;
    }

    /* with one peer there is nothing to change over to */

    if (upstream->peers.nelts == 1) {
        peer->max_fails = 0;
    }

    return NGX_CONF_OK;
}


/* one line of the block */

static char *
ngx_mail_policy_upstream_entry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_upstream_t *upstream = conf;

    char       **later;
    ngx_str_t   *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "include") == 0 && cf->args->nelts == 2) {
        return ngx_conf_include(cf, cmd, conf);
    }

    if (ngx_strcmp(value[0].data, "server") == 0) {

        if (cf->args->nelts < 2) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in \"server\" "
                               "directive");
            return NGX_CONF_ERROR;
        }

        return ngx_mail_policy_upstream_server(cf, upstream);
    }

    if (ngx_strncmp(value[0].data, "keepalive", sizeof("keepalive") - 1) == 0) {
        return ngx_mail_policy_keep_directive(cf, &upstream->keep);
    }

    for (later = ngx_mail_policy_upstream_later; *later; later++) {
        if (ngx_strcmp(value[0].data, *later) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" in an upstream is not supported by "
                               "this version", &value[0]);
            return NGX_CONF_ERROR;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in an upstream", &value[0]);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_upstream_server(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream)
{
    ngx_str_t               *value;
    ngx_url_t                u;
    ngx_uint_t               i;
    ngx_mail_policy_peer_t   peer;

    value = cf->args->elts;

    ngx_memzero(&peer, sizeof(ngx_mail_policy_peer_t));

    peer.server = value[1];
    peer.weight = NGX_MAIL_POLICY_WEIGHT;
    peer.max_fails = NGX_MAIL_POLICY_MAX_FAILS;
    peer.fail_timeout = NGX_MAIL_POLICY_FAIL_TIMEOUT;

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_upstream_parameter(cf, &peer, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = value[1];
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) == NGX_OK && u.no_port) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no port in upstream \"%V\"", &u.url);
        return NGX_CONF_ERROR;
    }

    if (ngx_mail_policy_upstream_resolve(cf, upstream, &peer, &u) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_upstream_parameter(ngx_conf_t *cf,
    ngx_mail_policy_peer_t *peer, ngx_str_t *value)
{
    ngx_int_t  n;
    ngx_str_t  s;

    if (ngx_strncmp(value->data, "weight=", 7) == 0) {

        n = ngx_atoi(value->data + 7, value->len - 7);

        if (n == NGX_ERROR || n == 0) {
            goto invalid;
        }

        peer->weight = n;

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "max_fails=", 10) == 0) {

        n = ngx_atoi(value->data + 10, value->len - 10);

        if (n == NGX_ERROR) {
            goto invalid;
        }

        peer->max_fails = n;

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "fail_timeout=", 13) == 0) {

        s.len = value->len - 13;
        s.data = value->data + 13;

        peer->fail_timeout = ngx_parse_time(&s, 1);

        if (peer->fail_timeout == (time_t) NGX_ERROR) {
            goto invalid;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "backup") == 0) {
        peer->backup = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "down") == 0) {
        peer->down = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "max_conns=", 10) == 0
        || ngx_strncmp(value->data, "slow_start=", 11) == 0
        || ngx_strcmp(value->data, "resolve") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "parameter \"%V\" is not supported by this "
                           "version", value);
        return NGX_CONF_ERROR;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);
    return NGX_CONF_ERROR;
}


ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_add(ngx_conf_t *cf, ngx_array_t *upstreams,
    ngx_str_t *name)
{
    ngx_url_t                    u;
    ngx_mail_policy_peer_t       peer, *peers;
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

    upstream = ngx_mail_policy_upstream_create(cf, upstreams, name);
    if (upstream == NULL) {
        return NULL;
    }

    upstream->implicit = 1;

    ngx_memzero(&peer, sizeof(ngx_mail_policy_peer_t));

    peer.server = *name;
    peer.weight = NGX_MAIL_POLICY_WEIGHT;
    peer.max_fails = NGX_MAIL_POLICY_MAX_FAILS;
    peer.fail_timeout = NGX_MAIL_POLICY_FAIL_TIMEOUT;

    if (ngx_mail_policy_upstream_resolve(cf, upstream, &peer, &u) != NGX_OK) {
        return NULL;
    }

    if (upstream->peers.nelts == 1) {
        peers = upstream->peers.elts;
        peers[0].max_fails = 0;
    }

    return upstream;
}


static ngx_mail_policy_upstream_t *
ngx_mail_policy_upstream_create(ngx_conf_t *cf, ngx_array_t *upstreams,
    ngx_str_t *name)
{
    ngx_mail_policy_upstream_t  *upstream, **upstreamp;

    upstream = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_upstream_t));
    if (upstream == NULL) {
        return NULL;
    }

    upstream->name = *name;
    ngx_mail_policy_keep_init(&upstream->keep);
    upstream->file = cf->conf_file->file.name.data;
    upstream->line = cf->conf_file->line;

    if (ngx_array_init(&upstream->peers, cf->pool, 4,
                       sizeof(ngx_mail_policy_peer_t))
        != NGX_OK)
    {
        return NULL;
    }

    upstreamp = ngx_array_push(upstreams);
    if (upstreamp == NULL) {
        return NULL;
    }

    *upstreamp = upstream;

    return upstream;
}


/* each address of u->url becomes a peer like *peer; u is used up */

static ngx_int_t
ngx_mail_policy_upstream_resolve(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_peer_t *peer,
    ngx_url_t *u)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *new;

    ngx_memzero(u, sizeof(ngx_url_t));

    u->url = peer->server;

    if (ngx_parse_url(cf->pool, u) != NGX_OK) {
        if (u->err) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%s in upstream \"%V\"", u->err, &u->url);
        }

        return NGX_ERROR;
    }

    if (upstream->peers.nelts + u->naddrs > NGX_MAIL_POLICY_PEERS) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "upstream \"%V\" has more than %d addresses",
                           &upstream->name, NGX_MAIL_POLICY_PEERS);
        return NGX_ERROR;
    }

    for (i = 0; i < u->naddrs; i++) {
        new = ngx_array_push(&upstream->peers);
        if (new == NULL) {
            return NGX_ERROR;
        }

        *new = *peer;

        new->sockaddr = u->addrs[i].sockaddr;
        new->socklen = u->addrs[i].socklen;
        new->name = u->addrs[i].name;
        new->effective_weight = peer->weight;
    }

    return NGX_OK;
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


ngx_mail_policy_peer_t *
ngx_mail_policy_upstream_get(ngx_mail_policy_upstream_t *upstream,
    uint64_t *tried)
{
    ngx_mail_policy_peer_t  *peer;

    peer = ngx_mail_policy_upstream_select(upstream, tried, 0);

    if (peer == NULL) {
        peer = ngx_mail_policy_upstream_select(upstream, tried, 1);
    }

    /*
     * All are set aside.  To refuse mail without having asked anybody would
     * be worse than to ask one that may be dead.
     */

    if (peer == NULL && *tried == 0
        && ngx_mail_policy_upstream_forget(upstream))
    {
        peer = ngx_mail_policy_upstream_select(upstream, tried, 0);

        if (peer == NULL) {
            peer = ngx_mail_policy_upstream_select(upstream, tried, 1);
        }
    }

    return peer;
}


static ngx_mail_policy_peer_t *
ngx_mail_policy_upstream_select(ngx_mail_policy_upstream_t *upstream,
    uint64_t *tried, ngx_uint_t backup)
{
    time_t                   now;
    uint64_t                 bit;
    ngx_int_t                total;
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer, *best;

    now = ngx_time();

    best = NULL;
    bit = 0;
    total = 0;

    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {

        if (peer[i].backup != backup
            || peer[i].down
            || (*tried & ((uint64_t) 1 << i)))
        {
            continue;
        }

        if (peer[i].max_fails
            && peer[i].fails >= peer[i].max_fails
            && now - peer[i].checked <= peer[i].fail_timeout)
        {
            continue;
        }

        peer[i].current_weight += peer[i].effective_weight;
        total += peer[i].effective_weight;

        if (peer[i].effective_weight < peer[i].weight) {
            peer[i].effective_weight++;
        }

        if (best == NULL || peer[i].current_weight > best->current_weight) {
            best = &peer[i];
            bit = (uint64_t) 1 << i;
        }
    }

    if (best == NULL) {
        return NULL;
    }

    best->current_weight -= total;

    /* from now on the next check is fail_timeout away, for others too */

    if (now - best->checked > best->fail_timeout) {
        best->checked = now;
    }

    *tried |= bit;

    return best;
}


/* 1 if there was something to forget */

static ngx_uint_t
ngx_mail_policy_upstream_forget(ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t               i, forgot;
    ngx_mail_policy_peer_t  *peer;

    forgot = 0;
    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {
        if (peer[i].fails) {
            peer[i].fails = 0;
            forgot = 1;
        }
    }

    return forgot;
}


ngx_uint_t
ngx_mail_policy_upstream_more(ngx_mail_policy_upstream_t *upstream,
    uint64_t tried)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {
        if (!peer[i].down && !(tried & ((uint64_t) 1 << i))) {
            return 1;
        }
    }

    return 0;
}


void
ngx_mail_policy_upstream_report(ngx_mail_policy_peer_t *peer,
    ngx_uint_t failed)
{
    time_t  now;

    if (!failed) {

        /* it was tried again after fail_timeout, and is well */

        if (peer->accessed < peer->checked) {
            peer->fails = 0;
        }

        return;
    }

    now = ngx_time();

    peer->fails++;
    peer->accessed = now;
    peer->checked = now;

    if (peer->max_fails == 0) {
        return;
    }

    peer->effective_weight -= peer->weight / (ngx_int_t) peer->max_fails;

    if (peer->effective_weight < 0) {
        peer->effective_weight = 0;
    }

    if (peer->fails >= peer->max_fails) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "relay \"%V\" is set aside for %T s",
                      &peer->name, peer->fail_timeout);
    }
}


void
ngx_mail_policy_upstream_learn(ngx_mail_policy_peer_t *peer, mpol_ehlo_t *ehlo)
{
    peer->known = 1;
    peer->extensions = ehlo->extensions;
    peer->size = ehlo->size;
}


void
ngx_mail_policy_upstream_offers(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t *lacking, ngx_uint_t *unknown, uint64_t *size)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {

        if (peer[i].down) {
            continue;
        }

        if (!peer[i].known) {
            *unknown = 1;
            continue;
        }

        *lacking |= ~peer[i].extensions;

        if (peer[i].size && (*size == 0 || peer[i].size < *size)) {
            *size = peer[i].size;
        }
    }
}
