
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_local.h"


#define MPOL_LOCAL_COUNT_MAX   ((uint64_t) 1 << 40)
#define MPOL_LOCAL_PERIOD_MAX  ((uint64_t) 1 << 45)


static void mpol_learned_window(const mpol_learned_t *learned,
    mpol_counter_t *c);
static uint64_t mpol_learned_tat(const mpol_learned_t *learned);
static int mpol_learned_settle(mpol_learned_t *learned,
    const mpol_rate_t *rate, uint64_t now);
static uint64_t mpol_local_cost(const mpol_local_t *l, uint64_t now);
static void mpol_local_raise(mpol_local_t *l, uint64_t tat, uint64_t now,
    uint64_t cost);
static uint64_t mpol_local_sum(const mpol_counter_t *c);
static uint8_t *mpol_local_digits(uint8_t *p, uint64_t n);
static size_t mpol_local_window_text(const mpol_local_t *l, uint64_t now,
    uint8_t *out);
static size_t mpol_local_bucket_text(const mpol_local_t *l, uint64_t now,
    uint8_t *out);


static const uint8_t  mpol_local_from[] = { 'c', '*', 'p', '@', 'k' };


int
mpol_local_rate_valid(const mpol_rate_t *rate)
{
    switch (rate->kind) {

    case MPOL_RATE_NONE:
    case MPOL_RATE_UNLIMITED:
    case MPOL_RATE_BLOCKED:
        return 1;

    case MPOL_RATE_BUCKET:
        if (rate->burst == 0 || rate->burst > MPOL_LOCAL_COUNT_MAX) {
            return 0;
        }

        break;

    case MPOL_RATE_WINDOW:
        break;

    default:
        return 0;
    }

    return rate->count != 0
           && rate->count <= MPOL_LOCAL_COUNT_MAX
           && mpol_counter_width(rate) != 0
           && rate->period <= MPOL_LOCAL_PERIOD_MAX;
}


void
mpol_learned_rate(const mpol_learned_t *learned, mpol_rate_t *rate,
    unsigned *from)
{
    if (learned->rate.kind != MPOL_RATE_NONE && learned->from > *from) {
        *rate = learned->rate;
        *from = learned->from;
    }
}


void
mpol_local_view(const mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    mpol_counter_t *c)
{
    mpol_counter_t  learned;

    if (rate->kind == MPOL_RATE_WINDOW) {
        mpol_learned_window(&l->learned, &learned);

        *c = l->counter;
        mpol_counter_merge(c, &learned, mpol_counter_width(rate), now);

        return;
    }

    memset(c, 0, sizeof(mpol_counter_t));

    if (rate->kind == MPOL_RATE_BUCKET) {
        learned.tat = mpol_learned_tat(&l->learned);

        /* a window has none */
        c->tat = (l->counter.tat > learned.tat) ? l->counter.tat
                                                : learned.tat;
    }
}


int
mpol_local_check(mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    uint64_t n, mpol_decision_t *d)
{
    int             moved, settled;
    mpol_counter_t  c;

    moved = mpol_learned_settle(&l->learned, rate, now);
    settled = mpol_counter_settle(&l->counter, rate, now);

    mpol_local_view(l, rate, now, &c);
    mpol_counter_check(&c, rate, now, n, d);

    return moved || settled;
}


void
mpol_local_charge(mpol_local_t *l, const mpol_rate_t *rate, unsigned from,
    uint64_t now, uint64_t n)
{
    mpol_counter_t  c;

    if (n == 0) {
        return;
    }

    if (rate->kind == MPOL_RATE_WINDOW) {
        mpol_counter_charge(&l->counter, rate, now, n);

    } else if (rate->kind == MPOL_RATE_BUCKET) {
        mpol_local_view(l, rate, now, &c);
        mpol_counter_charge(&c, rate, now, n);
        l->counter = c;

    } else {
        return;
    }

    l->rate = *rate;
    l->from = (from < MPOL_FROM_MAX) ? from : MPOL_FROM_MAX;
}


void
mpol_local_give_back(mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    uint64_t at, uint64_t n)
{
    mpol_counter_give_back(&l->counter, rate, now, at, n);
    mpol_local_tidy(l, now);
}


void
mpol_local_tidy(mpol_local_t *l, uint64_t now)
{
    if (!mpol_local_waits(l, now)) {
        memset(&l->counter, 0, sizeof(mpol_counter_t));
        memset(&l->rate, 0, sizeof(mpol_rate_t));
        l->from = 0;
    }

    if (mpol_local_expires(l, now) == 0 && l->learned.from == 0) {
        memset(&l->learned, 0, sizeof(mpol_learned_t));
    }
}


void
mpol_local_learn(mpol_local_t *l, const mpol_rate_t *rate, unsigned from,
    uint64_t now, uint64_t used)
{
    uint64_t  cost, depth;

    /* what was charged here is in addition to that, too */
    cost = mpol_local_cost(l, now);

    memset(&l->learned, 0, sizeof(mpol_learned_t));

    if (rate->kind != MPOL_RATE_NONE && mpol_local_rate_valid(rate)) {
        l->learned.rate = *rate;
        l->learned.from = (from < MPOL_FROM_MAX) ? from : MPOL_FROM_MAX;
        l->learned.at = now;
        l->learned.used = used;
    }

    if (rate->kind == MPOL_RATE_BUCKET) {
        used = mpol_rate_cost(rate, used);
        depth = mpol_rate_cost(rate, rate->burst);

        l->learned.used = (used < depth) ? used : depth;
    }

    mpol_local_raise(l, mpol_learned_tat(&l->learned), now, cost);
}


void
mpol_local_unlearn(mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    uint64_t at, uint64_t n)
{
    uint64_t  cost, end, tat;

    if (rate->kind != l->learned.rate.kind) {
        return;
    }

    if (rate->kind == MPOL_RATE_WINDOW) {
        l->learned.used -= (n < l->learned.used) ? n : l->learned.used;
        return;
    }

    tat = mpol_learned_tat(&l->learned);
    end = at + mpol_rate_cost(rate, rate->burst);

    if (rate->kind != MPOL_RATE_BUCKET || tat <= now || end <= now) {
        return;
    }

    n = mpol_rate_cost(rate, n);
    n = (n < end - now) ? n : end - now;
    n = (n < tat - now) ? n : tat - now;

    cost = mpol_local_cost(l, now);

    l->learned.used -= (n < l->learned.used) ? n : l->learned.used;

    if (cost != 0) {
        l->counter.tat -= n;
    }
}


int
mpol_local_waits(const mpol_local_t *l, uint64_t now)
{
    if (l->counter.width != 0) {
        return mpol_counter_expires(&l->counter, &l->rate, now) != 0;
    }

    return mpol_local_cost(l, now) != 0;
}


uint64_t
mpol_local_expires(const mpol_local_t *l, uint64_t now)
{
    uint64_t        expires, end;
    mpol_counter_t  learned;

    expires = l->counter.tat;

    if (l->counter.width != 0) {
        expires = mpol_counter_expires(&l->counter, &l->rate, now);
    }

    end = mpol_learned_tat(&l->learned);

    if (l->learned.rate.kind == MPOL_RATE_WINDOW) {
        mpol_learned_window(&l->learned, &learned);
        end = mpol_counter_expires(&learned, &l->learned.rate, now);
    }

    if (end > expires) {
        expires = end;
    }

    return (expires > now) ? expires : 0;
}


size_t
mpol_local_text(const mpol_local_t *l, uint64_t now, uint8_t *out)
{
    return (l->counter.width != 0) ? mpol_local_window_text(l, now, out)
                                   : mpol_local_bucket_text(l, now, out);
}


void
mpol_local_told(mpol_local_t *l, uint64_t now)
{
    uint64_t        used;
    mpol_counter_t  c;

    if (!mpol_local_waits(l, now)) {
        return;
    }

    mpol_local_view(l, &l->rate, now, &c);

    used = (c.width != 0) ? mpol_local_sum(&c) : c.tat - now;

    l->learned.rate = l->rate;
    l->learned.from = l->from;
    l->learned.at = now;
    l->learned.used = used;

    memset(&l->counter, 0, sizeof(mpol_counter_t));
    memset(&l->rate, 0, sizeof(mpol_rate_t));
    l->from = 0;
}


void
mpol_local_untold(mpol_local_t *l, const mpol_local_t *told, uint64_t at,
    uint64_t now)
{
    uint64_t        cost;
    mpol_counter_t  c;

    if (!mpol_local_waits(told, at)) {
        return;
    }

    if (l->learned.rate.kind != MPOL_RATE_NONE && l->learned.at == at) {
        cost = mpol_local_cost(l, now);
        l->learned = told->learned;

        mpol_local_raise(l, mpol_learned_tat(&l->learned), now, cost);
    }

    /* what was charged meanwhile is of the kind that is in force now */

    if (l->rate.kind != MPOL_RATE_NONE && l->rate.kind != told->rate.kind) {
        return;
    }

    if (l->rate.kind == MPOL_RATE_NONE) {
        l->rate = told->rate;
        l->from = told->from;
    }

    if (l->rate.kind == MPOL_RATE_WINDOW) {
        mpol_counter_merge(&l->counter, &told->counter,
                           mpol_counter_width(&l->rate), now);
        return;
    }

    mpol_local_view(l, &l->rate, now, &c);
    mpol_local_raise(l, c.tat, now, mpol_local_cost(told, now));
}


static void
mpol_learned_window(const mpol_learned_t *learned, mpol_counter_t *c)
{
    memset(c, 0, sizeof(mpol_counter_t));

    if (learned->rate.kind == MPOL_RATE_WINDOW && learned->used != 0) {
        c->width = mpol_counter_width(&learned->rate);
        c->newest = learned->at / c->width;
        c->slot[c->newest % MPOL_WINDOW_SLOTS] = learned->used;
    }
}


/* when a bucket has drained of which nothing was charged here; or 0 */

static uint64_t
mpol_learned_tat(const mpol_learned_t *learned)
{
    return (learned->rate.kind == MPOL_RATE_BUCKET)
           ? learned->at + learned->used : 0;
}


static int
mpol_learned_settle(mpol_learned_t *learned, const mpol_rate_t *rate,
    uint64_t now)
{
    int       moved;
    uint64_t  depth;

    moved = 0;

    if (learned->at > now) {
        learned->at = now;
        moved = 1;
    }

    if (rate->kind != MPOL_RATE_BUCKET) {
        return moved;
    }

    depth = mpol_rate_cost(rate, rate->burst);

    if (mpol_learned_tat(learned) > now + depth) {
        learned->at = now;
        learned->used = depth;
        moved = 1;
    }

    return moved;
}


/* how far a bucket's local part raises its level; 0 if there is none */

static uint64_t
mpol_local_cost(const mpol_local_t *l, uint64_t now)
{
    uint64_t  level;

    if (l->counter.width != 0) {
        return 0;
    }

    level = mpol_learned_tat(&l->learned);

    if (level < now) {
        level = now;
    }

    return (l->counter.tat > level) ? l->counter.tat - level : 0;
}


/* the local part raises a bucket's level so far, if it raises it at all */

static void
mpol_local_raise(mpol_local_t *l, uint64_t tat, uint64_t now, uint64_t cost)
{
    if (cost == 0) {
        return;
    }

    if (tat < now) {
        tat = now;
    }

    l->counter.tat = (cost < MPOL_NEVER - tat) ? tat + cost : MPOL_NEVER;
}


static uint64_t
mpol_local_sum(const mpol_counter_t *c)
{
    size_t    i;
    uint64_t  sum;

    sum = 0;

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {
        sum += c->slot[i];
    }

    return (sum < MPOL_NEVER) ? sum : MPOL_NEVER;
}


static uint8_t *
mpol_local_digits(uint8_t *p, uint64_t n)
{
    size_t   len;
    uint8_t  digits[20];

    len = 0;

    do {
        digits[len++] = (uint8_t) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    while (len != 0) {
        *p++ = digits[--len];
    }

    return p;
}


static size_t
mpol_local_window_text(const mpol_local_t *l, uint64_t now, uint8_t *out)
{
    uint8_t         *p;
    uint64_t         i, n, last;
    mpol_counter_t   c, none;

    memset(&none, 0, sizeof(mpol_counter_t));

    /* as it counts at now */
    c = l->counter;
    mpol_counter_merge(&c, &none, c.width, now);

    p = out;
    *p++ = 'w';
    *p++ = ' ';
    p = mpol_local_digits(p, c.width);
    *p++ = ' ';
    p = mpol_local_digits(p, l->rate.count);
    *p++ = ' ';
    *p++ = mpol_local_from[l->from];

    i = (c.newest < MPOL_WINDOW_SLOTS) ? 0 : c.newest - MPOL_WINDOW_SLOTS + 1;
    last = 0;
    n = 0;

    for ( /* void */ ; i <= c.newest; i++) {

        if (c.slot[i % MPOL_WINDOW_SLOTS] == 0) {
            continue;
        }

        n = c.slot[i % MPOL_WINDOW_SLOTS];

        *p++ = ' ';
        p = mpol_local_digits(p, i - last);
        *p++ = ':';
        p = mpol_local_digits(p, n);

        last = i;
    }

    return (n != 0) ? (size_t) (p - out) : 0;
}


static size_t
mpol_local_bucket_text(const mpol_local_t *l, uint64_t now, uint8_t *out)
{
    size_t    i;
    uint8_t  *p;
    uint64_t  numbers[4];

    numbers[0] = mpol_local_cost(l, now);
    numbers[1] = l->rate.count;
    numbers[2] = l->rate.period;
    numbers[3] = l->rate.burst;

    if (numbers[0] == 0) {
        return 0;
    }

    p = out;
    *p++ = 'b';

    for (i = 0; i < 4; i++) {
        *p++ = ' ';
        p = mpol_local_digits(p, numbers[i]);
    }

    *p++ = ' ';
    *p++ = mpol_local_from[l->from];

    return (size_t) (p - out);
}
