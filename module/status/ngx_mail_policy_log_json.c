
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The format "json".  What is not known, or empty, is left out, but for the
 * sender, as <> is one.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_log_json.h"


static void ngx_mail_policy_log_json_session(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_log_json_envelope(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_outcome(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);


ngx_int_t
ngx_mail_policy_log_json(ngx_pool_t *pool, ngx_mail_policy_envelope_t *e,
    ngx_str_t *line)
{
    ngx_str_t               time;
    ngx_mail_policy_json_t  j;

    ngx_memzero(&j, sizeof(ngx_mail_policy_json_t));
    j.pool = pool;

    time = *(ngx_str_t *) &ngx_cached_http_log_iso8601;

    ngx_mail_policy_json_raw(&j, "{\"time\":");
    ngx_mail_policy_json_value(&j, &time);

    ngx_mail_policy_log_json_session(&j, e);
    ngx_mail_policy_log_json_envelope(&j, e, e->record);
    ngx_mail_policy_log_json_outcome(&j, e->record);

    ngx_mail_policy_json_raw(&j, "}\n");

    if (j.error) {
        return NGX_ERROR;
    }

    line->data = j.start;
    line->len = j.last - j.start;

    return NGX_OK;
}


static void
ngx_mail_policy_log_json_session(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e)
{
    ngx_mail_policy_json_num(j, "connection", e->connection->number);
    ngx_mail_policy_json_num(j, "transaction", e->transaction);
    ngx_mail_policy_json_str(j, "remote_addr", &e->connection->addr_text);
    ngx_mail_policy_json_str(j, "client_host", &e->client_host);
    ngx_mail_policy_json_str(j, "helo", &e->helo);
    ngx_mail_policy_json_str(j, "protocol", &e->protocol);
    ngx_mail_policy_json_str(j, "sasl_method", &e->sasl_method);
    ngx_mail_policy_json_str(j, "sasl_username", &e->sasl_username);
}


static void
ngx_mail_policy_log_json_envelope(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r)
{
    ngx_uint_t  i;

    /* the null sender is told from none by being there */

    ngx_mail_policy_json_raw(j, ",\"sender\":");
    ngx_mail_policy_json_value(j, &e->sender);

    ngx_mail_policy_json_raw(j, ",\"to\":[");

    for (i = 0; i < r->nrecipients; i++) {
        if (i) {
            ngx_mail_policy_json_raw(j, ",");
        }

        ngx_mail_policy_json_value(j, &r->recipients[i]);
    }

    ngx_mail_policy_json_raw(j, "]");

    ngx_mail_policy_json_num(j, "recipients", e->recipients);
    ngx_mail_policy_json_num(j, "rejected_recipients",
                             e->rejected_recipients);
    ngx_mail_policy_json_num(j, "message_size", e->message_size);
}


static void
ngx_mail_policy_log_json_outcome(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r)
{
    ngx_mail_policy_json_str(j, "outcome",
                             &ngx_mail_policy_outcomes[r->outcome]);

    if (r->status) {
        ngx_mail_policy_json_num(j, "status", r->status);
    }

    ngx_mail_policy_json_str(j, "reply", &r->reply);

    if (r->limit.len) {
        ngx_mail_policy_json_str(j, "limit", &r->limit);
        ngx_mail_policy_json_str(j, "limit_action", &r->action);
        ngx_mail_policy_json_num(j, "limit_used", r->used);
        ngx_mail_policy_json_num(j, "limit_max", r->max);
        ngx_mail_policy_json_num(j, "retry_after", r->retry);
    }

    ngx_mail_policy_json_str(j, "upstream_name", &r->upstream);
    ngx_mail_policy_json_str(j, "upstream_addr", &r->relay);

    if (r->relay_start) {
        ngx_mail_policy_json_sec(j, "upstream_response_time", r->relay_start);
    }

    if (r->type == NGX_MAIL_POLICY_LOG_TRANSACTION) {
        ngx_mail_policy_json_sec(j, "transaction_time", r->start);
    }
}
