
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * crypt(3) in nginx's thread pool.
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

#include "ngx_mail_policy_crypt.h"


/*
 * Tasks of one worker that may be waiting or busy.  nginx's own bound is
 * 65536: more memory than a machine has to spare, and longer than a client
 * waits.
 */
#define NGX_MAIL_POLICY_CRYPT_TASKS   1024

/* costs above these keep a thread for many seconds: a mistyped record */
#define NGX_MAIL_POLICY_CRYPT_COST    16
#define NGX_MAIL_POLICY_CRYPT_ROUNDS  1000000

#ifdef CRYPT_MAX_PASSPHRASE_SIZE
#define NGX_MAIL_POLICY_CRYPT_PHRASE  (CRYPT_MAX_PASSPHRASE_SIZE - 1)
#else
#define NGX_MAIL_POLICY_CRYPT_PHRASE  511
#endif


static ngx_uint_t ngx_mail_policy_crypt_check_bcrypt(u_char *p, u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_sha(u_char *p, u_char *last,
    size_t len);
static ngx_uint_t ngx_mail_policy_crypt_check_yescrypt(u_char *p,
    u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_salt(u_char *p, u_char *last,
    size_t max, size_t len);
static ngx_uint_t ngx_mail_policy_crypt_check_text(u_char *p, u_char *last);
static ngx_uint_t ngx_mail_policy_crypt_check_plain(u_char *p, u_char *last);


ngx_int_t
ngx_mail_policy_crypt_check(ngx_str_t *hash)
{
    u_char      *p, *last;
    ngx_uint_t   ok;

    p = hash->data;
    last = p + hash->len;

    if (ngx_mail_policy_crypt_plain(hash)) {
        p += sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;
        ok = ngx_mail_policy_crypt_check_plain(p, last);

    } else if (ngx_mail_policy_crypt_is(hash, "$2b$")
               || ngx_mail_policy_crypt_is(hash, "$2y$"))
    {
        ok = ngx_mail_policy_crypt_check_bcrypt(p + 4, last);

    } else if (ngx_mail_policy_crypt_is(hash, "$5$")) {
        ok = ngx_mail_policy_crypt_check_sha(p + 3, last, 43);

    } else if (ngx_mail_policy_crypt_is(hash, "$6$")) {
        ok = ngx_mail_policy_crypt_check_sha(p + 3, last, 86);

    } else if (ngx_mail_policy_crypt_is(hash, "$y$")) {
        ok = ngx_mail_policy_crypt_check_yescrypt(p + 3, last);

    } else {
        ok = 0;
    }

    return ok ? NGX_OK : NGX_DECLINED;
}


/* secrets that no client could send are a mistake */

static ngx_uint_t
ngx_mail_policy_crypt_check_plain(u_char *p, u_char *last)
{
    size_t  len;

    len = last - p;

    return len > 0
           && len <= MPOL_PASSWORD_MAX
           && ngx_strlchr(p, last, '\0') == NULL
           && mpol_utf8_valid(p, len);
}


/* 2DIGIT "$" 22 salt, 31 hash */

static ngx_uint_t
ngx_mail_policy_crypt_check_bcrypt(u_char *p, u_char *last)
{
    ngx_int_t  cost;

    if (last - p != 2 + 1 + 22 + 31 || p[2] != '$') {
        return 0;
    }

    cost = ngx_atoi(p, 2);

    return cost >= 4
           && cost <= NGX_MAIL_POLICY_CRYPT_COST
           && ngx_mail_policy_crypt_check_text(p + 3, last);
}


/* [ "rounds=" number "$" ] salt "$" hash */

static ngx_uint_t
ngx_mail_policy_crypt_check_sha(u_char *p, u_char *last, size_t len)
{
    u_char     *end;
    ngx_int_t   rounds;

    if (last - p > 7 && ngx_memcmp(p, "rounds=", 7) == 0) {
        p += 7;

        end = ngx_strlchr(p, last, '$');
        if (end == NULL || *p == '0') {
            return 0;
        }

        rounds = ngx_atoi(p, end - p);

        if (rounds < 1000 || rounds > NGX_MAIL_POLICY_CRYPT_ROUNDS) {
            return 0;
        }

        p = end + 1;
    }

    return ngx_mail_policy_crypt_check_salt(p, last, 16, len);
}


/*
 * "j" N r "$" salt "$" hash: what crypt_gensalt(3) makes; N and r are digits
 * of "./0-9A-Za-z" and set the memory, with these bounds 256 megabytes
 */

static ngx_uint_t
ngx_mail_policy_crypt_check_yescrypt(u_char *p, u_char *last)
{
    if (last - p < 4
        || !ngx_mail_policy_crypt_check_text(p, p + 3)
        || p[0] != 'j'
        || p[1] > 'D'
        || p[2] > 'T'
        || p[3] != '$')
    {
        return 0;
    }

    return ngx_mail_policy_crypt_check_salt(p + 4, last, 86, 43);
}


static ngx_uint_t
ngx_mail_policy_crypt_check_salt(u_char *p, u_char *last, size_t max,
    size_t len)
{
    u_char  *end;

    end = ngx_strlchr(p, last, '$');

    return end != NULL
           && end > p
           && (size_t) (end - p) <= max
           && (size_t) (last - end - 1) == len
           && ngx_mail_policy_crypt_check_text(p, end)
           && ngx_mail_policy_crypt_check_text(end + 1, last);
}


static ngx_uint_t
ngx_mail_policy_crypt_check_text(u_char *p, u_char *last)
{
    u_char  ch;

    while (p < last) {
        ch = *p++;

        if (!((ch >= '.' && ch <= '9')
              || (ch >= 'A' && ch <= 'Z')
              || (ch >= 'a' && ch <= 'z')))
        {
            return 0;
        }
    }

    return 1;
}


size_t
ngx_mail_policy_crypt_setting(ngx_str_t *hash)
{
    size_t  len;

    if (ngx_mail_policy_crypt_plain(hash)) {
        return sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;
    }

    if (ngx_mail_policy_crypt_is(hash, "$2")) {
        return ngx_min(hash->len, 4 + 2 + 1 + 22);
    }

    for (len = hash->len; len && hash->data[len - 1] != '$'; len--) {
        /* void */
    }

    return len;
}


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
        struct crypt_data      crypt;
    } secret;
};


static void ngx_mail_policy_crypt_thread(void *data, ngx_log_t *log);
static ngx_int_t ngx_mail_policy_crypt_verify(ngx_mail_policy_crypt_t *crypt);
static ngx_int_t ngx_mail_policy_crypt_verify_plain(
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

    if (crypt->canceled) {
        crypt->rc = NGX_ERROR;

    } else if (ngx_mail_policy_crypt_plain(&hash))
    {
        crypt->rc = ngx_mail_policy_crypt_verify_plain(crypt);

    } else {
        crypt->rc = ngx_mail_policy_crypt_verify(crypt);
    }

    if (crypt->rc == NGX_OK && crypt->refuse) {
        crypt->rc = NGX_DECLINED;
    }

    ngx_explicit_memzero(&crypt->secret, sizeof(crypt->secret));
}


static ngx_int_t
ngx_mail_policy_crypt_verify(ngx_mail_policy_crypt_t *crypt)
{
    char  *result;

    if (crypt->password_len > NGX_MAIL_POLICY_CRYPT_PHRASE) {
        crypt->secret.password[NGX_MAIL_POLICY_CRYPT_PHRASE] = '\0';
        crypt->refuse = 1;
    }

    result = crypt_r((char *) crypt->secret.password,
                     (char *) crypt->secret.hash, &crypt->secret.crypt);

    /* "*0" and "*1" are how libxcrypt says that it failed */

    if (result == NULL || result[0] == '*') {
        crypt->err = ngx_errno;
        return NGX_ERROR;
    }

    if (ngx_strlen(result) != crypt->hash_len
        || CRYPTO_memcmp(result, crypt->secret.hash, crypt->hash_len) != 0)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
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
                      "a password could not be verified: crypt() failed");
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
