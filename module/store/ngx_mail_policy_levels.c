
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Entries of domains, defaults and plans, as a worker remembers them.
 *
 * A stale entry is used while it is read again, by the asks that are sent
 * with its reading; they are told when it is there, and look whether it still
 * says the same.  One that is no hash says nothing.
 *
 * What an ask was sent with is held until it is answered: it is judged by the
 * same entries, however many others are read meanwhile.
 *
 * No events arrive here; the cache calls what is to be parsed.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_text.h"
#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_cache.h"
#include "ngx_mail_policy_redis_script.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_LEVELS_NAME  1024   /* octets, of an entry's key */


/* the fields behind those of the units */
#define NGX_MAIL_POLICY_LEVELS_PLAN       NGX_MAIL_POLICY_UNITS
#define NGX_MAIL_POLICY_LEVELS_SUSPENDED  (NGX_MAIL_POLICY_UNITS + 1)
#define NGX_MAIL_POLICY_LEVELS_FIELDS     (NGX_MAIL_POLICY_UNITS + 2)


struct ngx_mail_policy_level_s {
    ngx_mail_policy_entry_t     entry;      /* the key behind the prefix; of a
                                               plan with " <limit>" behind it */
    mpol_rate_t                 rates[NGX_MAIL_POLICY_UNITS];
    ngx_str_t                   plan;       /* in name[] */
    u_char                      name[NGX_MAIL_POLICY_PLAN];
    unsigned                    suspended:1;
};


struct ngx_mail_policy_levels_s {
    ngx_mail_policy_cache_t        cache;
    ngx_mail_policy_plans_t       *plans;   /* NULL: none seen yet */
};


static ngx_int_t ngx_mail_policy_levels_collect(
    ngx_mail_policy_levels_t *levels, ngx_mail_policy_charge_t *charge,
    ngx_mail_policy_sent_t *sent, ngx_mail_policy_level_t **found,
    ngx_mail_policy_ask_t *wait);
static void ngx_mail_policy_levels_release(ngx_mail_policy_level_t *level);
static ngx_mail_policy_level_t *ngx_mail_policy_levels_get(
    ngx_mail_policy_levels_t *levels, ngx_str_t *key, ngx_str_t *limit,
    ngx_mail_policy_ask_t *wait);
static ngx_int_t ngx_mail_policy_levels_read(ngx_mail_policy_level_t *level,
    ngx_str_t *limit);
static ngx_int_t ngx_mail_policy_levels_wait(ngx_mail_policy_level_t *level,
    ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_levels_arrived(void *data,
    ngx_mail_policy_entry_t *entry);
static void ngx_mail_policy_levels_answer(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup);
static void ngx_mail_policy_levels_parse(ngx_mail_policy_level_t *level,
    ngx_mail_policy_lookup_t *lookup);
static void ngx_mail_policy_levels_bad(ngx_mail_policy_level_t *level,
    ngx_str_t *field);
static size_t ngx_mail_policy_levels_domain(
    ngx_mail_policy_charge_t *charge, u_char *out, size_t size);


ngx_mail_policy_levels_t *
ngx_mail_policy_levels_create(ngx_mail_policy_store_t *store,
    ngx_pool_t *pool)
{
    ngx_mail_policy_levels_t  *levels;

    levels = ngx_pcalloc(pool, sizeof(ngx_mail_policy_levels_t));
    if (levels == NULL) {
        return NULL;
    }

    levels->cache.store = store;
    levels->cache.size = sizeof(ngx_mail_policy_level_t);
    levels->cache.parse = ngx_mail_policy_levels_answer;

    ngx_mail_policy_cache_init(&levels->cache);

    return levels;
}


void
ngx_mail_policy_levels_destroy(ngx_mail_policy_levels_t *levels)
{
    ngx_mail_policy_cache_free(&levels->cache);

    if (levels->plans) {
        ngx_free(levels->plans);
    }
}


/* the most specific first */

#define NGX_MAIL_POLICY_LEVELS_OWN_PLAN      0
#define NGX_MAIL_POLICY_LEVELS_DOMAIN        1
#define NGX_MAIL_POLICY_LEVELS_DOMAIN_PLAN   2
#define NGX_MAIL_POLICY_LEVELS_DEFAULT       3
#define NGX_MAIL_POLICY_LEVELS_DEFAULT_PLAN  4


static ngx_uint_t  ngx_mail_policy_levels_from[] = {
    NGX_MAIL_POLICY_FROM_PLAN,
    NGX_MAIL_POLICY_FROM_DOMAIN,
    NGX_MAIL_POLICY_FROM_PLAN,
    NGX_MAIL_POLICY_FROM_DEFAULT,
    NGX_MAIL_POLICY_FROM_PLAN
};


ngx_int_t
ngx_mail_policy_levels_apply(ngx_mail_policy_levels_t *levels,
    ngx_mail_policy_charge_t *charge, ngx_mail_policy_sent_t *sent,
    ngx_mail_policy_ask_t *wait)
{
    ngx_int_t                 rc;
    ngx_uint_t                i, u;
    ngx_mail_policy_level_t  *found[NGX_MAIL_POLICY_LEVELS];

    static mpol_rate_t  blocked = { MPOL_RATE_BLOCKED, 0, 0, 0 };

    ngx_memzero(found, sizeof(found));
    rc = NGX_OK;

    if (levels) {
        rc = ngx_mail_policy_levels_collect(levels, charge, sent, found,
                                            wait);
    }

    for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {

        if (wait) {
            ngx_mail_policy_levels_release(sent->levels[i]);
            sent->levels[i] = found[i];
            continue;
        }

        if (found[i] && found[i] != sent->levels[i] && rc == NGX_OK) {
            rc = NGX_AGAIN;
        }

        ngx_mail_policy_levels_release(found[i]);
    }

    sent->forced = 0;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        sent->rates[u] = charge->conf[u];
        sent->from[u] = NGX_MAIL_POLICY_FROM_CONF;

        for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {

            if (found[i] && found[i]->rates[u].kind != MPOL_RATE_NONE) {
                sent->rates[u] = found[i]->rates[u];
                sent->from[u] = ngx_mail_policy_levels_from[i];
                break;
            }
        }
    }

    /* suspended as a whole: nobody's own rates help against that */

    for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {

        if (found[i] == NULL || !found[i]->suspended) {
            continue;
        }

        sent->forced = 1;

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            sent->rates[u] = blocked;
            sent->from[u] = ngx_mail_policy_levels_from[i];
        }

        break;
    }

    return rc;
}


static ngx_int_t
ngx_mail_policy_levels_collect(ngx_mail_policy_levels_t *levels,
    ngx_mail_policy_charge_t *charge, ngx_mail_policy_sent_t *sent,
    ngx_mail_policy_level_t **found, ngx_mail_policy_ask_t *wait)
{
    ngx_str_t   key, domain, plan;
    ngx_uint_t  i;
    u_char      buf[NGX_MAIL_POLICY_LEVELS_NAME];
    u_char      escaped[NGX_MAIL_POLICY_LEVELS_NAME - 128];

    key.data = buf;

    domain.data = escaped;
    domain.len = ngx_mail_policy_levels_domain(charge, escaped,
                                               sizeof(escaped));

    for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {

        switch (i) {

        case NGX_MAIL_POLICY_LEVELS_DOMAIN:
            if (domain.len == 0) {
                continue;
            }

            key.len = ngx_slprintf(buf, buf + sizeof(buf), "limit:%V:{%V}",
                                   &charge->name, &domain)
                      - buf;
            break;

        case NGX_MAIL_POLICY_LEVELS_DEFAULT:
            key.len = ngx_slprintf(buf, buf + sizeof(buf), "limit:%V:{*}",
                                   &charge->name)
                      - buf;
            break;

        default:
            ngx_str_null(&plan);

            if (i == NGX_MAIL_POLICY_LEVELS_OWN_PLAN) {
                plan = sent->plan;

            } else if (found[i - 1]) {
                plan = found[i - 1]->plan;
            }

            if (plan.len == 0) {
                continue;
            }

            key.len = ngx_slprintf(buf, buf + sizeof(buf), "plan:%V %V",
                                   &plan, &charge->name)
                      - buf;
        }

        found[i] = ngx_mail_policy_levels_get(levels, &key, &charge->name,
                                              wait);
        if (found[i] == NULL) {
            return NGX_ERROR;
        }

        found[i]->entry.pins++;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_levels_release(ngx_mail_policy_level_t *level)
{
    if (level) {
        level->entry.pins--;
    }
}


/* NULL: no memory */

static ngx_mail_policy_level_t *
ngx_mail_policy_levels_get(ngx_mail_policy_levels_t *levels, ngx_str_t *key,
    ngx_str_t *limit, ngx_mail_policy_ask_t *wait)
{
    ngx_mail_policy_level_t  *level;

    level = (ngx_mail_policy_level_t *)
            ngx_mail_policy_cache_get(&levels->cache, key);

    if (level == NULL) {
        return NULL;
    }

    level->plan.data = level->name;

    if (wait == NULL) {
        return level;
    }

    if (ngx_mail_policy_cache_stale(&level->entry)
        && ngx_mail_policy_levels_read(level, limit) != NGX_OK)
    {
        return NULL;
    }

    if (level->entry.lookup
        && ngx_mail_policy_levels_wait(level, wait) != NGX_OK)
    {
        return NULL;
    }

    return level;
}


/* the fields of a plan are named "<limit>.<unit>" */

static ngx_int_t
ngx_mail_policy_levels_read(ngx_mail_policy_level_t *level, ngx_str_t *limit)
{
    ngx_str_t                 *field, *key;
    ngx_uint_t                 u;
    ngx_mail_policy_lookup_t  *lookup;

    lookup = ngx_mail_policy_cache_lookup(&level->entry,
                                          NGX_MAIL_POLICY_LEVELS_FIELDS);
    if (lookup == NULL) {
        return NGX_ERROR;
    }

    field = lookup->fields;
    key = &level->entry.str.str;

    ngx_str_set(&field[NGX_MAIL_POLICY_LEVELS_PLAN], "plan");
    ngx_str_set(&field[NGX_MAIL_POLICY_LEVELS_SUSPENDED], "suspended");

    lookup->key = *key;

    if (key->data[0] == 'p') {

        /* "plan:gold user" */

        lookup->key.len -= 1 + limit->len;

        for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
            field[u].len = limit->len + 1
                           + ngx_mail_policy_store_units[u].len;
            field[u].data = ngx_pnalloc(lookup->pool, field[u].len);

            if (field[u].data == NULL) {
                ngx_mail_policy_lookup_cancel(lookup);
                return NGX_ERROR;
            }

            ngx_sprintf(field[u].data, "%V.%V", limit,
                        &ngx_mail_policy_store_units[u]);
        }

        lookup->nfields = NGX_MAIL_POLICY_UNITS;

    } else {
        ngx_memcpy(field, ngx_mail_policy_store_units,
                   NGX_MAIL_POLICY_UNITS * sizeof(ngx_str_t));
    }

    ngx_mail_policy_cache_read(&level->entry, lookup);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_levels_wait(ngx_mail_policy_level_t *level,
    ngx_mail_policy_ask_t *ask)
{
    ngx_queue_t               *q;
    ngx_mail_policy_waiter_t  *waiter;

    /* several charges of one ask may wait for one entry */

    if (!ngx_queue_empty(&level->entry.waiters)) {
        q = ngx_queue_last(&level->entry.waiters);
        waiter = ngx_queue_data(q, ngx_mail_policy_waiter_t, queue);

        if (waiter->data == ask) {
            return NGX_OK;
        }
    }

    waiter = ngx_palloc(ask->work, sizeof(ngx_mail_policy_waiter_t));
    if (waiter == NULL) {
        return NGX_ERROR;
    }

    waiter->handler = ngx_mail_policy_levels_arrived;
    waiter->data = ask;
    waiter->next = ask->waiters;
    ask->waiters = waiter;
    ask->waited = 1;
    ask->pending++;

    ngx_mail_policy_cache_wait(&level->entry, waiter);

    return NGX_OK;
}


void
ngx_mail_policy_levels_forget(ngx_mail_policy_ask_t *ask)
{
    ngx_uint_t                 i, n;
    ngx_mail_policy_sent_t    *sent;
    ngx_mail_policy_waiter_t  *waiter;

    if (ask->store->exiting) {
        /* all entries are gone */
        return;
    }

    for (waiter = ask->waiters; waiter; waiter = waiter->next) {
        ask->pending -= ngx_mail_policy_cache_forget(waiter);
    }

    ask->waiters = NULL;

    for (n = 0; ask->sent && n < ask->ncharges; n++) {
        sent = &ask->sent[n];

        for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {
            ngx_mail_policy_levels_release(sent->levels[i]);
            sent->levels[i] = NULL;
        }
    }
}


static void
ngx_mail_policy_levels_arrived(void *data, ngx_mail_policy_entry_t *entry)
{
    ngx_mail_policy_ask_arrived(data);
}


static void
ngx_mail_policy_levels_answer(ngx_mail_policy_entry_t *entry,
    ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_level_t  *level;

    level = (ngx_mail_policy_level_t *) entry;

    if (lookup->rc == NGX_OK) {
        ngx_mail_policy_levels_parse(level, lookup);
        return;
    }

    ngx_memzero(level->rates, sizeof(level->rates));
    level->plan.len = 0;
    level->suspended = 0;

    ngx_mail_policy_levels_bad(level, NULL);
}


static void
ngx_mail_policy_levels_parse(ngx_mail_policy_level_t *level,
    ngx_mail_policy_lookup_t *lookup)
{
    ngx_str_t   *value;
    ngx_uint_t   u;

    value = lookup->values;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {

        level->rates[u].kind = MPOL_RATE_NONE;

        if (value[u].data
            && ngx_mail_policy_store_rate(u, &value[u], &level->rates[u])
               != MPOL_OK)
        {
            level->rates[u].kind = MPOL_RATE_NONE;
            ngx_mail_policy_levels_bad(level, &lookup->fields[u]);
        }
    }

    level->plan.len = 0;
    level->suspended = 0;

    if (lookup->nfields == NGX_MAIL_POLICY_UNITS) {
        return;
    }

    value = &lookup->values[NGX_MAIL_POLICY_LEVELS_PLAN];

    if (value->data && ngx_mail_policy_store_is_name(value)) {
        ngx_memcpy(level->name, value->data, value->len);
        level->plan.len = value->len;

    } else if (value->len) {
        ngx_mail_policy_levels_bad(level,
                                &lookup->fields[NGX_MAIL_POLICY_LEVELS_PLAN]);
    }

    value = &lookup->values[NGX_MAIL_POLICY_LEVELS_SUSPENDED];

    level->suspended = (value->len
                        && !(value->len == 1 && value->data[0] == '0')
                        && !(value->len == 2
                             && ngx_strncasecmp(value->data, (u_char *) "no",
                                                2)
                                == 0));
}


/* field NULL: it is no hash at all */

static void
ngx_mail_policy_levels_bad(ngx_mail_policy_level_t *level, ngx_str_t *field)
{
    ngx_str_t                *key;
    ngx_mail_policy_redis_t  *redis;

    key = &level->entry.str.str;
    redis = level->entry.cache->store->redis;

    if (!ngx_mail_policy_redis_may_warn(redis, key)) {
        return;
    }

    if (field == NULL) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy entry \"%V%V\" in Redis is not a hash, skipped",
                      &redis->prefix, key);
        return;
    }

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "policy entry \"%V%V\" in Redis: \"%V\" cannot be read, "
                  "skipped", &redis->prefix, key, field);
}


/*
 * "@example.com" of a key that is one value, escaped as in keys; its length,
 * 0 if there is none.  A key of several values has no domain: what stands
 * behind the last "@" of it may be anything.
 */

static size_t
ngx_mail_policy_levels_domain(ngx_mail_policy_charge_t *charge, u_char *out,
    size_t size)
{
    size_t      len;
    u_char     *p;
    ngx_str_t  *key;

    key = &charge->key;

    if (charge->combined || key->len == 0) {
        return 0;
    }

    for (p = key->data + key->len - 1; *p != '@'; p--) {
        if (p == key->data) {
            return 0;
        }
    }

    len = mpol_key_escape(p, key->data + key->len - p, out, size);

    return (len > 1 && len <= size) ? len : 0;
}


void
ngx_mail_policy_levels_plan(ngx_mail_policy_levels_t *levels, ngx_str_t *id,
    ngx_str_t *plan)
{
    plan->len = 0;

    if (levels->plans) {
        ngx_mail_policy_plans_get(levels->plans, id, plan);
    }
}


void
ngx_mail_policy_levels_remember(ngx_mail_policy_levels_t *levels,
    ngx_str_t *id, ngx_str_t *plan)
{
    if (levels->plans == NULL) {
        levels->plans = ngx_mail_policy_plans_create();
    }

    if (levels->plans) {
        ngx_mail_policy_plans_set(levels->plans, id, plan);
    }
}
