
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The recipients of a transaction.
 *
 *   NEW -> CHECKING -> CHECKED -> ASKING -> PASSED -> RELAYING -> ACCEPTED
 *      \-----------\----------\---------\---------\-----------> REFUSED
 *
 * Limits first: a relay cannot be told to forget one recipient.  Where its
 * route has to be looked up, that is under way at the same time; the order of
 * the commands is the order in which routes are decided.  kick() moves each on
 * as far as it can go, whenever something has changed.
 *
 * Other policy servers are asked behind the limits, those of MAIL, too.  They
 * are asked about one recipient at a time, as by Postfix: in order, and mostly
 * over one connection, by which one with a process for each knows what belongs
 * to a message.
 *
 * Events: the verdict of the limits, and that of policy servers; that of a
 * route comes by way of ..._route.c.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_int_t ngx_mail_policy_rcpt_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
static ngx_int_t ngx_mail_policy_rcpt_routed(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
static ngx_int_t ngx_mail_policy_rcpt_mail(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
static ngx_int_t ngx_mail_policy_rcpt_divert(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t *upstream);
static void ngx_mail_policy_rcpt_check(ngx_mail_policy_rcpt_t *rcpt);
static void ngx_mail_policy_rcpt_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_rcpt_ask(ngx_mail_policy_rcpt_t *rcpt);
static void ngx_mail_policy_rcpt_asked(void *data, ngx_uint_t status,
    ngx_str_t *text);
static void ngx_mail_policy_rcpts_leave(ngx_mail_policy_rcpt_t *last,
    ngx_uint_t status, ngx_str_t *text);


static ngx_str_t  ngx_mail_policy_separate =
    ngx_string("452 4.5.3 Another route, send this recipient in a separate "
               "transaction");


void
ngx_mail_policy_transaction_rcpt(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_rcpt_envelope(rcpt);

    ngx_mail_policy_due_add(t->session, &rcpt->due);
    ngx_queue_insert_tail(&t->rcpts, &rcpt->queue);

    if (t->relay_lost) {
        ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_relay_lost);
        return;
    }

    if (t->leaving) {
        rcpt->unsaid = 1;
        ngx_mail_policy_rcpt_refuse(rcpt, t->record.status, &t->record.reply);
        return;
    }

    if (ngx_mail_policy_route_fetch_rcpt(rcpt) != NGX_OK) {
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_no_memory);
        return;
    }

    rcpt->routing = t->lazy;

    ngx_mail_policy_rcpts_kick(t);
}


void
ngx_mail_policy_rcpt_envelope(ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_fetch_t        *fetch;
    ngx_mail_policy_envelope_t     *e;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;
    e = &t->session->envelope;
    fetch = rcpt->fetch ? rcpt->fetch : t->fetch;

    e->recipient = rcpt->to.address;
    e->recipient_domain = rcpt->domain;
    e->found = ngx_mail_policy_fetch_found(fetch);
}


/* NGX_AGAIN: it is not known yet, and none behind this one can choose */

static ngx_int_t
ngx_mail_policy_rcpt_routed(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    switch (ngx_mail_policy_rcpt_route(t, rcpt)) {

    case NGX_OK:
        rcpt->routing = 0;
        return NGX_OK;

    case NGX_AGAIN:
        return NGX_AGAIN;

    case NGX_DECLINED:
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_separate);
        return NGX_DECLINED;

    default:
        ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_no_route);
        return NGX_DECLINED;
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
    ngx_int_t                    rc;
    ngx_mail_policy_upstream_t  *upstream;

    rc = ngx_mail_policy_route(t, rcpt, &upstream);

    if (rc != NGX_OK) {
        return rc;
    }

    if (t->upstream == NULL) {
        t->upstream = upstream;

    } else if (t->upstream != upstream) {

        if (!ngx_mail_policy_rcpt_alone(t, rcpt, NGX_MAIL_POLICY_RCPT_NEW)) {
            return NGX_DECLINED;
        }

        ngx_mail_policy_transaction_reroute(t, upstream);
    }

    if (t->balance.upstream) {
        return NGX_OK;
    }

    /* the key of "hash" may be of this recipient, not of the one at hand */

    ngx_mail_policy_rcpt_envelope(rcpt);

    return ngx_mail_policy_balance_init(&t->balance, upstream, t->pool,
                                        &t->session->envelope);
}


void
ngx_mail_policy_rcpts_route(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    if (!ngx_mail_policy_upstream_lazy(t->upstream)) {
        return;
    }

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state != NGX_MAIL_POLICY_RCPT_REFUSED) {
            rcpt->routing = 1;
        }
    }
}


ngx_uint_t
ngx_mail_policy_rcpt_alone(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_rcpt_e state)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *other;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        other = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (other != rcpt && other->state >= state && !other->routing
            && other->state != NGX_MAIL_POLICY_RCPT_REFUSED)
        {
            return 0;
        }
    }

    return 1;
}


/* a limit sends it elsewhere; NGX_DECLINED: others are on their way already */

static ngx_int_t
ngx_mail_policy_rcpt_divert(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t *upstream)
{
    if (t->upstream != upstream
        && !ngx_mail_policy_rcpt_alone(t, rcpt,
                                       NGX_MAIL_POLICY_RCPT_RELAYING))
    {
        return NGX_DECLINED;
    }

    ngx_mail_policy_transaction_divert(t, upstream);

    return NGX_OK;
}


/*
 * Moves each recipient on as far as it can go.  One that is refused here may
 * be what another, before it, has waited for.
 */

void
ngx_mail_policy_rcpts_kick(ngx_mail_policy_transaction_t *t)
{
    ngx_uint_t                  undecided;
    ngx_queue_t                *q, *next;
    ngx_mail_policy_rcpt_t     *rcpt;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    undecided = 0;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = next)
    {
        next = ngx_queue_next(q);
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        /* the first decides, so whoever is behind it waits for its route */

        if (rcpt->routing && !undecided) {

            switch (ngx_mail_policy_rcpt_routed(t, rcpt)) {

            case NGX_AGAIN:
                undecided = 1;
                break;

            case NGX_DECLINED:
                next = ngx_queue_head(&t->rcpts);
                continue;
            }
        }

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_NEW) {
            ngx_mail_policy_rcpt_check(rcpt);
        }

        if (!t->mail_checked || t->routing || rcpt->routing) {
            continue;
        }

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_CHECKED
            && ngx_mail_policy_rcpt_ask(rcpt) != NGX_OK)
        {
            next = ngx_queue_head(&t->rcpts);
            undecided = 0;
            continue;
        }

        if (rcpt->state != NGX_MAIL_POLICY_RCPT_PASSED) {
            continue;
        }

        if (ngx_mail_policy_rcpt_mail(t, rcpt) != NGX_OK) {
            next = ngx_queue_head(&t->rcpts);
            undecided = 0;
            continue;
        }

        if (ngx_mail_policy_relay_rcpt(s->relay, rcpt, &rcpt->to)
            != NGX_OK)
        {
            ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_no_memory);
            next = ngx_queue_head(&t->rcpts);
            undecided = 0;
            continue;
        }

        rcpt->state = NGX_MAIL_POLICY_RCPT_RELAYING;
        ngx_mail_policy_peer_try_due(&t->try);
    }
}


/*
 * MAIL goes to the relay in front of the first that goes there; once it was
 * refused no other relay is asked.  NGX_DECLINED: the recipient was refused.
 */

static ngx_int_t
ngx_mail_policy_rcpt_mail(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    if (t->mail_asked) {
        return NGX_OK;
    }

    if (t->mail_status) {
        ngx_mail_policy_rcpt_refuse(rcpt, t->mail_status, &t->mail_refused);
        return NGX_DECLINED;
    }

    ngx_mail_policy_rcpt_envelope(rcpt);

    if (ngx_mail_policy_transaction_relay(t) != NGX_OK) {
        ngx_mail_policy_rcpt_refuse(rcpt, 451, &ngx_mail_policy_no_relay);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_rcpt_check(ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_session_t      *s;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;
    s = t->session;

    if (rcpt->check.handler == NULL) {
        ngx_mail_policy_session_check(s, &rcpt->check, t->pool,
                                      ngx_mail_policy_rcpt_checked, rcpt);

        if (rcpt->fetch) {
            rcpt->check.fetch = rcpt->fetch;
        }

        rcpt->check.recipient = rcpt->to.address;
        rcpt->check.recipient_domain = rcpt->domain;
        rcpt->check.delayed = &t->delayed;
        rcpt->check.charged = &t->charged;
        rcpt->check.prepaid = t->prepaid;
        t->prepaid = 0;
    }

    switch (ngx_mail_policy_check_start(&rcpt->check,
                                        NGX_MAIL_POLICY_CHECK_RCPT))
    {

    case NGX_OK:
        rcpt->state = NGX_MAIL_POLICY_RCPT_CHECKED;
        return;

    case NGX_AGAIN:
        rcpt->state = NGX_MAIL_POLICY_RCPT_CHECKING;
        return;

    case NGX_BUSY:
        return;

    default:
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_no_memory);
    }
}


static void
ngx_mail_policy_rcpt_checked(void *data, ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_rcpt_t         *rcpt = data;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;

    ngx_mail_policy_transaction_limited(t, verdict);

    if (verdict->rc == NGX_BUSY) {
        rcpt->state = NGX_MAIL_POLICY_RCPT_NEW;
        return;
    }

    if (verdict->rc == NGX_OK) {

        if (verdict->upstream
            && ngx_mail_policy_rcpt_divert(t, rcpt, verdict->upstream)
               != NGX_OK)
        {
            ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_separate);
            ngx_mail_policy_rcpts_kick(t);
            return;
        }

        rcpt->state = NGX_MAIL_POLICY_RCPT_CHECKED;
        ngx_mail_policy_transaction_ready(t);
        return;
    }

    t->refusing = verdict;
    ngx_mail_policy_rcpt_refuse(rcpt, verdict->code, &verdict->text);
    t->refusing = NULL;

    /* others may have waited for the same key */

    ngx_mail_policy_rcpts_kick(t);
}


/*
 * One at a time; what one client pipelines would else be in front of what
 * others ask, too, and wait longer than a question may.  NGX_DECLINED: it was
 * refused.
 */

static ngx_int_t
ngx_mail_policy_rcpt_ask(ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;

    if (t->asking) {
        return NGX_OK;
    }

    switch (ngx_mail_policy_services_ask(t, rcpt, NGX_MAIL_POLICY_SERVICE_RCPT,
                                         ngx_mail_policy_rcpt_asked, rcpt))
    {

    case NGX_OK:
        rcpt->state = NGX_MAIL_POLICY_RCPT_PASSED;
        return NGX_OK;

    case NGX_AGAIN:
        rcpt->state = NGX_MAIL_POLICY_RCPT_ASKING;
        t->asking = 1;
        return NGX_OK;

    default:
        ngx_mail_policy_rcpt_refuse(rcpt, 452, &ngx_mail_policy_no_memory);
        return NGX_DECLINED;
    }
}


static void
ngx_mail_policy_rcpt_asked(void *data, ngx_uint_t status, ngx_str_t *text)
{
    ngx_mail_policy_rcpt_t *rcpt = data;

    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;

    if (status == 0) {
        rcpt->state = NGX_MAIL_POLICY_RCPT_PASSED;
        t->asking = 0;

    } else {
        rcpt->due.last = ngx_mail_policy_service_leaves(status);

        ngx_mail_policy_rcpt_refuse(rcpt, status, text);

        if (rcpt->due.last) {
            t->leaving = 1;
            ngx_mail_policy_rcpts_leave(rcpt, status, text);
        }
    }

    ngx_mail_policy_rcpts_kick(t);
}


/*
 * Those behind the last one, who are told nothing.  Those in front of it may
 * wait for what they hold.
 */

static void
ngx_mail_policy_rcpts_leave(ngx_mail_policy_rcpt_t *last, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    for (q = ngx_queue_next(&last->queue);
         q != ngx_queue_sentinel(&last->transaction->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state < NGX_MAIL_POLICY_RCPT_RELAYING) {
            rcpt->unsaid = 1;
            ngx_mail_policy_rcpt_refuse(rcpt, status, text);
        }
    }
}


void
ngx_mail_policy_rcpt_accept(ngx_mail_policy_rcpt_t *rcpt, ngx_str_t *text)
{
    rcpt->state = NGX_MAIL_POLICY_RCPT_ACCEPTED;

    ngx_mail_policy_check_accepted(&rcpt->check);

    rcpt->transaction->session->envelope.recipients++;

    ngx_mail_policy_due_done(rcpt->transaction->session, &rcpt->due, text);
}


void
ngx_mail_policy_rcpt_refuse(ngx_mail_policy_rcpt_t *rcpt, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_transaction_t  *t;

    if (rcpt->state == NGX_MAIL_POLICY_RCPT_REFUSED) {
        return;
    }

    t = rcpt->transaction;

    if (rcpt->state == NGX_MAIL_POLICY_RCPT_ASKING) {
        t->asking = 0;
    }

    rcpt->state = NGX_MAIL_POLICY_RCPT_REFUSED;
    rcpt->routing = 0;

    ngx_mail_policy_route_cancel(t, rcpt);
    ngx_mail_policy_services_cancel(rcpt->inquiry);
    ngx_mail_policy_check_give_back(&rcpt->check);

    /* what MAIL paid for is there for the next one */

    if (rcpt->check.prepaid) {
        rcpt->check.prepaid = 0;
        t->prepaid = 1;
    }

    t->session->envelope.rejected_recipients++;
    t->record.status = status;
    t->record.reply = *text;

    /* behind a MAIL that was refused it is no refusal of its own */

    if (!rcpt->unsaid && !t->refused) {
        ngx_mail_policy_transaction_refused(t, NGX_MAIL_POLICY_AT_COMMAND_RCPT,
                                            text, &rcpt->to.address);
    }

    ngx_mail_policy_due_done(t->session, &rcpt->due, text);
}


/* all that are still to be answered */

void
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
