
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a transaction asks of a relay, as it is counted.
 *
 *     begin -> (due -> replied) ... -> end | failed -> (begin ...)
 *
 * Time counts while a reply is due: what a client takes for its commands and
 * its message is no fault of the relay's.  It needs no peer behind begin().
 */


#ifndef NGX_MAIL_POLICY_PEER_TRY_H
#define NGX_MAIL_POLICY_PEER_TRY_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_relay.h"


/* zeroed: none is under way */
typedef struct {
    ngx_uint_t    counters;     /* the peer's; 0: none is under way */
    ngx_uint_t    due;          /* replies */
    ngx_uint_t    code;         /* what it would come to; 0: nothing yet */
    uint64_t      since;        /* a reply is due, microseconds */
    uint64_t      waited;
    unsigned      taken:1;      /* a recipient was */
} ngx_mail_policy_peer_try_t;


/* MAIL goes to this one; ends the one before */
void ngx_mail_policy_peer_try_begin(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_t *relay);

/* MAIL goes to the same relay once more, as the connection was stale */
void ngx_mail_policy_peer_try_again(ngx_mail_policy_peer_try_t *try);

/* RCPT, DATA, or the end of the message went */
void ngx_mail_policy_peer_try_due(ngx_mail_policy_peer_try_t *try);

/* a reply of the relay's own */
void ngx_mail_policy_peer_try_replied(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_stage_e stage, ngx_uint_t code);

/* the relay failed: before it is closed */
void ngx_mail_policy_peer_try_failed(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_stage_e stage);

/* nothing more is asked; no effect if none is under way */
void ngx_mail_policy_peer_try_end(ngx_mail_policy_peer_try_t *try);


#endif /* NGX_MAIL_POLICY_PEER_TRY_H */
