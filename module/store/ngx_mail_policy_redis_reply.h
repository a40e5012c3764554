
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Answers of Redis.  hiredis' reader splits what arrives; what it makes of
 * it is ours: one flat array at most, no nesting, its elements bounded in
 * number and length; and wiped when it is freed, as an answer may be a
 * password.
 */


#ifndef NGX_MAIL_POLICY_REDIS_REPLY_H
#define NGX_MAIL_POLICY_REDIS_REPLY_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_MAIL_POLICY_REDIS_NIL = 0,
    NGX_MAIL_POLICY_REDIS_INTEGER,
    NGX_MAIL_POLICY_REDIS_STRING,
    NGX_MAIL_POLICY_REDIS_STATUS,
    NGX_MAIL_POLICY_REDIS_ERROR,
    NGX_MAIL_POLICY_REDIS_ARRAY
} ngx_mail_policy_redis_type_e;


typedef struct ngx_mail_policy_redis_reply_s  ngx_mail_policy_redis_reply_t;

struct ngx_mail_policy_redis_reply_s {
    ngx_mail_policy_redis_type_e    type;
    int64_t                         integer;
    ngx_str_t                       str;    /* string, status, error */
    ngx_mail_policy_redis_reply_t  *elts;   /* array */
    ngx_uint_t                      nelts;
};


typedef struct ngx_mail_policy_redis_reader_s
    ngx_mail_policy_redis_reader_t;


/* max: octets that are buffered, of an answer or of one of its elements */
ngx_mail_policy_redis_reader_t *ngx_mail_policy_redis_reader_create(
    size_t max);
void ngx_mail_policy_redis_reader_free(
    ngx_mail_policy_redis_reader_t *reader);

/* NGX_ERROR: no memory, or more buffered than any answer of ours has */
ngx_int_t ngx_mail_policy_redis_reader_feed(
    ngx_mail_policy_redis_reader_t *reader, u_char *p, size_t len);

/* NGX_OK with *reply, to be freed; NGX_AGAIN; NGX_ERROR: no answer of ours */
ngx_int_t ngx_mail_policy_redis_reader_next(
    ngx_mail_policy_redis_reader_t *reader,
    ngx_mail_policy_redis_reply_t **reply);
void ngx_mail_policy_redis_reply_free(ngx_mail_policy_redis_reply_t *reply);


#endif /* NGX_MAIL_POLICY_REDIS_REPLY_H */
