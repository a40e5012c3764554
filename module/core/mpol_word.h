
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What commands and replies are made of: words of ASCII in which case does
 * not matter, and decimal numbers.
 */


#ifndef MPOL_WORD_H
#define MPOL_WORD_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* a positive error of mpol_word_number() */
#define MPOL_WORD_LONG  1               /* a number, but not of 64 bits */


/* 1 if s is the word upper[0 .. len), itself in upper case, 0 if not */
int mpol_word_same(const mpol_str_t *s, const char *upper, size_t len);

#define mpol_word_is(s, upper)  mpol_word_same(s, upper, sizeof(upper) - 1)

/*
 * 1 if c is a letter, a digit or "-": esmtp-keyword is made of them, and
 * addr-type (RFC 3464 section 2.1.2), where no others are in use.
 */
int mpol_word_octet(uint8_t c);

/*
 * 1*20DIGIT, RFC 1870 section 5 and RFC 3030 section 2.  Returns MPOL_OK
 * with *n, MPOL_WORD_LONG, or MPOL_BAD; *n is then undefined.
 */
int mpol_word_number(const uint8_t *p, size_t len, uint64_t *n);

/* how many digits p[0 .. len) begins with */
size_t mpol_word_digits(const uint8_t *p, size_t len);

/*
 * The octets of the enhanced status that p[0 .. len) begins with, RFC 2034
 * section 4 (class "." subject "." detail), 0 if there is none.  What is
 * behind it is for the caller to judge; it is no digit.
 */
size_t mpol_word_status(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_WORD_H */
