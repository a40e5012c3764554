
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The first octet says which; the rest is unpacked.  What comes out is packed
 * again, and that comes out the same; and it can be worked with.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_pack.h"


#define MEMBERS  64


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
same_rate(const mpol_rate_t *a, const mpol_rate_t *b)
{
    return a->kind == b->kind && a->count == b->count
           && a->period == b->period && a->burst == b->burst;
}


static void
check_local(const mpol_local_t *l)
{
    uint8_t        buf[MPOL_PACK_LOCAL_MAX];
    mpol_pack_t    p;
    mpol_local_t   again;
    mpol_unpack_t  u;

    p.pos = buf;
    p.end = buf + sizeof(buf);
    p.full = 0;

    mpol_pack_local(&p, l);
    assert(!p.full);

    u.pos = buf;
    u.end = p.pos;

    assert(mpol_unpack_local(&u, &again) == MPOL_OK && u.pos == u.end);

    assert(same_rate(&l->rate, &again.rate) && l->from == again.from);
    assert(memcmp(&l->counter, &again.counter, sizeof(again.counter)) == 0);

    if (l->learned.rate.kind != MPOL_RATE_NONE) {
        assert(same_rate(&l->learned.rate, &again.learned.rate));
        assert(l->learned.from == again.learned.from);
        assert(l->learned.at == again.learned.at);
        assert(l->learned.used == again.learned.used);
    }
}


/* whatever was there is counted, told and untold, and can be packed still */

static void
work(mpol_local_t *l, uint64_t now)
{
    size_t           len;
    uint8_t          text[MPOL_LOCAL_TEXT];
    mpol_rate_t      rate;
    mpol_local_t     told;
    mpol_decision_t  d;

    rate = (l->rate.kind != MPOL_RATE_NONE) ? l->rate : l->learned.rate;

    (void) mpol_local_check(l, &rate, now, 1, &d);
    assert(d.used <= MPOL_NEVER && d.remaining <= MPOL_NEVER);

    if (d.fits) {
        mpol_local_charge(l, &rate, 0, now, 1);
        check_local(l);
    }

    len = mpol_local_text(l, now, text);
    assert(len <= sizeof(text));
    assert((len != 0) == mpol_local_waits(l, now));

    told = *l;
    mpol_local_told(l, now);
    assert(!mpol_local_waits(l, now));
    check_local(l);

    mpol_local_untold(l, &told, now, now + 1);
    check_local(l);

    mpol_local_give_back(l, &rate, now + 2, now, 1);
    mpol_local_tidy(l, now + 3);
    check_local(l);
}


static void
fuzz_local(const uint8_t *data, size_t size)
{
    mpol_local_t   l;
    mpol_unpack_t  u;

    u.pos = data;
    u.end = data + size;

    if (mpol_unpack_local(&u, &l) != MPOL_OK) {
        return;
    }

    assert(u.pos > data && u.pos <= u.end);
    assert(mpol_local_rate_valid(&l.rate));
    assert(mpol_local_rate_valid(&l.learned.rate));

    check_local(&l);

    work(&l, l.learned.at != 0 ? l.learned.at : 1754006400000000);
    work(&l, 1754006400000000);
}


static void
fuzz_set(const uint8_t *data, size_t size)
{
    size_t            i;
    uint8_t           buf[MEMBERS * 20];
    mpol_set_t        s, again;
    mpol_pack_t       p;
    mpol_unpack_t     u;
    mpol_set_entry_t  one[MEMBERS], two[MEMBERS];

    s.entries = one;
    s.max = MEMBERS;
    again.entries = two;
    again.max = MEMBERS;

    u.pos = data;
    u.end = data + size;

    if (mpol_unpack_set(&u, &s) != MPOL_OK) {
        assert(s.n == 0);
        return;
    }

    assert(u.pos > data && u.pos <= u.end && s.n <= MEMBERS);

    p.pos = buf;
    p.end = buf + sizeof(buf);
    p.full = 0;

    mpol_pack_set(&p, &s);
    assert(!p.full);

    u.pos = buf;
    u.end = p.pos;

    assert(mpol_unpack_set(&u, &again) == MPOL_OK && u.pos == u.end);
    assert(again.n == s.n);

    for (i = 0; i < s.n; i++) {
        assert(one[i].member == two[i].member);
        assert(one[i].expires == two[i].expires);
        assert(one[i].flags == two[i].flags);
        assert(i == 0 || one[i - 1].expires <= one[i].expires);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }

    if (data[0] % 2 == 0) {
        fuzz_local(data + 1, size - 1);
    } else {
        fuzz_set(data + 1, size - 1);
    }

    return 0;
}
