
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * PLAIN (RFC 4616) and LOGIN: the client says its password.
 *
 *   PLAIN  [334 ->] message -> ask
 *   LOGIN  [334 username ->] 334 password -> ask
 *
 *   admit -> find -> record -> hash in a thread -> done
 *
 * Events: a thread's verdict on a hash.  A hash that was verified with this
 * password a short while ago need not be made again.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_auth_cache.h"
#include "ngx_mail_policy_auth_provider.h"


typedef struct {
    ngx_str_t   login;          /* LOGIN: of the first response */
    ngx_uint_t  named;          /* it was said */

    /* for the cache */
    u_char      digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST];
    ngx_uint_t  cached;         /* it is to be remembered */
} ngx_mail_policy_mech_password_t;


static void ngx_mail_policy_mech_plain_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static void ngx_mail_policy_mech_login_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static ngx_mail_policy_mech_password_t *ngx_mail_policy_mech_password_ctx(
    ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_password_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_mech_password_unknown(
    ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_password_verify(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);
static ngx_uint_t ngx_mail_policy_mech_password_known(
    ngx_mail_policy_auth_t *auth, ngx_str_t *hash);
static void ngx_mail_policy_mech_password_handler(void *data, ngx_int_t rc);
static void ngx_mail_policy_mech_password_proved(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_password_answered(
    ngx_mail_policy_auth_t *auth, ngx_int_t rc);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_plain = {
    ngx_mail_policy_mech_plain_respond,
    ngx_mail_policy_auth_find,
    ngx_mail_policy_mech_password_record,
    ngx_mail_policy_mech_password_unknown,
    ngx_mail_policy_mech_password_answered,
    NULL
};


ngx_mail_policy_mech_t  ngx_mail_policy_mech_login = {
    ngx_mail_policy_mech_login_respond,
    ngx_mail_policy_auth_find,
    ngx_mail_policy_mech_password_record,
    ngx_mail_policy_mech_password_unknown,
    ngx_mail_policy_mech_password_answered,
    NULL
};


static void
ngx_mail_policy_mech_plain_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_str_t     login, password;
    mpol_plain_t  plain;

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, NULL, 0);
        return;
    }

    if (mpol_plain_parse(message->data, message->len, &plain) != MPOL_OK
        || ngx_mail_policy_mech_password_ctx(auth) == NULL)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    login.data = (u_char *) plain.authcid.data;
    login.len = plain.authcid.len;

    password.data = (u_char *) plain.password.data;
    password.len = plain.password.len;

    if (plain.authzid.len) {
        auth->authzid.data = ngx_pnalloc(auth->pool, plain.authzid.len);
        if (auth->authzid.data == NULL) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        auth->authzid.len = plain.authzid.len;
        ngx_memcpy(auth->authzid.data, plain.authzid.data, plain.authzid.len);
    }

    ngx_mail_policy_auth_ask(auth, &login, &password);
}


/* a name that is none is told after the password, like a wrong one */

static void
ngx_mail_policy_mech_login_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_mail_policy_mech_password_t  *ctx;

    ctx = ngx_mail_policy_mech_password_ctx(auth);
    if (ctx == NULL) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, (u_char *) "Username:", 9);
        return;
    }

    if (!ctx->named) {
        ctx->named = 1;

        if (mpol_identity_valid(message->data, message->len)) {
            ctx->login.data = ngx_pstrdup(auth->pool, message);
            if (ctx->login.data == NULL) {
                ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
                return;
            }

            ctx->login.len = message->len;
        }

        ngx_mail_policy_auth_challenge(auth, (u_char *) "Password:", 9);
        return;
    }

    if (ctx->login.len == 0
        || message->len == 0 || message->len > MPOL_PASSWORD_MAX)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    ngx_mail_policy_auth_ask(auth, &ctx->login, message);
}


static ngx_mail_policy_mech_password_t *
ngx_mail_policy_mech_password_ctx(ngx_mail_policy_auth_t *auth)
{
    if (auth->ctx == NULL) {
        auth->ctx = ngx_pcalloc(auth->pool,
                                sizeof(ngx_mail_policy_mech_password_t));
    }

    return auth->ctx;
}


/*
 * A record without a password is of no use; but one that is suspended has
 * its effect, too, on a login whose password the next provider knows.
 */

static void
ngx_mail_policy_mech_password_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record)
{
    if (record->hash.len) {
        ngx_mail_policy_mech_password_verify(auth, &record->hash);
        return;
    }

    if (auth->suspended) {
        ngx_mail_policy_mech_password_unknown(auth);
        return;
    }

    ngx_mail_policy_auth_next(auth);
}


static void
ngx_mail_policy_mech_password_unknown(ngx_mail_policy_auth_t *auth)
{
    ngx_str_t  hash;

    auth->suspended = 0;

    if (ngx_mail_policy_auth_dummy(auth, &hash) != NGX_OK) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    ngx_mail_policy_mech_password_verify(auth, &hash);
}


static void
ngx_mail_policy_mech_password_verify(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    /* AUTH-15: looked for in any case, as that takes its time, too */

    if (ngx_mail_policy_mech_password_known(auth, hash) && !auth->refuse) {
        ngx_mail_policy_mech_password_proved(auth);
        return;
    }

    auth->crypt = ngx_mail_policy_crypt_start(auth->conf->thread_pool, hash,
                                         &auth->password, auth->log,
                                         ngx_mail_policy_mech_password_handler,
                                         auth);

    if (auth->crypt == NULL) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
    }
}


static ngx_uint_t
ngx_mail_policy_mech_password_known(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    ngx_mail_policy_auth_cache_t     *cache;
    ngx_mail_policy_mech_password_t  *ctx;

    ctx = auth->ctx;
    cache = auth->client->cache;

    if (cache == NULL
        || ngx_mail_policy_auth_cache_digest(cache, auth->method,
                                             &auth->login, hash,
                                             &auth->password, ctx->digest)
           != NGX_OK)
    {
        return 0;
    }

    if (ngx_mail_policy_auth_cache_find(cache, ctx->digest)) {
        return 1;
    }

    ctx->cached = 1;

    return 0;
}


static void
ngx_mail_policy_mech_password_handler(void *data, ngx_int_t rc)
{
    ngx_mail_policy_auth_t *auth = data;

    ngx_mail_policy_mech_password_t  *ctx;

    ctx = auth->ctx;
    auth->crypt = NULL;

    if (rc != NGX_OK) {
        ngx_mail_policy_auth_done(auth, rc, NULL);
        return;
    }

    if (ctx->cached && !auth->refuse) {
        ngx_mail_policy_auth_cache_remember(auth->client->cache, ctx->digest,
                                            auth->client->remember);
    }

    ngx_mail_policy_mech_password_proved(auth);
}


static void
ngx_mail_policy_mech_password_proved(ngx_mail_policy_auth_t *auth)
{
    auth->told.password = auth->password;

    ngx_mail_policy_auth_proved(auth);
}


static void
ngx_mail_policy_mech_password_answered(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc)
{
    if (rc == NGX_OK && auth->told.password.len == 0) {
        auth->told.password = auth->password;
    }

    ngx_mail_policy_auth_done(auth, rc, NULL);
}
