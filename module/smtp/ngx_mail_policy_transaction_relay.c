
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A transaction and its relay: the choice of one, what it answers, and what
 * happens when it fails.
 *
 * Until the client has been told anything that the relay said (relay_told), a
 * failed relay is replaced by the next one of its group, from MAIL on, as
 * proxy_next_upstream has it (..._next.c); after that the rest of the
 * transaction is deferred.  A 4xx may be passed on likewise as long as the
 * client has heard of no recipient (rcpt_told).
 *
 * One that had been used before and is lost without a reply to MAIL may have
 * been closed while nobody used it: then the same relay is asked again, by a
 * new connection.
 *
 * Events: the relay's replies, its failure, its room for more of the body.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_int_t ngx_mail_policy_transaction_connect(
    ngx_mail_policy_transaction_t *t);
static ngx_int_t ngx_mail_policy_transaction_open(
    ngx_mail_policy_transaction_t *t, ngx_mail_policy_peer_t *peer);
static ngx_int_t ngx_mail_policy_transaction_ask(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_replied(void *data,
    ngx_mail_policy_relay_stage_e stage, void *tag, mpol_reply_t *reply);
static void ngx_mail_policy_relay_cipher(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_mail_replied(
    ngx_mail_policy_transaction_t *t, mpol_reply_t *reply);
static void ngx_mail_policy_relay_rcpt_replied(ngx_mail_policy_rcpt_t *rcpt,
    mpol_reply_t *reply);
static void ngx_mail_policy_relay_data_replied(
    ngx_mail_policy_transaction_t *t, mpol_reply_t *reply);
static void ngx_mail_policy_relay_failed(void *data,
    ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_relay_again(ngx_mail_policy_transaction_t *t);
static ngx_str_t *ngx_mail_policy_relay_failure(
    ngx_mail_policy_relay_cause_e cause, ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_relay_next(ngx_mail_policy_transaction_t *t,
    ngx_uint_t condition, ngx_uint_t status, ngx_str_t *text);
static void ngx_mail_policy_relay_restart(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_leave(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_relay_gone(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_writable(void *data);
static void ngx_mail_policy_relay_idle(void *data);


static ngx_str_t  ngx_mail_policy_relay_refuses_us =
    ngx_string("451 4.3.5 Relay configuration problem, try again later");
static ngx_str_t  ngx_mail_policy_relay_ourselves =
    ngx_string("451 4.3.0 Temporary server problem, try again later");
static ngx_str_t  ngx_mail_policy_relay_insecure =
    ngx_string("451 4.7.5 No secure connection to the relay, try again later");


static ngx_mail_policy_relay_handlers_t  ngx_mail_policy_relay_handlers = {
    ngx_mail_policy_relay_replied,
    ngx_mail_policy_relay_failed,
    ngx_mail_policy_relay_writable,
    ngx_mail_policy_relay_idle,
    NULL
};


/* a connection to the transaction's group, and MAIL on its way there */

ngx_int_t
ngx_mail_policy_transaction_relay(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->balance.upstream == NULL
        && ngx_mail_policy_balance_init(&t->balance, t->upstream, t->pool,
                                        &s->envelope)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    t->record.upstream = t->upstream->name;

    if (t->record.relay_start == 0) {
        t->record.relay_start = ngx_current_msec;
    }

    if (s->relay
        && (s->relay_upstream != t->upstream
            || !ngx_mail_policy_keep_again(s->relay, &s->envelope)
            || !ngx_mail_policy_balance_fits(&t->balance, s->relay->peer)))
    {
        ngx_mail_policy_keep_put(s->relay);
        s->relay = NULL;
    }

    if (s->relay == NULL
        && ngx_mail_policy_transaction_connect(t) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_next_try(&t->next);
    ngx_mail_policy_peer_try_begin(&t->try, s->relay);

    return ngx_mail_policy_transaction_ask(t);
}


static ngx_int_t
ngx_mail_policy_transaction_ask(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    ngx_mail_policy_record_try(&t->record, t->pool, t->upstream,
                               s->relay->peer);

    if (ngx_mail_policy_relay_mail(s->relay, t, &t->mail) != NGX_OK) {
        return NGX_ERROR;
    }

    t->mail_asked = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_transaction_connect(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_peer_t     *peer;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    peer = ngx_mail_policy_next_peer(&t->balance, s->connection);
    if (peer == NULL) {
        return NGX_ERROR;
    }

    s->relay = ngx_mail_policy_keep_get(t->upstream, s->conf->relay_conf,
                                        peer, &s->envelope,
                                        &ngx_mail_policy_relay_handlers, s);
    if (s->relay) {
        s->relay_upstream = t->upstream;
        return NGX_OK;
    }

    return ngx_mail_policy_transaction_open(t, peer);
}


static ngx_int_t
ngx_mail_policy_transaction_open(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    s->relay = ngx_mail_policy_keep_open(t->upstream, s->conf->relay_conf,
                                         peer, &s->envelope,
                                         &ngx_mail_policy_relay_handlers, s);
    if (s->relay == NULL) {
        ngx_mail_policy_peer_release(peer);
        return NGX_ERROR;
    }

    s->relay_upstream = t->upstream;

    return NGX_OK;
}


void
ngx_mail_policy_transaction_adopt(ngx_mail_policy_session_t *s,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_upstream_t *upstream)
{
    relay->envelope = &s->envelope;
    relay->handlers = &ngx_mail_policy_relay_handlers;
    relay->data = s;

    s->relay = relay;
    s->relay_upstream = upstream;
}


static void
ngx_mail_policy_relay_replied(void *data, ngx_mail_policy_relay_stage_e stage,
    void *tag, mpol_reply_t *reply)
{
    ngx_mail_policy_session_t      *s = data;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    /* what it is not able to do, it was not asked for */

    ngx_mail_policy_record_tried(&t->record,
                                 s->relay->unable ? 0 : reply->code);

    if (!s->relay->unable) {
        ngx_mail_policy_peer_try_replied(&t->try, stage, reply->code);
    }

    switch (stage) {

    case NGX_MAIL_POLICY_RELAY_MAIL:
        ngx_mail_policy_relay_cipher(t);
        ngx_mail_policy_upstream_report(s->relay->peer, 0);
        ngx_mail_policy_balance_tried(&t->balance, s->relay->peer);
        ngx_mail_policy_relay_mail_replied(t, reply);
        return;

    case NGX_MAIL_POLICY_RELAY_RCPT:
        ngx_mail_policy_relay_rcpt_replied(tag, reply);
        return;

    case NGX_MAIL_POLICY_RELAY_DATA:
        ngx_mail_policy_relay_data_replied(t, reply);
        return;

    default:
        ngx_mail_policy_body_reply(t, stage, reply);
    }
}


/* texts of OpenSSL's own */

static void
ngx_mail_policy_relay_cipher(ngx_mail_policy_transaction_t *t)
{
    ngx_connection_t  *c;

    c = t->session->relay->pc.connection;

    t->record.relay_protocol = NULL;

    if (c->ssl) {
        t->record.relay_protocol = SSL_get_version(c->ssl->connection);
        t->record.relay_cipher = SSL_get_cipher_name(c->ssl->connection);
    }
}


static void
ngx_mail_policy_relay_mail_replied(ngx_mail_policy_transaction_t *t,
    mpol_reply_t *reply)
{
    ngx_str_t  text;

    if (reply->code < 300) {
        t->mail_relayed = 1;
        ngx_mail_policy_transaction_ready(t);
        return;
    }

    ngx_mail_policy_transaction_text(t, reply->code, reply, "1.0", &text);

    if (t->session->relay->unable) {

        /* another one of the group may be able to */

        ngx_mail_policy_relay_leave(t->session);
        ngx_mail_policy_relay_next(t, NGX_MAIL_POLICY_NEXT_UNABLE,
                                   reply->code, &text);
        return;
    }

    if (reply->code < 500 && !t->relay_told
        && ngx_mail_policy_next_allowed(&t->next, t->session->conf,
                                        NGX_MAIL_POLICY_NEXT_4XX))
    {
        ngx_mail_policy_relay_leave(t->session);
        ngx_mail_policy_relay_next(t, NGX_MAIL_POLICY_NEXT_4XX, reply->code,
                                   &text);
        return;
    }

    if (!t->mail_answered) {
        ngx_mail_policy_transaction_refuse(t, reply->code, &text);
        return;
    }

    /* MAIL was answered already: it is the recipients who hear of it */

    t->mail_status = reply->code;
    t->mail_refused = text;
    t->relay_told = 1;
    t->rcpt_told = 1;
    t->mail_asked = 0;
    (void) ngx_mail_policy_relay_rset(t->session->relay);

    ngx_mail_policy_rcpts_refuse(t, reply->code, &text);
}


static void
ngx_mail_policy_relay_rcpt_replied(ngx_mail_policy_rcpt_t *rcpt,
    mpol_reply_t *reply)
{
    ngx_str_t                       text;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;

    ngx_mail_policy_transaction_text(t, reply->code, reply, "1.5", &text);

    /* who is on his way with it would have to go, too */

    if (reply->code >= 400 && reply->code < 500 && !t->rcpt_told
        && ngx_mail_policy_next_allowed(&t->next, t->session->conf,
                                        NGX_MAIL_POLICY_NEXT_4XX)
        && ngx_mail_policy_rcpt_alone(t, rcpt, NGX_MAIL_POLICY_RCPT_RELAYING)
        && ngx_mail_policy_balance_more(&t->balance))
    {
        /* the client was told no more than that MAIL is right */

        t->relay_told = 0;

        ngx_mail_policy_relay_leave(t->session);
        ngx_mail_policy_relay_next(t, NGX_MAIL_POLICY_NEXT_4XX, reply->code,
                                   &text);
        return;
    }

    t->relay_told = 1;
    t->rcpt_told = 1;

    if (reply->code < 300) {
        ngx_mail_policy_rcpt_accept(rcpt, &text);

    } else {
        ngx_mail_policy_rcpt_refuse(rcpt, reply->code, &text);
    }

    ngx_mail_policy_rcpts_kick(t);
}


static void
ngx_mail_policy_relay_data_replied(ngx_mail_policy_transaction_t *t,
    mpol_reply_t *reply)
{
    ngx_str_t  text;

    t->relay_told = 1;

    if (reply->code == 354) {
        ngx_mail_policy_body_begin(t);
        return;
    }

    t->data = 0;

    ngx_mail_policy_transaction_text(t, reply->code, reply, "0.0", &text);

    ngx_mail_policy_body_refused(t, reply->code, &text);
}


static void
ngx_mail_policy_relay_failed(void *data, ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_session_t      *s = data;
    ngx_mail_policy_relay_cause_e   cause;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;
    cause = s->relay->cause;

    /* an idle connection may well be closed by the relay */

    if (t == NULL || !t->mail_asked) {
        ngx_mail_policy_relay_close(s->relay);
        s->relay = NULL;
        return;
    }

    ngx_mail_policy_record_tried(&t->record, 0);

    if (ngx_mail_policy_relay_stale(s->relay)) {
        ngx_mail_policy_relay_again(t);
        return;
    }

    /* silent over the transaction before, it was not asked yet */

    if (stage != NGX_MAIL_POLICY_RELAY_RSET) {
        ngx_mail_policy_balance_tried(&t->balance, s->relay->peer);
    }

    ngx_mail_policy_peer_try_failed(&t->try, s->relay, stage);

    if (ngx_mail_policy_next_failure(&t->next, s->relay, stage)) {
        ngx_mail_policy_upstream_report(s->relay->peer, 1);
    }

    ngx_mail_policy_relay_close(s->relay);
    s->relay = NULL;

    if (t->dot || (t->data && stage >= NGX_MAIL_POLICY_RELAY_DATA)) {
        ngx_mail_policy_body_lost(t);
        return;
    }

    if (t->relay_told) {
        ngx_mail_policy_relay_gone(t);
        return;
    }

    t->peer_failed = 1;

    ngx_mail_policy_relay_next(t, ngx_mail_policy_next_condition(cause), 451,
                               ngx_mail_policy_relay_failure(cause, stage));
}


/* another connection to the same one, which the first one has kept alive */

static void
ngx_mail_policy_relay_again(ngx_mail_policy_transaction_t *t)
{
    ngx_int_t                   rc;
    ngx_mail_policy_relay_t    *stale;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    stale = s->relay;

    ngx_mail_policy_peer_acquire(stale->peer);

    rc = ngx_mail_policy_transaction_open(t, stale->peer);

    ngx_mail_policy_relay_close(stale);

    ngx_mail_policy_relay_restart(t);
    ngx_mail_policy_peer_try_again(&t->try);

    if (rc != NGX_OK || ngx_mail_policy_transaction_ask(t) != NGX_OK) {
        ngx_mail_policy_relay_next(t, 0, 452, &ngx_mail_policy_no_memory);
        return;
    }

    ngx_mail_policy_rcpts_kick(t);
}


/* what the client is told: nothing of what the relay has against us */

static ngx_str_t *
ngx_mail_policy_relay_failure(ngx_mail_policy_relay_cause_e cause,
    ngx_mail_policy_relay_stage_e stage)
{
    if (cause == NGX_MAIL_POLICY_RELAY_OURSELVES) {
        return &ngx_mail_policy_relay_ourselves;
    }

    switch (stage) {

    case NGX_MAIL_POLICY_RELAY_TLS:
    case NGX_MAIL_POLICY_RELAY_STARTTLS:
        return &ngx_mail_policy_relay_insecure;

    case NGX_MAIL_POLICY_RELAY_XCLIENT:
    case NGX_MAIL_POLICY_RELAY_AUTH:
        return &ngx_mail_policy_relay_refuses_us;

    default:
        return (stage < NGX_MAIL_POLICY_RELAY_MAIL)
               ? &ngx_mail_policy_no_relay : &ngx_mail_policy_relay_lost;
    }
}


/*
 * Nothing was passed on yet: the next of the group, from the beginning; where
 * there is none, the client is told this.
 */

static void
ngx_mail_policy_relay_next(ngx_mail_policy_transaction_t *t,
    ngx_uint_t condition, ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_relay_restart(t);

    if (ngx_mail_policy_next_allowed(&t->next, t->session->conf, condition)
        && ngx_mail_policy_transaction_relay(t) == NGX_OK)
    {
        ngx_mail_policy_rcpts_kick(t);
        return;
    }

    /* who is away may be able to */

    if (status >= 500
        && (t->peer_failed
            || ngx_mail_policy_balance_more(&t->balance)))
    {
        status = 451;
        text = &ngx_mail_policy_no_relay;
    }

    if (!t->mail_answered) {
        ngx_mail_policy_transaction_refuse(t, status, text);
        return;
    }

    /* the next recipient may try again, and all of the group */

    ngx_mail_policy_balance_again(&t->balance);
    ngx_mail_policy_next_reset(&t->next);
    ngx_mail_policy_rcpts_refuse(t, status, text);
}


/* MAIL, and what was behind it, has to be said again */

static void
ngx_mail_policy_relay_restart(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    t->mail_asked = 0;
    t->mail_relayed = 0;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_RELAYING) {
            rcpt->state = NGX_MAIL_POLICY_RCPT_PASSED;
        }
    }
}


/* a relay that has answered, and whose answer is not the last word */

static void
ngx_mail_policy_relay_leave(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_keep_put(s->relay);
    s->relay = NULL;
}


/* the client knows answers of a relay that is no more */

static void
ngx_mail_policy_relay_gone(ngx_mail_policy_transaction_t *t)
{
    t->relay_lost = 1;

    ngx_mail_policy_rcpts_refuse(t, 451, &ngx_mail_policy_relay_lost);
}


static void
ngx_mail_policy_relay_writable(void *data)
{
    ngx_mail_policy_session_t  *s = data;

    ngx_mail_policy_session_resume(s);
}


/* no transaction uses it */

static void
ngx_mail_policy_relay_idle(void *data)
{
    ngx_mail_policy_session_t  *s = data;

    ngx_mail_policy_keep_put(s->relay);
    s->relay = NULL;
}
