
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Limits of the session itself: how many connections, how many at a time, and
 * what is left of the others, for EHLO.
 *
 *     take-over -> admission asked -> COMMAND      or 421
 *     AUTH      -> login asked     -> 235          or 421
 *     EHLO      -> what is left    -> 250
 *
 * The greeting does not wait for the admission: a client that may not come in
 * is told so after it, before any command is looked at.  Both admissions hold
 * their leases until the session ends.
 *
 * Events: the verdicts.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_admission_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_admission_login_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);
static void ngx_mail_policy_admission_left_handler(void *data,
    ngx_mail_policy_verdict_t *verdict);


void
ngx_mail_policy_session_check(ngx_mail_policy_session_t *s,
    ngx_mail_policy_check_t *check, ngx_pool_t *pool,
    ngx_mail_policy_check_pt handler, void *data)
{
    ngx_memzero(check, sizeof(ngx_mail_policy_check_t));

    check->store = s->main_conf->store;
    check->conf = s->conf->limits;
    check->envelope = &s->envelope;
    check->fetch = s->transaction ? s->transaction->fetch : s->fetch;
    check->pool = pool;
    check->handler = handler;
    check->data = data;
}


/*
 * On memory of its own, as a session may ask often.  What is asked for here
 * is known at MAIL, if that comes soon; it is asked for again there, as a
 * session may be long.
 */

ngx_int_t
ngx_mail_policy_session_fetch(ngx_mail_policy_session_t *s, ngx_uint_t phase,
    ngx_str_t *tried)
{
    uint64_t  mask;

    ngx_mail_policy_fetch_drop(&s->fetch);

    mask = ngx_mail_policy_fetch_mask(s->conf, phase);

    if (mask == 0) {
        return NGX_OK;
    }

    s->fetch = ngx_mail_policy_fetch_alone(s->main_conf, &s->envelope);
    if (s->fetch == NULL) {
        return NGX_ERROR;
    }

    if (tried) {
        s->fetch->login = *tried;
    }

    ngx_mail_policy_fetch_start(s->fetch, mask);

    return NGX_OK;
}


void
ngx_mail_policy_session_admit(ngx_mail_policy_session_t *s)
{
    if (ngx_mail_policy_session_fetch(s, NGX_MAIL_POLICY_AT_CONNECT, NULL)
        != NGX_OK)
    {
        goto failed;
    }

    if (s->conf->limits == NULL) {
        return;
    }

    ngx_mail_policy_session_check(s, &s->admission, s->connection->pool,
                                  ngx_mail_policy_admission_handler, s);

    if (ngx_mail_policy_store_unique(s->connection->pool, &s->lease)
        != NGX_OK)
    {
        goto failed;
    }

    s->admission.member = s->lease;

    switch (ngx_mail_policy_check_start(&s->admission,
                                        NGX_MAIL_POLICY_CHECK_CONNECT))
    {

    case NGX_OK:
        return;

    case NGX_AGAIN:
        s->reading = NGX_MAIL_POLICY_READ_NOTHING;
        return;
    }

failed:

    ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_CONNECT,
                                  "421 4.3.1 Out of memory, try again later");
}


static void
ngx_mail_policy_admission_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_session_t *s = data;

    if (verdict->rc != NGX_OK) {
        s->refusing = verdict;
        ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_CONNECT,
                                       (char *) verdict->text.data);
        return;
    }

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_session_resume(s);
}


ngx_int_t
ngx_mail_policy_session_login(ngx_mail_policy_session_t *s)
{
    if (ngx_mail_policy_session_fetch(s, NGX_MAIL_POLICY_AT_AUTH, NULL)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_session_check(s, &s->login_check, s->connection->pool,
                                  ngx_mail_policy_admission_login_handler, s);

    s->login_check.member = s->lease;

    return ngx_mail_policy_check_start(&s->login_check,
                                       NGX_MAIL_POLICY_CHECK_LOGIN);
}


static void
ngx_mail_policy_admission_login_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_session_t *s = data;

    if (verdict->rc != NGX_OK) {
        ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_TEMPORARY,
                                  (char *) verdict->text.data, verdict);
        ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_AUTH,
                                       (char *) verdict->text.data);
        return;
    }

    ngx_mail_policy_auth_admitted(s);
}


ngx_int_t
ngx_mail_policy_session_left(ngx_mail_policy_session_t *s)
{
    ngx_int_t  rc;

    if (!s->conf->limits_offered
        || (s->envelope.sasl_username.len == 0
            && !ngx_mail_policy_auth_off(s->conf->auth))
        || ngx_mail_policy_session_fetch(s, NGX_MAIL_POLICY_AT_AUTH, NULL)
           != NGX_OK)
    {
        ngx_memzero(&s->check, sizeof(ngx_mail_policy_check_t));
        return NGX_OK;
    }

    ngx_mail_policy_session_check(s, &s->check, s->connection->pool,
                                  ngx_mail_policy_admission_left_handler, s);

    rc = ngx_mail_policy_check_start(&s->check,
                                     NGX_MAIL_POLICY_CHECK_GREETING);

    /* without memory nothing is said of what is left */

    return (rc == NGX_AGAIN) ? NGX_AGAIN : NGX_OK;
}


static void
ngx_mail_policy_admission_left_handler(void *data,
    ngx_mail_policy_verdict_t *verdict)
{
    ngx_mail_policy_session_t *s = data;

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    ngx_mail_policy_ehlo_reply(s);
    ngx_mail_policy_check_give_back(&s->check);
    ngx_mail_policy_session_resume(s);
}


void
ngx_mail_policy_session_dismiss(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_check_give_back(&s->check);
    ngx_mail_policy_check_release(&s->login_check);
    ngx_mail_policy_check_release(&s->admission);
    ngx_mail_policy_fetch_drop(&s->fetch);
}
