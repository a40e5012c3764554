
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One JSON Web Token: form, header, key, signature, and only then its claims.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_jwt.h"
#include "mpol_jwt.h"
#include "mpol_sasl.h"


#if (NGX_MAIL_POLICY_JANSSON)

#include <jansson.h>


typedef struct {
    mpol_jwt_t                    token;
    ngx_pool_t                   *pool;
    json_t                       *header;
    json_t                       *claims;
    ngx_mail_policy_jwt_keys_t   *keys;
    ngx_mail_policy_jwt_rules_t  *rules;
    time_t                        now;
    const char                   *why;
} ngx_mail_policy_jwt_ctx_t;


static ngx_int_t ngx_mail_policy_jwt_check(ngx_mail_policy_jwt_ctx_t *ctx,
    ngx_str_t *identity);
static ngx_int_t ngx_mail_policy_jwt_decode(ngx_mail_policy_jwt_ctx_t *ctx,
    mpol_str_t *part, ngx_str_t *octets);
static ngx_int_t ngx_mail_policy_jwt_object(ngx_mail_policy_jwt_ctx_t *ctx,
    mpol_str_t *part, json_t **object);
static ngx_int_t ngx_mail_policy_jwt_signature(
    ngx_mail_policy_jwt_ctx_t *ctx);
static ngx_int_t ngx_mail_policy_jwt_type(json_t *header);
static ngx_int_t ngx_mail_policy_jwt_claims(ngx_mail_policy_jwt_ctx_t *ctx);
static ngx_int_t ngx_mail_policy_jwt_issuer(ngx_mail_policy_jwt_ctx_t *ctx);
static ngx_int_t ngx_mail_policy_jwt_audience(ngx_mail_policy_jwt_ctx_t *ctx);
static ngx_uint_t ngx_mail_policy_jwt_audience_is(
    ngx_mail_policy_jwt_rules_t *rules, json_t *value);
static int64_t ngx_mail_policy_jwt_seconds(json_t *claims, const char *name);
static ngx_int_t ngx_mail_policy_jwt_identity(ngx_mail_policy_jwt_ctx_t *ctx,
    ngx_str_t *identity);
static ngx_int_t ngx_mail_policy_jwt_email(json_t *claims);
static ngx_int_t ngx_mail_policy_jwt_string(json_t *value, ngx_str_t *s);
static ngx_int_t ngx_mail_policy_jwt_refuse(ngx_mail_policy_jwt_ctx_t *ctx,
    const char *why);


ngx_int_t
ngx_mail_policy_jwt_verify(ngx_mail_policy_jwt_keys_t *keys,
    ngx_mail_policy_jwt_rules_t *rules, ngx_str_t *token, time_t now,
    ngx_pool_t *pool, ngx_str_t *identity, const char **why)
{
    ngx_int_t                  rc;
    ngx_mail_policy_jwt_ctx_t  ctx;

    ngx_memzero(&ctx, sizeof(ngx_mail_policy_jwt_ctx_t));

    ctx.pool = pool;
    ctx.keys = keys;
    ctx.rules = rules;
    ctx.now = now;

    if (mpol_jwt_split(token->data, token->len, &ctx.token) != MPOL_OK) {
        rc = ngx_mail_policy_jwt_refuse(&ctx,
                                 "not three parts of base64url, within 8 KB");

    } else {
        rc = ngx_mail_policy_jwt_check(&ctx, identity);
    }

    json_decref(ctx.header);
    json_decref(ctx.claims);

    *why = ctx.why;

    return rc;
}


static ngx_int_t
ngx_mail_policy_jwt_check(ngx_mail_policy_jwt_ctx_t *ctx, ngx_str_t *identity)
{
    ngx_int_t  rc;

    rc = ngx_mail_policy_jwt_object(ctx, &ctx->token.header, &ctx->header);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_mail_policy_jwt_signature(ctx);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_mail_policy_jwt_object(ctx, &ctx->token.payload, &ctx->claims);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_mail_policy_jwt_claims(ctx);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_mail_policy_jwt_identity(ctx, identity);
}


static ngx_int_t
ngx_mail_policy_jwt_decode(ngx_mail_policy_jwt_ctx_t *ctx, mpol_str_t *part,
    ngx_str_t *octets)
{
    octets->data = ngx_pnalloc(ctx->pool, MPOL_BASE64URL_SIZE(part->len));
    if (octets->data == NULL) {
        return NGX_ERROR;
    }

    /* it is known to be right */

    (void) mpol_base64url_decode(part->data, part->len, octets->data,
                                 &octets->len);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_jwt_object(ngx_mail_policy_jwt_ctx_t *ctx, mpol_str_t *part,
    json_t **object)
{
    ngx_str_t     text;
    json_error_t  e;

    if (ngx_mail_policy_jwt_decode(ctx, part, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (mpol_json_depth(text.data, text.len) > NGX_MAIL_POLICY_JWT_DEPTH) {
        return ngx_mail_policy_jwt_refuse(ctx, "JSON nested too deep");
    }

    *object = json_loadb((char *) text.data, text.len,
                         JSON_REJECT_DUPLICATES, &e);

    if (!json_is_object(*object)) {
        return ngx_mail_policy_jwt_refuse(ctx,
                               "no JSON object, or one with a member twice");
    }

    return NGX_OK;
}


/* RFC 7515 section 5.2; of the header, what names the key */

static ngx_int_t
ngx_mail_policy_jwt_signature(ngx_mail_policy_jwt_ctx_t *ctx)
{
    ngx_int_t                   rc;
    ngx_str_t                   alg, kid, message, signature;
    ngx_mail_policy_jwt_key_t  *key;

    if (json_object_get(ctx->header, "crit")) {
        return ngx_mail_policy_jwt_refuse(ctx, "\"crit\" is not supported");
    }

    if (ngx_mail_policy_jwt_type(ctx->header) != NGX_OK) {
        return ngx_mail_policy_jwt_refuse(ctx, "another \"typ\" than JWT");
    }

    if (ngx_mail_policy_jwt_string(json_object_get(ctx->header, "alg"), &alg)
        != NGX_OK)
    {
        return ngx_mail_policy_jwt_refuse(ctx, "no \"alg\"");
    }

    rc = ngx_mail_policy_jwt_string(json_object_get(ctx->header, "kid"),
                                    &kid);

    if (rc == NGX_ERROR
        || (rc == NGX_OK && !mpol_jwt_kid_valid(kid.data, kid.len)))
    {
        return ngx_mail_policy_jwt_refuse(ctx, "invalid \"kid\"");
    }

    key = ngx_mail_policy_jwt_key(ctx->keys, &alg, &kid);
    if (key == NULL) {
        return ngx_mail_policy_jwt_refuse(ctx,
                                       "no key with its \"kid\" and \"alg\"");
    }

    if (ngx_mail_policy_jwt_decode(ctx, &ctx->token.signature, &signature)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    message.data = (u_char *) ctx->token.message.data;
    message.len = ctx->token.message.len;

    rc = ngx_mail_policy_jwt_signed(key, &message, &signature);

    /* what is left of the token is no secret without it */

    ngx_explicit_memzero(signature.data, signature.len);

    return (rc == NGX_DECLINED)
           ? ngx_mail_policy_jwt_refuse(ctx, "the signature does not match")
           : rc;
}


/*
 * Tokens of other kinds may be signed by the same key: RFC 8725 section 3.11.
 * Media types, so in any case: RFC 9068 section 4, RFC 7515 section 4.1.9.
 */

static ngx_int_t
ngx_mail_policy_jwt_type(json_t *header)
{
    json_t      *value;
    const char  *type;

    value = json_object_get(header, "typ");
    if (value == NULL) {
        return NGX_OK;
    }

    type = json_string_value(value);
    if (type == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_strncasecmp((u_char *) type, (u_char *) "application/", 12)
        == 0)
    {
        type += 12;
    }

    return (ngx_strcasecmp((u_char *) type, (u_char *) "JWT") == 0
            || ngx_strcasecmp((u_char *) type, (u_char *) "at+jwt") == 0)
           ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_jwt_claims(ngx_mail_policy_jwt_ctx_t *ctx)
{
    mpol_jwt_time_t  t;

    if (ngx_mail_policy_jwt_issuer(ctx) != NGX_OK) {
        return ngx_mail_policy_jwt_refuse(ctx, "another \"iss\"");
    }

    if (ngx_mail_policy_jwt_audience(ctx) != NGX_OK) {
        return ngx_mail_policy_jwt_refuse(ctx, "another \"aud\"");
    }

    t.exp = ngx_mail_policy_jwt_seconds(ctx->claims, "exp");
    t.nbf = ngx_mail_policy_jwt_seconds(ctx->claims, "nbf");
    t.iat = ngx_mail_policy_jwt_seconds(ctx->claims, "iat");

    switch (mpol_jwt_time(&t, ctx->now, ctx->rules->leeway)) {

    case MPOL_OK:
        return NGX_OK;

    case MPOL_JWT_ENDLESS:
        return ngx_mail_policy_jwt_refuse(ctx, "no \"exp\"");

    case MPOL_JWT_EXPIRED:
        return ngx_mail_policy_jwt_refuse(ctx, "expired");

    case MPOL_JWT_EARLY:
        return ngx_mail_policy_jwt_refuse(ctx, "not valid yet, by \"nbf\"");

    case MPOL_JWT_FUTURE:
        return ngx_mail_policy_jwt_refuse(ctx, "not valid yet, by \"iat\"");

    default:
        return ngx_mail_policy_jwt_refuse(ctx, "a time that is none");
    }
}


static ngx_int_t
ngx_mail_policy_jwt_issuer(ngx_mail_policy_jwt_ctx_t *ctx)
{
    ngx_str_t  issuer;

    if (ngx_mail_policy_jwt_string(json_object_get(ctx->claims, "iss"),
                                   &issuer)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    return (issuer.len == ctx->rules->issuer.len
            && ngx_memcmp(issuer.data, ctx->rules->issuer.data, issuer.len)
               == 0)
           ? NGX_OK : NGX_DECLINED;
}


/* RFC 7519 section 4.1.3: a string, or an array of strings */

static ngx_int_t
ngx_mail_policy_jwt_audience(ngx_mail_policy_jwt_ctx_t *ctx)
{
    size_t      i;
    json_t     *aud, *value;
    ngx_int_t   rc;

    aud = json_object_get(ctx->claims, "aud");

    if (!json_is_array(aud)) {
        return ngx_mail_policy_jwt_audience_is(ctx->rules, aud)
               ? NGX_OK : NGX_DECLINED;
    }

    rc = NGX_DECLINED;

    for (i = 0; i < json_array_size(aud); i++) {

        value = json_array_get(aud, i);

        if (!json_is_string(value)) {
            return NGX_DECLINED;
        }

        if (ngx_mail_policy_jwt_audience_is(ctx->rules, value)) {
            rc = NGX_OK;
        }
    }

    return rc;
}


static ngx_uint_t
ngx_mail_policy_jwt_audience_is(ngx_mail_policy_jwt_rules_t *rules,
    json_t *value)
{
    ngx_str_t   s, *audience;
    ngx_uint_t  i;

    if (ngx_mail_policy_jwt_string(value, &s) != NGX_OK) {
        return 0;
    }

    audience = rules->audiences.elts;

    for (i = 0; i < rules->audiences.nelts; i++) {
        if (audience[i].len == s.len
            && ngx_memcmp(audience[i].data, s.data, s.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * A NumericDate may have a fraction, RFC 7519 section 2, of which no use is
 * made.  -1: not there; -2, which is out of range: no number.
 */

static int64_t
ngx_mail_policy_jwt_seconds(json_t *claims, const char *name)
{
    double       real;
    json_t      *value;
    json_int_t   n;

    value = json_object_get(claims, name);

    if (value == NULL) {
        return -1;
    }

    if (json_is_integer(value)) {
        n = json_integer_value(value);
        return (n < 0) ? -2 : n;
    }

    real = json_is_real(value) ? json_real_value(value) : -1;

    return (real >= 0 && real < (double) MPOL_JWT_TIME_MAX)
           ? (int64_t) real : -2;
}


static ngx_int_t
ngx_mail_policy_jwt_identity(ngx_mail_policy_jwt_ctx_t *ctx,
    ngx_str_t *identity)
{
    ngx_str_t  name;

    /* a name in the configuration ends in NUL */

    if (ngx_mail_policy_jwt_string(
            json_object_get(ctx->claims, (char *) ctx->rules->claim.data),
            &name)
        != NGX_OK
        || !mpol_identity_valid(name.data, name.len))
    {
        return ngx_mail_policy_jwt_refuse(ctx,
                                       "the claim of the user is no login");
    }

    if (ngx_strcmp(ctx->rules->claim.data, "email") == 0
        && ngx_mail_policy_jwt_email(ctx->claims) != NGX_OK)
    {
        return ngx_mail_policy_jwt_refuse(ctx, "\"email_verified\" is not "
                                          "true");
    }

    identity->len = name.len;
    identity->data = ngx_pstrdup(ctx->pool, &name);

    return identity->data ? NGX_OK : NGX_ERROR;
}


/*
 * OpenID Connect Core section 5.1.  Where anybody can write any address into
 * his account, that is all there is to tell them apart.  Some issuers write
 * it as a string.
 */

static ngx_int_t
ngx_mail_policy_jwt_email(json_t *claims)
{
    json_t      *value;
    const char  *s;

    value = json_object_get(claims, "email_verified");

    if (value == NULL || json_is_true(value)) {
        return NGX_OK;
    }

    s = json_string_value(value);

    return (s && ngx_strcmp(s, "true") == 0) ? NGX_OK : NGX_DECLINED;
}


/* NGX_DECLINED: it is not there; NGX_ERROR: it is no string */

static ngx_int_t
ngx_mail_policy_jwt_string(json_t *value, ngx_str_t *s)
{
    ngx_str_null(s);

    if (value == NULL) {
        return NGX_DECLINED;
    }

    if (!json_is_string(value)) {
        return NGX_ERROR;
    }

    s->data = (u_char *) json_string_value(value);
    s->len = json_string_length(value);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_jwt_refuse(ngx_mail_policy_jwt_ctx_t *ctx, const char *why)
{
    ctx->why = why;

    return NGX_DECLINED;
}

#endif /* NGX_MAIL_POLICY_JANSSON */
