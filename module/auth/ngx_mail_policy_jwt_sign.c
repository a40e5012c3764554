
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Algorithms of JSON Web Tokens, the key of a token, and its signature.
 *
 * Signatures are verified in the event loop: one takes some 100 us.  What
 * OpenSSL leaves in its queue of errors would be found by nginx' TLS.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_jwt.h"


#if (NGX_MAIL_POLICY_JANSSON)

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>


static ngx_uint_t ngx_mail_policy_jwt_same(const ngx_str_t *one,
    const ngx_str_t *two);
static ngx_int_t ngx_mail_policy_jwt_signed_hmac(
    ngx_mail_policy_jwt_key_t *key, ngx_str_t *message, ngx_str_t *signature);
static ngx_int_t ngx_mail_policy_jwt_signed_ec(ngx_mail_policy_jwt_key_t *key,
    ngx_str_t *message, ngx_str_t *signature);
static ngx_int_t ngx_mail_policy_jwt_signed_pkey(
    ngx_mail_policy_jwt_key_t *key, ngx_str_t *message, u_char *signature,
    size_t len);


static const ngx_mail_policy_jwt_alg_t  ngx_mail_policy_jwt_algs[] = {

    { ngx_string("RS256"), NGX_MAIL_POLICY_JWT_RSA, "RSA", EVP_sha256,
      NULL, NULL, 0 },
    { ngx_string("RS384"), NGX_MAIL_POLICY_JWT_RSA, "RSA", EVP_sha384,
      NULL, NULL, 0 },
    { ngx_string("RS512"), NGX_MAIL_POLICY_JWT_RSA, "RSA", EVP_sha512,
      NULL, NULL, 0 },

    { ngx_string("PS256"), NGX_MAIL_POLICY_JWT_PSS, "RSA", EVP_sha256,
      NULL, NULL, 0 },
    { ngx_string("PS384"), NGX_MAIL_POLICY_JWT_PSS, "RSA", EVP_sha384,
      NULL, NULL, 0 },
    { ngx_string("PS512"), NGX_MAIL_POLICY_JWT_PSS, "RSA", EVP_sha512,
      NULL, NULL, 0 },

    { ngx_string("ES256"), NGX_MAIL_POLICY_JWT_EC, "EC", EVP_sha256,
      "P-256", "prime256v1", 32 },
    { ngx_string("ES384"), NGX_MAIL_POLICY_JWT_EC, "EC", EVP_sha384,
      "P-384", "secp384r1", 48 },

    { ngx_string("EdDSA"), NGX_MAIL_POLICY_JWT_OKP, "OKP", NULL,
      "Ed25519", NULL, 32 },
    { ngx_string("Ed25519"), NGX_MAIL_POLICY_JWT_OKP, "OKP", NULL,
      "Ed25519", NULL, 32 },

    /* RFC 7518 section 3.2: not less than the digest has */

    { ngx_string("HS256"), NGX_MAIL_POLICY_JWT_OCT, "oct", EVP_sha256,
      NULL, NULL, 32 },
    { ngx_string("HS384"), NGX_MAIL_POLICY_JWT_OCT, "oct", EVP_sha384,
      NULL, NULL, 48 },
    { ngx_string("HS512"), NGX_MAIL_POLICY_JWT_OCT, "oct", EVP_sha512,
      NULL, NULL, 64 },

    { ngx_null_string, 0, NULL, NULL, NULL, NULL, 0 }
};


const ngx_mail_policy_jwt_alg_t *
ngx_mail_policy_jwt_alg(const char *name)
{
    const ngx_mail_policy_jwt_alg_t  *alg;

    for (alg = ngx_mail_policy_jwt_algs; alg->name.len; alg++) {
        if (ngx_strcmp(alg->name.data, name) == 0) {
            return alg;
        }
    }

    return NULL;
}


ngx_mail_policy_jwt_key_t *
ngx_mail_policy_jwt_key(ngx_mail_policy_jwt_keys_t *keys, ngx_str_t *alg,
    ngx_str_t *kid)
{
    ngx_uint_t                  i;
    ngx_mail_policy_jwt_key_t  *key, *found;

    found = NULL;
    key = keys->keys.elts;

    for (i = 0; i < keys->keys.nelts; i++) {

        if (kid->len) {
            if (ngx_mail_policy_jwt_same(&key[i].kid, kid)) {
                return ngx_mail_policy_jwt_same(&key[i].alg->name, alg)
                       ? &key[i] : NULL;
            }

        } else if (ngx_mail_policy_jwt_same(&key[i].alg->name, alg)) {

            /* which of two it is, is not to be guessed */

            if (found) {
                return NULL;
            }

            found = &key[i];
        }
    }

    return found;
}


static ngx_uint_t
ngx_mail_policy_jwt_same(const ngx_str_t *one, const ngx_str_t *two)
{
    return one->len == two->len
           && ngx_memcmp(one->data, two->data, one->len) == 0;
}


ngx_int_t
ngx_mail_policy_jwt_signed(ngx_mail_policy_jwt_key_t *key, ngx_str_t *message,
    ngx_str_t *signature)
{
    ngx_int_t  rc;

    switch (key->alg->type) {

    case NGX_MAIL_POLICY_JWT_OCT:
        rc = ngx_mail_policy_jwt_signed_hmac(key, message, signature);
        break;

    case NGX_MAIL_POLICY_JWT_EC:
        rc = ngx_mail_policy_jwt_signed_ec(key, message, signature);
        break;

    default:
        rc = ngx_mail_policy_jwt_signed_pkey(key, message, signature->data,
                                             signature->len);
    }

    ERR_clear_error();

    return rc;
}


static ngx_int_t
ngx_mail_policy_jwt_signed_hmac(ngx_mail_policy_jwt_key_t *key,
    ngx_str_t *message, ngx_str_t *signature)
{
    u_char      mac[EVP_MAX_MD_SIZE];
    unsigned    len;
    ngx_int_t   rc;

    if (HMAC(key->alg->md(), key->secret.data, (int) key->secret.len,
             message->data, message->len, mac, &len)
        == NULL)
    {
        return NGX_ERROR;
    }

    rc = (signature->len == len
          && CRYPTO_memcmp(signature->data, mac, len) == 0)
         ? NGX_OK : NGX_DECLINED;

    ngx_explicit_memzero(mac, sizeof(mac));

    return rc;
}


/* RFC 7518 section 3.4: r and s, each of the size of a coordinate */

static ngx_int_t
ngx_mail_policy_jwt_signed_ec(ngx_mail_policy_jwt_key_t *key,
    ngx_str_t *message, ngx_str_t *signature)
{
    int         len;
    u_char     *der;
    size_t      size;
    BIGNUM     *r, *s;
    ngx_int_t   rc;
    ECDSA_SIG  *sig;

    size = key->alg->size;

    if (signature->len != 2 * size) {
        return NGX_DECLINED;
    }

    sig = ECDSA_SIG_new();
    r = BN_bin2bn(signature->data, (int) size, NULL);
    s = BN_bin2bn(signature->data + size, (int) size, NULL);

    if (sig == NULL || r == NULL || s == NULL
        || ECDSA_SIG_set0(sig, r, s) != 1)
    {
        BN_free(r);
        BN_free(s);
        ECDSA_SIG_free(sig);
        return NGX_ERROR;
    }

    der = NULL;
    len = i2d_ECDSA_SIG(sig, &der);

    ECDSA_SIG_free(sig);

    if (len <= 0) {
        return NGX_ERROR;
    }

    rc = ngx_mail_policy_jwt_signed_pkey(key, message, der, len);

    OPENSSL_free(der);

    return rc;
}


static ngx_int_t
ngx_mail_policy_jwt_signed_pkey(ngx_mail_policy_jwt_key_t *key,
    ngx_str_t *message, u_char *signature, size_t len)
{
    ngx_int_t      rc;
    EVP_MD_CTX    *ctx;
    EVP_PKEY_CTX  *pctx;
    const EVP_MD  *md;

    ctx = EVP_MD_CTX_new();
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;
    md = key->alg->md ? key->alg->md() : NULL;

    if (EVP_DigestVerifyInit(ctx, &pctx, md, NULL, key->pkey) != 1) {
        goto done;
    }

    /* RFC 7518 section 3.5: the salt is as long as the digest */

    if (key->alg->type == NGX_MAIL_POLICY_JWT_PSS
        && (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) != 1
            || EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST)
               != 1))
    {
        goto done;
    }

    rc = (EVP_DigestVerify(ctx, signature, len, message->data, message->len)
          == 1)
         ? NGX_OK : NGX_DECLINED;

done:

    EVP_MD_CTX_free(ctx);

    return rc;
}

#endif /* NGX_MAIL_POLICY_JANSSON */
