
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sasl.h"
#include "mpol_text.h"


/* what nobody sees, or what changes how its neighbours are seen */

typedef struct {
    uint32_t  first;
    uint32_t  last;
} mpol_html_range_t;


static const mpol_html_range_t  mpol_html_unseen[] = {
    { 0x00000, 0x0001f },               /* C0 */
    { 0x0007f, 0x0009f },               /* DEL, C1 */
    { 0x000ad, 0x000ad },               /* soft hyphen */
    { 0x0034f, 0x0034f },               /* grapheme joiner */
    { 0x0061c, 0x0061c },               /* Arabic letter mark */
    { 0x0115f, 0x01160 },               /* Hangul fillers */
    { 0x017b4, 0x017b5 },               /* Khmer vowels without a form */
    { 0x0180b, 0x0180f },               /* Mongolian selectors */
    { 0x0200b, 0x0200f },               /* zero width, and direction */
    { 0x02028, 0x0202e },               /* separators, embeddings, overrides */
    { 0x02060, 0x0206f },               /* joiner, isolates, deprecated */
    { 0x03164, 0x03164 },               /* Hangul filler */
    { 0x0fe00, 0x0fe0f },               /* variation selectors */
    { 0x0feff, 0x0feff },               /* byte order mark */
    { 0x0ffa0, 0x0ffa0 },               /* Hangul filler */
    { 0x0fff0, 0x0fffb },               /* annotations */
    { 0x1d173, 0x1d17a },               /* of music */
    { 0xe0000, 0xe0fff }                /* tags, variation selectors */
};


static size_t mpol_html_character(const uint8_t *p, size_t len);
static int mpol_html_seen(const uint8_t *p, size_t n);
static size_t mpol_html_put(const char *text, size_t n, uint8_t *out,
    size_t size, size_t at);
static size_t mpol_html_octet(uint8_t c, uint8_t *out, size_t size,
    size_t at);


size_t
mpol_html_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t  at, i, n;

    for (i = 0, at = 0; i < len; i += n) {

        n = mpol_html_character(in + i, len - i);

        if (n == 0 || !mpol_html_seen(in + i, n)) {
            n = 1;
            at += mpol_html_octet(in[i], out, size, at);
            continue;
        }

        switch (in[i]) {

        case '&':
            at += mpol_html_put("&amp;", 5, out, size, at);
            break;

        case '<':
            at += mpol_html_put("&lt;", 4, out, size, at);
            break;

        case '>':
            at += mpol_html_put("&gt;", 4, out, size, at);
            break;

        case '"':
            at += mpol_html_put("&#34;", 5, out, size, at);
            break;

        case '\'':
            at += mpol_html_put("&#39;", 5, out, size, at);
            break;

        default:
            at += mpol_html_put((const char *) in + i, n, out, size, at);
        }
    }

    return at;
}


/*
 * Octets of the well-formed UTF-8 character at p, 0 if there is none.  The
 * rest of one that is not seen is none, so that all of its octets are shown.
 */

static size_t
mpol_html_character(const uint8_t *p, size_t len)
{
    size_t  n;

    n = (p[0] < 0x80) ? 1 : (p[0] < 0xe0) ? 2 : (p[0] < 0xf0) ? 3 : 4;

    return (n <= len && mpol_utf8_valid(p, n)) ? n : 0;
}


static int
mpol_html_seen(const uint8_t *p, size_t n)
{
    size_t    i;
    uint32_t  c;

    /* what the first octet has of the character: 7, 5, 4, or 3 bits */

    c = (n == 1) ? p[0] : p[0] & (0x7fu >> n);

    for (i = 1; i < n; i++) {
        c = c << 6 | (p[i] & 0x3fu);
    }

    for (i = 0; i < sizeof(mpol_html_unseen) / sizeof(mpol_html_unseen[0]);
         i++)
    {
        if (c >= mpol_html_unseen[i].first && c <= mpol_html_unseen[i].last) {
            return 0;
        }
    }

    return 1;
}


static size_t
mpol_html_put(const char *text, size_t n, uint8_t *out, size_t size,
    size_t at)
{
    size_t  room;

    if (at < size) {
        room = size - at;
        memcpy(out + at, text, n < room ? n : room);
    }

    return n;
}


static size_t
mpol_html_octet(uint8_t c, uint8_t *out, size_t size, size_t at)
{
    char               text[4];
    static const char  hex[] = "0123456789ABCDEF";

    text[0] = '\\';
    text[1] = 'x';
    text[2] = hex[c >> 4];
    text[3] = hex[c & 0x0f];

    return mpol_html_put(text, 4, out, size, at);
}
