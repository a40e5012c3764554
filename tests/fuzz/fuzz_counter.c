
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* steps of 8 octets: what is done, and up to 7 for its numbers */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_counter.h"


#define STEP  8


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_counter_t  counter;
    mpol_rate_t     rate;
    uint64_t        now;
    uint64_t        charged_at;
} state_t;


static mpol_decision_t
judge(const mpol_counter_t *c, const mpol_rate_t *rate, uint64_t now,
    uint64_t n)
{
    mpol_counter_t   copy;
    mpol_decision_t  d;

    copy = *c;
    mpol_counter_check(&copy, rate, now, n, &d);

    return d;
}


/* mantissa and exponent, 1 to 2^40 */

static uint64_t
number(const uint8_t *p)
{
    uint64_t  n;

    n = ((uint64_t) p[0] + 1) << p[1] % 33;

    return n > 1 && p[1] & 0x80 ? n - 1 : n;
}


static void
set_rate(state_t *s, const uint8_t *p)
{
    static const mpol_rate_kind_e  kinds[] = {
        MPOL_RATE_WINDOW, MPOL_RATE_WINDOW, MPOL_RATE_WINDOW,
        MPOL_RATE_BUCKET, MPOL_RATE_BUCKET, MPOL_RATE_BUCKET,
        MPOL_RATE_UNLIMITED, MPOL_RATE_BLOCKED
    };

    memset(&s->rate, 0, sizeof(mpol_rate_t));

    s->rate.kind = kinds[p[0] % 8];

    if (p[0] % 8 > 5) {
        return;
    }

    s->rate.count = number(p + 1);
    s->rate.period = (number(p + 3) % (366 * 86400) + 1) * 1000000;

    if (s->rate.kind == MPOL_RATE_BUCKET) {
        s->rate.burst = number(p + 5);

        while (mpol_rate_cost(&s->rate, s->rate.burst) > (uint64_t) 1 << 52) {
            s->rate.burst /= 2;
        }
    }
}


static void
check_expires(state_t *s)
{
    uint64_t         end;
    mpol_decision_t  d;

    mpol_counter_check(&s->counter, &s->rate, s->now, 0, &d);
    end = mpol_counter_expires(&s->counter, &s->rate, s->now);

    assert((d.used != 0) == (end != 0));
    assert(end == 0 || end > s->now);

    if (end != 0) {
        assert(judge(&s->counter, &s->rate, end, 0).used == 0);
        assert(judge(&s->counter, &s->rate, end - 1, 0).used != 0);
    }
}


static void
check_refused(const state_t *s, uint64_t n, uint64_t retry)
{
    mpol_decision_t  d;

    assert(retry != 0);

    if (retry == MPOL_NEVER) {
        assert(s->rate.kind == MPOL_RATE_BLOCKED || n > s->rate.count
               || n > s->rate.burst);
        return;
    }

    assert(judge(&s->counter, &s->rate, s->now + retry, n).fits);

    d = judge(&s->counter, &s->rate, s->now + retry - 1, n);
    assert(!d.fits && d.retry == 1);
}


static void
ask(state_t *s, uint64_t n)
{
    mpol_counter_t   before;
    mpol_decision_t  d, again;

    mpol_counter_check(&s->counter, &s->rate, s->now, n, &d);

    before = s->counter;
    again = judge(&s->counter, &s->rate, s->now, n);

    assert(d.fits == again.fits && d.used == again.used
           && d.remaining == again.remaining && d.retry == again.retry);
    assert(d.used <= MPOL_NEVER && d.remaining <= MPOL_NEVER);

    if (!d.fits) {
        check_refused(s, n, d.retry);
        return;
    }

    assert(d.retry == 0);
    assert(s->rate.kind == MPOL_RATE_BLOCKED
           || judge(&s->counter, &s->rate, s->now, 0).fits);

    mpol_counter_charge(&s->counter, &s->rate, s->now, n);
    again = judge(&s->counter, &s->rate, s->now, 0);

    if (n == 0 || s->rate.kind == MPOL_RATE_UNLIMITED) {
        assert(memcmp(&before, &s->counter, sizeof(before)) == 0);

    } else if (s->rate.kind == MPOL_RATE_WINDOW) {
        assert(again.used == d.used + n);
        assert(again.used + again.remaining == s->rate.count);

    } else {
        assert(again.used >= d.used && again.used <= s->rate.burst);
        assert(again.used + again.remaining == s->rate.burst);
    }

    s->charged_at = s->now;
}


static void
give_back(state_t *s, uint64_t n)
{
    mpol_decision_t  d, after;

    if (s->charged_at > s->now) {
        return;
    }

    d = judge(&s->counter, &s->rate, s->now, 0);
    mpol_counter_give_back(&s->counter, &s->rate, s->now, s->charged_at, n);
    after = judge(&s->counter, &s->rate, s->now, 0);

    assert(after.used <= d.used && after.remaining >= d.remaining);
    assert(s->rate.kind != MPOL_RATE_WINDOW || d.used - after.used <= n);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    state_t   s;
    uint64_t  step;

    if (size > 200 * STEP) {
        return 0;
    }

    memset(&s, 0, sizeof(state_t));

    s.now = 1754006400000000;
    set_rate(&s, (const uint8_t *) "\0\11\0\77\0\0\0");

    for ( /* void */ ; size >= STEP; data += STEP, size -= STEP) {

        switch (data[0] % 8) {
        case 0:
            set_rate(&s, data + 1);
            break;

        case 1:
            step = number(data + 1);
            s.now -= (step < s.now) ? step : s.now;
            break;

        case 2:
            give_back(&s, number(data + 3));
            break;

        default:
            step = number(data + 1);
            s.now += (data[5] & 1 && s.now < (uint64_t) 1 << 51) ? step : 0;
            ask(&s, number(data + 3) - (data[5] & 2 ? 1 : 0));
        }

        check_expires(&s);
    }

    return 0;
}
