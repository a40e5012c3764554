
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One request: attributes to envelope, limits asked, verdict to answer.
 *
 *     RCPT, of a message not charged   mail -> rcpt -> answer
 *     RCPT, further recipients         rcpt -> answer
 *     DATA, END-OF-MESSAGE             mail -> rcpt -> answer, for all
 *                                      recipients; nothing if it is charged
 *     other states                     DUNNO
 *
 * If the second step refuses, the first is given back.  Else both are kept as
 * soon as the answer is out, and given back if it does not get there.
 * The same question for the same recipient, as a further restriction puts it,
 * has the same answer and costs nothing.  A refusal holds for a while only: who
 * tries that recipient again later asks anew.
 *
 * Events: the verdicts of both steps.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_text.h"
#include "ngx_mail_policy_postfix.h"


static ngx_int_t ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_mail(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_check(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_check_t *check, ngx_mail_policy_check_pt handler);
static void ngx_mail_policy_postfix_mail_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_postfix_rcpt_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_refused(
    ngx_mail_policy_postfix_t *s, ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s,
    const char *action, ngx_str_t *text);
static void ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s);


ngx_int_t
ngx_mail_policy_postfix_request(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           recipient;
    ngx_uint_t                          rcpt;
    ngx_mail_policy_postfix_message_t  *m;

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

    rcpt = ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "RCPT");

    if (!rcpt && !ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "DATA")
        && !ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "END-OF-MESSAGE"))
    {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    if (ngx_mail_policy_postfix_message(s) != NGX_OK) {
        return NGX_ERROR;
    }

    m = s->message;

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &recipient);

    if (rcpt && ngx_mail_policy_postfix_answers(m, &recipient)) {
        ngx_memcpy(s->out, m->answer, m->answer_len);
        s->out_last = m->answer_len;
        return NGX_OK;
    }

    if (!rcpt && m->paid) {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    s->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (s->pool == NULL) {
        return NGX_ERROR;
    }

    s->known = m->charged.nelts;

    if (ngx_mail_policy_postfix_fill(s) != NGX_OK
        || ngx_mail_policy_postfix_fetch(s) != NGX_OK)
    {
        return NGX_ERROR;
    }

    s->count = rcpt ? 1 : ngx_max(s->envelope.recipients, 1);

    return m->paid ? ngx_mail_policy_postfix_rcpt(s)
                   : ngx_mail_policy_postfix_mail(s);
}


/* all that is to be known of it is known at once */

static ngx_int_t
ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s)
{
    uint64_t  mask;

    ngx_mail_policy_fetch_drop(&s->fetch);

    mask = ngx_mail_policy_fetch_mask(s->conf, NGX_MAIL_POLICY_AT_RCPT);

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

    rc = ngx_mail_policy_check_start(&s->mail, NGX_MAIL_POLICY_CHECK_MAIL);

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_rcpt(s) : rc;
}


static ngx_int_t
ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    ngx_mail_policy_postfix_check(s, &s->rcpt,
                                  ngx_mail_policy_postfix_rcpt_handler);

    s->rcpt.charged = &s->message->charged;
    s->rcpt.prepaid = !s->message->paid;
    s->rcpt.recipient = s->envelope.recipient;
    s->rcpt.recipient_domain = s->envelope.recipient_domain;

    rc = ngx_mail_policy_check_start(&s->rcpt, NGX_MAIL_POLICY_CHECK_RCPT);

    /* one recipient at a time: NGX_BUSY there is none */

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_passed(s) : rc;
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

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_passed(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    ngx_mail_policy_postfix_answered(s, rc);
}


/* if the answer does not get out, nothing asks for this message again */

static ngx_int_t
ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s)
{
    s->message->paid = 1;

    if (ngx_mail_policy_postfix_paid(s) != NGX_OK
        || ngx_mail_policy_postfix_say(s, "DUNNO", NULL) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_postfix_remember(s, 0);
}


static ngx_int_t
ngx_mail_policy_postfix_refused(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t  text;

    /* what the recipient's limits refuse, the sender's have not let pass */

    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);

    s->message->charged.nelts = s->known;

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


static ngx_int_t
ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s, const char *action,
    ngx_str_t *text)
{
    size_t   len;
    u_char  *p, *last;

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
    ngx_mail_policy_check_accepted(&s->rcpt);

    ngx_mail_policy_check_keep(&s->mail);
    ngx_mail_policy_check_keep(&s->rcpt);

    ngx_mail_policy_postfix_end(s);
}


void
ngx_mail_policy_postfix_forget(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_end(s);

    if (s->message) {
        ngx_destroy_pool(s->message->pool);
        s->message = NULL;
    }
}


/* gives back what was not kept, and the memory of the request */

static void
ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);

    ngx_mail_policy_fetch_drop(&s->fetch);

    if (s->pool == NULL) {
        return;
    }

    /* both have been on it */

    ngx_memzero(&s->mail, sizeof(ngx_mail_policy_check_t));
    ngx_memzero(&s->rcpt, sizeof(ngx_mail_policy_check_t));

    ngx_destroy_pool(s->pool);
    s->pool = NULL;
}
