
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_scram.h"


static int mpol_scram_attribute(const uint8_t **p, const uint8_t *end,
    int name, mpol_str_t *value);
static int mpol_scram_printable(const mpol_str_t *value);
static int mpol_scram_number(const mpol_str_t *value, unsigned *number);


size_t
mpol_scram_bare(const uint8_t *name, size_t len, const uint8_t *nonce,
    size_t nonce_len, uint8_t *out, size_t size)
{
    size_t    i, n;
    uint8_t  *p;

    n = 2 + 3 + nonce_len;

    for (i = 0; i < len; i++) {
        n += (name[i] == '=' || name[i] == ',') ? 3 : 1;
    }

    if (n > size) {
        return 0;
    }

    memcpy(out, "n=", 2);
    p = out + 2;

    for (i = 0; i < len; i++) {

        if (name[i] == '=' || name[i] == ',') {
            memcpy(p, name[i] == '=' ? "=3D" : "=2C", 3);
            p += 3;
            continue;
        }

        *p++ = name[i];
    }

    memcpy(p, ",r=", 3);
    memcpy(p + 3, nonce, nonce_len);

    return n;
}


int
mpol_scram_server_first(const uint8_t *msg, size_t len, const uint8_t *nonce,
    size_t nonce_len, mpol_scram_server_t *server)
{
    mpol_str_t            iterations;
    const uint8_t        *p, *end;
    mpol_scram_server_t   s;

    p = msg;
    end = msg + len;

    if (mpol_scram_attribute(&p, end, 'r', &s.nonce) != MPOL_OK
        || mpol_scram_attribute(&p, end, 's', &s.salt) != MPOL_OK
        || mpol_scram_attribute(&p, end, 'i', &iterations) != MPOL_OK
        || mpol_scram_number(&iterations, &s.iterations) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if (s.nonce.len <= nonce_len
        || s.nonce.len > MPOL_SCRAM_NONCE_MAX
        || memcmp(s.nonce.data, nonce, nonce_len) != 0
        || !mpol_scram_printable(&s.nonce))
    {
        return MPOL_BAD;
    }

    *server = s;

    return MPOL_OK;
}


int
mpol_scram_server_final(const uint8_t *msg, size_t len, mpol_str_t *signature)
{
    mpol_str_t      value;
    const uint8_t  *p;

    p = msg;

    if (mpol_scram_attribute(&p, msg + len, 'v', &value) != MPOL_OK) {
        return MPOL_BAD;
    }

    *signature = value;

    return MPOL_OK;
}


/* "name=value" and the comma behind it; a value is not empty */

static int
mpol_scram_attribute(const uint8_t **p, const uint8_t *end, int name,
    mpol_str_t *value)
{
    const uint8_t  *q;

    q = *p;

    if (end - q < 3 || q[0] != name || q[1] != '=') {
        return MPOL_BAD;
    }

    value->data = q + 2;

    for (q += 2; q < end && *q != ','; q++) { /* void */ }

    value->len = (size_t) (q - value->data);
    *p = (q < end) ? q + 1 : q;

    return value->len ? MPOL_OK : MPOL_BAD;
}


static int
mpol_scram_printable(const mpol_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < 0x21 || value->data[i] > 0x7e) {
            return 0;
        }
    }

    return 1;
}


static int
mpol_scram_number(const mpol_str_t *value, unsigned *number)
{
    size_t    i;
    unsigned  n;

    n = 0;

    for (i = 0; i < value->len; i++) {

        if (value->data[i] < '0' || value->data[i] > '9') {
            return MPOL_BAD;
        }

        n = n * 10 + (unsigned) (value->data[i] - '0');

        if (n > MPOL_SCRAM_ITERATIONS) {
            return MPOL_BAD;
        }
    }

    if (n == 0 || value->data[0] == '0') {
        return MPOL_BAD;
    }

    *number = n;

    return MPOL_OK;
}
