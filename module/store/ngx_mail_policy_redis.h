
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
 * done() must not call back into the connection other than to push or send.
 *
 * In a cluster a request has a slot, that of its keys, and may be sent again,
 * to another node: the connection that it is on changes, and is none while
 * it waits for that.
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
#define NGX_MAIL_POLICY_REDIS_ERRORS  18


typedef struct ngx_mail_policy_redis_node_s     ngx_mail_policy_redis_node_t;
typedef struct ngx_mail_policy_redis_conn_s     ngx_mail_policy_redis_conn_t;
typedef struct ngx_mail_policy_redis_request_s
    ngx_mail_policy_redis_request_t;

/*
 * NGX_OK: done with it; NGX_AGAIN: send it again, argv was changed;
 * NGX_DONE: so is the scout, until something is amiss;
 * NGX_ERROR: this is no answer to that question, close the connection
 */
typedef ngx_int_t (*ngx_mail_policy_redis_answer_pt)(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
typedef void (*ngx_mail_policy_redis_done_pt)(void *data, ngx_int_t rc);


struct ngx_mail_policy_redis_request_s {
    ngx_queue_t                       queue;    /* a connection's FIFO, or
                                                   those to be sent again */
    ngx_pool_t                       *pool;
    ngx_mail_policy_redis_conn_t     *conn;     /* NULL: to be sent again */
    ngx_uint_t                        slot;

    ngx_str_t                        *argv;
    ngx_uint_t                        argc;

    ngx_mail_policy_redis_answer_pt   handler;
    void                             *ctx;      /* the handler's */
    void                             *script;   /* it calls, or NULL */

    ngx_mail_policy_redis_done_pt     done;     /* NULL: nobody ever waits */
    void                             *data;     /* the owner; NULL: none */
    unsigned                          writes:1; /* a replica refuses it */

    /* the connection's own */

    uint64_t                          begun;    /* the first time it was sent,
                                                   of what has an owner */
    ngx_mail_policy_redis_node_t     *asked;    /* ASK: by whom, else NULL */
    ngx_msec_t                        due;
    unsigned                          again:1;  /* TRYAGAIN, not before due */
    unsigned                          redirected:3;
    unsigned                          tries:8;
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
    ngx_mail_policy_redis_node_t    *node;
    ngx_peer_connection_t            peer;
    ngx_event_t                      timer;
    ngx_mail_policy_redis_state_e    state;

    ngx_uint_t                       loaded;    /* scripts sent on it */
    ngx_mail_policy_redis_reader_t  *reader;
    ngx_queue_t                      requests;  /* sent, not yet answered */

    u_char                          *out;       /* to be sent: pos .. last */
    u_char                          *pos;
    u_char                          *last;
    u_char                          *end;

    ngx_log_t                        log;
    ngx_log_t                        quiet;     /* while it is made */
    ngx_msec_t                       backoff;
    ngx_msec_t                       pinged;    /* when */
    ngx_uint_t                       naddr;     /* the address used next */
    u_char                           why[128];  /* NUL-terminated */
    unsigned                         waiting:1; /* for a Sentinel's word */
};


/* limits of which bad entries were told, by name */
typedef struct {
    uint32_t                         hash;
    time_t                           when;
} ngx_mail_policy_redis_warned_t;


typedef struct {
    struct sockaddr                 *sockaddr;
    socklen_t                        socklen;
    ngx_str_t                        name;
    ngx_str_t                        host;      /* as the URL has it */
} ngx_mail_policy_redis_addr_t;


struct ngx_mail_policy_redis_s {
    /* configuration */

    ngx_str_t                        name;      /* without the password */
    ngx_str_t                        user;
    ngx_str_t                        password;
    ngx_uint_t                       db;
    ngx_uint_t                       db_set;    /* 0 is a number, too */
    ngx_array_t                      addrs;     /* of all URLs */

    ngx_str_t                        prefix;
    ngx_msec_t                       timeout;
    ngx_uint_t                       nconns;    /* to each node */
    ngx_str_t                        sentinel;  /* name of the master */
    const char                      *meanwhile; /* what happens while away */

    ngx_ssl_t                       *ssl;       /* NULL: no TLS */
    ngx_flag_t                       ssl_verify;
    ngx_str_t                        ssl_trusted;
    ngx_str_t                        ssl_name;
    ngx_str_t                        host;      /* of the first URL */

    /* a worker's */

    ngx_queue_t                      nodes;
    ngx_uint_t                       nnodes;
    ngx_mail_policy_redis_node_t   **slots;     /* cluster: who has which */
    ngx_mail_policy_redis_node_t    *scout;     /* NULL: nothing to find */
    ngx_uint_t                       tried;     /* by it, in this round */
    ngx_msec_t                       scouted;   /* when it found out */
    ngx_msec_t                       mapped;
    ngx_uint_t                       uncovered; /* slots that nobody has */
    uint64_t                         epoch;     /* of the cluster's map */

    ngx_queue_t                      parked;    /* requests, to be sent again */
    ngx_uint_t                       nparked;
    ngx_event_t                      retry;
    ngx_event_t                      sweep;     /* frees nodes that are gone */

    ngx_log_t                        log;
    time_t                           complained[NGX_MAIL_POLICY_REDIS_ERRORS];
    ngx_mail_policy_redis_warned_t   warned[NGX_MAIL_POLICY_REDIS_WARNED];
    time_t                           counted;   /* "lost", in the log */
    ngx_uint_t                       lost;      /* charges not given back */
    ngx_msec_t                       hurry;     /* since when; 0: not */
    unsigned                         tls:1;     /* rediss:// */
    unsigned                         cluster:1;
    ngx_msec_t                       begun;
    unsigned                         heard:1;   /* of a server: up, or away */
    unsigned                         counted_up:1;  /* as what is shown */
    unsigned                         running:1; /* in a worker */
};


ngx_int_t ngx_mail_policy_redis_init_process(ngx_mail_policy_redis_t *redis,
    ngx_cycle_t *cycle);
void ngx_mail_policy_redis_exit_process(ngx_mail_policy_redis_t *redis);

/* the slot of a key, the prefix included; 0 where there are none */
ngx_uint_t ngx_mail_policy_redis_slot(ngx_mail_policy_redis_t *redis,
    ngx_str_t *key);

/* a connection that is up for that slot, or NULL: its server is away */
ngx_mail_policy_redis_conn_t *ngx_mail_policy_redis_get(
    ngx_mail_policy_redis_t *redis, ngx_uint_t slot);

/*
 * To the server of request->slot.  NGX_OK: the connection's now;
 * NGX_DECLINED: it is away, the request is still the caller's.
 */
ngx_int_t ngx_mail_policy_redis_send(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request);

/* no answer in time: calls done(), the server is found slow */
void ngx_mail_policy_redis_timedout(ngx_mail_policy_redis_request_t *request);

/*
 * 1 in a worker that has just begun, and has not heard of any server yet:
 * whoever asks had better wait for a moment.
 */
ngx_uint_t ngx_mail_policy_redis_starting(ngx_mail_policy_redis_t *redis);

/* 1 if any connection is up */
ngx_uint_t ngx_mail_policy_redis_there(ngx_mail_policy_redis_t *redis);

/* 1 if an answer is still to come, whether anybody waits for it or not */
ngx_uint_t ngx_mail_policy_redis_busy(ngx_mail_policy_redis_t *redis);

/* its requests get no answer in time; calls their done() */
void ngx_mail_policy_redis_slow(ngx_mail_policy_redis_conn_t *conn);

/* argv is to be filled: argc of them */
ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_request(
    ngx_uint_t argc, ngx_mail_policy_redis_answer_pt handler);
void ngx_mail_policy_redis_request_free(
    ngx_mail_policy_redis_request_t *request);

/* NGX_ERROR: too much waits to be sent, the request is still the caller's */
ngx_int_t ngx_mail_policy_redis_push(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request);


/*
 * A record.  NGX_OK: done(lookup, rc) will be called, unless
 * lookup->request->data is set to NULL before; NGX_DECLINED: the store is
 * away.
 */

/* rc: NGX_OK with lookup->values, NGX_ERROR */
ngx_int_t ngx_mail_policy_redis_lookup(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_done_pt done);


/* the code of an error, "NOSCRIPT" */
ngx_uint_t ngx_mail_policy_redis_is_error(
    ngx_mail_policy_redis_reply_t *reply, const char *code);

/* makes the SHA1 of the scripts */
void ngx_mail_policy_redis_scripts_init(void);


#endif /* NGX_MAIL_POLICY_REDIS_H */
