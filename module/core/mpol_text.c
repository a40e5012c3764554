
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sasl.h"
#include "mpol_text.h"


typedef struct {
    uint8_t  *out;
    size_t    size;
    size_t    len;                      /* of the whole result */
} mpol_text_t;


static void  mpol_text_put(mpol_text_t *t, uint8_t c);
static void  mpol_text_copy(mpol_text_t *t, const uint8_t *in, size_t n);
static void  mpol_text_hex(mpol_text_t *t, const char *prefix,
    size_t prefix_len, uint8_t c);
static int  mpol_text_digit(uint8_t c);
static size_t  mpol_text_utf8(const uint8_t *p, size_t len);
static size_t  mpol_text_plain(const uint8_t *p, size_t len);
static size_t  mpol_text_quoted(const uint8_t *in, size_t len, uint8_t *out,
    size_t size, const char *prefix, size_t prefix_len);


size_t
mpol_xtext_encode(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t       i;
    mpol_text_t  t;

    t.out = out;
    t.size = size;
    t.len = 0;

    for (i = 0; i < len; i++) {
        if (in[i] < 33 || in[i] > 126 || in[i] == '+' || in[i] == '=') {
            mpol_text_hex(&t, "+", 1, in[i]);

        } else {
            mpol_text_put(&t, in[i]);
        }
    }

    return t.len;
}


int
mpol_xtext_decode(const uint8_t *in, size_t len, uint8_t *out, size_t *n)
{
    int     high, low, octet;
    size_t  i, k;

    for (i = 0, k = 0; i < len; i++, k++) {
        octet = in[i];

        if (octet < 33 || octet > 126 || octet == '=') {
            return MPOL_BAD;
        }

        if (octet == '+') {
            if (len - i < 3) {
                return MPOL_BAD;
            }

            high = mpol_text_digit(in[++i]);
            low = mpol_text_digit(in[++i]);
            octet = high * 16 + low;

            if (high < 0 || low < 0 || octet < 32 || octet > 126) {
                return MPOL_BAD;
            }
        }

        if (out != NULL) {
            out[k] = (uint8_t) octet;
        }
    }

    if (n != NULL) {
        *n = k;
    }

    return MPOL_OK;
}


size_t
mpol_json_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    return mpol_text_quoted(in, len, out, size, "\\u00", 4);
}


size_t
mpol_log_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t       i;
    uint8_t      c;
    mpol_text_t  t;

    t.out = out;
    t.size = size;
    t.len = 0;

    for (i = 0; i < len; i++) {
        c = in[i];

        if (c < 32 || c > 126 || c == '"' || c == '\\') {
            mpol_text_hex(&t, "\\x", 2, c);

        } else {
            mpol_text_put(&t, c);
        }
    }

    return t.len;
}


size_t
mpol_line_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t       i;
    mpol_text_t  t;

    t.out = out;
    t.size = size;
    t.len = 0;

    for (i = 0; i < len; i++) {
        if (in[i] < 32 || in[i] == 127) {
            mpol_text_hex(&t, "\\x", 2, in[i]);

        } else {
            mpol_text_put(&t, in[i]);
        }
    }

    return t.len;
}


size_t
mpol_label_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    return mpol_text_quoted(in, len, out, size, "\\\\x", 3);
}


/*
 * What stands in quotes: octets that are control characters, or not UTF-8, are
 * the prefix and two digits.
 */

static size_t
mpol_text_quoted(const uint8_t *in, size_t len, uint8_t *out, size_t size,
    const char *prefix, size_t prefix_len)
{
    size_t       i, n;
    mpol_text_t  t;

    t.out = out;
    t.size = size;
    t.len = 0;

    for (i = 0; i < len; /* void */ ) {

        /* nearly all of what is logged */

        n = mpol_text_plain(in + i, len - i);

        if (n != 0) {
            mpol_text_copy(&t, in + i, n);
            i += n;
            continue;
        }

        if (in[i] == '"' || in[i] == '\\') {
            mpol_text_put(&t, '\\');
            mpol_text_put(&t, in[i++]);
            continue;
        }

        n = mpol_text_utf8(in + i, len - i);

        if (n == 0 || in[i] < 0x20 || in[i] == 0x7f) {
            mpol_text_hex(&t, prefix, prefix_len, in[i++]);
            continue;
        }

        for ( /* void */ ; n != 0; n--) {
            mpol_text_put(&t, in[i++]);
        }
    }

    return t.len;
}


size_t
mpol_key_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t       i;
    uint8_t      c;
    mpol_text_t  t;

    t.out = out;
    t.size = size;
    t.len = 0;

    for (i = 0; i < len; i++) {
        c = in[i];

        if (c < 33 || c > 126 || c == '{' || c == '}' || c == '%') {
            mpol_text_hex(&t, "%", 1, c);

        } else if (c >= 'A' && c <= 'Z') {
            mpol_text_put(&t, (uint8_t) (c | 0x20));

        } else {
            mpol_text_put(&t, c);
        }
    }

    return t.len;
}


void
mpol_reply_clean(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t   i;
    uint8_t  c;

    for (i = 0; i < len; i++) {
        c = in[i];

        if (c == '\t') {
            c = ' ';

        } else if (c < 32 || c > 126) {
            c = '?';
        }

        out[i] = c;
    }
}


int
mpol_utf8_clean(const uint8_t *p, size_t len)
{
    size_t  i;

    if (!mpol_utf8_valid(p, len)) {
        return 0;
    }

    /* 0xc2 begins a character wherever it stands, and one follows it */

    for (i = 0; i < len; i++) {
        if (p[i] == 0xc2 && p[i + 1] < 0xa0) {
            return 0;
        }
    }

    return 1;
}


static void
mpol_text_put(mpol_text_t *t, uint8_t c)
{
    if (t->len < t->size) {
        t->out[t->len] = c;
    }

    t->len++;
}


static void
mpol_text_copy(mpol_text_t *t, const uint8_t *in, size_t n)
{
    size_t  room;

    room = t->size > t->len ? t->size - t->len : 0;
    room = n < room ? n : room;

    if (room != 0) {
        memcpy(t->out + t->len, in, room);
    }

    t->len += n;
}


static void
mpol_text_hex(mpol_text_t *t, const char *prefix, size_t prefix_len,
    uint8_t c)
{
    size_t             i;
    static const char  hex[] = "0123456789ABCDEF";

    for (i = 0; i < prefix_len; i++) {
        mpol_text_put(t, (uint8_t) prefix[i]);
    }

    mpol_text_put(t, (uint8_t) hex[c >> 4]);
    mpol_text_put(t, (uint8_t) hex[c & 0x0f]);
}


/* the value of an upper-case hex digit, -1 if it is none */

static int
mpol_text_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }

    return -1;
}


/* octets of ASCII that JSON takes as they are */

static size_t
mpol_text_plain(const uint8_t *p, size_t len)
{
    size_t  n;

    for (n = 0; n < len; n++) {
        if (p[n] < 0x20 || p[n] > 0x7e || p[n] == '"' || p[n] == '\\') {
            break;
        }
    }

    return n;
}


/* octets of the well-formed UTF-8 character at p, 0 if there is none */

static size_t
mpol_text_utf8(const uint8_t *p, size_t len)
{
    size_t  n;

    n = (p[0] < 0x80) ? 1 : (p[0] < 0xe0) ? 2 : (p[0] < 0xf0) ? 3 : 4;

    return (n <= len && mpol_utf8_valid(p, n)) ? n : 0;
}
