
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is said on a connection before it is UP, and to find out whether a
 * SLOW one is well again.  No events arrive here.
 *
 *     AUTH, SELECT (as configured), PING -> PONG in time -> up
 *                                    ^             \-> PONG late
 *                                    \-----------------/
 *
 * Behind Sentinels, the role is asked in front of PING.  The scout says AUTH,
 * and asks its question.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis_node.h"


static ngx_int_t ngx_mail_policy_redis_greet_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_ping_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);


static ngx_int_t ngx_mail_policy_redis_auth(
    ngx_mail_policy_redis_conn_t *conn);
static ngx_int_t ngx_mail_policy_redis_select(
    ngx_mail_policy_redis_conn_t *conn);


/* all of it in one write; what fails first is the reason */

ngx_int_t
ngx_mail_policy_redis_greet(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    if (redis->password.len && ngx_mail_policy_redis_auth(conn) != NGX_OK) {
        return NGX_ERROR;
    }

    if (conn->node->scout) {
        return redis->cluster ? ngx_mail_policy_redis_cluster_ask(conn)
                              : ngx_mail_policy_redis_sentinel_ask(conn);
    }

    if (redis->db && ngx_mail_policy_redis_select(conn) != NGX_OK) {
        return NGX_ERROR;
    }

    if (redis->sentinel.len && ngx_mail_policy_redis_role(conn) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_mail_policy_redis_ping(conn);
}


static ngx_int_t
ngx_mail_policy_redis_auth(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_str_t                 argv[3];
    ngx_uint_t                argc;
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    ngx_str_set(&argv[0], "AUTH");
    argc = 1;

    if (redis->user.len) {
        argv[argc++] = redis->user;
    }

    argv[argc++] = redis->password;

    return ngx_mail_policy_redis_command(conn,
                                         ngx_mail_policy_redis_greet_answer,
                                         argc, argv);
}


static ngx_int_t
ngx_mail_policy_redis_select(ngx_mail_policy_redis_conn_t *conn)
{
    u_char     db[NGX_INT_T_LEN];
    ngx_str_t  argv[2];

    ngx_str_set(&argv[0], "SELECT");
    argv[1].data = db;
    argv[1].len = ngx_sprintf(db, "%ui", conn->redis->db) - db;

    return ngx_mail_policy_redis_command(conn,
                                         ngx_mail_policy_redis_greet_answer,
                                         2, argv);
}


ngx_int_t
ngx_mail_policy_redis_ping(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_str_t  ping = ngx_string("PING");

    conn->pinged = ngx_current_msec;

    return ngx_mail_policy_redis_command(conn,
                                         ngx_mail_policy_redis_ping_answer,
                                         1, &ping);
}


ngx_int_t
ngx_mail_policy_redis_command(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t argc, ngx_str_t *argv)
{
    ngx_int_t                         rc;
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_request(argc, handler);
    if (request == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(request->argv, argv, argc * sizeof(ngx_str_t));

    rc = ngx_mail_policy_redis_push(conn, request);

    /* it is not sent again, and the password is copied nowhere */
    request->argc = 0;
    request->argv = NULL;

    if (rc != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
    }

    return rc;
}


static ngx_int_t
ngx_mail_policy_redis_greet_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    /*
     * Sentinels often have no password where Redis has one, and say so in
     * several ways: one that needs it refuses the question that follows
     */

    if (request->conn->node->scout) {
        return NGX_OK;
    }

    return (reply->type == NGX_MAIL_POLICY_REDIS_STATUS) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_redis_ping_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_mail_policy_redis_conn_t  *conn;

    if (reply->type != NGX_MAIL_POLICY_REDIS_STATUS) {
        return NGX_ERROR;
    }

    conn = request->conn;

    if (ngx_current_msec - conn->pinged > conn->redis->timeout) {
        /* there, but not able to answer in time */
        return ngx_mail_policy_redis_ping(conn);
    }

    ngx_mail_policy_redis_up(conn);

    return NGX_OK;
}
