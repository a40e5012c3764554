
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files that talk to the scripts of policies/ share: a request that
 * calls a script, with its arguments in memory of its own, as it may be sent
 * a second time when whoever asked is gone.
 */


#ifndef NGX_MAIL_POLICY_REDIS_SCRIPT_H
#define NGX_MAIL_POLICY_REDIS_SCRIPT_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_redis.h"


typedef struct {
    ngx_str_t   text;
    ngx_uint_t  bit;            /* of conn->loaded */
    u_char      sha1[40];
} ngx_mail_policy_redis_script_t;


extern ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_charge_script;
extern ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_back_script;
extern ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_renew_script;
extern ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_merge_script;


/* arguments being written; nothing checks for room but the sizes at init */
typedef struct {
    ngx_mail_policy_redis_request_t  *request;
    ngx_mail_policy_redis_t          *redis;
    ngx_str_t                        *arg;      /* the next one */
    u_char                           *p;
} ngx_mail_policy_redis_args_t;


/*
 * A request "EVALSHA sha1 nkeys", with room for argc arguments (the keys
 * among them) of size octets in all; NULL: no memory.  ctx is the handler's.
 */
ngx_mail_policy_redis_request_t *ngx_mail_policy_redis_script_request(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_redis_script_t *script,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t nkeys,
    ngx_uint_t argc, size_t size, ngx_mail_policy_redis_args_t *args);

/* <prefix><kind><id>; what it takes at the most: */
#define NGX_MAIL_POLICY_REDIS_KEY(redis, id)                                 \
    ((redis)->prefix.len + sizeof("exempt:") - 1 + (id)->len)

void ngx_mail_policy_redis_arg_key(ngx_mail_policy_redis_args_t *args,
    const char *kind, ngx_str_t *id);
void ngx_mail_policy_redis_arg_str(ngx_mail_policy_redis_args_t *args,
    ngx_str_t *value);
void ngx_mail_policy_redis_arg_num(ngx_mail_policy_redis_args_t *args,
    uint64_t value);

/* the member of a unit: a lease, or two tags; empty for a counter */
void ngx_mail_policy_redis_arg_member(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit);

/* the keys of a charge's sets, which stand behind all others: how many, and
   those themselves */
ngx_uint_t ngx_mail_policy_redis_set_keys(ngx_uint_t asked);
void ngx_mail_policy_redis_arg_set_keys(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_charge_t *charge, ngx_uint_t asked);

/*
 * The first call on a connection brings the script with it, so that those
 * behind it find it: a request that is sent twice falls behind others.
 */
void ngx_mail_policy_redis_script_choose(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request);

/* 1: Redis does not have the script; the request is an EVAL now */
ngx_uint_t ngx_mail_policy_redis_script_missing(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);

/* gives back on that connection, behind the charge; NGX_ERROR: not sent */
ngx_int_t ngx_mail_policy_redis_give_back_on(
    ngx_mail_policy_redis_conn_t *conn, ngx_mail_policy_charge_t **charges,
    ngx_uint_t n);

/* a charge that could not be given back is counted and told */
void ngx_mail_policy_redis_lost(ngx_mail_policy_redis_t *redis);

/* 1, once a minute and name: something may be said of that limit */
ngx_uint_t ngx_mail_policy_redis_may_warn(ngx_mail_policy_redis_t *redis,
    ngx_str_t *name);


#endif /* NGX_MAIL_POLICY_REDIS_SCRIPT_H */
