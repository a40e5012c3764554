
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The trace fields of a message: how many servers it has been through, for
 * the detection of mail loops (RFC 5321 section 6.3).
 *
 * A line counts that begins with "Received" in any case, white space or none
 * (RFC 5322 section 4.5.8), and a colon.  A folded line begins with white
 * space and does not count.  The header section ends at the first empty line.
 * Lines end with LF here, with CR before it or not, as the servers behind us
 * may read it either way; a CR elsewhere is an octet like others.
 */


#ifndef MPOL_HEADER_H
#define MPOL_HEADER_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


typedef struct {
    unsigned  received;                 /* fields so far; UINT_MAX: or more */
    unsigned  matched:4;                /* octets of the name at the beginning
                                           of the present line */
    unsigned  cr:1;                     /* the line so far is a CR */
    unsigned  other:1;                  /* the line is of no interest */
    unsigned  done:1;                   /* the header section has ended */
} mpol_header_t;                        /* all zeroes to begin with */


/*
 * Takes the next octets of a message: all of them, in pieces of any size,
 * from its beginning.  They may be more than the header section; once
 * st->done is set, nothing is looked at.
 */
void mpol_header_scan(mpol_header_t *st, const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_HEADER_H */
