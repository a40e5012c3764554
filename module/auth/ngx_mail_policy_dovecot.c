
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The connection to Dovecot.
 *
 *     DOWN --a request--> CONNECTING --connected--> GREETING --DONE--> UP
 *      ^                      |                         |              |
 *      \--- lost, refused, no end of the greeting in 5 s, nonsense ----/
 *
 * Events: read and write of the socket, and one timer, which is the patience
 * until it is UP, and then how long it is used.  The timer is cancelable, and
 * a connection does not hold up a graceful shutdown.
 *
 * Both sides greet at once, and Dovecot may wait for our greeting before it
 * ends its own.  Version 1.2 is the last one in which a mechanism with
 * channel binding does not have to be understood.
 *
 * Each way to DOWN goes through ..._down(), which tells all who wait, or
 * ..._close(); then ..._free() is the last, for one that is not current.
 * When a connection could not be made the next attempt is not before its
 * backoff; when one is lost that was UP, it is the next login's.  A worker
 * that is to end closes it as soon as nobody waits.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_dovecot.h"


#define NGX_MAIL_POLICY_DOVECOT_PATIENCE     5000
#define NGX_MAIL_POLICY_DOVECOT_AGE          10000
#define NGX_MAIL_POLICY_DOVECOT_BACKOFF_MAX  2000

#define NGX_MAIL_POLICY_DOVECOT_MAJOR        1

#define NGX_MAIL_POLICY_DOVECOT_GREETING_TEXT                                 \
    "VERSION\t1\t2\nCPID\t%P\n"


static void ngx_mail_policy_dovecot_writer(ngx_log_t *log, ngx_uint_t level,
    u_char *buf, size_t len);
static ngx_int_t ngx_mail_policy_dovecot_connected(
    ngx_mail_policy_dovecot_t *dovecot);
static void ngx_mail_policy_dovecot_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_dovecot_write_handler(ngx_event_t *wev);
static void ngx_mail_policy_dovecot_timer_handler(ngx_event_t *ev);
static ngx_int_t ngx_mail_policy_dovecot_lines(
    ngx_mail_policy_dovecot_t *dovecot);
static const char *ngx_mail_policy_dovecot_line(
    ngx_mail_policy_dovecot_t *dovecot, u_char *p, size_t len);
static const char *ngx_mail_policy_dovecot_handshake(
    ngx_mail_policy_dovecot_t *dovecot, mpol_dovecot_line_t *line);
static void ngx_mail_policy_dovecot_up(ngx_mail_policy_dovecot_t *dovecot);


ngx_int_t
ngx_mail_policy_dovecot_connect(ngx_mail_policy_dovecot_t *dovecot)
{
    ngx_int_t               rc;
    ngx_err_t               err;
    ngx_log_t               quiet;
    ngx_connection_t       *c;
    ngx_peer_connection_t  *peer;

    peer = &dovecot->peer;

    ngx_memzero(peer, sizeof(ngx_peer_connection_t));

    dovecot->log = *ngx_cycle->log;
    dovecot->log.action = "talking to Dovecot";

    peer->sockaddr = dovecot->sockaddr;
    peer->socklen = dovecot->socklen;
    peer->name = &dovecot->name;
    peer->get = ngx_event_get_peer;
    peer->log = &quiet;
    peer->log_error = NGX_ERROR_INFO;

    /* a failure is logged once, with what follows from it */

    quiet = dovecot->log;
    quiet.writer = ngx_mail_policy_dovecot_writer;
    quiet.next = NULL;

    ngx_set_socket_errno(0);
    rc = ngx_event_connect_peer(peer);
    err = ngx_socket_errno;

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        peer->connection = NULL;
        ngx_mail_policy_dovecot_down(dovecot, err, "connect failed");
        return NGX_ERROR;
    }

    c = peer->connection;

    peer->log = &dovecot->log;

    c->log = &dovecot->log;
    c->read->log = &dovecot->log;
    c->write->log = &dovecot->log;

    c->data = dovecot;
    c->read->handler = ngx_mail_policy_dovecot_read_handler;
    c->write->handler = ngx_mail_policy_dovecot_write_handler;

    dovecot->state = NGX_MAIL_POLICY_DOVECOT_CONNECTING;
    dovecot->version = 0;
    dovecot->methods = 0;
    dovecot->len = 0;

    ngx_mail_policy_dovecot_number(dovecot);

    dovecot->timer.handler = ngx_mail_policy_dovecot_timer_handler;
    dovecot->timer.data = dovecot;
    dovecot->timer.log = &dovecot->log;
    dovecot->timer.cancelable = 1;

    ngx_add_timer(&dovecot->timer, NGX_MAIL_POLICY_DOVECOT_PATIENCE);

    dovecot->in = ngx_alloc(MPOL_DOVECOT_LINE, &dovecot->log);
    if (dovecot->in == NULL) {
        ngx_mail_policy_dovecot_down(dovecot, NGX_ENOMEM, "no memory");
        return NGX_ERROR;
    }

    return (rc == NGX_OK) ? ngx_mail_policy_dovecot_connected(dovecot)
                          : NGX_OK;
}


static void
ngx_mail_policy_dovecot_writer(ngx_log_t *log, ngx_uint_t level, u_char *buf,
    size_t len)
{
    if (level <= NGX_LOG_ALERT) {
        ngx_log_error(level, ngx_cycle->log, 0, "%*s", len, buf);
    }
}


/* NGX_ERROR: the connection is gone */

static ngx_int_t
ngx_mail_policy_dovecot_connected(ngx_mail_policy_dovecot_t *dovecot)
{
    int                err;
    u_char             greeting[sizeof(NGX_MAIL_POLICY_DOVECOT_GREETING_TEXT)
                                + NGX_INT64_LEN];
    size_t             len;
    socklen_t          socklen;
    ngx_connection_t  *c;

    c = dovecot->peer.connection;

    err = 0;
    socklen = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &socklen)
        == -1)
    {
        err = ngx_socket_errno;
    }

    if (err) {
        ngx_mail_policy_dovecot_down(dovecot, err, "connect failed");
        return NGX_ERROR;
    }

    dovecot->state = NGX_MAIL_POLICY_DOVECOT_GREETING;

    len = ngx_sprintf(greeting, NGX_MAIL_POLICY_DOVECOT_GREETING_TEXT,
                      ngx_pid)
          - greeting;

    if (ngx_mail_policy_dovecot_push(dovecot, greeting, len) != NGX_OK) {
        ngx_mail_policy_dovecot_down(dovecot, NGX_ENOMEM, "no memory");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_dovecot_read_handler(ngx_event_t *rev)
{
    ssize_t                     n;
    ngx_connection_t           *c;
    ngx_mail_policy_dovecot_t  *dovecot;

    c = rev->data;
    dovecot = c->data;

    if (c->close) {

        /*
         * The worker is to end, or the connection is old.  If somebody waits
         * they are told first; with worker_shutdown_timeout their sessions
         * are cut in their own time, and exit() closes.
         */

        c->close = 0;
        c->error = 0;

        if (dovecot->nrequests == 0) {
            ngx_mail_policy_dovecot_close(dovecot);
            ngx_mail_policy_dovecot_free(dovecot);
            return;
        }

        /* there may be something to read, too */
    }

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_CONNECTING
        && ngx_mail_policy_dovecot_connected(dovecot) != NGX_OK)
    {
        return;
    }

    for ( ;; ) {

        n = c->recv(c, dovecot->in + dovecot->len,
                    MPOL_DOVECOT_LINE - dovecot->len);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == 0) {
            ngx_mail_policy_dovecot_down(dovecot, 0,
                                         "it closed the connection");
            return;
        }

        if (n == NGX_ERROR) {
            ngx_mail_policy_dovecot_down(dovecot, ngx_socket_errno,
                                         "the connection was lost");
            return;
        }

        dovecot->len += n;
        dovecot->heard = ngx_current_msec;

        if (ngx_mail_policy_dovecot_lines(dovecot) != NGX_OK) {
            return;
        }
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_mail_policy_dovecot_down(dovecot, 0, "the connection was lost");
    }
}


static void
ngx_mail_policy_dovecot_write_handler(ngx_event_t *wev)
{
    ngx_connection_t           *c;
    ngx_mail_policy_dovecot_t  *dovecot;

    c = wev->data;
    dovecot = c->data;

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_CONNECTING
        && ngx_mail_policy_dovecot_connected(dovecot) != NGX_OK)
    {
        return;
    }

    if (ngx_mail_policy_dovecot_flush(dovecot) == NGX_ERROR
        || ngx_handle_write_event(wev, 0) != NGX_OK)
    {
        ngx_mail_policy_dovecot_down(dovecot, ngx_socket_errno,
                                     "the connection was lost");
    }
}


static void
ngx_mail_policy_dovecot_timer_handler(ngx_event_t *ev)
{
    ngx_mail_policy_dovecot_t  *dovecot;

    dovecot = ev->data;

    if (dovecot->state != NGX_MAIL_POLICY_DOVECOT_UP) {
        ngx_mail_policy_dovecot_down(dovecot, NGX_ETIMEDOUT,
                                     "it does not greet");
        return;
    }

    dovecot->old = 1;

    if (dovecot->nrequests == 0) {
        ngx_mail_policy_dovecot_close(dovecot);
        ngx_mail_policy_dovecot_free(dovecot);
    }
}


/* NGX_ERROR: this connection is gone */

static ngx_int_t
ngx_mail_policy_dovecot_lines(ngx_mail_policy_dovecot_t *dovecot)
{
    u_char            *p, *last, *lf;
    const char        *why;
    ngx_connection_t  *c;

    c = dovecot->peer.connection;

    p = dovecot->in;
    last = p + dovecot->len;

    for ( ;; ) {

        lf = ngx_strlchr(p, last, LF);

        if (lf == NULL) {
            break;
        }

        why = ngx_mail_policy_dovecot_line(dovecot, p, lf - p);

        if (dovecot->peer.connection != c) {
            return NGX_ERROR;
        }

        if (why) {
            ngx_mail_policy_dovecot_down(dovecot, 0, why);
            return NGX_ERROR;
        }

        p = lf + 1;
    }

    if (last - p == MPOL_DOVECOT_LINE) {
        ngx_mail_policy_dovecot_down(dovecot, 0, "it sent too long a line");
        return NGX_ERROR;
    }

    /* there may be a password for a relay in an answer */

    dovecot->len = last - p;

    ngx_memmove(dovecot->in, p, dovecot->len);
    ngx_explicit_memzero(dovecot->in + dovecot->len,
                         last - dovecot->in - dovecot->len);

    return NGX_OK;
}


/* NULL, or what is wrong with it */

static const char *
ngx_mail_policy_dovecot_line(ngx_mail_policy_dovecot_t *dovecot, u_char *p,
    size_t len)
{
    mpol_dovecot_line_t  line;

    if (mpol_dovecot_parse(p, len, &line) != MPOL_OK) {
        return "it sent a line that is none of the protocol";
    }

    if (dovecot->state != NGX_MAIL_POLICY_DOVECOT_UP) {
        return ngx_mail_policy_dovecot_handshake(dovecot, &line);
    }

    if (line.command >= MPOL_DOVECOT_OK
        && ngx_mail_policy_dovecot_answer(dovecot, &line) != NGX_OK)
    {
        return "it sent an answer to a request that it never had";
    }

    return NULL;
}


static const char *
ngx_mail_policy_dovecot_handshake(ngx_mail_policy_dovecot_t *dovecot,
    mpol_dovecot_line_t *line)
{
    mpol_dovecot_arg_t  arg;

    if (line->command == MPOL_DOVECOT_VERSION) {

        if (line->id != NGX_MAIL_POLICY_DOVECOT_MAJOR) {
            return "it speaks another version of the protocol than 1";
        }

        dovecot->version = 1;

        return NULL;
    }

    if (!dovecot->version) {
        return "it does not speak the protocol of its authentication clients";
    }

    switch (line->command) {

    case MPOL_DOVECOT_MECH:

        /* what follows the name is for those who choose a mechanism */

        if (mpol_dovecot_arg(&line->args, &arg)) {
            dovecot->methods |=
                   ngx_mail_policy_auth_method((u_char *) arg.whole.data,
                                               arg.whole.len);
        }

        return NULL;

    case MPOL_DOVECOT_DONE:
        ngx_mail_policy_dovecot_up(dovecot);
        return NULL;

    case MPOL_DOVECOT_OK:
    case MPOL_DOVECOT_FAIL:
    case MPOL_DOVECOT_CONT:
        return "it answers before it has greeted";

    default:
        return NULL;
    }
}


static void
ngx_mail_policy_dovecot_up(ngx_mail_policy_dovecot_t *dovecot)
{
    dovecot->state = NGX_MAIL_POLICY_DOVECOT_UP;
    dovecot->backoff = NGX_MAIL_POLICY_DOVECOT_BACKOFF;

    ngx_add_timer(&dovecot->timer, NGX_MAIL_POLICY_DOVECOT_AGE);

    if (dovecot->away) {
        dovecot->away = 0;

        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "Dovecot at %V is back", &dovecot->name);
    }

    ngx_mail_policy_dovecot_release(dovecot);
}


void
ngx_mail_policy_dovecot_down(ngx_mail_policy_dovecot_t *dovecot,
    ngx_err_t err, const char *why)
{
    ngx_uint_t  up;

    up = (dovecot->state == NGX_MAIL_POLICY_DOVECOT_UP);

    ngx_mail_policy_dovecot_close(dovecot);

    if (!up) {
        dovecot->refused = 1;
        dovecot->retry = ngx_current_msec + dovecot->backoff;
        dovecot->backoff = ngx_min(dovecot->backoff * 2,
                                   NGX_MAIL_POLICY_DOVECOT_BACKOFF_MAX);
    }

    /* that it restarts while nobody logs in is nothing to tell */

    if (ngx_mail_policy_dovecot_abandon(dovecot) == 0 || dovecot->away) {
        ngx_log_error(NGX_LOG_INFO, ngx_cycle->log, err,
                      "Dovecot at %V is away: %s", &dovecot->name, why);

    } else {
        dovecot->away = 1;

        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, err,
                      "Dovecot at %V is away: %s, logins are answered with "
                      "454", &dovecot->name, why);
    }

    ngx_mail_policy_dovecot_free(dovecot);
}


void
ngx_mail_policy_dovecot_close(ngx_mail_policy_dovecot_t *dovecot)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    dovecot->state = NGX_MAIL_POLICY_DOVECOT_DOWN;
    dovecot->refused = 0;
    dovecot->old = 0;

    if (dovecot->timer.timer_set) {
        ngx_del_timer(&dovecot->timer);
    }

    c = dovecot->peer.connection;

    if (c) {
        pool = c->pool;

        ngx_close_connection(c);
        dovecot->peer.connection = NULL;

        if (pool) {
            ngx_destroy_pool(pool);
        }
    }

    if (dovecot->in) {
        ngx_explicit_memzero(dovecot->in, MPOL_DOVECOT_LINE);
        ngx_free(dovecot->in);
        dovecot->in = NULL;
    }

    ngx_mail_policy_dovecot_discard(dovecot);
}
