
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_orcpt.h"
#include "mpol_param.h"
#include "mpol_text.h"
#include "mpol_word.h"


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


static int  mpol_param_parse(const uint8_t *p, size_t len, unsigned offered,
    const mpol_param_rule_t *rules, size_t nrules, void *data);
static int  mpol_param_next(const uint8_t *p, size_t len, mpol_param_t *param,
    size_t *used);
static int  mpol_param_size(const mpol_param_t *param, void *data);
static int  mpol_param_body(const mpol_param_t *param, void *data);
static int  mpol_param_auth(const mpol_param_t *param, void *data);
static int  mpol_param_smtputf8(const mpol_param_t *param, void *data);
static int  mpol_param_ret(const mpol_param_t *param, void *data);
static int  mpol_param_envid(const mpol_param_t *param, void *data);
static int  mpol_param_notify(const mpol_param_t *param, void *data);
static unsigned  mpol_param_notify_flag(const mpol_str_t *word);
static int  mpol_param_orcpt(const mpol_param_t *param, void *data);


#define mpol_count(table)  (sizeof(table) / sizeof(table[0]))
#define mpol_rule(name, extensions, parse)                                   \
    { name, sizeof(name) - 1, extensions, parse }


static const mpol_param_rule_t  mpol_mail_rules[] = {
    mpol_rule("SIZE", MPOL_EXT_SIZE, mpol_param_size),
    mpol_rule("BODY", MPOL_EXT_8BITMIME | MPOL_EXT_BINARYMIME,
              mpol_param_body),
    mpol_rule("AUTH", MPOL_EXT_AUTH, mpol_param_auth),
    mpol_rule("SMTPUTF8", MPOL_EXT_SMTPUTF8, mpol_param_smtputf8),
    mpol_rule("RET", MPOL_EXT_DSN, mpol_param_ret),
    mpol_rule("ENVID", MPOL_EXT_DSN, mpol_param_envid)
};


static const mpol_param_rule_t  mpol_rcpt_rules[] = {
    mpol_rule("NOTIFY", MPOL_EXT_DSN, mpol_param_notify),
    mpol_rule("ORCPT", MPOL_EXT_DSN, mpol_param_orcpt)
};


int
mpol_param_mail(const uint8_t *p, size_t len, unsigned offered,
    mpol_mail_t *mail)
{
    return mpol_param_parse(p, len, offered, mpol_mail_rules,
                            mpol_count(mpol_mail_rules), mail);
}


int
mpol_param_rcpt(const uint8_t *p, size_t len, unsigned offered,
    mpol_rcpt_t *rcpt)
{
    return mpol_param_parse(p, len, offered, mpol_rcpt_rules,
                            mpol_count(mpol_rcpt_rules), rcpt);
}


static int
mpol_param_parse(const uint8_t *p, size_t len, unsigned offered,
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
        if (!mpol_word_octet(p[i]) || (p[i] == '-' && i == 0)) {
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
mpol_param_size(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->size_set = 1;

    return mpol_word_number(param->value.data, param->value.len, &mail->size)
           == MPOL_OK ? MPOL_OK : MPOL_BAD;
}


/* RFC 6152 brings two values, RFC 3030 one more: each only with its own */

static int
mpol_param_body(const mpol_param_t *param, void *data)
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
mpol_param_auth(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->auth = param->value;

    if (param->value.len == 0) {
        return MPOL_BAD;
    }

    return mpol_xtext_decode(param->value.data, param->value.len, NULL, NULL);
}


static int
mpol_param_smtputf8(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->smtputf8 = 1;

    return param->equals ? MPOL_BAD : MPOL_OK;
}


static int
mpol_param_ret(const mpol_param_t *param, void *data)
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
mpol_param_envid(const mpol_param_t *param, void *data)
{
    mpol_mail_t  *mail = data;

    mail->envid = param->value;

    if (param->value.len == 0 || param->value.len > MPOL_ENVID_MAX) {
        return MPOL_BAD;
    }

    return mpol_xtext_decode(param->value.data, param->value.len, NULL, NULL);
}


static int
mpol_param_notify(const mpol_param_t *param, void *data)
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

        flag = mpol_param_notify_flag(&word);

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
mpol_param_notify_flag(const mpol_str_t *word)
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
mpol_param_orcpt(const mpol_param_t *param, void *data)
{
    mpol_rcpt_t  *rcpt = data;

    rcpt->orcpt = param->value;

    if (param->value.len > MPOL_ORCPT_MAX) {
        return MPOL_BAD;
    }

    return mpol_orcpt_check(&param->value,
                            (param->offered & MPOL_EXT_SMTPUTF8) != 0);
}
