
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The dialogue with one relay: connection, queue of commands, replies.
 *
 *   open -> CONNECT -> GREETING -> EHLO [-> XCLIENT -> EHLO] -> MAIL (ready)
 *                                                    (set-up: ..._setup.c)
 *
 * Ready, commands go waiting -> sent -> reply().  DATA's 354, or chunks(),
 * begins the body, which is written straight from the owner's buffer; final()
 * ends it.
 *
 * Events: connected and readable may arrive in one loop turn, the read event
 * first, so both handlers begin with test_connect().  Timers: on the write
 * event while connecting or while output waits; on the read event while a
 * reply is due.
 *
 * All failures meet in fail(): it posts an event, whose handler tells the
 * owner.  free() is called by close() alone, put off while a handler of ours
 * is on the stack (busy).
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_keep.h"
#include "ngx_mail_policy_metrics.h"


#define NGX_MAIL_POLICY_RELAY_LINGER   5000     /* for the reply to QUIT */

/* RFC 5321, section 4.5.3.2.4: what it takes until 354 */
#define NGX_MAIL_POLICY_RELAY_DATA_TIMEOUT  120000


static void ngx_mail_policy_relay_failure_handler(ngx_event_t *ev);
static void ngx_mail_policy_relay_shutdown(ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_test_connect(
    ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_read(ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_replies(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_write(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_leave(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_free(ngx_mail_policy_relay_t *relay);
static u_char *ngx_mail_policy_relay_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


ngx_mail_policy_relay_t *
ngx_mail_policy_relay_open(const ngx_mail_policy_relay_conf_t *conf,
    ngx_mail_policy_peer_t *peer, ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data)
{
    ngx_int_t                 rc;
    ngx_pool_t               *pool;
    ngx_connection_t         *c;
    ngx_mail_policy_relay_t  *relay;

    pool = ngx_create_pool(1024, conf->log);
    if (pool == NULL) {
        return NULL;
    }

    relay = ngx_pcalloc(pool, sizeof(ngx_mail_policy_relay_t));
    if (relay == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    relay->pool = pool;
    relay->conf = conf;
    relay->peer = peer;
    relay->envelope = envelope;
    relay->handlers = handlers;
    relay->data = data;

    relay->log = *conf->log;
    relay->log.handler = ngx_mail_policy_relay_log_error;
    relay->log.data = relay;
    relay->log.action = "connecting to relay";
    pool->log = &relay->log;

    relay->failure.handler = ngx_mail_policy_relay_failure_handler;
    relay->failure.data = relay;
    relay->failure.log = &relay->log;

    ngx_queue_init(&relay->waiting);
    ngx_queue_init(&relay->sent);
    ngx_queue_init(&relay->free);

    relay->pc.sockaddr = peer->sockaddr;
    relay->pc.socklen = peer->socklen;
    relay->pc.name = &peer->name;
    relay->pc.get = ngx_event_get_peer;
    relay->pc.log = &relay->log;
    relay->pc.log_error = NGX_ERROR_ERR;

    rc = ngx_mail_policy_relay_bind(relay);

    if (rc == NGX_OK) {
        rc = ngx_event_connect_peer(&relay->pc);
    }

    if (rc == NGX_ERROR) {

        /* no descriptor, no free connection: any other relay would fail, too */

        ngx_mail_policy_relay_fail_as(relay,
                                      NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no connection can be made");
        return relay;
    }

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        ngx_mail_policy_relay_fail(relay, "connect failed");
        return relay;
    }

    c = relay->pc.connection;
    c->data = relay;
    c->pool = pool;
    c->log = &relay->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_mail_policy_relay_read_handler;
    c->write->handler = ngx_mail_policy_relay_write_handler;

    ngx_add_timer(c->write, conf->connect_timeout);

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return relay;
}


ngx_uint_t
ngx_mail_policy_relay_reusable(ngx_mail_policy_relay_t *relay)
{
    if (relay->failing || relay->closed || relay->in_body || relay->spent) {
        return 0;
    }

    /*
     * What nobody has asked for would be taken for the reply to MAIL.  At
     * set-up a reply is due.  In a callback its own reply is there still.
     */

    if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL
        && ngx_queue_empty(&relay->sent)
        && (relay->in_pos < relay->in_len
            || ngx_mail_policy_relay_heard(relay)))
    {
        return 0;
    }

    /* RFC 9422: a relay may say how many transactions it takes */

    return relay->ehlo.mailmax == 0 || relay->mails < relay->ehlo.mailmax;
}


ngx_uint_t
ngx_mail_policy_relay_stale(ngx_mail_policy_relay_t *relay)
{
    return relay->reused && relay->cause != NGX_MAIL_POLICY_RELAY_TIMEOUT
           && relay->cause != NGX_MAIL_POLICY_RELAY_OURSELVES;
}


void
ngx_mail_policy_relay_quit(ngx_mail_policy_relay_t *relay)
{
    if (relay->failing || relay->stage != NGX_MAIL_POLICY_RELAY_MAIL
        || relay->in_body || relay->outstanding)
    {
        ngx_mail_policy_relay_close(relay);
        return;
    }

    relay->handlers = NULL;
    relay->envelope = NULL;
    relay->stage = NGX_MAIL_POLICY_RELAY_QUIT;

    ngx_mail_policy_relay_rest(relay);

    /* what waits to be sent has an owner that may be gone by then */

    if (ngx_mail_policy_relay_rset(relay) != NGX_OK
        || ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_QUIT,
                                         NULL, NULL)
           != NGX_OK)
    {
        ngx_mail_policy_relay_close(relay);
        return;
    }
}


void
ngx_mail_policy_relay_rest(ngx_mail_policy_relay_t *relay)
{
    if (!relay->resting) {
        relay->resting = 1;
        ngx_mail_policy_peer_rest(relay->peer);
    }
}


void
ngx_mail_policy_relay_close(ngx_mail_policy_relay_t *relay)
{
    relay->closed = 1;
    relay->handlers = NULL;
    relay->envelope = NULL;

    if (!relay->busy) {
        ngx_mail_policy_relay_free(relay);
    }
}


/*
 * A worker is told to go, and calls each connection that is idle, outside of
 * the event loop: QUIT goes out now, and the wait for its reply holds the
 * worker, which would leave with the last timer.
 */

static void
ngx_mail_policy_relay_shutdown(ngx_mail_policy_relay_t *relay)
{
    ngx_event_t  *wev;

    wev = relay->pc.connection->write;
    relay->pc.connection->close = 0;

    ngx_mail_policy_keep_remove(relay);
    ngx_mail_policy_relay_quit(relay);

    if (relay->closed) {
        return;
    }

    ngx_mail_policy_relay_write(relay);

    if (relay->failing) {

        /* nor would it stay for what is posted */

        ngx_mail_policy_relay_close(relay);
        return;
    }

    /* or the wait would begin anew with the next event of anybody's */

    if (wev->posted) {
        ngx_delete_posted_event(wev);
    }
}


/* the read event comes first when both are there: connect errors as well */

void
ngx_mail_policy_relay_read_handler(ngx_event_t *rev)
{
    ngx_connection_t         *c;
    ngx_mail_policy_relay_t  *relay;

    c = rev->data;
    relay = c->data;

    relay->busy = 1;

    if (c->close && relay->kept) {
        ngx_mail_policy_relay_shutdown(relay);

    } else if (c->close) {
        ngx_mail_policy_relay_fail_as(relay,
                                      NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "worker is shutting down");

    } else if (rev->timedout) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_TIMEOUT,
                                      "relay timed out");

    } else if (relay->stage != NGX_MAIL_POLICY_RELAY_CONNECT
               || ngx_mail_policy_relay_test_connect(relay) == NGX_OK)
    {
        ngx_mail_policy_relay_read(relay);
    }

    ngx_mail_policy_relay_leave(relay);
}


void
ngx_mail_policy_relay_write_handler(ngx_event_t *wev)
{
    ngx_connection_t         *c;
    ngx_mail_policy_relay_t  *relay;

    c = wev->data;
    relay = c->data;

    relay->busy = 1;

    if (wev->timedout) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_TIMEOUT,
                                      "relay timed out");

    } else if (relay->stage != NGX_MAIL_POLICY_RELAY_CONNECT) {
        ngx_mail_policy_relay_write(relay);

    } else if (ngx_mail_policy_relay_test_connect(relay) == NGX_OK
               && c->read->ready)
    {
        /* the read event came first and was put off */
        ngx_post_event(c->read, &ngx_posted_events);
    }

    ngx_mail_policy_relay_leave(relay);
}


static void
ngx_mail_policy_relay_failure_handler(ngx_event_t *ev)
{
    ngx_queue_t                        *q;
    ngx_mail_policy_relay_t            *relay;
    ngx_mail_policy_relay_stage_e       stage;
    ngx_mail_policy_relay_command_t    *cmd;
    ngx_mail_policy_relay_handlers_t   *handlers;

    relay = ev->data;
    handlers = relay->handlers;

    if (handlers == NULL) {
        ngx_mail_policy_relay_close(relay);
        return;
    }

    stage = relay->stage;

    if (stage == NGX_MAIL_POLICY_RELAY_MAIL) {

        q = !ngx_queue_empty(&relay->sent) ? ngx_queue_head(&relay->sent)
            : !ngx_queue_empty(&relay->waiting)
              ? ngx_queue_head(&relay->waiting) : NULL;

        if (q) {
            cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);
            stage = cmd->stage;
        }

        if (relay->in_body) {
            stage = NGX_MAIL_POLICY_RELAY_BODY;
        }
    }

    relay->busy = 1;

    handlers->failed(relay->data, stage);

    ngx_mail_policy_relay_leave(relay);
}


static ngx_int_t
ngx_mail_policy_relay_test_connect(ngx_mail_policy_relay_t *relay)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    if (relay->failing) {
        return NGX_ERROR;
    }

    c = relay->pc.connection;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        ngx_log_error(NGX_LOG_ERR, c->log, err, "connect() failed");
        ngx_mail_policy_relay_fail(relay, "connect failed");
        return NGX_ERROR;
    }

    /* a read event may come before the connection stands: no peer yet */

    if (!c->write->ready) {
        return NGX_AGAIN;
    }

    if (ngx_tcp_nodelay(c) != NGX_OK) {
        ngx_mail_policy_relay_fail(relay, "no TCP_NODELAY");
        return NGX_ERROR;
    }

    ngx_mail_policy_metrics_add(ngx_mail_policy_peer_counters(relay->peer)
                                + NGX_MAIL_POLICY_METRIC_PEER_CONNECTS, 1);

    if (ngx_mail_policy_relay_connected(relay) != NGX_OK) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no memory");
        return NGX_ERROR;
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    ngx_mail_policy_relay_timers(relay);

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_policy_relay_fail(relay, "no read event");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_relay_read(ngx_mail_policy_relay_t *relay)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = relay->pc.connection;

    while (!relay->failing && !relay->closed) {

        /* from here on it is OpenSSL that reads */

        if (relay->stage == NGX_MAIL_POLICY_RELAY_TLS) {
            return;
        }

        if (relay->in_len == NGX_MAIL_POLICY_RELAY_BUFFER) {
            ngx_mail_policy_relay_fail_as(relay,
                                          NGX_MAIL_POLICY_RELAY_INVALID,
                                          "relay sent too long a reply");
            return;
        }

        n = c->recv(c, relay->in + relay->in_len,
                    NGX_MAIL_POLICY_RELAY_BUFFER - relay->in_len);

        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
                ngx_mail_policy_relay_fail(relay, "no read event");
            }

            return;
        }

        if (n == NGX_ERROR || n == 0) {
            ngx_mail_policy_relay_fail(relay,
                                       "relay prematurely closed connection");
            return;
        }

        relay->in_len += n;

        if (ngx_mail_policy_relay_replies(relay) != NGX_OK) {
            return;
        }
    }
}


/* NGX_OK, or NGX_ERROR: the relay failed or was closed */

static ngx_int_t
ngx_mail_policy_relay_replies(ngx_mail_policy_relay_t *relay)
{
    int           n;
    size_t        pos;
    mpol_reply_t  reply;

    pos = 0;

    for ( ;; ) {
        n = mpol_reply_parse(relay->in + pos, relay->in_len - pos, &reply);

        if (n == MPOL_AGAIN) {
            break;
        }

        if (n == MPOL_BAD) {
            ngx_mail_policy_relay_fail_as(relay,
                                          NGX_MAIL_POLICY_RELAY_INVALID,
                                          "relay sent an invalid reply");
            return NGX_ERROR;
        }

        relay->in_pos = pos + n;

        if (relay->stage < NGX_MAIL_POLICY_RELAY_MAIL) {

            /* one command at a time: nothing may follow its reply */

            if ((size_t) n < relay->in_len) {
                ngx_mail_policy_relay_fail_as(relay,
                                           NGX_MAIL_POLICY_RELAY_INVALID,
                                           "relay sent an unexpected reply");
                return NGX_ERROR;
            }

            if (ngx_mail_policy_relay_setup(relay, &reply) != NGX_OK) {
                relay->refusal = reply;
                ngx_mail_policy_relay_fail_as(relay,
                                   reply.code == 421
                                   ? NGX_MAIL_POLICY_RELAY_CLOSING
                                   : reply.code >= 400
                                     ? NGX_MAIL_POLICY_RELAY_REFUSED
                                     : NGX_MAIL_POLICY_RELAY_INVALID,
                                   "relay refused the set-up");
                return NGX_ERROR;
            }

            ngx_mail_policy_relay_timers(relay);

            if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL
                && relay->handlers && relay->handlers->ready)
            {
                relay->handlers->ready(relay->data);
            }

        } else {
            ngx_mail_policy_relay_reply(relay, &reply);
        }

        if (relay->failing || relay->closed) {
            return NGX_ERROR;
        }

        pos += n;
    }

    relay->in_pos = 0;
    relay->in_len -= pos;
    ngx_memmove(relay->in, relay->in + pos, relay->in_len);

    return NGX_OK;
}


static void
ngx_mail_policy_relay_write(ngx_mail_policy_relay_t *relay)
{
    if (relay->failing) {
        return;
    }

    if (relay->stage >= NGX_MAIL_POLICY_RELAY_MAIL && !relay->in_body
        && ngx_mail_policy_relay_send_commands(relay) != NGX_OK)
    {
        return;
    }

    if (ngx_mail_policy_relay_flush(relay) != NGX_OK) {
        return;
    }

    if (relay->stage == NGX_MAIL_POLICY_RELAY_TLS) {
        ngx_mail_policy_relay_tls(relay);
        return;
    }

    if (!relay->blocked || !relay->pc.connection->write->ready
        || relay->handlers == NULL)
    {
        ngx_mail_policy_relay_timers(relay);
        return;
    }

    relay->blocked = 0;
    mpol_pace_spent(&relay->pace, ngx_current_msec - relay->blocked_since);

    ngx_mail_policy_relay_timers(relay);

    relay->handlers->writable(relay->data);
}


/* one deadline a wait: what is due decides, not what happens to arrive */

void
ngx_mail_policy_relay_timers(ngx_mail_policy_relay_t *relay)
{
    ngx_queue_t                      *q;
    ngx_msec_t                        timeout;
    ngx_connection_t                 *c;
    ngx_mail_policy_relay_command_t  *cmd;

    if (relay->failing) {
        return;
    }

    c = relay->pc.connection;

    timeout = (relay->stage == NGX_MAIL_POLICY_RELAY_QUIT)
              ? NGX_MAIL_POLICY_RELAY_LINGER
              : (relay->stage == NGX_MAIL_POLICY_RELAY_TLS)
                ? relay->conf->connect_timeout : relay->conf->reply_timeout;

    if (relay->blocked) {

        /* octets that it takes now and then do not begin the wait anew */

        ngx_add_timer(c->write, (ngx_msec_t) relay->pace.left);

    } else if (relay->out_sent < relay->out_len) {
        ngx_add_timer(c->write, timeout);

    } else if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL) {

        if (ngx_queue_empty(&relay->sent)) {
            timeout = relay->listening ? timeout : 0;

        } else {
            q = ngx_queue_head(&relay->sent);
            cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

            if (cmd->stage == NGX_MAIL_POLICY_RELAY_FINAL) {
                timeout = relay->conf->final_timeout;

            } else if (cmd->stage == NGX_MAIL_POLICY_RELAY_DATA) {
                timeout = ngx_min(timeout, NGX_MAIL_POLICY_RELAY_DATA_TIMEOUT);
            }
        }
    }

    if (timeout) {
        ngx_add_timer(c->read, timeout);

    } else if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }
}


void
ngx_mail_policy_relay_fail(ngx_mail_policy_relay_t *relay, const char *why)
{
    ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_ERROR, why);
}


void
ngx_mail_policy_relay_fail_as(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_cause_e cause, const char *why)
{
    ngx_uint_t  level;

    if (relay->failing) {
        return;
    }

    relay->failing = 1;
    relay->cause = cause;

    if (relay->handlers) {

        /*
         * A relay may close a connection that it has nothing to do on; a
         * wrong password is its client's fault.
         */

        level = (relay->kept || relay->declined
                 || ngx_mail_policy_relay_stale(relay)
                 || (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL
                     && !relay->in_transaction
                     && ngx_queue_empty(&relay->sent)
                     && ngx_queue_empty(&relay->waiting)))
                ? NGX_LOG_INFO : NGX_LOG_ERR;

        ngx_log_error(level, &relay->log, 0, "%s", why);
    }

    ngx_post_event(&relay->failure, &ngx_posted_events);
}


static void
ngx_mail_policy_relay_leave(ngx_mail_policy_relay_t *relay)
{
    relay->busy = 0;

    if (relay->closed) {
        ngx_mail_policy_relay_free(relay);
    }
}


static void
ngx_mail_policy_relay_free(ngx_mail_policy_relay_t *relay)
{
    ngx_connection_t  *c;

    if (relay->failure.posted) {
        ngx_delete_posted_event(&relay->failure);
    }

    if (relay->idle.timer_set) {
        ngx_del_timer(&relay->idle);
    }

    if (relay->identity.data) {
        ngx_free(relay->identity.data);
    }

    c = relay->pc.connection;

    if (c) {

        if (c->ssl) {
            ngx_mail_policy_tls_close(c, relay->stage
                                         == NGX_MAIL_POLICY_RELAY_QUIT);
        }

        ngx_close_connection(c);
    }

    ngx_mail_policy_relay_auth_free(relay);
    ngx_mail_policy_relay_output_free(relay);

    ngx_mail_policy_relay_rest(relay);
    ngx_mail_policy_peer_unref(relay->peer);

    ngx_destroy_pool(relay->pool);
}


static u_char *
ngx_mail_policy_relay_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                   *p;
    ngx_mail_policy_relay_t  *relay;

    relay = log->data;
    p = buf;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    p = ngx_snprintf(buf, len, ", relay: %V", &relay->peer->name);
    len -= p - buf;
    buf = p;

    if (relay->envelope) {
        p = ngx_snprintf(buf, len, ", client: %V",
                         &relay->envelope->connection->addr_text);
    }

    return p;
}
