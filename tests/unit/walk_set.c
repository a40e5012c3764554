
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Usage: walk_set seed steps.  Sessions and logins at random, and what came of
 * it in the form of tests/vectors/sets.txt, for others to come to the same:
 * t/store_vectors.t runs it against the scripts.
 */


#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_set.h"


#define LOG      8
#define ROUND    60                     /* steps from empty sets */
#define MEMBERS  16
#define TAGS     8
#define CLIENTS  3


typedef struct {
    mpol_rate_t  rate;
    uint64_t     at;
    uint64_t     tag;
    uint64_t     client;
} passed_t;


typedef struct {
    mpol_set_t        set[3];
    mpol_set_entry_t  entries[3][MEMBERS];
    mpol_rate_t       rate;
    uint64_t          now;
    uint64_t          retry;            /* of the last answer */
    passed_t          log[LOG];
    size_t            nlog;
} walk_t;


enum { LEASES, FAILED, EXEMPT };


static uint64_t  seed;


static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


static void
show_rate(const mpol_rate_t *rate)
{
    static const char  *kinds[] = { "none", "window", "bucket", "unlimited",
                                    "blocked" };

    printf("rate %s %llu %llu\n", kinds[rate->kind],
           (unsigned long long) rate->count,
           (unsigned long long) rate->period);
}


static void
set_rate(walk_t *w)
{
    static const mpol_rate_kind_e  rare[] = { MPOL_RATE_NONE,
                                              MPOL_RATE_UNLIMITED,
                                              MPOL_RATE_BLOCKED };

    w->rate.kind = below(10) ? MPOL_RATE_WINDOW : rare[below(3)];
    w->rate.count = w->rate.kind == MPOL_RATE_WINDOW ? 1 + below(6) : 0;
    w->rate.period = (1 + below(3) * 20) * 1000000;

    show_rate(&w->rate);
}


static void
move(walk_t *w)
{
    uint64_t  step;

    step = w->retry < MPOL_NEVER ? w->retry : 2;

    switch (below(6)) {
    case 0:
        step = 0;
        break;
    case 1:
        step = 1;
        break;
    case 2:
        break;
    case 3:
        step = step ? step - 1 : 1;
        break;
    case 4:
        step = below(w->rate.period);
        break;
    default:
        step = below(w->rate.period / 9);
    }

    w->now += step;

    if (below(30) == 0) {
        step = below(2 * w->rate.period);
        w->now -= step < w->now ? step : w->now;
    }
}


static void
judged(walk_t *w, const mpol_decision_t *d)
{
    w->retry = d->retry;

    printf("  %d %llu %llu %llu\n", (int) d->fits,
           (unsigned long long) d->used, (unsigned long long) d->remaining,
           (unsigned long long) d->retry);
}


static void
session(walk_t *w)
{
    uint64_t         tag, n;
    mpol_decision_t  d;

    n = below(5) != 0;
    tag = n ? below(TAGS) : 0;

    (void) mpol_lease_check(&w->set[LEASES], &w->rate, w->now, tag, n, &d);

    if (d.fits && n) {
        (void) mpol_lease_charge(&w->set[LEASES], &w->rate, w->now, tag, 0,
                                 &d);
        printf("lease %llu %04x", (unsigned long long) w->now, (int) tag);

    } else if (n) {
        printf("lease %llu %04x", (unsigned long long) w->now, (int) tag);

    } else {
        printf("look %llu", (unsigned long long) w->now);
    }

    judged(w, &d);
}


static void
renew(walk_t *w)
{
    uint64_t  tag;

    tag = below(TAGS);

    if (below(2)) {
        (void) mpol_set_prune(&w->set[LEASES], w->now);
        (void) mpol_set_put(&w->set[LEASES], tag, w->now + w->rate.period, 0);
        printf("renew %llu %04x\n", (unsigned long long) w->now, (int) tag);

    } else {
        if (w->rate.kind == MPOL_RATE_WINDOW) {
            (void) mpol_set_remove(&w->set[LEASES], tag);
        }

        printf("end %llu %04x\n", (unsigned long long) w->now, (int) tag);
    }
}


static void
login(walk_t *w)
{
    passed_t          *p;
    mpol_decision_t    d;
    mpol_set_entry_t  *e;

    p = &w->log[w->nlog % LOG];

    p->rate = w->rate;
    p->at = w->now;
    p->tag = below(TAGS);
    p->client = below(CLIENTS);

    e = mpol_set_find(&w->set[EXEMPT], p->client);

    (void) mpol_failed_check(&w->set[FAILED], &w->rate,
                             e && e->expires > w->now, w->now, p->tag, 1, &d);

    if (d.fits) {
        (void) mpol_failed_charge(&w->set[FAILED], &w->rate, w->now, p->tag,
                                  0, &d);
        w->nlog++;
    }

    printf("fail %llu %04x %04x", (unsigned long long) w->now, (int) p->tag,
           (int) p->client);
    judged(w, &d);
}


static void
give_back(walk_t *w)
{
    unsigned   ok;
    passed_t  *p;

    if (w->nlog == 0) {
        return;
    }

    p = &w->log[below(w->nlog < LOG ? w->nlog : LOG)];
    ok = below(2) != 0;

    show_rate(&p->rate);
    printf("%s %llu %llu %04x %04x\n", ok ? "login" : "back",
           (unsigned long long) w->now, (unsigned long long) p->at,
           (int) p->tag, (int) p->client);
    show_rate(&w->rate);

    if (p->rate.kind != MPOL_RATE_WINDOW) {
        return;
    }

    /* one that has expired is nobody's business */

    if (mpol_set_find(&w->set[FAILED], p->tag)
        && mpol_set_find(&w->set[FAILED], p->tag)->expires > w->now)
    {
        (void) mpol_failed_give_back(&w->set[FAILED], &p->rate, p->at, p->tag,
                                     ok);
    }

    if (ok) {
        (void) mpol_set_prune(&w->set[EXEMPT], w->now);
        (void) mpol_set_put(&w->set[EXEMPT], p->client,
                            w->now + p->rate.period, 0);
    }
}


static int
by_expiry(const void *one, const void *two)
{
    const mpol_set_entry_t  *a = one, *b = two;

    if (a->expires != b->expires) {
        return a->expires < b->expires ? -1 : 1;
    }

    return a->member < b->member ? -1 : a->member > b->member;
}


static void
kept(const walk_t *w, size_t k)
{
    size_t             i;
    unsigned           none;
    mpol_set_entry_t   sorted[MEMBERS];

    static const char  *names[] = { "leases", "failed", "exempt" };

    memcpy(sorted, w->entries[k], sizeof(sorted));
    qsort(sorted, w->set[k].n, sizeof(mpol_set_entry_t), by_expiry);

    none = 1;

    printf("kept %s %llu", names[k], (unsigned long long) w->now);

    for (i = 0; i < w->set[k].n; i++) {
        if (sorted[i].expires > w->now) {
            printf(" %04x:%llu", (int) sorted[i].member,
                   (unsigned long long) sorted[i].expires);
            none = 0;
        }
    }

    printf(none ? " -\n" : "\n");
}


static void
start(walk_t *w, unsigned long n)
{
    size_t  k;

    memset(w, 0, sizeof(walk_t));

    for (k = 0; k < 3; k++) {
        w->set[k].entries = w->entries[k];
        w->set[k].max = MEMBERS;
    }

    w->now = below(3) ? 1754006400000000 : 0;

    printf("case walk %lu\n", n);
    set_rate(w);
}


int
main(int argc, char *argv[])
{
    walk_t         w;
    unsigned long  i, steps;

    if (argc != 3) {
        return 2;
    }

    seed = strtoull(argv[1], NULL, 10) * 2 + 88172645463325253;
    steps = strtoul(argv[2], NULL, 10);

    for (i = 0; i < steps; i++) {

        if (i % ROUND == 0) {
            start(&w, i / ROUND);

        } else if (below(15) == 0) {
            set_rate(&w);
        }

        move(&w);

        switch (below(9)) {
        case 0:
        case 1:
        case 2:
            session(&w);
            break;
        case 3:
            renew(&w);
            break;
        case 4:
        case 5:
            give_back(&w);
            break;
        default:
            login(&w);
        }

        kept(&w, below(3));
    }

    return 0;
}
