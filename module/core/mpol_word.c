
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_word.h"


/* RFC 1870 section 5; 2^64 has as many */
#define MPOL_WORD_DIGITS  20


int
mpol_word_same(const mpol_str_t *s, const char *upper, size_t len)
{
    size_t   i;
    uint8_t  c;

    if (s->len != len) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        c = s->data[i];

        if (c >= 'a' && c <= 'z') {
            c = (uint8_t) (c & ~0x20);
        }

        if (c != (uint8_t) upper[i]) {
            return 0;
        }
    }

    return 1;
}


int
mpol_word_octet(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')
           || (c >= '0' && c <= '9') || c == '-';
}


int
mpol_word_number(const uint8_t *p, size_t len, uint64_t *n)
{
    int       rc;
    size_t    i;
    uint64_t  digit;

    *n = 0;
    rc = MPOL_OK;

    if (len == 0 || len > MPOL_WORD_DIGITS) {
        return MPOL_BAD;
    }

    for (i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return MPOL_BAD;
        }

        digit = (uint64_t) p[i] - '0';

        if (*n > (UINT64_MAX - digit) / 10) {
            rc = MPOL_WORD_LONG;
        }

        *n = *n * 10 + digit;
    }

    return rc;
}
