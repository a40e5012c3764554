
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_sasl.h"
#include "mpol_scram_server.h"


static unsigned mpol_scram_iterations(const mpol_str_t *text);


int
mpol_scram_secret(const uint8_t *p, size_t len, mpol_scram_secret_t *secret)
{
    size_t                salt, stored, server;
    mpol_str_t            iterations;
    const uint8_t        *end;
    mpol_scram_secret_t   s;

    end = p + len;

    iterations = mpol_scram_part(&p, end);
    s.iterations = mpol_scram_iterations(&iterations);

    s.salt = mpol_scram_part(&p, end);
    s.stored = mpol_scram_part(&p, end);

    s.server.data = p;
    s.server.len = (size_t) (end - p);

    if (s.iterations == 0
        || mpol_scram_base64(&s.salt, &salt) != MPOL_OK
        || mpol_scram_base64(&s.stored, &stored) != MPOL_OK
        || mpol_scram_base64(&s.server, &server) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if (salt == 0 || salt > MPOL_SCRAM_SALT_MAX
        || stored != MPOL_SCRAM_KEY || server != MPOL_SCRAM_KEY)
    {
        return MPOL_BAD;
    }

    *secret = s;

    return MPOL_OK;
}


/* 0: none, or out of bounds */

static unsigned
mpol_scram_iterations(const mpol_str_t *text)
{
    size_t    i;
    unsigned  n;

    n = 0;

    for (i = 0; i < text->len; i++) {

        if (text->data[i] < '0' || text->data[i] > '9'
            || (n == 0 && text->data[i] == '0'))
        {
            return 0;
        }

        n = n * 10 + (unsigned) (text->data[i] - '0');

        if (n > MPOL_SCRAM_ITERATIONS_HIGH) {
            return 0;
        }
    }

    return (n < MPOL_SCRAM_ITERATIONS_LOW) ? 0 : n;
}


mpol_str_t
mpol_scram_part(const uint8_t **p, const uint8_t *end)
{
    mpol_str_t      part;
    const uint8_t  *q;

    for (q = *p; q < end && *q != ','; q++) { /* void */ }

    part.data = *p;
    part.len = (size_t) (q - *p);

    *p = (q < end) ? q + 1 : q;

    return part;
}


int
mpol_scram_base64(const mpol_str_t *text, size_t *n)
{
    size_t   i, len;
    uint8_t  octets[3];

    if (text->len % 4 != 0) {
        return MPOL_BAD;
    }

    *n = 0;

    for (i = 0; i < text->len; i += 4) {

        /* only the last group may be padded */

        if (*n % 3 != 0
            || mpol_base64_decode(text->data + i, 4, octets, &len) != MPOL_OK)
        {
            return MPOL_BAD;
        }

        *n += len;
    }

    return MPOL_OK;
}
