
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Redis behind Sentinels: which server is the master, and whether it knows.
 * No events arrive here.
 *
 *     scout: SENTINEL get-master-addr-by-name -> the node's address
 *     node:  INFO replication -> role:master, or the connection is closed
 *
 * A Sentinel may be behind the others, and a master may not have been told
 * yet: the role is asked on each new connection, before it is UP.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis_node.h"


static ngx_int_t ngx_mail_policy_redis_sentinel_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_sentinel_use(
    ngx_mail_policy_redis_t *redis, ngx_sockaddr_t *sockaddr,
    socklen_t socklen);
static ngx_uint_t ngx_mail_policy_redis_sentinel_same(
    ngx_mail_policy_redis_node_t *node, ngx_sockaddr_t *sockaddr,
    socklen_t socklen);
static ngx_int_t ngx_mail_policy_redis_role_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);


ngx_int_t
ngx_mail_policy_redis_sentinel_ask(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_str_t  argv[3];

    ngx_str_set(&argv[0], "SENTINEL");
    ngx_str_set(&argv[1], "get-master-addr-by-name");
    argv[2] = conn->redis->sentinel;

    return ngx_mail_policy_redis_command(conn,
                                       ngx_mail_policy_redis_sentinel_answer,
                                       3, argv);
}


/* address and port, two strings; nil if it does not know the name */

static ngx_int_t
ngx_mail_policy_redis_sentinel_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_int_t                       port;
    socklen_t                       socklen;
    ngx_str_t                      *ip, *number;
    ngx_sockaddr_t                  sockaddr;
    ngx_mail_policy_redis_conn_t   *conn;
    ngx_mail_policy_redis_reply_t  *elts;

    static ngx_str_t  unknown = ngx_string("it knows no such master");
    static ngx_str_t  name = ngx_string("it names the master by a host name, "
                                "set \"sentinel announce-hostnames no\"");

    conn = request->conn;

    if (reply->type == NGX_MAIL_POLICY_REDIS_NIL) {
        ngx_mail_policy_redis_why(conn, &unknown);
        return NGX_ERROR;
    }

    elts = reply->elts;

    if (reply->type != NGX_MAIL_POLICY_REDIS_ARRAY || reply->nelts != 2
        || elts[0].type != NGX_MAIL_POLICY_REDIS_STRING
        || elts[1].type != NGX_MAIL_POLICY_REDIS_STRING)
    {
        return NGX_ERROR;
    }

    ip = &elts[0].str;
    number = &elts[1].str;

    port = ngx_atoi(number->data, number->len);

    if (port < 1 || port > 65535) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_redis_sockaddr(&sockaddr, &socklen, ip->data, ip->len,
                                       (in_port_t) port)
        != NGX_OK)
    {
        ngx_mail_policy_redis_why(conn, &name);
        return NGX_ERROR;
    }

    ngx_mail_policy_redis_sentinel_use(conn->redis, &sockaddr, socklen);

    return NGX_DONE;
}


/* connections to another server are closed, and those that wait are made */

static void
ngx_mail_policy_redis_sentinel_use(ngx_mail_policy_redis_t *redis,
    ngx_sockaddr_t *sockaddr, socklen_t socklen)
{
    ngx_uint_t                     i, same;
    ngx_queue_t                   *q;
    ngx_mail_policy_redis_conn_t  *conn;
    ngx_mail_policy_redis_node_t  *node;

    q = ngx_queue_head(&redis->nodes);
    node = ngx_queue_data(q, ngx_mail_policy_redis_node_t, queue);

    same = ngx_mail_policy_redis_sentinel_same(node, sockaddr, socklen);

    if (!same) {
        ngx_mail_policy_redis_node_set(node, &sockaddr->sockaddr, socklen);

        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "policy store %V: the master is %V", &redis->name,
                      &node->name);

        node->name = redis->name;
        node->doubtful = 0;
    }

    for (i = 0; i < node->nconns; i++) {
        conn = &node->conns[i];

        if (!same) {
            conn->backoff = NGX_MAIL_POLICY_REDIS_BACKOFF;
            conn->waiting = 1;

            if (conn->state != NGX_MAIL_POLICY_REDIS_DOWN) {
                ngx_mail_policy_redis_down(conn, 0,
                                           "another server is the master");
            }
        }

        if (conn->state == NGX_MAIL_POLICY_REDIS_DOWN && conn->waiting) {
            conn->waiting = 0;

            if (conn->timer.timer_set) {
                ngx_del_timer(&conn->timer);
            }

            ngx_mail_policy_redis_connect(conn);
        }
    }
}


static ngx_uint_t
ngx_mail_policy_redis_sentinel_same(ngx_mail_policy_redis_node_t *node,
    ngx_sockaddr_t *sockaddr, socklen_t socklen)
{
    return node->addrs != NULL
           && ngx_cmp_sockaddr(node->addr.sockaddr, node->addr.socklen,
                               &sockaddr->sockaddr, socklen, 1)
              == NGX_OK;
}


ngx_int_t
ngx_mail_policy_redis_role(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_str_t  argv[2];

    ngx_str_set(&argv[0], "INFO");
    ngx_str_set(&argv[1], "replication");

    return ngx_mail_policy_redis_command(conn,
                                         ngx_mail_policy_redis_role_answer,
                                         2, argv);
}


/* ROLE would be nested arrays */

static ngx_int_t
ngx_mail_policy_redis_role_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    static ngx_str_t  replica = ngx_string("it is not the master");

    if (reply->type != NGX_MAIL_POLICY_REDIS_STRING) {
        return NGX_ERROR;
    }

    if (ngx_strnstr(reply->str.data, "role:master", reply->str.len)) {
        return NGX_OK;
    }

    ngx_mail_policy_redis_why(request->conn, &replica);

    return NGX_ERROR;
}
