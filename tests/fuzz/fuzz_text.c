
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octets 0, 1: the room for the result; then a value of anybody's making */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_sasl.h"
#include "mpol_text.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef size_t (*escape_pt)(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);


/* too little room is told by the same length, and is not exceeded */

static uint8_t *
escape(escape_pt f, const uint8_t *in, size_t len, size_t room, size_t *n)
{
    uint8_t  *out, *less;

    *n = f(in, len, NULL, 0);
    assert(*n >= len && *n <= len * 6);

    out = malloc(*n ? *n : 1);
    assert(f(in, len, out, *n) == *n);

    if (room < *n) {
        less = malloc(room ? room : 1);
        assert(f(in, len, less, room) == *n);
        assert(memcmp(less, out, room) == 0);
        free(less);
    }

    return out;
}


static void
check_json(const uint8_t *p, size_t len)
{
    size_t  i;

    assert(mpol_utf8_valid(p, len));

    for (i = 0; i < len; i++) {
        assert(p[i] >= 32 && p[i] != 127 && p[i] != '"');

        if (p[i] == '\\') {
            assert(++i < len);
            assert(p[i] == '"' || p[i] == '\\' || p[i] == 'u');
        }
    }
}


static void
check_label(const uint8_t *p, size_t len)
{
    size_t  i;

    assert(mpol_utf8_valid(p, len));

    for (i = 0; i < len; i++) {
        assert(p[i] >= 32 && p[i] != 127 && p[i] != '"');

        if (p[i] == '\\') {
            assert(++i < len);
            assert(p[i] == '"' || p[i] == '\\');
        }
    }
}


/* nothing that begins or ends anything, and nothing that is not seen */

static void
check_html(const uint8_t *p, size_t len)
{
    size_t  i;

    assert(mpol_utf8_clean(p, len));

    for (i = 0; i < len; i++) {
        assert(p[i] >= 32 && p[i] != 127);
        assert(p[i] != '<' && p[i] != '>' && p[i] != '"' && p[i] != '\'');

        if (p[i] == '&') {
            assert((len - i > 4 && memcmp(p + i, "&amp;", 5) == 0)
                   || (len - i > 3 && memcmp(p + i, "&lt;", 4) == 0)
                   || (len - i > 3 && memcmp(p + i, "&gt;", 4) == 0)
                   || (len - i > 4 && memcmp(p + i, "&#34;", 5) == 0)
                   || (len - i > 4 && memcmp(p + i, "&#39;", 5) == 0));
        }

        /* U+202A .. U+202E, U+2066 .. U+2069 */
        assert(len - i < 3 || p[i] != 0xe2
               || !((p[i + 1] == 0x80 && p[i + 2] >= 0xaa && p[i + 2] <= 0xae)
                    || (p[i + 1] == 0x81 && p[i + 2] >= 0xa6
                        && p[i + 2] <= 0xa9)));
    }
}


/* clean UTF-8 has no C1 control, and is made of characters that are clean */

static void
check_utf8(const uint8_t *p, size_t len)
{
    size_t  i, n;

    if (!mpol_utf8_clean(p, len)) {
        return;
    }

    assert(mpol_utf8_valid(p, len));

    for (i = 0; i < len; i += n) {
        n = (p[i] < 0x80) ? 1 : (p[i] < 0xe0) ? 2 : (p[i] < 0xf0) ? 3 : 4;

        assert(n <= len - i && mpol_utf8_clean(p + i, n));
        assert(n != 2
               || ((p[i] & 0x1fu) << 6 | (p[i + 1] & 0x3fu)) >= 0xa0);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    i, len, n, room;
    uint8_t  *in, *out;

    if (size < 2 || size > 4096) {
        return 0;
    }

    room = (size_t) data[0] * 256 + data[1];
    len = size - 2;

    in = malloc(len ? len : 1);
    memcpy(in, data + 2, len);

    out = escape(mpol_xtext_encode, in, len, room, &n);

    for (i = 0; i < n; i++) {
        assert(out[i] >= 33 && out[i] <= 126 && out[i] != '=');
    }

    free(out);

    out = escape(mpol_json_escape, in, len, room, &n);
    check_json(out, n);
    free(out);

    out = escape(mpol_label_escape, in, len, room, &n);
    check_label(out, n);
    free(out);

    out = escape(mpol_html_escape, in, len, room, &n);
    check_html(out, n);
    free(out);

    out = escape(mpol_key_escape, in, len, room, &n);

    for (i = 0; i < n; i++) {
        assert(out[i] >= 33 && out[i] <= 126);
        assert(out[i] != '{' && out[i] != '}');

        if (out[i] == '%') {
            assert(n - i > 2);
            i += 2;
            continue;
        }

        assert(out[i] < 'A' || out[i] > 'Z');
    }

    free(out);

    out = escape(mpol_log_escape, in, len, room, &n);

    for (i = 0; i < n; i++) {
        assert(out[i] >= 32 && out[i] <= 126 && out[i] != '"');
        assert(out[i] != '\\' || (n - i > 3 && out[i + 1] == 'x'));
    }

    free(out);

    out = escape(mpol_line_escape, in, len, room, &n);

    for (i = 0; i < n; i++) {
        assert(out[i] >= 32 && out[i] != 127);
    }

    free(out);

    check_utf8(in, len);

    mpol_reply_clean(in, len, in);

    for (i = 0; i < len; i++) {
        assert(in[i] >= 32 && in[i] <= 126);
    }

    free(in);

    return 0;
}
