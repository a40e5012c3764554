
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
 *     param   = esmtp-keyword [ "=" esmtp-value ]
 *
 * A single space behind the colon is tolerated, as many clients send it;
 * trailing white space is dropped.  Each known parameter may stand once.
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
#define MPOL_EXT_SIZE      0x01         /* RFC 1870 */
#define MPOL_EXT_8BITMIME  0x02         /* RFC 6152 */
#define MPOL_EXT_AUTH      0x04         /* RFC 4954, MAIL ... AUTH= */


/* positive errors of the parameter parsers */
#define MPOL_ARG_SYNTAX    1            /* 501 5.5.4: not FROM:/TO:, junk */
#define MPOL_ARG_PATH      2            /* 501 5.1.7 / 5.1.3 */
#define MPOL_ARG_LONG      3            /* 501 5.1.7 / 5.1.3, too long */
#define MPOL_ARG_PARAM     4            /* 555 5.5.4: parameter unknown */
#define MPOL_ARG_VALUE     5            /* 501 5.5.4: bad value, or twice */
#define MPOL_ARG_8BIT      6            /* 553 5.6.7: address not ASCII */


#define MPOL_BODY_UNSET     0
#define MPOL_BODY_7BIT      1
#define MPOL_BODY_8BITMIME  2


typedef struct {
    mpol_path_t  path;
    mpol_str_t   auth;                  /* AUTH=, still xtext; len 0 unset */
    uint64_t     size;                  /* SIZE=; valid if size_set */
    unsigned     size_set:1;
    unsigned     body:2;                /* MPOL_BODY_... */
} mpol_mail_t;


typedef struct {
    mpol_path_t  path;
} mpol_rcpt_t;


/* never fails: what is no known verb is MPOL_CMD_UNKNOWN */
void mpol_command_parse(const uint8_t *line, size_t len,
    mpol_command_t *cmd);

/* arg: cmd->arg.  MPOL_OK or a positive error; slices into arg */
int mpol_mail_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_mail_t *mail);
int mpol_rcpt_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_COMMAND_H */
