
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a response of a client as it is on the wire, or one decoded already */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_sasl.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data <= p + len);
    assert(s->len <= (size_t) (p + len - s->data));
}


static void
check_plain(const uint8_t *data, size_t len)
{
    uint8_t       *p;
    mpol_cram_t    cram;
    mpol_plain_t   plain;

    p = malloc(len ? len : 1);
    memcpy(p, data, len);

    if (mpol_plain_parse(p, len, &plain) == MPOL_OK) {
        check_inside(&plain.authzid, p, len);
        check_inside(&plain.authcid, p, len);
        check_inside(&plain.password, p, len);

        assert(plain.authzid.len + plain.authcid.len + plain.password.len + 2
               == len);
        assert(plain.authzid.len == 0
               || mpol_identity_valid(plain.authzid.data,
                                      plain.authzid.len));
        assert(mpol_identity_valid(plain.authcid.data, plain.authcid.len));
        assert(plain.password.len <= MPOL_PASSWORD_MAX);
        assert(memchr(plain.password.data, 0, plain.password.len) == NULL);
    }

    if (mpol_cram_parse(p, len, &cram) == MPOL_OK) {
        assert(cram.login.data == p);
        assert(cram.digest.data == p + cram.login.len + 1);
        assert(cram.digest.len == MPOL_CRAM_DIGEST);
        assert(cram.login.len + 1 + MPOL_CRAM_DIGEST == len);
        assert(p[cram.login.len] == ' ');
        assert(mpol_identity_valid(cram.login.data, cram.login.len));
    }

    /* an identity goes to lines of text: never one that breaks them */

    if (mpol_identity_valid(p, len)) {
        assert(len <= MPOL_IDENTITY_MAX && mpol_utf8_valid(p, len));
        assert(memchr(p, 0, len) == NULL && memchr(p, '\n', len) == NULL
               && memchr(p, '\r', len) == NULL);
    }

    free(p);
}


static void
check_canonical(const uint8_t *in, size_t len, const uint8_t *p, size_t n)
{
    size_t    i, k;
    uint32_t  v;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789+/";

    assert((n + 2) / 3 * 4 == len);

    for (i = 0, k = 0; i < n; i += 3) {
        v = (uint32_t) p[i] << 16;
        v |= (i + 1 < n) ? (uint32_t) p[i + 1] << 8 : 0;
        v |= (i + 2 < n) ? p[i + 2] : 0;

        assert(in[k++] == digits[v >> 18]);
        assert(in[k++] == digits[v >> 12 & 63]);
        assert(in[k++] == (i + 1 < n ? digits[v >> 6 & 63] : '='));
        assert(in[k++] == (i + 2 < n ? digits[v & 63] : '='));
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int       rc;
    size_t    n, m;
    uint8_t  *in, *out;

    if (size > 16384) {
        return 0;
    }

    in = malloc(size ? size : 1);
    out = malloc(size / 4 * 3 + 1);
    memcpy(in, data, size);

    rc = mpol_base64_decode(in, size, out + 1, &n);

    assert(memcmp(in, data, size) == 0);

    if (rc == MPOL_OK) {
        check_canonical(data, size, out + 1, n);
        check_plain(out + 1, n);

        assert(mpol_base64_decode(in, size, in, &m) == MPOL_OK);
        assert(m == n && memcmp(in, out + 1, n) == 0);

        /* in has room for as much as it had */
        assert(mpol_base64_encode(out + 1, n, in) == size);
        assert(memcmp(in, data, size) == 0);
    }

    check_plain(data, size);

    free(in);
    free(out);

    return 0;
}
