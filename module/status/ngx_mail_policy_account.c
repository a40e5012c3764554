
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What front doors tell of their sessions: counters, and lines of the access
 * log.  Where nothing is logged, nothing is written or allocated here.  No
 * events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_smtpd.h"
#include "ngx_mail_policy_account.h"
#include "ngx_mail_policy_board.h"


#define NGX_MAIL_POLICY_ACCOUNT_REPLY  512


static ngx_uint_t ngx_mail_policy_account_status(ngx_str_t *text);
static void ngx_mail_policy_account_keep(ngx_mail_policy_account_t *account,
    ngx_uint_t status, ngx_str_t *text);
static void ngx_mail_policy_account_board(ngx_mail_policy_account_t *account,
    ngx_str_t *text, ngx_str_t *login, ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_account_login_log(
    ngx_mail_policy_account_t *account,
    ngx_mail_policy_account_login_t *login);
static void ngx_mail_policy_account_octets(ngx_mail_policy_envelope_t *e);
static ngx_uint_t ngx_mail_policy_account_mechanism(ngx_uint_t method);
static void ngx_mail_policy_account_session(
    ngx_mail_policy_account_t *account);


void
ngx_mail_policy_account_start(ngx_mail_policy_account_t *account)
{
    account->started = 1;

    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_SESSIONS, 1);
    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_SESSIONS, 1);
}


void
ngx_mail_policy_account_refused(ngx_mail_policy_account_t *account,
    ngx_mail_policy_at_command_e command, ngx_str_t *text,
    ngx_str_t *recipient, ngx_mail_policy_verdict_t *verdict)
{
    ngx_uint_t                   n, status, told;
    ngx_mail_policy_log_event_t  event;

    status = ngx_mail_policy_account_status(text);
    n = NGX_MAIL_POLICY_METRIC_REFUSED + command;

    if (status >= 500) {
        n += NGX_MAIL_POLICY_AT_COMMANDS;
    }

    ngx_mail_policy_metrics_add(n, 1);

    if (account->envelope->record == NULL) {
        account->limit = verdict;
    }

    ngx_mail_policy_account_keep(account, status, text);

    /* of a login that has failed all else has been told */

    told = account->login;
    account->login = 0;

    if (told) {
        return;
    }

    ngx_mail_policy_account_board(account, text, NULL, verdict);

    if (account->conf->access_logs) {
        ngx_memzero(&event, sizeof(ngx_mail_policy_log_event_t));

        event.type = NGX_MAIL_POLICY_LOG_REFUSED;
        event.command = command;
        event.text = text;
        event.recipient = recipient;

        ngx_mail_policy_log_event(account->conf->access_logs,
                                  account->envelope, &event);
    }
}


/* who is refused by a limit, the limits have told */

static void
ngx_mail_policy_account_board(ngx_mail_policy_account_t *account,
    ngx_str_t *text, ngx_str_t *login, ngx_mail_policy_verdict_t *verdict)
{
    u_char                      *p, reason[sizeof("550 ") + MPOL_SMTPD_DSN];
    ngx_str_t                    why, *who;
    mpol_smtpd_reply_t           reply;
    ngx_mail_policy_envelope_t  *e;

    if (verdict && verdict->rc == NGX_DECLINED) {
        return;
    }

    mpol_smtpd_reply(text->data, text->len, &reply);

    p = ngx_snprintf(reason, sizeof(reason), "%ui %*s",
                     (ngx_uint_t) reply.code, reply.dsn_len, reply.dsn);
    why.data = reason;
    why.len = p - reason;

    e = account->envelope;

    who = (login && login->len) ? login
          : e->sasl_username.len ? &e->sasl_username
          : &e->connection->addr_text;

    ngx_mail_policy_board_refused(&why, who);
}


void
ngx_mail_policy_account_errors(ngx_mail_policy_account_t *account,
    ngx_mail_policy_at_command_e command)
{
    ngx_str_t                    text;
    ngx_mail_policy_log_event_t  event;

    if (account->conf->access_logs) {
        ngx_memzero(&event, sizeof(ngx_mail_policy_log_event_t));
        ngx_str_set(&text, "421 4.7.0 Too many errors");

        event.type = NGX_MAIL_POLICY_LOG_ERRORS;
        event.command = command;
        event.text = &text;

        ngx_mail_policy_log_event(account->conf->access_logs,
                                  account->envelope, &event);
    }
}


/* "550 ..." */

static ngx_uint_t
ngx_mail_policy_account_status(ngx_str_t *text)
{
    ngx_int_t  n;

    n = (text->len < 3) ? NGX_ERROR : ngx_atoi(text->data, 3);

    return (n == NGX_ERROR) ? 0 : (ngx_uint_t) n;
}


/* for the session's line, if it comes to that; in place of the one before */

static void
ngx_mail_policy_account_keep(ngx_mail_policy_account_t *account,
    ngx_uint_t status, ngx_str_t *text)
{
    account->status = status;

    if (account->conf->access_logs == NULL || account->transactions) {
        return;
    }

    if (account->reply.data == NULL) {
        account->reply.data = ngx_pnalloc(account->envelope->connection->pool,
                                          NGX_MAIL_POLICY_ACCOUNT_REPLY);
        if (account->reply.data == NULL) {
            return;
        }
    }

    account->reply.len = ngx_min(text->len, NGX_MAIL_POLICY_ACCOUNT_REPLY);
    ngx_memcpy(account->reply.data, text->data, account->reply.len);
}


void
ngx_mail_policy_account_login(ngx_mail_policy_account_t *account,
    ngx_mail_policy_account_login_t *login)
{
    ngx_uint_t  n;

    n = NGX_MAIL_POLICY_METRIC_AUTH + login->result
        + ngx_mail_policy_account_mechanism(login->method)
          * NGX_MAIL_POLICY_LOGINS;

    ngx_mail_policy_metrics_add(n, 1);

    if (login->result == NGX_MAIL_POLICY_LOGIN_FAILURE) {
        account->envelope->auth_failures++;
    }

    /*
     * A session that limits do not allow, or that there is no memory for, is
     * no login that failed; and of a client that is gone nothing is said.
     */

    if (login->result == NGX_MAIL_POLICY_LOGIN_SUCCESS || login->text.len == 0
        || (login->result == NGX_MAIL_POLICY_LOGIN_TEMPORARY
            && ngx_mail_policy_account_status(&login->text) == 421))
    {
        return;
    }

    account->login = 1;

    ngx_mail_policy_account_board(account, &login->text, &login->login,
                                  login->verdict);

    if (account->conf->access_logs) {
        ngx_mail_policy_account_login_log(account, login);
    }
}


static void
ngx_mail_policy_account_login_log(ngx_mail_policy_account_t *account,
    ngx_mail_policy_account_login_t *login)
{
    ngx_mail_policy_log_event_t  event;

    ngx_memzero(&event, sizeof(ngx_mail_policy_log_event_t));

    event.type = NGX_MAIL_POLICY_LOG_LOGIN;
    event.command = NGX_MAIL_POLICY_AT_COMMAND_AUTH;
    event.text = &login->text;
    event.result = login->result;
    event.method = &login->name;
    event.login = &login->login;
    event.limit = (login->verdict && login->verdict->rc == NGX_DECLINED);

    ngx_mail_policy_log_event(account->conf->access_logs, account->envelope,
                              &event);
}


/* bits from PLAIN on; what is none of them is the last */

static ngx_uint_t
ngx_mail_policy_account_mechanism(ngx_uint_t method)
{
    ngx_uint_t  n;

    for (n = 0; n < NGX_MAIL_POLICY_METRICS_MECHANISMS - 1; n++) {
        if (method == (ngx_uint_t) NGX_MAIL_POLICY_METHOD_PLAIN << n) {
            break;
        }
    }

    return n;
}


void
ngx_mail_policy_account_transaction(ngx_mail_policy_account_t *account,
    ngx_pool_t *pool)
{
    ngx_mail_policy_record_t    *r;
    ngx_mail_policy_envelope_t  *e;

    e = account->envelope;
    r = e->record;

    account->transactions++;

    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_TRANSACTIONS
                                + r->outcome, 1);
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED,
                                e->recipients);
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_RCPT_REFUSED,
                                e->rejected_recipients);

    if (r->outcome == NGX_MAIL_POLICY_ACCEPTED
        || r->outcome == NGX_MAIL_POLICY_UNACKED)
    {
        ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES,
                                    e->message_size);
    }

    ngx_mail_policy_account_octets(e);

    if (account->conf->access_logs) {
        ngx_mail_policy_log_record(account->conf->access_logs, pool, e);
    }
}


static void
ngx_mail_policy_account_octets(ngx_mail_policy_envelope_t *e)
{
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_BYTES_RECEIVED,
                                e->bytes_received);
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_BYTES_SENT,
                                e->bytes_sent);
}


void
ngx_mail_policy_account_end(ngx_mail_policy_account_t *account)
{
    if (!account->started) {
        return;
    }

    account->started = 0;

    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_SESSIONS, -1);
    ngx_mail_policy_account_octets(account->envelope);

    if (account->conf->access_logs && account->status
        && account->transactions == 0)
    {
        ngx_mail_policy_account_session(account);
    }
}


/* nothing of a transaction is in the envelope, as there was none */

static void
ngx_mail_policy_account_session(ngx_mail_policy_account_t *account)
{
    ngx_pool_t                  *pool;
    ngx_mail_policy_record_t     r;
    ngx_mail_policy_envelope_t  *e;

    e = account->envelope;

    ngx_memzero(&r, sizeof(ngx_mail_policy_record_t));

    pool = ngx_create_pool(2048, e->connection->log);
    if (pool == NULL) {
        return;
    }

    r.type = NGX_MAIL_POLICY_LOG_SESSION;
    r.outcome = account->status < 500 ? NGX_MAIL_POLICY_DEFERRED
                                      : NGX_MAIL_POLICY_REJECTED;
    r.status = account->status;
    r.reply = account->reply;

    if (account->limit && account->limit->limit.len) {
        r.limit = account->limit->limit;
        r.action = account->limit->action;
        r.used = account->limit->used;
        r.max = account->limit->max;
        r.retry = account->limit->retry;

        ngx_mail_policy_record_hit(&r, pool, account->limit);
    }

    e->record = &r;

    ngx_mail_policy_log_record(account->conf->access_logs, pool, e);

    e->record = NULL;

    ngx_destroy_pool(pool);
}
