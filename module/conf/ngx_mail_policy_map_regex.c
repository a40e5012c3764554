
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Regular expressions among the keys of a map: "~regex" and "~*regex", where
 * nginx is built with PCRE.  What they capture, as "$1" or by a name, may
 * stand in the result of this key.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"

#include "ngx_mail_policy_log.h"


#if (NGX_PCRE)


/*
 * Clients choose the strings, and a worker does nothing else meanwhile: PCRE
 * gives up after a millisecond or so, instead of its own ten million steps.
 * An expression may begin with a lower limit.
 */

#define NGX_MAIL_POLICY_MAP_REGEX_LIMIT  "(*LIMIT_MATCH=100000)"


typedef struct {
    ngx_regex_t                  *regex;
    ngx_str_t                     pattern;
    ngx_uint_t                    captures;     /* groups */
    ngx_mail_policy_value_t      *result;
} ngx_mail_policy_map_regex_t;


static ngx_int_t ngx_mail_policy_map_regex_compile(ngx_conf_t *cf,
    ngx_str_t *key, ngx_regex_compile_t *rc);
static ngx_int_t ngx_mail_policy_map_regex_limited(ngx_conf_t *cf,
    ngx_regex_compile_t *rc);
static ngx_int_t ngx_mail_policy_map_regex_captures(ngx_conf_t *cf,
    ngx_regex_compile_t *rc, ngx_mail_policy_value_t *result);
static ngx_uint_t ngx_mail_policy_map_regex_group(ngx_regex_compile_t *rc,
    ngx_str_t *name);


ngx_int_t
ngx_mail_policy_map_regex(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *key, ngx_str_t *text)
{
    ngx_regex_compile_t            rc;
    ngx_mail_policy_value_t       *result, **results;
    ngx_mail_policy_map_regex_t   *regex;

    if (ngx_mail_policy_map_regex_compile(cf, key, &rc) != NGX_OK) {
        return NGX_ERROR;
    }

    /* not shared with other keys, whose "$1" would be another one */

    result = ngx_palloc(cf->pool, sizeof(ngx_mail_policy_value_t));
    if (result == NULL) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_value_compile(cf, text, result) != NGX_OK
        || ngx_mail_policy_map_regex_captures(cf, &rc, result) != NGX_OK)
    {
        return NGX_ERROR;
    }

    results = ngx_array_push(&map->results);
    if (results == NULL) {
        return NGX_ERROR;
    }

    *results = result;

    if (map->regexes == NULL) {
        map->regexes = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_mail_policy_map_regex_t));
        if (map->regexes == NULL) {
            return NGX_ERROR;
        }
    }

    regex = ngx_array_push(map->regexes);
    if (regex == NULL) {
        return NGX_ERROR;
    }

    regex->regex = rc.regex;
    regex->pattern = *key;
    regex->captures = rc.captures;
    regex->result = result;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_map_regex_compile(ngx_conf_t *cf, ngx_str_t *key,
    ngx_regex_compile_t *rc)
{
    u_char  errstr[NGX_MAX_CONF_ERRSTR];

    ngx_memzero(rc, sizeof(ngx_regex_compile_t));

    rc->pattern.len = key->len - 1;
    rc->pattern.data = key->data + 1;

    if (rc->pattern.len && rc->pattern.data[0] == '*') {
        rc->pattern.len--;
        rc->pattern.data++;
        rc->options = NGX_REGEX_CASELESS;
    }

    if (rc->pattern.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "empty regular expression \"%V\" in a map, write "
                           "\"\\%V\" for that text", key, key);
        return NGX_ERROR;
    }

    rc->pool = cf->pool;
    rc->err.len = NGX_MAX_CONF_ERRSTR;
    rc->err.data = errstr;

    if (ngx_mail_policy_map_regex_limited(cf, rc) == NGX_OK) {
        return NGX_OK;
    }

    /* what is wrong is told as it was written; PCRE 8.32 has no limit */

    rc->err.len = NGX_MAX_CONF_ERRSTR;

    if (ngx_regex_compile(rc) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V", &rc->err);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_map_regex_limited(ngx_conf_t *cf, ngx_regex_compile_t *rc)
{
    u_char     *p;
    ngx_int_t   rv;
    ngx_str_t   written, limit;

    ngx_str_set(&limit, NGX_MAIL_POLICY_MAP_REGEX_LIMIT);

    written = rc->pattern;

    rc->pattern.len += limit.len;
    rc->pattern.data = ngx_pnalloc(cf->pool, rc->pattern.len + 1);

    if (rc->pattern.data == NULL) {
        rc->pattern = written;
        return NGX_ERROR;
    }

    p = ngx_cpymem(rc->pattern.data, limit.data, limit.len);
    p = ngx_cpymem(p, written.data, written.len);
    *p = '\0';

    rv = ngx_regex_compile(rc);

    rc->pattern = written;

    return rv;
}


/* names in the result that are groups of the expression */

static ngx_int_t
ngx_mail_policy_map_regex_captures(ngx_conf_t *cf, ngx_regex_compile_t *rc,
    ngx_mail_policy_value_t *result)
{
    ngx_uint_t               i, n;
    ngx_mail_policy_part_t  *part;

    if (result->parts == NULL) {
        return NGX_OK;
    }

    part = result->parts->elts;

    for (i = 0; i < result->parts->nelts; i++) {

        if (!part[i].named) {
            continue;
        }

        n = ngx_mail_policy_map_regex_group(rc, &part[i].text);

        if (n == 0) {
            continue;
        }

        if (n > (ngx_uint_t) rc->captures) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"$%V\" in \"%V\", but the regular "
                               "expression has %i groups", &part[i].text,
                               &result->text, (ngx_int_t) rc->captures);
            return NGX_ERROR;
        }

        part[i].named = 0;
        part[i].captured = 1;
        part[i].capture = n;

        result->captures = 1;
    }

    return NGX_OK;
}


/* 0 if there is none of that name */

static ngx_uint_t
ngx_mail_policy_map_regex_group(ngx_regex_compile_t *rc, ngx_str_t *name)
{
    int      i;
    u_char  *p;

    if (name->len == 1 && name->data[0] >= '1' && name->data[0] <= '9') {
        return name->data[0] - '0';
    }

    p = rc->names;

    for (i = 0; i < rc->named_captures; i++, p += rc->name_size) {

        if (ngx_strlen(p + 2) == name->len
            && ngx_strncmp(p + 2, name->data, name->len) == 0)
        {
            return (p[0] << 8) + p[1];
        }
    }

    return 0;
}


ngx_int_t
ngx_mail_policy_map_regex_find(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *source, ngx_str_t *out)
{
    ngx_int_t                     rc;
    ngx_str_t                     text;
    ngx_uint_t                    i;
    ngx_mail_policy_captures_t    captures;
    ngx_mail_policy_map_regex_t  *regex;

    regex = map->regexes->elts;

    for (i = 0; i < map->regexes->nelts; i++) {

        /* two offsets a group, and room that PCRE works in */

        captures.source = *source;
        captures.n = 3 * (regex[i].captures + 1);
        captures.offsets = ngx_palloc(use->pool, captures.n * sizeof(int));
        if (captures.offsets == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_regex_exec(regex[i].regex, source, captures.offsets,
                            captures.n);

        if (rc == NGX_REGEX_NO_MATCHED) {
            continue;
        }

        if (rc < 0) {

            /* the limit, which a client can bring about */

            text = *source;

            if (ngx_mail_policy_log_escape(use->pool, &text) != NGX_OK) {
                return NGX_ERROR;
            }

            ngx_log_error(NGX_LOG_ERR, use->envelope->connection->log, 0,
                          ngx_regex_exec_n " failed: %i on \"%V\" using "
                          "\"%V\"", rc, &text, &regex[i].pattern);
            continue;
        }

        captures.n = 2 * (regex[i].captures + 1);

        return ngx_mail_policy_value_captured(use, regex[i].result, &captures,
                                              out);
    }

    return NGX_DECLINED;
}


#else


ngx_int_t
ngx_mail_policy_map_regex(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *key, ngx_str_t *text)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "regular expression \"%V\" in a map needs nginx with "
                       "PCRE, write whole strings or build it without "
                       "--without-pcre", key);

    return NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_map_regex_find(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *source, ngx_str_t *out)
{
    return NGX_DECLINED;
}


#endif
