
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The trace field that is put in front of a message, RFC 5321 section 4.4:
 *
 *     Received: from helo (host [192.0.2.1])
 *         by name with ESMTPSA id 12-1;
 *         Fri, 27 Nov 2026 14:30:59 +0000
 *
 * There is no "for": which of several recipients one is told of is nobody
 * else's business.  There is no login for the same reason; "with" says that
 * there was one (RFC 3848), or that the message needs SMTPUTF8 (RFC 6531,
 * section 4.3).
 *
 * Lines are folded so that they have at most 78 octets, unless one name alone
 * has more.  Whatever the client is called, the field is one field: a name
 * that could not be passed on (mpol_hostname_clean) is "unknown" or left out.
 */


#ifndef MPOL_RECEIVED_H
#define MPOL_RECEIVED_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* no field is longer */
#define MPOL_RECEIVED_SIZE  1024


typedef struct {
    mpol_str_t  helo;                   /* as the client calls itself */
    mpol_str_t  host;                   /* its name in the DNS, or empty */
    mpol_str_t  address;                /* "192.0.2.1", "2001:db8::1"; empty:
                                           it has none */
    mpol_str_t  name;                   /* ours */
    mpol_str_t  protocol;               /* "ESMTPSA", at most 16 octets */
    uint64_t    connection;             /* number of the connection, ... */
    uint64_t    transaction;            /* ... and of the transaction in it */
    uint64_t    time;                   /* seconds since 1970, at most up to
                                           the year 9999 */
    int         offset;                 /* of the local time, in minutes; within
                                           a day */
    unsigned    utf8:1;                 /* SMTPUTF8 */
} mpol_received_t;


/*
 * Writes the field with its CRLF to out, which has room for
 * MPOL_RECEIVED_SIZE octets.  Returns the number of octets.
 */
size_t mpol_received_build(const mpol_received_t *r, uint8_t *out);

/*
 * date-time of RFC 5322 section 3.3, "Fri, 27 Nov 2026 14:30:59 +0000", to
 * out, which has room for MPOL_RECEIVED_DATE octets, as many as it has.
 */
#define MPOL_RECEIVED_DATE  31

size_t mpol_received_date(uint64_t time, int offset, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_RECEIVED_H */
