
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Message content on its way to a relay: the transparency of RFC 5321
 * section 4.5.2 for DATA, or none for BDAT (RFC 3030), and the repair of
 * line ends.
 *
 * stuff: a dot at the beginning of a line is doubled.  Lines are those of
 * what is written: one begins at the very beginning and behind a CRLF, and
 * nowhere else.
 *
 * normalize: an LF without CR becomes CRLF, a CR without LF a space, before
 * dots are doubled; so a "." that comes to stand alone goes out as "..".
 * The first CR of CR CR LF is without LF.  What is written holds no CR and no
 * LF but in CRLF.
 *
 * Without normalize these are faults, and pass as they are.  A NUL is a fault
 * in either case.  st->fault is set to the first one; whether it matters (in
 * BINARYMIME it does not) is the caller's to say, after the content's end: a
 * CR at the very end becomes a fault only there.
 *
 * Both sides in canonical DATA form need none of this: see mpol_body.h.
 */


#ifndef MPOL_CONTENT_H
#define MPOL_CONTENT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* room in out with which there always is progress */
#define MPOL_CONTENT_ROOM  3


typedef struct {
    uint64_t  octets;                   /* content taken so far, as it came in
                                           (RFC 1870 size) */
    unsigned  midline:1;                /* what was written does not end a
                                           line */
    unsigned  cr:1;                     /* a CR was taken and is not written:
                                           it waits for the octet behind it */
    unsigned  fault:2;                  /* 0 or MPOL_BODY_..., mpol_body.h */
    unsigned  eightbit:1;               /* an octet above 127 was seen */
    unsigned  stuff:1;                  /* by the caller: for DATA */
    unsigned  normalize:1;              /* by the caller */
} mpol_content_t;                       /* otherwise all zeroes to begin with */


/*
 * Takes content from in[0 .. len) and writes its wire form to
 * out[0 .. size); the two must not overlap.  Content may be cut anywhere, also
 * between CR and LF.
 *
 * *consumed: octets of in that are done with, <= len and <= size; the others
 * have to be shown again.  At least one if there is one and
 * size >= MPOL_CONTENT_ROOM.
 * *produced: octets of out that were written, <= size and
 * <= 2 * consumed + 1.
 */
void mpol_content_encode(mpol_content_t *st, const uint8_t *in, size_t len,
    uint8_t *out, size_t size, size_t *consumed, size_t *produced);

/*
 * The content has ended: writes a CR that is held, and with stuff the CRLF
 * that a last line without one needs, as DATA cannot end in the middle of a
 * line.  The final dot is the caller's.
 *
 * Returns the octets written to out, <= MPOL_CONTENT_ROOM, which is what out
 * must have room for.
 */
size_t mpol_content_finish(mpol_content_t *st, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_CONTENT_H */
