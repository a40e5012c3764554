
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Connections to relays that outlive the session that opened them.
 *
 * Each group has a pool of them, a worker its own.  A connection is put there
 * when its session ends or has not needed it for a second, and taken by the
 * next transaction for the same relay, of the same server {} (what the relay
 * was told at its set-up, and TLS, are a server's).
 *
 * TRUST-4: what a relay was told of a client by XCLIENT is never true for
 * another one.  A connection is taken as it is by a client of the same
 * identity; by another one if the relay can be told anew, which it is before
 * MAIL; else by nobody.
 */


#ifndef NGX_MAIL_POLICY_KEEP_H
#define NGX_MAIL_POLICY_KEEP_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_relay.h"


/*
 * A connection that was kept, or NULL: open() one.  Both as relay_open(); it
 * goes back by put().
 */
ngx_mail_policy_relay_t *ngx_mail_policy_keep_get(
    ngx_mail_policy_upstream_t *upstream,
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data);
ngx_mail_policy_relay_t *ngx_mail_policy_keep_open(
    ngx_mail_policy_upstream_t *upstream,
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data);

/* 1 if its owner may use it for another transaction of this envelope */
ngx_uint_t ngx_mail_policy_keep_again(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_envelope_t *envelope);

/* its owner does not need it now: idle() comes in a while, unless again() */
void ngx_mail_policy_keep_rest(ngx_mail_policy_relay_t *relay);

/* ends the owner's ownership: kept for others, or relay_quit() */
void ngx_mail_policy_keep_put(ngx_mail_policy_relay_t *relay);

/* one that is kept is not any more: before it is closed */
void ngx_mail_policy_keep_remove(ngx_mail_policy_relay_t *relay);

/* closes what is kept for a peer that is no more, or (NULL) all of a group */
void ngx_mail_policy_keep_forget(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_peer_t *peer);

/* a worker's end: groups, as in main_conf */
void ngx_mail_policy_keep_exit_process(ngx_array_t *upstreams);


#endif /* NGX_MAIL_POLICY_KEEP_H */
