
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * JSON Web Tokens (RFC 7519) signed by one of a set of keys (RFC 7517), as
 * RFC 8725 wants them to be checked.
 *
 * A key has one algorithm, its own "alg"; what a token says of it is compared
 * with that, and decides nothing.  "kid" is looked up among the names of the
 * keys; without one, the key is the only one of that algorithm, or there is
 * none.  "jku", "x5u", "jwk" and the like are not looked at, "crit" is
 * refused.
 *
 *     RS256 RS384 RS512 PS256 PS384 PS512     RSA, 2048 to 8192 bits
 *     ES256 ES384                             EC, P-256 and P-384
 *     EdDSA Ed25519                           OKP, Ed25519
 *     HS256 HS384 HS512                       oct, 32, 48, 64 octets at least
 *
 * No events arrive here, and nothing is logged: a token is a secret.
 */


#ifndef NGX_MAIL_POLICY_JWT_H
#define NGX_MAIL_POLICY_JWT_H


#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/evp.h>

#include "ngx_mail_policy_watch.h"


/* of JSON: its parser recurses */
#define NGX_MAIL_POLICY_JWT_DEPTH  16

#define NGX_MAIL_POLICY_JWT_RSA    1
#define NGX_MAIL_POLICY_JWT_PSS    2
#define NGX_MAIL_POLICY_JWT_EC     3
#define NGX_MAIL_POLICY_JWT_OKP    4
#define NGX_MAIL_POLICY_JWT_OCT    5


/* an algorithm, and what keys of it are */
typedef struct {
    ngx_str_t                         name;
    ngx_uint_t                        type;     /* NGX_MAIL_POLICY_JWT_... */
    const char                       *kty;
    const EVP_MD                   *(*md)(void);    /* NULL: has its own */
    const char                       *crv;      /* NULL: no curve */
    const char                       *group;    /* OpenSSL's name of it */
    size_t                            size;     /* EC: of a coordinate; OKP:
                                                   of a key; oct: at least */
} ngx_mail_policy_jwt_alg_t;


typedef struct {
    ngx_str_t                         kid;      /* len 0: none */
    const ngx_mail_policy_jwt_alg_t  *alg;
    EVP_PKEY                         *pkey;     /* NULL: there is a secret */
    ngx_str_t                         secret;
} ngx_mail_policy_jwt_key_t;


typedef struct {
    ngx_array_t                       keys;     /* ..._jwt_key_t */
} ngx_mail_policy_jwt_keys_t;


/* what a token has to say to be of use here */
typedef struct {
    ngx_str_t                         issuer;
    ngx_array_t                       audiences;    /* ngx_str_t; any */
    ngx_str_t                         claim;        /* that names the user */
    time_t                            leeway;
} ngx_mail_policy_jwt_rules_t;


/* makes a key set; as ngx_mail_policy_watch_parse_pt says */
void *ngx_mail_policy_jwt_keys(ngx_pool_t *pool, ngx_str_t *text, void *data,
    ngx_mail_policy_watch_error_t *error);

/* an algorithm by name; NULL: not supported */
const ngx_mail_policy_jwt_alg_t *ngx_mail_policy_jwt_alg(const char *name);

/*
 * The key of a token whose header has this alg, and this kid or none (of len
 * 0).  NULL: there is none.
 */
ngx_mail_policy_jwt_key_t *ngx_mail_policy_jwt_key(
    ngx_mail_policy_jwt_keys_t *keys, ngx_str_t *alg, ngx_str_t *kid);

/* NGX_OK, NGX_DECLINED, or NGX_ERROR: no memory */
ngx_int_t ngx_mail_policy_jwt_signed(ngx_mail_policy_jwt_key_t *key,
    ngx_str_t *message, ngx_str_t *signature);

/*
 * NGX_OK with *identity, a valid login, on pool; NGX_DECLINED with *why, a
 * constant that goes to a log; NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_jwt_verify(ngx_mail_policy_jwt_keys_t *keys,
    ngx_mail_policy_jwt_rules_t *rules, ngx_str_t *token, time_t now,
    ngx_pool_t *pool, ngx_str_t *identity, const char **why);


#endif /* NGX_MAIL_POLICY_JWT_H */
