
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
 * waiting is what it is to save.
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_NEXT_LOST  2    /* relays, by one message */


/* a try begins */

void
ngx_mail_policy_next_try(ngx_mail_policy_transaction_t *t)
{
    if (t->tries++ == 0) {
        t->first_try = ngx_current_msec;
    }
}


/* what was lost stays lost: it is the same message */

void
ngx_mail_policy_next_reset(ngx_mail_policy_transaction_t *t)
{
    t->tries = 0;
}


/* condition: one of NGX_MAIL_POLICY_NEXT_..., or 0: never */

ngx_uint_t
ngx_mail_policy_next_allowed(ngx_mail_policy_transaction_t *t,
    ngx_uint_t condition)
{
    ngx_mail_policy_srv_conf_t  *pscf;

    pscf = t->session->conf;

    if (!(pscf->next_upstream & condition)) {
        return 0;
    }

    if (pscf->next_tries && t->tries >= pscf->next_tries) {
        return 0;
    }

    if (pscf->next_timeout
        && ngx_current_msec - t->first_try >= pscf->next_timeout)
    {
        return 0;
    }

    return t->lost < NGX_MAIL_POLICY_NEXT_LOST;
}


/* 1 if the relay's failure counts against it; once for each */

ngx_uint_t
ngx_mail_policy_next_failure(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_relay_cause_e  cause;

    cause = t->session->relay->cause;

    if (cause == NGX_MAIL_POLICY_RELAY_OURSELVES) {
        return 0;
    }

    if (stage < NGX_MAIL_POLICY_RELAY_MAIL) {
        return 1;
    }

    if (cause == NGX_MAIL_POLICY_RELAY_CLOSING) {
        return 0;
    }

    return ++t->lost == 1 || cause == NGX_MAIL_POLICY_RELAY_TIMEOUT;
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
