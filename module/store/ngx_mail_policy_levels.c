
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Entries of domains, defaults and plans, as a worker remembers them.
 *
 *     unknown -> reading -> known -- cache time --> stale -> reading ...
 *
 * A stale entry is used while it is read again, by the asks that are sent
 * with its reading; they are told when it is there, and look whether it still
 * says the same.  An entry that cannot be read as Redis is away keeps what it
 * said; one that is no hash says nothing.
 *
 * Event: the answer of a lookup.  Entries are the worker's; the one used
 * longest ago gives way, unless it is being read.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_text.h"
#include "ngx_mail_policy_ask.h"
#include "ngx_mail_policy_redis_script.h"
#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_LEVELS_MAX    4096
#define NGX_MAIL_POLICY_LEVELS_BUSY   65536 /* those being read included */
#define NGX_MAIL_POLICY_LEVELS_EVICT  64    /* looked at for one that goes */
#define NGX_MAIL_POLICY_LEVELS_AGAIN  50    /* ms, where there was no answer */
#define NGX_MAIL_POLICY_LEVELS_NAME   1024  /* octets, of an entry's key */


/* the fields behind those of the units */
#define NGX_MAIL_POLICY_LEVELS_PLAN       NGX_MAIL_POLICY_UNITS
#define NGX_MAIL_POLICY_LEVELS_SUSPENDED  (NGX_MAIL_POLICY_UNITS + 1)
#define NGX_MAIL_POLICY_LEVELS_FIELDS     (NGX_MAIL_POLICY_UNITS + 2)


typedef struct ngx_mail_policy_level_s  ngx_mail_policy_level_t;

struct ngx_mail_policy_level_s {
    ngx_str_node_t              str;        /* the key behind the prefix; of a
                                               plan with " <limit>" behind it */
    ngx_queue_t                 queue;      /* the one used last at the head */
    ngx_queue_t                 waiters;
    ngx_mail_policy_levels_t   *levels;
    ngx_mail_policy_lookup_t   *lookup;     /* NULL: it is not being read */
    ngx_msec_t                  when;       /* it was asked */
    ngx_uint_t                  pins;       /* how many look at it */

    mpol_rate_t                 rates[NGX_MAIL_POLICY_UNITS];
    ngx_str_t                   plan;       /* in name[] */
    u_char                      name[NGX_MAIL_POLICY_PLAN];
    unsigned                    asked:1;
    unsigned                    suspended:1;
};


struct ngx_mail_policy_waiter_s {
    ngx_queue_t                 queue;      /* of the level */
    ngx_mail_policy_waiter_t   *next;       /* of the ask */
    ngx_mail_policy_ask_t      *ask;        /* NULL: told */
};


struct ngx_mail_policy_levels_s {
    ngx_mail_policy_store_t       *store;
    ngx_rbtree_t                   rbtree;
    ngx_rbtree_node_t              sentinel;
    ngx_queue_t                    queue;
    ngx_uint_t                     n;
    ngx_mail_policy_plans_t       *plans;   /* NULL: none seen yet */
};


static ngx_int_t ngx_mail_policy_levels_collect(
    ngx_mail_policy_levels_t *levels, ngx_mail_policy_charge_t *charge,
    ngx_mail_policy_sent_t *sent, ngx_mail_policy_level_t **found,
    ngx_mail_policy_ask_t *wait);
static ngx_mail_policy_level_t *ngx_mail_policy_levels_get(
    ngx_mail_policy_levels_t *levels, ngx_str_t *key, ngx_str_t *limit,
    ngx_mail_policy_ask_t *wait);
static ngx_mail_policy_level_t *ngx_mail_policy_levels_find(
    ngx_mail_policy_levels_t *levels, ngx_str_t *key);
static ngx_mail_policy_level_t *ngx_mail_policy_levels_add(
    ngx_mail_policy_levels_t *levels, ngx_str_t *key);
static void ngx_mail_policy_levels_evict(ngx_mail_policy_levels_t *levels);
static ngx_int_t ngx_mail_policy_levels_read(ngx_mail_policy_level_t *level,
    ngx_str_t *limit);
static ngx_int_t ngx_mail_policy_levels_wait(ngx_mail_policy_level_t *level,
    ngx_mail_policy_ask_t *ask);
static void ngx_mail_policy_levels_handler(void *data,
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

    levels->store = store;

    ngx_rbtree_init(&levels->rbtree, &levels->sentinel,
                    ngx_str_rbtree_insert_value);
    ngx_queue_init(&levels->queue);

    return levels;
}


void
ngx_mail_policy_levels_destroy(ngx_mail_policy_levels_t *levels)
{
    ngx_queue_t              *q;
    ngx_mail_policy_level_t  *level;

    while (!ngx_queue_empty(&levels->queue)) {
        q = ngx_queue_head(&levels->queue);
        ngx_queue_remove(q);

        level = ngx_queue_data(q, ngx_mail_policy_level_t, queue);

        if (level->lookup) {
            ngx_mail_policy_lookup_cancel(level->lookup);
        }

        ngx_free(level);
    }

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
#define NGX_MAIL_POLICY_LEVELS               5


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

        for (i = 0; i < NGX_MAIL_POLICY_LEVELS; i++) {
            if (found[i]) {
                found[i]->pins--;
            }
        }
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
    ngx_int_t   rc;
    ngx_str_t   key, domain, plan;
    ngx_uint_t  i;
    u_char      buf[NGX_MAIL_POLICY_LEVELS_NAME];
    u_char      escaped[NGX_MAIL_POLICY_LEVELS_NAME - 128];

    rc = NGX_OK;
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

        found[i]->pins++;

        if (!found[i]->asked) {
            rc = NGX_AGAIN;
        }
    }

    return rc;
}


/* NULL: no memory */

static ngx_mail_policy_level_t *
ngx_mail_policy_levels_get(ngx_mail_policy_levels_t *levels, ngx_str_t *key,
    ngx_str_t *limit, ngx_mail_policy_ask_t *wait)
{
    ngx_mail_policy_level_t  *level;

    level = ngx_mail_policy_levels_find(levels, key);

    if (level == NULL) {
        level = ngx_mail_policy_levels_add(levels, key);
        if (level == NULL) {
            return NULL;
        }
    }

    ngx_queue_remove(&level->queue);
    ngx_queue_insert_head(&levels->queue, &level->queue);

    if (wait == NULL) {
        return level;
    }

    if (level->lookup == NULL
        && (!level->asked
            || ngx_current_msec - level->when >= levels->store->cache)
        && ngx_mail_policy_levels_read(level, limit) != NGX_OK)
    {
        return NULL;
    }

    if (level->lookup && ngx_mail_policy_levels_wait(level, wait) != NGX_OK) {
        return NULL;
    }

    return level;
}


static ngx_mail_policy_level_t *
ngx_mail_policy_levels_find(ngx_mail_policy_levels_t *levels, ngx_str_t *key)
{
    uint32_t  hash;

    hash = ngx_crc32_short(key->data, key->len);

    return (ngx_mail_policy_level_t *)
           ngx_str_rbtree_lookup(&levels->rbtree, key, hash);
}


/* two of them, so that there are less again when less are being read */

static void
ngx_mail_policy_levels_evict(ngx_mail_policy_levels_t *levels)
{
    ngx_uint_t                i, n;
    ngx_queue_t              *q, *prev;
    ngx_mail_policy_level_t  *old;

    n = 0;

    for (i = 0, q = ngx_queue_last(&levels->queue);
         n < 2 && i < NGX_MAIL_POLICY_LEVELS_EVICT
         && q != ngx_queue_sentinel(&levels->queue);
         i++, q = prev)
    {
        prev = ngx_queue_prev(q);
        old = ngx_queue_data(q, ngx_mail_policy_level_t, queue);

        if (old->lookup == NULL && old->pins == 0) {
            ngx_rbtree_delete(&levels->rbtree, &old->str.node);
            ngx_queue_remove(q);
            ngx_free(old);
            levels->n--;
            n++;
        }
    }
}


static ngx_mail_policy_level_t *
ngx_mail_policy_levels_add(ngx_mail_policy_levels_t *levels, ngx_str_t *key)
{
    ngx_mail_policy_level_t  *level;

    if (levels->n >= NGX_MAIL_POLICY_LEVELS_MAX) {
        ngx_mail_policy_levels_evict(levels);
    }

    if (levels->n >= NGX_MAIL_POLICY_LEVELS_BUSY) {
        return NULL;
    }

    level = ngx_calloc(sizeof(ngx_mail_policy_level_t) + key->len,
                       ngx_cycle->log);
    if (level == NULL) {
        return NULL;
    }

    level->levels = levels;
    level->plan.data = level->name;

    level->str.str.len = key->len;
    level->str.str.data = (u_char *) level + sizeof(ngx_mail_policy_level_t);
    ngx_memcpy(level->str.str.data, key->data, key->len);
    level->str.node.key = ngx_crc32_short(key->data, key->len);

    ngx_queue_init(&level->waiters);
    ngx_rbtree_insert(&levels->rbtree, &level->str.node);
    ngx_queue_insert_head(&levels->queue, &level->queue);
    levels->n++;

    return level;
}


/* the fields of a plan are named "<limit>.<unit>" */

static ngx_int_t
ngx_mail_policy_levels_read(ngx_mail_policy_level_t *level, ngx_str_t *limit)
{
    ngx_str_t                 *field, *key;
    ngx_uint_t                 u;
    ngx_mail_policy_lookup_t  *lookup;

    lookup = ngx_mail_policy_lookup_create(level->levels->store,
                                           NGX_MAIL_POLICY_LEVELS_FIELDS,
                                           ngx_mail_policy_levels_handler,
                                           level);
    if (lookup == NULL) {
        return NGX_ERROR;
    }

    field = lookup->fields;
    key = &level->str.str;

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

    level->lookup = lookup;
    level->when = ngx_current_msec;
    level->asked = 1;

    ngx_mail_policy_lookup_send(lookup);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_levels_wait(ngx_mail_policy_level_t *level,
    ngx_mail_policy_ask_t *ask)
{
    ngx_queue_t               *q;
    ngx_mail_policy_waiter_t  *waiter;

    /* several charges of one ask may wait for one entry */

    if (!ngx_queue_empty(&level->waiters)) {
        q = ngx_queue_last(&level->waiters);
        waiter = ngx_queue_data(q, ngx_mail_policy_waiter_t, queue);

        if (waiter->ask == ask) {
            return NGX_OK;
        }
    }

    waiter = ngx_palloc(ask->work, sizeof(ngx_mail_policy_waiter_t));
    if (waiter == NULL) {
        return NGX_ERROR;
    }

    waiter->ask = ask;
    waiter->next = ask->waiters;
    ask->waiters = waiter;
    ask->waited = 1;
    ask->pending++;

    ngx_queue_insert_tail(&level->waiters, &waiter->queue);

    return NGX_OK;
}


void
ngx_mail_policy_levels_forget(ngx_mail_policy_ask_t *ask)
{
    ngx_mail_policy_waiter_t  *waiter;

    for (waiter = ask->waiters; waiter; waiter = waiter->next) {
        if (waiter->ask) {
            waiter->ask = NULL;
            ngx_queue_remove(&waiter->queue);
            ask->pending--;
        }
    }

    ask->waiters = NULL;
}


static void
ngx_mail_policy_levels_handler(void *data, ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_level_t *level = data;

    ngx_queue_t               *q;
    ngx_mail_policy_ask_t     *ask;
    ngx_mail_policy_waiter_t  *waiter;

    level->lookup = NULL;

    switch (lookup->rc) {

    case NGX_OK:
        ngx_mail_policy_levels_parse(level, lookup);
        break;

    case NGX_DECLINED:
        ngx_memzero(level->rates, sizeof(level->rates));
        level->plan.len = 0;
        level->suspended = 0;

        ngx_mail_policy_levels_bad(level, NULL);
        break;

    default:
        /* who needs it asks again, soon */
        level->when = ngx_current_msec - level->levels->store->cache
                      + ngx_min(level->levels->store->cache,
                                NGX_MAIL_POLICY_LEVELS_AGAIN);
    }

    ngx_mail_policy_lookup_done(lookup);

    level->pins++;

    /*
     * Who asks again meanwhile finds it known.  Where nothing is remembered
     * (cache=0) it is read once more, but nobody here waits for that.
     */

    while (!ngx_queue_empty(&level->waiters)) {
        q = ngx_queue_head(&level->waiters);
        ngx_queue_remove(q);

        waiter = ngx_queue_data(q, ngx_mail_policy_waiter_t, queue);

        ask = waiter->ask;
        waiter->ask = NULL;

        ngx_mail_policy_ask_arrived(ask);
    }

    level->pins--;
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
    ngx_mail_policy_redis_t  *redis;

    redis = level->levels->store->redis;

    if (!ngx_mail_policy_redis_may_warn(redis, &level->str.str)) {
        return;
    }

    if (field == NULL) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "policy entry \"%V%V\" in Redis is not a hash, skipped",
                      &redis->prefix, &level->str.str);
        return;
    }

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "policy entry \"%V%V\" in Redis: \"%V\" cannot be read, "
                  "skipped", &redis->prefix, &level->str.str, field);
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
