
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A connection to an HTTP service.
 *
 *     open -> CONNECTING -> (TLS) -> TALKING <----------- reuse
 *                                      |                    ^
 *                                      \-> keep -> KEPT ----+
 *
 * Events: read and write of its socket, which while it is CONNECTING both
 * tell that it is connected; one timer, while it is KEPT.  That one is
 * cancelable, and the connection idle: neither holds up a graceful shutdown.
 *
 * One that is kept first reads what is left of the last body.  Whatever it
 * says then closes it.
 *
 * ..._close() frees it, nothing else does.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_http.h"
#include "ngx_mail_policy_tls.h"


#define NGX_MAIL_POLICY_HTTP_KEEP       32      /* a worker and service */
#define NGX_MAIL_POLICY_HTTP_KEEP_TIME  30000
#define NGX_MAIL_POLICY_HTTP_BODY_TIME  5000


static void ngx_mail_policy_http_conn_log(ngx_mail_policy_http_conn_t *conn,
    ngx_log_t *log);
static void ngx_mail_policy_http_conn_handlers(
    ngx_mail_policy_http_conn_t *conn);
static void ngx_mail_policy_http_conn_connected(
    ngx_mail_policy_http_conn_t *conn);
static void ngx_mail_policy_http_conn_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_http_conn_write_handler(ngx_event_t *wev);
static ngx_mail_policy_http_conn_t *ngx_mail_policy_http_conn_find(
    ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_http_conn_quiet(
    ngx_mail_policy_http_conn_t *conn);
static void ngx_mail_policy_http_conn_kept(ngx_mail_policy_http_conn_t *conn);
static void ngx_mail_policy_http_conn_timeout_handler(ngx_event_t *ev);


ngx_int_t
ngx_mail_policy_http_conn_open(ngx_mail_policy_http_t *http)
{
    ngx_int_t                     rc;
    ngx_addr_t                   *addr;
    ngx_pool_t                   *pool;
    ngx_connection_t             *c;
    ngx_mail_policy_http_conn_t  *conn;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    conn = ngx_pcalloc(pool, sizeof(ngx_mail_policy_http_conn_t));
    if (conn == NULL) {
        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    addr = &http->service->addrs[http->address];

    conn->peer.sockaddr = addr->sockaddr;
    conn->peer.socklen = addr->socklen;
    conn->peer.name = &addr->name;
    conn->peer.get = ngx_event_get_peer;
    conn->peer.log = http->log;
    conn->peer.log_error = NGX_ERROR_ERR;

    rc = ngx_event_connect_peer(&conn->peer);

    if (rc != NGX_OK && rc != NGX_AGAIN) {

        if (conn->peer.connection) {
            ngx_close_connection(conn->peer.connection);
        }

        ngx_destroy_pool(pool);
        return NGX_ERROR;
    }

    c = conn->peer.connection;

    c->data = conn;
    c->pool = pool;

    conn->service = http->service;
    conn->address = http->address;
    conn->ssl = http->tls ? http->tls->ssl : NULL;
    conn->http = http;
    conn->state = NGX_MAIL_POLICY_HTTP_CONNECTING;

    conn->timer.handler = ngx_mail_policy_http_conn_timeout_handler;
    conn->timer.data = conn;
    conn->timer.log = ngx_cycle->log;
    conn->timer.cancelable = 1;

    http->conn = conn;

    ngx_mail_policy_http_conn_handlers(conn);
    ngx_mail_policy_http_conn_log(conn, http->log);

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


/* that of a request is not there as long as the connection */

static void
ngx_mail_policy_http_conn_log(ngx_mail_policy_http_conn_t *conn,
    ngx_log_t *log)
{
    ngx_connection_t  *c;

    c = conn->peer.connection;

    c->log = log;
    c->read->log = log;
    c->write->log = log;
}


static void
ngx_mail_policy_http_conn_handlers(ngx_mail_policy_http_conn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->peer.connection;

    c->read->handler = ngx_mail_policy_http_conn_read_handler;
    c->write->handler = ngx_mail_policy_http_conn_write_handler;
}


static void
ngx_mail_policy_http_conn_connected(ngx_mail_policy_http_conn_t *conn)
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

    if (err || ngx_tcp_nodelay(c) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, c->log, err,
                      "auth service %V cannot be connected to",
                      conn->peer.name);
        ngx_mail_policy_http_unmade(conn->http);
        return;
    }

    if (conn->ssl) {
        ngx_mail_policy_http_ssl_connect(conn);
        return;
    }

    ngx_mail_policy_http_conn_made(conn);
}


/* nginx' own handlers were there while hands were shaken */

void
ngx_mail_policy_http_conn_made(ngx_mail_policy_http_conn_t *conn)
{
    ngx_mail_policy_http_conn_handlers(conn);

    /* what it means that one is lost is said where that is known */

    conn->peer.connection->log_error = NGX_ERROR_INFO;

    conn->state = NGX_MAIL_POLICY_HTTP_TALKING;

    ngx_mail_policy_http_made(conn->http);
}


static void
ngx_mail_policy_http_conn_read_handler(ngx_event_t *rev)
{
    ngx_connection_t             *c;
    ngx_mail_policy_http_conn_t  *conn;

    c = rev->data;
    conn = c->data;

    switch (conn->state) {

    case NGX_MAIL_POLICY_HTTP_KEPT:
        ngx_mail_policy_http_conn_kept(conn);
        return;

    case NGX_MAIL_POLICY_HTTP_CONNECTING:

        if (!c->close) {
            ngx_mail_policy_http_conn_connected(conn);
            return;
        }

        /* fall through */

    default: /* NGX_MAIL_POLICY_HTTP_TALKING */

        /* worker_shutdown_timeout */

        if (c->close) {
            conn->reused = 0;
            ngx_mail_policy_http_failed(conn->http, 0, "was not waited for");
            return;
        }

        ngx_mail_policy_http_read(conn->http);
    }
}


static void
ngx_mail_policy_http_conn_write_handler(ngx_event_t *wev)
{
    ngx_connection_t             *c;
    ngx_mail_policy_http_conn_t  *conn;

    c = wev->data;
    conn = c->data;

    switch (conn->state) {

    case NGX_MAIL_POLICY_HTTP_KEPT:
        return;

    case NGX_MAIL_POLICY_HTTP_CONNECTING:
        ngx_mail_policy_http_conn_connected(conn);
        return;

    default: /* NGX_MAIL_POLICY_HTTP_TALKING */
        ngx_mail_policy_http_write(conn->http);
    }
}


ngx_mail_policy_http_conn_t *
ngx_mail_policy_http_conn_reuse(ngx_mail_policy_http_t *http)
{
    ngx_connection_t             *c;
    ngx_mail_policy_http_conn_t  *conn;

    do {
        conn = ngx_mail_policy_http_conn_find(http);
        if (conn == NULL) {
            return NULL;
        }

    } while (ngx_mail_policy_http_conn_quiet(conn) != NGX_OK);

    ngx_queue_remove(&conn->queue);
    conn->service->nkept--;

    ngx_del_timer(&conn->timer);

    c = conn->peer.connection;
    c->idle = 0;

    ngx_mail_policy_http_conn_log(conn, http->log);

    conn->state = NGX_MAIL_POLICY_HTTP_TALKING;
    conn->http = http;
    conn->sent = 0;
    conn->reused = 1;

    return conn;
}


/* the one that was used last, so that others time out */

static ngx_mail_policy_http_conn_t *
ngx_mail_policy_http_conn_find(ngx_mail_policy_http_t *http)
{
    ngx_ssl_t                    *ssl;
    ngx_queue_t                  *q;
    ngx_mail_policy_http_conn_t  *conn;

    ssl = http->tls ? http->tls->ssl : NULL;

    for (q = ngx_queue_head(&http->service->kept);
         q != ngx_queue_sentinel(&http->service->kept);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_mail_policy_http_conn_t, queue);

        if (conn->left == 0 && conn->ssl == ssl) {
            return conn;
        }
    }

    return NULL;
}


/*
 * What it says now would be taken for the answer to what it is asked next.
 * NGX_DECLINED: it was closed.
 */

static ngx_int_t
ngx_mail_policy_http_conn_quiet(ngx_mail_policy_http_conn_t *conn)
{
    u_char             ch;
    ngx_uint_t         quiet;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c->ssl) {
        quiet = ngx_mail_policy_http_ssl_quiet(c);

    } else {
        quiet = (recv(c->fd, &ch, 1, MSG_PEEK) == -1
                 && ngx_socket_errno == NGX_EAGAIN);
    }

    if (quiet) {
        return NGX_OK;
    }

    ngx_mail_policy_http_conn_close(conn, 0);

    return NGX_DECLINED;
}


void
ngx_mail_policy_http_conn_keep(ngx_mail_policy_http_conn_t *conn,
    uint64_t left)
{
    ngx_queue_t                     *q;
    ngx_connection_t                *c;
    ngx_mail_policy_http_service_t  *service;

    c = conn->peer.connection;
    service = conn->service;

    if (ngx_exiting || ngx_terminate || c->close) {
        ngx_mail_policy_http_conn_close(conn, 1);
        return;
    }

    if (service->nkept == NGX_MAIL_POLICY_HTTP_KEEP) {
        q = ngx_queue_last(&service->kept);
        ngx_mail_policy_http_conn_close(
                ngx_queue_data(q, ngx_mail_policy_http_conn_t, queue), 1);
    }

    conn->state = NGX_MAIL_POLICY_HTTP_KEPT;
    conn->http = NULL;
    conn->left = left;

    ngx_queue_insert_head(&service->kept, &conn->queue);
    service->nkept++;

    ngx_mail_policy_http_conn_log(conn, ngx_cycle->log);

    c->idle = 1;

    ngx_add_timer(&conn->timer, left ? NGX_MAIL_POLICY_HTTP_BODY_TIME
                                     : NGX_MAIL_POLICY_HTTP_KEEP_TIME);

    /* the rest of its body, or that it has gone, may be there already */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_http_conn_kept(ngx_mail_policy_http_conn_t *conn)
{
    u_char             buf[4096];
    ssize_t            n;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c->close) {
        ngx_mail_policy_http_conn_close(conn, 1);
        return;
    }

    for ( ;; ) {

        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0 || (uint64_t) n > conn->left) {
            ngx_mail_policy_http_conn_close(conn, 0);
            return;
        }

        conn->left -= n;

        if (conn->left == 0) {
            ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_HTTP_KEEP_TIME);
        }
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_policy_http_conn_close(conn, 0);
    }
}


static void
ngx_mail_policy_http_conn_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_http_conn_close(ev->data, 1);
}


void
ngx_mail_policy_http_conn_close(ngx_mail_policy_http_conn_t *conn,
    ngx_uint_t polite)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    if (conn->state == NGX_MAIL_POLICY_HTTP_KEPT) {
        ngx_queue_remove(&conn->queue);
        conn->service->nkept--;
    }

    if (conn->timer.timer_set) {
        ngx_del_timer(&conn->timer);
    }

    c = conn->peer.connection;
    pool = c->pool;

    if (c->ssl) {
        ngx_mail_policy_tls_close(c, polite);
    }

    ngx_close_connection(c);
    ngx_destroy_pool(pool);
}


void
ngx_mail_policy_http_close_kept(ngx_mail_policy_http_service_t *service)
{
    ngx_queue_t  *q;

    while (!ngx_queue_empty(&service->kept)) {
        q = ngx_queue_head(&service->kept);

        ngx_mail_policy_http_conn_close(
                ngx_queue_data(q, ngx_mail_policy_http_conn_t, queue), 1);
    }
}
