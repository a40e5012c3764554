
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Formats of stored passwords: which we know, and what they cost.  No events
 * arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_scram_server.h"
#include "ngx_mail_policy_crypt.h"


/* costs above these keep a thread for many seconds: a mistyped record */
#define NGX_MAIL_POLICY_CRYPT_COST    16
#define NGX_MAIL_POLICY_CRYPT_ROUNDS  1000000


static ngx_uint_t ngx_mail_policy_crypt_check_bcrypt(u_char *p, u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_sha(u_char *p, u_char *last,
    size_t len);
static ngx_uint_t ngx_mail_policy_crypt_check_yescrypt(u_char *p,
    u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_salt(u_char *p, u_char *last,
    size_t max, size_t len);
static ngx_uint_t ngx_mail_policy_crypt_check_text(u_char *p, u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_plain(u_char *p, u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_scram(u_char *p, u_char *last);


ngx_int_t
ngx_mail_policy_crypt_check(ngx_str_t *hash)
{
    u_char      *p, *last;
    ngx_uint_t   ok;

    p = hash->data;
    last = p + hash->len;

    if (ngx_mail_policy_crypt_plain(hash)) {
        p += sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;
        ok = ngx_mail_policy_crypt_check_plain(p, last);

    } else if (ngx_mail_policy_crypt_scram(hash)) {
        p += sizeof(NGX_MAIL_POLICY_CRYPT_SCRAM) - 1;
        ok = ngx_mail_policy_crypt_check_scram(p, last);

    } else if (ngx_mail_policy_crypt_is(hash, "$2b$")
               || ngx_mail_policy_crypt_is(hash, "$2y$"))
    {
        ok = ngx_mail_policy_crypt_check_bcrypt(p + 4, last);

    } else if (ngx_mail_policy_crypt_is(hash, "$5$")) {
        ok = ngx_mail_policy_crypt_check_sha(p + 3, last, 43);

    } else if (ngx_mail_policy_crypt_is(hash, "$6$")) {
        ok = ngx_mail_policy_crypt_check_sha(p + 3, last, 86);

    } else if (ngx_mail_policy_crypt_is(hash, "$y$")) {
        ok = ngx_mail_policy_crypt_check_yescrypt(p + 3, last);

    } else {
        ok = 0;
    }

    return ok ? NGX_OK : NGX_DECLINED;
}


/* secrets that no client could send are a mistake */

static ngx_uint_t
ngx_mail_policy_crypt_check_plain(u_char *p, u_char *last)
{
    size_t  len;

    len = last - p;

    return len > 0
           && len <= MPOL_PASSWORD_MAX
           && ngx_strlchr(p, last, '\0') == NULL
           && mpol_utf8_valid(p, len);
}


static ngx_uint_t
ngx_mail_policy_crypt_check_scram(u_char *p, u_char *last)
{
    mpol_scram_secret_t  secret;

    return mpol_scram_secret(p, last - p, &secret) == MPOL_OK;
}


/* 2DIGIT "$" 22 salt, 31 hash */

static ngx_uint_t
ngx_mail_policy_crypt_check_bcrypt(u_char *p, u_char *last)
{
    ngx_int_t  cost;

    if (last - p != 2 + 1 + 22 + 31 || p[2] != '$') {
        return 0;
    }

    cost = ngx_atoi(p, 2);

    return cost >= 4
           && cost <= NGX_MAIL_POLICY_CRYPT_COST
           && ngx_mail_policy_crypt_check_text(p + 3, last);
}


/* [ "rounds=" number "$" ] salt "$" hash */

static ngx_uint_t
ngx_mail_policy_crypt_check_sha(u_char *p, u_char *last, size_t len)
{
    u_char     *end;
    ngx_int_t   rounds;

    if (last - p > 7 && ngx_memcmp(p, "rounds=", 7) == 0) {
        p += 7;

        end = ngx_strlchr(p, last, '$');
        if (end == NULL || *p == '0') {
            return 0;
        }

        rounds = ngx_atoi(p, end - p);

        if (rounds < 1000 || rounds > NGX_MAIL_POLICY_CRYPT_ROUNDS) {
            return 0;
        }

        p = end + 1;
    }

    return ngx_mail_policy_crypt_check_salt(p, last, 16, len);
}


/*
 * "j" N r "$" salt "$" hash: what crypt_gensalt(3) makes; N and r are digits
 * of "./0-9A-Za-z" and set the memory, with these bounds 256 megabytes
 */

static ngx_uint_t
ngx_mail_policy_crypt_check_yescrypt(u_char *p, u_char *last)
{
    if (last - p < 4
        || !ngx_mail_policy_crypt_check_text(p, p + 3)
        || p[0] != 'j'
        || p[1] > 'D'
        || p[2] > 'T'
        || p[3] != '$')
    {
        return 0;
    }

    return ngx_mail_policy_crypt_check_salt(p + 4, last, 86, 43);
}


static ngx_uint_t
ngx_mail_policy_crypt_check_salt(u_char *p, u_char *last, size_t max,
    size_t len)
{
    u_char  *end;

    end = ngx_strlchr(p, last, '$');

    return end != NULL
           && end > p
           && (size_t) (end - p) <= max
           && (size_t) (last - end - 1) == len
           && ngx_mail_policy_crypt_check_text(p, end)
           && ngx_mail_policy_crypt_check_text(end + 1, last);
}


static ngx_uint_t
ngx_mail_policy_crypt_check_text(u_char *p, u_char *last)
{
    u_char  ch;

    while (p < last) {
        ch = *p++;

        if (!((ch >= '.' && ch <= '9')
              || (ch >= 'A' && ch <= 'Z')
              || (ch >= 'a' && ch <= 'z')))
        {
            return 0;
        }
    }

    return 1;
}


size_t
ngx_mail_policy_crypt_setting(ngx_str_t *hash)
{
    size_t   len;
    u_char  *p, *last;

    switch (ngx_mail_policy_crypt_kind(hash)) {

    case NGX_MAIL_POLICY_CRYPT_CLEAR:
        return sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;

    case NGX_MAIL_POLICY_CRYPT_KEYS:
        last = hash->data + hash->len;
        p = hash->data + ngx_mail_policy_crypt_cost(hash);
        p = ngx_strlchr(p, last, ',');

        return (p ? p + 1 : last) - hash->data;

    default: /* NGX_MAIL_POLICY_CRYPT_PASSWORD */
        break;
    }

    if (ngx_mail_policy_crypt_is(hash, "$2")) {
        return ngx_min(hash->len, 4 + 2 + 1 + 22);
    }

    for (len = hash->len; len && hash->data[len - 1] != '$'; len--) {
        /* void */
    }

    return len;
}


/*
 * "{PLAIN}", "{SCRAM-SHA-256}4096,", "$2b$10$", "$y$j9T$", "$6$rounds=5000$"
 * or "$6$"
 */

size_t
ngx_mail_policy_crypt_cost(ngx_str_t *hash)
{
    u_char  *p, *last;

    last = hash->data + hash->len;

    switch (ngx_mail_policy_crypt_kind(hash)) {

    case NGX_MAIL_POLICY_CRYPT_CLEAR:
        return sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;

    case NGX_MAIL_POLICY_CRYPT_KEYS:
        p = ngx_strlchr(hash->data, last, ',');
        break;

    default: /* NGX_MAIL_POLICY_CRYPT_PASSWORD */
        if (hash->len <= 3) {
            return hash->len;
        }

        if ((hash->data[1] == '5' || hash->data[1] == '6')
            && hash->data[3] != 'r')
        {
            return 3;
        }

        p = ngx_strlchr(hash->data + ((hash->data[1] == '2') ? 4 : 3), last,
                        '$');
        break;
    }

    return (p ? p + 1 : last) - hash->data;
}


ngx_mail_policy_crypt_kind_e
ngx_mail_policy_crypt_kind(ngx_str_t *hash)
{
    if (ngx_mail_policy_crypt_plain(hash)) {
        return NGX_MAIL_POLICY_CRYPT_CLEAR;
    }

    if (ngx_mail_policy_crypt_scram(hash)) {
        return NGX_MAIL_POLICY_CRYPT_KEYS;
    }

    return NGX_MAIL_POLICY_CRYPT_PASSWORD;
}
