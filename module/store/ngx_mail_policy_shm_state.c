
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is kept under one key, as octets and as numbers.  No events arrive
 * here.
 *
 * The units up to connections are counters in two parts (mpol_local.h).
 * Sessions and auth_failures are sets: their members are those that this
 * machine knows, marked if Redis does not; of others there that are not
 * known, only their number is learned.  They count until the period is over
 * that began when it was.
 *
 * As octets a state is, for each unit that there is anything of, an octet
 * with its number, and then what mpol_pack.h makes of it.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_pack.h"
#include "ngx_mail_policy_shm_node.h"


#define NGX_MAIL_POLICY_SHM_EXEMPT    NGX_MAIL_POLICY_UNITS

/* how long a rate is remembered of which nothing is used, microseconds */
#define NGX_MAIL_POLICY_SHM_REMEMBER  (86400 * (uint64_t) 1000000)


static void ngx_mail_policy_shm_empty(ngx_mail_policy_shm_state_t *st);
static ngx_int_t ngx_mail_policy_shm_unpack_unit(
    ngx_mail_policy_shm_state_t *st, ngx_uint_t u, mpol_unpack_t *unpack);
static void ngx_mail_policy_shm_pack(ngx_mail_policy_shm_state_t *st,
    mpol_pack_t *pack);
static void ngx_mail_policy_shm_pack_set(ngx_mail_policy_shm_set_t *set,
    ngx_uint_t u, mpol_pack_t *pack);
static uint64_t ngx_mail_policy_shm_tidy(ngx_mail_policy_shm_state_t *st,
    uint64_t now, ngx_uint_t *waits);
static uint64_t ngx_mail_policy_shm_tidy_set(ngx_mail_policy_shm_set_t *set,
    uint64_t now);
static uint64_t ngx_mail_policy_shm_learned_until(mpol_learned_t *learned);


ngx_mail_policy_shm_state_t  ngx_mail_policy_shm_state;

static u_char  ngx_mail_policy_shm_octets[NGX_MAIL_POLICY_SHM_STATE_MAX];


void
ngx_mail_policy_shm_load(ngx_mail_policy_shm_node_t *n,
    ngx_mail_policy_shm_state_t *st)
{
    if (n == NULL || n->len > sizeof(ngx_mail_policy_shm_octets)) {
        ngx_mail_policy_shm_empty(st);
        return;
    }

    ngx_mail_policy_shm_read(n, ngx_mail_policy_shm_octets);
    ngx_mail_policy_shm_unpack(st, ngx_mail_policy_shm_octets, n->len);
}


void
ngx_mail_policy_shm_unpack(ngx_mail_policy_shm_state_t *st, u_char *data,
    size_t len)
{
    unsigned       u;
    mpol_unpack_t  unpack;

    ngx_mail_policy_shm_empty(st);

    unpack.pos = data;
    unpack.end = data + len;

    while (mpol_unpack_octet(&unpack, &u) == MPOL_OK) {
        if (ngx_mail_policy_shm_unpack_unit(st, u, &unpack) != NGX_OK) {
            return;
        }
    }
}


static void
ngx_mail_policy_shm_empty(ngx_mail_policy_shm_state_t *st)
{
    ngx_uint_t                  i;
    ngx_mail_policy_shm_set_t  *sets[] = { &st->sessions, &st->failed,
                                           &st->exempt };

    ngx_memzero(st->counters, sizeof(st->counters));

    for (i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        ngx_memzero(&sets[i]->learned, sizeof(mpol_learned_t));

        sets[i]->set.entries = sets[i]->entries;
        sets[i]->set.max = MPOL_SET_MAX;
        sets[i]->set.n = 0;
    }
}


static ngx_int_t
ngx_mail_policy_shm_unpack_unit(ngx_mail_policy_shm_state_t *st, ngx_uint_t u,
    mpol_unpack_t *unpack)
{
    ngx_mail_policy_shm_set_t  *set;

    if (u < NGX_MAIL_POLICY_SHM_COUNTERS) {
        return mpol_unpack_local(unpack, &st->counters[u]) == MPOL_OK
               ? NGX_OK : NGX_ERROR;
    }

    switch (u) {

    case NGX_MAIL_POLICY_SESSIONS:
        set = &st->sessions;
        break;

    case NGX_MAIL_POLICY_AUTH_FAILURES:
        set = &st->failed;
        break;

    case NGX_MAIL_POLICY_SHM_EXEMPT:
        set = &st->exempt;
        break;

    default:
        return NGX_ERROR;
    }

    return (mpol_unpack_learned(unpack, &set->learned) == MPOL_OK
            && mpol_unpack_set(unpack, &set->set) == MPOL_OK)
           ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_shm_save(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_shm_node_t *n, ngx_mail_policy_shm_state_t *st,
    uint64_t now, uint64_t refused)
{
    size_t       len;
    uint64_t     expires;
    ngx_uint_t   waits;
    mpol_pack_t  pack;

    expires = ngx_mail_policy_shm_tidy(st, now, &waits);

    pack.pos = ngx_mail_policy_shm_octets;
    pack.end = pack.pos + sizeof(ngx_mail_policy_shm_octets);
    pack.full = 0;

    ngx_mail_policy_shm_pack(st, &pack);

    if (pack.full) {
        return NGX_ERROR;
    }

    len = pack.pos - ngx_mail_policy_shm_octets;

    ngx_mail_policy_shm_schedule(shm, n, expires, ngx_min(refused, expires));

    if (ngx_mail_policy_shm_write(shm, n, ngx_mail_policy_shm_octets, len,
                                  now)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_shm_wait(shm, n, waits);

    return NGX_OK;
}


static void
ngx_mail_policy_shm_pack(ngx_mail_policy_shm_state_t *st, mpol_pack_t *pack)
{
    ngx_uint_t     u;
    mpol_local_t  *l;

    for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
        l = &st->counters[u];

        if (l->rate.kind != MPOL_RATE_NONE
            || l->learned.rate.kind != MPOL_RATE_NONE)
        {
            mpol_pack_octet(pack, u);
            mpol_pack_local(pack, l);
        }
    }

    ngx_mail_policy_shm_pack_set(&st->sessions, NGX_MAIL_POLICY_SESSIONS,
                                 pack);
    ngx_mail_policy_shm_pack_set(&st->failed, NGX_MAIL_POLICY_AUTH_FAILURES,
                                 pack);
    ngx_mail_policy_shm_pack_set(&st->exempt, NGX_MAIL_POLICY_SHM_EXEMPT,
                                 pack);
}


static void
ngx_mail_policy_shm_pack_set(ngx_mail_policy_shm_set_t *set, ngx_uint_t u,
    mpol_pack_t *pack)
{
    if (set->set.n || set->learned.rate.kind != MPOL_RATE_NONE) {
        mpol_pack_octet(pack, u);
        mpol_pack_learned(pack, &set->learned);
        mpol_pack_set(pack, &set->set);
    }
}


/* forgets what counts no more; when nothing does, 0: it is so already */

static uint64_t
ngx_mail_policy_shm_tidy(ngx_mail_policy_shm_state_t *st, uint64_t now,
    ngx_uint_t *waits)
{
    size_t         i;
    uint64_t       expires, until;
    ngx_uint_t     u;
    mpol_local_t  *l;

    *waits = 0;
    expires = 0;

    for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
        l = &st->counters[u];

        if (l->rate.kind == MPOL_RATE_NONE
            && l->learned.rate.kind == MPOL_RATE_NONE)
        {
            continue;
        }

        mpol_local_tidy(l, now);

        if (l->rate.kind != MPOL_RATE_NONE) {
            *waits = 1;
        }

        until = mpol_local_expires(l, now);
        expires = ngx_max(expires, until);

        until = ngx_mail_policy_shm_learned_until(&l->learned);
        expires = ngx_max(expires, until);
    }

    until = ngx_mail_policy_shm_tidy_set(&st->sessions, now);
    expires = ngx_max(expires, until);

    until = ngx_mail_policy_shm_tidy_set(&st->failed, now);
    expires = ngx_max(expires, until);

    until = ngx_mail_policy_shm_tidy_set(&st->exempt, now);
    expires = ngx_max(expires, until);

    /* leases are renewed in Redis by those who hold them */

    for (i = 0; i < st->failed.set.n; i++) {
        if (st->failed.entries[i].flags & MPOL_SET_MARKED) {
            *waits = 1;
            break;
        }
    }

    return expires;
}


static uint64_t
ngx_mail_policy_shm_tidy_set(ngx_mail_policy_shm_set_t *set, uint64_t now)
{
    uint64_t         expires, until;
    mpol_learned_t  *learned;

    (void) mpol_set_prune(&set->set, now);

    expires = set->set.n ? set->entries[set->set.n - 1].expires : 0;

    learned = &set->learned;

    if (learned->rate.kind == MPOL_RATE_NONE) {
        return expires;
    }

    if (learned->at + learned->rate.period <= now) {
        learned->used = 0;
    }

    if (learned->used == 0 && learned->from == NGX_MAIL_POLICY_FROM_CONF) {
        ngx_memzero(learned, sizeof(mpol_learned_t));
        return expires;
    }

    if (learned->used) {
        expires = ngx_max(expires, learned->at + learned->rate.period);
    }

    until = ngx_mail_policy_shm_learned_until(learned);

    return ngx_max(expires, until);
}


/* until when a rate is remembered for its own sake */

static uint64_t
ngx_mail_policy_shm_learned_until(mpol_learned_t *learned)
{
    return (learned->rate.kind != MPOL_RATE_NONE
            && learned->from != NGX_MAIL_POLICY_FROM_CONF)
           ? learned->at + NGX_MAIL_POLICY_SHM_REMEMBER : 0;
}
