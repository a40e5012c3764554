
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Envelope in, verdict out: the limits, for every front door.
 *
 * A check asks the store what its point costs, in one question:
 *
 *   connect   a connection, and a session, under each limit that counts them
 *             and whose key is known then
 *   login     the same where the key needs the login
 *   auth      a failed login, before the password is looked at
 *   greeting  nothing: it asks what is left
 *   mail      a message, its octets as they were declared, and the first
 *             recipient, under each limit whose key is known by then
 *   rcpt      a recipient under each limit, but where the first one is paid
 *             for; a message and its octets under each limit whose key needs
 *             the recipient, once for each key in a transaction
 *   end       the octets that were not declared
 *
 * A limit of whose key a variable is empty (null sender, no login) does not
 * apply, nor one whose "if=" is empty or 0.
 *
 * One whose key, "if=" or message has a lookup in it waits for that, and with
 * it all that its point asks.
 *
 *     start -> handler -> settle | release | keep | give_back
 *          \-> give_back
 *
 * The owner ends a check that passed by one of these; one that was refused
 * has ended.  give_back() before the handler has run cancels it.  "Pass" says
 * that limits allow it; it never grants relaying.
 */


#ifndef NGX_MAIL_POLICY_CHECK_H
#define NGX_MAIL_POLICY_CHECK_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_fetch.h"
#include "ngx_mail_policy_store.h"


typedef enum {
    NGX_MAIL_POLICY_CHECK_CONNECT = 0,
    NGX_MAIL_POLICY_CHECK_LOGIN,
    NGX_MAIL_POLICY_CHECK_AUTH,
    NGX_MAIL_POLICY_CHECK_GREETING,
    NGX_MAIL_POLICY_CHECK_MAIL,
    NGX_MAIL_POLICY_CHECK_RCPT,
    NGX_MAIL_POLICY_CHECK_END
} ngx_mail_policy_check_point_e;


/* a limit that was exceeded */
typedef struct {
    ngx_str_t                     limit;
    ngx_str_t                     action;
    uint64_t                      used;
    uint64_t                      max;
    uint64_t                      retry;
} ngx_mail_policy_hit_t;


typedef struct {
    ngx_int_t                     rc;       /* NGX_OK pass, NGX_DECLINED a
                                               limit, NGX_ERROR no store,
                                               NGX_BUSY as of start() */
    ngx_uint_t                    code;     /* 450, 550, 552, 451, 421,
                                               454 */
    ngx_str_t                     text;     /* "450 4.7.1 Rate ...", with a
                                               NUL behind it */
    ngx_str_t                     limit;    /* which one; empty if none; with
                                               NGX_OK: it only reports */
    ngx_mail_policy_upstream_t   *upstream; /* where it goes instead, or
                                               NULL */
    ngx_str_t                     action;   /* defer, reject, tarpit, report,
                                               relay */
    uint64_t                      used;     /* of that limit */
    uint64_t                      max;
    uint64_t                      retry;    /* seconds; 0 if unknown */
    ngx_uint_t                    charge;   /* which, and which of its units */
    ngx_uint_t                    unit;
    ngx_array_t                  *hits;     /* ..._hit_t: all of them, where
                                               several were exceeded; NULL */
    unsigned                      never:1;  /* it will not fit later, too */
} ngx_mail_policy_verdict_t;


typedef struct ngx_mail_policy_check_s  ngx_mail_policy_check_t;

/* of a greeting there is no verdict: NULL */
typedef void (*ngx_mail_policy_check_pt)(void *data,
    ngx_mail_policy_verdict_t *verdict);


/* the keys under which a transaction's message is charged at RCPT */
typedef struct {
    ngx_str_t                     limit;
    ngx_str_t                     key;
    ngx_mail_policy_check_t      *owner;    /* is about to pay, or NULL */
    unsigned                      paid:1;   /* and its recipient stands */
} ngx_mail_policy_charged_t;


struct ngx_mail_policy_check_s {

    /* the question: set by the owner, and left alone until it is ended */

    ngx_mail_policy_store_t      *store;
    ngx_array_t                  *conf;     /* ..._limit_t, or NULL */
    ngx_mail_policy_envelope_t   *envelope;
    ngx_mail_policy_fetch_t      *fetch;    /* for this point, or NULL */
    ngx_pool_t                   *pool;     /* outlives the check */
    ngx_mail_policy_check_pt      handler;
    void                         *data;

    ngx_array_t                  *charged;  /* rcpt: of ..._charged_t, kept by
                                               the owner through a
                                               transaction */
    unsigned                      prepaid:1;    /* rcpt: by mail */
    unsigned                      tried:1;  /* mail: passed before, and was
                                               given back */
    ngx_uint_t                    count;    /* recipients at once; 0: one */
    uint64_t                      octets;   /* mail: asks for these alone, as
                                               all else is paid for, if not 0;
                                               end: charged by an end before */
    ngx_str_t                     member;   /* connect, login: the lease;
                                               auth: see store.h */
    ngx_str_t                     client;   /* auth */
    ngx_str_t                     login;    /* auth: that is tried */
    ngx_msec_t                   *delayed;  /* by tarpits; NULL: the check's
                                               own */
    ngx_str_t                     recipient;    /* rcpt */
    ngx_str_t                     recipient_domain;

    /* the check's own */

    ngx_mail_policy_check_point_e  point;
    ngx_mail_policy_fetch_wait_t *wait;     /* NULL: not for lookups */
    ngx_mail_policy_ask_t        *ask;      /* NULL: nothing to end */
    ngx_mail_policy_limit_t     **limits;   /* of ask->charges, and on its
                                               pool */
    ngx_mail_policy_verdict_t    *verdict;  /* of the pool, or a static one */
    ngx_uint_t                    waits;    /* for charged[waits - 1] */
    ngx_event_t                  *tarpit;   /* NULL: never needed */
    ngx_msec_t                    delay;
    u_char                       *slowed;   /* of limits: 1: has delayed; NULL:
                                               none has */
    ngx_mail_policy_ask_t        *fill;     /* see ..._check_fill() */
    unsigned                      answered:1;
};


/*
 * NGX_OK: nothing limits it, no handler, nothing to end; NGX_AGAIN: the
 * handler will come; NGX_BUSY: another recipient of this transaction is about
 * to be charged for the message under the same key, try again when that one
 * is accepted or refused; NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_check_start(ngx_mail_policy_check_t *check,
    ngx_mail_policy_check_point_e point);

/*
 * At the end of a message of size octets: asks for those that were not
 * declared, under the keys of n checks that passed (mail and rcpt).
 */
ngx_int_t ngx_mail_policy_check_rest(ngx_mail_policy_check_t *check,
    ngx_mail_policy_check_t **paid, ngx_uint_t n, uint64_t size);

/* 1 if it passed, and octets count that rest() would ask for more of */
ngx_uint_t ngx_mail_policy_check_has_octets(ngx_mail_policy_check_t *check);

/* what from has charged is to's to end; of from there is nothing to end */
void ngx_mail_policy_check_move(ngx_mail_policy_check_t *from,
    ngx_mail_policy_check_t *to);

/* its recipient was accepted: those of the same key need not pay again */
void ngx_mail_policy_check_accepted(ngx_mail_policy_check_t *check);

/* greeting: what is left; MPOL_NEVER where nothing limits it */
void ngx_mail_policy_check_left(ngx_mail_policy_check_t *check,
    uint64_t *messages, uint64_t *recipients);

/*
 * Each may be called on a check that has ended, or never asked: no effect.
 *
 * settle: the message stands, of size octets; recipient: 1 if the one that
 * was paid for at MAIL was accepted (of a check at RCPT: always 1).
 * release: the connection stands, the session is over.  keep: all stands.
 * give_back: nothing does, but what counts attempts.
 */
void ngx_mail_policy_check_settle(ngx_mail_policy_check_t *check,
    uint64_t size, ngx_uint_t recipient);
void ngx_mail_policy_check_release(ngx_mail_policy_check_t *check);
void ngx_mail_policy_check_keep(ngx_mail_policy_check_t *check);
void ngx_mail_policy_check_give_back(ngx_mail_policy_check_t *check);

/* auth: the login succeeded: given back, and its client is exempt */
void ngx_mail_policy_check_succeeded(ngx_mail_policy_check_t *check);


/* in a worker: limits, in arrays of them, are in the metrics from now on */
void ngx_mail_policy_decision_init(ngx_array_t *limits);


#endif /* NGX_MAIL_POLICY_CHECK_H */
