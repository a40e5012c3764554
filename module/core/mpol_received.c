
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_addr.h"
#include "mpol_received.h"


#define LINE      78
#define PROTOCOL  16                    /* octets of it */
#define ADDRESS   45                    /* INET6_ADDRSTRLEN without the NUL */

#define DAY       86400


/* the field so far */
typedef struct {
    uint8_t  *out;
    size_t    len;
    size_t    column;
} mpol_field_t;


static void mpol_field_literal(mpol_field_t *f, const mpol_str_t *address,
    int alone);
static void mpol_field_with(mpol_field_t *f, const mpol_received_t *r);
static void mpol_field_id(mpol_field_t *f, const mpol_received_t *r);
static void mpol_field_fold(mpol_field_t *f);
static void mpol_field_word(mpol_field_t *f, const uint8_t *p, size_t len);
static size_t mpol_number(uint64_t n, size_t digits, uint8_t *out);


#define mpol_field_text(f, text)                                             \
    mpol_field_word(f, (const uint8_t *) text, sizeof(text) - 1)


size_t
mpol_received_build(const mpol_received_t *r, uint8_t *out)
{
    size_t        n;
    uint8_t       word[1 + 255];
    uint8_t       date[MPOL_RECEIVED_DATE];
    mpol_field_t  f;

    memcpy(out, "Received:", 9);

    f.out = out;
    f.len = 9;
    f.column = 9;

    mpol_field_text(&f, "from");

    if (mpol_hostname_clean(r->helo.data, r->helo.len)) {
        mpol_field_word(&f, r->helo.data, r->helo.len);

    } else {
        mpol_field_text(&f, "unknown");
    }

    if (r->address.len != 0 && r->address.len <= ADDRESS) {

        if (mpol_hostname_clean(r->host.data, r->host.len)) {
            word[0] = '(';
            memcpy(word + 1, r->host.data, r->host.len);
            mpol_field_word(&f, word, 1 + r->host.len);
            mpol_field_literal(&f, &r->address, 0);

        } else {
            mpol_field_literal(&f, &r->address, 1);
        }
    }

    mpol_field_fold(&f);
    mpol_field_text(&f, "by");

    if (mpol_hostname_clean(r->name.data, r->name.len)) {
        mpol_field_word(&f, r->name.data, r->name.len);

    } else {
        mpol_field_text(&f, "unknown");
    }

    mpol_field_with(&f, r);
    mpol_field_id(&f, r);

    mpol_field_fold(&f);
    n = mpol_received_date(r->time, r->offset, date);
    mpol_field_word(&f, date, n);

    memcpy(out + f.len, "\r\n", 2);

    return f.len + 2;
}


/* RFC 5321, section 4.1.3; in brackets */

static void
mpol_field_literal(mpol_field_t *f, const mpol_str_t *address, int alone)
{
    size_t   n;
    uint8_t  word[sizeof("([IPv6:])") + ADDRESS];

    n = 0;

    if (alone) {
        word[n++] = '(';
    }

    word[n++] = '[';

    if (memchr(address->data, ':', address->len) != NULL) {
        memcpy(word + n, "IPv6:", 5);
        n += 5;
    }

    memcpy(word + n, address->data, address->len);
    n += address->len;

    memcpy(word + n, "])", 2);

    mpol_field_word(f, word, n + 2);
}


/* UTF8SMTP, UTF8SMTPA, UTF8SMTPS, UTF8SMTPSA: as ESMTP and its kin */

static void
mpol_field_with(mpol_field_t *f, const mpol_received_t *r)
{
    size_t          n, len;
    uint8_t         word[4 + PROTOCOL];
    const uint8_t  *p;

    p = r->protocol.data;
    len = r->protocol.len;

    if (len == 0 || len > PROTOCOL) {
        return;
    }

    n = 0;

    if (r->utf8 && p[0] == 'E') {
        memcpy(word, "UTF8", 4);
        n = 4;
        p++;
        len--;
    }

    memcpy(word + n, p, len);

    mpol_field_text(f, "with");
    mpol_field_word(f, word, n + len);
}


static void
mpol_field_id(mpol_field_t *f, const mpol_received_t *r)
{
    size_t   n;
    uint8_t  word[2 * 20 + 2];

    n = mpol_number(r->connection, 1, word);
    word[n++] = '-';
    n += mpol_number(r->transaction, 1, word + n);
    word[n++] = ';';

    mpol_field_text(f, "id");
    mpol_field_word(f, word, n);
}


static void
mpol_field_fold(mpol_field_t *f)
{
    memcpy(f->out + f->len, "\r\n\t", 3);

    f->len += 3;
    f->column = 1;
}


/* with a space before it, or in a line of its own */

static void
mpol_field_word(mpol_field_t *f, const uint8_t *p, size_t len)
{
    if (f->column != 1) {

        if (f->column + 1 + len > LINE) {
            mpol_field_fold(f);

        } else {
            f->out[f->len++] = ' ';
            f->column++;
        }
    }

    memcpy(f->out + f->len, p, len);

    f->len += len;
    f->column += len;
}


size_t
mpol_received_date(uint64_t time, int offset, uint8_t *out)
{
    size_t    n;
    uint64_t  days, secs, era, yoe, doy, month, minutes;

    static const char  wdays[] = "ThuFriSatSunMonTueWed";
    static const char  months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";

    if (offset < 0) {
        minutes = (uint64_t) -offset;
        time = (time > minutes * 60) ? time - minutes * 60 : 0;

    } else {
        minutes = (uint64_t) offset;
        time += minutes * 60;
    }

    secs = time % DAY;
    days = time / DAY;

    memcpy(out, wdays + days % 7 * 3, 3);
    memcpy(out + 3, ", ", 2);

    /* since 1 March of the year 0, in eras of 400 years: leap days are last */

    days += 719468;
    era = days / 146097;
    days %= 146097;

    yoe = (days - days / 1460 + days / 36524 - days / 146096) / 365;
    doy = days - (365 * yoe + yoe / 4 - yoe / 100);
    month = (5 * doy + 2) / 153;

    n = 5;
    n += mpol_number(doy - (153 * month + 2) / 5 + 1, 2, out + n);
    out[n++] = ' ';
    memcpy(out + n, months + month * 3, 3);
    n += 3;
    out[n++] = ' ';
    n += mpol_number((era * 400 + yoe + (month >= 10)) % 10000, 4, out + n);
    out[n++] = ' ';
    n += mpol_number(secs / 3600, 2, out + n);
    out[n++] = ':';
    n += mpol_number(secs / 60 % 60, 2, out + n);
    out[n++] = ':';
    n += mpol_number(secs % 60, 2, out + n);
    out[n++] = ' ';
    out[n++] = (offset < 0) ? '-' : '+';
    n += mpol_number(minutes / 60 % 100 * 100 + minutes % 60, 4, out + n);

    return n;
}


/* at least so many digits; returns how many */

static size_t
mpol_number(uint64_t n, size_t digits, uint8_t *out)
{
    size_t   i, len;
    uint8_t  text[20];

    len = 0;

    do {
        text[len++] = (uint8_t) ('0' + n % 10);
        n /= 10;
    } while (n != 0);

    while (len < digits) {
        text[len++] = '0';
    }

    for (i = 0; i < len; i++) {
        out[i] = text[len - 1 - i];
    }

    return len;
}
