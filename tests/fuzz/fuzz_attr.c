
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Octet 0: how many octets come at a time; then what a client sends.  What
 * scan() says is compared with what is said here, octet by octet; what it
 * found can be written, and is found again.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_attr.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* as the grammar has it; *len becomes that of the request */

static int
expected(const uint8_t *p, size_t *len)
{
    size_t  i, line;
    int     equals, count;

    line = 0;
    equals = 0;
    count = 0;

    for (i = 0; i < *len && i < MPOL_ATTR_REQUEST; i++) {

        if (p[i] == '\n' && i == line) {
            *len = i + 1;
            return MPOL_OK;
        }

        if (p[i] == '\0') {
            return MPOL_ATTR_E_NUL;
        }

        if (i - line == MPOL_ATTR_LINE) {
            return MPOL_ATTR_E_LINE;
        }

        if (p[i] == '=' && i == line) {
            return MPOL_ATTR_E_SYNTAX;
        }

        if (p[i] == '=') {
            equals = 1;
        }

        if (p[i] != '\n') {
            continue;
        }

        if (!equals) {
            return MPOL_ATTR_E_SYNTAX;
        }

        if (count++ == MPOL_ATTR_COUNT) {
            return MPOL_ATTR_E_COUNT;
        }

        line = i + 1;
        equals = 0;
    }

    return (i == MPOL_ATTR_REQUEST) ? MPOL_ATTR_E_SIZE : MPOL_AGAIN;
}


/* a copy, so that one octet too far is seen */

static int
scan(mpol_attr_t *a, const uint8_t *p, size_t len)
{
    int       rc;
    uint8_t  *copy;

    copy = malloc(len ? len : 1);
    memcpy(copy, p, len);

    rc = mpol_attr_scan(a, copy, len);
    assert(a->pos <= len && a->line <= a->pos);

    free(copy);

    return rc;
}


/*
 * A request of three of them, in a buffer that may be too small.  size: what
 * it depends on how large it is
 */

static void
write_again(mpol_str_t v[MPOL_ATTR_KNOWN], size_t size)
{
    size_t       i, len;
    uint8_t     *out, *p, *end;
    mpol_attr_t  a;
    mpol_str_t   w[MPOL_ATTR_KNOWN];

    size = (v[MPOL_ATTR_SENDER].len + v[MPOL_ATTR_RECIPIENT].len
            + v[MPOL_ATTR_HELO_NAME].len + 40) * (size % 8) / 6;

    out = malloc(size ? size : 1);
    end = out + size;

    p = mpol_attr_put(out, end, "sender", &v[MPOL_ATTR_SENDER]);
    p = mpol_attr_put(p, end, "recipient", &v[MPOL_ATTR_RECIPIENT]);
    p = mpol_attr_put(p, end, "helo_name", &v[MPOL_ATTR_HELO_NAME]);
    p = mpol_attr_end(p, end);

    if (p == NULL) {
        free(out);
        return;
    }

    assert(p <= end);
    len = (size_t) (p - out);

    memset(&a, 0, sizeof(a));
    assert(mpol_attr_scan(&a, out, len) == MPOL_OK && a.pos == len);
    assert(a.count == 3);

    mpol_attr_parse(out, len, w);

    for (i = 0; i < MPOL_ATTR_KNOWN; i++) {

        if (i != MPOL_ATTR_SENDER && i != MPOL_ATTR_RECIPIENT
            && i != MPOL_ATTR_HELO_NAME)
        {
            assert(w[i].data == NULL);
            continue;
        }

        assert(w[i].data != NULL && w[i].len == v[i].len);

        for (len = 0; len < w[i].len; len++) {
            assert(w[i].data[len] == v[i].data[len]
                   || (w[i].data[len] == '?' && (v[i].data[len] < 32
                                                 || v[i].data[len] == 127)));
        }
    }

    free(out);
}


static void
parse(const uint8_t *p, size_t len)
{
    int          i;
    uint8_t     *copy;
    mpol_str_t   v[MPOL_ATTR_KNOWN], sender;

    copy = malloc(len);
    memcpy(copy, p, len);

    mpol_attr_parse(copy, len, v);

    for (i = 0; i < MPOL_ATTR_KNOWN; i++) {

        if (v[i].data == NULL) {
            continue;
        }

        assert(v[i].data > copy && v[i].data[-1] == '=');
        assert(v[i].len < len && v[i].data + v[i].len < copy + len);
        assert(v[i].data[v[i].len] == '\n');
        assert(v[i].len == 0 || memchr(v[i].data, '\n', v[i].len) == NULL);
        assert(v[i].len == 0 || memchr(v[i].data, '\0', v[i].len) == NULL);
        assert(mpol_attr_number(&v[i]) <= MPOL_ATTR_NUMBER);
    }

    i = mpol_attr_find(copy, len, "sender", &sender);
    assert((i == MPOL_OK) == (v[MPOL_ATTR_SENDER].data != NULL));
    assert(i != MPOL_OK || (sender.data == v[MPOL_ATTR_SENDER].data
                            && sender.len == v[MPOL_ATTR_SENDER].len));

    write_again(v, len);

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int          whole, split;
    size_t       n, step, len;
    mpol_attr_t  a, b;

    if (size < 1 || size > 80000) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));

    len = size;
    whole = scan(&a, data, size);
    assert(whole == expected(data, &len));
    assert(whole != MPOL_OK || a.pos == len);

    split = MPOL_AGAIN;

    for (n = 0; n < size && split == MPOL_AGAIN; /* void */ ) {
        n = (size - n < step) ? size : n + step;
        split = scan(&b, data, n);
    }

    assert(size == 0 || whole == split);
    assert(whole != MPOL_OK || (a.pos == b.pos && a.pos <= MPOL_ATTR_REQUEST));

    if (whole == MPOL_OK) {
        parse(data, a.pos);
    }

    return 0;
}
