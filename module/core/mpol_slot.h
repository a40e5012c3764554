
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The slot of a key in a Redis Cluster: CRC16 (polynomial 0x1021, from 0) of
 * the hash tag, modulo 16384.
 *
 *     tag = what is between the first "{" and the first "}" behind it; the
 *           whole key if one of them is missing or nothing is between them
 */


#ifndef MPOL_SLOT_H
#define MPOL_SLOT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SLOTS  16384


/* 0 .. MPOL_SLOTS - 1 */
unsigned mpol_slot(const uint8_t *key, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SLOT_H */
