
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The only file that knows hiredis, and of hiredis the reader only.  No
 * events arrive here.
 *
 * The reader calls the functions below for each thing it has read.  One that
 * returns NULL makes it fail for good ("out of memory"), and the connection
 * is closed: so are nested arrays, maps, pushes and numbers of RESP3, which
 * was not asked for, and arrays longer than any answer of ours refused
 * before anything is allocated for them.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <hiredis/hiredis.h>

#include "ngx_mail_policy_redis_reply.h"


#define NGX_MAIL_POLICY_REDIS_MAX_ELTS  4096


/* what changed between hiredis 0.14 and 1.0 */

#if (HIREDIS_MAJOR >= 1)
typedef size_t  ngx_mail_policy_redis_elts_t;
#else
typedef int     ngx_mail_policy_redis_elts_t;
#endif


struct ngx_mail_policy_redis_reader_s {
    redisReader  *hiredis;
    size_t        max;
    size_t        high;         /* octets of its buffer that were in use */
};


static void *ngx_mail_policy_redis_reply_string(const redisReadTask *task,
    char *p, size_t len);
static void *ngx_mail_policy_redis_reply_array(const redisReadTask *task,
    ngx_mail_policy_redis_elts_t n);
static void *ngx_mail_policy_redis_reply_integer(const redisReadTask *task,
    long long value);
static void *ngx_mail_policy_redis_reply_nil(const redisReadTask *task);
static void ngx_mail_policy_redis_reply_release(void *reply);
static ngx_mail_policy_redis_reply_t *ngx_mail_policy_redis_reply_place(
    const redisReadTask *task, ngx_mail_policy_redis_type_e type);
static void ngx_mail_policy_redis_reply_wipe(ngx_str_t *s);

#if (HIREDIS_MAJOR >= 1)
static void *ngx_mail_policy_redis_reply_double(const redisReadTask *task,
    double value, char *p, size_t len);
static void *ngx_mail_policy_redis_reply_bool(const redisReadTask *task,
    int value);
#endif


static redisReplyObjectFunctions  ngx_mail_policy_redis_reply_functions = {
    ngx_mail_policy_redis_reply_string,
    ngx_mail_policy_redis_reply_array,
    ngx_mail_policy_redis_reply_integer,
#if (HIREDIS_MAJOR >= 1)
    ngx_mail_policy_redis_reply_double,
#endif
    ngx_mail_policy_redis_reply_nil,
#if (HIREDIS_MAJOR >= 1)
    ngx_mail_policy_redis_reply_bool,
#endif
    ngx_mail_policy_redis_reply_release
};


ngx_mail_policy_redis_reader_t *
ngx_mail_policy_redis_reader_create(size_t max)
{
    ngx_mail_policy_redis_reader_t  *reader;

    reader = ngx_calloc(sizeof(ngx_mail_policy_redis_reader_t),
                        ngx_cycle->log);
    if (reader == NULL) {
        return NULL;
    }

    reader->hiredis = redisReaderCreateWithFunctions(
                                      &ngx_mail_policy_redis_reply_functions);
    if (reader->hiredis == NULL) {
        ngx_free(reader);
        return NULL;
    }

    reader->max = max;

    /* the buffer never shrinks, so that it can be wiped up to "high" */
    reader->hiredis->maxbuf = 0;

    return reader;
}


void
ngx_mail_policy_redis_reader_free(ngx_mail_policy_redis_reader_t *reader)
{
    if (reader->hiredis->buf) {
        ngx_explicit_memzero(reader->hiredis->buf, reader->high);
    }

    redisReaderFree(reader->hiredis);
    ngx_free(reader);
}


ngx_int_t
ngx_mail_policy_redis_reader_feed(ngx_mail_policy_redis_reader_t *reader,
    u_char *p, size_t len)
{
    redisReader  *r;

    r = reader->hiredis;

    if (r->len - r->pos + len > reader->max) {
        return NGX_ERROR;
    }

    if (redisReaderFeed(r, (char *) p, len) != REDIS_OK) {
        return NGX_ERROR;
    }

    reader->high = ngx_max(reader->high, r->len);

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_redis_reader_next(ngx_mail_policy_redis_reader_t *reader,
    ngx_mail_policy_redis_reply_t **reply)
{
    void         *p;
    redisReader  *r;

    r = reader->hiredis;
    p = NULL;

    if (redisReaderGetReply(r, &p) != REDIS_OK) {

        /* hiredis dropped its buffer without wiping it */
        reader->high = 0;
        return NGX_ERROR;
    }

    *reply = p;

    if (p) {
        return NGX_OK;
    }

    if (r->pos == r->len && reader->high) {
        ngx_explicit_memzero(r->buf, reader->high);
        reader->high = 0;
    }

    return NGX_AGAIN;
}


void
ngx_mail_policy_redis_reply_free(ngx_mail_policy_redis_reply_t *reply)
{
    ngx_uint_t  i;

    for (i = 0; i < reply->nelts; i++) {
        ngx_mail_policy_redis_reply_wipe(&reply->elts[i].str);
    }

    ngx_mail_policy_redis_reply_wipe(&reply->str);

    if (reply->elts) {
        ngx_free(reply->elts);
    }

    ngx_free(reply);
}


static void
ngx_mail_policy_redis_reply_wipe(ngx_str_t *s)
{
    if (s->data) {
        ngx_explicit_memzero(s->data, s->len);
        ngx_free(s->data);
    }
}


static void
ngx_mail_policy_redis_reply_release(void *reply)
{
    if (reply) {
        ngx_mail_policy_redis_reply_free(reply);
    }
}


/* an object of its own, or the element of the array that is being read */

static ngx_mail_policy_redis_reply_t *
ngx_mail_policy_redis_reply_place(const redisReadTask *task,
    ngx_mail_policy_redis_type_e type)
{
    ngx_mail_policy_redis_reply_t  *reply;

    if (task->parent) {
        reply = task->parent->obj;
        reply = &reply->elts[task->idx];

    } else {
        reply = ngx_calloc(sizeof(ngx_mail_policy_redis_reply_t),
                           ngx_cycle->log);
        if (reply == NULL) {
            return NULL;
        }
    }

    reply->type = type;

    return reply;
}


static void *
ngx_mail_policy_redis_reply_string(const redisReadTask *task, char *p,
    size_t len)
{
    u_char                         *data;
    ngx_mail_policy_redis_type_e    type;
    ngx_mail_policy_redis_reply_t  *reply;

    switch (task->type) {

    case REDIS_REPLY_STRING:
        type = NGX_MAIL_POLICY_REDIS_STRING;
        break;

    case REDIS_REPLY_STATUS:
        type = NGX_MAIL_POLICY_REDIS_STATUS;
        break;

    case REDIS_REPLY_ERROR:
        type = NGX_MAIL_POLICY_REDIS_ERROR;
        break;

    default:
        return NULL;
    }

    data = ngx_alloc(len + 1, ngx_cycle->log);
    if (data == NULL) {
        return NULL;
    }

    reply = ngx_mail_policy_redis_reply_place(task, type);
    if (reply == NULL) {
        ngx_free(data);
        return NULL;
    }

    ngx_memcpy(data, p, len);

    reply->str.data = data;
    reply->str.len = len;

    return reply;
}


static void *
ngx_mail_policy_redis_reply_array(const redisReadTask *task,
    ngx_mail_policy_redis_elts_t n)
{
    ngx_mail_policy_redis_reply_t  *reply;

    if (task->type != REDIS_REPLY_ARRAY
        || task->parent
        || n > NGX_MAIL_POLICY_REDIS_MAX_ELTS)
    {
        return NULL;
    }

    reply = ngx_mail_policy_redis_reply_place(task,
                                              NGX_MAIL_POLICY_REDIS_ARRAY);
    if (reply == NULL || n == 0) {
        return reply;
    }

    reply->elts = ngx_calloc(n * sizeof(ngx_mail_policy_redis_reply_t),
                             ngx_cycle->log);
    if (reply->elts == NULL) {
        ngx_free(reply);
        return NULL;
    }

    reply->nelts = n;

    return reply;
}


static void *
ngx_mail_policy_redis_reply_integer(const redisReadTask *task,
    long long value)
{
    ngx_mail_policy_redis_reply_t  *reply;

    reply = ngx_mail_policy_redis_reply_place(task,
                                              NGX_MAIL_POLICY_REDIS_INTEGER);
    if (reply) {
        reply->integer = value;
    }

    return reply;
}


static void *
ngx_mail_policy_redis_reply_nil(const redisReadTask *task)
{
    return ngx_mail_policy_redis_reply_place(task, NGX_MAIL_POLICY_REDIS_NIL);
}


#if (HIREDIS_MAJOR >= 1)

static void *
ngx_mail_policy_redis_reply_double(const redisReadTask *task, double value,
    char *p, size_t len)
{
    (void) task;
    (void) value;
    (void) p;
    (void) len;

    return NULL;
}


static void *
ngx_mail_policy_redis_reply_bool(const redisReadTask *task, int value)
{
    (void) task;
    (void) value;

    return NULL;
}

#endif
