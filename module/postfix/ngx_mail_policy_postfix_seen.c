
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Messages that are paid for.  No events arrive here.
 *
 * The zone has the lock of its pool, which the master opens if a worker dies
 * that holds it.  It is held for one set: eight comparisons.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>
#include <ngx_sha1.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_postfix_seen.h"


#define NGX_MAIL_POLICY_POSTFIX_SETS                                          \
    (NGX_MAIL_POLICY_POSTFIX_ENTRIES / NGX_MAIL_POLICY_POSTFIX_WAYS)

#define NGX_MAIL_POLICY_POSTFIX_TABLE                                         \
    (NGX_MAIL_POLICY_POSTFIX_ENTRIES                                          \
     * sizeof(ngx_mail_policy_postfix_note_t))

/* of which pages are described by the pool, one for each page of ours */
#define NGX_MAIL_POLICY_POSTFIX_ZONE                                          \
    (NGX_MAIL_POLICY_POSTFIX_TABLE + NGX_MAIL_POLICY_POSTFIX_TABLE / 32       \
     + 65536)


struct ngx_mail_policy_postfix_seen_s {
    ngx_slab_pool_t                 *shpool;
    ngx_mail_policy_postfix_note_t  *notes;
};


static ngx_int_t ngx_mail_policy_postfix_seen_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_mail_policy_postfix_note_t *ngx_mail_policy_postfix_seen_set(
    ngx_mail_policy_postfix_seen_t *seen, u_char *digest);


ngx_mail_policy_postfix_seen_t *
ngx_mail_policy_postfix_seen_add(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t                  *shm_zone;
    ngx_mail_policy_postfix_seen_t  *seen;

    static ngx_str_t  name = ngx_string("mail_policy_postfix");

    shm_zone = ngx_shared_memory_add(cf, &name, NGX_MAIL_POLICY_POSTFIX_ZONE,
                                     tag);
    if (shm_zone == NULL) {
        return NULL;
    }

    if (shm_zone->data) {
        return shm_zone->data;
    }

    seen = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_postfix_seen_t));
    if (seen == NULL) {
        return NULL;
    }

    shm_zone->init = ngx_mail_policy_postfix_seen_init;
    shm_zone->data = seen;

    return seen;
}


static ngx_int_t
ngx_mail_policy_postfix_seen_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_mail_policy_postfix_seen_t *old = data;

    ngx_mail_policy_postfix_seen_t  *seen;

    seen = shm_zone->data;

    if (old) {
        seen->notes = old->notes;
        seen->shpool = old->shpool;
        return NGX_OK;
    }

    seen->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        seen->notes = seen->shpool->data;
        return NGX_OK;
    }

    seen->notes = ngx_slab_calloc(seen->shpool,
                                  NGX_MAIL_POLICY_POSTFIX_TABLE);
    if (seen->notes == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "no memory for \"%V\"", &shm_zone->shm.name);
        return NGX_ERROR;
    }

    seen->shpool->data = seen->notes;

    return NGX_OK;
}


void
ngx_mail_policy_postfix_seen_digest(ngx_array_t *limits, ngx_str_t *instance,
    u_char digest[NGX_MAIL_POLICY_POSTFIX_DIGEST])
{
    ngx_uint_t                i;
    ngx_sha1_t                sha1;
    ngx_mail_policy_limit_t  *limit;

    ngx_sha1_init(&sha1);

    limit = limits->elts;

    for (i = 0; i < limits->nelts; i++) {
        ngx_sha1_update(&sha1, limit[i].name.data, limit[i].name.len);
        ngx_sha1_update(&sha1, "", 1);
    }

    ngx_sha1_update(&sha1, instance->data, instance->len);
    ngx_sha1_final(digest, &sha1);
}


void
ngx_mail_policy_postfix_seen_recipient(ngx_str_t *recipient,
    u_char digest[NGX_MAIL_POLICY_POSTFIX_DIGEST])
{
    ngx_sha1_t  sha1;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, recipient->data, recipient->len);
    ngx_sha1_final(digest, &sha1);
}


ngx_uint_t
ngx_mail_policy_postfix_seen_find(ngx_mail_policy_postfix_seen_t *seen,
    ngx_mail_policy_postfix_note_t *note)
{
    uint32_t                         now;
    ngx_uint_t                       i, found;
    ngx_mail_policy_postfix_note_t  *entry;

    now = (uint32_t) ngx_time();
    found = 0;
    entry = ngx_mail_policy_postfix_seen_set(seen, note->digest);

    ngx_shmtx_lock(&seen->shpool->mutex);

    for (i = 0; i < NGX_MAIL_POLICY_POSTFIX_WAYS; i++, entry++) {

        if (ngx_memcmp(entry->digest, note->digest,
                       NGX_MAIL_POLICY_POSTFIX_DIGEST)
            == 0)
        {
            found = ((int32_t) (entry->expires - now) > 0);

            if (found) {
                *note = *entry;
            }

            break;
        }
    }

    ngx_shmtx_unlock(&seen->shpool->mutex);

    return found;
}


void
ngx_mail_policy_postfix_seen_keep(ngx_mail_policy_postfix_seen_t *seen,
    ngx_mail_policy_postfix_note_t *note, ngx_uint_t ttl)
{
    ngx_uint_t                       i;
    ngx_mail_policy_postfix_note_t  *entry, *first;

    note->expires = (uint32_t) (ngx_time() + ttl);

    first = ngx_mail_policy_postfix_seen_set(seen, note->digest);

    ngx_shmtx_lock(&seen->shpool->mutex);

    entry = first;

    for (i = 0; i < NGX_MAIL_POLICY_POSTFIX_WAYS; i++, entry++) {

        if (ngx_memcmp(entry->digest, note->digest,
                       NGX_MAIL_POLICY_POSTFIX_DIGEST)
            == 0)
        {
            first = entry;
            break;
        }

        if ((int32_t) (entry->expires - first->expires) < 0) {
            first = entry;
        }
    }

    *first = *note;

    ngx_shmtx_unlock(&seen->shpool->mutex);
}


static ngx_mail_policy_postfix_note_t *
ngx_mail_policy_postfix_seen_set(ngx_mail_policy_postfix_seen_t *seen,
    u_char *digest)
{
    uint32_t  n;

    ngx_memcpy(&n, digest, sizeof(uint32_t));

    n %= NGX_MAIL_POLICY_POSTFIX_SETS;

    return &seen->notes[n * NGX_MAIL_POLICY_POSTFIX_WAYS];
}
