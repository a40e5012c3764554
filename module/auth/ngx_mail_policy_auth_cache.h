
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Passwords that were right, known to all workers for a while: a client with
 * a session for each message does not cost a slow hash each time.
 *
 *     digest = HMAC-SHA256(secret, method login NUL hash NUL password)
 *
 * What is remembered is the digest alone, under a secret of random octets
 * that is made with the zone and leaves it nowhere.  Another login, another
 * mechanism, a changed password is another digest; and one that is found is
 * right, however old: the time it is kept bounds what is in memory.
 *
 * A table of sets that never grows, in shared memory that is kept over
 * reload.  In a full set the entry that expires first makes room.
 */


#ifndef NGX_MAIL_POLICY_AUTH_CACHE_H
#define NGX_MAIL_POLICY_AUTH_CACHE_H


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_MAIL_POLICY_AUTH_CACHE_DIGEST   32

#define NGX_MAIL_POLICY_AUTH_CACHE_WAYS     4
#define NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES  65536


typedef struct ngx_mail_policy_auth_cache_s  ngx_mail_policy_auth_cache_t;


/* the same for all that call it with this tag; NULL: logged */
ngx_mail_policy_auth_cache_t *ngx_mail_policy_auth_cache_add(ngx_conf_t *cf,
    void *tag);

/*
 * method: one bit.  NGX_OK; NGX_ERROR: such a login is not remembered.  The
 * digest is no secret, as it says nothing without the zone.
 */
ngx_int_t ngx_mail_policy_auth_cache_digest(
    ngx_mail_policy_auth_cache_t *cache, ngx_uint_t method, ngx_str_t *login,
    ngx_str_t *hash, ngx_str_t *password,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST]);

/* 1: the password is right */
ngx_uint_t ngx_mail_policy_auth_cache_find(
    ngx_mail_policy_auth_cache_t *cache,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST]);

/* the password was right; it does not expire later for being found */
void ngx_mail_policy_auth_cache_remember(ngx_mail_policy_auth_cache_t *cache,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST], ngx_msec_t ttl);


#endif /* NGX_MAIL_POLICY_AUTH_CACHE_H */
