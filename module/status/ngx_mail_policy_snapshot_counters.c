
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The counters of a snapshot, and what they were in the last hour.  No events
 * arrive here.
 *
 * Steps of history are missing where there were none yet, or nobody could
 * write them: a total stands for all steps until the next one, and the first
 * one for all before.  Steps go by a clock that is never set.
 */


#include "ngx_mail_policy_snapshot.h"


#define NGX_MAIL_POLICY_SNAPSHOT_MINUTE  (60 / NGX_MAIL_POLICY_PAST_STEP)

#define NGX_MAIL_POLICY_SNAPSHOT_RATE    10000      /* ms, at least */


static ngx_int_t ngx_mail_policy_snapshot_blocks(
    ngx_mail_policy_snapshot_t *s, ngx_mail_policy_metrics_t *metrics);
static ngx_int_t ngx_mail_policy_snapshot_push(ngx_array_t *blocks,
    ngx_str_t *name, ngx_str_t *address, uint64_t *counters);
static uint64_t ngx_mail_policy_snapshot_first(
    ngx_mail_policy_metrics_t *metrics, uint64_t now, uint64_t *totals);
static uint64_t ngx_mail_policy_snapshot_oldest(uint64_t now);
static void ngx_mail_policy_snapshot_rate(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics, uint64_t now);
static void ngx_mail_policy_snapshot_less(uint64_t *to, uint64_t *now,
    uint64_t *then);


ngx_int_t
ngx_mail_policy_snapshot_counters(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics)
{
    ngx_uint_t  i;

    s->started = metrics->shm->started;

    for (i = 0; i < NGX_MAIL_POLICY_GAUGES; i++) {
        s->gauges[i] = ngx_mail_policy_metrics_now(metrics, i);
    }

    for (i = 0; i < NGX_MAIL_POLICY_METRIC_FIXED; i++) {
        s->counters[i] = ngx_mail_policy_metrics_total(metrics, i);
    }

    return ngx_mail_policy_snapshot_blocks(s, metrics);
}


/* the first of each kind is what no room was for: shown if there was any */

static ngx_int_t
ngx_mail_policy_snapshot_blocks(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics)
{
    uint64_t                  sum, counters[NGX_MAIL_POLICY_METRICS_BLOCK];
    ngx_str_t                 name, address;
    ngx_uint_t                i, k, n;
    ngx_array_t              *blocks;
    ngx_mail_policy_block_e   kind;

    for (i = 0; /* void */ ; i++) {
        n = ngx_mail_policy_metrics_block_get(metrics, i, &kind, &name,
                                              &address);
        if (n == 0) {
            return NGX_OK;
        }

        sum = 0;

        for (k = 0; k < NGX_MAIL_POLICY_METRICS_BLOCK; k++) {
            counters[k] = ngx_mail_policy_metrics_total(metrics, n + k);
            sum += counters[k];
        }

        if (i < NGX_MAIL_POLICY_BLOCK_KINDS && sum == 0) {
            continue;
        }

        blocks = (kind == NGX_MAIL_POLICY_BLOCK_LIMIT) ? &s->limits
                 : (kind == NGX_MAIL_POLICY_BLOCK_PEER) ? &s->relays
                 : &s->services;

        if (ngx_mail_policy_snapshot_push(blocks, &name, &address, counters)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }
}


/* two of a name are added up: what a form shows has its name to itself */

static ngx_int_t
ngx_mail_policy_snapshot_push(ngx_array_t *blocks, ngx_str_t *name,
    ngx_str_t *address, uint64_t *counters)
{
    ngx_uint_t                         i;
    ngx_mail_policy_snapshot_block_t  *block;

    block = blocks->elts;

    for (i = 0; i < blocks->nelts; i++, block++) {
        if (ngx_mail_policy_metrics_block_is(&block->name, name)
            && ngx_mail_policy_metrics_block_is(&block->address, address))
        {
            break;
        }
    }

    if (i == blocks->nelts) {
        block = ngx_array_push(blocks);
        if (block == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(block, sizeof(ngx_mail_policy_snapshot_block_t));

        block->name = *name;
        block->address = *address;
    }

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_BLOCK; i++) {
        block->counters[i] += counters[i];
    }

    return NGX_OK;
}


/*
 * Minutes are of six steps, so that one that is over stays as it is.  The
 * last one goes from its beginning until now.
 */

void
ngx_mail_policy_snapshot_past(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics)
{
    uint64_t    step, now, begin, msec, from[NGX_MAIL_POLICY_PASTS];
    uint64_t    then[NGX_MAIL_POLICY_PASTS], next[NGX_MAIL_POLICY_PASTS];
    ngx_uint_t  minute;

    ngx_mail_policy_metrics_past_now(metrics, s->totals);

    now = ngx_mail_policy_metrics_step();
    begin = now - now % NGX_MAIL_POLICY_SNAPSHOT_MINUTE;
    s->minute = s->now - (now - begin) * NGX_MAIL_POLICY_PAST_STEP;

    step = ngx_mail_policy_snapshot_first(metrics, now, then);

    if (step == 0) {
        return;
    }

    s->known = (now - step) / NGX_MAIL_POLICY_SNAPSHOT_MINUTE;

    ngx_mail_policy_snapshot_less(s->hour, s->totals, then);
    ngx_mail_policy_snapshot_rate(s, metrics, now);

    ngx_memcpy(from, then, sizeof(from));

    for ( /* void */ ; step <= now; step++) {

        if (ngx_mail_policy_metrics_past(metrics, step, next, &msec)) {
            ngx_memcpy(then, next, sizeof(then));
        }

        if (step % NGX_MAIL_POLICY_SNAPSHOT_MINUTE != 0) {
            continue;
        }

        /* begins with this step */
        minute = (begin - step) / NGX_MAIL_POLICY_SNAPSHOT_MINUTE;

        if (minute + 1 < NGX_MAIL_POLICY_SNAPSHOT_MINUTES) {
            minute = NGX_MAIL_POLICY_SNAPSHOT_MINUTES - 1 - minute;
            ngx_mail_policy_snapshot_less(s->minutes[minute - 1], then, from);
        }

        ngx_memcpy(from, then, sizeof(from));
    }

    ngx_mail_policy_snapshot_less(
        s->minutes[NGX_MAIL_POLICY_SNAPSHOT_MINUTES - 1], s->totals, from);
}


/* the oldest step there is of the last hour; 0: none */

static uint64_t
ngx_mail_policy_snapshot_first(ngx_mail_policy_metrics_t *metrics,
    uint64_t now, uint64_t *totals)
{
    uint64_t  step, msec;

    for (step = ngx_mail_policy_snapshot_oldest(now); step <= now; step++) {
        if (ngx_mail_policy_metrics_past(metrics, step, totals, &msec)) {
            return step;
        }
    }

    return 0;
}


static uint64_t
ngx_mail_policy_snapshot_oldest(uint64_t now)
{
    return (now > NGX_MAIL_POLICY_PAST_STEPS)
           ? now - NGX_MAIL_POLICY_PAST_STEPS + 1 : 1;
}


/* since the newest step that is old enough; or the oldest there is */

static void
ngx_mail_policy_snapshot_rate(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics, uint64_t now)
{
    uint64_t    step, msec, age, oldest;
    uint64_t    then[NGX_MAIL_POLICY_PASTS], less[NGX_MAIL_POLICY_PASTS];
    ngx_uint_t  i;

    age = 0;
    oldest = ngx_mail_policy_snapshot_oldest(now);

    for (step = now; step >= oldest; step--) {

        if (!ngx_mail_policy_metrics_past(metrics, step, then, &msec)) {
            continue;
        }

        age = ngx_mail_policy_metrics_usec() / 1000 - msec;
        ngx_mail_policy_snapshot_less(less, s->totals, then);

        if (age >= NGX_MAIL_POLICY_SNAPSHOT_RATE) {
            break;
        }
    }

    /* of less than a second nothing can be said */

    for (i = 0; age >= 1000 && i < NGX_MAIL_POLICY_PASTS; i++) {
        s->rate[i] = less[i] * 1000 / age * 1000
                     + less[i] * 1000 % age * 1000 / age;
    }
}


static void
ngx_mail_policy_snapshot_less(uint64_t *to, uint64_t *now, uint64_t *then)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        to[i] = (now[i] > then[i]) ? now[i] - then[i] : 0;
    }
}
