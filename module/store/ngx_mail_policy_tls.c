
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What connections of ours to TLS servers have in common.  No events arrive
 * here.
 *
 * Sessions: a queue, the one that was used last in front; the last one makes
 * room.  They are few, as there is one a relay.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_tls.h"


#define NGX_MAIL_POLICY_TLS_SESSIONS  128


typedef struct {
    ngx_queue_t         queue;
    ngx_ssl_session_t  *session;
    size_t              len;
    u_char              key[1];
} ngx_mail_policy_tls_session_t;


struct ngx_mail_policy_tls_sessions_s {
    ngx_queue_t         queue;
    ngx_uint_t          count;
};


static void ngx_mail_policy_tls_sessions_cleanup(void *data);
static ngx_mail_policy_tls_session_t *ngx_mail_policy_tls_sessions_find(
    ngx_mail_policy_tls_sessions_t *sessions, ngx_str_t *key);
static void ngx_mail_policy_tls_session_free(
    ngx_mail_policy_tls_sessions_t *sessions,
    ngx_mail_policy_tls_session_t *s);


ngx_int_t
ngx_mail_policy_tls_server_name(ngx_connection_t *c, ngx_str_t *host)
{
    if (host->len == 0 || ngx_mail_policy_tls_is_address(host)) {
        return NGX_OK;
    }

    return SSL_set_tlsext_host_name(c->ssl->connection, (char *) host->data)
           ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_tls_check_host(ngx_connection_t *c, ngx_str_t *host)
{
    int    rc;
    X509  *cert;

    if (host->len == 0) {
        return NGX_ERROR;
    }

    if (!ngx_mail_policy_tls_is_address(host)) {
        return ngx_ssl_check_host(c, host);
    }

    /* nginx knows names only */

    cert = SSL_get_peer_certificate(c->ssl->connection);
    if (cert == NULL) {
        return NGX_ERROR;
    }

    rc = X509_check_ip_asc(cert, (char *) host->data, 0);

    X509_free(cert);

    return (rc == 1) ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_mail_policy_tls_is_address(ngx_str_t *host)
{
#if (NGX_HAVE_INET6)
    u_char  addr[16];

    if (ngx_inet6_addr(host->data, host->len, addr) == NGX_OK) {
        return 1;
    }
#endif

    return ngx_inet_addr(host->data, host->len) != INADDR_NONE;
}


void
ngx_mail_policy_tls_close(ngx_connection_t *c, ngx_uint_t polite)
{
    c->ssl->no_wait_shutdown = 1;

    if (!polite) {
        c->ssl->no_send_shutdown = 1;
    }

    if (ngx_ssl_shutdown(c) == NGX_AGAIN) {

        /* no room for the goodbye */

        c->ssl->no_send_shutdown = 1;
        (void) ngx_ssl_shutdown(c);
    }
}


ngx_mail_policy_tls_sessions_t *
ngx_mail_policy_tls_sessions_create(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t              *cln;
    ngx_mail_policy_tls_sessions_t  *sessions;

    sessions = ngx_pcalloc(pool, sizeof(ngx_mail_policy_tls_sessions_t));
    if (sessions == NULL) {
        return NULL;
    }

    ngx_queue_init(&sessions->queue);

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_mail_policy_tls_sessions_cleanup;
    cln->data = sessions;

    return sessions;
}


static void
ngx_mail_policy_tls_sessions_cleanup(void *data)
{
    ngx_queue_t                     *q;
    ngx_mail_policy_tls_sessions_t  *sessions = data;

    while (!ngx_queue_empty(&sessions->queue)) {
        q = ngx_queue_head(&sessions->queue);

        ngx_mail_policy_tls_session_free(sessions,
                    ngx_queue_data(q, ngx_mail_policy_tls_session_t, queue));
    }
}


void
ngx_mail_policy_tls_sessions_use(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_connection_t *c, ngx_str_t *key)
{
    ngx_mail_policy_tls_session_t  *s;

    s = ngx_mail_policy_tls_sessions_find(sessions, key);

    if (s) {
        (void) ngx_ssl_set_session(c, s->session);
    }
}


void
ngx_mail_policy_tls_sessions_keep(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_connection_t *c, ngx_str_t *key)
{
    ngx_ssl_session_t              *session;
    ngx_mail_policy_tls_session_t  *s;

    session = ngx_ssl_get_session(c);
    if (session == NULL) {
        return;
    }

    if (!SSL_SESSION_is_resumable(session)) {
        ngx_ssl_free_session(session);
        return;
    }

    s = ngx_mail_policy_tls_sessions_find(sessions, key);

    if (s) {
        ngx_ssl_free_session(s->session);
        s->session = session;
        return;
    }

    if (sessions->count == NGX_MAIL_POLICY_TLS_SESSIONS) {
        ngx_mail_policy_tls_session_free(sessions,
                               ngx_queue_data(ngx_queue_last(&sessions->queue),
                                              ngx_mail_policy_tls_session_t,
                                              queue));
    }

    s = ngx_alloc(sizeof(ngx_mail_policy_tls_session_t) + key->len, c->log);
    if (s == NULL) {
        ngx_ssl_free_session(session);
        return;
    }

    s->session = session;
    s->len = key->len;
    ngx_memcpy(s->key, key->data, key->len);

    ngx_queue_insert_head(&sessions->queue, &s->queue);
    sessions->count++;
}


void
ngx_mail_policy_tls_sessions_forget(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_str_t *key)
{
    ngx_mail_policy_tls_session_t  *s;

    s = ngx_mail_policy_tls_sessions_find(sessions, key);

    if (s) {
        ngx_mail_policy_tls_session_free(sessions, s);
    }
}


/* the one that is found comes to the front */

static ngx_mail_policy_tls_session_t *
ngx_mail_policy_tls_sessions_find(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_str_t *key)
{
    ngx_queue_t                    *q;
    ngx_mail_policy_tls_session_t  *s;

    for (q = ngx_queue_head(&sessions->queue);
         q != ngx_queue_sentinel(&sessions->queue);
         q = ngx_queue_next(q))
    {
        s = ngx_queue_data(q, ngx_mail_policy_tls_session_t, queue);

        if (s->len == key->len
            && ngx_memcmp(s->key, key->data, key->len) == 0)
        {
            ngx_queue_remove(q);
            ngx_queue_insert_head(&sessions->queue, q);
            return s;
        }
    }

    return NULL;
}


static void
ngx_mail_policy_tls_session_free(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_mail_policy_tls_session_t *s)
{
    ngx_queue_remove(&s->queue);
    sessions->count--;

    ngx_ssl_free_session(s->session);
    ngx_free(s);
}
