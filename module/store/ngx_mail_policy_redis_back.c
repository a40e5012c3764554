
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What follows a charge: giving back, renewing leases, and adding what was
 * counted locally.  No events arrive here; of the answers only that to merge
 * is waited for.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_redis_script.h"


#define NGX_MAIL_POLICY_REDIS_BACK  32      /* charges in a call */


typedef struct {
    ngx_mail_policy_redis_done_pt   done;
    void                           *data;
    ngx_int_t                       rc;
} ngx_mail_policy_redis_merge_t;


static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_back_request(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_charge_t **charges,
    ngx_uint_t n, ngx_uint_t succeeded);
static void ngx_mail_policy_redis_back_units(
    ngx_mail_policy_redis_args_t *args, ngx_mail_policy_charge_t *charge);
static ngx_int_t ngx_mail_policy_redis_back_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_merge_request(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_shm_local_t *local,
    ngx_str_t *id);
static ngx_int_t ngx_mail_policy_redis_merge_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static void ngx_mail_policy_redis_merge_end(void *data);


/*
 * If it cannot be sent now, the window takes care of it.  Charges that the
 * same call made, and in a Cluster those of one slot, go back in one call.
 */

void
ngx_mail_policy_redis_give_back(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n, ngx_uint_t succeeded)
{
    ngx_uint_t                        i, k, slot;
    ngx_mail_policy_redis_request_t  *request;

    for (i = 0; i < n; i = k) {

        slot = ngx_mail_policy_redis_slot(redis, &charges[i]->id);

        for (k = i + 1; k < n; k++) {
            if (k - i == NGX_MAIL_POLICY_REDIS_BACK
                || charges[k]->at != charges[i]->at
                || ngx_mail_policy_redis_slot(redis, &charges[k]->id) != slot)
            {
                break;
            }
        }

        request = ngx_mail_policy_redis_back_request(redis, &charges[i],
                                                     k - i, succeeded);
        if (request == NULL) {
            ngx_mail_policy_redis_lost(redis);
            continue;
        }

        request->slot = slot;

        if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
            ngx_mail_policy_redis_request_free(request);
            ngx_mail_policy_redis_lost(redis);
        }
    }
}


ngx_int_t
ngx_mail_policy_redis_give_back_on(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n)
{
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_back_request(conn->redis, charges, n, 0);
    if (request == NULL) {
        return NGX_ERROR;
    }

    request->slot = ngx_mail_policy_redis_slot(conn->redis, &charges[0]->id);

    if (ngx_mail_policy_redis_push(conn, request) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
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


/*
 * used of each; keys of sets; at, succeeded, n; for each: nunits, and for
 * each unit: name, kind, count, period, burst, amount, member
 */

static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_back_request(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t **charges, ngx_uint_t n, ngx_uint_t succeeded)
{
    size_t                            size;
    ngx_uint_t                        i, nkeys, argc;
    ngx_mail_policy_redis_args_t      args;
    ngx_mail_policy_redis_request_t  *request;

    nkeys = n;
    argc = 3;
    size = 3 * NGX_INT64_LEN;

    for (i = 0; i < n; i++) {
        nkeys += ngx_mail_policy_redis_set_keys(charges[i]->asked);
        argc += 1 + 7 * NGX_MAIL_POLICY_UNITS;
        size += 4 * NGX_MAIL_POLICY_REDIS_KEY(redis, &charges[i]->id)
                + NGX_INT64_LEN
                + NGX_MAIL_POLICY_UNITS
                  * (sizeof("auth_failures") + 5 * NGX_INT64_LEN
                     + charges[i]->member.len + 1 + charges[i]->client.len);
    }

    request = ngx_mail_policy_redis_script_request(redis,
                                         &ngx_mail_policy_redis_back_script,
                                         ngx_mail_policy_redis_back_answer,
                                         nkeys, nkeys + argc, size, &args);
    if (request == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        ngx_mail_policy_redis_arg_key(&args, "used:", &charges[i]->id);
    }

    for (i = 0; i < n; i++) {
        ngx_mail_policy_redis_arg_set_keys(&args, charges[i],
                                           charges[i]->asked);
    }

    ngx_mail_policy_redis_arg_num(&args, charges[0]->at);
    ngx_mail_policy_redis_arg_num(&args, succeeded);
    ngx_mail_policy_redis_arg_num(&args, n);

    for (i = 0; i < n; i++) {
        ngx_mail_policy_redis_back_units(&args, charges[i]);
    }

    request->argc = args.arg - request->argv;

    return request;
}


static void
ngx_mail_policy_redis_back_units(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_charge_t *charge)
{
    ngx_str_t                      *nunits;
    ngx_uint_t                      u, n;
    ngx_mail_policy_charge_unit_t  *unit;

    nunits = args->arg;
    ngx_mail_policy_redis_arg_num(args, NGX_MAIL_POLICY_UNITS);

    n = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        unit = &charge->units[u];

        if (!(charge->asked & ngx_mail_policy_asked(u))
            || unit->amount <= unit->kept)
        {
            continue;
        }

        n++;

        ngx_mail_policy_redis_arg_str(args, &ngx_mail_policy_store_units[u]);
        ngx_mail_policy_redis_arg_num(args, unit->rate.kind);
        ngx_mail_policy_redis_arg_num(args, unit->rate.count);
        ngx_mail_policy_redis_arg_num(args, unit->rate.period);
        ngx_mail_policy_redis_arg_num(args, unit->rate.burst);
        ngx_mail_policy_redis_arg_num(args, unit->amount - unit->kept);
        ngx_mail_policy_redis_arg_member(args, charge, u);
    }

    nunits->data[0] = '0' + n;
}


static ngx_int_t
ngx_mail_policy_redis_back_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {
        return ngx_mail_policy_redis_script_missing(request, reply)
               ? NGX_AGAIN : NGX_OK;
    }

    return (reply->type == NGX_MAIL_POLICY_REDIS_ARRAY) ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_redis_renew(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_charge_t *charge)
{
    size_t                            size;
    ngx_mail_policy_redis_args_t      args;
    ngx_mail_policy_redis_request_t  *request;

    size = NGX_MAIL_POLICY_REDIS_KEY(redis, &charge->id) + NGX_INT64_LEN
           + charge->member.len;

    request = ngx_mail_policy_redis_script_request(redis,
                                         &ngx_mail_policy_redis_renew_script,
                                         ngx_mail_policy_redis_back_answer,
                                         1, 3, size, &args);
    if (request == NULL) {
        return NGX_ERROR;
    }

    request->slot = ngx_mail_policy_redis_slot(redis, &charge->id);

    ngx_mail_policy_redis_arg_key(&args, "lease:", &charge->id);
    ngx_mail_policy_redis_arg_num(&args, NGX_MAIL_POLICY_LEASE);
    ngx_mail_policy_redis_arg_str(&args, &charge->member);

    if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
        ngx_mail_policy_redis_request_free(request);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* local->texts[unit], of those that are not empty */

void
ngx_mail_policy_redis_merge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_shm_local_t *local, ngx_str_t *id,
    ngx_mail_policy_redis_done_pt done, void *data)
{
    ngx_pool_cleanup_t               *cln;
    ngx_mail_policy_redis_merge_t    *merge;
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_merge_request(redis, local, id);
    if (request == NULL) {
        done(data, NGX_DECLINED);
        return;
    }

    /* told when the request ends, not when its connection is found slow */

    cln = ngx_pool_cleanup_add(request->pool,
                               sizeof(ngx_mail_policy_redis_merge_t));
    if (cln == NULL) {
        ngx_mail_policy_redis_request_free(request);
        done(data, NGX_DECLINED);
        return;
    }

    merge = cln->data;
    merge->done = done;
    merge->data = data;
    merge->rc = NGX_ERROR;

    cln->handler = ngx_mail_policy_redis_merge_end;
    request->ctx = merge;

    if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
        merge->rc = NGX_DECLINED;
        ngx_mail_policy_redis_request_free(request);
    }
}


static ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_merge_request(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_shm_local_t *local, ngx_str_t *id)
{
    size_t                            size;
    ngx_uint_t                        u, n;
    ngx_mail_policy_redis_args_t      args;
    ngx_mail_policy_redis_request_t  *request;

    size = 3 * NGX_MAIL_POLICY_REDIS_KEY(redis, &local->id) + NGX_INT64_LEN
           + id->len;
    n = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if (local->texts[u].len) {
            size += sizeof("auth_failures") + local->texts[u].len;
            n++;
        }
    }

    request = ngx_mail_policy_redis_script_request(redis,
                                         &ngx_mail_policy_redis_merge_script,
                                         ngx_mail_policy_redis_merge_answer,
                                         3, 3 + 2 + 2 * n, size, &args);
    if (request == NULL) {
        return NULL;
    }

    ngx_mail_policy_redis_arg_key(&args, "used:", &local->id);
    ngx_mail_policy_redis_arg_key(&args, "failed:", &local->id);
    ngx_mail_policy_redis_arg_key(&args, "merged:", &local->id);
    ngx_mail_policy_redis_arg_num(&args, n);

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if (local->texts[u].len) {
            ngx_mail_policy_redis_arg_str(&args,
                                          &ngx_mail_policy_store_units[u]);
            ngx_mail_policy_redis_arg_str(&args, &local->texts[u]);
        }
    }

    ngx_mail_policy_redis_arg_str(&args, id);

    request->slot = ngx_mail_policy_redis_slot(redis, &local->id);

    return request;
}


static ngx_int_t
ngx_mail_policy_redis_merge_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_mail_policy_redis_merge_t  *merge;

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {
        return ngx_mail_policy_redis_script_missing(request, reply)
               ? NGX_AGAIN : NGX_OK;
    }

    if (reply->type != NGX_MAIL_POLICY_REDIS_ARRAY) {
        return NGX_ERROR;
    }

    merge = request->ctx;
    merge->rc = NGX_OK;

    return NGX_OK;
}


static void
ngx_mail_policy_redis_merge_end(void *data)
{
    ngx_mail_policy_redis_merge_t *merge = data;

    merge->done(merge->data, merge->rc);
}
