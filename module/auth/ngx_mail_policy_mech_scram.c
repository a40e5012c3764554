
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, RFC 5802, 7677, 9266, as the server.
 *
 *   [334 ->] client-first -> ask -> admit -> find -> record
 *        -> keys: there, or made in a thread of a password in clear
 *   334 server-first -> client-final -> verify -> done
 *                                          \-> 334 server-final -> done
 *
 * Events: a thread's keys.  A login that nobody knows, or whose record is of
 * no use here, has a salt, too, always the same one, and goes all the way.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include "mpol_sasl.h"
#include "mpol_scram_server.h"
#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_binding.h"
#include "ngx_mail_policy_scram.h"


#define NGX_MAIL_POLICY_MECH_SCRAM_NONCE  18    /* octets, before base64 */
#define NGX_MAIL_POLICY_MECH_SCRAM_SALT   16    /* of {PLAIN}, and unknown */

#define ngx_mail_policy_mech_scram_base64(n)  (((n) + 2) / 3 * 4)


typedef struct {
    ngx_uint_t                     state;
    ngx_str_t                      gs2;     /* header, and binding's octets */
    ngx_str_t                      bare;    /* client-first-message-bare */
    ngx_str_t                      nonce;   /* the client's, then both */
    ngx_str_t                      first;   /* server-first-message */

    size_t                         salt_len;
    u_char                         salt[NGX_MAIL_POLICY_SCRAM_SALT];
    ngx_uint_t                     iterations;

    u_char                         stored[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char                         server[NGX_MAIL_POLICY_SCRAM_HASH];

    ngx_mail_policy_scram_t       *thread;  /* while one is busy */
} ngx_mail_policy_mech_scram_t;


#define NGX_MAIL_POLICY_MECH_SCRAM_FIRST  0
#define NGX_MAIL_POLICY_MECH_SCRAM_FINAL  1
#define NGX_MAIL_POLICY_MECH_SCRAM_LAST   2


static void ngx_mail_policy_mech_scram_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static void ngx_mail_policy_mech_scram_first(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static ngx_int_t ngx_mail_policy_mech_scram_bound(
    ngx_mail_policy_auth_t *auth, mpol_scram_client_first_t *first);
static ngx_int_t ngx_mail_policy_mech_scram_names(
    ngx_mail_policy_auth_t *auth, mpol_scram_client_first_t *first,
    ngx_str_t *login);
static ngx_int_t ngx_mail_policy_mech_scram_nonce(
    ngx_mail_policy_auth_t *auth, mpol_scram_client_first_t *first);
static void ngx_mail_policy_mech_scram_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_mech_scram_unknown(ngx_mail_policy_auth_t *auth);
static ngx_int_t ngx_mail_policy_mech_scram_salt(
    ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_scram_secret(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);
static ngx_int_t ngx_mail_policy_mech_scram_decode(
    ngx_mail_policy_auth_t *auth, ngx_str_t *hash);
static void ngx_mail_policy_mech_scram_derive(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);
static void ngx_mail_policy_mech_scram_handler(void *data,
    ngx_mail_policy_scram_keys_t *keys);
static void ngx_mail_policy_mech_scram_server_first(
    ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_scram_final(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static ngx_int_t ngx_mail_policy_mech_scram_verify(
    ngx_mail_policy_auth_t *auth, mpol_scram_client_final_t *final,
    u_char *signature);
static ngx_int_t ngx_mail_policy_mech_scram_binding(
    ngx_mail_policy_mech_scram_t *ctx, mpol_str_t *given, ngx_pool_t *pool);
static void ngx_mail_policy_mech_scram_cleanup(ngx_mail_policy_auth_t *auth);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_scram = {
    ngx_mail_policy_mech_scram_respond,
    ngx_mail_policy_auth_find,
    ngx_mail_policy_mech_scram_record,
    ngx_mail_policy_mech_scram_unknown,
    NULL,
    ngx_mail_policy_mech_scram_cleanup
};


static void
ngx_mail_policy_mech_scram_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    if (ctx == NULL) {
        ctx = ngx_pcalloc(auth->pool, sizeof(ngx_mail_policy_mech_scram_t));
        if (ctx == NULL) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        auth->ctx = ctx;
    }

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, NULL, 0);
        return;
    }

    switch (ctx->state) {

    case NGX_MAIL_POLICY_MECH_SCRAM_FIRST:
        ngx_mail_policy_mech_scram_first(auth, message);
        return;

    case NGX_MAIL_POLICY_MECH_SCRAM_FINAL:
        ngx_mail_policy_mech_scram_final(auth, message);
        return;

    default: /* NGX_MAIL_POLICY_MECH_SCRAM_LAST */

        /* RFC 4954, section 4: what success has to say had a 334 */

        if (message->len) {
            ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
            return;
        }

        ngx_mail_policy_auth_proved(auth);
    }
}


/* client-first-message */


static void
ngx_mail_policy_mech_scram_first(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_int_t                   rc;
    ngx_str_t                   login, nonce;
    mpol_scram_client_first_t   first;

    if (mpol_scram_client_first(message->data, message->len, &first)
        != MPOL_OK)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    rc = ngx_mail_policy_mech_scram_bound(auth, &first);

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_mech_scram_names(auth, &first, &login);
    }

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_mech_scram_nonce(auth, &first);
    }

    if (rc != NGX_OK) {
        ngx_mail_policy_auth_done(auth, rc, NULL);
        return;
    }

    /* no two tries look the same: each failure is one of its own */

    nonce = ((ngx_mail_policy_mech_scram_t *) auth->ctx)->nonce;

    ngx_mail_policy_auth_ask(auth, &login, &nonce);
}


/*
 * RFC 5802, section 6.  "y": the client can bind, and believes that we
 * cannot; where we said that we can, somebody has taken it away.
 */

static ngx_int_t
ngx_mail_policy_mech_scram_bound(ngx_mail_policy_auth_t *auth,
    mpol_scram_client_first_t *first)
{
    size_t                         len;
    u_char                        *p;
    ngx_str_t                      name;
    ngx_mail_policy_mech_scram_t  *ctx;
    u_char                         data[NGX_MAIL_POLICY_BINDING];

    ctx = auth->ctx;
    len = 0;

    if ((auth->method == NGX_MAIL_POLICY_METHOD_SCRAM_PLUS)
        != (first->binding == 'p'))
    {
        return NGX_DECLINED;
    }

    if (first->binding == 'y'
        && (auth->client->offered & NGX_MAIL_POLICY_METHOD_SCRAM_PLUS))
    {
        ngx_log_error(NGX_LOG_INFO, auth->log, 0,
                      "SCRAM without channel binding by a client that was "
                      "not told of it: somebody is in between");
        return NGX_DECLINED;
    }

    if (first->binding == 'p') {
        name.data = (u_char *) first->name.data;
        name.len = first->name.len;

        len = ngx_mail_policy_binding(auth->client->connection, &name, data);

        if (len == 0) {
            return NGX_DECLINED;
        }
    }

    p = ngx_pnalloc(auth->pool, first->gs2.len + len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->gs2.data = p;
    ctx->gs2.len = first->gs2.len + len;

    p = ngx_cpymem(p, first->gs2.data, first->gs2.len);
    ngx_memcpy(p, data, len);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_mech_scram_names(ngx_mail_policy_auth_t *auth,
    mpol_scram_client_first_t *first, ngx_str_t *login)
{
    ngx_str_t  *authzid;

    authzid = &auth->authzid;

    login->data = ngx_pnalloc(auth->pool, first->username.len);
    authzid->data = ngx_pnalloc(auth->pool, first->authzid.len + 1);

    if (login->data == NULL || authzid->data == NULL) {
        return NGX_ERROR;
    }

    login->len = mpol_scram_name(first->username.data, first->username.len,
                                 login->data);

    if (first->authzid.len) {
        authzid->len = mpol_scram_name(first->authzid.data,
                                       first->authzid.len, authzid->data);

        if (!mpol_identity_valid(authzid->data, authzid->len)) {
            return NGX_DECLINED;
        }
    }

    return mpol_identity_valid(login->data, login->len) ? NGX_OK
                                                        : NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_mech_scram_nonce(ngx_mail_policy_auth_t *auth,
    mpol_scram_client_first_t *first)
{
    u_char                        *p;
    ngx_mail_policy_mech_scram_t  *ctx;
    u_char                         random[NGX_MAIL_POLICY_MECH_SCRAM_NONCE];

    ctx = auth->ctx;

    ctx->bare.len = first->bare.len;
    ctx->bare.data = ngx_pnalloc(auth->pool, first->bare.len);

    p = ngx_pnalloc(auth->pool,
                    first->nonce.len
                    + ngx_mail_policy_mech_scram_base64(sizeof(random)));

    if (ctx->bare.data == NULL || p == NULL
        || RAND_bytes(random, sizeof(random)) != 1)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->bare.data, first->bare.data, first->bare.len);

    ctx->nonce.data = p;
    p = ngx_cpymem(p, first->nonce.data, first->nonce.len);
    p += mpol_base64_encode(random, sizeof(random), p);
    ctx->nonce.len = p - ctx->nonce.data;

    return NGX_OK;
}


/* the record */


static void
ngx_mail_policy_mech_scram_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record)
{
    if (record->hash.len == 0 && !auth->suspended) {
        ngx_mail_policy_auth_next(auth);
        return;
    }

    if (!ngx_mail_policy_crypt_plain(&record->hash)
        && !ngx_mail_policy_crypt_scram(&record->hash))
    {
        ngx_mail_policy_mech_scram_unknown(auth);
        return;
    }

    ngx_mail_policy_mech_scram_secret(auth, &record->hash);
}


static void
ngx_mail_policy_mech_scram_unknown(ngx_mail_policy_auth_t *auth)
{
    ngx_str_t  hash;

    auth->suspended = 0;

    if (ngx_mail_policy_auth_dummy(auth, &hash) != NGX_OK) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    ngx_mail_policy_mech_scram_secret(auth, &hash);
}


static void
ngx_mail_policy_mech_scram_secret(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    if (ngx_mail_policy_crypt_scram(hash)) {

        if (ngx_mail_policy_mech_scram_decode(auth, hash) != NGX_OK) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        ngx_mail_policy_mech_scram_server_first(auth);
        return;
    }

    ctx->salt_len = NGX_MAIL_POLICY_MECH_SCRAM_SALT;
    ctx->iterations = NGX_MAIL_POLICY_SCRAM_MIN;

    if (ngx_mail_policy_mech_scram_salt(auth) != NGX_OK) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ngx_mail_policy_mech_scram_derive(auth, hash);
}


/*
 * AUTH-14: of a login that has none, a salt that stays the same, and that
 * looks like those that others have.
 */

static ngx_int_t
ngx_mail_policy_mech_scram_salt(ngx_mail_policy_auth_t *auth)
{
    u_char                         digest[EVP_MAX_MD_SIZE];
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    if (ngx_mail_policy_auth_hmac(auth, "scram salt", &auth->login, digest)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->salt, digest, NGX_MAIL_POLICY_SCRAM_HASH);

    if (ctx->salt_len <= NGX_MAIL_POLICY_SCRAM_HASH) {
        return NGX_OK;
    }

    if (ngx_mail_policy_auth_hmac(auth, "scram salt, more", &auth->login,
                                  digest)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->salt + NGX_MAIL_POLICY_SCRAM_HASH, digest,
               ctx->salt_len - NGX_MAIL_POLICY_SCRAM_HASH);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_mech_scram_decode(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    size_t                         n;
    mpol_scram_secret_t            secret;
    ngx_mail_policy_mech_scram_t  *ctx;
    u_char                         buf[NGX_MAIL_POLICY_SCRAM_HASH + 4];
    u_char                         salt[NGX_MAIL_POLICY_SCRAM_SALT + 4];

    ctx = auth->ctx;

    n = sizeof(NGX_MAIL_POLICY_CRYPT_SCRAM) - 1;

    if (mpol_scram_secret(hash->data + n, hash->len - n, &secret) != MPOL_OK
        || mpol_base64_decode(secret.salt.data, secret.salt.len, salt, &n)
           != MPOL_OK)
    {
        return NGX_ERROR;
    }

    ctx->iterations = secret.iterations;
    ctx->salt_len = n;

    if (mpol_base64_decode(secret.stored.data, secret.stored.len, buf, &n)
        != MPOL_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->stored, buf, NGX_MAIL_POLICY_SCRAM_HASH);

    if (mpol_base64_decode(secret.server.data, secret.server.len, buf, &n)
        != MPOL_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->server, buf, NGX_MAIL_POLICY_SCRAM_HASH);

    ngx_explicit_memzero(buf, sizeof(buf));

    /*
     * Of somebody else's, only what it costs may show.  AUTH-15: the salt
     * that is made takes a tenth of the time, so it is made for all.
     */

    if (ngx_mail_policy_mech_scram_salt(auth) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!auth->refuse) {
        ngx_memcpy(ctx->salt, salt, ctx->salt_len);
    }

    return NGX_OK;
}


static void
ngx_mail_policy_mech_scram_derive(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    ngx_str_t                      password, salt;
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    password.data = hash->data + sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;
    password.len = hash->len - (sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1);

    salt.data = ctx->salt;
    salt.len = ctx->salt_len;

    ctx->thread = ngx_mail_policy_scram_start(NULL, auth->conf->thread_pool,
                                         &password, &salt, ctx->iterations,
                                         ngx_mail_policy_mech_scram_handler,
                                         auth);
    if (ctx->thread == NULL) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
    }
}


static void
ngx_mail_policy_mech_scram_handler(void *data,
    ngx_mail_policy_scram_keys_t *keys)
{
    ngx_mail_policy_auth_t *auth = data;

    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;
    ctx->thread = NULL;

    if (keys == NULL
        || SHA256(keys->client, NGX_MAIL_POLICY_SCRAM_HASH, ctx->stored)
           == NULL)
    {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ngx_memcpy(ctx->server, keys->server, NGX_MAIL_POLICY_SCRAM_HASH);

    ngx_mail_policy_mech_scram_server_first(auth);
}


static void
ngx_mail_policy_mech_scram_server_first(ngx_mail_policy_auth_t *auth)
{
    size_t                         len;
    u_char                        *p;
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    len = sizeof("r=,s=,i=") - 1 + ctx->nonce.len
          + ngx_mail_policy_mech_scram_base64(ctx->salt_len)
          + NGX_INT_T_LEN;

    p = ngx_pnalloc(auth->pool, len);
    if (p == NULL) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ctx->first.data = p;

    p = ngx_sprintf(p, "r=%V,s=", &ctx->nonce);
    p += mpol_base64_encode(ctx->salt, ctx->salt_len, p);
    p = ngx_sprintf(p, ",i=%ui", ctx->iterations);

    ctx->first.len = p - ctx->first.data;
    ctx->state = NGX_MAIL_POLICY_MECH_SCRAM_FINAL;

    ngx_mail_policy_auth_challenge(auth, ctx->first.data, ctx->first.len);
}


/* client-final-message */


static void
ngx_mail_policy_mech_scram_final(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_int_t                      rc;
    ngx_mail_policy_mech_scram_t  *ctx;
    mpol_scram_client_final_t      final;
    u_char                         signature[EVP_MAX_MD_SIZE];
    u_char                         text[2 + 44];

    ctx = auth->ctx;

    rc = NGX_DECLINED;

    if (mpol_scram_client_final(message->data, message->len, ctx->nonce.data,
                                ctx->nonce.len, &final)
        == MPOL_OK)
    {
        rc = ngx_mail_policy_mech_scram_binding(ctx, &final.binding,
                                                auth->pool);
    }

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_mech_scram_verify(auth, &final, signature);
    }

    /* RFC 5802, section 7, has an "e=" for this; a 535 says it as well */

    if (rc == NGX_OK && auth->refuse) {
        rc = NGX_DECLINED;
    }

    if (rc != NGX_OK || auth->suspended) {

        if (rc == NGX_OK) {
            ngx_mail_policy_auth_proved(auth);
            return;
        }

        ngx_mail_policy_auth_done(auth, rc, NULL);
        return;
    }

    ctx->state = NGX_MAIL_POLICY_MECH_SCRAM_LAST;

    text[0] = 'v';
    text[1] = '=';
    (void) mpol_base64_encode(signature, NGX_MAIL_POLICY_SCRAM_HASH, text + 2);

    ngx_mail_policy_auth_challenge(auth, text, sizeof(text));
}


/* RFC 5802, section 7: c= is the header, as it was, and the binding's data */

static ngx_int_t
ngx_mail_policy_mech_scram_binding(ngx_mail_policy_mech_scram_t *ctx,
    mpol_str_t *given, ngx_pool_t *pool)
{
    size_t   n;
    u_char  *p;

    n = ngx_mail_policy_mech_scram_base64(ctx->gs2.len);

    if (given->len != n) {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(pool, n);
    if (p == NULL) {
        return NGX_ERROR;
    }

    (void) mpol_base64_encode(ctx->gs2.data, ctx->gs2.len, p);

    return CRYPTO_memcmp(p, given->data, n) == 0 ? NGX_OK : NGX_DECLINED;
}


/* RFC 5802, section 3 */

static ngx_int_t
ngx_mail_policy_mech_scram_verify(ngx_mail_policy_auth_t *auth,
    mpol_scram_client_final_t *final, u_char *signature)
{
    size_t                         len, n;
    u_char                        *messages, *p;
    ngx_uint_t                     i;
    ngx_mail_policy_mech_scram_t  *ctx;
    u_char                         proof[NGX_MAIL_POLICY_SCRAM_HASH + 3];
    u_char                         md[EVP_MAX_MD_SIZE];

    ctx = auth->ctx;

    len = ctx->bare.len + 1 + ctx->first.len + 1 + final->without.len;

    messages = ngx_pnalloc(auth->pool, len);
    if (messages == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(messages, ctx->bare.data, ctx->bare.len);
    *p++ = ',';
    p = ngx_cpymem(p, ctx->first.data, ctx->first.len);
    *p++ = ',';
    ngx_memcpy(p, final->without.data, final->without.len);

    if (mpol_base64_decode(final->proof.data, final->proof.len, proof, &n)
        != MPOL_OK
        || n != NGX_MAIL_POLICY_SCRAM_HASH)
    {
        return NGX_DECLINED;
    }

    if (HMAC(EVP_sha256(), ctx->stored, NGX_MAIL_POLICY_SCRAM_HASH, messages,
             len, md, NULL)
        == NULL
        || HMAC(EVP_sha256(), ctx->server, NGX_MAIL_POLICY_SCRAM_HASH,
                messages, len, signature, NULL)
           == NULL)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_MAIL_POLICY_SCRAM_HASH; i++) {
        proof[i] ^= md[i];
    }

    /* that is the client's key, if it has the password */

    if (SHA256(proof, NGX_MAIL_POLICY_SCRAM_HASH, md) == NULL) {
        return NGX_ERROR;
    }

    n = CRYPTO_memcmp(md, ctx->stored, NGX_MAIL_POLICY_SCRAM_HASH);

    ngx_explicit_memzero(proof, sizeof(proof));
    ngx_explicit_memzero(md, sizeof(md));

    return (n == 0) ? NGX_OK : NGX_DECLINED;
}


static void
ngx_mail_policy_mech_scram_cleanup(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_mech_scram_t  *ctx;

    ctx = auth->ctx;

    if (ctx == NULL) {
        return;
    }

    if (ctx->thread) {
        ngx_mail_policy_scram_cancel(ctx->thread);
    }

    ngx_explicit_memzero(ctx, sizeof(ngx_mail_policy_mech_scram_t));
}
