
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The format "postfix".  Whoever reads it finds the client's address at the
 * first "[", as nothing that a client has said stands in front of that: it
 * stands behind, and has no control characters.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_queue.h"
#include "mpol_smtpd.h"
#include "ngx_mail_policy_log_postfix.h"
#include "ngx_mail_policy_metrics.h"


/* names, numbers and punctuation; values come on top */
#define NGX_MAIL_POLICY_LOG_POSTFIX_SIZE   1024

/* of a login, as Postfix cuts it */
#define NGX_MAIL_POLICY_LOG_POSTFIX_LOGIN  100


typedef struct {
    u_char     *p;
    u_char     *last;
    ngx_str_t   host;       /* name[address] */
} ngx_mail_policy_log_postfix_t;


static size_t ngx_mail_policy_log_postfix_size(
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_log_event_t *event);
static ngx_int_t ngx_mail_policy_log_postfix_host(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *e, ngx_str_t *host);
static void ngx_mail_policy_log_postfix_reject(
    ngx_mail_policy_log_postfix_t *l, ngx_mail_policy_envelope_t *e,
    ngx_mail_policy_log_event_t *event);
static void ngx_mail_policy_log_postfix_what(
    ngx_mail_policy_log_postfix_t *l, ngx_mail_policy_envelope_t *e,
    ngx_mail_policy_log_event_t *event, mpol_smtpd_reply_t *reply);
static void ngx_mail_policy_log_postfix_login(
    ngx_mail_policy_log_postfix_t *l, ngx_mail_policy_log_event_t *event);
static void ngx_mail_policy_log_postfix_transaction(
    ngx_mail_policy_log_postfix_t *l, ngx_mail_policy_envelope_t *e);
static void ngx_mail_policy_log_postfix_put(ngx_mail_policy_log_postfix_t *l,
    const char *fmt, ...);
static void ngx_mail_policy_log_postfix_bracketed(
    ngx_mail_policy_log_postfix_t *l, const char *name, ngx_str_t *value);


/* in the order of ngx_mail_policy_at_command_e */

static const char  *ngx_mail_policy_log_postfix_commands[] = {
    "CONNECT", "HELO", "AUTH", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE",
    "UNKNOWN"
};


ngx_int_t
ngx_mail_policy_log_postfix(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_log_event_t *event,
    ngx_str_t *line, ngx_str_t *message)
{
    size_t                          size;
    u_char                         *start;
    ngx_mail_policy_log_postfix_t   l;

    if (ngx_mail_policy_log_postfix_host(pool, envelope, &l.host) != NGX_OK) {
        return NGX_ERROR;
    }

    size = ngx_mail_policy_log_postfix_size(envelope, event) + 2 * l.host.len;

    line->data = ngx_pnalloc(pool, size);
    if (line->data == NULL) {
        return NGX_ERROR;
    }

    l.p = line->data;
    l.last = line->data + size - 1;

    ngx_mail_policy_log_postfix_put(&l, "%V %V postfix/smtpd[%P]: ",
                                    &ngx_cached_syslog_time,
                                    &ngx_cycle->hostname, ngx_pid);
    start = l.p;

    if (event == NULL) {
        ngx_mail_policy_log_postfix_transaction(&l, envelope);

    } else {
        switch (event->type) {

        case NGX_MAIL_POLICY_LOG_REFUSED:
            ngx_mail_policy_log_postfix_reject(&l, envelope, event);
            break;

        case NGX_MAIL_POLICY_LOG_LOGIN:
            ngx_mail_policy_log_postfix_login(&l, event);
            break;

        default: /* NGX_MAIL_POLICY_LOG_ERRORS */
            ngx_mail_policy_log_postfix_put(&l, "too many errors after %s "
                        "from %V",
                        ngx_mail_policy_log_postfix_commands[event->command],
                        &l.host);
        }
    }

    mpol_smtpd_clean(start, l.p - start, start);

    *l.p++ = LF;

    line->len = l.p - line->data;
    message->data = start;
    message->len = l.p - start;

    return NGX_OK;
}


static size_t
ngx_mail_policy_log_postfix_size(ngx_mail_policy_envelope_t *e,
    ngx_mail_policy_log_event_t *event)
{
    size_t                     size;
    ngx_mail_policy_record_t  *r;

    size = NGX_MAIL_POLICY_LOG_POSTFIX_SIZE + ngx_cycle->hostname.len
           + 2 * e->sender.len + e->helo.len + e->sasl_username.len
           + e->sasl_method.len;

    r = e->record;

    size += r->reply.len + r->relay.len;

    if (event && event->text) {
        size += event->text->len;
    }

    if (event && event->recipient) {
        size += 2 * event->recipient->len;
    }

    return size;
}


/* a name that does not lead back is "unknown", and a path no address */

static ngx_int_t
ngx_mail_policy_log_postfix_host(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *e, ngx_str_t *host)
{
    u_char     *p;
    ngx_str_t   name, addr;

    name = e->client_host;
    addr = e->connection->addr_text;

    if (name.len == 0) {
        ngx_str_set(&name, "unknown");
    }

    if (e->connection->sockaddr->sa_family != AF_INET
        && e->connection->sockaddr->sa_family != AF_INET6)
    {
        ngx_str_set(&addr, "unknown");
    }

    /* IPv4 that comes mapped into IPv6 */

    if (addr.len > 7 && ngx_strncmp(addr.data, "::ffff:", 7) == 0
        && ngx_strlchr(addr.data, addr.data + addr.len, '.'))
    {
        addr.data += 7;
        addr.len -= 7;
    }

    host->len = name.len + addr.len + 2;

    p = ngx_pnalloc(pool, host->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    host->data = p;

    p = ngx_cpymem(p, name.data, name.len);
    *p++ = '[';
    p = ngx_cpymem(p, addr.data, addr.len);
    *p = ']';

    return NGX_OK;
}


static void
ngx_mail_policy_log_postfix_reject(ngx_mail_policy_log_postfix_t *l,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_log_event_t *event)
{
    mpol_smtpd_reply_t  reply;

    mpol_smtpd_reply(event->text->data, event->text->len, &reply);

    ngx_mail_policy_log_postfix_put(l, "NOQUEUE: reject: %s from %V: %ui "
                        "%*s ",
                        ngx_mail_policy_log_postfix_commands[event->command],
                        &l->host, (ngx_uint_t) reply.code, reply.dsn_len,
                        reply.dsn);

    ngx_mail_policy_log_postfix_what(l, e, event, &reply);

    ngx_mail_policy_log_postfix_put(l, "%*s;", reply.text.len,
                                    reply.text.data);

    if (e->record->type == NGX_MAIL_POLICY_LOG_TRANSACTION) {
        ngx_mail_policy_log_postfix_bracketed(l, " from=", &e->sender);
    }

    if (event->recipient) {
        ngx_mail_policy_log_postfix_bracketed(l, " to=", event->recipient);
    }

    ngx_mail_policy_log_postfix_put(l, " proto=%s",
                                    e->protocol.data[0] == 'E' ? "ESMTP"
                                                               : "SMTP");
    if (e->helo.len) {
        ngx_mail_policy_log_postfix_bracketed(l, " helo=", &e->helo);
    }

    if (e->sasl_username.len) {
        ngx_mail_policy_log_postfix_bracketed(l, " sasl_username=",
                                              &e->sasl_username);
    }
}


/*
 * What was refused stands in front of the text, in Postfix's words, but where
 * the text begins with it, as that of a relay may, and where it was refused
 * for its form.
 */

static void
ngx_mail_policy_log_postfix_what(ngx_mail_policy_log_postfix_t *l,
    ngx_mail_policy_envelope_t *e, ngx_mail_policy_log_event_t *event,
    mpol_smtpd_reply_t *reply)
{
    ngx_uint_t  transaction;

    if ((reply->text.len && reply->text.data[0] == '<')
        || (reply->dsn[2] == '5' && event->recipient == NULL))
    {
        return;
    }

    transaction = (e->record->type == NGX_MAIL_POLICY_LOG_TRANSACTION);

    switch (event->command) {

    case NGX_MAIL_POLICY_AT_COMMAND_CONNECT:
        ngx_mail_policy_log_postfix_put(l, "<%V>: Client host rejected: ",
                                        &l->host);
        break;

    case NGX_MAIL_POLICY_AT_COMMAND_MAIL:
        if (transaction) {
            ngx_mail_policy_log_postfix_bracketed(l, "", &e->sender);
            ngx_mail_policy_log_postfix_put(l, ": Sender address rejected: ");
        }

        break;

    case NGX_MAIL_POLICY_AT_COMMAND_RCPT:
        if (event->recipient) {
            ngx_mail_policy_log_postfix_bracketed(l, "", event->recipient);
            ngx_mail_policy_log_postfix_put(l, ": Recipient address "
                                            "rejected: ");
        }

        break;

    case NGX_MAIL_POLICY_AT_COMMAND_DATA:
        if (transaction) {
            ngx_mail_policy_log_postfix_put(l, "<DATA>: Data command "
                                            "rejected: ");
        }

        break;

    case NGX_MAIL_POLICY_AT_COMMAND_END:
        ngx_mail_policy_log_postfix_put(l, "<END-OF-MESSAGE>: End-of-data "
                                        "rejected: ");
        break;

    default:
        break;
    }
}


/* a service that is away is no fault of the client's: in Postfix's words */

static void
ngx_mail_policy_log_postfix_login(ngx_mail_policy_log_postfix_t *l,
    ngx_mail_policy_log_event_t *event)
{
    ngx_str_t           login, method;
    mpol_smtpd_reply_t  reply;

    method = *event->method;

    if (event->result == NGX_MAIL_POLICY_LOGIN_ABORTED) {
        ngx_mail_policy_log_postfix_put(l, "warning: %V: SASL %V "
                                        "authentication aborted", &l->host,
                                        &method);
        return;
    }

    mpol_smtpd_reply(event->text->data, event->text->len, &reply);

    if (method.len == 0) {
        ngx_str_set(&method, "unknown");
        reply.text.data = (u_char *) "Invalid authentication mechanism";
        reply.text.len = sizeof("Invalid authentication mechanism") - 1;

    } else if (event->result == NGX_MAIL_POLICY_LOGIN_TEMPORARY
               && !event->limit)
    {
        reply.text.data = (u_char *) "Connection lost to authentication "
                                     "server";
        reply.text.len = sizeof("Connection lost to authentication server")
                         - 1;
    }

    login = *event->login;
    login.len = ngx_min(login.len, NGX_MAIL_POLICY_LOG_POSTFIX_LOGIN);

    if (login.len == 0) {
        ngx_str_set(&login, "(unavailable)");
    }

    ngx_mail_policy_log_postfix_put(l, "warning: %V: SASL %V authentication "
                                    "failed: %*s, sasl_username=%V", &l->host,
                                    &method, reply.text.len,
                                    reply.text.data, &login);
}


static void
ngx_mail_policy_log_postfix_transaction(ngx_mail_policy_log_postfix_t *l,
    ngx_mail_policy_envelope_t *e)
{
    ngx_msec_t                 ms;
    mpol_str_t                 id;
    ngx_str_t                  status;
    mpol_smtpd_reply_t         reply;
    ngx_mail_policy_record_t  *r;

    r = e->record;

    if (r->status < 200 || r->status >= 300
        || mpol_queue_id(r->reply.data, r->reply.len, &id) != MPOL_OK)
    {
        id.data = (u_char *) "NOQUEUE";
        id.len = sizeof("NOQUEUE") - 1;
    }

    ngx_mail_policy_log_postfix_put(l, "%*s: client=%V", id.len, id.data,
                                    &l->host);

    if (e->sasl_username.len) {
        ngx_mail_policy_log_postfix_put(l, ", sasl_method=%V, "
                                        "sasl_username=%V", &e->sasl_method,
                                        &e->sasl_username);
    }

    ngx_mail_policy_log_postfix_bracketed(l, ", from=", &e->sender);
    ngx_mail_policy_log_postfix_put(l, ", nrcpt=%ui, size=%uL", e->recipients,
                                    e->message_size);

    if (r->relay.len) {
        ngx_mail_policy_log_postfix_put(l, ", relay=%V", &r->relay);
    }

    ms = ngx_current_msec - r->start;
    status = ngx_mail_policy_outcomes[r->outcome];

    if (r->outcome == NGX_MAIL_POLICY_ACCEPTED
        || r->outcome == NGX_MAIL_POLICY_UNACKED)
    {
        ngx_str_set(&status, "sent");
    }

    ngx_mail_policy_log_postfix_put(l, ", delay=%M.%02M", ms / 1000,
                                    ms % 1000 / 10);

    if (r->status) {
        mpol_smtpd_reply(r->reply.data, r->reply.len, &reply);
        ngx_mail_policy_log_postfix_put(l, ", dsn=%*s, status=%V (%V)",
                                        reply.dsn_len, reply.dsn, &status,
                                        &r->reply);

    } else {
        ngx_mail_policy_log_postfix_put(l, ", status=%V", &status);
    }
}


/* an octet is left for the line's end */

static void
ngx_mail_policy_log_postfix_put(ngx_mail_policy_log_postfix_t *l,
    const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    l->p = ngx_vslprintf(l->p, l->last, fmt, args);
    va_end(args);
}


static void
ngx_mail_policy_log_postfix_bracketed(ngx_mail_policy_log_postfix_t *l,
    const char *name, ngx_str_t *value)
{
    u_char  *p;

    ngx_mail_policy_log_postfix_put(l, "%s<", name);

    p = l->p;

    ngx_mail_policy_log_postfix_put(l, "%V", value);

    mpol_smtpd_bracketed(p, l->p - p, p);

    ngx_mail_policy_log_postfix_put(l, ">");
}
