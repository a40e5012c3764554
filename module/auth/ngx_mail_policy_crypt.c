
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * crypt(3), and what else verifies a password, in nginx's thread pool.
 *
 * Events: the completion of a thread's task, given to the event loop by
 * nginx.
 *
 *     queued -> busy -> done -> (freed, then the handler is called)
 *        \        \-> canceled -> done -> (freed)
 *         \-> canceled -> skipped -> (freed)
 *
 * A task is a block of heap of its own.  Between posting and completion it
 * is the thread's; the event loop then only sets "canceled" and clears
 * "handler", which the thread does not read.  The completion handler frees
 * it, nothing else.  When a worker exits, nginx waits for the threads, and
 * completions do not come any more: so the thread itself does the wiping.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "mpol_scram_server.h"
#include "ngx_mail_policy_crypt.h"
#include "ngx_mail_policy_scram.h"


/*
 * Tasks of one worker that may be waiting or busy.  nginx's own bound is
 * 65536: more memory than a machine has to spare, and longer than a client
 * waits.
 */
#define NGX_MAIL_POLICY_CRYPT_TASKS   1024

#ifdef CRYPT_MAX_PASSPHRASE_SIZE
#define NGX_MAIL_POLICY_CRYPT_PHRASE  (CRYPT_MAX_PASSPHRASE_SIZE - 1)
#else
#define NGX_MAIL_POLICY_CRYPT_PHRASE  511
#endif


#if (NGX_THREADS)


struct ngx_mail_policy_crypt_s {
    ngx_thread_task_t          task;

    /* the event loop's */

    ngx_mail_policy_crypt_pt   handler;
    void                      *data;

    /* set by the event loop, read by the thread; seen late, it costs time */

    ngx_atomic_t               canceled;

    /* the thread's, from posting to completion */

    ngx_int_t                  rc;
    ngx_err_t                  err;
    ngx_uint_t                 refuse;

    size_t                     hash_len;
    size_t                     password_len;

    /* secrets, wiped as one block; NUL-terminated */

    struct {
        u_char                 hash[NGX_MAIL_POLICY_CRYPT_HASH_MAX + 1];
        u_char                 password[MPOL_PASSWORD_MAX + 1];
    } secret;
};


static void ngx_mail_policy_crypt_thread(void *data, ngx_log_t *log);
static ngx_int_t ngx_mail_policy_crypt_verify(ngx_mail_policy_crypt_t *crypt);
static ngx_int_t ngx_mail_policy_crypt_verify_plain(
    ngx_mail_policy_crypt_t *crypt);
static ngx_int_t ngx_mail_policy_crypt_verify_scram(
    ngx_mail_policy_crypt_t *crypt);
static void ngx_mail_policy_crypt_done_handler(ngx_event_t *ev);
static void ngx_mail_policy_crypt_log_busy(ngx_log_t *log);


/* this worker's tasks */
static ngx_uint_t  ngx_mail_policy_crypt_tasks;


ngx_mail_policy_crypt_t *
ngx_mail_policy_crypt_start(ngx_thread_pool_t *tp, ngx_str_t *hash,
    ngx_str_t *password, ngx_log_t *log, ngx_mail_policy_crypt_pt handler,
    void *data)
{
    ngx_mail_policy_crypt_t  *crypt;

    if (ngx_mail_policy_crypt_tasks >= NGX_MAIL_POLICY_CRYPT_TASKS) {
        ngx_mail_policy_crypt_log_busy(log);
        return NULL;
    }

    crypt = ngx_calloc(sizeof(ngx_mail_policy_crypt_t), log);
    if (crypt == NULL) {
        return NULL;
    }

    crypt->handler = handler;
    crypt->data = data;

    crypt->hash_len = ngx_min(hash->len, NGX_MAIL_POLICY_CRYPT_HASH_MAX);
    ngx_memcpy(crypt->secret.hash, hash->data, crypt->hash_len);

    crypt->password_len = ngx_min(password->len, MPOL_PASSWORD_MAX);
    ngx_memcpy(crypt->secret.password, password->data, crypt->password_len);

    /* what was cut, or crypt(3) would cut, must not match by what is left */

    crypt->refuse = hash->len > NGX_MAIL_POLICY_CRYPT_HASH_MAX
                    || password->len > MPOL_PASSWORD_MAX
                    || ngx_strlchr(password->data,
                                   password->data + password->len, '\0');

    crypt->task.ctx = crypt;
    crypt->task.handler = ngx_mail_policy_crypt_thread;
    crypt->task.event.data = crypt;
    crypt->task.event.handler = ngx_mail_policy_crypt_done_handler;
    crypt->task.event.log = ngx_cycle->log;

    if (ngx_thread_task_post(tp, &crypt->task) != NGX_OK) {
        ngx_mail_policy_crypt_log_busy(log);
        ngx_explicit_memzero(&crypt->secret, sizeof(crypt->secret));
        ngx_free(crypt);
        return NULL;
    }

    ngx_mail_policy_crypt_tasks++;

    return crypt;
}


void
ngx_mail_policy_crypt_cancel(ngx_mail_policy_crypt_t *crypt)
{
    crypt->handler = NULL;
    crypt->canceled = 1;
}


/* runs in a thread: touches nothing but its own task, logs nothing */

static void
ngx_mail_policy_crypt_thread(void *data, ngx_log_t *log)
{
    ngx_mail_policy_crypt_t *crypt = data;

    ngx_str_t  hash;

    hash.data = crypt->secret.hash;
    hash.len = crypt->hash_len;

    crypt->rc = NGX_ERROR;

    if (!crypt->canceled) {

        switch (ngx_mail_policy_crypt_kind(&hash)) {

        case NGX_MAIL_POLICY_CRYPT_CLEAR:
            crypt->rc = ngx_mail_policy_crypt_verify_plain(crypt);
            break;

        case NGX_MAIL_POLICY_CRYPT_KEYS:
            crypt->rc = ngx_mail_policy_crypt_verify_scram(crypt);
            break;

        default: /* NGX_MAIL_POLICY_CRYPT_PASSWORD */
            crypt->rc = ngx_mail_policy_crypt_verify(crypt);
            break;
        }
    }

    if (crypt->rc == NGX_OK && crypt->refuse) {
        crypt->rc = NGX_DECLINED;
    }

    ngx_explicit_memzero(&crypt->secret, sizeof(crypt->secret));
}


static ngx_int_t
ngx_mail_policy_crypt_verify(ngx_mail_policy_crypt_t *crypt)
{
    char               *result;
    ngx_int_t           rc;
    struct crypt_data  *data;

    if (crypt->password_len > NGX_MAIL_POLICY_CRYPT_PHRASE) {
        crypt->secret.password[NGX_MAIL_POLICY_CRYPT_PHRASE] = '\0';
        crypt->refuse = 1;
    }

    /* 32 KB, which those that wait for a thread need not have yet */

    data = calloc(1, sizeof(struct crypt_data));
    if (data == NULL) {
        crypt->err = ngx_errno;
        return NGX_ERROR;
    }

    result = crypt_r((char *) crypt->secret.password,
                     (char *) crypt->secret.hash, data);

    /* "*0" and "*1" are how libxcrypt says that it failed */

    if (result == NULL || result[0] == '*') {
        crypt->err = ngx_errno;
        rc = NGX_ERROR;

    } else if (ngx_strlen(result) != crypt->hash_len
               || CRYPTO_memcmp(result, crypt->secret.hash, crypt->hash_len)
                  != 0)
    {
        rc = NGX_DECLINED;

    } else {
        rc = NGX_OK;
    }

    ngx_explicit_memzero(data, sizeof(struct crypt_data));
    free(data);

    return rc;
}


/* digests are compared, so that the time does not tell the length */

static ngx_int_t
ngx_mail_policy_crypt_verify_plain(ngx_mail_policy_crypt_t *crypt)
{
    size_t     len;
    u_char     known[SHA256_DIGEST_LENGTH], given[SHA256_DIGEST_LENGTH];
    ngx_int_t  rc;

    len = sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;

    if (SHA256(crypt->secret.hash + len, crypt->hash_len - len, known) == NULL
        || SHA256(crypt->secret.password, crypt->password_len, given) == NULL)
    {
        rc = NGX_ERROR;

    } else if (CRYPTO_memcmp(known, given, SHA256_DIGEST_LENGTH) == 0) {
        rc = NGX_OK;

    } else {
        rc = NGX_DECLINED;
    }

    ngx_explicit_memzero(known, SHA256_DIGEST_LENGTH);
    ngx_explicit_memzero(given, SHA256_DIGEST_LENGTH);

    return rc;
}


static ngx_int_t
ngx_mail_policy_crypt_verify_scram(ngx_mail_policy_crypt_t *crypt)
{
    u_char                        *p;
    size_t                         len, n, m;
    ngx_int_t                      rc;
    ngx_str_t                      password, salt;
    mpol_scram_secret_t            secret;
    ngx_mail_policy_scram_keys_t   keys;
    u_char                         octets[NGX_MAIL_POLICY_SCRAM_SALT + 2];
    u_char                         stored[SHA256_DIGEST_LENGTH];
    u_char                         known[2][SHA256_DIGEST_LENGTH + 1];

    p = crypt->secret.hash;
    len = sizeof(NGX_MAIL_POLICY_CRYPT_SCRAM) - 1;

    if (p[crypt->hash_len - 1] == ',') {
        n = ngx_min(sizeof(NGX_MAIL_POLICY_CRYPT_NO_KEYS) - 1,
                    NGX_MAIL_POLICY_CRYPT_HASH_MAX - crypt->hash_len);
        ngx_memcpy(p + crypt->hash_len, NGX_MAIL_POLICY_CRYPT_NO_KEYS, n);
        crypt->hash_len += n;
    }

    if (mpol_scram_secret(p + len, crypt->hash_len - len, &secret) != MPOL_OK
        || mpol_base64_decode(secret.salt.data, secret.salt.len, octets, &n)
           != MPOL_OK
        || mpol_base64_decode(secret.stored.data, secret.stored.len, known[0],
                              &m)
           != MPOL_OK
        || mpol_base64_decode(secret.server.data, secret.server.len, known[1],
                              &m)
           != MPOL_OK)
    {
        return NGX_ERROR;
    }

    password.data = crypt->secret.password;
    password.len = crypt->password_len;

    salt.data = octets;
    salt.len = n;

    if (ngx_mail_policy_scram_keys(&password, &salt, secret.iterations, &keys)
        != NGX_OK
        || SHA256(keys.client, NGX_MAIL_POLICY_SCRAM_HASH, stored) == NULL)
    {
        rc = NGX_ERROR;

    } else if ((CRYPTO_memcmp(stored, known[0], SHA256_DIGEST_LENGTH)
                | CRYPTO_memcmp(keys.server, known[1], SHA256_DIGEST_LENGTH))
               == 0)
    {
        rc = NGX_OK;

    } else {
        rc = NGX_DECLINED;
    }

    ngx_explicit_memzero(&keys, sizeof(keys));
    ngx_explicit_memzero(stored, sizeof(stored));
    ngx_explicit_memzero(known, sizeof(known));

    return rc;
}


static void
ngx_mail_policy_crypt_done_handler(ngx_event_t *ev)
{
    void                      *data;
    ngx_int_t                  rc;
    ngx_mail_policy_crypt_t   *crypt;
    ngx_mail_policy_crypt_pt   handler;

    crypt = ev->data;

    rc = crypt->rc;
    data = crypt->data;
    handler = crypt->handler;

    if (rc == NGX_ERROR && handler) {
        ngx_log_error(NGX_LOG_ERR, ev->log, crypt->err,
                      "a password could not be verified: hashing failed");
    }

    ngx_mail_policy_crypt_tasks--;
    ngx_free(crypt);

    if (handler) {
        handler(data, rc);
    }
}


/* once a second: it comes when there is no time to spare */

static void
ngx_mail_policy_crypt_log_busy(ngx_log_t *log)
{
    static time_t  last;

    if (last == ngx_time()) {
        return;
    }

    last = ngx_time();

    ngx_log_error(NGX_LOG_ERR, log, 0,
                  "a password could not be verified: %ui are waiting for "
                  "the thread pool", ngx_mail_policy_crypt_tasks);
}


#else


/* "policy_auth" refuses providers then */

ngx_mail_policy_crypt_t *
ngx_mail_policy_crypt_start(ngx_thread_pool_t *tp, ngx_str_t *hash,
    ngx_str_t *password, ngx_log_t *log, ngx_mail_policy_crypt_pt handler,
    void *data)
{
    return NULL;
}


void
ngx_mail_policy_crypt_cancel(ngx_mail_policy_crypt_t *crypt)
{
}


#endif /* NGX_THREADS */
