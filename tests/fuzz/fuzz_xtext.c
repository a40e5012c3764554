
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* taken as xtext, and as what is to become xtext */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_text.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
printable(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len && p[i] >= 32 && p[i] <= 126; i++) { /* void */ }

    return i == len;
}


static uint8_t *
copy(const uint8_t *p, size_t len)
{
    uint8_t  *q;

    q = malloc(len ? len : 1);
    memcpy(q, p, len);

    return q;
}


/* of all octets; back from it come those that are printable */

static void
check_encode(const uint8_t *in, size_t len)
{
    int       rc;
    size_t    i, n, m;
    uint8_t  *xtext;

    n = mpol_xtext_encode(in, len, NULL, 0);
    assert(n >= len && n <= 3 * len);

    xtext = malloc(n ? n : 1);
    assert(mpol_xtext_encode(in, len, xtext, n) == n);

    for (i = 0; i < n; i++) {
        assert(xtext[i] >= 33 && xtext[i] <= 126 && xtext[i] != '=');
    }

    rc = mpol_xtext_decode(xtext, n, xtext, &m);
    assert((rc == MPOL_OK) == printable(in, len));

    if (rc == MPOL_OK) {
        assert(m == len && memcmp(xtext, in, len) == 0);
    }

    free(xtext);
}


static void
check_decode(const uint8_t *xtext, size_t len)
{
    int       rc;
    size_t    i, n, m, written;
    uint8_t  *in, *out;

    in = copy(xtext, len);
    out = malloc(len ? len : 1);

    rc = mpol_xtext_decode(in, len, out, &n);
    assert(rc == MPOL_OK || rc == MPOL_BAD);
    assert(memcmp(in, xtext, len) == 0);

    /* the verdict is the same however it is asked for */

    assert(mpol_xtext_decode(in, len, NULL, NULL) == rc);
    assert(mpol_xtext_decode(in, len, NULL, &m) == rc);
    assert(rc != MPOL_OK || m == n);

    assert(mpol_xtext_decode(in, len, in, &m) == rc);

    if (rc == MPOL_OK) {
        assert(m == n && memcmp(in, out, n) == 0);
        assert(n <= len && printable(out, n));

        for (i = 0, written = 0; i < len; i++, written++) {
            i += (xtext[i] == '+') ? 2 : 0;
        }

        assert(written == n);

        /* anew it is no longer than it was, as no "+XX" is superfluous */

        m = mpol_xtext_encode(out, n, NULL, 0);
        assert(m <= len);
    }

    free(out);
    free(in);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t  *p;

    if (size > 4096) {
        return 0;
    }

    p = copy(data, size);

    check_encode(p, size);
    check_decode(p, size);

    free(p);

    return 0;
}
