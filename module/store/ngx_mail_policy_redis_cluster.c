
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A cluster: which node has which slot.  No events arrive here.
 *
 *     scout: CLUSTER NODES -> the map: slots, nodes made and gone
 *     node:  MOVED         -> the map, of one slot; the scout is sent
 *            ASK           -> this request only
 *
 * A map is not used if a later one is known: one who cannot reach the others
 * would tell of masters that are none any more.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_cluster.h"
#include "mpol_slot.h"
#include "ngx_mail_policy_redis_node.h"


#define NGX_MAIL_POLICY_REDIS_NODES      1000
#define NGX_MAIL_POLICY_REDIS_REDIRECTS  5

/* a cluster that was made anew begins with low epochs */
#define NGX_MAIL_POLICY_REDIS_EPOCH_AGE  10000


static ngx_int_t ngx_mail_policy_redis_cluster_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_map_check(ngx_str_t *text,
    uint64_t *epoch);
static void ngx_mail_policy_redis_map_use(ngx_mail_policy_redis_conn_t *conn,
    ngx_str_t *text);
static void ngx_mail_policy_redis_map_gone(ngx_mail_policy_redis_t *redis);
static ngx_mail_policy_redis_node_t *ngx_mail_policy_redis_cluster_node(
    ngx_mail_policy_redis_conn_t *conn, mpol_str_t *host, in_port_t port,
    ngx_uint_t join);
static ngx_mail_policy_redis_node_t *ngx_mail_policy_redis_cluster_join(
    ngx_mail_policy_redis_t *redis, ngx_sockaddr_t *sockaddr,
    socklen_t socklen);


ngx_int_t
ngx_mail_policy_redis_cluster_ask(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_str_t  argv[2];

    ngx_str_set(&argv[0], "CLUSTER");
    ngx_str_set(&argv[1], "NODES");

    return ngx_mail_policy_redis_command(conn,
                                        ngx_mail_policy_redis_cluster_answer,
                                        2, argv);
}


static ngx_int_t
ngx_mail_policy_redis_cluster_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    uint64_t                       epoch;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_conn_t  *conn;

    static ngx_str_t  none = ngx_string("it is of no cluster");
    static ngx_str_t  old = ngx_string("it is behind the others");

    conn = request->conn;
    redis = conn->redis;

    if (reply->type != NGX_MAIL_POLICY_REDIS_STRING) {
        return NGX_ERROR;
    }

    switch (ngx_mail_policy_redis_map_check(&reply->str, &epoch)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_mail_policy_redis_why(conn, &none);
        return NGX_ERROR;

    default:
        return NGX_ERROR;
    }

    if (epoch < redis->epoch
        && ngx_current_msec - redis->mapped < NGX_MAIL_POLICY_REDIS_EPOCH_AGE)
    {
        ngx_mail_policy_redis_why(conn, &old);
        return NGX_ERROR;
    }

    redis->epoch = epoch;
    redis->mapped = ngx_max(ngx_current_msec, 1);

    ngx_mail_policy_redis_map_use(conn, &reply->str);
    ngx_mail_policy_redis_map_gone(redis);

    if (redis->uncovered == 0) {
        ngx_mail_policy_redis_back(redis->scout);
    }

    ngx_mail_policy_redis_retry(redis);

    return NGX_DONE;
}


/* all of it is readable, and slots are somebody's: NGX_OK */

static ngx_int_t
ngx_mail_policy_redis_map_check(ngx_str_t *text, uint64_t *epoch)
{
    int                  rc;
    unsigned             first, last;
    mpol_str_t           rest;
    ngx_uint_t           slots;
    mpol_cluster_node_t  line;

    rest.data = text->data;
    rest.len = text->len;

    *epoch = 0;
    slots = 0;

    while ((rc = mpol_cluster_node(&rest, &line)) == MPOL_OK) {

        while ((rc = mpol_cluster_slots(&line, &first, &last)) == MPOL_OK) {
            slots += line.usable;
        }

        if (rc == MPOL_BAD) {
            return NGX_ERROR;
        }

        *epoch = ngx_max(*epoch, line.epoch);
    }

    if (rc == MPOL_BAD) {
        return NGX_ERROR;
    }

    return slots ? NGX_OK : NGX_DECLINED;
}


static void
ngx_mail_policy_redis_map_use(ngx_mail_policy_redis_conn_t *conn,
    ngx_str_t *text)
{
    unsigned                       first, last;
    mpol_str_t                     rest;
    ngx_uint_t                     covered;
    ngx_queue_t                   *q;
    mpol_cluster_node_t            line;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_node_t  *node;

    redis = conn->redis;
    covered = 0;

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);
        node->listed = 0;
    }

    ngx_memzero(redis->slots, MPOL_SLOTS * sizeof(void *));

    rest.data = text->data;
    rest.len = text->len;

    while (mpol_cluster_node(&rest, &line) == MPOL_OK) {

        if (!line.usable) {
            continue;
        }

        node = ngx_mail_policy_redis_cluster_node(conn, &line.host, line.port,
                                                  line.slots.len != 0);
        if (node == NULL) {
            continue;
        }

        /* its first slot may be on its way, or its last was taken over */

        if (line.slots.len == 0 && node->nup == 0) {
            continue;
        }

        node->listed = 1;

        while (mpol_cluster_slots(&line, &first, &last) == MPOL_OK) {

            for ( /* void */ ; first <= last; first++) {
                covered += (redis->slots[first] == NULL);
                redis->slots[first] = node;
            }
        }
    }

    redis->uncovered = MPOL_SLOTS - covered;
}


static void
ngx_mail_policy_redis_map_gone(ngx_mail_policy_redis_t *redis)
{
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_node_t  *node;

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        if (node->listed || node->gone) {
            continue;
        }

        node->gone = 1;

        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "policy store %V has no part in the cluster any more",
                      &node->name);

        ngx_mail_policy_redis_sweep(redis);
    }
}


/* the node of that address, "join": or a new one; NULL: not to be had */

static ngx_mail_policy_redis_node_t *
ngx_mail_policy_redis_cluster_node(ngx_mail_policy_redis_conn_t *conn,
    mpol_str_t *host, in_port_t port, ngx_uint_t join)
{
    ngx_queue_t                   *q;
    socklen_t                      socklen;
    ngx_sockaddr_t                 sockaddr;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_addr_t  *addr;
    ngx_mail_policy_redis_node_t  *node;

    redis = conn->redis;

    if (host->len == 0) {
        /* where it was asked */

        addr = &conn->node->addr;
        socklen = addr->socklen;
        ngx_memcpy(&sockaddr, addr->sockaddr, socklen);
        ngx_inet_set_port(&sockaddr.sockaddr, port);

    } else if (ngx_mail_policy_redis_sockaddr(&sockaddr, &socklen,
                                              (u_char *) host->data,
                                              host->len, port)
               != NGX_OK)
    {
        return NULL;
    }

    for (q = ngx_queue_head(&redis->nodes);
         q != ngx_queue_sentinel(&redis->nodes);
         q = ngx_queue_next(q))
    {
        node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

        /* one that is gone ends as it is, and is not taken back */

        if (!node->gone
            && ngx_cmp_sockaddr(node->addr.sockaddr, node->addr.socklen,
                                &sockaddr.sockaddr, socklen, 1)
               == NGX_OK)
        {
            return node;
        }
    }

    if (!join) {
        return NULL;
    }

    return ngx_mail_policy_redis_cluster_join(redis, &sockaddr, socklen);
}


static ngx_mail_policy_redis_node_t *
ngx_mail_policy_redis_cluster_join(ngx_mail_policy_redis_t *redis,
    ngx_sockaddr_t *sockaddr, socklen_t socklen)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_node_t  *node;

    if (redis->nnodes >= NGX_MAIL_POLICY_REDIS_NODES) {
        return NULL;
    }

    node = ngx_mail_policy_redis_node_create(redis, redis->nconns);
    if (node == NULL) {
        return NULL;
    }

    ngx_mail_policy_redis_node_set(node, &sockaddr->sockaddr, socklen);

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "policy store %V has a part in the cluster", &node->name);

    for (i = 0; i < node->nconns; i++) {
        ngx_mail_policy_redis_connect(&node->conns[i]);
    }

    return node;
}


ngx_int_t
ngx_mail_policy_redis_redirect(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request, ngx_str_t *text, ngx_uint_t ask)
{
    size_t                         code;
    mpol_cluster_moved_t           moved;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_node_t  *node;

    redis = conn->redis;
    code = (ask ? sizeof("ASK") : sizeof("MOVED"));

    if (request->redirected >= NGX_MAIL_POLICY_REDIS_REDIRECTS
        || text->len < code
        || mpol_cluster_moved(text->data + code, text->len - code, &moved)
           != MPOL_OK
        || moved.slot != request->slot)
    {
        return NGX_DECLINED;
    }

    request->redirected++;

    node = ngx_mail_policy_redis_cluster_node(conn, &moved.host, moved.port,
                                              1);

    request->asked = ask ? node : NULL;

    if (node == NULL) {
        /* by a name that means nothing here: the map will have the address */
        request->again = 1;

    } else if (!ask) {
        redis->slots[moved.slot] = node;
    }

    ngx_mail_policy_redis_resend(redis, request);

    return NGX_OK;
}
