
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * TLS to Redis: rediss://.
 *
 * Events: read and write of the socket are nginx' own while hands are shaken;
 * then its handler is called, once.  The timer is the connection's.
 *
 * The certificate is verified by its chain and by a name: policy_redis_ssl_
 * name, or the host of the URL.  A server that was found through Sentinels or
 * through the cluster has no URL: it is that of the first URL then; but if
 * this is an address, the server's own.
 *
 * Without sessions: connections are few, and long.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis_node.h"
#include "ngx_mail_policy_store_conf.h"
#include "ngx_mail_policy_tls.h"


#define NGX_MAIL_POLICY_REDIS_SSL_DEPTH  4


static void ngx_mail_policy_redis_ssl_handler(ngx_connection_t *c);
static ngx_int_t ngx_mail_policy_redis_ssl_trusts(
    ngx_mail_policy_redis_conn_t *conn);
static ngx_str_t ngx_mail_policy_redis_ssl_host(
    ngx_mail_policy_redis_conn_t *conn, u_char *buf);


ngx_int_t
ngx_mail_policy_redis_ssl_init(ngx_conf_t *cf, ngx_mail_policy_redis_t *redis)
{
    ngx_ssl_t           *ssl;
    ngx_pool_cleanup_t  *cln;

    if (!redis->tls) {
        return NGX_OK;
    }

    if (redis->ssl_verify && redis->ssl_trusted.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"policy_redis rediss://...\" has no certificate "
                           "to verify the server with, write "
                           "\"policy_redis_ssl_trusted_certificate file\", "
                           "or \"policy_redis_ssl_verify off\"");
        return NGX_ERROR;
    }

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(ssl);
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    if (redis->ssl_verify
        && ngx_ssl_trusted_certificate(cf, ssl, &redis->ssl_trusted,
                                       NGX_MAIL_POLICY_REDIS_SSL_DEPTH)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    redis->ssl = ssl;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_redis_ssl_connect(ngx_mail_policy_redis_conn_t *conn)
{
    u_char             buf[NGX_SOCKADDR_STRLEN];
    ngx_int_t          rc;
    ngx_str_t          host;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    c->pool = ngx_create_pool(256, ngx_cycle->log);

    if (c->pool == NULL
        || ngx_ssl_create_connection(conn->redis->ssl, c, NGX_SSL_CLIENT)
           != NGX_OK)
    {
        ngx_mail_policy_redis_down(conn, 0, "no memory");
        return NGX_ERROR;
    }

    /* what waits to be sent may move to a longer buffer */

    SSL_set_mode(c->ssl->connection, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

    host = ngx_mail_policy_redis_ssl_host(conn, buf);

    if (ngx_mail_policy_tls_server_name(c, &host) != NGX_OK) {
        ngx_mail_policy_redis_down(conn, 0, "no memory");
        return NGX_ERROR;
    }

    c->ssl->handler = ngx_mail_policy_redis_ssl_handler;
    conn->quiet.action = "SSL handshaking to policy store";

    rc = ngx_ssl_handshake(c);

    if (rc == NGX_AGAIN) {
        return NGX_OK;
    }

    ngx_mail_policy_redis_ssl_handler(c);

    return conn->peer.connection ? NGX_OK : NGX_ERROR;
}


static void
ngx_mail_policy_redis_ssl_handler(ngx_connection_t *c)
{
    ngx_mail_policy_redis_conn_t  *conn;

    conn = c->data;

    if (!c->ssl->handshaked) {
        ngx_mail_policy_redis_down(conn, 0, conn->why[0]
                                            ? (char *) conn->why
                                            : "TLS handshake failed");
        return;
    }

    if (conn->redis->ssl_verify
        && ngx_mail_policy_redis_ssl_trusts(conn) != NGX_OK)
    {
        ngx_mail_policy_redis_down(conn, 0, (char *) conn->why);
        return;
    }

    c->read->handler = ngx_mail_policy_redis_read_handler;
    c->write->handler = ngx_mail_policy_redis_write_handler;

    if (ngx_mail_policy_redis_made(conn) != NGX_OK) {
        return;
    }

    /* it does not speak first, but what is there is in OpenSSL's buffer */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


/* the reason is kept */

static ngx_int_t
ngx_mail_policy_redis_ssl_trusts(ngx_mail_policy_redis_conn_t *conn)
{
    long               rc;
    u_char             buf[NGX_SOCKADDR_STRLEN], *last;
    ngx_str_t          host;
    ngx_connection_t  *c;

    c = conn->peer.connection;
    last = conn->why + sizeof(conn->why) - 1;

    rc = SSL_get_verify_result(c->ssl->connection);

    if (rc != X509_V_OK) {
        *ngx_snprintf(conn->why, last - conn->why,
                      "its certificate cannot be verified, %s",
                      X509_verify_cert_error_string(rc)) = '\0';
        return NGX_ERROR;
    }

    host = ngx_mail_policy_redis_ssl_host(conn, buf);

    if (ngx_mail_policy_tls_check_host(c, &host) != NGX_OK) {
        *ngx_snprintf(conn->why, last - conn->why,
                      "its certificate is not for \"%V\"", &host) = '\0';
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* NUL-terminated; buf has room for an address */

static ngx_str_t
ngx_mail_policy_redis_ssl_host(ngx_mail_policy_redis_conn_t *conn,
    u_char *buf)
{
    ngx_str_t                      host;
    ngx_mail_policy_redis_t       *redis;
    ngx_mail_policy_redis_addr_t  *addr;

    redis = conn->redis;

    /* naddr is that of the next one */
    addr = &conn->node->addrs[(conn->naddr - 1) % conn->node->naddrs];

    if (redis->ssl_name.len) {
        return redis->ssl_name;
    }

    if (addr->host.len) {
        return addr->host;
    }

    if (!ngx_mail_policy_tls_is_address(&redis->host)) {
        return redis->host;
    }

    host.data = buf;
    host.len = ngx_sock_ntop(addr->sockaddr, addr->socklen, buf,
                             NGX_SOCKADDR_STRLEN - 1, 0);
    buf[host.len] = '\0';

    return host;
}


/* at once: the other side need not hear that there is no more */

void
ngx_mail_policy_redis_ssl_close(ngx_connection_t *c)
{
    ngx_mail_policy_tls_close(c, 0);
}


/*
 * A connection that is not made is not worth a line each time that it is
 * tried; but nginx tells nobody but its log what OpenSSL did not like.
 */

void
ngx_mail_policy_redis_ssl_writer(ngx_log_t *log, ngx_uint_t level,
    u_char *buf, size_t len)
{
    u_char                        *p, *last;
    size_t                         n;
    ngx_mail_policy_redis_conn_t  *conn;

    conn = log->wdata;

    if (level <= NGX_LOG_ALERT) {
        ngx_log_error(level, ngx_cycle->log, 0, "%*s", len, buf);
        return;
    }

    /* "... (SSL: error:0A00010B:SSL routines::wrong version number) ..." */

    p = (u_char *) ngx_strnstr(buf, "SSL routines:", len);
    if (p == NULL) {
        return;
    }

    p += sizeof("SSL routines:") - 1;

    if (p < buf + len && *p == ':') {
        p++;
    }

    last = ngx_strlchr(p, buf + len, ')');
    if (last == NULL) {
        last = buf + len;
    }

    n = ngx_min((size_t) (last - p), sizeof(conn->why) - 32);

    *ngx_sprintf(conn->why, "TLS handshake failed, %*s", n, p) = '\0';
}
