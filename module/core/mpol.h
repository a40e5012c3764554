
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What every file of core/ shares: the slice, the return codes, visibility.
 *
 * core/ is pure: no nginx, no hiredis, no heap, no clock, no mutable
 * statics, no floats.  It takes octets and numbers, and gives back numbers
 * and slices of the octets it was given.  Nothing here is NUL-terminated.
 *
 * Return codes, unless a header says otherwise: MPOL_OK (0) done,
 * MPOL_BAD (-1) can never become right, MPOL_AGAIN (-2) more octets needed.
 */


#ifndef MPOL_H
#define MPOL_H


#include <stddef.h>
#include <stdint.h>


/* nginx loads modules with RTLD_GLOBAL: keep our symbols to ourselves */
#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_OK      0
#define MPOL_BAD    -1
#define MPOL_AGAIN  -2


/* a slice: borrowed, valid as long as the buffer it points into */
typedef struct {
    const uint8_t  *data;
    size_t          len;
} mpol_str_t;


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_H */
