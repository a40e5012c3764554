
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Command lines, RFC 5321 section 2.3.8: a line ends with CRLF and nothing
 * else.
 *
 * A bare LF also ends a piece of input here, but only to answer it with an
 * error: neither that piece nor the one behind it, up to and including the
 * next CRLF, is ever executed.  So "NOOP<LF>MAIL FROM:<x><CRLF>" yields two
 * faults and no command, whatever a server in front of us took it for.
 *
 * The reader keeps no octets; what it does not consume stays in the
 * caller's buffer and is shown again together with more.
 */


#ifndef MPOL_LINE_H
#define MPOL_LINE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* faults: the line was consumed, must not be executed, deserves a 5xx */
#define MPOL_LINE_BARE_LF  1            /* ended by, or behind, a bare LF */
#define MPOL_LINE_CONTROL  2            /* CR, NUL, another C0, or DEL in it */
#define MPOL_LINE_LONG     3            /* longer than max */


typedef struct {
    size_t    dropped;                  /* octets of an overlong line so far */
    unsigned  tainted:1;                /* the last piece ended in bare LF */
    unsigned  cr:1;                     /* the last octet dropped was a CR */
} mpol_line_t;                          /* all zeroes to begin with */


/*
 * Finds the next line in buf[0 .. len).
 *
 * max: the longest line accepted, CRLF included; must be <= the caller's
 *      buffer.  Once len >= max and no end is in sight, the octets are
 *      consumed, counted in st->dropped, and MPOL_AGAIN returned; the line
 *      then ends in MPOL_LINE_LONG.  The caller compares st->dropped with
 *      its own hard cap.
 *
 * Returns MPOL_OK: *line is the line without CRLF, *consumed its length with
 * it; a positive fault: *consumed octets to skip, *line what was seen of it
 * (for the log only); MPOL_AGAIN: no end yet (*consumed is 0, or all of buf
 * where it was dropped).
 */
int mpol_line_next(mpol_line_t *st, const uint8_t *buf, size_t len,
    size_t max, size_t *consumed, mpol_str_t *line);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_LINE_H */
