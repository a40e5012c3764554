
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Requests and what is written of them.  No events arrive here: push() posts
 * the write event of the connection, so that all that is asked in one turn
 * of the event loop goes out in one write.
 *
 *     request() -> push() -> in the FIFO -> request_free(), by the connection
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_redis_node.h"
#include "ngx_mail_policy_redis_script.h"


#define NGX_MAIL_POLICY_REDIS_OUT      4096
#define NGX_MAIL_POLICY_REDIS_OUT_MAX  (1024 * 1024)


static ngx_int_t ngx_mail_policy_redis_reserve(
    ngx_mail_policy_redis_conn_t *conn, size_t size);


ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_request(ngx_uint_t argc,
    ngx_mail_policy_redis_answer_pt handler)
{
    ngx_pool_t                       *pool;
    ngx_mail_policy_redis_request_t  *request;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    request = ngx_pcalloc(pool, sizeof(ngx_mail_policy_redis_request_t));
    if (request == NULL) {
        goto failed;
    }

    request->argv = ngx_pcalloc(pool, argc * sizeof(ngx_str_t));
    if (request->argv == NULL) {
        goto failed;
    }

    request->pool = pool;
    request->argc = argc;
    request->handler = handler;

    return request;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_redis_request_free(ngx_mail_policy_redis_request_t *request)
{
    ngx_destroy_pool(request->pool);
}


/*
 *     *<argc> CRLF   then for each   $<octets> CRLF <value> CRLF
 */

ngx_int_t
ngx_mail_policy_redis_push(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request)
{
    size_t             size;
    u_char            *p;
    ngx_str_t         *arg;
    ngx_uint_t         i;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c == NULL) {
        return NGX_ERROR;
    }

    ngx_mail_policy_redis_script_choose(conn, request);

    size = sizeof("*" CRLF) - 1 + NGX_INT_T_LEN;

    for (i = 0; i < request->argc; i++) {
        size += sizeof("$" CRLF CRLF) - 1 + NGX_SIZE_T_LEN
                + request->argv[i].len;
    }

    if (ngx_mail_policy_redis_reserve(conn, size) != NGX_OK) {
        return NGX_ERROR;
    }

    p = ngx_sprintf(conn->last, "*%ui" CRLF, request->argc);

    for (i = 0; i < request->argc; i++) {
        arg = &request->argv[i];

        p = ngx_sprintf(p, "$%uz" CRLF, arg->len);
        p = ngx_cpymem(p, arg->data, arg->len);
        *p++ = CR;
        *p++ = LF;
    }

    conn->last = p;

    if (request->done && request->begun == 0
        && ngx_mail_policy_metrics_slot)
    {
        request->begun = ngx_mail_policy_metrics_usec();
    }

    request->conn = conn;
    ngx_queue_insert_tail(&conn->requests, &request->queue);

    if (c->write->ready) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_reserve(ngx_mail_policy_redis_conn_t *conn, size_t size)
{
    size_t   waiting, capacity;
    u_char  *out;

    if ((size_t) (conn->end - conn->last) >= size) {
        return NGX_OK;
    }

    waiting = conn->last - conn->pos;

    if (waiting + size > NGX_MAIL_POLICY_REDIS_OUT_MAX) {

        /* a turn of the event loop with more questions than usual */

        (void) ngx_mail_policy_redis_flush(conn);

        waiting = conn->last - conn->pos;

        if (waiting + size > NGX_MAIL_POLICY_REDIS_OUT_MAX) {
            return NGX_ERROR;
        }

        if ((size_t) (conn->end - conn->last) >= size) {
            return NGX_OK;
        }
    }

    capacity = NGX_MAIL_POLICY_REDIS_OUT;

    while (capacity < waiting + size) {
        capacity *= 2;
    }

    out = ngx_alloc(capacity, ngx_cycle->log);
    if (out == NULL) {
        return NGX_ERROR;
    }

    if (waiting) {
        ngx_memcpy(out, conn->pos, waiting);
    }

    ngx_mail_policy_redis_discard(conn);

    conn->out = out;
    conn->pos = out;
    conn->last = out + waiting;
    conn->end = out + capacity;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_redis_flush(ngx_mail_policy_redis_conn_t *conn)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    while (conn->pos < conn->last) {

        n = c->send(c, conn->pos, conn->last - conn->pos);

        if (n == NGX_AGAIN || n == 0) {
            return NGX_AGAIN;
        }

        if (n < 0) {
            return NGX_ERROR;
        }

        conn->pos += n;
    }

    /* logins and the password of the store went through here */

    if (conn->end - conn->out > NGX_MAIL_POLICY_REDIS_OUT) {
        ngx_mail_policy_redis_discard(conn);

    } else if (conn->out) {
        ngx_explicit_memzero(conn->out, conn->last - conn->out);
        conn->pos = conn->out;
        conn->last = conn->out;
    }

    return NGX_OK;
}


void
ngx_mail_policy_redis_discard(ngx_mail_policy_redis_conn_t *conn)
{
    if (conn->out) {
        ngx_explicit_memzero(conn->out, conn->last - conn->out);
        ngx_free(conn->out);
    }

    conn->out = NULL;
    conn->pos = NULL;
    conn->last = NULL;
    conn->end = NULL;
}


void
ngx_mail_policy_redis_orphan(ngx_mail_policy_redis_request_t *request)
{
    void  *data;

    data = request->data;

    if (data) {
        request->data = NULL;
        request->done(data, NGX_ERROR);
    }
}
