
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The rate grammar, in directives and in the store alike.
 *
 *     rate   = "unlimited" / "blocked" / count "/" period [ ",burst=" count ]
 *     count  = 1*DIGIT [ "k" / "m" / "g" ]         k, m, g: 2^10, 2^20, 2^30
 *     period = *DIGIT ( "s" / "m" / "h" / "d" / "w" )      no digits: 1
 *
 * 1 <= count <= 2^40, 1 <= burst <= 2^40; period at least a second and at
 * most 366 days; burst * period / count, the time in which a bucket refills,
 * at most 2^52 microseconds (142 years).  Letters in any case, no white
 * space.  Without burst a strict rolling window; with burst a token bucket.
 * k, m, g only where MPOL_RATE_BYTES is given, no burst where
 * MPOL_RATE_NO_BURST is.
 *
 * With MPOL_RATE_SESSIONS how many there may be at a time:
 *
 *     rate   = "unlimited" / "blocked" / 1*DIGIT
 *
 * with the same bounds of count.  That is a window too, whose period, how long
 * a lease lasts without renewal, is left at 0 for the caller to set.
 */


#ifndef MPOL_RATE_H
#define MPOL_RATE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


typedef enum {
    MPOL_RATE_NONE = 0,                 /* not set: never asked */
    MPOL_RATE_WINDOW,
    MPOL_RATE_BUCKET,
    MPOL_RATE_UNLIMITED,                /* counted nowhere, always fits */
    MPOL_RATE_BLOCKED                   /* never fits */
} mpol_rate_kind_e;


typedef struct {
    mpol_rate_kind_e  kind;
    uint64_t          count;
    uint64_t          period;           /* microseconds */
    uint64_t          burst;            /* bucket only */
} mpol_rate_t;


#define MPOL_RATE_BYTES     0x01        /* flags: k, m, g allowed */
#define MPOL_RATE_NO_BURST  0x02
#define MPOL_RATE_SESSIONS  0x04


#define MPOL_NEVER          ((uint64_t) 1 << 53)    /* and all sums end here */

/* positive errors; mpol_rate_error() words them */
#define MPOL_RATE_SYNTAX    1
#define MPOL_RATE_ZERO      2           /* "0": unlimited, or blocked? */
#define MPOL_RATE_RANGE     3
#define MPOL_RATE_SUFFIX    4           /* k, m, g where not bytes */
#define MPOL_RATE_BURST     5           /* burst where not allowed */
#define MPOL_RATE_NUMBER    6           /* no number where sessions */


/* MPOL_OK or a positive error; *rate is set only on MPOL_OK */
int mpol_rate_parse(const uint8_t *p, size_t len, unsigned flags,
    mpol_rate_t *rate);

/* a static NUL-terminated text that says what to write instead */
const char *mpol_rate_error(int rc);

/* how long n units take at this rate: ceil(n * period / count) */
uint64_t mpol_rate_cost(const mpol_rate_t *rate, uint64_t n);

/* ceil(n * a / b), at most MPOL_NEVER; n, a < 2^53, 1 <= b <= 2^45 */
uint64_t mpol_rate_muldiv(uint64_t n, uint64_t a, uint64_t b);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_RATE_H */
