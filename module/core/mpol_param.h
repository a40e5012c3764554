
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The parameters of MAIL and RCPT, RFC 5321 section 4.1.2; for callers there
 * is mpol_command.h, which has the results and errors, too.
 *
 *     params = *( SP param )
 *     param  = esmtp-keyword [ "=" esmtp-value ]
 *
 * Each known parameter may stand once:
 *
 *     SIZE = 1*20DIGIT                                        RFC 1870
 *     BODY = "7BIT" / "8BITMIME" / "BINARYMIME"               RFC 6152, 3030
 *     AUTH = xtext                                            RFC 4954
 *     SMTPUTF8                                                RFC 6531
 *     RET  = "FULL" / "HDRS"          ENVID = xtext           RFC 3461
 *     NOTIFY = "NEVER" / 1#( "SUCCESS" / "FAILURE" / "DELAY" )
 *     ORCPT  = addr-type ";" xtext
 *
 * What xtext stands for is printable: an encoded control octet has no place
 * in an address or an id.  It is not decoded here.
 */


#ifndef MPOL_PARAM_H
#define MPOL_PARAM_H


#include "mpol_command.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/*
 * p[0 .. len) is what stands behind the path.  Returns MPOL_OK with what is
 * there added to *mail, *rcpt, or MPOL_ARG_SYNTAX, MPOL_ARG_PARAM,
 * MPOL_ARG_VALUE.
 */
int mpol_param_mail(const uint8_t *p, size_t len, unsigned offered,
    mpol_mail_t *mail);
int mpol_param_rcpt(const uint8_t *p, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_PARAM_H */
