
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What other policy servers are told: the attributes that a Postfix 3 sends
 * (SMTPD_POLICY_README), of the session, the transaction and the recipient at
 * hand.  What we do not know is empty, as it is with Postfix.
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_attr.h"
#include "ngx_mail_policy_session.h"


/* names, numbers, addresses, and what TLS says */
#define NGX_MAIL_POLICY_REQUEST_SIZE  1536


typedef struct {
    u_char                         *p;      /* NULL: there was no room */
    u_char                         *last;
} ngx_mail_policy_request_t;


static size_t ngx_mail_policy_request_size(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
static ngx_mail_policy_rcpt_t *ngx_mail_policy_request_rcpt(
    ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_request_client(ngx_mail_policy_request_t *r,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_request_address(ngx_mail_policy_request_t *r,
    const char *address, const char *port, struct sockaddr *sockaddr,
    socklen_t socklen);
static void ngx_mail_policy_request_mail(ngx_mail_policy_request_t *r,
    ngx_mail_policy_transaction_t *t, ngx_mail_policy_rcpt_t *rcpt,
    ngx_mail_policy_service_point_e point);
static void ngx_mail_policy_request_login(ngx_mail_policy_request_t *r,
    ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_request_tls(ngx_mail_policy_request_t *r,
    ngx_connection_t *c);
static void ngx_mail_policy_request_put(ngx_mail_policy_request_t *r,
    const char *name, ngx_str_t *value);
static void ngx_mail_policy_request_text(ngx_mail_policy_request_t *r,
    const char *name, const char *text);
static void ngx_mail_policy_request_number(ngx_mail_policy_request_t *r,
    const char *name, uint64_t n);


/* in the order of ngx_mail_policy_service_point_e */

static const char  *ngx_mail_policy_request_states[] = {
    "RCPT", "DATA", "END-OF-MESSAGE"
};


ngx_int_t
ngx_mail_policy_service_request(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_service_point_e point,
    ngx_pool_t *pool, ngx_str_t *request)
{
    size_t                       size;
    ngx_mail_policy_request_t    r;
    ngx_mail_policy_envelope_t  *e;

    e = &t->session->envelope;

    rcpt = rcpt ? rcpt : ngx_mail_policy_request_rcpt(t);
    size = ngx_mail_policy_request_size(t, rcpt);

    /* of a "listen" on all addresses; if it fails, it is that */

    (void) ngx_connection_local_sockaddr(e->connection, NULL, 0);

    request->data = ngx_pnalloc(pool, size);
    if (request->data == NULL) {
        return NGX_ERROR;
    }

    r.p = request->data;
    r.last = request->data + size;

    ngx_mail_policy_request_text(&r, "request", "smtpd_access_policy");
    ngx_mail_policy_request_text(&r, "protocol_state",
                                 ngx_mail_policy_request_states[point]);
    ngx_mail_policy_request_client(&r, e);
    ngx_mail_policy_request_mail(&r, t, rcpt, point);
    ngx_mail_policy_request_login(&r, e);
    ngx_mail_policy_request_tls(&r, e->connection);
    ngx_mail_policy_request_text(&r, "policy_context", "");

    r.p = mpol_attr_end(r.p, r.last);

    if (r.p == NULL) {
        return NGX_ERROR;
    }

    request->len = r.p - request->data;

    return NGX_OK;
}


static size_t
ngx_mail_policy_request_size(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_envelope_t  *e;

    e = &t->session->envelope;

    return NGX_MAIL_POLICY_REQUEST_SIZE + 2 * e->client_host.len
           + e->helo.len + e->sasl_username.len + e->sender.len
           + (rcpt ? rcpt->to.address.len : 0);
}


/* of all recipients: the one, if it is one */

static ngx_mail_policy_rcpt_t *
ngx_mail_policy_request_rcpt(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    if (t->session->envelope.recipients != 1) {
        return NULL;
    }

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        if (rcpt->state == NGX_MAIL_POLICY_RCPT_ACCEPTED) {
            return rcpt;
        }
    }

    return NULL;
}


/* "client_name" is one that leads back; the name it has, we do not know */

static void
ngx_mail_policy_request_client(ngx_mail_policy_request_t *r,
    ngx_mail_policy_envelope_t *e)
{
    ngx_str_t          host;
    ngx_connection_t  *c;

    c = e->connection;
    host = e->client_host;

    if (host.len == 0) {
        ngx_str_set(&host, "unknown");
    }

    ngx_mail_policy_request_text(r, "protocol_name",
                                 e->protocol.data[0] == 'E' ? "ESMTP"
                                                            : "SMTP");
    ngx_mail_policy_request_address(r, "client_address", "client_port",
                                    c->sockaddr, c->socklen);
    ngx_mail_policy_request_put(r, "client_name", &host);
    ngx_mail_policy_request_put(r, "reverse_client_name", &host);
    ngx_mail_policy_request_address(r, "server_address", "server_port",
                                    c->local_sockaddr, c->local_socklen);
    ngx_mail_policy_request_put(r, "helo_name", &e->helo);
}


static void
ngx_mail_policy_request_address(ngx_mail_policy_request_t *r,
    const char *address, const char *port, struct sockaddr *sockaddr,
    socklen_t socklen)
{
    ngx_str_t  text;
    u_char     buf[NGX_SOCKADDR_STRLEN];

    if (sockaddr == NULL
#if (NGX_HAVE_UNIX_DOMAIN)
        || sockaddr->sa_family == AF_UNIX
#endif
        )
    {
        ngx_mail_policy_request_text(r, address, "");
        ngx_mail_policy_request_text(r, port, "");
        return;
    }

    text.data = buf;
    text.len = ngx_sock_ntop(sockaddr, socklen, buf, NGX_SOCKADDR_STRLEN, 0);

    ngx_mail_policy_request_put(r, address, &text);
    ngx_mail_policy_request_number(r, port, ngx_inet_get_port(sockaddr));
}


static void
ngx_mail_policy_request_mail(ngx_mail_policy_request_t *r,
    ngx_mail_policy_transaction_t *t, ngx_mail_policy_rcpt_t *rcpt,
    ngx_mail_policy_service_point_e point)
{
    ngx_str_t                    text, recipient;
    ngx_mail_policy_envelope_t  *e;
    u_char                       buf[4 * NGX_ATOMIC_T_LEN];

    e = &t->session->envelope;

    ngx_str_null(&recipient);

    if (rcpt) {
        recipient = rcpt->to.address;
    }

    ngx_mail_policy_request_put(r, "sender", &e->sender);
    ngx_mail_policy_request_put(r, "recipient", &recipient);
    ngx_mail_policy_request_number(r, "recipient_count",
                                   point == NGX_MAIL_POLICY_SERVICE_RCPT
                                   ? 0 : e->recipients);
    ngx_mail_policy_request_text(r, "queue_id", "");

    /* the same for all questions of a transaction, and for no other one */

    text.data = buf;
    text.len = ngx_sprintf(buf, "%xi.%xi.%xA.%xi",
                           (ngx_uint_t) t->record.start, (ngx_uint_t) ngx_pid,
                           e->connection->number, e->transaction)
               - buf;

    ngx_mail_policy_request_put(r, "instance", &text);
    ngx_mail_policy_request_number(r, "size", e->message_size);
    ngx_mail_policy_request_text(r, "etrn_domain", "");
    ngx_mail_policy_request_text(r, "stress", "");
}


static void
ngx_mail_policy_request_login(ngx_mail_policy_request_t *r,
    ngx_mail_policy_envelope_t *e)
{
    ngx_mail_policy_request_put(r, "sasl_method", &e->sasl_method);
    ngx_mail_policy_request_put(r, "sasl_username", &e->sasl_username);
    ngx_mail_policy_request_text(r, "sasl_sender", "");
    ngx_mail_policy_request_text(r, "ccert_subject", "");
    ngx_mail_policy_request_text(r, "ccert_issuer", "");
    ngx_mail_policy_request_text(r, "ccert_fingerprint", "");
    ngx_mail_policy_request_text(r, "ccert_pubkey_fingerprint", "");
}


static void
ngx_mail_policy_request_tls(ngx_mail_policy_request_t *r, ngx_connection_t *c)
{
    SSL  *ssl;

    if (c->ssl == NULL) {
        ngx_mail_policy_request_text(r, "encryption_protocol", "");
        ngx_mail_policy_request_text(r, "encryption_cipher", "");
        ngx_mail_policy_request_number(r, "encryption_keysize", 0);
        return;
    }

    ssl = c->ssl->connection;

    ngx_mail_policy_request_text(r, "encryption_protocol",
                                 SSL_get_version(ssl));
    ngx_mail_policy_request_text(r, "encryption_cipher",
                                 SSL_get_cipher_name(ssl));
    ngx_mail_policy_request_number(r, "encryption_keysize",
                                   SSL_get_cipher_bits(ssl, NULL));
}


static void
ngx_mail_policy_request_put(ngx_mail_policy_request_t *r, const char *name,
    ngx_str_t *value)
{
    mpol_str_t  v;

    v.data = value->data;
    v.len = value->len;

    r->p = mpol_attr_write(r->p, r->last, name, ngx_strlen(name), &v);
}


static void
ngx_mail_policy_request_text(ngx_mail_policy_request_t *r, const char *name,
    const char *text)
{
    ngx_str_t  value;

    value.data = (u_char *) text;
    value.len = ngx_strlen(text);

    ngx_mail_policy_request_put(r, name, &value);
}


static void
ngx_mail_policy_request_number(ngx_mail_policy_request_t *r, const char *name,
    uint64_t n)
{
    ngx_str_t  value;
    u_char     buf[NGX_INT64_LEN];

    value.data = buf;
    value.len = ngx_sprintf(buf, "%uL", n) - buf;

    ngx_mail_policy_request_put(r, name, &value);
}
