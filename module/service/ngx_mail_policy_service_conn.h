
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of service/ share among themselves.
 *
 * A service has at most max connections in a worker, those that are kept
 * among them.  Questions wait in a queue until there is one for them; that is
 * looked at in an event of its own, which is posted whenever there may be.
 */


#ifndef NGX_MAIL_POLICY_SERVICE_CONN_H
#define NGX_MAIL_POLICY_SERVICE_CONN_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_service.h"
#include "mpol_attr.h"


/* octets of an answer */
#define NGX_MAIL_POLICY_SERVICE_ANSWER  8192


typedef struct ngx_mail_policy_service_conn_s  ngx_mail_policy_service_conn_t;


struct ngx_mail_policy_service_s {
    ngx_str_t                        name;      /* as it was written */
    ngx_addr_t                      *addrs;
    ngx_uint_t                       naddrs;
    ngx_uint_t                       max;       /* connections; 0: not said */

    /* each worker's own */

    ngx_uint_t                       counters;  /* the first of them */
    ngx_uint_t                       current;   /* address */
    ngx_queue_t                      kept;      /* connections */
    ngx_uint_t                       nconns;    /* all of them */

    ngx_queue_t                      waiting;   /* questions */
    ngx_event_t                      wake;

    ngx_event_t                      minute;    /* while it runs, failures are
                                                   counted and not told */
    ngx_uint_t                       failures;
};


typedef enum {
    NGX_MAIL_POLICY_SERVICE_CONNECTING = 0,
    NGX_MAIL_POLICY_SERVICE_TALKING,
    NGX_MAIL_POLICY_SERVICE_KEPT
} ngx_mail_policy_service_state_e;


struct ngx_mail_policy_service_conn_s {
    ngx_peer_connection_t            peer;
    ngx_mail_policy_service_t       *service;
    ngx_mail_policy_service_state_e  state;
    ngx_mail_policy_question_t      *question;  /* NULL: it is kept */
    ngx_msec_t                       born;

    ngx_queue_t                      queue;     /* service's, while kept */
    ngx_event_t                      timer;     /* the same */

    size_t                           sent;      /* of the request */
    u_char                          *in;        /* ..._SERVICE_ANSWER */
    size_t                           len;
    mpol_attr_t                      scan;

    unsigned                         reused:1;
};


typedef enum {
    NGX_MAIL_POLICY_QUESTION_IDLE = 0,          /* not sent, or over */
    NGX_MAIL_POLICY_QUESTION_WAITING,
    NGX_MAIL_POLICY_QUESTION_ASKING,            /* has a connection */
    NGX_MAIL_POLICY_QUESTION_PAUSED
} ngx_mail_policy_question_state_e;


struct ngx_mail_policy_question_s {
    ngx_mail_policy_service_t       *service;
    ngx_pool_t                      *pool;
    ngx_log_t                       *log;
    ngx_str_t                       *request;
    ngx_msec_t                       timeout;
    mpol_access_t                   *fallback;
    ngx_mail_policy_question_pt      handler;
    void                            *data;

    ngx_mail_policy_question_state_e  state;
    ngx_mail_policy_service_conn_t  *conn;
    ngx_queue_t                      queue;     /* service->waiting */
    ngx_event_t                      timer;
    ngx_msec_t                       deadline;
    uint64_t                         begun;     /* microseconds */
    ngx_uint_t                       address;
    ngx_uint_t                       tried;     /* addresses */
    ngx_err_t                        err;       /* of the last of them */
    mpol_access_t                    access;

    unsigned                         repeated:1;
};


/* there may be a connection for a question that waits */
void ngx_mail_policy_service_wake(ngx_mail_policy_service_t *service);

/*
 * In the log, once a minute, or counted: why is the verb and all behind it;
 * said, what it said, or NULL.
 */
void ngx_mail_policy_service_failure(ngx_mail_policy_service_t *service,
    ngx_log_t *log, ngx_err_t err, const char *why, ngx_str_t *said);


/* one that is kept; NULL: there is none */
ngx_mail_policy_service_conn_t *ngx_mail_policy_service_conn_reuse(
    ngx_mail_policy_question_t *question);

/* a new one to the present address; NGX_OK: its events come */
ngx_int_t ngx_mail_policy_service_conn_open(
    ngx_mail_policy_question_t *question);

/* without question; it may be closed */
void ngx_mail_policy_service_conn_keep(ngx_mail_policy_service_conn_t *conn);
void ngx_mail_policy_service_conn_close(
    ngx_mail_policy_service_conn_t *conn);


/* a connection may be had */
void ngx_mail_policy_question_begin(ngx_mail_policy_question_t *question);

/* what connections say: it may be talked to; it cannot be made; events */
void ngx_mail_policy_question_made(ngx_mail_policy_question_t *question);
void ngx_mail_policy_question_unmade(ngx_mail_policy_question_t *question,
    ngx_err_t err);
void ngx_mail_policy_question_read(ngx_mail_policy_question_t *question);
void ngx_mail_policy_question_write(ngx_mail_policy_question_t *question);

/* worker_shutdown_timeout */
void ngx_mail_policy_question_shutdown(ngx_mail_policy_question_t *question);


#endif /* NGX_MAIL_POLICY_SERVICE_CONN_H */
