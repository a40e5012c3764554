
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The arithmetic of a choice among several, as nginx does it: the same keys
 * and weights give the same choices.
 *
 * Smooth weighted round robin: all candidates are raised, each by what counts
 * of its weight; the highest is taken, and lowered by the sum of all.  One
 * that has failed counts less for a while, and one step more at each choice;
 * one that starts slowly counts a share of what it would.
 *
 *     weights 5, 1, 1:   a a b a c a a
 *
 * Hash: ((crc32([n] key) >> 16) & 0x7fff) of each try is added to the last;
 * n, of the second try and later ones, is its number from 1 in decimal.
 *
 * Consistent hash (ketama): a server has 160 points a weight on a ring, each
 * the crc32 of host, a zero octet, port, and the point before it, 4 octets,
 * lowest first.  A key goes to the next point that is not before its crc32.
 */


#ifndef MPOL_BALANCE_H
#define MPOL_BALANCE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SHARE   256            /* the whole of a weight counts */
#define MPOL_POINTS  160            /* for each weight */


typedef struct {
    int64_t   current;
    int64_t   effective;            /* of the weight */
} mpol_turn_t;


typedef struct {
    uint32_t  hash;
    uint32_t  server;
} mpol_point_t;


/* one more candidate; share: 0 .. MPOL_SHARE; adds to *total */
void mpol_turn_raise(mpol_turn_t *turn, int64_t weight, unsigned share,
    int64_t *total);

/* it is the highest */
void mpol_turn_take(mpol_turn_t *turn, int64_t total);

/* it has failed; max_fails: how many of these take all of its weight */
void mpol_turn_fail(mpol_turn_t *turn, int64_t weight, uint64_t max_fails);

/*
 * What counts at a time since a slow start, that lasts for whole.  Below 0:
 * another process has begun it, whose clock is ahead; it has just begun.
 */
unsigned mpol_turn_share(int64_t since, uint64_t whole);

/*
 * Connections by weight: below 0 if a has fewer than b, 0 if as many, above 0
 * if more.  Weights are above 0.
 */
int mpol_load_compare(uint64_t conns_a, uint64_t weight_a, uint64_t conns_b,
    uint64_t weight_b);

/* CRC-32 of IEEE 802.3; crc: 0, or that of what stands before p */
uint32_t mpol_crc32(uint32_t crc, const uint8_t *p, size_t len);

/* the sum that a try of a hash makes of the last one; tries: before this */
uint32_t mpol_hash_try(uint32_t last, unsigned tries, const uint8_t *key,
    size_t len);

/*
 * n points of server, "host:port", "unix:/path" or a name, into points; they
 * are not sorted.
 */
void mpol_points_make(mpol_point_t *points, size_t n, uint32_t server,
    const uint8_t *name, size_t len);

/* of sorted points: leaves the first of equal ones, returns how many stay */
size_t mpol_points_unique(mpol_point_t *points, size_t n);

/* the index of the first that is not below hash; n: there is none */
size_t mpol_points_find(const mpol_point_t *points, size_t n, uint32_t hash);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_BALANCE_H */
