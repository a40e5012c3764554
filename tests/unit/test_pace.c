
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_pace.h"
#include "tap.h"


#define MAX  UINT64_MAX


/* in a row: 'i' begins with left as max, else n are spent or moved */

static const struct {
    char         op;
    uint64_t     n;                     /* the rate, ms, octets */
    uint64_t     left;
    const char  *name;
} cases[] = {

    { 'i', 500, 300000, "300 s, 500 octets a second" },
    { 's', 0, 300000, "nothing spent" },
    { 's', 1000, 299000, "a second" },
    { 'm', 500, 300000, "500 octets give it again" },
    { 'm', 1000000, 300000, "no more than max" },
    { 's', 10000, 290000, "ten seconds" },
    { 'm', 1, 290002, "an octet is 2 ms" },
    { 'm', 0, 290002, "no octet is none" },
    { 's', 290001, 1, "all but one" },
    { 's', 1, 0, "all" },
    { 's', 1, 0, "and no less" },
    { 's', MAX, 0, "than all" },
    { 'm', 2, 4, "octets give more even then" },

    { 'i', 3000, 1000, "three octets a ms" },
    { 's', 1000, 0, "all spent" },
    { 'm', 1, 0, "a third of a ms" },
    { 'm', 1, 0, "two thirds" },
    { 'm', 1, 1, "the third one makes it a ms" },
    { 'm', 5, 2, "two thirds are left" },
    { 's', 2, 0, "they are no ms" },
    { 's', 1000, 0, "and cannot be spent" },
    { 'm', 1, 1, "and with one more are one" },
    { 'm', 2, 1, "two thirds again" },
    { 'm', 3000, 1000, "too much" },
    { 's', 1, 999, "a ms" },
    { 'm', 1, 999, "at max no part was kept" },
    { 'm', 2, 1000, "three octets are needed" },

    { 'i', 7, 100000, "seven octets a second" },
    { 's', 100000, 0, "all spent" },
    { 'm', 1, 142, "142 6/7" },
    { 'm', 1, 285, "285 5/7" },
    { 'm', 5, 1000, "a second" },

    { 'i', 0, 5000, "rate 0" },
    { 's', 4999, 1, "all but one" },
    { 'm', 0, 1, "no octet gives nothing" },
    { 'm', 1, 5000, "an octet gives all" },
    { 's', 5000, 0, "all" },
    { 'm', MAX, 5000, "as do many" },

    { 'i', 1, 0, "no time at all" },
    { 's', 1, 0, "nothing to spend" },
    { 'm', MAX, 0, "nothing to give" },
    { 'i', 0, 0, "nor with rate 0" },
    { 'm', 1, 0, "nothing to give" },

    { 'i', 1, MAX, "the longest time" },
    { 'm', MAX, MAX, "is the longest" },
    { 's', MAX, 0, "all spent" },
    { 'm', 1, 1000, "an octet is a second" },
    { 'm', MAX / 1000 - 1, MAX / 1000 * 1000, "the most whole seconds" },
    { 'm', 1, MAX, "the last part of one" },
    { 's', 616, MAX - 616, "not a second" },
    { 'm', MAX, MAX, "no overflow" },

    { 'i', MAX, 1000, "the highest rate" },
    { 's', 1000, 0, "all spent" },
    { 'm', MAX - 1, 999, "all of a second but one octet" },
    { 'm', 1, 1000, "that one" },
    { 's', 1000, 0, "all spent" },
    { 'm', MAX / 1000, 0, "not quite a ms" },
    { 'm', 1, 1, "a ms" },
    { 'm', MAX, 1000, "all" },

    { 'i', MAX / 1000 + 1, 100, "a rate that 1000 times is too much" },
    { 's', 100, 0, "all spent" },
    { 'm', MAX / 1000, 100, "above max" },
    { 's', 100, 0, "all spent" },
    { 'm', MAX / 20000, 49, "half of it, less a bit" },
    { 'm', 1, 50, "half of it" }
};


static void
test_cases(void)
{
    size_t       i;
    mpol_pace_t  p;

    mpol_pace_init(&p, 0, 0);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {

        switch (cases[i].op) {

        case 'i':
            mpol_pace_init(&p, cases[i].left, cases[i].n);
            break;

        case 's':
            mpol_pace_spent(&p, cases[i].n);
            break;

        default:
            mpol_pace_moved(&p, cases[i].n);
        }

        is_u64(p.left, cases[i].left, "RES-5 %s%s",
               cases[i].op == 'i' ? "" : "  ", cases[i].name);
    }
}


/* 64 bits, few or many of them in use */

static uint64_t
number(void)
{
    int       i;
    uint64_t  n;

    for (i = 0, n = 0; i < 8; i++) {
        n = n << 8 | (uint64_t) (rand() & 255);
    }

    return n >> (rand() % 64);
}


static int
sane(const mpol_pace_t *p)
{
    return p->left <= p->max && (p->rate == 0 || p->part < p->rate)
           && (p->left < p->max || p->part == 0);
}


/* octets in two or more pieces, with the same result as together */

static void
test_pieces(void)
{
    int          i;
    uint64_t     k, n, rest;
    unsigned     round, capped, partly;
    mpol_pace_t  a, b;

    capped = 0;
    partly = 0;

    for (round = 0; round < 200000; round++) {
        mpol_pace_init(&a, number(), number());
        b = a;

        for (i = 0; i < 4; i++) {
            n = number();
            mpol_pace_spent(&a, n);
            mpol_pace_spent(&b, n);

            n = number();
            mpol_pace_moved(&a, n);

            for (rest = n; rest != 0 && rand() % 8 != 0; rest -= k) {
                k = number() % rest;
                mpol_pace_moved(&b, k);
            }

            mpol_pace_moved(&b, rest);

            if (!sane(&a) || a.left != b.left || a.part != b.part) {
                break;
            }
        }

        if (i < 4) {
            printf("#   max %llu, rate %llu, octets %llu\n",
                   (unsigned long long) a.max, (unsigned long long) a.rate,
                   (unsigned long long) n);
            break;
        }

        capped += a.left == a.max;
        partly += a.part != 0;
    }

    ok(round == 200000 && capped > 10000 && partly > 10000,
       "any pieces of octets are as good as all of them");
}


#ifdef __SIZEOF_INT128__

/* the formula, in numbers large enough for it */

static void
test_formula(void)
{
    uint64_t     n;
    unsigned     i, round;
    mpol_pace_t  p, m;

    __extension__ typedef unsigned __int128  wide_t;

    wide_t  gained, left;

    for (round = 0; round < 200000; round++) {
        mpol_pace_init(&p, number(), number());
        m = p;

        for (i = 0; i < 4; i++) {
            n = number();
            mpol_pace_spent(&p, n);
            m.left = (n < m.left) ? m.left - n : 0;

            n = number();
            mpol_pace_moved(&p, n);

            if (m.rate == 0) {
                m.left = n ? m.max : m.left;

            } else {
                gained = (wide_t) n * 1000 + m.part;
                left = m.left + gained / m.rate;

                m.part = (uint64_t) (gained % m.rate);
                m.left = left < m.max ? (uint64_t) left : m.max;
            }

            if (m.left == m.max) {
                m.part = 0;
            }

            if (p.left != m.left || p.part != m.part) {
                break;
            }
        }

        if (i < 4) {
            printf("#   max %llu, rate %llu, octets %llu\n",
                   (unsigned long long) p.max, (unsigned long long) p.rate,
                   (unsigned long long) n);
            break;
        }
    }

    ok(round == 200000, "any numbers: as the formula says");
}

#endif


/* who sends at the rate lives on, a bit below it dies, however he sends */

static void
test_rates(void)
{
    unsigned     each, gap, n, want;
    mpol_pace_t  p;

    for (each = 1; each < 500; each *= 5) {

        /* so many octets each gap ms are 500 a second */

        gap = each * 2;

        mpol_pace_init(&p, 10000, 500);

        for (n = 0; n < 100000; n++) {
            mpol_pace_spent(&p, gap);
            mpol_pace_moved(&p, each);
        }

        ok(p.left == 10000, "RES-5 %u at a time, at the rate: lives", each);

        /* each tenth time a gap too late: ten seconds last for 110 */

        mpol_pace_init(&p, 10000, 500);

        for (n = 0; n < 1000000; n++) {
            mpol_pace_spent(&p, n % 10 == 9 ? 2 * gap : gap);

            if (p.left == 0) {
                break;
            }

            mpol_pace_moved(&p, each);
        }

        want = 10000 / gap * 10;

        ok(n >= want - 20 && n <= want,
           "RES-5 %u at a time, too slow: dies, after %u", each, n);
    }
}


int
main(void)
{
    srand(1);

    test_cases();
    test_pieces();
#ifdef __SIZEOF_INT128__
    test_formula();
#endif
    test_rates();

    return done_testing();
}
