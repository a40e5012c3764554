
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A worker's nodes: the servers that it talks to, which of them a request
 * goes to, and which are away.
 *
 *     one server     a node, from the beginning to the end
 *     Sentinels      a node, whose address changes
 *     a cluster      nodes come and go with the map; one that is not in it
 *                    any more is "gone", and freed when nothing is under way
 *
 * No events arrive here but the posted one that frees nodes.  A node is away
 * while none of its connections is up; the log says that once, and once that
 * it is back.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_slot.h"
#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_redis_node.h"


static ngx_int_t ngx_mail_policy_redis_start(ngx_mail_policy_redis_t *redis);
static void ngx_mail_policy_redis_node_free(
    ngx_mail_policy_redis_node_t *node);
static ngx_uint_t ngx_mail_policy_redis_node_idle(
    ngx_mail_policy_redis_node_t *node);
static void ngx_mail_policy_redis_not_yet(ngx_mail_policy_redis_node_t *node);
static u_char *ngx_mail_policy_redis_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


ngx_int_t
ngx_mail_policy_redis_init_process(ngx_mail_policy_redis_t *redis,
    ngx_cycle_t *cycle)
{
    redis->log = *cycle->log;
    redis->log.handler = ngx_mail_policy_redis_log_error;
    redis->log.action = NULL;

    ngx_queue_init(&redis->nodes);
    ngx_queue_init(&redis->parked);

    redis->retry.handler = ngx_mail_policy_redis_retry_handler;
    redis->retry.data = redis;
    redis->retry.log = cycle->log;
    redis->retry.cancelable = 1;

    redis->sweep.handler = ngx_mail_policy_redis_sweep_handler;
    redis->sweep.data = redis;
    redis->sweep.log = cycle->log;

    redis->running = 1;
    redis->heard = 0;
    redis->begun = ngx_current_msec;
    redis->counted_up = 0;

    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_STORE, 1);

    ngx_mail_policy_redis_scripts_init();

    if (redis->sentinel.len || redis->cluster) {
        return ngx_mail_policy_redis_scout_init(redis);
    }

    return ngx_mail_policy_redis_start(redis);
}


/* the one server of the configuration */

static ngx_int_t
ngx_mail_policy_redis_start(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_node_t  *node;

    node = ngx_mail_policy_redis_node_create(redis, redis->nconns);
    if (node == NULL) {
        return NGX_ERROR;
    }

    node->name = redis->name;
    node->addrs = redis->addrs.elts;
    node->naddrs = redis->addrs.nelts;

    for (i = 0; i < node->nconns; i++) {
        ngx_mail_policy_redis_connect(&node->conns[i]);
    }

    return NGX_OK;
}


void
ngx_mail_policy_redis_exit_process(ngx_mail_policy_redis_t *redis)
{
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_request_t  *request;

    if (!redis->running) {
        return;
    }

    /* nodes are freed, and those who are told may give back: to no node */

    redis->running = 0;

    ngx_mail_policy_redis_show(redis);
    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_STORE, -1);

    while (!ngx_queue_empty(&redis->parked)) {
        q = ngx_queue_head(&redis->parked);
        request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);
        ngx_mail_policy_redis_unpark(redis, request);
    }

    while (!ngx_queue_empty(&redis->nodes)) {
        q = ngx_queue_head(&redis->nodes);
        ngx_mail_policy_redis_node_free(
                    ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue));
    }

    if (redis->scout) {
        ngx_mail_policy_redis_node_free(redis->scout);
    }

    if (redis->slots) {
        ngx_free(redis->slots);
    }

    redis->scout = NULL;
    redis->slots = NULL;
}


/* without an address, and not connected */

ngx_mail_policy_redis_node_t *
ngx_mail_policy_redis_node_create(ngx_mail_policy_redis_t *redis,
    ngx_uint_t nconns)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_conn_t  *conn;
    ngx_mail_policy_redis_node_t  *node;

    node = ngx_calloc(sizeof(ngx_mail_policy_redis_node_t)
                      + nconns * sizeof(ngx_mail_policy_redis_conn_t),
                      ngx_cycle->log);
    if (node == NULL) {
        return NULL;
    }

    node->redis = redis;
    node->conns = (ngx_mail_policy_redis_conn_t *) (node + 1);
    node->nconns = nconns;

    for (i = 0; i < nconns; i++) {
        conn = &node->conns[i];

        conn->redis = redis;
        conn->node = node;
        conn->naddr = i;
        conn->backoff = NGX_MAIL_POLICY_REDIS_BACKOFF;

        conn->log = redis->log;
        conn->log.data = conn;
        conn->quiet = conn->log;
        conn->quiet.log_level = NGX_LOG_INFO;
        conn->quiet.writer = ngx_mail_policy_redis_ssl_writer;
        conn->quiet.wdata = conn;
        conn->quiet.next = NULL;

        ngx_queue_init(&conn->requests);

        conn->timer.handler = ngx_mail_policy_redis_timer_handler;
        conn->timer.data = conn;
        conn->timer.log = &conn->log;
        conn->timer.cancelable = 1;
    }

    ngx_queue_insert_tail(&redis->nodes, &node->queue);
    redis->nnodes++;

    return node;
}


/* an address that was found */

void
ngx_mail_policy_redis_node_set(ngx_mail_policy_redis_node_t *node,
    struct sockaddr *sockaddr, socklen_t socklen)
{
    u_char                        *p;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_addr_t  *addr;

    redis = node->redis;
    addr = &node->addr;

    ngx_memcpy(&node->sockaddr, sockaddr, socklen);

    p = ngx_cpymem(node->text, redis->tls ? "rediss://" : "redis://",
                   redis->tls ? 9 : 8);

    addr->sockaddr = &node->sockaddr.sockaddr;
    addr->socklen = socklen;
    addr->name.data = p;
    addr->name.len = ngx_sock_ntop(addr->sockaddr, socklen, p,
                                   NGX_SOCKADDR_STRLEN, 1);
    ngx_str_null(&addr->host);

    node->name.data = node->text;
    node->name.len = p + addr->name.len - node->text;

    node->addrs = addr;
    node->naddrs = 1;
}


static void
ngx_mail_policy_redis_node_free(ngx_mail_policy_redis_node_t *node)
{
    ngx_uint_t                i;
    ngx_mail_policy_redis_t  *redis;

    redis = node->redis;

    for (i = 0; i < node->nconns; i++) {
        ngx_mail_policy_redis_close(&node->conns[i]);
        ngx_mail_policy_redis_abandon(&node->conns[i]);
    }

    if (node != redis->scout) {
        ngx_queue_remove(&node->queue);
        redis->nnodes--;
    }

    ngx_free(node);
}


void
ngx_mail_policy_redis_sweep(ngx_mail_policy_redis_t *redis)
{
    ngx_post_event(&redis->sweep, &ngx_posted_events);
}


/* nodes that are gone, when nothing is under way on them */

void
ngx_mail_policy_redis_sweep_handler(ngx_event_t *ev)
{
    ngx_queue_t                   *q, *next;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_node_t  *node;

    redis = ev->data;

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = next)
    {
        next = ngx_queue_next(q);
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        if (node->gone && ngx_mail_policy_redis_node_idle(node)) {
            ngx_mail_policy_redis_node_free(node);
        }
    }
}


static ngx_uint_t
ngx_mail_policy_redis_node_idle(ngx_mail_policy_redis_node_t *node)
{
    ngx_uint_t                        i;
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_t          *redis;
    ngx_mail_policy_redis_conn_t     *conn;
    ngx_mail_policy_redis_request_t  *request;

    redis = node->redis;

    for (i = 0; i < node->nconns; i++) {
        conn = &node->conns[i];

        if ((conn->state == NGX_MAIL_POLICY_REDIS_UP
             || conn->state == NGX_MAIL_POLICY_REDIS_SLOW)
            && !ngx_queue_empty(&conn->requests))
        {
            return 0;
        }
    }

    for (q = ngx_queue_head(&redis->parked);
         q != ngx_queue_sentinel(&redis->parked);
         q = ngx_queue_next(q))
    {
        request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

        if (request->asked == node) {
            return 0;
        }
    }

    return 1;
}


ngx_uint_t
ngx_mail_policy_redis_slot(ngx_mail_policy_redis_t *redis, ngx_str_t *key)
{
    return redis->cluster ? mpol_slot(key->data, key->len) : 0;
}


ngx_mail_policy_redis_conn_t *
ngx_mail_policy_redis_get(ngx_mail_policy_redis_t *redis, ngx_uint_t slot)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_conn_t  *conn;
    ngx_mail_policy_redis_node_t  *node;

    if (!redis->running) {
        return NULL;
    }

    if (redis->cluster) {
        node = redis->slots[slot % MPOL_SLOTS];

    } else {
        q = ngx_queue_head(&redis->nodes);
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);
    }

    if (node == NULL) {
        ngx_mail_policy_redis_scout(redis);

        if (redis->mapped) {
            ngx_mail_policy_redis_away(redis->scout, 0,
                                       "no node has some slots");
        } else {
            ngx_mail_policy_redis_not_yet(redis->scout);
        }

        return NULL;
    }

    conn = ngx_mail_policy_redis_node_conn(node);

    if (conn == NULL) {
        ngx_mail_policy_redis_not_yet(node);
    }

    return conn;
}


ngx_mail_policy_redis_conn_t *
ngx_mail_policy_redis_node_conn(ngx_mail_policy_redis_node_t *node)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_conn_t  *conn;

    /* what is asked in one turn of the event loop stays in its order */

    conn = &node->conns[node->next % node->nconns];

    if (conn->state == NGX_MAIL_POLICY_REDIS_UP
        && conn->peer.connection->write->posted)
    {
        return conn;
    }

    for (i = 0; i < node->nconns; i++) {
        conn = &node->conns[++node->next % node->nconns];

        if (conn->state == NGX_MAIL_POLICY_REDIS_UP) {
            return conn;
        }
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_redis_send(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_mail_policy_redis_conn_t  *conn;

    conn = ngx_mail_policy_redis_get(redis, request->slot);

    if (conn == NULL || ngx_mail_policy_redis_push(conn, request) != NGX_OK) {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_mail_policy_redis_starting(ngx_mail_policy_redis_t *redis)
{
    return redis->running && !redis->heard
           && ngx_current_msec - redis->begun < redis->timeout;
}


ngx_uint_t
ngx_mail_policy_redis_there(ngx_mail_policy_redis_t *redis)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_node_t  *node;

    if (!redis->running) {
        return 0;
    }

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        if (node->nup && !node->doubtful) {
            return 1;
        }
    }

    return 0;
}


/*
 * A worker's part in the gauge is 0 or 1, and it knows which; so it does not
 * drift, however often this is called.
 */

void
ngx_mail_policy_redis_show(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t  there;

    there = ngx_mail_policy_redis_there(redis);

    if (there == redis->counted_up) {
        return;
    }

    redis->counted_up = there;

    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_STORE_UP,
                                  there ? 1 : -1);
}


ngx_uint_t
ngx_mail_policy_redis_busy(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t                     i;
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_node_t  *node;

    if (!redis->running) {
        return 0;
    }

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        for (i = 0; i < node->nconns; i++) {
            if (!ngx_queue_empty(&node->conns[i].requests)) {
                return 1;
            }
        }
    }

    return !ngx_queue_empty(&redis->parked);
}


void
ngx_mail_policy_redis_timedout(ngx_mail_policy_redis_request_t *request)
{
    ngx_mail_policy_redis_conn_t  *conn;

    conn = request->conn;

    if (conn) {
        ngx_mail_policy_redis_slow(conn);
        return;
    }

    /* it waits to be sent again, and no server is slow */

    ngx_mail_policy_redis_orphan(request);
}


void
ngx_mail_policy_redis_slow(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_uint_t                     i;
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_node_t  *node;

    node = conn->node;

    for (q = ngx_queue_head(&conn->requests);
         q != ngx_queue_sentinel(&conn->requests);
         q = ngx_queue_next(q))
    {
        ngx_mail_policy_redis_orphan(
                 ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue));
    }

    /*
     * The same server is behind all of them.  What was asked of the others
     * keeps its deadline, but nobody else shall wait to learn the same.
     */

    for (i = 0; i < node->nconns; i++) {
        ngx_mail_policy_redis_suspect(&node->conns[i]);
    }
}


void
ngx_mail_policy_redis_away(ngx_mail_policy_redis_node_t *node, ngx_err_t err,
    const char *why)
{
    ngx_mail_policy_redis_t  *redis;

    redis = node->redis;

    if (node->gone || !redis->running) {
        return;
    }

    if (node->away) {

        if (node->vague) {
            node->vague = 0;

            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, err,
                          "policy store %V is still away: %s", &node->name,
                          why);
        }

        return;
    }

    node->away = 1;
    redis->heard = 1;

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, err,
                  "policy store %V is away: %s, %s", &node->name, why,
                  redis->meanwhile);
}


/* at the start; why it is not connected may come to light later */

static void
ngx_mail_policy_redis_not_yet(ngx_mail_policy_redis_node_t *node)
{
    if (!node->away) {
        ngx_mail_policy_redis_away(node, 0, "not connected yet");
        node->vague = 1;
    }
}


void
ngx_mail_policy_redis_back(ngx_mail_policy_redis_node_t *node)
{
    if (!node->away) {
        return;
    }

    node->away = 0;
    node->vague = 0;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "policy store %V is back", &node->name);
}


ngx_int_t
ngx_mail_policy_redis_sockaddr(ngx_sockaddr_t *sockaddr, socklen_t *socklen,
    u_char *p, size_t len, in_port_t port)
{
    in_addr_t  in;

    ngx_memzero(sockaddr, sizeof(ngx_sockaddr_t));

    in = ngx_inet_addr(p, len);

    if (in != INADDR_NONE) {
        sockaddr->sockaddr_in.sin_family = AF_INET;
        sockaddr->sockaddr_in.sin_addr.s_addr = in;
        *socklen = sizeof(struct sockaddr_in);

#if (NGX_HAVE_INET6)
    } else if (ngx_inet6_addr(p, len,
                            sockaddr->sockaddr_in6.sin6_addr.s6_addr)
               == NGX_OK)
    {
        sockaddr->sockaddr_in6.sin6_family = AF_INET6;
        *socklen = sizeof(struct sockaddr_in6);
#endif

    } else {
        return NGX_DECLINED;
    }

    ngx_inet_set_port(&sockaddr->sockaddr, port);

    return NGX_OK;
}


static u_char *
ngx_mail_policy_redis_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                        *p;
    ngx_mail_policy_redis_conn_t  *conn;

    p = buf;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
    }

    conn = log->data;

    return ngx_snprintf(p, len, " %V", &conn->node->name);
}
