
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_command.h"
#include "mpol_text.h"
#include "mpol_word.h"


typedef struct {
    const char   *name;                 /* upper case */
    size_t        len;
    mpol_verb_e   verb;
} mpol_verb_t;


typedef struct {
    mpol_str_t   name;
    mpol_str_t   value;                 /* len 0: none, or nothing in it */
    unsigned     equals:1;              /* the name has a "=" behind it */
    unsigned     offered;               /* MPOL_EXT_... */
} mpol_param_t;


/* data: a mpol_mail_t or mpol_rcpt_t to set it in; MPOL_BAD: a bad value */
typedef int (*mpol_param_pt)(const mpol_param_t *param, void *data);


typedef struct {
    const char     *name;               /* upper case */
    size_t          len;
    unsigned        extensions;         /* each of them has it */
    mpol_param_pt   parse;
} mpol_param_rule_t;


static int  mpol_arg_path(const uint8_t *arg, size_t len, const char *prefix,
    size_t prefix_len, unsigned allow, mpol_path_t *path, size_t *used);
static int  mpol_arg_params(const uint8_t *p, size_t len, unsigned offered,
    const mpol_param_rule_t *rules, size_t nrules, void *data);
static int  mpol_param_next(const uint8_t *p, size_t len, mpol_param_t *param,
    size_t *used);
static int  mpol_mail_size(const mpol_param_t *param, void *data);
static int  mpol_mail_body(const mpol_param_t *param, void *data);
static int  mpol_mail_auth(const mpol_param_t *param, void *data);
static int  mpol_mail_smtputf8(const mpol_param_t *param, void *data);
static int  mpol_mail_ret(const mpol_param_t *param, void *data);
static int  mpol_mail_envid(const mpol_param_t *param, void *data);
static int  mpol_rcpt_notify(const mpol_param_t *param, void *data);
static unsigned  mpol_rcpt_notify_flag(const mpol_str_t *word);
static int  mpol_rcpt_orcpt(const mpol_param_t *param, void *data);
static int  mpol_rcpt_orcpt_utf8(const uint8_t *p, size_t len);
static int  mpol_param_keyword(uint8_t c);


#define mpol_count(table)      (sizeof(table) / sizeof(table[0]))
#define mpol_verb(name, verb)  { name, sizeof(name) - 1, verb }
#define mpol_rule(name, extensions, parse)                                   \
    { name, sizeof(name) - 1, extensions, parse }


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


static const mpol_param_rule_t  mpol_mail_rules[] = {
    mpol_rule("SIZE", MPOL_EXT_SIZE, mpol_mail_size),
    mpol_rule("BODY", MPOL_EXT_8BITMIME | MPOL_EXT_BINARYMIME,
              mpol_mail_body),
    mpol_rule("AUTH", MPOL_EXT_AUTH, mpol_mail_auth),
    mpol_rule("SMTPUTF8", MPOL_EXT_SMTPUTF8, mpol_mail_smtputf8),
    mpol_rule("RET", MPOL_EXT_DSN, mpol_mail_ret),
    mpol_rule("ENVID", MPOL_EXT_DSN, mpol_mail_envid)
};


static const mpol_param_rule_t  mpol_rcpt_rules[] = {
    mpol_rule("NOTIFY", MPOL_EXT_DSN, mpol_rcpt_notify),
    mpol_rule("ORCPT", MPOL_EXT_DSN, mpol_rcpt_orcpt)
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

    rc = mpol_arg_params(arg + pos, len - pos, offered, mpol_mail_rules,
                         mpol_count(mpol_mail_rules), mail);
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

    return mpol_arg_params(arg + pos, len - pos, offered, mpol_rcpt_rules,
                           mpol_count(mpol_rcpt_rules), rcpt);
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


static int
mpol_arg_params(const uint8_t *p, size_t len, unsigned offered,
    const mpol_param_rule_t *rules, size_t nrules, void *data)
{
    int           rc;
    size_t        i, n, pos;
    unsigned      seen;
    mpol_param_t  param;

    seen = 0;
    param.offered = offered;

    for (pos = 0; pos < len; pos += n) {

        rc = mpol_param_next(p + pos, len - pos, &param, &n);
        if (rc != MPOL_OK) {
            return rc;
        }

        for (i = 0; i < nrules; i++) {
            if (mpol_word_same(&param.name, rules[i].name, rules[i].len)) {
                break;
            }
        }

        if (i == nrules || !(rules[i].extensions & offered)) {
            return MPOL_ARG_PARAM;
        }

        if ((seen & 1u << i) || rules[i].parse(&param, data) != MPOL_OK) {
            return MPOL_ARG_VALUE;
        }

        seen |= 1u << i;
    }

    return MPOL_OK;
}


/* SP esmtp-param, RFC 5321 section 4.1.2; the value is not judged yet */

static int
mpol_param_next(const uint8_t *p, size_t len, mpol_param_t *param,
    size_t *used)
{
    size_t          i, n;
    const uint8_t  *end;

    if (p[0] != ' ') {
        return MPOL_ARG_SYNTAX;
    }

    p++;
    len--;

    end = memchr(p, ' ', len);
    n = (end != NULL) ? (size_t) (end - p) : len;

    for (i = 0; i < n && p[i] != '='; i++) {
        if (!mpol_param_keyword(p[i]) || (p[i] == '-' && i == 0)) {
            return MPOL_ARG_SYNTAX;
        }
    }

    if (i == 0) {
        return MPOL_ARG_SYNTAX;
    }

    param->name.data = p;
    param->name.len = i;
    param->equals = (i < n) ? 1 : 0;

    if (i < n) {
        i++;
    }

    param->value.data = p + i;
    param->value.len = n - i;

    *used = n + 1;

    return MPOL_OK;
}


static int
mpol_mail_size(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->size_set = 1;

    return mpol_word_number(param->value.data, param->value.len, &mail->size)
           == MPOL_OK ? MPOL_OK : MPOL_BAD;
}


/* RFC 6152 brings two values, RFC 3030 one more: each only with its own */

static int
mpol_mail_body(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    if (mpol_word_is(&param->value, "7BIT")) {
        mail->body = MPOL_BODY_7BIT;
        return MPOL_OK;
    }

    if (mpol_word_is(&param->value, "8BITMIME")) {
        mail->body = MPOL_BODY_8BITMIME;
        return (param->offered & MPOL_EXT_8BITMIME) ? MPOL_OK : MPOL_BAD;
    }

    if (mpol_word_is(&param->value, "BINARYMIME")) {
        mail->body = MPOL_BODY_BINARYMIME;
        return (param->offered & MPOL_EXT_BINARYMIME) ? MPOL_OK : MPOL_BAD;
    }

    return MPOL_BAD;
}


/* RFC 4954 section 5; "<>" is xtext, too */

static int
mpol_mail_auth(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->auth = param->value;

    if (param->value.len == 0) {
        return MPOL_BAD;
    }

    return mpol_xtext_decode(param->value.data, param->value.len, NULL, NULL);
}


static int
mpol_mail_smtputf8(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->smtputf8 = 1;

    return param->equals ? MPOL_BAD : MPOL_OK;
}


static int
mpol_mail_ret(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    if (mpol_word_is(&param->value, "FULL")) {
        mail->ret = MPOL_RET_FULL;
        return MPOL_OK;
    }

    if (mpol_word_is(&param->value, "HDRS")) {
        mail->ret = MPOL_RET_HDRS;
        return MPOL_OK;
    }

    return MPOL_BAD;
}


static int
mpol_mail_envid(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->envid = param->value;

    if (param->value.len == 0 || param->value.len > MPOL_ENVID_MAX) {
        return MPOL_BAD;
    }

    return mpol_xtext_decode(param->value.data, param->value.len, NULL, NULL);
}


static int
mpol_rcpt_notify(const mpol_param_t *param, void *data)
{
    unsigned        flag;
    mpol_str_t      word;
    mpol_rcpt_t    *rcpt = data;
    const uint8_t  *comma, *end, *p;

    p = param->value.data;
    end = p + param->value.len;

    do {
        comma = memchr(p, ',', (size_t) (end - p));

        word.data = p;
        word.len = (size_t) ((comma != NULL ? comma : end) - p);

        flag = mpol_rcpt_notify_flag(&word);

        if (flag == 0 || (rcpt->notify & flag)) {
            return MPOL_BAD;
        }

        rcpt->notify |= flag;

        if (comma != NULL) {
            p = comma + 1;
        }

    } while (comma != NULL);

    return ((rcpt->notify & MPOL_NOTIFY_NEVER)
            && rcpt->notify != MPOL_NOTIFY_NEVER) ? MPOL_BAD : MPOL_OK;
}


static unsigned
mpol_rcpt_notify_flag(const mpol_str_t *word)
{
    if (mpol_word_is(word, "NEVER")) {
        return MPOL_NOTIFY_NEVER;
    }

    if (mpol_word_is(word, "SUCCESS")) {
        return MPOL_NOTIFY_SUCCESS;
    }

    if (mpol_word_is(word, "FAILURE")) {
        return MPOL_NOTIFY_FAILURE;
    }

    if (mpol_word_is(word, "DELAY")) {
        return MPOL_NOTIFY_DELAY;
    }

    return 0;
}


static int
mpol_rcpt_orcpt(const mpol_param_t *param, void *data)
{
    size_t          len, n;
    mpol_str_t      type;
    mpol_rcpt_t    *rcpt = data;
    const uint8_t  *p;

    rcpt->orcpt = param->value;

    p = param->value.data;
    len = param->value.len;

    for (n = 0; n < len && mpol_param_keyword(p[n]); n++) { /* void */ }

    type.data = p;
    type.len = n;

    if (n == 0 || n == len || p[n] != ';' || ++n == len
        || len > MPOL_ORCPT_MAX)
    {
        return MPOL_BAD;
    }

    if (mpol_word_is(&type, "UTF-8") && (param->offered & MPOL_EXT_SMTPUTF8)) {
        return mpol_rcpt_orcpt_utf8(p + n, len - n);
    }

    return mpol_xtext_decode(p + n, len - n, NULL, NULL);
}


/*
 * utf-8-addr-unitext, RFC 6533 section 3; its "\x{...}" is xtext as it is.
 * "+" may stand for an octet here, too, as some clients write it.
 */

static int
mpol_rcpt_orcpt_utf8(const uint8_t *p, size_t len)
{
    size_t  i, n;

    if (!mpol_utf8_clean(p, len)) {
        return MPOL_BAD;
    }

    for (i = 0; i < len; i += n) {

        for (n = 0; i + n < len && p[i + n] < 128; n++) { /* void */ }

        if (mpol_xtext_decode(p + i, n, NULL, NULL) != MPOL_OK) {
            return MPOL_BAD;
        }

        for ( /* void */ ; i + n < len && p[i + n] > 127; n++) { /* void */ }
    }

    return MPOL_OK;
}


/* an octet of esmtp-keyword; and of addr-type, where no others are in use */

static int
mpol_param_keyword(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')
           || (c >= '0' && c <= '9') || c == '-';
}
