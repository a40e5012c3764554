
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * HMGET of a record that an operator wrote.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis.h"


static ngx_int_t ngx_mail_policy_redis_lookup_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);
static ngx_int_t ngx_mail_policy_redis_lookup_copy(
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_reply_t *reply);


ngx_int_t
ngx_mail_policy_redis_lookup(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_lookup_t *lookup, ngx_mail_policy_redis_done_pt done)
{
    u_char                           *p;
    ngx_str_t                        *key;
    ngx_uint_t                       *nfields;
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_request(2 + lookup->nfields,
                                         ngx_mail_policy_redis_lookup_answer);
    if (request == NULL) {
        return NGX_DECLINED;
    }

    /* what the owner leaves behind when it goes first */

    nfields = ngx_palloc(request->pool, sizeof(ngx_uint_t));
    if (nfields == NULL) {
        goto failed;
    }

    *nfields = lookup->nfields;

    key = &request->argv[1];
    key->len = redis->prefix.len + lookup->key.len;

    key->data = ngx_pnalloc(request->pool, key->len + 1);
    if (key->data == NULL) {
        goto failed;
    }

    p = ngx_cpymem(key->data, redis->prefix.data, redis->prefix.len);
    ngx_memcpy(p, lookup->key.data, lookup->key.len);

    ngx_str_set(&request->argv[0], "HMGET");
    ngx_memcpy(&request->argv[2], lookup->fields,
               lookup->nfields * sizeof(ngx_str_t));

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
    ngx_int_t                  rc;
    ngx_uint_t                 i, *nfields;
    ngx_mail_policy_lookup_t  *lookup;

    nfields = request->ctx;
    lookup = request->data;

    if (reply->type == NGX_MAIL_POLICY_REDIS_ERROR) {

        if (lookup && ngx_mail_policy_redis_is_error(reply, "WRONGTYPE")) {
            request->data = NULL;
            request->done(lookup, NGX_DECLINED);
        }

        return NGX_OK;
    }

    if (reply->type != NGX_MAIL_POLICY_REDIS_ARRAY
        || reply->nelts != *nfields)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < reply->nelts; i++) {
        if (reply->elts[i].type != NGX_MAIL_POLICY_REDIS_STRING
            && reply->elts[i].type != NGX_MAIL_POLICY_REDIS_NIL)
        {
            return NGX_ERROR;
        }
    }

    if (lookup) {
        rc = ngx_mail_policy_redis_lookup_copy(lookup, reply);

        request->data = NULL;
        request->done(lookup, rc);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_lookup_copy(ngx_mail_policy_lookup_t *lookup,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_str_t   *from, *to;
    ngx_uint_t   i;

    for (i = 0; i < reply->nelts; i++) {
        from = &reply->elts[i].str;
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
