
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Values with variables.  No events arrive here.
 *
 *     compile      a directive's text is cut into literals and names
 *     resolve      at the end of mail{}: names become variables or maps
 *     eval         for each use: parts are evaluated once each, then joined
 *
 * A compiled value is remembered in the main configuration by its parts and
 * its place in the file, since the value itself may be moved.
 */


#include "ngx_mail_policy_directive.h"


typedef struct {
    ngx_array_t                  *parts;    /* ngx_mail_policy_part_t */
    u_char                       *file;
    ngx_uint_t                    line;
} ngx_mail_policy_compiled_t;


/* how parts are joined */
typedef struct {
    ngx_mail_policy_escape_pt     escape;
    ngx_mail_policy_captures_t   *captures;
    ngx_uint_t                    key;      /* an empty part empties all */
} ngx_mail_policy_join_t;


static ngx_int_t ngx_mail_policy_value_name(ngx_conf_t *cf, ngx_str_t *text,
    u_char **pos, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_value_join(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_join_t *how,
    ngx_str_t *out);
static ngx_int_t ngx_mail_policy_value_part(ngx_mail_policy_use_t *use,
    ngx_mail_policy_part_t *part, ngx_mail_policy_captures_t *captures,
    ngx_str_t *out);
static ngx_int_t ngx_mail_policy_value_escape(ngx_pool_t *pool,
    ngx_str_t *piece);
static void ngx_mail_policy_value_capture(
    ngx_mail_policy_captures_t *captures, ngx_uint_t n, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_value_add(ngx_array_t *parts,
    ngx_str_t *text, ngx_uint_t named);
static ngx_uint_t ngx_mail_policy_value_name_char(u_char ch);


ngx_int_t
ngx_mail_policy_value_init(ngx_conf_t *cf, ngx_array_t *values)
{
    return ngx_array_init(values, cf->pool, 8,
                          sizeof(ngx_mail_policy_compiled_t));
}


ngx_int_t
ngx_mail_policy_value_compile(ngx_conf_t *cf, ngx_str_t *text,
    ngx_mail_policy_value_t *value)
{
    u_char                       *p, *last;
    ngx_str_t                     piece;
    ngx_array_t                  *parts;
    ngx_mail_policy_compiled_t   *compiled;
    ngx_mail_policy_main_conf_t  *mcf;

    ngx_memzero(value, sizeof(ngx_mail_policy_value_t));
    value->text = *text;

    if (!ngx_mail_policy_value_variables(text)) {
        return NGX_OK;
    }

    parts = ngx_array_create(cf->pool, 2, sizeof(ngx_mail_policy_part_t));
    if (parts == NULL) {
        return NGX_ERROR;
    }

    p = text->data;
    last = text->data + text->len;

    while (p < last) {

        if (*p == '$') {
            if (ngx_mail_policy_value_name(cf, text, &p, &piece) != NGX_OK) {
                return NGX_ERROR;
            }

            if (ngx_mail_policy_value_add(parts, &piece, 1) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        piece.data = p;

        while (p < last && *p != '$') {
            p++;
        }

        piece.len = p - piece.data;

        if (ngx_mail_policy_value_add(parts, &piece, 0) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    compiled = ngx_array_push(&mcf->values);
    if (compiled == NULL) {
        return NGX_ERROR;
    }

    compiled->parts = parts;
    compiled->file = cf->conf_file->file.name.data;
    compiled->line = cf->conf_file->line;

    value->parts = parts;

    return NGX_OK;
}


/* *pos is at the "$" of "$name" or "${name}", and is moved behind it */

static ngx_int_t
ngx_mail_policy_value_name(ngx_conf_t *cf, ngx_str_t *text, u_char **pos,
    ngx_str_t *name)
{
    u_char      *p, *last;
    ngx_uint_t   bracket;

    p = *pos + 1;
    last = text->data + text->len;
    bracket = 0;

    if (p < last && *p == '{') {
        bracket = 1;
        p++;
    }

    name->data = p;

    /* "$1" may be in front of anything, as in the rest of nginx */

    if (p < last && *p >= '1' && *p <= '9') {
        p++;

    } else {
        while (p < last && ngx_mail_policy_value_name_char(*p)) {
            p++;
        }
    }

    name->len = p - name->data;

    if (bracket) {
        if (p == last || *p != '}') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the closing bracket in \"%V\" "
                               "variable is missing", name);
            return NGX_ERROR;
        }

        p++;
    }

    if (name->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name in \"%V\"", text);
        return NGX_ERROR;
    }

    *pos = p;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_value_add(ngx_array_t *parts, ngx_str_t *text,
    ngx_uint_t named)
{
    ngx_mail_policy_part_t  *part;

    part = ngx_array_push(parts);
    if (part == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(part, sizeof(ngx_mail_policy_part_t));

    part->text = *text;
    part->named = named ? 1 : 0;

    return NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_value_name_char(u_char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
           || (ch >= '0' && ch <= '9') || ch == '_';
}


ngx_int_t
ngx_mail_policy_value_define(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf, ngx_str_t *text, ngx_str_t *name)
{
    size_t  i;

    name->len = text->len ? text->len - 1 : 0;
    name->data = text->data + 1;

    /* "$1" is what an expression captures */

    for (i = 0; i < name->len; i++) {
        if (!ngx_mail_policy_value_name_char(name->data[i])) {
            break;
        }
    }

    if (name->len == 0 || i < name->len || text->data[0] != '$'
        || (name->data[0] >= '1' && name->data[0] <= '9'))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name \"%V\", write letters, "
                           "digits and \"_\", as \"$my_variable\"", text);
        return NGX_ERROR;
    }

    if (ngx_mail_policy_variable_find(name)
        || ngx_mail_policy_map_find(&mcf->maps, name)
        || ngx_mail_policy_lookup_find(&mcf->lookups, name))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"%V\" variable", name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_mail_policy_value_variables(ngx_str_t *text)
{
    return ngx_strlchr(text->data, text->data + text->len, '$') != NULL;
}


ngx_int_t
ngx_mail_policy_value_resolve(ngx_conf_t *cf, void *conf)
{
    ngx_mail_policy_main_conf_t  *mcf = conf;

    ngx_uint_t                      i, n;
    ngx_mail_policy_map_t         **maps;
    ngx_mail_policy_part_t         *part;
    ngx_mail_policy_compiled_t     *compiled;
    ngx_mail_policy_lookup_conf_t **lookups;

    compiled = mcf->values.elts;

    for (i = 0; i < mcf->values.nelts; i++) {
        part = compiled[i].parts->elts;

        for (n = 0; n < compiled[i].parts->nelts; n++) {

            if (!part[n].named) {
                continue;
            }

            part[n].variable = ngx_mail_policy_variable_find(&part[n].text);

            if (part[n].variable) {
                continue;
            }

            part[n].map = ngx_mail_policy_map_find(&mcf->maps, &part[n].text);

            if (part[n].map) {
                continue;
            }

            part[n].lookup = ngx_mail_policy_lookup_find(&mcf->lookups,
                                                         &part[n].text);

            if (part[n].lookup == NULL) {
                ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                              "unknown \"%V\" variable in %s:%ui",
                              &part[n].text, compiled[i].file,
                              compiled[i].line);
                return NGX_ERROR;
            }
        }
    }

    maps = mcf->maps.elts;

    for (i = 0; i < mcf->maps.nelts; i++) {
        if (ngx_mail_policy_map_resolve(cf, maps[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    lookups = mcf->lookups.elts;

    for (i = 0; i < mcf->lookups.nelts; i++) {
        if (ngx_mail_policy_lookup_resolve(cf, lookups[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_value_follow(ngx_conf_t *cf, ngx_mail_policy_value_t *value)
{
    ngx_uint_t               i;
    ngx_mail_policy_part_t  *part;

    if (value->parts == NULL) {
        return NGX_OK;
    }

    part = value->parts->elts;

    for (i = 0; i < value->parts->nelts; i++) {
        if (part[i].map
            && ngx_mail_policy_map_resolve(cf, part[i].map) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (part[i].lookup
            && ngx_mail_policy_lookup_resolve(cf, part[i].lookup) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_mail_policy_value_phase(value);

    return NGX_OK;
}


void
ngx_mail_policy_value_phase(ngx_mail_policy_value_t *value)
{
    ngx_uint_t               i, phase;
    ngx_mail_policy_part_t  *part;

    value->phase = NGX_MAIL_POLICY_AT_CONNECT;
    value->lookups = 0;

    if (value->parts == NULL) {
        return;
    }

    part = value->parts->elts;

    for (i = 0; i < value->parts->nelts; i++) {

        if (part[i].variable) {
            phase = part[i].variable->phase;

        } else if (part[i].map) {
            phase = part[i].map->phase;
            value->lookups |= part[i].map->lookups;

        } else if (part[i].lookup) {
            phase = part[i].lookup->phase;
            value->lookups |= part[i].lookup->lookups;

        } else {
            continue;
        }

        value->phase = ngx_max(value->phase, phase);
    }
}


ngx_int_t
ngx_mail_policy_value_eval(ngx_pool_t *pool, ngx_mail_policy_value_t *value,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *out)
{
    ngx_mail_policy_use_t   use = { pool, envelope, NULL };
    ngx_mail_policy_join_t  how = { NULL, NULL, 0 };

    return ngx_mail_policy_value_join(&use, value, &how, out);
}


ngx_int_t
ngx_mail_policy_value_eval_key(ngx_pool_t *pool,
    ngx_mail_policy_value_t *value, ngx_mail_policy_envelope_t *envelope,
    ngx_str_t *out)
{
    ngx_mail_policy_use_t   use = { pool, envelope, NULL };
    ngx_mail_policy_join_t  how = { NULL, NULL, 1 };

    return ngx_mail_policy_value_join(&use, value, &how, out);
}


ngx_int_t
ngx_mail_policy_value_eval_name(ngx_pool_t *pool,
    ngx_mail_policy_value_t *value, ngx_mail_policy_envelope_t *envelope,
    ngx_str_t *out)
{
    ngx_mail_policy_use_t   use = { pool, envelope, NULL };
    ngx_mail_policy_join_t  how = { ngx_mail_policy_value_escape, NULL, 1 };

    return ngx_mail_policy_value_join(&use, value, &how, out);
}


ngx_int_t
ngx_mail_policy_value_use(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_escape_pt escape,
    ngx_str_t *out)
{
    ngx_mail_policy_join_t  how = { escape, NULL, 0 };

    return ngx_mail_policy_value_join(use, value, &how, out);
}


ngx_int_t
ngx_mail_policy_value_captured(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_captures_t *captures,
    ngx_str_t *out)
{
    ngx_mail_policy_join_t  how = { NULL, captures, 0 };

    return ngx_mail_policy_value_join(use, value, &how, out);
}


static ngx_int_t
ngx_mail_policy_value_join(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_join_t *how,
    ngx_str_t *out)
{
    size_t                   len;
    u_char                  *p;
    ngx_str_t               *piece;
    ngx_uint_t               i, n;
    ngx_mail_policy_part_t  *part;

    if (value->parts == NULL) {
        *out = value->text;
        return NGX_OK;
    }

    part = value->parts->elts;
    n = value->parts->nelts;

    piece = ngx_palloc(use->pool, n * sizeof(ngx_str_t));
    if (piece == NULL) {
        return NGX_ERROR;
    }

    len = 0;

    for (i = 0; i < n; i++) {

        if (ngx_mail_policy_value_part(use, &part[i], how->captures,
                                       &piece[i])
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (how->key && piece[i].len == 0) {
            ngx_str_null(out);
            return NGX_OK;
        }

        if (how->escape && part[i].named
            && how->escape(use->pool, &piece[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }

        len += piece[i].len;
    }

    /* also one variable alone is copied: the envelope may change */

    p = ngx_pnalloc(use->pool, len ? len : 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;
    out->len = len;

    for (i = 0; i < n; i++) {
        p = ngx_cpymem(p, piece[i].data, piece[i].len);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_value_part(ngx_mail_policy_use_t *use,
    ngx_mail_policy_part_t *part, ngx_mail_policy_captures_t *captures,
    ngx_str_t *out)
{
    ngx_mail_policy_variable_t  *variable;

    variable = part->variable;

    if (variable) {
        return variable->handler(use->pool, use->envelope, variable->data,
                                 out);
    }

    if (part->map) {
        return ngx_mail_policy_map_eval(use, part->map, out);
    }

    if (part->lookup) {
        return ngx_mail_policy_lookup_eval(use->pool, part->lookup,
                                           use->envelope, out);
    }

    if (part->captured) {
        ngx_mail_policy_value_capture(captures, part->capture, out);
        return NGX_OK;
    }

    *out = part->text;

    return NGX_OK;
}


/* a group that took no part in the match is empty */

static void
ngx_mail_policy_value_capture(ngx_mail_policy_captures_t *captures,
    ngx_uint_t n, ngx_str_t *out)
{
    int  *offset;

    ngx_str_null(out);

    if (captures == NULL || 2 * n + 1 >= captures->n) {
        return;
    }

    offset = &captures->offsets[2 * n];

    if (offset[0] >= 0 && offset[1] > offset[0]) {
        out->data = captures->source.data + offset[0];
        out->len = offset[1] - offset[0];
    }
}


static ngx_int_t
ngx_mail_policy_value_escape(ngx_pool_t *pool, ngx_str_t *piece)
{
    u_char  *p;
    size_t   len;

    p = ngx_pnalloc(pool, NGX_MAIL_POLICY_KEY_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    len = ngx_mail_policy_store_escape(piece, p);
    if (len == 0) {
        return NGX_ERROR;
    }

    piece->data = p;
    piece->len = len;

    return NGX_OK;
}
