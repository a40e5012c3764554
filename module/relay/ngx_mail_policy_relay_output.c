
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is to be said to a relay: a buffer on the heap while there is something
 * in it.  No events arrive here; flush() is called when the relay may be
 * written to.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_relay.h"


static void ngx_mail_policy_relay_output_wipe(ngx_mail_policy_relay_t *relay);


u_char *
ngx_mail_policy_relay_reserve(ngx_mail_policy_relay_t *relay, size_t n)
{
    size_t   size;
    u_char  *p;

    if (relay->out_size - relay->out_len >= n) {
        return relay->out + relay->out_len;
    }

    size = ngx_max(relay->out_len + n, 2 * relay->out_size);
    size = ngx_max(size, 1024);

    p = ngx_alloc(size, &relay->log);
    if (p == NULL) {
        return NULL;
    }

    if (relay->out) {
        ngx_memcpy(p, relay->out, relay->out_len);
        ngx_mail_policy_relay_output_wipe(relay);
    }

    relay->out = p;
    relay->out_size = size;

    return p + relay->out_len;
}


void
ngx_mail_policy_relay_written(ngx_mail_policy_relay_t *relay, size_t n)
{
    relay->out_len += n;
}


ngx_int_t
ngx_mail_policy_relay_flush(ngx_mail_policy_relay_t *relay)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = relay->pc.connection;

    while (relay->out_sent < relay->out_len) {

        if (!c->write->ready) {
            n = NGX_AGAIN;

        } else {
            n = c->send(c, relay->out + relay->out_sent,
                        relay->out_len - relay->out_sent);
        }

        if (n == NGX_ERROR) {
            ngx_mail_policy_relay_fail(relay, "send() failed");
            return NGX_ERROR;
        }

        if (n == NGX_AGAIN) {

            if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
                ngx_mail_policy_relay_fail(relay, "no write event");
                return NGX_ERROR;
            }

            ngx_mail_policy_relay_timers(relay);

            return NGX_AGAIN;
        }

        relay->out_sent += n;
    }

    ngx_mail_policy_relay_output_free(relay);

    return NGX_OK;
}


void
ngx_mail_policy_relay_output_free(ngx_mail_policy_relay_t *relay)
{
    if (relay->out) {
        ngx_mail_policy_relay_output_wipe(relay);
        relay->out = NULL;
    }

    relay->secret = 0;
    relay->out_len = 0;
    relay->out_sent = 0;
    relay->out_size = 0;
}


/* whatever stage it is by now: a relay may answer what it has not read yet */

static void
ngx_mail_policy_relay_output_wipe(ngx_mail_policy_relay_t *relay)
{
    if (relay->secret) {
        ngx_explicit_memzero(relay->out, relay->out_size);
    }

    ngx_free(relay->out);
}
