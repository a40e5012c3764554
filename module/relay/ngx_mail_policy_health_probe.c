
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One check of one relay:
 *
 *     connect -> 220 -> EHLO -> 250 -> QUIT -> close
 *                                 ^ here it is well
 *
 * Whatever else comes, or nothing within the time, and it is not; what its
 * EHLO offers is kept.  The reply to QUIT is awaited, so that the relay does
 * not log a lost connection, but means nothing.
 *
 * Events: of the connection, and a timer for the whole.  Whichever ends the
 * check calls finalize(), once.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"


#define NGX_MAIL_POLICY_PROBE_BUFFER  4096
#define NGX_MAIL_POLICY_PROBE_LINGER  1000


typedef enum {
    NGX_MAIL_POLICY_PROBE_CONNECT = 0,
    NGX_MAIL_POLICY_PROBE_GREETING,
    NGX_MAIL_POLICY_PROBE_EHLO,
    NGX_MAIL_POLICY_PROBE_QUIT
} ngx_mail_policy_probe_stage_e;


typedef struct {
    ngx_queue_t                     queue;
    ngx_pool_t                     *pool;
    ngx_mail_policy_peer_t         *peer;
    ngx_peer_connection_t           pc;
    ngx_sockaddr_t                  sockaddr;
    ngx_mail_policy_probe_stage_e   stage;
    ngx_event_t                     deadline;
    size_t                          len;
    u_char                          in[NGX_MAIL_POLICY_PROBE_BUFFER];
} ngx_mail_policy_probe_t;


static void ngx_mail_policy_probe_connect(ngx_mail_policy_probe_t *probe);
static void ngx_mail_policy_probe_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_probe_write_handler(ngx_event_t *wev);
static void ngx_mail_policy_probe_deadline_handler(ngx_event_t *ev);
static ngx_int_t ngx_mail_policy_probe_connected(
    ngx_mail_policy_probe_t *probe);
static ngx_int_t ngx_mail_policy_probe_reply(ngx_mail_policy_probe_t *probe,
    mpol_reply_t *reply);
static ngx_int_t ngx_mail_policy_probe_say(ngx_mail_policy_probe_t *probe,
    const char *command, ngx_str_t *argument);
static void ngx_mail_policy_probe_finalize(ngx_mail_policy_probe_t *probe,
    const char *why);
static void ngx_mail_policy_probe_free(ngx_mail_policy_probe_t *probe);


void
ngx_mail_policy_health_probe(ngx_mail_policy_peer_t *peer)
{
    ngx_pool_t               *pool;
    ngx_mail_policy_probe_t  *probe;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    probe = ngx_pcalloc(pool, sizeof(ngx_mail_policy_probe_t));
    if (probe == NULL) {
        ngx_destroy_pool(pool);
        return;
    }

    probe->pool = pool;
    probe->peer = peer;

    ngx_mail_policy_peer_ref(peer);
    ngx_queue_insert_tail(&peer->upstream->health.probes, &probe->queue);

    ngx_memcpy(&probe->sockaddr, peer->sockaddr, peer->socklen);

    if (peer->upstream->health.port) {
        ngx_inet_set_port(&probe->sockaddr.sockaddr,
                          peer->upstream->health.port);
    }

    probe->deadline.handler = ngx_mail_policy_probe_deadline_handler;
    probe->deadline.data = probe;
    probe->deadline.log = ngx_cycle->log;
    probe->deadline.cancelable = 1;

    ngx_add_timer(&probe->deadline, peer->upstream->health.timeout);

    ngx_mail_policy_probe_connect(probe);
}


static void
ngx_mail_policy_probe_connect(ngx_mail_policy_probe_t *probe)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    probe->pc.sockaddr = &probe->sockaddr.sockaddr;
    probe->pc.socklen = probe->peer->socklen;
    probe->pc.name = &probe->peer->name;
    probe->pc.get = ngx_event_get_peer;
    probe->pc.log = ngx_cycle->log;
    probe->pc.log_error = NGX_ERROR_INFO;

    rc = ngx_event_connect_peer(&probe->pc);

    if (rc == NGX_ERROR) {

        /* no descriptor, no free connection: that is not the relay's fault */

        ngx_mail_policy_probe_free(probe);
        return;
    }

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        ngx_mail_policy_probe_finalize(probe, "connect failed");
        return;
    }

    c = probe->pc.connection;
    c->data = probe;
    c->pool = probe->pool;
    c->idle = 1;
    c->read->handler = ngx_mail_policy_probe_read_handler;
    c->write->handler = ngx_mail_policy_probe_write_handler;

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_probe_read_handler(ngx_event_t *rev)
{
    int                       n;
    ssize_t                   got;
    mpol_reply_t              reply;
    ngx_connection_t         *c;
    ngx_mail_policy_probe_t  *probe;

    c = rev->data;
    probe = c->data;

    /* the worker is told to end: others go on asking */

    if (c->close) {
        ngx_mail_policy_probe_free(probe);
        return;
    }

    if (probe->stage == NGX_MAIL_POLICY_PROBE_CONNECT) {
        switch (ngx_mail_policy_probe_connected(probe)) {

        case NGX_OK:
            break;

        case NGX_AGAIN:
            return;

        default:
            ngx_mail_policy_probe_finalize(probe, "connect failed");
            return;
        }
    }

    for ( ;; ) {

        if (probe->len == NGX_MAIL_POLICY_PROBE_BUFFER) {
            ngx_mail_policy_probe_finalize(probe, "too long a reply");
            return;
        }

        got = c->recv(c, probe->in + probe->len,
                      NGX_MAIL_POLICY_PROBE_BUFFER - probe->len);

        if (got == NGX_AGAIN) {
            break;
        }

        if (got == NGX_ERROR || got == 0) {
            ngx_mail_policy_probe_finalize(probe, "connection closed");
            return;
        }

        probe->len += got;

        n = mpol_reply_parse(probe->in, probe->len, &reply);

        if (n == MPOL_AGAIN) {
            continue;
        }

        if (n == MPOL_BAD || (size_t) n < probe->len) {
            ngx_mail_policy_probe_finalize(probe, "invalid reply");
            return;
        }

        if (ngx_mail_policy_probe_reply(probe, &reply) != NGX_OK) {
            return;
        }

        probe->len = 0;
    }

    if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        ngx_mail_policy_probe_free(probe);
    }
}


static void
ngx_mail_policy_probe_write_handler(ngx_event_t *wev)
{
    ngx_connection_t         *c;
    ngx_mail_policy_probe_t  *probe;

    c = wev->data;
    probe = c->data;

    if (probe->stage != NGX_MAIL_POLICY_PROBE_CONNECT) {
        return;
    }

    if (ngx_mail_policy_probe_connected(probe) == NGX_ERROR) {
        ngx_mail_policy_probe_finalize(probe, "connect failed");
        return;
    }

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_probe_deadline_handler(ngx_event_t *ev)
{
    ngx_mail_policy_probe_finalize(ev->data, "timed out");
}


/* a read event may come before the connection stands: NGX_AGAIN */

static ngx_int_t
ngx_mail_policy_probe_connected(ngx_mail_policy_probe_t *probe)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    c = probe->pc.connection;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err) {
        return NGX_ERROR;
    }

    if (!c->write->ready) {
        return NGX_AGAIN;
    }

    probe->stage = NGX_MAIL_POLICY_PROBE_GREETING;

    return ngx_handle_read_event(c->read, 0);
}


/* NGX_OK: the next reply is awaited; else the check is over */

static ngx_int_t
ngx_mail_policy_probe_reply(ngx_mail_policy_probe_t *probe,
    mpol_reply_t *reply)
{
    ngx_str_t    name;
    mpol_ehlo_t  ehlo;

    switch (probe->stage) {

    case NGX_MAIL_POLICY_PROBE_GREETING:

        if (reply->code != 220) {
            ngx_mail_policy_probe_finalize(probe, "its greeting is not 220");
            return NGX_DONE;
        }

        name = ngx_cycle->hostname;
        probe->stage = NGX_MAIL_POLICY_PROBE_EHLO;

        return ngx_mail_policy_probe_say(probe, "EHLO ", &name);

    case NGX_MAIL_POLICY_PROBE_EHLO:

        if (reply->code != 250) {
            ngx_mail_policy_probe_finalize(probe,
                                           "its reply to EHLO is not 250");
            return NGX_DONE;
        }

        mpol_ehlo_parse(probe->in, probe->len, &ehlo);
        ngx_mail_policy_upstream_learn(probe->peer, &ehlo);

        ngx_mail_policy_health_verdict(probe->peer, NULL);

        ngx_str_null(&name);
        probe->stage = NGX_MAIL_POLICY_PROBE_QUIT;

        ngx_add_timer(&probe->deadline, NGX_MAIL_POLICY_PROBE_LINGER);

        return ngx_mail_policy_probe_say(probe, "QUIT", &name);

    default:
        ngx_mail_policy_probe_finalize(probe, NULL);
        return NGX_DONE;
    }
}


/* a line that does not go out at once goes to nobody who is well */

static ngx_int_t
ngx_mail_policy_probe_say(ngx_mail_policy_probe_t *probe, const char *command,
    ngx_str_t *argument)
{
    size_t             len;
    u_char             line[NGX_MAXHOSTNAMELEN + sizeof("EHLO " CRLF)];
    ngx_connection_t  *c;

    c = probe->pc.connection;

    len = ngx_snprintf(line, sizeof(line), "%s%V" CRLF, command, argument)
          - line;

    if (c->send(c, line, len) != (ssize_t) len) {
        ngx_mail_policy_probe_finalize(probe, "it takes no command");
        return NGX_DONE;
    }

    return NGX_OK;
}


/* why it is not well: of no interest once it was */

static void
ngx_mail_policy_probe_finalize(ngx_mail_policy_probe_t *probe,
    const char *why)
{
    if (probe->stage != NGX_MAIL_POLICY_PROBE_QUIT) {
        ngx_mail_policy_health_verdict(probe->peer, why);
    }

    ngx_mail_policy_probe_free(probe);
}


static void
ngx_mail_policy_probe_free(ngx_mail_policy_probe_t *probe)
{
    ngx_queue_remove(&probe->queue);

    if (probe->deadline.timer_set) {
        ngx_del_timer(&probe->deadline);
    }

    if (probe->pc.connection) {
        ngx_close_connection(probe->pc.connection);
    }

    ngx_mail_policy_peer_unref(probe->peer);

    ngx_destroy_pool(probe->pool);
}


void
ngx_mail_policy_health_probes_close(ngx_mail_policy_health_t *health)
{
    ngx_queue_t  *q;

    while (!ngx_queue_empty(&health->probes)) {
        q = ngx_queue_head(&health->probes);

        ngx_mail_policy_probe_free(ngx_queue_data(q, ngx_mail_policy_probe_t,
                                                  queue));
    }
}
