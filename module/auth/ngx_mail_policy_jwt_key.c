
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Keys of JSON Web Tokens: a set out of a file's text.
 *
 * It is made in a thread, once for each version of the file, and before that
 * with the configuration.  One bad key spoils the set: half of one would let
 * in whom it should, and leave out others, with nobody to notice.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_jwt.h"
#include "mpol_jwt.h"


#if (NGX_MAIL_POLICY_JANSSON)

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>


#define NGX_MAIL_POLICY_JWT_KEYS  256

#define NGX_MAIL_POLICY_JWT_ALGS                                             \
    "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, "        \
    "HS256, HS384 or HS512"


static char *ngx_mail_policy_jwt_key_add(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_keys_t *keys);
static ngx_uint_t ngx_mail_policy_jwt_key_skip(json_t *object);
static char *ngx_mail_policy_jwt_key_kid(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_keys_t *keys, ngx_str_t *kid);
static char *ngx_mail_policy_jwt_key_alg(json_t *object,
    ngx_mail_policy_jwt_key_t *key);
static char *ngx_mail_policy_jwt_key_rsa(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key);
static char *ngx_mail_policy_jwt_key_ec(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key);
static char *ngx_mail_policy_jwt_key_okp(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key);
static char *ngx_mail_policy_jwt_key_oct(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key);
static ngx_uint_t ngx_mail_policy_jwt_key_is(json_t *object, const char *name,
    const char *value);
static ngx_int_t ngx_mail_policy_jwt_key_octets(ngx_pool_t *pool,
    json_t *object, const char *name, ngx_str_t *octets);
static EVP_PKEY *ngx_mail_policy_jwt_key_public(const char *type,
    OSSL_PARAM_BLD *bld);
static void ngx_mail_policy_jwt_keys_wipe(json_t *list);
static void ngx_mail_policy_jwt_keys_cleanup(void *data);


void *
ngx_mail_policy_jwt_keys(ngx_pool_t *pool, ngx_str_t *text, void *data,
    ngx_mail_policy_watch_error_t *error)
{
    char                        *err;
    json_t                      *set, *list;
    size_t                       i;
    json_error_t                 e;
    ngx_pool_cleanup_t          *cln;
    ngx_mail_policy_jwt_keys_t  *keys;

    keys = ngx_palloc(pool, sizeof(ngx_mail_policy_jwt_keys_t));
    cln = ngx_pool_cleanup_add(pool, 0);

    if (keys == NULL || cln == NULL
        || ngx_array_init(&keys->keys, pool, 4,
                          sizeof(ngx_mail_policy_jwt_key_t))
           != NGX_OK)
    {
        return ngx_mail_policy_watch_fail(error, 0, "needs more memory");
    }

    cln->handler = ngx_mail_policy_jwt_keys_cleanup;
    cln->data = keys;

    if (mpol_json_depth(text->data, text->len) > NGX_MAIL_POLICY_JWT_DEPTH) {
        return ngx_mail_policy_watch_fail(error, 0, "is nested too deep");
    }

    /* e.text may hold a part of a secret */

    set = json_loadb((char *) text->data, text->len, JSON_REJECT_DUPLICATES,
                     &e);
    if (set == NULL) {
        return ngx_mail_policy_watch_fail(error, ngx_max(e.line, 0),
                             "no valid JSON, or a member of an object twice");
    }

    err = NULL;
    list = json_object_get(set, "keys");

    for (i = 0; i < json_array_size(list) && err == NULL; i++) {
        err = ngx_mail_policy_jwt_key_add(pool, json_array_get(list, i),
                                          keys);
    }

    if (err) {
        ngx_mail_policy_watch_fail(error, 0, "has a bad key, number %uz: %s",
                                   i, err);

    } else if (keys->keys.nelts == 0) {
        err = json_is_array(list)
              ? "has no key that verifies signatures"
              : "is no key set, expected {\"keys\": [ ... ]}";

        ngx_mail_policy_watch_fail(error, 0, "%s", err);
    }

    ngx_mail_policy_jwt_keys_wipe(list);
    json_decref(set);
    ERR_clear_error();

    return err ? NULL : keys;
}


/* NULL, or what is wrong, of which nothing is from the file */

static char *
ngx_mail_policy_jwt_key_add(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_keys_t *keys)
{
    char                       *err;
    ngx_str_t                   kid;
    ngx_mail_policy_jwt_key_t  *key;

    if (!json_is_object(object)) {
        return "an object expected";
    }

    if (ngx_mail_policy_jwt_key_skip(object)) {
        return NULL;
    }

    if (keys->keys.nelts == NGX_MAIL_POLICY_JWT_KEYS) {
        return "too many keys, expected at most 256";
    }

    err = ngx_mail_policy_jwt_key_kid(pool, object, keys, &kid);
    if (err) {
        return err;
    }

    key = ngx_array_push(&keys->keys);
    if (key == NULL) {
        return "no memory";
    }

    ngx_memzero(key, sizeof(ngx_mail_policy_jwt_key_t));

    key->kid = kid;

    err = ngx_mail_policy_jwt_key_alg(object, key);
    if (err) {
        return err;
    }

    switch (key->alg->type) {

    case NGX_MAIL_POLICY_JWT_EC:
        return ngx_mail_policy_jwt_key_ec(pool, object, key);

    case NGX_MAIL_POLICY_JWT_OKP:
        return ngx_mail_policy_jwt_key_okp(pool, object, key);

    case NGX_MAIL_POLICY_JWT_OCT:
        return ngx_mail_policy_jwt_key_oct(pool, object, key);

    default: /* NGX_MAIL_POLICY_JWT_RSA, NGX_MAIL_POLICY_JWT_PSS */
        return ngx_mail_policy_jwt_key_rsa(pool, object, key);
    }
}


/* RFC 7517 sections 4.2 and 4.3: it is meant for something else */

static ngx_uint_t
ngx_mail_policy_jwt_key_skip(json_t *object)
{
    json_t      *ops;
    size_t       i;
    const char  *op;

    if (json_object_get(object, "use")
        && !ngx_mail_policy_jwt_key_is(object, "use", "sig"))
    {
        return 1;
    }

    ops = json_object_get(object, "key_ops");
    if (ops == NULL) {
        return 0;
    }

    for (i = 0; i < json_array_size(ops); i++) {
        op = json_string_value(json_array_get(ops, i));

        if (op && ngx_strcmp(op, "verify") == 0) {
            return 0;
        }
    }

    return 1;
}


static char *
ngx_mail_policy_jwt_key_kid(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_keys_t *keys, ngx_str_t *kid)
{
    json_t                     *value;
    ngx_str_t                   name;
    ngx_uint_t                  i;
    ngx_mail_policy_jwt_key_t  *key;

    ngx_str_null(kid);

    value = json_object_get(object, "kid");
    if (value == NULL) {
        return NULL;
    }

    name.data = (u_char *) json_string_value(value);
    name.len = json_string_length(value);

    if (!mpol_jwt_kid_valid(name.data, name.len)) {
        return "invalid \"kid\", expected 1 to 64 of letters, digits, \".\", "
               "\"_\" and \"-\"";
    }

    key = keys->keys.elts;

    for (i = 0; i < keys->keys.nelts; i++) {
        if (key[i].kid.len == name.len
            && ngx_memcmp(key[i].kid.data, name.data, name.len) == 0)
        {
            return "another key has the same \"kid\"";
        }
    }

    kid->len = name.len;
    kid->data = ngx_pstrdup(pool, &name);

    return kid->data ? NULL : "no memory";
}


static char *
ngx_mail_policy_jwt_key_alg(json_t *object, ngx_mail_policy_jwt_key_t *key)
{
    const char                       *name;
    const ngx_mail_policy_jwt_alg_t  *alg;

    name = json_string_value(json_object_get(object, "alg"));
    if (name == NULL) {
        return "no \"alg\", write the one algorithm of this key: "
               NGX_MAIL_POLICY_JWT_ALGS;
    }

    alg = ngx_mail_policy_jwt_alg(name);
    if (alg == NULL) {
        return "\"alg\" is not supported, expected "
               NGX_MAIL_POLICY_JWT_ALGS;
    }

    if (!ngx_mail_policy_jwt_key_is(object, "kty", alg->kty)) {
        return "\"kty\" does not fit its \"alg\", expected \"RSA\" for RS "
               "and PS, \"EC\" for ES, \"OKP\" for EdDSA, \"oct\" for HS";
    }

    if (alg->crv && !ngx_mail_policy_jwt_key_is(object, "crv", alg->crv)) {
        return "\"crv\" does not fit its \"alg\", expected \"P-256\" for "
               "ES256, \"P-384\" for ES384, \"Ed25519\" for EdDSA";
    }

    /* whoever made this file does not know that he gives away what signs */

    if (json_object_get(object, "d")) {
        return "it is a private key, expected the public one, without \"d\"";
    }

    key->alg = alg;

    return NULL;
}


static char *
ngx_mail_policy_jwt_key_rsa(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key)
{
    int              bits;
    BIGNUM          *n, *e;
    ngx_str_t        modulus, exponent;
    OSSL_PARAM_BLD  *bld;

    if (ngx_mail_policy_jwt_key_octets(pool, object, "n", &modulus) != NGX_OK
        || ngx_mail_policy_jwt_key_octets(pool, object, "e", &exponent)
           != NGX_OK)
    {
        return "\"n\" and \"e\" of base64url expected";
    }

    n = BN_bin2bn(modulus.data, (int) modulus.len, NULL);
    e = BN_bin2bn(exponent.data, (int) exponent.len, NULL);
    bld = OSSL_PARAM_BLD_new();

    bits = n ? BN_num_bits(n) : 0;

    /* RSA with a large exponent is slow to verify */

    if (bits >= 2048 && bits <= 8192 && e && BN_num_bits(e) <= 64 && bld
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n)
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e))
    {
        key->pkey = ngx_mail_policy_jwt_key_public("RSA", bld);
    }

    OSSL_PARAM_BLD_free(bld);
    BN_free(n);
    BN_free(e);

    return key->pkey ? NULL : "an RSA key of 2048 to 8192 bits expected";
}


static char *
ngx_mail_policy_jwt_key_ec(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key)
{
    size_t           size;
    u_char           point[1 + 2 * 48];
    ngx_str_t        x, y;
    OSSL_PARAM_BLD  *bld;

    size = key->alg->size;

    if (ngx_mail_policy_jwt_key_octets(pool, object, "x", &x) != NGX_OK
        || ngx_mail_policy_jwt_key_octets(pool, object, "y", &y) != NGX_OK
        || x.len != size || y.len != size)
    {
        return "\"x\" and \"y\" of base64url expected, 32 octets each for "
               "ES256, 48 for ES384";
    }

    point[0] = POINT_CONVERSION_UNCOMPRESSED;
    ngx_memcpy(&point[1], x.data, size);
    ngx_memcpy(&point[1 + size], y.data, size);

    bld = OSSL_PARAM_BLD_new();

    if (bld
        && OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME,
                                           key->alg->group, 0)
        && OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY,
                                            point, 1 + 2 * size))
    {
        key->pkey = ngx_mail_policy_jwt_key_public("EC", bld);
    }

    OSSL_PARAM_BLD_free(bld);

    return key->pkey ? NULL : "\"x\" and \"y\" are no point of the curve";
}


static char *
ngx_mail_policy_jwt_key_okp(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key)
{
    ngx_str_t  x;

    if (ngx_mail_policy_jwt_key_octets(pool, object, "x", &x) == NGX_OK
        && x.len == key->alg->size)
    {
        key->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL,
                                                x.data, x.len);
    }

    return key->pkey ? NULL : "\"x\" of base64url expected, 32 octets";
}


static char *
ngx_mail_policy_jwt_key_oct(ngx_pool_t *pool, json_t *object,
    ngx_mail_policy_jwt_key_t *key)
{
    if (ngx_mail_policy_jwt_key_octets(pool, object, "k", &key->secret)
        != NGX_OK
        || key->secret.len < key->alg->size)
    {
        return "\"k\" of base64url expected, at least 32 octets for HS256, "
               "48 for HS384, 64 for HS512";
    }

    return NULL;
}


static ngx_uint_t
ngx_mail_policy_jwt_key_is(json_t *object, const char *name,
    const char *value)
{
    const char  *s;

    s = json_string_value(json_object_get(object, name));

    return s && ngx_strcmp(s, value) == 0;
}


/* a member of base64url; what is decoded is never empty */

static ngx_int_t
ngx_mail_policy_jwt_key_octets(ngx_pool_t *pool, json_t *object,
    const char *name, ngx_str_t *octets)
{
    size_t         len;
    json_t        *value;
    const u_char  *text;

    value = json_object_get(object, name);

    text = (const u_char *) json_string_value(value);
    len = json_string_length(value);

    if (len == 0 || len > NGX_MAX_INT32_VALUE) {
        return NGX_ERROR;
    }

    octets->data = ngx_pnalloc(pool, MPOL_BASE64URL_SIZE(len));
    if (octets->data == NULL) {
        return NGX_ERROR;
    }

    /* in case it fails half way: what was decoded is to be wiped as well */

    octets->len = MPOL_BASE64URL_SIZE(len);
    ngx_memzero(octets->data, octets->len);

    return (mpol_base64url_decode(text, len, octets->data, &len) == MPOL_OK)
           ? NGX_OK : NGX_ERROR;
}


/* NULL: it is none */

static EVP_PKEY *
ngx_mail_policy_jwt_key_public(const char *type, OSSL_PARAM_BLD *bld)
{
    EVP_PKEY      *pkey;
    OSSL_PARAM    *params;
    EVP_PKEY_CTX  *ctx, *check;

    pkey = NULL;
    check = NULL;

    params = OSSL_PARAM_BLD_to_param(bld);
    ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);

    if (params && ctx
        && EVP_PKEY_fromdata_init(ctx) == 1
        && EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) == 1)
    {
        check = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);

        if (check == NULL || EVP_PKEY_public_check(check) != 1) {
            EVP_PKEY_free(pkey);
            pkey = NULL;
        }
    }

    EVP_PKEY_CTX_free(check);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);

    return pkey;
}


/* secrets, as the JSON parser has them */

static void
ngx_mail_policy_jwt_keys_wipe(json_t *list)
{
    json_t  *k;
    size_t   i;

    for (i = 0; i < json_array_size(list); i++) {
        k = json_object_get(json_array_get(list, i), "k");

        if (json_is_string(k)) {
            ngx_explicit_memzero((void *) json_string_value(k),
                                 json_string_length(k));
        }
    }
}


static void
ngx_mail_policy_jwt_keys_cleanup(void *data)
{
    ngx_mail_policy_jwt_keys_t *keys = data;

    ngx_uint_t                  i;
    ngx_mail_policy_jwt_key_t  *key;

    key = keys->keys.elts;

    for (i = 0; i < keys->keys.nelts; i++) {
        EVP_PKEY_free(key[i].pkey);
        ngx_explicit_memzero(key[i].secret.data, key[i].secret.len);
    }
}


#endif /* NGX_MAIL_POLICY_JANSSON */
