
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Connections to Redis, and requests on them.
 *
 * A request belongs to the connection from push() on: it is freed by it,
 * when it was answered or when the connection is lost.  Its owner is told
 * once, by done(), and forgotten ("data" becomes NULL) when
 *
 *   - the request's handler passes the answer on,
 *   - the connection is lost, or found slow: no answer, NGX_ERROR.
 *
 * An owner that wants to hear nothing any more sets data to NULL itself.
 * done() must not call back into the connection other than to push.
 */


#ifndef NGX_MAIL_POLICY_REDIS_H
#define NGX_MAIL_POLICY_REDIS_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_redis_reply.h"
#include "ngx_mail_policy_store.h"


#define NGX_MAIL_POLICY_REDIS_WARNED  64


typedef struct ngx_mail_policy_redis_conn_s     ngx_mail_policy_redis_conn_t;
typedef struct ngx_mail_policy_redis_request_s
    ngx_mail_policy_redis_request_t;

/*
 * NGX_OK: done with it; NGX_AGAIN: send it again, argv was changed;
 * NGX_ERROR: this is no answer to that question, close the connection
 */
typedef ngx_int_t (*ngx_mail_policy_redis_answer_pt)(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
typedef void (*ngx_mail_policy_redis_done_pt)(void *data, ngx_int_t rc);


struct ngx_mail_policy_redis_request_s {
    ngx_queue_t                       queue;    /* a connection's FIFO */
    ngx_pool_t                       *pool;
    ngx_mail_policy_redis_conn_t     *conn;

    ngx_str_t                        *argv;
    ngx_uint_t                        argc;

    ngx_mail_policy_redis_answer_pt   handler;
    void                             *ctx;      /* the handler's */

    ngx_mail_policy_redis_done_pt     done;
    void                             *data;     /* the owner; NULL: none */
    unsigned                          writes:1; /* a replica refuses it */
};


typedef enum {
    NGX_MAIL_POLICY_REDIS_DOWN = 0,
    NGX_MAIL_POLICY_REDIS_CONNECTING,
    NGX_MAIL_POLICY_REDIS_GREETING,
    NGX_MAIL_POLICY_REDIS_UP,
    NGX_MAIL_POLICY_REDIS_SLOW
} ngx_mail_policy_redis_state_e;


struct ngx_mail_policy_redis_conn_s {
    ngx_mail_policy_redis_t         *redis;
    ngx_peer_connection_t            peer;
    ngx_event_t                      timer;
    ngx_mail_policy_redis_state_e    state;

    ngx_mail_policy_redis_reader_t  *reader;
    ngx_queue_t                      requests;  /* sent, not yet answered */

    u_char                          *out;       /* to be sent: pos .. last */
    u_char                          *pos;
    u_char                          *last;
    u_char                          *end;

    ngx_msec_t                       backoff;
    ngx_msec_t                       pinged;    /* when */
    ngx_uint_t                       naddr;     /* the address used last */
    u_char                           why[128];  /* NUL-terminated */
};


/* limits of which bad entries were told, by name */
typedef struct {
    uint32_t                         hash;
    time_t                           when;
} ngx_mail_policy_redis_warned_t;


struct ngx_mail_policy_redis_s {
    /* configuration */

    ngx_str_t                        name;      /* without the password */
    ngx_str_t                        user;
    ngx_str_t                        password;
    ngx_uint_t                       db;
    ngx_addr_t                      *addrs;
    ngx_uint_t                       naddrs;

    ngx_str_t                        prefix;
    ngx_msec_t                       timeout;
    ngx_uint_t                       nconns;
    const char                      *meanwhile; /* what happens while away */

    /* a worker's */

    ngx_mail_policy_redis_conn_t    *conns;     /* NULL: not a worker */
    ngx_uint_t                       nup;
    ngx_uint_t                       next;
    ngx_log_t                        log;
    time_t                           complained; /* errors, in the log */
    ngx_mail_policy_redis_warned_t   warned[NGX_MAIL_POLICY_REDIS_WARNED];
    time_t                           counted;   /* "lost", in the log */
    ngx_uint_t                       lost;      /* charges not given back */
    ngx_msec_t                       hurry;     /* since when; 0: not */
    unsigned                         away:1;    /* and the log says so */
    unsigned                         doubtful:1; /* greets, but refuses */
    unsigned                         closing:1; /* no new connections */
};


ngx_int_t ngx_mail_policy_redis_init_process(ngx_mail_policy_redis_t *redis,
    ngx_cycle_t *cycle);
void ngx_mail_policy_redis_exit_process(ngx_mail_policy_redis_t *redis);

/* a connection that is up, or NULL: the store is away */
ngx_mail_policy_redis_conn_t *ngx_mail_policy_redis_get(
    ngx_mail_policy_redis_t *redis);

/* 1 if an answer is still to come, whether anybody waits for it or not */
ngx_uint_t ngx_mail_policy_redis_busy(ngx_mail_policy_redis_t *redis);

/* its requests get no answer in time; calls their done() */
void ngx_mail_policy_redis_slow(ngx_mail_policy_redis_conn_t *conn);

/* AUTH, SELECT, PING on a new connection; up() follows, or it is closed */
ngx_int_t ngx_mail_policy_redis_greet(ngx_mail_policy_redis_conn_t *conn);
ngx_int_t ngx_mail_policy_redis_ping(ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_up(ngx_mail_policy_redis_conn_t *conn);

/* argv is to be filled: argc of them */
ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_request(
    ngx_uint_t argc, ngx_mail_policy_redis_answer_pt handler);
void ngx_mail_policy_redis_request_free(
    ngx_mail_policy_redis_request_t *request);

/* NGX_ERROR: too much waits to be sent, the request is still the caller's */
ngx_int_t ngx_mail_policy_redis_push(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request);

/* sends what is waiting: NGX_OK, NGX_AGAIN, or NGX_ERROR */
ngx_int_t ngx_mail_policy_redis_flush(ngx_mail_policy_redis_conn_t *conn);

/* drops and wipes it */
void ngx_mail_policy_redis_discard(ngx_mail_policy_redis_conn_t *conn);


/*
 * The questions.  NGX_OK: done(data, rc) will be called, unless
 * (*request)->data is set to NULL before; NGX_DECLINED: the store is away.
 */

/*
 * rc: NGX_OK, NGX_DECLINED, NGX_ERROR (no answer), with the decisions and
 * *at written before done() is called
 */
ngx_int_t ngx_mail_policy_redis_charge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_ask_t *ask, ngx_mail_policy_redis_done_pt done);
void ngx_mail_policy_redis_give_back(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t at);

/* rc: NGX_OK with lookup->values, NGX_ERROR */
ngx_int_t ngx_mail_policy_redis_lookup(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_done_pt done);


/* the code of an error, "NOSCRIPT" */
ngx_uint_t ngx_mail_policy_redis_is_error(
    ngx_mail_policy_redis_reply_t *reply, const char *code);

/* makes the SHA1 of the scripts */
void ngx_mail_policy_redis_scripts_init(void);


#endif /* NGX_MAIL_POLICY_REDIS_H */
