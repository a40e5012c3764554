
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


/* as it is: punctuation, names */
void ngx_mail_policy_json_raw(ngx_mail_policy_json_t *j, const char *text);

/* "value" */
void ngx_mail_policy_json_value(ngx_mail_policy_json_t *j, ngx_str_t *value);

/* ,"name":value; a string that is empty is left out */
void ngx_mail_policy_json_str(ngx_mail_policy_json_t *j, const char *name,
    ngx_str_t *value);
void ngx_mail_policy_json_num(ngx_mail_policy_json_t *j, const char *name,
    uint64_t value);

/* ,"name":seconds since ngx_current_msec was from */
void ngx_mail_policy_json_sec(ngx_mail_policy_json_t *j, const char *name,
    ngx_msec_t from);


#endif /* NGX_MAIL_POLICY_JSON_H */
