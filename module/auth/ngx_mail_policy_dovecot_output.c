
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is to be written to Dovecot.  No events arrive here: push() posts the
 * write event of the connection, so that all that is asked in one turn of the
 * event loop goes out in one write.  Passwords are among it: it is wiped once
 * it is written.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_dovecot.h"


#define NGX_MAIL_POLICY_DOVECOT_OUT      4096
#define NGX_MAIL_POLICY_DOVECOT_OUT_MAX  (1024 * 1024)


static ngx_int_t ngx_mail_policy_dovecot_reserve(
    ngx_mail_policy_dovecot_t *dovecot, size_t size);


ngx_int_t
ngx_mail_policy_dovecot_push(ngx_mail_policy_dovecot_t *dovecot,
    u_char *line, size_t len)
{
    ngx_event_t  *wev;

    if (ngx_mail_policy_dovecot_reserve(dovecot, len) != NGX_OK) {
        return NGX_ERROR;
    }

    dovecot->out_last = ngx_cpymem(dovecot->out_last, line, len);

    wev = dovecot->peer.connection->write;

    if (wev->ready) {
        ngx_post_event(wev, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_dovecot_reserve(ngx_mail_policy_dovecot_t *dovecot,
    size_t size)
{
    size_t   waiting, capacity;
    u_char  *out;

    if ((size_t) (dovecot->out_end - dovecot->out_last) >= size) {
        return NGX_OK;
    }

    waiting = dovecot->out_last - dovecot->out_pos;

    if (waiting + size > NGX_MAIL_POLICY_DOVECOT_OUT_MAX) {
        return NGX_ERROR;
    }

    capacity = NGX_MAIL_POLICY_DOVECOT_OUT;

    while (capacity < waiting + size) {
        capacity *= 2;
    }

    out = ngx_alloc(capacity, ngx_cycle->log);
    if (out == NULL) {
        return NGX_ERROR;
    }

    if (waiting) {
        ngx_memcpy(out, dovecot->out_pos, waiting);
    }

    ngx_mail_policy_dovecot_discard(dovecot);

    dovecot->out = out;
    dovecot->out_pos = out;
    dovecot->out_last = out + waiting;
    dovecot->out_end = out + capacity;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_dovecot_flush(ngx_mail_policy_dovecot_t *dovecot)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = dovecot->peer.connection;

    while (dovecot->out_pos < dovecot->out_last) {

        n = c->send(c, dovecot->out_pos,
                    dovecot->out_last - dovecot->out_pos);

        if (n == NGX_AGAIN || n == 0) {
            return NGX_AGAIN;
        }

        if (n < 0) {
            return NGX_ERROR;
        }

        dovecot->out_pos += n;
    }

    if (dovecot->out_end - dovecot->out > NGX_MAIL_POLICY_DOVECOT_OUT) {
        ngx_mail_policy_dovecot_discard(dovecot);

    } else if (dovecot->out) {
        ngx_explicit_memzero(dovecot->out, dovecot->out_last - dovecot->out);
        dovecot->out_pos = dovecot->out;
        dovecot->out_last = dovecot->out;
    }

    return NGX_OK;
}


void
ngx_mail_policy_dovecot_discard(ngx_mail_policy_dovecot_t *dovecot)
{
    if (dovecot->out) {
        ngx_explicit_memzero(dovecot->out, dovecot->out_last - dovecot->out);
        ngx_free(dovecot->out);
    }

    dovecot->out = NULL;
    dovecot->out_pos = NULL;
    dovecot->out_last = NULL;
    dovecot->out_end = NULL;
}
