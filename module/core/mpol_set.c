
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_set.h"


static void mpol_set_uncounted(const mpol_rate_t *rate, mpol_decision_t *d);
static int mpol_set_begin(mpol_set_t *s, const mpol_rate_t *rate,
    uint64_t now);
static void mpol_set_judge(const mpol_set_t *s, uint64_t room, uint64_t now,
    uint64_t n, mpol_decision_t *d);
static void mpol_set_cut(mpol_set_t *s, size_t from, size_t n);


int
mpol_set_prune(mpol_set_t *s, uint64_t now)
{
    size_t  n;

    for (n = 0; n < s->n; n++) {
        if (s->entries[n].expires > now) {
            break;
        }
    }

    mpol_set_cut(s, 0, n);

    return n != 0;
}


int
mpol_set_clamp(mpol_set_t *s, uint64_t last)
{
    size_t  i;

    for (i = s->n; i != 0 && s->entries[i - 1].expires > last; i--) {
        s->entries[i - 1].expires = last;
    }

    return i != s->n;
}


mpol_set_entry_t *
mpol_set_find(const mpol_set_t *s, uint64_t member)
{
    size_t  i;

    for (i = 0; i < s->n; i++) {
        if (s->entries[i].member == member
            && !(s->entries[i].flags & MPOL_SET_STRANGER))
        {
            return &s->entries[i];
        }
    }

    return NULL;
}


int
mpol_set_put(mpol_set_t *s, uint64_t member, uint64_t expires, unsigned flags)
{
    size_t  i;

    (void) mpol_set_remove(s, member);

    if (s->n >= s->max) {
        return MPOL_BAD;
    }

    /* the latest are at the end, where a new one mostly belongs */

    for (i = s->n; i != 0 && s->entries[i - 1].expires > expires; i--) {
        s->entries[i] = s->entries[i - 1];
    }

    s->entries[i].member = member;
    s->entries[i].expires = expires;
    s->entries[i].flags = flags;
    s->n++;

    return MPOL_OK;
}


int
mpol_set_remove(mpol_set_t *s, uint64_t member)
{
    mpol_set_entry_t  *e;

    e = mpol_set_find(s, member);

    if (e == NULL) {
        return 0;
    }

    mpol_set_cut(s, (size_t) (e - s->entries), 1);

    return 1;
}


void
mpol_set_strangers(mpol_set_t *s, uint64_t n, uint64_t expires)
{
    size_t  i, behind, count;

    count = s->max - s->n;

    if (n < count) {
        count = (size_t) n;
    }

    for (i = s->n; i != 0 && s->entries[i - 1].expires > expires; i--) {
        /* void */
    }

    behind = s->n - i;

    if (behind != 0) {
        memmove(&s->entries[i + count], &s->entries[i],
                behind * sizeof(mpol_set_entry_t));
    }

    s->n += count;

    for ( /* void */ ; count != 0; count--, i++) {
        s->entries[i].member = 0;
        s->entries[i].expires = expires;
        s->entries[i].flags = MPOL_SET_STRANGER;
    }
}


int
mpol_lease_check(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, uint64_t n, mpol_decision_t *d)
{
    int  changed;

    if (rate->kind != MPOL_RATE_WINDOW) {
        mpol_set_uncounted(rate, d);
        return 0;
    }

    changed = mpol_set_begin(s, rate, now);

    mpol_set_judge(s, rate->count, now, n, d);

    if (!d->fits && mpol_set_find(s, member) != NULL) {
        d->fits = 1;
        d->retry = 0;
    }

    return changed;
}


int
mpol_failed_check(mpol_set_t *s, const mpol_rate_t *rate, unsigned exempt,
    uint64_t now, uint64_t member, uint64_t n, mpol_decision_t *d)
{
    int       changed;
    uint64_t  room;

    if (rate->kind != MPOL_RATE_WINDOW) {
        mpol_set_uncounted(rate, d);
        return 0;
    }

    changed = mpol_set_begin(s, rate, now);

    room = exempt ? 2 * rate->count : rate->count;

    mpol_set_judge(s, room, now, n, d);

    /* it needs no entry of its own */

    if (!d->fits && s->n < room && mpol_set_find(s, member) != NULL) {
        d->fits = 1;
        d->retry = 0;
    }

    return changed;
}


int
mpol_lease_charge(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, unsigned flags, mpol_decision_t *d)
{
    if (rate->kind != MPOL_RATE_WINDOW) {
        return 0;
    }

    if (mpol_set_find(s, member) == NULL && d->remaining != 0) {
        d->remaining--;
    }

    return mpol_set_put(s, member, now + rate->period, flags) == MPOL_OK;
}


int
mpol_failed_charge(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, unsigned flags, mpol_decision_t *d)
{
    if (rate->kind != MPOL_RATE_WINDOW || mpol_set_find(s, member) != NULL) {
        return 0;
    }

    if (d->remaining != 0) {
        d->remaining--;
    }

    return mpol_set_put(s, member, now + rate->period, flags) == MPOL_OK;
}


int
mpol_failed_give_back(mpol_set_t *s, const mpol_rate_t *rate, uint64_t at,
    uint64_t member, unsigned ok)
{
    mpol_set_entry_t  *e;

    if (rate->kind != MPOL_RATE_WINDOW) {
        return 0;
    }

    e = mpol_set_find(s, member);

    if (e == NULL || (!ok && e->expires != at + rate->period)) {
        return 0;
    }

    return mpol_set_remove(s, member);
}


static void
mpol_set_uncounted(const mpol_rate_t *rate, mpol_decision_t *d)
{
    d->used = 0;
    d->fits = (rate->kind != MPOL_RATE_BLOCKED);
    d->remaining = d->fits ? MPOL_NEVER : 0;
    d->retry = d->fits ? 0 : MPOL_NEVER;
}


static int
mpol_set_begin(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now)
{
    int  pruned;

    pruned = mpol_set_prune(s, now);

    return mpol_set_clamp(s, now + rate->period) || pruned;
}


static void
mpol_set_judge(const mpol_set_t *s, uint64_t room, uint64_t now, uint64_t n,
    mpol_decision_t *d)
{
    size_t  i;

    d->used = s->n;
    d->remaining = (s->n < room) ? room - s->n : 0;
    d->fits = (n == 0 || (s->n < room && s->n < s->max));

    if (d->fits) {
        d->retry = 0;

    } else if (room == 0) {
        d->retry = MPOL_NEVER;

    } else {
        /* this one has to go, and all before it */
        i = (s->n < room) ? 0 : s->n - (size_t) room;
        d->retry = s->entries[i].expires - now;
    }
}


static void
mpol_set_cut(mpol_set_t *s, size_t from, size_t n)
{
    if (n == 0) {
        return;
    }

    memmove(&s->entries[from], &s->entries[from + n],
            (s->n - from - n) * sizeof(mpol_set_entry_t));

    s->n -= n;
}
