
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The values of policy_lookup, fetched before they are evaluated.
 *
 * A fetch is for what becomes known at one point: a session's, at its
 * beginning and with its login; a transaction's, at MAIL, of all that is known
 * by then; a recipient's, for which the transaction's is the wider one.  What
 * it asks goes out with the questions of limits in one turn of the event loop.
 * A lookup whose key needs another one is asked for behind that.
 *
 *     create -> start -> every answer is there
 *          \         \-> wait -> handler
 *           \-> end
 *
 * Its memory is that of its owner's pool; it is ended before that goes, and
 * so is every wait for it, and every fetch that it is the wider one of.  Where
 * a server needs no lookup, there is none: NULL is as good for all calls.
 */


#ifndef NGX_MAIL_POLICY_FETCH_H
#define NGX_MAIL_POLICY_FETCH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"


typedef struct ngx_mail_policy_fetch_s       ngx_mail_policy_fetch_t;
typedef struct ngx_mail_policy_fetch_wait_s  ngx_mail_policy_fetch_wait_t;

typedef void (*ngx_mail_policy_fetch_pt)(void *data);


struct ngx_mail_policy_fetch_s {
    ngx_mail_policy_found_t         found;  /* what the envelope points to */
    ngx_mail_policy_fetch_t        *wider;
    ngx_mail_policy_main_conf_t    *conf;
    ngx_mail_policy_envelope_t     *envelope;
    ngx_pool_t                     *pool;

    /* what keys are made of, and the envelope may not say (any more) */

    ngx_str_t                       login;  /* that is tried; or empty */
    ngx_str_t                       recipient;  /* or empty */
    ngx_str_t                       recipient_domain;

    uint64_t                        wanted; /* mask: still awaited */
    uint64_t                        asked;  /* of these: by now */
    ngx_queue_t                     waits;
    ngx_mail_policy_fetch_wait_t   *blocked;    /* for the wider one */
};


struct ngx_mail_policy_fetch_wait_s {
    ngx_queue_t                     queue;
    ngx_mail_policy_fetch_t        *fetch;
    uint64_t                        mask;
    ngx_mail_policy_fetch_pt        handler;
    void                           *data;
    ngx_event_t                     event;  /* posted: calls the handler */
    unsigned                        queued:1;
};


/* NULL: no memory */
ngx_mail_policy_fetch_t *ngx_mail_policy_fetch_create(
    ngx_mail_policy_main_conf_t *conf, ngx_mail_policy_envelope_t *envelope,
    ngx_pool_t *pool, ngx_mail_policy_fetch_t *wider);

/*
 * The same on a pool of its own, for who asks again and again; drop() ends it,
 * if there is one, and the envelope says nothing of it any more.
 */
ngx_mail_policy_fetch_t *ngx_mail_policy_fetch_alone(
    ngx_mail_policy_main_conf_t *conf, ngx_mail_policy_envelope_t *envelope);
void ngx_mail_policy_fetch_drop(ngx_mail_policy_fetch_t **fetch);

/* the lookups of a server whose keys are known by a phase */
uint64_t ngx_mail_policy_fetch_mask(ngx_mail_policy_srv_conf_t *conf,
    ngx_uint_t phase);

/* asks for the lookups of mask */
void ngx_mail_policy_fetch_start(ngx_mail_policy_fetch_t *fetch,
    uint64_t mask);
void ngx_mail_policy_fetch_end(ngx_mail_policy_fetch_t *fetch);

/*
 * NGX_OK: what of mask was asked for is there; NGX_AGAIN: handler(data) will
 * be called from the event loop when it is, unless *wait is forgotten;
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_fetch_wait(ngx_mail_policy_fetch_t *fetch,
    uint64_t mask, ngx_mail_policy_fetch_wait_t **wait,
    ngx_mail_policy_fetch_pt handler, void *data);
void ngx_mail_policy_fetch_forget(ngx_mail_policy_fetch_wait_t **wait);

/* for the envelope */
#define ngx_mail_policy_fetch_found(fetch)                                   \
    ((fetch) ? &(fetch)->found : NULL)


#endif /* NGX_MAIL_POLICY_FETCH_H */
