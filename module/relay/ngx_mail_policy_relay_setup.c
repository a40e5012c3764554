
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * From the relay's greeting to its readiness, one command at a time:
 *
 *   GREETING -220-> EHLO -250-> [ XCLIENT -220-> ... -> EHLO -250-> ] MAIL
 *                                    ^                               |
 *                                    +--- renew(): another client ---+
 *
 * XCLIENT (..._xclient.c) is spoken where the relay offers it and "xclient" is
 * on.  A relay that offers it and then refuses it is not used: mail would go
 * out under our own, trusted identity.
 *
 * Behind XCLIENT a relay has forgotten EHLO.  With XCLIENT's HELO Postfix would
 * take MAIL without another one, but its checks of the name and its milters
 * would not see it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_addr.h"
#include "ngx_mail_policy_relay.h"


static ngx_int_t ngx_mail_policy_relay_ehlo(ngx_mail_policy_relay_t *relay,
    const ngx_str_t *name);
static ngx_int_t ngx_mail_policy_relay_identify(
    ngx_mail_policy_relay_t *relay);


ngx_int_t
ngx_mail_policy_relay_setup(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    ngx_int_t  rc;

    switch (relay->stage) {

    case NGX_MAIL_POLICY_RELAY_GREETING:

        if (reply->code != 220) {
            rc = NGX_ERROR;
            break;
        }

        rc = ngx_mail_policy_relay_ehlo(relay, &relay->conf->name);
        break;

    case NGX_MAIL_POLICY_RELAY_EHLO:

        if (reply->code != 250) {
            rc = NGX_ERROR;
            break;
        }

        mpol_ehlo_parse(relay->in, relay->in_len, &relay->ehlo);
        ngx_mail_policy_upstream_learn(relay->peer, &relay->ehlo);

        if (relay->conf->xclient
            && (relay->ehlo.extensions & MPOL_RELAY_XCLIENT)
            && relay->xclient_sent == 0 && relay->ehlo.xclient)
        {
            rc = ngx_mail_policy_relay_identify(relay);
            break;
        }

        relay->stage = NGX_MAIL_POLICY_RELAY_MAIL;
        relay->log.action = "talking to relay";

        rc = NGX_OK;
        break;

    case NGX_MAIL_POLICY_RELAY_XCLIENT:

        /* 220 of Postfix; others say 250 */

        if (reply->code >= 300) {
            rc = NGX_ERROR;
            break;
        }

        rc = ngx_mail_policy_relay_identify(relay);
        break;

    default:
        rc = NGX_ERROR;
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, &relay->log, 0,
                      "relay answered %ui at set-up", (ngx_uint_t) reply->code);
        return NGX_ERROR;
    }

    ngx_post_event(relay->pc.connection->write, &ngx_posted_events);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_ehlo(ngx_mail_policy_relay_t *relay,
    const ngx_str_t *name)
{
    u_char  *p;

    p = ngx_mail_policy_relay_reserve(relay,
                                   sizeof("EHLO " CRLF) - 1 + name->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_mail_policy_relay_written(relay,
                                  ngx_sprintf(p, "EHLO %V" CRLF, name) - p);

    relay->stage = NGX_MAIL_POLICY_RELAY_EHLO;
    relay->log.action = "sending EHLO to relay";

    return NGX_OK;
}


/* one XCLIENT command with what has not been sent yet; then EHLO again */

static ngx_int_t
ngx_mail_policy_relay_identify(ngx_mail_policy_relay_t *relay)
{
    ngx_int_t         rc;
    const ngx_str_t  *helo;

    rc = ngx_mail_policy_relay_xclient(relay);

    if (rc == NGX_OK) {
        relay->stage = NGX_MAIL_POLICY_RELAY_XCLIENT;
        relay->log.action = "sending XCLIENT to relay";
        return NGX_OK;
    }

    if (rc != NGX_DECLINED) {
        return NGX_ERROR;
    }

    relay->xclient_sent |= NGX_MAIL_POLICY_XCLIENT_DONE;

    /* a client may call itself anything */

    helo = &relay->envelope->helo;

    return ngx_mail_policy_relay_ehlo(relay,
                                      mpol_domain_valid(helo->data, helo->len)
                                      ? helo : &relay->conf->name);
}


/* ready, it is told of another client */

ngx_int_t
ngx_mail_policy_relay_renew(ngx_mail_policy_relay_t *relay)
{
    relay->xclient_sent = 0;

    if (ngx_mail_policy_relay_identify(relay) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_mail_policy_relay_timers(relay);
    ngx_post_event(relay->pc.connection->write, &ngx_posted_events);

    return NGX_OK;
}
