
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A counter in two parts, of a store that takes over while another one is
 * away.  The learned part is what the other one said last: the rate in
 * force, where that came from, and how much of it was used at that time.
 * The local part is what was charged here, and the other one is still to be
 * told.
 *
 * Both together are judged, as mpol_counter.h says.
 *
 * Window: what was used counts as charged in the slot of the time at which
 * it was learned: it is released rather late than early.
 *
 * Bucket: what was used is a level at that time.  The local part is kept as
 * the time when both parts together have drained, and tells the other store
 * the difference of the levels of both and of the learned part alone.
 *
 * A rate that was learned replaces one that comes from a less specific
 * place; from is a number, the higher the more specific, and 0 what the
 * asking one has set itself.
 */


#ifndef MPOL_LOCAL_H
#define MPOL_LOCAL_H


#include "mpol_counter.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_FROM_MAX  4                /* 0 .. 4, see mpol_local_text() */


typedef struct {
    mpol_rate_t     rate;               /* kind NONE: nothing learned */
    unsigned        from;
    uint64_t        at;                 /* when */
    uint64_t        used;               /* bucket: its level, microseconds;
                                           set: members that are not known */
} mpol_learned_t;


typedef struct {
    mpol_learned_t  learned;
    mpol_rate_t     rate;               /* what charged here last */
    unsigned        from;
    mpol_counter_t  counter;            /* the local part; a bucket's tat is
                                           of both parts */
} mpol_local_t;                         /* all zeroes to begin with */


/* 1 if the arithmetic can do with it: what is stored may be anything */
int mpol_local_rate_valid(const mpol_rate_t *rate);

/* the rate and where it comes from, if a learned one is more specific */
void mpol_learned_rate(const mpol_learned_t *learned, mpol_rate_t *rate,
    unsigned *from);

/* both parts, as they count at now at this rate */
void mpol_local_view(const mpol_local_t *l, const mpol_rate_t *rate,
    uint64_t now, mpol_counter_t *c);

/*
 * Judges n units, as mpol_counter_check() does; 1 if something that lay in
 * the future had to be brought to now.
 */
int mpol_local_check(mpol_local_t *l, const mpol_rate_t *rate, uint64_t now,
    uint64_t n, mpol_decision_t *d);

/* charges n units, fitting or not, to the local part */
void mpol_local_charge(mpol_local_t *l, const mpol_rate_t *rate,
    unsigned from, uint64_t now, uint64_t n);

/* takes back n units of the local part, charged at time at; now >= at */
void mpol_local_give_back(mpol_local_t *l, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n);

/* the other store said: so much is used by now; forgets it if kind is NONE */
void mpol_local_learn(mpol_local_t *l, const mpol_rate_t *rate,
    unsigned from, uint64_t now, uint64_t used);

/* n that the other store charged at time at are given back there */
void mpol_local_unlearn(mpol_local_t *l, const mpol_rate_t *rate,
    uint64_t now, uint64_t at, uint64_t n);

/* forgets what counts no more, but not rates of more specific places */
void mpol_local_tidy(mpol_local_t *l, uint64_t now);

/* 1 if there is a local part that counts at now */
int mpol_local_waits(const mpol_local_t *l, uint64_t now);

/* when nothing of both parts counts any more; 0 if nothing does at now */
uint64_t mpol_local_expires(const mpol_local_t *l, uint64_t now);

/*
 * The local part, as the other store takes it:
 *     w <width> <count> <from> <slot>:<n>[ <distance>:<n>]...
 *     b <cost> <count> <period> <burst> <from>
 * from being one of c * p @ k.  Returns the length, 0 if there is none;
 * MPOL_LOCAL_TEXT octets are enough for any.
 */
size_t mpol_local_text(const mpol_local_t *l, uint64_t now, uint8_t *out);

#define MPOL_LOCAL_TEXT  1472           /* 20 an entry of a window */

/* the local part has been told: it is learned, at now */
void mpol_local_told(mpol_local_t *l, uint64_t now);

/*
 * It has not been, after all: told is what was there before mpol_local_told()
 * at the time at.  What has been learned or charged since stays.
 */
void mpol_local_untold(mpol_local_t *l, const mpol_local_t *told,
    uint64_t at, uint64_t now);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_LOCAL_H */
