
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What connections of ours to TLS servers have in common: whom the other side
 * has to be, sessions, the end.
 *
 * A host is a name or an address, NUL-terminated.  A name is told to the
 * server (SNI) and looked for in its certificate; an address is looked for
 * there only, among those that it names.
 *
 * Sessions are a worker's own, kept by a key that says whom they are with; a
 * table of them belongs to one ngx_ssl_t.
 */


#ifndef NGX_MAIL_POLICY_TLS_H
#define NGX_MAIL_POLICY_TLS_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


typedef struct ngx_mail_policy_tls_sessions_s  ngx_mail_policy_tls_sessions_t;


/* before the handshake; an address is not told.  NGX_OK or NGX_ERROR */
ngx_int_t ngx_mail_policy_tls_server_name(ngx_connection_t *c,
    ngx_str_t *host);

/* behind it: NGX_OK if the certificate is the host's, or NGX_ERROR */
ngx_int_t ngx_mail_policy_tls_check_host(ngx_connection_t *c,
    ngx_str_t *host);

/* 1 if it is an address, IPv4 or IPv6 without brackets */
ngx_uint_t ngx_mail_policy_tls_is_address(ngx_str_t *host);

/*
 * Frees c->ssl without waiting for the other side; polite: says goodbye to
 * it, if there is room
 */
void ngx_mail_policy_tls_close(ngx_connection_t *c, ngx_uint_t polite);


/* an empty table, freed with the pool; NULL: no memory */
ngx_mail_policy_tls_sessions_t *ngx_mail_policy_tls_sessions_create(
    ngx_pool_t *pool);

/* a session of c's is offered in the handshake to come, if there is one */
void ngx_mail_policy_tls_sessions_use(ngx_mail_policy_tls_sessions_t *sessions,
    ngx_connection_t *c, ngx_str_t *key);

/* keeps c's session as it is now, if it is any good; forgets that of the key */
void ngx_mail_policy_tls_sessions_keep(
    ngx_mail_policy_tls_sessions_t *sessions, ngx_connection_t *c,
    ngx_str_t *key);
void ngx_mail_policy_tls_sessions_forget(
    ngx_mail_policy_tls_sessions_t *sessions, ngx_str_t *key);


#endif /* NGX_MAIL_POLICY_TLS_H */
