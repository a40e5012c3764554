
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_access.h"
#include "mpol_attr.h"
#include "mpol_text.h"
#include "mpol_word.h"


#define mpol_access_string(s, text)                                          \
    (s)->data = (const uint8_t *) text;                                      \
    (s)->len = sizeof(text) - 1

#define mpol_access_word(name, action, code, needs)                          \
    { name, sizeof(name) - 1, action, code, needs }


/* what an action cannot do without: an octet of its text, or this */
#define MPOL_ACCESS_FIELD  1


typedef struct {
    const char     *name;               /* upper case */
    size_t          len;
    mpol_access_e   action;
    unsigned        code;
    uint8_t         needs;
} mpol_access_word_t;


static mpol_str_t  mpol_access_trim(const uint8_t *p, size_t len);
static int  mpol_access_blank(uint8_t ch);
static int  mpol_access_printable(const mpol_str_t *s);
static int  mpol_access_number(mpol_access_t *a, const mpol_str_t *word);
static int  mpol_access_keyword(mpol_access_t *a, const mpol_str_t *word);
static void  mpol_access_status(mpol_access_t *a);
static int  mpol_access_field(const mpol_str_t *text);
static size_t  mpol_access_copy(uint8_t *out, size_t n, const mpol_str_t *s);


static const mpol_access_word_t  mpol_access_words[] = {
    mpol_access_word("DUNNO", MPOL_ACCESS_DUNNO, 0, 0),
    mpol_access_word("OK", MPOL_ACCESS_OK, 0, 0),
    mpol_access_word("PERMIT", MPOL_ACCESS_OK, 0, 0),
    mpol_access_word("RELAY", MPOL_ACCESS_OK, 0, 0),
    mpol_access_word("REJECT", MPOL_ACCESS_REJECT, 554, 0),
    mpol_access_word("DEFER", MPOL_ACCESS_DEFER, 450, 0),
    mpol_access_word("DEFER_IF_PERMIT", MPOL_ACCESS_DEFER_IF_PERMIT, 450, 0),
    mpol_access_word("DEFER_IF_REJECT", MPOL_ACCESS_DEFER_IF_REJECT, 450, 0),
    mpol_access_word("PREPEND", MPOL_ACCESS_PREPEND, 0, MPOL_ACCESS_FIELD),
    mpol_access_word("INFO", MPOL_ACCESS_INFO, 0, 0),
    mpol_access_word("WARN", MPOL_ACCESS_WARN, 0, 0),
    mpol_access_word("FILTER", MPOL_ACCESS_FILTER, 0, ':'),
    mpol_access_word("REDIRECT", MPOL_ACCESS_REDIRECT, 0, '@'),
    mpol_access_word("BCC", MPOL_ACCESS_BCC, 0, '@'),
    mpol_access_word("HOLD", MPOL_ACCESS_HOLD, 0, 0),
    mpol_access_word("DISCARD", MPOL_ACCESS_DISCARD, 0, 0)
};


int
mpol_access_parse(const uint8_t *p, size_t len, mpol_access_t *a)
{
    int         rc;
    size_t      n;
    mpol_str_t  s, word;

    memset(a, 0, sizeof(mpol_access_t));
    a->action = MPOL_ACCESS_UNKNOWN;

    s = mpol_access_trim(p, len);

    if (!mpol_access_printable(&s)) {
        return MPOL_BAD;
    }

    for (n = 0; n < s.len && !mpol_access_blank(s.data[n]); n++) {
        /* void */
    }

    word.data = s.data;
    word.len = n;

    s = mpol_access_trim(s.data + n, s.len - n);
    a->text = s;

    rc = (n != 0 && mpol_word_digits(word.data, n) == n)
         ? mpol_access_number(a, &word) : mpol_access_keyword(a, &word);

    if (a->action == MPOL_ACCESS_UNKNOWN) {
        a->text.len = 0;
    }

    if (a->code != 0) {
        mpol_access_status(a);
    }

    return rc;
}


static mpol_str_t
mpol_access_trim(const uint8_t *p, size_t len)
{
    mpol_str_t  s;

    while (len != 0 && mpol_access_blank(p[len - 1])) {
        len--;
    }

    while (len != 0 && mpol_access_blank(*p)) {
        p++;
        len--;
    }

    s.data = p;
    s.len = len;

    return s;
}


static int
mpol_access_blank(uint8_t ch)
{
    return ch == ' ' || ch == '\t';
}


static int
mpol_access_printable(const mpol_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        if ((s->data[i] < 32 && s->data[i] != '\t') || s->data[i] == 127) {
            return 0;
        }
    }

    return 1;
}


static int
mpol_access_number(mpol_access_t *a, const mpol_str_t *word)
{
    const uint8_t  *p;

    p = word->data;

    if (word->len == 3 && (p[0] == '4' || p[0] == '5')) {
        a->action = (p[0] == '4') ? MPOL_ACCESS_DEFER : MPOL_ACCESS_REJECT;
        a->code = (unsigned) ((p[0] - '0') * 100 + (p[1] - '0') * 10
                              + (p[2] - '0'));
        return MPOL_OK;
    }

    /* the time at which somebody has logged in elsewhere, in old maps */

    if (a->text.len != 0) {
        return MPOL_BAD;
    }

    a->action = MPOL_ACCESS_OK;

    return MPOL_OK;
}


static int
mpol_access_keyword(mpol_access_t *a, const mpol_str_t *word)
{
    size_t                     i, n;
    const mpol_access_word_t  *w;

    n = sizeof(mpol_access_words) / sizeof(mpol_access_words[0]);

    for (i = 0, w = mpol_access_words; i < n; i++, w++) {
        if (mpol_word_same(word, w->name, w->len)) {
            break;
        }
    }

    if (i == n) {
        return MPOL_BAD;
    }

    a->action = w->action;
    a->code = w->code;

    if (w->needs == 0) {
        return MPOL_OK;
    }

    if (w->needs == MPOL_ACCESS_FIELD) {
        return mpol_access_field(&a->text);
    }

    return (a->text.len != 0
            && memchr(a->text.data, w->needs, a->text.len) != NULL)
           ? MPOL_OK : MPOL_BAD;
}


/* moves the status from the beginning of the text to where it belongs */

static void
mpol_access_status(mpol_access_t *a)
{
    size_t      n;
    mpol_str_t  s;

    s = a->text;
    n = mpol_word_status(s.data, s.len);

    if (n != 0 && (n == s.len || mpol_access_blank(s.data[n]))) {
        a->text = mpol_access_trim(s.data + n, s.len - n);
        a->status.data = s.data;
        a->status.len = n;
        return;
    }

    if (a->code < 500) {
        mpol_access_string(&a->status, "4.7.1");

    } else {
        mpol_access_string(&a->status, "5.7.1");
    }
}


/* RFC 5322 section 2.2, and blanks before the colon as in section 4.5.8 */

static int
mpol_access_field(const mpol_str_t *text)
{
    size_t          n;
    const uint8_t  *p;

    p = text->data;

    for (n = 0; n < text->len; n++) {
        if (p[n] < 33 || p[n] > 126 || p[n] == ':') {
            break;
        }
    }

    if (n == 0) {
        return MPOL_BAD;
    }

    while (n < text->len && mpol_access_blank(p[n])) {
        n++;
    }

    return (n < text->len && p[n] == ':') ? MPOL_OK : MPOL_BAD;
}


int
mpol_access_find(const uint8_t *p, size_t len, mpol_str_t *action)
{
    return mpol_attr_find(p, len, "action", action);
}


size_t
mpol_access_reply(const mpol_access_t *a, uint8_t *out)
{
    size_t      n;
    mpol_str_t  text;

    if (a->code < 400 || a->code > 599) {
        return 0;
    }

    out[0] = (uint8_t) ('0' + a->code / 100);
    out[1] = (uint8_t) ('0' + a->code / 10 % 10);
    out[2] = (uint8_t) ('0' + a->code % 10);
    out[3] = ' ';
    n = 4;

    if (a->status.len != 0) {
        n = mpol_access_copy(out, n, &a->status);
        out[4] = out[0];
        mpol_access_string(&text, " ");
        n = mpol_access_copy(out, n, &text);
    }

    text = a->text;

    if (text.len == 0 && a->code < 500) {
        mpol_access_string(&text, "Try again later");

    } else if (text.len == 0) {
        mpol_access_string(&text, "Access denied");
    }

    return mpol_access_copy(out, n, &text);
}


static size_t
mpol_access_copy(uint8_t *out, size_t n, const mpol_str_t *s)
{
    size_t  len;

    len = s->len;

    if (len > MPOL_ACCESS_REPLY - n) {
        len = MPOL_ACCESS_REPLY - n;
    }

    mpol_reply_clean(s->data, len, out + n);

    return n + len;
}
