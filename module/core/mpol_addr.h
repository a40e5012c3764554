
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Paths and mailboxes, RFC 5321 section 4.1.2; address literals are in
 * mpol_literal.h.
 *
 *     Path       = "<" [ A-d-l ":" ] Mailbox ">"      A-d-l is dropped
 *     Mailbox    = Local-part "@" ( Domain / address-literal )
 *     Local-part = Dot-string / Quoted-string
 *     Domain     = sub-domain *("." sub-domain)       LDH and "_", no
 *                                                     trailing dot
 *
 * With MPOL_PATH_UTF8, RFC 6531 section 3.3: any character above U+009F may
 * stand in an atom, in a quoted string (but not behind a backslash) and in a
 * sub-domain, but for full stops and compatibility forms in the latter that
 * others map to ASCII (U+2024, U+3002, U+FE50..FE6F, U+FF00..FFEF).  It is not
 * judged further: no IDNA, no normalization.
 *
 * Limits of section 4.5.3.1, in octets: local part 64, domain 255, path 256
 * with its brackets.  A "%" or "!" in a local part is legal syntax; who may
 * use it is policy, see mpol_addr_routed().
 */


#ifndef MPOL_ADDR_H
#define MPOL_ADDR_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


/* what may stand for a mailbox besides one, and in one besides ASCII */
#define MPOL_PATH_NULL        0x01      /* "<>", the null reverse path */
#define MPOL_PATH_POSTMASTER  0x02      /* "<postmaster>", any case */
#define MPOL_PATH_UTF8        0x04      /* SMTPUTF8 */


/* positive errors, so that the caller can word them */
#define MPOL_PATH_SYNTAX      1         /* 501 5.1.7 / 5.1.3 */
#define MPOL_PATH_LONG        2         /* over a limit of 4.5.3.1 */
#define MPOL_PATH_8BIT        3         /* octets above 127, unless allowed */


typedef struct {
    mpol_str_t  address;                /* mailbox without brackets and source
                                           route, as written; empty for <> */
    mpol_str_t  local;                  /* as written, quotes included */
    mpol_str_t  domain;                 /* as written; empty for <> and
                                           <postmaster>; with [] if literal */
    unsigned    quoted:1;               /* local is a Quoted-string */
    unsigned    literal:1;              /* domain is an address literal */
    unsigned    eightbit:1;             /* the path has octets above 127 (its
                                           source route counts, too) */
} mpol_path_t;


/*
 * Parses a path at p[0 .. len), which must begin with "<".  allow: a mask of
 * MPOL_PATH_NULL, MPOL_PATH_POSTMASTER, MPOL_PATH_UTF8.
 *
 * Returns MPOL_OK with *used octets (through ">") and slices into p, or a
 * positive error; *path is then undefined.
 */
int mpol_path_parse(const uint8_t *p, size_t len, unsigned allow,
    mpol_path_t *path, size_t *used);

/* a Domain or address literal as in EHLO, ASCII: 1 if it is one, 0 if not */
int mpol_domain_valid(const uint8_t *p, size_t len);

/*
 * 1 if a relay could take the local part for an address with a domain of its
 * own ("user%other", "other!user", "user@other" in quotes) and so send the
 * mail where we have not looked, 0 if not.
 */
int mpol_addr_routed(const mpol_path_t *path);

/*
 * 1 if a name that somebody else gave (PTR record, EHLO) can be passed on: 1
 * .. 255 octets of letters, digits, "." "_" "-", or an address literal; 0 if
 * not.  It need not be a valid name.
 */
int mpol_hostname_clean(const uint8_t *p, size_t len);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ADDR_H */
