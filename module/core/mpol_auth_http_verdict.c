
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_auth_http.h"


static size_t mpol_auth_http_part(const uint8_t *p, size_t len);


int
mpol_auth_http_ok(const mpol_str_t *value)
{
    return value->len == 2 && memcmp(value->data, "OK", 2) == 0;
}


int
mpol_auth_http_verdict(const mpol_auth_http_t *st, const uint8_t *buf)
{
    mpol_str_t  value;

    value = mpol_auth_http_field(st, buf, MPOL_AUTH_HTTP_STATUS);

    if (value.len == 0) {
        return MPOL_BAD;
    }

    if (st->status / 100 == 2) {
        return mpol_auth_http_ok(&value) ? MPOL_OK : MPOL_AUTH_HTTP_REFUSED;
    }

    if ((st->status == 401 || st->status == 403)
        && !mpol_auth_http_ok(&value))
    {
        return MPOL_AUTH_HTTP_REFUSED;
    }

    return MPOL_BAD;
}


int
mpol_auth_http_persistent(const mpol_auth_http_t *st)
{
    if (!st->persistent || st->close || st->unframed) {
        return 0;
    }

    /* behind 1xx comes the answer itself, which nobody waits for any more */

    if (st->status < 200) {
        return 0;
    }

    /* these two have no body, whatever they say of it */

    if (st->status == 204 || st->status == 304) {
        return !st->has_length || st->length == 0;
    }

    return st->has_length;
}


size_t
mpol_auth_http_code(const mpol_str_t *value, uint8_t out[MPOL_AUTH_HTTP_CODE])
{
    size_t          n, subject, detail;
    const uint8_t  *p;

    p = value->data;
    n = value->len;

    if (n < 3 || n > MPOL_AUTH_HTTP_CODE
        || (p[0] != '4' && p[0] != '5')
        || p[1] < '0' || p[1] > '5'
        || p[2] < '0' || p[2] > '9')
    {
        return 0;
    }

    if (n == 3) {
        memcpy(out, p, 3);
        memcpy(out + 3, memcmp(p, "535", 3) == 0 ? " 5.7.8" : " 5.7.0", 6);
        out[4] = p[0];
        return 9;
    }

    if (n < 5 || p[3] != ' ' || p[4] != p[0]) {
        return 0;
    }

    subject = mpol_auth_http_part(p + 5, n - 5);
    detail = mpol_auth_http_part(p + 5 + subject, n - 5 - subject);

    if (subject == 0 || detail == 0 || 5 + subject + detail != n) {
        return 0;
    }

    memcpy(out, p, n);

    return n;
}


/* the octets of "." 1*3DIGIT, 0 if p does not begin with them */

static size_t
mpol_auth_http_part(const uint8_t *p, size_t len)
{
    size_t  n;

    if (len == 0 || p[0] != '.') {
        return 0;
    }

    for (n = 1; n < len && n <= 3 && p[n] >= '0' && p[n] <= '9'; n++) {
        /* void */
    }

    return (n == 1) ? 0 : n;
}
