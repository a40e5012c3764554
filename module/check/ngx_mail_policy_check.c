
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Limits: from the envelope to the store's question, and what becomes of the
 * charges.  The ask belongs to the check until it is ended.  A refusal
 * charged nothing, so its ask ends at once.
 *
 *     start -> asked -> answered -> settled, released, given back
 *      ^  |     ^  |
 *      |  |     |  \-- refused by limits that delay --> tarpit --\
 *      |  |     \-----------------------------------------------/
 *      |  \-- lookups --\
 *      \---------------/
 *
 * Events: the store's answer; lookups that are there; the timer of the
 * tarpit.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_verdict.h"


#define NGX_MAIL_POLICY_TARPIT_MAX  10000   /* ms, of one check */

#define NGX_MAIL_POLICY_MAIL_UNITS                                           \
    (ngx_mail_policy_asked(NGX_MAIL_POLICY_MESSAGES)                         \
     |ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS)                      \
     |ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES))

#define NGX_MAIL_POLICY_SESSION_UNITS                                        \
    (ngx_mail_policy_asked(NGX_MAIL_POLICY_CONNECTIONS)                      \
     |ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS))


static ngx_int_t ngx_mail_policy_check_wait(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_check_fetched(void *data);
static ngx_int_t ngx_mail_policy_check_ask(ngx_mail_policy_check_t *check,
    ngx_uint_t n);
static ngx_int_t ngx_mail_policy_check_charge(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit);
static ngx_uint_t ngx_mail_policy_check_units(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit);
static ngx_int_t ngx_mail_policy_check_applies(ngx_pool_t *pool,
    ngx_mail_policy_limit_t *limit, ngx_mail_policy_envelope_t *envelope);
static uint64_t ngx_mail_policy_check_amount(ngx_mail_policy_check_t *check,
    ngx_uint_t unit);
static void ngx_mail_policy_check_add(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit);
static void ngx_mail_policy_check_envelope(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_check_restore(ngx_mail_policy_check_t *check);
static ngx_int_t ngx_mail_policy_check_first(ngx_mail_policy_check_t *check,
    ngx_mail_policy_charge_t *charge);
static void ngx_mail_policy_check_handler(void *data,
    ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_check_fill(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_check_filled(void *data,
    ngx_mail_policy_ask_t *ask);
static ngx_msec_t ngx_mail_policy_check_delay(ngx_mail_policy_check_t *check);
static void ngx_mail_policy_check_tarpit_handler(ngx_event_t *ev);


ngx_int_t
ngx_mail_policy_check_start(ngx_mail_policy_check_t *check,
    ngx_mail_policy_check_point_e point)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    ngx_mail_policy_limit_t    *limit;
    ngx_mail_policy_charged_t  *seen;

    if (check->waits) {
        seen = check->charged->elts;

        if (seen[check->waits - 1].owner) {
            return NGX_BUSY;
        }

        check->waits = 0;
    }

    check->point = point;

    if (check->conf == NULL) {
        return NGX_OK;
    }

    if (check->fetch) {
        rc = ngx_mail_policy_check_wait(check);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ngx_mail_policy_check_envelope(check);

    limit = check->conf->elts;

    for (i = 0; i < check->conf->nelts; i++) {

        rc = ngx_mail_policy_check_charge(check, &limit[i]);

        if (rc != NGX_OK) {
            ngx_mail_policy_check_restore(check);
            ngx_mail_policy_check_end(check, 0);
            ngx_mail_policy_check_keep(check);
            return rc;
        }
    }

    ngx_mail_policy_check_restore(check);

    if (check->ask == NULL) {
        return NGX_OK;
    }

    if (check->ask->ncharges == 0) {
        ngx_mail_policy_check_keep(check);
        return NGX_OK;
    }

    ngx_mail_policy_ask_send(check->ask);

    return NGX_AGAIN;
}


/* for lookups: what is asked at one point is one question */

static ngx_int_t
ngx_mail_policy_check_wait(ngx_mail_policy_check_t *check)
{
    uint64_t                  mask;
    ngx_uint_t                i;
    ngx_mail_policy_limit_t  *limit;

    limit = check->conf->elts;
    mask = 0;

    for (i = 0; i < check->conf->nelts; i++) {
        if (ngx_mail_policy_check_units(check, &limit[i])) {
            mask |= limit[i].lookups;
        }
    }

    return ngx_mail_policy_fetch_wait(check->fetch, mask, &check->wait,
                                      ngx_mail_policy_check_fetched, check);
}


static void
ngx_mail_policy_check_fetched(void *data)
{
    ngx_mail_policy_check_t *check = data;

    switch (ngx_mail_policy_check_start(check, check->point)) {

    case NGX_AGAIN:
        return;

    case NGX_OK:
        check->verdict = ngx_mail_policy_verdict_plain(NGX_OK);
        break;

    case NGX_BUSY:
        check->verdict = ngx_mail_policy_verdict_plain(NGX_BUSY);
        break;

    default:
        check->verdict = ngx_mail_policy_verdict_plain(NGX_ERROR);
    }

    check->handler(check->data, check->verdict);
}


/*
 * What variables say while the question is put, and while the answer is
 * worded: the recipient at hand, the login that is tried.
 */

static void
ngx_mail_policy_check_envelope(ngx_mail_policy_check_t *check)
{
    check->envelope->found = ngx_mail_policy_fetch_found(check->fetch);

    if (check->point == NGX_MAIL_POLICY_CHECK_RCPT) {
        check->envelope->recipient = check->recipient;
        check->envelope->recipient_domain = check->recipient_domain;

    } else if (check->point == NGX_MAIL_POLICY_CHECK_AUTH) {
        check->envelope->sasl_username = check->login;
    }
}


static void
ngx_mail_policy_check_restore(ngx_mail_policy_check_t *check)
{
    if (check->point == NGX_MAIL_POLICY_CHECK_AUTH) {
        ngx_str_null(&check->envelope->sasl_username);
    }
}


/* an ask with room for n charges, and none yet */

static ngx_int_t
ngx_mail_policy_check_ask(ngx_mail_policy_check_t *check, ngx_uint_t n)
{
    ngx_mail_policy_ask_t     *ask;
    ngx_mail_policy_limit_t  **limits;

    ask = ngx_mail_policy_ask_create(check->store, n,
                                     ngx_mail_policy_check_handler, check);
    if (ask == NULL) {
        return NGX_ERROR;
    }

    /* not on the check's pool: a session asks again with each EHLO */

    limits = ngx_palloc(ask->pool, n * sizeof(void *));
    if (limits == NULL) {
        ngx_mail_policy_ask_keep(ask);
        return NGX_ERROR;
    }

    ask->ncharges = 0;

    check->ask = ask;
    check->limits = limits;
    check->slowed = NULL;

    return NGX_OK;
}


/* adds what limit costs at this point, if it applies */

static ngx_int_t
ngx_mail_policy_check_charge(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit)
{
    ngx_int_t                  rc;
    ngx_uint_t                 units;
    ngx_mail_policy_charge_t  *charge;

    units = ngx_mail_policy_check_units(check, limit);

    if (units == 0) {
        return NGX_OK;
    }

    if (check->ask == NULL
        && ngx_mail_policy_check_ask(check, check->conf->nelts) != NGX_OK)
    {
        return NGX_ERROR;
    }

    charge = &check->ask->charges[check->ask->ncharges];

    rc = ngx_mail_policy_check_applies(check->ask->pool, limit,
                                       check->envelope);
    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    if (ngx_mail_policy_value_eval_key(check->ask->pool, &limit->key,
                                       check->envelope, &charge->key)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (charge->key.len == 0) {
        return NGX_OK;
    }

    charge->name = limit->name;

    if (check->point == NGX_MAIL_POLICY_CHECK_RCPT
        && (units & ~ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS)))
    {
        rc = ngx_mail_policy_check_first(check, charge);
        if (rc == NGX_ERROR || rc == NGX_BUSY) {
            return rc;
        }

        if (rc == NGX_DECLINED) {
            units &= ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS);
        }
    }

    charge->asked = units;

    if (units) {
        ngx_mail_policy_check_add(check, limit);
    }

    return NGX_OK;
}


/*
 * What of a limit is asked at this point.  Operators can set in the store
 * what the directive did not; units that cost questions of their own have to
 * be named there, be it as "unlimited".
 */

static ngx_uint_t
ngx_mail_policy_check_units(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit)
{
    ngx_uint_t  units, mail, late;

    units = limit->units;
    mail = units & NGX_MAIL_POLICY_MAIL_UNITS;
    late = (limit->phase == NGX_MAIL_POLICY_AT_RCPT);

    if (ngx_mail_policy_store_has_records(check->store)) {
        mail = NGX_MAIL_POLICY_MAIL_UNITS;
    }

    switch (check->point) {

    case NGX_MAIL_POLICY_CHECK_CONNECT:
        return (limit->phase == NGX_MAIL_POLICY_AT_CONNECT)
               ? units & NGX_MAIL_POLICY_SESSION_UNITS : 0;

    case NGX_MAIL_POLICY_CHECK_LOGIN:
        return (limit->phase == NGX_MAIL_POLICY_AT_AUTH)
               ? units & NGX_MAIL_POLICY_SESSION_UNITS : 0;

    case NGX_MAIL_POLICY_CHECK_AUTH:
        return units & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES);

    case NGX_MAIL_POLICY_CHECK_GREETING:
        return (limit->phase <= NGX_MAIL_POLICY_AT_AUTH)
               ? mail & ~ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES) : 0;

    case NGX_MAIL_POLICY_CHECK_MAIL:
        if (late) {
            return 0;
        }

        if (check->octets) {
            return mail & ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES);
        }

        if (!limit->attempt) {
            return mail;
        }

        /* each attempt counts: none can stand for another */

        return check->tried
               ? mail & ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES)
               : mail & ~ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS);

    case NGX_MAIL_POLICY_CHECK_RCPT:
        if (late) {
            return mail;
        }

        return (check->prepaid && !limit->attempt)
               ? 0 : mail & ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS);

    default: /* NGX_MAIL_POLICY_CHECK_END: see rest() */
        return 0;
    }
}


/* NGX_DECLINED: its "if=" is empty or 0 */

static ngx_int_t
ngx_mail_policy_check_applies(ngx_pool_t *pool,
    ngx_mail_policy_limit_t *limit, ngx_mail_policy_envelope_t *envelope)
{
    ngx_str_t  value;

    if (limit->condition.text.len == 0) {
        return NGX_OK;
    }

    if (ngx_mail_policy_value_eval(pool, &limit->condition, envelope, &value)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return (value.len == 0 || (value.len == 1 && value.data[0] == '0'))
           ? NGX_DECLINED : NGX_OK;
}


static uint64_t
ngx_mail_policy_check_amount(ngx_mail_policy_check_t *check, ngx_uint_t unit)
{
    if (check->point == NGX_MAIL_POLICY_CHECK_GREETING) {
        return 0;
    }

    if (unit == NGX_MAIL_POLICY_BYTES) {

        if (check->octets && check->point == NGX_MAIL_POLICY_CHECK_MAIL) {
            return check->octets;
        }

        /* a message that declares nothing has one octet at least */

        return ngx_max(check->envelope->message_size, 1);
    }

    if (unit == NGX_MAIL_POLICY_RECIPIENTS && check->count) {
        return check->count;
    }

    return 1;
}


/* charge->name, key and asked are set */

static void
ngx_mail_policy_check_add(ngx_mail_policy_check_t *check,
    ngx_mail_policy_limit_t *limit)
{
    ngx_uint_t                 unit;
    ngx_mail_policy_charge_t  *charge;

    charge = &check->ask->charges[check->ask->ncharges];

    charge->conf = limit->rates;

    for (unit = 0; unit < NGX_MAIL_POLICY_UNITS; unit++) {
        charge->units[unit].amount = ngx_mail_policy_check_amount(check,
                                                                  unit);
    }

    charge->member = check->member;
    charge->client = check->client;
    charge->combined = limit->combined;

    /*
     * A lease ends with its session, and a login that succeeds is no failure,
     * whatever was attempted.
     */

    charge->stands = (limit->attempt
                      && check->point >= NGX_MAIL_POLICY_CHECK_MAIL);

    charge->soft = (limit->exceed == NGX_MAIL_POLICY_REPORT
                    || limit->exceed == NGX_MAIL_POLICY_RELAY
                    || !ngx_mail_policy_check_enforced(limit, &charge->key));

    check->limits[check->ask->ncharges++] = limit;
}


/* enforce= is a share of the keys, the same ones on all edges */

ngx_uint_t
ngx_mail_policy_check_enforced(ngx_mail_policy_limit_t *limit,
    ngx_str_t *key)
{
    u_char      ch;
    uint32_t    crc;
    ngx_uint_t  i;

    if (limit->enforce == 100) {
        return 1;
    }

    ngx_crc32_init(crc);

    for (i = 0; i < key->len; i++) {
        ch = ngx_tolower(key->data[i]);
        ngx_crc32_update(&crc, &ch, 1);
    }

    ngx_crc32_final(crc);

    return crc % 100 < limit->enforce;
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


ngx_int_t
ngx_mail_policy_check_rest(ngx_mail_policy_check_t *check,
    ngx_mail_policy_check_t **paid, ngx_uint_t n, uint64_t size)
{
    uint64_t                        known;
    ngx_uint_t                      i, k, total;
    ngx_mail_policy_ask_t          *ask;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    check->point = NGX_MAIL_POLICY_CHECK_END;
    total = 0;

    for (i = 0; i < n; i++) {
        total += paid[i]->ask ? paid[i]->ask->ncharges : 0;
    }

    for (i = 0; i < n; i++) {
        ask = paid[i]->ask;

        for (k = 0; ask && k < ask->ncharges; k++) {
            unit = &ask->charges[k].units[NGX_MAIL_POLICY_BYTES];
            known = ngx_max(unit->amount, check->octets);

            if (!ngx_mail_policy_check_octets(&ask->charges[k])
                || known >= size)
            {
                continue;
            }

            if (check->ask == NULL
                && ngx_mail_policy_check_ask(check, total) != NGX_OK)
            {
                return NGX_ERROR;
            }

            /* names and keys belong to asks that outlive this one */

            charge = &check->ask->charges[check->ask->ncharges];
            charge->name = ask->charges[k].name;
            charge->key = ask->charges[k].key;
            charge->asked = ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES);

            ngx_mail_policy_check_add(check, paid[i]->limits[k]);

            charge->units[NGX_MAIL_POLICY_BYTES].amount = size - known;
        }
    }

    if (check->ask == NULL) {
        return NGX_OK;
    }

    ngx_mail_policy_ask_send(check->ask);

    return NGX_AGAIN;
}


static void
ngx_mail_policy_check_handler(void *data, ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_check_t *check = data;

    ngx_msec_t  delay;

    check->answered = 1;

    if (check->point == NGX_MAIL_POLICY_CHECK_GREETING) {
        check->handler(check->data, NULL);
        return;
    }

    ngx_mail_policy_check_envelope(check);
    ngx_mail_policy_verdict(check);

    if (ask->rc == NGX_DECLINED) {
        delay = ngx_mail_policy_check_delay(check);

        if (delay) {
            ngx_mail_policy_decision_slowed(check);
            ngx_mail_policy_check_restore(check);
            ngx_add_timer(check->tarpit, delay);
            return;
        }
    }

    ngx_mail_policy_decision(check);

    if (ask->rc != NGX_ERROR) {
        ngx_mail_policy_near(check);
    }

    if (ask->rc != NGX_OK) {
        ngx_mail_policy_verdict_tell(check);
        ngx_mail_policy_check_end(check, 0);
        ngx_mail_policy_check_keep(check);

    } else if (check->verdict->limit.len) {
        ngx_mail_policy_verdict_tell(check);

        if (check->point == NGX_MAIL_POLICY_CHECK_END) {
            ngx_mail_policy_check_fill(check);
        }
    }

    ngx_mail_policy_check_restore(check);

    check->handler(check->data, check->verdict);
}


/*
 * It is too late to send a message elsewhere whose octets do not fit under a
 * limit that would: what is left there is charged, so that the next one goes.
 */

static void
ngx_mail_policy_check_fill(ngx_mail_policy_check_t *check)
{
    uint64_t                   left;
    ngx_uint_t                 i, n;
    ngx_mail_policy_ask_t     *ask, *fill;
    ngx_mail_policy_charge_t  *charge;

    ask = check->ask;

    fill = ngx_mail_policy_ask_create(check->store, ask->ncharges,
                                      ngx_mail_policy_check_filled, NULL);
    if (fill == NULL) {
        return;
    }

    n = 0;

    for (i = 0; i < ask->ncharges; i++) {
        charge = &ask->charges[i];
        left = charge->units[NGX_MAIL_POLICY_BYTES].decision.remaining;

        if (check->limits[i]->exceed != NGX_MAIL_POLICY_RELAY
            || ngx_mail_policy_charge_fits(charge) || left == 0)
        {
            continue;
        }

        fill->charges[n].name = charge->name;
        fill->charges[n].key = charge->key;
        fill->charges[n].conf = charge->conf;
        fill->charges[n].combined = charge->combined;
        fill->charges[n].asked = charge->asked;
        fill->charges[n].stands = 1;        /* if it is answered too late */
        fill->charges[n].units[NGX_MAIL_POLICY_BYTES].amount = left;
        n++;
    }

    fill->ncharges = n;

    if (n == 0) {
        ngx_mail_policy_ask_keep(fill);
        return;
    }

    check->fill = fill;

    ngx_mail_policy_ask_send(fill);
}


static void
ngx_mail_policy_check_filled(void *data, ngx_mail_policy_ask_t *ask)
{
    /* nobody waits for it */
}


/* ms until it is to be asked again; 0: that is the answer */

static ngx_msec_t
ngx_mail_policy_check_delay(ngx_mail_policy_check_t *check)
{
    uint64_t     retry;
    ngx_msec_t   left, delay, *delayed;

    if (!ngx_mail_policy_verdict_delays(check, &retry)) {
        return 0;
    }

    if (check->tarpit == NULL) {
        check->tarpit = ngx_pcalloc(check->pool, sizeof(ngx_event_t));
        if (check->tarpit == NULL) {
            return 0;
        }

        check->tarpit->handler = ngx_mail_policy_check_tarpit_handler;
        check->tarpit->data = check;
        check->tarpit->log = ngx_cycle->log;
    }

    delayed = check->delayed ? check->delayed : &check->delay;

    if (*delayed >= NGX_MAIL_POLICY_TARPIT_MAX) {
        return 0;
    }

    left = NGX_MAIL_POLICY_TARPIT_MAX - *delayed;

    delay = (retry / 1000 < left) ? (ngx_msec_t) (retry / 1000) + 1 : left;

    *delayed += delay;

    return delay;
}


static void
ngx_mail_policy_check_tarpit_handler(ngx_event_t *ev)
{
    ngx_mail_policy_check_t  *check;

    check = ev->data;

    check->answered = 0;

    ngx_mail_policy_ask_again(check->ask);
}
