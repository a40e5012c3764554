
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * CRAM-MD5 and SCRAM-SHA-256 where it is a provider that speaks them: what
 * the client says is passed on, and what the provider says to it.
 *
 *   CRAM-MD5   proceed -> 334 challenge -> login and digest -> ask
 *                   -> admit: proceed -> done
 *   SCRAM      [334 ->] client-first -> ask
 *                   -> admit: proceed -> 334 server-first -> client-final
 *                   -> proceed -> 334 server-final -> proceed -> done
 *
 * The login is read here, so that limits are asked before the provider sees a
 * proof; a message that has none goes to nobody.  No events arrive here.
 *
 * Of the providers in "policy_auth" only the first one that has the mechanism
 * is asked: what a client has said to one is of no use to another.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "mpol_scram_server.h"
#include "ngx_mail_policy_auth_provider.h"


/* of the client, more than any of these mechanisms has */
#define NGX_MAIL_POLICY_MECH_DIALOGUE_MESSAGES  8


typedef struct {
    ngx_str_t    message;           /* that is held back until admit() */
    ngx_uint_t   messages;
    unsigned     asked:1;
} ngx_mail_policy_mech_dialogue_t;


static void ngx_mail_policy_mech_dialogue_respond(
    ngx_mail_policy_auth_t *auth, ngx_str_t *message);
static void ngx_mail_policy_mech_dialogue_cram(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static void ngx_mail_policy_mech_dialogue_scram(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static ngx_int_t ngx_mail_policy_mech_dialogue_login(
    ngx_mail_policy_auth_t *auth, mpol_scram_client_first_t *first,
    ngx_str_t *login);
static void ngx_mail_policy_mech_dialogue_ask(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, ngx_str_t *login, ngx_str_t *secret);
static void ngx_mail_policy_mech_dialogue_admit(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_dialogue_proceed(
    ngx_mail_policy_auth_t *auth, ngx_str_t *message);
static void ngx_mail_policy_mech_dialogue_answered(
    ngx_mail_policy_auth_t *auth, ngx_int_t rc);
static void ngx_mail_policy_mech_dialogue_cleanup(
    ngx_mail_policy_auth_t *auth);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_dialogue = {
    ngx_mail_policy_mech_dialogue_respond,
    ngx_mail_policy_mech_dialogue_admit,
    NULL,
    NULL,
    ngx_mail_policy_mech_dialogue_answered,
    ngx_mail_policy_mech_dialogue_cleanup
};


static void
ngx_mail_policy_mech_dialogue_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    if (ctx == NULL) {
        ctx = ngx_pcalloc(auth->pool,
                          sizeof(ngx_mail_policy_mech_dialogue_t));
        if (ctx == NULL) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        auth->ctx = ctx;
    }

    if (++ctx->messages > NGX_MAIL_POLICY_MECH_DIALOGUE_MESSAGES) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    if (ctx->asked) {
        ngx_mail_policy_mech_dialogue_proceed(auth, message);
        return;
    }

    if (auth->method == NGX_MAIL_POLICY_METHOD_CRAM_MD5) {
        ngx_mail_policy_mech_dialogue_cram(auth, message);

    } else {
        ngx_mail_policy_mech_dialogue_scram(auth, message);
    }
}


static void
ngx_mail_policy_mech_dialogue_cram(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_str_t                         login, digest;
    mpol_cram_t                       cram;
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    if (message == NULL) {
        ngx_mail_policy_mech_dialogue_proceed(auth, NULL);
        return;
    }

    /* RFC 4954, section 4: the server speaks first */

    if (ctx->messages == 1) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED,
                                  "501 5.7.0 No initial response, please");
        return;
    }

    if (mpol_cram_parse(message->data, message->len, &cram) != MPOL_OK) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    login.data = (u_char *) cram.login.data;
    login.len = cram.login.len;

    digest.data = (u_char *) cram.digest.data;
    digest.len = cram.digest.len;

    ngx_mail_policy_mech_dialogue_ask(auth, message, &login, &digest);
}


static void
ngx_mail_policy_mech_dialogue_scram(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_int_t                   rc;
    ngx_str_t                   login, nonce;
    mpol_scram_client_first_t   first;

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, NULL, 0);
        return;
    }

    if (mpol_scram_client_first(message->data, message->len, &first)
        != MPOL_OK)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    /* RFC 5802, section 6: "y" where we did offer it is a downgrade */

    if (first.binding == 'p'
        || (first.binding == 'y'
            && (auth->client->offered & NGX_MAIL_POLICY_METHOD_SCRAM_PLUS)))
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    rc = ngx_mail_policy_mech_dialogue_login(auth, &first, &login);

    if (rc != NGX_OK) {
        ngx_mail_policy_auth_done(auth, rc, NULL);
        return;
    }

    nonce.data = (u_char *) first.nonce.data;
    nonce.len = first.nonce.len;

    ngx_mail_policy_mech_dialogue_ask(auth, message, &login, &nonce);
}


/*
 * Who asks to act for somebody else is refused: the provider would take that
 * for something of its own, and it cannot be taken out of a message.
 */

static ngx_int_t
ngx_mail_policy_mech_dialogue_login(ngx_mail_policy_auth_t *auth,
    mpol_scram_client_first_t *first, ngx_str_t *login)
{
    if (first->authzid.len
        && (first->authzid.len != first->username.len
            || ngx_memcmp(first->authzid.data, first->username.data,
                          first->username.len)
               != 0))
    {
        return NGX_DECLINED;
    }

    login->data = ngx_pnalloc(auth->pool, first->username.len);
    if (login->data == NULL) {
        return NGX_ERROR;
    }

    login->len = mpol_scram_name(first->username.data, first->username.len,
                                 login->data);

    return login->len ? NGX_OK : NGX_DECLINED;
}


static void
ngx_mail_policy_mech_dialogue_ask(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, ngx_str_t *login, ngx_str_t *secret)
{
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    ctx->message.data = ngx_pstrdup(auth->pool, message);
    if (ctx->message.data == NULL) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ctx->message.len = message->len;
    ctx->asked = 1;

    ngx_mail_policy_auth_ask(auth, login, secret);
}


static void
ngx_mail_policy_mech_dialogue_admit(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    ngx_mail_policy_mech_dialogue_proceed(auth, &ctx->message);
}


static void
ngx_mail_policy_mech_dialogue_proceed(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    auth->provider->proceed(auth, auth->provider->data, message);
}


/* a yes to somebody who has not said anything yet is none */

static void
ngx_mail_policy_mech_dialogue_answered(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc)
{
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    if (rc == NGX_OK && !ctx->asked) {
        rc = NGX_ERROR;
    }

    ngx_mail_policy_auth_done(auth, rc, NULL);
}


static void
ngx_mail_policy_mech_dialogue_cleanup(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_mech_dialogue_t  *ctx;

    ctx = auth->ctx;

    if (ctx && ctx->message.len) {
        ngx_explicit_memzero(ctx->message.data, ctx->message.len);
    }
}
