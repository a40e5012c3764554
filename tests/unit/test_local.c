
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counters in two parts, compared with one counter that knows it all.
 */


#include "mpol_local.h"
#include "tap.h"


#define ROUNDS  300
#define STEPS   200


static uint64_t  seed = 88172645463325252;

static const mpol_rate_t  window = { MPOL_RATE_WINDOW, 10, 64000000, 0 };
static const mpol_rate_t  bucket = { MPOL_RATE_BUCKET, 10, 10000000, 5 };


static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


static mpol_decision_t
judge(const mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    uint64_t n)
{
    mpol_local_t     copy;
    mpol_decision_t  d;

    copy = *l;
    (void) mpol_local_check(&copy, rate, now, n, &d);

    return d;
}


static uint64_t
used(const mpol_local_t *l, const mpol_rate_t *rate, uint64_t now)
{
    return judge(l, rate, now, 0).used;
}


static int
same(const mpol_decision_t *a, const mpol_decision_t *b)
{
    return a->used == b->used && a->remaining == b->remaining
           && a->retry == b->retry && a->fits == b->fits;
}


static void
is_text(const mpol_local_t *l, uint64_t now, const char *want,
    const char *name)
{
    size_t   len;
    uint8_t  text[MPOL_LOCAL_TEXT];

    len = mpol_local_text(l, now, text);
    is_mem(text, len, want, strlen(want), "%s", name);
}


static void
random_rate(mpol_rate_t *rate, mpol_rate_kind_e kind)
{
    rate->kind = kind;
    rate->period = (uint64_t[]) { 1000000, 64000000, 3600000000 }[below(3)];
    rate->count = 1 + below(below(2) ? 10 : 10000);
    rate->burst = (kind == MPOL_RATE_BUCKET) ? 1 + below(20) : 0;
}


static uint64_t
random_step(const mpol_rate_t *rate)
{
    switch (below(4)) {
    case 0:
        return 0;
    case 1:
        return below(rate->period / 64 * 3);
    case 2:
        return below(rate->period);
    default:
        return 1000;
    }
}


/*
 * Of which nothing was learned: as any counter.  One forgets when it gives
 * back what the other might count again if the clock goes back.
 */

static void
test_alone(mpol_rate_kind_e kind, unsigned back)
{
    int              right;
    uint64_t         now, at, n, charged;
    unsigned         round, step;
    mpol_rate_t      rate;
    mpol_local_t     l;
    mpol_counter_t   c;
    mpol_decision_t  d, e;

    right = 1;

    for (round = 0; round < ROUNDS && right; round++) {
        memset(&l, 0, sizeof(l));
        memset(&c, 0, sizeof(c));
        random_rate(&rate, kind);
        now = 1754006400000000 + below(rate.period);
        at = 0;
        charged = 0;

        for (step = 0; step < STEPS && right; step++) {
            now += random_step(&rate);

            if (back && below(30) == 0) {
                now -= below(2 * rate.period);
            }

            if (!back && charged && below(6) == 0) {
                mpol_local_give_back(&l, &rate, now, at, charged);
                mpol_counter_give_back(&c, &rate, now, at, charged);
                charged = 0;
                continue;
            }

            n = 1 + below(4);

            (void) mpol_local_check(&l, &rate, now, n, &d);
            mpol_counter_check(&c, &rate, now, n, &e);

            right = same(&d, &e);

            if (d.fits) {
                mpol_local_charge(&l, &rate, 0, now, n);
                mpol_counter_charge(&c, &rate, now, n);
                at = now;
                charged = n;
            }

            right = right && mpol_local_expires(&l, now)
                             == mpol_counter_expires(&c, &rate, now);
        }
    }

    ok(right, "nothing learned, kind %u%s: round %u, step %u",
       (unsigned) kind, back ? ", clock goes back" : ", give back", round,
       right ? 0 : step);
}


/* adds to the other store's counter what it is told, as merge.lua does */

static void
deliver(mpol_counter_t *c, const mpol_rate_t *rate, const mpol_local_t *l,
    uint64_t now)
{
    char            *p;
    size_t           len;
    uint64_t         slot, cost;
    uint8_t          text[MPOL_LOCAL_TEXT + 1];
    mpol_counter_t   told;

    len = mpol_local_text(l, now, text);
    text[len] = '\0';

    if (len == 0) {
        return;
    }

    p = (char *) text + 2;

    if (text[0] == 'b') {
        cost = strtoull(p, &p, 10);
        c->tat = (c->tat > now ? c->tat : now) + cost;
        return;
    }

    memset(&told, 0, sizeof(told));

    told.width = strtoull(p, &p, 10);
    (void) strtoull(p, &p, 10);
    p += 2;

    for (slot = 0; *p == ' '; /* void */ ) {
        slot += strtoull(p, &p, 10);
        told.slot[slot % MPOL_WINDOW_SLOTS] = strtoull(p + 1, &p, 10);
    }

    told.newest = slot;

    mpol_counter_merge(c, &told, rate->period / 64, now);
}


/*
 * Redis counts, is away, counts again: what is judged meanwhile is never less
 * than what was charged by either, and Redis has it all in the end.
 */

static void
test_away(mpol_rate_kind_e kind)
{
    int              right, away;
    uint64_t         now, n;
    unsigned         round, step;
    mpol_rate_t      rate;
    mpol_local_t     l, before;
    mpol_counter_t   redis, all;
    mpol_decision_t  d, e;

    right = 1;

    for (round = 0; round < ROUNDS && right; round++) {
        memset(&l, 0, sizeof(l));
        memset(&redis, 0, sizeof(redis));
        memset(&all, 0, sizeof(all));
        random_rate(&rate, kind);
        now = 1754006400000000 + below(rate.period);
        away = 0;

        for (step = 0; step < STEPS && right; step++) {
            now += random_step(&rate);
            n = 1 + below(3);

            if (below(10) == 0) {
                away = !away;

                if (!away) {
                    before = l;
                    deliver(&redis, &rate, &l, now);
                    mpol_local_told(&l, now);
                    right = !mpol_local_waits(&l, now)
                            && used(&l, &rate, now)
                               >= used(&before, &rate, now);

                    mpol_counter_check(&redis, &rate, now, 0, &d);
                    mpol_counter_check(&all, &rate, now, 0, &e);
                    right = right && d.used >= e.used
                            && (kind == MPOL_RATE_BUCKET || d.used == e.used);
                }
            }

            if (!away) {
                mpol_counter_check(&redis, &rate, now, n, &d);

                if (d.fits) {
                    mpol_counter_charge(&redis, &rate, now, n);
                    mpol_counter_charge(&all, &rate, now, n);
                    d.used += n;
                }

                mpol_local_learn(&l, &rate, 0, now, d.used);
                continue;
            }

            (void) mpol_local_check(&l, &rate, now, n, &d);

            if (d.fits) {
                mpol_local_charge(&l, &rate, 0, now, n);
                mpol_counter_charge(&all, &rate, now, n);
            }

            mpol_counter_check(&all, &rate, now, 0, &e);

            right = used(&l, &rate, now) >= e.used
                    && (kind == MPOL_RATE_BUCKET || e.used <= rate.count);
        }
    }

    ok(right, "away, kind %u: round %u, step %u", (unsigned) kind, round,
       right ? 0 : step);
}


/* what could not be delivered is there again */

static void
test_untold(mpol_rate_kind_e kind)
{
    int              right;
    uint64_t         now, at, n;
    unsigned         round, step;
    mpol_rate_t      rate;
    mpol_local_t     l, told, twin;
    mpol_decision_t  d, e;

    right = 1;

    for (round = 0; round < ROUNDS && right; round++) {
        memset(&l, 0, sizeof(l));
        random_rate(&rate, kind);
        now = 1754006400000000 + below(rate.period);

        if (below(2)) {
            mpol_local_learn(&l, &rate, 2, now, below(rate.count));
        }

        for (step = 0; step < 20; step++) {
            now += random_step(&rate) / 4;
            n = 1 + below(3);

            if (judge(&l, &rate, now, n).fits) {
                mpol_local_charge(&l, &rate, 2, now, n);
            }
        }

        twin = l;
        told = l;
        at = now;

        mpol_local_told(&l, at);

        now += 1000;

        if (judge(&l, &rate, now, 1).fits) {
            mpol_local_charge(&l, &rate, 2, now, 1);
            mpol_local_charge(&twin, &rate, 2, now, 1);
        }

        mpol_local_untold(&l, &told, at, now);

        for (step = 0; step < 10 && right; step++) {
            now += random_step(&rate);

            d = judge(&l, &rate, now, 1);
            e = judge(&twin, &rate, now, 1);
            right = same(&d, &e)
                    && mpol_local_waits(&l, now)
                       == mpol_local_waits(&twin, now);
        }
    }

    ok(right, "untold, kind %u: round %u, step %u (%llu, not %llu)",
       (unsigned) kind, round, right ? 0 : step, (unsigned long long) d.used,
       (unsigned long long) e.used);
}


static void
test_window(void)
{
    mpol_local_t     l, told;
    mpol_decision_t  d;

    memset(&l, 0, sizeof(l));

    is_text(&l, 100, "", "nothing to tell");

    mpol_local_learn(&l, &window, 0, 5500000, 7);
    is_text(&l, 5500000, "", "what is learned is not told");
    ok(!mpol_local_waits(&l, 5500000), "nor does it wait");
    is_u64(mpol_local_expires(&l, 5500000), 70000000, "it counts until then");

    (void) mpol_local_check(&l, &window, 6000000, 4, &d);
    ok(!d.fits && d.used == 7 && d.retry == 64000000,
       "seven of ten: four do not fit");
    (void) mpol_local_check(&l, &window, 6000000, 3, &d);
    ok(d.fits, "three do");

    mpol_local_charge(&l, &window, 0, 6000000, 2);
    mpol_local_charge(&l, &window, 0, 9999999, 1);
    is_text(&l, 9999999, "w 1000000 10 c 6:2 3:1", "what is told");
    ok(mpol_local_waits(&l, 9999999), "it waits");

    (void) mpol_local_check(&l, &window, 70000000, 7, &d);
    ok(d.fits && d.used == 3, "the learned part is released");
    is_text(&l, 71000000, "w 1000000 10 c 9:1", "what counts no more is not");
    ok(!mpol_local_waits(&l, 74000000), "when nothing does, it waits no more");

    told = l;
    mpol_local_told(&l, 10000000);
    ok(!mpol_local_waits(&l, 10000000), "told");
    is_u64(used(&l, &window, 10000000), 10, "but it counts");
    mpol_local_learn(&l, &window, 0, 11000000, 10);
    is_u64(used(&l, &window, 11000000), 10, "and not twice");
    mpol_local_untold(&l, &told, 10000000, 12000000);
    is_u64(used(&l, &window, 12000000), 13, "untold, after more was learned");

    mpol_local_unlearn(&l, &window, 12000000, 11000000, 4);
    is_u64(used(&l, &window, 12000000), 9, "four were given back in Redis");
    mpol_local_unlearn(&l, &window, 12000000, 11000000, 40);
    is_u64(used(&l, &window, 12000000), 3, "and no more than there was");

    mpol_local_give_back(&l, &window, 12000000, 6000000, 2);
    is_text(&l, 12000000, "w 1000000 10 c 9:1", "two are given back here");
    mpol_local_give_back(&l, &window, 12000000, 9999999, 1);
    ok(!mpol_local_waits(&l, 12000000), "and the last: nothing waits");

    /* the clock goes back by a day */

    memset(&l, 0, sizeof(l));
    mpol_local_learn(&l, &window, 0, 86400000000, 10);
    ok(mpol_local_check(&l, &window, 1000000, 1, &d) == 1 && !d.fits
       && d.retry == 65000000, "learned in the future: as if it was now");
    ok(mpol_local_check(&l, &window, 66000000, 1, &d) == 0 && d.fits,
       "and until then");
}


static void
test_bucket(void)
{
    mpol_local_t     l;
    mpol_rate_t      small;
    mpol_decision_t  d;

    memset(&l, 0, sizeof(l));

    mpol_local_learn(&l, &bucket, 3, 1000000, 3);
    (void) mpol_local_check(&l, &bucket, 1000000, 3, &d);
    ok(!d.fits && d.used == 3 && d.retry == 1000000, "a bucket's level");
    is_text(&l, 1000000, "", "is not told");

    mpol_local_charge(&l, &bucket, 3, 1500000, 2);
    is_u64(used(&l, &bucket, 1500000), 5, "both parts");
    is_text(&l, 1500000, "b 2000000 10 10000000 5 @", "what is told");
    is_text(&l, 4000000, "b 2000000 10 10000000 5 @",
            "as much while the learned part drains");
    is_text(&l, 5000000, "b 1000000 10 10000000 5 @", "then less");
    is_text(&l, 6000000, "", "then nothing");
    ok(!mpol_local_waits(&l, 6000000), "and nothing waits");

    mpol_local_learn(&l, &bucket, 0, 2000000, 5);
    is_u64(mpol_local_expires(&l, 2000000), 9000000,
           "learned anew: the local part is in addition to that");

    mpol_local_give_back(&l, &bucket, 2000000, 1500000, 2);
    is_u64(mpol_local_expires(&l, 2000000), 7000000, "given back");
    is_text(&l, 2000000, "", "given back: nothing is told");

    mpol_local_learn(&l, &bucket, 0, 3000000, 50);
    is_u64(mpol_local_expires(&l, 3000000), 8000000, "no fuller than full");

    mpol_local_unlearn(&l, &bucket, 3000000, 3000000, 2);
    is_u64(mpol_local_expires(&l, 3000000), 6000000, "given back in Redis");

    /* learned with a deeper one than is in force */

    small = bucket;
    small.burst = 1;

    ok(mpol_local_check(&l, &small, 3000000, 1, &d) == 1 && !d.fits
       && d.retry == 1000000, "a smaller bucket is full");
    ok(mpol_local_check(&l, &small, 4000000, 1, &d) == 0 && d.fits,
       "and drains from then on");

    /* what was drained before it was learned is no local part */

    memset(&l, 0, sizeof(l));
    mpol_local_charge(&l, &bucket, 0, 1000000, 1);
    mpol_local_learn(&l, &bucket, 0, 3000000, 2);
    is_u64(used(&l, &bucket, 3000000), 2, "an old local part hides nothing");
}


static void
test_rates(void)
{
    size_t          i;
    unsigned        from;
    mpol_rate_t     rate;
    mpol_local_t    l;

    static const struct {
        unsigned    learned;
        unsigned    given;
        int         replaced;
    } places[] = {
        { 0, 0, 0 }, { 1, 0, 1 }, { 4, 0, 1 }, { 4, 3, 1 }, { 3, 3, 0 },
        { 2, 3, 0 }, { 0, 4, 0 },
    };

    static const struct {
        mpol_rate_t  rate;
        int          valid;
    } rates[] = {
        { { MPOL_RATE_NONE, 0, 0, 0 }, 1 },
        { { MPOL_RATE_BLOCKED, 0, 0, 0 }, 1 },
        { { MPOL_RATE_WINDOW, 1, 64, 0 }, 1 },
        { { MPOL_RATE_WINDOW, 1, 63, 0 }, 0 },
        { { MPOL_RATE_WINDOW, 0, 1000000, 0 }, 0 },
        { { MPOL_RATE_WINDOW, ((uint64_t) 1 << 40) + 1, 1000000, 0 }, 0 },
        { { MPOL_RATE_WINDOW, 1, ((uint64_t) 1 << 45) + 1, 0 }, 0 },
        { { MPOL_RATE_BUCKET, 1, 1000000, 0 }, 0 },
        { { MPOL_RATE_BUCKET, 1, 1000000, ((uint64_t) 1 << 40) + 1 }, 0 },
        { { MPOL_RATE_BUCKET, 1, 1000000, 1 }, 1 },
    };

    for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        memset(&l, 0, sizeof(l));
        mpol_local_learn(&l, &bucket, places[i].learned, 0, 1);

        rate = window;
        from = places[i].given;
        mpol_learned_rate(&l.learned, &rate, &from);

        ok((rate.kind == MPOL_RATE_BUCKET) == places[i].replaced
           && from == places[i].learned * (unsigned) places[i].replaced
                      + places[i].given * !places[i].replaced,
           "learned from %u, given from %u", places[i].learned,
           places[i].given);
    }

    for (i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        ok(mpol_local_rate_valid(&rates[i].rate) == rates[i].valid,
           "rate %u: valid or not", (unsigned) i);
    }

    memset(&l, 0, sizeof(l));
    mpol_local_learn(&l, &rates[3].rate, 4, 0, 1);
    ok(l.learned.rate.kind == MPOL_RATE_NONE, "no such rate is learned");

    mpol_local_learn(&l, &window, 4, 0, 1);
    mpol_local_tidy(&l, 100000000);
    ok(l.learned.rate.kind == MPOL_RATE_WINDOW,
       "a rate of its own entry is not forgotten when nothing is used");

    mpol_local_learn(&l, &rates[0].rate, 0, 0, 0);
    ok(l.learned.rate.kind == MPOL_RATE_NONE, "but when there is none");

    mpol_local_learn(&l, &window, 0, 0, 1);
    mpol_local_tidy(&l, 100000000);
    ok(l.learned.rate.kind == MPOL_RATE_NONE, "nor the configuration's own");
}


/* windows were learned, buckets are in force now, and the other way round */

static void
test_kinds(void)
{
    mpol_local_t     l, told;
    mpol_rate_t      other;
    mpol_decision_t  d;

    memset(&l, 0, sizeof(l));
    mpol_local_learn(&l, &window, 0, 1000000, 10);

    (void) mpol_local_check(&l, &bucket, 1000000, 5, &d);
    ok(d.fits && d.used == 0, "a bucket finds a window empty");
    mpol_local_unlearn(&l, &bucket, 1000000, 1000000, 5);
    is_u64(l.learned.used, 10, "a bucket takes nothing from a window");

    mpol_local_charge(&l, &bucket, 0, 1000000, 5);
    is_text(&l, 1000000, "b 5000000 10 10000000 5 c", "and is told alone");

    told = l;
    mpol_local_told(&l, 1000000);
    mpol_local_charge(&l, &window, 0, 1000000, 1);
    mpol_local_untold(&l, &told, 1000000, 1000000);
    is_text(&l, 1000000, "w 1000000 10 c 1:1",
            "what was told as a bucket is not put back to a window");

    memset(&l, 0, sizeof(l));
    mpol_local_learn(&l, &bucket, 0, 1000000, 5);
    (void) mpol_local_check(&l, &window, 1000000, 10, &d);
    ok(d.fits && d.used == 0, "a window finds a bucket empty");
    mpol_local_unlearn(&l, &bucket, 9000000, 1000000, 5);
    is_u64(l.learned.used, 5000000, "what has drained is not given back");

    memset(&other, 0, sizeof(other));
    other.kind = (mpol_rate_kind_e) 7;
    ok(!mpol_local_rate_valid(&other), "no kind at all");
    mpol_local_charge(&l, &other, 0, 1000000, 1);
    ok(!mpol_local_waits(&l, 1000000), "is not charged");
}


/* the longest text there is */

static void
test_text(void)
{
    size_t        i, len;
    uint8_t      *text;
    mpol_rate_t   rate;
    mpol_local_t  l;

    text = malloc(MPOL_LOCAL_TEXT);
    if (text == NULL) {
        abort();
    }

    memset(&l, 0, sizeof(l));

    rate.kind = MPOL_RATE_WINDOW;
    rate.count = (uint64_t) 1 << 40;
    rate.period = (uint64_t) 1 << 45;
    rate.burst = 0;

    mpol_local_charge(&l, &rate, 9, MPOL_NEVER - 1, 1);

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {
        l.counter.slot[i] = MPOL_NEVER;
    }

    len = mpol_local_text(&l, MPOL_NEVER - 1, text);
    ok(len > 1000 && len <= MPOL_LOCAL_TEXT, "the longest text: %u",
       (unsigned) len);
    ok(l.from == MPOL_FROM_MAX, "no place is more specific than the last");

    free(text);
}


int
main(void)
{
    test_window();
    test_bucket();
    test_rates();
    test_kinds();
    test_text();

    test_alone(MPOL_RATE_WINDOW, 0);
    test_alone(MPOL_RATE_WINDOW, 1);
    test_alone(MPOL_RATE_BUCKET, 0);
    test_alone(MPOL_RATE_BUCKET, 1);
    test_away(MPOL_RATE_WINDOW);
    test_away(MPOL_RATE_BUCKET);
    test_untold(MPOL_RATE_WINDOW);
    test_untold(MPOL_RATE_BUCKET);

    return done_testing();
}
