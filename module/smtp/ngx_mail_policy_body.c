
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A body on its way to the relay, whichever command brings it, and what
 * becomes of it.
 *
 * It goes in place from the client's buffer, or encoded by way of a buffer of
 * the transaction's (wire); a relay that is slow stops the reading from the
 * client.  When the message can no longer be relayed (an early refusal, a
 * lost relay, bare CR or LF, too large), it is swallowed up to the client's
 * end and then refused: the relay's connection is cut at once, without dot or
 * LAST, so nothing of it is committed.
 *
 * The reply to the end of the message is the relay's.  A relay that has the
 * end and does not answer leaves an unknown outcome: 451, and the charge
 * stands.
 *
 * Events: the relay's replies, its room for more (resumes the session), its
 * loss; the limits' verdict on octets that were not declared; what policy
 * servers say of the whole.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_received.h"
#include "ngx_mail_policy_session.h"


/* "BDAT 65599 LAST" CRLF, in front of the octets in the wire buffer */
#define NGX_MAIL_POLICY_CHUNK_HEAD  32

#define NGX_MAIL_POLICY_WIRE                                                 \
    (NGX_MAIL_POLICY_CHUNK_HEAD                                              \
     + 2 * NGX_MAIL_POLICY_BODY + 2 * MPOL_CONTENT_ROOM + sizeof("." CRLF))


static size_t ngx_mail_policy_body_fields(ngx_mail_policy_transaction_t *t,
    u_char *out);
static void ngx_mail_policy_body_chunk(ngx_mail_policy_transaction_t *t,
    size_t len, ngx_uint_t last);
static ngx_int_t ngx_mail_policy_body_charge(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_body_charged(void *data,
    ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_body_ask(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_body_asked(void *data, ngx_uint_t status,
    ngx_str_t *text);
static ngx_mail_policy_outcome_e ngx_mail_policy_body_outcome(
    ngx_uint_t status);
static void ngx_mail_policy_body_finish(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_at_command_e command, ngx_mail_policy_outcome_e outcome,
    ngx_uint_t status, ngx_str_t *text);


static ngx_str_t  ngx_mail_policy_body_bare =
    ngx_string("554 5.6.0 Message contains bare <CR> or <LF>");
static ngx_str_t  ngx_mail_policy_body_nul =
    ngx_string("554 5.6.0 Message contains NUL characters");
static ngx_str_t  ngx_mail_policy_body_loop =
    ngx_string("554 5.4.6 Too many hops, this looks like a mail loop");


/* the relay's 354 has come, or it takes chunks: the body may begin */

void
ngx_mail_policy_body_begin(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (ngx_mail_policy_body_prepare(t) != NGX_OK) {
        ngx_mail_policy_body_refused(t, 452, &ngx_mail_policy_no_memory);
        return;
    }

    /* counted from here; what was declared has served */

    s->envelope.message_size = 0;
    s->connection->log->action = "reading message";

    mpol_pace_init(&s->pace, s->core->timeout, s->conf->min_data_rate);

    if (t->bdat) {
        s->reading = NGX_MAIL_POLICY_READ_CHUNK;
        ngx_mail_policy_session_resume(s);
        return;
    }

    s->reading = NGX_MAIL_POLICY_READ_BODY;

    /* SMUG-10: nothing may have come behind DATA, so it is no body */

    switch (ngx_mail_policy_session_recv(s, NGX_MAIL_POLICY_BODY)) {

    case NGX_OK:
        ngx_mail_policy_session_unsynchronized(s);
        return;

    case NGX_DONE:
        return;
    }

    ngx_mail_policy_reply(s, "354 End data with <CR><LF>.<CR><LF>");
    ngx_mail_policy_session_resume(s);
}


ngx_int_t
ngx_mail_policy_body_prepare(ngx_mail_policy_transaction_t *t)
{
    t->encoded = (t->bdat || t->session->conf->normalize);
    t->trace = ngx_mail_policy_received_wanted(t->session);
    t->wire_size = t->prepended + (t->trace ? MPOL_RECEIVED_SIZE : 0);

    if (t->encoded) {
        t->body.content = 1;
        t->content.stuff = !t->chunking;
        t->content.normalize = t->session->conf->normalize;

        t->wire_size += NGX_MAIL_POLICY_WIRE;
    }

    if (t->wire_size == 0) {
        return NGX_OK;
    }

    t->wire = ngx_palloc(t->pool, t->wire_size);

    return t->wire ? NGX_OK : NGX_ERROR;
}


void
ngx_mail_policy_body_front(ngx_mail_policy_transaction_t *t)
{
    size_t  n;

    n = ngx_mail_policy_body_fields(t, t->wire);

    if (n) {
        t->wire_pos = 0;
        t->wire_last = n;
    }
}


/* with the first octets of the message, and then no more */

static size_t
ngx_mail_policy_body_fields(ngx_mail_policy_transaction_t *t, u_char *out)
{
    size_t  n;

    n = 0;

    if (t->prepended) {
        t->prepended = 0;
        n = ngx_mail_policy_prepended(t, out);
    }

    if (t->trace) {
        t->trace = 0;
        n += ngx_mail_policy_received(t, out + n);
    }

    return n;
}


ngx_int_t
ngx_mail_policy_body_recv(ngx_mail_policy_session_t *s)
{
    ngx_int_t  rc;

    rc = ngx_mail_policy_session_recv(s, NGX_MAIL_POLICY_BODY);

    if (rc == NGX_OK) {
        ngx_mail_policy_session_waited(s);
    }

    return rc;
}


void
ngx_mail_policy_body_encode(ngx_mail_policy_transaction_t *t, u_char *data,
    size_t len, ngx_uint_t end)
{
    u_char  *p;
    size_t   consumed, produced, n;

    p = t->wire + NGX_MAIL_POLICY_CHUNK_HEAD;
    n = ngx_mail_policy_body_fields(t, p);

    if (t->mail.body == MPOL_BODY_BINARYMIME) {
        ngx_memcpy(p + n, data, len);
        t->content.octets += len;
        n += len;

    } else {
        mpol_content_encode(&t->content, data, len, p + n,
                            t->wire_size - NGX_MAIL_POLICY_CHUNK_HEAD - n,
                            &consumed, &produced);
        n += produced;

        if (end) {
            n += mpol_content_finish(&t->content, p + n);
        }
    }

    if (t->chunking) {
        ngx_mail_policy_body_chunk(t, n, end);
        return;
    }

    if (end) {
        ngx_memcpy(p + n, "." CRLF, 3);
        n += 3;
    }

    t->wire_pos = NGX_MAIL_POLICY_CHUNK_HEAD;
    t->wire_last = n ? t->wire_pos + n : 0;
}


/* n octets are in the wire buffer: their command in front of them */

static void
ngx_mail_policy_body_chunk(ngx_mail_policy_transaction_t *t, size_t len,
    ngx_uint_t last)
{
    u_char  *end;
    u_char   head[NGX_MAIL_POLICY_CHUNK_HEAD];

    if (len == 0 && !last) {
        return;
    }

    end = ngx_sprintf(head, "BDAT %uz%s" CRLF, len, last ? " LAST" : "");

    t->wire_pos = NGX_MAIL_POLICY_CHUNK_HEAD - (end - head);
    t->wire_last = NGX_MAIL_POLICY_CHUNK_HEAD + len;

    ngx_memcpy(t->wire + t->wire_pos, head, end - head);

    if (!last) {
        ngx_mail_policy_relay_chunk(t->session->relay);
    }
}


void
ngx_mail_policy_body_judge(ngx_mail_policy_transaction_t *t)
{
    size_t      max;
    uint64_t    octets;
    ngx_uint_t  fault;

    fault = t->encoded ? t->content.fault : t->body.fault;

    if (fault) {
        ngx_mail_policy_body_fail(t, 554,
                                  fault == MPOL_BODY_NUL
                                  ? &ngx_mail_policy_body_nul
                                  : &ngx_mail_policy_body_bare);
        return;
    }

    if (t->header.received >= NGX_MAIL_POLICY_HOPS) {
        ngx_mail_policy_body_fail(t, 554, &ngx_mail_policy_body_loop);
        return;
    }

    max = t->session->conf->message_size;
    octets = t->bdat ? t->content.octets : t->body.octets;

    if (max && octets > max) {
        ngx_mail_policy_body_fail(t, 552, &ngx_mail_policy_too_big);
    }
}


ngx_int_t
ngx_mail_policy_body_send(ngx_mail_policy_transaction_t *t)
{
    size_t                      n;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->end && !t->failed && ngx_mail_policy_body_charge(t) != NGX_OK) {
        return NGX_AGAIN;
    }

    if (t->end && !t->failed && ngx_mail_policy_body_ask(t) != NGX_OK) {
        return NGX_AGAIN;
    }

    if (t->end && !t->listened && !t->failed) {
        if (ngx_mail_policy_relay_listen(s->relay) != NGX_OK) {
            return NGX_AGAIN;
        }

        t->listened = 1;
    }

    if (t->wire_last) {
        t->wire_pos += ngx_mail_policy_relay_body(s->relay,
                                                  t->wire + t->wire_pos,
                                                  t->wire_last - t->wire_pos);

        if (t->wire_pos < t->wire_last) {
            return NGX_AGAIN;
        }

        t->wire_last = 0;
    }

    if (t->ready) {
        n = ngx_mail_policy_relay_body(s->relay, s->in + s->in_pos, t->ready);

        s->in_pos += n;
        t->ready -= n;
        t->consumed -= n;
    }

    return t->ready ? NGX_AGAIN : NGX_OK;
}


/*
 * The octets of a message that MAIL did not declare are asked for before the
 * relay has the end of it.  NGX_OK: paid, or failed; NGX_AGAIN
 */

static ngx_int_t
ngx_mail_policy_body_charge(ngx_mail_policy_transaction_t *t)
{
    ngx_uint_t                 n;
    ngx_queue_t               *q;
    ngx_mail_policy_rcpt_t    *rcpt;
    ngx_mail_policy_check_t  **paid;

    if (t->session->conf->limits == NULL) {
        return NGX_OK;
    }

    if (t->rest_asked) {
        return t->rest_paid ? NGX_OK : NGX_AGAIN;
    }

    t->rest_asked = 1;

    paid = ngx_palloc(t->pool, (1 + t->nrcpts) * sizeof(void *));
    if (paid == NULL) {
        ngx_mail_policy_body_fail(t, 452, &ngx_mail_policy_no_memory);
        return NGX_OK;
    }

    paid[0] = &t->check;
    n = 1;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED && rcpt->check.ask) {
            paid[n++] = &rcpt->check;
        }
    }

    ngx_mail_policy_session_check(t->session, &t->rest, t->pool,
                                  ngx_mail_policy_body_charged, t);
    t->rest.delayed = &t->delayed;

    switch (ngx_mail_policy_check_rest(&t->rest, paid, n,
                                       t->session->envelope.message_size))
    {

    case NGX_OK:
        t->rest_paid = 1;
        return NGX_OK;

    case NGX_AGAIN:
        return NGX_AGAIN;

    default:
        ngx_mail_policy_body_fail(t, 452, &ngx_mail_policy_no_memory);
        return NGX_OK;
    }
}


static void
ngx_mail_policy_body_charged(void *data, ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_transaction_t *t = data;

    t->rest_paid = 1;

    ngx_mail_policy_transaction_limited(t, verdict);

    if (verdict->rc != NGX_OK && !t->failed) {
        t->refusing = verdict;
        ngx_mail_policy_body_fail(t, verdict->code, &verdict->text);
        return;
    }

    ngx_mail_policy_session_resume(t->session);
}


/*
 * Other policy servers, behind the limits: they see the size of it.  NGX_OK:
 * they have nothing against it, or it failed; NGX_AGAIN
 */

static ngx_int_t
ngx_mail_policy_body_ask(ngx_mail_policy_transaction_t *t)
{
    ngx_int_t  rc;

    if (t->end_asked) {
        return t->end_passed ? NGX_OK : NGX_AGAIN;
    }

    t->end_asked = 1;

    rc = ngx_mail_policy_services_ask(t, NULL, NGX_MAIL_POLICY_SERVICE_END,
                                      ngx_mail_policy_body_asked, t);
    if (rc == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    t->end_passed = 1;

    if (rc != NGX_OK) {
        ngx_mail_policy_body_fail(t, 452, &ngx_mail_policy_no_memory);
    }

    return NGX_OK;
}


static void
ngx_mail_policy_body_asked(void *data, ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_transaction_t *t = data;

    t->end_passed = 1;

    if (status == 0 || t->failed) {
        ngx_mail_policy_session_resume(t->session);
        return;
    }

    t->leaving = ngx_mail_policy_service_leaves(status);

    ngx_mail_policy_body_fail(t, status, text);
}


ngx_int_t
ngx_mail_policy_body_end(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->failed) {
        ngx_mail_policy_body_failed(t);
        return NGX_OK;
    }

    s->reading = NGX_MAIL_POLICY_READ_NOTHING;
    s->connection->log->action = "waiting for the relay's reply";
    t->dot = 1;

    if (ngx_mail_policy_relay_final(s->relay, t) != NGX_OK) {
        ngx_mail_policy_body_lost(t);
        return NGX_OK;
    }

    ngx_mail_policy_peer_try_due(&t->try);

    return NGX_AGAIN;
}


void
ngx_mail_policy_body_fail(ngx_mail_policy_transaction_t *t, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (s->relay && t->data) {
        ngx_mail_policy_relay_close(s->relay);
        s->relay = NULL;
    }

    t->failed = 1;
    t->ready = 0;
    t->wire_last = 0;
    t->record.status = status;
    t->record.reply = *text;

    /* the octets of a chunk come whatever the relay has said */

    if (t->bdat && s->reading == NGX_MAIL_POLICY_READ_NOTHING) {
        s->reading = NGX_MAIL_POLICY_READ_CHUNK;
    }

    ngx_mail_policy_session_resume(s);
}


void
ngx_mail_policy_body_failed(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_AT_COMMAND_END,
                                ngx_mail_policy_body_outcome(t->record.status),
                                t->record.status, &t->record.reply);
}


/* DATA itself was refused */

void
ngx_mail_policy_body_refused(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text)
{
    if (t->bdat) {
        ngx_mail_policy_body_fail(t, status, text);
        return;
    }

    ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_AT_COMMAND_DATA,
                                ngx_mail_policy_body_outcome(status), status,
                                text);
}


/* the relay's reply to the end, or an early one (it gave the message up) */

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

    ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_AT_COMMAND_END,
                                ngx_mail_policy_body_outcome(code), code,
                                &text);
}


void
ngx_mail_policy_body_lost(ngx_mail_policy_transaction_t *t)
{
    if (t->dot) {
        ngx_log_error(NGX_LOG_WARN, t->session->connection->log, 0,
                      "relay %V took the message from <%V> and did not "
                      "answer, outcome=unknown", &t->record.relay,
                      &t->session->envelope.sender);

        ngx_mail_policy_body_finish(t, NGX_MAIL_POLICY_AT_COMMAND_END,
                                    NGX_MAIL_POLICY_UNKNOWN, 451,
                                    &ngx_mail_policy_relay_lost);
        return;
    }

    if (t->session->reading == NGX_MAIL_POLICY_READ_BODY) {
        ngx_mail_policy_body_fail(t, 451, &ngx_mail_policy_relay_lost);
        return;
    }

    /* DATA was not answered, or chunks are under way */

    ngx_mail_policy_body_refused(t, 451, &ngx_mail_policy_relay_lost);
}


static ngx_mail_policy_outcome_e
ngx_mail_policy_body_outcome(ngx_uint_t status)
{
    return status < 300 ? NGX_MAIL_POLICY_ACCEPTED
           : status < 500 ? NGX_MAIL_POLICY_DEFERRED
           : NGX_MAIL_POLICY_REJECTED;
}


/* the last word on this transaction; the next command may come */

static void
ngx_mail_policy_body_finish(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_at_command_e command, ngx_mail_policy_outcome_e outcome,
    ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    t->record.status = status;
    t->record.reply = *text;

    if (status >= 400) {
        ngx_mail_policy_transaction_refused(t, command, text, NULL);
    }

    ngx_mail_policy_reply(s, "%V", text);

    if (t->leaving) {
        s->closing = 1;
    }

    /*
     * At once, not at the end of the loop turn: the log is to know of it;
     * and there may have been no memory for the reply.
     */

    if (outcome == NGX_MAIL_POLICY_ACCEPTED
        && (ngx_mail_policy_output_flush(s) == NGX_ERROR || s->closing))
    {
        outcome = NGX_MAIL_POLICY_UNACKED;
        s->closing = 1;
    }

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    if (outcome == NGX_MAIL_POLICY_ACCEPTED) {
        s->junk = 0;
    }

    ngx_mail_policy_transaction_finalize(t, outcome);
    ngx_mail_policy_session_resume(s);
}
