
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What Postfix was answered: a counter, and a line in the logs of the server.
 * Of a question that needed nobody nothing is known but its attributes: they
 * become an envelope for the log alone.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_access.h"
#include "ngx_mail_policy_postfix.h"


static ngx_mail_policy_answer_e ngx_mail_policy_postfix_outcome(
    ngx_mail_policy_postfix_t *s, ngx_str_t *answer);
static void ngx_mail_policy_postfix_log(ngx_mail_policy_postfix_t *s);


static ngx_str_t  ngx_mail_policy_postfix_name = ngx_string("policy");


void
ngx_mail_policy_postfix_limited(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_verdict_t *verdict)
{
    if (verdict->limit.len == 0 || s->conf->access_logs == NULL) {
        return;
    }

    s->record.limit = verdict->limit;
    s->record.action = verdict->action;
    s->record.used = verdict->used;
    s->record.max = verdict->max;
    s->record.retry = verdict->retry;

    ngx_mail_policy_record_hit(&s->record, s->pool, verdict);
}


void
ngx_mail_policy_postfix_told(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                 answer;
    ngx_mail_policy_answer_e  what;

    s->requests++;

    /* between "action=" and the empty line */

    answer.data = s->out + (sizeof("action=") - 1);
    answer.len = s->out_last - (sizeof("action=" "\n\n") - 1);

    s->record.status = 0;

    what = ngx_mail_policy_postfix_outcome(s, &answer);

    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_POSTFIX + what, 1);

    if (s->conf->access_logs) {
        s->record.reply = answer;
        s->record.outcome = (what == NGX_MAIL_POLICY_ANSWER_DEFER)
                            ? NGX_MAIL_POLICY_DEFERRED
                            : (what == NGX_MAIL_POLICY_ANSWER_REJECT)
                            ? NGX_MAIL_POLICY_REJECTED
                            : NGX_MAIL_POLICY_ACCEPTED;

        ngx_mail_policy_postfix_log(s);
    }
}


static ngx_mail_policy_answer_e
ngx_mail_policy_postfix_outcome(ngx_mail_policy_postfix_t *s,
    ngx_str_t *answer)
{
    mpol_access_t  access;

    ngx_memzero(&access, sizeof(mpol_access_t));

    if (answer->len != 5 || ngx_strncmp(answer->data, "DUNNO", 5) != 0) {
        (void) mpol_access_parse(answer->data, answer->len, &access);
    }

    switch (access.action) {

    case MPOL_ACCESS_REJECT:
        s->record.status = access.code;
        return NGX_MAIL_POLICY_ANSWER_REJECT;

    case MPOL_ACCESS_DEFER:
    case MPOL_ACCESS_DEFER_IF_PERMIT:
        s->record.status = access.code;
        return NGX_MAIL_POLICY_ANSWER_DEFER;

    default:
        return (s->state != NGX_MAIL_POLICY_POSTFIX_OTHER && s->message->edge)
               ? NGX_MAIL_POLICY_ANSWER_EDGE : NGX_MAIL_POLICY_ANSWER_PASS;
    }
}


void
ngx_mail_policy_postfix_untold(ngx_mail_policy_postfix_t *s)
{
    s->requests++;

    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_POSTFIX
                                + NGX_MAIL_POLICY_ANSWER_NONE, 1);

    /* one that could not be read has nothing to be logged */

    if (s->conf->access_logs && s->busy) {
        s->record.status = 0;
        s->record.outcome = NGX_MAIL_POLICY_UNKNOWN;
        ngx_str_null(&s->record.reply);

        ngx_mail_policy_postfix_log(s);
    }
}


static void
ngx_mail_policy_postfix_log(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                   message;
    ngx_mail_policy_envelope_t  *e;

    if (s->pool == NULL) {
        s->pool = ngx_create_pool(1024, ngx_cycle->log);

        if (s->pool == NULL || ngx_mail_policy_postfix_fill(s) != NGX_OK) {
            return;
        }
    }

    e = &s->envelope;
    message = e->transaction;

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_STATE, &s->record.state);

    s->record.type = NGX_MAIL_POLICY_LOG_QUESTION;

    e->transaction = s->requests;
    e->protocol = ngx_mail_policy_postfix_name;
    e->record = &s->record;

    ngx_mail_policy_log_record(s->conf->access_logs, s->pool, e);

    e->record = NULL;
    e->transaction = message;
}
