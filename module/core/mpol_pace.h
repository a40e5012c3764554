
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A deadline that octets extend: who sends less than so many octets a second
 * runs out of time in the end, however often something comes from him.
 *
 *     spent:  left = max(left - ms, 0)
 *     moved:  left = min(left + octets * 1000 / rate, max)
 *
 * What of a millisecond the octets do not fill is kept, so that many small
 * reads extend it as much as a large one does.
 *
 * There is no clock in it: the caller measures how long it has waited for the
 * peer, and not for anybody else.  left is what to set its timer to; at 0 the
 * time is over, and stays so until octets are moved.
 */


#ifndef MPOL_PACE_H
#define MPOL_PACE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


typedef struct {
    uint64_t  left;                     /* ms, <= max */
    uint64_t  max;                      /* ms */
    uint64_t  rate;                     /* octets a second; 0: each octet
                                           gives all of max again */
    uint64_t  part;                     /* of a ms, in 1/rate of it, < rate;
                                           0 if left == max */
} mpol_pace_t;


/* all of max_ms is left; any number goes for either */
void mpol_pace_init(mpol_pace_t *p, uint64_t max_ms, uint64_t rate);

/* so long was waited for the peer */
void mpol_pace_spent(mpol_pace_t *p, uint64_t ms);

/* so many octets came from the peer, or were taken by it */
void mpol_pace_moved(mpol_pace_t *p, uint64_t octets);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_PACE_H */
