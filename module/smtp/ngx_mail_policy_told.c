
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the SMTP front door tells of its sessions, logins and transactions.  No
 * events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_transaction_limit(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_transaction_recipients(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_session_octets(ngx_mail_policy_session_t *s,
    off_t received, off_t sent);


void
ngx_mail_policy_session_begun(ngx_mail_policy_session_t *s)
{
    s->account.conf = s->conf;
    s->account.envelope = &s->envelope;

    ngx_mail_policy_account_start(&s->account);
}


void
ngx_mail_policy_session_refused(ngx_mail_policy_session_t *s,
    const char *reply)
{
    ngx_str_t  text;

    text.data = (u_char *) reply;
    text.len = ngx_strlen(reply);

    ngx_mail_policy_session_refused_text(s, &text);
}


void
ngx_mail_policy_session_refused_text(ngx_mail_policy_session_t *s,
    ngx_str_t *text)
{
    ngx_mail_policy_verdict_t  *verdict;

    verdict = s->refusing;
    s->refusing = NULL;

    ngx_mail_policy_account_refused(&s->account, s->at, text, NULL, verdict);
}


void
ngx_mail_policy_transaction_refused(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_at_command_e command, ngx_str_t *text,
    ngx_str_t *recipient)
{
    ngx_mail_policy_verdict_t  *verdict;

    verdict = t->refusing;
    t->refusing = NULL;

    ngx_mail_policy_account_refused(&t->session->account, command, text,
                                    recipient, verdict);
}


void
ngx_mail_policy_auth_told(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, const char *reply,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t  text;

    ngx_str_null(&text);

    if (reply) {
        text.data = (u_char *) reply;
        text.len = ngx_strlen(reply);
    }

    ngx_mail_policy_auth_told_text(s, result, &text, verdict);
}


void
ngx_mail_policy_auth_told_text(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, ngx_str_t *text,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_account_login_t  login;

    if (!s->auth_begun) {
        return;
    }

    s->auth_begun = 0;
    s->refusing = verdict;

    login.method = s->auth_method;
    login.name = *ngx_mail_policy_auth_name(s->auth_method);
    login.result = result;
    login.login = s->auth_login;
    login.text = *text;
    login.verdict = verdict;

    ngx_mail_policy_account_login(&s->account, &login);
}


void
ngx_mail_policy_transaction_limited(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_verdict_t *verdict)
{
    if (verdict->limit.len == 0) {
        return;
    }

    t->verdict = verdict;

    if (t->session->conf->access_logs) {
        ngx_mail_policy_record_hit(&t->record, t->pool, verdict);
    }
}


void
ngx_mail_policy_transaction_told(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    ngx_mail_policy_session_octets(s, s->received - (s->in_last - s->in_pos),
                                   s->connection->sent
                                   + (s->out_last - s->out_pos));

    if (s->conf->access_logs) {

        if (t->verdict) {
            ngx_mail_policy_transaction_limit(t);
        }

        ngx_mail_policy_transaction_recipients(t);
    }

    ngx_mail_policy_account_transaction(&s->account, t->pool);
}


/* the limit that was exceeded is of more interest than the one asked last */

static void
ngx_mail_policy_transaction_limit(ngx_mail_policy_transaction_t *t)
{
    ngx_mail_policy_record_t    *r;
    ngx_mail_policy_verdict_t   *verdict;
    ngx_mail_policy_envelope_t  *e;

    r = &t->record;
    e = &t->session->envelope;
    verdict = t->verdict;

    r->limit = verdict->limit;
    r->action = verdict->action;
    r->used = verdict->used;
    r->max = verdict->max;
    r->retry = verdict->retry;

    e->limit = verdict->limit;
    e->verdict = verdict->action;
    e->limit_remaining = verdict->max > verdict->used
                         ? verdict->max - verdict->used : 0;
    e->retry_after = verdict->retry;
}


static void
ngx_mail_policy_transaction_recipients(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t               *q;
    ngx_mail_policy_rcpt_t    *rcpt;
    ngx_mail_policy_record_t  *r;

    r = &t->record;

    r->recipients = ngx_palloc(t->pool, sizeof(ngx_str_t)
                               * ngx_min(t->session->envelope.recipients,
                                         NGX_MAIL_POLICY_LOG_RECIPIENTS));

    for (q = ngx_queue_head(&t->rcpts);
         r->recipients && q != ngx_queue_sentinel(&t->rcpts)
         && r->nrecipients < NGX_MAIL_POLICY_LOG_RECIPIENTS;
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            r->recipients[r->nrecipients++] = rcpt->to.address;
        }
    }
}


/* since the call before, so that those of a session add up */

static void
ngx_mail_policy_session_octets(ngx_mail_policy_session_t *s, off_t received,
    off_t sent)
{
    s->envelope.bytes_received = received - s->received_told;
    s->envelope.bytes_sent = sent - s->sent_told;

    s->received_told = received;
    s->sent_told = sent;
}


/* what was to be sent then may not have been */

void
ngx_mail_policy_session_told(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_session_octets(s, s->received,
                                   ngx_max(s->connection->sent, s->sent_told));

    ngx_mail_policy_account_end(&s->account);
}
