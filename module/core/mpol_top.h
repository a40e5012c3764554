
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Who comes most often, and what is fullest: a table of few entries, each of
 * a pair of texts (what, who), for more of them than it has room for.
 *
 *     add   counts a pair
 *     put   sets used and max of a pair; the newest values stand
 *
 * A table is used with one of them.  An entry is as good as free once its time
 * is over (now >= expires).  Where there is no free one:
 *
 *     add   the pair that was counted least, w times, the one longest not
 *           seen, makes room in one of w cases.  The new pair weighs w + 1
 *           then, but shows as counted once since it is here.  So pairs that
 *           come once, be there a flood of them, displace each other; what
 *           came w times is safe from w * w / 2 of them for each entry, and
 *           who comes in a share s of all cases is in after 1 / s tries of it.
 *     put   the one that is least full makes room, if the new one is as full
 *           at least
 *
 * The time is the caller's, in any unit.  used and max end at 2^53.
 *
 * Texts are copied, and cut if they are too long, not within a character of
 * UTF-8; pairs that were cut are told apart by what was cut off, too.  No
 * octet means anything here.
 *
 * Who shares a table among processes brings the lock.
 */


#ifndef MPOL_TOP_H
#define MPOL_TOP_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_TOP_ENTRIES  64
#define MPOL_TOP_WHAT     96            /* octets */
#define MPOL_TOP_WHO      160


typedef struct {
    uint64_t            hash;           /* of both texts, before the cut */
    uint64_t            weight;         /* add: what it is judged by */
    uint64_t            used;           /* add: times since first */
    uint64_t            max;            /* put */
    uint64_t            first;          /* time, since it is here */
    uint64_t            last;
    uint64_t            expires;        /* 0: free */
    uint8_t             what_len;
    uint8_t             who_len;
    uint8_t             what[MPOL_TOP_WHAT];
    uint8_t             who[MPOL_TOP_WHO];
} mpol_top_entry_t;


typedef struct {
    mpol_top_entry_t    entries[MPOL_TOP_ENTRIES];
    uint64_t            seed;
} mpol_top_t;                           /* all zeroes to begin with */


typedef enum {
    MPOL_TOP_BY_COUNT = 0,              /* then by last */
    MPOL_TOP_BY_SHARE                   /* used / max, then by what is left */
} mpol_top_order_e;


/* MPOL_OK, or MPOL_BAD: there was no room */
int mpol_top_add(mpol_top_t *top, const mpol_str_t *what,
    const mpol_str_t *who, uint64_t now, uint64_t expires);
int mpol_top_put(mpol_top_t *top, const mpol_str_t *what,
    const mpol_str_t *who, uint64_t used, uint64_t max, uint64_t now,
    uint64_t expires);

/* numbers of the entries that are not over, in order: the first n of index */
size_t mpol_top_list(const mpol_top_t *top, mpol_top_order_e order,
    uint64_t now, uint8_t index[MPOL_TOP_ENTRIES]);

/* how much of a text is kept in max octets */
size_t mpol_top_cut(const uint8_t *p, size_t len, size_t max);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_TOP_H */
