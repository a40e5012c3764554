
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counters and sets in as few octets as are needed, for memory that holds
 * many of them.
 *
 *     number    seven bits an octet, the lowest first, the highest bit set
 *               in all but the last
 *     scaled    a number * 2 in units of a scale if it is a multiple of it,
 *               else the number * 2 + 1
 *     rate      octet kind + from * 16; for a window and a bucket count,
 *               period (scaled, seconds), and for a bucket burst
 *     counter   octet 0: empty; 1: bucket, tat; 2: window, width, newest, a
 *               mask of which slots before newest are not 0 (bit 0 is the
 *               one before), newest's n, and the n of those in the mask
 *     learned   rate, at (scaled, milliseconds), used
 *     local     octet 1 (learned) + 2 (local); learned; rate, counter
 *     set       n, octet size of a member, when the first one expires
 *               (scaled, milliseconds), and for each: member, the highest
 *               octet first, how much later than the one before it expires
 *               * 2 + marked
 *
 * Unpacking takes any octets: what it makes of them is valid, or it says
 * MPOL_BAD.  What was packed comes out the same.
 */


#ifndef MPOL_PACK_H
#define MPOL_PACK_H


#include "mpol_local.h"
#include "mpol_set.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_PACK_LOCAL_MAX  768        /* a mpol_local_t needs no more */


/* once full, nothing more is written */
typedef struct {
    uint8_t        *pos;
    uint8_t        *end;
    unsigned        full:1;
} mpol_pack_t;


typedef struct {
    const uint8_t  *pos;                /* anywhere after MPOL_BAD */
    const uint8_t  *end;
} mpol_unpack_t;


void mpol_pack_octet(mpol_pack_t *p, unsigned octet);
void mpol_pack_number(mpol_pack_t *p, uint64_t n);
void mpol_pack_counter(mpol_pack_t *p, const mpol_counter_t *c);
void mpol_pack_local(mpol_pack_t *p, const mpol_local_t *l);
void mpol_pack_learned(mpol_pack_t *p, const mpol_learned_t *learned);

/* without strangers */
void mpol_pack_set(mpol_pack_t *p, const mpol_set_t *s);


/* MPOL_OK or MPOL_BAD, and the thing is all zeroes, or the set empty */
int mpol_unpack_octet(mpol_unpack_t *u, unsigned *octet);
int mpol_unpack_number(mpol_unpack_t *u, uint64_t *n);
int mpol_unpack_counter(mpol_unpack_t *u, mpol_counter_t *c);
int mpol_unpack_local(mpol_unpack_t *u, mpol_local_t *l);
int mpol_unpack_learned(mpol_unpack_t *u, mpol_learned_t *learned);

/* bad also if there are more than s->max */
int mpol_unpack_set(mpol_unpack_t *u, mpol_set_t *s);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_PACK_H */
