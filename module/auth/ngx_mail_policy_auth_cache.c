
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Passwords that were right.  No events arrive here.
 *
 * The zone has the lock of its pool, which the master opens if a worker dies
 * that holds it.  It is held for one set: four comparisons.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "ngx_mail_policy_auth_cache.h"
#include "ngx_mail_policy_crypt.h"


#define NGX_MAIL_POLICY_AUTH_CACHE_SECRET   32

#define NGX_MAIL_POLICY_AUTH_CACHE_SETS                                       \
    (NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES / NGX_MAIL_POLICY_AUTH_CACHE_WAYS)

/* method, login, NUL, hash, NUL, password */
#define NGX_MAIL_POLICY_AUTH_CACHE_TEXT                                       \
    (sizeof(uint32_t) + MPOL_IDENTITY_MAX + 1                                 \
     + NGX_MAIL_POLICY_CRYPT_HASH_MAX + 1 + MPOL_PASSWORD_MAX)


typedef struct {
    ngx_msec_t                        expires;
    u_char                            digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST];
} ngx_mail_policy_auth_cache_entry_t;


typedef struct {
    ngx_mail_policy_auth_cache_entry_t
                                  entries[NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES];
    u_char                        secret[NGX_MAIL_POLICY_AUTH_CACHE_SECRET];
} ngx_mail_policy_auth_cache_shctx_t;


struct ngx_mail_policy_auth_cache_s {
    ngx_slab_pool_t                      *shpool;
    ngx_mail_policy_auth_cache_shctx_t   *sh;
};


/* of which pages are described by the pool, one for each page of ours */
#define NGX_MAIL_POLICY_AUTH_CACHE_SIZE                                       \
    (sizeof(ngx_mail_policy_auth_cache_shctx_t)                               \
     + sizeof(ngx_mail_policy_auth_cache_shctx_t) / 32 + 65536)


static ngx_int_t ngx_mail_policy_auth_cache_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_mail_policy_auth_cache_entry_t *ngx_mail_policy_auth_cache_set(
    ngx_mail_policy_auth_cache_t *cache, u_char *digest);


ngx_mail_policy_auth_cache_t *
ngx_mail_policy_auth_cache_add(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t                *shm_zone;
    ngx_mail_policy_auth_cache_t  *cache;

    static ngx_str_t  name = ngx_string("mail_policy_auth");

    shm_zone = ngx_shared_memory_add(cf, &name,
                                     NGX_MAIL_POLICY_AUTH_CACHE_SIZE, tag);
    if (shm_zone == NULL) {
        return NULL;
    }

    if (shm_zone->data) {
        return shm_zone->data;
    }

    cache = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_cache_t));
    if (cache == NULL) {
        return NULL;
    }

    shm_zone->init = ngx_mail_policy_auth_cache_init;
    shm_zone->data = cache;

    return cache;
}


static ngx_int_t
ngx_mail_policy_auth_cache_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_mail_policy_auth_cache_t *old = data;

    ngx_mail_policy_auth_cache_t  *cache;

    cache = shm_zone->data;

    if (old) {
        cache->sh = old->sh;
        cache->shpool = old->shpool;
        return NGX_OK;
    }

    cache->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        cache->sh = cache->shpool->data;
        return NGX_OK;
    }

    cache->sh = ngx_slab_calloc(cache->shpool,
                                sizeof(ngx_mail_policy_auth_cache_shctx_t));

    if (cache->sh == NULL
        || RAND_bytes(cache->sh->secret, NGX_MAIL_POLICY_AUTH_CACHE_SECRET)
           != 1)
    {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "no memory or no random octets for \"%V\"",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }

    cache->shpool->data = cache->sh;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_auth_cache_digest(ngx_mail_policy_auth_cache_t *cache,
    ngx_uint_t method, ngx_str_t *login, ngx_str_t *hash, ngx_str_t *password,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST])
{
    u_char     *p, *rc;
    uint32_t    bit;
    u_char      text[NGX_MAIL_POLICY_AUTH_CACHE_TEXT];

    /* no NUL in a login, nor in a hash: it would end elsewhere */

    if (login->len > MPOL_IDENTITY_MAX
        || hash->len > NGX_MAIL_POLICY_CRYPT_HASH_MAX
        || password->len > MPOL_PASSWORD_MAX
        || ngx_strlchr(login->data, login->data + login->len, '\0')
        || ngx_strlchr(hash->data, hash->data + hash->len, '\0'))
    {
        return NGX_ERROR;
    }

    bit = (uint32_t) method;

    p = ngx_cpymem(text, &bit, sizeof(uint32_t));
    p = ngx_cpymem(p, login->data, login->len);
    *p++ = '\0';
    p = ngx_cpymem(p, hash->data, hash->len);
    *p++ = '\0';
    p = ngx_cpymem(p, password->data, password->len);

    rc = HMAC(EVP_sha256(), cache->sh->secret,
              NGX_MAIL_POLICY_AUTH_CACHE_SECRET, text, p - text, digest, NULL);

    ngx_explicit_memzero(text, sizeof(text));

    return rc ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_mail_policy_auth_cache_find(ngx_mail_policy_auth_cache_t *cache,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST])
{
    ngx_uint_t                           i, found;
    ngx_mail_policy_auth_cache_entry_t  *entry;

    found = 0;
    entry = ngx_mail_policy_auth_cache_set(cache, digest);

    ngx_shmtx_lock(&cache->shpool->mutex);

    for (i = 0; i < NGX_MAIL_POLICY_AUTH_CACHE_WAYS; i++, entry++) {

        if (CRYPTO_memcmp(entry->digest, digest,
                          NGX_MAIL_POLICY_AUTH_CACHE_DIGEST)
            == 0)
        {
            found = ((ngx_msec_int_t) (entry->expires - ngx_current_msec) > 0);
            break;
        }
    }

    ngx_shmtx_unlock(&cache->shpool->mutex);

    return found;
}


void
ngx_mail_policy_auth_cache_remember(ngx_mail_policy_auth_cache_t *cache,
    u_char digest[NGX_MAIL_POLICY_AUTH_CACHE_DIGEST], ngx_msec_t ttl)
{
    ngx_uint_t                           i;
    ngx_mail_policy_auth_cache_entry_t  *entry, *first;

    first = ngx_mail_policy_auth_cache_set(cache, digest);

    ngx_shmtx_lock(&cache->shpool->mutex);

    entry = first;

    for (i = 0; i < NGX_MAIL_POLICY_AUTH_CACHE_WAYS; i++, entry++) {

        if (CRYPTO_memcmp(entry->digest, digest,
                          NGX_MAIL_POLICY_AUTH_CACHE_DIGEST)
            == 0)
        {
            first = entry;
            break;
        }

        if ((ngx_msec_int_t) (entry->expires - first->expires) < 0) {
            first = entry;
        }
    }

    ngx_memcpy(first->digest, digest, NGX_MAIL_POLICY_AUTH_CACHE_DIGEST);
    first->expires = ngx_current_msec + ttl;

    ngx_shmtx_unlock(&cache->shpool->mutex);
}


/* who does not know the secret cannot choose it */

static ngx_mail_policy_auth_cache_entry_t *
ngx_mail_policy_auth_cache_set(ngx_mail_policy_auth_cache_t *cache,
    u_char *digest)
{
    uint32_t  n;

    ngx_memcpy(&n, digest, sizeof(uint32_t));

    n %= NGX_MAIL_POLICY_AUTH_CACHE_SETS;

    return &cache->sh->entries[n * NGX_MAIL_POLICY_AUTH_CACHE_WAYS];
}
