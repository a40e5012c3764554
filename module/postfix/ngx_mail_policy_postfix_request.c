
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One request: attributes to envelope, limits asked, verdict to answer.
 *
 *     RCPT, of a message not charged   mail -> rcpt -> answer
 *     RCPT, further recipients         rcpt -> answer
 *     DATA, if not charged             mail -> rcpt -> answer, for all
 *                                      recipients
 *     DATA, if it is charged           rcpt -> answer, for those recipients
 *                                      that are not; or nothing
 *     END-OF-MESSAGE                   as DATA; and rest -> answer, for the
 *                                      octets that are not charged; or
 *                                      octets -> answer, if another
 *                                      connection has charged the others
 *     all, if charged by an edge       answer
 *     other states                     DUNNO
 *
 * If a step refuses, those before it are given back, and behind RCPT all that
 * is held of the message.  Else they are kept as soon as the answer is out, and
 * given back if it does not get there.  The same question for the same
 * recipient, as a further restriction puts it, has the same answer and costs
 * nothing.  A refusal holds for a while only: who tries that recipient again
 * later asks anew.
 *
 * Events: the verdicts of the steps; lookups that are there.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_text.h"
#include "ngx_mail_policy_postfix.h"


static ngx_mail_policy_postfix_state_e ngx_mail_policy_postfix_state(
    ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_count(ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_asks(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_mail(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_rest(ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_more(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_octets(
    ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_fetched(void *data);
static void ngx_mail_policy_postfix_check(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_check_t *check, ngx_mail_policy_check_pt handler);
static void ngx_mail_policy_postfix_mail_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_postfix_rcpt_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_postfix_rest_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_refused(
    ngx_mail_policy_postfix_t *s, ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_postfix_withdraw(ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_looked_up(void *data);
static void ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s);


ngx_int_t
ngx_mail_policy_postfix_request(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_message_t  *m;

    s->state = NGX_MAIL_POLICY_POSTFIX_OTHER;
    s->once = 0;
    s->record.limit.len = 0;
    ngx_memzero(&s->record.hits, sizeof(ngx_array_t));

    mpol_attr_parse(s->in, s->attr.pos, s->values);

    if (!ngx_mail_policy_postfix_is(s, MPOL_ATTR_REQUEST_TYPE,
                                    "smtpd_access_policy"))
    {
        ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                      "policy client sent a request without "
                      "\"request=smtpd_access_policy\", closing");
        return NGX_ERROR;
    }

    s->connection->log->action = "asking limits for a policy client";

    s->state = ngx_mail_policy_postfix_state(s);

    if (s->state == NGX_MAIL_POLICY_POSTFIX_OTHER) {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    if (ngx_mail_policy_postfix_message(s) != NGX_OK) {
        return NGX_ERROR;
    }

    m = s->message;

    if (ngx_mail_policy_postfix_answers(s)) {
        s->out = m->answer;
        s->out_last = m->answer_len;
        return NGX_OK;
    }

    s->free = (m->edge || ngx_mail_policy_postfix_heard(s)) ? 1 : 0;
    s->count = ngx_mail_policy_postfix_count(s);

    if (!ngx_mail_policy_postfix_asks(s)) {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    s->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (s->pool == NULL) {
        return NGX_ERROR;
    }

    m->requests++;
    s->known = m->charged.nelts;

    if (ngx_mail_policy_postfix_fill(s) != NGX_OK
        || ngx_mail_policy_postfix_fetch(s) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return s->free ? ngx_mail_policy_postfix_passed(s)
         : m->paid ? ngx_mail_policy_postfix_rcpt(s)
                   : ngx_mail_policy_postfix_mail(s);
}


static ngx_mail_policy_postfix_state_e
ngx_mail_policy_postfix_state(ngx_mail_policy_postfix_t *s)
{
    if (ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "RCPT")) {
        return NGX_MAIL_POLICY_POSTFIX_RCPT;
    }

    if (ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "DATA")) {
        return NGX_MAIL_POLICY_POSTFIX_DATA;
    }

    if (ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "END-OF-MESSAGE")) {
        return NGX_MAIL_POLICY_POSTFIX_END;
    }

    return NGX_MAIL_POLICY_POSTFIX_OTHER;
}


/* recipients that are still to be charged */

static ngx_uint_t
ngx_mail_policy_postfix_count(ngx_mail_policy_postfix_t *s)
{
    uint64_t  n, charged;

    if (s->free) {
        return 0;
    }

    if (s->state == NGX_MAIL_POLICY_POSTFIX_RCPT) {
        return 1;
    }

    n = mpol_attr_number(&s->values[MPOL_ATTR_RECIPIENT_COUNT]);
    n = ngx_max(n, 1);

    charged = s->message->recipients;

    return (n > charged) ? n - charged : 0;
}


/* 1 if there may be anything to be charged, or something of ours to be said */

static ngx_uint_t
ngx_mail_policy_postfix_asks(ngx_mail_policy_postfix_t *s)
{
    if (s->count || (!s->free && ngx_mail_policy_postfix_more(s))) {
        return 1;
    }

    return s->conf->action
           && (s->state == NGX_MAIL_POLICY_POSTFIX_RCPT
               || !ngx_mail_policy_postfix_acted(s));
}


/* all that is to be known of it is known at once */

static ngx_int_t
ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s)
{
    uint64_t  mask;

    mask = s->free
           ? s->conf->action->value.lookups
           : ngx_mail_policy_fetch_mask(s->conf, NGX_MAIL_POLICY_AT_RCPT);

    if (mask == 0) {
        return NGX_OK;
    }

    s->fetch = ngx_mail_policy_fetch_alone(s->main_conf, &s->envelope);
    if (s->fetch == NULL) {
        return NGX_ERROR;
    }

    s->fetch->recipient = s->envelope.recipient;
    s->fetch->recipient_domain = s->envelope.recipient_domain;
    s->envelope.found = &s->fetch->found;

    ngx_mail_policy_fetch_start(s->fetch, mask);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_postfix_mail(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    ngx_mail_policy_postfix_check(s, &s->mail,
                                  ngx_mail_policy_postfix_mail_handler);

    s->mail.tried = s->message->tried;

    rc = ngx_mail_policy_check_start(&s->mail, NGX_MAIL_POLICY_CHECK_MAIL);

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_rcpt(s) : rc;
}


static ngx_int_t
ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    if (s->count == 0) {
        return ngx_mail_policy_postfix_rest(s);
    }

    ngx_mail_policy_postfix_check(s, &s->rcpt,
                                  ngx_mail_policy_postfix_rcpt_handler);

    s->rcpt.charged = &s->message->charged;
    s->rcpt.prepaid = !s->message->paid;
    s->rcpt.recipient = s->envelope.recipient;
    s->rcpt.recipient_domain = s->envelope.recipient_domain;

    rc = ngx_mail_policy_check_start(&s->rcpt, NGX_MAIL_POLICY_CHECK_RCPT);

    /* one recipient at a time: NGX_BUSY there is none */

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_rest(s) : rc;
}


/* 1 if there may be octets that are still to be charged */

static ngx_uint_t
ngx_mail_policy_postfix_more(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    if (s->state != NGX_MAIL_POLICY_POSTFIX_END) {
        return 0;
    }

    return m->foreign ? mpol_attr_number(&s->values[MPOL_ATTR_SIZE])
                        > m->note.octets
                      : m->held.nelts != 0;
}


/* of a message that another connection has begun, and holds nothing of here */

static ngx_int_t
ngx_mail_policy_postfix_octets(ngx_mail_policy_postfix_t *s)
{
    uint64_t   size, paid;
    ngx_int_t  rc;

    size = s->envelope.message_size;
    paid = s->message->note.octets;

    if (size <= paid) {
        return ngx_mail_policy_postfix_passed(s);
    }

    ngx_mail_policy_postfix_check(s, &s->mail,
                                  ngx_mail_policy_postfix_rest_handler);

    s->mail.octets = size - paid;

    rc = ngx_mail_policy_check_start(&s->mail, NGX_MAIL_POLICY_CHECK_MAIL);

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_passed(s) : rc;
}


/* what was declared, if anything, was charged before */

static ngx_int_t
ngx_mail_policy_postfix_rest(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i, n;
    ngx_array_t               *held;
    ngx_mail_policy_check_t   *check, **paid;

    held = &s->message->held;

    if (s->state == NGX_MAIL_POLICY_POSTFIX_END && s->message->foreign) {
        return ngx_mail_policy_postfix_octets(s);
    }

    if (s->state != NGX_MAIL_POLICY_POSTFIX_END || held->nelts == 0) {
        return ngx_mail_policy_postfix_passed(s);
    }

    /* a refusal may have to say what they have found */

    rc = ngx_mail_policy_fetch_wait(s->fetch,
                    ngx_mail_policy_fetch_mask(s->conf,
                                               NGX_MAIL_POLICY_AT_RCPT),
                    &s->wait, ngx_mail_policy_postfix_fetched, s);

    if (rc != NGX_OK) {
        return rc;
    }

    paid = ngx_palloc(s->pool, held->nelts * sizeof(void *));
    if (paid == NULL) {
        return NGX_ERROR;
    }

    check = held->elts;
    n = 0;

    for (i = 0; i < held->nelts; i++) {

        /* another connection may have asked for those of all recipients */

        if (check[i].point == NGX_MAIL_POLICY_CHECK_RCPT
            || (check[i].point == NGX_MAIL_POLICY_CHECK_MAIL
                && s->message->note.octets < s->envelope.message_size))
        {
            paid[n++] = &check[i];
        }
    }

    ngx_mail_policy_postfix_check(s, &s->rest,
                                  ngx_mail_policy_postfix_rest_handler);

    s->rest.octets = s->message->octets;

    rc = ngx_mail_policy_check_rest(&s->rest, paid, n,
                                    s->envelope.message_size);

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_passed(s) : rc;
}


static void
ngx_mail_policy_postfix_fetched(void *data)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    rc = ngx_mail_policy_postfix_rest(s);

    if (rc != NGX_AGAIN) {
        ngx_mail_policy_postfix_answered(s, rc);
    }
}


static void
ngx_mail_policy_postfix_check(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_check_t *check, ngx_mail_policy_check_pt handler)
{
    ngx_memzero(check, sizeof(ngx_mail_policy_check_t));

    check->store = s->main_conf->store;
    check->conf = s->conf->limits;
    check->envelope = &s->envelope;
    check->fetch = s->fetch;
    check->pool = s->pool;
    check->handler = handler;
    check->data = s;
    check->count = s->count;
}


static void
ngx_mail_policy_postfix_mail_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    ngx_mail_policy_postfix_limited(s, verdict);

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_rcpt(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    if (rc != NGX_AGAIN) {
        ngx_mail_policy_postfix_answered(s, rc);
    }
}


static void
ngx_mail_policy_postfix_rcpt_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    ngx_mail_policy_postfix_limited(s, verdict);

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_rest(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    if (rc != NGX_AGAIN) {
        ngx_mail_policy_postfix_answered(s, rc);
    }
}


static void
ngx_mail_policy_postfix_rest_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    ngx_mail_policy_postfix_limited(s, verdict);

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_passed(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    ngx_mail_policy_postfix_answered(s, rc);
}


/*
 * Limits let it pass, and the action may refuse it.  If the answer does not
 * get out, nothing asks for this message again.
 */

static ngx_int_t
ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    rc = ngx_mail_policy_postfix_action(s, ngx_mail_policy_postfix_looked_up);

    if (rc == NGX_DECLINED) {
        ngx_mail_policy_postfix_withdraw(s);
        return ngx_mail_policy_postfix_remember(s, 1);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (s->free) {
        return ngx_mail_policy_postfix_remember(s, 0);
    }

    if (ngx_mail_policy_postfix_paid(s) != NGX_OK
        || ngx_mail_policy_postfix_remember(s, 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_postfix_tell(s);

    return NGX_OK;
}


static void
ngx_mail_policy_postfix_looked_up(void *data)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    rc = ngx_mail_policy_postfix_passed(s);

    if (rc != NGX_AGAIN) {
        ngx_mail_policy_postfix_answered(s, rc);
    }
}


static ngx_int_t
ngx_mail_policy_postfix_refused(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t  text;

    ngx_mail_policy_postfix_withdraw(s);

    /* behind "450 " */

    text.data = verdict->text.data + 4;
    text.len = verdict->text.len - 4;

    if (ngx_mail_policy_postfix_say(s, verdict->code < 500 ? "DEFER_IF_PERMIT"
                                                           : "REJECT",
                                    &text)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_postfix_remember(s, 1);
}


/* what the last step refuses, the ones before it have not let pass */

static void
ngx_mail_policy_postfix_withdraw(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    if (!m->paid && s->rcpt.pool) {
        m->tried = 1;
    }

    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);
    ngx_mail_policy_check_give_back(&s->rest);

    m->charged.nelts = s->known;

    /* nor is it a message, if it is refused as a whole */

    if (m->held.nelts && !m->foreign
        && s->state != NGX_MAIL_POLICY_POSTFIX_RCPT)
    {
        ngx_mail_policy_postfix_held(m, 0);
        ngx_mail_policy_postfix_untell(s, 1);

        m->paid = 0;
        m->recipients = 0;
        m->octets = 0;
        m->charged.nelts = 0;
    }
}


ngx_int_t
ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s, const char *action,
    ngx_str_t *text)
{
    size_t   len;
    u_char  *p, *last;

    s->out = s->buffer;
    last = s->out + NGX_MAIL_POLICY_POSTFIX_ANSWER - 2;

    p = ngx_slprintf(s->out, last, "action=%s", action);

    if (text) {
        *p++ = ' ';

        len = ngx_min(text->len, (size_t) (last - p));

        mpol_reply_clean(text->data, len, p);
        p += len;
    }

    *p++ = LF;
    *p++ = LF;

    s->out_pos = 0;
    s->out_last = p - s->out;

    return NGX_OK;
}


/* nobody tells us what becomes of it, so all that was charged stands */

void
ngx_mail_policy_postfix_sent(ngx_mail_policy_postfix_t *s)
{
    if (s->pool) {
        ngx_mail_policy_check_accepted(&s->rcpt);
        ngx_mail_policy_postfix_hold(s);
    }

    if (s->message && s->message->telling) {
        s->message->before = s->message->note;
        s->message->telling = 0;
    }

    s->nsaid = 0;
    s->state = NGX_MAIL_POLICY_POSTFIX_OTHER;

    ngx_mail_policy_postfix_end(s);
}


/*
 * Who is not told that a message may pass does not accept it.  What was
 * charged of one that another connection has begun is known as paid to all.
 */

void
ngx_mail_policy_postfix_forget(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                          keep;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    keep = (s->state < NGX_MAIL_POLICY_POSTFIX_DATA || m == NULL || m->foreign
            || m->held.nelts == 0);

    ngx_mail_policy_postfix_unsay(s);
    ngx_mail_policy_postfix_untell(s, !keep);

    ngx_mail_policy_postfix_end(s);
    ngx_mail_policy_postfix_drop(s, keep);
}


/* gives back what was not kept, and the memory of the request */

static void
ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_fetch_forget(&s->wait);

    ngx_mail_policy_check_give_back(&s->rest);
    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);

    ngx_mail_policy_fetch_drop(&s->fetch);

    if (s->pool == NULL) {
        return;
    }

    /* all have been on it */

    ngx_memzero(&s->mail, sizeof(ngx_mail_policy_check_t));
    ngx_memzero(&s->rcpt, sizeof(ngx_mail_policy_check_t));
    ngx_memzero(&s->rest, sizeof(ngx_mail_policy_check_t));

    ngx_destroy_pool(s->pool);
    s->pool = NULL;
}
