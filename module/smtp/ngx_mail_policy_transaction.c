
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A transaction: MAIL to end of data.
 *
 *   MAIL   limits and relay are asked at once; both must say yes; where a
 *          limit may send it to another relay, one after the other
 *   RCPT   ..._rcpt.c
 *   DATA   when nothing is due any more and a recipient stands; other policy
 *          servers, then the relay
 *
 * Where the route needs the recipient (lazy), the relay is chosen at the
 * first RCPT, and MAIL is answered without it.
 *
 * Events: the limits' verdict on MAIL, and what policy servers say of DATA; the
 * relay's come to ..._transaction_relay.c.
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


static ngx_int_t ngx_mail_policy_transaction_route(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_transaction_ask(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_transaction_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_transaction_asked(void *data, ngx_uint_t status,
    ngx_str_t *text);
static ngx_int_t ngx_mail_policy_transaction_begin(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_transaction_blank(
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_transaction_charges(
    ngx_mail_policy_transaction_t *t, ngx_uint_t keep);


ngx_str_t  ngx_mail_policy_no_memory =
    ngx_string("452 4.3.1 Out of memory, try again later");
ngx_str_t  ngx_mail_policy_no_route =
    ngx_string("451 4.3.5 No route to relay, try again later");
ngx_str_t  ngx_mail_policy_no_relay =
    ngx_string("451 4.4.1 No relay available, try again later");
ngx_str_t  ngx_mail_policy_relay_lost =
    ngx_string("451 4.4.2 Connection to relay lost, try again later");
ngx_str_t  ngx_mail_policy_too_big =
    ngx_string("552 5.3.4 Message too big");


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
    ngx_queue_init(&t->fields);

    s->transaction = t;

    e = &s->envelope;
    e->transaction = ++s->transactions;

    ngx_mail_policy_transaction_blank(e);
    e->record = &t->record;

    return t;
}


/* of none: what is refused between two of them is logged as well */

static void
ngx_mail_policy_transaction_blank(ngx_mail_policy_envelope_t *e)
{
    ngx_str_null(&e->sender);
    ngx_str_null(&e->sender_local);
    ngx_str_null(&e->sender_domain);
    ngx_str_null(&e->recipient);
    ngx_str_null(&e->recipient_domain);

    e->found = NULL;
    e->recipients = 0;
    e->rejected_recipients = 0;
    e->message_size = 0;
    e->record = NULL;

    ngx_str_null(&e->limit);
    ngx_str_null(&e->verdict);
    e->limit_remaining = 0;
    e->retry_after = 0;
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

    if (ngx_mail_policy_route_fetch(t) != NGX_OK) {
        ngx_mail_policy_transaction_refuse(t, 452, &ngx_mail_policy_no_memory);
        return;
    }

    if (!t->lazy && ngx_mail_policy_transaction_route(t) == NGX_ERROR) {
        ngx_mail_policy_transaction_refuse(t, 451, &ngx_mail_policy_no_route);
        return;
    }

    ngx_mail_policy_session_check(s, &t->check, t->pool,
                                  ngx_mail_policy_transaction_checked, t);

    t->check.delayed = &t->delayed;

    rc = ngx_mail_policy_check_start(&t->check, NGX_MAIL_POLICY_CHECK_MAIL);

    if (rc == NGX_ERROR) {
        ngx_mail_policy_transaction_refuse(t, 452, &ngx_mail_policy_no_memory);
        return;
    }

    t->mail_checked = (rc == NGX_OK);
    t->prepaid = 1;

    /* a relay that may not be the one is not asked, as it might refuse */

    if (!t->mail_checked && s->conf->diverts) {
        return;
    }

    ngx_mail_policy_transaction_ask(t);
}


static void
ngx_mail_policy_transaction_ask(ngx_mail_policy_transaction_t *t)
{
    if (t->routing) {
        return;
    }

    if (!t->lazy && !t->mail_asked
        && ngx_mail_policy_transaction_relay(t) != NGX_OK)
    {
        ngx_mail_policy_transaction_refuse(t, 451, &ngx_mail_policy_no_relay);
        return;
    }

    ngx_mail_policy_transaction_ready(t);
}


static ngx_int_t
ngx_mail_policy_transaction_route(ngx_mail_policy_transaction_t *t)
{
    ngx_int_t  rc;

    rc = ngx_mail_policy_route(t, NULL, &t->upstream);

    t->routing = (rc == NGX_AGAIN);

    if (rc == NGX_OK) {
        t->lazy = ngx_mail_policy_upstream_lazy(t->upstream);
        ngx_mail_policy_rcpts_route(t);
    }

    return rc;
}


/* what the route needs has been found */

void
ngx_mail_policy_transaction_routed(ngx_mail_policy_transaction_t *t)
{
    switch (ngx_mail_policy_transaction_route(t)) {

    case NGX_OK:
        break;

    case NGX_AGAIN:
        return;

    default:
        ngx_mail_policy_transaction_refuse(t, 451, &ngx_mail_policy_no_route);
        return;
    }

    if (!t->mail_checked && t->session->conf->diverts) {
        return;
    }

    ngx_mail_policy_transaction_ask(t);
}


static void
ngx_mail_policy_transaction_checked(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_transaction_t  *t = data;

    ngx_mail_policy_transaction_limited(t, verdict);

    if (verdict->rc == NGX_OK) {
        t->mail_checked = 1;

        if (verdict->upstream) {
            ngx_mail_policy_transaction_divert(t, verdict->upstream);
        }

        ngx_mail_policy_transaction_ask(t);
        return;
    }

    t->refusing = verdict;
    ngx_mail_policy_transaction_refuse(t, verdict->code, &verdict->text);
}


/*
 * A relay that was asked already forgets it; MAIL is answered without the new
 * one, as where the route needs the recipient.
 */

void
ngx_mail_policy_transaction_divert(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_upstream_t *upstream)
{
    t->diverted = upstream;

    if (t->upstream == upstream) {
        return;
    }

    t->lazy = 1;
    t->routing = 0;
    ngx_mail_policy_route_cancel(t, NULL);

    ngx_mail_policy_transaction_reroute(t, upstream);
    ngx_mail_policy_rcpts_route(t);
}


/* no recipient stands at the group that it has left */

void
ngx_mail_policy_transaction_reroute(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_upstream_t *upstream)
{
    if (t->session->relay && t->mail_asked) {
        ngx_mail_policy_keep_put(t->session->relay);
        t->session->relay = NULL;
    }

    t->upstream = upstream;
    ngx_memzero(&t->balance, sizeof(ngx_mail_policy_balance_t));
    t->mail_asked = 0;
    t->mail_relayed = 0;
    t->mail_status = 0;
    t->relay_told = 0;
    t->rcpt_told = 0;
    t->peer_failed = 0;

    ngx_mail_policy_next_reset(&t->next);
}


/* tells the client that MAIL is right, once limits and relay have said so */

void
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

    ngx_mail_policy_rcpts_kick(t);
}


/* MAIL is refused: there is no transaction any more */

void
ngx_mail_policy_transaction_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_session_t  *s;

    static ngx_str_t  sequence = ngx_string("503 5.5.1 Need MAIL command");

    s = t->session;

    t->refused = 1;
    ngx_mail_policy_transaction_refused(t, NGX_MAIL_POLICY_AT_COMMAND_MAIL,
                                        text, NULL);

    ngx_mail_policy_due_done(s, &t->due, text);
    ngx_mail_policy_rcpts_refuse(t, 503, &sequence);

    t->record.status = status;
    t->record.reply = *text;

    ngx_mail_policy_transaction_finalize(t, status < 500
                                            ? NGX_MAIL_POLICY_DEFERRED
                                            : NGX_MAIL_POLICY_REJECTED);

    ngx_mail_policy_session_junk(s);
}


ngx_int_t
ngx_mail_policy_transaction_data(ngx_mail_policy_transaction_t *t)
{
    switch (ngx_mail_policy_services_ask(t, NULL, NGX_MAIL_POLICY_SERVICE_DATA,
                                         ngx_mail_policy_transaction_asked,
                                         t))
    {

    case NGX_OK:
        return ngx_mail_policy_transaction_begin(t);

    case NGX_AGAIN:
        t->session->reading = NGX_MAIL_POLICY_READ_NOTHING;
        return NGX_AGAIN;

    default:
        ngx_mail_policy_body_refused(t, 452, &ngx_mail_policy_no_memory);
        return NGX_OK;
    }
}


static void
ngx_mail_policy_transaction_asked(void *data, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_transaction_t  *t = data;

    if (status == 0) {
        (void) ngx_mail_policy_transaction_begin(t);
        return;
    }

    t->leaving = ngx_mail_policy_service_leaves(status);

    ngx_mail_policy_body_refused(t, status, text);
}


/* the relay is told DATA; or nothing, if it takes chunks */

static ngx_int_t
ngx_mail_policy_transaction_begin(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (t->relay_lost || s->relay == NULL) {
        ngx_mail_policy_body_refused(t, 451, &ngx_mail_policy_relay_lost);
        return NGX_OK;
    }

    t->chunking = (t->bdat && ngx_mail_policy_relay_chunking(s->relay));

    if (t->chunking) {
        ngx_mail_policy_relay_chunks(s->relay);
        t->data = 1;

        ngx_mail_policy_body_begin(t);
        return NGX_OK;
    }

    if (ngx_mail_policy_relay_data(s->relay, t) != NGX_OK) {
        ngx_mail_policy_body_refused(t, 452, &ngx_mail_policy_no_memory);
        return NGX_OK;
    }

    ngx_mail_policy_peer_try_due(&t->try);

    t->data = 1;
    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    return NGX_AGAIN;
}


/*
 * "250 2.1.5 text" from a relay's reply.  status: subject and detail where
 * the relay gave no enhanced code.  Control octets never pass (OUT-3).
 */

void
ngx_mail_policy_transaction_text(ngx_mail_policy_transaction_t *t,
    ngx_uint_t code, mpol_reply_t *reply, const char *status, ngx_str_t *text)
{
    u_char  *p;
    size_t   len;

    len = ngx_min(reply->message.len, NGX_MAIL_POLICY_REPLY_TEXT);

    p = ngx_pnalloc(t->pool, sizeof("250 2.999.999 ") - 1
                             + reply->status.len + len);
    if (p == NULL) {

        /* the class must not change, whatever else */

        if (code < 300) {
            ngx_str_set(text, "250 2.0.0 Ok");

        } else if (code < 500) {
            *text = ngx_mail_policy_no_memory;

        } else {
            ngx_str_set(text, "554 5.0.0 Refused");
        }

        return;
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

    ngx_mail_policy_peer_try_end(&t->try);

    ngx_mail_policy_transaction_charges(t, keep);
    ngx_mail_policy_services_forget(t);
    ngx_mail_policy_route_forget(t);
    ngx_mail_policy_transaction_told(t);

    ngx_mail_policy_transaction_blank(&s->envelope);

    if (s->relay) {

        if (t->data) {
            ngx_mail_policy_relay_close(s->relay);
            s->relay = NULL;

        } else if (ngx_mail_policy_relay_rset(s->relay) != NGX_OK) {
            ngx_mail_policy_relay_close(s->relay);
            s->relay = NULL;

        } else {
            ngx_mail_policy_keep_rest(s->relay);
        }
    }

    s->transaction = NULL;

    ngx_destroy_pool(t->pool);
}


static void
ngx_mail_policy_transaction_charges(ngx_mail_policy_transaction_t *t,
    ngx_uint_t keep)
{
    uint64_t                 size;
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    size = t->session->envelope.message_size;

    if (keep) {
        ngx_mail_policy_check_settle(&t->rest, size, 1);
        ngx_mail_policy_check_settle(&t->check, size, !t->prepaid);

    } else {
        ngx_mail_policy_check_give_back(&t->rest);
        ngx_mail_policy_check_give_back(&t->check);
    }

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (keep && rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            ngx_mail_policy_check_settle(&rcpt->check, size, 1);

        } else {
            ngx_mail_policy_check_give_back(&rcpt->check);
        }
    }
}
