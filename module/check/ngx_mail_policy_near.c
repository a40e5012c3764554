
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Keys of which four fifths are used, or more: they are on the board, and a
 * charge that brings one there is told of once in a window, in the error log,
 * in the stream of events, and by a counter of its limit.
 *
 * Who has told is known to Redis, for all edges, and until then to the board,
 * so that Redis is not asked with each message; without Redis to the board
 * alone.  While Redis is away nobody tells.
 *
 * A count below five is full with its fourth fifth: that is no warning.
 *
 * One answer arrives here, told(), by when the check may be gone.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_board.h"
#include "ngx_mail_policy_verdict.h"


#define NGX_MAIL_POLICY_NEAR_MIN       5
#define NGX_MAIL_POLICY_NEAR_SESSIONS  ((uint64_t) 3600 * 1000000)
#define NGX_MAIL_POLICY_NEAR_MAX       ((uint64_t) 366 * 86400 * 1000000)

/* of its time a worker does not ask Redis again; of a minute at most */
#define NGX_MAIL_POLICY_NEAR_PART      16
#define NGX_MAIL_POLICY_NEAR_ASK       ((uint64_t) 60 * 1000000)


static void ngx_mail_policy_near_unit(ngx_mail_policy_check_t *check,
    ngx_uint_t i, ngx_uint_t unit);
static void ngx_mail_policy_near_warn(ngx_mail_policy_check_t *check,
    ngx_uint_t i, ngx_uint_t unit, uint64_t used, uint64_t max);
static uint64_t ngx_mail_policy_near_time(mpol_rate_t *rate,
    ngx_uint_t unit);
static void ngx_mail_policy_near_told(ngx_str_t *id, ngx_str_t *words,
    ngx_uint_t n, ngx_uint_t block);


void
ngx_mail_policy_near(ngx_mail_policy_check_t *check)
{
    ngx_uint_t                 i, u, kind;
    ngx_mail_policy_charge_t  *charge;

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        if (charge->open) {
            continue;
        }

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            kind = charge->units[u].rate.kind;

            if ((charge->asked & ngx_mail_policy_asked(u))
                && (kind == MPOL_RATE_WINDOW || kind == MPOL_RATE_BUCKET))
            {
                ngx_mail_policy_near_unit(check, i, u);
            }
        }
    }
}


/*
 * A charge that passed says what is left behind it; one that did not, what is
 * used.  So does a login, which is a failure only if it comes to one.
 */

static void
ngx_mail_policy_near_unit(ngx_mail_policy_check_t *check, ngx_uint_t i,
    ngx_uint_t unit)
{
    uint64_t                   used, max, life;
    mpol_rate_t               *rate;
    mpol_decision_t           *decision;
    ngx_mail_policy_charge_t  *charge;

    charge = &check->ask->charges[i];
    rate = &charge->units[unit].rate;
    decision = &charge->units[unit].decision;

    max = (rate->kind == MPOL_RATE_BUCKET) ? rate->burst : rate->count;
    used = decision->used;

    if (charge->charged && unit != NGX_MAIL_POLICY_AUTH_FAILURES) {
        used = max - ngx_min(decision->remaining, max);
    }

    /* both are below 2^54 */

    if (used * 5 < max * 4) {
        return;
    }

    life = (rate->kind == MPOL_RATE_BUCKET)
           ? mpol_rate_cost(rate, ngx_min(used, max)) : rate->period;

    ngx_mail_policy_board_near(&charge->name,
                               &ngx_mail_policy_store_units[unit],
                               &charge->key, used, max,
                               ngx_time() + life / 1000000 + 1);

    if (charge->charged && max >= NGX_MAIL_POLICY_NEAR_MIN) {
        ngx_mail_policy_near_warn(check, i, unit, used, max);
    }
}


static void
ngx_mail_policy_near_warn(ngx_mail_policy_check_t *check, ngx_uint_t i,
    ngx_uint_t unit, uint64_t used, uint64_t max)
{
    uint64_t                   time, known;
    ngx_int_t                  rc;
    ngx_str_t                 *name, action = ngx_string("near");
    ngx_uint_t                 block, redis;
    ngx_mail_policy_words_t    words;
    ngx_mail_policy_charge_t  *charge;

    charge = &check->ask->charges[i];
    block = check->limits[i]->block;
    name = &ngx_mail_policy_store_units[unit];

    redis = ngx_mail_policy_store_has_records(check->store);
    time = ngx_mail_policy_near_time(&charge->units[unit].rate, unit);
    known = time;

    if (redis) {
        known = ngx_min(time / NGX_MAIL_POLICY_NEAR_PART,
                        NGX_MAIL_POLICY_NEAR_ASK);

        if (charge->local) {
            return;
        }
    }

    rc = ngx_mail_policy_board_once(&charge->id, name, known);

    if (rc == NGX_DECLINED || (rc == NGX_ERROR && !redis)) {
        return;
    }

    ngx_mail_policy_verdict_words(check, charge, unit, &action, used, max, 0,
                                  &words);

    if (redis) {
        ngx_mail_policy_store_event_once(check->store, charge, unit,
                                         time / 1000, words.words,
                                         NGX_MAIL_POLICY_WORDS,
                                         ngx_mail_policy_near_told, block);
        return;
    }

    ngx_mail_policy_near_told(&charge->id, words.words, NGX_MAIL_POLICY_WORDS,
                              block);
}


/*
 * Microseconds in which it is told once: what a window is, how long an empty
 * bucket takes; sessions have neither.
 */

static uint64_t
ngx_mail_policy_near_time(mpol_rate_t *rate, ngx_uint_t unit)
{
    uint64_t  time;

    if (unit == NGX_MAIL_POLICY_SESSIONS) {
        return NGX_MAIL_POLICY_NEAR_SESSIONS;
    }

    time = (rate->kind == MPOL_RATE_BUCKET)
           ? mpol_rate_cost(rate, rate->burst) : rate->period;

    time = ngx_max(time, 1000000);

    return ngx_min(time, NGX_MAIL_POLICY_NEAR_MAX);
}


/* the key as it is in Redis: what clients say may have any octets */

static void
ngx_mail_policy_near_told(ngx_str_t *id, ngx_str_t *words, ngx_uint_t n,
    ngx_uint_t block)
{
    ngx_str_t  key;

    key.data = id->data + words[1].len + sizeof(":{") - 1;
    key.len = id->data + id->len - sizeof("}") + 1 - key.data;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "limit \"%V\" of %V is near, %V of %V are used, key: %V, "
                  "client: %V", &words[1], &words[5], &words[9], &words[11],
                  &key, &words[15]);

    ngx_mail_policy_metrics_add(block + NGX_MAIL_POLICY_METRIC_LIMIT_NEAR, 1);
}
