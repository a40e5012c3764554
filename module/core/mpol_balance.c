
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_balance.h"


static uint32_t mpol_crc32_update(uint32_t state, const uint8_t *p,
    size_t len);
static size_t mpol_points_host(const uint8_t *name, size_t len);


void
mpol_turn_raise(mpol_turn_t *turn, int64_t weight, unsigned share,
    int64_t *total)
{
    int64_t  counts;

    /* the weight may be less than it was, after a reload */

    if (turn->effective > weight) {
        turn->effective = weight;
    }

    counts = turn->effective * (int64_t) share;

    turn->current += counts;
    *total += counts;

    if (turn->effective < weight) {
        turn->effective++;
    }
}


void
mpol_turn_take(mpol_turn_t *turn, int64_t total)
{
    turn->current -= total;
}


void
mpol_turn_fail(mpol_turn_t *turn, int64_t weight, uint64_t max_fails)
{
    if (max_fails == 0) {
        return;
    }

    turn->effective -= (max_fails > (uint64_t) weight)
                       ? 0 : weight / (int64_t) max_fails;

    if (turn->effective < 0) {
        turn->effective = 0;
    }
}


unsigned
mpol_turn_share(int64_t since, uint64_t whole)
{
    uint64_t  passed;

    passed = (since > 0) ? (uint64_t) since : 0;

    if (passed >= whole) {
        return MPOL_SHARE;
    }

    if (passed > UINT64_MAX / MPOL_SHARE) {
        return (unsigned) (passed / (whole / MPOL_SHARE));
    }

    return (unsigned) (passed * MPOL_SHARE / whole);
}


int
mpol_load_compare(uint64_t conns_a, uint64_t weight_a, uint64_t conns_b,
    uint64_t weight_b)
{
    uint64_t  a, b;

    a = conns_a * weight_b;
    b = conns_b * weight_a;

    return (a > b) - (a < b);
}


uint32_t
mpol_crc32(uint32_t crc, const uint8_t *p, size_t len)
{
    return ~mpol_crc32_update(~crc, p, len);
}


/* four bits at a time */

static uint32_t
mpol_crc32_update(uint32_t state, const uint8_t *p, size_t len)
{
    size_t  i;

    static const uint32_t  table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
        0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c
    };

    for (i = 0; i < len; i++) {
        state = table[(state ^ p[i]) & 0xf] ^ (state >> 4);
        state = table[(state ^ (uint32_t) (p[i] >> 4)) & 0xf] ^ (state >> 4);
    }

    return state;
}


uint32_t
mpol_hash_try(uint32_t last, unsigned tries, const uint8_t *key, size_t len)
{
    size_t    n;
    uint32_t  crc;
    uint8_t   digits[10];

    crc = 0;

    if (tries) {
        for (n = sizeof(digits); tries; tries /= 10) {
            digits[--n] = (uint8_t) ('0' + tries % 10);
        }

        crc = mpol_crc32(0, digits + n, sizeof(digits) - n);
    }

    crc = mpol_crc32(crc, key, len);

    return last + ((crc >> 16) & 0x7fff);
}


void
mpol_points_make(mpol_point_t *points, size_t n, uint32_t server,
    const uint8_t *name, size_t len)
{
    size_t    i, host;
    uint32_t  base, hash;
    uint8_t   octets[4];

    if (len >= 5 && (name[0] | 0x20) == 'u' && (name[1] | 0x20) == 'n'
        && (name[2] | 0x20) == 'i' && (name[3] | 0x20) == 'x'
        && name[4] == ':')
    {
        name += 5;
        len -= 5;
        host = len;

    } else {
        host = mpol_points_host(name, len);
    }

    octets[0] = 0;

    base = mpol_crc32(0, name, host);
    base = mpol_crc32(base, octets, 1);

    if (host < len) {
        base = mpol_crc32(base, name + host + 1, len - host - 1);
    }

    hash = 0;

    for (i = 0; i < n; i++) {
        octets[0] = (uint8_t) (hash & 0xff);
        octets[1] = (uint8_t) ((hash >> 8) & 0xff);
        octets[2] = (uint8_t) ((hash >> 16) & 0xff);
        octets[3] = (uint8_t) (hash >> 24);

        hash = mpol_crc32(base, octets, 4);

        points[i].hash = hash;
        points[i].server = server;
    }
}


/* how long the host is: up to a colon that has nothing but digits behind */

static size_t
mpol_points_host(const uint8_t *name, size_t len)
{
    size_t  i;

    for (i = len; i > 0; i--) {

        if (name[i - 1] == ':') {
            return i - 1;
        }

        if (name[i - 1] < '0' || name[i - 1] > '9') {
            break;
        }
    }

    return len;
}


size_t
mpol_points_unique(mpol_point_t *points, size_t n)
{
    size_t  i, j;

    if (n == 0) {
        return 0;
    }

    for (i = 0, j = 1; j < n; j++) {
        if (points[i].hash != points[j].hash) {
            points[++i] = points[j];
        }
    }

    return i + 1;
}


size_t
mpol_points_find(const mpol_point_t *points, size_t n, uint32_t hash)
{
    size_t  i, j, k;

    i = 0;
    j = n;

    while (i < j) {
        k = i + (j - i) / 2;

        if (hash > points[k].hash) {
            i = k + 1;

        } else {
            j = k;
        }
    }

    return i;
}
