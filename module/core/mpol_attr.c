
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_attr.h"


typedef struct {
    const char  *name;
    size_t       len;
} mpol_attr_name_t;

#define mpol_attr_name(text)  { text, sizeof(text) - 1 }


static int mpol_attr_whole(mpol_attr_t *a, const uint8_t *p, size_t len);
static int mpol_attr_line(mpol_attr_t *a, uint8_t ch);
static size_t mpol_attr_eol(const uint8_t *p, size_t pos, size_t len);
static int mpol_attr_equal(const uint8_t *p, size_t len, const char *name,
    size_t n);


/* in the order of mpol_attr_e */

static const mpol_attr_name_t  mpol_attr_names[MPOL_ATTR_KNOWN] = {
    mpol_attr_name("request"),
    mpol_attr_name("protocol_state"),
    mpol_attr_name("protocol_name"),
    mpol_attr_name("instance"),
    mpol_attr_name("client_address"),
    mpol_attr_name("client_port"),
    mpol_attr_name("client_name"),
    mpol_attr_name("server_address"),
    mpol_attr_name("server_port"),
    mpol_attr_name("helo_name"),
    mpol_attr_name("sender"),
    mpol_attr_name("recipient"),
    mpol_attr_name("recipient_count"),
    mpol_attr_name("size"),
    mpol_attr_name("sasl_method"),
    mpol_attr_name("sasl_username"),
    mpol_attr_name("encryption_protocol")
};


int
mpol_attr_scan(mpol_attr_t *a, const uint8_t *p, size_t len)
{
    int      rc;
    uint8_t  ch;

    while (a->pos < len) {

        if (a->pos == MPOL_ATTR_REQUEST) {
            return MPOL_ATTR_E_SIZE;
        }

        if (mpol_attr_whole(a, p, len)) {
            continue;
        }

        ch = p[a->pos++];

        if (ch == '\n' && a->pos - a->line == 1) {
            return MPOL_OK;
        }

        rc = mpol_attr_line(a, ch);
        if (rc != MPOL_OK) {
            return rc;
        }
    }

    return (a->pos == MPOL_ATTR_REQUEST) ? MPOL_ATTR_E_SIZE : MPOL_AGAIN;
}


/* 1: a line that is all there, and good; else each octet is looked at */

static int
mpol_attr_whole(mpol_attr_t *a, const uint8_t *p, size_t len)
{
    size_t          end;
    const uint8_t  *line, *lf, *equals;

    if (a->pos != a->line || a->count == MPOL_ATTR_COUNT) {
        return 0;
    }

    end = a->line + MPOL_ATTR_LINE;
    end = (end < MPOL_ATTR_REQUEST) ? end : MPOL_ATTR_REQUEST;
    end = (end < len) ? end : len;

    line = p + a->line;

    lf = memchr(line, '\n', end - a->line);
    if (lf == NULL || lf == line) {
        return 0;
    }

    equals = memchr(line, '=', (size_t) (lf - line));

    if (equals == NULL || equals == line
        || memchr(line, '\0', (size_t) (lf - line)) != NULL)
    {
        return 0;
    }

    a->count++;
    a->pos = (size_t) (lf + 1 - p);
    a->line = a->pos;

    return 1;
}


static int
mpol_attr_line(mpol_attr_t *a, uint8_t ch)
{
    if (ch == '\0') {
        return MPOL_ATTR_E_NUL;
    }

    if (a->pos - a->line > MPOL_ATTR_LINE) {
        return MPOL_ATTR_E_LINE;
    }

    if (ch == '=') {

        /* at the very beginning there is no name before it */

        if (a->pos - a->line == 1) {
            return MPOL_ATTR_E_SYNTAX;
        }

        a->equals = 1;
        return MPOL_OK;
    }

    if (ch != '\n') {
        return MPOL_OK;
    }

    if (!a->equals) {
        return MPOL_ATTR_E_SYNTAX;
    }

    if (a->count == MPOL_ATTR_COUNT) {
        return MPOL_ATTR_E_COUNT;
    }

    a->count++;
    a->equals = 0;
    a->line = a->pos;

    return MPOL_OK;
}


void
mpol_attr_parse(const uint8_t *p, size_t len,
    mpol_str_t values[MPOL_ATTR_KNOWN])
{
    size_t  i, line, equals;

    for (i = 0; i < MPOL_ATTR_KNOWN; i++) {
        values[i].data = NULL;
        values[i].len = 0;
    }

    for (line = 0; line < len && p[line] != '\n'; line++) {

        for (equals = line; p[equals] != '='; equals++) { /* void */ }

        for (i = 0; i < MPOL_ATTR_KNOWN; i++) {
            if (values[i].data == NULL
                && mpol_attr_equal(p + line, equals - line,
                                   mpol_attr_names[i].name,
                                   mpol_attr_names[i].len))
            {
                break;
            }
        }

        line = mpol_attr_eol(p, equals + 1, len);

        if (i < MPOL_ATTR_KNOWN) {
            values[i].data = p + equals + 1;
            values[i].len = line - equals - 1;
        }
    }
}


int
mpol_attr_get(const uint8_t *p, size_t len, const char *name, size_t n,
    mpol_str_t *value)
{
    int     found;
    size_t  equals, line;

    for (line = 0; line < len && p[line] != '\n'; line++) {

        for (equals = line; p[equals] != '='; equals++) { /* void */ }

        found = mpol_attr_equal(p + line, equals - line, name, n);

        line = mpol_attr_eol(p, equals + 1, len);

        if (found) {
            value->data = p + equals + 1;
            value->len = line - equals - 1;
            return MPOL_OK;
        }
    }

    return MPOL_BAD;
}


/* where the line ends that a value begins in; scan() has found that it does */

static size_t
mpol_attr_eol(const uint8_t *p, size_t pos, size_t len)
{
    const uint8_t  *q;

    q = memchr(p + pos, '\n', len - pos);

    return (size_t) (q - p);
}


static int
mpol_attr_equal(const uint8_t *p, size_t len, const char *name, size_t n)
{
    return len == n && memcmp(p, name, n) == 0;
}


uint8_t *
mpol_attr_write(uint8_t *p, uint8_t *end, const char *name, size_t n,
    const mpol_str_t *value)
{
    size_t   i, len;
    uint8_t  ch;

    len = value->len;

    if (len > MPOL_ATTR_LINE - 2 - n) {
        len = MPOL_ATTR_LINE - 2 - n;
    }

    if (p == NULL || (size_t) (end - p) < n + 2 + len) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        *p++ = (uint8_t) name[i];
    }

    *p++ = '=';

    for (i = 0; i < len; i++) {
        ch = value->data[i];
        *p++ = (ch < 32 || ch == 127) ? '?' : ch;
    }

    *p++ = '\n';

    return p;
}


uint8_t *
mpol_attr_end(uint8_t *p, uint8_t *end)
{
    if (p == NULL || p == end) {
        return NULL;
    }

    *p++ = '\n';

    return p;
}


uint64_t
mpol_attr_number(const mpol_str_t *value)
{
    size_t    i;
    uint64_t  n;

    n = 0;

    for (i = 0; i < value->len; i++) {

        if (value->data[i] < '0' || value->data[i] > '9') {
            return 0;
        }

        n = n * 10 + (uint64_t) (value->data[i] - '0');

        if (n > MPOL_ATTR_NUMBER) {
            n = MPOL_ATTR_NUMBER;
        }
    }

    return n;
}


const char *
mpol_attr_error(int rc)
{
    switch (rc) {

    case MPOL_ATTR_E_LINE:
        return "a line of more than 4096 octets";

    case MPOL_ATTR_E_COUNT:
        return "more than 128 attributes";

    case MPOL_ATTR_E_SIZE:
        return "more than 65536 octets";

    case MPOL_ATTR_E_NUL:
        return "a NUL";

    default: /* MPOL_ATTR_E_SYNTAX */
        return "a line that is no \"name=value\"";
    }
}
