
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <limits.h>
#include <string.h>

#include "mpol_header.h"


#define CR  13
#define LF  10


static void  mpol_header_octet(mpol_header_t *st, uint8_t ch);


static const uint8_t  mpol_header_name[] = {
    'r', 'e', 'c', 'e', 'i', 'v', 'e', 'd'
};


void
mpol_header_scan(mpol_header_t *st, const uint8_t *p, size_t len)
{
    const uint8_t  *lf;

    while (len != 0 && !st->done) {

        if (st->other) {
            lf = memchr(p, LF, len);
            if (lf == NULL) {
                return;
            }

            len -= (size_t) (lf - p);
            p = lf;
        }

        mpol_header_octet(st, *p);

        p++;
        len--;
    }
}


static void
mpol_header_octet(mpol_header_t *st, uint8_t ch)
{
    if (ch == LF) {
        st->done = (st->matched == 0 && !st->other);
        st->matched = 0;
        st->other = 0;
        st->cr = 0;
        return;
    }

    if (ch == CR && st->matched == 0 && !st->cr) {
        st->cr = 1;
        return;
    }

    if (st->matched < sizeof(mpol_header_name)) {

        /* 0x20 makes a letter small, and no other octet a letter */

        if (!st->cr && (ch | 0x20) == mpol_header_name[st->matched]) {
            st->matched++;

        } else {
            st->other = 1;
        }

        return;
    }

    if (ch == ' ' || ch == '\t') {
        return;
    }

    if (ch == ':' && st->received != UINT_MAX) {
        st->received++;
    }

    st->other = 1;
}
