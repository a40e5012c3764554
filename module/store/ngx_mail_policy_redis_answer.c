
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Answers, first in, first out, and what is done about errors.  No events
 * arrive here.
 *
 *     answer -> request's handler -> freed
 *         |         \-> sent again on the same connection (NOSCRIPT)
 *         \-> sent again elsewhere, or later (MOVED, ASK, TRYAGAIN)
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_redis_node.h"


/* seconds between two lines about the same error */
#define NGX_MAIL_POLICY_REDIS_COMPLAIN  60


/* what an error means; where nothing else is said: no answer, on_error */

#define NGX_MAIL_POLICY_REDIS_QUIET      0x01   /* one of the usual ones */
#define NGX_MAIL_POLICY_REDIS_RECONNECT  0x02   /* a new connection may get
                                                   over it */
#define NGX_MAIL_POLICY_REDIS_FIND       0x04   /* others know better */
#define NGX_MAIL_POLICY_REDIS_MOVED      0x08   /* sent to another node */
#define NGX_MAIL_POLICY_REDIS_ASK        0x10   /* the same, this once */
#define NGX_MAIL_POLICY_REDIS_AGAIN      0x20   /* sent again, a bit later */
#define NGX_MAIL_POLICY_REDIS_CLUSTERED  0x40   /* said by clusters only */


typedef struct {
    const char  *code;
    ngx_uint_t   action;
} ngx_mail_policy_redis_error_t;


static ngx_int_t ngx_mail_policy_redis_answer(
    ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_works(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request);
static ngx_uint_t ngx_mail_policy_redis_error(
    ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_complain(
    ngx_mail_policy_redis_conn_t *conn, ngx_uint_t n);
static ngx_int_t ngx_mail_policy_redis_elsewhere(
    ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply, ngx_uint_t action);


static ngx_mail_policy_redis_error_t  ngx_mail_policy_redis_errors[] = {

    /* the script has to be sent: its handler does so */
    { "NOSCRIPT", NGX_MAIL_POLICY_REDIS_QUIET },

    /* whoever asked says which key it is */
    { "WRONGTYPE", NGX_MAIL_POLICY_REDIS_QUIET },

    /* in a cluster, it is another node's, now or soon */
    { "MOVED", NGX_MAIL_POLICY_REDIS_MOVED
               |NGX_MAIL_POLICY_REDIS_FIND
               |NGX_MAIL_POLICY_REDIS_CLUSTERED },
    { "ASK", NGX_MAIL_POLICY_REDIS_ASK|NGX_MAIL_POLICY_REDIS_CLUSTERED },
    { "TRYAGAIN", NGX_MAIL_POLICY_REDIS_AGAIN
                  |NGX_MAIL_POLICY_REDIS_CLUSTERED },
    { "CLUSTERDOWN", NGX_MAIL_POLICY_REDIS_FIND
                     |NGX_MAIL_POLICY_REDIS_CLUSTERED },
    { "CROSSSLOT", NGX_MAIL_POLICY_REDIS_CLUSTERED },

    /*
     * not able to work: another Redis may have taken over the address, or
     * its place, or the password be in force by now
     */
    { "LOADING", NGX_MAIL_POLICY_REDIS_RECONNECT },
    { "READONLY", NGX_MAIL_POLICY_REDIS_RECONNECT },
    { "MASTERDOWN", NGX_MAIL_POLICY_REDIS_RECONNECT },
    { "NOAUTH", NGX_MAIL_POLICY_REDIS_RECONNECT },

    /* able to answer, and for an operator to mend */
    { "BUSY", 0 },
    { "NOREPLICAS", 0 },
    { "MISCONF", 0 },
    { "OOM", 0 },
    { "WRONGPASS", 0 },
    { "NOPERM", 0 },

    /* any other */
    { "", 0 }
};


ngx_int_t
ngx_mail_policy_redis_answers(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_int_t                       rc;
    ngx_mail_policy_redis_reply_t  *reply;

    for ( ;; ) {

        rc = ngx_mail_policy_redis_reader_next(conn->reader, &reply);

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            ngx_mail_policy_redis_down(conn, 0, "an answer is malformed");
            return NGX_ERROR;
        }

        rc = ngx_mail_policy_redis_answer(conn, reply);

        ngx_mail_policy_redis_reply_free(reply);

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


/* NGX_ERROR: the connection is gone */

static ngx_int_t
ngx_mail_policy_redis_answer(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply)
{
    uint64_t                          took;
    ngx_int_t                         rc;
    ngx_uint_t                        n, action;
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_request_t  *request;

    if (ngx_queue_empty(&conn->requests)) {
        ngx_mail_policy_redis_down(conn, 0, "an answer to no question");
        return NGX_ERROR;
    }

    q = ngx_queue_head(&conn->requests);
    ngx_queue_remove(q);
    request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

    if (conn->node->gone) {
        ngx_mail_policy_redis_sweep(conn->redis);
    }

    action = 0;
    conn->why[0] = '\0';

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {
        n = ngx_mail_policy_redis_error(conn, reply);
        action = ngx_mail_policy_redis_errors[n].action;

        if (ngx_mail_policy_redis_elsewhere(conn, request, reply, action)
            == NGX_OK)
        {
            return NGX_OK;
        }

        ngx_mail_policy_redis_complain(conn, n);

    } else if (reply->type == NGX_MAIL_POLICY_REDIS_ARRAY) {
        ngx_mail_policy_redis_works(conn, request);
    }

    took = (request->data && request->begun)
           ? ngx_mail_policy_metrics_usec() - request->begun : 0;

    rc = request->handler(request, reply);

    /* an error is none: its owner is still to be told */

    if (took && request->data == NULL) {
        ngx_mail_policy_metrics_store(took);
    }

    if (rc == NGX_AGAIN
        && ngx_mail_policy_redis_repeat(conn, request) == NGX_OK)
    {
        return NGX_OK;
    }

    ngx_mail_policy_redis_orphan(request);
    ngx_mail_policy_redis_request_free(request);

    if (rc == NGX_DONE) {
        return ngx_mail_policy_redis_scout_done(conn);
    }

    if (rc == NGX_ERROR || (action & NGX_MAIL_POLICY_REDIS_RECONNECT)) {
        ngx_mail_policy_redis_down(conn, 0, conn->why[0]
                                            ? (char *) conn->why
                                            : "an answer is not as expected");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* it not only says that it is there */

static void
ngx_mail_policy_redis_works(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_mail_policy_redis_node_t  *node;

    node = conn->node;

    if (node->doubtful && !request->writes) {
        return;
    }

    conn->backoff = NGX_MAIL_POLICY_REDIS_BACKOFF;

    if (node->doubtful) {
        node->doubtful = 0;
        ngx_mail_policy_redis_show(conn->redis);
    }

    if (node->nup) {
        ngx_mail_policy_redis_back(node);
    }
}


/* its place in the table */

static ngx_uint_t
ngx_mail_policy_redis_error(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_uint_t                      n;
    ngx_mail_policy_redis_error_t  *error;

    ngx_mail_policy_redis_why(conn, &reply->str);

    error = ngx_mail_policy_redis_errors;

    for (n = 0; n < NGX_MAIL_POLICY_REDIS_ERRORS - 1; n++) {
        if (ngx_mail_policy_redis_is_error(reply, error[n].code)) {
            break;
        }
    }

    if (error[n].action & NGX_MAIL_POLICY_REDIS_RECONNECT) {
        conn->node->doubtful = 1;
        ngx_mail_policy_redis_show(conn->redis);
    }

    if (error[n].action & NGX_MAIL_POLICY_REDIS_FIND) {
        ngx_mail_policy_redis_scout(conn->redis);
    }

    return n;
}


static void
ngx_mail_policy_redis_complain(ngx_mail_policy_redis_conn_t *conn,
    ngx_uint_t n)
{
    ngx_uint_t                action;
    const char               *hint;
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;
    action = ngx_mail_policy_redis_errors[n].action;

    /* why a connection is not made is said with what follows from it */

    if ((action & NGX_MAIL_POLICY_REDIS_QUIET)
        || conn->state == NGX_MAIL_POLICY_REDIS_GREETING)
    {
        return;
    }

    if (redis->complained[n]
        && ngx_time() - redis->complained[n] < NGX_MAIL_POLICY_REDIS_COMPLAIN)
    {
        return;
    }

    hint = "";

    if ((action & NGX_MAIL_POLICY_REDIS_CLUSTERED) && !redis->cluster) {
        hint = ", write \"cluster\" in \"policy_redis\"";
    }

    redis->complained[n] = ngx_time();

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "policy store %V answers: %s%s", &conn->node->name,
                  conn->why, hint);
}


ngx_uint_t
ngx_mail_policy_redis_is_error(ngx_mail_policy_redis_reply_t *reply,
    const char *code)
{
    size_t  len;

    len = ngx_strlen(code);

    return reply->type == NGX_MAIL_POLICY_REDIS_ERROR
           && reply->str.len >= len
           && ngx_memcmp(reply->str.data, code, len) == 0
           && (reply->str.len == len || reply->str.data[len] == ' ');
}


/* NGX_OK: it is asked again, or nobody waits for it any more */

static ngx_int_t
ngx_mail_policy_redis_elsewhere(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply, ngx_uint_t action)
{
    ngx_uint_t  again;

    again = action & NGX_MAIL_POLICY_REDIS_AGAIN;

    if (!conn->redis->cluster || request->argc == 0
        || !(again || (action & (NGX_MAIL_POLICY_REDIS_MOVED
                                 |NGX_MAIL_POLICY_REDIS_ASK))))
    {
        return NGX_DECLINED;
    }

    if (again) {
        request->again = 1;
        request->asked = NULL;
        request->redirected = 0;
        ngx_mail_policy_redis_resend(conn->redis, request);
        return NGX_OK;
    }

    return ngx_mail_policy_redis_redirect(conn, request, &reply->str,
                                          action & NGX_MAIL_POLICY_REDIS_ASK);
}
