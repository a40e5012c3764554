
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_balance.h"
#include "tap.h"


#define PEERS  4


static void
turns(const int64_t *weights, size_t n, const unsigned *shares, size_t times,
    char *order)
{
    size_t       i, t, best;
    int64_t      total;
    mpol_turn_t  turn[PEERS];

    for (i = 0; i < n; i++) {
        turn[i].current = 0;
        turn[i].effective = weights[i];
    }

    for (t = 0; t < times; t++) {

        total = 0;
        best = n;

        for (i = 0; i < n; i++) {
            mpol_turn_raise(&turn[i], weights[i], shares[i], &total);

            if (best == n || turn[i].current > turn[best].current) {
                best = i;
            }
        }

        mpol_turn_take(&turn[best], total);
        order[t] = (char) ('a' + best);
    }

    order[times] = '\0';
}


static void
test_turns(void)
{
    size_t  i;
    char    order[64];

    static const struct {
        int64_t      weights[PEERS];
        unsigned     shares[PEERS];
        size_t       n;
        const char  *order;
    } cases[] = {
        { { 1 }, { MPOL_SHARE }, 1, "aaa" },
        { { 1, 1 }, { MPOL_SHARE, MPOL_SHARE }, 2, "abab" },
        { { 5, 1, 1 }, { MPOL_SHARE, MPOL_SHARE, MPOL_SHARE }, 3,
          "aabacaaaabacaa" },
        { { 3, 2 }, { MPOL_SHARE, MPOL_SHARE }, 2, "ababaababa" },
        { { 1, 1 }, { MPOL_SHARE, 0 }, 2, "aaaa" },
        { { 1, 1 }, { MPOL_SHARE, MPOL_SHARE / 3 }, 2, "aabaaaba" },
        { { 1 }, { 0 }, 1, "aa" },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        turns(cases[i].weights, cases[i].n, cases[i].shares,
              strlen(cases[i].order), order);
        ok(strcmp(order, cases[i].order) == 0, "turns %u: %s, got %s",
           (unsigned) i, cases[i].order, order);
    }
}


static void
test_fail(void)
{
    size_t       i;
    int64_t      total;
    mpol_turn_t  turn;

    static const struct {
        int64_t   weight;
        uint64_t  max_fails;
        int64_t   effective;
    } cases[] = {
        { 5, 1, 0 }, { 5, 2, 3 }, { 5, 5, 4 }, { 5, 6, 5 }, { 5, 0, 5 },
        { 1, 1, 0 }, { 1, UINT64_MAX, 1 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        turn.current = 0;
        turn.effective = cases[i].weight;

        mpol_turn_fail(&turn, cases[i].weight, cases[i].max_fails);
        is_u64((uint64_t) turn.effective, (uint64_t) cases[i].effective,
               "a failure of %u", (unsigned) i);
    }

    /* it comes back one step a choice */

    turn.effective = 0;
    total = 0;

    for (i = 0; i < 4; i++) {
        mpol_turn_raise(&turn, 3, MPOL_SHARE, &total);
    }

    is_u64((uint64_t) total, (0 + 1 + 2 + 3) * MPOL_SHARE, "back in steps");

    turn.effective = 9;
    total = 0;
    mpol_turn_raise(&turn, 2, MPOL_SHARE, &total);
    is_u64((uint64_t) total, 2 * MPOL_SHARE, "a weight that is less now");

    turn.effective = 1;
    mpol_turn_fail(&turn, 5, 1);
    is_u64((uint64_t) turn.effective, 0, "not below zero");
}


static void
test_share(void)
{
    is_u64(mpol_turn_share(0, 1000), 0, "slow start: begins");
    is_u64(mpol_turn_share(500, 1000), MPOL_SHARE / 2, "slow start: half");
    is_u64(mpol_turn_share(999, 1000), MPOL_SHARE - 1, "slow start: almost");
    is_u64(mpol_turn_share(1000, 1000), MPOL_SHARE, "slow start: over");
    is_u64(mpol_turn_share(0, 0), MPOL_SHARE, "no slow start");
    is_u64(mpol_turn_share(UINT64_MAX / 2, UINT64_MAX), MPOL_SHARE / 2,
           "slow start: for ever");
    is_u64(mpol_turn_share(-1, 1000), 0, "slow start: another one's clock");
    is_u64(mpol_turn_share(-1, 0), MPOL_SHARE, "no slow start, a clock");

    ok(mpol_load_compare(1, 1, 2, 1) < 0, "fewer connections");
    ok(mpol_load_compare(2, 1, 4, 2) == 0, "as many, by weight");
    ok(mpol_load_compare(3, 1, 4, 2) > 0, "more, by weight");
    ok(mpol_load_compare(0, 1, 0, 9) == 0, "none");
}


static uint32_t
crc(const void *data, size_t len)
{
    uint32_t   n;
    uint8_t   *p;

    p = tap_exact(data, len);
    n = mpol_crc32(0, p, len);
    free(p);

    return n;
}


static void
test_crc32(void)
{
    size_t    i;
    uint32_t  bit, byte, state;
    uint8_t   octet;

    is_u64(crc("123456789", 9), 0xcbf43926, "crc32: the check value");
    is_u64(crc("", 0), 0, "crc32: nothing");
    is_u64(mpol_crc32(crc("1234", 4), (const uint8_t *) "56789", 5),
           0xcbf43926, "crc32: in two parts");

    /* each octet, against the definition */

    for (i = 0, byte = 0; i < 256; i++) {
        octet = (uint8_t) i;
        state = ~(uint32_t) 0 ^ octet;

        for (bit = 0; bit < 8; bit++) {
            state = (state & 1) ? (state >> 1) ^ 0xedb88320 : state >> 1;
        }

        byte += (mpol_crc32(0, &octet, 1) == ~state);
    }

    is_u64(byte, 256, "crc32: each octet");
}


static void
test_hash(void)
{
    size_t         i;
    uint32_t       sum;
    mpol_point_t   points[8], same[8];

    static const uint32_t  found[][2] = {
        { 0, 0 }, { 10, 0 }, { 11, 1 }, { 20, 1 }, { 30, 2 }, { 31, 3 }
    };

    /* (crc32(key) >> 16) & 0x7fff, then with "1" in front */

    sum = mpol_hash_try(0, 0, (const uint8_t *) "123456789", 9);
    is_u64(sum, 0x4bf4, "hash: the first try");

    sum = mpol_hash_try(sum, 1, (const uint8_t *) "23456789", 8);
    is_u64(sum, 0x4bf4 + 0x4bf4, "hash: the second one has its number");

    sum = mpol_hash_try(0, 12, (const uint8_t *) "3456789", 7);
    is_u64(sum, 0x4bf4, "hash: a number of two digits");

    /* points: crc32(host \0 port, the last one) */

    mpol_points_make(points, 2, 7, (const uint8_t *) "h:25", 4);
    is_u64(points[0].hash, crc("h\00025\0\0\0\0", 8), "the first point");
    is_u64(points[0].server, 7, "is the server's");

    mpol_points_make(same, 2, 7, (const uint8_t *) "unix:h:25", 9);
    is_u64(same[0].hash, crc("h:25\0\0\0\0\0", 9), "of a path");

    mpol_points_make(same, 1, 7, (const uint8_t *) "name", 4);
    is_u64(same[0].hash, crc("name\0\0\0\0\0", 9), "of no port");

    mpol_points_make(same, 1, 7, (const uint8_t *) "[::1]:25", 8);
    is_u64(same[0].hash, crc("[::1]\00025\0\0\0\0", 12), "of IPv6");

    mpol_points_make(same, 1, 7, (const uint8_t *) "", 0);
    is_u64(same[0].hash, crc("\0\0\0\0\0", 5), "of nothing");

    for (i = 0; i < 5; i++) {
        points[i].hash = (uint32_t) (i < 2 ? 10 : i < 4 ? 20 : 30);
        points[i].server = (uint32_t) i;
    }

    is_u64(mpol_points_unique(points, 5), 3, "three are left");
    ok(points[0].server == 0 && points[1].server == 2
       && points[2].server == 4, "the first of equal ones");
    is_u64(mpol_points_unique(points, 0), 0, "of none none");

    for (i = 0; i < sizeof(found) / sizeof(found[0]); i++) {
        is_u64(mpol_points_find(points, 3, found[i][0]), found[i][1],
               "the point of %u", (unsigned) found[i][0]);
    }
}


int
main(void)
{
    test_turns();
    test_fail();
    test_share();
    test_crc32();
    test_hash();

    return done_testing();
}
