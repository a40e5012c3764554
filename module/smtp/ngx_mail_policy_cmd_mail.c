
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * MAIL and RCPT: syntax, sequence and permission here; the answer comes from
 * limits and relay, by way of the transaction.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_sender.h"
#include "ngx_mail_policy_session.h"


static ngx_uint_t ngx_mail_policy_sender_own(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_copy(ngx_pool_t *pool, mpol_str_t *from,
    ngx_str_t *to);
static ngx_int_t ngx_mail_policy_copy_lower(ngx_pool_t *pool,
    mpol_str_t *from, ngx_str_t *to);
static void ngx_mail_policy_argument_error(ngx_mail_policy_session_t *s,
    int rc, ngx_uint_t rcpt);
static ngx_int_t ngx_mail_policy_out_of_memory(ngx_mail_policy_session_t *s);


static ngx_str_t  ngx_mail_policy_not_own =
    ngx_string("553 5.7.1 Sender address is not one of this login");


ngx_int_t
ngx_mail_policy_cmd_mail_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (!s->greeted) {
        ngx_mail_policy_session_error(s, "503 5.5.1 Send HELO/EHLO first");
        return NGX_DECLINED;
    }

    if (!ngx_mail_policy_auth_off(s->conf->auth)
        && s->envelope.sasl_username.len == 0)
    {
        ngx_mail_policy_session_error(s, "530 5.7.0 Authentication required");
        return NGX_DECLINED;
    }

    if (s->transaction) {
        ngx_mail_policy_session_error(s, "503 5.5.1 Nested MAIL command");
        return NGX_DECLINED;
    }

    /* RFC 9422, section 4.1 */

    if (s->conf->max_messages && s->transactions >= s->conf->max_messages) {
        ngx_mail_policy_session_trailing(s);
        ngx_mail_policy_session_error(s,
                                 "451 4.5.3 Too many messages in a session");
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_mail(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    int                             rc;
    mpol_mail_t                     mail;
    ngx_mail_policy_envelope_t     *e;
    ngx_mail_policy_transaction_t  *t;

    /* what a client may have pipelined, should this MAIL be refused */

    ngx_mail_policy_session_trailing(s);

    rc = mpol_mail_parse(cmd->arg.data, cmd->arg.len, s->extensions, &mail);
    if (rc != MPOL_OK) {
        ngx_mail_policy_argument_error(s, rc, 0);
        return NGX_OK;
    }

    t = ngx_mail_policy_transaction_create(s);
    if (t == NULL) {
        return ngx_mail_policy_out_of_memory(s);
    }

    e = &s->envelope;

    if (ngx_mail_policy_copy(t->pool, &mail.path.address, &e->sender)
        != NGX_OK
        || ngx_mail_policy_copy(t->pool, &mail.path.local, &e->sender_local)
           != NGX_OK
        || ngx_mail_policy_copy_lower(t->pool, &mail.path.domain,
                                      &e->sender_domain)
           != NGX_OK
        || ngx_mail_policy_copy(t->pool, &mail.envid, &t->mail.envid)
           != NGX_OK)
    {
        ngx_mail_policy_transaction_finalize(t, NGX_MAIL_POLICY_ABORTED);
        return ngx_mail_policy_out_of_memory(s);
    }

    e->message_size = mail.size_set ? mail.size : 0;

    t->mail.sender = e->sender;
    t->mail.size = e->message_size;
    t->mail.body = mail.body;
    t->mail.ret = mail.ret;
    t->mail.smtputf8 = mail.smtputf8;

    if (!ngx_mail_policy_sender_own(s)) {
        ngx_mail_policy_due_add(s, &t->due);
        ngx_mail_policy_transaction_refuse(t, 553, &ngx_mail_policy_not_own);
        return NGX_OK;
    }

    if (s->conf->message_size && e->message_size > s->conf->message_size) {
        ngx_mail_policy_due_add(s, &t->due);
        ngx_mail_policy_transaction_refuse(t, 552, &ngx_mail_policy_too_big);
        return NGX_OK;
    }

    ngx_mail_policy_transaction_mail(t);

    return NGX_OK;
}


/*
 * "policy_sender own".  The null sender is nobody's address: clients send
 * receipts with it (RFC 8098, section 3.1), and it misleads nobody.
 */

static ngx_uint_t
ngx_mail_policy_sender_own(ngx_mail_policy_session_t *s)
{
    ngx_str_t  *login, *sender, *authzid;

    login = &s->envelope.sasl_username;
    sender = &s->envelope.sender;

    if (!s->conf->sender_own || sender->len == 0) {
        return 1;
    }

    /* who acts as another one sends as that one */

    authzid = &s->envelope.sasl_authzid;

    if (authzid->len) {
        login = authzid;
    }

    if (mpol_sender_same(login->data, login->len, sender->data, sender->len)
        || (authzid->len == 0
            && mpol_senders_match(s->senders.data, s->senders.len,
                                  sender->data, sender->len)))
    {
        return 1;
    }

    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "login \"%V\" may not send as \"%V\"", login, sender);

    return 0;
}


ngx_int_t
ngx_mail_policy_cmd_rcpt_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (s->transaction == NULL) {
        ngx_mail_policy_session_no_mail(s);
        return NGX_DECLINED;
    }

    if (s->transaction->bdat) {
        ngx_mail_policy_session_error(s, "503 5.5.1 Recipient after BDAT");
        return NGX_DECLINED;
    }

    if (s->transaction->nrcpts >= s->conf->max_recipients) {

        /* RFC 5321, section 4.5.3.1.10; who goes on regardless, errs */

        if (++s->transaction->nrcpts > 2 * s->conf->max_recipients + 100) {
            ngx_mail_policy_session_error(s,
                                          "452 4.5.3 Too many recipients");
        } else {
            ngx_mail_policy_session_refused(s,
                                            "452 4.5.3 Too many recipients");
            ngx_mail_policy_reply(s, "452 4.5.3 Too many recipients");
        }

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_rcpt(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    int                             rc;
    mpol_rcpt_t                     parsed;
    ngx_uint_t                      offered;
    ngx_mail_policy_rcpt_t         *rcpt;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    /* RFC 6531: what MAIL has said holds for the recipients */

    offered = s->extensions & ~(t->mail.smtputf8 ? 0 : MPOL_EXT_SMTPUTF8);

    rc = mpol_rcpt_parse(cmd->arg.data, cmd->arg.len, offered, &parsed);
    if (rc != MPOL_OK) {
        ngx_mail_policy_argument_error(s, rc, 1);
        return NGX_OK;
    }

    /* RELAY-2, RELAY-3: the relay, which trusts us, might follow it */

    if (s->envelope.sasl_username.len == 0 && mpol_addr_routed(&parsed.path)) {
        ngx_mail_policy_session_error(s,
                         "550 5.7.1 Routing by the sender is not allowed");
        return NGX_OK;
    }

    rcpt = ngx_pcalloc(t->pool, sizeof(ngx_mail_policy_rcpt_t));
    if (rcpt == NULL) {
        return ngx_mail_policy_out_of_memory(s);
    }

    if (ngx_mail_policy_copy(t->pool, &parsed.path.address,
                             &rcpt->to.address)
        != NGX_OK
        || ngx_mail_policy_copy(t->pool, &parsed.orcpt, &rcpt->to.orcpt)
           != NGX_OK
        || ngx_mail_policy_copy_lower(t->pool, &parsed.path.domain,
                                      &rcpt->domain)
           != NGX_OK)
    {
        return ngx_mail_policy_out_of_memory(s);
    }

    rcpt->to.notify = parsed.notify;
    rcpt->transaction = t;
    t->nrcpts++;

    ngx_mail_policy_transaction_rcpt(t, rcpt);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_copy(ngx_pool_t *pool, mpol_str_t *from, ngx_str_t *to)
{
    to->len = from->len;

    if (from->len == 0) {
        to->data = (u_char *) "";
        return NGX_OK;
    }

    to->data = ngx_pnalloc(pool, from->len);
    if (to->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(to->data, from->data, from->len);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_copy_lower(ngx_pool_t *pool, mpol_str_t *from, ngx_str_t *to)
{
    if (ngx_mail_policy_copy(pool, from, to) != NGX_OK) {
        return NGX_ERROR;
    }

    if (to->len) {
        ngx_strlow(to->data, to->data, to->len);
    }

    return NGX_OK;
}


static void
ngx_mail_policy_argument_error(ngx_mail_policy_session_t *s, int rc,
    ngx_uint_t rcpt)
{
    switch (rc) {

    case MPOL_ARG_PATH:
        ngx_mail_policy_session_error(s, rcpt
                                   ? "501 5.1.3 Bad recipient address syntax"
                                   : "501 5.1.7 Bad sender address syntax");
        return;

    case MPOL_ARG_LONG:
        ngx_mail_policy_session_error(s, rcpt
                                      ? "501 5.1.3 Recipient address too long"
                                      : "501 5.1.7 Sender address too long");
        return;

    case MPOL_ARG_8BIT:
        ngx_mail_policy_session_error(s,
                          "553 5.6.7 Internationalized address without "
                          "SMTPUTF8");
        return;

    case MPOL_ARG_PARAM:
        ngx_mail_policy_session_error(s,
                                      "555 5.5.4 Parameter not recognized");
        return;

    case MPOL_ARG_VALUE:
        ngx_mail_policy_session_error(s, "501 5.5.4 Bad parameter value");
        return;

    default:
        ngx_mail_policy_session_error(s, rcpt
                                         ? "501 5.5.4 Syntax: RCPT TO:<address>"
                                         : "501 5.5.4 Syntax: "
                                           "MAIL FROM:<address>");
    }
}


static ngx_int_t
ngx_mail_policy_out_of_memory(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_session_refused_text(s, &ngx_mail_policy_no_memory);
    ngx_mail_policy_reply(s, "%V", &ngx_mail_policy_no_memory);

    return NGX_OK;
}
