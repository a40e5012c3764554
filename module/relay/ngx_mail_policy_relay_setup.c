
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * From the relay's greeting to its readiness, one command at a time:
 *
 *   [ TLS -> ] GREETING -220-> EHLO -250->
 *       [ STARTTLS -220-> TLS -> EHLO -250-> ]
 *       [ XCLIENT -220-> ... -> EHLO -250-> ] [ AUTH ... -235-> ] MAIL
 *            ^                                                     |
 *            +------------ renew(): another client ---------------+
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


static ngx_int_t ngx_mail_policy_relay_offered(
    ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_starttls(
    ngx_mail_policy_relay_t *relay);
static ngx_int_t ngx_mail_policy_relay_ehlo(ngx_mail_policy_relay_t *relay,
    const ngx_str_t *name);
static ngx_int_t ngx_mail_policy_relay_identify(
    ngx_mail_policy_relay_t *relay);


ngx_int_t
ngx_mail_policy_relay_connected(ngx_mail_policy_relay_t *relay)
{
    if (relay->conf->proxy_protocol) {

        if (ngx_mail_policy_relay_proxy(relay) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
    }

    if (relay->conf->ssl_at_once) {
        relay->stage = NGX_MAIL_POLICY_RELAY_TLS;
        ngx_post_event(relay->pc.connection->write, &ngx_posted_events);

        return NGX_OK;
    }

    relay->stage = NGX_MAIL_POLICY_RELAY_GREETING;
    relay->log.action = "reading the relay's greeting";

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_relay_secured(ngx_mail_policy_relay_t *relay)
{
    if (relay->conf->ssl_at_once) {
        relay->stage = NGX_MAIL_POLICY_RELAY_GREETING;
        relay->log.action = "reading the relay's greeting";

        return NGX_OK;
    }

    /* RFC 3207, section 4.2: what was said in clear is worth nothing */

    ngx_memzero(&relay->ehlo, sizeof(mpol_ehlo_t));

    return ngx_mail_policy_relay_ehlo(relay, &relay->conf->name);
}


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

        /* it is us who log in then */

        if (ngx_mail_policy_relay_auth_needed(relay)) {
            relay->ehlo.xclient &= ~MPOL_XCLIENT_LOGIN;
        }

        rc = ngx_mail_policy_relay_offered(relay);
        break;

    case NGX_MAIL_POLICY_RELAY_STARTTLS:

        if (reply->code == 220) {
            relay->stage = NGX_MAIL_POLICY_RELAY_TLS;
            rc = NGX_OK;
            break;
        }

        if (reply->code < 400 || reply->code == 421
            || relay->conf->starttls == NGX_MAIL_POLICY_STARTTLS_REQUIRED)
        {
            rc = NGX_ERROR;
            break;
        }

        relay->clear = 1;

        rc = ngx_mail_policy_relay_offered(relay);
        break;

    case NGX_MAIL_POLICY_RELAY_XCLIENT:

        /* 220 of Postfix; others say 250 */

        if (reply->code >= 300) {
            rc = NGX_ERROR;
            break;
        }

        rc = ngx_mail_policy_relay_identify(relay);
        break;

    case NGX_MAIL_POLICY_RELAY_AUTH:

        rc = ngx_mail_policy_relay_auth_reply(relay, reply);

        if (rc == NGX_DONE) {
            relay->logged_in = 1;
            rc = ngx_mail_policy_relay_offered(relay);
        }

        break;

    default:
        rc = NGX_ERROR;
    }

    if (rc != NGX_OK) {
        ngx_log_error((relay->declined ? NGX_LOG_INFO : NGX_LOG_ERR),
                      &relay->log, 0,
                      "relay answered %ui at set-up", (ngx_uint_t) reply->code);
        return NGX_ERROR;
    }

    ngx_post_event(relay->pc.connection->write, &ngx_posted_events);

    return NGX_OK;
}


/* EHLO was answered: what there is to do before mail */

static ngx_int_t
ngx_mail_policy_relay_offered(ngx_mail_policy_relay_t *relay)
{
    if (relay->conf->starttls != NGX_MAIL_POLICY_STARTTLS_OFF
        && !relay->pc.connection->ssl && !relay->clear)
    {
        if (relay->ehlo.extensions & MPOL_RELAY_STARTTLS) {
            return ngx_mail_policy_relay_starttls(relay);
        }

        if (relay->conf->starttls == NGX_MAIL_POLICY_STARTTLS_REQUIRED) {
            relay->stage = NGX_MAIL_POLICY_RELAY_STARTTLS;
            ngx_mail_policy_relay_fail_as(relay,
                                          NGX_MAIL_POLICY_RELAY_REFUSED,
                                          "relay does not offer STARTTLS");
            return NGX_OK;
        }

        relay->clear = 1;
    }

    if (relay->conf->xclient == NGX_MAIL_POLICY_XCLIENT_REQUIRED
        && relay->xclient_sent == 0
        && !(relay->ehlo.xclient & MPOL_XCLIENT_ADDR))
    {
        relay->stage = NGX_MAIL_POLICY_RELAY_XCLIENT;
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_REFUSED,
                                      "relay does not offer XCLIENT ADDR");
        return NGX_OK;
    }

    if (relay->conf->xclient
        && (relay->ehlo.extensions & MPOL_RELAY_XCLIENT)
        && relay->xclient_sent == 0 && relay->ehlo.xclient)
    {
        return ngx_mail_policy_relay_identify(relay);
    }

    if (!relay->logged_in && ngx_mail_policy_relay_auth_needed(relay)) {
        return ngx_mail_policy_relay_auth(relay);
    }

    /*
     * Without a login, too, it is not one for somebody who has one; a group's
     * own is the same for all.
     */

    if (relay->conf->client_login && relay->peer->upstream->login == NULL) {
        relay->bound = 1;
    }

    ngx_mail_policy_upstream_learn(relay->peer, &relay->ehlo);

    relay->stage = NGX_MAIL_POLICY_RELAY_MAIL;
    relay->log.action = "talking to relay";

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_starttls(ngx_mail_policy_relay_t *relay)
{
    u_char  *p;

    p = ngx_mail_policy_relay_reserve(relay, sizeof("STARTTLS" CRLF) - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, "STARTTLS" CRLF, sizeof("STARTTLS" CRLF) - 1);
    ngx_mail_policy_relay_written(relay, sizeof("STARTTLS" CRLF) - 1);

    relay->stage = NGX_MAIL_POLICY_RELAY_STARTTLS;
    relay->log.action = "sending STARTTLS to relay";

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

    /* Postfix forgets who has logged in */

    relay->logged_in = 0;

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
