
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_queue.h"


#define MPOL_QUEUE_ANY    0
#define MPOL_QUEUE_DIGIT  0x01          /* a digit is in it */
#define MPOL_QUEUE_END    0x02          /* nothing is behind it */
#define MPOL_QUEUE_BEGIN  0x04          /* nothing is in front of "before" */

/* of one that stands alone: "Ok 3.5s" is none */
#define MPOL_QUEUE_ALONE  8


typedef struct {
    const char  *before;                /* lower case */
    const char  *after;
    unsigned     flags;
} mpol_queue_form_t;


static size_t  mpol_queue_codes(const uint8_t *p, size_t len);
static int  mpol_queue_form(const mpol_queue_form_t *form, const uint8_t *p,
    size_t len, mpol_str_t *id);
static int  mpol_queue_at(const mpol_queue_form_t *form, const uint8_t *p,
    size_t len, size_t pos, mpol_str_t *id);
static size_t  mpol_queue_same(const uint8_t *p, size_t len,
    const char *lower);
static size_t  mpol_queue_run(const uint8_t *p, size_t len);
static int  mpol_queue_octet(uint8_t c);
static int  mpol_queue_digit(const mpol_str_t *s);


/* the surest ones first */

static const mpol_queue_form_t  mpol_queue_forms[] = {
    { "queued as ", "", MPOL_QUEUE_ANY },
    { "queued with id ", "", MPOL_QUEUE_ANY },
    { "ids=", "", MPOL_QUEUE_ANY },
    { "id=", "", MPOL_QUEUE_ANY },
    { "internalid=", "", MPOL_QUEUE_ANY },
    { "message queued (", ")", MPOL_QUEUE_ANY },
    { " qp ", "", MPOL_QUEUE_DIGIT },
    { "message ", " accepted", MPOL_QUEUE_DIGIT },
    { "", " message accepted for delivery",
      MPOL_QUEUE_DIGIT | MPOL_QUEUE_BEGIN },
    { "", " - gsmtp", MPOL_QUEUE_DIGIT },
    { "ok ", "", MPOL_QUEUE_DIGIT | MPOL_QUEUE_END | MPOL_QUEUE_BEGIN },
    { "ok. ", "", MPOL_QUEUE_DIGIT | MPOL_QUEUE_END | MPOL_QUEUE_BEGIN },
    { "ok: ", "", MPOL_QUEUE_DIGIT | MPOL_QUEUE_END | MPOL_QUEUE_BEGIN }
};


int
mpol_queue_id(const uint8_t *p, size_t len, mpol_str_t *id)
{
    size_t  i, n;

    n = mpol_queue_codes(p, len);

    p += n;
    len -= n;

    for (i = 0; i < sizeof(mpol_queue_forms) / sizeof(mpol_queue_form_t); i++)
    {
        if (mpol_queue_form(&mpol_queue_forms[i], p, len, id)) {
            return MPOL_OK;
        }
    }

    id->data = p;
    id->len = 0;

    return MPOL_BAD;
}


/* how long "250 2.0.0 " is */

static size_t
mpol_queue_codes(const uint8_t *p, size_t len)
{
    size_t  n, pos;

    for (pos = 0; pos < len; pos += n + 1) {

        for (n = 0; pos + n < len; n++) {
            if ((p[pos + n] < '0' || p[pos + n] > '9') && p[pos + n] != '.') {
                break;
            }
        }

        /* "250", "2.0.0"; longer ones are no codes */

        if (n == 0 || n > 9 || pos + n == len || p[pos + n] != ' ') {
            break;
        }
    }

    return pos < len ? pos : len;
}


/* the last place is the one: text of another server may be in front of it */

static int
mpol_queue_form(const mpol_queue_form_t *form, const uint8_t *p, size_t len,
    mpol_str_t *id)
{
    size_t  pos;

    if (form->flags & MPOL_QUEUE_BEGIN) {
        return mpol_queue_at(form, p, len, 0, id);
    }

    for (pos = len; pos-- > 0; /* void */ ) {
        if (mpol_queue_at(form, p, len, pos, id)) {
            return 1;
        }
    }

    return 0;
}


static int
mpol_queue_at(const mpol_queue_form_t *form, const uint8_t *p, size_t len,
    size_t pos, mpol_str_t *id)
{
    size_t  n, rest;

    /* not amid a word */

    if (pos != 0 && mpol_queue_octet(p[pos - 1]) && form->before[0] != ' ') {
        return 0;
    }

    n = mpol_queue_same(p + pos, len - pos, form->before);

    if (n == 0 && form->before[0] != '\0') {
        return 0;
    }

    id->data = p + pos + n;
    rest = len - pos - n;
    n = mpol_queue_run(id->data, rest);
    id->len = n;

    if (form->after[0] != '\0'
        && mpol_queue_same(id->data + n, rest - n, form->after) == 0)
    {
        return 0;
    }

    /* a full stop ends the sentence */

    while (id->len != 0 && id->data[id->len - 1] == '.') {
        id->len--;
    }

    if (id->len == 0 || id->len > MPOL_QUEUE_ID) {
        return 0;
    }

    if ((form->flags & MPOL_QUEUE_DIGIT) && !mpol_queue_digit(id)) {
        return 0;
    }

    return !(form->flags & MPOL_QUEUE_END)
           || (n == rest && id->len >= MPOL_QUEUE_ALONE);
}


/* the length of lower, if p begins with it; letters in any case */

static size_t
mpol_queue_same(const uint8_t *p, size_t len, const char *lower)
{
    size_t   i;
    uint8_t  c;

    for (i = 0; lower[i] != '\0'; i++) {

        if (i == len) {
            return 0;
        }

        c = p[i];

        if (c >= 'A' && c <= 'Z') {
            c = (uint8_t) (c | 0x20);
        }

        if (c != (uint8_t) lower[i]) {
            return 0;
        }
    }

    return i;
}


static size_t
mpol_queue_run(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len && mpol_queue_octet(p[i]); i++) { /* void */ }

    return i;
}


static int
mpol_queue_octet(uint8_t c)
{
    switch (c) {

    case '-':
    case '_':
    case '.':
    case '/':
    case '+':
    case '=':
    case '@':
    case '$':
    case '~':
        return 1;

    default:
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')
               || (c >= '0' && c <= '9');
    }
}


static int
mpol_queue_digit(const mpol_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        if (s->data[i] >= '0' && s->data[i] <= '9') {
            return 1;
        }
    }

    return 0;
}
