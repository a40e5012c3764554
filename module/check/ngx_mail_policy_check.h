
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Envelope in, verdict out: the limits, for every front door.
 *
 * A check asks the store what its point costs, in one question:
 *
 *   at MAIL   one message under each limit whose key is known by then
 *   at RCPT   one recipient under each limit, and one message under each
 *             limit whose key needs the recipient, once for each key in a
 *             transaction
 *
 * A limit of whose key a variable is empty (null sender, no login) does not
 * apply.
 *
 *     start -> handler -> keep | give_back
 *          \-> give_back
 *
 * The owner ends a check by one of these; give_back() before the handler has
 * run cancels it.  "Pass" says that limits allow it; it never grants relaying.
 */


#ifndef NGX_MAIL_POLICY_CHECK_H
#define NGX_MAIL_POLICY_CHECK_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_store.h"


typedef struct {
    ngx_int_t                     rc;       /* NGX_OK pass, NGX_DECLINED a
                                               limit, NGX_ERROR no store */
    ngx_uint_t                    code;     /* 450, 550, 451 */
    ngx_str_t                     text;     /* "450 4.7.1 Rate ..." */
    ngx_str_t                     limit;    /* which one; empty if none */
    uint64_t                      used;     /* of the refusing limit */
    uint64_t                      max;
    uint64_t                      retry;    /* seconds; 0 if unknown */
} ngx_mail_policy_verdict_t;


typedef struct ngx_mail_policy_check_s  ngx_mail_policy_check_t;

typedef void (*ngx_mail_policy_check_pt)(void *data,
    ngx_mail_policy_verdict_t *verdict);


struct ngx_mail_policy_check_s {
    ngx_mail_policy_ask_t        *ask;      /* NULL: nothing to end */
    ngx_array_t                  *charged;
    ngx_mail_policy_limit_t     **limits;   /* of ask->charges */
    ngx_mail_policy_verdict_t     verdict;
    ngx_mail_policy_check_pt      handler;
    void                         *data;
    ngx_pool_t                   *pool;
    ngx_uint_t                    waits;    /* for charged[waits - 1] */
    unsigned                      answered:1;
};


/* the keys under which a transaction's message is charged at RCPT */
typedef struct {
    ngx_str_t                     limit;
    ngx_str_t                     key;
    ngx_mail_policy_check_t      *owner;    /* is about to pay, or NULL */
    unsigned                      paid:1;   /* and its recipient stands */
} ngx_mail_policy_charged_t;


/*
 * check: all zeroes before the first start.  phase: NGX_MAIL_POLICY_AT_MAIL
 * or _AT_RCPT.  pool: the transaction's, must outlive the check.  charged: of
 * ngx_mail_policy_charged_t, kept by the caller through a transaction.
 *
 * NGX_OK: nothing limits it, no handler, nothing to end; NGX_AGAIN: the
 * handler will come; NGX_BUSY: another recipient of this transaction is about
 * to be charged for the message under the same key, try again when that one
 * is accepted or refused; NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_check_start(ngx_mail_policy_check_t *check,
    ngx_mail_policy_store_t *store, ngx_array_t *limits,
    ngx_mail_policy_envelope_t *envelope, ngx_uint_t phase,
    ngx_array_t *charged, ngx_pool_t *pool,
    ngx_mail_policy_check_pt handler, void *data);

/* its recipient was accepted: those of the same key need not pay again */
void ngx_mail_policy_check_accepted(ngx_mail_policy_check_t *check);

/* each may be called on a check that has ended, or never asked: no effect */
void ngx_mail_policy_check_keep(ngx_mail_policy_check_t *check);
void ngx_mail_policy_check_give_back(ngx_mail_policy_check_t *check);


#endif /* NGX_MAIL_POLICY_CHECK_H */
