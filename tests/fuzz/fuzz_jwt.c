
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a token as a client sends it; the same octets as JSON and as a kid */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_jwt.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* what is decoded is the only encoding of the result */

static void
check_canonical(const uint8_t *in, size_t len, const uint8_t *p, size_t n)
{
    size_t    i, k;
    uint32_t  bits, left;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789-_";

    assert(n == MPOL_BASE64URL_SIZE(len));

    for (i = 0, k = 0, bits = 0, left = 0; i < n; i++) {
        bits = bits << 8 | p[i];

        for (left += 8; left >= 6; left -= 6) {
            assert(in[k++] == digits[bits >> (left - 6) & 63]);
        }
    }

    if (left) {
        assert(in[k++] == digits[bits << (6 - left) & 63]);
    }

    assert(k == len);
}


static void
check_decode(const uint8_t *data, size_t size)
{
    int       rc;
    size_t    n, m;
    uint8_t  *in, *out;

    in = malloc(size ? size : 1);
    out = malloc(MPOL_BASE64URL_SIZE(size) + 1);
    memcpy(in, data, size);

    rc = mpol_base64url_decode(in, size, out + 1, &n);

    assert(memcmp(in, data, size) == 0);
    assert(mpol_base64url_decode(in, size, NULL, &m) == rc && m == n);

    if (rc == MPOL_OK) {
        check_canonical(data, size, out + 1, n);

        assert(mpol_base64url_decode(in, size, in, &m) == MPOL_OK);
        assert(m == n && memcmp(in, out + 1, n) == 0);
    }

    free(in);
    free(out);
}


static void
check_token(const uint8_t *p, size_t size)
{
    mpol_jwt_t  jwt;

    if (mpol_jwt_split(p, size, &jwt) != MPOL_OK) {
        return;
    }

    assert(size <= MPOL_JWT_MAX);
    assert(jwt.header.data == p && jwt.message.data == p);
    assert(jwt.payload.data == p + jwt.header.len + 1);
    assert(jwt.message.len == jwt.header.len + 1 + jwt.payload.len);
    assert(jwt.signature.data == p + jwt.message.len + 1);
    assert(jwt.message.len + 1 + jwt.signature.len == size);
    assert(jwt.header.len && jwt.payload.len && jwt.signature.len);

    check_decode(jwt.header.data, jwt.header.len);
    check_decode(jwt.payload.data, jwt.payload.len);
    check_decode(jwt.signature.data, jwt.signature.len);
}


static void
check_time(const uint8_t *p, size_t size)
{
    int              rc;
    int64_t          number[3], now;
    mpol_jwt_time_t  t;

    if (size < sizeof(number)) {
        return;
    }

    memcpy(number, p, sizeof(number));

    t.exp = number[0];
    t.nbf = number[1];
    t.iat = number[2];

    now = 1700000000;
    rc = mpol_jwt_time(&t, now, 60);

    if (rc == MPOL_OK) {
        assert(t.exp > now - 60 && t.exp <= MPOL_JWT_TIME_MAX);
        assert(t.nbf <= now + 60 && t.iat <= now + 60);
        assert(t.nbf >= -1 && t.iat >= -1);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t  *p;

    if (size > 16384) {
        return 0;
    }

    p = malloc(size ? size : 1);
    memcpy(p, data, size);

    check_decode(p, size);
    check_token(p, size);
    check_time(p, size);

    assert(mpol_json_depth(p, size) <= size);

    /* a kid is a word of a log, and no path */

    if (mpol_jwt_kid_valid(p, size)) {
        assert(size <= MPOL_JWT_KID_MAX && memchr(p, '/', size) == NULL);
        assert(memchr(p, '\n', size) == NULL && memchr(p, 0, size) == NULL);
    }

    free(p);

    return 0;
}
