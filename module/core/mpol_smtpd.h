
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Text for a line of the access log as Postfix's smtpd writes them, and as
 * what reads those expects it.
 */


#ifndef MPOL_SMTPD_H
#define MPOL_SMTPD_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_SMTPD_DSN  16


/* a reply: code [ SP x.y.z ] [ SP text ] */
typedef struct {
    unsigned    code;                   /* 0: there is none */
    mpol_str_t  text;                   /* behind both; a slice of it */
    size_t      dsn_len;
    uint8_t     dsn[MPOL_SMTPD_DSN];    /* "5.7.1"; "5.0.0" where it has none,
                                           or one of another class */
} mpol_smtpd_reply_t;


void mpol_smtpd_reply(const uint8_t *p, size_t len,
    mpol_smtpd_reply_t *reply);

/*
 * What a client or a relay has said, harmless: octets of no well-formed UTF-8
 * character, and each octet of a control character (C0, DEL, C1), become "?".
 * Same length as the input, out may be in itself.
 */
void mpol_smtpd_clean(const uint8_t *in, size_t len, uint8_t *out);

/*
 * The same for what is to stand between "<" and ">", which become "?" as well:
 * what reads the line finds where it ends, and what is behind it.
 */
void mpol_smtpd_bracketed(const uint8_t *in, size_t len, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_SMTPD_H */
