
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What was done already: a table of hashes, each until a time.  Of more than
 * MPOL_ONCE_WAYS that fall to one place the one that ends first is forgotten
 * early, so what must happen once may then happen twice; never is it left out
 * but where two hashes are equal.
 *
 * The time is the caller's, in any unit.  Who shares a table among processes
 * brings the lock.
 */


#ifndef MPOL_ONCE_H
#define MPOL_ONCE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_ONCE_SETS  1024
#define MPOL_ONCE_WAYS  4


typedef struct {
    uint64_t            hash;
    uint64_t            until;          /* from then on it is forgotten */
} mpol_once_entry_t;


typedef struct {
    mpol_once_entry_t   entries[MPOL_ONCE_SETS][MPOL_ONCE_WAYS];
} mpol_once_t;                          /* all zeroes to begin with */


/* 1 if it is not known at now, and is until then; 0 if it is, and stays so */
int mpol_once(mpol_once_t *once, uint64_t hash, uint64_t now, uint64_t until);

/* of two texts, as a hash for it */
uint64_t mpol_once_hash(const mpol_str_t *a, const mpol_str_t *b);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ONCE_H */
