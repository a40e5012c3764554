
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * AUTH, RFC 4954: what the client and its auth say to each other, see
 * ngx_mail_policy_auth.h.
 *
 *   AUTH mechanism [ir] -> respond -> 334 -> response -> respond ...
 *                                 \-> limits -> admit -> 334 ...
 *                                                    \-> 235 | 535 | 454
 *
 * "*" instead of a response cancels.  A response is decoded in the input
 * buffer, given to the auth, which copies it, and wiped there.  Limits of
 * failed logins are asked as soon as the login is known.  Events: what the
 * auth says, the limits' verdict, and a timer that holds refusals back.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include <ngx_sha1.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_AUTH_LATER                                           \
    "454 4.7.0 Temporary authentication failure"

#define NGX_MAIL_POLICY_AUTH_NO_MEMORY                                       \
    "421 4.3.1 Out of memory, try again later"

#define NGX_MAIL_POLICY_AUTH_UNKNOWN                                         \
    "504 5.5.4 Authentication mechanism unknown"

/* one text, whatever it was that was wrong */
#define NGX_MAIL_POLICY_AUTH_INVALID                                         \
    "535 5.7.8 Authentication credentials invalid"

/* no reply waits longer, whatever a provider asks for */
#define NGX_MAIL_POLICY_AUTH_DELAY_MAX   15000
#define NGX_MAIL_POLICY_AUTH_WAIT_MAX    300000


static ngx_int_t ngx_mail_policy_auth_respond_to(ngx_mail_policy_session_t *s,
    ngx_str_t *message);
static void ngx_mail_policy_auth_handler(void *data,
    ngx_mail_policy_auth_event_e event, ngx_mail_policy_auth_told_t *told);
static void ngx_mail_policy_auth_challenged(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static void ngx_mail_policy_auth_asked(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static ngx_int_t ngx_mail_policy_auth_check(ngx_mail_policy_session_t *s,
    ngx_str_t *secret);
static void ngx_mail_policy_auth_tag(ngx_mail_policy_session_t *s,
    ngx_str_t *other, u_char *tag);
static ngx_int_t ngx_mail_policy_auth_fetch(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_auth_checked(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_auth_ended(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static void ngx_mail_policy_auth_succeeded(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static ngx_int_t ngx_mail_policy_auth_keep(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static ngx_int_t ngx_mail_policy_auth_copy(ngx_pool_t *pool, ngx_str_t *to,
    ngx_str_t *from);
static ngx_int_t ngx_mail_policy_auth_retain(ngx_mail_policy_session_t *s,
    ngx_str_t *password);
static void ngx_mail_policy_auth_later(ngx_mail_policy_session_t *s,
    ngx_str_t *reply);
static char *ngx_mail_policy_auth_text(ngx_mail_policy_session_t *s,
    ngx_str_t *reply, char *usual);
static void ngx_mail_policy_auth_failed(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told);
static ngx_msec_t ngx_mail_policy_auth_wait(ngx_mail_policy_session_t *s,
    ngx_msec_t asked);
static void ngx_mail_policy_auth_delay_handler(ngx_event_t *ev);
static void ngx_mail_policy_auth_say(ngx_mail_policy_session_t *s,
    const char *reply);
static ngx_int_t ngx_mail_policy_auth_refused(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, const char *reply,
    ngx_mail_policy_verdict_t *verdict);


/* what this session is offered, and may use */

ngx_uint_t
ngx_mail_policy_auth_methods(ngx_mail_policy_session_t *s)
{
    ngx_uint_t                   methods;
    ngx_mail_policy_srv_conf_t  *pscf;

    pscf = s->conf;

    if (ngx_mail_policy_auth_off(pscf->auth)
        || s->envelope.sasl_username.len
        || (!ngx_mail_policy_session_tls(s) && !pscf->auth_plaintext))
    {
        return 0;
    }

    methods = pscf->auth_methods;

    if (!ngx_mail_policy_session_tls(s)) {
        methods &= ~NGX_MAIL_POLICY_METHOD_SCRAM_PLUS;
    }

    if ((methods & NGX_MAIL_POLICY_METHOD_EXTERNAL)
        && !ngx_mail_policy_mech_external_verified(s->connection))
    {
        methods &= ~NGX_MAIL_POLICY_METHOD_EXTERNAL;
    }

    return methods;
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
    size_t                          n;
    u_char                         *ir, *last;
    ngx_uint_t                      methods;
    ngx_mail_policy_auth_client_t  *client;

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

    s->auth_method = ngx_mail_policy_auth_method((u_char *) cmd->arg.data, n)
                     & methods;

    s->auth_begun = 1;
    s->auth_login.len = 0;

    if (s->auth_method == 0) {
        ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_FAILURE,
                                  NGX_MAIL_POLICY_AUTH_UNKNOWN, NULL);
        ngx_mail_policy_session_error(s, NGX_MAIL_POLICY_AUTH_UNKNOWN);
        return NGX_OK;
    }

    client = &s->auth_client;

    client->connection = s->connection;
    client->host = &s->envelope.client_host;
    client->helo = &s->envelope.helo;
    client->offered = methods;
    client->attempt++;
    client->cache = s->conf->passwords;
    client->remember = s->conf->auth_cache;
    client->ask_relay = ngx_mail_policy_asking_start;
    client->cancel_relay = ngx_mail_policy_asking_cancel;
    client->data = s;

    s->auth_checked = 0;
    s->auth_failed = 0;

    s->auth = ngx_mail_policy_auth_create(s->conf->auth, s->auth_method,
                                          client, s->core->error_log,
                                          ngx_mail_policy_auth_handler, s);
    if (s->auth == NULL) {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY,
                                            NGX_MAIL_POLICY_AUTH_LATER, NULL);
    }

    s->connection->log->action = "authenticating client";

    if (ir == last) {
        return ngx_mail_policy_auth_respond_to(s, NULL);
    }

    return ngx_mail_policy_auth_response(s, ir, last - ir);
}


ngx_int_t
ngx_mail_policy_auth_response(ngx_mail_policy_session_t *s, u_char *data,
    size_t len)
{
    size_t     n;
    ngx_int_t  rc;
    ngx_str_t  message;

    if (len == 1 && *data == '*') {
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_LOGIN_ABORTED,
                                 "501 5.7.0 Authentication cancelled", NULL);
    }

    /*
     * RFC 4954, section 4: "=" is an initial response of no octets; curl
     * says the same later on, where an empty line is meant
     */

    if (len == 1 && *data == '=') {
        len = 0;
    }

    /* AUTH-7: before anybody else sees it */

    if (mpol_base64_decode(data, len, data, &n) != MPOL_OK) {
        ngx_explicit_memzero(data, len);
        return ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_LOGIN_FAILURE,
                                            "501 5.5.2 Invalid base64", NULL);
    }

    message.data = data;
    message.len = n;

    rc = ngx_mail_policy_auth_respond_to(s, &message);

    ngx_explicit_memzero(data, len);

    return rc;
}


static ngx_int_t
ngx_mail_policy_auth_respond_to(ngx_mail_policy_session_t *s,
    ngx_str_t *message)
{
    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    ngx_mail_policy_auth_respond(s->auth, message);

    return NGX_AGAIN;
}


static void
ngx_mail_policy_auth_handler(void *data, ngx_mail_policy_auth_event_e event,
    ngx_mail_policy_auth_told_t *told)
{
    ngx_mail_policy_session_t  *s = data;

    /* the client has all its time for what it does next */

    ngx_mail_policy_session_waited(s);

    switch (event) {

    case NGX_MAIL_POLICY_AUTH_CHALLENGE:
        ngx_mail_policy_auth_challenged(s, told);
        return;

    case NGX_MAIL_POLICY_AUTH_ASK:
        ngx_mail_policy_auth_asked(s, told);
        return;

    default: /* NGX_MAIL_POLICY_AUTH_DONE */
        s->auth = NULL;
        ngx_mail_policy_auth_ended(s, told);
    }
}


static void
ngx_mail_policy_auth_challenged(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    if (told->rc == NGX_DECLINED && !s->auth_failed) {

        /* it knows, so it counts, whatever the client says to that */

        s->auth_failed = 1;
        ngx_mail_policy_check_keep(&s->check);
    }

    ngx_mail_policy_challenge(s, &told->challenge);

    s->reading = NGX_MAIL_POLICY_READ_AUTH;
    ngx_mail_policy_session_resume(s);
}


static void
ngx_mail_policy_auth_asked(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    ngx_int_t  rc;

    ngx_memcpy(s->login, told->login.data, told->login.len);

    s->auth_login.data = s->login;
    s->auth_login.len = told->login.len;

    rc = ngx_mail_policy_auth_check(s, &told->secret);

    if (rc == NGX_AGAIN) {
        return;
    }

    if (rc == NGX_OK) {
        s->auth_checked = 1;
        ngx_mail_policy_auth_admit(s->auth);

    } else {
        (void) ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY,
                                            NGX_MAIL_POLICY_AUTH_LATER, NULL);
    }

    /* the wait for the provider has the session's timer, see wait() */

    ngx_mail_policy_session_resume(s);
}


/*
 * May this client fail once more?  Asked before the password is looked at.
 * Here $sasl_username is the login that is tried.
 */

static ngx_int_t
ngx_mail_policy_auth_check(ngx_mail_policy_session_t *s, ngx_str_t *secret)
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
    ngx_mail_policy_auth_tag(s, secret, s->check.member.data);

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
        ngx_mail_policy_auth_admit(s->auth);

    } else {
        ngx_mail_policy_session_waited(s);

        (void) ngx_mail_policy_auth_refused(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY,
                                            (char *) verdict->text.data,
                                            verdict);
    }

    ngx_mail_policy_session_resume(s);
}


static void
ngx_mail_policy_auth_ended(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    if (told->rc == NGX_OK && ngx_mail_policy_auth_keep(s, told) != NGX_OK) {
        told->rc = NGX_ERROR;
        ngx_str_null(&told->reply);
    }

    if (told->rc == NGX_OK) {
        ngx_mail_policy_asking_won(s);

    } else {
        ngx_mail_policy_asking_end(s);
    }

    switch (told->rc) {

    case NGX_OK:
        ngx_mail_policy_check_succeeded(&s->check);
        ngx_mail_policy_auth_succeeded(s, told);
        return;

    case NGX_DECLINED:
        ngx_mail_policy_check_keep(&s->check);

        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "client failed to authenticate as \"%V\"",
                      &s->auth_login);

        ngx_mail_policy_auth_failed(s, told);
        return;

    default:
        ngx_mail_policy_check_give_back(&s->check);
        ngx_mail_policy_auth_later(s, &told->reply);
    }
}


/* not counted as an error, so nothing of it may stay with the session */

static void
ngx_mail_policy_auth_later(ngx_mail_policy_session_t *s, ngx_str_t *reply)
{
    ngx_str_t  later;

    ngx_str_set(&later, NGX_MAIL_POLICY_AUTH_LATER);

    if (reply->len) {
        later = *reply;
    }

    ngx_mail_policy_auth_told_text(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY, &later,
                                   NULL);
    s->auth_login.len = 0;

    ngx_mail_policy_session_refused_text(s, &later);
    ngx_mail_policy_reply(s, "%V", &later);
    ngx_mail_policy_session_resume(s);
}


/* a provider's own reply; it is gone with the auth */

static char *
ngx_mail_policy_auth_text(ngx_mail_policy_session_t *s, ngx_str_t *reply,
    char *usual)
{
    u_char  *text;

    if (reply->len == 0) {
        return usual;
    }

    text = ngx_pnalloc(s->connection->pool, reply->len + 1);
    if (text == NULL) {
        return usual;
    }

    (void) ngx_cpystrn(text, reply->data, reply->len + 1);

    return (char *) text;
}


/* for the session: a change in a record is in force with the next login */

static ngx_int_t
ngx_mail_policy_auth_keep(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    ngx_pool_t                  *pool;
    ngx_mail_policy_envelope_t  *e;

    e = &s->envelope;
    pool = s->connection->pool;

    if (told->login.len > sizeof(s->login)
        || ngx_mail_policy_auth_copy(pool, &e->sasl_authzid, &told->authzid)
           != NGX_OK
        || ngx_mail_policy_auth_copy(pool, &e->auth_relay, &told->relay)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (s->conf->sender_own
        && ngx_mail_policy_auth_copy(pool, &s->senders, &told->senders)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (s->conf->relay_conf->client_login) {
        return ngx_mail_policy_auth_retain(s, &told->password);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_copy(ngx_pool_t *pool, ngx_str_t *to, ngx_str_t *from)
{
    ngx_str_null(to);

    if (from->len == 0) {
        return NGX_OK;
    }

    to->data = ngx_pstrdup(pool, from);
    if (to->data == NULL) {
        return NGX_ERROR;
    }

    to->len = from->len;

    return NGX_OK;
}


/* for relays, who are to see the client's own: its until the session ends */

static ngx_int_t
ngx_mail_policy_auth_retain(ngx_mail_policy_session_t *s, ngx_str_t *password)
{
    ngx_str_t  *retained;

    retained = &s->envelope.sasl_password;

    return ngx_mail_policy_auth_copy(s->connection->pool, retained, password);
}


static void
ngx_mail_policy_auth_succeeded(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    ngx_mail_policy_envelope_t  *e;

    e = &s->envelope;

    ngx_memcpy(s->login, told->login.data, told->login.len);

    s->auth_login.data = s->login;
    s->auth_login.len = told->login.len;

    e->sasl_method = *ngx_mail_policy_auth_name(s->auth_method);
    e->sasl_username = s->auth_login;

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
        ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY,
                                  NGX_MAIL_POLICY_AUTH_NO_MEMORY, NULL);
        ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_AUTH,
                                       NGX_MAIL_POLICY_AUTH_NO_MEMORY);
    }
}


/* no limit has anything against the session of this login */

void
ngx_mail_policy_auth_admitted(ngx_mail_policy_session_t *s)
{
    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_SUCCESS, NULL, NULL);
    ngx_mail_policy_reply(s, "235 2.7.0 Authentication successful");
    ngx_mail_policy_session_resume(s);
}


/* AUTH-21: who fails again and again waits longer each time */

static void
ngx_mail_policy_auth_failed(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_told_t *told)
{
    char        *reply;
    ngx_msec_t   wait;

    s->auth_failures++;

    reply = ngx_mail_policy_auth_text(s, &told->reply,
                                      NGX_MAIL_POLICY_AUTH_INVALID);

    /* at once: who is to be kept out for it is, before the reply is due */

    ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_FAILURE, reply, NULL);
    ngx_mail_policy_session_refused(s, reply);

    s->auth_login.len = 0;

    wait = ngx_mail_policy_auth_wait(s, told->wait);

    if (wait == 0) {
        ngx_mail_policy_auth_say(s, reply);
        return;
    }

    s->auth_reply = (u_char *) reply;
    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    s->auth_delay.handler = ngx_mail_policy_auth_delay_handler;
    s->auth_delay.data = s;
    s->auth_delay.log = s->connection->log;

    ngx_add_timer(&s->auth_delay, wait);
}


static ngx_msec_t
ngx_mail_policy_auth_wait(ngx_mail_policy_session_t *s, ngx_msec_t asked)
{
    ngx_uint_t  n;
    ngx_msec_t  wait;

    if (asked) {
        return ngx_min(asked, NGX_MAIL_POLICY_AUTH_WAIT_MAX);
    }

    wait = s->conf->auth_delay;

    for (n = 1;
         n < s->auth_failures && wait < NGX_MAIL_POLICY_AUTH_DELAY_MAX;
         n++)
    {
        wait *= 2;
    }

    /* what was configured is not cut */

    return ngx_max(ngx_min(wait, NGX_MAIL_POLICY_AUTH_DELAY_MAX),
                   s->conf->auth_delay);
}


static void
ngx_mail_policy_auth_delay_handler(ngx_event_t *ev)
{
    ngx_mail_policy_session_t  *s;

    s = ev->data;

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_auth_say(s, (char *) s->auth_reply);
}


/* RFC 5321, section 3.8: who says 421 closes, be it in a provider's words */

static void
ngx_mail_policy_auth_say(ngx_mail_policy_session_t *s, const char *reply)
{
    if (ngx_strncmp(reply, "421", 3) == 0) {
        ngx_mail_policy_session_close(s, reply);
        return;
    }

    ngx_mail_policy_reply(s, "%s", reply);
    ngx_mail_policy_session_count_error(s);
    ngx_mail_policy_session_resume(s);
}


/* ends an auth that is not over */

void
ngx_mail_policy_auth_abort(ngx_mail_policy_session_t *s)
{
    if (s->auth) {

        /* AUTH-21: a login that was tried stays tried, however that ended */

        if (s->auth_checked && s->reading == NGX_MAIL_POLICY_READ_AUTH) {
            ngx_mail_policy_check_keep(&s->check);
        }

        ngx_mail_policy_auth_cancel(s->auth);
        s->auth = NULL;
    }

    if (s->auth_delay.timer_set) {
        ngx_del_timer(&s->auth_delay);
    }
}


static ngx_int_t
ngx_mail_policy_auth_refused(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, const char *reply,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_auth_told(s, result, reply, verdict);
    ngx_mail_policy_auth_abort(s);

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;
    s->auth_login.len = 0;

    ngx_mail_policy_session_error(s, reply);

    return NGX_OK;
}
