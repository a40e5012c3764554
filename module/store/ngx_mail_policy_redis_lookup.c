
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * HMGET of a record that an operator wrote, or GET of a string, which is
 * treated as the only field of one.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis.h"


static ngx_int_t ngx_mail_policy_redis_lookup_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_lookup_copy(
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_reply_t *elts,
    ngx_uint_t n);


ngx_int_t
ngx_mail_policy_redis_lookup(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_done_pt done)
{
    u_char                           *p;
    ngx_str_t                        *key;
    ngx_uint_t                        named, *nfields;
    ngx_mail_policy_redis_request_t  *request;

    named = lookup->string ? 0 : lookup->nfields;

    request = ngx_mail_policy_redis_request(2 + named,
                                         ngx_mail_policy_redis_lookup_answer);
    if (request == NULL) {
        return NGX_DECLINED;
    }

    /* what the owner leaves behind when it goes first */

    nfields = ngx_palloc(request->pool, sizeof(ngx_uint_t));
    if (nfields == NULL) {
        goto failed;
    }

    *nfields = named;

    key = &request->argv[1];
    key->len = redis->prefix.len + lookup->key.len;

    key->data = ngx_pnalloc(request->pool, key->len + 1);
    if (key->data == NULL) {
        goto failed;
    }

    p = ngx_cpymem(key->data, redis->prefix.data, redis->prefix.len);
    ngx_memcpy(p, lookup->key.data, lookup->key.len);

    if (named) {
        ngx_str_set(&request->argv[0], "HMGET");
        ngx_memcpy(&request->argv[2], lookup->fields,
                   named * sizeof(ngx_str_t));

    } else {
        ngx_str_set(&request->argv[0], "GET");
    }

    request->ctx = nfields;
    request->done = done;
    request->data = lookup;
    request->slot = ngx_mail_policy_redis_slot(redis, key);

    if (ngx_mail_policy_redis_send(redis, request) != NGX_OK) {
        goto failed;
    }

    lookup->request = request;

    return NGX_OK;

failed:

    ngx_mail_policy_redis_request_free(request);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_redis_lookup_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i, n, *nfields;
    ngx_mail_policy_lookup_t       *lookup;
    ngx_mail_policy_redis_reply_t  *elts;

    nfields = request->ctx;
    lookup = request->data;

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {

        if (lookup && ngx_mail_policy_redis_is_error(reply, "WRONGTYPE")) {
            request->data = NULL;
            request->done(lookup, NGX_DECLINED);
        }

        return NGX_OK;
    }

    n = *nfields;
    elts = reply->elts;

    if (n == 0) {
        n = 1;
        elts = reply;

    } else if (reply->type != NGX_MAIL_POLICY_REDIS_ARRAY
               || reply->nelts != n)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        if (elts[i].type != NGX_MAIL_POLICY_REDIS_STRING
            && elts[i].type != NGX_MAIL_POLICY_REDIS_NIL)
        {
            return NGX_ERROR;
        }
    }

    if (lookup) {
        rc = ngx_mail_policy_redis_lookup_copy(lookup, elts, n);

        request->data = NULL;
        request->done(lookup, rc);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_lookup_copy(ngx_mail_policy_lookup_t *lookup,
    ngx_mail_policy_redis_reply_t *elts, ngx_uint_t n)
{
    ngx_str_t   *from, *to;
    ngx_uint_t   i;

    for (i = 0; i < n; i++) {
        from = &elts[i].str;
        to = &lookup->values[i];

        if (from->data == NULL) {
            continue;
        }

        to->data = ngx_pnalloc(lookup->pool, from->len + 1);
        if (to->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(to->data, from->data, from->len);
        to->len = from->len;
    }

    return NGX_OK;
}
