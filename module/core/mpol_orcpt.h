
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The original recipient of a DSN, RFC 3461 section 4.2.
 *
 *     orcpt = addr-type ";" xtext
 *
 * What an address of type "utf-8" is, RFC 6533 section 3 says:
 *
 *     address  = 1*( xtext / embedded )         and UTF-8 under SMTPUTF8
 *     embedded = "\x{" HEXPOINT "}"             any case, no zeros in front
 *
 * Though the RFC has no "+" in it, some clients write one for an octet; it is
 * taken, but not for a backslash.  An embedded character is SP, "+", "=",
 * "\" or above U+009F: control characters, which the RFC has, are refused as
 * they are in xtext.  So is a quoted-pair: its backslash is to be embedded.
 *
 * Addresses of other types are not looked into, and none is decoded here.
 */


#ifndef MPOL_ORCPT_H
#define MPOL_ORCPT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* eightbit: octets above 127 are allowed; MPOL_OK or MPOL_BAD */
int mpol_orcpt_check(const mpol_str_t *orcpt, int eightbit);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ORCPT_H */
