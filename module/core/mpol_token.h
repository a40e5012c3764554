
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a client says that has a bearer token: XOAUTH2, as the large providers
 * have it, and OAUTHBEARER, RFC 7628 section 3.1.
 *
 *     XOAUTH2     = "user=" login ^A "auth=" bearer ^A ^A
 *     OAUTHBEARER = ( "n" / "y" ) "," [ "a=" saslname ] "," ^A
 *                   *( key "=" value ^A ) ^A
 *     key         = 1*ALPHA
 *     value       = *( %x21-7E / SP / HTAB / CR / LF )
 *     bearer      = "Bearer" 1*SP token          the scheme in any case
 *     token       = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" )
 *                   *"="                         RFC 6750 section 2.1
 *
 * Of the keys there is exactly one "auth", with a bearer; others ("host",
 * "port") are skipped.  The login is one by mpol_identity_valid(), a token has
 * 1 .. MPOL_TOKEN_MAX octets.  The answer to a failure, ^A alone, is neither
 * of these messages.
 */


#ifndef MPOL_TOKEN_H
#define MPOL_TOKEN_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_TOKEN_MAX  8192


typedef struct {
    mpol_str_t  user;                   /* decoded; len 0: none was said */
    mpol_str_t  token;
} mpol_token_t;


/*
 * MPOL_OK with slices into msg, where the user is decoded in its place; or
 * MPOL_BAD: nothing is set, msg may be scribbled on.
 */
int mpol_xoauth2_parse(uint8_t *msg, size_t len, mpol_token_t *t);
int mpol_oauthbearer_parse(uint8_t *msg, size_t len, mpol_token_t *t);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_TOKEN_H */
