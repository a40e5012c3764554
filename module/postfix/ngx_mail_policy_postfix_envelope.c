
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a request says, as the envelope that limits are asked with.  No events
 * arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_addr.h"
#include "ngx_mail_policy_postfix.h"


static void ngx_mail_policy_postfix_protocol_name(
    ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_addresses(
    ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_split(ngx_pool_t *pool,
    ngx_str_t *address, ngx_str_t *local, ngx_str_t *domain);


/* AF_UNSPEC: an address that nobody has told; variables of it are empty */

static struct sockaddr  ngx_mail_policy_postfix_unknown;


/*
 * Slices of the request stay where they are until it is answered; what is
 * made of them is on its pool.
 */

ngx_int_t
ngx_mail_policy_postfix_fill(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                   n;
    ngx_mail_policy_envelope_t  *e;

    e = &s->envelope;
    n = e->transaction;

    ngx_memzero(e, sizeof(ngx_mail_policy_envelope_t));

    e->connection = &s->client;
    e->server_name = s->core->server_name;
    e->transaction = n;
    e->recipients = mpol_attr_number(&s->values[MPOL_ATTR_RECIPIENT_COUNT]);
    e->message_size = mpol_attr_number(&s->values[MPOL_ATTR_SIZE]);

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_CLIENT_NAME, &e->client_host);
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_HELO_NAME, &e->helo);
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_SASL_METHOD, &e->sasl_method);
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_SASL_USERNAME,
                                  &e->sasl_username);
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_SENDER, &e->sender);
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &e->recipient);

    /* Postfix says "unknown" for a name that does not lead back */

    if (ngx_mail_policy_postfix_is(s, MPOL_ATTR_CLIENT_NAME, "unknown")
        || !mpol_hostname_clean(e->client_host.data, e->client_host.len))
    {
        ngx_str_null(&e->client_host);
    }

    ngx_mail_policy_postfix_protocol_name(s);

    if (ngx_mail_policy_postfix_addresses(s) != NGX_OK
        || ngx_mail_policy_postfix_split(s->pool, &e->sender,
                                         &e->sender_local, &e->sender_domain)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_postfix_split(s->pool, &e->recipient, NULL,
                                         &e->recipient_domain);
}


/* Postfix says SMTP or ESMTP; the rest is said by other attributes */

static void
ngx_mail_policy_postfix_protocol_name(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t  tls;
    ngx_str_t  *protocol;

    protocol = &s->envelope.protocol;

    if (!ngx_mail_policy_postfix_is(s, MPOL_ATTR_PROTOCOL, "ESMTP")) {
        ngx_str_set(protocol, "SMTP");
        return;
    }

    tls = (s->values[MPOL_ATTR_ENCRYPTION].len != 0);

    if (s->envelope.sasl_username.len) {
        if (tls) {
            ngx_str_set(protocol, "ESMTPSA");

        } else {
            ngx_str_set(protocol, "ESMTPA");
        }

    } else if (tls) {
        ngx_str_set(protocol, "ESMTPS");

    } else {
        ngx_str_set(protocol, "ESMTP");
    }
}


/* the connection that Postfix has with its client, as far as it is told */

static ngx_int_t
ngx_mail_policy_postfix_addresses(ngx_mail_policy_postfix_t *s)
{
    ngx_addr_t         addr;
    ngx_connection_t  *c;

    c = &s->client;

    *c = *s->connection;
    c->ssl = NULL;

    switch (ngx_mail_policy_postfix_addr(s, s->pool, MPOL_ATTR_SERVER_ADDRESS,
                                         MPOL_ATTR_SERVER_PORT, &addr))
    {

    case NGX_OK:
        c->local_sockaddr = addr.sockaddr;
        c->local_socklen = addr.socklen;
        break;

    case NGX_DECLINED:
        break;

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }

    c->sockaddr = &ngx_mail_policy_postfix_unknown;
    c->socklen = sizeof(struct sockaddr);
    ngx_str_null(&c->addr_text);

    switch (ngx_mail_policy_postfix_addr(s, s->pool, MPOL_ATTR_CLIENT_ADDRESS,
                                         MPOL_ATTR_CLIENT_PORT, &addr))
    {

    case NGX_OK:
        c->sockaddr = addr.sockaddr;
        c->socklen = addr.socklen;
        ngx_mail_policy_postfix_value(s, MPOL_ATTR_CLIENT_ADDRESS,
                                      &c->addr_text);
        return NGX_OK;

    case NGX_DECLINED:
        return NGX_OK;

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}


ngx_int_t
ngx_mail_policy_postfix_addr(ngx_mail_policy_postfix_t *s, ngx_pool_t *pool,
    ngx_uint_t address, ngx_uint_t port, ngx_addr_t *addr)
{
    uint64_t   n;
    ngx_int_t  rc;
    ngx_str_t  text;

    ngx_mail_policy_postfix_value(s, address, &text);

    if (text.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_parse_addr(pool, addr, text.data, text.len);
    if (rc != NGX_OK) {
        return rc;
    }

    n = mpol_attr_number(&s->values[port]);
    ngx_inet_set_port(addr->sockaddr, (in_port_t) (n < 65536 ? n : 0));

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_postfix_split(ngx_pool_t *pool, ngx_str_t *address,
    ngx_str_t *local, ngx_str_t *domain)
{
    size_t  at;

    for (at = address->len; at > 0 && address->data[at - 1] != '@'; at--) {
        /* void */
    }

    if (local) {
        local->data = address->data;
        local->len = at ? at - 1 : address->len;
    }

    if (at == 0 || at == address->len) {
        return NGX_OK;
    }

    domain->len = address->len - at;
    domain->data = ngx_pnalloc(pool, domain->len);
    if (domain->data == NULL) {
        return NGX_ERROR;
    }

    ngx_strlow(domain->data, address->data + at, domain->len);

    return NGX_OK;
}


ngx_uint_t
ngx_mail_policy_postfix_is(ngx_mail_policy_postfix_t *s, ngx_uint_t attribute,
    const char *text)
{
    mpol_str_t  *value;

    value = &s->values[attribute];

    return value->len == ngx_strlen(text)
           && ngx_strncmp(value->data, text, value->len) == 0;
}


void
ngx_mail_policy_postfix_value(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, ngx_str_t *value)
{
    value->len = s->values[attribute].len;
    value->data = value->len ? (u_char *) s->values[attribute].data
                             : (u_char *) "";
}
