
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * AUTH, RFC 4954: PLAIN (RFC 4616) and LOGIN.
 *
 *   AUTH PLAIN [ir] -> [334 ->] verify -> 235 | 535 | 454
 *   AUTH LOGIN [ir] -> [334 user ->] 334 password -> verify -> ...
 *
 * "*" instead of a response cancels.  A response is decoded in the input
 * buffer, handed to the provider, which copies it, and wiped there.  Limits
 * of failed logins are asked before it begins.  Events: their verdict, and
 * the provider's answer.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include <ngx_sha1.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_AUTH_PLAIN     0
#define NGX_MAIL_POLICY_AUTH_USERNAME  1
#define NGX_MAIL_POLICY_AUTH_PASSWORD  2

#define NGX_MAIL_POLICY_AUTH_LATER                                           \
    "454 4.7.0 Temporary authentication failure"

/* one text, whatever it was that was wrong */
#define NGX_MAIL_POLICY_AUTH_INVALID                                         \
    "535 5.7.8 Authentication credentials invalid"


static ngx_int_t ngx_mail_policy_auth_plain(ngx_mail_policy_session_t *s,
    u_char *data, size_t len);
static ngx_int_t ngx_mail_policy_auth_username(ngx_mail_policy_session_t *s,
    u_char *data, size_t len);
static ngx_int_t ngx_mail_policy_auth_password(ngx_mail_policy_session_t *s,
    u_char *data, size_t len);
static ngx_int_t ngx_mail_policy_auth_verify(ngx_mail_policy_session_t *s,
    ngx_str_t *password);
static ngx_int_t ngx_mail_policy_auth_retain(ngx_mail_policy_session_t *s,
    ngx_str_t *password);
static ngx_int_t ngx_mail_policy_auth_check(ngx_mail_policy_session_t *s,
    ngx_str_t *password);
static void ngx_mail_policy_auth_tag(ngx_mail_policy_session_t *s,
    ngx_str_t *other, u_char *tag);
static ngx_int_t ngx_mail_policy_auth_fetch(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_auth_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_auth_handler(void *data, ngx_int_t rc,
    ngx_str_t *senders);
static ngx_int_t ngx_mail_policy_auth_senders(ngx_mail_policy_session_t *s,
    ngx_str_t *senders);
static void ngx_mail_policy_auth_succeeded(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_auth_refused(ngx_mail_policy_session_t *s,
    const char *reply);


ngx_uint_t
ngx_mail_policy_auth_methods(ngx_mail_policy_session_t *s)
{
    ngx_mail_smtp_srv_conf_t    *sscf;
    ngx_mail_policy_srv_conf_t  *pscf;

    pscf = s->conf;

    if (ngx_mail_policy_auth_off(pscf->auth)
        || s->envelope.sasl_username.len
        || (!ngx_mail_policy_session_tls(s) && !pscf->auth_plaintext))
    {
        return 0;
    }

    sscf = ngx_mail_get_module_srv_conf(s->mail, ngx_mail_smtp_module);

    return sscf->auth_methods
           & (NGX_MAIL_AUTH_PLAIN_ENABLED|NGX_MAIL_AUTH_LOGIN_ENABLED);
}


ngx_int_t
ngx_mail_policy_cmd_auth_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (ngx_mail_policy_auth_off(s->conf->auth)) {
        ngx_mail_policy_session_error(s, "502 5.5.1 AUTH not offered");
        return NGX_DECLINED;
    }

    if (!s->esmtp || s->transaction || s->envelope.sasl_username.len) {
        ngx_mail_policy_session_error(s, "503 5.5.1 Bad sequence of commands");
        return NGX_DECLINED;
    }

    if (!ngx_mail_policy_session_tls(s) && !s->conf->auth_plaintext) {
        ngx_mail_policy_session_error(s, "538 5.7.11 Encryption required for "
                                         "authentication");
        return NGX_DECLINED;
    }

    if (cmd->arg.len == 0) {
        ngx_mail_policy_session_error(s, "501 5.5.4 Syntax: AUTH mechanism");
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_auth(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    size_t       n;
    u_char      *ir, *last;
    ngx_uint_t   methods;

    ir = (u_char *) cmd->arg.data;
    last = ir + cmd->arg.len;

    while (ir < last && *ir != ' ') {
        ir++;
    }

    n = ir - cmd->arg.data;

    while (ir < last && *ir == ' ') {
        ir++;
    }

    methods = ngx_mail_policy_auth_methods(s);

    if (n == 5 && ngx_strncasecmp((u_char *) cmd->arg.data,
                                  (u_char *) "PLAIN", 5) == 0
        && (methods & NGX_MAIL_AUTH_PLAIN_ENABLED))
    {
        ngx_str_set(&s->auth_method, "PLAIN");
        s->auth_state = NGX_MAIL_POLICY_AUTH_PLAIN;

        if (ir == last) {
            ngx_mail_policy_reply(s, "334 ");
        }

    } else if (n == 5 && ngx_strncasecmp((u_char *) cmd->arg.data,
                                         (u_char *) "LOGIN", 5) == 0
               && (methods & NGX_MAIL_AUTH_LOGIN_ENABLED))
    {
        ngx_str_set(&s->auth_method, "LOGIN");
        s->auth_state = NGX_MAIL_POLICY_AUTH_USERNAME;

        if (ir == last) {
            ngx_mail_policy_reply(s, "334 VXNlcm5hbWU6");
        }

    } else {
        ngx_mail_policy_session_error(s,
                                "504 5.5.4 Authentication mechanism unknown");
        return NGX_OK;
    }

    s->reading = NGX_MAIL_POLICY_READ_AUTH;
    s->connection->log->action = "authenticating client";

    if (ir == last) {
        return NGX_OK;
    }

    /* RFC 4954, section 4: "=" is an initial response of no octets */

    if (last - ir == 1 && *ir == '=') {
        last = ir;
    }

    return ngx_mail_policy_auth_response(s, ir, last - ir);
}


ngx_int_t
ngx_mail_policy_auth_response(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    size_t     n;
    ngx_int_t  rc;

    if (len == 1 && *data == '*') {
        return ngx_mail_policy_auth_refused(s,
                                       "501 5.7.0 Authentication cancelled");
    }

    if (mpol_base64_decode(data, len, data, &n) != MPOL_OK) {
        ngx_explicit_memzero(data, len);
        return ngx_mail_policy_auth_refused(s, "501 5.5.2 Invalid base64");
    }

    switch (s->auth_state) {

    case NGX_MAIL_POLICY_AUTH_PLAIN:
        rc = ngx_mail_policy_auth_plain(s, data, n);
        break;

    case NGX_MAIL_POLICY_AUTH_USERNAME:
        rc = ngx_mail_policy_auth_username(s, data, n);
        break;

    default:
        rc = ngx_mail_policy_auth_password(s, data, n);
    }

    /* the session's buffer, if it is still there, holds no password */

    if (rc != NGX_DONE) {
        ngx_explicit_memzero(data, len);
    }

    return rc;
}


static ngx_int_t
ngx_mail_policy_auth_plain(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    ngx_str_t     password;
    mpol_plain_t  plain;

    if (mpol_plain_parse(data, len, &plain) != MPOL_OK) {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_INVALID);
    }

    /* acting for somebody else is not provided for */

    if (plain.authzid.len
        && (plain.authzid.len != plain.authcid.len
            || ngx_memcmp(plain.authzid.data, plain.authcid.data,
                          plain.authcid.len)
               != 0))
    {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_INVALID);
    }

    ngx_memcpy(s->login, plain.authcid.data, plain.authcid.len);
    s->auth_login.data = s->login;
    s->auth_login.len = plain.authcid.len;

    password.data = (u_char *) plain.password.data;
    password.len = plain.password.len;

    return ngx_mail_policy_auth_verify(s, &password);
}


static ngx_int_t
ngx_mail_policy_auth_username(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    /* a bad one is told after the password, like a wrong one */

    s->auth_login.len = 0;

    if (mpol_identity_valid(data, len)) {
        ngx_memcpy(s->login, data, len);
        s->auth_login.data = s->login;
        s->auth_login.len = len;
    }

    s->auth_state = NGX_MAIL_POLICY_AUTH_PASSWORD;
    ngx_mail_policy_reply(s, "334 UGFzc3dvcmQ6");

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_password(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    ngx_str_t  password;

    if (s->auth_login.len == 0 || len == 0 || len > MPOL_PASSWORD_MAX) {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_INVALID);
    }

    password.data = data;
    password.len = len;

    return ngx_mail_policy_auth_verify(s, &password);
}


static ngx_int_t
ngx_mail_policy_auth_verify(ngx_mail_policy_session_t *s, ngx_str_t *password)
{
    if (s->conf->relay_conf->client_login
        && ngx_mail_policy_auth_retain(s, password) != NGX_OK)
    {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_LATER);
    }

    s->auth = ngx_mail_policy_auth_create(s->conf->auth, &s->auth_login,
                                          password, s->core->error_log,
                                          ngx_mail_policy_auth_handler, s);
    if (s->auth == NULL) {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_LATER);
    }

    s->auth_checked = 0;

    switch (ngx_mail_policy_auth_check(s, password)) {

    case NGX_OK:
        s->auth_checked = 1;
        ngx_mail_policy_auth_begin(s->auth);
        break;

    case NGX_AGAIN:
        break;

    default:
        ngx_mail_policy_auth_cancel(s->auth);
        s->auth = NULL;

        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_AUTH_LATER);
    }

    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    return NGX_AGAIN;
}


/* for relays, who are to see the client's own: its until the session ends */

static ngx_int_t
ngx_mail_policy_auth_retain(ngx_mail_policy_session_t *s, ngx_str_t *password)
{
    ngx_str_t  *retained;

    retained = &s->envelope.sasl_password;

    if (retained->data == NULL) {
        retained->data = ngx_pnalloc(s->connection->pool, MPOL_PASSWORD_MAX);
        if (retained->data == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memcpy(retained->data, password->data, password->len);
    s->auth_password_len = password->len;

    return NGX_OK;
}


/*
 * May this client fail once more?  Asked before the password is looked at.
 * Here $sasl_username is the login that is tried.
 */

static ngx_int_t
ngx_mail_policy_auth_check(ngx_mail_policy_session_t *s, ngx_str_t *password)
{
    if (s->conf->limits == NULL) {
        return NGX_OK;
    }

    /* once: a session may try for as long as the provider is away */

    if (s->net.len == 0
        && ngx_mail_policy_client_net(s->connection->pool, &s->envelope,
                                      &s->net)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_auth_fetch(s) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_mail_policy_session_check(s, &s->check, s->connection->pool,
                                  ngx_mail_policy_auth_checked, s);

    s->check.login = s->auth_login;

    s->check.member.data = s->auth_tags;
    s->check.member.len = NGX_MAIL_POLICY_AUTH_TAG;
    ngx_mail_policy_auth_tag(s, password, s->check.member.data);

    s->check.client.data = s->auth_tags + NGX_MAIL_POLICY_AUTH_TAG;
    s->check.client.len = NGX_MAIL_POLICY_AUTH_TAG;
    ngx_mail_policy_auth_tag(s, &s->net, s->check.client.data);

    return ngx_mail_policy_check_start(&s->check, NGX_MAIL_POLICY_CHECK_AUTH);
}


/*
 * Four hex digits of login and something else.  They tell pairs from one
 * another, and are far too few to try passwords against; and a client that
 * knew how they are made could choose passwords that look like one it has
 * failed with already.
 */

static void
ngx_mail_policy_auth_tag(ngx_mail_policy_session_t *s, ngx_str_t *other,
    u_char *tag)
{
    u_char      sha1[20], *secret;
    ngx_sha1_t  ctx;

    secret = ngx_mail_policy_store_secret(s->main_conf->store);

    ngx_sha1_init(&ctx);
    ngx_sha1_update(&ctx, secret, 20);
    ngx_sha1_update(&ctx, s->auth_login.data, s->auth_login.len);
    ngx_sha1_update(&ctx, "", 1);
    ngx_sha1_update(&ctx, other->data, other->len);
    ngx_sha1_final(sha1, &ctx);

    ngx_hex_dump(tag, sha1, NGX_MAIL_POLICY_AUTH_TAG / 2);

    ngx_explicit_memzero(&ctx, sizeof(ngx_sha1_t));
}


/* strangers make us ask Redis only where a limit of theirs needs it */

static ngx_int_t
ngx_mail_policy_auth_fetch(ngx_mail_policy_session_t *s)
{
    uint64_t                  mask;
    ngx_uint_t                i;
    ngx_mail_policy_limit_t  *limit;

    limit = s->conf->limits->elts;
    mask = 0;

    for (i = 0; i < s->conf->limits->nelts; i++) {
        if (limit[i].units
            & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES))
        {
            mask |= limit[i].lookups;
        }
    }

    return mask ? ngx_mail_policy_session_fetch(s, NGX_MAIL_POLICY_AT_AUTH,
                                                &s->auth_login)
                : NGX_OK;
}


static void
ngx_mail_policy_auth_checked(void *data, ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_session_t  *s = data;

    if (verdict->rc == NGX_OK) {
        s->auth_checked = 1;
        ngx_mail_policy_auth_begin(s->auth);

        /* the wait for the provider has the session's timer, see wait() */

        ngx_mail_policy_session_resume(s);
        return;
    }

    ngx_mail_policy_auth_cancel(s->auth);
    s->auth = NULL;

    ngx_mail_policy_session_waited(s);

    (void) ngx_mail_policy_auth_refused(s, (char *) verdict->text.data);

    ngx_mail_policy_session_resume(s);
}


static void
ngx_mail_policy_auth_handler(void *data, ngx_int_t rc, ngx_str_t *senders)
{
    ngx_mail_policy_session_t  *s = data;

    s->auth = NULL;
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    /* the next command has all its time */

    ngx_mail_policy_session_waited(s);

    if (rc == NGX_OK && ngx_mail_policy_auth_senders(s, senders) != NGX_OK) {
        rc = NGX_ERROR;
    }

    switch (rc) {

    case NGX_OK:
        ngx_mail_policy_check_succeeded(&s->check);
        ngx_mail_policy_auth_succeeded(s);
        return;

    case NGX_DECLINED:
        ngx_mail_policy_check_keep(&s->check);

        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "client failed to authenticate as \"%V\"",
                      &s->auth_login);

        ngx_mail_policy_session_error(s, NGX_MAIL_POLICY_AUTH_INVALID);
        break;

    default:
        ngx_mail_policy_check_give_back(&s->check);
        ngx_mail_policy_reply(s, NGX_MAIL_POLICY_AUTH_LATER);
    }

    ngx_mail_policy_session_resume(s);
}


/* kept for the session: a change of them is in force with the next login */

static ngx_int_t
ngx_mail_policy_auth_senders(ngx_mail_policy_session_t *s,
    ngx_str_t *senders)
{
    if (!s->conf->sender_own || senders->len == 0) {
        return NGX_OK;
    }

    s->senders.data = ngx_pstrdup(s->connection->pool, senders);
    if (s->senders.data == NULL) {
        return NGX_ERROR;
    }

    s->senders.len = senders->len;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_succeeded(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_envelope_t  *e;

    e = &s->envelope;

    e->sasl_method = s->auth_method;
    e->sasl_username = s->auth_login;

    if (s->conf->relay_conf->client_login) {
        e->sasl_password.len = s->auth_password_len;
    }

    if (ngx_mail_policy_session_tls(s)) {
        ngx_str_set(&e->protocol, "ESMTPSA");

    } else {
        ngx_str_set(&e->protocol, "ESMTPA");
    }

    /* nginx' own log handler names the login from here on */

    s->mail->login = e->sasl_username;

    switch (ngx_mail_policy_session_login(s)) {

    case NGX_OK:
        ngx_mail_policy_auth_admitted(s);
        return;

    case NGX_AGAIN:
        s->reading = NGX_MAIL_POLICY_READ_NOTHING;
        return;

    default:
        ngx_mail_policy_session_close(s, "421 4.3.1 Out of memory, try again "
                                         "later");
    }
}


/* no limit has anything against the session of this login */

void
ngx_mail_policy_auth_admitted(ngx_mail_policy_session_t *s)
{
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_reply(s, "235 2.7.0 Authentication successful");
    ngx_mail_policy_session_resume(s);
}


static ngx_int_t
ngx_mail_policy_auth_refused(ngx_mail_policy_session_t *s, const char *reply)
{
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;
    s->auth_login.len = 0;

    ngx_mail_policy_session_error(s, reply);

    return NGX_OK;
}
