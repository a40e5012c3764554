
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Usage: walk_counter seed steps.  Charges and gives back at random, and
 * writes down what came of it, in the form of tests/vectors/counters.txt, for
 * others to come to the same: t/store_vectors.t runs it against the scripts.
 */


#include <stdlib.h>
#include <string.h>

#include "counter_text.h"


#define LOG    8
#define ROUND  60                       /* steps from an empty counter */


typedef struct {
    mpol_rate_t  rate;
    uint64_t     at;
    uint64_t     n;
} passed_t;


typedef struct {
    mpol_counter_t  counter;
    mpol_rate_t     rate;
    mpol_rate_t     last;
    uint64_t        now;
    uint64_t        retry;              /* of the last answer */
    passed_t        log[LOG];
    size_t          nlog;
} walk_t;


static const char  *kinds[] = { "none", "window", "bucket", "unlimited",
                                "blocked" };

static uint64_t     seed;


static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


/* mostly small, rarely above 2^40 */

static uint64_t
number(void)
{
    return 1 + below((uint64_t) 1 << below(below(3) ? 12 : 41));
}


static void
show_rate(const mpol_rate_t *rate)
{
    printf("rate %s %llu %llu %llu\n", kinds[rate->kind],
           (unsigned long long) rate->count,
           (unsigned long long) rate->period,
           (unsigned long long) rate->burst);
}


static void
set_rate(walk_t *w)
{
    static const uint64_t  periods[] = { 1, 2, 7, 60, 64, 3600, 86400, 604800,
                                         366 * 86400 };

    memset(&w->rate, 0, sizeof(mpol_rate_t));

    switch (below(20)) {
    case 0:
        w->rate.kind = MPOL_RATE_NONE;
        break;
    case 1:
        w->rate.kind = MPOL_RATE_UNLIMITED;
        break;
    case 2:
        w->rate.kind = MPOL_RATE_BLOCKED;
        break;
    default:
        w->rate.kind = below(3) ? MPOL_RATE_WINDOW : MPOL_RATE_BUCKET;
        w->rate.count = number();
        w->rate.period = periods[below(9)] * 1000000;
    }

    if (w->rate.kind == MPOL_RATE_BUCKET) {
        w->rate.burst = number();

        while (mpol_rate_cost(&w->rate, w->rate.burst) > MPOL_NEVER / 2) {
            w->rate.burst = w->rate.burst / 2 + 1;
            w->rate.count *= 2;
        }
    }

    show_rate(&w->rate);
}


static void
move(walk_t *w)
{
    uint64_t  step, width;

    width = w->rate.period / 64 + 1;

    switch (below(9)) {
    case 0:
        step = 0;
        break;
    case 1:
        step = 1;
        break;
    case 2:
        step = width - 1 + below(3);
        break;
    case 3:
        step = w->retry < MPOL_NEVER / 4 ? w->retry : 1;
        break;
    case 4:
        step = w->retry < MPOL_NEVER / 4 && w->retry ? w->retry - 1 : 1;
        break;
    case 5:
        step = below(width * 80);
        break;
    default:
        step = below(width * 4);
    }

    w->now += step;

    if (below(40) == 0) {
        step = below(below(2) ? 1000 : width * 100);
        w->now -= step < w->now ? step : w->now;
    }
}


static void
ask(walk_t *w)
{
    uint64_t         n, most;
    mpol_decision_t  d, after;

    most = w->rate.kind == MPOL_RATE_BUCKET ? w->rate.burst : w->rate.count;
    n = below(4) ? 1 + below(most / 8 + 2) : below(most + 2);

    mpol_counter_check(&w->counter, &w->rate, w->now, n, &d);
    after = d;

    if (d.fits) {
        mpol_counter_charge(&w->counter, &w->rate, w->now, n);
        mpol_counter_check(&w->counter, &w->rate, w->now, 0, &after);
    }

    if (d.fits && n != 0 && (w->rate.kind == MPOL_RATE_WINDOW
                             || w->rate.kind == MPOL_RATE_BUCKET))
    {
        w->last = w->rate;
        w->log[w->nlog % LOG].rate = w->rate;
        w->log[w->nlog % LOG].at = w->now;
        w->log[w->nlog % LOG].n = n;
        w->nlog++;
    }

    w->retry = d.retry;

    printf("ask %llu %llu  %d %llu %llu %llu\n", (unsigned long long) w->now,
           (unsigned long long) n, (int) d.fits, (unsigned long long) d.used,
           (unsigned long long) after.remaining,
           (unsigned long long) d.retry);
}


static void
give_back(walk_t *w)
{
    uint64_t   n;
    passed_t  *p;

    if (w->nlog == 0) {
        return;
    }

    p = &w->log[below(w->nlog < LOG ? w->nlog : LOG)];
    n = below(2) ? p->n : below(p->n + 1);

    show_rate(&p->rate);
    printf("back %llu %llu %llu\n", (unsigned long long) w->now,
           (unsigned long long) p->at, (unsigned long long) n);
    show_rate(&w->rate);

    mpol_counter_give_back(&w->counter, &p->rate, w->now, p->at, n);
}


int
main(int argc, char *argv[])
{
    char           text[4096];
    walk_t         w;
    unsigned long  i, steps;

    if (argc != 3) {
        return 2;
    }

    seed = strtoull(argv[1], NULL, 10) * 2 + 88172645463325253;
    steps = strtoul(argv[2], NULL, 10);

    for (i = 0; i < steps; i++) {

        if (i % ROUND == 0) {
            memset(&w, 0, sizeof(walk_t));
            w.now = below(3) ? 1754006400000000 + below(1000000000) : 0;
            printf("case walk %lu\n", i / ROUND);
            set_rate(&w);

        } else if (below(12) == 0) {
            set_rate(&w);
        }

        move(&w);

        if (below(6)) {
            ask(&w);

        } else {
            give_back(&w);
        }

        if (below(8) == 0) {
            counter_text(&w.counter, &w.last, 'c', text, sizeof(text));
            printf("kept %s\n", text);
        }
    }

    return 0;
}
