
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The queue of commands to a relay, and what its replies mean.
 *
 *   waiting -> (formatted, sent) -> sent -> reply()
 *
 * A command whose owner has forgotten it (RSET) stays in the queue of those
 * sent, without a tag, until its reply has been swallowed.  No events arrive
 * here; the connection (..._relay.c) calls send_commands() when it may be
 * written to, and reply() for each reply.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_command.h"
#include "ngx_mail_policy_relay.h"


#define NGX_MAIL_POLICY_RELAY_WINDOW   128      /* commands in flight */


static void ngx_mail_policy_relay_early_reply(
    ngx_mail_policy_relay_t *relay, mpol_reply_t *reply);
static ngx_int_t ngx_mail_policy_relay_judge(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, mpol_reply_t *reply);
static ngx_int_t ngx_mail_policy_relay_format(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd);
static ngx_int_t ngx_mail_policy_relay_format_mail(
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_mail_t *mail);


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


/* last thing its caller does with what the owner may have closed */

void
ngx_mail_policy_relay_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    void                             *tag;
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_stage_e     stage;
    ngx_mail_policy_relay_command_t  *cmd;

    if (ngx_queue_empty(&relay->sent)) {
        ngx_mail_policy_relay_early_reply(relay, reply);
        return;
    }

    q = ngx_queue_head(&relay->sent);
    cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

    stage = cmd->stage;
    tag = cmd->tag;

    if (ngx_mail_policy_relay_judge(relay, stage, reply) != NGX_OK) {

        /* it stays in the queue, so that failed() tells its stage */

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


/* a refusal in the middle of the body: the relay has given the message up */

static void
ngx_mail_policy_relay_early_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    if (!relay->in_body || reply->code < 400) {
        ngx_mail_policy_relay_fail(relay, "relay sent an unexpected reply");
        return;
    }

    relay->failing = 1;
    relay->handlers->reply(relay->data, NGX_MAIL_POLICY_RELAY_BODY, NULL,
                           reply);
}


/* NGX_ERROR: this reply ends the connection */

static ngx_int_t
ngx_mail_policy_relay_judge(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, mpol_reply_t *reply)
{
    /*
     * RFC 5321, section 3.8: 421 closes the channel; to the final dot it is
     * an answer all the same
     */

    if (reply->code == 421 && stage != NGX_MAIL_POLICY_RELAY_FINAL) {
        ngx_mail_policy_relay_fail(relay, "relay is closing");
        return NGX_ERROR;
    }

    if (reply->code < 400
        && (stage == NGX_MAIL_POLICY_RELAY_DATA ? reply->code != 354
                                                : reply->code >= 300))
    {
        ngx_mail_policy_relay_fail(relay, "relay sent an unexpected reply");
        return NGX_ERROR;
    }

    if (reply->code >= 400 && stage == NGX_MAIL_POLICY_RELAY_RSET) {
        ngx_mail_policy_relay_fail(relay, "relay refused RSET");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* NGX_OK, or NGX_ERROR: the relay failed, or the owner closed it */

ngx_int_t
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

    return NGX_OK;
}


ngx_int_t
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
