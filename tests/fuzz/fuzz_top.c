
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The first octet says which way the table is used; then steps of 4 octets:
 * who, how long the text is, how much later, and what.  How often each came
 * is counted beside it, and no entry may say more.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_top.h"


#define STEP   4
#define NAMES  256
#define LIFE   50


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_top_t        top;
    mpol_top_order_e  order;
    uint64_t          now;
    uint64_t          times[NAMES];
    uint64_t          last[NAMES];
} state_t;


/* in a block of its own size, so that what is read behind it shows */

static uint8_t *
name(uint8_t n, size_t len)
{
    uint8_t  *p;

    p = malloc(len + 1);
    assert(p != NULL);

    memset(p, 0x80 | n, len + 1);
    p[0] = n;

    return p;
}


static void
check(const state_t *s)
{
    size_t                   i, k, n;
    uint8_t                  index[MPOL_TOP_ENTRIES];
    const mpol_top_entry_t  *e, *f;

    n = mpol_top_list(&s->top, s->order, s->now, index);
    assert(n <= MPOL_TOP_ENTRIES);

    for (i = 0; i < n; i++) {
        assert(index[i] < MPOL_TOP_ENTRIES);
        e = &s->top.entries[index[i]];

        assert(e->expires > s->now && e->last <= s->now);
        assert(e->what_len <= MPOL_TOP_WHAT && e->who_len <= MPOL_TOP_WHO);
        assert(e->who_len > 0);

        if (s->order == MPOL_TOP_BY_COUNT) {
            assert(e->used > 0 && e->used <= s->times[e->who[0]]);
            assert(e->weight >= e->used && e->first <= e->last);
        }

        assert(e->last <= s->last[e->who[0]]);

        for (k = 0; k < i; k++) {
            f = &s->top.entries[index[k]];

            assert(index[k] != index[i]);
            assert(f->hash != e->hash || f->who_len != e->who_len
                   || memcmp(f->who, e->who, e->who_len) != 0);

            if (s->order == MPOL_TOP_BY_COUNT) {
                assert(f->used >= e->used);

            } else if (f->max && e->max) {
                assert(f->used * 1000 / f->max >= e->used * 1000 / e->max);
            }
        }
    }
}


static void
step(state_t *s, const uint8_t *p)
{
    int         rc;
    mpol_str_t  what, who;

    s->now += p[2] % 4;

    who.len = (size_t) p[1] + 1;
    who.data = name(p[0], who.len);
    what.len = p[3];
    what.data = name(p[3] & 1, what.len);

    s->times[p[0]]++;
    s->last[p[0]] = s->now;

    if (s->order == MPOL_TOP_BY_COUNT) {
        rc = mpol_top_add(&s->top, &what, &who, s->now, s->now + LIFE);

    } else {
        rc = mpol_top_put(&s->top, &what, &who, (uint64_t) p[1] << p[3] % 64,
                          p[2], s->now, s->now + LIFE);
    }

    assert(rc == MPOL_OK || rc == MPOL_BAD);

    free((void *) (uintptr_t) who.data);
    free((void *) (uintptr_t) what.data);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static state_t  s;

    if (size < 1 || size > 300 * STEP) {
        return 0;
    }

    memset(&s, 0, sizeof(state_t));

    s.order = (data[0] & 1) ? MPOL_TOP_BY_SHARE : MPOL_TOP_BY_COUNT;
    s.now = 1;

    for (data++, size--; size >= STEP; data += STEP, size -= STEP) {
        step(&s, data);

        if (s.times[data[0]] % 8 == 1) {
            check(&s);
        }
    }

    check(&s);

    return 0;
}
