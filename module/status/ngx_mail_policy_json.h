
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A writer of JSON on a pool.  Whatever a client chose is escaped so that the
 * text stays one line and valid.  Zero it, set pool, write; the text is
 * [start, last) unless error is set: no memory.
 */


#ifndef NGX_MAIL_POLICY_JSON_H
#define NGX_MAIL_POLICY_JSON_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_pool_t  *pool;
    u_char      *start;
    u_char      *last;
    u_char      *end;
    ngx_uint_t   error;
} ngx_mail_policy_json_t;


/* room for n octets at last; NGX_ERROR: no memory, and error is set */
ngx_int_t ngx_mail_policy_json_reserve(ngx_mail_policy_json_t *j, size_t n);

/* as it is: punctuation, names */
void ngx_mail_policy_json_raw(ngx_mail_policy_json_t *j, const char *text);

/* "name": */
void ngx_mail_policy_json_name(ngx_mail_policy_json_t *j, const char *name);

/*
 * An object or an array: begin is "{" or "[", end the other.  name: NULL where
 * it stands in an array.
 */
void ngx_mail_policy_json_open(ngx_mail_policy_json_t *j, const char *name,
    const char *begin);
void ngx_mail_policy_json_close(ngx_mail_policy_json_t *j, const char *end);

/* "value" */
void ngx_mail_policy_json_value(ngx_mail_policy_json_t *j, ngx_str_t *value);

/*
 * "name":value, behind a comma if it is not the first in its object; a string
 * that is empty is left out.
 */
void ngx_mail_policy_json_str(ngx_mail_policy_json_t *j, const char *name,
    ngx_str_t *value);
void ngx_mail_policy_json_text(ngx_mail_policy_json_t *j, const char *name,
    const char *text);
void ngx_mail_policy_json_num(ngx_mail_policy_json_t *j, const char *name,
    uint64_t value);

void ngx_mail_policy_json_bool(ngx_mail_policy_json_t *j, const char *name,
    ngx_uint_t value);

/* "name":n / unit, unit being a power of 10 that says how many digits; alone */
void ngx_mail_policy_json_part(ngx_mail_policy_json_t *j, const char *name,
    uint64_t n, uint64_t unit);

void ngx_mail_policy_json_decimal(ngx_mail_policy_json_t *j, uint64_t n,
    uint64_t unit);

/* "name":seconds since ngx_current_msec was from */
void ngx_mail_policy_json_sec(ngx_mail_policy_json_t *j, const char *name,
    ngx_msec_t from);


#endif /* NGX_MAIL_POLICY_JSON_H */
