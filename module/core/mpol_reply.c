
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <limits.h>
#include <string.h>

#include "mpol_reply.h"
#include "mpol_word.h"


#define CR  13
#define LF  10


typedef struct {
    const char  *name;                  /* upper case */
    size_t       len;
    unsigned     flag;
} mpol_keyword_t;


static int  mpol_reply_line(const uint8_t *p, size_t len, unsigned *code);
static void  mpol_reply_status(mpol_reply_t *reply);
static void  mpol_ehlo_line(mpol_ehlo_t *ehlo, const uint8_t *p, size_t len);
static void  mpol_ehlo_limit(mpol_ehlo_t *ehlo, const mpol_str_t *word);
static int  mpol_ehlo_word(const uint8_t **p, const uint8_t *end,
    mpol_str_t *word);
static unsigned  mpol_ehlo_flag(const mpol_keyword_t *table, size_t n,
    const mpol_str_t *word);
static uint64_t  mpol_ehlo_number(const mpol_str_t *word);


#define mpol_keyword(name, flag)  { name, sizeof(name) - 1, flag }
#define mpol_count(table)         (sizeof(table) / sizeof(table[0]))


static const mpol_keyword_t  mpol_relay_keywords[] = {
    mpol_keyword("PIPELINING", MPOL_RELAY_PIPELINING),
    mpol_keyword("SIZE", MPOL_RELAY_SIZE),
    mpol_keyword("8BITMIME", MPOL_RELAY_8BITMIME),
    mpol_keyword("XCLIENT", MPOL_RELAY_XCLIENT),
    mpol_keyword("STARTTLS", MPOL_RELAY_STARTTLS),
    mpol_keyword("ENHANCEDSTATUSCODES", MPOL_RELAY_ENHANCED),
    mpol_keyword("CHUNKING", MPOL_RELAY_CHUNKING),
    mpol_keyword("BINARYMIME", MPOL_RELAY_BINARYMIME),
    mpol_keyword("SMTPUTF8", MPOL_RELAY_SMTPUTF8),
    mpol_keyword("DSN", MPOL_RELAY_DSN),
    mpol_keyword("LIMITS", MPOL_RELAY_LIMITS),
    mpol_keyword("AUTH", MPOL_RELAY_AUTH)
};


static const mpol_keyword_t  mpol_auth_keywords[] = {
    mpol_keyword("PLAIN", MPOL_AUTH_PLAIN),
    mpol_keyword("LOGIN", MPOL_AUTH_LOGIN),
    mpol_keyword("CRAM-MD5", MPOL_AUTH_CRAM_MD5),
    mpol_keyword("SCRAM-SHA-256", MPOL_AUTH_SCRAM_SHA_256),
    mpol_keyword("XOAUTH2", MPOL_AUTH_XOAUTH2),
    mpol_keyword("OAUTHBEARER", MPOL_AUTH_OAUTHBEARER)
};


static const mpol_keyword_t  mpol_xclient_keywords[] = {
    mpol_keyword("NAME", MPOL_XCLIENT_NAME),
    mpol_keyword("ADDR", MPOL_XCLIENT_ADDR),
    mpol_keyword("PORT", MPOL_XCLIENT_PORT),
    mpol_keyword("PROTO", MPOL_XCLIENT_PROTO),
    mpol_keyword("HELO", MPOL_XCLIENT_HELO),
    mpol_keyword("LOGIN", MPOL_XCLIENT_LOGIN),
    mpol_keyword("DESTADDR", MPOL_XCLIENT_DESTADDR),
    mpol_keyword("DESTPORT", MPOL_XCLIENT_DESTPORT)
};


enum {
    MPOL_LIMIT_MAILMAX = 1,
    MPOL_LIMIT_RCPTMAX
};


static const mpol_keyword_t  mpol_limit_keywords[] = {
    mpol_keyword("MAILMAX", MPOL_LIMIT_MAILMAX),
    mpol_keyword("RCPTMAX", MPOL_LIMIT_RCPTMAX)
};


int
mpol_reply_parse(const uint8_t *buf, size_t len, mpol_reply_t *reply)
{
    int             last;
    size_t          n, pos;
    unsigned        code;
    const uint8_t  *lf;

    memset(reply, 0, sizeof(mpol_reply_t));

    for (pos = 0; reply->lines < MPOL_REPLY_LINES; pos += n) {

        lf = (pos < len) ? memchr(buf + pos, LF, len - pos) : NULL;

        if (lf == NULL) {
            return MPOL_AGAIN;
        }

        n = (size_t) (lf - (buf + pos)) + 1;

        if (n > INT_MAX - pos) {
            return MPOL_BAD;
        }

        last = mpol_reply_line(buf + pos, n, &code);

        if (last == MPOL_BAD || (reply->lines != 0 && code != reply->code)) {
            return MPOL_BAD;
        }

        reply->code = code;
        reply->lines++;

        if (last) {
            /* "250" CRLF has no separator, and so has no text */

            reply->text.data = buf + pos + (n > 5 ? 4 : 3);
            reply->text.len = (n > 5) ? n - 6 : 0;

            mpol_reply_status(reply);

            return (int) (pos + n);
        }
    }

    return MPOL_BAD;
}


/*
 * p[0 .. len) ends with LF.  Returns 1 if it is the last line of a reply, 0
 * if more of them follow, or MPOL_BAD.
 */

static int
mpol_reply_line(const uint8_t *p, size_t len, unsigned *code)
{
    if (len < 5 || p[len - 2] != CR) {
        return MPOL_BAD;
    }

    if (mpol_word_digits(p, 3) != 3 || p[0] < '2' || p[0] > '5') {
        return MPOL_BAD;
    }

    *code = (unsigned) ((p[0] - '0') * 100 + (p[1] - '0') * 10
                        + (p[2] - '0'));

    if (len == 5 || p[3] == ' ') {
        return 1;
    }

    return (p[3] == '-') ? 0 : MPOL_BAD;
}


/* RFC 2034 section 4: of the code's class, and a space behind it */

static void
mpol_reply_status(mpol_reply_t *reply)
{
    size_t          n;
    const uint8_t  *p;

    reply->status.data = reply->text.data;
    reply->message = reply->text;

    p = reply->text.data;
    n = mpol_word_status(p, reply->text.len);

    if (n == 0 || (unsigned) (p[0] - '0') != reply->code / 100) {
        return;
    }

    if (n == reply->text.len) {
        reply->status.len = n;
        reply->message.data += n;
        reply->message.len = 0;
        return;
    }

    if (p[n] == ' ') {
        reply->status.len = n;
        reply->message.data += n + 1;
        reply->message.len -= n + 1;
    }
}


void
mpol_ehlo_parse(const uint8_t *buf, size_t len, mpol_ehlo_t *ehlo)
{
    size_t          n, pos;
    unsigned        line;
    const uint8_t  *lf;

    memset(ehlo, 0, sizeof(mpol_ehlo_t));

    for (pos = 0, line = 0; pos < len; pos += n, line++) {

        lf = memchr(buf + pos, LF, len - pos);
        if (lf == NULL) {
            break;
        }

        n = (size_t) (lf - (buf + pos)) + 1;

        /* the first line is the relay's name and greeting */

        if (line != 0 && n > 6) {
            mpol_ehlo_line(ehlo, buf + pos + 4, n - 6);
        }
    }

    /* RFC 3030 section 3: such a body cannot be sent but in chunks */

    if (!(ehlo->extensions & MPOL_RELAY_CHUNKING)) {
        ehlo->extensions &= ~(unsigned) MPOL_RELAY_BINARYMIME;
    }

    /* RFC 6531 section 3.1: who has it has both */

    if (!(ehlo->extensions & MPOL_RELAY_8BITMIME)) {
        ehlo->extensions &= ~(unsigned) MPOL_RELAY_SMTPUTF8;
    }
}


/* ehlo-keyword *( SP ehlo-param ), RFC 5321 section 4.1.1.1 */

static void
mpol_ehlo_line(mpol_ehlo_t *ehlo, const uint8_t *p, size_t len)
{
    unsigned        flag;
    mpol_str_t      word;
    const uint8_t  *end;

    end = p + len;

    if (!mpol_ehlo_word(&p, end, &word)) {
        return;
    }

    flag = mpol_ehlo_flag(mpol_relay_keywords,
                          mpol_count(mpol_relay_keywords), &word);

    ehlo->extensions |= flag;

    if (flag == MPOL_RELAY_SIZE && mpol_ehlo_word(&p, end, &word)) {
        ehlo->size = mpol_ehlo_number(&word);
    }

    if (flag == MPOL_RELAY_XCLIENT) {
        while (mpol_ehlo_word(&p, end, &word)) {
            ehlo->xclient |= mpol_ehlo_flag(mpol_xclient_keywords,
                                            mpol_count(mpol_xclient_keywords),
                                            &word);
        }
    }

    if (flag == MPOL_RELAY_AUTH) {
        while (mpol_ehlo_word(&p, end, &word)) {
            ehlo->auth |= mpol_ehlo_flag(mpol_auth_keywords,
                                         mpol_count(mpol_auth_keywords),
                                         &word);
        }
    }

    if (flag == MPOL_RELAY_LIMITS) {
        while (mpol_ehlo_word(&p, end, &word)) {
            mpol_ehlo_limit(ehlo, &word);
        }
    }
}


static void
mpol_ehlo_limit(mpol_ehlo_t *ehlo, const mpol_str_t *word)
{
    uint64_t        n, *limit;
    mpol_str_t      name, value;
    const uint8_t  *equals;

    equals = memchr(word->data, '=', word->len);
    if (equals == NULL) {
        return;
    }

    name.data = word->data;
    name.len = (size_t) (equals - word->data);

    value.data = equals + 1;
    value.len = word->len - name.len - 1;

    switch (mpol_ehlo_flag(mpol_limit_keywords,
                           mpol_count(mpol_limit_keywords), &name))
    {
    case MPOL_LIMIT_MAILMAX:
        limit = &ehlo->mailmax;
        break;

    case MPOL_LIMIT_RCPTMAX:
        limit = &ehlo->rcptmax;
        break;

    default:
        return;
    }

    if (value.len == 0 || value.len > 6 || value.data[0] == '0') {
        return;
    }

    n = mpol_ehlo_number(&value);

    if (n != 0 && (*limit == 0 || n < *limit)) {
        *limit = n;
    }
}


static int
mpol_ehlo_word(const uint8_t **p, const uint8_t *end, mpol_str_t *word)
{
    const uint8_t  *q;

    for (q = *p; q < end && *q == ' '; q++) { /* void */ }

    word->data = q;

    for ( /* void */ ; q < end && *q != ' '; q++) { /* void */ }

    word->len = (size_t) (q - word->data);
    *p = q;

    return word->len != 0;
}


static unsigned
mpol_ehlo_flag(const mpol_keyword_t *table, size_t n, const mpol_str_t *word)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (mpol_word_same(word, table[i].name, table[i].len)) {
            return table[i].flag;
        }
    }

    return 0;
}


/* what is no number of 64 bits is no maximum that we could keep to */

static uint64_t
mpol_ehlo_number(const mpol_str_t *word)
{
    size_t    i;
    uint64_t  digit, n;

    n = 0;

    for (i = 0; i < word->len; i++) {

        if (word->data[i] < '0' || word->data[i] > '9') {
            return 0;
        }

        digit = (uint64_t) word->data[i] - '0';

        if (n > (UINT64_MAX - digit) / 10) {
            return 0;
        }

        n = n * 10 + digit;
    }

    return n;
}
