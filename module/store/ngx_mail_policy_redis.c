
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A worker's connections to Redis.
 *
 *     DOWN --backoff--> CONNECTING --connected--> GREETING --PONG--> UP
 *      ^                    |                        |             ^  |
 *      |                    |                        |       PONG in  |
 *      |                    |                        |         time   |
 *      |                    |                        |             |  v
 *      \----- lost, refused, no answer in 5 s -------+------------ SLOW
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
 * Answers are matched first in, first out.  Requests are freed here: when
 * answered, or in ..._down(), where each way out of the states above ends.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_text.h"
#include "ngx_mail_policy_redis.h"


#define NGX_MAIL_POLICY_REDIS_PATIENCE     5000
#define NGX_MAIL_POLICY_REDIS_BACKOFF      100
#define NGX_MAIL_POLICY_REDIS_BACKOFF_MAX  2000


static void ngx_mail_policy_redis_connect(ngx_mail_policy_redis_conn_t *conn);
static ngx_int_t ngx_mail_policy_redis_connected(
    ngx_mail_policy_redis_conn_t *conn);
static void ngx_mail_policy_redis_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_redis_write_handler(ngx_event_t *wev);
static void ngx_mail_policy_redis_timer_handler(ngx_event_t *ev);
static ngx_int_t ngx_mail_policy_redis_answers(
    ngx_mail_policy_redis_conn_t *conn);
static ngx_int_t ngx_mail_policy_redis_answer(
    ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_uint_t ngx_mail_policy_redis_error(
    ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_why(ngx_mail_policy_redis_conn_t *conn,
    ngx_str_t *text);
static void ngx_mail_policy_redis_suspect(ngx_mail_policy_redis_conn_t *conn);
static void ngx_mail_policy_redis_down(ngx_mail_policy_redis_conn_t *conn,
    ngx_err_t err, const char *why);
static void ngx_mail_policy_redis_back(ngx_mail_policy_redis_t *redis);
static void ngx_mail_policy_redis_away(ngx_mail_policy_redis_t *redis,
    ngx_err_t err, const char *why);
static void ngx_mail_policy_redis_orphan(
    ngx_mail_policy_redis_request_t *request);
static u_char *ngx_mail_policy_redis_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


/*
 * Errors that a new connection may get over: another Redis may have taken
 * over the address, or the password be in force by now.
 */

static const char  *ngx_mail_policy_redis_reconnect[] = {
    "NOAUTH", "LOADING", "READONLY", "MASTERDOWN", NULL
};


ngx_int_t
ngx_mail_policy_redis_init_process(ngx_mail_policy_redis_t *redis,
    ngx_cycle_t *cycle)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_conn_t  *conn;

    conn = ngx_pcalloc(cycle->pool,
                       redis->nconns * sizeof(ngx_mail_policy_redis_conn_t));
    if (conn == NULL) {
        return NGX_ERROR;
    }

    redis->log = *cycle->log;
    redis->log.handler = ngx_mail_policy_redis_log_error;
    redis->log.data = redis;
    redis->log.action = NULL;

    redis->conns = conn;

    ngx_mail_policy_redis_scripts_init();

    for (i = 0; i < redis->nconns; i++, conn++) {
        conn->redis = redis;
        conn->naddr = i;
        conn->backoff = NGX_MAIL_POLICY_REDIS_BACKOFF;

        ngx_queue_init(&conn->requests);

        conn->timer.handler = ngx_mail_policy_redis_timer_handler;
        conn->timer.data = conn;
        conn->timer.log = &redis->log;
        conn->timer.cancelable = 1;

        ngx_mail_policy_redis_connect(conn);
    }

    return NGX_OK;
}


void
ngx_mail_policy_redis_exit_process(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t  i;

    if (redis->conns == NULL) {
        return;
    }

    redis->closing = 1;

    for (i = 0; i < redis->nconns; i++) {
        ngx_mail_policy_redis_down(&redis->conns[i], 0, "exiting");
    }
}


ngx_mail_policy_redis_conn_t *
ngx_mail_policy_redis_get(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t                     i;
    ngx_mail_policy_redis_conn_t  *conn;

    if (redis->conns == NULL) {
        return NULL;
    }

    /* what is asked in one turn of the event loop stays in its order */

    conn = &redis->conns[redis->next % redis->nconns];

    if (conn->state == NGX_MAIL_POLICY_REDIS_UP
        && conn->peer.connection->write->posted)
    {
        return conn;
    }

    for (i = 0; i < redis->nconns; i++) {
        conn = &redis->conns[++redis->next % redis->nconns];

        if (conn->state == NGX_MAIL_POLICY_REDIS_UP) {
            return conn;
        }
    }

    ngx_mail_policy_redis_away(redis, 0, "not connected yet");

    return NULL;
}


static void
ngx_mail_policy_redis_connect(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_int_t                 rc;
    ngx_err_t                 err;
    ngx_uint_t                level;
    ngx_addr_t               *addr;
    ngx_connection_t         *c;
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;
    addr = &redis->addrs[conn->naddr++ % redis->naddrs];

    ngx_memzero(&conn->peer, sizeof(ngx_peer_connection_t));

    conn->peer.sockaddr = addr->sockaddr;
    conn->peer.socklen = addr->socklen;
    conn->peer.name = &addr->name;
    conn->peer.get = ngx_event_get_peer;
    conn->peer.log = &redis->log;
    conn->peer.log_error = NGX_ERROR_INFO;
    conn->peer.so_keepalive = 1;

    redis->log.action = "connecting to policy store";

    /* a failure is logged once, with what follows from it, in _away() */

    level = redis->log.log_level;
    redis->log.log_level = ngx_min(level, NGX_LOG_ALERT);

    ngx_set_socket_errno(0);
    rc = ngx_event_connect_peer(&conn->peer);
    err = ngx_socket_errno;

    redis->log.log_level = level;

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
    ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_PATIENCE);

    conn->reader = ngx_mail_policy_redis_reader_create();
    if (conn->reader == NULL) {
        ngx_mail_policy_redis_down(conn, NGX_ENOMEM, "no memory");
        return;
    }

    if (rc == NGX_OK) {
        (void) ngx_mail_policy_redis_connected(conn);
    }
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

    if (ngx_tcp_nodelay(c) != NGX_OK
        || ngx_mail_policy_redis_greet(conn) != NGX_OK)
    {
        ngx_mail_policy_redis_down(conn, 0, "connect failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
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

    if (conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING
        && ngx_mail_policy_redis_connected(conn) != NGX_OK)
    {
        return;
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


static void
ngx_mail_policy_redis_write_handler(ngx_event_t *wev)
{
    ngx_connection_t              *c;
    ngx_mail_policy_redis_conn_t  *conn;

    c = wev->data;
    conn = c->data;

    if (conn->state == NGX_MAIL_POLICY_REDIS_CONNECTING
        && ngx_mail_policy_redis_connected(conn) != NGX_OK)
    {
        return;
    }

    if (ngx_mail_policy_redis_flush(conn) == NGX_ERROR
        || ngx_handle_write_event(wev, 0) != NGX_OK)
    {
        ngx_mail_policy_redis_down(conn, ngx_socket_errno,
                                   "the connection was lost");
    }
}


static void
ngx_mail_policy_redis_timer_handler(ngx_event_t *ev)
{
    ngx_mail_policy_redis_conn_t  *conn;

    conn = ev->data;

    if (conn->state == NGX_MAIL_POLICY_REDIS_DOWN) {
        ngx_mail_policy_redis_connect(conn);
        return;
    }

    ngx_mail_policy_redis_down(conn, NGX_ETIMEDOUT, "no answer");
}


/* NGX_ERROR: the connection is gone */

static ngx_int_t
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
    ngx_int_t                         rc;
    ngx_uint_t                        reconnect;
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_request_t  *request;

    static ngx_str_t  unexpected = ngx_string("an answer is not as expected");

    if (ngx_queue_empty(&conn->requests)) {
        ngx_mail_policy_redis_down(conn, 0, "an answer to no question");
        return NGX_ERROR;
    }

    q = ngx_queue_head(&conn->requests);
    ngx_queue_remove(q);
    request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {
        reconnect = ngx_mail_policy_redis_error(conn, reply);

    } else {
        reconnect = 0;
        ngx_mail_policy_redis_why(conn, &unexpected);

        if (reply->type == NGX_MAIL_POLICY_REDIS_ARRAY
            && (request->writes || !conn->redis->doubtful))
        {
            /* it not only says that it is there, but works */
            conn->backoff = NGX_MAIL_POLICY_REDIS_BACKOFF;
            conn->redis->doubtful = 0;
            ngx_mail_policy_redis_back(conn->redis);
        }
    }

    rc = request->handler(request, reply);

    if (rc == NGX_AGAIN
        && ngx_mail_policy_redis_push(conn, request) == NGX_OK)
    {
        return NGX_OK;
    }

    ngx_mail_policy_redis_orphan(request);
    ngx_mail_policy_redis_request_free(request);

    if (rc == NGX_ERROR || reconnect) {
        ngx_mail_policy_redis_down(conn, 0, (char *) conn->why);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* 1: this connection is of no use any more */

static ngx_uint_t
ngx_mail_policy_redis_error(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_uint_t                i;
    ngx_mail_policy_redis_t  *redis;

    ngx_mail_policy_redis_why(conn, &reply->str);

    if (ngx_mail_policy_redis_is_error(reply, "NOSCRIPT")) {
        /* an answer as others: the script has to be sent */
        return 0;
    }

    redis = conn->redis;

    if (conn->state != NGX_MAIL_POLICY_REDIS_GREETING
        && redis->complained != ngx_time())
    {
        redis->complained = ngx_time();

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "policy store %V answers: %s", &redis->name, conn->why);
    }

    for (i = 0; ngx_mail_policy_redis_reconnect[i]; i++) {
        if (ngx_mail_policy_redis_is_error(reply,
                                           ngx_mail_policy_redis_reconnect[i]))
        {
            redis->doubtful = 1;
            return 1;
        }
    }

    return 0;
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


/*
 * Keeps a text for the log.  Redis repeats the arguments of a command that
 * it does not know: there may be a password among them.
 */

static void
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


void
ngx_mail_policy_redis_up(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    conn->state = NGX_MAIL_POLICY_REDIS_UP;
    redis->nup++;

    ngx_del_timer(&conn->timer);

    ngx_mail_policy_redis_back(redis);
}


/*
 * One that answers PING, but refused to work, is not back until it works: a
 * replica would be away and back with every connection.
 */

static void
ngx_mail_policy_redis_back(ngx_mail_policy_redis_t *redis)
{
    if (!redis->away || redis->doubtful || redis->nup == 0) {
        return;
    }

    redis->away = 0;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "policy store %V is back", &redis->name);
}


ngx_uint_t
ngx_mail_policy_redis_busy(ngx_mail_policy_redis_t *redis)
{
    ngx_uint_t  i;

    for (i = 0; redis->conns && i < redis->nconns; i++) {
        if (!ngx_queue_empty(&redis->conns[i].requests)) {
            return 1;
        }
    }

    return 0;
}


void
ngx_mail_policy_redis_slow(ngx_mail_policy_redis_conn_t *conn)
{
    ngx_uint_t                i;
    ngx_queue_t              *q;
    ngx_mail_policy_redis_t  *redis;

    redis = conn->redis;

    for (q = ngx_queue_head(&conn->requests);
         q != ngx_queue_sentinel(&conn->requests);
         q = ngx_queue_next(q))
    {
        ngx_mail_policy_redis_orphan(
                 ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue));
    }

    /*
     * The same server is behind all of them.  What was asked of the others
     * keeps its deadline, but nobody else shall wait to learn the same.
     */

    for (i = 0; i < redis->nconns; i++) {
        ngx_mail_policy_redis_suspect(&redis->conns[i]);
    }
}


/* it is used again when it has answered a PING */

static void
ngx_mail_policy_redis_suspect(ngx_mail_policy_redis_conn_t *conn)
{
    if (conn->state != NGX_MAIL_POLICY_REDIS_UP) {
        return;
    }

    conn->state = NGX_MAIL_POLICY_REDIS_SLOW;
    conn->redis->nup--;

    if (conn->redis->nup == 0) {
        ngx_mail_policy_redis_away(conn->redis, 0, "no answer in time");
    }

    ngx_add_timer(&conn->timer, NGX_MAIL_POLICY_REDIS_PATIENCE);

    if (ngx_mail_policy_redis_ping(conn) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "no memory");
    }
}


static void
ngx_mail_policy_redis_down(ngx_mail_policy_redis_conn_t *conn, ngx_err_t err,
    const char *why)
{
    ngx_msec_t                        delay;
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_t          *redis;
    ngx_mail_policy_redis_request_t  *request;

    redis = conn->redis;

    if (conn->state == NGX_MAIL_POLICY_REDIS_UP) {
        redis->nup--;
    }

    conn->state = NGX_MAIL_POLICY_REDIS_DOWN;

    if (conn->timer.timer_set) {
        ngx_del_timer(&conn->timer);
    }

    if (conn->peer.connection) {
        ngx_close_connection(conn->peer.connection);
        conn->peer.connection = NULL;
    }

    if (conn->reader) {
        ngx_mail_policy_redis_reader_free(conn->reader);
        conn->reader = NULL;
    }

    ngx_mail_policy_redis_discard(conn);

    if (redis->nup == 0) {
        ngx_mail_policy_redis_away(redis, err, why);
    }

    while (!ngx_queue_empty(&conn->requests)) {
        q = ngx_queue_head(&conn->requests);
        ngx_queue_remove(q);

        request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

        ngx_mail_policy_redis_orphan(request);
        ngx_mail_policy_redis_request_free(request);
    }

    if (redis->closing) {
        return;
    }

    /* edges that lost the same Redis must not all come back at once */

    delay = conn->backoff + ngx_random() % (conn->backoff / 2);
    conn->backoff = ngx_min(conn->backoff * 2,
                            NGX_MAIL_POLICY_REDIS_BACKOFF_MAX);

    ngx_add_timer(&conn->timer, delay);
}


static void
ngx_mail_policy_redis_away(ngx_mail_policy_redis_t *redis, ngx_err_t err,
    const char *why)
{
    if (redis->away || redis->closing) {
        return;
    }

    redis->away = 1;

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, err,
                  "policy store %V is away: %s, %s", &redis->name, why,
                  redis->meanwhile);
}


/* tells the owner that there will be no answer */

static void
ngx_mail_policy_redis_orphan(ngx_mail_policy_redis_request_t *request)
{
    void  *data;

    data = request->data;

    if (data) {
        request->data = NULL;
        request->done(data, NGX_ERROR);
    }
}


static u_char *
ngx_mail_policy_redis_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                   *p;
    ngx_mail_policy_redis_t  *redis;

    p = buf;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
    }

    redis = log->data;

    return ngx_snprintf(p, len, " %V", &redis->name);
}
