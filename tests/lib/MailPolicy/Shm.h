
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the tests of the counters in shared memory have in common: a zone, a
 * clock of their own, and questions.  Each of them is a library that nginx
 * loads before it begins, so that what is tested calls nginx' own functions;
 * it prints TAP, and that is all that becomes of nginx.
 */


#ifndef SHM_H
#define SHM_H


#include <ngx_config.h>
#include <ngx_core.h>

#include <sys/mman.h>

#include "ngx_mail_policy_shm_node.h"
#include "tap.h"


#define SECOND  ((uint64_t) 1000000)
#define HOUR    (3600 * SECOND)
#define MASK(u) ((ngx_uint_t) 1 << (u))


static ngx_time_t             now;
static ngx_cycle_t            cycle;
static ngx_log_t              log;
static ngx_shmtx_sh_t         lock;
static ngx_mail_policy_shm_t  shm;
static u_char                *zone;
static size_t                 zone_size;

static uint64_t  seed = 88172645463325252;


TAP_UNUSED static uint64_t
below(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


TAP_UNUSED static void
later(ngx_int_t ms)
{
    now.sec += (now.msec + ms) / 1000;
    now.msec = (now.msec + ms) % 1000;
}


/* a zone of so many octets, the last one is forgotten */

TAP_UNUSED static void
zone_new(size_t size)
{
    ngx_slab_pool_t  *pool;

    if (zone) {
        munmap(zone, zone_size);
    }

    zone_size = size;
    zone = mmap(NULL, size, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    pool = (ngx_slab_pool_t *) zone;

    pool->end = zone + size;
    pool->min_shift = 3;
    pool->addr = zone;

    if (ngx_shmtx_create(&pool->mutex, (ngx_shmtx_sh_t *) &lock, NULL)
        != NGX_OK)
    {
        abort();
    }

    ngx_slab_init(pool);

    shm.shpool = pool;

    if (ngx_mail_policy_shm_create(&shm) != NGX_OK) {
        abort();
    }

    now.sec = 1754006400;
    now.msec = 0;
}


TAP_UNUSED static void
str(ngx_str_t *s, const char *text)
{
    s->data = (u_char *) text;
    s->len = strlen(text);
}


TAP_UNUSED static void
charge_new(ngx_mail_policy_charge_t *c, const char *id)
{
    ngx_memzero(c, sizeof(ngx_mail_policy_charge_t));
    str(&c->id, id);
}


TAP_UNUSED static void
ask(ngx_mail_policy_charge_t *c, ngx_uint_t u, uint64_t count,
    uint64_t period, uint64_t burst, uint64_t amount)
{
    c->asked |= MASK(u);
    c->units[u].rate.kind = burst ? MPOL_RATE_BUCKET : MPOL_RATE_WINDOW;
    c->units[u].rate.count = count;
    c->units[u].rate.period = period;
    c->units[u].rate.burst = burst;
    c->units[u].amount = amount;
}


/* the store takes pointers, as not all charges of an ask are its */

TAP_UNUSED static ngx_mail_policy_charge_t **
each(ngx_mail_policy_charge_t *c, ngx_uint_t n)
{
    static ngx_mail_policy_charge_t  *pointers[64];

    while (n--) {
        pointers[n] = &c[n];
    }

    return pointers;
}


TAP_UNUSED static ngx_int_t
charge_each(ngx_mail_policy_charge_t *c, ngx_uint_t n)
{
    return ngx_mail_policy_shm_charge(&shm, each(c, n), n);
}


TAP_UNUSED static void
learn_each(ngx_mail_policy_charge_t *c, ngx_uint_t n)
{
    ngx_mail_policy_shm_learn(&shm, each(c, n), n);
}


/* a message of who may send so many an hour */

TAP_UNUSED static ngx_int_t
send_one(ngx_mail_policy_charge_t *c, const char *id, uint64_t count)
{
    charge_new(c, id);
    ask(c, NGX_MAIL_POLICY_MESSAGES, count, HOUR, 0, 1);

    return charge_each(c, 1);
}


TAP_UNUSED static ngx_int_t
send_as(const char *id, uint64_t count)
{
    ngx_mail_policy_charge_t  c;

    return send_one(&c, id, count);
}


/* how much of it is used, looked at without charging */

TAP_UNUSED static uint64_t
used(const char *id, ngx_uint_t u, uint64_t count, uint64_t period,
    uint64_t burst)
{
    ngx_mail_policy_charge_t  c;

    charge_new(&c, id);
    ask(&c, u, count, period, burst, 0);
    (void) charge_each(&c, 1);

    return c.units[u].decision.used;
}


TAP_UNUSED static ngx_int_t
lease(ngx_mail_policy_charge_t *c, const char *id, const char *member,
    uint64_t count)
{
    charge_new(c, id);
    ask(c, NGX_MAIL_POLICY_SESSIONS, count, 60 * SECOND, 0, 1);
    str(&c->member, member);

    return charge_each(c, 1);
}


TAP_UNUSED static ngx_int_t
login(ngx_mail_policy_charge_t *c, const char *id, const char *tag,
    const char *client, uint64_t count)
{
    charge_new(c, id);
    ask(c, NGX_MAIL_POLICY_AUTH_FAILURES, count, HOUR, 0, 1);
    str(&c->member, tag);
    str(&c->client, client);

    return charge_each(c, 1);
}


/* as if Redis had answered: used before, charged or not */

TAP_UNUSED static void
learn(ngx_mail_policy_charge_t *c, ngx_uint_t u, uint64_t already,
    ngx_uint_t charged)
{
    uint64_t                        left;
    ngx_mail_policy_charge_unit_t  *unit;

    unit = &c->units[u];
    left = unit->rate.burst ? unit->rate.burst : unit->rate.count;

    unit->decision.used = already;
    already += charged ? unit->amount : 0;
    unit->decision.remaining = left > already ? left - already : 0;

    c->charged = charged;
    c->local = 0;

    learn_each(c, 1);
}


TAP_UNUSED static void
fresh(ngx_uint_t n, const char *kind, ngx_uint_t ms)
{
    char        id[64];
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        snprintf(id, sizeof(id), "user:{%s-%u@example.com}", kind,
                 (unsigned) i);

        if (send_as(id, 10) != NGX_OK) {
            ok(0, "%s does not fit", id);
            return;
        }

        later(ms);
    }
}


TAP_UNUSED static ngx_uint_t
exists(const char *id)
{
    ngx_str_t  s;

    str(&s, id);

    return ngx_mail_policy_shm_find(&shm, &s) != NULL;
}


TAP_UNUSED static ngx_uint_t
count_queue(ngx_queue_t *queue)
{
    ngx_uint_t    n;
    ngx_queue_t  *q;

    n = 0;

    for (q = ngx_queue_head(queue); q != ngx_queue_sentinel(queue);
         q = ngx_queue_next(q))
    {
        n++;
    }

    return n;
}


TAP_UNUSED static ngx_uint_t
keys(void)
{
    return count_queue(&shm.sh->queue) + count_queue(&shm.sh->refused);
}


TAP_UNUSED static ngx_uint_t
count_tree(ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel)
{
    if (node == sentinel) {
        return 0;
    }

    return 1 + count_tree(node->left, sentinel)
           + count_tree(node->right, sentinel);
}


/* all that lead to the nodes lead to the same ones */

TAP_UNUSED static ngx_uint_t
consistent(void)
{
    ngx_uint_t  n;

    n = keys();

    return n == count_tree(shm.sh->ids.root, shm.sh->ids.sentinel)
           && n == count_tree(shm.sh->due.root, shm.sh->due.sentinel)
           && shm.sh->nwaiting == count_queue(&shm.sh->waiting)
           && shm.sh->nwaiting <= n;
}


TAP_UNUSED static void
begin(void)
{
    ngx_pagesize = getpagesize();
    ngx_pagesize_shift = 12;
    ngx_cacheline_size = 64;

    log.log_level = NGX_LOG_EMERG;
    cycle.log = &log;
    ngx_cycle = &cycle;
    ngx_cached_time = &now;

    if (ngx_crc32_table_init() != NGX_OK) {
        abort();
    }

    ngx_slab_sizes_init();
}


#endif /* SHM_H */
