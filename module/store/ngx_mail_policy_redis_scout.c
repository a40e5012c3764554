
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The scout: one connection that asks those who may know where the servers
 * are: the Sentinels of policy_redis, or the seeds of a cluster and then its
 * nodes.
 *
 *     idle --something is amiss--> asks one --answer--> idle, or again soon
 *                                   |    ^
 *                          no answer|    | the next one
 *                                   v    |
 *                                  (all asked: a pause)
 *
 * While something is amiss, each question has a connection of its own, and
 * the one who answered and could not help is asked last the next time.  One
 * that hangs costs its patience and no more.
 *
 * Events: those of its connection, in ..._redis_conn.c.  Its timer is the
 * pause.  It goes on while a connection to any node is not up: so a server
 * that hangs is left as soon as another one has taken over.  A master that
 * was replaced, and lives, goes on as if it was not: so a Sentinel is asked
 * every second, on the same connection, also if nothing is amiss.  Nodes of
 * a cluster say MOVED then.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_slot.h"
#include "ngx_mail_policy_redis_node.h"


#define NGX_MAIL_POLICY_REDIS_SCOUT_SOON   100      /* at the earliest */
#define NGX_MAIL_POLICY_REDIS_SCOUT_PAUSE  400
#define NGX_MAIL_POLICY_REDIS_SCOUT_IDLE   1000


static ngx_uint_t ngx_mail_policy_redis_scout_candidates(
    ngx_mail_policy_redis_t *redis);
static ngx_mail_policy_redis_addr_t *ngx_mail_policy_redis_scout_candidate(
    ngx_mail_policy_redis_t *redis, ngx_uint_t n);
static void ngx_mail_policy_redis_scout_vain(
    ngx_mail_policy_redis_conn_t *conn, ngx_err_t err, const char *why);
static ngx_uint_t ngx_mail_policy_redis_amiss(ngx_mail_policy_redis_t *redis);


ngx_int_t
ngx_mail_policy_redis_scout_init(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_node_t  *node;

    node = ngx_mail_policy_redis_node_create(redis, 1);
    if (node == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_remove(&node->queue);
    redis->nnodes--;

    node->scout = 1;
    node->name = redis->name;
    node->addrs = &node->addr;
    node->naddrs = 1;

    redis->scout = node;
    redis->scouted = ngx_current_msec - NGX_MAIL_POLICY_REDIS_SCOUT_SOON;

    if (redis->cluster) {
        redis->slots = ngx_calloc(MPOL_SLOTS * sizeof(void *),
                                  ngx_cycle->log);
        if (redis->slots == NULL) {
            return NGX_ERROR;
        }

    } else {
        node = ngx_mail_policy_redis_node_create(redis, redis->nconns);
        if (node == NULL) {
            return NGX_ERROR;
        }

        node->name = redis->name;

        for (i = 0; i < node->nconns; i++) {
            node->conns[i].waiting = 1;
        }
    }

    ngx_mail_policy_redis_scout(redis);

    return NGX_OK;
}


/* the timer does it: whoever calls this may be in the midst of something */

void
ngx_mail_policy_redis_scout(ngx_mail_policy_redis_t *redis)
{
    ngx_msec_t                     since, delay;
    ngx_mail_policy_redis_conn_t  *conn;

    if (redis->scout == NULL || !redis->running) {
        return;
    }

    conn = &redis->scout->conns[0];

    if (conn->state != NGX_MAIL_POLICY_REDIS_DOWN
        && conn->state != NGX_MAIL_POLICY_REDIS_UP)
    {
        return;
    }

    since = ngx_current_msec - redis->scouted;

    delay = (since >= NGX_MAIL_POLICY_REDIS_SCOUT_SOON)
            ? 1 : NGX_MAIL_POLICY_REDIS_SCOUT_SOON - since;

    if (conn->timer.timer_set) {

        if ((ngx_msec_int_t) (conn->timer.timer.key - ngx_current_msec)
            <= NGX_MAIL_POLICY_REDIS_SCOUT_PAUSE)
        {
            return;
        }

        ngx_del_timer(&conn->timer);
    }

    ngx_add_timer(&conn->timer, delay);
}


static ngx_uint_t
ngx_mail_policy_redis_scout_candidates(ngx_mail_policy_redis_t *redis)
{
    return redis->addrs.nelts + (redis->cluster ? redis->nnodes : 0);
}


static ngx_mail_policy_redis_addr_t *
ngx_mail_policy_redis_scout_candidate(ngx_mail_policy_redis_t *redis,
    ngx_uint_t n)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_addr_t  *addr;
    ngx_mail_policy_redis_node_t  *node;

    n %= ngx_mail_policy_redis_scout_candidates(redis);

    if (n < redis->addrs.nelts) {
        addr = redis->addrs.elts;
        return &addr[n];
    }

    q = ngx_queue_head(&redis->nodes);

    for (n -= redis->addrs.nelts; n; n--) {
        q = ngx_queue_next(q);
    }

    node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

    return &node->addrs[0];
}


void
ngx_mail_policy_redis_scout_connect(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_mail_policy_redis_node_t  *node;
    ngx_mail_policy_redis_addr_t  *addr;

    node = conn->node;

    addr = ngx_mail_policy_redis_scout_candidate(conn->redis, node->next);

    /* a copy: the node may be gone before the answer comes */

    ngx_memcpy(&node->sockaddr, addr->sockaddr, addr->socklen);

    node->addr.sockaddr = &node->sockaddr.sockaddr;
    node->addr.socklen = addr->socklen;
    node->addr.host = addr->host;
    node->addr.name.data = node->text;
    node->addr.name.len = ngx_min(addr->name.len, sizeof(node->text));

    ngx_memcpy(node->text, addr->name.data, node->addr.name.len);

    ngx_mail_policy_redis_connect(conn);
}


/* this one did not answer, or does not know */

void
ngx_mail_policy_redis_scout_down(ngx_mail_policy_redis_conn_t *conn,
    ngx_err_t err, const char *why)
{
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    conn->node->next++;
    redis->tried++;

    if (redis->tried < ngx_mail_policy_redis_scout_candidates(redis)) {
        ngx_add_timer(&conn->timer, 1);
        return;
    }

    redis->tried = 0;

    ngx_mail_policy_redis_scout_vain(conn, err, why);

    ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_SCOUT_PAUSE
                                + ngx_random() % 100);
}


/* nobody knows: what is up is used nevertheless */

static void
ngx_mail_policy_redis_scout_vain(ngx_mail_policy_redis_conn_t *conn,
    ngx_err_t err, const char *why)
{
    u_char                         text[256];
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_node_t  *node;

    redis = conn->redis;
    node = redis->scout;

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        if (node->nup) {
            return;
        }
    }

    /* each node of a cluster has said so of itself */

    if (redis->cluster && node != redis->scout) {
        return;
    }

    *ngx_snprintf(text, sizeof(text) - 1, "no %s can tell (%V: %s)",
                  redis->cluster ? "node" : "Sentinel",
                  &redis->scout->addr.name, why) = '\0';

    ngx_mail_policy_redis_away(node, err, (char *) text);
}


/* it has answered, and what it said was used */

ngx_int_t
ngx_mail_policy_redis_scout_done(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_uint_t                amiss;
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    redis->tried = 0;
    redis->scouted = ngx_current_msec;

    amiss = ngx_mail_policy_redis_amiss(redis);

    if (!amiss && !redis->cluster) {
        conn->state = NGX_MAIL_POLICY_REDIS_UP;
        conn->node->nup++;

        ngx_del_timer(&conn->timer);
        ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_SCOUT_IDLE);

        return NGX_OK;
    }

    ngx_mail_policy_redis_close(conn);
    ngx_mail_policy_redis_abandon(conn);

    if (amiss) {
        conn->node->next++;
        ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_SCOUT_PAUSE);
    }

    return NGX_ERROR;
}


/* the same one, on the same connection */

void
ngx_mail_policy_redis_scout_again(ngx_mail_policy_redis_conn_t *conn)
{
    conn->state = NGX_MAIL_POLICY_REDIS_GREETING;
    conn->node->nup--;

    ngx_add_timer(&conn->timer, ngx_mail_policy_redis_patience(conn));

    if (ngx_mail_policy_redis_sentinel_ask(conn) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "no memory");
    }
}


static ngx_uint_t
ngx_mail_policy_redis_amiss(ngx_mail_policy_redis_t *redis)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_node_t  *node;

    if (redis->cluster && redis->uncovered) {
        return 1;
    }

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        if (node->nup < node->nconns && !node->gone) {
            return 1;
        }
    }

    return 0;
}
