
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_pack.h"


#define MPOL_PACK_EMPTY    0
#define MPOL_PACK_BUCKET   1
#define MPOL_PACK_WINDOW   2

#define MPOL_PACK_LEARNED  1
#define MPOL_PACK_LOCAL    2

#define MPOL_PACK_SECOND   1000000
#define MPOL_PACK_MSEC     1000


static void mpol_pack_scaled(mpol_pack_t *p, uint64_t n, uint64_t scale);
static void mpol_pack_rate(mpol_pack_t *p, const mpol_rate_t *rate,
    unsigned from);
static unsigned mpol_pack_member_size(const mpol_set_t *s);
static int mpol_unpack_below(mpol_unpack_t *u, uint64_t *n);
static int mpol_unpack_scaled(mpol_unpack_t *u, uint64_t *n, uint64_t scale);
static int mpol_unpack_rate(mpol_unpack_t *u, mpol_rate_t *rate,
    unsigned *from);
static int mpol_unpack_matches(const mpol_rate_t *rate,
    const mpol_counter_t *c);
static int mpol_unpack_window(mpol_unpack_t *u, mpol_counter_t *c);
static int mpol_unpack_slots(mpol_unpack_t *u, mpol_counter_t *c,
    uint64_t mask);
static int mpol_unpack_entries(mpol_unpack_t *u, mpol_set_t *s,
    unsigned size, uint64_t expires);


void
mpol_pack_octet(mpol_pack_t *p, unsigned octet)
{
    if (p->pos == p->end) {
        p->full = 1;
        return;
    }

    *p->pos++ = (uint8_t) octet;
}


void
mpol_pack_number(mpol_pack_t *p, uint64_t n)
{
    while (n >= 0x80) {
        mpol_pack_octet(p, (unsigned) (n & 0x7f) | 0x80);
        n >>= 7;
    }

    mpol_pack_octet(p, (unsigned) n);
}


void
mpol_pack_counter(mpol_pack_t *p, const mpol_counter_t *c)
{
    uint64_t  i, n, mask;

    if (c->width == 0) {

        if (c->tat == 0) {
            mpol_pack_octet(p, MPOL_PACK_EMPTY);
            return;
        }

        mpol_pack_octet(p, MPOL_PACK_BUCKET);
        mpol_pack_number(p, c->tat);
        return;
    }

    mask = 0;

    for (i = 1; i < MPOL_WINDOW_SLOTS && i <= c->newest; i++) {
        if (c->slot[(c->newest - i) % MPOL_WINDOW_SLOTS] != 0) {
            mask |= (uint64_t) 1 << (i - 1);
        }
    }

    mpol_pack_octet(p, MPOL_PACK_WINDOW);
    mpol_pack_number(p, c->width);
    mpol_pack_number(p, c->newest);
    mpol_pack_number(p, mask);

    for (i = 0; i < MPOL_WINDOW_SLOTS && i <= c->newest; i++) {
        n = c->slot[(c->newest - i) % MPOL_WINDOW_SLOTS];

        if (n != 0 || i == 0) {
            mpol_pack_number(p, n);
        }
    }
}


void
mpol_pack_learned(mpol_pack_t *p, const mpol_learned_t *learned)
{
    mpol_pack_rate(p, &learned->rate, learned->from);
    mpol_pack_scaled(p, learned->at, MPOL_PACK_MSEC);
    mpol_pack_number(p, learned->used);
}


void
mpol_pack_local(mpol_pack_t *p, const mpol_local_t *l)
{
    unsigned  parts;

    parts = 0;

    if (l->learned.rate.kind != MPOL_RATE_NONE) {
        parts |= MPOL_PACK_LEARNED;
    }

    if (l->rate.kind != MPOL_RATE_NONE) {
        parts |= MPOL_PACK_LOCAL;
    }

    mpol_pack_octet(p, parts);

    if (parts & MPOL_PACK_LEARNED) {
        mpol_pack_learned(p, &l->learned);
    }

    if (parts & MPOL_PACK_LOCAL) {
        mpol_pack_rate(p, &l->rate, l->from);
        mpol_pack_counter(p, &l->counter);
    }
}


void
mpol_pack_set(mpol_pack_t *p, const mpol_set_t *s)
{
    size_t                   i, n;
    uint64_t                 expires;
    unsigned                 size, shift;
    const mpol_set_entry_t  *e;

    n = 0;
    expires = 0;

    for (i = s->n; i != 0; i--) {
        e = &s->entries[i - 1];

        if (!(e->flags & MPOL_SET_STRANGER)) {
            expires = e->expires;
            n++;
        }
    }

    size = mpol_pack_member_size(s);

    mpol_pack_number(p, n);

    if (n == 0) {
        return;
    }

    mpol_pack_octet(p, size);
    mpol_pack_scaled(p, expires, MPOL_PACK_MSEC);

    for (i = 0; i < s->n && !p->full; i++) {
        e = &s->entries[i];

        if (e->flags & MPOL_SET_STRANGER) {
            continue;
        }

        for (shift = 8 * size; shift != 0; /* void */ ) {
            shift -= 8;
            mpol_pack_octet(p, (unsigned) (e->member >> shift) & 0xff);
        }

        mpol_pack_number(p, (e->expires - expires) * 2
                            + (e->flags & MPOL_SET_MARKED));
        expires = e->expires;
    }
}


int
mpol_unpack_octet(mpol_unpack_t *u, unsigned *octet)
{
    if (u->pos == u->end) {
        *octet = 0;
        return MPOL_BAD;
    }

    *octet = *u->pos++;

    return MPOL_OK;
}


int
mpol_unpack_number(mpol_unpack_t *u, uint64_t *n)
{
    uint64_t  value;
    unsigned  octet, shift;

    value = 0;
    *n = 0;

    for (shift = 0; shift < 64; shift += 7) {

        if (mpol_unpack_octet(u, &octet) != MPOL_OK
            || (shift == 63 && octet > 1))
        {
            return MPOL_BAD;
        }

        value |= (uint64_t) (octet & 0x7f) << shift;

        if (octet < 0x80) {
            *n = value;
            return MPOL_OK;
        }
    }

    return MPOL_BAD;
}


int
mpol_unpack_counter(mpol_unpack_t *u, mpol_counter_t *c)
{
    int       rc;
    unsigned  kind;

    memset(c, 0, sizeof(mpol_counter_t));

    if (mpol_unpack_octet(u, &kind) != MPOL_OK) {
        return MPOL_BAD;
    }

    switch (kind) {

    case MPOL_PACK_EMPTY:
        return MPOL_OK;

    case MPOL_PACK_BUCKET:
        rc = mpol_unpack_below(u, &c->tat);
        break;

    case MPOL_PACK_WINDOW:
        rc = mpol_unpack_window(u, c);
        break;

    default:
        rc = MPOL_BAD;
    }

    if (rc != MPOL_OK) {
        memset(c, 0, sizeof(mpol_counter_t));
    }

    return rc;
}


int
mpol_unpack_learned(mpol_unpack_t *u, mpol_learned_t *learned)
{
    if (mpol_unpack_rate(u, &learned->rate, &learned->from) == MPOL_OK
        && mpol_unpack_scaled(u, &learned->at, MPOL_PACK_MSEC) == MPOL_OK
        && mpol_unpack_below(u, &learned->used) == MPOL_OK)
    {
        return MPOL_OK;
    }

    memset(learned, 0, sizeof(mpol_learned_t));

    return MPOL_BAD;
}


int
mpol_unpack_local(mpol_unpack_t *u, mpol_local_t *l)
{
    unsigned  parts;

    memset(l, 0, sizeof(mpol_local_t));

    if (mpol_unpack_octet(u, &parts) != MPOL_OK
        || parts > (MPOL_PACK_LEARNED | MPOL_PACK_LOCAL))
    {
        return MPOL_BAD;
    }

    if ((parts & MPOL_PACK_LEARNED)
        && mpol_unpack_learned(u, &l->learned) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if ((parts & MPOL_PACK_LOCAL)
        && (mpol_unpack_rate(u, &l->rate, &l->from) != MPOL_OK
            || mpol_unpack_counter(u, &l->counter) != MPOL_OK
            || !mpol_unpack_matches(&l->rate, &l->counter)))
    {
        memset(l, 0, sizeof(mpol_local_t));
        return MPOL_BAD;
    }

    return MPOL_OK;
}


int
mpol_unpack_set(mpol_unpack_t *u, mpol_set_t *s)
{
    uint64_t  n, expires;
    unsigned  size;

    s->n = 0;

    if (mpol_unpack_number(u, &n) != MPOL_OK || n > s->max) {
        return MPOL_BAD;
    }

    if (n == 0) {
        return MPOL_OK;
    }

    if (mpol_unpack_octet(u, &size) != MPOL_OK || size == 0 || size > 8
        || mpol_unpack_scaled(u, &expires, MPOL_PACK_MSEC) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    s->n = (size_t) n;

    if (mpol_unpack_entries(u, s, size, expires) != MPOL_OK) {
        s->n = 0;
        return MPOL_BAD;
    }

    return MPOL_OK;
}


static void
mpol_pack_scaled(mpol_pack_t *p, uint64_t n, uint64_t scale)
{
    mpol_pack_number(p, (n % scale == 0) ? n / scale * 2 : n * 2 + 1);
}


static void
mpol_pack_rate(mpol_pack_t *p, const mpol_rate_t *rate, unsigned from)
{
    mpol_pack_octet(p, (unsigned) rate->kind + from * 16);

    if (rate->kind != MPOL_RATE_WINDOW && rate->kind != MPOL_RATE_BUCKET) {
        return;
    }

    mpol_pack_number(p, rate->count);
    mpol_pack_scaled(p, rate->period, MPOL_PACK_SECOND);

    if (rate->kind == MPOL_RATE_BUCKET) {
        mpol_pack_number(p, rate->burst);
    }
}


/* how many octets the largest member takes */

static unsigned
mpol_pack_member_size(const mpol_set_t *s)
{
    size_t    i;
    uint64_t  all;
    unsigned  size;

    all = 0;

    for (i = 0; i < s->n; i++) {
        all |= s->entries[i].member;
    }

    for (size = 1; size < 8 && all >> (8 * size) != 0; size++) {
        /* void */
    }

    return size;
}


/* one that is a sum or a time */

static int
mpol_unpack_below(mpol_unpack_t *u, uint64_t *n)
{
    if (mpol_unpack_number(u, n) != MPOL_OK || *n > MPOL_NEVER) {
        *n = 0;
        return MPOL_BAD;
    }

    return MPOL_OK;
}


static int
mpol_unpack_scaled(mpol_unpack_t *u, uint64_t *n, uint64_t scale)
{
    uint64_t  value;

    if (mpol_unpack_number(u, &value) != MPOL_OK) {
        *n = 0;
        return MPOL_BAD;
    }

    if (value % 2 == 1) {
        *n = value / 2;

    } else if (value / 2 <= MPOL_NEVER / scale) {
        *n = value / 2 * scale;

    } else {
        *n = MPOL_NEVER + 1;
    }

    if (*n > MPOL_NEVER) {
        *n = 0;
        return MPOL_BAD;
    }

    return MPOL_OK;
}


static int
mpol_unpack_rate(mpol_unpack_t *u, mpol_rate_t *rate, unsigned *from)
{
    unsigned  octet;

    static const mpol_rate_kind_e  kinds[] = {
        MPOL_RATE_NONE, MPOL_RATE_WINDOW, MPOL_RATE_BUCKET,
        MPOL_RATE_UNLIMITED, MPOL_RATE_BLOCKED
    };

    memset(rate, 0, sizeof(mpol_rate_t));
    *from = 0;

    if (mpol_unpack_octet(u, &octet) != MPOL_OK
        || octet % 16 > MPOL_RATE_BLOCKED || octet / 16 > MPOL_FROM_MAX)
    {
        return MPOL_BAD;
    }

    *from = octet / 16;
    rate->kind = kinds[octet % 16];

    if (rate->kind != MPOL_RATE_WINDOW && rate->kind != MPOL_RATE_BUCKET) {
        return MPOL_OK;
    }

    if (mpol_unpack_number(u, &rate->count) != MPOL_OK
        || mpol_unpack_scaled(u, &rate->period, MPOL_PACK_SECOND) != MPOL_OK
        || (rate->kind == MPOL_RATE_BUCKET
            && mpol_unpack_number(u, &rate->burst) != MPOL_OK)
        || !mpol_local_rate_valid(rate))
    {
        memset(rate, 0, sizeof(mpol_rate_t));
        return MPOL_BAD;
    }

    return MPOL_OK;
}


/* the counter is one that this rate has charged */

static int
mpol_unpack_matches(const mpol_rate_t *rate, const mpol_counter_t *c)
{
    switch (rate->kind) {

    case MPOL_RATE_WINDOW:
        return c->tat == 0
               && c->width == mpol_counter_width(rate);

    case MPOL_RATE_BUCKET:
        return c->width == 0;

    default:
        return 0;
    }
}


static int
mpol_unpack_window(mpol_unpack_t *u, mpol_counter_t *c)
{
    uint64_t  mask;

    if (mpol_unpack_below(u, &c->width) != MPOL_OK
        || mpol_unpack_below(u, &c->newest) != MPOL_OK
        || mpol_unpack_number(u, &mask) != MPOL_OK
        || c->width == 0
        || c->newest > MPOL_NEVER / c->width)
    {
        return MPOL_BAD;
    }

    return mpol_unpack_slots(u, c, mask);
}


static int
mpol_unpack_slots(mpol_unpack_t *u, mpol_counter_t *c, uint64_t mask)
{
    uint64_t   i;
    uint64_t  *slot;

    for (i = 0; i < MPOL_WINDOW_SLOTS; i++) {

        if (i != 0 && (mask >> (i - 1) & 1) == 0) {
            continue;
        }

        if (i > c->newest) {
            return MPOL_BAD;
        }

        slot = &c->slot[(c->newest - i) % MPOL_WINDOW_SLOTS];

        if (mpol_unpack_below(u, slot) != MPOL_OK
            || (i != 0 && *slot == 0))
        {
            return MPOL_BAD;
        }
    }

    return MPOL_OK;
}


static int
mpol_unpack_entries(mpol_unpack_t *u, mpol_set_t *s, unsigned size,
    uint64_t expires)
{
    size_t             i;
    uint64_t           later;
    unsigned           octet, n;
    mpol_set_entry_t  *e;

    for (i = 0; i < s->n; i++) {
        e = &s->entries[i];
        e->member = 0;

        for (n = 0; n < size; n++) {
            if (mpol_unpack_octet(u, &octet) != MPOL_OK) {
                return MPOL_BAD;
            }

            e->member = e->member << 8 | octet;
        }

        if (mpol_unpack_number(u, &later) != MPOL_OK
            || later / 2 > MPOL_NEVER - expires)
        {
            return MPOL_BAD;
        }

        expires += later / 2;

        e->expires = expires;
        e->flags = (later & 1) ? MPOL_SET_MARKED : 0;
    }

    return MPOL_OK;
}
