
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A connection of Postfix: requests in, answers out, one at a time.
 *
 *     idle -> reading -> busy -> writing -> reading, or idle
 *
 * Events: octets, and room for them; the timer of the request that is read,
 * of the wait for the next one, or of the answer; the verdict, by way of
 * answered().  While a request is at the store nothing is read.
 *
 * Whatever is wrong is logged and ends in a connection that is closed without
 * an answer: Postfix tries again, and then defers its client by itself.
 * ..._finalize() is the only way out.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_postfix.h"


static void ngx_mail_policy_postfix_init_session(ngx_mail_session_t *ms,
    ngx_connection_t *c);
static void ngx_mail_policy_postfix_init_protocol(ngx_event_t *rev);
static ngx_int_t ngx_mail_policy_postfix_parse(ngx_mail_session_t *ms);
static void ngx_mail_policy_postfix_auth_state(ngx_event_t *rev);
static void ngx_mail_policy_postfix_read_handler(ngx_event_t *rev);
static void ngx_mail_policy_postfix_write_handler(ngx_event_t *wev);
static void ngx_mail_policy_postfix_process(ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_yield(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_next(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_recv(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_room(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_wait(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_send(ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_gone(ngx_connection_t *c);
static void ngx_mail_policy_postfix_finalize(ngx_mail_policy_postfix_t *s);


/*
 * It has no port of its own, and no type that stock code knows.  The texts
 * are for stock code that fails before we are asked: an answer without an
 * action.
 */

ngx_mail_protocol_t  ngx_mail_policy_postfix_protocol = {
    ngx_string("policy"),
    ngx_string("\x06policy"),
    { 0 },
    3,

    ngx_mail_policy_postfix_init_session,
    ngx_mail_policy_postfix_init_protocol,
    ngx_mail_policy_postfix_parse,
    ngx_mail_policy_postfix_auth_state,

    ngx_string("\n"),
    ngx_string("\n"),
    ngx_string("\n")
};


static void
ngx_mail_policy_postfix_init_session(ngx_mail_session_t *ms,
    ngx_connection_t *c)
{
    ngx_mail_policy_postfix_t  *s;

    s = ngx_pcalloc(c->pool, sizeof(ngx_mail_policy_postfix_t));
    if (s == NULL) {
        ngx_mail_close_connection(c);
        return;
    }

    s->connection = c;
    s->main_conf = ngx_mail_get_module_main_conf(ms, ngx_mail_policy_module);
    s->conf = ngx_mail_get_module_srv_conf(ms, ngx_mail_policy_module);
    s->core = ngx_mail_get_module_srv_conf(ms, ngx_mail_core_module);

    ngx_mail_set_ctx(ms, s, ngx_mail_policy_module);

    c->read->handler = ngx_mail_policy_postfix_read_handler;
    c->write->handler = ngx_mail_policy_postfix_write_handler;

    c->log->action = "reading a policy request";

    if (s->conf->clients && s->conf->clients->nelts
        && ngx_cidr_match(c->sockaddr, s->conf->clients) != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "policy client is not among \"policy_clients\", "
                      "closing");
        ngx_mail_policy_postfix_finalize(s);
        return;
    }

    /* once, as each request has a copy of the connection */

    if (ngx_connection_local_sockaddr(c, NULL, 0) != NGX_OK) {
        ngx_mail_policy_postfix_finalize(s);
        return;
    }

    /* the other protocols speak first; a handshake may have read ahead */

    if (c->ssl) {
        c->read->ready = 1;
    }

    ngx_mail_policy_postfix_process(s);
}


/* stock code calls these for protocols of its own alone */

static void
ngx_mail_policy_postfix_init_protocol(ngx_event_t *rev)
{
    ngx_mail_close_connection(rev->data);
}


static ngx_int_t
ngx_mail_policy_postfix_parse(ngx_mail_session_t *ms)
{
    return NGX_ERROR;
}


static void
ngx_mail_policy_postfix_auth_state(ngx_event_t *rev)
{
    ngx_mail_close_connection(rev->data);
}


static void
ngx_mail_policy_postfix_read_handler(ngx_event_t *rev)
{
    ngx_connection_t           *c;
    ngx_mail_policy_postfix_t  *s;

    c = rev->data;
    s = ngx_mail_get_module_ctx((ngx_mail_session_t *) c->data,
                                ngx_mail_policy_module);

    if (rev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "policy client timed out");
        c->timedout = 1;

        if (s->in_last && !s->busy) {
            ngx_mail_policy_postfix_untold(s);
        }

        ngx_mail_policy_postfix_finalize(s);
        return;
    }

    /* nginx stops or reloads, and it is idle; or its time is over */

    if (c->close) {
        ngx_mail_policy_postfix_finalize(s);
        return;
    }

    if (s->busy) {
        if (ngx_handle_read_event(rev, 0) != NGX_OK) {
            ngx_mail_policy_postfix_finalize(s);
        }

        return;
    }

    ngx_mail_policy_postfix_process(s);
}


static void
ngx_mail_policy_postfix_write_handler(ngx_event_t *wev)
{
    ngx_connection_t           *c;
    ngx_mail_policy_postfix_t  *s;

    c = wev->data;
    s = ngx_mail_get_module_ctx((ngx_mail_session_t *) c->data,
                                ngx_mail_policy_module);

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "policy client timed out");
        c->timedout = 1;
        ngx_mail_policy_postfix_finalize(s);
        return;
    }

    if (s->out_last == 0) {
        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_mail_policy_postfix_finalize(s);
        }

        return;
    }

    ngx_mail_policy_postfix_answered(s, NGX_OK);
}


void
ngx_mail_policy_postfix_answered(ngx_mail_policy_postfix_t *s, ngx_int_t rc)
{
    if (rc == NGX_OK) {
        rc = ngx_mail_policy_postfix_send(s);
    }

    switch (rc) {

    case NGX_OK:
        ngx_mail_policy_postfix_process(s);
        return;

    case NGX_AGAIN:
        return;

    default: /* NGX_ERROR */
        ngx_mail_policy_postfix_finalize(s);
    }
}


/* answers what is there, and waits for more */

static void
ngx_mail_policy_postfix_process(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t   rc;
    ngx_uint_t  n;

    for (n = 0; n < NGX_MAIL_POLICY_POSTFIX_TURN; n++) {

        rc = ngx_mail_policy_postfix_next(s);

        if (rc == NGX_OK) {
            s->busy = 1;
            s->connection->idle = 0;

            rc = ngx_mail_policy_postfix_request(s);
        }

        if (rc == NGX_OK) {
            rc = ngx_mail_policy_postfix_send(s);
        }

        if (rc == NGX_AGAIN) {
            return;
        }

        if (rc != NGX_OK) {
            ngx_mail_policy_postfix_finalize(s);
            return;
        }
    }

    ngx_mail_policy_postfix_yield(s);
}


/* who does not wait for answers is not preferred to those who do */

static void
ngx_mail_policy_postfix_yield(ngx_mail_policy_postfix_t *s)
{
    ngx_event_t  *rev;

    rev = s->connection->read;

    /* a worker that shuts down stays for timers, and for nothing else */

    ngx_add_timer(rev, s->core->timeout);

    ngx_post_event(rev, &ngx_posted_next_events);
}


/* NGX_OK: a request; NGX_AGAIN: it is waited for; NGX_ERROR: close */

static ngx_int_t
ngx_mail_policy_postfix_next(ngx_mail_policy_postfix_t *s)
{
    int        rc;
    ngx_int_t  n;

    for ( ;; ) {

        rc = mpol_attr_scan(&s->attr, s->in, s->in_last);

        if (rc == MPOL_OK) {
            break;
        }

        if (rc != MPOL_AGAIN) {
            ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                          "policy client sent a request with %s, "
                          "closing", mpol_attr_error(rc));
            ngx_mail_policy_postfix_untold(s);
            return NGX_ERROR;
        }

        n = ngx_mail_policy_postfix_recv(s);

        if (n == NGX_AGAIN) {
            return ngx_mail_policy_postfix_wait(s);
        }

        if (n != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (s->connection->read->timer_set) {
        ngx_del_timer(s->connection->read);
    }

    s->timed = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_postfix_recv(ngx_mail_policy_postfix_t *s)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = s->connection;

    if (!c->read->ready) {
        return NGX_AGAIN;
    }

    if (ngx_mail_policy_postfix_room(s) != NGX_OK) {
        return NGX_ERROR;
    }

    n = c->recv(c, s->in + s->in_last, s->in_size - s->in_last);

    if (n == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (n == NGX_ERROR || n == 0) {

        if (s->in_last) {
            ngx_log_error(NGX_LOG_INFO, c->log, 0,
                          "policy client closed amid a request");
        }

        return NGX_ERROR;
    }

    s->in_last += n;
    c->log->action = "reading a policy request";

    return NGX_OK;
}


/* a request is never larger than the largest buffer, see scan() */

static ngx_int_t
ngx_mail_policy_postfix_room(ngx_mail_policy_postfix_t *s)
{
    size_t   size;
    u_char  *p;

    if (s->in_last < s->in_size) {
        return NGX_OK;
    }

    size = s->in_size ? 2 * s->in_size : MPOL_ATTR_LINE;

    if (size > MPOL_ATTR_REQUEST) {
        return NGX_ERROR;
    }

    p = ngx_alloc(size, s->connection->log);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (s->in) {
        ngx_memcpy(p, s->in, s->in_last);
        ngx_free(s->in);
    }

    s->in = p;
    s->in_size = size;

    return NGX_OK;
}


/*
 * A request has a time in which all of it must come; between two of them it
 * is waited for as long as Postfix may want to keep the connection.
 */

static ngx_int_t
ngx_mail_policy_postfix_wait(ngx_mail_policy_postfix_t *s)
{
    ngx_connection_t  *c;

    c = s->connection;

    if (s->in_last == 0) {

        /* idle connections were closed before this one became idle */

        if (ngx_exiting || ngx_terminate) {
            return NGX_ERROR;
        }

        if (s->in) {
            ngx_free(s->in);
            s->in = NULL;
            s->in_size = 0;
        }

        c->idle = 1;
        c->log->action = "waiting for a policy request";

        ngx_add_timer(c->read, NGX_MAIL_POLICY_POSTFIX_IDLE);

    } else if (!s->timed) {
        s->timed = 1;
        c->idle = 0;
        c->log->action = "reading a policy request";

        ngx_add_timer(c->read, s->core->timeout);
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_AGAIN;
}


/*
 * NGX_OK: it is out, and its request is done with; NGX_ERROR: close, it may
 * be out
 */

static ngx_int_t
ngx_mail_policy_postfix_send(ngx_mail_policy_postfix_t *s)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = s->connection;

    while (s->out_pos < s->out_last) {

        n = c->send(c, s->out + s->out_pos, s->out_last - s->out_pos);

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (n == NGX_AGAIN || n == 0) {
            c->log->action = "sending a policy answer";

            if (!c->write->timer_set) {
                ngx_add_timer(c->write, s->core->timeout);
            }

            return ngx_handle_write_event(c->write, 0) == NGX_OK ? NGX_AGAIN
                                                                 : NGX_ERROR;
        }

        s->out_pos += n;
    }

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (ngx_mail_policy_postfix_gone(c)) {
        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "policy client closed before it was answered");
        return NGX_ERROR;
    }

    ngx_mail_policy_postfix_told(s);
    ngx_mail_policy_postfix_sent(s);

    s->out_pos = 0;
    s->out_last = 0;

    s->in_last -= s->attr.pos;
    ngx_memmove(s->in, s->in + s->attr.pos, s->in_last);
    ngx_memzero(&s->attr, sizeof(mpol_attr_t));

    s->busy = 0;

    /* what has been sent behind it is asked again elsewhere */

    return (ngx_exiting || ngx_terminate) ? NGX_ERROR : NGX_OK;
}


/*
 * Octets for a TCP socket that has been closed are sent, and rejected: on the
 * same machine by now.  The end of its input is no sign of that, as one may
 * shut down a side, and wait for the answer.
 */

static ngx_uint_t
ngx_mail_policy_postfix_gone(ngx_connection_t *c)
{
    int        error;
    socklen_t  len;

    error = 0;
    len = sizeof(int);

    return getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &error, &len)
           == -1
           || error;
}


static void
ngx_mail_policy_postfix_finalize(ngx_mail_policy_postfix_t *s)
{
    if (s->busy) {
        ngx_mail_policy_postfix_untold(s);
    }

    ngx_mail_policy_postfix_forget(s);

    if (s->in) {
        ngx_free(s->in);
        s->in = NULL;
    }

    ngx_mail_close_connection(s->connection);
}
