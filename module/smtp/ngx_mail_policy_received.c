
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The trace field in front of a message (policy_received).  It goes to the
 * relay with the first octets of the client's, and is none of them: it does
 * not count for limits, sizes or hops.
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_received.h"
#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_received_value(mpol_str_t *value,
    ngx_str_t *string);
static void ngx_mail_policy_received_address(ngx_connection_t *c,
    mpol_str_t *value, u_char *buf);


/*
 * A relay that was told the client's address by XCLIENT writes its own field
 * for the client; one that we add says the same again.
 */

ngx_uint_t
ngx_mail_policy_received_wanted(ngx_mail_policy_session_t *s)
{
    switch (s->conf->received) {

    case NGX_MAIL_POLICY_RECEIVED_ON:
        return 1;

    case NGX_MAIL_POLICY_RECEIVED_OFF:
        return 0;

    default:
        return !(s->relay->xclient_sent & MPOL_XCLIENT_ADDR);
    }
}


size_t
ngx_mail_policy_received(ngx_mail_policy_transaction_t *t, u_char *out)
{
    ngx_time_t                  *now;
    mpol_received_t              r;
    ngx_mail_policy_envelope_t  *e;
    u_char                       address[NGX_SOCKADDR_STRLEN];

    e = &t->session->envelope;
    now = ngx_timeofday();

    ngx_mail_policy_received_value(&r.helo, &e->helo);
    ngx_mail_policy_received_value(&r.host, &e->client_host);
    ngx_mail_policy_received_value(&r.name, &e->server_name);
    ngx_mail_policy_received_value(&r.protocol, &e->protocol);
    ngx_mail_policy_received_address(e->connection, &r.address, address);

    r.connection = e->connection->number;
    r.transaction = e->transaction;
    r.time = (uint64_t) now->sec;
    r.offset = (int) now->gmtoff;
    r.utf8 = t->mail.smtputf8;

    return mpol_received_build(&r, out);
}


static void
ngx_mail_policy_received_value(mpol_str_t *value, ngx_str_t *string)
{
    value->data = string->data;
    value->len = string->len;
}


/* without the port; empty for a client at a unix socket */

static void
ngx_mail_policy_received_address(ngx_connection_t *c, mpol_str_t *value,
    u_char *buf)
{
    value->data = buf;
    value->len = 0;

    switch (c->sockaddr->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
#endif
    case AF_INET:
        value->len = ngx_sock_ntop(c->sockaddr, c->socklen, buf,
                                   NGX_SOCKADDR_STRLEN, 0);
        break;

    default:
        break;
    }
}
