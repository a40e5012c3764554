
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_counter.h"


#define MPOL_WINDOW_WHOLE  (MPOL_WINDOW_SLOTS - 1)


static uint64_t mpol_counter_add(uint64_t a, uint64_t b);
static int mpol_window_view(const mpol_counter_t *c, uint64_t width,
    uint64_t now, mpol_counter_t *v);
static void mpol_window_copy(const mpol_counter_t *c, mpol_counter_t *v);
static uint64_t mpol_window_release(const mpol_counter_t *v, uint64_t left);
static void mpol_window_check(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n, mpol_decision_t *d);
static void mpol_window_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n);
static uint64_t mpol_bucket_level(const mpol_counter_t *c,
    const mpol_rate_t *rate, uint64_t now);
static void mpol_bucket_check(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n, mpol_decision_t *d);
static void mpol_bucket_charge(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n);
static void mpol_bucket_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n);


/*
 * A counter whose width is set holds a window, else a bucket; a rate of the
 * other kind finds it empty.
 */


void
mpol_counter_check(mpol_counter_t *c, const mpol_rate_t *rate, uint64_t now,
    uint64_t n, mpol_decision_t *d)
{
    switch (rate->kind) {

    case MPOL_RATE_WINDOW:
        mpol_window_check(c, rate, now, n, d);
        return;

    case MPOL_RATE_BUCKET:
        mpol_bucket_check(c, rate, now, n, d);
        return;

    case MPOL_RATE_BLOCKED:
        d->used = 0;
        d->remaining = 0;
        d->retry = MPOL_NEVER;
        d->fits = 0;
        return;

    case MPOL_RATE_UNLIMITED:
    case MPOL_RATE_NONE:
        break;
    }

    d->used = 0;
    d->remaining = MPOL_NEVER;
    d->retry = 0;
    d->fits = 1;
}


void
mpol_counter_charge(mpol_counter_t *c, const mpol_rate_t *rate, uint64_t now,
    uint64_t n)
{
    uint64_t        *slot;
    mpol_counter_t   v;

    if (n == 0) {
        return;
    }

    if (rate->kind == MPOL_RATE_BUCKET) {
        mpol_bucket_charge(c, rate, now, n);
        return;
    }

    if (rate->kind != MPOL_RATE_WINDOW) {
        return;
    }

    (void) mpol_window_view(c, mpol_counter_width(rate), now, &v);

    slot = &v.slot[v.newest % MPOL_WINDOW_SLOTS];
    *slot = mpol_counter_add(*slot, n);

    *c = v;
}


void
mpol_counter_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n)
{
    if (n == 0) {
        return;
    }

    if (rate->kind == MPOL_RATE_WINDOW) {
        mpol_window_give_back(c, rate, now, at, n);

    } else if (rate->kind == MPOL_RATE_BUCKET) {
        mpol_bucket_give_back(c, rate, now, at, n);
    }
}


int
mpol_counter_settle(mpol_counter_t *c, const mpol_rate_t *rate, uint64_t now)
{
    uint64_t        last;
    mpol_counter_t  v;

    if (rate->kind == MPOL_RATE_WINDOW && c->width != 0) {

        if (c->newest <= now / c->width
            || !mpol_window_view(c, c->width, now, &v))
        {
            return 0;
        }

        *c = v;
        return 1;
    }

    if (rate->kind != MPOL_RATE_BUCKET || c->width != 0) {
        return 0;
    }

    last = mpol_counter_add(now, mpol_rate_cost(rate, rate->burst));

    if (c->tat <= last) {
        return 0;
    }

    c->tat = last;

    return 1;
}


void
mpol_counter_merge(mpol_counter_t *c, const mpol_counter_t *other,
    uint64_t width, uint64_t now)
{
    size_t          i;
    mpol_counter_t  v, w;

    (void) mpol_window_view(c, width, now, &v);

    if (other->width == 0) {
        *c = v;
        return;
    }

    (void) mpol_window_view(other, width, now, &w);

    /* both have the same newest slot */

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {
        v.slot[i] = mpol_counter_add(v.slot[i], w.slot[i]);
    }

    *c = v;
}


uint64_t
mpol_counter_expires(const mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now)
{
    uint64_t        i, level, width;
    mpol_counter_t  v;

    if (rate->kind == MPOL_RATE_BUCKET) {
        level = mpol_bucket_level(c, rate, now);
        return (level != 0) ? mpol_counter_add(now, level) : 0;
    }

    if (rate->kind != MPOL_RATE_WINDOW) {
        return 0;
    }

    width = mpol_counter_width(rate);

    (void) mpol_window_view(c, width, now, &v);

    for (i = 0; i < MPOL_WINDOW_SLOTS && i <= v.newest; i++) {
        if (v.slot[(v.newest - i) % MPOL_WINDOW_SLOTS] != 0) {
            return (v.newest - i + MPOL_WINDOW_SLOTS) * width;
        }
    }

    return 0;
}


uint64_t
mpol_counter_width(const mpol_rate_t *rate)
{
    return rate->period / MPOL_WINDOW_WHOLE;
}


static uint64_t
mpol_counter_add(uint64_t a, uint64_t b)
{
    return (a > MPOL_NEVER || b > MPOL_NEVER - a) ? MPOL_NEVER : a + b;
}


/*
 * *v is the counter as it counts at now, in slots of the width given;
 * 1 if something had to be moved from the future to the present slot.
 */

static int
mpol_window_view(const mpol_counter_t *c, uint64_t width, uint64_t now,
    mpol_counter_t *v)
{
    int        moved;
    uint64_t   i, k, n;
    uint64_t  *slot;

    moved = 0;

    memset(v, 0, sizeof(mpol_counter_t));

    v->width = width;
    v->newest = now / width;

    if (c->width == 0) {
        return 0;
    }

    if (c->width == width && c->newest <= v->newest) {
        mpol_window_copy(c, v);
        return 0;
    }

    i = (c->newest > MPOL_WINDOW_WHOLE) ? c->newest - MPOL_WINDOW_WHOLE : 0;

    for ( /* void */ ; i <= c->newest; i++) {
        n = c->slot[i % MPOL_WINDOW_SLOTS];

        if (n == 0) {
            continue;
        }

        k = (c->width == width) ? i : ((i + 1) * c->width - 1) / width;

        if (k > v->newest) {
            k = v->newest;
            moved = 1;
        }

        if (k + MPOL_WINDOW_WHOLE >= v->newest) {
            slot = &v->slot[k % MPOL_WINDOW_SLOTS];
            *slot = mpol_counter_add(*slot, n);
        }
    }

    return moved;
}


/* the usual case: nothing moves, but what has been released */

static void
mpol_window_copy(const mpol_counter_t *c, mpol_counter_t *v)
{
    uint64_t  i, n;

    if (c->newest + MPOL_WINDOW_WHOLE < v->newest) {
        return;
    }

    memcpy(v->slot, c->slot, sizeof(v->slot));

    /* the places of the slots that have come since */

    n = v->newest - c->newest;

    for (i = 1; i <= n; i++) {
        v->slot[(c->newest + i) % MPOL_WINDOW_SLOTS] = 0;
    }
}


/* when no more than so much of a view is left, which holds more than that */

static uint64_t
mpol_window_release(const mpol_counter_t *v, uint64_t left)
{
    uint64_t  i, sum;

    i = v->newest;
    sum = v->slot[i % MPOL_WINDOW_SLOTS];

    while (sum <= left && i != 0) {
        i--;
        sum = mpol_counter_add(sum, v->slot[i % MPOL_WINDOW_SLOTS]);
    }

    return (i + MPOL_WINDOW_SLOTS) * v->width;
}


static void
mpol_window_check(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n, mpol_decision_t *d)
{
    size_t          i;
    uint64_t        room;
    mpol_counter_t  v;

    if (mpol_window_view(c, mpol_counter_width(rate), now, &v)) {
        *c = v;
    }

    d->used = 0;

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {
        d->used = mpol_counter_add(d->used, v.slot[i]);
    }

    room = (d->used < rate->count) ? rate->count - d->used : 0;

    d->remaining = room;
    d->fits = (n <= room);

    if (d->fits) {
        d->retry = 0;

    } else if (n > rate->count) {
        d->retry = MPOL_NEVER;

    } else {
        d->retry = mpol_window_release(&v, rate->count - n) - now;
    }
}


/*
 * In the width that the counter has now, whatever the rate was: to convert
 * a window of a day to one of an hour would release what still counts.
 */

static void
mpol_window_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n)
{
    uint64_t         k, width;
    uint64_t        *slot;
    mpol_counter_t   v;

    if (c->width == 0) {
        return;
    }

    (void) mpol_window_view(c, c->width, now, &v);

    width = mpol_counter_width(rate);
    k = at / width;

    if (c->width != width) {
        k = ((k + 1) * width - 1) / c->width;
    }

    if (k > v.newest) {
        k = v.newest;
    }

    slot = &v.slot[k % MPOL_WINDOW_SLOTS];

    if (k + MPOL_WINDOW_WHOLE < v.newest || *slot == 0) {
        return;
    }

    *slot -= (n < *slot) ? n : *slot;

    *c = v;
}


static uint64_t
mpol_bucket_level(const mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now)
{
    uint64_t  depth, level;

    if (c->width != 0 || c->tat <= now) {
        return 0;
    }

    depth = mpol_rate_cost(rate, rate->burst);
    level = c->tat - now;

    return (level < depth) ? level : depth;
}


static void
mpol_bucket_check(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t n, mpol_decision_t *d)
{
    uint64_t  cost, depth, level;

    cost = mpol_rate_cost(rate, n);
    depth = mpol_rate_cost(rate, rate->burst);
    level = mpol_bucket_level(c, rate, now);

    if (level == depth) {
        c->tat = now + depth;
    }

    d->used = mpol_rate_muldiv(level, rate->count, rate->period);

    if (d->used > rate->burst) {
        d->used = rate->burst;
    }

    d->remaining = rate->burst - d->used;
    d->fits = (n <= rate->burst && cost <= depth - level);

    if (d->fits) {
        d->retry = 0;

    } else if (n > rate->burst) {
        d->retry = MPOL_NEVER;

    } else {
        d->retry = cost - (depth - level);
    }
}


static void
mpol_bucket_charge(mpol_counter_t *c, const mpol_rate_t *rate, uint64_t now,
    uint64_t n)
{
    uint64_t  tat;

    tat = mpol_counter_add(now, mpol_bucket_level(c, rate, now));
    tat = mpol_counter_add(tat, mpol_rate_cost(rate, n));

    memset(c, 0, sizeof(mpol_counter_t));

    c->tat = tat;
}


static void
mpol_bucket_give_back(mpol_counter_t *c, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n)
{
    uint64_t  back, end;

    /* the last of it has drained at the latest a full bucket later */

    end = mpol_counter_add(at, mpol_rate_cost(rate, rate->burst));

    if (c->width != 0 || c->tat <= now || end <= now) {
        return;
    }

    back = mpol_rate_cost(rate, n);

    if (back > end - now) {
        back = end - now;
    }

    c->tat = (back < c->tat - now) ? c->tat - back : 0;
}
