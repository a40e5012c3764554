
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Replies to the client, in the order of its commands (RFC 2920), written
 * once a loop turn: whoever has something to say appends it and posts the
 * write event, whose handler calls flush().
 *
 * A reply that has to wait for an answer stands in the queue of dues; later
 * ones queue up behind it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_REPLY  1024     /* the longest single reply */


static void ngx_mail_policy_output_add(ngx_mail_policy_session_t *s,
    u_char *data, size_t len);
static void ngx_mail_policy_output_failed(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_output_dues(ngx_mail_policy_session_t *s);


/* CRLF is added; with several lines the caller writes those between */

void
ngx_mail_policy_reply(ngx_mail_policy_session_t *s, const char *fmt, ...)
{
    u_char                 *last;
    va_list                 args;
    ngx_pool_t             *pool;
    ngx_mail_policy_due_t  *due;
    u_char                  buf[NGX_MAIL_POLICY_REPLY];

    va_start(args, fmt);
    last = ngx_vslprintf(buf, buf + NGX_MAIL_POLICY_REPLY, fmt, args);
    va_end(args);

    if (ngx_queue_empty(&s->dues)) {
        ngx_mail_policy_output_add(s, buf, last - buf);
        return;
    }

    /* dues are a transaction's, so there is one */

    pool = s->transaction->pool;

    due = ngx_pcalloc(pool, sizeof(ngx_mail_policy_due_t));
    if (due == NULL) {
        ngx_mail_policy_output_failed(s);
        return;
    }

    due->text.len = last - buf;
    due->text.data = ngx_pnalloc(pool, due->text.len);
    if (due->text.data == NULL) {
        ngx_mail_policy_output_failed(s);
        return;
    }

    ngx_memcpy(due->text.data, buf, due->text.len);
    due->done = 1;

    ngx_queue_insert_tail(&s->dues, &due->queue);
    s->ndues++;
}


/* RFC 4954, section 4; nothing is due while a client logs in */

void
ngx_mail_policy_challenge(ngx_mail_policy_session_t *s, ngx_str_t *octets)
{
    size_t   n;
    u_char  *buf;

    n = sizeof("334 ") - 1;

    buf = ngx_alloc(n + (octets->len + 2) / 3 * 4, s->connection->log);
    if (buf == NULL) {
        ngx_mail_policy_output_failed(s);
        return;
    }

    ngx_memcpy(buf, "334 ", n);
    n += mpol_base64_encode(octets->data, octets->len, buf + n);

    ngx_mail_policy_output_add(s, buf, n);

    ngx_free(buf);
}


void
ngx_mail_policy_due_add(ngx_mail_policy_session_t *s,
    ngx_mail_policy_due_t *due)
{
    due->done = 0;
    ngx_queue_insert_tail(&s->dues, &due->queue);
    s->ndues++;
}


/* text is copied; the session goes on reading when nothing is due */

void
ngx_mail_policy_due_done(ngx_mail_policy_session_t *s,
    ngx_mail_policy_due_t *due, ngx_str_t *text)
{
    if (due->done) {
        return;
    }

    due->done = 1;
    due->text = *text;

    ngx_mail_policy_output_dues(s);

    if (ngx_queue_empty(&s->dues)) {
        ngx_mail_policy_session_resume(s);
    }
}


static void
ngx_mail_policy_output_dues(ngx_mail_policy_session_t *s)
{
    ngx_queue_t            *q;
    ngx_mail_policy_due_t  *due;

    while (!ngx_queue_empty(&s->dues)) {
        q = ngx_queue_head(&s->dues);
        due = ngx_queue_data(q, ngx_mail_policy_due_t, queue);

        if (!due->done) {
            return;
        }

        ngx_queue_remove(q);
        s->ndues--;
        ngx_mail_policy_output_add(s, due->text.data, due->text.len);

        if (due->last) {

            /* those behind it are not said, and their memory may go first */

            s->closing = 1;
            ngx_queue_init(&s->dues);
            s->ndues = 0;
            return;
        }
    }
}


static void
ngx_mail_policy_output_add(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    size_t   size;
    u_char  *p;

    if (s->closing || s->finalized) {
        return;
    }

    if (s->out_size - s->out_last < len + 2 && s->out_pos) {
        s->out_last -= s->out_pos;
        ngx_memmove(s->out, s->out + s->out_pos, s->out_last);
        s->out_pos = 0;
    }

    if (s->out_size - s->out_last < len + 2) {
        size = ngx_min(2 * s->out_size,
                       NGX_MAIL_POLICY_OUTPUT + NGX_MAIL_POLICY_REPLY + 2);
        size = ngx_max(size, s->out_last + len + 2);
        size = ngx_max(size, 512);

        p = ngx_alloc(size, s->connection->log);
        if (p == NULL) {
            ngx_mail_policy_output_failed(s);
            return;
        }

        if (s->out) {
            ngx_memcpy(p, s->out, s->out_last);
            ngx_free(s->out);
        }

        s->out = p;
        s->out_size = size;
    }

    p = ngx_cpymem(s->out + s->out_last, data, len);
    *p++ = CR;
    *p++ = LF;

    s->out_last = p - s->out;

    ngx_post_event(s->connection->write, &ngx_posted_events);
}


/* a reply cannot be left out: the client sees a lost connection */

static void
ngx_mail_policy_output_failed(ngx_mail_policy_session_t *s)
{
    s->closing = 1;
    ngx_post_event(s->connection->write, &ngx_posted_events);
}


/* NGX_OK: nothing is left; NGX_AGAIN; NGX_ERROR: the client is gone */

ngx_int_t
ngx_mail_policy_output_flush(ngx_mail_policy_session_t *s)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = s->connection;

    while (s->out_pos < s->out_last) {

        n = c->write->ready ? c->send(c, s->out + s->out_pos,
                                      s->out_last - s->out_pos)
                            : NGX_AGAIN;

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (n == NGX_AGAIN) {

            if (!c->write->timer_set) {
                ngx_add_timer(c->write, s->core->timeout);
            }

            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                return NGX_ERROR;
            }

            return NGX_AGAIN;
        }

        s->out_pos += n;
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    ngx_mail_policy_output_free(s);

    return NGX_OK;
}


void
ngx_mail_policy_output_free(ngx_mail_policy_session_t *s)
{
    if (s->out) {
        ngx_free(s->out);
    }

    s->out = NULL;
    s->out_size = 0;
    s->out_pos = 0;
    s->out_last = 0;
}
