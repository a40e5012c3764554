
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Escapes for the places our values go to.  Each function that takes a size
 * writes at most that many octets to out and returns the length that the
 * whole result has; where that is > size, out holds nothing of use (call
 * again with more).
 */


#ifndef MPOL_TEXT_H
#define MPOL_TEXT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* xtext, RFC 3461 section 4: octets outside 33..126, "+" and "=" as +XX */
size_t mpol_xtext_encode(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * Decodes xtext, strictly: hex in upper case, and nothing that stands for a
 * control octet, DEL or an octet above 126.  out has room for len octets; it
 * may be in itself, or NULL where only the verdict is of interest (n then
 * may be, too).  Returns MPOL_OK with *n octets, or MPOL_BAD (out may then
 * be scribbled on).
 */
int mpol_xtext_decode(const uint8_t *in, size_t len, uint8_t *out, size_t *n);

/*
 * The inside of a JSON string, RFC 8259 section 7: the quote, backslash, C0
 * and DEL escaped; octets that are not well-formed UTF-8 become \u00XX, so
 * the result is always valid and always one line.
 */
size_t mpol_json_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * A value in a line of a log.  log: the quote, backslash and octets outside
 * 32..126 as \xXX, as nginx has it.  line: only C0 and DEL, so that the line
 * stays one.
 */
size_t mpol_log_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);
size_t mpol_line_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * Text of a page in HTML, also the value of an attribute between quotes:
 * none of & < > " ' is left, and what is not well-formed UTF-8, or nobody
 * would see (controls, zero width), or turns the direction of its neighbours
 * is \xXX for each octet.  At most five times as long as the input.
 */
size_t mpol_html_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * The value of a label in Prometheus' text format, without its quotes: the
 * quote and backslash escaped; C0, DEL and octets that are not well-formed
 * UTF-8 as \\xXX, which is read back as \xXX.
 */
size_t mpol_label_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * A value as part of a store key: ASCII letters in lower case, octets
 * outside 33..126 and any of "{}%" as %XX (upper-case hex).
 */
size_t mpol_key_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);

/*
 * Text for a reply to a client: TAB as a space, octets outside 32..126 as
 * "?"; same length as the input, out may be in itself.
 */
void mpol_reply_clean(const uint8_t *in, size_t len, uint8_t *out);

/*
 * 1 if p[0 .. len) is well-formed UTF-8 with none of the C1 controls
 * (U+0080 .. U+009F), 0 if not; ASCII is not judged.
 */
int mpol_utf8_clean(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_TEXT_H */
