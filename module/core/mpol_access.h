
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Actions of Postfix's access(5), as policy servers answer them:
 *
 *     answer = "action=" action [ blanks text ] LF LF
 *     action = keyword / number
 *
 * Keywords are compared without case; the restrictions "permit", "reject",
 * "defer", "defer_if_permit", "defer_if_reject" are among them.  "4NN" and
 * "5NN" are refusals, with a text or without (Postfix takes a number that
 * stands alone for OK, whichever it is; nobody who says 550 means that).
 * Any other number that stands alone is OK.
 *
 * A refusal may have an enhanced status at the beginning of its text; one of
 * another class than the code is put right.  Without it, it has the one that
 * Postfix adds: 4.7.1, 5.7.1.
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
    mpol_str_t     status;              /* "4.7.1" of a refusal, a slice of
                                           the action or a constant; its class
                                           may be wrong: the code has it */
    mpol_str_t     text;                /* behind both, without blanks at its
                                           ends; slice of the action */
} mpol_access_t;


/*
 * The value of "action=".  Always fills *a; MPOL_BAD for what cannot be
 * obeyed: an empty one, a word or number that is none of these, or a control
 * octet other than TAB (action UNKNOWN, all else empty); FILTER, REDIRECT,
 * BCC or PREPEND without what they need ("transport:", "user@", a header
 * field).
 */
int mpol_access_parse(const uint8_t *p, size_t len, mpol_access_t *a);

/*
 * The value of the first "action=" in the attributes of a whole answer (what
 * mpol_attr_scan() has found).  MPOL_BAD: there is none.
 */
int mpol_access_find(const uint8_t *p, size_t len, mpol_str_t *action);

/*
 * "450 4.7.1 text" of a refusal, or of a->code if the caller has set another
 * one, to out, which has room for MPOL_ACCESS_REPLY octets: as many of it as
 * that; octets that no reply may have are "?", and the status has the class
 * of the code.  A refusal without text gets one ("Access denied", "Try again
 * later").  Returns the number of octets; 0 if there is no code.
 */
size_t mpol_access_reply(const mpol_access_t *a, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ACCESS_H */
