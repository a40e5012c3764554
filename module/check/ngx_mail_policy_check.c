
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Limits: from the envelope to the store's question, from its answer to the
 * verdict.  One event arrives here, the store's answer; the ask belongs to
 * the check until keep() or give_back().  A refusal charged
 * nothing, so its ask ends at once.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_check.h"


static ngx_int_t ngx_mail_policy_check_charge(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit, ngx_mail_policy_envelope_t *envelope,
    ngx_uint_t phase, ngx_uint_t records);
static ngx_int_t ngx_mail_policy_check_first(ngx_mail_policy_check_t *check,
    ngx_mail_policy_charge_t *charge);
static void ngx_mail_policy_check_settle(ngx_mail_policy_check_t *check,
    ngx_uint_t paid);
static void ngx_mail_policy_check_handler(void *data,
    ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_check_refusal(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_check_text(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit, uint64_t retry);


ngx_int_t
ngx_mail_policy_check_start(ngx_mail_policy_check_t *check,
    ngx_mail_policy_store_t *store, ngx_array_t *limits,
    ngx_mail_policy_envelope_t *envelope, ngx_uint_t phase,
    ngx_array_t *charged, ngx_pool_t *pool, ngx_mail_policy_check_pt handler,
    void *data)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i, records;
    ngx_mail_policy_limit_t    *limit;
    ngx_mail_policy_charged_t  *seen;

    seen = charged->elts;

    if (check->waits && seen[check->waits - 1].owner) {
        return NGX_BUSY;
    }

    ngx_memzero(check, sizeof(ngx_mail_policy_check_t));

    if (limits == NULL || limits->nelts == 0) {
        return NGX_OK;
    }

    check->pool = pool;
    check->charged = charged;
    check->handler = handler;
    check->data = data;

    check->limits = ngx_palloc(pool, limits->nelts * sizeof(void *));
    if (check->limits == NULL) {
        return NGX_ERROR;
    }

    check->ask = ngx_mail_policy_ask_create(store, limits->nelts,
                                            ngx_mail_policy_check_handler,
                                            check);
    if (check->ask == NULL) {
        return NGX_ERROR;
    }

    check->ask->ncharges = 0;

    records = ngx_mail_policy_store_has_records(store);
    limit = limits->elts;

    for (i = 0; i < limits->nelts; i++) {

        rc = ngx_mail_policy_check_charge(check, &limit[i], envelope, phase,
                                          records);
        if (rc != NGX_OK) {
            ngx_mail_policy_check_settle(check, 0);
            ngx_mail_policy_check_keep(check);
            return rc;
        }
    }

    if (check->ask->ncharges == 0) {
        ngx_mail_policy_check_keep(check);
        return NGX_OK;
    }

    ngx_mail_policy_ask_send(check->ask);

    return NGX_AGAIN;
}


/* adds what limit costs at this point, if it applies */

static ngx_int_t
ngx_mail_policy_check_charge(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit, ngx_mail_policy_envelope_t *envelope,
    ngx_uint_t phase, ngx_uint_t records)
{
    ngx_int_t                       rc;
    ngx_uint_t                      late, messages, recipients;
    ngx_mail_policy_ask_t          *ask;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    late = (limit->key.phase == NGX_MAIL_POLICY_AT_RCPT);

    /* without records nobody can set what the directive did not */

    messages = (late == (phase == NGX_MAIL_POLICY_AT_RCPT))
               && (records || limit->rates[NGX_MAIL_POLICY_MESSAGES].kind
                              != MPOL_RATE_NONE);

    recipients = (phase == NGX_MAIL_POLICY_AT_RCPT)
                 && (records || limit->rates[NGX_MAIL_POLICY_RECIPIENTS].kind
                                != MPOL_RATE_NONE);

    if (!messages && !recipients) {
        return NGX_OK;
    }

    ask = check->ask;
    charge = &ask->charges[ask->ncharges];
    unit = charge->units;

    ngx_memzero(charge, sizeof(ngx_mail_policy_charge_t));

    if (ngx_mail_policy_value_eval_key(ask->pool, &limit->key, envelope,
                                       &charge->key)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (charge->key.len == 0) {
        return NGX_OK;
    }

    charge->name = limit->name;

    if (late && messages) {
        rc = ngx_mail_policy_check_first(check, charge);
        if (rc == NGX_ERROR || rc == NGX_BUSY) {
            return rc;
        }

        messages = (rc == NGX_OK);
    }

    if (messages) {
        unit[NGX_MAIL_POLICY_MESSAGES].rate =
                                       limit->rates[NGX_MAIL_POLICY_MESSAGES];
        unit[NGX_MAIL_POLICY_MESSAGES].amount = 1;
        charge->nunits = 1;
    }

    if (recipients) {
        unit[NGX_MAIL_POLICY_RECIPIENTS].rate =
                                     limit->rates[NGX_MAIL_POLICY_RECIPIENTS];
        unit[NGX_MAIL_POLICY_RECIPIENTS].amount = 1;
        charge->nunits = 2;
    }

    if (charge->nunits == 0) {
        return NGX_OK;
    }

    check->limits[ask->ncharges++] = limit;

    return NGX_OK;
}


/*
 * NGX_OK: the message is to be paid for under this key; NGX_DECLINED: it has
 * been; NGX_BUSY: another recipient is at it.
 */

static ngx_int_t
ngx_mail_policy_check_first(ngx_mail_policy_check_t *check,
    ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t                  i;
    ngx_mail_policy_charged_t  *seen;

    seen = check->charged->elts;

    for (i = 0; i < check->charged->nelts; i++) {

        if (seen[i].limit.data == charge->name.data
            && seen[i].key.len == charge->key.len
            && ngx_strncasecmp(seen[i].key.data, charge->key.data,
                               charge->key.len)
               == 0)
        {
            if (seen[i].paid) {
                return NGX_DECLINED;
            }

            if (seen[i].owner) {
                check->waits = i + 1;
                return NGX_BUSY;
            }

            seen[i].owner = check;
            return NGX_OK;
        }
    }

    seen = ngx_array_push(check->charged);
    if (seen == NULL) {
        return NGX_ERROR;
    }

    seen->limit = charge->name;
    seen->owner = check;
    seen->paid = 0;
    seen->key.len = charge->key.len;
    seen->key.data = ngx_pstrdup(check->pool, &charge->key);

    if (seen->key.data == NULL) {
        check->charged->nelts--;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* the keys that it was about to pay for are paid, or up to the next one */

static void
ngx_mail_policy_check_settle(ngx_mail_policy_check_t *check, ngx_uint_t paid)
{
    ngx_uint_t                  i;
    ngx_mail_policy_charged_t  *seen;

    if (check->charged == NULL) {
        return;
    }

    seen = check->charged->elts;

    for (i = 0; i < check->charged->nelts; i++) {
        if (seen[i].owner == check) {
            seen[i].owner = NULL;
            seen[i].paid = paid;
        }
    }
}


void
ngx_mail_policy_check_accepted(ngx_mail_policy_check_t *check)
{
    ngx_mail_policy_check_settle(check, 1);
}


static void
ngx_mail_policy_check_handler(void *data, ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_check_t    *check = data;
    ngx_mail_policy_verdict_t  *verdict;

    check->answered = 1;

    verdict = &check->verdict;
    verdict->rc = ask->rc;

    switch (ask->rc) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_mail_policy_check_refusal(check);
        ngx_mail_policy_check_settle(check, 0);
        ngx_mail_policy_check_keep(check);
        break;

    default:
        verdict->code = 451;
        ngx_str_set(&verdict->text,
                    "451 4.3.0 Temporary server problem, try again later");
        ngx_mail_policy_check_settle(check, 0);
        ngx_mail_policy_check_keep(check);
    }

    check->handler(check->data, verdict);
}


/* of several that refuse, the one that takes longest is told */

static void
ngx_mail_policy_check_refusal(ngx_mail_policy_check_t *check)
{
    uint64_t                        longest;
    ngx_uint_t                      i, u;
    ngx_mail_policy_limit_t        *limit;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    limit = NULL;
    longest = 0;

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        for (u = 0; u < charge->nunits; u++) {
            unit = &charge->units[u];

            if (unit->decision.fits
                || (limit && unit->decision.retry <= longest))
            {
                continue;
            }

            limit = check->limits[i];
            longest = unit->decision.retry;
            check->verdict.used = unit->decision.used;
            check->verdict.max = (unit->rate.kind == MPOL_RATE_BUCKET)
                                 ? unit->rate.burst : unit->rate.count;
        }
    }

    ngx_mail_policy_check_text(check, limit, longest);
}


static void
ngx_mail_policy_check_text(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit, uint64_t retry)
{
    size_t                      len;
    u_char                     *p;
    ngx_mail_policy_verdict_t  *verdict;

    verdict = &check->verdict;

    verdict->code = 450;
    ngx_str_set(&verdict->text, "450 4.7.1 Rate limit exceeded");

    if (limit == NULL) {
        return;
    }

    if (limit->reject) {
        verdict->code = 550;
        ngx_str_set(&verdict->text, "550 5.7.1 Rate limit exceeded");
    }

    verdict->limit = limit->name;
    verdict->retry = (retry < MPOL_NEVER) ? (retry + 999999) / 1000000 : 0;

    len = sizeof("450 4.7.1 Rate limit \"\" exceeded, retry in  s") - 1
          + limit->name.len + NGX_INT64_LEN;

    p = ngx_pnalloc(check->pool, len);
    if (p == NULL) {
        return;
    }

    verdict->text.data = p;
    p = ngx_sprintf(p, "%ui %ui.7.1 Rate limit \"%V\" exceeded",
                    verdict->code, verdict->code / 100, &limit->name);

    if (verdict->retry) {
        p = ngx_sprintf(p, ", retry in %uL s", verdict->retry);
    }

    verdict->text.len = p - verdict->text.data;
}


void
ngx_mail_policy_check_keep(ngx_mail_policy_check_t *check)
{
    if (check->ask) {
        ngx_mail_policy_ask_keep(check->ask);
        check->ask = NULL;
    }
}


void
ngx_mail_policy_check_give_back(ngx_mail_policy_check_t *check)
{
    ngx_mail_policy_check_settle(check, 0);

    if (check->ask == NULL) {
        return;
    }

    if (check->answered) {
        ngx_mail_policy_ask_give_back(check->ask);

    } else {
        ngx_mail_policy_ask_cancel(check->ask);
    }

    check->ask = NULL;
}
