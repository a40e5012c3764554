
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is counted under one key for one unit, and how it is judged.  The
 * same arithmetic stands in policies/counter.lua, judge.lua, limit.lua and
 * giveback.lua; tests/vectors/ is the specification of all.  Times are
 * microseconds of the store's clock, every number stays below 2^53.
 *
 * Window.  Time is cut into slots of width period / 64.  What was charged
 * in slot i counts until slot i + 65 begins: never released early, at most
 * period / 64 late.  Slots j - 64 .. j can count at a time in slot j, so 65
 * of them are kept, 64 whole ones and the one being filled.
 *   used      = sum of the slots that count
 *   fits      = used + n <= count, or n = 0
 *   remaining = count - used, 0 if negative
 *   retry     = time until enough slots are released for n to fit, counted
 *               from now; 0 if it fits now; MPOL_NEVER if n > count
 * A slot later than now (the clock went back) becomes the present slot.
 * When the width changes, each old slot goes to the new slot in which its
 * last microsecond lies.
 *
 * Bucket (GCRA).  One number, tat: when the bucket will be empty.
 *   cost(n)   = ceil(n * period / count)
 *   depth     = cost(burst)
 *   level     = min(max(tat - now, 0), depth)
 *   fits      = n <= burst and level + cost(n) <= depth
 *   used      = ceil(level * count / period), at most burst
 *   remaining = burst - used
 *   retry     = level + cost(n) - depth; MPOL_NEVER if n > burst
 *   add       : tat = now + level + cost(n)
 * A tat later than now + depth becomes that.
 *
 * Unlimited: fits, used 0, remaining MPOL_NEVER, retry 0, nothing kept.
 * Blocked: does not fit, remaining 0, retry MPOL_NEVER.
 *
 * A window finds a bucket's counter empty, and the other way round.  Nothing
 * is written for n = 0.
 *
 * Give back, with the rate that was charged, takes n from the slot in which
 * it was charged (none if that slot has been released, never below 0), in
 * the width that the counter has by now; or cost(n) from tat, at most
 * at + depth - now: what has drained is not given back.
 */


#ifndef MPOL_COUNTER_H
#define MPOL_COUNTER_H


#include "mpol_rate.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_WINDOW_SLOTS  65


typedef struct {
    uint64_t  width;                    /* slot width; 0: nothing kept yet */
    uint64_t  newest;                   /* index of the newest slot kept */
    uint64_t  tat;                      /* bucket */
    uint64_t  slot[MPOL_WINDOW_SLOTS];  /* slot i is at i % SLOTS */
} mpol_counter_t;                       /* all zeroes to begin with */


typedef struct {
    uint64_t  used;
    uint64_t  remaining;
    uint64_t  retry;                    /* microseconds */
    unsigned  fits:1;
} mpol_decision_t;


/*
 * Judges n units at now.  Charges nothing, but brings to now what lies in the
 * future: else it would stay there as long as it is only asked, and retry
 * would never come true.
 */
void mpol_counter_check(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n, mpol_decision_t *d);

/* charges n units at now, fitting or not */
void mpol_counter_charge(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n);

/* takes back n units that were charged at time at; now >= at */
void mpol_counter_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n);

/*
 * Brings to now what lies in the future, and does nothing else; 1 if there
 * was any.
 */
int mpol_counter_settle(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now);

/* adds what of another window counts at now; c is in slots of width then */
void mpol_counter_merge(mpol_counter_t *c, const mpol_counter_t *other,
    uint64_t width, uint64_t now);

/* of the slots in which this rate, a window, is counted */
uint64_t mpol_counter_width(const mpol_rate_t *rate);

/* when nothing of it counts any more: absolute time, 0 if it is empty */
uint64_t mpol_counter_expires(const mpol_counter_t *c,
    const mpol_rate_t *rate, uint64_t now);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_COUNTER_H */
