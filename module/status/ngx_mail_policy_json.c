
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * JSON, written from the beginning to the end.  No events arrive here.
 */


#include "ngx_mail_policy_json.h"
#include "mpol_text.h"


static void ngx_mail_policy_json_comma(ngx_mail_policy_json_t *j);


ngx_int_t
ngx_mail_policy_json_reserve(ngx_mail_policy_json_t *j, size_t n)
{
    size_t   size;
    u_char  *p;

    if ((size_t) (j->end - j->last) >= n) {
        return NGX_OK;
    }

    size = ngx_max((size_t) (j->last - j->start) + n,
                   2 * (size_t) (j->end - j->start));
    size = ngx_max(size, 2048);

    p = j->error ? NULL : ngx_pnalloc(j->pool, size);
    if (p == NULL) {
        j->error = 1;
        return NGX_ERROR;
    }

    j->last = j->start ? ngx_cpymem(p, j->start, j->last - j->start) : p;
    j->start = p;
    j->end = p + size;

    return NGX_OK;
}


void
ngx_mail_policy_json_raw(ngx_mail_policy_json_t *j, const char *text)
{
    size_t  len;

    len = ngx_strlen(text);

    if (ngx_mail_policy_json_reserve(j, len) == NGX_OK) {
        j->last = ngx_cpymem(j->last, text, len);
    }
}


void
ngx_mail_policy_json_value(ngx_mail_policy_json_t *j, ngx_str_t *value)
{
    size_t  n;

    /* an octet becomes \u00XX at the most: mostly there is room for that */

    n = 6 * value->len;

    if ((size_t) (j->end - j->last) < n + 2) {
        n = mpol_json_escape(value->data, value->len, NULL, 0);

        if (ngx_mail_policy_json_reserve(j, n + 2) != NGX_OK) {
            return;
        }
    }

    *j->last++ = '"';
    j->last += mpol_json_escape(value->data, value->len, j->last, n);
    *j->last++ = '"';
}


void
ngx_mail_policy_json_name(ngx_mail_policy_json_t *j, const char *name)
{
    ngx_mail_policy_json_comma(j);
    ngx_mail_policy_json_raw(j, "\"");
    ngx_mail_policy_json_raw(j, name);
    ngx_mail_policy_json_raw(j, "\":");
}


static void
ngx_mail_policy_json_comma(ngx_mail_policy_json_t *j)
{
    if (j->last > j->start && j->last[-1] != '{' && j->last[-1] != '[') {
        ngx_mail_policy_json_raw(j, ",");
    }
}


void
ngx_mail_policy_json_open(ngx_mail_policy_json_t *j, const char *name,
    const char *begin)
{
    if (name) {
        ngx_mail_policy_json_name(j, name);

    } else {
        ngx_mail_policy_json_comma(j);
    }

    ngx_mail_policy_json_raw(j, begin);
}


void
ngx_mail_policy_json_close(ngx_mail_policy_json_t *j, const char *end)
{
    ngx_mail_policy_json_raw(j, end);
}


void
ngx_mail_policy_json_str(ngx_mail_policy_json_t *j, const char *name,
    ngx_str_t *value)
{
    if (value->len == 0) {
        return;
    }

    ngx_mail_policy_json_name(j, name);
    ngx_mail_policy_json_value(j, value);
}


void
ngx_mail_policy_json_text(ngx_mail_policy_json_t *j, const char *name,
    const char *text)
{
    ngx_str_t  value;

    value.data = (u_char *) text;
    value.len = ngx_strlen(text);

    ngx_mail_policy_json_str(j, name, &value);
}


void
ngx_mail_policy_json_num(ngx_mail_policy_json_t *j, const char *name,
    uint64_t value)
{
    ngx_mail_policy_json_name(j, name);

    if (ngx_mail_policy_json_reserve(j, NGX_INT64_LEN) == NGX_OK) {
        j->last = ngx_sprintf(j->last, "%uL", value);
    }
}


void
ngx_mail_policy_json_bool(ngx_mail_policy_json_t *j, const char *name,
    ngx_uint_t value)
{
    ngx_mail_policy_json_name(j, name);
    ngx_mail_policy_json_raw(j, value ? "true" : "false");
}


void
ngx_mail_policy_json_part(ngx_mail_policy_json_t *j, const char *name,
    uint64_t n, uint64_t unit)
{
    ngx_mail_policy_json_name(j, name);
    ngx_mail_policy_json_decimal(j, n, unit);
}


void
ngx_mail_policy_json_decimal(ngx_mail_policy_json_t *j, uint64_t n,
    uint64_t unit)
{
    if (ngx_mail_policy_json_reserve(j, 2 * NGX_INT64_LEN) != NGX_OK) {
        return;
    }

    j->last = ngx_sprintf(j->last, "%uL.", n / unit);

    for (n %= unit; unit > 1; n %= unit) {
        unit /= 10;
        *j->last++ = (u_char) ('0' + n / unit);
    }
}


void
ngx_mail_policy_json_sec(ngx_mail_policy_json_t *j, const char *name,
    ngx_msec_t from)
{
    ngx_mail_policy_json_part(j, name, ngx_current_msec - from, 1000);
}
