
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lines of Dovecot's authentication protocol, version 1.x, as its clients
 * read them.
 *
 *     line      = command *( HTAB arg ) LF
 *     arg       = name [ "=" value ]
 *     handshake = "VERSION" HTAB major HTAB minor
 *               / "MECH" HTAB mechanism *( HTAB flag )
 *               / "SPID" ... / "CUID" ... / "COOKIE" ... / "DONE"
 *     answer    = "OK" HTAB id *( HTAB arg )
 *               / "FAIL" HTAB id *( HTAB arg )
 *               / "CONT" HTAB id HTAB base64 *( HTAB arg )
 *
 * An arg is escaped: octet 1, and then "0" for NUL, "1" for octet 1, "t" for
 * HTAB, "r" for CR, "n" for LF; anything else stands for itself.
 *
 * A command may become known with another minor version: one that is not in
 * the list above is not an error.
 */


#ifndef MPOL_DOVECOT_H
#define MPOL_DOVECOT_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_DOVECOT_LINE   32768       /* octets that may be read, with LF */


typedef enum {
    MPOL_DOVECOT_OTHER = 0,
    MPOL_DOVECOT_VERSION,
    MPOL_DOVECOT_MECH,
    MPOL_DOVECOT_SPID,
    MPOL_DOVECOT_CUID,
    MPOL_DOVECOT_COOKIE,
    MPOL_DOVECOT_DONE,
    MPOL_DOVECOT_OK,
    MPOL_DOVECOT_FAIL,
    MPOL_DOVECOT_CONT
} mpol_dovecot_command_e;


typedef struct {
    mpol_dovecot_command_e  command;
    uint32_t                id;         /* OK, FAIL, CONT: not 0; VERSION:
                                           the major one */
    mpol_str_t              args;       /* what is left, for ..._arg() */
} mpol_dovecot_line_t;


typedef struct {
    mpol_str_t  whole;                  /* the base64 of CONT, a mechanism */
    mpol_str_t  name;
    mpol_str_t  value;                  /* data NULL: there is no "=" */
} mpol_dovecot_arg_t;


/*
 * p[0 .. len) is a line without its LF.  MPOL_OK with slices of it, or
 * MPOL_BAD: an answer without an id, a VERSION without numbers, a NUL or LF.
 */
int mpol_dovecot_parse(const uint8_t *p, size_t len,
    mpol_dovecot_line_t *line);

/* takes the next one off: 1 with *arg, still escaped; 0: there are no more */
int mpol_dovecot_arg(mpol_str_t *args, mpol_dovecot_arg_t *arg);

/*
 * Finds the first arg of that name: 1 with *value, still escaped, data NULL
 * if there is no "="; 0: there is none.
 */
int mpol_dovecot_find(const mpol_str_t *args, const char *name, size_t len,
    mpol_str_t *value);

#define mpol_dovecot_get(args, name, value)                                   \
    mpol_dovecot_find(args, name, sizeof(name) - 1, value)

/*
 * Decodes in[0 .. len) into out, which has room for len octets; out may be in
 * itself.  MPOL_OK with *n octets; MPOL_BAD if it ends within an escape.
 */
int mpol_dovecot_unescape(const uint8_t *in, size_t len, uint8_t *out,
    size_t *n);

/*
 * Writes at most size octets to out and returns the length that the whole
 * result has; where that is > size, out holds nothing of use.
 */
size_t mpol_dovecot_escape(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_DOVECOT_H */
