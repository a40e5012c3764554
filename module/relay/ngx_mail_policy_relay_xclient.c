
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * XCLIENT (Postfix' XCLIENT_README): whom we speak for.  Only attributes that
 * the relay named, values in xtext, several commands where one would pass 512
 * octets.  What was said is remembered as the connection's identity.
 *
 * No events arrive here; the set-up (..._setup.c) calls for each command.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_addr.h"
#include "mpol_text.h"
#include "ngx_mail_policy_relay.h"


#define NGX_MAIL_POLICY_XCLIENT_LINE   512
#define NGX_MAIL_POLICY_XCLIENT_VALUE  255

/* " ADDR=IPV6:..." at most */
#define NGX_MAIL_POLICY_XCLIENT_ADDR   (11 + NGX_INET6_ADDRSTRLEN)


typedef struct {
    ngx_str_t    name;
    ngx_uint_t   attribute;
    void       (*value)(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
                    u_char *buf);
} ngx_mail_policy_xclient_t;


static void ngx_mail_policy_relay_remember(ngx_mail_policy_relay_t *relay);
static size_t ngx_mail_policy_xclient_attribute(
    ngx_mail_policy_xclient_t *x, ngx_mail_policy_envelope_t *e, u_char *buf);
static void ngx_mail_policy_xclient_name(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_port(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_proto(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_helo(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_login(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_addr(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_destaddr(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_destport(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_print_addr(struct sockaddr *sa,
    socklen_t socklen, ngx_str_t *value, u_char *buf);
static void ngx_mail_policy_xclient_print_port(struct sockaddr *sa,
    ngx_str_t *value, u_char *buf);


/*
 * ADDR last: relays apply their access rules when it arrives, to later ones
 * of XCLIENT as well.  Before it LOGIN, as Postfix forgets it with each command
 * that does not have it.
 */

static ngx_mail_policy_xclient_t  ngx_mail_policy_xclient[] = {
    { ngx_string("DESTADDR"), MPOL_XCLIENT_DESTADDR,
      ngx_mail_policy_xclient_destaddr },
    { ngx_string("DESTPORT"), MPOL_XCLIENT_DESTPORT,
      ngx_mail_policy_xclient_destport },
    { ngx_string("PORT"), MPOL_XCLIENT_PORT, ngx_mail_policy_xclient_port },
    { ngx_string("PROTO"), MPOL_XCLIENT_PROTO, ngx_mail_policy_xclient_proto },
    { ngx_string("HELO"), MPOL_XCLIENT_HELO, ngx_mail_policy_xclient_helo },
    { ngx_string("NAME"), MPOL_XCLIENT_NAME, ngx_mail_policy_xclient_name },
    { ngx_string("LOGIN"), MPOL_XCLIENT_LOGIN, ngx_mail_policy_xclient_login },
    { ngx_string("ADDR"), MPOL_XCLIENT_ADDR, ngx_mail_policy_xclient_addr },
    { ngx_null_string, 0, NULL }
};


ngx_int_t
ngx_mail_policy_relay_xclient(ngx_mail_policy_relay_t *relay)
{
    u_char                     *p, *start;
    size_t                      n, size;
    ngx_mail_policy_xclient_t  *x;
    u_char                      buf[NGX_MAIL_POLICY_XCLIENT_LINE];

    if (relay->xclient_sent == 0) {
        ngx_mail_policy_relay_remember(relay);
    }

    start = ngx_mail_policy_relay_reserve(relay, NGX_MAIL_POLICY_XCLIENT_LINE);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(start, "XCLIENT", sizeof("XCLIENT") - 1);

    for (x = ngx_mail_policy_xclient; x->name.len; x++) {

        if (!(relay->ehlo.xclient & x->attribute)
            || (relay->xclient_sent & x->attribute))
        {
            continue;
        }

        /* a connection that is kept sees sessions with other ports */

        n = ngx_mail_policy_xclient_attribute(x,
                        (relay->keep && x->attribute == MPOL_XCLIENT_PORT)
                        ? NULL : relay->envelope, buf);

        size = (p - start) + n + 2;

        if (x->attribute == MPOL_XCLIENT_LOGIN
            && p > start + sizeof("XCLIENT") - 1)
        {
            size += NGX_MAIL_POLICY_XCLIENT_ADDR;
        }

        if (size > NGX_MAIL_POLICY_XCLIENT_LINE) {
            break;
        }

        p = ngx_cpymem(p, buf, n);
        relay->xclient_sent |= x->attribute;
    }

    if (p == start + sizeof("XCLIENT") - 1) {
        return NGX_DECLINED;
    }

    p = ngx_cpymem(p, CRLF, 2);
    ngx_mail_policy_relay_written(relay, p - start);

    return NGX_OK;
}


/* where there is no memory for it, the connection fits nobody */

static void
ngx_mail_policy_relay_remember(ngx_mail_policy_relay_t *relay)
{
    size_t  len;
    u_char  buf[NGX_MAIL_POLICY_IDENTITY];

    if (relay->identity.data) {
        ngx_free(relay->identity.data);
        ngx_str_null(&relay->identity);
    }

    len = ngx_mail_policy_relay_identity(relay->envelope, buf);

    relay->identity.data = ngx_alloc(len, &relay->log);

    if (relay->identity.data) {
        relay->identity.len = len;
        ngx_memcpy(relay->identity.data, buf, len);
    }
}


size_t
ngx_mail_policy_relay_identity(ngx_mail_policy_envelope_t *e, u_char *buf)
{
    u_char                     *p;
    ngx_mail_policy_xclient_t  *x;

    p = buf;

    for (x = ngx_mail_policy_xclient; x->name.len; x++) {
        if (x->attribute != MPOL_XCLIENT_PORT) {
            p += ngx_mail_policy_xclient_attribute(x, e, p);
        }
    }

    /* EHLO has it as it is; at most 255 octets */

    *p++ = ' ';
    p = ngx_cpymem(p, e->helo.data, e->helo.len);

    return p - buf;
}


ngx_uint_t
ngx_mail_policy_relay_identified(ngx_mail_policy_relay_t *relay,
    u_char *identity, size_t len)
{
    return relay->xclient_sent == 0
           || (relay->identity.len == len
               && ngx_memcmp(relay->identity.data, identity, len) == 0);
}


/*
 * Postfix asks anew, behind XCLIENT, whether the client - that of XCLIENT -
 * may use it, and offers it or not.  What the relay does not take any more,
 * would stay with the next client.
 */

ngx_uint_t
ngx_mail_policy_relay_renewable(ngx_mail_policy_relay_t *relay)
{
    return (relay->ehlo.extensions & MPOL_RELAY_XCLIENT)
           && !(relay->xclient_sent & ~NGX_MAIL_POLICY_XCLIENT_DONE
                & ~relay->ehlo.xclient);
}


/*
 * " NAME=value" in buf, of NGX_MAIL_POLICY_XCLIENT_LINE octets; e: NULL if the
 * value is not told
 */

static size_t
ngx_mail_policy_xclient_attribute(ngx_mail_policy_xclient_t *x,
    ngx_mail_policy_envelope_t *e, u_char *buf)
{
    u_char    *p;
    size_t     n, room;
    ngx_str_t  value;
    u_char     text[NGX_MAIL_POLICY_XCLIENT_VALUE];

    ngx_str_null(&value);

    if (e) {
        x->value(e, &value, text);
    }

    p = ngx_sprintf(buf, " %V=", &x->name);
    room = NGX_MAIL_POLICY_XCLIENT_LINE - sizeof("XCLIENT" CRLF) - (p - buf);

    n = value.len ? mpol_xtext_encode(value.data, value.len, p, room) : 0;

    if (n == 0 || n > room) {
        p = ngx_cpymem(p, "[UNAVAILABLE]", sizeof("[UNAVAILABLE]") - 1);
        return p - buf;
    }

    return p + n - buf;
}


/* CVE-2026-28753: a PTR record may hold anything */

static void
ngx_mail_policy_xclient_name(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    if (mpol_domain_valid(e->client_host.data, e->client_host.len)) {
        *value = e->client_host;
    }
}


static void
ngx_mail_policy_xclient_port(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    ngx_mail_policy_xclient_print_port(e->connection->sockaddr, value, buf);
}


static void
ngx_mail_policy_xclient_proto(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    if (e->protocol.len && e->protocol.data[0] == 'E') {
        ngx_str_set(value, "ESMTP");

    } else {
        ngx_str_set(value, "SMTP");
    }
}


static void
ngx_mail_policy_xclient_helo(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    if (mpol_hostname_clean(e->helo.data, e->helo.len)) {
        *value = e->helo;
    }
}


static void
ngx_mail_policy_xclient_login(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    *value = e->sasl_username;
}


static void
ngx_mail_policy_xclient_addr(ngx_mail_policy_envelope_t *e, ngx_str_t *value,
    u_char *buf)
{
    ngx_connection_t  *c;

    c = e->connection;

    ngx_mail_policy_xclient_print_addr(c->sockaddr, c->socklen, value, buf);
}


/* the address that the client has connected to, of ours */

static void
ngx_mail_policy_xclient_destaddr(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf)
{
    ngx_connection_t  *c;

    c = e->connection;

    if (ngx_connection_local_sockaddr(c, NULL, 0) == NGX_OK) {
        ngx_mail_policy_xclient_print_addr(c->local_sockaddr,
                                           c->local_socklen, value, buf);
    }
}


static void
ngx_mail_policy_xclient_destport(ngx_mail_policy_envelope_t *e,
    ngx_str_t *value, u_char *buf)
{
    ngx_connection_t  *c;

    c = e->connection;

    if (ngx_connection_local_sockaddr(c, NULL, 0) == NGX_OK) {
        ngx_mail_policy_xclient_print_port(c->local_sockaddr, value, buf);
    }
}


static void
ngx_mail_policy_xclient_print_addr(struct sockaddr *sa, socklen_t socklen,
    ngx_str_t *value, u_char *buf)
{
    u_char  *p;

    p = buf;

    switch (sa->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        p = ngx_cpymem(p, "IPV6:", sizeof("IPV6:") - 1);
        break;
#endif

    case AF_INET:
        break;

    default:
        return;
    }

    value->data = buf;
    value->len = p - buf + ngx_sock_ntop(sa, socklen, p, NGX_SOCKADDR_STRLEN,
                                         0);
}


/* one that nobody has told, and of a unix socket, is none */

static void
ngx_mail_policy_xclient_print_port(struct sockaddr *sa, ngx_str_t *value,
    u_char *buf)
{
    in_port_t  port;

    port = ngx_inet_get_port(sa);

    if (port) {
        value->data = buf;
        value->len = ngx_sprintf(buf, "%ui", (ngx_uint_t) port) - buf;
    }
}
