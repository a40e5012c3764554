
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

#include "mpol_smtpd.h"
#include "mpol_text.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_log_json.h"
#include "ngx_mail_policy_log_postfix.h"
#include "ngx_mail_policy_log_write.h"
#include "ngx_mail_policy_metrics.h"


typedef size_t (*ngx_mail_policy_log_escape_pt)(const uint8_t *in, size_t len,
    uint8_t *out, size_t size);


/* the lines of one moment, and what is made for them */
typedef struct {
    ngx_mail_policy_use_t          use;
    ngx_mail_policy_log_event_t   *event;
    ngx_str_t                      json;
    ngx_str_t                      postfix;
    ngx_str_t                      message;     /* of the latter */
} ngx_mail_policy_made_t;


static void ngx_mail_policy_log_event_record(
    ngx_mail_policy_log_event_t *event, ngx_mail_policy_record_t *r,
    ngx_mail_policy_record_t *record);
static void ngx_mail_policy_log_make(ngx_mail_policy_made_t *made,
    ngx_pool_t *pool, ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_log_event_t *event);
static ngx_int_t ngx_mail_policy_log_one(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made);
static ngx_int_t ngx_mail_policy_log_wanted(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made);
static ngx_int_t ngx_mail_policy_log_line(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made, ngx_str_t *line);
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


/*
 * JSON and the line of Postfix are made once for all logs that want them; the
 * latter is of transactions alone.
 */

void
ngx_mail_policy_log_record(ngx_array_t *logs, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope)
{
    ngx_uint_t                     i, lines;
    ngx_mail_policy_made_t         made;
    ngx_mail_policy_access_log_t  *log;

    ngx_mail_policy_log_make(&made, pool, envelope, NULL);

    log = logs->elts;
    lines = 0;

    for (i = 0; i < logs->nelts; i++) {

        if (log[i].postfix
            && envelope->record->type != NGX_MAIL_POLICY_LOG_TRANSACTION)
        {
            continue;
        }

        if (ngx_mail_policy_log_one(&log[i], &made) == NGX_OK) {
            lines++;
        }
    }

    if (lines) {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_LOG_LINES, 1);
    }
}


void
ngx_mail_policy_log_event(ngx_array_t *logs,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_log_event_t *event)
{
    ngx_uint_t                     i;
    ngx_pool_t                    *pool;
    ngx_mail_policy_made_t         made;
    ngx_mail_policy_record_t       record, *r;
    ngx_mail_policy_access_log_t  *log;

    log = logs->elts;

    for (i = 0; i < logs->nelts && !log[i].postfix; i++) { /* void */ }

    if (i == logs->nelts) {
        return;
    }

    pool = ngx_create_pool(2048, envelope->connection->log);
    if (pool == NULL) {
        ngx_mail_policy_log_no_memory(&log[i], envelope->connection->log);
        return;
    }

    r = envelope->record;

    ngx_mail_policy_log_event_record(event, r, &record);
    envelope->record = &record;

    ngx_mail_policy_log_make(&made, pool, envelope, event);

    for ( /* void */ ; i < logs->nelts; i++) {
        if (log[i].postfix) {
            (void) ngx_mail_policy_log_one(&log[i], &made);
        }
    }

    envelope->record = r;

    ngx_destroy_pool(pool);
}


/* the one at hand, if any, with the reply of the event */

static void
ngx_mail_policy_log_event_record(ngx_mail_policy_log_event_t *event,
    ngx_mail_policy_record_t *r, ngx_mail_policy_record_t *record)
{
    mpol_smtpd_reply_t  reply;

    if (r) {
        *record = *r;

    } else {
        ngx_memzero(record, sizeof(ngx_mail_policy_record_t));
        record->type = NGX_MAIL_POLICY_LOG_SESSION;
    }

    mpol_smtpd_reply(event->text->data, event->text->len, &reply);

    record->status = reply.code;
    record->reply = *event->text;
    record->outcome = (reply.code < 500) ? NGX_MAIL_POLICY_DEFERRED
                                         : NGX_MAIL_POLICY_REJECTED;
}


static void
ngx_mail_policy_log_make(ngx_mail_policy_made_t *made, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_log_event_t *event)
{
    ngx_memzero(made, sizeof(ngx_mail_policy_made_t));

    made->use.pool = pool;
    made->use.envelope = envelope;
    made->event = event;
}


/* NGX_OK: it is the writer's; NGX_DECLINED: "if=" wants none; NGX_ERROR */

static ngx_int_t
ngx_mail_policy_log_one(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made)
{
    ngx_int_t   rc;
    ngx_str_t   line;
    ngx_log_t  *errlog;

    errlog = made->use.envelope->connection->log;

    rc = ngx_mail_policy_log_wanted(log, made);

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_log_line(log, made, &line);
    }

    switch (rc) {

    case NGX_OK:
        ngx_mail_policy_log_write(log, &line, errlog);
        break;

    case NGX_DECLINED:
        break;

    default:
        ngx_mail_policy_log_no_memory(log, errlog);
    }

    return rc;
}


static ngx_int_t
ngx_mail_policy_log_wanted(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made)
{
    ngx_str_t  value;

    if (log->condition.text.len == 0) {
        return NGX_OK;
    }

    if (ngx_mail_policy_value_use(&made->use, &log->condition, NULL, &value)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return (value.len == 0 || (value.len == 1 && value.data[0] == '0'))
           ? NGX_DECLINED : NGX_OK;
}


static ngx_int_t
ngx_mail_policy_log_line(ngx_mail_policy_access_log_t *log,
    ngx_mail_policy_made_t *made, ngx_str_t *line)
{
    if (log->format) {
        return ngx_mail_policy_value_use(&made->use, &log->format->line,
                                         log->format->escape, line);
    }

    if (log->postfix) {
        if (made->postfix.len == 0
            && ngx_mail_policy_log_postfix(made->use.pool, made->use.envelope,
                                           made->event, &made->postfix,
                                           &made->message)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        *line = log->syslog ? made->message : made->postfix;
        return NGX_OK;
    }

    if (made->json.len == 0
        && ngx_mail_policy_log_json(made->use.pool, made->use.envelope,
                                    &made->json)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    *line = made->json;

    return NGX_OK;
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
