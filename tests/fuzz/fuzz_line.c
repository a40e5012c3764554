
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the longest line; octet 1: the octets that arrive together */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_line.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* each line and fault in a row, to be compared: code, length, octets */
typedef struct {
    uint8_t  *data;
    size_t    len;
} trace_t;


static void
trace(trace_t *t, int rc, const mpol_str_t *line)
{
    t->data[t->len++] = (uint8_t) rc;

    /* how much of an overlong line is still there depends on the pieces */

    if (rc != MPOL_LINE_LONG) {
        memcpy(t->data + t->len, line->data, line->len);
        t->len += line->len;
        t->data[t->len++] = '\n';
    }
}


static size_t
run(const uint8_t *data, size_t size, size_t step, size_t max, trace_t *t)
{
    int           rc;
    size_t        end, n, pos;
    uint8_t      *buf;
    mpol_str_t    line;
    mpol_line_t   st;

    memset(&st, 0, sizeof(mpol_line_t));
    pos = 0;
    end = 0;

    while (end < size) {
        end = (size - end < step) ? size : end + step;

        do {
            /* a block of its own: nothing may be read behind it */

            buf = malloc(end - pos + 1);
            memcpy(buf + 1, data + pos, end - pos);

            rc = mpol_line_next(&st, buf + 1, end - pos, max, &n, &line);

            assert(n <= end - pos);

            if (rc == MPOL_AGAIN) {
                assert(n == 0 || n == end - pos);
                assert(end - pos - n < max);

            } else {
                assert(n != 0);
                assert(line.data == buf + 1 && line.len < n);
                assert(buf[n] == '\n');
                assert(rc != MPOL_OK || (n == line.len + 2 && n <= max));

                trace(t, rc, &line);
            }

            pos += n;
            free(buf);

        } while (rc != MPOL_AGAIN);
    }

    return pos;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t   max, step, whole, split;
    trace_t  a, b;

    if (size < 2 || size > 4096) {
        return 0;
    }

    max = (size_t) data[0] + 2;
    step = (size_t) data[1] + 1;
    data += 2;
    size -= 2;

    a.data = malloc(size * 2 + 2);
    a.len = 0;
    b.data = malloc(size * 2 + 2);
    b.len = 0;

    whole = run(data, size, size + 1, max, &a);
    split = run(data, size, step, max, &b);

    assert(whole == split);
    assert(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);

    free(a.data);
    free(b.data);

    return 0;
}
