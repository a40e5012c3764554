
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_jwt.h"


#define MPOL_BASE64URL_BAD  64


static int  mpol_jwt_part(const uint8_t *p, const uint8_t *end,
    mpol_str_t *part);
static uint32_t  mpol_base64url_value(uint8_t c);
static int  mpol_jwt_time_bad(int64_t t);


int
mpol_jwt_split(const uint8_t *token, size_t len, mpol_jwt_t *jwt)
{
    mpol_jwt_t      parts;
    const uint8_t  *p, *end, *dot;

    if (len == 0 || len > MPOL_JWT_MAX) {
        return MPOL_BAD;
    }

    p = token;
    end = token + len;

    dot = memchr(p, '.', len);
    if (dot == NULL || mpol_jwt_part(p, dot, &parts.header) != MPOL_OK) {
        return MPOL_BAD;
    }

    p = dot + 1;

    dot = memchr(p, '.', (size_t) (end - p));
    if (dot == NULL || mpol_jwt_part(p, dot, &parts.payload) != MPOL_OK) {
        return MPOL_BAD;
    }

    parts.message.data = token;
    parts.message.len = (size_t) (dot - token);

    /* a third dot is no digit: five parts are an encrypted token */

    if (mpol_jwt_part(dot + 1, end, &parts.signature) != MPOL_OK) {
        return MPOL_BAD;
    }

    *jwt = parts;

    return MPOL_OK;
}


static int
mpol_jwt_part(const uint8_t *p, const uint8_t *end, mpol_str_t *part)
{
    size_t  n;

    part->data = p;
    part->len = (size_t) (end - p);

    if (part->len == 0) {
        return MPOL_BAD;
    }

    return mpol_base64url_decode(part->data, part->len, NULL, &n);
}


int
mpol_base64url_decode(const uint8_t *in, size_t len, uint8_t *out, size_t *n)
{
    size_t    i, k;
    uint32_t  bits, v;

    *n = 0;

    if (len % 4 == 1) {
        return MPOL_BAD;
    }

    bits = 0;

    for (i = 0, k = 0; i < len; i++) {

        v = mpol_base64url_value(in[i]);

        if (v == MPOL_BASE64URL_BAD) {
            return MPOL_BAD;
        }

        bits = (bits & 0x3f) << 6 | v;

        /* each digit but the first of four completes an octet */

        if (i % 4 != 0) {
            if (out != NULL) {
                out[k] = (uint8_t) (bits >> (6 - i % 4 * 2));
            }

            k++;
        }
    }

    /* RFC 4648 section 3.5: bits that are left over must be zero */

    if ((len % 4 == 2 && (bits & 0x0f)) || (len % 4 == 3 && (bits & 0x03))) {
        return MPOL_BAD;
    }

    *n = k;

    return MPOL_OK;
}


static uint32_t
mpol_base64url_value(uint8_t c)
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

    if (c == '-') {
        return 62;
    }

    if (c == '_') {
        return 63;
    }

    return MPOL_BASE64URL_BAD;
}


int
mpol_jwt_kid_valid(const uint8_t *p, size_t len)
{
    size_t  i;

    if (len == 0 || len > MPOL_JWT_KID_MAX) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (mpol_base64url_value(p[i]) == MPOL_BASE64URL_BAD && p[i] != '.') {
            return 0;
        }
    }

    return 1;
}


int
mpol_jwt_time(const mpol_jwt_time_t *t, int64_t now, int64_t leeway)
{
    if (mpol_jwt_time_bad(t->exp) || mpol_jwt_time_bad(t->nbf)
        || mpol_jwt_time_bad(t->iat))
    {
        return MPOL_BAD;
    }

    if (t->exp == -1) {
        return MPOL_JWT_ENDLESS;
    }

    /* RFC 7519 section 4.1.4: "on or after" that second it has expired */

    if (now >= t->exp + leeway) {
        return MPOL_JWT_EXPIRED;
    }

    if (t->nbf > now + leeway) {
        return MPOL_JWT_EARLY;
    }

    if (t->iat > now + leeway) {
        return MPOL_JWT_FUTURE;
    }

    return MPOL_OK;
}


static int
mpol_jwt_time_bad(int64_t t)
{
    return t < -1 || t > MPOL_JWT_TIME_MAX;
}


size_t
mpol_json_depth(const uint8_t *p, size_t len)
{
    int             quoted;
    size_t          depth, most;
    const uint8_t  *end;

    quoted = 0;
    depth = 0;
    most = 0;

    for (end = p + len; p < end; p++) {

        switch (*p) {

        case '"':
            quoted = !quoted;
            break;

        case '\\':
            p += (quoted && end - p > 1) ? 1 : 0;
            break;

        case '{':
        case '[':
            if (!quoted && ++depth > most) {
                most = depth;
            }
            break;

        case '}':
        case ']':
            if (!quoted && depth > 0) {
                depth--;
            }
            break;
        }
    }

    return most;
}
