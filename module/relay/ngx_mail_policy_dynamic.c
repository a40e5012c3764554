
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays that are made at run time.
 *
 *     get() ---> made --- address -------------------> ready
 *                 | name                                 ^
 *                 +---> asked for --- answer: found -----+
 *                              +----- none: dropped
 *
 *     ready --- no transaction, no connection, for a while ---> dropped
 *
 * A group has one server, with all its addresses; that of a name is asked for
 * as one with "resolve" is.  What is known of its addresses is shared, as of
 * any group.
 *
 * Events: the answer for a name (resolved()); the timer of the worker expires
 * groups.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_dynamic.h"


#define NGX_MAIL_POLICY_DYNAMIC_MAX    1000
#define NGX_MAIL_POLICY_DYNAMIC_PEERS  64


typedef struct {
    ngx_str_node_t                sn;
    ngx_queue_t                   queue;        /* the last used first */
    ngx_queue_t                   waiters;
    ngx_mail_policy_upstreams_t  *all;
    ngx_mail_policy_upstream_t   *upstream;
    ngx_pool_t                   *pool;
    ngx_uint_t                    users;        /* pools that it outlives */
    time_t                        used;
    unsigned                      ready:1;
} ngx_mail_policy_group_t;


static ngx_mail_policy_group_t *ngx_mail_policy_dynamic_make(
    ngx_mail_policy_upstreams_t *all, ngx_str_t *text,
    ngx_mail_policy_dynamic_t *d);
static ngx_int_t ngx_mail_policy_dynamic_fill(ngx_mail_policy_group_t *group,
    ngx_mail_policy_dynamic_t *d);
static ngx_int_t ngx_mail_policy_dynamic_addrs(ngx_mail_policy_group_t *group,
    ngx_mail_policy_server_t *server, ngx_url_t *u);
static ngx_int_t ngx_mail_policy_dynamic_use(ngx_mail_policy_group_t *group,
    ngx_mail_policy_dynamic_t *d);
static void ngx_mail_policy_dynamic_unuse(void *data);
static void ngx_mail_policy_dynamic_resolved(ngx_mail_policy_upstream_t *u);
static ngx_int_t ngx_mail_policy_dynamic_evict(
    ngx_mail_policy_upstreams_t *all);
static ngx_uint_t ngx_mail_policy_dynamic_unused(
    ngx_mail_policy_group_t *group);
static void ngx_mail_policy_dynamic_drop(ngx_mail_policy_group_t *group);


void
ngx_mail_policy_dynamic_init(ngx_mail_policy_upstreams_t *all)
{
    ngx_rbtree_init(&all->dynamic, &all->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&all->recent);
}


ngx_int_t
ngx_mail_policy_dynamic_get(ngx_mail_policy_upstreams_t *all, ngx_str_t *text,
    ngx_mail_policy_dynamic_t *d)
{
    uint32_t                  hash;
    ngx_mail_policy_group_t  *group;

    d->upstream = NULL;
    d->waits = 0;

    hash = ngx_crc32_short(text->data, text->len);

    group = (ngx_mail_policy_group_t *)
                ngx_str_rbtree_lookup(&all->dynamic, text, hash);

    if (group == NULL) {
        group = ngx_mail_policy_dynamic_make(all, text, d);
        if (group == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_queue_remove(&group->queue);
    ngx_queue_insert_head(&all->recent, &group->queue);

    if (group->ready) {
        return ngx_mail_policy_dynamic_use(group, d);
    }

    d->waits = 1;
    ngx_queue_insert_tail(&group->waiters, &d->queue);

    return NGX_AGAIN;
}


void
ngx_mail_policy_dynamic_cancel(ngx_mail_policy_dynamic_t *d)
{
    if (d->waits) {
        d->waits = 0;
        ngx_queue_remove(&d->queue);
    }
}


static ngx_mail_policy_group_t *
ngx_mail_policy_dynamic_make(ngx_mail_policy_upstreams_t *all, ngx_str_t *text,
    ngx_mail_policy_dynamic_t *d)
{
    ngx_str_t                 name;
    ngx_pool_t               *pool;
    ngx_mail_policy_group_t  *group;

    if (all->ndynamic == NGX_MAIL_POLICY_DYNAMIC_MAX
        && ngx_mail_policy_dynamic_evict(all) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, d->log, 0,
                      "relay \"%V\" is one too many, %d are in use",
                      text, NGX_MAIL_POLICY_DYNAMIC_MAX);
        return NULL;
    }

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    group = ngx_pcalloc(pool, sizeof(ngx_mail_policy_group_t));
    name.data = ngx_pstrdup(pool, text);
    name.len = text->len;

    if (group == NULL || name.data == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    group->pool = pool;
    group->all = all;
    group->sn.str = name;
    group->sn.node.key = ngx_crc32_short(name.data, name.len);
    ngx_queue_init(&group->waiters);

    if (ngx_mail_policy_dynamic_fill(group, d) != NGX_OK) {

        if (group->upstream) {
            ngx_mail_policy_upstream_leave(group->upstream);
        }

        ngx_destroy_pool(pool);
        return NULL;
    }

    ngx_rbtree_insert(&all->dynamic, &group->sn.node);
    ngx_queue_insert_head(&all->recent, &group->queue);
    all->ndynamic++;

    return group;
}


static ngx_int_t
ngx_mail_policy_dynamic_fill(ngx_mail_policy_group_t *group,
    ngx_mail_policy_dynamic_t *d)
{
    ngx_url_t                    u;
    ngx_mail_policy_server_t    *server;
    ngx_mail_policy_upstream_t  *upstream;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = group->sn.str;
    u.no_resolve = 1;

    if (ngx_parse_url(group->pool, &u) != NGX_OK || u.no_port) {
        ngx_log_error(NGX_LOG_ERR, d->log, 0, "%s in relay \"%V\"",
                      u.err ? u.err : u.no_port ? "no port" : "no memory",
                      &u.url);
        return NGX_ERROR;
    }

    if (u.naddrs == 0 && d->resolver == NULL) {
        ngx_log_error(NGX_LOG_ERR, d->log, 0,
                      "no resolver defined to resolve relay \"%V\"", &u.url);
        return NGX_ERROR;
    }

    upstream = ngx_mail_policy_upstream_create(group->pool, &group->sn.str);
    if (upstream == NULL) {
        return NGX_ERROR;
    }

    group->upstream = upstream;

    upstream->zone = group->all->zone;
    upstream->dynamic = 1;

    server = ngx_mail_policy_upstream_server_push(upstream, &group->sn.str);

    if (server == NULL
        || ngx_mail_policy_upstream_room(upstream,
                        u.naddrs ? u.naddrs : NGX_MAIL_POLICY_DYNAMIC_PEERS,
                        group->pool)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (u.naddrs) {
        group->ready = 1;
        return ngx_mail_policy_dynamic_addrs(group, server, &u);
    }

    server->resolve = 1;
    server->host = u.host;
    server->port = u.port;

    upstream->resolver = d->resolver;
    upstream->resolver_timeout = d->timeout;
    upstream->resolved = ngx_mail_policy_dynamic_resolved;
    upstream->data = group;

    ngx_mail_policy_upstream_resolve_start(upstream, ngx_cycle->log);

    /* another worker knows it */

    group->ready = (upstream->present != 0);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_dynamic_addrs(ngx_mail_policy_group_t *group,
    ngx_mail_policy_server_t *server, ngx_url_t *u)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    for (i = 0; i < u->naddrs; i++) {
        peer = ngx_mail_policy_upstream_peer_add(group->upstream, server,
                                                 &u->addrs[i], group->pool);
        if (peer == NULL || ngx_mail_policy_peer_attach(peer) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* the group is there as long as the pool */

static ngx_int_t
ngx_mail_policy_dynamic_use(ngx_mail_policy_group_t *group,
    ngx_mail_policy_dynamic_t *d)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(d->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_mail_policy_dynamic_unuse;
    cln->data = group;

    group->users++;
    group->used = ngx_time();

    d->upstream = group->upstream;

    return NGX_OK;
}


static void
ngx_mail_policy_dynamic_unuse(void *data)
{
    ngx_mail_policy_group_t *group = data;

    group->users--;
    group->used = ngx_time();
}


/* the first answer decides for those that wait; a later one is as "resolve" */

static void
ngx_mail_policy_dynamic_resolved(ngx_mail_policy_upstream_t *upstream)
{
    ngx_queue_t                *q;
    ngx_mail_policy_group_t    *group;
    ngx_mail_policy_dynamic_t  *d;

    group = upstream->data;

    /* who hears of it may drop groups */

    group->users++;
    group->ready = 1;

    while (!ngx_queue_empty(&group->waiters)) {
        q = ngx_queue_head(&group->waiters);
        d = ngx_queue_data(q, ngx_mail_policy_dynamic_t, queue);

        ngx_queue_remove(q);
        d->waits = 0;

        if (upstream->present) {
            (void) ngx_mail_policy_dynamic_use(group, d);
        }

        d->handler(d->data);
    }

    group->users--;

    /* the next one asks again */

    if (upstream->present == 0 && ngx_mail_policy_dynamic_unused(group)) {
        ngx_mail_policy_dynamic_drop(group);
    }
}


void
ngx_mail_policy_dynamic_expire(ngx_mail_policy_upstreams_t *all,
    time_t unused)
{
    time_t                    now;
    ngx_queue_t              *q, *prev;
    ngx_mail_policy_group_t  *group;

    now = ngx_time();

    for (q = ngx_queue_last(&all->recent);
         q != ngx_queue_sentinel(&all->recent);
         q = prev)
    {
        prev = ngx_queue_prev(q);
        group = ngx_queue_data(q, ngx_mail_policy_group_t, queue);

        if (now - group->used > unused
            && ngx_mail_policy_dynamic_unused(group))
        {
            ngx_mail_policy_dynamic_drop(group);
        }
    }
}


/*
 * The one that was not used for longest makes room.  Not one that is asked for
 * at this moment: who needs room may have been told so by the resolver, which
 * has the questions for a name in its hands then, and no longer lists them.
 */

static ngx_int_t
ngx_mail_policy_dynamic_evict(ngx_mail_policy_upstreams_t *all)
{
    ngx_queue_t               *q;
    ngx_mail_policy_group_t   *group;
    ngx_mail_policy_server_t  *server;

    for (q = ngx_queue_last(&all->recent);
         q != ngx_queue_sentinel(&all->recent);
         q = ngx_queue_prev(q))
    {
        group = ngx_queue_data(q, ngx_mail_policy_group_t, queue);
        server = group->upstream->servers.elts;

        if (server->asking == NULL && ngx_mail_policy_dynamic_unused(group)) {
            ngx_mail_policy_dynamic_drop(group);
            return NGX_OK;
        }
    }

    return NGX_ERROR;
}


static ngx_uint_t
ngx_mail_policy_dynamic_unused(ngx_mail_policy_group_t *group)
{
    return group->users == 0 && group->upstream->refs == 0
           && ngx_queue_empty(&group->waiters);
}


static void
ngx_mail_policy_dynamic_drop(ngx_mail_policy_group_t *group)
{
    ngx_queue_remove(&group->queue);
    ngx_rbtree_delete(&group->all->dynamic, &group->sn.node);
    group->all->ndynamic--;

    ngx_mail_policy_upstream_leave(group->upstream);

    ngx_destroy_pool(group->pool);
}
