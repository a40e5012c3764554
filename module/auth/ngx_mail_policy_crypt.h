
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Verifies one password against one stored hash, in nginx's thread pool.
 *
 *     hash = "$2b$" ... / "$2y$" ... / "$5$" ... / "$6$" ... / "$y$" ...
 *          | "{SCRAM-SHA-256}" iterations "," salt "," StoredKey ","
 *            ServerKey, see mpol_scram_server.h
 *          | "{PLAIN}" secret
 *
 *     start -> handler
 *        \-> cancel
 *
 * start() copies what it needs; the handler is called once, from the event
 * loop, never from within start().  After cancel() it is not called; a
 * thread that is at it ends into nothing, one that has not begun skips the
 * work.  The copies are wiped by the thread as soon as it is through.
 *
 * A password with a NUL in it, or one longer than crypt(3) takes, costs the
 * same work and never matches.
 */


#ifndef NGX_MAIL_POLICY_CRYPT_H
#define NGX_MAIL_POLICY_CRYPT_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_thread_pool.h>

#include "mpol_sasl.h"


#define NGX_MAIL_POLICY_CRYPT_PLAIN     "{PLAIN}"
#define NGX_MAIL_POLICY_CRYPT_SCRAM     "{SCRAM-SHA-256}"

/* 1 if a hash is of that format */
#define ngx_mail_policy_crypt_is(h, format)                                   \
    ((h)->len >= sizeof(format) - 1                                           \
     && ngx_memcmp((h)->data, format, sizeof(format) - 1) == 0)
#define ngx_mail_policy_crypt_plain(h)                                        \
    ngx_mail_policy_crypt_is(h, NGX_MAIL_POLICY_CRYPT_PLAIN)
#define ngx_mail_policy_crypt_scram(h)                                        \
    ngx_mail_policy_crypt_is(h, NGX_MAIL_POLICY_CRYPT_SCRAM)

#define NGX_MAIL_POLICY_CRYPT_HASH_MAX                                        \
    (sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1 + MPOL_PASSWORD_MAX)

/* for messages: what check() lets in */
#define NGX_MAIL_POLICY_CRYPT_FORMATS                                         \
    "\"$2b$...\", \"$2y$...\", \"$5$...\", \"$6$...\", \"$y$...\", "          \
    "\"{SCRAM-SHA-256}...\" or \"{PLAIN}...\""

/* cost what hashes made without options cost; for want of a better one */
#define NGX_MAIL_POLICY_CRYPT_DEFAULT   "$6$................$"
#define NGX_MAIL_POLICY_CRYPT_DEFAULT_SCRAM                                   \
    NGX_MAIL_POLICY_CRYPT_SCRAM "4096,AAAAAAAAAAAAAAAAAAAAAA==,"              \
    NGX_MAIL_POLICY_CRYPT_NO_KEYS

/* nobody's: behind a setting it makes a whole record of SCRAM */
#define NGX_MAIL_POLICY_CRYPT_NO_KEYS                                         \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,"                           \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


/* what a hash is good for: see ngx_mail_policy_crypt_kind() */
typedef enum {
    NGX_MAIL_POLICY_CRYPT_PASSWORD = 0,     /* a password, of crypt(3) */
    NGX_MAIL_POLICY_CRYPT_KEYS,             /* that, and SCRAM-SHA-256 */
    NGX_MAIL_POLICY_CRYPT_CLEAR             /* all mechanisms */
} ngx_mail_policy_crypt_kind_e;


typedef struct ngx_mail_policy_crypt_s  ngx_mail_policy_crypt_t;

/*
 * rc: NGX_OK it is the password; NGX_DECLINED it is not; NGX_ERROR cannot
 * tell (no memory, a hash that the C library does not know).
 */
typedef void (*ngx_mail_policy_crypt_pt)(void *data, ngx_int_t rc);


/*
 * NGX_OK if it is a complete hash of a known format and of a cost that a
 * thread can bear; NGX_DECLINED if not.  Logs nothing.
 */
ngx_int_t ngx_mail_policy_crypt_check(ngx_str_t *hash);

/*
 * The length of that beginning of a checked hash that alone sets the cost:
 * format, parameters, salt.  start() takes it as a hash that never matches.
 */
size_t ngx_mail_policy_crypt_setting(ngx_str_t *hash);

/* of that, what is in front of the salt: format and parameters */
size_t ngx_mail_policy_crypt_cost(ngx_str_t *hash);

ngx_mail_policy_crypt_kind_e ngx_mail_policy_crypt_kind(ngx_str_t *hash);

/* NULL: too much to do, or no memory; logged */
ngx_mail_policy_crypt_t *ngx_mail_policy_crypt_start(ngx_thread_pool_t *tp,
    ngx_str_t *hash, ngx_str_t *password, ngx_log_t *log,
    ngx_mail_policy_crypt_pt handler, void *data);
void ngx_mail_policy_crypt_cancel(ngx_mail_policy_crypt_t *crypt);


#endif /* NGX_MAIL_POLICY_CRYPT_H */
