
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is kept under one key: judged, charged, given back, learned.  No
 * events arrive here.  As charge.lua and giveback.lua do it; the arithmetic
 * is that of mpol_local.h and mpol_set.h.
 *
 *     loaded --> judge() --> count()  -----\
 *            \-------------> uncount() ----+--> saved
 *            \-------------> remember() ---/
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_shm_node.h"


static mpol_learned_t *ngx_mail_policy_shm_learned(
    ngx_mail_policy_shm_state_t *st, ngx_uint_t u);
static void ngx_mail_policy_shm_rate(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u);
static ngx_uint_t ngx_mail_policy_shm_check(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, uint64_t now,
    uint64_t amount, mpol_decision_t *d);
static ngx_uint_t ngx_mail_policy_shm_check_set(
    ngx_mail_policy_shm_set_t *set, ngx_mail_policy_charge_t *charge,
    ngx_uint_t u, ngx_uint_t exempt, uint64_t now, uint64_t amount,
    mpol_decision_t *d);
static mpol_set_t *ngx_mail_policy_shm_everybody(
    ngx_mail_policy_shm_set_t *set, uint64_t now);
static uint64_t ngx_mail_policy_shm_full(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, uint64_t now);
static ngx_uint_t ngx_mail_policy_shm_uncount_lease(
    ngx_mail_policy_shm_state_t *st, ngx_mail_policy_charge_t *charge,
    ngx_uint_t local);
static ngx_uint_t ngx_mail_policy_shm_uncount_failed(
    ngx_mail_policy_shm_state_t *st, ngx_mail_policy_charge_t *charge,
    uint64_t now, ngx_uint_t ok);
static ngx_uint_t ngx_mail_policy_shm_remember_set(
    ngx_mail_policy_shm_set_t *set, ngx_mail_policy_charge_t *charge,
    ngx_uint_t u, uint64_t now);
static uint64_t ngx_mail_policy_shm_member(ngx_mail_policy_charge_t *charge,
    ngx_uint_t u);
static uint64_t ngx_mail_policy_shm_tag(ngx_str_t *tag);


/* of a set, with those whose members are not known */
static ngx_mail_policy_shm_set_t  ngx_mail_policy_shm_all;


ngx_uint_t
ngx_mail_policy_shm_judge(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t *changed,
    uint64_t *refused)
{
    uint64_t                        until;
    ngx_uint_t                      u, fits;
    ngx_mail_policy_charge_unit_t  *unit;

    fits = 1;
    *changed = 0;
    *refused = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        if (!(charge->asked & ngx_mail_policy_asked(u))) {
            continue;
        }

        unit = &charge->units[u];

        ngx_mail_policy_shm_rate(st, charge, u);

        *changed |= ngx_mail_policy_shm_check(st, charge, u, now,
                                              unit->amount, &unit->decision);

        if (unit->decision.fits) {
            continue;
        }

        fits = 0;

        if (unit->decision.retry != MPOL_NEVER) {
            until = now + unit->decision.retry;
            *refused = ngx_max(*refused, until);
        }
    }

    return fits;
}


/* the rate in force: a learned one is of somebody who knows more */

static void
ngx_mail_policy_shm_rate(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u)
{
    unsigned                        from;
    mpol_learned_t                 *learned;
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &charge->units[u];
    learned = ngx_mail_policy_shm_learned(st, u);

    /* but it may be suspended */

    if (charge->forced
        && (learned->rate.kind != MPOL_RATE_BLOCKED
            || learned->from != NGX_MAIL_POLICY_FROM_OWN))
    {
        return;
    }

    from = unit->from;
    mpol_learned_rate(learned, &unit->rate, &from);
    unit->from = from;
}


static mpol_learned_t *
ngx_mail_policy_shm_learned(ngx_mail_policy_shm_state_t *st, ngx_uint_t u)
{
    if (u < NGX_MAIL_POLICY_SHM_COUNTERS) {
        return &st->counters[u].learned;
    }

    return (u == NGX_MAIL_POLICY_SESSIONS) ? &st->sessions.learned
                                           : &st->failed.learned;
}


/* 1 if something had to be brought to now */

static ngx_uint_t
ngx_mail_policy_shm_check(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, uint64_t now,
    uint64_t amount, mpol_decision_t *d)
{
    mpol_rate_t       *rate;
    mpol_set_entry_t  *entry;

    rate = &charge->units[u].rate;

    if (u < NGX_MAIL_POLICY_SHM_COUNTERS) {

        /* nothing is charged: it fits unless it is blocked */
        return mpol_local_check(&st->counters[u], rate, now, amount, d);
    }

    if (u == NGX_MAIL_POLICY_SESSIONS) {
        return ngx_mail_policy_shm_check_set(&st->sessions, charge, u, 0, now,
                                             amount, d);
    }

    entry = mpol_set_find(&st->exempt.set,
                          ngx_mail_policy_shm_tag(&charge->client));

    return ngx_mail_policy_shm_check_set(&st->failed, charge, u,
                                         entry && entry->expires > now,
                                         now, amount, d);
}


static ngx_uint_t
ngx_mail_policy_shm_check_set(ngx_mail_policy_shm_set_t *set,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, ngx_uint_t exempt,
    uint64_t now, uint64_t amount, mpol_decision_t *d)
{
    uint64_t      member;
    ngx_uint_t    i, changed;
    mpol_set_t   *sets[2];
    mpol_rate_t  *rate;

    rate = &charge->units[u].rate;
    member = ngx_mail_policy_shm_member(charge, u);

    changed = 0;

    if (set->learned.at > now) {
        set->learned.at = now;
        changed = 1;
    }

    /* those that are known are brought to now, and then all are judged */

    sets[0] = &set->set;
    sets[1] = NULL;

    for (i = 0; i < 2 && sets[i]; i++) {

        if (u == NGX_MAIL_POLICY_SESSIONS) {
            changed |= mpol_lease_check(sets[i], rate, now, member, amount,
                                        d);

        } else {
            changed |= mpol_failed_check(sets[i], rate, exempt, now, member,
                                         amount, d);
        }

        if (i == 0 && set->learned.used) {
            sets[1] = ngx_mail_policy_shm_everybody(set, now);
        }
    }

    return changed;
}


/* with the members that only Redis knows; NULL if they count no more */

static mpol_set_t *
ngx_mail_policy_shm_everybody(ngx_mail_policy_shm_set_t *set, uint64_t now)
{
    uint64_t     until;
    mpol_set_t  *all;

    until = set->learned.at + set->learned.rate.period;

    if (until <= now) {
        return NULL;
    }

    all = &ngx_mail_policy_shm_all.set;

    all->entries = ngx_mail_policy_shm_all.entries;
    all->max = MPOL_SET_MAX;
    all->n = set->set.n;

    ngx_memcpy(all->entries, set->entries,
               set->set.n * sizeof(mpol_set_entry_t));

    mpol_set_strangers(all, set->learned.used, until);

    return all;
}


ngx_uint_t
ngx_mail_policy_shm_counted(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t                      u, units;
    ngx_mail_policy_charge_unit_t  *unit;

    units = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        unit = &charge->units[u];

        if (unit->amount
            && (unit->rate.kind == MPOL_RATE_WINDOW
                || (unit->rate.kind == MPOL_RATE_BUCKET
                    && u < NGX_MAIL_POLICY_SHM_COUNTERS)))
        {
            units |= ngx_mail_policy_asked(u);
        }
    }

    return units & charge->asked;
}


uint64_t
ngx_mail_policy_shm_count(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now)
{
    uint64_t                        until, refused;
    ngx_uint_t                      u, units;
    mpol_decision_t                 after;
    ngx_mail_policy_charge_unit_t  *unit;

    refused = 0;
    units = ngx_mail_policy_shm_counted(charge);

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        if (!(units & ngx_mail_policy_asked(u))) {
            continue;
        }

        unit = &charge->units[u];

        if (u == NGX_MAIL_POLICY_SESSIONS) {
            (void) mpol_lease_charge(&st->sessions.set, &unit->rate, now,
                                     ngx_mail_policy_shm_member(charge, u),
                                     MPOL_SET_MARKED, &unit->decision);

        } else if (u == NGX_MAIL_POLICY_AUTH_FAILURES) {
            (void) mpol_failed_charge(&st->failed.set, &unit->rate, now,
                                      ngx_mail_policy_shm_member(charge, u),
                                      MPOL_SET_MARKED, &unit->decision);

        } else {
            mpol_local_charge(&st->counters[u], &unit->rate, unit->from, now,
                              unit->amount);

            /* as charge.lua: used is before, remaining after the charge */

            if (unit->rate.kind == MPOL_RATE_WINDOW) {
                unit->decision.remaining -= ngx_min(unit->amount,
                                                    unit->decision.remaining);

            } else {
                (void) mpol_local_check(&st->counters[u], &unit->rate, now, 0,
                                        &after);
                unit->decision.remaining = after.remaining;
            }
        }

        if (unit->decision.remaining == 0) {
            until = ngx_mail_policy_shm_full(st, charge, u, now);
            refused = ngx_max(refused, until);
        }
    }

    return refused;
}


/* until when nothing more fits; who has not asked yet is over it, too */

static uint64_t
ngx_mail_policy_shm_full(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, uint64_t now)
{
    ngx_str_t        member;
    mpol_decision_t  d;

    /* nobody's */
    member = charge->member;
    ngx_str_null(&charge->member);

    (void) ngx_mail_policy_shm_check(st, charge, u, now, 1, &d);

    charge->member = member;

    return (d.fits || d.retry == MPOL_NEVER) ? 0 : now + d.retry;
}


ngx_uint_t
ngx_mail_policy_shm_uncount(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t local,
    ngx_uint_t ok)
{
    uint64_t                        back;
    ngx_uint_t                      u, units, changed;
    ngx_mail_policy_charge_unit_t  *unit;

    changed = 0;
    units = ngx_mail_policy_shm_counted(charge);

    for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
        unit = &charge->units[u];

        if (!(units & ngx_mail_policy_asked(u)) || unit->kept >= unit->amount) {
            continue;
        }

        back = unit->amount - unit->kept;

        if (local) {
            mpol_local_give_back(&st->counters[u], &unit->rate, now,
                                 charge->at, back);
        } else {
            mpol_local_unlearn(&st->counters[u], &unit->rate, now,
                               charge->at, back);
        }

        changed = 1;
    }

    if (units & ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS)) {
        changed |= ngx_mail_policy_shm_uncount_lease(st, charge, local);
    }

    if (units & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES)) {
        changed |= ngx_mail_policy_shm_uncount_failed(st, charge, now, ok);
    }

    return changed;
}


static ngx_uint_t
ngx_mail_policy_shm_uncount_lease(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, ngx_uint_t local)
{
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &charge->units[NGX_MAIL_POLICY_SESSIONS];

    if (unit->kept >= unit->amount) {
        return 0;
    }

    if (mpol_set_remove(&st->sessions.set,
                        ngx_mail_policy_shm_member(charge,
                                                   NGX_MAIL_POLICY_SESSIONS)))
    {
        return 1;
    }

    /* then it was one of those */

    if (!local && st->sessions.learned.used) {
        st->sessions.learned.used--;
        return 1;
    }

    return 0;
}


static ngx_uint_t
ngx_mail_policy_shm_uncount_failed(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, ngx_uint_t ok)
{
    uint64_t                        member;
    ngx_uint_t                      changed;
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &charge->units[NGX_MAIL_POLICY_AUTH_FAILURES];
    member = ngx_mail_policy_shm_member(charge,
                                        NGX_MAIL_POLICY_AUTH_FAILURES);
    changed = 0;

    if (ok || unit->kept < unit->amount) {
        changed = mpol_failed_give_back(&st->failed.set, &unit->rate,
                                        charge->at, member, ok);
    }

    if (!ok) {
        return changed;
    }

    if (st->exempt.set.n == MPOL_SET_MAX) {
        (void) mpol_set_prune(&st->exempt.set, now);
    }

    (void) mpol_set_put(&st->exempt.set,
                        ngx_mail_policy_shm_tag(&charge->client),
                        now + unit->rate.period, 0);

    return 1;
}


void
ngx_mail_policy_shm_renew_lease(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now)
{
    uint64_t                        member;
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &charge->units[NGX_MAIL_POLICY_SESSIONS];
    member = ngx_mail_policy_shm_member(charge, NGX_MAIL_POLICY_SESSIONS);

    (void) mpol_set_prune(&st->sessions.set, now);

    /* it was one of those that are known by their number only */

    if (st->sessions.learned.used
        && mpol_set_find(&st->sessions.set, member) == NULL)
    {
        st->sessions.learned.used--;
    }

    (void) mpol_set_put(&st->sessions.set, member, now + unit->rate.period,
                        charge->local ? MPOL_SET_MARKED : 0);
}


ngx_uint_t
ngx_mail_policy_shm_remember(ngx_mail_policy_shm_state_t *st,
    ngx_mail_policy_charge_t *charge, uint64_t now, uint64_t *refused)
{
    uint64_t                        used, until;
    ngx_uint_t                      u, any;
    ngx_mail_policy_charge_unit_t  *unit;

    any = 0;
    *refused = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        if (!(charge->asked & ngx_mail_policy_asked(u))) {
            continue;
        }

        unit = &charge->units[u];

        if (!mpol_local_rate_valid(&unit->rate)) {
            continue;
        }

        if (u < NGX_MAIL_POLICY_SHM_COUNTERS) {
            used = unit->decision.used + (charge->charged ? unit->amount : 0);
            mpol_local_learn(&st->counters[u], &unit->rate, unit->from, now,
                             ngx_min(used, MPOL_NEVER));

        } else {
            used = ngx_mail_policy_shm_remember_set(
                       (u == NGX_MAIL_POLICY_SESSIONS) ? &st->sessions
                                                       : &st->failed,
                       charge, u, now);
        }

        if (used || (unit->rate.kind != MPOL_RATE_NONE
                     && unit->from != NGX_MAIL_POLICY_FROM_CONF))
        {
            any = 1;
        }

        if (unit->rate.kind == MPOL_RATE_BLOCKED) {
            /* as long as it is remembered at all */
            *refused = MPOL_NEVER;

        } else if (unit->decision.remaining == 0) {
            until = ngx_mail_policy_shm_full(st, charge, u, now);
            *refused = ngx_max(*refused, until);
        }
    }

    return any;
}


/* how many members there are by now */

static ngx_uint_t
ngx_mail_policy_shm_remember_set(ngx_mail_policy_shm_set_t *set,
    ngx_mail_policy_charge_t *charge, ngx_uint_t u, uint64_t now)
{
    size_t                          i;
    uint64_t                        used, known, member;
    mpol_set_entry_t               *entry;
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &charge->units[u];
    used = unit->decision.used;

    (void) mpol_set_prune(&set->set, now);

    if (charge->charged && unit->amount
        && unit->rate.kind == MPOL_RATE_WINDOW)
    {
        member = ngx_mail_policy_shm_member(charge, u);
        entry = mpol_set_find(&set->set, member);

        if (entry == NULL || (entry->flags & MPOL_SET_MARKED)) {
            used++;
        }

        if (entry && u == NGX_MAIL_POLICY_AUTH_FAILURES) {
            entry->flags = 0;

        } else {
            (void) mpol_set_put(&set->set, member, now + unit->rate.period,
                                0);
        }
    }

    known = 0;

    for (i = 0; i < set->set.n; i++) {
        if (!(set->entries[i].flags & MPOL_SET_MARKED)) {
            known++;
        }
    }

    ngx_memzero(&set->learned, sizeof(mpol_learned_t));

    if (unit->rate.kind != MPOL_RATE_NONE) {
        set->learned.rate = unit->rate;
        set->learned.from = ngx_min(unit->from, MPOL_FROM_MAX);
        set->learned.at = now;
        set->learned.used = (used > known) ? used - known : 0;
    }

    return set->set.n + set->learned.used;
}


static uint64_t
ngx_mail_policy_shm_member(ngx_mail_policy_charge_t *charge, ngx_uint_t u)
{
    ngx_str_t  *member;

    member = &charge->member;

    if (u == NGX_MAIL_POLICY_AUTH_FAILURES) {
        return ngx_mail_policy_shm_tag(member);
    }

    return (uint64_t) ngx_murmur_hash2(member->data, member->len) << 32
           | ngx_crc32_long(member->data, member->len);
}


/* four hex digits; what is none of that is nobody's */

static uint64_t
ngx_mail_policy_shm_tag(ngx_str_t *tag)
{
    ngx_int_t  n;

    n = (tag->len == 4) ? ngx_hextoi(tag->data, tag->len) : NGX_ERROR;

    return (n == NGX_ERROR) ? (uint64_t) -1 : (uint64_t) n;
}
