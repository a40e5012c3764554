
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The keys of SCRAM-SHA-256.
 *
 * Events: the completion of a thread's task, given to the event loop by nginx.
 *
 *     queued -> done -> (remembered, freed, then the handler is called)
 *        \-> canceled -> done -> (remembered, freed)
 *
 * A task is a block of heap of its own.  Between posting and completion it is
 * the thread's, which wipes the password; the completion handler frees it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_thread_pool.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_scram.h"


#define NGX_MAIL_POLICY_SCRAM_KNOWN  8      /* salts of one password */

/* tasks of one worker, for relays and for clients */
#define NGX_MAIL_POLICY_SCRAM_TASKS    64
#define NGX_MAIL_POLICY_SCRAM_CLIENTS  1024


typedef struct {
    size_t                           salt_len;  /* 0: free */
    u_char                           salt[NGX_MAIL_POLICY_SCRAM_SALT];
    ngx_uint_t                       iterations;
    ngx_mail_policy_scram_keys_t     keys;
} ngx_mail_policy_scram_entry_t;


struct ngx_mail_policy_scram_cache_s {
    ngx_mail_policy_scram_entry_t    entries[NGX_MAIL_POLICY_SCRAM_KNOWN];
    ngx_uint_t                       next;      /* makes room */
};


static void ngx_mail_policy_scram_cache_cleanup(void *data);


ngx_mail_policy_scram_cache_t *
ngx_mail_policy_scram_cache_create(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t             *cln;
    ngx_mail_policy_scram_cache_t  *cache;

    cache = ngx_pcalloc(pool, sizeof(ngx_mail_policy_scram_cache_t));
    cln = ngx_pool_cleanup_add(pool, 0);

    if (cache == NULL || cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_mail_policy_scram_cache_cleanup;
    cln->data = cache;

    return cache;
}


static void
ngx_mail_policy_scram_cache_cleanup(void *data)
{
    ngx_explicit_memzero(data, sizeof(ngx_mail_policy_scram_cache_t));
}


ngx_mail_policy_scram_keys_t *
ngx_mail_policy_scram_find(ngx_mail_policy_scram_cache_t *cache,
    ngx_str_t *salt, ngx_uint_t iterations)
{
    ngx_uint_t                      i;
    ngx_mail_policy_scram_entry_t  *entry;

    for (i = 0; i < NGX_MAIL_POLICY_SCRAM_KNOWN; i++) {
        entry = &cache->entries[i];

        if (entry->salt_len == salt->len
            && entry->iterations == iterations
            && ngx_memcmp(entry->salt, salt->data, salt->len) == 0)
        {
            return &entry->keys;
        }
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_scram_keys(ngx_str_t *password, ngx_str_t *salt,
    ngx_uint_t iterations, ngx_mail_policy_scram_keys_t *keys)
{
    u_char     salted[NGX_MAIL_POLICY_SCRAM_HASH];
    ngx_int_t  rc;

    rc = NGX_ERROR;

    if (PKCS5_PBKDF2_HMAC((char *) password->data, password->len, salt->data,
                          salt->len, iterations, EVP_sha256(),
                          NGX_MAIL_POLICY_SCRAM_HASH, salted)
        == 1
        && HMAC(EVP_sha256(), salted, NGX_MAIL_POLICY_SCRAM_HASH,
                (u_char *) "Client Key", sizeof("Client Key") - 1,
                keys->client, NULL)
        && HMAC(EVP_sha256(), salted, NGX_MAIL_POLICY_SCRAM_HASH,
                (u_char *) "Server Key", sizeof("Server Key") - 1,
                keys->server, NULL))
    {
        rc = NGX_OK;
    }

    ngx_explicit_memzero(salted, NGX_MAIL_POLICY_SCRAM_HASH);

    return rc;
}


ngx_int_t
ngx_mail_policy_scram_sign(ngx_mail_policy_scram_keys_t *keys,
    ngx_str_t *messages, u_char *proof, u_char *signature)
{
    u_char      stored[NGX_MAIL_POLICY_SCRAM_HASH];
    ngx_uint_t  i;

    if (SHA256(keys->client, NGX_MAIL_POLICY_SCRAM_HASH, stored) == NULL
        || HMAC(EVP_sha256(), stored, NGX_MAIL_POLICY_SCRAM_HASH,
                messages->data, messages->len, proof, NULL)
           == NULL
        || HMAC(EVP_sha256(), keys->server, NGX_MAIL_POLICY_SCRAM_HASH,
                messages->data, messages->len, signature, NULL)
           == NULL)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_MAIL_POLICY_SCRAM_HASH; i++) {
        proof[i] ^= keys->client[i];
    }

    ngx_explicit_memzero(stored, NGX_MAIL_POLICY_SCRAM_HASH);

    return NGX_OK;
}


#if (NGX_THREADS)


struct ngx_mail_policy_scram_s {
    ngx_thread_task_t                task;

    /* the event loop's */

    ngx_mail_policy_scram_cache_t   *cache;
    ngx_mail_policy_scram_pt         handler;
    void                            *data;

    /* set by the event loop, read by the thread; seen late, it costs time */

    ngx_atomic_t                     canceled;

    /* the thread's, from posting to completion */

    ngx_int_t                        rc;
    size_t                           password_len;
    u_char                           password[MPOL_PASSWORD_MAX];
    ngx_mail_policy_scram_entry_t    entry;
};


static ngx_uint_t *ngx_mail_policy_scram_count(
    ngx_mail_policy_scram_cache_t *cache);
static void ngx_mail_policy_scram_thread(void *data, ngx_log_t *log);
static void ngx_mail_policy_scram_done_handler(ngx_event_t *ev);


/* this worker's tasks, for relays and for clients */
static ngx_uint_t  ngx_mail_policy_scram_tasks;
static ngx_uint_t  ngx_mail_policy_scram_clients;


ngx_mail_policy_scram_t *
ngx_mail_policy_scram_start(ngx_mail_policy_scram_cache_t *cache,
    void *thread_pool, ngx_str_t *password, ngx_str_t *salt,
    ngx_uint_t iterations, ngx_mail_policy_scram_pt handler, void *data)
{
    ngx_uint_t               *tasks, max;
    ngx_mail_policy_scram_t  *scram;

    tasks = ngx_mail_policy_scram_count(cache);
    max = cache ? NGX_MAIL_POLICY_SCRAM_TASKS : NGX_MAIL_POLICY_SCRAM_CLIENTS;

    if (*tasks >= max
        || salt->len > NGX_MAIL_POLICY_SCRAM_SALT
        || password->len > MPOL_PASSWORD_MAX)
    {
        return NULL;
    }

    scram = ngx_calloc(sizeof(ngx_mail_policy_scram_t), ngx_cycle->log);
    if (scram == NULL) {
        return NULL;
    }

    scram->cache = cache;
    scram->handler = handler;
    scram->data = data;

    scram->password_len = password->len;
    ngx_memcpy(scram->password, password->data, password->len);

    scram->entry.salt_len = salt->len;
    ngx_memcpy(scram->entry.salt, salt->data, salt->len);
    scram->entry.iterations = iterations;

    scram->task.ctx = scram;
    scram->task.handler = ngx_mail_policy_scram_thread;
    scram->task.event.data = scram;
    scram->task.event.handler = ngx_mail_policy_scram_done_handler;
    scram->task.event.log = ngx_cycle->log;

    if (ngx_thread_task_post(thread_pool, &scram->task) != NGX_OK) {
        ngx_explicit_memzero(scram->password, MPOL_PASSWORD_MAX);
        ngx_free(scram);
        return NULL;
    }

    (*tasks)++;

    return scram;
}


static ngx_uint_t *
ngx_mail_policy_scram_count(ngx_mail_policy_scram_cache_t *cache)
{
    return cache ? &ngx_mail_policy_scram_tasks
                 : &ngx_mail_policy_scram_clients;
}


void
ngx_mail_policy_scram_cancel(ngx_mail_policy_scram_t *scram)
{
    scram->handler = NULL;
    scram->canceled = 1;
}


/* runs in a thread: touches nothing but its own task, logs nothing */

static void
ngx_mail_policy_scram_thread(void *data, ngx_log_t *log)
{
    ngx_mail_policy_scram_t *scram = data;

    ngx_str_t  password, salt;

    password.data = scram->password;
    password.len = scram->password_len;

    salt.data = scram->entry.salt;
    salt.len = scram->entry.salt_len;

    scram->rc = scram->canceled ? NGX_ERROR
                                : ngx_mail_policy_scram_keys(&password, &salt,
                                                     scram->entry.iterations,
                                                     &scram->entry.keys);

    ngx_explicit_memzero(scram->password, MPOL_PASSWORD_MAX);
}


static void
ngx_mail_policy_scram_done_handler(ngx_event_t *ev)
{
    void                           *data;
    ngx_int_t                       rc;
    ngx_mail_policy_scram_t        *scram;
    ngx_mail_policy_scram_pt        handler;
    ngx_mail_policy_scram_keys_t    keys;
    ngx_mail_policy_scram_cache_t  *cache;

    scram = ev->data;
    cache = scram->cache;
    data = scram->data;
    handler = scram->handler;
    rc = scram->rc;
    keys = scram->entry.keys;

    if (cache && rc == NGX_OK) {
        cache->entries[cache->next] = scram->entry;
        cache->next = (cache->next + 1) % NGX_MAIL_POLICY_SCRAM_KNOWN;
    }

    (*ngx_mail_policy_scram_count(cache))--;

    ngx_explicit_memzero(&scram->entry, sizeof(scram->entry));
    ngx_free(scram);

    if (handler) {
        handler(data, (rc == NGX_OK) ? &keys : NULL);
    }

    ngx_explicit_memzero(&keys, sizeof(keys));
}


#else


/* the mechanism is not used then */

ngx_mail_policy_scram_t *
ngx_mail_policy_scram_start(ngx_mail_policy_scram_cache_t *cache,
    void *thread_pool, ngx_str_t *password, ngx_str_t *salt,
    ngx_uint_t iterations, ngx_mail_policy_scram_pt handler, void *data)
{
    return NULL;
}


void
ngx_mail_policy_scram_cancel(ngx_mail_policy_scram_t *scram)
{
}


#endif /* NGX_THREADS */
