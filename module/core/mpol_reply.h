
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Replies of a relay, RFC 5321 section 4.2.
 *
 *     Reply = *( code "-" [ text ] CRLF ) code [ SP [ text ] ] CRLF
 *
 * The relay is not trusted: one code through all lines, first digit 2-5,
 * lines that end in CRLF, at most MPOL_REPLY_LINES of them.  A bare LF or
 * any other control octet but TAB in the text is no protocol error (relays
 * have foreign text in their replies) unless it breaks the line structure:
 * a bare LF does, so it makes the reply bad.
 */


#ifndef MPOL_REPLY_H
#define MPOL_REPLY_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_REPLY_LINES  100


typedef struct {
    unsigned    code;                   /* 200 .. 599 */
    unsigned    lines;
    mpol_str_t  text;                   /* of the last line, behind code and
                                           separator, without CRLF */
    mpol_str_t  status;                 /* enhanced code of the last line
                                           ("4.7.1"), RFC 2034, if its class
                                           fits the code; len 0 if none */
    mpol_str_t  message;                /* text without status and the space
                                           behind it */
} mpol_reply_t;


/* what a relay's EHLO reply offers */
#define MPOL_RELAY_PIPELINING  0x0001
#define MPOL_RELAY_SIZE        0x0002
#define MPOL_RELAY_8BITMIME    0x0004
#define MPOL_RELAY_XCLIENT     0x0008
#define MPOL_RELAY_STARTTLS    0x0010
#define MPOL_RELAY_ENHANCED    0x0020
#define MPOL_RELAY_CHUNKING    0x0040
#define MPOL_RELAY_BINARYMIME  0x0080   /* never without CHUNKING */
#define MPOL_RELAY_SMTPUTF8    0x0100   /* never without 8BITMIME */
#define MPOL_RELAY_DSN         0x0200
#define MPOL_RELAY_LIMITS      0x0400
#define MPOL_RELAY_AUTH        0x0800


/* mechanisms a relay's AUTH line names */
#define MPOL_AUTH_PLAIN          0x01
#define MPOL_AUTH_LOGIN          0x02
#define MPOL_AUTH_CRAM_MD5       0x04
#define MPOL_AUTH_SCRAM_SHA_256  0x08
#define MPOL_AUTH_XOAUTH2        0x10
#define MPOL_AUTH_OAUTHBEARER    0x20


/* attributes a relay's XCLIENT line names */
#define MPOL_XCLIENT_NAME      0x01
#define MPOL_XCLIENT_ADDR      0x02
#define MPOL_XCLIENT_PORT      0x04
#define MPOL_XCLIENT_PROTO     0x08
#define MPOL_XCLIENT_HELO      0x10
#define MPOL_XCLIENT_LOGIN     0x20
#define MPOL_XCLIENT_DESTADDR  0x40
#define MPOL_XCLIENT_DESTPORT  0x80


typedef struct {
    unsigned  extensions;               /* MPOL_RELAY_... */
    unsigned  xclient;                  /* MPOL_XCLIENT_... */
    unsigned  auth;                     /* MPOL_AUTH_... */
    uint64_t  size;                     /* SIZE n; 0: none or no maximum */
    uint64_t  mailmax;                  /* LIMITS MAILMAX=n; 0: none */
    uint64_t  rcptmax;                  /* LIMITS RCPTMAX=n; 0: none */
} mpol_ehlo_t;


/*
 * Parses one whole reply at the beginning of buf.  Returns its length > 0,
 * MPOL_AGAIN, or MPOL_BAD.  Slices point into buf.  Stateless: shown again
 * from its first octet until it is complete; the caller bounds len.
 */
int mpol_reply_parse(const uint8_t *buf, size_t len, mpol_reply_t *reply);

/*
 * Reads the extensions out of a complete 250 reply to EHLO in buf[0 .. len).
 *
 * LIMITS (RFC 9422 section 4): name [ "=" value ] separated by spaces, value
 * 1*6DIGIT with no zero in front.  What is not that, or another limit, is
 * ignored; of a limit that stands twice the lower one holds.
 */
void mpol_ehlo_parse(const uint8_t *buf, size_t len, mpol_ehlo_t *ehlo);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_REPLY_H */
