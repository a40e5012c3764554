
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Actions of Postfix's access(5), as policy servers answer them:
 *
 *     answer = "action=" action [ SP text ] LF LF
 *
 * The keyword is compared without case; "4NN text" and "5NN text" are
 * refusals, any other number is OK.  A refusal has an enhanced status at the
 * beginning of its text, or the one that Postfix would add: 4.7.1, 5.7.1.
 */


#ifndef MPOL_ACCESS_H
#define MPOL_ACCESS_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* no reply is longer, RFC 5321, section 4.5.3.1.5, with its CRLF */
#define MPOL_ACCESS_REPLY  510


typedef enum {
    MPOL_ACCESS_DUNNO = 0,              /* the next one is asked */
    MPOL_ACCESS_OK,                     /* no other one is asked */
    MPOL_ACCESS_REJECT,                 /* code 500 .. 599 */
    MPOL_ACCESS_DEFER,                  /* code 400 .. 499 */
    MPOL_ACCESS_DEFER_IF_PERMIT,        /* code 450 */
    MPOL_ACCESS_DEFER_IF_REJECT,        /* code 450 */
    MPOL_ACCESS_PREPEND,                /* text: a header field */
    MPOL_ACCESS_INFO,                   /* text: for the log */
    MPOL_ACCESS_WARN,
    MPOL_ACCESS_FILTER,                 /* the rest: for a Postfix only */
    MPOL_ACCESS_REDIRECT,
    MPOL_ACCESS_BCC,
    MPOL_ACCESS_HOLD,
    MPOL_ACCESS_DISCARD,
    MPOL_ACCESS_UNKNOWN
} mpol_access_e;


typedef struct {
    mpol_access_e  action;
    unsigned       code;                /* of a refusal; else 0 */
    mpol_str_t     status;              /* "4.7.1", of the code's class; else
                                           empty */
    mpol_str_t     text;                /* behind both, without blanks at its
                                           ends; slice of the action */
} mpol_access_t;


/*
 * The value of "action=".  Always fills *a; MPOL_BAD for what no Postfix
 * takes: an empty one, a word that is none of these (action UNKNOWN), FILTER,
 * REDIRECT, BCC or PREPEND without what they need, a PREPEND that is no
 * header field, a control octet other than TAB.
 */
int mpol_access_parse(const uint8_t *p, size_t len, mpol_access_t *a);

/*
 * The value of the first "action=" in the attributes of a whole answer (what
 * mpol_attr_scan() has found).  MPOL_BAD: there is none.
 */
int mpol_access_find(const uint8_t *p, size_t len, mpol_str_t *action);

/*
 * "450 4.7.1 text" of a refusal to out, which has room for MPOL_ACCESS_REPLY
 * octets, as many as that; octets that no reply may have become "?".  A
 * refusal without text gets one ("Access denied", "Try again later").  421
 * and 521 stay what they are.  Returns the number of octets.
 */
size_t mpol_access_reply(const mpol_access_t *a, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ACCESS_H */
