
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Address literals, RFC 5321 section 4.1.3.
 *
 *     literal = "[" ( IPv4 / "IPv6:" IPv6 ) "]"
 *     IPv4    = Snum 3( "." Snum )            Snum = 1*3DIGIT, at most 255
 *     IPv6    = RFC 4291 section 2.2, the last two groups may be an IPv4
 *
 * No other tag has ever been registered, and none is known here.
 */


#ifndef MPOL_LITERAL_H
#define MPOL_LITERAL_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* the octets (through "]") of the literal that p begins with, 0 if none */
size_t mpol_literal_scan(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_LITERAL_H */
