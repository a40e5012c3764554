
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The addresses that a login may send from.
 *
 *     list   = *( sep / entry )           sep: "," SP HTAB CR LF
 *     entry  = local-part "@" domain      this address
 *            / "@" domain                 all of that domain, of no other
 *                                         below it
 *            / "*"                        all
 *
 * The local part and the domain of an entry may have one "*" each, which is
 * any octets, or none, but "@": "alice+*@example.com", "@*.example.com" (all
 * below that domain, not itself).  "*@example.com" is "@example.com".  There
 * is no way to write a "*" that is one.
 *
 * Domain and local part are compared with the letters of ASCII in any case:
 * no system that is in use tells two mailboxes apart by it, and an address
 * book does write "Alice@".  All else is compared octet by octet, as written:
 * a quoted local part is another one than the same without quotes.
 *
 * A list is refused as a whole if it is longer than MPOL_SENDERS_MAX octets
 * or has more than MPOL_SENDERS_ENTRIES entries; an entry without "@", with
 * nothing behind it, with more of "*" or with control characters never
 * matches.
 */


#ifndef MPOL_SENDER_H
#define MPOL_SENDER_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SENDERS_MAX      8192
#define MPOL_SENDERS_ENTRIES  256

/* positive errors, so that the caller can word them */
#define MPOL_SENDERS_LONG     1         /* over one of the bounds */
#define MPOL_SENDERS_ENTRY    2         /* an entry is neither */


/* MPOL_OK, or one of the errors above */
int mpol_senders_check(const uint8_t *list, size_t len);

/*
 * 1 if address[0 .. n), an address of MAIL FROM without brackets, is in the
 * list; 0 if not, or if the list is over a bound.
 */
int mpol_senders_match(const uint8_t *list, size_t len,
    const uint8_t *address, size_t n);

/* 1 if two addresses are the same, compared as above */
int mpol_sender_same(const uint8_t *one, size_t n, const uint8_t *two,
    size_t m);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SENDER_H */
