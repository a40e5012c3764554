
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The client's side of SCRAM without channel binding: messages only, RFC 5802
 * sections 5 and 7; hashes and base64 around a message are the caller's.
 *
 *     client-first = "n,," bare          bare = "n=" saslname ",r=" nonce
 *     server-first = "r=" nonce ",s=" base64 ",i=" 1*DIGIT [ "," extensions ]
 *     client-final = without ",p=" base64
 *                                        without = "c=biws,r=" nonce
 *     server-final = "v=" base64 [ "," extensions ] / "e=" value ...
 *
 * The server's nonce begins with the client's and goes on.  A mandatory
 * extension ("m=") is one that we do not have.
 */


#ifndef MPOL_SCRAM_H
#define MPOL_SCRAM_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SCRAM_NONCE_MAX   256
#define MPOL_SCRAM_ITERATIONS  10000000 /* read at most */

/* in front of bare, and of the nonce in client-final */
#define MPOL_SCRAM_GS2         "n,,"
#define MPOL_SCRAM_BINDING     "c=biws,r="


typedef struct {
    mpol_str_t  nonce;                  /* the whole one */
    mpol_str_t  salt;                   /* base64 */
    unsigned    iterations;
} mpol_scram_server_t;


/*
 * Writes bare into out, which has room for size octets; returns its length,
 * or 0: no room.  In a name "=" and "," become "=3D" and "=2C".
 */
size_t mpol_scram_bare(const uint8_t *name, size_t len, const uint8_t *nonce,
    size_t nonce_len, uint8_t *out, size_t size);

/* a server-first to a nonce: MPOL_OK with slices into msg, or MPOL_BAD */
int mpol_scram_server_first(const uint8_t *msg, size_t len,
    const uint8_t *nonce, size_t nonce_len, mpol_scram_server_t *server);

/* a server-final: MPOL_OK with the signature in base64, or MPOL_BAD */
int mpol_scram_server_final(const uint8_t *msg, size_t len,
    mpol_str_t *signature);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SCRAM_H */
