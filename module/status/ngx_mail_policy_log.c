
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One JSON object a line.  Whatever a client chose is escaped so that a line
 * stays one line and valid JSON; secrets never get here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_log.h"


static void ngx_mail_policy_log_session(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_log_recipients(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_outcome(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_write(ngx_open_file_t *file,
    ngx_mail_policy_json_t *j, ngx_log_t *log);


static ngx_str_t  ngx_mail_policy_outcomes[] = {
    ngx_string("accepted"),
    ngx_string("deferred"),
    ngx_string("rejected"),
    ngx_string("aborted"),
    ngx_string("unknown"),
    ngx_string("delivered_unacked")
};


void
ngx_mail_policy_log_record(ngx_open_file_t *file, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_record_t *record)
{
    ngx_str_t               time;
    ngx_mail_policy_json_t  j;

    if (file == NULL) {
        return;
    }

    ngx_memzero(&j, sizeof(ngx_mail_policy_json_t));
    j.pool = pool;

    time = *(ngx_str_t *) &ngx_cached_http_log_iso8601;

    ngx_mail_policy_json_raw(&j, "{\"time\":");
    ngx_mail_policy_json_value(&j, &time);

    ngx_mail_policy_log_session(&j, envelope);
    ngx_mail_policy_log_recipients(&j, envelope, record);
    ngx_mail_policy_log_outcome(&j, record);

    ngx_mail_policy_json_raw(&j, "}\n");

    if (j.error) {
        ngx_log_error(NGX_LOG_ALERT, envelope->connection->log, 0,
                      "no memory for a line of the access log");
        return;
    }

    ngx_mail_policy_log_write(file, &j, envelope->connection->log);
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

    ngx_mail_policy_json_sec(j, "transaction_time", r->start);
}


static void
ngx_mail_policy_log_write(ngx_open_file_t *file, ngx_mail_policy_json_t *j,
    ngx_log_t *log)
{
    size_t          len;
    ssize_t         n;
    static time_t   last;               /* says it once a minute */

    len = j->last - j->start;
    n = ngx_write_fd(file->fd, j->start, len);

    if (n == (ssize_t) len || ngx_time() - last < 60) {
        return;
    }

    last = ngx_time();

    if (n == -1) {
        ngx_log_error(NGX_LOG_CRIT, log, ngx_errno,
                      ngx_write_fd_n " to \"%s\" failed", file->name.data);
        return;
    }

    ngx_log_error(NGX_LOG_CRIT, log, 0,
                  ngx_write_fd_n " to \"%s\" was incomplete: %z of %uz",
                  file->name.data, n, len);
}
