
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The keys of SCRAM-SHA-256, RFC 5802 section 3.  They are made of a password
 * in nginx's thread pool, as that takes long by design.  For relays they are
 * then remembered, as a relay has one salt a login.
 *
 *     find -> keys, at once
 *        \-> start -> handler
 *                \-> cancel
 *
 * start() copies what it needs; the handler is called once, from the event
 * loop, never from within start(), and not after cancel().
 */


#ifndef NGX_MAIL_POLICY_SCRAM_H
#define NGX_MAIL_POLICY_SCRAM_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_scram.h"


#define NGX_MAIL_POLICY_SCRAM_HASH     32
#define NGX_MAIL_POLICY_SCRAM_SALT     64   /* octets of one, at most */

/* RFC 7677 section 4; and what a thread can bear */
#define NGX_MAIL_POLICY_SCRAM_MIN      4096
#define NGX_MAIL_POLICY_SCRAM_MAX      1000000


typedef struct {
    u_char       client[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char       server[NGX_MAIL_POLICY_SCRAM_HASH];
} ngx_mail_policy_scram_keys_t;


typedef struct ngx_mail_policy_scram_s        ngx_mail_policy_scram_t;
typedef struct ngx_mail_policy_scram_cache_s  ngx_mail_policy_scram_cache_t;

/* keys: NULL if they could not be made; without a cache wiped on return */
typedef void (*ngx_mail_policy_scram_pt)(void *data,
    ngx_mail_policy_scram_keys_t *keys);


/* of one password; NULL: no memory.  Wiped with the pool. */
ngx_mail_policy_scram_cache_t *ngx_mail_policy_scram_cache_create(
    ngx_pool_t *pool);

/* NULL: not known */
ngx_mail_policy_scram_keys_t *ngx_mail_policy_scram_find(
    ngx_mail_policy_scram_cache_t *cache, ngx_str_t *salt,
    ngx_uint_t iterations);

/*
 * NULL: too much to do, or no memory.  With a cache, the keys are a relay's
 * and remembered in it.  Without (NULL), they are those of a client that logs
 * in: there is more room for these, and neither takes the other's.
 */
ngx_mail_policy_scram_t *ngx_mail_policy_scram_start(
    ngx_mail_policy_scram_cache_t *cache, void *thread_pool,
    ngx_str_t *password, ngx_str_t *salt, ngx_uint_t iterations,
    ngx_mail_policy_scram_pt handler, void *data);
void ngx_mail_policy_scram_cancel(ngx_mail_policy_scram_t *scram);

/* in a thread, as it takes that long; NGX_OK or NGX_ERROR */
ngx_int_t ngx_mail_policy_scram_keys(ngx_str_t *password, ngx_str_t *salt,
    ngx_uint_t iterations, ngx_mail_policy_scram_keys_t *keys);

/*
 * What both sides say of the messages so far: proof is the client's; signature
 * that which the server has to give.  NGX_OK or NGX_ERROR.
 */
ngx_int_t ngx_mail_policy_scram_sign(ngx_mail_policy_scram_keys_t *keys,
    ngx_str_t *messages, u_char *proof, u_char *signature);


#endif /* NGX_MAIL_POLICY_SCRAM_H */
