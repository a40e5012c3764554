
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Commands of a client, RFC 5321 section 4.1.1, from whole lines that
 * mpol_line_next() has passed (no CR, LF, control octet).
 *
 *     command = verb [ SP argument ]
 *     mail    = "MAIL FROM:" Reverse-path [ SP Mail-parameters ]
 *     rcpt    = "RCPT TO:" Forward-path [ SP Rcpt-parameters ]
 *     bdat    = "BDAT" SP 1*20DIGIT [ SP "LAST" ]             RFC 3030
 *
 * A single space behind the colon is tolerated, as many clients send it;
 * trailing white space is dropped.  The parameters are in mpol_param.h.
 */


#ifndef MPOL_COMMAND_H
#define MPOL_COMMAND_H


#include "mpol_addr.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


typedef enum {
    MPOL_CMD_UNKNOWN = 0,
    MPOL_CMD_HELO,
    MPOL_CMD_EHLO,
    MPOL_CMD_AUTH,
    MPOL_CMD_MAIL,
    MPOL_CMD_RCPT,
    MPOL_CMD_DATA,
    MPOL_CMD_BDAT,
    MPOL_CMD_RSET,
    MPOL_CMD_NOOP,
    MPOL_CMD_VRFY,
    MPOL_CMD_EXPN,
    MPOL_CMD_HELP,
    MPOL_CMD_QUIT,
    MPOL_CMD_STARTTLS,
    MPOL_CMD_XCLIENT,
    MPOL_CMD_FOREIGN,                   /* GET, POST, CONNECT, ...: not SMTP */
    MPOL_CMD_MAX
} mpol_verb_e;


typedef struct {
    mpol_verb_e  verb;
    mpol_str_t   name;                  /* the verb as written */
    mpol_str_t   arg;                   /* behind the space, trailing white
                                           space dropped; len 0 if none */
} mpol_command_t;


/* extensions that the server offers: parameters of others are 555 */
#define MPOL_EXT_SIZE        0x01       /* RFC 1870 */
#define MPOL_EXT_8BITMIME    0x02       /* RFC 6152 */
#define MPOL_EXT_AUTH        0x04       /* RFC 4954, MAIL ... AUTH= */
#define MPOL_EXT_SMTPUTF8    0x08       /* RFC 6531 */
#define MPOL_EXT_CHUNKING    0x10       /* RFC 3030, BDAT */
#define MPOL_EXT_BINARYMIME  0x20       /* RFC 3030, BODY=BINARYMIME */
#define MPOL_EXT_DSN         0x40       /* RFC 3461 */


/* positive errors of the parsers of arguments */
#define MPOL_ARG_SYNTAX    1            /* 501 5.5.4: not FROM:/TO:, junk */
#define MPOL_ARG_PATH      2            /* 501 5.1.7 / 5.1.3 */
#define MPOL_ARG_LONG      3            /* 501 5.1.7 / 5.1.3, too long; of
                                           BDAT: no such size, 552 5.3.4 */
#define MPOL_ARG_PARAM     4            /* 555 5.5.4: parameter unknown */
#define MPOL_ARG_VALUE     5            /* 501 5.5.4: bad value, or twice */
#define MPOL_ARG_8BIT      6            /* 553 5.6.7: address not ASCII */


#define MPOL_BODY_UNSET       0
#define MPOL_BODY_7BIT        1
#define MPOL_BODY_8BITMIME    2
#define MPOL_BODY_BINARYMIME  3


#define MPOL_RET_UNSET  0
#define MPOL_RET_FULL   1
#define MPOL_RET_HDRS   2


#define MPOL_NOTIFY_NEVER    0x01       /* never with others */
#define MPOL_NOTIFY_SUCCESS  0x02
#define MPOL_NOTIFY_FAILURE  0x04
#define MPOL_NOTIFY_DELAY    0x08


/* RFC 3461 sections 4.4 and 4.2, octets as written */
#define MPOL_ENVID_MAX  100
#define MPOL_ORCPT_MAX  500


typedef struct {
    mpol_path_t  path;
    mpol_str_t   auth;                  /* AUTH=, still xtext; len 0 unset */
    mpol_str_t   envid;                 /* ENVID=, still xtext; len 0 unset */
    uint64_t     size;                  /* SIZE=; valid if size_set */
    unsigned     size_set:1;
    unsigned     smtputf8:1;
    unsigned     body:2;                /* MPOL_BODY_... */
    unsigned     ret:2;                 /* MPOL_RET_... */
} mpol_mail_t;


typedef struct {
    mpol_path_t  path;
    mpol_str_t   orcpt;                 /* ORCPT= as written, "type;xtext";
                                           len 0 unset */
    unsigned     notify;                /* MPOL_NOTIFY_...; 0 unset */
} mpol_rcpt_t;


typedef struct {
    uint64_t     size;                  /* of the chunk, at most INT64_MAX */
    unsigned     last:1;
} mpol_bdat_t;


/* never fails: what is no known verb is MPOL_CMD_UNKNOWN */
void mpol_command_parse(const uint8_t *line, size_t len,
    mpol_command_t *cmd);

/*
 * arg: cmd->arg.  offered: a mask of MPOL_EXT_...; that of a recipient has
 * MPOL_EXT_SMTPUTF8 only in a transaction whose MAIL said SMTPUTF8, as its
 * path and ORCPT may then be UTF-8.  In MAIL a path that is needs SMTPUTF8.
 *
 * MPOL_OK with slices into arg, or a positive error; *mail, *rcpt, *bdat are
 * then undefined.
 */
int mpol_mail_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_mail_t *mail);
int mpol_rcpt_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt);
int mpol_bdat_parse(const uint8_t *arg, size_t len, mpol_bdat_t *bdat);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_COMMAND_H */
