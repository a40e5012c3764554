
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A request to an HTTP service.
 *
 *     send --> a kept connection --------------------> talking -> answered
 *      |           \ closed, nothing was said            ^  \-> failed
 *      |            v                                    |
 *      \------> connecting (TLS: and shaking hands) -----+
 *                |    ^ \
 *                +----+  \ it was the last address: failed
 *             next address
 *
 * Events: what a connection says, and one timer.  While a connection is being
 * made it is that address' patience, then all the time that there is.
 *
 * Both ways out are ..._finalize(), which calls the handler, once, or
 * ..._cancel(), which does not.  Both leave no connection behind.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_http.h"


#define NGX_MAIL_POLICY_HTTP_HEAD  16384    /* octets */
#define NGX_MAIL_POLICY_HTTP_BODY  65536    /* that a connection is worth */


static ngx_int_t ngx_mail_policy_http_connect(ngx_mail_policy_http_t *http);
static void ngx_mail_policy_http_next(ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_http_take(ngx_mail_policy_http_t *http,
    ssize_t n);
static void ngx_mail_policy_http_answered(ngx_mail_policy_http_t *http);
static void ngx_mail_policy_http_timeout_handler(ngx_event_t *ev);
static void ngx_mail_policy_http_finalize(ngx_mail_policy_http_t *http,
    ngx_int_t rc);
static void ngx_mail_policy_http_stop(ngx_mail_policy_http_t *http);


ngx_mail_policy_http_t *
ngx_mail_policy_http_create(ngx_pool_t *pool)
{
    ngx_mail_policy_http_t  *http;

    http = ngx_pcalloc(pool, sizeof(ngx_mail_policy_http_t));
    if (http == NULL) {
        return NULL;
    }

    http->buf = ngx_pnalloc(pool, NGX_MAIL_POLICY_HTTP_HEAD);
    if (http->buf == NULL) {
        return NULL;
    }

    http->pool = pool;

    return http;
}


ngx_int_t
ngx_mail_policy_http_send(ngx_mail_policy_http_t *http)
{
    http->address = http->service->current;

    http->timer.handler = ngx_mail_policy_http_timeout_handler;
    http->timer.data = http;
    http->timer.log = http->log;

    http->deadline = ngx_current_msec + http->timeout;

    http->conn = ngx_mail_policy_http_conn_reuse(http);

    if (http->conn) {
        http->address = http->conn->address;
        ngx_add_timer(&http->timer, http->timeout);

        /* what becomes of it is not said from within this call */

        ngx_post_event(http->conn->peer.connection->write,
                       &ngx_posted_events);
        return NGX_OK;
    }

    if (ngx_mail_policy_http_connect(http) == NGX_OK) {
        return NGX_OK;
    }

    ngx_mail_policy_http_stop(http);

    return NGX_ERROR;
}


/* the first address from the present one on to which one is under way */

static ngx_int_t
ngx_mail_policy_http_connect(ngx_mail_policy_http_t *http)
{
    ngx_uint_t       left;
    ngx_msec_int_t   time;

    while (http->tried < http->service->naddrs) {

        left = http->service->naddrs - http->tried;
        http->tried++;

        time = (ngx_msec_int_t) (http->deadline - ngx_current_msec);

        if (time <= 0) {
            return NGX_ERROR;
        }

        if (ngx_mail_policy_http_conn_open(http) == NGX_OK) {
            ngx_add_timer(&http->timer,
                          ngx_max((ngx_msec_t) time / left, 1));
            return NGX_OK;
        }

        http->address = (http->address + 1) % http->service->naddrs;
    }

    return NGX_ERROR;
}


void
ngx_mail_policy_http_made(ngx_mail_policy_http_t *http)
{
    ngx_msec_int_t  time;

    http->service->current = http->address;

    /* whatever is left, now; it cannot be closed unread any more */

    time = (ngx_msec_int_t) (http->deadline - ngx_current_msec);

    ngx_del_timer(&http->timer);
    ngx_add_timer(&http->timer, (ngx_msec_t) ngx_max(time, 1));

    ngx_mail_policy_http_write(http);
}


/* the reason has been logged */

void
ngx_mail_policy_http_unmade(ngx_mail_policy_http_t *http)
{
    ngx_mail_policy_http_conn_close(http->conn, 0);
    http->conn = NULL;

    http->address = (http->address + 1) % http->service->naddrs;

    ngx_mail_policy_http_next(http);
}


static void
ngx_mail_policy_http_next(ngx_mail_policy_http_t *http)
{
    if (http->timer.timer_set) {
        ngx_del_timer(&http->timer);
    }

    if (ngx_mail_policy_http_connect(http) != NGX_OK) {
        ngx_mail_policy_http_finalize(http, NGX_ERROR);
    }
}


void
ngx_mail_policy_http_write(ngx_mail_policy_http_t *http)
{
    size_t                        size;
    ssize_t                       n;
    ngx_connection_t             *c;
    ngx_mail_policy_http_conn_t  *conn;

    conn = http->conn;
    c = conn->peer.connection;

    while (conn->sent < http->request.len) {

        size = http->request.len - conn->sent;

        n = c->send(c, http->request.data + conn->sent, size);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR || n == 0) {
            ngx_mail_policy_http_failed(http, ngx_socket_errno,
                                        "lost the connection");
            return;
        }

        conn->sent += n;
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_mail_policy_http_failed(http, 0, "lost the connection");
        return;
    }

    /* TLS: what is in OpenSSL's buffer makes no event */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


void
ngx_mail_policy_http_read(ngx_mail_policy_http_t *http)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = http->conn->peer.connection;

    for ( ;; ) {

        n = c->recv(c, http->buf + http->len,
                    NGX_MAIL_POLICY_HTTP_HEAD - http->len);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0) {
            ngx_mail_policy_http_failed(http, n ? ngx_socket_errno : 0,
                                        http->len ? "closed the connection "
                                                    "within its answer"
                                                  : "closed the connection");
            return;
        }

        switch (ngx_mail_policy_http_take(http, n)) {

        case NGX_AGAIN:
            break;

        case NGX_OK:
            ngx_mail_policy_http_answered(http);
            return;

        default:
            return;
        }
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_policy_http_failed(http, 0, "lost the connection");
    }
}


/* NGX_ERROR: it has failed, and is over */

static ngx_int_t
ngx_mail_policy_http_take(ngx_mail_policy_http_t *http, ssize_t n)
{
    http->len += n;

    switch (mpol_auth_http_parse(&http->head, http->buf, http->len)) {

    case MPOL_OK:
        return NGX_OK;

    case MPOL_AGAIN:

        if (http->len < NGX_MAIL_POLICY_HTTP_HEAD) {
            return NGX_AGAIN;
        }

        ngx_mail_policy_http_failed(http, 0, "sent too long a header");
        return NGX_ERROR;

    default:
        ngx_mail_policy_http_failed(http, 0, "sent what is no HTTP/1.x");
        return NGX_ERROR;
    }
}


static void
ngx_mail_policy_http_answered(ngx_mail_policy_http_t *http)
{
    size_t                        body;
    ngx_mail_policy_http_conn_t  *conn;

    conn = http->conn;
    http->conn = NULL;

    body = http->len - http->head.pos;

    /* what comes behind the body was not asked for */

    if (conn->sent == http->request.len
        && mpol_auth_http_persistent(&http->head)
        && http->head.length <= NGX_MAIL_POLICY_HTTP_BODY
        && http->head.length >= body)
    {
        ngx_mail_policy_http_conn_keep(conn, http->head.length - body);

    } else {
        ngx_mail_policy_http_conn_close(conn, 1);
    }

    ngx_mail_policy_http_finalize(http, NGX_OK);
}


/* the connection is lost, or as good as lost */

void
ngx_mail_policy_http_failed(ngx_mail_policy_http_t *http, ngx_err_t err,
    const char *why)
{
    ngx_uint_t  again;

    again = http->conn->reused && http->len == 0;

    ngx_mail_policy_http_conn_close(http->conn, 0);
    http->conn = NULL;

    if (again) {
        ngx_log_debug1(NGX_LOG_DEBUG_MAIL, http->log, 0,
                       "auth service %V closed a kept connection",
                       ngx_mail_policy_http_address(http));

        ngx_mail_policy_http_next(http);
        return;
    }

    ngx_log_error(NGX_LOG_ERR, http->log, err, "auth service %V %s",
                  ngx_mail_policy_http_address(http), why);

    ngx_mail_policy_http_finalize(http, NGX_ERROR);
}


static void
ngx_mail_policy_http_timeout_handler(ngx_event_t *ev)
{
    ngx_uint_t               made;
    ngx_mail_policy_http_t  *http;

    http = ev->data;

    made = (http->conn->state == NGX_MAIL_POLICY_HTTP_TALKING);

    ngx_log_error(NGX_LOG_ERR, http->log, NGX_ETIMEDOUT, "auth service %V %s",
                  ngx_mail_policy_http_address(http),
                  made ? "did not answer in time"
                       : "could not be connected to in time");

    if (!made) {
        ngx_mail_policy_http_unmade(http);
        return;
    }

    ngx_mail_policy_http_finalize(http, NGX_ERROR);
}


static void
ngx_mail_policy_http_finalize(ngx_mail_policy_http_t *http, ngx_int_t rc)
{
    ngx_mail_policy_http_stop(http);

    http->handler(http, rc);
}


void
ngx_mail_policy_http_cancel(ngx_mail_policy_http_t *http)
{
    ngx_mail_policy_http_stop(http);
    ngx_mail_policy_http_wipe(http);
}


static void
ngx_mail_policy_http_stop(ngx_mail_policy_http_t *http)
{
    if (http->timer.timer_set) {
        ngx_del_timer(&http->timer);
    }

    if (http->conn) {
        ngx_mail_policy_http_conn_close(http->conn, 0);
        http->conn = NULL;
    }

    ngx_explicit_memzero(http->request.data, http->request.len);
    http->request.len = 0;
}


void
ngx_mail_policy_http_wipe(ngx_mail_policy_http_t *http)
{
    ngx_explicit_memzero(http->buf, http->len);
    http->len = 0;
}


ngx_str_t *
ngx_mail_policy_http_address(ngx_mail_policy_http_t *http)
{
    return &http->service->addrs[http->address].name;
}
