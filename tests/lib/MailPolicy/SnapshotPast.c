
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a snapshot makes of the last hour: rate, hour, minutes, of histories
 * that are whole, young, full of holes, or of long ago.
 */


#include "ngx_mail_policy_snapshot.h"
#include "tap.h"


#define STEP      10000
#define NO        (-1)


/* the history: what was counted when a step began; NO: there is none of it */

static int64_t   past[20000];
static uint64_t  now, total;            /* ms */


uint64_t
ngx_mail_policy_metrics_usec(void)
{
    return now * 1000;
}


uint64_t
ngx_mail_policy_metrics_step(void)
{
    return now / STEP + 1;
}


void
ngx_mail_policy_metrics_past_now(ngx_mail_policy_metrics_t *metrics,
    uint64_t totals[NGX_MAIL_POLICY_PASTS])
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        totals[i] = total * (i + 1);
    }
}


/* as the ring has it: what is older is overwritten, and its room is scribbled
   on while it is looked at */

ngx_uint_t
ngx_mail_policy_metrics_past(ngx_mail_policy_metrics_t *metrics,
    uint64_t step, uint64_t totals[NGX_MAIL_POLICY_PASTS], uint64_t *msec)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        totals[i] = 12345678;
    }

    if (step == 0 || step > now / STEP + 1
        || step + NGX_MAIL_POLICY_PAST_STEPS <= now / STEP + 1
        || past[step] == NO)
    {
        return 0;
    }

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        totals[i] = past[step] * (i + 1);
    }

    *msec = (step - 1) * STEP;

    return 1;
}


/* not asked for here */

uint64_t
ngx_mail_policy_metrics_total(ngx_mail_policy_metrics_t *metrics, ngx_uint_t n)
{
    return 0;
}


uint64_t
ngx_mail_policy_metrics_now(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t gauge)
{
    return 0;
}


ngx_uint_t
ngx_mail_policy_metrics_block_get(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t i, ngx_mail_policy_block_e *kind, ngx_str_t *name,
    ngx_str_t *second)
{
    return 0;
}


ngx_uint_t
ngx_mail_policy_metrics_block_is(ngx_str_t *block, ngx_str_t *name)
{
    return 0;
}


/* steps first to last were kept; each second brought one, if any */

static void
history(uint64_t first, uint64_t last, uint64_t each)
{
    uint64_t  i;

    for (i = 0; i < sizeof(past) / sizeof(past[0]); i++) {
        past[i] = (i >= first && i <= last)
                  ? (int64_t) ((i - first) * each * (STEP / 1000)) : NO;
    }
}


static uint64_t
sum(ngx_mail_policy_snapshot_t *s)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = 0, n = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES; i++) {
        n += s->minutes[i][0];
    }

    return n;
}


static ngx_mail_policy_snapshot_t *
look(uint64_t ms, uint64_t counted)
{
    ngx_uint_t  i;

    static ngx_mail_policy_snapshot_t  s;

    now = ms;
    total = counted;

    ngx_memzero(&s, sizeof(ngx_mail_policy_snapshot_t));
    ngx_mail_policy_snapshot_past(&s, NULL);

    /* all are made alike */

    for (i = 1; i < NGX_MAIL_POLICY_PASTS; i++) {
        if (s.hour[i] != s.hour[0] * (i + 1)) {
            s.hour[0] = 98765432;
        }
    }

    return &s;
}


static void
is_past(ngx_mail_policy_snapshot_t *s, uint64_t rate, uint64_t hour,
    uint64_t minutes, uint64_t last, const char *what)
{
    ok(s->rate[0] == rate && s->hour[0] == hour && sum(s) == minutes
       && s->minutes[59][0] == last,
       "%s: %lu/1000 a second, %lu an hour, %lu in minutes, last %lu", what,
       (unsigned long) s->rate[0], (unsigned long) s->hour[0],
       (unsigned long) sum(s), (unsigned long) s->minutes[59][0]);
}


static void
test_young(void)
{
    history(1, 0, 0);
    is_past(look(5000, 7), 0, 0, 0, 0, "no step yet");

    history(1, 1, 1);
    is_past(look(900, 7), 0, 7, 7, 7, "less than a second");
    is_past(look(5000, 50), 10000, 50, 50, 50, "five seconds");

    /* the machine was started 100 s ago, nginx 25 s */
    history(8, 11, 1);
    is_past(look(108000, 38), 1000, 38, 38, 38, "since a while");
}


static void
test_long(void)
{
    ngx_uint_t                   i, wrong;
    ngx_mail_policy_snapshot_t  *s;

    /* the minute began with step 10014 = 6 * 1669, 25 s ago */

    history(1, 10016, 1);
    s = look(100155000ull, 100155);
    is_past(s, 1000, 3605, 59 * 60 + 25, 25, "a day");

    for (i = 0, wrong = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES - 1; i++) {
        wrong += (s->minutes[i][0] != 60);
    }

    ok(wrong == 0, "  each minute has its 60");

    s = look(100155000ull, 100155 + 600);
    ok(s->rate[0] == 41000, "  what comes in at once counts at once");

    history(1, 10016, 0);
    is_past(look(100155000ull, 0), 0, 0, 0, 0, "an idle day");

    history(1, 9000, 1);
    is_past(look(100155000ull, 99999), 0, 0, 0, 0, "no step in an hour");
}


/* nobody could write them: the total of the last one before stands */

static void
test_holes(void)
{
    uint64_t                     i, n;
    ngx_uint_t                   wrong, round;
    ngx_mail_policy_snapshot_t  *s;

    history(1, 10016, 1);

    for (i = 9900; i < 10016; i++) {
        past[i] = NO;
    }

    /* what came in the gap is in the minute behind it */
    s = look(100155000ull, 100155);
    is_past(s, 1000, 3605, 59 * 60 + 25, 1175, "a gap of 20 minutes");

    past[10016] = NO;
    is_past(look(100155000ull, 100155), 1000, 3605, 59 * 60 + 25, 1175,
            "... until now");

    srandom(8);

    for (round = 0, wrong = 0; round < 2000; round++) {
        n = 0;

        for (i = 1; i < 800; i++) {
            past[i] = (random() % 4 == 0) ? NO : (int64_t) n;
            n += random() % 3;
        }

        s = look(STEP * (1 + random() % 790) + random() % STEP, n);
        wrong += (sum(s) > s->hour[0] || s->hour[0] > n
                  || s->rate[0] > n * 1000);
    }

    ok(wrong == 0, "holes of chance: minutes <= hour <= all");
}


/* instead of nginx, which has loaded this */

__attribute__((constructor)) static void
test(void)
{
    test_young();
    test_long();
    test_holes();

    exit(done_testing());
}
