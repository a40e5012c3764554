
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The dialogue with one relay: connection, queue of commands, replies.
 *
 *   open -> CONNECT -> GREETING -> EHLO [-> XCLIENT -> EHLO] -> MAIL (ready)
 *                                                    (set-up: ..._setup.c)
 *
 * Ready, commands go waiting -> sent -> reply().  DATA's 354 begins the
 * body, which is written straight from the owner's buffer; final() ends it.
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

#include "mpol_command.h"
#include "ngx_mail_policy_relay.h"


#define NGX_MAIL_POLICY_RELAY_WINDOW   128      /* commands in flight */
#define NGX_MAIL_POLICY_RELAY_LINGER   5000     /* for the reply to QUIT */


static void ngx_mail_policy_relay_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_relay_write_handler(ngx_event_t *wev);
static void ngx_mail_policy_relay_failure_handler(ngx_event_t *ev);
static ngx_int_t ngx_mail_policy_relay_test_connect(
    ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_read(ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_replies(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);
static void ngx_mail_policy_relay_write(ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_send_commands(
    ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_format(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd);
static ngx_int_t ngx_mail_policy_relay_format_mail(
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_mail_t *mail);
static ngx_int_t ngx_mail_policy_relay_flush(ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_command(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, void *tag,
    ngx_mail_policy_relay_mail_t *mail, ngx_str_t *address);
static void ngx_mail_policy_relay_timers(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_fail(ngx_mail_policy_relay_t *relay,
    const char *why);
static void ngx_mail_policy_relay_leave(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_free(ngx_mail_policy_relay_t *relay);
static u_char *ngx_mail_policy_relay_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


ngx_mail_policy_relay_t *
ngx_mail_policy_relay_open(ngx_mail_policy_relay_conf_t *conf,
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
    relay->conf = *conf;
    relay->peer = peer;
    relay->envelope = envelope;
    relay->handlers = handlers;
    relay->data = data;
    relay->start = ngx_current_msec;

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

    rc = ngx_event_connect_peer(&relay->pc);

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


ngx_int_t
ngx_mail_policy_relay_mail(ngx_mail_policy_relay_t *relay, void *tag,
    ngx_mail_policy_relay_mail_t *mail)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_MAIL,
                                         tag, mail, NULL);
}


ngx_int_t
ngx_mail_policy_relay_rcpt(ngx_mail_policy_relay_t *relay, void *tag,
    ngx_str_t *address)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_RCPT,
                                         tag, NULL, address);
}


ngx_int_t
ngx_mail_policy_relay_data(ngx_mail_policy_relay_t *relay, void *tag)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_DATA,
                                         tag, NULL, NULL);
}


size_t
ngx_mail_policy_relay_body(ngx_mail_policy_relay_t *relay, u_char *data,
    size_t len)
{
    size_t             taken;
    ssize_t            n;
    ngx_connection_t  *c;

    c = relay->pc.connection;
    taken = 0;

    if (relay->failing) {
        return 0;
    }

    c->log->action = "sending message to relay";

    while (taken < len && c->write->ready) {
        n = c->send(c, data + taken, len - taken);

        if (n == NGX_ERROR) {
            ngx_mail_policy_relay_fail(relay, "send() failed");
            return taken;
        }

        if (n == NGX_AGAIN) {
            break;
        }

        taken += n;
    }

    relay->body_sent += taken;
    relay->blocked = (taken < len);

    if (relay->blocked && ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_mail_policy_relay_fail(relay, "no write event");
        return taken;
    }

    ngx_mail_policy_relay_timers(relay);

    return taken;
}


ngx_int_t
ngx_mail_policy_relay_final(ngx_mail_policy_relay_t *relay, void *tag)
{
    ngx_mail_policy_relay_command_t  *cmd;

    if (ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_FINAL, tag,
                                      NULL, NULL)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* nothing is left to send for it */

    cmd = ngx_queue_data(ngx_queue_last(&relay->waiting),
                         ngx_mail_policy_relay_command_t, queue);
    ngx_queue_remove(&cmd->queue);
    ngx_queue_insert_tail(&relay->sent, &cmd->queue);
    relay->outstanding++;

    relay->in_body = 0;
    relay->log.action = "waiting for the relay's reply to the message";

    ngx_mail_policy_relay_timers(relay);

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_relay_rset(ngx_mail_policy_relay_t *relay)
{
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_command_t  *cmd;

    if (relay->failing) {
        return NGX_OK;
    }

    while (!ngx_queue_empty(&relay->waiting)) {
        q = ngx_queue_head(&relay->waiting);
        ngx_queue_remove(q);
        ngx_queue_insert_tail(&relay->free, q);
    }

    for (q = ngx_queue_head(&relay->sent);
         q != ngx_queue_sentinel(&relay->sent);
         q = ngx_queue_next(q))
    {
        cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);
        cmd->tag = NULL;
        cmd->mail = NULL;
    }

    if (!relay->in_transaction) {
        return NGX_OK;
    }

    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_RSET,
                                         NULL, NULL, NULL);
}


ngx_uint_t
ngx_mail_policy_relay_reusable(ngx_mail_policy_relay_t *relay)
{
    return !relay->failing && !relay->closed && !relay->in_body;
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

    if (ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_QUIT, NULL,
                                      NULL, NULL)
        != NGX_OK)
    {
        ngx_mail_policy_relay_close(relay);
        return;
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


/* the read event comes first when both are there: connect errors as well */

static void
ngx_mail_policy_relay_read_handler(ngx_event_t *rev)
{
    ngx_connection_t         *c;
    ngx_mail_policy_relay_t  *relay;

    c = rev->data;
    relay = c->data;

    relay->busy = 1;

    if (c->close) {
        ngx_mail_policy_relay_fail(relay, "worker is shutting down");

    } else if (rev->timedout) {
        ngx_mail_policy_relay_fail(relay, "relay timed out");

    } else if (relay->stage != NGX_MAIL_POLICY_RELAY_CONNECT
               || ngx_mail_policy_relay_test_connect(relay) == NGX_OK)
    {
        ngx_mail_policy_relay_read(relay);
    }

    ngx_mail_policy_relay_leave(relay);
}


static void
ngx_mail_policy_relay_write_handler(ngx_event_t *wev)
{
    ngx_connection_t         *c;
    ngx_mail_policy_relay_t  *relay;

    c = wev->data;
    relay = c->data;

    relay->busy = 1;

    if (wev->timedout) {
        ngx_mail_policy_relay_fail(relay, "relay timed out");

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

    if (c->type == SOCK_STREAM && relay->peer->sockaddr->sa_family != AF_UNIX
        && ngx_tcp_nodelay(c) != NGX_OK)
    {
        ngx_mail_policy_relay_fail(relay, "no TCP_NODELAY");
        return NGX_ERROR;
    }

    relay->stage = NGX_MAIL_POLICY_RELAY_GREETING;
    relay->log.action = "reading the relay's greeting";

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

        if (relay->in_len == NGX_MAIL_POLICY_RELAY_BUFFER) {
            ngx_mail_policy_relay_fail(relay, "relay sent too long a reply");
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
            ngx_mail_policy_relay_fail(relay, "relay sent an invalid reply");
            return NGX_ERROR;
        }

        if (relay->stage < NGX_MAIL_POLICY_RELAY_MAIL) {

            /* one command at a time: nothing may follow its reply */

            if ((size_t) n < relay->in_len) {
                ngx_mail_policy_relay_fail(relay,
                                           "relay sent an unexpected reply");
                return NGX_ERROR;
            }

            if (ngx_mail_policy_relay_setup(relay, &reply) != NGX_OK) {
                ngx_mail_policy_relay_fail(relay, "relay refused the set-up");
                return NGX_ERROR;
            }

            ngx_mail_policy_relay_timers(relay);

        } else {
            ngx_mail_policy_relay_reply(relay, &reply);
        }

        if (relay->failing || relay->closed) {
            return NGX_ERROR;
        }

        pos += n;
    }

    relay->in_len -= pos;
    ngx_memmove(relay->in, relay->in + pos, relay->in_len);

    return NGX_OK;
}


/* last thing its caller does with what the owner may have closed */

static void
ngx_mail_policy_relay_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    void                             *tag;
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_stage_e     stage;
    ngx_mail_policy_relay_command_t  *cmd;

    if (ngx_queue_empty(&relay->sent)) {

        if (!relay->in_body) {
            ngx_mail_policy_relay_fail(relay, "relay sent an unexpected reply");
            return;
        }

        /* an early reply, in the middle of the body: the relay gave it up */

        if (reply->code < 400) {
            ngx_mail_policy_relay_fail(relay, "relay sent an unexpected reply");
            return;
        }

        relay->failing = 1;
        relay->handlers->reply(relay->data, NGX_MAIL_POLICY_RELAY_BODY, NULL,
                               reply);
        return;
    }

    q = ngx_queue_head(&relay->sent);
    cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

    stage = cmd->stage;
    tag = cmd->tag;

    /*
     * RFC 5321, section 3.8: the service closes the channel.  The command
     * stays in the queue, so that failed() tells its stage; a reply to the
     * final dot is a reply all the same.
     */

    if (reply->code == 421 && stage != NGX_MAIL_POLICY_RELAY_FINAL) {
        ngx_mail_policy_relay_fail(relay, "relay is closing");
        return;
    }

    if (reply->code < 400
        && (stage == NGX_MAIL_POLICY_RELAY_DATA ? reply->code != 354
                                                : reply->code >= 300))
    {
        ngx_mail_policy_relay_fail(relay, "relay sent an unexpected reply");
        return;
    }

    ngx_queue_remove(q);
    ngx_queue_insert_tail(&relay->free, q);
    relay->outstanding--;

    switch (stage) {

    case NGX_MAIL_POLICY_RELAY_MAIL:

        /* a forgotten one has RSET behind it, and perhaps another MAIL */

        if (reply->code >= 300 && tag) {
            relay->in_transaction = 0;
        }

        break;

    case NGX_MAIL_POLICY_RELAY_DATA:
        relay->in_body = (reply->code < 400);
        break;

    case NGX_MAIL_POLICY_RELAY_FINAL:
        relay->in_transaction = 0;
        break;

    case NGX_MAIL_POLICY_RELAY_RSET:
        if (reply->code >= 300) {
            ngx_mail_policy_relay_fail(relay, "relay refused RSET");
            return;
        }

        break;

    case NGX_MAIL_POLICY_RELAY_QUIT:
        ngx_mail_policy_relay_close(relay);
        return;

    default:
        break;
    }

    ngx_mail_policy_relay_timers(relay);

    if (!ngx_queue_empty(&relay->waiting)) {
        ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
    }

    if (tag && relay->handlers) {
        relay->handlers->reply(relay->data, stage, tag, reply);
    }
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

    ngx_mail_policy_relay_timers(relay);

    if (relay->blocked && relay->pc.connection->write->ready
        && relay->handlers)
    {
        relay->blocked = 0;
        relay->handlers->writable(relay->data);
    }
}


/* NGX_OK, or NGX_ERROR: the relay failed, or the owner closed it */

static ngx_int_t
ngx_mail_policy_relay_send_commands(ngx_mail_policy_relay_t *relay)
{
    ngx_int_t                         rc;
    ngx_uint_t                        window;
    mpol_reply_t                      refusal;
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_command_t  *cmd;

    window = (relay->ehlo.extensions & MPOL_RELAY_PIPELINING)
             ? NGX_MAIL_POLICY_RELAY_WINDOW : 1;

    while (!ngx_queue_empty(&relay->waiting) && relay->outstanding < window) {

        q = ngx_queue_head(&relay->waiting);
        cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

        rc = ngx_mail_policy_relay_format(relay, cmd);

        if (rc == NGX_ERROR) {
            ngx_mail_policy_relay_fail(relay, "no memory");
            return NGX_ERROR;
        }

        ngx_queue_remove(q);

        if (rc == NGX_DECLINED) {

            /* RFC 6152: what the relay cannot take is refused here */

            ngx_queue_insert_tail(&relay->free, q);

            ngx_memzero(&refusal, sizeof(mpol_reply_t));
            refusal.code = 554;
            refusal.status.data = (u_char *) "5.6.3";
            refusal.status.len = 5;
            refusal.message.data = (u_char *) "8BITMIME is not offered for "
                                              "this destination";
            refusal.message.len = sizeof("8BITMIME is not offered for this "
                                         "destination") - 1;

            relay->handlers->reply(relay->data, cmd->stage, cmd->tag,
                                   &refusal);

            if (relay->closed || relay->failing) {
                return NGX_ERROR;
            }

            continue;
        }

        ngx_queue_insert_tail(&relay->sent, q);
        relay->outstanding++;
    }

    return NGX_OK;
}


/* NGX_OK; NGX_DECLINED: the relay cannot take it; NGX_ERROR: no memory */

static ngx_int_t
ngx_mail_policy_relay_format(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd)
{
    u_char  *p, *last;

    switch (cmd->stage) {

    case NGX_MAIL_POLICY_RELAY_MAIL:
        return ngx_mail_policy_relay_format_mail(relay, cmd->mail);

    case NGX_MAIL_POLICY_RELAY_RCPT:
        p = ngx_mail_policy_relay_reserve(relay, sizeof("RCPT TO:<>" CRLF) - 1
                                                 + cmd->address.len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        last = ngx_sprintf(p, "RCPT TO:<%V>" CRLF, &cmd->address);
        break;

    case NGX_MAIL_POLICY_RELAY_RSET:
        relay->in_transaction = 0;

        /* fall through */

    default:
        p = ngx_mail_policy_relay_reserve(relay, sizeof("DATA" CRLF) - 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        last = ngx_sprintf(p, "%s" CRLF,
                           cmd->stage == NGX_MAIL_POLICY_RELAY_DATA ? "DATA"
                           : cmd->stage == NGX_MAIL_POLICY_RELAY_RSET ? "RSET"
                           : "QUIT");
        break;
    }

    ngx_mail_policy_relay_written(relay, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_format_mail(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_mail_t *mail)
{
    u_char  *p, *last;

    if (mail->body == MPOL_BODY_8BITMIME
        && !(relay->ehlo.extensions & MPOL_RELAY_8BITMIME))
    {
        return NGX_DECLINED;
    }

    p = ngx_mail_policy_relay_reserve(relay,
                               sizeof("MAIL FROM:<> SIZE= BODY=8BITMIME" CRLF)
                               - 1 + NGX_INT64_LEN + mail->sender.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "MAIL FROM:<%V>", &mail->sender);

    if (mail->size && (relay->ehlo.extensions & MPOL_RELAY_SIZE)) {
        last = ngx_sprintf(last, " SIZE=%uL", mail->size);
    }

    if (mail->body != MPOL_BODY_UNSET
        && (relay->ehlo.extensions & MPOL_RELAY_8BITMIME))
    {
        last = ngx_sprintf(last, " BODY=%s",
                           mail->body == MPOL_BODY_8BITMIME ? "8BITMIME"
                                                            : "7BIT");
    }

    last = ngx_cpymem(last, CRLF, 2);

    ngx_mail_policy_relay_written(relay, last - p);

    relay->in_transaction = 1;
    relay->body_sent = 0;

    return NGX_OK;
}


u_char *
ngx_mail_policy_relay_reserve(ngx_mail_policy_relay_t *relay, size_t n)
{
    size_t   size;
    u_char  *p;

    if (relay->out_size - relay->out_len >= n) {
        return relay->out + relay->out_len;
    }

    size = ngx_max(relay->out_len + n, 2 * relay->out_size);
    size = ngx_max(size, 1024);

    p = ngx_alloc(size, &relay->log);
    if (p == NULL) {
        return NULL;
    }

    if (relay->out) {
        ngx_memcpy(p, relay->out, relay->out_len);
        ngx_free(relay->out);
    }

    relay->out = p;
    relay->out_size = size;

    return p + relay->out_len;
}


void
ngx_mail_policy_relay_written(ngx_mail_policy_relay_t *relay, size_t n)
{
    relay->out_len += n;
}


/* NGX_OK: all went out; NGX_AGAIN; NGX_ERROR: the relay failed */

static ngx_int_t
ngx_mail_policy_relay_flush(ngx_mail_policy_relay_t *relay)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = relay->pc.connection;

    while (relay->out_sent < relay->out_len) {

        if (!c->write->ready) {
            n = NGX_AGAIN;

        } else {
            n = c->send(c, relay->out + relay->out_sent,
                        relay->out_len - relay->out_sent);
        }

        if (n == NGX_ERROR) {
            ngx_mail_policy_relay_fail(relay, "send() failed");
            return NGX_ERROR;
        }

        if (n == NGX_AGAIN) {

            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                ngx_mail_policy_relay_fail(relay, "no write event");
                return NGX_ERROR;
            }

            ngx_mail_policy_relay_timers(relay);

            return NGX_AGAIN;
        }

        relay->out_sent += n;
    }

    if (relay->out) {
        ngx_free(relay->out);
        relay->out = NULL;
    }

    relay->out_len = 0;
    relay->out_sent = 0;
    relay->out_size = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_command(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, void *tag,
    ngx_mail_policy_relay_mail_t *mail, ngx_str_t *address)
{
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_command_t  *cmd;

    if (!ngx_queue_empty(&relay->free)) {
        q = ngx_queue_head(&relay->free);
        ngx_queue_remove(q);
        cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

    } else {
        cmd = ngx_palloc(relay->pool, sizeof(ngx_mail_policy_relay_command_t));
        if (cmd == NULL) {
            return NGX_ERROR;
        }
    }

    cmd->stage = stage;
    cmd->tag = tag;
    cmd->mail = mail;

    if (address) {
        cmd->address = *address;
    }

    ngx_queue_insert_tail(&relay->waiting, &cmd->queue);

    if (!relay->failing && relay->stage >= NGX_MAIL_POLICY_RELAY_MAIL) {
        ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
    }

    return NGX_OK;
}


/* one deadline a wait: what is due decides, not what happens to arrive */

static void
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
              ? NGX_MAIL_POLICY_RELAY_LINGER : relay->conf.reply_timeout;

    if (relay->out_sent < relay->out_len || relay->blocked) {
        ngx_add_timer(c->write, timeout);

    } else if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL) {

        if (ngx_queue_empty(&relay->sent)) {
            timeout = 0;

        } else {
            q = ngx_queue_head(&relay->sent);
            cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

            if (cmd->stage == NGX_MAIL_POLICY_RELAY_FINAL) {
                timeout = relay->conf.final_timeout;
            }
        }
    }

    if (timeout) {
        ngx_add_timer(c->read, timeout);

    } else if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }
}


static void
ngx_mail_policy_relay_fail(ngx_mail_policy_relay_t *relay, const char *why)
{
    if (relay->failing) {
        return;
    }

    relay->failing = 1;

    if (relay->handlers) {
        ngx_log_error(NGX_LOG_ERR, &relay->log, 0, "%s", why);
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
    if (relay->failure.posted) {
        ngx_delete_posted_event(&relay->failure);
    }

    if (relay->pc.connection) {
        ngx_close_connection(relay->pc.connection);
    }

    if (relay->out) {
        ngx_free(relay->out);
    }

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
