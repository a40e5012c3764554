
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A message's body on its way to the relay, after DATA's 354 or in chunks.
 *
 *   begin_body -> body ... body -> listen -> body (with the end) -> final
 *
 * No events arrive here.  A relay that says anything between begin_body and
 * final has given the message up (early_reply), unless it is the reply to a
 * chunk; the end is not sent before all that it has said was looked at.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_relay.h"


/* chunks follow each other without waiting, so PIPELINING is needed too */

ngx_uint_t
ngx_mail_policy_relay_chunking(ngx_mail_policy_relay_t *relay)
{
    return relay->stage == NGX_MAIL_POLICY_RELAY_MAIL
           && (relay->ehlo.extensions & MPOL_RELAY_CHUNKING)
           && (relay->ehlo.extensions & MPOL_RELAY_PIPELINING);
}


void
ngx_mail_policy_relay_chunks(ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_relay_begin_body(relay);

    relay->chunks = 0;
}


void
ngx_mail_policy_relay_chunk(ngx_mail_policy_relay_t *relay)
{
    relay->chunks++;
}


void
ngx_mail_policy_relay_begin_body(ngx_mail_policy_relay_t *relay)
{
    relay->in_body = 1;

    mpol_pace_init(&relay->pace, relay->conf->reply_timeout,
                   relay->conf->min_data_rate);
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

    /* commands first; of what is on its way TLS has made a record already */

    if (relay->out_sent < relay->out_len) {
        relay->blocked = 1;
        relay->blocked_since = ngx_current_msec;
        return 0;
    }

    /* it is the client who has moved: the relay's time goes on */

    if (relay->blocked && !c->write->ready) {
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

    mpol_pace_moved(&relay->pace, taken);

    relay->blocked = (taken < len);

    if (relay->blocked) {
        relay->blocked_since = ngx_current_msec;

        if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
            ngx_mail_policy_relay_fail(relay, "no write event");
            return taken;
        }
    }

    ngx_mail_policy_relay_timers(relay);

    return taken;
}


/*
 * A reply that was sent before the relay had the message is none to it, though
 * it may be read in the loop turn in which the end goes out.  What nginx knows
 * of readiness may be older than the reply, so the kernel is asked.
 */

ngx_int_t
ngx_mail_policy_relay_listen(ngx_mail_policy_relay_t *relay)
{
    u_char             octet;
    ngx_connection_t  *c;

    if (relay->failing) {
        return NGX_AGAIN;
    }

    c = relay->pc.connection;

    if (recv(c->fd, &octet, 1, MSG_PEEK) != -1
        || ngx_socket_errno != NGX_EAGAIN
        || (c->ssl && SSL_pending(c->ssl->connection)))
    {
        c->read->ready = 1;
        c->read->available = -1;

        relay->blocked = 1;
        relay->blocked_since = ngx_current_msec;

        ngx_post_event(c->read, &ngx_posted_events);
        ngx_post_event(c->write, &ngx_posted_events);

        return NGX_AGAIN;
    }

    if (relay->chunks) {

        /* so that one too many, or a refusal, is seen before LAST goes out */

        if (!relay->listening) {
            relay->listening = 1;
            ngx_mail_policy_relay_timers(relay);
        }

        return NGX_AGAIN;
    }

    if (relay->in_len) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_INVALID,
                                      "relay sent an unexpected reply");
        return NGX_AGAIN;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_relay_final(ngx_mail_policy_relay_t *relay, void *tag)
{
    ngx_mail_policy_relay_command_t  *cmd;

    if (ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_FINAL, tag,
                                      NULL)
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


/* the reply to a chunk that is not the last, which is not sent before it */

void
ngx_mail_policy_relay_chunk_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    if (reply->code >= 300) {
        relay->chunks = 0;
        ngx_mail_policy_relay_early_reply(relay, reply);
        return;
    }

    relay->chunks--;

    if (relay->chunks == 0 && relay->listening) {
        relay->listening = 0;
        ngx_mail_policy_relay_timers(relay);
        relay->handlers->writable(relay->data);
    }
}


/* a refusal in the middle of the body: the relay has given the message up */

void
ngx_mail_policy_relay_early_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    if (!relay->in_body || reply->code < 400) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_INVALID,
                                      "relay sent an unexpected reply");
        return;
    }

    relay->failing = 1;
    relay->handlers->reply(relay->data, NGX_MAIL_POLICY_RELAY_BODY, NULL,
                           reply);
}
