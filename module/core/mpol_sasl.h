
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * SASL messages: base64 (RFC 4648 section 4, strict: padded, canonical, no
 * white space), PLAIN (RFC 4616) and CRAM-MD5 (RFC 2195).
 *
 *     PLAIN    = [ authzid ] NUL authcid NUL passwd
 *     CRAM-MD5 = login SP 32( DIGIT / "a" .. "f" )
 *
 * A login may have spaces in it: the last one ends it.  Letters of the digest
 * are lower-case ones, as RFC 2195 section 2 says; so a comparison is one of
 * octets.
 *
 * Identities and passwords: 1 .. 255 octets for an identity, 1 .. 1024 for
 * a password, valid UTF-8 (RFC 3629), in an identity no control octet, no
 * DEL, no space at either end.
 */


#ifndef MPOL_SASL_H
#define MPOL_SASL_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_IDENTITY_MAX  255
#define MPOL_PASSWORD_MAX  1024
#define MPOL_CRAM_DIGEST   32


typedef struct {
    mpol_str_t  authzid;                /* len 0: none */
    mpol_str_t  authcid;
    mpol_str_t  password;
} mpol_plain_t;


typedef struct {
    mpol_str_t  login;
    mpol_str_t  digest;                 /* MPOL_CRAM_DIGEST hex digits */
} mpol_cram_t;


/*
 * Decodes in[0 .. len) into out, which has room for len / 4 * 3 octets; out
 * may be in itself.  Returns MPOL_OK with *n octets, or MPOL_BAD (out may
 * then be scribbled on).  len 0 gives *n 0.
 */
int mpol_base64_decode(const uint8_t *in, size_t len, uint8_t *out,
    size_t *n);

/*
 * Encodes in[0 .. len) into out, which has room for (len + 2) / 3 * 4 octets
 * and is not in; returns how many these are.
 */
size_t mpol_base64_encode(const uint8_t *in, size_t len, uint8_t *out);

/* MPOL_OK with slices into msg, or MPOL_BAD; nothing is set then */
int mpol_plain_parse(const uint8_t *msg, size_t len, mpol_plain_t *plain);
int mpol_cram_parse(const uint8_t *msg, size_t len, mpol_cram_t *cram);

/* 1 if it is a login that we accept (see above), 0 if not */
int mpol_identity_valid(const uint8_t *p, size_t len);

/* 1 if p[0 .. len) is well-formed UTF-8, 0 if not */
int mpol_utf8_valid(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SASL_H */
