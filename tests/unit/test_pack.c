
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* What is packed comes out the same; how many octets it takes. */


#include "mpol_pack.h"
#include "tap.h"


#define MEMBERS  8


static uint64_t  seed = 88172645463325252;


static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


static size_t
pack_local(const mpol_local_t *l, uint8_t *out, size_t size)
{
    mpol_pack_t  p;

    p.pos = out;
    p.end = out + size;
    p.full = 0;

    mpol_pack_local(&p, l);

    return p.full ? 0 : (size_t) (p.pos - out);
}


static int
same_rate(const mpol_rate_t *a, const mpol_rate_t *b)
{
    return a->kind == b->kind && a->count == b->count
           && a->period == b->period && a->burst == b->burst;
}


static int
same(const mpol_local_t *a, const mpol_local_t *b)
{
    return same_rate(&a->learned.rate, &b->learned.rate)
           && a->learned.from == b->learned.from
           && a->learned.at == b->learned.at
           && a->learned.used == b->learned.used
           && same_rate(&a->rate, &b->rate)
           && a->from == b->from
           && memcmp(&a->counter, &b->counter, sizeof(a->counter)) == 0;
}


/* each octet less is too few, for the packer and the unpacker */

static void
is_same(const mpol_local_t *l, size_t want, const char *name)
{
    int            right;
    size_t         len, i;
    uint8_t       *exact, buf[MPOL_PACK_LOCAL_MAX];
    mpol_local_t   out;
    mpol_unpack_t  u;

    len = pack_local(l, buf, sizeof(buf));
    is_u64(len, want, "%s: octets", name);

    u.pos = buf;
    u.end = buf + len;

    ok(mpol_unpack_local(&u, &out) == MPOL_OK && u.pos == u.end
       && same(l, &out), "%s: the same", name);

    right = 1;

    for (i = 0; i < len; i++) {
        exact = tap_exact(buf, i);
        right = right && pack_local(l, exact, i) == 0;
        free(exact);

        exact = tap_exact(buf, i);
        u.pos = exact;
        u.end = exact + i;
        right = right && mpol_unpack_local(&u, &out) == MPOL_BAD
                && out.rate.kind == MPOL_RATE_NONE && out.counter.width == 0;
        free(exact);
    }

    ok(right, "%s: no octet less", name);
}


static void
test_local(void)
{
    size_t        i;
    uint64_t      now;
    mpol_local_t  l;

    const mpol_rate_t  hour = { MPOL_RATE_WINDOW, 500, 3600000000, 0 };
    const mpol_rate_t  bucket = { MPOL_RATE_BUCKET, 200, 3600000000, 20 };
    const mpol_rate_t  blocked = { MPOL_RATE_BLOCKED, 0, 0, 0 };

    now = 1754006400123000;

    memset(&l, 0, sizeof(l));
    is_same(&l, 1, "nothing");

    mpol_local_charge(&l, &hour, 0, now, 1);
    is_same(&l, 17, "a slot of an hour");

    mpol_local_charge(&l, &hour, 0, now + 56250000, 3);
    mpol_local_charge(&l, &hour, 0, now + 3 * 56250000, 200);
    is_same(&l, 20, "three slots of an hour");

    mpol_local_learn(&l, &hour, 4, now, 17);
    is_same(&l, 32, "the same, and what was learned");

    memset(&l, 0, sizeof(l));

    for (i = 0; i < 200; i++) {
        mpol_local_charge(&l, &hour, 0, now + i * 56250000, 9);
    }

    is_same(&l, 90, "all slots of an hour");

    memset(&l, 0, sizeof(l));
    mpol_local_learn(&l, &blocked, 4, now, 0);
    is_same(&l, 9, "blocked");

    mpol_local_learn(&l, &bucket, 0, now, 5);
    mpol_local_charge(&l, &bucket, 0, now + 1, 1);
    is_same(&l, 32, "a bucket");

    /* the largest numbers there are */

    memset(&l, 0, sizeof(l));

    l.learned.rate.kind = MPOL_RATE_BUCKET;
    l.learned.rate.count = (uint64_t) 1 << 40;
    l.learned.rate.period = ((uint64_t) 1 << 45) - 1;
    l.learned.rate.burst = (uint64_t) 1 << 40;
    l.learned.from = MPOL_FROM_MAX;
    l.learned.at = MPOL_NEVER - 1;
    l.learned.used = MPOL_NEVER;

    l.rate = l.learned.rate;
    l.rate.kind = MPOL_RATE_WINDOW;
    l.rate.burst = 0;
    l.from = MPOL_FROM_MAX;

    l.counter.width = l.rate.period / 64;
    l.counter.newest = MPOL_NEVER / l.counter.width;

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {
        l.counter.slot[i] = MPOL_NEVER;
    }

    is_same(&l, 591, "the largest");
}


static void
test_set(void)
{
    int               right;
    size_t            len;
    uint8_t           buf[256];
    mpol_set_t        s, t;
    mpol_pack_t       p;
    mpol_unpack_t     u;
    mpol_set_entry_t  in[MEMBERS], out[MEMBERS];

    memset(in, 0, sizeof(in));
    memset(out, 0, sizeof(out));

    s.entries = in;
    s.max = MEMBERS;
    s.n = 0;

    t.entries = out;
    t.max = MEMBERS;

    (void) mpol_set_put(&s, 0xbeef, 1754006400123000, MPOL_SET_MARKED);
    (void) mpol_set_put(&s, 0xcafe, 1754006400123001, 0);
    (void) mpol_set_put(&s, 7, 1754006400123001, MPOL_SET_MARKED);

    p.pos = buf;
    p.end = buf + sizeof(buf);
    p.full = 0;

    mpol_pack_set(&p, &s);
    len = (size_t) (p.pos - buf);

    is_u64(len, 1 + 1 + 6 + 3 * 3, "a set: octets");

    u.pos = buf;
    u.end = p.pos;

    ok(mpol_unpack_set(&u, &t) == MPOL_OK && t.n == 3
       && memcmp(in, out, 3 * sizeof(in[0])) == 0, "a set: the same");

    t.max = 2;
    u.pos = buf;
    ok(mpol_unpack_set(&u, &t) == MPOL_BAD && t.n == 0,
       "a set: more than there is room for");
    t.max = MEMBERS;

    for (right = 1; len-- != 0; /* void */ ) {
        u.pos = buf;
        u.end = buf + len;
        right = right && mpol_unpack_set(&u, &t) == MPOL_BAD && t.n == 0;
    }

    ok(right, "a set: no octet less");

    mpol_set_strangers(&s, 9, 1754006400123000);
    (void) mpol_set_put(&s, (uint64_t) -1, MPOL_NEVER, 0);
    ok(s.n == MEMBERS, "a set with strangers");

    (void) mpol_set_remove(&s, 7);
    (void) mpol_set_put(&s, (uint64_t) -1, MPOL_NEVER, 0);

    p.pos = buf;
    mpol_pack_set(&p, &s);
    u.pos = buf;
    u.end = p.pos;

    ok(mpol_unpack_set(&u, &t) == MPOL_OK && t.n == 3 && u.pos == u.end
       && out[2].member == (uint64_t) -1 && out[2].expires == MPOL_NEVER
       && out[1].member == 0xcafe, "a set: without strangers");

    s.n = 0;
    p.pos = buf;
    mpol_pack_set(&p, &s);
    is_u64((uint64_t) (p.pos - buf), 1, "an empty set: octets");
    u.pos = buf;
    u.end = p.pos;
    ok(mpol_unpack_set(&u, &t) == MPOL_OK && t.n == 0, "an empty set");
}


/* what no packer writes */

static void
test_bad(void)
{
    size_t          i;
    uint64_t        n;
    mpol_local_t    l;
    mpol_unpack_t   u;

    static const struct {
        const char  *name;
        const char  *octets;
        size_t       len;
        int          rc;
    } cases[] = {
        { "nothing at all", "", 0, MPOL_BAD },
        { "no parts", "\0", 1, MPOL_OK },
        { "parts that do not exist", "\4", 1, MPOL_BAD },
        { "unlimited, learned at 0", "\1\3\0\0", 4, MPOL_OK },
        { "no such kind", "\1\5\0\0", 4, MPOL_BAD },
        { "from nowhere", "\1\123\0\0", 4, MPOL_BAD },
        { "a rate of 0", "\1\1\0\2\0\0", 6, MPOL_BAD },
        { "a period of 0", "\1\1\1\0\0\0", 6, MPOL_BAD },
        { "a second", "\1\1\1\2\0\0", 6, MPOL_OK },
        { "local, no rate", "\2\0\0", 3, MPOL_BAD },
        { "local, unlimited", "\2\3\0", 3, MPOL_BAD },
        { "local, a window's bucket", "\2\1\1\2\1\1", 6, MPOL_BAD },
        { "local, a window", "\2\1\1\2\2\211\172\1\0\5", 10, MPOL_OK },
        { "local, of another width", "\2\1\1\2\2\212\172\1\0\5", 10,
          MPOL_BAD },
        { "local, slots before 0", "\2\1\1\2\2\211\172\1\3\5\5\5", 12,
          MPOL_BAD },
        { "local, an empty slot", "\2\1\1\2\2\211\172\1\1\5\0", 11,
          MPOL_BAD },
        { "local, no such counter", "\2\1\1\2\3", 5, MPOL_BAD },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        u.pos = (const uint8_t *) cases[i].octets;
        u.end = u.pos + cases[i].len;

        ok(mpol_unpack_local(&u, &l) == cases[i].rc, "%s", cases[i].name);
    }

    u.pos = (const uint8_t *) "\377\377\377\377\377\377\377\377\377\1";
    u.end = u.pos + 10;
    ok(mpol_unpack_number(&u, &n) == MPOL_OK && n == (uint64_t) -1,
       "the largest number");

    u.pos = (const uint8_t *) "\377\377\377\377\377\377\377\377\377\2";
    u.end = u.pos + 10;
    ok(mpol_unpack_number(&u, &n) == MPOL_BAD && n == 0, "and one more");

    u.pos = (const uint8_t *) "\200\200\200\200\200\200\200\200\200\200\0";
    u.end = u.pos + 11;
    ok(mpol_unpack_number(&u, &n) == MPOL_BAD, "a number without end");
}


/* a life of charges at random: packed and unpacked after each */

static void
test_random(void)
{
    int            right;
    size_t         len;
    uint8_t        buf[MPOL_PACK_LOCAL_MAX];
    uint64_t       now;
    unsigned       round, step;
    mpol_rate_t    rate;
    mpol_local_t   l, out;
    mpol_unpack_t  u;

    right = 1;

    for (round = 0; round < 200 && right; round++) {
        memset(&l, 0, sizeof(l));
        now = below(2) ? 0 : 1754006400000000 + below(1000000);

        for (step = 0; step < 100 && right; step++) {
            rate.kind = below(5) ? MPOL_RATE_WINDOW : MPOL_RATE_BUCKET;
            rate.count = 1 + below(1 + below((uint64_t) 1 << 40));
            rate.period = below(9) ? 60000000
                                   : 64 + below(((uint64_t) 1 << 45) - 64);
            rate.burst = (rate.kind == MPOL_RATE_BUCKET)
                         ? 1 + below(rate.count) : 0;
            now += below(4000000);

            if (below(3)) {
                mpol_local_charge(&l, &rate, (unsigned) below(5), now,
                                  below(1 + below(1000000)));
            } else {
                mpol_local_learn(&l, &rate, (unsigned) below(5), now,
                                 below(rate.count));
            }

            len = pack_local(&l, buf, sizeof(buf));
            u.pos = buf;
            u.end = buf + len;

            right = len != 0 && mpol_unpack_local(&u, &out) == MPOL_OK
                    && u.pos == u.end && same(&l, &out);
        }
    }

    ok(right, "at random: round %u, step %u", round, right ? 0 : step);
}


int
main(void)
{
    test_local();
    test_set();
    test_bad();
    test_random();

    return done_testing();
}
