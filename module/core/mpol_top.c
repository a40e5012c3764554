
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_top.h"
#include "mpol_once.h"

#include <string.h>


#define MPOL_TOP_NUMBER  ((uint64_t) 1 << 53)   /* times 1000 is no overflow */


static mpol_top_entry_t *mpol_top_find(mpol_top_t *top,
    const mpol_str_t *what, const mpol_str_t *who, uint64_t now);
static int mpol_top_is(const mpol_top_entry_t *e, uint64_t hash,
    const mpol_str_t *what, const mpol_str_t *who);
static mpol_top_entry_t *mpol_top_free(mpol_top_t *top, uint64_t now);
static mpol_top_entry_t *mpol_top_last(mpol_top_t *top,
    mpol_top_order_e order);
static void mpol_top_enter(mpol_top_entry_t *e, const mpol_str_t *what,
    const mpol_str_t *who, uint64_t now);
static int mpol_top_before(const mpol_top_entry_t *a,
    const mpol_top_entry_t *b, mpol_top_order_e order);
static uint64_t mpol_top_share(uint64_t used, uint64_t max);
static uint64_t mpol_top_random(mpol_top_t *top);


int
mpol_top_add(mpol_top_t *top, const mpol_str_t *what, const mpol_str_t *who,
    uint64_t now, uint64_t expires)
{
    uint64_t           weight;
    mpol_top_entry_t  *e;

    e = mpol_top_find(top, what, who, now);

    if (e == NULL) {
        weight = 0;
        e = mpol_top_free(top, now);

        if (e == NULL) {
            e = mpol_top_last(top, MPOL_TOP_BY_COUNT);
            weight = e->weight;

            if (mpol_top_random(top) % weight != 0) {
                return MPOL_BAD;
            }
        }

        mpol_top_enter(e, what, who, now);
        e->weight = weight;
    }

    e->weight++;
    e->used++;
    e->last = now;
    e->expires = expires;

    return MPOL_OK;
}


int
mpol_top_put(mpol_top_t *top, const mpol_str_t *what, const mpol_str_t *who,
    uint64_t used, uint64_t max, uint64_t now, uint64_t expires)
{
    mpol_top_entry_t  *e;

    if (used > MPOL_TOP_NUMBER) {
        used = MPOL_TOP_NUMBER;
    }

    if (max > MPOL_TOP_NUMBER) {
        max = MPOL_TOP_NUMBER;
    }

    e = mpol_top_find(top, what, who, now);

    if (e == NULL) {
        e = mpol_top_free(top, now);

        if (e == NULL) {
            e = mpol_top_last(top, MPOL_TOP_BY_SHARE);

            if (mpol_top_share(used, max) < mpol_top_share(e->used, e->max)) {
                return MPOL_BAD;
            }
        }

        mpol_top_enter(e, what, who, now);
    }

    e->used = used;
    e->max = max;
    e->last = now;
    e->expires = expires;

    return MPOL_OK;
}


size_t
mpol_top_list(const mpol_top_t *top, mpol_top_order_e order, uint64_t now,
    uint8_t index[MPOL_TOP_ENTRIES])
{
    size_t                   i, k, n;
    const mpol_top_entry_t  *e;

    n = 0;

    for (i = 0; i < MPOL_TOP_ENTRIES; i++) {
        e = &top->entries[i];

        if (e->expires <= now) {
            continue;
        }

        for (k = n; k > 0; k--) {
            if (!mpol_top_before(e, &top->entries[index[k - 1]], order)) {
                break;
            }

            index[k] = index[k - 1];
        }

        index[k] = (uint8_t) i;
        n++;
    }

    return n;
}


/* a character is four octets at most; what has more of them is none */

size_t
mpol_top_cut(const uint8_t *p, size_t len, size_t max)
{
    size_t  n;

    if (len <= max) {
        return len;
    }

    for (n = 0; n < 4 && n <= max; n++) {
        if ((p[max - n] & 0xc0) != 0x80) {
            return max - n;
        }
    }

    return max;
}


static mpol_top_entry_t *
mpol_top_find(mpol_top_t *top, const mpol_str_t *what, const mpol_str_t *who,
    uint64_t now)
{
    size_t             i;
    uint64_t           hash;
    mpol_top_entry_t  *e;

    hash = mpol_once_hash(what, who);

    for (i = 0; i < MPOL_TOP_ENTRIES; i++) {
        e = &top->entries[i];

        if (e->expires > now && mpol_top_is(e, hash, what, who)) {
            return e;
        }
    }

    return NULL;
}


static int
mpol_top_is(const mpol_top_entry_t *e, uint64_t hash, const mpol_str_t *what,
    const mpol_str_t *who)
{
    return e->hash == hash
           && e->what_len == mpol_top_cut(what->data, what->len, MPOL_TOP_WHAT)
           && e->who_len == mpol_top_cut(who->data, who->len, MPOL_TOP_WHO)
           && (e->what_len == 0
               || memcmp(e->what, what->data, e->what_len) == 0)
           && (e->who_len == 0 || memcmp(e->who, who->data, e->who_len) == 0);
}


static mpol_top_entry_t *
mpol_top_free(mpol_top_t *top, uint64_t now)
{
    size_t  i;

    for (i = 0; i < MPOL_TOP_ENTRIES; i++) {
        if (top->entries[i].expires <= now) {
            return &top->entries[i];
        }
    }

    return NULL;
}


/* the one that all others are before; of equal ones that was seen first */

static mpol_top_entry_t *
mpol_top_last(mpol_top_t *top, mpol_top_order_e order)
{
    size_t             i;
    mpol_top_entry_t  *e, *last;

    last = &top->entries[0];

    for (i = 1; i < MPOL_TOP_ENTRIES; i++) {
        e = &top->entries[i];

        if (order == MPOL_TOP_BY_COUNT
            ? e->weight < last->weight
              || (e->weight == last->weight && e->last < last->last)
            : mpol_top_before(last, e, order))
        {
            last = e;
        }
    }

    return last;
}


static void
mpol_top_enter(mpol_top_entry_t *e, const mpol_str_t *what,
    const mpol_str_t *who, uint64_t now)
{
    memset(e, 0, sizeof(mpol_top_entry_t));

    e->hash = mpol_once_hash(what, who);
    e->first = now;

    e->what_len = (uint8_t) mpol_top_cut(what->data, what->len, MPOL_TOP_WHAT);
    e->who_len = (uint8_t) mpol_top_cut(who->data, who->len, MPOL_TOP_WHO);

    if (e->what_len) {
        memcpy(e->what, what->data, e->what_len);
    }

    if (e->who_len) {
        memcpy(e->who, who->data, e->who_len);
    }
}


static int
mpol_top_before(const mpol_top_entry_t *a, const mpol_top_entry_t *b,
    mpol_top_order_e order)
{
    uint64_t  one, other;

    if (order == MPOL_TOP_BY_COUNT) {
        return a->used > b->used || (a->used == b->used && a->last > b->last);
    }

    one = mpol_top_share(a->used, a->max);
    other = mpol_top_share(b->used, b->max);

    if (one != other) {
        return one > other;
    }

    one = a->used < a->max ? a->max - a->used : 0;
    other = b->used < b->max ? b->max - b->used : 0;

    return one < other || (one == other && a->last > b->last);
}


/* thousandths; what has no room at all is fuller than anything */

static uint64_t
mpol_top_share(uint64_t used, uint64_t max)
{
    return max ? used * 1000 / max : UINT64_MAX;
}


/* SplitMix64: any seed will do, and no secret depends on it */

static uint64_t
mpol_top_random(mpol_top_t *top)
{
    uint64_t  z;

    top->seed += 0x9e3779b97f4a7c15;
    z = top->seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;

    return z ^ (z >> 31);
}
