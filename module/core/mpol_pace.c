
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_pace.h"


static uint64_t  mpol_pace_thousand(uint64_t n, uint64_t part, uint64_t rate,
    uint64_t *rest);
static uint64_t  mpol_pace_add(uint64_t *sum, uint64_t n, uint64_t rate);


void
mpol_pace_init(mpol_pace_t *p, uint64_t max_ms, uint64_t rate)
{
    p->left = max_ms;
    p->max = max_ms;
    p->rate = rate;
    p->part = 0;
}


void
mpol_pace_spent(mpol_pace_t *p, uint64_t ms)
{
    p->left -= (ms < p->left) ? ms : p->left;
}


void
mpol_pace_moved(mpol_pace_t *p, uint64_t octets)
{
    uint64_t  gained, rest, room, seconds;

    if (octets == 0) {
        return;
    }

    room = p->max - p->left;
    seconds = p->rate ? octets / p->rate : UINT64_MAX;

    if (seconds <= room / 1000) {
        room -= seconds * 1000;
        gained = mpol_pace_thousand(octets % p->rate, p->part, p->rate, &rest);

        if (gained < room) {
            p->left += seconds * 1000 + gained;
            p->part = rest;
            return;
        }
    }

    /* a part on top of max would be time above max */

    p->left = p->max;
    p->part = 0;
}


/*
 * (n * 1000 + part) / rate and its rest, n < rate and part < rate, where the
 * product may need more than 64 bits: bit by bit, from the highest one
 */

static uint64_t
mpol_pace_thousand(uint64_t n, uint64_t part, uint64_t rate, uint64_t *rest)
{
    uint64_t  bit, quotient, sum;

    sum = 0;
    quotient = 0;

    for (bit = 512; bit != 0; bit >>= 1) {
        quotient = 2 * quotient + mpol_pace_add(&sum, sum, rate);

        if (1000 & bit) {
            quotient += mpol_pace_add(&sum, n, rate);
        }
    }

    quotient += mpol_pace_add(&sum, part, rate);
    *rest = sum;

    return quotient;
}


/* adds modulo rate, both below it; returns the carry */

static uint64_t
mpol_pace_add(uint64_t *sum, uint64_t n, uint64_t rate)
{
    if (*sum >= rate - n) {
        *sum -= rate - n;
        return 1;
    }

    *sum += n;

    return 0;
}
