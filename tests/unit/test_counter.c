
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Usage: test_counter [vectors], tests/vectors/counters.txt by default; and
 * random charges, measured by a log of all that passed.
 */


#include <stdlib.h>

#include "counter_text.h"
#include "mpol_counter.h"
#include "tap.h"


__extension__ typedef unsigned __int128  u128_t;


#define STEPS  400


typedef struct {
    uint64_t  at;                       /* as the counter was told */
    uint64_t  real;                     /* a clock that never goes back */
    uint64_t  n;
} passed_t;


typedef struct {
    mpol_counter_t  counter;
    mpol_rate_t     rate;
    mpol_rate_t     last;               /* that charged last, and from where */
    char            from;
    uint64_t        now;
    uint64_t        real;
    passed_t        log[STEPS];
    size_t          nlog;
} run_t;


static const char  *kinds[] = { "none", "window", "bucket", "unlimited",
                                "blocked" };

static uint64_t     seed = 88172645463325252;


static uint64_t
number(const char *text)
{
    return strcmp(text, "never") ? strtoull(text, NULL, 10) : MPOL_NEVER;
}


/* 0 if there is no number, or one above 2^53 */

static int
decimal(char **p, uint64_t *n)
{
    char  *digits;

    digits = *p;
    *n = 0;

    for ( /* void */ ; **p >= '0' && **p <= '9'; (*p)++) {
        if (*n <= MPOL_NEVER) {
            *n = *n * 10 + (uint64_t) (**p - '0');
        }
    }

    return *p > digits && *n <= MPOL_NEVER;
}


/* a number, and the octet behind it */

static int
field(char **p, uint64_t *n, char end)
{
    return decimal(p, n) && *(*p)++ == end;
}


/* the letter, which is the last word or is followed by a space */

static int
letter(char **p, char *from)
{
    *from = **p;

    return **p != '\0' && strchr("c*p@k", *(*p)++) != NULL
           && (**p == '\0' || **p == ' ');
}


/* the field as the scripts read it; slots within 65 of each other, here */

static int
load(run_t *r, char *p)
{
    uint64_t         i, d, n;
    mpol_counter_t  *c;

    c = &r->counter;

    if (strncmp(p, "b ", 2) == 0) {
        p += 2;
        return field(&p, &c->tat, ' ')
               && field(&p, &r->last.count, ' ') && r->last.count != 0
               && field(&p, &r->last.period, ' ')
               && field(&p, &r->last.burst, ' ')
               && letter(&p, &r->from) && *p == '\0';
    }

    if (strncmp(p, "w ", 2) != 0) {
        return 0;
    }

    p += 2;

    if (!field(&p, &c->width, ' ') || c->width == 0
        || !field(&p, &r->last.count, ' ')
        || !letter(&p, &r->from) || *p != ' ')
    {
        return 0;
    }

    i = 0;

    while (*p != '\0') {
        if (*p++ != ' ' || !field(&p, &d, ':') || !decimal(&p, &n)
            || (u128_t) (i + d + 1) * c->width >= MPOL_NEVER)
        {
            return 0;
        }

        i += d;
        c->newest = i;
        c->slot[i % MPOL_WINDOW_SLOTS] += n;
    }

    return 1;
}


static void
vector_ask(run_t *r, char word[][32], const char *line)
{
    int              fits;
    uint64_t         now, n, left;
    mpol_decision_t  d, after;

    now = number(word[0]);
    n = number(word[1]);

    mpol_counter_check(&r->counter, &r->rate, now, n, &d);

    fits = d.fits;
    left = d.remaining;

    if (fits) {
        mpol_counter_charge(&r->counter, &r->rate, now, n);

        if (n != 0 && (r->rate.kind == MPOL_RATE_WINDOW
                       || r->rate.kind == MPOL_RATE_BUCKET))
        {
            r->last = r->rate;
            r->from = 'c';
        }

        mpol_counter_check(&r->counter, &r->rate, now, 0, &after);
        left = after.remaining;
    }

    ok(fits == (int) number(word[2]) && d.used == number(word[3])
       && left == number(word[4]) && d.retry == number(word[5]),
       "%s (%d %llu %llu %llu)", line, fits, (unsigned long long) d.used,
       (unsigned long long) left, (unsigned long long) d.retry);
}


static void
vector_rate(run_t *r, char word[][32], const char *line)
{
    unsigned  kind;

    static const mpol_rate_kind_e  enums[] = {
        MPOL_RATE_NONE, MPOL_RATE_WINDOW, MPOL_RATE_BUCKET,
        MPOL_RATE_UNLIMITED, MPOL_RATE_BLOCKED
    };

    for (kind = 0; kind < 5; kind++) {
        if (strcmp(word[0], kinds[kind]) == 0) {
            r->rate.kind = enums[kind];
            r->rate.count = number(word[1]);
            r->rate.period = number(word[2]);
            r->rate.burst = number(word[3]);
            return;
        }
    }

    ok(0, "no such kind: %s", line);
}


static void
vector(run_t *r, char *line, const char *name)
{
    char     text[4096], op[16], word[6][32];
    char    *arg;
    size_t   len;

    memset(word, 0, sizeof(word));

    sscanf(line, "%15s %31s %31s %31s %31s %31s %31s", op, word[0], word[1],
           word[2], word[3], word[4], word[5]);

    arg = line + strlen(op) + 1;

    if (strcmp(op, "case") == 0) {
        memset(&r->counter, 0, sizeof(mpol_counter_t));

    } else if (strcmp(op, "rate") == 0) {
        vector_rate(r, word, line);

    } else if (strcmp(op, "ask") == 0) {
        vector_ask(r, word, line);

    } else if (strcmp(op, "back") == 0) {
        mpol_counter_give_back(&r->counter, &r->rate, number(word[0]),
                               number(word[1]), number(word[2]));

    } else if (strcmp(op, "kept") == 0) {
        counter_text(&r->counter, &r->last, r->from, text, sizeof(text));
        is_mem(text, strlen(text), arg, strlen(arg), "%s: kept", name);

    } else if (strcmp(op, "expires") == 0) {
        is_u64(mpol_counter_expires(&r->counter, &r->rate, number(word[0])),
               number(word[1]), "%s: expires", name);

    } else if (strcmp(op, "stored") == 0) {
        len = strlen(arg) - 2;
        memcpy(text, arg + 1, len);
        text[len] = '\0';

        memset(&r->counter, 0, sizeof(mpol_counter_t));

        if (!load(r, text)) {
            memset(&r->counter, 0, sizeof(mpol_counter_t));
        }

    } else {
        ok(0, "no such line: %s", line);
    }
}


static void
test_vectors(const char *file_name)
{
    char    line[4096], name[128];
    FILE   *file;
    run_t   r;

    file = fopen(file_name, "r");

    if (!ok(file != NULL, "vectors in %s", file_name)) {
        return;
    }

    memset(&r, 0, sizeof(run_t));

    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';

        if (line[0] == '#' || line[0] == '\0') {
            continue;
        }

        if (strncmp(line, "case ", 5) == 0) {
            snprintf(name, sizeof(name), "%.100s", line + 5);
        }

        vector(&r, line, name);
    }

    fclose(file);
}


static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


/* what passed in the period before the present moment, and late longer */

static uint64_t
logged(const run_t *r, uint64_t late)
{
    size_t    i;
    uint64_t  sum;

    sum = 0;

    for (i = 0; i < r->nlog; i++) {
        if (r->real - r->log[i].real < r->rate.period + late) {
            sum += r->log[i].n;
        }
    }

    return sum;
}


/* in no stretch of time more than burst and what flows in meanwhile */

static int
flows(const run_t *r)
{
    size_t    i;
    uint64_t  sum;

    sum = 0;

    for (i = r->nlog; i-- > 0; /* void */ ) {
        sum += r->log[i].n;

        if (sum > r->rate.burst
            && (u128_t) (sum - r->rate.burst) * r->rate.period
               > (u128_t) (r->real - r->log[i].real) * r->rate.count)
        {
            return 0;
        }
    }

    return 1;
}


/* a question at now + retry fits, one a microsecond earlier does not */

static int
retries(const run_t *r, uint64_t n, uint64_t retry)
{
    mpol_counter_t   c;
    mpol_decision_t  d;

    c = r->counter;
    mpol_counter_check(&c, &r->rate, r->now + retry - 1, n, &d);

    if (d.fits || d.retry != 1) {
        return 0;
    }

    c = r->counter;
    mpol_counter_check(&c, &r->rate, r->now + retry, n, &d);

    return d.fits;
}


static void
move(run_t *r, unsigned back)
{
    uint64_t  step, width;

    width = r->rate.period / 64;

    switch (below(6)) {
    case 0:
        step = 0;
        break;
    case 1:
        step = 1;
        break;
    case 2:
        step = width;
        break;
    case 3:
        step = below(r->rate.period / 4);
        break;
    default:
        step = below(4 * width);
    }

    r->now += step;
    r->real += step;

    if (back && below(20) == 0) {
        step = below(2 * r->rate.period);
        r->now -= (step < r->now) ? step : r->now;
    }
}


static int
step_ask(run_t *r, unsigned back)
{
    int              right;
    uint64_t         n, most, late;
    mpol_counter_t   before;
    mpol_decision_t  d, again;

    most = r->rate.kind == MPOL_RATE_BUCKET ? r->rate.burst : r->rate.count;
    n = 1 + below(below(3) ? most / 5 + 1 : most);

    mpol_counter_check(&r->counter, &r->rate, r->now, n, &d);

    before = r->counter;
    mpol_counter_check(&r->counter, &r->rate, r->now, n, &again);

    right = memcmp(&before, &r->counter, sizeof(before)) == 0
            && d.fits == again.fits && d.retry == again.retry;

    if (!d.fits) {
        if (n > most) {
            return right && d.retry == MPOL_NEVER;
        }

        late = r->rate.period / 64;

        return right
               && retries(r, n, d.retry)
               && (r->rate.kind == MPOL_RATE_BUCKET || back
                   || logged(r, late) + n > r->rate.count);
    }

    mpol_counter_charge(&r->counter, &r->rate, r->now, n);

    r->log[r->nlog].at = r->now;
    r->log[r->nlog].real = r->real;
    r->log[r->nlog].n = n;
    r->nlog++;

    return right
           && d.retry == 0
           && (r->rate.kind == MPOL_RATE_BUCKET
               ? flows(r) : logged(r, 0) <= r->rate.count)
           && mpol_counter_expires(&r->counter, &r->rate, r->now) > r->now;
}


/* what is given back never passed */

static int
step_give_back(run_t *r)
{
    passed_t         *p;
    mpol_decision_t   d, after;

    p = &r->log[r->nlog - 1 - below(r->nlog < 4 ? r->nlog : 4)];

    mpol_counter_check(&r->counter, &r->rate, r->now, 0, &d);
    mpol_counter_give_back(&r->counter, &r->rate, r->now, p->at, p->n);
    mpol_counter_check(&r->counter, &r->rate, r->now, 0, &after);

    if (after.used > d.used || d.used - after.used > p->n) {
        return 0;
    }

    p->n = 0;

    return 1;
}


/* back: the clock goes back; give: some is given back */

static void
test_log(mpol_rate_kind_e kind, unsigned back, unsigned give)
{
    int       right;
    run_t     r;
    unsigned  round, step;

    static const uint64_t  periods[] = { 1000000, 64000000, 3600000000,
                                         604800000000 };

    right = 1;

    for (round = 0; round < 200 && right; round++) {
        memset(&r, 0, sizeof(run_t));

        r.rate.kind = kind;
        r.rate.period = periods[below(4)];
        r.rate.count = 1 + below(below(2) ? 10 : 100000);
        r.now = below(2) ? 0 : 1754006400000000 + below(r.rate.period);

        if (kind == MPOL_RATE_BUCKET) {
            r.rate.burst = 1 + below(below(2) ? 10 : 1000);
        }

        for (step = 0; step < STEPS && right; step++) {
            move(&r, back);

            right = (give && r.nlog && below(5) == 0)
                    ? step_give_back(&r) : step_ask(&r, back);
        }
    }

    ok(right, "%s%s%s: round %u, step %u", kinds[kind],
       back ? ", clock goes back" : "", give ? ", give back" : "", round,
       right ? 0 : step);
}


int
main(int argc, char *argv[])
{
    test_vectors(argc > 1 ? argv[1] : "tests/vectors/counters.txt");

    test_log(MPOL_RATE_WINDOW, 0, 0);
    test_log(MPOL_RATE_WINDOW, 0, 1);
    test_log(MPOL_RATE_WINDOW, 1, 0);
    test_log(MPOL_RATE_BUCKET, 0, 0);
    test_log(MPOL_RATE_BUCKET, 1, 0);

    return done_testing();
}
