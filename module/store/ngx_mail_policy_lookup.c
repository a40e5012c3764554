
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lookups of records that operators write: as asks, they have one event,
 * which is the deadline and then, posted, calls the handler.  They are freed
 * by done or cancel, and nowhere else.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_LOOKUP_STARTING  5      /* ms */


static void ngx_mail_policy_lookup_finish(void *data, ngx_int_t rc);
static void ngx_mail_policy_lookup_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_lookup_free(ngx_mail_policy_lookup_t *lookup);


ngx_mail_policy_lookup_t *
ngx_mail_policy_lookup_create(ngx_mail_policy_store_t *store,
    ngx_uint_t nfields, ngx_mail_policy_lookup_pt handler, void *data)
{
    ngx_pool_t                *pool;
    ngx_mail_policy_lookup_t  *lookup;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    lookup = ngx_pcalloc(pool, sizeof(ngx_mail_policy_lookup_t));
    if (lookup == NULL) {
        goto failed;
    }

    lookup->fields = ngx_pcalloc(pool, 2 * nfields * sizeof(ngx_str_t));
    if (lookup->fields == NULL) {
        goto failed;
    }

    lookup->values = lookup->fields + nfields;

    lookup->pool = pool;
    lookup->nfields = nfields;
    lookup->handler = handler;
    lookup->data = data;
    lookup->store = store;

    lookup->event.handler = ngx_mail_policy_lookup_event_handler;
    lookup->event.data = lookup;
    lookup->event.log = ngx_cycle->log;

    return lookup;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_lookup_send(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_redis_t  *redis;

    redis = lookup->store->redis;

    if (redis && ngx_mail_policy_redis_starting(redis)) {
        lookup->starting = 1;
        ngx_add_timer(&lookup->event, NGX_MAIL_POLICY_LOOKUP_STARTING);
        return;
    }

    if (redis == NULL
        || ngx_mail_policy_redis_lookup(redis, lookup,
                                        ngx_mail_policy_lookup_finish)
           != NGX_OK)
    {
        ngx_mail_policy_lookup_finish(lookup, NGX_ERROR);
        return;
    }

    ngx_add_timer(&lookup->event, redis->timeout);
}


static void
ngx_mail_policy_lookup_finish(void *data, ngx_int_t rc)
{
    ngx_mail_policy_lookup_t *lookup = data;

    lookup->request = NULL;
    lookup->rc = rc;

    if (rc == NGX_ERROR) {
        ngx_mail_policy_store_unanswered(lookup->store);
    }

    if (lookup->event.timer_set) {
        ngx_del_timer(&lookup->event);
    }

    if (!lookup->store->exiting) {
        ngx_post_event(&lookup->event, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_lookup_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_lookup_t         *lookup;
    ngx_mail_policy_redis_request_t  *request;

    lookup = ev->data;

    if (lookup->starting) {
        lookup->starting = 0;
        ngx_mail_policy_lookup_send(lookup);
        return;
    }

    request = lookup->request;

    if (request) {
        ngx_mail_policy_redis_timedout(request);
        return;
    }

    lookup->handler(lookup->data, lookup);
}


void
ngx_mail_policy_lookup_done(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_lookup_free(lookup);
}


void
ngx_mail_policy_lookup_cancel(ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_lookup_free(lookup);
}


static void
ngx_mail_policy_lookup_free(ngx_mail_policy_lookup_t *lookup)
{
    ngx_uint_t  i;

    ngx_mail_policy_store_forget(&lookup->event, lookup->request);

    for (i = 0; i < lookup->nfields; i++) {
        if (lookup->values[i].data) {
            ngx_explicit_memzero(lookup->values[i].data,
                                 lookup->values[i].len);
        }
    }

    ngx_destroy_pool(lookup->pool);
}
