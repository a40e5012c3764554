
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A set whose members expire, and how it is judged: the leases of sessions,
 * and failed logins.  The same stands in policies/members.lua, judge.lua,
 * limit.lua and giveback.lua; tests/vectors/ is the specification of all.
 * Times are microseconds, below 2^53.
 *
 *     used      = members that have not expired (at expires it has)
 *     fits      = used < room, or n = 0
 *     remaining = room - used, one less if it was added; 0 if negative
 *     retry     = time until that member expires whose going makes room: 0
 *                 if it fits now; MPOL_NEVER if there is never any room
 *
 * Lease: the room is the rate's count.  A member that is there already fits,
 * and when it is charged it is renewed.
 *
 * Failed: the room is the rate's count, or twice that for who is exempt.  A
 * member that is there already is judged as any other, and when it is
 * charged it is not added again, and expires when it did.
 *
 * A member expires at the latest a period after it was asked for last: one
 * that would later (the clock went back, the period became shorter) is
 * brought to that.
 *
 * Entries are in the caller's memory, in the order in which they expire.
 * Where that is full a new member does not fit, whatever the room.
 */


#ifndef MPOL_SET_H
#define MPOL_SET_H


#include "mpol_counter.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SET_MAX  4096              /* what callers give, at most */


#define MPOL_SET_MARKED    1            /* the caller's own */
#define MPOL_SET_STRANGER  2            /* nobody's member: is never found */


typedef struct {
    uint64_t            member;
    uint64_t            expires;
    unsigned            flags;
} mpol_set_entry_t;


typedef struct {
    mpol_set_entry_t   *entries;        /* the caller's */
    size_t              max;            /* of them, not 0 */
    size_t              n;              /* of them that are used */
} mpol_set_t;


/* takes away what has expired at now; 1 if there was any */
int mpol_set_prune(mpol_set_t *s, uint64_t now);

/* what expires later than last does so at last; 1 if there was any */
int mpol_set_clamp(mpol_set_t *s, uint64_t last);

/* NULL if it is not there; valid until the set is changed */
mpol_set_entry_t *mpol_set_find(const mpol_set_t *s, uint64_t member);

/* adds it, or sets anew when it expires; MPOL_BAD if it is full */
int mpol_set_put(mpol_set_t *s, uint64_t member, uint64_t expires,
    unsigned flags);

/* 1 if it was there */
int mpol_set_remove(mpol_set_t *s, uint64_t member);

/* members that are not known, as many as there is room for */
void mpol_set_strangers(mpol_set_t *s, uint64_t n, uint64_t expires);


/*
 * Judge n (0: whether it is blocked; else one member) at now, which takes
 * away what has expired and brings to now what lies in the future: 1 if that
 * changed the set.  A rate is a window, or none of this is looked at.
 */
int mpol_lease_check(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, uint64_t n, mpol_decision_t *d);
int mpol_failed_check(mpol_set_t *s, const mpol_rate_t *rate, unsigned exempt,
    uint64_t now, uint64_t member, uint64_t n, mpol_decision_t *d);

/*
 * Charge a member that fitted, and correct what remains in *d; 1 if that
 * changed the set.
 */
int mpol_lease_charge(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, unsigned flags, mpol_decision_t *d);
int mpol_failed_charge(mpol_set_t *s, const mpol_rate_t *rate, uint64_t now,
    uint64_t member, unsigned flags, mpol_decision_t *d);

/*
 * Give back one that was charged at time at: removed if that charge added
 * it, or if the login succeeded by now (ok).  1 if that changed the set.
 */
int mpol_failed_give_back(mpol_set_t *s, const mpol_rate_t *rate,
    uint64_t at, uint64_t member, unsigned ok);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SET_H */
