
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sasl.h"
#include "mpol_scram_server.h"
#include "mpol_token.h"


#define MPOL_TOKEN_SEP  0x01


static int mpol_token_pairs(uint8_t *p, const uint8_t *end,
    mpol_str_t *token);
static int mpol_token_field(uint8_t **p, const uint8_t *end, int sep,
    mpol_str_t *field);
static int mpol_token_begins(const mpol_str_t *field, const char *name,
    size_t len);
static int mpol_token_pair(const mpol_str_t *field);
static int mpol_token_bearer(const mpol_str_t *field, mpol_str_t *token);
static int mpol_token_char(uint8_t ch);
static int mpol_token_letter(uint8_t ch);


int
mpol_xoauth2_parse(uint8_t *msg, size_t len, mpol_token_t *t)
{
    uint8_t        *p;
    mpol_str_t      user, auth, token;
    const uint8_t  *end;

    p = msg;
    end = msg + len;

    if (mpol_token_field(&p, end, MPOL_TOKEN_SEP, &user) != MPOL_OK
        || mpol_token_field(&p, end, MPOL_TOKEN_SEP, &auth) != MPOL_OK
        || end - p != 1 || *p != MPOL_TOKEN_SEP)
    {
        return MPOL_BAD;
    }

    if (!mpol_token_begins(&user, "user=", 5)
        || !mpol_token_begins(&auth, "auth=", 5)
        || !mpol_identity_valid(user.data + 5, user.len - 5)
        || mpol_token_bearer(&auth, &token) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    t->user.data = user.data + 5;
    t->user.len = user.len - 5;
    t->token = token;

    return MPOL_OK;
}


int
mpol_oauthbearer_parse(uint8_t *msg, size_t len, mpol_token_t *t)
{
    size_t          n;
    uint8_t        *p, *name;
    mpol_str_t      flag, user, none, token;
    const uint8_t  *end;

    p = msg;
    end = msg + len;

    if (mpol_token_field(&p, end, ',', &flag) != MPOL_OK
        || flag.len != 1 || (flag.data[0] != 'n' && flag.data[0] != 'y'))
    {
        return MPOL_BAD;
    }

    name = p;

    if (mpol_token_field(&p, end, ',', &user) != MPOL_OK
        || mpol_token_field(&p, end, MPOL_TOKEN_SEP, &none) != MPOL_OK
        || none.len != 0
        || mpol_token_pairs(p, end, &token) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if (user.len != 0) {

        if (!mpol_token_begins(&user, "a=", 2)) {
            return MPOL_BAD;
        }

        name += 2;
        n = mpol_scram_name(name, user.len - 2, name);

        if (!mpol_identity_valid(name, n)) {
            return MPOL_BAD;
        }

        user.data = name;
        user.len = n;
    }

    t->user = user;
    t->token = token;

    return MPOL_OK;
}


/* up to the empty one, which is the last; one of them has the token */

static int
mpol_token_pairs(uint8_t *p, const uint8_t *end, mpol_str_t *token)
{
    mpol_str_t  field;

    token->len = 0;

    for ( ;; ) {

        if (mpol_token_field(&p, end, MPOL_TOKEN_SEP, &field) != MPOL_OK) {
            return MPOL_BAD;
        }

        if (field.len == 0) {
            break;
        }

        if (!mpol_token_begins(&field, "auth=", 5)) {

            if (!mpol_token_pair(&field)) {
                return MPOL_BAD;
            }

            continue;
        }

        if (token->len != 0 || mpol_token_bearer(&field, token) != MPOL_OK) {
            return MPOL_BAD;
        }
    }

    return (p == end && token->len != 0) ? MPOL_OK : MPOL_BAD;
}


/* what is in front of the next sep, which has to be there and is skipped */

static int
mpol_token_field(uint8_t **p, const uint8_t *end, int sep, mpol_str_t *field)
{
    uint8_t  *q;

    q = *p;

    while (q < end && *q != sep) {
        q++;
    }

    if (q == end) {
        return MPOL_BAD;
    }

    field->data = *p;
    field->len = (size_t) (q - *p);
    *p = q + 1;

    return MPOL_OK;
}


static int
mpol_token_begins(const mpol_str_t *field, const char *name, size_t len)
{
    return field->len >= len && memcmp(field->data, name, len) == 0;
}


static int
mpol_token_pair(const mpol_str_t *field)
{
    size_t   i;
    uint8_t  ch;

    for (i = 0; i < field->len && mpol_token_letter(field->data[i]); i++) {
        /* void */
    }

    if (i == 0 || i == field->len || field->data[i] != '=') {
        return 0;
    }

    for (i++; i < field->len; i++) {
        ch = field->data[i];

        if ((ch < ' ' && ch != '\t' && ch != '\r' && ch != '\n')
            || ch > '~')
        {
            return 0;
        }
    }

    return 1;
}


/* "auth=" is there already */

static int
mpol_token_bearer(const mpol_str_t *field, mpol_str_t *token)
{
    size_t          i;
    const uint8_t  *p, *q, *end;

    static const char  scheme[] = "bearer";

    p = field->data + 5;
    end = field->data + field->len;

    if ((size_t) (end - p) < sizeof(scheme)) {
        return MPOL_BAD;
    }

    for (i = 0; i < sizeof(scheme) - 1; i++) {
        if ((p[i] | 0x20) != scheme[i]) {
            return MPOL_BAD;
        }
    }

    p += i;

    if (*p != ' ') {
        return MPOL_BAD;
    }

    while (p < end && *p == ' ') {
        p++;
    }

    for (q = p; q < end && mpol_token_char(*q); q++) { /* void */ }

    if (q == p) {
        return MPOL_BAD;
    }

    while (q < end && *q == '=') {
        q++;
    }

    if (q != end || q - p > MPOL_TOKEN_MAX) {
        return MPOL_BAD;
    }

    token->data = p;
    token->len = (size_t) (q - p);

    return MPOL_OK;
}


static int
mpol_token_char(uint8_t ch)
{
    return mpol_token_letter(ch) || (ch >= '0' && ch <= '9')
           || ch == '-' || ch == '.' || ch == '_' || ch == '~'
           || ch == '+' || ch == '/';
}


static int
mpol_token_letter(uint8_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}
