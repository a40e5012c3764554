
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sasl.h"


#define MPOL_BASE64_BAD  64


static const uint8_t  mpol_base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";


static uint32_t  mpol_base64_value(uint8_t c);
static int  mpol_base64_last(const uint8_t *in, uint8_t *out, size_t *n);
static size_t  mpol_utf8_length(const uint8_t *p, size_t len);


int
mpol_base64_decode(const uint8_t *in, size_t len, uint8_t *out, size_t *n)
{
    size_t    i, tail;
    uint32_t  a, b, c, d;

    *n = 0;

    if (len % 4 != 0) {
        return MPOL_BAD;
    }

    if (len == 0) {
        return MPOL_OK;
    }

    /* only the last group may be padded; out never overtakes in */

    for (i = 0; i < len - 4; i += 4) {
        a = mpol_base64_value(in[i]);
        b = mpol_base64_value(in[i + 1]);
        c = mpol_base64_value(in[i + 2]);
        d = mpol_base64_value(in[i + 3]);

        if ((a | b | c | d) & MPOL_BASE64_BAD) {
            return MPOL_BAD;
        }

        *out++ = (uint8_t) (a << 2 | b >> 4);
        *out++ = (uint8_t) ((b & 0x0f) << 4 | c >> 2);
        *out++ = (uint8_t) ((c & 0x03) << 6 | d);
    }

    if (mpol_base64_last(in + i, out, &tail) != MPOL_OK) {
        return MPOL_BAD;
    }

    *n = i / 4 * 3 + tail;

    return MPOL_OK;
}


/* RFC 4648 section 3.5: bits that padding leaves over must be zero */

static int
mpol_base64_last(const uint8_t *in, uint8_t *out, size_t *n)
{
    uint32_t  a, b, c, d;

    *n = 3;

    a = mpol_base64_value(in[0]);
    b = mpol_base64_value(in[1]);
    c = mpol_base64_value(in[2]);
    d = mpol_base64_value(in[3]);

    if (in[3] == '=') {
        *n = 2;
        d = 0;

        if (in[2] == '=') {
            *n = 1;
            c = 0;
        }
    }

    if ((a | b | c | d) & MPOL_BASE64_BAD) {
        return MPOL_BAD;
    }

    if ((*n == 1 && (b & 0x0f)) || (*n == 2 && (c & 0x03))) {
        return MPOL_BAD;
    }

    out[0] = (uint8_t) (a << 2 | b >> 4);

    if (*n > 1) {
        out[1] = (uint8_t) ((b & 0x0f) << 4 | c >> 2);
    }

    if (*n > 2) {
        out[2] = (uint8_t) ((c & 0x03) << 6 | d);
    }

    return MPOL_OK;
}


static uint32_t
mpol_base64_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return (uint32_t) c - 'A';
    }

    if (c >= 'a' && c <= 'z') {
        return (uint32_t) c - 'a' + 26;
    }

    if (c >= '0' && c <= '9') {
        return (uint32_t) c - '0' + 52;
    }

    if (c == '+') {
        return 62;
    }

    if (c == '/') {
        return 63;
    }

    return MPOL_BASE64_BAD;
}


size_t
mpol_base64_encode(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t          i;
    uint32_t        v;
    uint8_t        *p;
    const uint8_t  *digits;

    digits = mpol_base64_digits;
    p = out;

    for (i = 0; len - i >= 3; i += 3) {
        v = (uint32_t) in[i] << 16 | (uint32_t) in[i + 1] << 8 | in[i + 2];

        *p++ = digits[v >> 18];
        *p++ = digits[v >> 12 & 0x3f];
        *p++ = digits[v >> 6 & 0x3f];
        *p++ = digits[v & 0x3f];
    }

    if (len - i == 1) {
        *p++ = digits[in[i] >> 2];
        *p++ = digits[(in[i] & 0x03) << 4];
        *p++ = '=';
        *p++ = '=';
    }

    if (len - i == 2) {
        *p++ = digits[in[i] >> 2];
        *p++ = digits[(in[i] & 0x03) << 4 | in[i + 1] >> 4];
        *p++ = digits[(in[i + 1] & 0x0f) << 2];
        *p++ = '=';
    }

    return (size_t) (p - out);
}


int
mpol_plain_parse(const uint8_t *msg, size_t len, mpol_plain_t *plain)
{
    mpol_str_t      authzid, authcid, password;
    const uint8_t  *end, *nul;

    end = msg + len;

    nul = (len != 0) ? memchr(msg, '\0', len) : NULL;
    if (nul == NULL) {
        return MPOL_BAD;
    }

    authzid.data = msg;
    authzid.len = (size_t) (nul - msg);

    authcid.data = nul + 1;

    nul = memchr(authcid.data, '\0', (size_t) (end - authcid.data));
    if (nul == NULL) {
        return MPOL_BAD;
    }

    authcid.len = (size_t) (nul - authcid.data);

    password.data = nul + 1;
    password.len = (size_t) (end - password.data);

    if ((authzid.len != 0 && !mpol_identity_valid(authzid.data, authzid.len))
        || !mpol_identity_valid(authcid.data, authcid.len))
    {
        return MPOL_BAD;
    }

    if (password.len == 0 || password.len > MPOL_PASSWORD_MAX
        || memchr(password.data, '\0', password.len) != NULL
        || !mpol_utf8_valid(password.data, password.len))
    {
        return MPOL_BAD;
    }

    plain->authzid = authzid;
    plain->authcid = authcid;
    plain->password = password;

    return MPOL_OK;
}


int
mpol_cram_parse(const uint8_t *msg, size_t len, mpol_cram_t *cram)
{
    size_t          i, n;
    const uint8_t  *digest;

    if (len < MPOL_CRAM_DIGEST + 2) {
        return MPOL_BAD;
    }

    n = len - MPOL_CRAM_DIGEST - 1;
    digest = msg + n + 1;

    if (msg[n] != ' ' || !mpol_identity_valid(msg, n)) {
        return MPOL_BAD;
    }

    for (i = 0; i < MPOL_CRAM_DIGEST; i++) {
        if ((digest[i] < '0' || digest[i] > '9')
            && (digest[i] < 'a' || digest[i] > 'f'))
        {
            return MPOL_BAD;
        }
    }

    cram->login.data = msg;
    cram->login.len = n;
    cram->digest.data = digest;
    cram->digest.len = MPOL_CRAM_DIGEST;

    return MPOL_OK;
}


int
mpol_identity_valid(const uint8_t *p, size_t len)
{
    size_t  i;

    if (len == 0 || len > MPOL_IDENTITY_MAX) {
        return 0;
    }

    if (p[0] == ' ' || p[len - 1] == ' ') {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f) {
            return 0;
        }
    }

    return mpol_utf8_valid(p, len);
}


int
mpol_utf8_valid(const uint8_t *p, size_t len)
{
    size_t  i, n;

    for (i = 0; i < len; i += n) {
        n = mpol_utf8_length(p + i, len - i);

        if (n == 0) {
            return 0;
        }
    }

    return 1;
}


/*
 * Octets of the well-formed character at p, 0 if there is none.  RFC 3629
 * section 4: only the second octet has bounds of its own, which exclude
 * overlong forms, surrogates and what lies behind U+10FFFF.
 */

static size_t
mpol_utf8_length(const uint8_t *p, size_t len)
{
    size_t   i, n;
    uint8_t  low, high;

    if (p[0] < 0x80) {
        return 1;
    }

    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;
    }

    n = (p[0] < 0xe0) ? 2 : (p[0] < 0xf0) ? 3 : 4;

    if (len < n) {
        return 0;
    }

    low = (p[0] == 0xe0) ? 0xa0 : (p[0] == 0xf0) ? 0x90 : 0x80;
    high = (p[0] == 0xed) ? 0x9f : (p[0] == 0xf4) ? 0x8f : 0xbf;

    if (p[1] < low || p[1] > high) {
        return 0;
    }

    for (i = 2; i < n; i++) {
        if (p[i] < 0x80 || p[i] > 0xbf) {
            return 0;
        }
    }

    return n;
}
