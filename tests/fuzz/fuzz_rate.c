
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: flags; then a rate */


#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_rate.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
same(const mpol_rate_t *a, const mpol_rate_t *b)
{
    return a->kind == b->kind && a->count == b->count
           && a->period == b->period && a->burst == b->burst;
}


static void
check_ranges(const mpol_rate_t *rate, unsigned flags)
{
    uint64_t  most;

    most = (uint64_t) 1 << 40;

    if (rate->kind == MPOL_RATE_UNLIMITED || rate->kind == MPOL_RATE_BLOCKED) {
        assert(rate->count == 0 && rate->period == 0 && rate->burst == 0);
        return;
    }

    assert(rate->count >= 1 && rate->count <= most);

    if (flags & MPOL_RATE_SESSIONS) {
        assert(rate->kind == MPOL_RATE_WINDOW);
        assert(rate->period == 0 && rate->burst == 0);
        return;
    }

    assert(rate->period >= 1000000 && rate->period % 1000000 == 0);
    assert(rate->period <= (uint64_t) 366 * 86400 * 1000000);
    assert(mpol_rate_cost(rate, rate->burst) <= (uint64_t) 1 << 52);

    if (rate->kind == MPOL_RATE_BUCKET) {
        assert((flags & MPOL_RATE_NO_BURST) == 0);
        assert(rate->burst >= 1 && rate->burst <= most);

    } else {
        assert(rate->kind == MPOL_RATE_WINDOW && rate->burst == 0);
    }
}


/* written out in full, it is the same rate */

static void
check_text(const mpol_rate_t *rate, unsigned flags)
{
    int          n;
    char         text[128];
    mpol_rate_t  again;

    if (rate->kind == MPOL_RATE_UNLIMITED || rate->kind == MPOL_RATE_BLOCKED) {
        return;
    }

    n = snprintf(text, sizeof(text), "%llu",
                 (unsigned long long) rate->count);

    if ((flags & MPOL_RATE_SESSIONS) == 0) {
        n += snprintf(text + n, sizeof(text) - (size_t) n, "/%llus",
                      (unsigned long long) rate->period / 1000000);
    }

    if (rate->kind == MPOL_RATE_BUCKET) {
        n += snprintf(text + n, sizeof(text) - (size_t) n, ",burst=%llu",
                      (unsigned long long) rate->burst);
    }

    flags &= ~(unsigned) MPOL_RATE_BYTES;

    assert(mpol_rate_parse((uint8_t *) text, (size_t) n, flags, &again) == 0);
    assert(same(rate, &again));
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int           rc, again;
    size_t        i, len;
    uint8_t      *text;
    unsigned      flags;
    mpol_rate_t   rate, other;

    if (size < 1 || size > 256) {
        return 0;
    }

    flags = data[0] & (MPOL_RATE_BYTES | MPOL_RATE_NO_BURST
                       | MPOL_RATE_SESSIONS);
    len = size - 1;

    text = malloc(len ? len : 1);
    memcpy(text, data + 1, len);

    rc = mpol_rate_parse(text, len, flags, &rate);

    assert(rc >= MPOL_OK && rc <= MPOL_RATE_NUMBER);
    assert(rc != MPOL_RATE_SUFFIX || flags != MPOL_RATE_BYTES);
    assert(rc != MPOL_RATE_BURST || flags & MPOL_RATE_NO_BURST);
    assert(rc != MPOL_RATE_NUMBER || flags & MPOL_RATE_SESSIONS);

    if (rc == MPOL_OK) {
        check_ranges(&rate, flags);
        check_text(&rate, flags);

        rc = mpol_rate_parse(text, len, flags | MPOL_RATE_BYTES, &other);
        assert(rc == MPOL_OK && same(&rate, &other));
    }

    /* letters in any case */

    for (i = 0; i < len; i++) {
        if ((text[i] | 0x20) >= 'a' && (text[i] | 0x20) <= 'z') {
            text[i] ^= 0x20;
        }
    }

    again = mpol_rate_parse(text, len, flags, &other);
    assert(again == rc && (rc != MPOL_OK || same(&rate, &other)));

    free(text);

    return 0;
}
