
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


size_t
mpol_word_digits(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len && p[i] >= '0' && p[i] <= '9'; i++) { /* void */ }

    return i;
}


size_t
mpol_word_status(const uint8_t *p, size_t len)
{
    size_t  detail, subject;

    if (len < 5 || (p[0] != '2' && p[0] != '4' && p[0] != '5')
        || p[1] != '.')
    {
        return 0;
    }

    subject = mpol_word_digits(p + 2, len - 2);

    if (subject == 0 || subject > 3 || len - 2 == subject
        || p[2 + subject] != '.')
    {
        return 0;
    }

    detail = mpol_word_digits(p + 3 + subject, len - 3 - subject);

    if (detail == 0 || detail > 3) {
        return 0;
    }

    return 3 + subject + detail;
}
