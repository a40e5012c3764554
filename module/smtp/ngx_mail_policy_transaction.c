
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A transaction: MAIL to end of data.
 *
 *   MAIL   limits and relay are asked at once; both must say yes
 *   RCPT   NEW -> CHECKING -> PASSED -> RELAYING -> ACCEPTED
 *             \-------------\----------\------------> REFUSED
 *          limits first: a relay cannot be told to forget one recipient
 *   DATA   when nothing is due any more and a recipient stands
 *
 * Where the route needs the recipient (lazy), the relay is chosen at the
 * first RCPT, and MAIL is answered without it.
 *
 * Events: verdicts of the limits, replies and failure of the relay.  Until
 * the client has been told anything that the relay said (relay_told), a
 * failed relay is replaced by the next one of its group; after that the rest
 * of the transaction is deferred.
 *
 * finalize() ends it: every charge is kept or given back, the relay forgets
 * it, one line is logged.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_text.h"
#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_REPLY_TEXT     400
#define NGX_MAIL_POLICY_REPLY_TIMEOUT  300000   /* RFC 5321, 4.5.3.2 */


static void ngx_mail_policy_transaction_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_transaction_ready(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_transaction_refuse(
    ngx_mail_policy_transaction_t *t, ngx_uint_t status, ngx_str_t *text);
static void ngx_mail_policy_transaction_kick(ngx_mail_policy_transaction_t *t);
static ngx_int_t ngx_mail_policy_rcpt_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
static void ngx_mail_policy_rcpt_check(ngx_mail_policy_rcpt_t *rcpt);
static void ngx_mail_policy_rcpt_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_rcpt_accept(ngx_mail_policy_rcpt_t *rcpt,
    ngx_str_t *text);
static void ngx_mail_policy_rcpt_refuse(ngx_mail_policy_rcpt_t *rcpt,
    ngx_uint_t status, ngx_str_t *text);
static void ngx_mail_policy_rcpts_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_transaction_relay(
    ngx_mail_policy_transaction_t *t);
static ngx_int_t ngx_mail_policy_transaction_connect(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_replied(void *data,
    ngx_mail_policy_relay_stage_e stage, void *tag, mpol_reply_t *reply);
static void ngx_mail_policy_relay_mail_replied(
    ngx_mail_policy_transaction_t *t, mpol_reply_t *reply);
static void ngx_mail_policy_relay_rcpt_replied(ngx_mail_policy_rcpt_t *rcpt,
    mpol_reply_t *reply);
static void ngx_mail_policy_relay_data_replied(
    ngx_mail_policy_transaction_t *t, mpol_reply_t *reply);
static void ngx_mail_policy_relay_failed(void *data,
    ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_relay_next(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_relay_gone(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_relay_writable(void *data);
static void ngx_mail_policy_transaction_charges(
    ngx_mail_policy_transaction_t *t, ngx_uint_t keep);
static void ngx_mail_policy_transaction_log(ngx_mail_policy_transaction_t *t);


static ngx_mail_policy_relay_handlers_t  ngx_mail_policy_relay_handlers = {
    ngx_mail_policy_relay_replied,
    ngx_mail_policy_relay_failed,
    ngx_mail_policy_relay_writable
};


static ngx_str_t  ngx_mail_policy_memory =
    ngx_string("452 4.3.1 Out of memory");
static ngx_str_t  ngx_mail_policy_no_route =
    ngx_string("451 4.3.5 No route to relay, try again later");
static ngx_str_t  ngx_mail_policy_no_relay =
    ngx_string("451 4.4.1 No relay available, try again later");
static ngx_str_t  ngx_mail_policy_relay_refuses_us =
    ngx_string("451 4.3.5 Relay configuration problem, try again later");
static ngx_str_t  ngx_mail_policy_relay_lost =
    ngx_string("451 4.4.2 Connection to relay lost, try again later");


ngx_mail_policy_transaction_t *
ngx_mail_policy_transaction_create(ngx_mail_policy_session_t *s)
{
    ngx_pool_t                     *pool;
    ngx_mail_policy_envelope_t     *e;
    ngx_mail_policy_transaction_t  *t;

    pool = ngx_create_pool(2048, s->connection->log);
    if (pool == NULL) {
        return NULL;
    }

    t = ngx_pcalloc(pool, sizeof(ngx_mail_policy_transaction_t));
    if (t == NULL
        || ngx_array_init(&t->charged, pool, 1,
                          sizeof(ngx_mail_policy_charged_t))
           != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    t->pool = pool;
    t->session = s;
    t->record.start = ngx_current_msec;
    ngx_queue_init(&t->rcpts);

    s->transaction = t;

    e = &s->envelope;
    e->transaction = ++s->transactions;

    ngx_str_null(&e->sender);
    ngx_str_null(&e->sender_local);
    ngx_str_null(&e->sender_domain);
    ngx_str_null(&e->recipient);
    ngx_str_null(&e->recipient_domain);

    e->recipients = 0;
    e->rejected_recipients = 0;
    e->message_size = 0;

    return t;
}


void
ngx_mail_policy_transaction_mail(ngx_mail_policy_transaction_t *t)
{
    ngx_int_t                   rc;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    ngx_mail_policy_due_add(s, &t->due);

    t->lazy = (s->conf->upstream == NULL
               && s->conf->route->phase == NGX_MAIL_POLICY_AT_RCPT);

    if (!t->lazy) {
        t->upstream = ngx_mail_policy_transaction_route(t);

        if (t->upstream == NULL) {
            ngx_mail_policy_transaction_refuse(t, 451,
                                               &ngx_mail_policy_no_route);
            return;
        }
    }

    rc = ngx_mail_policy_check_start(&t->check, s->main_conf->store,
                                     s->conf->limits, &s->envelope,
                                     NGX_MAIL_POLICY_AT_MAIL, &t->charged,
                                     t->pool,
                                     ngx_mail_policy_transaction_checked, t);
    if (rc == NGX_ERROR) {
        ngx_mail_policy_transaction_refuse(t, 452, &ngx_mail_policy_memory);
        return;
    }

    t->mail_checked = (rc == NGX_OK);

    if (!t->lazy && ngx_mail_policy_transaction_relay(t) != NGX_OK) {
        ngx_mail_policy_transaction_refuse(t, 451, &ngx_mail_policy_no_relay);
        return;
    }

    ngx_mail_policy_transaction_ready(t);
}


ngx_mail_policy_upstream_t *
ngx_mail_policy_transaction_route(ngx_mail_policy_transaction_t *t)
{
    ngx_str_t                    name;
    ngx_mail_policy_session_t   *s;
    ngx_mail_policy_upstream_t  *upstream;

    s = t->session;

    if (s->conf->upstream) {
        return s->conf->upstream;
    }

    if (ngx_mail_policy_value_eval(t->pool, s->conf->route, &s->envelope,
                                   &name)
        != NGX_OK)
    {
        return NULL;
    }

    upstream = ngx_mail_policy_upstream_find(&s->main_conf->upstreams, &name);

    if (upstream == NULL) {
        ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                      "no upstream \"%V\", which \"proxy_pass %V\" gave",
                      &name, &s->conf->route->text);
    }

    return upstream;
}


static void
ngx_mail_policy_transaction_checked(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t                       text;
    ngx_mail_policy_transaction_t  *t = data;

    if (verdict->rc == NGX_OK) {
        t->mail_checked = 1;
        ngx_mail_policy_transaction_ready(t);
        return;
    }

    t->verdict = verdict;

    text.data = ngx_pnalloc(t->pool, verdict->text.len + 4);
    if (text.data == NULL) {
        ngx_mail_policy_transaction_refuse(t, 452, &ngx_mail_policy_memory);
        return;
    }

    text.len = ngx_sprintf(text.data, "%ui %V", verdict->code, &verdict->text)
               - text.data;

    ngx_mail_policy_transaction_refuse(t, verdict->code, &text);
}


/* tells the client that MAIL is right, once limits and relay have said so */

static void
ngx_mail_policy_transaction_ready(ngx_mail_policy_transaction_t *t)
{
    static ngx_str_t  ok = ngx_string("250 2.1.0 Ok");

    if (!t->mail_checked) {
        return;
    }

    if ((t->lazy || t->mail_relayed) && !t->mail_answered) {
        t->mail_answered = 1;
        t->session->trailing = 0;
        t->relay_told = t->mail_relayed;

        ngx_mail_policy_due_done(t->session, &t->due, &ok);
    }

    ngx_mail_policy_transaction_kick(t);
}


/* MAIL is refused: there is no transaction any more */

static void
ngx_mail_policy_transaction_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text)
{
    static ngx_str_t  sequence = ngx_string("503 5.5.1 Need MAIL command");

    ngx_mail_policy_due_done(t->session, &t->due, text);
    ngx_mail_policy_rcpts_refuse(t, 503, &sequence);

    t->record.status = status;
    t->record.reply = *text;

    ngx_mail_policy_transaction_finalize(t, status < 500
                                            ? NGX_MAIL_POLICY_DEFERRED
                                            : NGX_MAIL_POLICY_REJECTED);
}


void
ngx_mail_policy_transaction_rcpt(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_envelope_t  *e;

    static ngx_str_t  separate = ngx_string("452 4.5.3 Another route, send "
                                            "this recipient in a separate "
                                            "transaction");

    e = &t->session->envelope;
    e->recipient = rcpt->address;
    e->recipient_domain = rcpt->domain;

    ngx_mail_policy_due_add(t->session, &rcpt->due);

    if (t->relay_lost) {
        ngx_queue_insert_tail(&t->rcpts, &rcpt->queue);
        ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_relay_lost);
        return;
    }

    switch (t->lazy ? ngx_mail_policy_rcpt_route(t, rcpt) : NGX_OK) {

    case NGX_OK:
        ngx_queue_insert_tail(&t->rcpts, &rcpt->queue);
        ngx_mail_policy_transaction_kick(t);
        return;

    case NGX_DECLINED:
        ngx_queue_insert_tail(&t->rcpts, &rcpt->queue);
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &separate);
        return;

    default:
        ngx_queue_insert_tail(&t->rcpts, &rcpt->queue);
        ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_no_route);
    }
}


/*
 * The first recipient that is not refused chooses; NGX_DECLINED: this one
 * has another route.
 */

static ngx_int_t
ngx_mail_policy_rcpt_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_queue_t                 *q;
    ngx_mail_policy_rcpt_t      *other;
    ngx_mail_policy_upstream_t  *upstream;

    upstream = ngx_mail_policy_transaction_route(t);
    if (upstream == NULL) {
        return NGX_ERROR;
    }

    if (t->upstream == NULL || t->upstream == upstream) {
        t->upstream = upstream;
        return NGX_OK;
    }

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        other = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (other->state != NGX_MAIL_POLICY_RCPT_REFUSED) {
            return NGX_DECLINED;
        }
    }

    if (t->session->relay) {
        ngx_mail_policy_relay_close(t->session->relay);
        t->session->relay = NULL;
    }

    t->upstream = upstream;
    t->tried = 0;
    t->mail_asked = 0;
    t->mail_relayed = 0;

    return NGX_OK;
}


/*
 * Moves each recipient on as far as it can go.  One that is refused here may
 * be what another, before it, has waited for.
 */

static void
ngx_mail_policy_transaction_kick(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t                *q, *next;
    ngx_mail_policy_rcpt_t     *rcpt;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = next)
    {
        next = ngx_queue_next(q);
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_NEW) {
            ngx_mail_policy_rcpt_check(rcpt);
        }

        if (rcpt->state != NGX_MAIL_POLICY_RCPT_PASSED || !t->mail_checked) {
            continue;
        }

        if (!t->mail_asked && ngx_mail_policy_transaction_relay(t) != NGX_OK) {
            ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_no_relay);
            next = ngx_queue_head(&t->rcpts);
            continue;
        }

        if (ngx_mail_policy_relay_rcpt(s->relay, rcpt, &rcpt->address)
            != NGX_OK)
        {
            ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_memory);
            next = ngx_queue_head(&t->rcpts);
            continue;
        }

        rcpt->state = NGX_MAIL_POLICY_RCPT_RELAYING;
    }
}


static void
ngx_mail_policy_rcpt_check(ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_session_t      *s;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;
    s = t->session;

    s->envelope.recipient = rcpt->address;
    s->envelope.recipient_domain = rcpt->domain;

    switch (ngx_mail_policy_check_start(&rcpt->check, s->main_conf->store,
                                        s->conf->limits, &s->envelope,
                                        NGX_MAIL_POLICY_AT_RCPT, &t->charged,
                                        t->pool, ngx_mail_policy_rcpt_checked,
                                        rcpt))
    {

    case NGX_OK:
        rcpt->state = NGX_MAIL_POLICY_RCPT_PASSED;
        return;

    case NGX_AGAIN:
        rcpt->state = NGX_MAIL_POLICY_RCPT_CHECKING;
        return;

    case NGX_BUSY:
        return;

    default:
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_memory);
    }
}


static void
ngx_mail_policy_rcpt_checked(void *data, ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t                       text;
    ngx_mail_policy_rcpt_t         *rcpt = data;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;

    if (verdict->rc == NGX_OK) {
        rcpt->state = NGX_MAIL_POLICY_RCPT_PASSED;
        ngx_mail_policy_transaction_kick(t);
        return;
    }

    t->verdict = verdict;

    text.data = ngx_pnalloc(t->pool, verdict->text.len + 4);
    if (text.data == NULL) {
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_memory);

    } else {
        text.len = ngx_sprintf(text.data, "%ui %V", verdict->code,
                               &verdict->text)
                   - text.data;

        ngx_mail_policy_rcpt_refuse(rcpt, verdict->code, &text);
    }

    /* others may have waited for the same key */

    ngx_mail_policy_transaction_kick(t);
}


static void
ngx_mail_policy_rcpt_accept(ngx_mail_policy_rcpt_t *rcpt, ngx_str_t *text)
{
    rcpt->state = NGX_MAIL_POLICY_RCPT_ACCEPTED;

    ngx_mail_policy_check_accepted(&rcpt->check);

    rcpt->transaction->session->envelope.recipients++;

    ngx_mail_policy_due_done(rcpt->transaction->session, &rcpt->due, text);
}


static void
ngx_mail_policy_rcpt_refuse(ngx_mail_policy_rcpt_t *rcpt, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_transaction_t  *t;

    if (rcpt->state == NGX_MAIL_POLICY_RCPT_REFUSED) {
        return;
    }

    t = rcpt->transaction;

    rcpt->state = NGX_MAIL_POLICY_RCPT_REFUSED;

    ngx_mail_policy_check_give_back(&rcpt->check);

    t->session->envelope.rejected_recipients++;
    t->record.status = status;
    t->record.reply = *text;

    ngx_mail_policy_due_done(t->session, &rcpt->due, text);
}


/* all that are still to be answered */

static void
ngx_mail_policy_rcpts_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state != NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            ngx_mail_policy_rcpt_refuse(rcpt, status, text);
        }
    }
}


ngx_int_t
ngx_mail_policy_transaction_data(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->relay_lost || s->relay == NULL) {
        ngx_mail_policy_body_refused(t, 451, &ngx_mail_policy_relay_lost);
        return NGX_OK;
    }

    if (ngx_mail_policy_relay_data(s->relay, t) != NGX_OK) {
        ngx_mail_policy_body_refused(t, 452, &ngx_mail_policy_memory);
        return NGX_OK;
    }

    t->data = 1;
    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    return NGX_AGAIN;
}


/* a connection to the transaction's group, and MAIL on its way there */

static ngx_int_t
ngx_mail_policy_transaction_relay(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    t->record.upstream = t->upstream->name;

    if (t->record.relay_start == 0) {
        t->record.relay_start = ngx_current_msec;
    }

    if (s->relay
        && (s->relay_upstream != t->upstream
            || !ngx_mail_policy_relay_reusable(s->relay)))
    {
        ngx_mail_policy_relay_quit(s->relay);
        s->relay = NULL;
    }

    s->relay_reused = (s->relay != NULL);

    if (s->relay == NULL
        && ngx_mail_policy_transaction_connect(t) != NGX_OK)
    {
        return NGX_ERROR;
    }

    t->record.relay = s->relay->peer->name;

    if (ngx_mail_policy_relay_mail(s->relay, t, &t->mail) != NGX_OK) {
        return NGX_ERROR;
    }

    t->mail_asked = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_transaction_connect(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_peer_t        *peer;
    ngx_mail_policy_session_t     *s;
    ngx_mail_policy_srv_conf_t    *pscf;
    ngx_mail_policy_relay_conf_t   conf;

    s = t->session;
    pscf = s->conf;

    peer = ngx_mail_policy_upstream_get(t->upstream, &t->tried);
    if (peer == NULL) {
        return NGX_ERROR;
    }

    conf.connect_timeout = pscf->connect_timeout;
    conf.reply_timeout = ngx_min(pscf->proxy_timeout,
                                 NGX_MAIL_POLICY_REPLY_TIMEOUT);
    conf.final_timeout = pscf->final_timeout;
    conf.xclient = pscf->xclient;
    conf.name = s->core->server_name;
    conf.log = s->core->error_log;

    s->relay = ngx_mail_policy_relay_open(&conf, peer, &s->envelope,
                                          &ngx_mail_policy_relay_handlers, s);
    if (s->relay == NULL) {
        return NGX_ERROR;
    }

    s->relay_upstream = t->upstream;

    return NGX_OK;
}


static void
ngx_mail_policy_relay_replied(void *data, ngx_mail_policy_relay_stage_e stage,
    void *tag, mpol_reply_t *reply)
{
    ngx_mail_policy_session_t      *s = data;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    switch (stage) {

    case NGX_MAIL_POLICY_RELAY_MAIL:
        ngx_mail_policy_upstream_report(s->relay->peer, 0);
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

    if (ngx_mail_policy_transaction_text(t, reply->code, reply, "1.0", &text)
        != NGX_OK)
    {
        text = ngx_mail_policy_memory;
    }

    if (!t->lazy) {
        ngx_mail_policy_transaction_refuse(t, reply->code, &text);
        return;
    }

    /* MAIL was answered already: it is the recipients who hear of it */

    t->relay_told = 1;
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
    t->relay_told = 1;

    if (ngx_mail_policy_transaction_text(t, reply->code, reply, "1.5", &text)
        != NGX_OK)
    {
        text = ngx_mail_policy_memory;
    }

    if (reply->code < 300) {
        ngx_mail_policy_rcpt_accept(rcpt, &text);

    } else {
        ngx_mail_policy_rcpt_refuse(rcpt, reply->code, &text);
    }

    ngx_mail_policy_transaction_kick(t);
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

    if (ngx_mail_policy_transaction_text(t, reply->code, reply, "0.0", &text)
        != NGX_OK)
    {
        text = ngx_mail_policy_memory;
    }

    ngx_mail_policy_body_refused(t, reply->code, &text);
}


static void
ngx_mail_policy_relay_failed(void *data, ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_peer_t         *peer;
    ngx_mail_policy_session_t      *s = data;
    ngx_mail_policy_transaction_t  *t;

    peer = s->relay->peer;
    t = s->transaction;

    ngx_mail_policy_relay_close(s->relay);
    s->relay = NULL;

    /* an idle connection may well be closed by the relay */

    if (t == NULL || !t->mail_asked) {
        return;
    }

    if (!s->relay_reused || t->mail_relayed) {
        ngx_mail_policy_upstream_report(peer, 1);
    }

    if (t->dot || (t->data && stage >= NGX_MAIL_POLICY_RELAY_DATA)) {
        ngx_mail_policy_body_lost(t);
        return;
    }

    if (t->relay_told) {
        ngx_mail_policy_relay_gone(t);
        return;
    }

    ngx_mail_policy_relay_next(t, stage);
}


/* nothing was passed on yet: the next of the group, from the beginning */

static void
ngx_mail_policy_relay_next(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_relay_stage_e stage)
{
    ngx_str_t               *text;
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

    if (ngx_mail_policy_transaction_relay(t) == NGX_OK) {
        ngx_mail_policy_transaction_kick(t);
        return;
    }

    text = (stage == NGX_MAIL_POLICY_RELAY_XCLIENT)
           ? &ngx_mail_policy_relay_refuses_us
           : (stage < NGX_MAIL_POLICY_RELAY_MAIL)
             ? &ngx_mail_policy_no_relay : &ngx_mail_policy_relay_lost;

    if (!t->lazy) {
        ngx_mail_policy_transaction_refuse(t, 451, text);
        return;
    }

    /* the next recipient may try again, and all of the group */

    t->tried = 0;
    ngx_mail_policy_rcpts_refuse(t, 451, text);
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


/*
 * "250 2.1.5 text" from a relay's reply.  status: subject and detail where
 * the relay gave no enhanced code.  Control octets never pass (OUT-3).
 */

ngx_int_t
ngx_mail_policy_transaction_text(ngx_mail_policy_transaction_t *t,
    ngx_uint_t code, mpol_reply_t *reply, const char *status, ngx_str_t *text)
{
    u_char  *p;
    size_t   len;

    len = ngx_min(reply->message.len, NGX_MAIL_POLICY_REPLY_TEXT);

    p = ngx_pnalloc(t->pool, sizeof("250 2.999.999 ") - 1
                             + reply->status.len + len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    if (reply->status.len) {
        p = ngx_sprintf(p, "%ui %*s ", code, reply->status.len,
                        reply->status.data);
    } else {
        p = ngx_sprintf(p, "%ui %ui.%s ", code, code / 100, status);
    }

    mpol_reply_clean(reply->message.data, len, p);

    text->len = p + len - text->data;

    return NGX_OK;
}


void
ngx_mail_policy_transaction_finalize(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_outcome_e outcome)
{
    ngx_uint_t                  keep;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->dot && outcome == NGX_MAIL_POLICY_ABORTED) {
        outcome = NGX_MAIL_POLICY_UNKNOWN;
    }

    /* refused to the last recipient: that is what became of it */

    if (outcome == NGX_MAIL_POLICY_ABORTED && t->record.status >= 400
        && s->envelope.recipients == 0)
    {
        outcome = t->record.status < 500 ? NGX_MAIL_POLICY_DEFERRED
                                         : NGX_MAIL_POLICY_REJECTED;
    }

    t->record.outcome = outcome;

    /* what the relay took, or may have taken, stands */

    keep = (outcome == NGX_MAIL_POLICY_ACCEPTED
            || outcome == NGX_MAIL_POLICY_UNACKED
            || outcome == NGX_MAIL_POLICY_UNKNOWN);

    ngx_mail_policy_transaction_charges(t, keep);
    ngx_mail_policy_transaction_log(t);

    if (s->relay) {

        if (t->data) {
            ngx_mail_policy_relay_close(s->relay);
            s->relay = NULL;

        } else if (ngx_mail_policy_relay_rset(s->relay) != NGX_OK) {
            ngx_mail_policy_relay_close(s->relay);
            s->relay = NULL;
        }
    }

    s->transaction = NULL;

    ngx_destroy_pool(t->pool);
}


static void
ngx_mail_policy_transaction_charges(ngx_mail_policy_transaction_t *t,
    ngx_uint_t keep)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    if (keep) {
        ngx_mail_policy_check_keep(&t->check);

    } else {
        ngx_mail_policy_check_give_back(&t->check);
    }

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (keep && rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            ngx_mail_policy_check_keep(&rcpt->check);

        } else {
            ngx_mail_policy_check_give_back(&rcpt->check);
        }
    }
}


static void
ngx_mail_policy_transaction_log(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t                *q;
    ngx_mail_policy_rcpt_t     *rcpt;
    ngx_mail_policy_record_t   *r;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    r = &t->record;

    if (s->conf->access_log == NULL) {
        return;
    }

    if (t->verdict) {
        r->limit = t->verdict->limit;
        r->used = t->verdict->used;
        r->max = t->verdict->max;
        r->retry = t->verdict->retry;
    }

    r->recipients = ngx_palloc(t->pool, sizeof(ngx_str_t)
                               * ngx_min(s->envelope.recipients,
                                         NGX_MAIL_POLICY_LOG_RECIPIENTS));

    for (q = ngx_queue_head(&t->rcpts);
         r->recipients && q != ngx_queue_sentinel(&t->rcpts)
         && r->nrecipients < NGX_MAIL_POLICY_LOG_RECIPIENTS;
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            r->recipients[r->nrecipients++] = rcpt->address;
        }
    }

    ngx_mail_policy_log_record(s->conf->access_log, t->pool, &s->envelope, r);
}
