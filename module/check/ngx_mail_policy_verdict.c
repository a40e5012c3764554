
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the store answered, as a verdict: of several limits that refuse, the
 * one that takes longest is told.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_text.h"
#include "ngx_mail_policy_board.h"
#include "ngx_mail_policy_verdict.h"


#define NGX_MAIL_POLICY_VERDICT_TEXT  480   /* octets of a message= */


static ngx_uint_t ngx_mail_policy_verdict_within(
    ngx_mail_policy_check_t *check);
static void ngx_mail_policy_verdict_find(ngx_mail_policy_check_t *check,
    ngx_uint_t soft);
static void ngx_mail_policy_verdict_set(ngx_mail_policy_check_t *check,
    ngx_uint_t i, ngx_uint_t unit);
static void ngx_mail_policy_verdict_nearest(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_verdict_code(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_verdict_text(ngx_mail_policy_check_t *check);
static ngx_int_t ngx_mail_policy_verdict_message(
    ngx_mail_policy_check_t *check, u_char *status, size_t len);


/* what most checks come to, and what is left to say without memory */

static ngx_mail_policy_verdict_t  ngx_mail_policy_verdict_passed = {
    NGX_OK, 0, ngx_null_string, ngx_null_string, NULL, ngx_null_string,
    0, 0, 0, 0, 0, NULL, 0
};

static ngx_mail_policy_verdict_t  ngx_mail_policy_verdict_no_memory = {
    NGX_ERROR, 451, ngx_string("451 4.3.0 Temporary server problem, "
                               "try again later"),
    ngx_null_string, NULL, ngx_null_string, 0, 0, 0, 0, 0, NULL, 0
};


static ngx_mail_policy_verdict_t  ngx_mail_policy_verdict_busy = {
    NGX_BUSY, 0, ngx_null_string, ngx_null_string, NULL, ngx_null_string,
    0, 0, 0, 0, 0, NULL, 0
};


ngx_mail_policy_verdict_t *
ngx_mail_policy_verdict_plain(ngx_int_t rc)
{
    return (rc == NGX_OK) ? &ngx_mail_policy_verdict_passed
           : (rc == NGX_BUSY) ? &ngx_mail_policy_verdict_busy
           : &ngx_mail_policy_verdict_no_memory;
}


void
ngx_mail_policy_verdict(ngx_mail_policy_check_t *check)
{
    ngx_int_t                    rc;
    ngx_mail_policy_envelope_t  *e;

    rc = check->ask->rc;
    e = check->envelope;

    e->retry_after = 0;
    ngx_str_set(&e->verdict, "pass");

    if (rc == NGX_OK) {
        ngx_mail_policy_verdict_nearest(check);

        if (ngx_mail_policy_verdict_within(check)) {
            check->verdict = &ngx_mail_policy_verdict_passed;
            return;
        }
    }

    check->verdict = ngx_pcalloc(check->pool,
                                 sizeof(ngx_mail_policy_verdict_t));

    if (check->verdict == NULL) {
        check->verdict = (rc == NGX_OK) ? &ngx_mail_policy_verdict_passed
                                        : &ngx_mail_policy_verdict_no_memory;
        return;
    }

    check->verdict->rc = rc;

    if (rc == NGX_ERROR) {
        ngx_str_set(&check->verdict->action, "error");

    } else {
        ngx_mail_policy_verdict_find(check, rc == NGX_OK);
        ngx_mail_policy_decision_hits(check);
    }

    e->verdict = check->verdict->action;

    if (rc != NGX_OK) {
        ngx_mail_policy_verdict_code(check);
        ngx_mail_policy_verdict_text(check);
    }
}


/* 1 if no limit is exceeded, not even one that only reports */

static ngx_uint_t
ngx_mail_policy_verdict_within(ngx_mail_policy_check_t *check)
{
    ngx_uint_t  i;

    for (i = 0; i < check->ask->ncharges; i++) {
        if (!ngx_mail_policy_charge_fits(&check->ask->charges[i])) {
            return 0;
        }
    }

    return 1;
}


/* the first that relays, or the one that takes longest */

static void
ngx_mail_policy_verdict_find(ngx_mail_policy_check_t *check, ngx_uint_t soft)
{
    uint64_t                        longest;
    ngx_uint_t                      i, u, found;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    found = 0;
    longest = 0;

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        if (charge->soft != soft) {
            continue;
        }

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            unit = &charge->units[u];

            if (!(charge->asked & ngx_mail_policy_asked(u))
                || unit->decision.fits)
            {
                continue;
            }

            if (ngx_mail_policy_verdict_relays(check, i)) {
                ngx_mail_policy_verdict_set(check, i, u);
                check->verdict->upstream = check->limits[i]->upstream;
                return;
            }

            if (!found || unit->decision.retry > longest) {
                found = 1;
                longest = unit->decision.retry;

                ngx_mail_policy_verdict_set(check, i, u);
            }
        }
    }
}


ngx_uint_t
ngx_mail_policy_verdict_relays(ngx_mail_policy_check_t *check, ngx_uint_t i)
{
    return check->limits[i]->exceed == NGX_MAIL_POLICY_RELAY
           && ngx_mail_policy_check_enforced(check->limits[i],
                                             &check->ask->charges[i].key);
}


/* charge i did not fit in that unit */

static void
ngx_mail_policy_verdict_set(ngx_mail_policy_check_t *check, ngx_uint_t i,
    ngx_uint_t unit)
{
    ngx_uint_t                      exceed;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_verdict_t      *verdict;
    ngx_mail_policy_envelope_t     *e;
    ngx_mail_policy_charge_unit_t  *u;

    charge = &check->ask->charges[i];
    u = &charge->units[unit];
    verdict = check->verdict;
    e = check->envelope;

    exceed = check->limits[i]->exceed;

    if (charge->soft && !ngx_mail_policy_verdict_relays(check, i)) {
        exceed = NGX_MAIL_POLICY_REPORT;
    }

    verdict->charge = i;
    verdict->unit = unit;
    verdict->limit = charge->name;
    verdict->action = ngx_mail_policy_exceed_names[exceed];
    verdict->used = u->decision.used;
    verdict->max = (u->rate.kind == MPOL_RATE_BUCKET) ? u->rate.burst
                                                      : u->rate.count;

    /* a message that is larger than all that may pass will not fit later */

    verdict->never = (unit == NGX_MAIL_POLICY_BYTES
                      && (u->rate.kind == MPOL_RATE_WINDOW
                          || u->rate.kind == MPOL_RATE_BUCKET)
                      && e->message_size > verdict->max);

    verdict->retry = (u->decision.retry < MPOL_NEVER && !verdict->never)
                     ? (u->decision.retry + 999999) / 1000000 : 0;

    e->limit = charge->name;
    e->limit_remaining = u->decision.remaining;
    e->retry_after = verdict->retry;
}


/* $limit and $limit_remaining of what passes: where least is left */

static void
ngx_mail_policy_verdict_nearest(ngx_mail_policy_check_t *check)
{
    ngx_uint_t                      i, u;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_envelope_t     *e;
    ngx_mail_policy_charge_unit_t  *unit;

    e = check->envelope;

    ngx_str_null(&e->limit);
    e->limit_remaining = MPOL_NEVER;

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            unit = &charge->units[u];

            if ((charge->asked & ngx_mail_policy_asked(u))
                && u != NGX_MAIL_POLICY_BYTES
                && unit->decision.remaining < e->limit_remaining)
            {
                e->limit = charge->name;
                e->limit_remaining = unit->decision.remaining;
            }
        }
    }
}


static void
ngx_mail_policy_verdict_code(ngx_mail_policy_check_t *check)
{
    ngx_mail_policy_verdict_t  *verdict;

    verdict = check->verdict;

    switch (check->point) {

    case NGX_MAIL_POLICY_CHECK_CONNECT:
    case NGX_MAIL_POLICY_CHECK_LOGIN:
        verdict->code = 421;
        break;

    case NGX_MAIL_POLICY_CHECK_AUTH:
        verdict->code = 454;
        break;

    default:
        if (verdict->rc != NGX_DECLINED) {
            verdict->code = 451;

        } else if (verdict->never) {
            verdict->code = 552;

        } else {
            verdict->code = (check->limits[verdict->charge]->exceed
                             == NGX_MAIL_POLICY_REJECT) ? 550 : 450;
        }
    }
}


static void
ngx_mail_policy_verdict_text(ngx_mail_policy_check_t *check)
{
    size_t                      len;
    u_char                     *p;
    ngx_str_t                  *limit;
    ngx_mail_policy_verdict_t  *verdict;
    u_char                      status[sizeof("450 4.7.1 ")];

    verdict = check->verdict;
    limit = &verdict->limit;

    /* all that follows can fail, and then this is it */

    switch (verdict->code) {

    case 421:
        ngx_str_set(&verdict->text,
                    "421 4.7.0 Too many connections, try again later");
        break;

    case 454:
        ngx_str_set(&verdict->text,
                    "454 4.7.0 Temporary authentication failure");
        break;

    case 450:
        ngx_str_set(&verdict->text, "450 4.7.1 Rate limit exceeded");
        break;

    case 550:
        ngx_str_set(&verdict->text, "550 5.7.1 Rate limit exceeded");
        break;

    case 552:
        ngx_str_set(&verdict->text, "552 5.3.4 Message too big");
        break;

    default:
        ngx_str_set(&verdict->text,
                    "451 4.3.0 Temporary server problem, try again later");
    }

    if (verdict->rc != NGX_DECLINED) {

        if (verdict->code == 421) {
            ngx_str_set(&verdict->text, "421 4.3.0 Temporary server problem, "
                                        "try again later");
        }

        return;
    }

    len = sizeof("450 4.7.1 ") - 1;
    ngx_memcpy(status, verdict->text.data, len);

    if (check->limits[verdict->charge]->message.text.len
        && ngx_mail_policy_verdict_message(check, status, len) == NGX_OK)
    {
        return;
    }

    p = ngx_pnalloc(check->pool, len + sizeof("Too many failed logins (limit "
                                              "\"\"), retry in  s")
                                 + limit->len + NGX_INT64_LEN);
    if (p == NULL) {
        return;
    }

    verdict->text.data = p;
    p = ngx_cpymem(p, status, len);

    switch (verdict->never ? NGX_MAIL_POLICY_UNITS : verdict->unit) {

    case NGX_MAIL_POLICY_UNITS:
        p = ngx_sprintf(p, "Message too big for limit \"%V\"", limit);
        break;

    case NGX_MAIL_POLICY_SESSIONS:
        p = ngx_sprintf(p, "Too many sessions (limit \"%V\")", limit);
        break;

    case NGX_MAIL_POLICY_AUTH_FAILURES:
        p = ngx_sprintf(p, "Too many failed logins (limit \"%V\")", limit);
        break;

    default:
        p = ngx_sprintf(p, "Rate limit \"%V\" exceeded", limit);
    }

    if (verdict->retry && verdict->unit != NGX_MAIL_POLICY_SESSIONS) {
        p = ngx_sprintf(p, ", retry in %uL s", verdict->retry);
    }

    verdict->text.len = p - verdict->text.data;
    *p = '\0';
}


/* the operator's own words; what variables bring is made harmless */

static ngx_int_t
ngx_mail_policy_verdict_message(ngx_mail_policy_check_t *check,
    u_char *status, size_t len)
{
    u_char     *p;
    ngx_str_t   message, *text;

    if (ngx_mail_policy_value_eval(check->pool,
                              &check->limits[check->verdict->charge]->message,
                              check->envelope, &message)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* OUT-4: a status is never left without a text */

    while (message.len && message.data[0] == ' ') {
        message.data++;
        message.len--;
    }

    if (message.len == 0) {
        return NGX_ERROR;
    }

    message.len = ngx_min(message.len, NGX_MAIL_POLICY_VERDICT_TEXT);

    text = &check->verdict->text;

    p = ngx_pnalloc(check->pool, len + message.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;
    text->len = len + message.len;

    p = ngx_cpymem(p, status, len);
    mpol_reply_clean(message.data, message.len, p);
    p[message.len] = '\0';

    return NGX_OK;
}


ngx_uint_t
ngx_mail_policy_verdict_delays(ngx_mail_policy_check_t *check,
    uint64_t *retry)
{
    ngx_uint_t                      i, u;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    *retry = 0;

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        if (charge->soft) {
            continue;
        }

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            unit = &charge->units[u];

            if (!(charge->asked & ngx_mail_policy_asked(u))
                || unit->decision.fits)
            {
                continue;
            }

            /* nor is it of use to wait for what never comes */

            if (check->limits[i]->exceed != NGX_MAIL_POLICY_TARPIT
                || check->verdict->never
                || unit->decision.retry >= MPOL_NEVER)
            {
                return 0;
            }

            *retry = ngx_max(*retry, unit->decision.retry);
        }
    }

    return 1;
}


void
ngx_mail_policy_verdict_tell(ngx_mail_policy_check_t *check)
{
    u_char                      *p, text[sizeof("limit ")
                                         + NGX_MAIL_POLICY_NAME_MAX];
    ngx_str_t                    reason, *unit;
    ngx_mail_policy_charge_t    *charge;
    ngx_mail_policy_words_t      words;
    ngx_mail_policy_verdict_t   *verdict;

    verdict = check->verdict;

    if (verdict->limit.len == 0) {
        return;
    }

    charge = &check->ask->charges[verdict->charge];
    unit = &ngx_mail_policy_store_units[verdict->unit];

    ngx_log_error(NGX_LOG_INFO, check->envelope->connection->log, 0,
                  "limit \"%V\" of %V exceeded, %V: %uL of %uL",
                  &verdict->limit, unit, &verdict->action, verdict->used,
                  verdict->max);

    ngx_mail_policy_verdict_words(check, charge, verdict->unit,
                                  &verdict->action, verdict->used,
                                  verdict->max, verdict->retry, &words);

    ngx_mail_policy_store_event(check->store, words.words,
                                NGX_MAIL_POLICY_WORDS);

    if (verdict->rc == NGX_DECLINED) {
        p = ngx_snprintf(text, sizeof(text), "limit %V", &verdict->limit);

        reason.data = text;
        reason.len = p - text;

        ngx_mail_policy_board_refused(&reason, &charge->key);
    }
}


void
ngx_mail_policy_verdict_words(ngx_mail_policy_check_t *check,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit, ngx_str_t *action,
    uint64_t used, uint64_t max, uint64_t retry,
    ngx_mail_policy_words_t *words)
{
    u_char                      *p;
    ngx_str_t                   *w;
    ngx_uint_t                   i;
    ngx_mail_policy_envelope_t  *e;

    static ngx_str_t  names[] = {
        ngx_string("limit"), ngx_string("key"), ngx_string("unit"),
        ngx_string("action"), ngx_string("used"), ngx_string("max"),
        ngx_string("retry"), ngx_string("client"),
        ngx_string("sasl_username"), ngx_string("sender")
    };

    e = check->envelope;
    w = words->words;

    for (i = 0; i < NGX_MAIL_POLICY_WORDS / 2; i++) {
        w[2 * i] = names[i];
    }

    p = words->numbers;

    w[1] = charge->name;
    w[3] = charge->key;
    w[5] = ngx_mail_policy_store_units[unit];
    w[7] = *action;

    w[9].data = p;
    p = ngx_sprintf(p, "%uL", used);
    w[9].len = p - w[9].data;

    w[11].data = p;
    p = ngx_sprintf(p, "%uL", max);
    w[11].len = p - w[11].data;

    w[13].data = p;
    p = ngx_sprintf(p, "%uL", retry);
    w[13].len = p - w[13].data;

    w[15] = e->connection->addr_text;
    w[17] = e->sasl_username;
    w[19] = e->sender;
}
