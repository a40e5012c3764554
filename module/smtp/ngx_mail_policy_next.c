
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Which failures of a relay are passed to the next one of its group
 * (proxy_next_upstream), and which count against it.
 *
 * That the client knows nothing of the relay yet is the caller's to see to.
 *
 * A message on which relays are lost, one after the other, must not do away
 * with all of them: of one transaction one relay that is lost counts, and two
 * are asked.  A 421 to a command counts nothing, as it may be due to the
 * sender or a recipient.  A relay that does not answer in time counts always:
 * waiting is what it is to save.  What the client has said to log in with is
 * as a message in all this, and a refusal of it counts nothing.
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_NEXT_LOST  2    /* relays, by one message */


static ngx_uint_t ngx_mail_policy_next_is_us(ngx_connection_t *c,
    ngx_mail_policy_peer_t *peer);


ngx_mail_policy_peer_t *
ngx_mail_policy_next_peer(ngx_mail_policy_balance_t *balance,
    ngx_connection_t *c)
{
    ngx_mail_policy_peer_t  *peer;

    for ( ;; ) {
        peer = ngx_mail_policy_balance_next(balance);

        if (peer == NULL || !ngx_mail_policy_next_is_us(c, peer)) {
            return peer;
        }

        ngx_mail_policy_peer_release(peer);
    }
}


/* TRUST-9: a server that relays to itself would go on until it has no more
   connections */

static ngx_uint_t
ngx_mail_policy_next_is_us(ngx_connection_t *c, ngx_mail_policy_peer_t *peer)
{
    if (ngx_connection_local_sockaddr(c, NULL, 0) != NGX_OK
        || ngx_cmp_sockaddr(c->local_sockaddr, c->local_socklen,
                            peer->sockaddr, peer->socklen, 1)
           != NGX_OK)
    {
        return 0;
    }

    ngx_log_error(NGX_LOG_ERR, c->log, 0,
                  "relay %V is this very server", &peer->name);

    return 1;
}


/* a try begins */

void
ngx_mail_policy_next_try(ngx_mail_policy_next_t *next)
{
    if (next->tries++ == 0) {
        next->first_try = ngx_current_msec;
    }
}


/* what was lost stays lost: it is the same message */

void
ngx_mail_policy_next_reset(ngx_mail_policy_next_t *next)
{
    next->tries = 0;
}


/* condition: one of NGX_MAIL_POLICY_NEXT_..., or 0: never */

ngx_uint_t
ngx_mail_policy_next_allowed(ngx_mail_policy_next_t *next,
    ngx_mail_policy_srv_conf_t *conf, ngx_uint_t condition)
{
    if (!(conf->next_upstream & condition)) {
        return 0;
    }

    if (conf->next_tries && next->tries >= conf->next_tries) {
        return 0;
    }

    if (conf->next_timeout
        && ngx_current_msec - next->first_try >= conf->next_timeout)
    {
        return 0;
    }

    return next->lost < NGX_MAIL_POLICY_NEXT_LOST;
}


/* 1 if the relay's failure counts against it; once for each */

ngx_uint_t
ngx_mail_policy_next_failure(ngx_mail_policy_next_t *next,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_relay_cause_e  cause;

    cause = relay->cause;

    if (cause == NGX_MAIL_POLICY_RELAY_OURSELVES) {
        return 0;
    }

    if (stage == NGX_MAIL_POLICY_RELAY_AUTH && relay->as_client) {

        if (cause == NGX_MAIL_POLICY_RELAY_REFUSED) {
            return 0;
        }

    } else if (stage < NGX_MAIL_POLICY_RELAY_MAIL) {
        return 1;
    }

    if (cause == NGX_MAIL_POLICY_RELAY_CLOSING) {
        return 0;
    }

    return ++next->lost == 1 || cause == NGX_MAIL_POLICY_RELAY_TIMEOUT;
}


ngx_uint_t
ngx_mail_policy_next_condition(ngx_mail_policy_relay_cause_e cause)
{
    switch (cause) {

    case NGX_MAIL_POLICY_RELAY_ERROR:
        return NGX_MAIL_POLICY_NEXT_ERROR;

    case NGX_MAIL_POLICY_RELAY_TIMEOUT:
        return NGX_MAIL_POLICY_NEXT_TIMEOUT;

    case NGX_MAIL_POLICY_RELAY_INVALID:
        return NGX_MAIL_POLICY_NEXT_INVALID;

    case NGX_MAIL_POLICY_RELAY_REFUSED:
        return NGX_MAIL_POLICY_NEXT_SETUP;

    case NGX_MAIL_POLICY_RELAY_CLOSING:
        return NGX_MAIL_POLICY_NEXT_421;

    default:
        return 0;
    }
}
