
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Dovecot's authentication service, as its clients use it: one connection of
 * a worker to a socket, for all requests at a time.
 *
 *     request -> prepare -> begin -> handler(OK | FAIL | LOST | NONE)
 *                 |             \-> handler(CONT) -> proceed -> handler ...
 *                 \-> cancel, in any state
 *
 * The connection is made when the first request needs it.  After some seconds
 * it is closed as soon as nobody waits; and if somebody always does, new
 * requests go to a new one.  A Dovecot that is to restart, or has a new
 * configuration, leaves it to its clients to go.
 *
 * After cancel() the handler is not called; what Dovecot says to that request
 * is passed over.  The handler may be called from within begin() and
 * proceed(): it is the last that they do.
 */


#ifndef NGX_MAIL_POLICY_DOVECOT_H
#define NGX_MAIL_POLICY_DOVECOT_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_auth.h"
#include "mpol_dovecot.h"


/* what Dovecot reads as one line; a longer one ends the connection */
#define NGX_MAIL_POLICY_DOVECOT_LINE     16384

/* the first pause after a connection could not be made */
#define NGX_MAIL_POLICY_DOVECOT_BACKOFF  100


typedef struct ngx_mail_policy_dovecot_s  ngx_mail_policy_dovecot_t;

typedef struct ngx_mail_policy_dovecot_request_s
    ngx_mail_policy_dovecot_request_t;


/* of a worker: a connection for new requests, and those that end */
typedef struct {
    ngx_mail_policy_dovecot_t        *current;
    ngx_queue_t                       leaving;
} ngx_mail_policy_dovecot_service_t;


typedef enum {
    NGX_MAIL_POLICY_DOVECOT_OK = 0,
    NGX_MAIL_POLICY_DOVECOT_FAIL,
    NGX_MAIL_POLICY_DOVECOT_CONT,
    NGX_MAIL_POLICY_DOVECOT_LOST,       /* there is no answer */
    NGX_MAIL_POLICY_DOVECOT_NONE        /* it has no such mechanism */
} ngx_mail_policy_dovecot_answer_e;


/*
 * args: of OK, FAIL and CONT, see mpol_dovecot.h; gone when the handler
 * returns.  But for CONT the request is over.
 */
typedef void (*ngx_mail_policy_dovecot_pt)(void *data,
    ngx_mail_policy_dovecot_answer_e answer, mpol_str_t *args);


typedef enum {
    NGX_MAIL_POLICY_DOVECOT_DOWN = 0,
    NGX_MAIL_POLICY_DOVECOT_CONNECTING,
    NGX_MAIL_POLICY_DOVECOT_GREETING,
    NGX_MAIL_POLICY_DOVECOT_UP
} ngx_mail_policy_dovecot_state_e;


struct ngx_mail_policy_dovecot_s {
    ngx_mail_policy_dovecot_service_t  *service;
    ngx_queue_t                       queue;    /* in service->leaving */

    ngx_str_t                         name;     /* "unix:/path" */
    struct sockaddr                  *sockaddr;
    socklen_t                         socklen;

    ngx_mail_policy_dovecot_state_e   state;
    ngx_peer_connection_t             peer;
    ngx_log_t                         log;
    ngx_event_t                       timer;    /* until it is UP, then
                                                   until it is old */
    ngx_msec_t                        backoff;
    ngx_msec_t                        retry;    /* if refused, not before */
    ngx_msec_t                        heard;

    ngx_uint_t                        methods;  /* that it has */

    ngx_rbtree_t                      requests; /* by id */
    ngx_rbtree_node_t                 sentinel;
    ngx_uint_t                        nrequests;
    uint32_t                          first;    /* id of this connection */
    uint32_t                          last;

    u_char                           *in;       /* MPOL_DOVECOT_LINE */
    size_t                            len;

    u_char                           *out;
    u_char                           *out_pos;
    u_char                           *out_last;
    u_char                           *out_end;

    unsigned                          version:1;  /* was heard, and is ours */
    unsigned                          refused:1;
    unsigned                          away:1;     /* and the log says so */
    unsigned                          old:1;      /* closed when idle */
    unsigned                          allocated:1;
};


struct ngx_mail_policy_dovecot_request_s {
    ngx_rbtree_node_t                 node;     /* must be first; key: id */
    ngx_mail_policy_dovecot_t        *dovecot;
    ngx_pool_t                       *pool;

    ngx_uint_t                        method;   /* of Dovecot's: one bit */
    ngx_str_t                         line;     /* until it is UP; wiped */

    ngx_msec_t                        since;
    ngx_event_t                       timer;

    ngx_mail_policy_dovecot_pt        handler;
    void                             *data;

    unsigned                          listed:1;   /* in dovecot->requests */
    unsigned                          waiting:1;  /* it is Dovecot's turn */
};


/* path: "unix:/path"; NULL on error, logged */
ngx_mail_policy_dovecot_service_t *ngx_mail_policy_dovecot_create(
    ngx_conf_t *cf, ngx_str_t *path);

/* the worker exits */
void ngx_mail_policy_dovecot_exit(ngx_mail_policy_dovecot_service_t *service);


/*
 * On the pool, and gone with it: it is cancelled then.  method: one bit, of
 * mechanism that Dovecot is to use.  NULL: no memory.
 */
ngx_mail_policy_dovecot_request_t *ngx_mail_policy_dovecot_request(
    ngx_mail_policy_dovecot_service_t *service, ngx_pool_t *pool,
    ngx_uint_t method, ngx_mail_policy_dovecot_pt handler, void *data);

/*
 * params: escaped, each with HTAB in front; message: NULL if there is none.
 * Neither is needed afterwards.  NGX_ERROR: too long, or no memory.
 */
ngx_int_t ngx_mail_policy_dovecot_prepare(
    ngx_mail_policy_dovecot_request_t *request, ngx_str_t *params,
    ngx_str_t *message);

void ngx_mail_policy_dovecot_begin(
    ngx_mail_policy_dovecot_request_t *request);
void ngx_mail_policy_dovecot_proceed(
    ngx_mail_policy_dovecot_request_t *request, ngx_str_t *message);
void ngx_mail_policy_dovecot_cancel(
    ngx_mail_policy_dovecot_request_t *request);


/* between the connection and its requests */

/* the one for a new request */
ngx_mail_policy_dovecot_t *ngx_mail_policy_dovecot_current(
    ngx_mail_policy_dovecot_service_t *service);

/* NGX_ERROR: it cannot be had, and all requests have been told */
ngx_int_t ngx_mail_policy_dovecot_connect(ngx_mail_policy_dovecot_t *dovecot);

/* the end of the connection; err, why: for the log */
void ngx_mail_policy_dovecot_down(ngx_mail_policy_dovecot_t *dovecot,
    ngx_err_t err, const char *why);

/* no more than that; and, for one that is closed and not current, its memory */
void ngx_mail_policy_dovecot_close(ngx_mail_policy_dovecot_t *dovecot);
void ngx_mail_policy_dovecot_free(ngx_mail_policy_dovecot_t *dovecot);

/* a line to write, NGX_ERROR: no room */
ngx_int_t ngx_mail_policy_dovecot_push(ngx_mail_policy_dovecot_t *dovecot,
    u_char *line, size_t len);

/* NGX_AGAIN, NGX_ERROR: of the socket */
ngx_int_t ngx_mail_policy_dovecot_flush(ngx_mail_policy_dovecot_t *dovecot);
void ngx_mail_policy_dovecot_discard(ngx_mail_policy_dovecot_t *dovecot);

/* a new connection: the ids that it will be asked with begin here */
void ngx_mail_policy_dovecot_number(ngx_mail_policy_dovecot_t *dovecot);

/* it is UP: what was held back is sent */
void ngx_mail_policy_dovecot_release(ngx_mail_policy_dovecot_t *dovecot);

/* OK, FAIL, CONT: NGX_ERROR if that cannot be an answer to us */
ngx_int_t ngx_mail_policy_dovecot_answer(ngx_mail_policy_dovecot_t *dovecot,
    mpol_dovecot_line_t *line);

/* there will be no answers; how many were waiting for one */
ngx_uint_t ngx_mail_policy_dovecot_abandon(ngx_mail_policy_dovecot_t *dovecot);


#endif /* NGX_MAIL_POLICY_DOVECOT_H */
