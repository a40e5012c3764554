
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Charging: what is asked of charge.lua, and what is made of its answer.  No
 * events arrive here.
 *
 * A request lives longer than the ask it was made for when that is given up
 * or out of time: it has a copy of the charges.  If such a request turns out
 * to have charged, it gives back on the same connection.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_redis_script.h"


/* in the answer of charge.lua */
#define NGX_MAIL_POLICY_REDIS_WRONG_TYPE  ((uint64_t) 1 << 30)
#define NGX_MAIL_POLICY_REDIS_WRONG_PLAN  ((uint64_t) 1 << 29)
#define NGX_MAIL_POLICY_REDIS_OTHER_PLAN  2
#define NGX_MAIL_POLICY_REDIS_PER_UNIT    9

#define NGX_MAIL_POLICY_REDIS_SOFT        1
#define NGX_MAIL_POLICY_REDIS_FORCED      2


typedef struct {
    ngx_mail_policy_charge_t   *charges;    /* a copy */
    ngx_mail_policy_charge_t  **pointers;   /* to each of them */
    ngx_uint_t                  n;
} ngx_mail_policy_redis_charge_t;


static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_charge_request(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_call_t *part);
static void ngx_mail_policy_redis_charge_args(
    ngx_mail_policy_redis_args_t *args, ngx_mail_policy_call_t *part);
static ngx_int_t ngx_mail_policy_redis_charge_copy(
    ngx_mail_policy_redis_request_t *request, ngx_mail_policy_call_t *part);
static ngx_int_t ngx_mail_policy_redis_charge_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_charge_plans(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_charge_parse(
    ngx_mail_policy_redis_charge_t *ctx,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_unit_parse(
    ngx_mail_policy_charge_unit_t *unit, ngx_mail_policy_redis_reply_t *elts);
static ngx_uint_t ngx_mail_policy_redis_charge_units(ngx_uint_t asked);
static void ngx_mail_policy_redis_charge_late(
    ngx_mail_policy_redis_request_t *request);
static void ngx_mail_policy_redis_charge_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_charge_t *ctx,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charge, uint64_t bad);


ngx_int_t
ngx_mail_policy_redis_charge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_call_t *part, ngx_mail_policy_redis_done_pt done)
{
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_charge_request(redis, part);
    if (request == NULL) {
        return NGX_DECLINED;
    }

    request->slot = part->slot;
    request->done = done;
    request->data = part;

    if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return NGX_DECLINED;
    }

    part->request = request;

    return NGX_OK;
}


static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_charge_request(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_call_t *part)
{
    size_t                            size;
    ngx_uint_t                        i, n, argc, nkeys;
    ngx_mail_policy_charge_t         *charge;
    ngx_mail_policy_redis_args_t      args;
    ngx_mail_policy_redis_request_t  *request;

    nkeys = 2 * part->n;
    argc = 1;
    size = NGX_INT64_LEN;

    for (i = 0; i < part->n; i++) {
        charge = part->charges[i];

        nkeys += ngx_mail_policy_redis_set_keys(charge->asked);

        n = ngx_mail_policy_redis_charge_units(charge->asked);
        argc += 3 + 8 * n;

        size += 5 * NGX_MAIL_POLICY_REDIS_KEY(redis, &charge->id)
                + part->sent[i]->plan.len + 2 * NGX_INT64_LEN
                + n * (sizeof("auth_failures") + 6 * NGX_INT64_LEN
                       + charge->member.len + 1 + charge->client.len);
    }

    request = ngx_mail_policy_redis_script_request(redis,
                                         &ngx_mail_policy_redis_charge_script,
                                         ngx_mail_policy_redis_charge_answer,
                                         nkeys, nkeys + argc, size, &args);
    if (request == NULL) {
        return NULL;
    }

    if (ngx_mail_policy_redis_charge_copy(request, part) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return NULL;
    }

    ngx_mail_policy_redis_charge_args(&args, part);

    return request;
}


/*
 * used, own of each; keys of sets; n; for each: flags, plan, nunits, and for
 * each unit: name, kind, count, period, burst, from, amount, member
 */

static void
ngx_mail_policy_redis_charge_args(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_call_t *part)
{
    ngx_uint_t                      i, u;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_charge_unit_t  *unit;

    for (i = 0; i < part->n; i++) {
        charge = part->charges[i];

        ngx_mail_policy_redis_arg_key(args, "used:", &charge->id);
        ngx_mail_policy_redis_arg_key(args, "limit:", &charge->id);
    }

    for (i = 0; i < part->n; i++) {
        charge = part->charges[i];

        ngx_mail_policy_redis_arg_set_keys(args, charge, charge->asked);
    }

    ngx_mail_policy_redis_arg_num(args, part->n);

    for (i = 0; i < part->n; i++) {
        charge = part->charges[i];

        ngx_mail_policy_redis_arg_num(args,
                         (charge->soft ? NGX_MAIL_POLICY_REDIS_SOFT : 0)
                         | (charge->forced ? NGX_MAIL_POLICY_REDIS_FORCED
                                           : 0));
        ngx_mail_policy_redis_arg_str(args, &part->sent[i]->plan);
        ngx_mail_policy_redis_arg_num(args,
                          ngx_mail_policy_redis_charge_units(charge->asked));

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

            if (!(charge->asked & ngx_mail_policy_asked(u))) {
                continue;
            }

            unit = &charge->units[u];

            ngx_mail_policy_redis_arg_str(args,
                                          &ngx_mail_policy_store_units[u]);
            ngx_mail_policy_redis_arg_num(args, unit->rate.kind);
            ngx_mail_policy_redis_arg_num(args, unit->rate.count);
            ngx_mail_policy_redis_arg_num(args, unit->rate.period);
            ngx_mail_policy_redis_arg_num(args, unit->rate.burst);
            ngx_mail_policy_redis_arg_num(args, unit->from);
            ngx_mail_policy_redis_arg_num(args, unit->amount);
            ngx_mail_policy_redis_arg_member(args, charge, u);
        }
    }
}


static ngx_uint_t
ngx_mail_policy_redis_charge_units(ngx_uint_t asked)
{
    ngx_uint_t  n;

    for (n = 0; asked; asked >>= 1) {
        n += asked & 1;
    }

    return n;
}


static ngx_int_t
ngx_mail_policy_redis_charge_copy(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_call_t *part)
{
    ngx_uint_t                       i;
    ngx_pool_t                      *pool;
    ngx_mail_policy_charge_t        *charge;
    ngx_mail_policy_redis_charge_t  *ctx;

    pool = request->pool;

    ctx = ngx_palloc(pool, sizeof(ngx_mail_policy_redis_charge_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ctx->n = part->n;
    ctx->charges = ngx_palloc(pool,
                              part->n * sizeof(ngx_mail_policy_charge_t));
    ctx->pointers = ngx_palloc(pool, part->n * sizeof(void *));

    if (ctx->charges == NULL || ctx->pointers == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->n; i++) {
        charge = &ctx->charges[i];
        *charge = *part->charges[i];
        ctx->pointers[i] = charge;

        if (ngx_mail_policy_charge_copy(pool, charge) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    request->ctx = ctx;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_charge_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_int_t                        rc;
    ngx_uint_t                       i;
    ngx_mail_policy_call_t          *part;
    ngx_mail_policy_charge_t        *to, *from;
    ngx_mail_policy_redis_charge_t  *ctx;

    ctx = request->ctx;
    part = request->data;

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {

        if (part && ngx_mail_policy_redis_script_missing(request, reply)) {
            return NGX_AGAIN;
        }

        return NGX_OK;
    }

    if (reply->type == NGX_MAIL_POLICY_REDIS_ARRAY && reply->nelts
        && reply->elts[0].type == NGX_MAIL_POLICY_REDIS_INTEGER
        && reply->elts[0].integer == NGX_MAIL_POLICY_REDIS_OTHER_PLAN)
    {
        return ngx_mail_policy_redis_charge_plans(request, reply);
    }

    rc = ngx_mail_policy_redis_charge_parse(ctx, reply);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_mail_policy_redis_charge_warn(request->conn->redis, ctx, reply);

    if (part == NULL) {
        ngx_mail_policy_redis_charge_late(request);
        return NGX_OK;
    }

    for (i = 0; i < ctx->n; i++) {
        from = &ctx->charges[i];
        to = part->charges[i];

        ngx_memcpy(to->units, from->units, sizeof(to->units));
        to->at = from->at;
        to->charged = from->charged;
    }

    request->data = NULL;
    request->done(part, rc);

    return NGX_OK;
}


/* own entries name other plans than was thought, and nothing was charged */

static ngx_int_t
ngx_mail_policy_redis_charge_plans(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_str_t                       *plan, *text;
    ngx_uint_t                       i;
    ngx_mail_policy_call_t          *part;
    ngx_mail_policy_redis_charge_t  *ctx;

    ctx = request->ctx;
    part = request->data;

    if (reply->nelts != 2 + ctx->n) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->n; i++) {
        if (reply->elts[2 + i].type != NGX_MAIL_POLICY_REDIS_STRING
            || reply->elts[2 + i].str.len > NGX_MAIL_POLICY_PLAN)
        {
            return NGX_ERROR;
        }
    }

    if (part == NULL) {
        return NGX_OK;
    }

    for (i = 0; i < ctx->n; i++) {
        text = &reply->elts[2 + i].str;
        plan = &part->sent[i]->plan;

        plan->len = text->len;
        ngx_memcpy(plan->data, text->data, text->len);
    }

    request->data = NULL;
    request->done(part, NGX_BUSY);

    return NGX_OK;
}


/*
 * 1 charged or 0 refused, now; for each limit: what was bad; for each of its
 * units: fits, kind, count, period, burst, from, used, remaining, retry
 */

static ngx_int_t
ngx_mail_policy_redis_charge_parse(ngx_mail_policy_redis_charge_t *ctx,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_uint_t                      i, u, n, fits;
    ngx_mail_policy_charge_t       *charge;
    ngx_mail_policy_redis_reply_t  *elts;

    n = 2;

    for (i = 0; i < ctx->n; i++) {
        n += 1 + NGX_MAIL_POLICY_REDIS_PER_UNIT
                 * ngx_mail_policy_redis_charge_units(ctx->charges[i].asked);
    }

    if (reply->type != NGX_MAIL_POLICY_REDIS_ARRAY || reply->nelts != n) {
        return NGX_ERROR;
    }

    elts = reply->elts;

    for (i = 0; i < n; i++) {
        if (elts[i].type != NGX_MAIL_POLICY_REDIS_INTEGER) {
            return NGX_ERROR;
        }

        elts[i].integer = ngx_max(elts[i].integer, 0);
        elts[i].integer = ngx_min(elts[i].integer, (int64_t) MPOL_NEVER);
    }

    fits = 1;
    n = 2;

    for (i = 0; i < ctx->n; i++) {
        charge = &ctx->charges[i];
        charge->at = elts[1].integer;
        n++;

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

            if (!(charge->asked & ngx_mail_policy_asked(u))) {
                continue;
            }

            if (ngx_mail_policy_redis_unit_parse(&charge->units[u], &elts[n])
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            n += NGX_MAIL_POLICY_REDIS_PER_UNIT;
        }

        charge->charged = ngx_mail_policy_charge_fits(charge);

        fits &= charge->charged || charge->soft;
    }

    if (elts[0].integer != (int64_t) fits) {
        return NGX_ERROR;
    }

    for (i = 0; !fits && i < ctx->n; i++) {
        ctx->charges[i].charged = 0;
    }

    return fits ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_redis_unit_parse(ngx_mail_policy_charge_unit_t *unit,
    ngx_mail_policy_redis_reply_t *elts)
{
    if (elts[0].integer > 1 || elts[1].integer > MPOL_RATE_BLOCKED
        || elts[5].integer > NGX_MAIL_POLICY_FROM_OWN)
    {
        return NGX_ERROR;
    }

    unit->rate.kind = (mpol_rate_kind_e) elts[1].integer;
    unit->rate.count = elts[2].integer;
    unit->rate.period = elts[3].integer;
    unit->rate.burst = elts[4].integer;
    unit->from = elts[5].integer;

    /* the arithmetic divides by them */

    if ((unit->rate.kind == MPOL_RATE_WINDOW
         || unit->rate.kind == MPOL_RATE_BUCKET)
        && (unit->rate.count == 0 || unit->rate.period == 0))
    {
        return NGX_ERROR;
    }

    unit->decision.fits = (elts[0].integer == 1);
    unit->decision.used = elts[6].integer;
    unit->decision.remaining = elts[7].integer;
    unit->decision.retry = elts[8].integer;

    return NGX_OK;
}


/* nobody waits any more: what can be given back goes back */

static void
ngx_mail_policy_redis_charge_late(ngx_mail_policy_redis_request_t *request)
{
    ngx_uint_t                       i, n;
    ngx_mail_policy_charge_t        *charge;
    ngx_mail_policy_redis_charge_t  *ctx;

    ctx = request->ctx;
    n = 0;

    for (i = 0; i < ctx->n; i++) {
        charge = &ctx->charges[i];

        if (charge->charged && !charge->stands) {
            ngx_mail_policy_charge_keep_nothing(charge);
            ctx->pointers[n++] = charge;
        }
    }

    if (n && ngx_mail_policy_redis_give_back_on(request->conn, ctx->pointers,
                                                n)
             != NGX_OK)
    {
        ngx_mail_policy_redis_lost(request->conn->redis);
    }
}


static void
ngx_mail_policy_redis_charge_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_charge_t *ctx, ngx_mail_policy_redis_reply_t *reply)
{
    uint64_t    bad;
    ngx_uint_t  i, n;

    n = 2;

    for (i = 0; i < ctx->n; i++) {

        bad = reply->elts[n].integer;
        n += 1 + NGX_MAIL_POLICY_REDIS_PER_UNIT
                 * ngx_mail_policy_redis_charge_units(ctx->charges[i].asked);

        if (bad && ngx_mail_policy_redis_may_warn(redis,
                                                  &ctx->charges[i].name))
        {
            ngx_mail_policy_redis_warn(redis, &ctx->charges[i], bad);
        }
    }
}


/* once a minute and limit */

ngx_uint_t
ngx_mail_policy_redis_may_warn(ngx_mail_policy_redis_t *redis,
    ngx_str_t *name)
{
    uint32_t                         hash;
    ngx_uint_t                       i;
    ngx_mail_policy_redis_warned_t  *warned, *unused;

    unused = NULL;
    hash = ngx_crc32_short(name->data, name->len);

    for (i = 0; i < NGX_MAIL_POLICY_REDIS_WARNED; i++) {
        warned = &redis->warned[i];

        if (warned->when == 0 || ngx_time() - warned->when >= 60) {
            unused = warned;

        } else if (warned->hash == hash) {
            return 0;
        }
    }

    if (unused == NULL) {
        return 0;
    }

    unused->hash = hash;
    unused->when = ngx_time();

    return 1;
}


static void
ngx_mail_policy_redis_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charge, uint64_t bad)
{
    u_char     *p, *last;
    ngx_str_t   key;
    ngx_uint_t  u, bit;
    u_char      units[128];

    /* <name>:{<key>} */

    key.data = charge->id.data + charge->name.len + 2;
    key.len = charge->id.len - charge->name.len - 3;

    if (bad & NGX_MAIL_POLICY_REDIS_WRONG_TYPE) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy limit \"%V\" of key \"%V\" is not counted: "
                      "\"%Vused:%V\" in Redis is not a hash%s, delete it",
                      &charge->name, &key, &redis->prefix, &charge->id,
                      ngx_mail_policy_redis_set_keys(charge->asked)
                      ? ", or \"lease:\", \"failed:\" or \"exempt:\" is not "
                        "a sorted set" : "");
    }

    if (bad & NGX_MAIL_POLICY_REDIS_WRONG_PLAN) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy limit \"%V\" of key \"%V\" in Redis: \"plan\" "
                      "is not a name, entry skipped", &charge->name, &key);
    }

    bit = 0;
    p = units;
    last = units + sizeof(units);

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        if (!(charge->asked & ngx_mail_policy_asked(u))) {
            continue;
        }

        if (bad & ((uint64_t) 1 << bit++)) {
            p = ngx_slprintf(p, last, "%s\"%V\"", (p == units) ? "" : ", ",
                             &ngx_mail_policy_store_units[u]);
        }
    }

    if (p != units) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy limit \"%V\" of key \"%V\" in Redis: "
                      "%*s is not a rate, entry skipped",
                      &charge->name, &key, (size_t) (p - units), units);
    }
}
