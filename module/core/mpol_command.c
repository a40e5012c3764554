
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_command.h"
#include "mpol_param.h"
#include "mpol_word.h"


typedef struct {
    const char   *name;                 /* upper case */
    size_t        len;
    mpol_verb_e   verb;
} mpol_verb_t;


static int  mpol_arg_path(const uint8_t *arg, size_t len, const char *prefix,
    size_t prefix_len, unsigned allow, mpol_path_t *path, size_t *used);


#define mpol_count(table)      (sizeof(table) / sizeof(table[0]))
#define mpol_verb(name, verb)  { name, sizeof(name) - 1, verb }


/*
 * Methods of HTTP are foreign: a browser can be made to send them, with an
 * SMTP dialogue behind them in the body (CVE-2021-3618).
 */

static const mpol_verb_t  mpol_verbs[] = {
    mpol_verb("MAIL", MPOL_CMD_MAIL),
    mpol_verb("RCPT", MPOL_CMD_RCPT),
    mpol_verb("DATA", MPOL_CMD_DATA),
    mpol_verb("BDAT", MPOL_CMD_BDAT),
    mpol_verb("EHLO", MPOL_CMD_EHLO),
    mpol_verb("HELO", MPOL_CMD_HELO),
    mpol_verb("AUTH", MPOL_CMD_AUTH),
    mpol_verb("STARTTLS", MPOL_CMD_STARTTLS),
    mpol_verb("RSET", MPOL_CMD_RSET),
    mpol_verb("NOOP", MPOL_CMD_NOOP),
    mpol_verb("QUIT", MPOL_CMD_QUIT),
    mpol_verb("VRFY", MPOL_CMD_VRFY),
    mpol_verb("EXPN", MPOL_CMD_EXPN),
    mpol_verb("HELP", MPOL_CMD_HELP),
    mpol_verb("XCLIENT", MPOL_CMD_XCLIENT),
    mpol_verb("GET", MPOL_CMD_FOREIGN),
    mpol_verb("POST", MPOL_CMD_FOREIGN),
    mpol_verb("CONNECT", MPOL_CMD_FOREIGN),
    mpol_verb("HEAD", MPOL_CMD_FOREIGN),
    mpol_verb("PUT", MPOL_CMD_FOREIGN),
    mpol_verb("DELETE", MPOL_CMD_FOREIGN),
    mpol_verb("OPTIONS", MPOL_CMD_FOREIGN),
    mpol_verb("TRACE", MPOL_CMD_FOREIGN),
    mpol_verb("PATCH", MPOL_CMD_FOREIGN),
    mpol_verb("PRI", MPOL_CMD_FOREIGN)
};


void
mpol_command_parse(const uint8_t *line, size_t len, mpol_command_t *cmd)
{
    size_t          i;
    const uint8_t  *space;

    while (len != 0 && (line[len - 1] == ' ' || line[len - 1] == '\t')) {
        len--;
    }

    space = (len != 0) ? memchr(line, ' ', len) : NULL;

    cmd->verb = MPOL_CMD_UNKNOWN;
    cmd->name.data = line;
    cmd->name.len = (space != NULL) ? (size_t) (space - line) : len;
    cmd->arg.data = line;
    cmd->arg.len = 0;

    if (space != NULL) {
        cmd->arg.data = space + 1;
        cmd->arg.len = len - cmd->name.len - 1;
    }

    for (i = 0; i < mpol_count(mpol_verbs); i++) {
        if (mpol_word_same(&cmd->name, mpol_verbs[i].name,
                           mpol_verbs[i].len))
        {
            cmd->verb = mpol_verbs[i].verb;
            return;
        }
    }

    /* a header field: of HTTP, or of a body that nobody asked for */

    if (cmd->name.len > 1 && cmd->name.data[cmd->name.len - 1] == ':') {
        cmd->verb = MPOL_CMD_FOREIGN;
    }
}


int
mpol_mail_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_mail_t *mail)
{
    int       rc;
    size_t    pos;
    unsigned  allow;

    memset(mail, 0, sizeof(mpol_mail_t));

    allow = MPOL_PATH_NULL;

    if (offered & MPOL_EXT_SMTPUTF8) {
        allow |= MPOL_PATH_UTF8;
    }

    rc = mpol_arg_path(arg, len, "FROM:", 5, allow, &mail->path, &pos);
    if (rc != MPOL_OK) {
        return rc;
    }

    rc = mpol_param_mail(arg + pos, len - pos, offered, mail);
    if (rc != MPOL_OK) {
        return rc;
    }

    return (mail->path.eightbit && !mail->smtputf8) ? MPOL_ARG_8BIT : MPOL_OK;
}


int
mpol_rcpt_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt)
{
    int       rc;
    size_t    pos;
    unsigned  allow;

    memset(rcpt, 0, sizeof(mpol_rcpt_t));

    allow = MPOL_PATH_POSTMASTER;

    if (offered & MPOL_EXT_SMTPUTF8) {
        allow |= MPOL_PATH_UTF8;
    }

    rc = mpol_arg_path(arg, len, "TO:", 3, allow, &rcpt->path, &pos);
    if (rc != MPOL_OK) {
        return rc;
    }

    return mpol_param_rcpt(arg + pos, len - pos, offered, rcpt);
}


int
mpol_bdat_parse(const uint8_t *arg, size_t len, mpol_bdat_t *bdat)
{
    int             rc;
    size_t          n;
    mpol_str_t      last;
    const uint8_t  *space;

    memset(bdat, 0, sizeof(mpol_bdat_t));

    space = (len != 0) ? memchr(arg, ' ', len) : NULL;
    n = (space != NULL) ? (size_t) (space - arg) : len;

    if (space != NULL) {
        last.data = space + 1;
        last.len = len - n - 1;

        if (!mpol_word_is(&last, "LAST")) {
            return MPOL_ARG_SYNTAX;
        }

        bdat->last = 1;
    }

    rc = mpol_word_number(arg, n, &bdat->size);

    if (rc == MPOL_BAD) {
        return MPOL_ARG_SYNTAX;
    }

    return (rc != MPOL_OK || bdat->size > INT64_MAX) ? MPOL_ARG_LONG
                                                     : MPOL_OK;
}


static int
mpol_arg_path(const uint8_t *arg, size_t len, const char *prefix,
    size_t prefix_len, unsigned allow, mpol_path_t *path, size_t *used)
{
    size_t      n;
    mpol_str_t  head;

    head.data = arg;
    head.len = (len < prefix_len) ? len : prefix_len;

    if (!mpol_word_same(&head, prefix, prefix_len)) {
        return MPOL_ARG_SYNTAX;
    }

    n = prefix_len;

    if (n < len && arg[n] == ' ') {
        n++;
    }

    switch (mpol_path_parse(arg + n, len - n, allow, path, used)) {

    case MPOL_OK:
        *used += n;
        return MPOL_OK;

    case MPOL_PATH_LONG:
        return MPOL_ARG_LONG;

    case MPOL_PATH_8BIT:
        return MPOL_ARG_8BIT;

    default:
        return MPOL_ARG_PATH;
    }
}
