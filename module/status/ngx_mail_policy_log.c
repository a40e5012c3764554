
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The lines of a transaction: JSON objects, or as "log_format" says.  Whatever
 * a client chose is escaped so that a line stays one line; secrets never get
 * here.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_text.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_log_write.h"
#include "ngx_mail_policy_metrics.h"


typedef size_t (*ngx_mail_policy_log_escape_pt)(const uint8_t *in, size_t len,
    uint8_t *out, size_t size);


static ngx_int_t ngx_mail_policy_log_line(ngx_mail_policy_use_t *use,
    ngx_mail_policy_access_log_t *log, ngx_str_t *json, ngx_str_t *line);
static ngx_int_t ngx_mail_policy_log_json(ngx_mail_policy_use_t *use,
    ngx_str_t *line);
static void ngx_mail_policy_log_session(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_log_recipients(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_outcome(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static ngx_int_t ngx_mail_policy_log_escaped(ngx_pool_t *pool,
    ngx_str_t *value, ngx_mail_policy_log_escape_pt escape);


ngx_str_t  ngx_mail_policy_outcomes[] = {
    ngx_string("accepted"),
    ngx_string("deferred"),
    ngx_string("rejected"),
    ngx_string("aborted"),
    ngx_string("unknown"),
    ngx_string("delivered_unacked")
};


void
ngx_mail_policy_log_record(ngx_array_t *logs, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope)
{
    ngx_str_t                      line, json;
    ngx_uint_t                     i, lines;
    ngx_mail_policy_use_t          use;
    ngx_mail_policy_access_log_t  *log;

    use.pool = pool;
    use.envelope = envelope;
    use.maps = NULL;

    lines = 0;
    ngx_str_null(&json);

    log = logs->elts;

    for (i = 0; i < logs->nelts; i++) {

        switch (ngx_mail_policy_log_line(&use, &log[i], &json, &line)) {

        case NGX_OK:
            ngx_mail_policy_log_write(&log[i], &line,
                                      envelope->connection->log);
            lines++;
            break;

        case NGX_DECLINED:
            break;

        default:
            ngx_mail_policy_log_no_memory(&log[i],
                                          envelope->connection->log);
        }
    }

    if (lines) {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_LOG_LINES, 1);
    }
}


/* NGX_OK, NGX_ERROR; NGX_DECLINED: "if=" wants none.  json is made once */

static ngx_int_t
ngx_mail_policy_log_line(ngx_mail_policy_use_t *use,
    ngx_mail_policy_access_log_t *log, ngx_str_t *json, ngx_str_t *line)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    if (log->condition.text.len) {

        rc = ngx_mail_policy_value_use(use, &log->condition, NULL, &value);
        if (rc != NGX_OK) {
            return rc;
        }

        if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
            return NGX_DECLINED;
        }
    }

    if (log->format) {
        return ngx_mail_policy_value_use(use, &log->format->line,
                                         log->format->escape, line);
    }

    if (json->len == 0) {
        rc = ngx_mail_policy_log_json(use, json);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    *line = *json;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_log_json(ngx_mail_policy_use_t *use, ngx_str_t *line)
{
    ngx_str_t                    time;
    ngx_mail_policy_json_t       j;
    ngx_mail_policy_envelope_t  *e;

    e = use->envelope;

    ngx_memzero(&j, sizeof(ngx_mail_policy_json_t));
    j.pool = use->pool;

    time = *(ngx_str_t *) &ngx_cached_http_log_iso8601;

    ngx_mail_policy_json_raw(&j, "{\"time\":");
    ngx_mail_policy_json_value(&j, &time);

    ngx_mail_policy_log_session(&j, e);
    ngx_mail_policy_log_recipients(&j, e, e->record);
    ngx_mail_policy_log_outcome(&j, e->record);

    ngx_mail_policy_json_raw(&j, "}\n");

    if (j.error) {
        return NGX_ERROR;
    }

    line->data = j.start;
    line->len = j.last - j.start;

    return NGX_OK;
}


static void
ngx_mail_policy_log_session(ngx_mail_policy_json_t *j,
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
ngx_mail_policy_log_recipients(ngx_mail_policy_json_t *j,
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
ngx_mail_policy_log_outcome(ngx_mail_policy_json_t *j,
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

    if (r->start) {
        ngx_mail_policy_json_sec(j, "transaction_time", r->start);
    }
}


ngx_int_t
ngx_mail_policy_log_escape(ngx_pool_t *pool, ngx_str_t *value)
{
    if (value->len == 0) {
        ngx_str_set(value, "-");
        return NGX_OK;
    }

    return ngx_mail_policy_log_escaped(pool, value, mpol_log_escape);
}


ngx_int_t
ngx_mail_policy_log_escape_json(ngx_pool_t *pool, ngx_str_t *value)
{
    return ngx_mail_policy_log_escaped(pool, value, mpol_json_escape);
}


ngx_int_t
ngx_mail_policy_log_escape_none(ngx_pool_t *pool, ngx_str_t *value)
{
    return ngx_mail_policy_log_escaped(pool, value, mpol_line_escape);
}


static ngx_int_t
ngx_mail_policy_log_escaped(ngx_pool_t *pool, ngx_str_t *value,
    ngx_mail_policy_log_escape_pt escape)
{
    size_t   len;
    u_char  *p;

    len = escape(value->data, value->len, NULL, 0);

    if (len == value->len) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    escape(value->data, value->len, p, len);

    value->data = p;
    value->len = len;

    return NGX_OK;
}
