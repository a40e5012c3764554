
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Strings that operators wrote, as a worker remembers them; also that there
 * is none.  One that is too old is waited for, and if it cannot be read now,
 * it is what it was.  Of another type, or too long: there is none.
 *
 * No events arrive here; the cache calls what is to be parsed, and whoever
 * waits.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_cache.h"
#include "ngx_mail_policy_redis_script.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_STRING_MAX  1024    /* octets */


typedef struct {
    ngx_mail_policy_entry_t     entry;      /* text: of the value */
    ngx_str_t                   value;
} ngx_mail_policy_string_entry_t;


static ngx_mail_policy_cache_t *ngx_mail_policy_string_cache(
    ngx_mail_policy_store_t *store);
static ngx_int_t ngx_mail_policy_string_read(ngx_mail_policy_entry_t *entry);
static ngx_int_t ngx_mail_policy_string_wait(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_string_t *string);
static void ngx_mail_policy_string_arrived(void *data,
    ngx_mail_policy_entry_t *entry);
static void ngx_mail_policy_string_answer(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup);
static void ngx_mail_policy_string_bad(ngx_mail_policy_entry_t *entry,
    const char *what);


ngx_int_t
ngx_mail_policy_string_get(ngx_mail_policy_store_t *store, ngx_str_t *key,
    ngx_mail_policy_string_t *string, ngx_str_t *value)
{
    ngx_mail_policy_cache_t         *cache;
    ngx_mail_policy_entry_t         *entry;
    ngx_mail_policy_string_entry_t  *found;

    cache = ngx_mail_policy_string_cache(store);
    if (cache == NULL) {
        return NGX_ERROR;
    }

    entry = ngx_mail_policy_cache_get(cache, key);
    if (entry == NULL) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_cache_stale(entry)
        && ngx_mail_policy_string_read(entry) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (entry->lookup) {
        return ngx_mail_policy_string_wait(entry, string);
    }

    found = (ngx_mail_policy_string_entry_t *) entry;
    *value = found->value;

    return NGX_OK;
}


/* made when it is needed first */

static ngx_mail_policy_cache_t *
ngx_mail_policy_string_cache(ngx_mail_policy_store_t *store)
{
    ngx_mail_policy_cache_t  *cache;

    if (store->strings) {
        return store->strings;
    }

    cache = ngx_calloc(sizeof(ngx_mail_policy_cache_t), ngx_cycle->log);
    if (cache == NULL) {
        return NULL;
    }

    cache->store = store;
    cache->size = sizeof(ngx_mail_policy_string_entry_t);
    cache->parse = ngx_mail_policy_string_answer;

    ngx_mail_policy_cache_init(cache);

    store->strings = cache;

    return cache;
}


void
ngx_mail_policy_string_stop(ngx_mail_policy_store_t *store)
{
    if (store->strings) {
        ngx_mail_policy_cache_free(store->strings);
        ngx_free(store->strings);
        store->strings = NULL;
    }
}


static ngx_int_t
ngx_mail_policy_string_read(ngx_mail_policy_entry_t *entry)
{
    ngx_mail_policy_lookup_t  *lookup;

    lookup = ngx_mail_policy_cache_lookup(entry, 1);
    if (lookup == NULL) {
        return NGX_ERROR;
    }

    lookup->string = 1;
    lookup->key = entry->str.str;

    ngx_mail_policy_cache_read(entry, lookup);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_string_wait(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_string_t *string)
{
    ngx_mail_policy_waiter_t  *waiter;

    waiter = ngx_palloc(string->pool, sizeof(ngx_mail_policy_waiter_t));
    if (waiter == NULL) {
        return NGX_ERROR;
    }

    waiter->handler = ngx_mail_policy_string_arrived;
    waiter->data = string;
    waiter->next = NULL;

    string->waiter = waiter;

    ngx_mail_policy_cache_wait(entry, waiter);

    return NGX_AGAIN;
}


void
ngx_mail_policy_string_forget(ngx_mail_policy_string_t *string)
{
    if (string->waiter) {
        (void) ngx_mail_policy_cache_forget(string->waiter);
    }
}


static void
ngx_mail_policy_string_arrived(void *data, ngx_mail_policy_entry_t *entry)
{
    ngx_mail_policy_string_t *string = data;

    ngx_mail_policy_string_entry_t  *found;

    found = (ngx_mail_policy_string_entry_t *) entry;

    string->handler(string->data, &found->value);
}


static void
ngx_mail_policy_string_answer(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup)
{
    ngx_str_t                       *value;
    ngx_mail_policy_string_entry_t  *found;

    found = (ngx_mail_policy_string_entry_t *) entry;

    if (entry->text) {
        ngx_free(entry->text);
        entry->text = NULL;
    }

    ngx_str_null(&found->value);

    if (lookup->rc == NGX_DECLINED) {
        ngx_mail_policy_string_bad(entry, "not a string");
        return;
    }

    value = &lookup->values[0];

    if (value->data == NULL) {
        return;
    }

    if (value->len > NGX_MAIL_POLICY_STRING_MAX) {
        ngx_mail_policy_string_bad(entry, "longer than 1024 octets");
        return;
    }

    entry->text = ngx_alloc(value->len + 1, ngx_cycle->log);

    if (entry->text == NULL) {
        entry->asked = 0;
        return;
    }

    ngx_memcpy(entry->text, value->data, value->len);

    found->value.data = entry->text;
    found->value.len = value->len;
}


static void
ngx_mail_policy_string_bad(ngx_mail_policy_entry_t *entry, const char *what)
{
    ngx_mail_policy_redis_t  *redis;

    redis = entry->cache->store->redis;

    if (ngx_mail_policy_redis_may_warn(redis, &entry->str.str)) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy entry \"%V%V\" in Redis is %s, skipped",
                      &redis->prefix, &entry->str.str, what);
    }
}
