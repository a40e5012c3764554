
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The server's side of SCRAM: messages of the client, RFC 5802 sections 5 and
 * 7, and the secret that is kept of a login.  Hashes are the caller's.
 *
 *     client-first = gs2 bare
 *     gs2          = ( "n" / "y" / "p=" name ) "," [ "a=" saslname ] ","
 *     name         = 1*( ALPHA / DIGIT / "." / "-" )
 *     bare         = "n=" saslname ",r=" nonce *( "," extension )
 *     client-final = without ",p=" base64
 *     without      = "c=" base64 ",r=" nonce *( "," extension )
 *     saslname     = 1*( octet but NUL "," "=" / "=2C" / "=3D" )
 *     nonce        = 1*( %x21-7E but "," )
 *     extension    = ALPHA "=" 1*( octet but NUL "," )
 *     secret       = iterations 3( "," base64 )
 *                                  salt, StoredKey, ServerKey
 *
 * A message is well-formed UTF-8.  Base64 is strict, see mpol_sasl.h, so what
 * it encodes has one form only.  An extension is skipped, but for "m=": that
 * one is mandatory, and we have none, and "p=", which is the last.
 *
 * Slices point into what was given; MPOL_BAD sets nothing.
 *
 * It does not judge: whether a channel binding is one that we have, whether
 * "y" was a downgrade, and whether a decoded name is a login
 * (mpol_identity_valid()) is the caller's.
 */


#ifndef MPOL_SCRAM_SERVER_H
#define MPOL_SCRAM_SERVER_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SCRAM_CLIENT_NONCE     256     /* octets at most */
#define MPOL_SCRAM_KEY              32      /* octets of SHA-256 */
#define MPOL_SCRAM_SALT_MAX         64      /* octets, decoded */
#define MPOL_SCRAM_ITERATIONS_LOW   4096
#define MPOL_SCRAM_ITERATIONS_HIGH  1000000


typedef struct {
    int         binding;                /* 'n', 'y' or 'p' */
    mpol_str_t  gs2;                    /* with both of its commas */
    mpol_str_t  name;                   /* of 'p', else of len 0 */
    mpol_str_t  authzid;                /* encoded; len 0: none */
    mpol_str_t  username;               /* encoded */
    mpol_str_t  nonce;                  /* the client's */
    mpol_str_t  bare;                   /* all behind gs2 */
} mpol_scram_client_first_t;


typedef struct {
    mpol_str_t  binding;                /* base64 */
    mpol_str_t  nonce;
    mpol_str_t  proof;                  /* base64 of MPOL_SCRAM_KEY octets */
    mpol_str_t  without;
} mpol_scram_client_final_t;


typedef struct {
    unsigned    iterations;
    mpol_str_t  salt;                   /* base64, all three */
    mpol_str_t  stored;
    mpol_str_t  server;
} mpol_scram_secret_t;


int mpol_scram_client_first(const uint8_t *msg, size_t len,
    mpol_scram_client_first_t *first);

/*
 * Decodes a saslname into out, which has room for len octets and may be in;
 * returns how many they are, or 0: it is none, or empty.
 */
size_t mpol_scram_name(const uint8_t *in, size_t len, uint8_t *out);

/* the answer to a whole nonce, the client's and the server's */
int mpol_scram_client_final(const uint8_t *msg, size_t len,
    const uint8_t *nonce, size_t nonce_len, mpol_scram_client_final_t *final);

/* what stands behind "{SCRAM-SHA-256}" */
int mpol_scram_secret(const uint8_t *p, size_t len,
    mpol_scram_secret_t *secret);

/* what both need */

/* the text in front of the next comma, which is skipped, or of the end */
mpol_str_t mpol_scram_part(const uint8_t **p, const uint8_t *end);

/* MPOL_OK with how many octets base64 text encodes, or MPOL_BAD */
int mpol_scram_base64(const mpol_str_t *text, size_t *n);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SCRAM_SERVER_H */
