
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The format "json".  What is not known, or empty, is left out, but for the
 * sender, as <> is one.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_queue.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_log_json.h"


static void ngx_mail_policy_log_json_session(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_log_json_envelope(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_outcome(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_limits(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_relay(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_tries(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r);
static void ngx_mail_policy_log_json_times(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r);


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
    ngx_mail_policy_log_json_times(&j, e, e->record);

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
    ngx_str_t          text;
    ngx_connection_t  *c;
    u_char             buf[NGX_SOCKADDR_STRLEN + NGX_ATOMIC_T_LEN];

    c = e->connection;

    text.data = buf;
    text.len = ngx_sprintf(buf, "%P-%uA", ngx_pid, c->number) - buf;

    ngx_mail_policy_json_str(j, "session", &text);
    ngx_mail_policy_json_num(j, "connection", c->number);
    ngx_mail_policy_json_num(j, "transaction", e->transaction);

    text.len = NGX_SOCKADDR_STRLEN;

    /* stock code may have closed it already, and then nobody can be asked */

    if (c->fd != (ngx_socket_t) -1
        && ngx_connection_local_sockaddr(c, &text, 1) == NGX_OK)
    {
        ngx_mail_policy_json_str(j, "server", &text);
    }

    ngx_mail_policy_json_str(j, "remote_addr", &c->addr_text);
    ngx_mail_policy_json_str(j, "client_host", &e->client_host);
    ngx_mail_policy_json_str(j, "helo", &e->helo);

    ngx_mail_policy_json_str(j, "protocol", &e->protocol);

    if (c->ssl) {
        ngx_mail_policy_json_text(j, "ssl_protocol",
                                  SSL_get_version(c->ssl->connection));
        ngx_mail_policy_json_text(j, "ssl_cipher",
                                  SSL_get_cipher_name(c->ssl->connection));
    }

    ngx_mail_policy_json_str(j, "sasl_method", &e->sasl_method);
    ngx_mail_policy_json_str(j, "sasl_username", &e->sasl_username);

    if (e->auth_failures) {
        ngx_mail_policy_json_num(j, "auth_failures", e->auth_failures);
    }
}


static void
ngx_mail_policy_log_json_envelope(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r)
{
    ngx_uint_t  i;

    if (r->type == NGX_MAIL_POLICY_LOG_SESSION) {
        return;
    }

    /* the null sender is told from none by being there */

    ngx_mail_policy_json_raw(j, ",\"sender\":");
    ngx_mail_policy_json_value(j, &e->sender);

    if (r->type == NGX_MAIL_POLICY_LOG_QUESTION) {
        ngx_mail_policy_json_str(j, "recipient", &e->recipient);
        ngx_mail_policy_json_num(j, "recipients", e->recipients);
        ngx_mail_policy_json_num(j, "message_size", e->message_size);
        ngx_mail_policy_json_str(j, "state", &r->state);
        return;
    }

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
    mpol_str_t  id;
    ngx_str_t   text;

    ngx_mail_policy_json_str(j, "outcome",
                             &ngx_mail_policy_outcomes[r->outcome]);

    if (r->status) {
        ngx_mail_policy_json_num(j, "status", r->status);
    }

    ngx_mail_policy_json_str(j, "reply", &r->reply);

    if (r->status >= 200 && r->status < 300
        && mpol_queue_id(r->reply.data, r->reply.len, &id) == MPOL_OK)
    {
        text.data = (u_char *) id.data;
        text.len = id.len;
        ngx_mail_policy_json_str(j, "queue_id", &text);
    }

    ngx_mail_policy_log_json_limits(j, r);
    ngx_mail_policy_log_json_relay(j, r);
}


/* the one that was exceeded last, and the list of all */

static void
ngx_mail_policy_log_json_limits(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r)
{
    ngx_uint_t              i;
    ngx_mail_policy_hit_t  *hit;

    if (r->limit.len == 0) {
        return;
    }

    ngx_mail_policy_json_str(j, "limit", &r->limit);
    ngx_mail_policy_json_str(j, "limit_action", &r->action);
    ngx_mail_policy_json_num(j, "limit_used", r->used);
    ngx_mail_policy_json_num(j, "limit_max", r->max);
    ngx_mail_policy_json_num(j, "retry_after", r->retry);

    hit = r->hits.elts;

    ngx_mail_policy_json_raw(j, ",\"limits\":[");

    for (i = 0; i < r->hits.nelts; i++) {
        ngx_mail_policy_json_raw(j, i ? ",{\"limit\":" : "{\"limit\":");
        ngx_mail_policy_json_value(j, &hit[i].limit);
        ngx_mail_policy_json_str(j, "action", &hit[i].action);
        ngx_mail_policy_json_num(j, "used", hit[i].used);
        ngx_mail_policy_json_num(j, "max", hit[i].max);
        ngx_mail_policy_json_num(j, "retry_after", hit[i].retry);
        ngx_mail_policy_json_raw(j, "}");
    }

    ngx_mail_policy_json_raw(j, "]");
}


static void
ngx_mail_policy_log_json_relay(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r)
{
    ngx_mail_policy_json_str(j, "upstream_name", &r->upstream);
    ngx_mail_policy_json_str(j, "upstream_addr", &r->relay);

    if (r->tries.nelts) {
        ngx_mail_policy_json_num(j, "upstream_tries", r->tries.nelts);
    }

    if (r->tries.nelts > 1) {
        ngx_mail_policy_log_json_tries(j, r);
    }

    if (r->relay_protocol) {
        ngx_mail_policy_json_text(j, "upstream_ssl_protocol",
                                  r->relay_protocol);
        ngx_mail_policy_json_text(j, "upstream_ssl_cipher", r->relay_cipher);
    }

    if (r->relay_start) {
        ngx_mail_policy_json_sec(j, "upstream_response_time", r->relay_start);
    }
}


/* of several: what each of them said */

static void
ngx_mail_policy_log_json_tries(ngx_mail_policy_json_t *j,
    ngx_mail_policy_record_t *r)
{
    ngx_uint_t              i;
    ngx_mail_policy_try_t  *try;

    try = r->tries.elts;

    ngx_mail_policy_json_raw(j, ",\"tries\":[");

    for (i = 0; i < r->tries.nelts; i++) {
        ngx_mail_policy_json_raw(j, i ? ",{\"addr\":" : "{\"addr\":");
        ngx_mail_policy_json_value(j, &try[i].relay);

        if (try[i].status) {
            ngx_mail_policy_json_num(j, "status", try[i].status);
        }

        ngx_mail_policy_json_sec(j, "time",
                                 try[i].ended ? ngx_current_msec - try[i].time
                                              : try[i].start);
        ngx_mail_policy_json_raw(j, "}");
    }

    ngx_mail_policy_json_raw(j, "]");
}


static void
ngx_mail_policy_log_json_times(ngx_mail_policy_json_t *j,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_record_t *r)
{
    if (r->type == NGX_MAIL_POLICY_LOG_QUESTION) {
        return;
    }

    if (r->type == NGX_MAIL_POLICY_LOG_TRANSACTION) {
        ngx_mail_policy_json_sec(j, "transaction_time", r->start);
    }

    ngx_mail_policy_json_sec(j, "session_time", e->connection->start_time);
    ngx_mail_policy_json_num(j, "bytes_received", e->bytes_received);
    ngx_mail_policy_json_num(j, "bytes_sent", e->bytes_sent);
}
