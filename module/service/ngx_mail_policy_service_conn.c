
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A connection to another policy server.
 *
 *     open -> CONNECTING -> TALKING <----------- reuse
 *                              |                   ^
 *                              \-> keep -> KEPT ---+
 *
 * Events: read and write of its socket, which while it is CONNECTING both
 * tell that it is connected; one timer, while it is KEPT.  That one is
 * cancelable, and the connection idle: neither holds up a graceful shutdown.
 *
 * Whatever one says while it is KEPT closes it: it was not asked.
 *
 * ..._close() frees it, nothing else does.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_service_conn.h"


/* as Postfix has them */
#define NGX_MAIL_POLICY_SERVICE_IDLE  300000
#define NGX_MAIL_POLICY_SERVICE_TTL   1000000


static ngx_int_t ngx_mail_policy_service_conn_connect(
    ngx_mail_policy_question_t *question,
    ngx_mail_policy_service_conn_t *conn);
static void ngx_mail_policy_service_conn_writer(ngx_log_t *log,
    ngx_uint_t level, u_char *buf, size_t len);
static void ngx_mail_policy_service_conn_connected(
    ngx_mail_policy_service_conn_t *conn);
static void ngx_mail_policy_service_conn_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_service_conn_write_handler(ngx_event_t *wev);
static ngx_uint_t ngx_mail_policy_service_conn_quiet(
    ngx_mail_policy_service_conn_t *conn);
static void ngx_mail_policy_service_conn_kept(
    ngx_mail_policy_service_conn_t *conn);
static void ngx_mail_policy_service_conn_timeout_handler(ngx_event_t *ev);


ngx_int_t
ngx_mail_policy_service_conn_open(ngx_mail_policy_question_t *question)
{
    ngx_int_t                        rc;
    ngx_pool_t                      *pool;
    ngx_connection_t                *c;
    ngx_mail_policy_service_conn_t  *conn;

    question->err = NGX_ENOMEM;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    conn = ngx_pcalloc(pool, sizeof(ngx_mail_policy_service_conn_t));
    if (conn == NULL) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    conn->in = ngx_pnalloc(pool, NGX_MAIL_POLICY_SERVICE_ANSWER);
    if (conn->in == NULL) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    rc = ngx_mail_policy_service_conn_connect(question, conn);

    if (rc == NGX_ERROR) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    c = conn->peer.connection;

    c->data = conn;
    c->pool = pool;
    c->read->handler = ngx_mail_policy_service_conn_read_handler;
    c->write->handler = ngx_mail_policy_service_conn_write_handler;

    conn->timer.handler = ngx_mail_policy_service_conn_timeout_handler;
    conn->timer.data = conn;
    conn->timer.log = ngx_cycle->log;
    conn->timer.cancelable = 1;

    conn->service = question->service;
    conn->service->nconns++;

    conn->question = question;
    question->conn = conn;

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


/* a failure is logged once, with what follows from it */

static ngx_int_t
ngx_mail_policy_service_conn_connect(ngx_mail_policy_question_t *question,
    ngx_mail_policy_service_conn_t *conn)
{
    ngx_int_t          rc;
    ngx_log_t          quiet;
    ngx_addr_t        *addr;
    ngx_connection_t  *c;

    addr = &question->service->addrs[question->address];

    quiet = *ngx_cycle->log;
    quiet.writer = ngx_mail_policy_service_conn_writer;
    quiet.next = NULL;

    conn->peer.sockaddr = addr->sockaddr;
    conn->peer.socklen = addr->socklen;
    conn->peer.name = &addr->name;
    conn->peer.get = ngx_event_get_peer;
    conn->peer.log = &quiet;
    conn->peer.log_error = NGX_ERROR_INFO;

    ngx_set_socket_errno(0);
    rc = ngx_event_connect_peer(&conn->peer);
    question->err = ngx_socket_errno;

    conn->peer.log = ngx_cycle->log;
    c = conn->peer.connection;

    if (rc != NGX_OK && rc != NGX_AGAIN) {

        if (c) {
            ngx_close_connection(c);
        }

        return NGX_ERROR;
    }

    /* that of a question is not there as long as the connection */

    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;

    conn->born = ngx_current_msec;

    return rc;
}


static void
ngx_mail_policy_service_conn_writer(ngx_log_t *log, ngx_uint_t level,
    u_char *buf, size_t len)
{
    if (level <= NGX_LOG_ALERT) {
        ngx_log_error(level, ngx_cycle->log, 0, "%*s", len, buf);
    }
}


static void
ngx_mail_policy_service_conn_connected(ngx_mail_policy_service_conn_t *conn)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    err = 0;
    len = sizeof(int);

    /*
     * BSDs and Linux return 0 and set a pending error in err,
     * Solaris returns -1 and sets errno
     */

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        ngx_mail_policy_question_unmade(conn->question, err);
        return;
    }

    if (conn->peer.sockaddr->sa_family != AF_UNIX
        && ngx_tcp_nodelay(c) != NGX_OK)
    {
        ngx_mail_policy_question_unmade(conn->question, 0);
        return;
    }

    conn->state = NGX_MAIL_POLICY_SERVICE_TALKING;

    ngx_mail_policy_question_made(conn->question);
}


static void
ngx_mail_policy_service_conn_read_handler(ngx_event_t *rev)
{
    ngx_connection_t                *c;
    ngx_mail_policy_service_conn_t  *conn;

    c = rev->data;
    conn = c->data;

    if (conn->state == NGX_MAIL_POLICY_SERVICE_KEPT) {
        ngx_mail_policy_service_conn_kept(conn);
        return;
    }

    if (c->close) {
        ngx_mail_policy_question_shutdown(conn->question);
        return;
    }

    if (conn->state == NGX_MAIL_POLICY_SERVICE_CONNECTING) {
        ngx_mail_policy_service_conn_connected(conn);
        return;
    }

    ngx_mail_policy_question_read(conn->question);
}


static void
ngx_mail_policy_service_conn_write_handler(ngx_event_t *wev)
{
    ngx_connection_t                *c;
    ngx_mail_policy_service_conn_t  *conn;

    c = wev->data;
    conn = c->data;

    switch (conn->state) {

    case NGX_MAIL_POLICY_SERVICE_KEPT:
        return;

    case NGX_MAIL_POLICY_SERVICE_CONNECTING:
        ngx_mail_policy_service_conn_connected(conn);
        return;

    default: /* NGX_MAIL_POLICY_SERVICE_TALKING */
        ngx_mail_policy_question_write(conn->question);
    }
}


/* the one that was used last, so that others time out */

ngx_mail_policy_service_conn_t *
ngx_mail_policy_service_conn_reuse(ngx_mail_policy_question_t *question)
{
    ngx_queue_t                     *q;
    ngx_mail_policy_service_t       *service;
    ngx_mail_policy_service_conn_t  *conn;

    service = question->service;

    while (!ngx_queue_empty(&service->kept)) {

        q = ngx_queue_head(&service->kept);
        conn = ngx_queue_data(q, ngx_mail_policy_service_conn_t, queue);

        if (!ngx_mail_policy_service_conn_quiet(conn)) {
            ngx_mail_policy_service_conn_close(conn);
            continue;
        }

        ngx_queue_remove(q);
        ngx_del_timer(&conn->timer);

        conn->peer.connection->idle = 0;

        conn->state = NGX_MAIL_POLICY_SERVICE_TALKING;
        conn->sent = 0;
        conn->len = 0;
        conn->reused = 1;

        ngx_memzero(&conn->scan, sizeof(mpol_attr_t));

        conn->question = question;
        question->conn = conn;

        return conn;
    }

    return NULL;
}


/* what it says now would be taken for the answer to what it is asked next */

static ngx_uint_t
ngx_mail_policy_service_conn_quiet(ngx_mail_policy_service_conn_t *conn)
{
    u_char  ch;

    return recv(conn->peer.connection->fd, &ch, 1, MSG_PEEK) == -1
           && ngx_socket_errno == NGX_EAGAIN;
}


void
ngx_mail_policy_service_conn_keep(ngx_mail_policy_service_conn_t *conn)
{
    ngx_msec_t         age;
    ngx_connection_t  *c;

    c = conn->peer.connection;
    age = ngx_current_msec - conn->born;

    if (ngx_exiting || ngx_terminate || c->close
        || age >= NGX_MAIL_POLICY_SERVICE_TTL)
    {
        ngx_mail_policy_service_conn_close(conn);
        return;
    }

    conn->state = NGX_MAIL_POLICY_SERVICE_KEPT;
    conn->question = NULL;

    ngx_queue_insert_head(&conn->service->kept, &conn->queue);

    c->idle = 1;

    ngx_add_timer(&conn->timer, ngx_min(NGX_MAIL_POLICY_SERVICE_IDLE,
                                        NGX_MAIL_POLICY_SERVICE_TTL - age));

    /* more, or that it has gone, may be there already */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }

    ngx_mail_policy_service_wake(conn->service);
}


static void
ngx_mail_policy_service_conn_kept(ngx_mail_policy_service_conn_t *conn)
{
    u_char             ch;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c->close
        || c->recv(c, &ch, 1) != NGX_AGAIN
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_mail_policy_service_conn_close(conn);
    }
}


static void
ngx_mail_policy_service_conn_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_service_conn_close(ev->data);
}


void
ngx_mail_policy_service_conn_close(ngx_mail_policy_service_conn_t *conn)
{
    ngx_pool_t                 *pool;
    ngx_connection_t           *c;
    ngx_mail_policy_service_t  *service;

    service = conn->service;

    if (conn->state == NGX_MAIL_POLICY_SERVICE_KEPT) {
        ngx_queue_remove(&conn->queue);
    }

    if (conn->timer.timer_set) {
        ngx_del_timer(&conn->timer);
    }

    c = conn->peer.connection;
    pool = c->pool;

    ngx_close_connection(c);
    ngx_destroy_pool(pool);

    service->nconns--;

    ngx_mail_policy_service_wake(service);
}
