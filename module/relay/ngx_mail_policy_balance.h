
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The choice of a peer for a transaction, by weighted round robin or as the
 * group says, as nginx's stream upstream does.
 */


#ifndef NGX_MAIL_POLICY_BALANCE_H
#define NGX_MAIL_POLICY_BALANCE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_upstream.h"


/* of a transaction; all zero: not begun */
typedef struct {
    ngx_mail_policy_upstream_t  *upstream;
    ngx_str_t                    key;       /* of "hash" */
    uint64_t                     tried[NGX_MAIL_POLICY_PEERS / 64];
    ngx_uint_t                   asked;     /* peers so far */
    ngx_uint_t                   tries;     /* of hash and random */
    unsigned                     rehash;
    uint32_t                     hash;
    unsigned                     desperate:1;   /* all are set aside */
} ngx_mail_policy_balance_t;


/*
 * Begins; none is tried.  A key with variables is evaluated now, and is on
 * pool.  NGX_OK, or NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_balance_init(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_upstream_t *upstream, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope);

/*
 * The next peer that was not tried, acquired for the caller, who passes it to
 * a relay or releases it.  NULL: none is left.
 */
ngx_mail_policy_peer_t *ngx_mail_policy_balance_next(
    ngx_mail_policy_balance_t *b);

/*
 * 1 if the transaction may go to a peer that the session is connected to:
 * nothing was tried yet, the group still names it, and health_check has nothing
 * against it; with "hash": it is the one that next() would choose.  It was
 * tried when it has answered, or could not.
 */
ngx_uint_t ngx_mail_policy_balance_fits(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_balance_tried(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer);

/* 1 if one was not tried: set aside, it is away for a while only */
ngx_uint_t ngx_mail_policy_balance_more(ngx_mail_policy_balance_t *b);


/* begins again with the same key: none is tried */
void ngx_mail_policy_balance_again(ngx_mail_policy_balance_t *b);


/* between the files of the choice, under the lock */

/* whether it may be chosen now; NULL may not */
ngx_uint_t ngx_mail_policy_balance_usable(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer, ngx_uint_t backup);

/* what counts of a peer's weight, in slow start: 0 .. MPOL_SHARE */
unsigned ngx_mail_policy_balance_share(ngx_mail_policy_peer_t *peer);

/* connections by weight: of which there are more, as mpol_load_compare() */
int ngx_mail_policy_balance_load(ngx_mail_policy_peer_t *a,
    ngx_mail_policy_peer_t *b);

/* NULL: there is none; of one server, or of all: NULL */
ngx_mail_policy_peer_t *ngx_mail_policy_balance_round_robin(
    ngx_mail_policy_balance_t *b, ngx_uint_t backup,
    ngx_mail_policy_server_t *server);

ngx_mail_policy_peer_t *ngx_mail_policy_balance_hash(
    ngx_mail_policy_balance_t *b);
ngx_mail_policy_peer_t *ngx_mail_policy_balance_consistent(
    ngx_mail_policy_balance_t *b);
ngx_mail_policy_peer_t *ngx_mail_policy_balance_random(
    ngx_mail_policy_balance_t *b);

/* 1 if the key leads to this peer */
ngx_uint_t ngx_mail_policy_balance_hashed(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer);


#endif /* NGX_MAIL_POLICY_BALANCE_H */
