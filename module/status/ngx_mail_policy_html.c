
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * HTML, written from the beginning to the end.  No events arrive here.
 */


#include "ngx_mail_policy_html.h"
#include "mpol_text.h"


/* of any number */
#define NGX_MAIL_POLICY_HTML_NUMBER  (NGX_INT64_LEN + NGX_INT64_LEN / 3 + 8)


static void ngx_mail_policy_html_text(ngx_mail_policy_html_t *h,
    const u_char *data, size_t len);
static void ngx_mail_policy_html_escaped(ngx_mail_policy_html_t *h,
    ngx_str_t *text);
static u_char *ngx_mail_policy_html_number(u_char *p, int c, uint64_t n);
static u_char *ngx_mail_policy_html_grouped(u_char *p, uint64_t n);
static u_char *ngx_mail_policy_html_rate(u_char *p, uint64_t n);
static u_char *ngx_mail_policy_html_scaled(u_char *p, uint64_t n,
    uint64_t scale, const char *unit);
static u_char *ngx_mail_policy_html_octets(u_char *p, uint64_t n);
static u_char *ngx_mail_policy_html_age(u_char *p, uint64_t n);
static u_char *ngx_mail_policy_html_clock(u_char *p, uint64_t n);


void
ngx_mail_policy_html(ngx_mail_policy_html_t *h, const char *fmt, ...)
{
    va_list                  args;
    uint64_t                 number;
    const char              *p, *text;
    ngx_mail_policy_html_t  *other;

    va_start(args, fmt);

    for (p = fmt; *p; p = fmt) {

        while (*p && *p != '%') {
            p++;
        }

        ngx_mail_policy_html_text(h, (u_char *) fmt, p - fmt);

        if (*p == '\0') {
            break;
        }

        fmt = p + 2;

        switch (p[1]) {

        case '%':
            ngx_mail_policy_html_text(h, (u_char *) "%", 1);
            break;

        case 's':
            text = va_arg(args, const char *);
            ngx_mail_policy_html_text(h, (u_char *) text, ngx_strlen(text));
            break;

        case 't':
            ngx_mail_policy_html_escaped(h, va_arg(args, ngx_str_t *));
            break;

        case 'h':
            other = va_arg(args, ngx_mail_policy_html_t *);
            ngx_mail_policy_html_text(h, other->start,
                                      other->last - other->start);
            h->error |= other->error;
            break;

        default:
            number = va_arg(args, uint64_t);

            if (ngx_mail_policy_json_reserve(h, NGX_MAIL_POLICY_HTML_NUMBER)
                == NGX_OK)
            {
                h->last = ngx_mail_policy_html_number(h->last, p[1], number);
            }
        }
    }

    va_end(args);
}


static void
ngx_mail_policy_html_text(ngx_mail_policy_html_t *h, const u_char *data,
    size_t len)
{
    if (ngx_mail_policy_json_reserve(h, len) == NGX_OK) {
        h->last = ngx_cpymem(h->last, data, len);
    }
}


static void
ngx_mail_policy_html_escaped(ngx_mail_policy_html_t *h, ngx_str_t *text)
{
    size_t  n;

    n = mpol_html_escape(text->data, text->len, NULL, 0);

    if (ngx_mail_policy_json_reserve(h, n) == NGX_OK) {
        h->last += mpol_html_escape(text->data, text->len, h->last, n);
    }
}


static u_char *
ngx_mail_policy_html_number(u_char *p, int c, uint64_t n)
{
    switch (c) {

    case 'n':
        return ngx_mail_policy_html_grouped(p, n);

    case 'r':
        return ngx_mail_policy_html_rate(p, n);

    case 'b':
        return ngx_mail_policy_html_octets(p, n);

    case 'u':
        if (n < 1000000) {
            return ngx_mail_policy_html_scaled(p, n, 1000, " ms");
        }

        return ngx_mail_policy_html_scaled(p, n, 1000000, " s");

    case 'a':
        return ngx_mail_policy_html_age(p, n);

    case 'c':
        return ngx_mail_policy_html_clock(p, n);

    default:
        return ngx_sprintf(p, "%uL", n);
    }
}


static u_char *
ngx_mail_policy_html_grouped(u_char *p, uint64_t n)
{
    if (n >= 1000) {
        p = ngx_mail_policy_html_grouped(p, n / 1000);
        return ngx_sprintf(p, ",%03uL", n % 1000);
    }

    return ngx_sprintf(p, "%uL", n);
}


static u_char *
ngx_mail_policy_html_rate(u_char *p, uint64_t n)
{
    if (n == 0) {
        *p++ = '0';
        return p;
    }

    /* what rounds to nothing is something nevertheless */

    if (n < 10000) {
        return ngx_sprintf(p, "%uL.%02uL", n / 1000,
                           ngx_max(n % 1000 / 10, (n < 10) ? 1 : 0));
    }

    if (n < 100000) {
        return ngx_sprintf(p, "%uL.%uL", n / 1000, n % 1000 / 100);
    }

    return ngx_mail_policy_html_grouped(p, n / 1000);
}


/* two digits that say something, or all in front of the point */

static u_char *
ngx_mail_policy_html_scaled(u_char *p, uint64_t n, uint64_t scale,
    const char *unit)
{
    if (n == 0) {
        p = ngx_sprintf(p, "0");

    } else if (n < scale) {
        p = ngx_sprintf(p, "0.%02uL", ngx_max(n * 100 / scale, 1));

    } else if (n < 10 * scale) {
        p = ngx_sprintf(p, "%uL.%uL", n / scale, n % scale * 10 / scale);

    } else {
        p = ngx_mail_policy_html_grouped(p, n / scale);
    }

    return ngx_sprintf(p, "%s", unit);
}


static u_char *
ngx_mail_policy_html_octets(u_char *p, uint64_t n)
{
    ngx_uint_t  i;
    uint64_t    scale;

    static const char  *units[] = { " kB", " MB", " GB", " TB", " PB" };

    if (n < 1000) {
        return ngx_sprintf(p, "%uL B", n);
    }

    for (i = 0, scale = 1000; i < 4 && n / scale >= 1000; i++) {
        scale *= 1000;
    }

    return ngx_mail_policy_html_scaled(p, n, scale, units[i]);
}


static u_char *
ngx_mail_policy_html_age(u_char *p, uint64_t n)
{
    if (n < 120) {
        return ngx_sprintf(p, "%uL s", n);
    }

    if (n < 2 * 3600) {
        return ngx_sprintf(p, "%uL min", n / 60);
    }

    if (n < 2 * 86400) {
        return ngx_sprintf(p, "%uL h", n / 3600);
    }

    return ngx_sprintf(p, "%uL d", n / 86400);
}


/* in the time zone of the log: localtime() is none for a busy worker */

static u_char *
ngx_mail_policy_html_clock(u_char *p, uint64_t n)
{
    ngx_tm_t  tm;

    ngx_gmtime((time_t) n + ngx_cached_time->gmtoff * 60, &tm);

    return ngx_sprintf(p, "%02d:%02d", tm.ngx_tm_hour, tm.ngx_tm_min);
}
