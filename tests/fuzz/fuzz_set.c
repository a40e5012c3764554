
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Steps of 4 octets: what is done, with which member, and how much later.
 * What comes out is compared with a list without order, which is searched
 * from one end to the other each time.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_set.h"


#define STEP     4
#define MEMBERS  12
#define NAMES    32


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_set_t        set;
    mpol_set_entry_t  entries[MEMBERS];
    uint64_t          expires[NAMES];   /* of each member; 0: not there */
    mpol_rate_t       rate;
    uint64_t          now;
    uint64_t          charged_at;
} state_t;


static size_t
left(const state_t *s)
{
    size_t  i, n;

    n = 0;

    for (i = 0; i < NAMES; i++) {
        n += s->expires[i] > s->now;
    }

    return n;
}


/* as it has to be at now, once it was asked */

static void
bring(state_t *s)
{
    size_t  i;

    for (i = 0; i < NAMES; i++) {

        if (s->expires[i] <= s->now) {
            s->expires[i] = 0;
        }

        if (s->expires[i] > s->now + s->rate.period) {
            s->expires[i] = s->now + s->rate.period;
        }
    }
}


static void
compare(const state_t *s)
{
    size_t                   i, n;
    const mpol_set_entry_t  *e;

    n = 0;

    for (i = 0; i < NAMES; i++) {
        e = mpol_set_find(&s->set, i);

        assert((e != NULL) == (s->expires[i] != 0));
        assert(e == NULL || e->expires == s->expires[i]);

        n += e != NULL;
    }

    assert(n == s->set.n && n <= MEMBERS);

    for (i = 1; i < n; i++) {
        assert(s->entries[i - 1].expires <= s->entries[i].expires);
    }
}


/* how many are left just before it fits, and when it does */

static void
check_retry(const state_t *s, uint64_t room, uint64_t retry)
{
    state_t  then;

    if (room == 0) {
        assert(retry == MPOL_NEVER);
        return;
    }

    if (room > MEMBERS) {
        room = MEMBERS;
    }

    then = *s;
    then.now += retry;
    assert(left(&then) < room);

    then.now--;
    assert(left(&then) >= room);
}


static void
ask(state_t *s, unsigned lease, unsigned exempt, uint64_t member)
{
    uint64_t         room;
    unsigned         there, fits;
    mpol_decision_t  d;

    bring(s);

    room = exempt ? 2 * s->rate.count : s->rate.count;
    there = s->expires[member] != 0;

    fits = left(s) < room && (there || left(s) < MEMBERS);

    if (lease) {
        room = s->rate.count;
        fits = there || (left(s) < room && left(s) < MEMBERS);
        (void) mpol_lease_check(&s->set, &s->rate, s->now, member, 1, &d);

    } else {
        (void) mpol_failed_check(&s->set, &s->rate, exempt, s->now, member, 1,
                                 &d);
    }

    compare(s);

    assert(d.fits == fits && d.used == left(s));
    assert(d.remaining == (d.used < room ? room - d.used : 0));

    if (!fits) {
        check_retry(s, room, d.retry);
        return;
    }

    assert(d.retry == 0);

    if (lease) {
        (void) mpol_lease_charge(&s->set, &s->rate, s->now, member, 0, &d);
    } else {
        (void) mpol_failed_charge(&s->set, &s->rate, s->now, member, 0, &d);
    }

    if (lease || !there) {
        s->expires[member] = s->now + s->rate.period;
    }

    assert(d.remaining == (left(s) < room ? room - left(s) : 0));

    s->charged_at = s->now;
}


static void
step(state_t *s, const uint8_t *p)
{
    uint64_t  member;

    member = p[1] % NAMES;
    s->now += (uint64_t) p[2] << p[3] % 24;

    switch (p[0] % 8) {
    case 0:
        s->rate.count = p[1] % 20;
        s->rate.period = ((uint64_t) p[2] + 1) << p[3] % 24;
        break;

    case 1:
        s->now -= ((uint64_t) p[1] << p[3] % 24) % s->now;
        break;

    case 2:
        assert(mpol_set_remove(&s->set, member)
               == (s->expires[member] != 0));
        s->expires[member] = 0;
        break;

    case 3:
        if (mpol_failed_give_back(&s->set, &s->rate, s->charged_at, member,
                                  p[3] & 1))
        {
            assert(s->expires[member] != 0);
            assert((p[3] & 1) || s->expires[member]
                                 == s->charged_at + s->rate.period);
            s->expires[member] = 0;
        }
        break;

    default:
        ask(s, p[0] & 16, p[0] & 32, member);
    }

    compare(s);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    state_t  s;

    if (size > 400 * STEP) {
        return 0;
    }

    memset(&s, 0, sizeof(state_t));

    s.set.entries = s.entries;
    s.set.max = MEMBERS;
    s.rate.kind = MPOL_RATE_WINDOW;
    s.rate.count = 3;
    s.rate.period = 1000;
    s.now = 1754006400000000;

    for ( /* void */ ; size >= STEP; data += STEP, size -= STEP) {
        step(&s, data);
    }

    return 0;
}
