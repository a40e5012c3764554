
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Requests to an HTTP service that has a say in logins, and the connections
 * they go over.
 *
 * One request is one answer: its head, which the handler sees; a body is of
 * no interest.  A connection that can be used again is kept, by the worker,
 * for any request to the same service with the same TLS settings.  One that
 * turns out to be closed before it said anything is made anew, once.
 *
 * All addresses of a service are tried, beginning with the one that was
 * reached last; each has its part of the time that is left.  Once a
 * connection is made, and on it anything was said, its failure is the
 * request's.
 */


#ifndef NGX_MAIL_POLICY_HTTP_H
#define NGX_MAIL_POLICY_HTTP_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_auth_http.h"


typedef struct ngx_mail_policy_http_s       ngx_mail_policy_http_t;
typedef struct ngx_mail_policy_http_conn_s  ngx_mail_policy_http_conn_t;


typedef struct {
    ngx_addr_t                    *addrs;
    ngx_uint_t                     naddrs;
    ngx_str_t                      name;        /* of its host, as in the URL;
                                                   NUL-terminated */

    /* each worker's own */

    ngx_uint_t                     current;     /* address */
    ngx_queue_t                    kept;        /* connections */
    ngx_uint_t                     nkept;
} ngx_mail_policy_http_service_t;


/* how TLS is spoken; two with the same ssl are the same */
typedef struct {
    ngx_ssl_t                     *ssl;
    ngx_str_t                      name;        /* instead of the service's
                                                   name; or empty */
    ngx_uint_t                     verify;
} ngx_mail_policy_http_tls_t;


/*
 * rc: NGX_OK, with head and buf; NGX_ERROR, logged.  The request is over, and
 * without connection.  The handler is to call ..._wipe(), when it has what it
 * needs; what it does then may free the pool.
 */
typedef void (*ngx_mail_policy_http_pt)(ngx_mail_policy_http_t *http,
    ngx_int_t rc);


struct ngx_mail_policy_http_s {
    ngx_mail_policy_http_service_t  *service;
    ngx_mail_policy_http_tls_t      *tls;       /* NULL: none */
    ngx_str_t                        request;   /* all of it; wiped */
    ngx_msec_t                       timeout;   /* of the whole */

    ngx_pool_t                      *pool;
    ngx_log_t                       *log;
    ngx_mail_policy_http_pt          handler;
    void                            *data;

    /* the answer */

    mpol_auth_http_t                 head;
    u_char                          *buf;       /* what was received */
    size_t                           len;

    /* its own */

    ngx_mail_policy_http_conn_t     *conn;
    ngx_msec_t                       deadline;
    ngx_event_t                      timer;
    ngx_uint_t                       address;   /* the present one */
    ngx_uint_t                       tried;     /* addresses */
};


/*
 * A request, to be filled from service to data, and sent.  It lies on the
 * pool, and the pool has to be there until the handler is called, which
 * send() never does; or until cancel().  NGX_ERROR: no address can be
 * reached, logged; the request is over and wiped.
 */
ngx_mail_policy_http_t *ngx_mail_policy_http_create(ngx_pool_t *pool);
ngx_int_t ngx_mail_policy_http_send(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_cancel(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_wipe(ngx_mail_policy_http_t *http);

/* the address that the request went to last, for messages */
ngx_str_t *ngx_mail_policy_http_address(ngx_mail_policy_http_t *http);

/* no connection is kept any more: the worker exits */
void ngx_mail_policy_http_close_kept(ngx_mail_policy_http_service_t *service);

/* a context for TLS to services; NULL: error, logged */
ngx_ssl_t *ngx_mail_policy_http_ssl(ngx_conf_t *cf, ngx_uint_t verify,
    ngx_str_t *trusted);


/* among the files of it */


typedef enum {
    NGX_MAIL_POLICY_HTTP_CONNECTING = 0,
    NGX_MAIL_POLICY_HTTP_TALKING,
    NGX_MAIL_POLICY_HTTP_KEPT
} ngx_mail_policy_http_state_e;


struct ngx_mail_policy_http_conn_s {
    ngx_peer_connection_t            peer;
    ngx_mail_policy_http_service_t  *service;
    ngx_mail_policy_http_state_e     state;
    ngx_mail_policy_http_t          *http;      /* NULL: it is kept */
    ngx_ssl_t                       *ssl;       /* NULL: no TLS */
    ngx_uint_t                       address;   /* which of the service's */
    size_t                           sent;      /* of the request */

    ngx_queue_t                      queue;     /* service's, while kept */
    ngx_event_t                      timer;     /* the same */
    uint64_t                         left;      /* of the last body */

    unsigned                         reused:1;
};


/* one that is kept; NULL: there is none */
ngx_mail_policy_http_conn_t *ngx_mail_policy_http_conn_reuse(
    ngx_mail_policy_http_t *http);

/* a new one to the present address; NGX_OK: its events come */
ngx_int_t ngx_mail_policy_http_conn_open(ngx_mail_policy_http_t *http);

/* without request; left octets of its body are to come; it may be closed */
void ngx_mail_policy_http_conn_keep(ngx_mail_policy_http_conn_t *conn,
    uint64_t left);

void ngx_mail_policy_http_conn_close(ngx_mail_policy_http_conn_t *conn,
    ngx_uint_t polite);

/* 1 if a kept one with TLS has said nothing */
ngx_uint_t ngx_mail_policy_http_ssl_quiet(ngx_connection_t *c);

/* hands are shaken: ends in conn_made() or unmade() */
void ngx_mail_policy_http_ssl_connect(ngx_mail_policy_http_conn_t *conn);
void ngx_mail_policy_http_conn_made(ngx_mail_policy_http_conn_t *conn);

/* what connections say: it may be talked to; it cannot be made; events */
void ngx_mail_policy_http_made(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_unmade(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_read(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_write(ngx_mail_policy_http_t *http);
void ngx_mail_policy_http_failed(ngx_mail_policy_http_t *http, ngx_err_t err,
    const char *why);


#endif /* NGX_MAIL_POLICY_HTTP_H */
