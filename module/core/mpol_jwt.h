
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * JSON Web Tokens, as far as no key and no JSON are needed for it.
 *
 *     token = header "." payload "." signature     RFC 7515 section 7.1, each
 *                                                  of base64url, not empty
 *     base64url                                    RFC 4648 section 5, without
 *                                                  padding, canonical
 *     kid   = 1*64( ALPHA / DIGIT / "." / "_" / "-" )
 *
 * What the header says is not looked at here, and neither does a signature
 * hold because a token has the form of one.
 */


#ifndef MPOL_JWT_H
#define MPOL_JWT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_JWT_MAX      8192          /* octets of a token */
#define MPOL_JWT_KID_MAX  64

/* a claim of time is 0 .. 2^53: what every JSON library has exactly */
#define MPOL_JWT_TIME_MAX  ((int64_t) 1 << 53)

/* positive errors of mpol_jwt_time() */
#define MPOL_JWT_ENDLESS   1            /* has no "exp" */
#define MPOL_JWT_EXPIRED   2
#define MPOL_JWT_EARLY     3            /* "nbf" is still to come */
#define MPOL_JWT_FUTURE    4            /* "iat" is still to come */


typedef struct {
    mpol_str_t  header;                 /* encoded, as all of them */
    mpol_str_t  payload;
    mpol_str_t  signature;
    mpol_str_t  message;                /* that is signed: header.payload */
} mpol_jwt_t;


/* seconds since 1970; -1: the claim is not there */
typedef struct {
    int64_t     exp;
    int64_t     nbf;
    int64_t     iat;
} mpol_jwt_time_t;


/*
 * MPOL_OK with slices into token, or MPOL_BAD; nothing is set then.  All
 * three parts are known to decode.
 */
int mpol_jwt_split(const uint8_t *token, size_t len, mpol_jwt_t *jwt);

/*
 * Decodes in[0 .. len) into out, which has room for MPOL_BASE64URL_SIZE(len)
 * octets, and may be in itself, or NULL where only the verdict is of
 * interest.  Returns MPOL_OK with *n octets, or MPOL_BAD (out may then be
 * scribbled on).  len 0 gives *n 0.
 */
int mpol_base64url_decode(const uint8_t *in, size_t len, uint8_t *out,
    size_t *n);

#define MPOL_BASE64URL_SIZE(len)  ((len) / 4 * 3 + (len) % 4 * 3 / 4)

/* 1 if it is a key's name, 0 if not */
int mpol_jwt_kid_valid(const uint8_t *p, size_t len);

/*
 * MPOL_OK if the token is valid at now, give or take leeway seconds; one of
 * the errors above; MPOL_BAD if a claim is out of range.  now and leeway are
 * not negative.
 */
int mpol_jwt_time(const mpol_jwt_time_t *t, int64_t now, int64_t leeway);

/*
 * How deep arrays and objects of a JSON text are nested; of what is no JSON,
 * not less than a parser sees before it notices.
 */
size_t mpol_json_depth(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_JWT_H */
