
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A connection to Redis.
 *
 *     DOWN --backoff--> CONNECTING --connected--> GREETING --PONG--> UP
 *      ^                    |   (TLS: shaken hands) |             ^  |
 *      |                    |                       |       PONG in  |
 *      |                    |                       |         time   |
 *      |                    |                       |             |  v
 *      \----- lost, refused, no answer in 5 s ------+------------ SLOW
 *
 * Events: read and write of the socket; one timer, which is the backoff in
 * DOWN and the patience in CONNECTING, GREETING and SLOW.  It is cancelable:
 * neither it nor a connection holds up a graceful shutdown, those who wait
 * for an answer have timers of their own.
 *
 * Only a connection that is UP is given requests.  When one of them gets no
 * answer in time, nobody who waits on that connection will: all are told, and
 * the connection is SLOW.  It stays open for a while, so that the late
 * answers can be read and late charges be given back.  A PING goes behind
 * them; a PONG that came in time makes the connection UP again.
 *
 * Each way out of the states above ends in ..._down().  Where Sentinels or a
 * cluster tell who has taken over, that is asked then, and a connection to
 * the master that Sentinels name is not made before they were asked.
 *
 * The scout's connection greets, asks, and is done; UP is a pause then.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_text.h"
#include "ngx_mail_policy_redis_node.h"


#define NGX_MAIL_POLICY_REDIS_PATIENCE     5000
#define NGX_MAIL_POLICY_REDIS_BACKOFF_MAX  2000

/* where another server may take over */
#define NGX_MAIL_POLICY_REDIS_BACKOFF_TAKE_OVER  500

/* a Sentinel, a node of the cluster */
#define NGX_MAIL_POLICY_REDIS_SCOUT_PATIENCE     300


static ngx_int_t ngx_mail_policy_redis_connected(
    ngx_mail_policy_redis_conn_t *conn);


void
ngx_mail_policy_redis_connect(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_int_t                      rc;
    ngx_err_t                      err;
    ngx_connection_t              *c;
    ngx_mail_policy_redis_node_t  *node;
    ngx_mail_policy_redis_addr_t  *addr;

    node = conn->node;
    addr = &node->addrs[conn->naddr++ % node->naddrs];

    ngx_memzero(&conn->peer, sizeof(ngx_peer_connection_t));

    conn->peer.sockaddr = addr->sockaddr;
    conn->peer.socklen = addr->socklen;
    conn->peer.name = &addr->name;
    conn->peer.get = ngx_event_get_peer;
    conn->peer.log_error = NGX_ERROR_INFO;
    conn->peer.so_keepalive = 1;

    /* a failure is logged once, with what follows from it, in _away() */

    conn->peer.log = &conn->quiet;
    conn->quiet.action = "connecting to policy store";
    conn->why[0] = '\0';

    ngx_set_socket_errno(0);
    rc = ngx_event_connect_peer(&conn->peer);
    err = ngx_socket_errno;

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        conn->peer.connection = NULL;
        ngx_mail_policy_redis_down(conn, err, "connect failed");
        return;
    }

    c = conn->peer.connection;

    c->data = conn;
    c->read->handler = ngx_mail_policy_redis_read_handler;
    c->write->handler = ngx_mail_policy_redis_write_handler;

    conn->state = NGX_MAIL_POLICY_REDIS_CONNECTING;
    ngx_add_timer(&conn->timer, ngx_mail_policy_redis_patience(conn));

    conn->reader = ngx_mail_policy_redis_reader_create(
                                       (node->scout && conn->redis->cluster)
                                       ? NGX_MAIL_POLICY_REDIS_MAP
                                       : NGX_MAIL_POLICY_REDIS_ANSWER);
    if (conn->reader == NULL) {
        ngx_mail_policy_redis_down(conn, NGX_ENOMEM, "no memory");
        return;
    }

    if (rc == NGX_OK) {
        (void) ngx_mail_policy_redis_connected(conn);
    }
}


ngx_msec_t
ngx_mail_policy_redis_patience(ngx_mail_policy_redis_conn_t *conn)
{
    if (!conn->node->scout) {
        return NGX_MAIL_POLICY_REDIS_PATIENCE;
    }

    return ngx_max(NGX_MAIL_POLICY_REDIS_SCOUT_PATIENCE,
                   conn->redis->timeout);
}


/* NGX_ERROR: the connection is gone */

static ngx_int_t
ngx_mail_policy_redis_connected(ngx_mail_policy_redis_conn_t *conn)
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
        ngx_mail_policy_redis_down(conn, err, "connect failed");
        return NGX_ERROR;
    }

    if (ngx_tcp_nodelay(c) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "connect failed");
        return NGX_ERROR;
    }

    if (conn->redis->tls) {
        return ngx_mail_policy_redis_ssl_connect(conn);
    }

    return ngx_mail_policy_redis_made(conn);
}


ngx_int_t
ngx_mail_policy_redis_made(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->peer.connection;

    c->log = &conn->log;
    c->read->log = &conn->log;
    c->write->log = &conn->log;

    conn->log.action = "talking to policy store";
    conn->state = NGX_MAIL_POLICY_REDIS_GREETING;
    conn->loaded = 0;

    if (ngx_mail_policy_redis_greet(conn) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "connect failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_mail_policy_redis_read_handler(ngx_event_t *rev)
{
    u_char                         buf[4096];
    ssize_t                        n;
    ngx_int_t                      rc;
    ngx_connection_t              *c;
    ngx_mail_policy_redis_conn_t  *conn;

    c = rev->data;
    conn = c->data;

    if (c->close) {

        /*
         * worker_shutdown_timeout: sessions are cut now, and what they give
         * back has to go out yet, without much delay; exit_process() closes
         */

        c->close = 0;
        c->error = 0;

        if (conn->redis->hurry == 0) {
            conn->redis->hurry = ngx_max(ngx_current_msec, 1);
        }

        return;
    }

    if (conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING) {

        if (ngx_mail_policy_redis_connected(conn) != NGX_OK
            || conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING)
        {
            return;
        }
    }

    for ( ;; ) {

        n = c->recv(c, buf, sizeof(buf));

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == 0) {
            ngx_mail_policy_redis_down(conn, 0, "it closed the connection");
            return;
        }

        if (n == NGX_ERROR) {
            ngx_mail_policy_redis_down(conn, ngx_socket_errno,
                                       "the connection was lost");
            return;
        }

        rc = ngx_mail_policy_redis_reader_feed(conn->reader, buf, n);
        ngx_explicit_memzero(buf, n);

        if (rc != NGX_OK) {
            ngx_mail_policy_redis_down(conn, 0, "an answer is too long");
            return;
        }

        if (ngx_mail_policy_redis_answers(conn) != NGX_OK) {
            return;
        }
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "the connection was lost");
    }
}


void
ngx_mail_policy_redis_write_handler(ngx_event_t *wev)
{
    ngx_connection_t              *c;
    ngx_mail_policy_redis_conn_t  *conn;

    c = wev->data;
    conn = c->data;

    if (conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING) {

        if (ngx_mail_policy_redis_connected(conn) != NGX_OK
            || conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING)
        {
            return;
        }
    }

    if (ngx_mail_policy_redis_flush(conn) == NGX_ERROR
        || ngx_handle_write_event(wev, 0) != NGX_OK)
    {
        ngx_mail_policy_redis_down(conn, ngx_socket_errno,
                                   "the connection was lost");
    }
}


void
ngx_mail_policy_redis_timer_handler(ngx_event_t *ev)
{
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_conn_t  *conn;

    conn = ev->data;
    redis = conn->redis;

    if (conn->node->scout && conn->state == NGX_MAIL_POLICY_REDIS_UP) {
        ngx_mail_policy_redis_scout_again(conn);

    } else if (conn->state != NGX_MAIL_POLICY_REDIS_DOWN) {
        ngx_mail_policy_redis_down(conn, NGX_ETIMEDOUT,
                                   ngx_mail_policy_redis_handshaking(conn)
                                   ? "no answer to the TLS handshake"
                                   : "no answer");

    } else if (conn->node->scout) {
        ngx_mail_policy_redis_scout_connect(conn);

    } else if (redis->sentinel.len) {
        conn->waiting = 1;
        ngx_mail_policy_redis_scout(redis);

    } else {
        ngx_mail_policy_redis_connect(conn);
    }
}


/*
 * One that answers PING, but refused to work, is not back until it works: a
 * replica would be away and back with every connection.
 */

void
ngx_mail_policy_redis_up(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_mail_policy_redis_node_t  *node;

    node = conn->node;

    conn->state = NGX_MAIL_POLICY_REDIS_UP;
    conn->redis->heard = 1;
    node->nup++;

    ngx_del_timer(&conn->timer);

    ngx_mail_policy_redis_show(conn->redis);

    if (!node->doubtful) {
        ngx_mail_policy_redis_back(node);
    }

    ngx_mail_policy_redis_retry(conn->redis);
}


/* it is used again when it has answered a PING */

void
ngx_mail_policy_redis_suspect(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_mail_policy_redis_node_t  *node;

    if (conn->state != NGX_MAIL_POLICY_REDIS_UP) {
        return;
    }

    node = conn->node;

    conn->state = NGX_MAIL_POLICY_REDIS_SLOW;
    node->nup--;

    ngx_mail_policy_redis_show(conn->redis);

    if (node->nup == 0) {
        ngx_mail_policy_redis_away(node, 0, "no answer in time");
    }

    ngx_mail_policy_redis_scout(conn->redis);

    ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_PATIENCE);

    if (ngx_mail_policy_redis_ping(conn) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "no memory");
    }
}


void
ngx_mail_policy_redis_down(ngx_mail_policy_redis_conn_t *conn, ngx_err_t err,
    const char *why)
{
    ngx_msec_t                     delay, max;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_node_t  *node;

    redis = conn->redis;
    node = conn->node;

    ngx_mail_policy_redis_close(conn);

    if (node->nup == 0 && !node->scout) {
        ngx_mail_policy_redis_away(node, err, why);
    }

    ngx_mail_policy_redis_abandon(conn);

    if (!redis->running) {
        return;
    }

    if (node->scout) {
        ngx_mail_policy_redis_scout_down(conn, err, why);
        return;
    }

    if (node->gone) {
        ngx_mail_policy_redis_sweep(redis);
        return;
    }

    /* edges that lost the same Redis must not all come back at once */

    max = redis->scout ? NGX_MAIL_POLICY_REDIS_BACKOFF_TAKE_OVER
                       : NGX_MAIL_POLICY_REDIS_BACKOFF_MAX;

    delay = conn->backoff + ngx_random() % (conn->backoff / 2);
    conn->backoff = ngx_min(conn->backoff * 2, max);

    ngx_add_timer(&conn->timer, delay);

    ngx_mail_policy_redis_scout(redis);
}


void
ngx_mail_policy_redis_close(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    if (conn->state == NGX_MAIL_POLICY_REDIS_UP) {
        conn->node->nup--;
        ngx_mail_policy_redis_show(conn->redis);
    }

    conn->state = NGX_MAIL_POLICY_REDIS_DOWN;

    if (conn->timer.timer_set) {
        ngx_del_timer(&conn->timer);
    }

    c = conn->peer.connection;

    if (c) {
        pool = c->pool;

        if (c->ssl) {
            ngx_mail_policy_redis_ssl_close(c);
        }

        ngx_close_connection(c);
        conn->peer.connection = NULL;

        if (pool) {
            ngx_destroy_pool(pool);
        }
    }

    if (conn->reader) {
        ngx_mail_policy_redis_reader_free(conn->reader);
        conn->reader = NULL;
    }

    ngx_mail_policy_redis_discard(conn);
}


/* what was asked is not answered any more */

void
ngx_mail_policy_redis_abandon(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_request_t  *request;

    while (!ngx_queue_empty(&conn->requests)) {
        q = ngx_queue_head(&conn->requests);
        ngx_queue_remove(q);

        request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

        ngx_mail_policy_redis_orphan(request);
        ngx_mail_policy_redis_request_free(request);
    }
}


/*
 * Keeps a text for the log.  Redis repeats the arguments of a command that
 * it does not know: there may be a password among them.
 */

void
ngx_mail_policy_redis_why(ngx_mail_policy_redis_conn_t *conn, ngx_str_t *text)
{
    size_t      len;
    u_char     *p;
    ngx_str_t  *password;

    len = ngx_min(text->len, sizeof(conn->why) - 1);

    mpol_reply_clean(text->data, len, conn->why);
    conn->why[len] = '\0';

    p = (u_char *) ngx_strstr(conn->why, ", with args");

    if (p) {
        *p = '\0';
    }

    password = &conn->redis->password;

    if (password->len
        && ngx_strnstr(conn->why, (char *) password->data, len))
    {
        ngx_cpystrn(conn->why, (u_char *) "(not shown)", sizeof(conn->why));
    }
}
