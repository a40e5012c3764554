
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One request: attributes to envelope, limits asked, verdict to answer.
 *
 *     RCPT, of a message not charged   mail -> rcpt -> answer
 *     RCPT, further recipients         rcpt -> answer
 *     DATA, END-OF-MESSAGE             mail -> rcpt -> answer, for all
 *                                      recipients; nothing if it is charged
 *     other states                     DUNNO
 *
 * If the second step refuses, the first is given back.  Else both are kept as
 * soon as the answer is out, and given back if it does not get there.
 * The same question for the same recipient, as a further restriction puts it,
 * has the same answer and costs nothing.  A refusal holds for a while only: who
 * tries that recipient again later asks anew.
 *
 * Events: the verdicts of both steps.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_addr.h"
#include "mpol_text.h"
#include "ngx_mail_policy_postfix.h"


static ngx_int_t ngx_mail_policy_postfix_message(
    ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_answers(
    ngx_mail_policy_postfix_message_t *m, ngx_str_t *recipient);
static ngx_int_t ngx_mail_policy_postfix_fill(ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_protocol_name(
    ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_addresses(
    ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_sockaddr(
    ngx_mail_policy_postfix_t *s, ngx_uint_t address, ngx_uint_t port,
    struct sockaddr **sockaddr, socklen_t *socklen);
static ngx_int_t ngx_mail_policy_postfix_split(ngx_pool_t *pool,
    ngx_str_t *address, ngx_str_t *local, ngx_str_t *domain);
static ngx_int_t ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_mail(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s);
static void ngx_mail_policy_postfix_check(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_check_t *check, ngx_mail_policy_check_pt handler);
static void ngx_mail_policy_postfix_mail_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_postfix_rcpt_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_refused(
    ngx_mail_policy_postfix_t *s, ngx_mail_policy_verdict_t *verdict);
static ngx_int_t ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s,
    const char *action, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_postfix_paid(ngx_mail_policy_postfix_t *s);
static ngx_int_t ngx_mail_policy_postfix_remember(
    ngx_mail_policy_postfix_t *s, ngx_uint_t refused);
static void ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s);
static ngx_uint_t ngx_mail_policy_postfix_is(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, const char *text);
static void ngx_mail_policy_postfix_value(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, ngx_str_t *value);


/* AF_UNSPEC: an address that nobody has told; variables of it are empty */

static struct sockaddr  ngx_mail_policy_postfix_unknown;


ngx_int_t
ngx_mail_policy_postfix_request(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           recipient;
    ngx_uint_t                          rcpt;
    ngx_mail_policy_postfix_message_t  *m;

    mpol_attr_parse(s->in, s->attr.pos, s->values);

    if (!ngx_mail_policy_postfix_is(s, MPOL_ATTR_REQUEST_TYPE,
                                    "smtpd_access_policy"))
    {
        ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                      "policy client sent a request without "
                      "\"request=smtpd_access_policy\", closing");
        return NGX_ERROR;
    }

    s->connection->log->action = "asking limits for a policy client";

    rcpt = ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "RCPT");

    if (!rcpt && !ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "DATA")
        && !ngx_mail_policy_postfix_is(s, MPOL_ATTR_STATE, "END-OF-MESSAGE"))
    {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    if (ngx_mail_policy_postfix_message(s) != NGX_OK) {
        return NGX_ERROR;
    }

    m = s->message;

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &recipient);

    if (rcpt && ngx_mail_policy_postfix_answers(m, &recipient)) {
        ngx_memcpy(s->out, m->answer, m->answer_len);
        s->out_last = m->answer_len;
        return NGX_OK;
    }

    if (!rcpt && m->paid) {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    s->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (s->pool == NULL) {
        return NGX_ERROR;
    }

    s->known = m->charged.nelts;

    if (ngx_mail_policy_postfix_fill(s) != NGX_OK
        || ngx_mail_policy_postfix_fetch(s) != NGX_OK)
    {
        return NGX_ERROR;
    }

    s->count = rcpt ? 1 : ngx_max(s->envelope.recipients, 1);

    return m->paid ? ngx_mail_policy_postfix_rcpt(s)
                   : ngx_mail_policy_postfix_mail(s);
}


/* the message that is asked for, which may be the same as before */

static ngx_int_t
ngx_mail_policy_postfix_message(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           instance;
    ngx_pool_t                         *pool;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_INSTANCE, &instance);

    if (m && instance.len && instance.len == m->instance.len
        && ngx_memcmp(instance.data, m->instance.data, instance.len) == 0
        && ++m->requests < NGX_MAIL_POLICY_POSTFIX_SAME)
    {
        return NGX_OK;
    }

    ngx_mail_policy_postfix_forget(s);

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    m = ngx_pcalloc(pool, sizeof(ngx_mail_policy_postfix_message_t));

    if (m == NULL
        || ngx_array_init(&m->charged, pool, 1,
                          sizeof(ngx_mail_policy_charged_t))
           != NGX_OK)
    {
        goto failed;
    }

    m->pool = pool;
    m->instance.len = instance.len;
    m->instance.data = ngx_pstrdup(pool, &instance);

    if (m->instance.data == NULL) {
        goto failed;
    }

    s->message = m;
    s->envelope.transaction++;

    return NGX_OK;

failed:

    ngx_destroy_pool(pool);

    return NGX_ERROR;
}


/*
 * 1 if the last answer is the one for this recipient.  Postfix goes on with
 * its restrictions behind DEFER_IF_PERMIT: were the next one told that there
 * is room by now, that would be charged, and the recipient deferred anyway.
 */

static ngx_uint_t
ngx_mail_policy_postfix_answers(ngx_mail_policy_postfix_message_t *m,
    ngx_str_t *recipient)
{
    if (m->answer_len == 0 || recipient->len != m->recipient.len
        || ngx_memcmp(recipient->data, m->recipient.data, recipient->len) != 0)
    {
        return 0;
    }

    return !m->refused
           || ngx_current_msec - m->answered < NGX_MAIL_POLICY_POSTFIX_REFUSED;
}


/*
 * Slices of the request stay where they are until it is answered; what is
 * made of them is on its pool.
 */

static ngx_int_t
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
    ngx_connection_t  *c;

    c = &s->client;

    *c = *s->connection;
    c->ssl = NULL;

    if (ngx_mail_policy_postfix_sockaddr(s, MPOL_ATTR_SERVER_ADDRESS,
                                         MPOL_ATTR_SERVER_PORT,
                                         &c->local_sockaddr,
                                         &c->local_socklen)
        == NGX_ERROR)
    {
        return NGX_ERROR;
    }

    c->sockaddr = &ngx_mail_policy_postfix_unknown;
    c->socklen = sizeof(struct sockaddr);
    ngx_str_null(&c->addr_text);

    switch (ngx_mail_policy_postfix_sockaddr(s, MPOL_ATTR_CLIENT_ADDRESS,
                                             MPOL_ATTR_CLIENT_PORT,
                                             &c->sockaddr, &c->socklen))
    {

    case NGX_OK:
        ngx_mail_policy_postfix_value(s, MPOL_ATTR_CLIENT_ADDRESS,
                                      &c->addr_text);
        return NGX_OK;

    case NGX_DECLINED:
        return NGX_OK;

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}


/* NGX_DECLINED: there is no address, and nothing was set */

static ngx_int_t
ngx_mail_policy_postfix_sockaddr(ngx_mail_policy_postfix_t *s,
    ngx_uint_t address, ngx_uint_t port, struct sockaddr **sockaddr,
    socklen_t *socklen)
{
    uint64_t    n;
    ngx_int_t   rc;
    ngx_str_t   text;
    ngx_addr_t  addr;

    ngx_mail_policy_postfix_value(s, address, &text);

    if (text.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_parse_addr(s->pool, &addr, text.data, text.len);
    if (rc != NGX_OK) {
        return rc;
    }

    n = mpol_attr_number(&s->values[port]);
    ngx_inet_set_port(addr.sockaddr, (in_port_t) (n < 65536 ? n : 0));

    *sockaddr = addr.sockaddr;
    *socklen = addr.socklen;

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


/* all that is to be known of it is known at once */

static ngx_int_t
ngx_mail_policy_postfix_fetch(ngx_mail_policy_postfix_t *s)
{
    uint64_t  mask;

    ngx_mail_policy_fetch_drop(&s->fetch);

    mask = ngx_mail_policy_fetch_mask(s->conf, NGX_MAIL_POLICY_AT_RCPT);

    if (mask == 0) {
        return NGX_OK;
    }

    s->fetch = ngx_mail_policy_fetch_alone(s->main_conf, &s->envelope);
    if (s->fetch == NULL) {
        return NGX_ERROR;
    }

    s->fetch->recipient = s->envelope.recipient;
    s->fetch->recipient_domain = s->envelope.recipient_domain;
    s->envelope.found = &s->fetch->found;

    ngx_mail_policy_fetch_start(s->fetch, mask);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_postfix_mail(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    ngx_mail_policy_postfix_check(s, &s->mail,
                                  ngx_mail_policy_postfix_mail_handler);

    rc = ngx_mail_policy_check_start(&s->mail, NGX_MAIL_POLICY_CHECK_MAIL);

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_rcpt(s) : rc;
}


static ngx_int_t
ngx_mail_policy_postfix_rcpt(ngx_mail_policy_postfix_t *s)
{
    ngx_int_t  rc;

    ngx_mail_policy_postfix_check(s, &s->rcpt,
                                  ngx_mail_policy_postfix_rcpt_handler);

    s->rcpt.charged = &s->message->charged;
    s->rcpt.prepaid = !s->message->paid;
    s->rcpt.recipient = s->envelope.recipient;
    s->rcpt.recipient_domain = s->envelope.recipient_domain;

    rc = ngx_mail_policy_check_start(&s->rcpt, NGX_MAIL_POLICY_CHECK_RCPT);

    /* one recipient at a time: NGX_BUSY there is none */

    return (rc == NGX_OK) ? ngx_mail_policy_postfix_passed(s) : rc;
}


static void
ngx_mail_policy_postfix_check(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_check_t *check, ngx_mail_policy_check_pt handler)
{
    ngx_memzero(check, sizeof(ngx_mail_policy_check_t));

    check->store = s->main_conf->store;
    check->conf = s->conf->limits;
    check->envelope = &s->envelope;
    check->fetch = s->fetch;
    check->pool = s->pool;
    check->handler = handler;
    check->data = s;
    check->count = s->count;
}


static void
ngx_mail_policy_postfix_mail_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_rcpt(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    if (rc != NGX_AGAIN) {
        ngx_mail_policy_postfix_answered(s, rc);
    }
}


static void
ngx_mail_policy_postfix_rcpt_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_postfix_t *s = data;

    ngx_int_t  rc;

    rc = (verdict->rc == NGX_OK)
         ? ngx_mail_policy_postfix_passed(s)
         : ngx_mail_policy_postfix_refused(s, verdict);

    ngx_mail_policy_postfix_answered(s, rc);
}


/* if the answer does not get out, nothing asks for this message again */

static ngx_int_t
ngx_mail_policy_postfix_passed(ngx_mail_policy_postfix_t *s)
{
    s->message->paid = 1;

    if (ngx_mail_policy_postfix_paid(s) != NGX_OK
        || ngx_mail_policy_postfix_say(s, "DUNNO", NULL) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_postfix_remember(s, 0);
}


static ngx_int_t
ngx_mail_policy_postfix_refused(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_str_t  text;

    /* what the recipient's limits refuse, the sender's have not let pass */

    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);

    s->message->charged.nelts = s->known;

    /* behind "450 " */

    text.data = verdict->text.data + 4;
    text.len = verdict->text.len - 4;

    if (ngx_mail_policy_postfix_say(s, verdict->code < 500 ? "DEFER_IF_PERMIT"
                                                           : "REJECT",
                                    &text)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_postfix_remember(s, 1);
}


static ngx_int_t
ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s, const char *action,
    ngx_str_t *text)
{
    size_t   len;
    u_char  *p, *last;

    last = s->out + NGX_MAIL_POLICY_POSTFIX_ANSWER - 2;

    p = ngx_slprintf(s->out, last, "action=%s", action);

    if (text) {
        *p++ = ' ';

        len = ngx_min(text->len, (size_t) (last - p));

        mpol_reply_clean(text->data, len, p);
        p += len;
    }

    *p++ = LF;
    *p++ = LF;

    s->out_pos = 0;
    s->out_last = p - s->out;

    return NGX_OK;
}


/* the keys under which the message is paid for outlive this request */

static ngx_int_t
ngx_mail_policy_postfix_paid(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                          i;
    ngx_mail_policy_charged_t          *seen;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    seen = m->charged.elts;

    for (i = s->known; i < m->charged.nelts; i++) {
        seen[i].key.data = ngx_pstrdup(m->pool, &seen[i].key);
        if (seen[i].key.data == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* for the next restriction, which asks the same; it was the last step */

static ngx_int_t
ngx_mail_policy_postfix_remember(ngx_mail_policy_postfix_t *s,
    ngx_uint_t refused)
{
    ngx_str_t                          *recipient;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    recipient = &s->envelope.recipient;

    if (m->recipient.data == NULL) {
        m->recipient.data = ngx_pnalloc(m->pool, MPOL_ATTR_LINE);
        if (m->recipient.data == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memcpy(m->recipient.data, recipient->data, recipient->len);
    m->recipient.len = recipient->len;

    ngx_memcpy(m->answer, s->out, s->out_last);
    m->answer_len = s->out_last;
    m->answered = ngx_current_msec;
    m->refused = refused;

    return NGX_OK;
}


/* nobody tells us what becomes of it, so all that was charged stands */

void
ngx_mail_policy_postfix_sent(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_check_accepted(&s->rcpt);

    ngx_mail_policy_check_keep(&s->mail);
    ngx_mail_policy_check_keep(&s->rcpt);

    ngx_mail_policy_postfix_end(s);
}


void
ngx_mail_policy_postfix_forget(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_end(s);

    if (s->message) {
        ngx_destroy_pool(s->message->pool);
        s->message = NULL;
    }
}


/* gives back what was not kept, and the memory of the request */

static void
ngx_mail_policy_postfix_end(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_check_give_back(&s->mail);
    ngx_mail_policy_check_give_back(&s->rcpt);

    ngx_mail_policy_fetch_drop(&s->fetch);

    if (s->pool == NULL) {
        return;
    }

    /* both have been on it */

    ngx_memzero(&s->mail, sizeof(ngx_mail_policy_check_t));
    ngx_memzero(&s->rcpt, sizeof(ngx_mail_policy_check_t));

    ngx_destroy_pool(s->pool);
    s->pool = NULL;
}


static ngx_uint_t
ngx_mail_policy_postfix_is(ngx_mail_policy_postfix_t *s, ngx_uint_t attribute,
    const char *text)
{
    mpol_str_t  *value;

    value = &s->values[attribute];

    return value->len == ngx_strlen(text)
           && ngx_strncmp(value->data, text, value->len) == 0;
}


static void
ngx_mail_policy_postfix_value(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, ngx_str_t *value)
{
    value->len = s->values[attribute].len;
    value->data = value->len ? (u_char *) s->values[attribute].data
                             : (u_char *) "";
}
