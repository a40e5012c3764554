
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The name that a relay gave to a message it took, out of its reply to the
 * end of the message.  No standard says where it stands; these are in use:
 *
 *     Ok: queued as 4XyZ1k2m3n                          Postfix and others
 *     OK id=1r5abc-0003xY-2Z,  OK ids=9f3c...           Exim, KumoMTA
 *     <m@h> [InternalId=1234, ...] Queued mail ...      Exchange
 *     Message queued with id 21af                       Stalwart
 *     3AR1x2y3012345 Message accepted for delivery      Sendmail, OpenSMTPD
 *     Message Queued (5F3C-4D1A.1)                      Haraka
 *     ok 1700000000 qp 12345                            qmail
 *     ok:  Message 12345 accepted                       AsyncOS
 *     OK  1700000000 x12-20020a.12 - gsmtp              Gmail
 *     Ok 0100018b9c-000000,  Ok. 0000000A.6553.0001     SES, Courier
 *
 * A name is 1 to MPOL_QUEUE_ID octets of letters, digits and "-_./+=@$~".
 * What fits none of these has no name, rather than a wrong one.
 */


#ifndef MPOL_QUEUE_H
#define MPOL_QUEUE_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_QUEUE_ID  128


/*
 * p[0 .. len): the text of the reply, with or without its codes.  Returns
 * MPOL_OK with *id, a slice of it, or MPOL_BAD, with an empty one.
 */
int mpol_queue_id(const uint8_t *p, size_t len, mpol_str_t *id);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_QUEUE_H */
