
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of a worker's connections to Redis share.
 *
 * A node is a server and the connections to it: the one server of
 * policy_redis, or the master that Sentinels name, or a master of a cluster.
 * One more node is the scout: a single connection that asks the Sentinels, or
 * the nodes of the cluster, who has what.
 *
 *     redis     nodes: made, chosen, away and back, freed
 *     conn      one connection: its states, its events, its only timer
 *     greet     what is said before it is UP
 *     request   what is written on it
 *     answer    what comes back, and what an error means
 *     resend    what a cluster wants elsewhere, or later
 *     scout     rounds through all that may know
 *     sentinel, cluster    what is asked of them, and what follows from it
 *     ssl       the handshake
 */


#ifndef NGX_MAIL_POLICY_REDIS_NODE_H
#define NGX_MAIL_POLICY_REDIS_NODE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_redis.h"


#define NGX_MAIL_POLICY_REDIS_BACKOFF  100

/* what an answer of ours has at most, and the map of a cluster */
#define NGX_MAIL_POLICY_REDIS_ANSWER   65536
#define NGX_MAIL_POLICY_REDIS_MAP      (512 * 1024)


struct ngx_mail_policy_redis_node_s {
    ngx_queue_t                      queue;     /* redis->nodes */
    ngx_mail_policy_redis_t         *redis;
    ngx_str_t                        name;      /* for the log */

    ngx_mail_policy_redis_addr_t    *addrs;     /* NULL: not known yet */
    ngx_uint_t                       naddrs;

    ngx_mail_policy_redis_conn_t    *conns;
    ngx_uint_t                       nconns;
    ngx_uint_t                       nup;
    ngx_uint_t                       next;

    /* of an address that was found, not configured */

    ngx_mail_policy_redis_addr_t     addr;
    ngx_sockaddr_t                   sockaddr;
    u_char                           text[sizeof("rediss://") - 1
                                          + NGX_SOCKADDR_STRLEN];

    unsigned                         away:1;    /* and the log says so */
    unsigned                         vague:1;   /* but not why */
    unsigned                         doubtful:1; /* greets, but refuses */
    unsigned                         scout:1;
    unsigned                         listed:1;  /* in the map that is read */
    unsigned                         gone:1;    /* not in the map: no new
                                                   requests, freed when idle */
};


/* nodes */

ngx_mail_policy_redis_node_t *ngx_mail_policy_redis_node_create(
    ngx_mail_policy_redis_t *redis, ngx_uint_t nconns);
void ngx_mail_policy_redis_node_set(ngx_mail_policy_redis_node_t *node,
    struct sockaddr *sockaddr, socklen_t socklen);
/* one that is up, or NULL */
ngx_mail_policy_redis_conn_t *ngx_mail_policy_redis_node_conn(
    ngx_mail_policy_redis_node_t *node);
void ngx_mail_policy_redis_away(ngx_mail_policy_redis_node_t *node,
    ngx_err_t err, const char *why);
void ngx_mail_policy_redis_back(ngx_mail_policy_redis_node_t *node);
/* whether any is up may have changed: the gauge */
void ngx_mail_policy_redis_show(ngx_mail_policy_redis_t *redis);
/* "10.0.0.1" or "2001:db8::1", and a port: NGX_OK, NGX_DECLINED */
ngx_int_t ngx_mail_policy_redis_sockaddr(ngx_sockaddr_t *sockaddr,
    socklen_t *socklen, u_char *p, size_t len, in_port_t port);


/* connections */

void ngx_mail_policy_redis_connect(ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_read_handler(ngx_event_t *rev);
void ngx_mail_policy_redis_write_handler(ngx_event_t *wev);
void ngx_mail_policy_redis_timer_handler(ngx_event_t *ev);
/* it can be talked on: NGX_OK, or it is gone */
ngx_int_t ngx_mail_policy_redis_made(ngx_mail_policy_redis_conn_t *conn);
ngx_msec_t ngx_mail_policy_redis_patience(ngx_mail_policy_redis_conn_t *conn);
/* all said, nothing refused */
void ngx_mail_policy_redis_up(ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_suspect(ngx_mail_policy_redis_conn_t *conn);
/* it ends; it is made anew later */
void ngx_mail_policy_redis_down(ngx_mail_policy_redis_conn_t *conn,
    ngx_err_t err, const char *why);
/* it ends, and that is all; then its requests */
void ngx_mail_policy_redis_close(ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_abandon(ngx_mail_policy_redis_conn_t *conn);
/* keeps a text for the log */
void ngx_mail_policy_redis_why(ngx_mail_policy_redis_conn_t *conn,
    ngx_str_t *text);


/* AUTH, SELECT, PING on a new connection; up() follows, or it is closed */

ngx_int_t ngx_mail_policy_redis_greet(ngx_mail_policy_redis_conn_t *conn);
ngx_int_t ngx_mail_policy_redis_ping(ngx_mail_policy_redis_conn_t *conn);
/* a request without an owner; argv is not needed when it returns */
ngx_int_t ngx_mail_policy_redis_command(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t argc,
    ngx_str_t *argv);


/* requests */

/* sends what is waiting: NGX_OK, NGX_AGAIN, or NGX_ERROR */
ngx_int_t ngx_mail_policy_redis_flush(ngx_mail_policy_redis_conn_t *conn);
/* drops and wipes it */
void ngx_mail_policy_redis_discard(ngx_mail_policy_redis_conn_t *conn);
/* tells the owner that there will be no answer */
void ngx_mail_policy_redis_orphan(ngx_mail_policy_redis_request_t *request);


/* answers */

/* all that were read; NGX_ERROR: the connection is gone */
ngx_int_t ngx_mail_policy_redis_answers(ngx_mail_policy_redis_conn_t *conn);


/* requests that are sent again */

void ngx_mail_policy_redis_resend(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request);
void ngx_mail_policy_redis_unpark(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request);
void ngx_mail_policy_redis_retry(ngx_mail_policy_redis_t *redis);
void ngx_mail_policy_redis_retry_handler(ngx_event_t *ev);
ngx_int_t ngx_mail_policy_redis_repeat(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request);


/* who has what */

ngx_int_t ngx_mail_policy_redis_scout_init(ngx_mail_policy_redis_t *redis);
/* finds out, soon, if there is anything to find */
void ngx_mail_policy_redis_scout(ngx_mail_policy_redis_t *redis);
void ngx_mail_policy_redis_scout_connect(ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_scout_down(ngx_mail_policy_redis_conn_t *conn,
    ngx_err_t err, const char *why);
/* NGX_OK; NGX_ERROR: the connection is closed */
ngx_int_t ngx_mail_policy_redis_scout_done(
    ngx_mail_policy_redis_conn_t *conn);
void ngx_mail_policy_redis_scout_again(ngx_mail_policy_redis_conn_t *conn);

ngx_int_t ngx_mail_policy_redis_sentinel_ask(
    ngx_mail_policy_redis_conn_t *conn);
ngx_int_t ngx_mail_policy_redis_role(ngx_mail_policy_redis_conn_t *conn);

ngx_int_t ngx_mail_policy_redis_cluster_ask(
    ngx_mail_policy_redis_conn_t *conn);
/* MOVED, ASK; NGX_OK: the request is on its way; NGX_DECLINED: an answer */
ngx_int_t ngx_mail_policy_redis_redirect(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request, ngx_str_t *text,
    ngx_uint_t ask);
void ngx_mail_policy_redis_sweep_handler(ngx_event_t *ev);
void ngx_mail_policy_redis_sweep(ngx_mail_policy_redis_t *redis);


/* TLS */

/* NGX_OK: shaking hands; NGX_ERROR: the connection is gone */
ngx_int_t ngx_mail_policy_redis_ssl_connect(
    ngx_mail_policy_redis_conn_t *conn);
#define ngx_mail_policy_redis_handshaking(conn)                              \
    ((conn)->state == NGX_MAIL_POLICY_REDIS_CONNECTING                       \
     && (conn)->peer.connection->ssl)
void ngx_mail_policy_redis_ssl_close(ngx_connection_t *c);
/* a log's: keeps the reason, as nginx logs it */
void ngx_mail_policy_redis_ssl_writer(ngx_log_t *log, ngx_uint_t level,
    u_char *buf, size_t len);


#endif /* NGX_MAIL_POLICY_REDIS_NODE_H */
