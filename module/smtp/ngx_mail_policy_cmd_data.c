
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * DATA and the body.
 *
 *   DATA -> relay's 354 -> BODY ... client's dot -> relay's reply -> COMMAND
 *
 * The body goes from the client's buffer straight to the relay's socket; a
 * relay that is slow stops the reading from the client.  The dot that ends
 * it goes with the last octets.  When the message can no longer be relayed
 * (an early refusal, a lost relay, bare CR or LF, too large), it is swallowed
 * up to the client's dot and then refused: the relay's connection is cut at
 * once, without a dot, so nothing of it is committed.
 *
 * The reply to the final dot is the relay's.  A relay that has the dot and
 * does not answer leaves an unknown outcome: 451, and the charge stands.
 *
 * Events: octets of the client (by the session), the relay's replies, its
 * room for more (resumes the session), its loss.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_body_scan(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_body_judge(ngx_mail_policy_transaction_t *t);
static ngx_int_t ngx_mail_policy_body_send(ngx_mail_policy_transaction_t *t);
static ngx_int_t ngx_mail_policy_body_end(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_body_fail(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);
static void ngx_mail_policy_body_finish(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_outcome_e outcome, ngx_uint_t status, ngx_str_t *text);


static ngx_str_t  ngx_mail_policy_body_bare =
    ngx_string("554 5.6.0 Message contains bare <CR> or <LF>");
static ngx_str_t  ngx_mail_policy_body_nul =
    ngx_string("554 5.6.0 Message contains NUL characters");


ngx_int_t
ngx_mail_policy_cmd_data_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (cmd->arg.len) {
        ngx_mail_policy_session_error(s, "501 5.5.4 No argument allowed");
        return NGX_DECLINED;
    }

    if (s->transaction == NULL) {
        ngx_mail_policy_session_no_mail(s);
        return NGX_DECLINED;
    }

    if (s->envelope.recipients == 0) {

        /*
         * RFC 2920, section 3.1: a client that pipelines sends DATA whatever
         * became of its recipients, so it is no error of the client's then
         */

        if (s->transaction->nrcpts) {
            ngx_mail_policy_reply(s, "554 5.5.1 No valid recipients");

        } else {
            ngx_mail_policy_session_error(s, "503 5.5.1 Need RCPT command");
        }

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_data(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    return ngx_mail_policy_transaction_data(s->transaction);
}


/* the relay's 354 has come: now ours */

void
ngx_mail_policy_body_begin(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    /* counted from here; what was declared has served */

    s->envelope.message_size = 0;
    s->reading = NGX_MAIL_POLICY_READ_BODY;
    s->connection->log->action = "reading message";

    ngx_mail_policy_reply(s, "354 End data with <CR><LF>.<CR><LF>");
    ngx_mail_policy_session_resume(s);
}


/* DATA itself was refused */

void
ngx_mail_policy_body_refused(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_body_finish(t, status < 500 ? NGX_MAIL_POLICY_DEFERRED
                                                : NGX_MAIL_POLICY_REJECTED,
                                status, text);
}


/* NGX_OK: goes on; NGX_AGAIN: waits for client or relay; NGX_DONE: gone */

ngx_int_t
ngx_mail_policy_body_read(ngx_mail_policy_session_t *s)
{
    ngx_int_t                       rc;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    if (!t->end && t->consumed == 0) {
        ngx_mail_policy_body_scan(t);
    }

    if (t->ready && ngx_mail_policy_body_send(t) != NGX_OK) {
        return NGX_AGAIN;
    }

    if (t->end) {
        return ngx_mail_policy_body_end(t);
    }

    if (t->consumed) {
        s->in_pos += t->consumed;
        t->consumed = 0;

        if (s->in_pos < s->in_last) {
            return NGX_OK;
        }
    }

    rc = ngx_mail_policy_session_recv(s, NGX_MAIL_POLICY_BODY);

    if (rc == NGX_OK) {
        ngx_add_timer(s->connection->read, s->core->timeout);
    }

    return rc;
}


static void
ngx_mail_policy_body_scan(ngx_mail_policy_transaction_t *t)
{
    int                         rc;
    u_char                     *p;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (s->in_pos == s->in_last) {
        return;
    }

    p = s->in + s->in_pos;

    rc = mpol_body_scan(&t->body, p, s->in_last - s->in_pos, &t->consumed,
                        &t->ready);

    s->envelope.message_size = t->body.octets;

    if (rc == MPOL_OK) {
        t->end = 1;

        /* the dot goes with the last octets, in the place of the client's */

        ngx_memcpy(p + t->ready, "." CRLF, 3);
        t->ready += 3;
    }

    if (!t->failed) {
        ngx_mail_policy_body_judge(t);
    }

    if (t->failed) {
        t->ready = 0;
    }
}


static void
ngx_mail_policy_body_judge(ngx_mail_policy_transaction_t *t)
{
    size_t  max;

    if (t->body.fault) {
        ngx_mail_policy_body_fail(t, 554,
                                  t->body.fault == MPOL_BODY_NUL
                                  ? &ngx_mail_policy_body_nul
                                  : &ngx_mail_policy_body_bare);
        return;
    }

    max = t->session->conf->message_size;

    if (max && t->body.octets > max) {
        ngx_mail_policy_body_fail(t, 552, &ngx_mail_policy_too_big);
    }
}


/* NGX_OK: all of it is at the relay; NGX_AGAIN: it will ask for the rest */

static ngx_int_t
ngx_mail_policy_body_send(ngx_mail_policy_transaction_t *t)
{
    size_t                      n;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    n = ngx_mail_policy_relay_body(s->relay, s->in + s->in_pos, t->ready);

    s->in_pos += n;
    t->ready -= n;
    t->consumed -= n;

    return t->ready ? NGX_AGAIN : NGX_OK;
}


static ngx_int_t
ngx_mail_policy_body_end(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    s->in_pos += t->consumed;
    t->consumed = 0;

    if (s->connection->read->timer_set) {
        ngx_del_timer(s->connection->read);
    }

    if (t->failed) {
        ngx_mail_policy_body_finish(t, t->record.status < 500
                                       ? NGX_MAIL_POLICY_DEFERRED
                                       : NGX_MAIL_POLICY_REJECTED,
                                    t->record.status, &t->record.reply);
        return NGX_OK;
    }

    s->reading = NGX_MAIL_POLICY_READ_NOTHING;
    s->connection->log->action = "waiting for the relay's reply";
    t->dot = 1;

    if (ngx_mail_policy_relay_final(s->relay, t) != NGX_OK) {
        ngx_mail_policy_body_lost(t);
        return NGX_OK;
    }

    return NGX_AGAIN;
}


/* cuts the relay; the client hears of it after its dot */

static void
ngx_mail_policy_body_fail(ngx_mail_policy_transaction_t *t, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (s->relay) {
        ngx_mail_policy_relay_close(s->relay);
        s->relay = NULL;
    }

    t->failed = 1;
    t->ready = 0;
    t->record.status = status;
    t->record.reply = *text;

    ngx_mail_policy_session_resume(s);
}


/* the relay's reply to the dot, or an early one (it gave the message up) */

void
ngx_mail_policy_body_reply(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_relay_stage_e stage, mpol_reply_t *reply)
{
    ngx_str_t   text;
    ngx_uint_t  code;

    /*
     * 421 closes the relay's connection, not ours; and whatever 2xx it is
     * that the relay says, the client may know one only
     */

    code = (reply->code == 421) ? 451 : (reply->code < 300) ? 250
                                                            : reply->code;

    ngx_mail_policy_transaction_text(t, code, reply, "0.0", &text);

    if (stage == NGX_MAIL_POLICY_RELAY_BODY) {
        ngx_mail_policy_body_fail(t, code, &text);
        return;
    }

    t->dot = 0;
    t->data = 0;

    ngx_mail_policy_body_finish(t, code < 300
                                   ? NGX_MAIL_POLICY_ACCEPTED
                                   : code < 500
                                     ? NGX_MAIL_POLICY_DEFERRED
                                     : NGX_MAIL_POLICY_REJECTED,
                                code, &text);
}


void
ngx_mail_policy_body_lost(ngx_mail_policy_transaction_t *t)
{
    if (t->dot) {
        ngx_log_error(NGX_LOG_WARN, t->session->connection->log, 0,
                      "relay %V took the message from <%V> and did not "
                      "answer, outcome=unknown", &t->record.relay,
                      &t->session->envelope.sender);

        ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_UNKNOWN, 451,
                                    &ngx_mail_policy_relay_lost);
        return;
    }

    if (t->session->reading == NGX_MAIL_POLICY_READ_BODY) {
        ngx_mail_policy_body_fail(t, 451, &ngx_mail_policy_relay_lost);
        return;
    }

    /* DATA was not answered */

    ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_DEFERRED, 451,
                                &ngx_mail_policy_relay_lost);
}


/* the last word on this transaction; the next command may come */

static void
ngx_mail_policy_body_finish(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_outcome_e outcome, ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    t->record.status = status;
    t->record.reply = *text;

    ngx_mail_policy_reply(s, "%V", text);

    /* at once, not at the end of the loop turn: the log is to know of it */

    if (outcome == NGX_MAIL_POLICY_ACCEPTED
        && ngx_mail_policy_output_flush(s) == NGX_ERROR)
    {
        outcome = NGX_MAIL_POLICY_UNACKED;
        s->closing = 1;
    }

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_transaction_finalize(t, outcome);
    ngx_mail_policy_session_resume(s);
}
