
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * How nginx' SMTP session becomes ours.
 *
 * nginx does the connection, PROXY protocol, TLS, the PTR look-up and the
 * greeting.  Where that is out at once, init_session takes the session over;
 * where a look-up or greeting_delay comes first, parse_command does, which
 * the stock handler calls for the first octets of a command: they move to our
 * buffer.  Both handlers become ours, and the stock code is never entered
 * again, but for the STARTTLS handshake, which ends in our init_protocol.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"
#include "ngx_mail_policy_smtp.h"


static void ngx_mail_policy_smtp_init_session(ngx_mail_session_t *ms,
    ngx_connection_t *c);
static ngx_uint_t ngx_mail_policy_smtp_early(ngx_connection_t *c);
static void ngx_mail_policy_smtp_refuse_early(ngx_mail_session_t *ms);
static ngx_int_t ngx_mail_policy_smtp_parse(ngx_mail_session_t *ms);
static void ngx_mail_policy_smtp_init_protocol(ngx_event_t *rev);
static ngx_mail_policy_session_t *ngx_mail_policy_smtp_session(
    ngx_mail_session_t *ms);
static void ngx_mail_policy_smtp_ssl(ngx_connection_t *c);


ngx_mail_protocol_t *
ngx_mail_policy_smtp_protocol(ngx_conf_t *cf, ngx_mail_protocol_t *stock)
{
    ngx_mail_protocol_t  *protocol;

    protocol = ngx_palloc(cf->pool, sizeof(ngx_mail_protocol_t));
    if (protocol == NULL) {
        return NULL;
    }

    *protocol = *stock;

    protocol->init_session = ngx_mail_policy_smtp_init_session;
    protocol->parse_command = ngx_mail_policy_smtp_parse;
    protocol->init_protocol = ngx_mail_policy_smtp_init_protocol;

    return protocol;
}


/*
 * A client that has the greeting and says nothing is ours already: on reload
 * it hears of it, and it costs no buffer.
 */

static void
ngx_mail_policy_smtp_init_session(ngx_mail_session_t *ms, ngx_connection_t *c)
{
    ngx_mail_policy_session_t  *s;

    if (ngx_mail_policy_smtp_early(c)) {
        ngx_mail_policy_smtp_refuse_early(ms);
        return;
    }

    /*
     * The stock greeting closes a connection that cannot be read from, and
     * then goes on with it; where this was done before, it has nothing to do.
     */

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_close_connection(c);
        return;
    }

    ngx_mail_smtp_init_session(ms, c);

    if (c->fd == (ngx_socket_t) -1
        || c->read->handler != ngx_mail_smtp_init_protocol
        || ms->out.len)
    {
        /* closed, or the greeting is still to come, or on its way */
        return;
    }

    s = ngx_mail_policy_smtp_session(ms);
    if (s == NULL) {
        ngx_mail_close_connection(c);
        return;
    }

    c->read->handler = ngx_mail_policy_session_read_handler;
    c->write->handler = ngx_mail_policy_session_write_handler;

    c->idle = 1;
    c->log->action = "waiting for a command";

    ngx_mail_policy_session_admit(s);
}


/* SMUG-10: who speaks before the greeting does not wait for replies at all */

static ngx_uint_t
ngx_mail_policy_smtp_early(ngx_connection_t *c)
{
    u_char      octet;
    ngx_uint_t  early;

    if (c->ssl == NULL) {
        return recv(c->fd, &octet, 1, MSG_PEEK) > 0;
    }

    /* that there is nothing is no error that anybody should find later */

    early = SSL_peek(c->ssl->connection, &octet, 1) > 0;
    ERR_clear_error();

    return early;
}


static void
ngx_mail_policy_smtp_refuse_early(ngx_mail_session_t *ms)
{
    ngx_connection_t           *c;
    ngx_mail_policy_session_t  *s;

    c = ms->connection;

    s = ngx_mail_policy_smtp_session(ms);
    if (s == NULL) {
        ngx_mail_close_connection(c);
        return;
    }

    c->read->handler = ngx_mail_policy_session_read_handler;
    c->write->handler = ngx_mail_policy_session_write_handler;

    ngx_mail_policy_session_unsynchronized(s);
}


/*
 * Called by the stock handler with the first octets.  NGX_AGAIN makes it
 * return without touching the session again.
 */

static ngx_int_t
ngx_mail_policy_smtp_parse(ngx_mail_session_t *ms)
{
    size_t                      len;
    ngx_connection_t           *c;
    ngx_mail_policy_session_t  *s;

    c = ms->connection;

    s = ngx_mail_policy_smtp_session(ms);
    if (s == NULL) {
        return NGX_ERROR;
    }

    len = ms->buffer->last - ms->buffer->pos;

    if (ngx_mail_policy_session_input(s, len) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memcpy(s->in, ms->buffer->pos, len);
    s->in_last = len;
    s->received = len;

    /*
     * A full buffer would turn NGX_AGAIN into "too long command"; and there
     * may be a password in it.
     */

    ngx_explicit_memzero(ms->buffer->pos, len);

    ms->buffer->pos = ms->buffer->start;
    ms->buffer->last = ms->buffer->start;

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    c->read->handler = ngx_mail_policy_session_read_handler;
    c->write->handler = ngx_mail_policy_session_write_handler;

    ngx_mail_policy_session_admit(s);

    ngx_post_event(c->read, &ngx_posted_events);

    return NGX_AGAIN;
}


static void
ngx_mail_policy_smtp_init_protocol(ngx_event_t *rev)
{
    ngx_connection_t           *c;
    ngx_mail_session_t         *ms;
    ngx_mail_policy_session_t  *s;

    c = rev->data;
    ms = c->data;

    s = ngx_mail_get_module_ctx(ms, ngx_mail_policy_module);

    if (s == NULL) {

        /* the handshake of another server's session: not taken over yet */

        ngx_mail_smtp_init_protocol(rev);
        return;
    }

    ngx_mail_policy_smtp_ssl(c);

    s->starttls = 0;
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    c->read->handler = ngx_mail_policy_session_read_handler;
    c->write->handler = ngx_mail_policy_session_write_handler;

    if (rev->timer_set) {
        ngx_del_timer(rev);
    }

    ngx_mail_policy_session_resume(s);
}


static ngx_mail_policy_session_t *
ngx_mail_policy_smtp_session(ngx_mail_session_t *ms)
{
    ngx_connection_t           *c;
    ngx_pool_cleanup_t         *cln;
    ngx_mail_policy_session_t  *s;

    c = ms->connection;

    if (ngx_tcp_nodelay(c) != NGX_OK) {
        return NULL;
    }

    s = ngx_pcalloc(c->pool, sizeof(ngx_mail_policy_session_t));
    if (s == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_mail_policy_session_cleanup;
    cln->data = s;

    s->mail = ms;
    s->connection = c;
    s->main_conf = ngx_mail_get_module_main_conf(ms, ngx_mail_policy_module);
    s->conf = ngx_mail_get_module_srv_conf(ms, ngx_mail_policy_module);
    s->core = ngx_mail_get_module_srv_conf(ms, ngx_mail_core_module);

    ngx_queue_init(&s->dues);

    s->envelope.connection = c;
    s->envelope.server_name = s->core->server_name;
    ngx_str_set(&s->envelope.protocol, "SMTP");

    /*
     * CVE-2026-28753: a PTR record may hold anything; and the stock code
     * writes [UNAVAILABLE] or [TEMPUNAVAIL] for no name
     */

    if (mpol_hostname_clean(ms->host.data, ms->host.len)) {
        s->envelope.client_host = ms->host;
    }

    ngx_mail_set_ctx(ms, s, ngx_mail_policy_module);

    ngx_mail_policy_session_begun(s);
    ngx_mail_policy_smtp_ssl(c);

    return s;
}


static void
ngx_mail_policy_smtp_ssl(ngx_connection_t *c)
{
    if (c->ssl == NULL) {
        return;
    }

    /* what was not taken is tried again, in a buffer that may have grown */

    SSL_set_mode(c->ssl->connection, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

    /* or what was deciphered, passwords too, stays where nobody wipes it */

#ifdef SSL_OP_CLEANSE_PLAINTEXT
    SSL_set_options(c->ssl->connection, SSL_OP_CLEANSE_PLAINTEXT);
#endif

    /* a client may send on and on instead of its close_notify */

    c->ssl->no_wait_shutdown = 1;
}
