
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_auth_http.h"
#include "mpol_word.h"


#define TAB  9
#define LF   10
#define CR   13


static int  mpol_auth_http_line(mpol_auth_http_t *st, const uint8_t *buf,
    size_t pos, size_t len);
static int  mpol_auth_http_status_line(mpol_auth_http_t *st,
    const uint8_t *p, size_t len);
static int  mpol_auth_http_header(mpol_auth_http_t *st, const uint8_t *buf,
    size_t pos, size_t len);
static int  mpol_auth_http_tchar(uint8_t ch);
static void  mpol_auth_http_known(mpol_auth_http_t *st, const uint8_t *buf,
    const mpol_str_t *name, const mpol_str_t *value);
static void  mpol_auth_http_framing(mpol_auth_http_t *st,
    const mpol_str_t *name, const mpol_str_t *value);
static void  mpol_auth_http_connection(mpol_auth_http_t *st,
    const mpol_str_t *value);


static const struct {
    const char  *name;
    size_t       len;
} mpol_auth_http_names[] = {
    { "AUTH-STATUS", sizeof("AUTH-STATUS") - 1 },
    { "AUTH-SERVER", sizeof("AUTH-SERVER") - 1 },
    { "AUTH-PORT", sizeof("AUTH-PORT") - 1 },
    { "AUTH-USER", sizeof("AUTH-USER") - 1 },
    { "AUTH-PASS", sizeof("AUTH-PASS") - 1 },
    { "AUTH-WAIT", sizeof("AUTH-WAIT") - 1 },
    { "AUTH-ERROR-CODE", sizeof("AUTH-ERROR-CODE") - 1 },
    { "AUTH-ERROR-SASL", sizeof("AUTH-ERROR-SASL") - 1 }
};


static const uint8_t  mpol_auth_http_version[] = {
    'H', 'T', 'T', 'P', '/', '1', '.'
};


int
mpol_auth_http_parse(mpol_auth_http_t *st, const uint8_t *buf, size_t len)
{
    int             rc;
    size_t          end, n;
    const uint8_t  *lf;

    /* what is no HTTP need not come to a line's end */

    n = sizeof(mpol_auth_http_version);
    n = len < n ? len : n;

    if (n != 0 && memcmp(buf, mpol_auth_http_version, n) != 0) {
        return MPOL_BAD;
    }

    while (st->scanned < len) {

        lf = memchr(buf + st->scanned, LF, len - st->scanned);
        if (lf == NULL) {
            st->scanned = len;
            break;
        }

        end = (size_t) (lf - buf);

        n = end - st->pos;
        if (n != 0 && buf[end - 1] == CR) {
            n--;
        }

        rc = mpol_auth_http_line(st, buf, st->pos, n);

        st->pos = end + 1;
        st->scanned = end + 1;

        if (rc != MPOL_AGAIN) {
            return rc;
        }
    }

    return MPOL_AGAIN;
}


/* MPOL_AGAIN: there are more */

static int
mpol_auth_http_line(mpol_auth_http_t *st, const uint8_t *buf, size_t pos,
    size_t len)
{
    const uint8_t  *p;

    p = buf + pos;

    if (len != 0
        && (memchr(p, CR, len) != NULL || memchr(p, '\0', len) != NULL))
    {
        return MPOL_BAD;
    }

    if (st->status == 0) {
        return mpol_auth_http_status_line(st, p, len);
    }

    if (len == 0) {
        return MPOL_OK;
    }

    return mpol_auth_http_header(st, buf, pos, len);
}


static int
mpol_auth_http_status_line(mpol_auth_http_t *st, const uint8_t *p, size_t len)
{
    size_t    i;
    unsigned  status;

    /* the version up to its point was looked at before */

    i = sizeof(mpol_auth_http_version);

    if (len < i + 5 || p[i] < '0' || p[i] > '9' || p[i + 1] != ' ') {
        return MPOL_BAD;
    }

    st->persistent = (p[i] != '0');

    status = 0;

    for (i = i + 2; i < sizeof(mpol_auth_http_version) + 5; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return MPOL_BAD;
        }

        status = status * 10 + (unsigned) (p[i] - '0');
    }

    if (status < 100 || status > 599 || (i < len && p[i] != ' ')) {
        return MPOL_BAD;
    }

    st->status = status;

    return MPOL_AGAIN;
}


static int
mpol_auth_http_header(mpol_auth_http_t *st, const uint8_t *buf, size_t pos,
    size_t len)
{
    size_t          i, end;
    mpol_str_t      name, value;
    const uint8_t  *p;

    p = buf + pos;

    for (i = 0; i < len && mpol_auth_http_tchar(p[i]); i++) { /* void */ }

    if (i == 0 || i == len || p[i] != ':') {
        return MPOL_BAD;
    }

    name.data = p;
    name.len = i;

    for (i++; i < len && (p[i] == ' ' || p[i] == TAB); i++) { /* void */ }

    for (end = len;
         end > i && (p[end - 1] == ' ' || p[end - 1] == TAB);
         end--)
    {
        /* void */
    }

    value.data = p + i;
    value.len = end - i;

    if (value.len != 0) {
        mpol_auth_http_known(st, buf, &name, &value);
    }

    return MPOL_AGAIN;
}


static int
mpol_auth_http_tchar(uint8_t ch)
{
    static const uint8_t  others[] = {
        '!', '#', '$', '%', '&', '\'', '*', '+', '.', '^', '_', '`', '|', '~'
    };

    return mpol_word_octet(ch)
           || (ch != '\0' && memchr(others, ch, sizeof(others)) != NULL);
}


static void
mpol_auth_http_known(mpol_auth_http_t *st, const uint8_t *buf,
    const mpol_str_t *name, const mpol_str_t *value)
{
    size_t      n;
    mpol_str_t  before;

    for (n = 0; n < MPOL_AUTH_HTTP_FIELDS; n++) {
        if (mpol_word_same(name, mpol_auth_http_names[n].name,
                           mpol_auth_http_names[n].len))
        {
            break;
        }
    }

    if (n == MPOL_AUTH_HTTP_FIELDS) {
        mpol_auth_http_framing(st, name, value);
        return;
    }

    if (n == MPOL_AUTH_HTTP_STATUS) {
        before = mpol_auth_http_field(st, buf, MPOL_AUTH_HTTP_STATUS);

        if (before.len != 0 && !mpol_auth_http_ok(&before)) {
            return;
        }
    }

    st->fields[n].pos = (size_t) (value->data - buf);
    st->fields[n].len = value->len;
}


static void
mpol_auth_http_framing(mpol_auth_http_t *st, const mpol_str_t *name,
    const mpol_str_t *value)
{
    uint64_t  length;

    if (mpol_word_is(name, "CONTENT-LENGTH")) {

        if (mpol_word_number(value->data, value->len, &length) != MPOL_OK
            || (st->has_length && st->length != length))
        {
            st->unframed = 1;
            return;
        }

        st->has_length = 1;
        st->length = length;

    } else if (mpol_word_is(name, "TRANSFER-ENCODING")) {

        /* HTTP/1.0 was asked, which has none */

        st->unframed = 1;

    } else if (mpol_word_is(name, "CONNECTION")) {
        mpol_auth_http_connection(st, value);
    }
}


/* options, with commas between them */

static void
mpol_auth_http_connection(mpol_auth_http_t *st, const mpol_str_t *value)
{
    size_t      i;
    mpol_str_t  option;

    for (i = 0; i < value->len; i++) {

        if (!mpol_auth_http_tchar(value->data[i])) {
            continue;
        }

        option.data = value->data + i;

        while (i < value->len && mpol_auth_http_tchar(value->data[i])) {
            i++;
        }

        option.len = (size_t) (value->data + i - option.data);

        if (mpol_word_is(&option, "CLOSE")) {
            st->close = 1;

        } else if (mpol_word_is(&option, "KEEP-ALIVE")) {
            st->persistent = 1;
        }
    }
}


mpol_str_t
mpol_auth_http_field(const mpol_auth_http_t *st, const uint8_t *buf,
    mpol_auth_http_field_e field)
{
    mpol_str_t  value;

    value.data = buf + st->fields[field].pos;
    value.len = st->fields[field].len;

    return value;
}
