
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What becomes of a check that was answered, or of one that is given up.  No
 * events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_verdict.h"


/* the keys that it was about to pay for are paid, or up to the next one */

void
ngx_mail_policy_check_end(ngx_mail_policy_check_t *check, ngx_uint_t paid)
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
    ngx_mail_policy_check_end(check, 1);
}


ngx_uint_t
ngx_mail_policy_check_octets(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t  kind;

    kind = charge->units[NGX_MAIL_POLICY_BYTES].rate.kind;

    return charge->charged && !charge->open
           && (charge->asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES))
           && (kind == MPOL_RATE_WINDOW || kind == MPOL_RATE_BUCKET);
}


ngx_uint_t
ngx_mail_policy_check_has_octets(ngx_mail_policy_check_t *check)
{
    ngx_uint_t  i;

    for (i = 0; check->ask && i < check->ask->ncharges; i++) {
        if (ngx_mail_policy_check_octets(&check->ask->charges[i])) {
            return 1;
        }
    }

    return 0;
}


/* the store's answer alone: what it was asked by may be gone by then */

void
ngx_mail_policy_check_move(ngx_mail_policy_check_t *from,
    ngx_mail_policy_check_t *to)
{
    ngx_memzero(to, sizeof(ngx_mail_policy_check_t));

    to->store = from->store;
    to->point = from->point;
    to->ask = from->ask;
    to->limits = from->limits;
    to->fill = from->fill;
    to->answered = from->answered;

    from->ask = NULL;
    from->fill = NULL;
}


void
ngx_mail_policy_check_left(ngx_mail_policy_check_t *check,
    uint64_t *messages, uint64_t *recipients)
{
    ngx_uint_t                      i;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    *messages = MPOL_NEVER;
    *recipients = MPOL_NEVER;

    if (check->ask == NULL || check->ask->rc == NGX_ERROR) {
        return;
    }

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        if (charge->soft || charge->open) {
            continue;
        }

        if (charge->asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_MESSAGES)) {
            unit = &charge->units[NGX_MAIL_POLICY_MESSAGES];
            *messages = ngx_min(*messages, unit->decision.remaining);
        }

        if (charge->asked
            & ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS))
        {
            unit = &charge->units[NGX_MAIL_POLICY_RECIPIENTS];
            *recipients = ngx_min(*recipients, unit->decision.remaining);
        }
    }
}


void
ngx_mail_policy_check_settle(ngx_mail_policy_check_t *check, uint64_t size,
    ngx_uint_t recipient)
{
    ngx_uint_t                 i, u;
    ngx_mail_policy_charge_t  *charge;

    if (check->ask == NULL) {
        return;
    }

    if (check->fill) {
        ngx_mail_policy_ask_keep(check->fill);
        check->fill = NULL;
    }

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            charge->units[u].kept = charge->units[u].amount;
        }

        if (check->point != NGX_MAIL_POLICY_CHECK_END) {
            u = NGX_MAIL_POLICY_BYTES;
            charge->units[u].kept = ngx_min(charge->units[u].amount, size);
        }

        if (!recipient) {
            charge->units[NGX_MAIL_POLICY_RECIPIENTS].kept = 0;
        }
    }

    ngx_mail_policy_ask_settle(check->ask);
    check->ask = NULL;
}


void
ngx_mail_policy_check_release(ngx_mail_policy_check_t *check)
{
    ngx_uint_t                 i, u;
    ngx_mail_policy_charge_t  *charge;

    /* it waits for the store, or in the tarpit */

    if (check->ask == NULL || !check->answered
        || (check->tarpit && check->tarpit->timer_set))
    {
        ngx_mail_policy_check_give_back(check);
        return;
    }

    for (i = 0; i < check->ask->ncharges; i++) {
        charge = &check->ask->charges[i];

        u = NGX_MAIL_POLICY_CONNECTIONS;
        charge->units[u].kept = charge->units[u].amount;
        charge->units[NGX_MAIL_POLICY_SESSIONS].kept = 0;
    }

    ngx_mail_policy_ask_settle(check->ask);
    check->ask = NULL;
}


void
ngx_mail_policy_check_keep(ngx_mail_policy_check_t *check)
{
    if (check->fill) {
        ngx_mail_policy_ask_keep(check->fill);
        check->fill = NULL;
    }

    if (check->ask) {
        ngx_mail_policy_ask_keep(check->ask);
        check->ask = NULL;
    }
}


void
ngx_mail_policy_check_succeeded(ngx_mail_policy_check_t *check)
{
    if (check->ask) {
        check->ask->succeeded = 1;
    }

    ngx_mail_policy_check_give_back(check);
}


void
ngx_mail_policy_check_give_back(ngx_mail_policy_check_t *check)
{
    ngx_uint_t  i;

    ngx_mail_policy_check_end(check, 0);
    ngx_mail_policy_fetch_forget(&check->wait);

    if (check->tarpit && check->tarpit->timer_set) {
        ngx_del_timer(check->tarpit);
    }

    if (check->fill) {
        for (i = 0; i < check->fill->ncharges; i++) {
            check->fill->charges[i].stands = 0;
        }

        ngx_mail_policy_ask_give_back(check->fill);
        check->fill = NULL;
    }

    if (check->ask) {
        ngx_mail_policy_ask_give_back(check->ask);
        check->ask = NULL;
    }
}
