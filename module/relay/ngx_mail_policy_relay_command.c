
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


static ngx_int_t ngx_mail_policy_relay_judge(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, mpol_reply_t *reply);
static ngx_uint_t ngx_mail_policy_relay_cannot(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd, mpol_reply_t *refusal);
static void ngx_mail_policy_relay_refusal(mpol_reply_t *refusal,
    ngx_uint_t code, const char *status, const char *message);
static ngx_int_t ngx_mail_policy_relay_format(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd);
static ngx_int_t ngx_mail_policy_relay_format_mail(
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_mail_t *mail);
static ngx_int_t ngx_mail_policy_relay_format_rcpt(
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_rcpt_t *rcpt);
static u_char *ngx_mail_policy_relay_format_notify(u_char *p,
    ngx_uint_t notify);


ngx_int_t
ngx_mail_policy_relay_mail(ngx_mail_policy_relay_t *relay, void *tag,
    ngx_mail_policy_relay_mail_t *mail)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_MAIL,
                                         tag, mail);
}


ngx_int_t
ngx_mail_policy_relay_rcpt(ngx_mail_policy_relay_t *relay, void *tag,
    ngx_mail_policy_relay_rcpt_t *rcpt)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_RCPT,
                                         tag, rcpt);
}


ngx_int_t
ngx_mail_policy_relay_data(ngx_mail_policy_relay_t *relay, void *tag)
{
    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_DATA,
                                         tag, NULL);
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
        cmd->argument = NULL;
    }

    if (!relay->in_transaction) {
        return NGX_OK;
    }

    return ngx_mail_policy_relay_command(relay, NGX_MAIL_POLICY_RELAY_RSET,
                                         NULL, NULL);
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

    /* in the order of the commands: all before LAST's, the only one in sent */

    if (relay->chunks) {
        ngx_mail_policy_relay_chunk_reply(relay, reply);
        return;
    }

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
        relay->reused = (relay->reused && tag == NULL);

        /* a forgotten one has RSET behind it, and perhaps another MAIL */

        if (reply->code >= 300 && tag) {
            relay->in_transaction = 0;
        }

        break;

    case NGX_MAIL_POLICY_RELAY_DATA:

        if (reply->code < 400) {
            ngx_mail_policy_relay_begin_body(relay);
        }

        break;

    case NGX_MAIL_POLICY_RELAY_FINAL:
        relay->in_transaction = 0;

        /*
         * It may have been an early one that crossed the end, with another
         * behind it, which would be taken for the next command's.
         */

        relay->spent = (reply->code >= 400);
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
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_CLOSING,
                                      "relay is closing");
        return NGX_ERROR;
    }

    if (reply->code < 400
        && (stage == NGX_MAIL_POLICY_RELAY_DATA ? reply->code != 354
                                                : reply->code >= 300))
    {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_INVALID,
                                      "relay sent an unexpected reply");
        return NGX_ERROR;
    }

    if (reply->code >= 400 && stage == NGX_MAIL_POLICY_RELAY_RSET) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_INVALID,
                                      "relay refused RSET");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* NGX_OK, or NGX_ERROR: the relay failed, or the owner closed it */

ngx_int_t
ngx_mail_policy_relay_send_commands(ngx_mail_policy_relay_t *relay)
{
    ngx_uint_t                        window;
    mpol_reply_t                      refusal;
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_command_t  *cmd;

    window = (relay->ehlo.extensions & MPOL_RELAY_PIPELINING)
             ? NGX_MAIL_POLICY_RELAY_WINDOW : 1;

    while (!ngx_queue_empty(&relay->waiting) && relay->outstanding < window) {

        q = ngx_queue_head(&relay->waiting);
        cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

        if (ngx_mail_policy_relay_cannot(relay, cmd, &refusal)) {

            ngx_queue_remove(q);
            ngx_queue_insert_tail(&relay->free, q);

            relay->unable = 1;
            relay->handlers->reply(relay->data, cmd->stage, cmd->tag,
                                   &refusal);

            if (relay->closed || relay->failing) {
                return NGX_ERROR;
            }

            continue;
        }

        if (ngx_mail_policy_relay_format(relay, cmd) != NGX_OK) {
            ngx_mail_policy_relay_fail(relay, "no memory");
            return NGX_ERROR;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&relay->sent, q);
        relay->outstanding++;
    }

    return NGX_OK;
}


/*
 * RFC 6152, RFC 6531 section 3.5, RFC 3030 section 3: a message that the relay
 * cannot take as it is, is refused, never sent in another form.
 */

static ngx_uint_t
ngx_mail_policy_relay_cannot(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd, mpol_reply_t *refusal)
{
    ngx_uint_t                     extensions;
    ngx_mail_policy_relay_mail_t  *mail;

    if (cmd->stage != NGX_MAIL_POLICY_RELAY_MAIL) {
        return 0;
    }

    mail = cmd->argument;
    extensions = relay->ehlo.extensions;

    if (mail->smtputf8 && !(extensions & MPOL_RELAY_SMTPUTF8)) {
        ngx_mail_policy_relay_refusal(refusal, 550, "5.6.7",
                        "SMTPUTF8 is not offered for this destination");
        return 1;
    }

    if (mail->body == MPOL_BODY_8BITMIME
        && !(extensions & MPOL_RELAY_8BITMIME))
    {
        ngx_mail_policy_relay_refusal(refusal, 554, "5.6.3",
                        "8BITMIME is not offered for this destination");
        return 1;
    }

    if (mail->body == MPOL_BODY_BINARYMIME
        && (!(extensions & MPOL_RELAY_BINARYMIME)
            || !ngx_mail_policy_relay_chunking(relay)))
    {
        ngx_mail_policy_relay_refusal(refusal, 554, "5.6.3",
                        "BINARYMIME is not offered for this destination");
        return 1;
    }

    return 0;
}


static void
ngx_mail_policy_relay_refusal(mpol_reply_t *refusal, ngx_uint_t code,
    const char *status, const char *message)
{
    ngx_memzero(refusal, sizeof(mpol_reply_t));

    refusal->code = code;
    refusal->status.data = (u_char *) status;
    refusal->status.len = ngx_strlen(status);
    refusal->message.data = (u_char *) message;
    refusal->message.len = ngx_strlen(message);
}


/* NGX_OK, or NGX_ERROR: no memory */

static ngx_int_t
ngx_mail_policy_relay_format(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_command_t *cmd)
{
    u_char  *p, *last;

    switch (cmd->stage) {

    case NGX_MAIL_POLICY_RELAY_MAIL:
        return ngx_mail_policy_relay_format_mail(relay, cmd->argument);

    case NGX_MAIL_POLICY_RELAY_RCPT:
        return ngx_mail_policy_relay_format_rcpt(relay, cmd->argument);

    case NGX_MAIL_POLICY_RELAY_RSET:
        relay->in_transaction = 0;
        break;

    default:
        break;
    }

    p = ngx_mail_policy_relay_reserve(relay, sizeof("DATA" CRLF) - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%s" CRLF,
                       cmd->stage == NGX_MAIL_POLICY_RELAY_DATA ? "DATA"
                       : cmd->stage == NGX_MAIL_POLICY_RELAY_RSET ? "RSET"
                       : "QUIT");

    ngx_mail_policy_relay_written(relay, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_format_mail(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_mail_t *mail)
{
    u_char      *p, *last;
    ngx_uint_t   extensions;

    static char  *bodies[] = { "", "7BIT", "8BITMIME", "BINARYMIME" };

    extensions = relay->ehlo.extensions;

    p = ngx_mail_policy_relay_reserve(relay,
                                      sizeof("MAIL FROM:<> SIZE= RET=FULL "
                                             "BODY=BINARYMIME SMTPUTF8 "
                                             "ENVID=" CRLF) - 1
                                      + NGX_INT64_LEN + mail->sender.len
                                      + mail->envid.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "MAIL FROM:<%V>", &mail->sender);

    if (mail->size && (extensions & MPOL_RELAY_SIZE)) {
        last = ngx_sprintf(last, " SIZE=%uL", mail->size);
    }

    if (mail->body != MPOL_BODY_UNSET
        && (mail->body == MPOL_BODY_BINARYMIME
            || (extensions & MPOL_RELAY_8BITMIME)))
    {
        last = ngx_sprintf(last, " BODY=%s", bodies[mail->body]);
    }

    if (mail->smtputf8) {
        last = ngx_cpymem(last, " SMTPUTF8", sizeof(" SMTPUTF8") - 1);
    }

    if (mail->ret && (extensions & MPOL_RELAY_DSN)) {
        last = ngx_sprintf(last, " RET=%s",
                           mail->ret == MPOL_RET_FULL ? "FULL" : "HDRS");
    }

    if (mail->envid.len && (extensions & MPOL_RELAY_DSN)) {
        last = ngx_sprintf(last, " ENVID=%V", &mail->envid);
    }

    last = ngx_cpymem(last, CRLF, 2);

    ngx_mail_policy_relay_written(relay, last - p);

    relay->in_transaction = 1;
    relay->mails++;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_format_rcpt(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_rcpt_t *rcpt)
{
    u_char  *p, *last;

    p = ngx_mail_policy_relay_reserve(relay,
                                      sizeof("RCPT TO:<> NOTIFY=SUCCESS,"
                                             "FAILURE,DELAY ORCPT=" CRLF) - 1
                                      + rcpt->address.len + rcpt->orcpt.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "RCPT TO:<%V>", &rcpt->address);

    if (relay->ehlo.extensions & MPOL_RELAY_DSN) {

        if (rcpt->notify) {
            last = ngx_mail_policy_relay_format_notify(last, rcpt->notify);
        }

        if (rcpt->orcpt.len) {
            last = ngx_sprintf(last, " ORCPT=%V", &rcpt->orcpt);
        }
    }

    last = ngx_cpymem(last, CRLF, 2);

    ngx_mail_policy_relay_written(relay, last - p);

    return NGX_OK;
}


static u_char *
ngx_mail_policy_relay_format_notify(u_char *p, ngx_uint_t notify)
{
    if (notify & MPOL_NOTIFY_NEVER) {
        return ngx_cpymem(p, " NOTIFY=NEVER", sizeof(" NOTIFY=NEVER") - 1);
    }

    p = ngx_cpymem(p, " NOTIFY=", sizeof(" NOTIFY=") - 1);

    if (notify & MPOL_NOTIFY_SUCCESS) {
        p = ngx_cpymem(p, "SUCCESS,", sizeof("SUCCESS,") - 1);
    }

    if (notify & MPOL_NOTIFY_FAILURE) {
        p = ngx_cpymem(p, "FAILURE,", sizeof("FAILURE,") - 1);
    }

    if (notify & MPOL_NOTIFY_DELAY) {
        p = ngx_cpymem(p, "DELAY,", sizeof("DELAY,") - 1);
    }

    return p - 1;
}


ngx_int_t
ngx_mail_policy_relay_command(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, void *tag, void *argument)
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
    cmd->argument = argument;

    ngx_queue_insert_tail(&relay->waiting, &cmd->queue);

    if (!relay->failing && relay->stage >= NGX_MAIL_POLICY_RELAY_MAIL) {
        ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
    }

    return NGX_OK;
}
