
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the limits of a check decided, for the metrics.  No events arrive
 * here.
 *
 * A decision is the store's answer to one question of a check about one limit:
 * what a connection, a login, MAIL, a RCPT, or the octets at the end of the
 * message cost.  Each limit is counted by its own answer, once: one that had
 * room passed, also if another one refused and nothing was charged.  One that
 * delayed (tarpit) is counted as it does so for the first time; what comes of
 * the delay makes no further one.  A greeting asks, and decides nothing; nor
 * does a limit of which no rate is in force.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_verdict.h"


static void ngx_mail_policy_decision_one(ngx_mail_policy_check_t *check,
    ngx_uint_t i);
static ngx_uint_t ngx_mail_policy_decision_in_force(
    ngx_mail_policy_charge_t *charge);
static void ngx_mail_policy_decision_add(ngx_mail_policy_limit_t *limit,
    ngx_uint_t decision);
static void ngx_mail_policy_decision_hit(ngx_mail_policy_check_t *check,
    ngx_uint_t i, ngx_mail_policy_hit_t *hit);


void
ngx_mail_policy_decision(ngx_mail_policy_check_t *check)
{
    ngx_uint_t  i;

    if (ngx_mail_policy_metrics == NULL) {
        return;
    }

    for (i = 0; i < check->ask->ncharges; i++) {

        if (check->slowed == NULL || !check->slowed[i]) {
            ngx_mail_policy_decision_one(check, i);
        }
    }
}


void
ngx_mail_policy_decision_slowed(ngx_mail_policy_check_t *check)
{
    ngx_uint_t                 i;
    ngx_mail_policy_charge_t  *charge;

    if (check->slowed == NULL) {
        check->slowed = ngx_pcalloc(check->ask->pool, check->ask->ncharges);
        if (check->slowed == NULL) {
            return;
        }
    }

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        if (check->slowed[i] || charge->soft
            || ngx_mail_policy_charge_fits(charge))
        {
            continue;
        }

        check->slowed[i] = 1;

        ngx_mail_policy_decision_add(check->limits[i],
                                     NGX_MAIL_POLICY_METRIC_LIMIT_TARPIT);
    }
}


static void
ngx_mail_policy_decision_one(ngx_mail_policy_check_t *check, ngx_uint_t i)
{
    ngx_uint_t                 decision;
    ngx_mail_policy_limit_t   *limit;
    ngx_mail_policy_charge_t  *charge;

    limit = check->limits[i];
    charge = &check->ask->charges[i];

    if (!ngx_mail_policy_decision_in_force(charge)) {
        return;
    }

    /* of several calls to a Cluster some may have no answer: no time */

    if (check->ask->rc == NGX_ERROR || charge->open || charge->at == 0) {
        decision = NGX_MAIL_POLICY_METRIC_LIMIT_ERROR;

    } else if (ngx_mail_policy_charge_fits(charge)) {
        decision = NGX_MAIL_POLICY_METRIC_LIMIT_PASS;

    } else if (!charge->soft || ngx_mail_policy_verdict_relays(check, i)) {
        decision = NGX_MAIL_POLICY_METRIC_LIMIT_DEFER + limit->exceed;

    } else {
        decision = NGX_MAIL_POLICY_METRIC_LIMIT_REPORT;
    }

    ngx_mail_policy_decision_add(limit, decision);
}


static ngx_uint_t
ngx_mail_policy_decision_in_force(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t  u;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if ((charge->asked & ngx_mail_policy_asked(u))
            && charge->units[u].rate.kind != MPOL_RATE_NONE)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_mail_policy_decision_add(ngx_mail_policy_limit_t *limit,
    ngx_uint_t decision)
{
    ngx_mail_policy_metrics_add(limit->block + decision, 1);
}


void
ngx_mail_policy_decision_init(ngx_array_t *limits)
{
    ngx_uint_t                 i, k;
    ngx_array_t              **list;
    ngx_mail_policy_limit_t   *limit;

    list = limits->elts;

    for (i = 0; i < limits->nelts; i++) {
        limit = list[i]->elts;

        for (k = 0; k < list[i]->nelts; k++) {
            limit[k].block = ngx_mail_policy_metrics_block(
                                 NGX_MAIL_POLICY_BLOCK_LIMIT, &limit[k].name,
                                 NULL);
        }
    }
}


/* without memory the log lacks those that were not told */

void
ngx_mail_policy_decision_hits(ngx_mail_policy_check_t *check)
{
    ngx_uint_t              i, n;
    ngx_array_t            *hits;
    ngx_mail_policy_hit_t  *hit;

    for (i = 0, n = 0; i < check->ask->ncharges; i++) {
        n += !ngx_mail_policy_charge_fits(&check->ask->charges[i]);
    }

    if (n < 2) {
        return;
    }

    hits = ngx_array_create(check->pool, n, sizeof(ngx_mail_policy_hit_t));
    if (hits == NULL) {
        return;
    }

    for (i = 0; i < check->ask->ncharges; i++) {

        if (!ngx_mail_policy_charge_fits(&check->ask->charges[i])) {
            hit = ngx_array_push(hits);
            ngx_mail_policy_decision_hit(check, i, hit);
        }
    }

    check->verdict->hits = hits;
}


/* the unit that takes longest to have room again */

static void
ngx_mail_policy_decision_hit(ngx_mail_policy_check_t *check, ngx_uint_t i,
    ngx_mail_policy_hit_t *hit)
{
    uint64_t                        longest;
    ngx_uint_t                      u, exceed;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    charge = &check->ask->charges[i];
    exceed = check->limits[i]->exceed;

    if (charge->soft && !ngx_mail_policy_verdict_relays(check, i)) {
        exceed = NGX_MAIL_POLICY_REPORT;
    }

    ngx_memzero(hit, sizeof(ngx_mail_policy_hit_t));

    hit->limit = charge->name;
    hit->action = ngx_mail_policy_exceed_names[exceed];
    longest = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        unit = &charge->units[u];

        if (!(charge->asked & ngx_mail_policy_asked(u))
            || unit->decision.fits || unit->decision.retry < longest)
        {
            continue;
        }

        longest = unit->decision.retry;

        hit->used = unit->decision.used;
        hit->max = (unit->rate.kind == MPOL_RATE_BUCKET) ? unit->rate.burst
                                                         : unit->rate.count;
        hit->retry = (longest < MPOL_NEVER) ? (longest + 999999) / 1000000
                                            : 0;
    }
}
