
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Message content between DATA's 354 and its end, RFC 5321 sections 2.3.8,
 * 4.1.1.4 and 4.5.2.  Only CRLF "." CRLF ends it.
 *
 * Both sides of the proxy use the same transparency, so content that is in
 * canonical form (each leading dot doubled) is passed on in place without a
 * copy.  A leading dot that was not doubled is removed in place, as a
 * receiver would: what the relay then sees is exactly what re-encoding the
 * decoded message gives.
 *
 * With st->content the dots of transparency go in any case, and what is left
 * is the decoded content: for a relay that takes BDAT, or to be changed and
 * encoded again (mpol_content.h).
 *
 * A CR not followed by LF, an LF not preceded by CR, and a NUL are faults:
 * st->fault is set to the first one, the octets are still walked to the true
 * end, and the caller must not let the relay commit the message.
 *
 * The scanner keeps no octets.  What it cannot judge yet (a CR, or "." or
 * ".<CR>" at the beginning of a line, at the end of the buffer: two octets
 * at the most) it leaves unconsumed; the caller shows it again with more.
 */


#ifndef MPOL_BODY_H
#define MPOL_BODY_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_BODY_BARE_CR  1
#define MPOL_BODY_BARE_LF  2
#define MPOL_BODY_NUL      3


typedef struct {
    uint64_t  octets;                   /* decoded content so far, CRLFs
                                           counted, stuffing dots and the
                                           final dot not (RFC 1870 size) */
    unsigned  midline:1;                /* not at the beginning of a line */
    unsigned  fault:2;                  /* 0 or MPOL_BODY_... */
    unsigned  eightbit:1;               /* an octet above 127 was seen */
    unsigned  content:1;                /* by the caller: no stuffing dots in
                                           what is passed on */
} mpol_body_t;                          /* otherwise all zeroes to begin with */


/*
 * Scans buf[0 .. len) and rewrites it in place where a lone leading dot has
 * to go (with st->content: any dot of transparency).
 *
 * Returns MPOL_OK: the end was found; MPOL_AGAIN: it was not.
 * *consumed: octets of input that are done with, the end sequence included;
 * octets behind an end belong to the next command.
 * *ready: octets at buf[0 .. ready) to pass on, ready <= consumed.  The end
 * sequence ".CRLF" itself is never among them.
 * The unconsumed input is at buf[consumed .. len), untouched.
 */
int mpol_body_scan(mpol_body_t *st, uint8_t *buf, size_t len,
    size_t *consumed, size_t *ready);

/* 1 if one of the octets is above 127 */
int mpol_body_eightbit(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_BODY_H */
