
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_command.h"


typedef struct {
    const char   *name;                 /* upper case */
    size_t        len;
    mpol_verb_e   verb;
} mpol_verb_t;


typedef struct {
    mpol_str_t  name;
    mpol_str_t  value;                  /* len 0: none, or nothing in it */
} mpol_param_t;


static int  mpol_arg_path(const uint8_t *arg, size_t len, const char *prefix,
    size_t prefix_len, unsigned allow, mpol_path_t *path, size_t *used);
static int  mpol_param_next(const uint8_t *p, size_t len, mpol_param_t *param,
    size_t *used);
static unsigned  mpol_param_extension(const mpol_param_t *param);
static int  mpol_mail_param(mpol_mail_t *mail, unsigned extension,
    const mpol_param_t *param);
static int  mpol_mail_size(const mpol_str_t *value, uint64_t *size);
static int  mpol_mail_auth(const mpol_str_t *value);
static int  mpol_command_hex(uint8_t c);
static int  mpol_command_same(const mpol_str_t *s, const char *upper,
    size_t len);
static uint8_t  mpol_command_upper(uint8_t c);


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

    for (i = 0; i < sizeof(mpol_verbs) / sizeof(mpol_verbs[0]); i++) {
        if (mpol_command_same(&cmd->name, mpol_verbs[i].name,
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
    int           rc;
    size_t        n, pos;
    unsigned      extension, seen;
    mpol_param_t  param;

    memset(mail, 0, sizeof(mpol_mail_t));

    rc = mpol_arg_path(arg, len, "FROM:", 5, MPOL_PATH_NULL, &mail->path,
                       &pos);
    if (rc != MPOL_OK) {
        return rc;
    }

    for (seen = 0; pos < len; pos += n) {

        rc = mpol_param_next(arg + pos, len - pos, &param, &n);
        if (rc != MPOL_OK) {
            return rc;
        }

        extension = mpol_param_extension(&param) & offered;

        if (extension == 0) {
            return MPOL_ARG_PARAM;
        }

        if (seen & extension) {
            return MPOL_ARG_VALUE;
        }

        seen |= extension;

        rc = mpol_mail_param(mail, extension, &param);
        if (rc != MPOL_OK) {
            return rc;
        }
    }

    return MPOL_OK;
}


int
mpol_rcpt_parse(const uint8_t *arg, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt)
{
    int           rc;
    size_t        n, pos;
    mpol_param_t  param;

    /* no extension that could be offered has a parameter of RCPT */

    (void) offered;

    memset(rcpt, 0, sizeof(mpol_rcpt_t));

    rc = mpol_arg_path(arg, len, "TO:", 3, MPOL_PATH_POSTMASTER, &rcpt->path,
                       &pos);
    if (rc != MPOL_OK || pos == len) {
        return rc;
    }

    rc = mpol_param_next(arg + pos, len - pos, &param, &n);

    return (rc != MPOL_OK) ? rc : MPOL_ARG_PARAM;
}


static int
mpol_arg_path(const uint8_t *arg, size_t len, const char *prefix,
    size_t prefix_len, unsigned allow, mpol_path_t *path, size_t *used)
{
    size_t      n;
    mpol_str_t  head;

    head.data = arg;
    head.len = (len < prefix_len) ? len : prefix_len;

    if (!mpol_command_same(&head, prefix, prefix_len)) {
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


/* SP esmtp-param, RFC 5321 section 4.1.2; the value is not judged yet */

static int
mpol_param_next(const uint8_t *p, size_t len, mpol_param_t *param,
    size_t *used)
{
    size_t          i, n;
    uint8_t         c;
    const uint8_t  *end;

    if (p[0] != ' ') {
        return MPOL_ARG_SYNTAX;
    }

    p++;
    len--;

    end = memchr(p, ' ', len);
    n = (end != NULL) ? (size_t) (end - p) : len;

    for (i = 0; i < n && p[i] != '='; i++) {
        c = mpol_command_upper(p[i]);

        if (!(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9')
            && (c != '-' || i == 0))
        {
            return MPOL_ARG_SYNTAX;
        }
    }

    if (i == 0) {
        return MPOL_ARG_SYNTAX;
    }

    param->name.data = p;
    param->name.len = i;

    if (i < n) {
        i++;
    }

    param->value.data = p + i;
    param->value.len = n - i;

    *used = n + 1;

    return MPOL_OK;
}


static unsigned
mpol_param_extension(const mpol_param_t *param)
{
    if (mpol_command_same(&param->name, "SIZE", 4)) {
        return MPOL_EXT_SIZE;
    }

    if (mpol_command_same(&param->name, "BODY", 4)) {
        return MPOL_EXT_8BITMIME;
    }

    if (mpol_command_same(&param->name, "AUTH", 4)) {
        return MPOL_EXT_AUTH;
    }

    return 0;
}


static int
mpol_mail_param(mpol_mail_t *mail, unsigned extension,
    const mpol_param_t *param)
{
    switch (extension) {

    case MPOL_EXT_SIZE:
        if (mpol_mail_size(&param->value, &mail->size) != MPOL_OK) {
            return MPOL_ARG_VALUE;
        }

        mail->size_set = 1;
        return MPOL_OK;

    case MPOL_EXT_8BITMIME:
        if (mpol_command_same(&param->value, "7BIT", 4)) {
            mail->body = MPOL_BODY_7BIT;
            return MPOL_OK;
        }

        if (mpol_command_same(&param->value, "8BITMIME", 8)) {
            mail->body = MPOL_BODY_8BITMIME;
            return MPOL_OK;
        }

        return MPOL_ARG_VALUE;

    default: /* MPOL_EXT_AUTH */
        if (mpol_mail_auth(&param->value) != MPOL_OK) {
            return MPOL_ARG_VALUE;
        }

        mail->auth = param->value;
        return MPOL_OK;
    }
}


/* RFC 1870 section 5: at most 20 digits, which can be more than 2^64 */

static int
mpol_mail_size(const mpol_str_t *value, uint64_t *size)
{
    size_t    i;
    uint64_t  digit, n;

    n = 0;

    if (value->len == 0 || value->len > 20) {
        return MPOL_BAD;
    }

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '9') {
            return MPOL_BAD;
        }

        digit = (uint64_t) value->data[i] - '0';

        if (n > (UINT64_MAX - digit) / 10) {
            return MPOL_BAD;
        }

        n = n * 10 + digit;
    }

    *size = n;

    return MPOL_OK;
}


/*
 * RFC 4954 section 5: xtext of RFC 3461 section 4.  What it stands for is
 * printable: an encoded control octet has no place in an address.
 */

static int
mpol_mail_auth(const mpol_str_t *value)
{
    int             high, low, octet;
    size_t          i;
    const uint8_t  *p;

    p = value->data;

    for (i = 0; i < value->len; i++) {

        if (p[i] < 33 || p[i] > 126 || p[i] == '=') {
            return MPOL_BAD;
        }

        if (p[i] != '+') {
            continue;
        }

        if (value->len - i < 3) {
            return MPOL_BAD;
        }

        high = mpol_command_hex(p[++i]);
        low = mpol_command_hex(p[++i]);
        octet = high * 16 + low;

        if (high < 0 || low < 0 || octet < 32 || octet > 126) {
            return MPOL_BAD;
        }
    }

    return (value->len != 0) ? MPOL_OK : MPOL_BAD;
}


static int
mpol_command_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }

    return -1;
}


static int
mpol_command_same(const mpol_str_t *s, const char *upper, size_t len)
{
    size_t  i;

    if (s->len != len) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (mpol_command_upper(s->data[i]) != (uint8_t) upper[i]) {
            return 0;
        }
    }

    return 1;
}


static uint8_t
mpol_command_upper(uint8_t c)
{
    return (c >= 'a' && c <= 'z') ? (uint8_t) (c & ~0x20) : c;
}
