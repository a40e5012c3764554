
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * On whose behalf a connection to a relay is made, below SMTP: the address it
 * comes from (proxy_bind), and the header of the PROXY protocol in front of
 * all else, TLS too.  No events arrive here.
 *
 * Neither can be taken back, so a connection that tells of its client is bound
 * to it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_proxy.h"
#include "ngx_mail_policy_relay.h"
#include "ngx_mail_policy_value.h"


static ngx_int_t ngx_mail_policy_relay_bind_eval(
    ngx_mail_policy_relay_t *relay, ngx_addr_t **addr);
static ngx_int_t ngx_mail_policy_relay_proxy_v1(
    ngx_mail_policy_relay_t *relay, ngx_connection_t *c);
static ngx_int_t ngx_mail_policy_relay_proxy_v2(
    ngx_mail_policy_relay_t *relay, ngx_connection_t *c);
static ngx_uint_t ngx_mail_policy_relay_proxy_family(ngx_connection_t *c);


ngx_int_t
ngx_mail_policy_relay_bind(ngx_mail_policy_relay_t *relay)
{
    ngx_addr_t                          *addr;
    const ngx_mail_policy_relay_conf_t  *conf;

    conf = relay->conf;
    addr = conf->bind;

    if (conf->bind_value) {
        relay->bound = 1;

        if (ngx_mail_policy_relay_bind_eval(relay, &addr) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    /* one of another family is for other relays */

    if (addr == NULL
        || addr->sockaddr->sa_family != relay->pc.sockaddr->sa_family)
    {
        return NGX_OK;
    }

    relay->pc.local = addr;

#if (NGX_HAVE_TRANSPARENT_PROXY)
    relay->pc.transparent = conf->bind_transparent;
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_bind_eval(ngx_mail_policy_relay_t *relay,
    ngx_addr_t **addr)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    *addr = NULL;

    if (relay->envelope == NULL) {
        return NGX_OK;
    }

    if (ngx_mail_policy_value_eval(relay->pool, relay->conf->bind_value,
                                   relay->envelope, &value)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_OK;
    }

    *addr = ngx_palloc(relay->pool, sizeof(ngx_addr_t));
    if (*addr == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_parse_addr_port(relay->pool, *addr, value.data, value.len);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, &relay->log, 0,
                      "invalid local address \"%V\"", &value);
        *addr = NULL;
        return NGX_OK;
    }

    (*addr)->name = value;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_relay_proxy(ngx_mail_policy_relay_t *relay)
{
    ngx_connection_t  *c;

    relay->bound = 1;

    /* NULL: nobody's but our own */

    c = relay->envelope ? relay->envelope->connection : NULL;

    if (c && ngx_connection_local_sockaddr(c, NULL, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    return (relay->conf->proxy_protocol == 2)
           ? ngx_mail_policy_relay_proxy_v2(relay, c)
           : ngx_mail_policy_relay_proxy_v1(relay, c);
}


static ngx_int_t
ngx_mail_policy_relay_proxy_v1(ngx_mail_policy_relay_t *relay,
    ngx_connection_t *c)
{
    u_char  *p, *last;

    p = ngx_mail_policy_relay_reserve(relay, NGX_PROXY_PROTOCOL_MAX_HEADER);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (c && ngx_mail_policy_relay_proxy_family(c)) {
        last = ngx_proxy_protocol_write(c, p,
                                        p + NGX_PROXY_PROTOCOL_MAX_HEADER);
        if (last == NULL) {
            return NGX_ERROR;
        }

    } else {
        last = ngx_cpymem(p, "PROXY UNKNOWN" CRLF,
                          sizeof("PROXY UNKNOWN" CRLF) - 1);
    }

    ngx_mail_policy_relay_written(relay, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_proxy_v2(ngx_mail_policy_relay_t *relay,
    ngx_connection_t *c)
{
    u_char               *p;
    mpol_proxy_t          proxy;
    struct sockaddr_in   *in, *local_in;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *in6, *local_in6;
#endif

    p = ngx_mail_policy_relay_reserve(relay, MPOL_PROXY_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&proxy, sizeof(mpol_proxy_t));

    proxy.family = c ? ngx_mail_policy_relay_proxy_family(c) : 0;

    switch (proxy.family) {

    case 4:
        in = (struct sockaddr_in *) c->sockaddr;
        local_in = (struct sockaddr_in *) c->local_sockaddr;

        proxy.source = (uint8_t *) &in->sin_addr;
        proxy.destination = (uint8_t *) &local_in->sin_addr;
        break;

#if (NGX_HAVE_INET6)
    case 6:
        in6 = (struct sockaddr_in6 *) c->sockaddr;
        local_in6 = (struct sockaddr_in6 *) c->local_sockaddr;

        proxy.source = in6->sin6_addr.s6_addr;
        proxy.destination = local_in6->sin6_addr.s6_addr;
        break;
#endif

    default:
        break;
    }

    if (proxy.family) {
        proxy.source_port = ngx_inet_get_port(c->sockaddr);
        proxy.destination_port = ngx_inet_get_port(c->local_sockaddr);
    }

    ngx_mail_policy_relay_written(relay, mpol_proxy_v2(&proxy, p));

    return NGX_OK;
}


/* 0: of no use; another proxy may have told of a client of another family */

static ngx_uint_t
ngx_mail_policy_relay_proxy_family(ngx_connection_t *c)
{
    if (c->sockaddr->sa_family != c->local_sockaddr->sa_family) {
        return 0;
    }

    switch (c->sockaddr->sa_family) {

    case AF_INET:
        return 4;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        return 6;
#endif

    default:
        return 0;
    }
}
