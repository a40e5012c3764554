
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Charging and giving back: what is asked of the scripts, and what is made
 * of their answers.  No events arrive here.
 *
 *     EVALSHA -> NOSCRIPT -> EVAL -> answer
 *         \-> answer
 *
 * A request lives longer than the ask it was made for when that is cancelled
 * or out of time: it has a copy of the charges.  If such a request turns out
 * to have charged, it gives back on the same connection.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_sha1.h>

#include "ngx_mail_policy_redis.h"
#include "ngx_mail_policy_scripts.h"


/* in the answer of charge.lua */
#define NGX_MAIL_POLICY_REDIS_WRONG_TYPE  ((uint64_t) 1 << 30)
#define NGX_MAIL_POLICY_REDIS_PER_UNIT    8


typedef struct {
    ngx_str_t   text;
    u_char      sha1[40];
} ngx_mail_policy_redis_script_t;


typedef struct {
    ngx_mail_policy_redis_script_t  *script;
    ngx_mail_policy_charge_t        *charges;
    ngx_uint_t                       ncharges;
    uint64_t                         at;
} ngx_mail_policy_redis_script_ctx_t;


static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_script_request(
    ngx_mail_policy_redis_script_t *script,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t argc,
    ngx_uint_t nkeys);
static ngx_int_t ngx_mail_policy_redis_script_key(
    ngx_mail_policy_redis_request_t *request, ngx_str_t *arg,
    ngx_str_t *prefix, const char *kind, ngx_str_t *id);
static ngx_int_t ngx_mail_policy_redis_script_number(
    ngx_mail_policy_redis_request_t *request, ngx_str_t *arg, uint64_t value);
static ngx_str_t *ngx_mail_policy_redis_script_units(
    ngx_mail_policy_redis_request_t *request, ngx_str_t *arg,
    ngx_mail_policy_charge_t *charge);
static ngx_uint_t ngx_mail_policy_redis_script_missing(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_charge_request(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_ask_t *ask);
static ngx_int_t ngx_mail_policy_redis_charge_copy(
    ngx_mail_policy_redis_request_t *request, ngx_mail_policy_ask_t *ask);
static ngx_int_t ngx_mail_policy_redis_charge_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_charge_parse(
    ngx_mail_policy_redis_script_ctx_t *ctx,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_unit_parse(
    ngx_mail_policy_charge_unit_t *unit,
    ngx_mail_policy_redis_reply_t *elts);
static void ngx_mail_policy_redis_charge_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_script_ctx_t *ctx,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_uint_t ngx_mail_policy_redis_may_warn(
    ngx_mail_policy_redis_t *redis, ngx_str_t *name);
static void ngx_mail_policy_redis_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charge, uint64_t bad);
static void ngx_mail_policy_redis_lost(ngx_mail_policy_redis_t *redis);
static ngx_int_t ngx_mail_policy_redis_give_back_on(
    ngx_mail_policy_redis_conn_t *conn, ngx_mail_policy_charge_t *charges,
    ngx_uint_t n, uint64_t at);
static ngx_int_t ngx_mail_policy_redis_give_back_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);


static ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_charge_script = {
    { sizeof(ngx_mail_policy_script_charge) - 1,
      (u_char *) ngx_mail_policy_script_charge },
    { 0 }
};

static ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_back_script = {
    { sizeof(ngx_mail_policy_script_giveback) - 1,
      (u_char *) ngx_mail_policy_script_giveback },
    { 0 }
};

static ngx_str_t  ngx_mail_policy_redis_units[] = {
    ngx_string("messages"),
    ngx_string("recipients"),
    ngx_string("bytes")
};


void
ngx_mail_policy_redis_scripts_init(void)
{
    u_char                           sha1[20];
    ngx_uint_t                       i;
    ngx_sha1_t                       ctx;
    ngx_mail_policy_redis_script_t  *script;

    for (i = 0; i < 2; i++) {
        script = i ? &ngx_mail_policy_redis_back_script
                   : &ngx_mail_policy_redis_charge_script;

        ngx_sha1_init(&ctx);
        ngx_sha1_update(&ctx, script->text.data, script->text.len);
        ngx_sha1_final(sha1, &ctx);

        ngx_hex_dump(script->sha1, sha1, sizeof(sha1));
    }
}


ngx_int_t
ngx_mail_policy_redis_charge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_ask_t *ask, ngx_mail_policy_redis_done_pt done)
{
    ngx_mail_policy_redis_conn_t     *conn;
    ngx_mail_policy_redis_request_t  *request;

    conn = ngx_mail_policy_redis_get(redis);
    if (conn == NULL) {
        return NGX_DECLINED;
    }

    request = ngx_mail_policy_redis_charge_request(redis, ask);
    if (request == NULL) {
        return NGX_DECLINED;
    }

    request->done = done;
    request->data = ask;

    if (ngx_mail_policy_redis_push(conn, request) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return NGX_DECLINED;
    }

    ask->request = request;

    return NGX_OK;
}


/* EVALSHA sha1 nkeys, then room for argc arguments, the keys among them */

static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_script_request(ngx_mail_policy_redis_script_t *script,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t argc,
    ngx_uint_t nkeys)
{
    ngx_mail_policy_redis_request_t     *request;
    ngx_mail_policy_redis_script_ctx_t  *ctx;

    request = ngx_mail_policy_redis_request(3 + argc, handler);
    if (request == NULL) {
        return NULL;
    }

    ctx = ngx_pcalloc(request->pool,
                      sizeof(ngx_mail_policy_redis_script_ctx_t));

    if (ctx == NULL
        || ngx_mail_policy_redis_script_number(request, &request->argv[2],
                                               nkeys)
           != NGX_OK)
    {
        ngx_mail_policy_redis_request_free(request);
        return NULL;
    }

    ctx->script = script;
    request->ctx = ctx;
    request->writes = 1;

    ngx_str_set(&request->argv[0], "EVALSHA");
    request->argv[1].data = script->sha1;
    request->argv[1].len = sizeof(script->sha1);

    return request;
}


static ngx_int_t
ngx_mail_policy_redis_script_key(ngx_mail_policy_redis_request_t *request,
    ngx_str_t *arg, ngx_str_t *prefix, const char *kind, ngx_str_t *id)
{
    size_t   len;
    u_char  *p;

    len = ngx_strlen(kind);

    p = ngx_pnalloc(request->pool, prefix->len + len + id->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    arg->data = p;
    arg->len = prefix->len + len + id->len;

    p = ngx_cpymem(p, prefix->data, prefix->len);
    p = ngx_cpymem(p, kind, len);
    ngx_memcpy(p, id->data, id->len);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_script_number(ngx_mail_policy_redis_request_t *request,
    ngx_str_t *arg, uint64_t value)
{
    arg->data = ngx_pnalloc(request->pool, NGX_INT64_LEN);
    if (arg->data == NULL) {
        return NGX_ERROR;
    }

    arg->len = ngx_sprintf(arg->data, "%uL", value) - arg->data;

    return NGX_OK;
}


/* nunits, then name, kind, count, period, burst, amount of each; NULL: no
   memory */

static ngx_str_t *
ngx_mail_policy_redis_script_units(ngx_mail_policy_redis_request_t *request,
    ngx_str_t *arg, ngx_mail_policy_charge_t *charge)
{
    uint64_t                        numbers[5];
    ngx_uint_t                      u, i;
    ngx_mail_policy_charge_unit_t  *unit;

    if (ngx_mail_policy_redis_script_number(request, arg++, charge->nunits)
        != NGX_OK)
    {
        return NULL;
    }

    for (u = 0; u < charge->nunits; u++) {
        unit = &charge->units[u];

        *arg++ = ngx_mail_policy_redis_units[u];

        numbers[0] = unit->rate.kind;
        numbers[1] = unit->rate.count;
        numbers[2] = unit->rate.period;
        numbers[3] = unit->rate.burst;
        numbers[4] = unit->amount;

        for (i = 0; i < 5; i++) {
            if (ngx_mail_policy_redis_script_number(request, arg++,
                                                    numbers[i])
                != NGX_OK)
            {
                return NULL;
            }
        }
    }

    return arg;
}


/* turns it into an EVAL if Redis does not have the script (any more) */

static ngx_uint_t
ngx_mail_policy_redis_script_missing(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_mail_policy_redis_script_ctx_t  *ctx;

    if (!ngx_mail_policy_redis_is_error(reply, "NOSCRIPT")
        || request->argv[0].len != sizeof("EVALSHA") - 1)
    {
        return 0;
    }

    ctx = request->ctx;

    ngx_str_set(&request->argv[0], "EVAL");
    request->argv[1] = ctx->script->text;

    return 1;
}


static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_charge_request(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_ask_t *ask)
{
    ngx_str_t                        *arg, *id;
    ngx_uint_t                        i, argc;
    ngx_mail_policy_redis_request_t  *request;

    argc = 0;

    for (i = 0; i < ask->ncharges; i++) {
        argc += 2 + 1 + 6 * ask->charges[i].nunits;
    }

    request = ngx_mail_policy_redis_script_request(
                                         &ngx_mail_policy_redis_charge_script,
                                         ngx_mail_policy_redis_charge_answer,
                                         argc, 2 * ask->ncharges);
    if (request == NULL) {
        return NULL;
    }

    if (ngx_mail_policy_redis_charge_copy(request, ask) != NGX_OK) {
        goto failed;
    }

    arg = &request->argv[3];

    for (i = 0; i < ask->ncharges; i++) {
        id = &ask->charges[i].id;

        if (ngx_mail_policy_redis_script_key(request, arg++, &redis->prefix,
                                             "used:", id)
            != NGX_OK
            || ngx_mail_policy_redis_script_key(request, arg++,
                                                &redis->prefix, "limit:", id)
               != NGX_OK)
        {
            goto failed;
        }
    }

    for (i = 0; i < ask->ncharges; i++) {
        arg = ngx_mail_policy_redis_script_units(request, arg,
                                                 &ask->charges[i]);
        if (arg == NULL) {
            goto failed;
        }
    }

    return request;

failed:

    ngx_mail_policy_redis_request_free(request);

    return NULL;
}


static ngx_int_t
ngx_mail_policy_redis_charge_copy(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                           i;
    ngx_mail_policy_charge_t            *charge;
    ngx_mail_policy_redis_script_ctx_t  *ctx;

    ctx = request->ctx;

    ctx->ncharges = ask->ncharges;
    ctx->charges = ngx_palloc(request->pool,
                          ctx->ncharges * sizeof(ngx_mail_policy_charge_t));
    if (ctx->charges == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->ncharges; i++) {
        charge = &ctx->charges[i];
        *charge = ask->charges[i];

        charge->id.data = ngx_pstrdup(request->pool, &ask->charges[i].id);
        if (charge->id.data == NULL) {
            return NGX_ERROR;
        }

        /* the id begins with the name; the key is in it, escaped */
        charge->name.data = charge->id.data;
        ngx_str_null(&charge->key);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_charge_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_int_t                            rc;
    ngx_uint_t                           i;
    ngx_mail_policy_ask_t               *ask;
    ngx_mail_policy_redis_script_ctx_t  *ctx;

    ctx = request->ctx;
    ask = request->data;

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {

        if (ask && ngx_mail_policy_redis_script_missing(request, reply)) {
            return NGX_AGAIN;
        }

        return NGX_OK;
    }

    rc = ngx_mail_policy_redis_charge_parse(ctx, reply);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_mail_policy_redis_charge_warn(request->conn->redis, ctx, reply);

    if (ask) {
        for (i = 0; i < ctx->ncharges; i++) {
            ngx_memcpy(ask->charges[i].units, ctx->charges[i].units,
                       sizeof(ask->charges[i].units));
        }

        ask->at = ctx->at;

        request->data = NULL;
        request->done(ask, rc);

        return NGX_OK;
    }

    /* too late for whoever asked */

    if (rc == NGX_OK
        && ngx_mail_policy_redis_give_back_on(request->conn, ctx->charges,
                                              ctx->ncharges, ctx->at)
           != NGX_OK)
    {
        ngx_mail_policy_redis_lost(request->conn->redis);
    }

    return NGX_OK;
}


/*
 * 1 charged or 0 refused, now; for each limit: what was bad; for each of its
 * units: fits, kind, count, period, burst, used, remaining, retry
 */

static ngx_int_t
ngx_mail_policy_redis_charge_parse(ngx_mail_policy_redis_script_ctx_t *ctx,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_uint_t                      i, u, n, fits;
    ngx_mail_policy_charge_unit_t  *unit;
    ngx_mail_policy_redis_reply_t  *elts;

    n = 2;

    for (i = 0; i < ctx->ncharges; i++) {
        n += 1 + NGX_MAIL_POLICY_REDIS_PER_UNIT * ctx->charges[i].nunits;
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

    ctx->at = elts[1].integer;
    fits = 1;
    n = 2;

    for (i = 0; i < ctx->ncharges; i++) {
        n++;

        for (u = 0; u < ctx->charges[i].nunits; u++) {
            unit = &ctx->charges[i].units[u];

            if (ngx_mail_policy_redis_unit_parse(unit, &elts[n]) != NGX_OK) {
                return NGX_ERROR;
            }

            fits &= unit->decision.fits;
            n += NGX_MAIL_POLICY_REDIS_PER_UNIT;
        }
    }

    if (elts[0].integer != (int64_t) fits) {
        return NGX_ERROR;
    }

    return fits ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_redis_unit_parse(ngx_mail_policy_charge_unit_t *unit,
    ngx_mail_policy_redis_reply_t *elts)
{
    if (elts[0].integer > 1 || elts[1].integer > MPOL_RATE_BLOCKED) {
        return NGX_ERROR;
    }

    unit->rate.kind = (mpol_rate_kind_e) elts[1].integer;
    unit->rate.count = elts[2].integer;
    unit->rate.period = elts[3].integer;
    unit->rate.burst = elts[4].integer;

    /* the arithmetic divides by them */

    if ((unit->rate.kind == MPOL_RATE_WINDOW
         || unit->rate.kind == MPOL_RATE_BUCKET)
        && (unit->rate.count == 0 || unit->rate.period == 0))
    {
        return NGX_ERROR;
    }

    unit->decision.fits = (elts[0].integer == 1);
    unit->decision.used = elts[5].integer;
    unit->decision.remaining = elts[6].integer;
    unit->decision.retry = elts[7].integer;

    return NGX_OK;
}


static void
ngx_mail_policy_redis_charge_warn(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_script_ctx_t *ctx,
    ngx_mail_policy_redis_reply_t *reply)
{
    uint64_t    bad;
    ngx_uint_t  i, n;

    n = 2;

    for (i = 0; i < ctx->ncharges; i++) {

        bad = reply->elts[n].integer;
        n += 1 + NGX_MAIL_POLICY_REDIS_PER_UNIT * ctx->charges[i].nunits;

        if (bad && ngx_mail_policy_redis_may_warn(redis,
                                                  &ctx->charges[i].name))
        {
            ngx_mail_policy_redis_warn(redis, &ctx->charges[i], bad);
        }
    }
}


/* once a minute and limit */

static ngx_uint_t
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
    ngx_str_t   key;
    ngx_uint_t  u;

    /* <name>:{<key>} */

    key.data = charge->id.data + charge->name.len + 2;
    key.len = charge->id.len - charge->name.len - 3;

    if (bad & NGX_MAIL_POLICY_REDIS_WRONG_TYPE) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy limit \"%V\" of key \"%V\" is not counted: "
                      "\"%Vused:%V\" in Redis is not a hash, delete it",
                      &charge->name, &key, &redis->prefix, &charge->id);
    }

    for (u = 0; u < charge->nunits; u++) {
        if (bad & ((uint64_t) 1 << u)) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "policy limit \"%V\" of key \"%V\" in Redis: "
                          "\"%V\" is not a rate, entry skipped",
                          &charge->name, &key,
                          &ngx_mail_policy_redis_units[u]);
        }
    }
}


/* if it cannot be sent now, the window takes care of it */

void
ngx_mail_policy_redis_give_back(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t at)
{
    ngx_mail_policy_redis_conn_t  *conn;

    conn = ngx_mail_policy_redis_get(redis);

    if (conn == NULL
        || ngx_mail_policy_redis_give_back_on(conn, charges, n, at) != NGX_OK)
    {
        ngx_mail_policy_redis_lost(redis);
    }
}


static void
ngx_mail_policy_redis_lost(ngx_mail_policy_redis_t *redis)
{
    redis->lost++;

    if (redis->counted == ngx_time()) {
        return;
    }

    redis->counted = ngx_time();

    ngx_log_error(NGX_LOG_INFO, ngx_cycle->log, 0,
                  "policy store %V: %ui charges so far could not be given "
                  "back", &redis->name, redis->lost);
}


static ngx_int_t
ngx_mail_policy_redis_give_back_on(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t at)
{
    ngx_str_t                        *arg;
    ngx_uint_t                        i, argc;
    ngx_mail_policy_redis_request_t  *request;

    argc = n + 1;

    for (i = 0; i < n; i++) {
        argc += 1 + 6 * charges[i].nunits;
    }

    request = ngx_mail_policy_redis_script_request(
                                       &ngx_mail_policy_redis_back_script,
                                       ngx_mail_policy_redis_give_back_answer,
                                       argc, n);
    if (request == NULL) {
        return NGX_ERROR;
    }

    arg = &request->argv[3];

    for (i = 0; i < n; i++) {
        if (ngx_mail_policy_redis_script_key(request, arg++,
                                             &conn->redis->prefix, "used:",
                                             &charges[i].id)
            != NGX_OK)
        {
            goto failed;
        }
    }

    if (ngx_mail_policy_redis_script_number(request, arg++, at) != NGX_OK) {
        goto failed;
    }

    for (i = 0; i < n; i++) {
        arg = ngx_mail_policy_redis_script_units(request, arg, &charges[i]);
        if (arg == NULL) {
            goto failed;
        }
    }

    if (ngx_mail_policy_redis_push(conn, request) != NGX_OK) {
        goto failed;
    }

    return NGX_OK;

failed:

    ngx_mail_policy_redis_request_free(request);

    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_redis_give_back_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {
        return ngx_mail_policy_redis_script_missing(request, reply)
               ? NGX_AGAIN : NGX_OK;
    }

    return (reply->type == NGX_MAIL_POLICY_REDIS_ARRAY) ? NGX_OK : NGX_ERROR;
}
