
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * TLS to a relay, from the first octet on or behind STARTTLS.
 *
 *     TLS (all that was said in clear has gone out) -> tls() -> handshake
 *         -> GREETING, or EHLO anew
 *
 * Events: while hands are shaken they are nginx' own, which calls our handler
 * once at the end, or when the read timer has run out.  Nothing is read by us
 * in stage TLS, so what came in clear goes to OpenSSL, which does not like it;
 * and what the relay offered in clear is forgotten.
 *
 * Who the relay is, is seen in its certificate: by the chain, and by the name
 * that "proxy_ssl_name" or else its "server" line tells; for an address, by
 * the addresses in it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_relay.h"


static ngx_int_t ngx_mail_policy_relay_tls_prepare(
    ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_tls_names(
    ngx_mail_policy_relay_t *relay);
static ngx_str_t ngx_mail_policy_relay_tls_host(ngx_str_t *server);
static void ngx_mail_policy_relay_tls_handler(ngx_connection_t *c);
static ngx_int_t ngx_mail_policy_relay_tls_trusts(
    ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_relay_tls_save(ngx_connection_t *c);


void
ngx_mail_policy_relay_tls(ngx_mail_policy_relay_t *relay)
{
    ngx_connection_t  *c;

    c = relay->pc.connection;

    /* a second event of the same loop turn */

    if (c->ssl) {
        return;
    }

    if (ngx_mail_policy_relay_tls_prepare(relay) != NGX_OK) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no TLS connection can be made");
        return;
    }

    relay->log.action = "SSL handshaking to relay";

    ngx_mail_policy_relay_timers(relay);

    if (ngx_ssl_handshake(c) != NGX_AGAIN) {
        ngx_mail_policy_relay_tls_handler(c);
    }
}


static ngx_int_t
ngx_mail_policy_relay_tls_prepare(ngx_mail_policy_relay_t *relay)
{
    ngx_connection_t                    *c;
    const ngx_mail_policy_relay_conf_t  *conf;

    c = relay->pc.connection;
    conf = relay->conf;

    if (ngx_mail_policy_relay_tls_names(relay) != NGX_OK
        || ngx_ssl_create_connection(conf->ssl, c, NGX_SSL_CLIENT) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /*
     * What does not go out is given again, perhaps from elsewhere: the
     * session's buffer moves.
     */

    SSL_set_mode(c->ssl->connection, SSL_MODE_ENABLE_PARTIAL_WRITE
                                     |SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

#ifdef SSL_OP_NO_RENEGOTIATION
    SSL_set_options(c->ssl->connection, SSL_OP_NO_RENEGOTIATION);
#endif

    if (conf->ssl_server_name
        && ngx_mail_policy_tls_server_name(c, &relay->host) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->ssl_sessions) {
        c->ssl->save_session = ngx_mail_policy_relay_tls_save;
        ngx_mail_policy_tls_sessions_use(conf->ssl_sessions, c,
                                         &relay->session_key);
    }

    c->ssl->handler = ngx_mail_policy_relay_tls_handler;

    return NGX_OK;
}


/* a session is with a host at an address */

static ngx_int_t
ngx_mail_policy_relay_tls_names(ngx_mail_policy_relay_t *relay)
{
    u_char     *p;
    ngx_str_t   host;

    host = relay->conf->ssl_name;

    if (host.len == 0) {
        host = ngx_mail_policy_relay_tls_host(&relay->peer->server->name);
    }

    p = ngx_pnalloc(relay->pool, host.len + 1 + relay->peer->name.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    relay->host.data = p;
    relay->host.len = host.len;

    p = ngx_cpymem(p, host.data, host.len);
    *p++ = '\0';
    p = ngx_cpymem(p, relay->peer->name.data, relay->peer->name.len);

    relay->session_key.data = relay->host.data;
    relay->session_key.len = p - relay->host.data;

    return NGX_OK;
}


/* "host:port", "[address]:port"; of "unix:/path" nothing */

static ngx_str_t
ngx_mail_policy_relay_tls_host(ngx_str_t *server)
{
    u_char     *p, *last, *end;
    ngx_str_t   host;

    p = server->data;
    last = p + server->len;

    ngx_str_null(&host);

    if (server->len >= 5 && ngx_strncasecmp(p, (u_char *) "unix:", 5) == 0) {
        return host;
    }

    if (p < last && *p == '[') {
        p++;
        end = ngx_strlchr(p, last, ']');

    } else {
        end = ngx_strlchr(p, last, ':');
    }

    host.data = p;
    host.len = (end ? end : last) - p;

    return host;
}


static void
ngx_mail_policy_relay_tls_handler(ngx_connection_t *c)
{
    ngx_mail_policy_relay_t  *relay;

    relay = c->data;

    if (!c->ssl->handshaked) {

        if (relay->conf->ssl_sessions) {
            ngx_mail_policy_tls_sessions_forget(relay->conf->ssl_sessions,
                                                &relay->session_key);
        }

        ngx_mail_policy_relay_fail_as(relay,
                                      c->read->timedout
                                      ? NGX_MAIL_POLICY_RELAY_TIMEOUT
                                      : NGX_MAIL_POLICY_RELAY_REFUSED,
                                      c->read->timedout
                                      ? "TLS handshake timed out"
                                      : "TLS handshake failed");
        return;
    }

    if (ngx_mail_policy_relay_tls_trusts(relay) != NGX_OK) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_REFUSED,
                                      "relay is not the one it should be");
        return;
    }

    relay->trusted = 1;

    /* TLS 1.3 hands sessions out later on */

    if (relay->conf->ssl_sessions) {
        ngx_mail_policy_relay_tls_save(c);
    }

    c->read->handler = ngx_mail_policy_relay_read_handler;
    c->write->handler = ngx_mail_policy_relay_write_handler;

    if (ngx_mail_policy_relay_secured(relay) != NGX_OK) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no memory");
        return;
    }

    ngx_mail_policy_relay_timers(relay);

    /* what came with the end of the handshake is in OpenSSL's buffer */

    ngx_post_event(c->read, &ngx_posted_events);
    ngx_post_event(c->write, &ngx_posted_events);
}


static ngx_int_t
ngx_mail_policy_relay_tls_trusts(ngx_mail_policy_relay_t *relay)
{
    long               rc;
    ngx_connection_t  *c;

    if (!relay->conf->ssl_verify) {
        return NGX_OK;
    }

    c = relay->pc.connection;
    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "relay's certificate cannot be verified: (%l:%s)",
                      rc, X509_verify_cert_error_string(rc));
        return NGX_ERROR;
    }

    if (ngx_mail_policy_tls_check_host(c, &relay->host) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "relay's certificate is not for \"%V\"", &relay->host);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* one that was made with whom we do not trust is not offered again */

static void
ngx_mail_policy_relay_tls_save(ngx_connection_t *c)
{
    ngx_mail_policy_relay_t  *relay;

    relay = c->data;

    if (relay->trusted) {
        ngx_mail_policy_tls_sessions_keep(relay->conf->ssl_sessions, c,
                                          &relay->session_key);
    }
}


ngx_uint_t
ngx_mail_policy_relay_heard(ngx_mail_policy_relay_t *relay)
{
    int                n;
    u_char             octet;
    ngx_uint_t         heard;
    ngx_connection_t  *c;

    c = relay->pc.connection;

    if (c->ssl == NULL) {
        return recv(c->fd, &octet, 1, MSG_PEEK) != -1
               || ngx_socket_errno != NGX_EAGAIN;
    }

    /* records that are not for us, as tickets, say nothing */

    ERR_clear_error();

    n = SSL_peek(c->ssl->connection, &octet, 1);

    heard = (n > 0
             || SSL_get_error(c->ssl->connection, n) != SSL_ERROR_WANT_READ);

    ERR_clear_error();

    return heard;
}
