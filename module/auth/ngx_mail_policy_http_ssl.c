
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * TLS to an HTTP service.
 *
 * Events: read and write of the socket are nginx' own while hands are shaken;
 * then its handler is called, once.  The timer is the request's.
 *
 * Without sessions: connections are kept instead.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_http.h"
#include "ngx_mail_policy_tls.h"


#define NGX_MAIL_POLICY_HTTP_SSL_DEPTH  4


static void ngx_mail_policy_http_ssl_handler(ngx_connection_t *c);
static ngx_int_t ngx_mail_policy_http_ssl_trusts(
    ngx_mail_policy_http_conn_t *conn);
static ngx_str_t *ngx_mail_policy_http_ssl_name(
    ngx_mail_policy_http_conn_t *conn);


ngx_ssl_t *
ngx_mail_policy_http_ssl(ngx_conf_t *cf, ngx_uint_t verify,
    ngx_str_t *trusted)
{
    ngx_ssl_t           *ssl;
    ngx_pool_cleanup_t  *cln;

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NULL;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL)
        != NGX_OK)
    {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(ssl);
        return NULL;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    /* an answer may have a password in it */

#ifdef SSL_OP_CLEANSE_PLAINTEXT
    SSL_CTX_set_options(ssl->ctx, SSL_OP_CLEANSE_PLAINTEXT);
#endif

    if (!verify) {
        return ssl;
    }

    if (ngx_ssl_trusted_certificate(cf, ssl, trusted,
                                    NGX_MAIL_POLICY_HTTP_SSL_DEPTH)
        != NGX_OK)
    {
        return NULL;
    }

    if (trusted->len == 0
        && SSL_CTX_set_default_verify_paths(ssl->ctx) == 0)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NULL;
    }

    return ssl;
}


ngx_uint_t
ngx_mail_policy_http_ssl_quiet(ngx_connection_t *c)
{
    int         n;
    u_char      ch;
    ngx_uint_t  quiet;

    /* records that are not for us, as tickets, say nothing */

    ERR_clear_error();

    n = SSL_peek(c->ssl->connection, &ch, 1);

    quiet = (n <= 0
             && SSL_get_error(c->ssl->connection, n) == SSL_ERROR_WANT_READ);

    ERR_clear_error();

    return quiet;
}


void
ngx_mail_policy_http_ssl_connect(ngx_mail_policy_http_conn_t *conn)
{
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (ngx_ssl_create_connection(conn->ssl, c, NGX_SSL_CLIENT) != NGX_OK
        || ngx_mail_policy_tls_server_name(c,
                                         ngx_mail_policy_http_ssl_name(conn))
           != NGX_OK)
    {
        ngx_mail_policy_http_unmade(conn->http);
        return;
    }

    c->ssl->handler = ngx_mail_policy_http_ssl_handler;

    if (ngx_ssl_handshake(c) != NGX_AGAIN) {
        ngx_mail_policy_http_ssl_handler(c);
    }
}


static void
ngx_mail_policy_http_ssl_handler(ngx_connection_t *c)
{
    ngx_mail_policy_http_conn_t  *conn;

    conn = c->data;

    /* without memory OpenSSL may leave some, and shake hands all the same */

    ERR_clear_error();

    if (!c->ssl->handshaked) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "auth service %V failed in the TLS handshake",
                      conn->peer.name);
        ngx_mail_policy_http_unmade(conn->http);
        return;
    }

    if (conn->http->tls->verify
        && ngx_mail_policy_http_ssl_trusts(conn) != NGX_OK)
    {
        ngx_mail_policy_http_unmade(conn->http);
        return;
    }

    ngx_mail_policy_http_conn_made(conn);
}


static ngx_int_t
ngx_mail_policy_http_ssl_trusts(ngx_mail_policy_http_conn_t *conn)
{
    long               rc;
    ngx_str_t         *name;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "auth service %V has a certificate that cannot be "
                      "verified: %s", conn->peer.name,
                      X509_verify_cert_error_string(rc));
        return NGX_ERROR;
    }

    name = ngx_mail_policy_http_ssl_name(conn);

    if (ngx_mail_policy_tls_check_host(c, name) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "auth service %V has a certificate that is not for "
                      "\"%V\"", conn->peer.name, name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_str_t *
ngx_mail_policy_http_ssl_name(ngx_mail_policy_http_conn_t *conn)
{
    ngx_mail_policy_http_tls_t  *tls;

    tls = conn->http->tls;

    return tls->name.len ? &tls->name : &conn->service->name;
}
