
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The original recipient of a DSN, RFC 3461 section 4.2.
 *
 *     orcpt = addr-type ";" xtext
 *
 * An address of type "utf-8" may be UTF-8 itself where SMTPUTF8 is in force
 * (utf-8-addr-unitext, RFC 6533 section 3).  Addresses of other types are
 * not looked into, and none is decoded here.
 */


#ifndef MPOL_ORCPT_H
#define MPOL_ORCPT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* eightbit: octets above 127 are allowed; MPOL_OK or MPOL_BAD */
int mpol_orcpt_check(const mpol_str_t *orcpt, int eightbit);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ORCPT_H */
