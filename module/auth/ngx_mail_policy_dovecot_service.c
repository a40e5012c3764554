
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The connections of a worker to one socket of Dovecot.  No events arrive
 * here.
 *
 *     current --old, and somebody waits--> leaving -> closed, and freed
 *
 * The first one is of the configuration, others are allocated.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_dovecot.h"


static void ngx_mail_policy_dovecot_init(
    ngx_mail_policy_dovecot_service_t *service,
    ngx_mail_policy_dovecot_t *dovecot);


ngx_mail_policy_dovecot_service_t *
ngx_mail_policy_dovecot_create(ngx_conf_t *cf, ngx_str_t *path)
{
    ngx_url_t                           u;
    ngx_mail_policy_dovecot_t          *dovecot;
    ngx_mail_policy_dovecot_service_t  *service;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *path;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in \"dovecot:%V\" of \"policy_auth\"",
                           u.err ? u.err : "no memory", path);
        return NULL;
    }

    service = ngx_pcalloc(cf->pool,
                          sizeof(ngx_mail_policy_dovecot_service_t));
    dovecot = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_dovecot_t));

    if (service == NULL || dovecot == NULL) {
        return NULL;
    }

    dovecot->name = *path;
    dovecot->sockaddr = u.addrs[0].sockaddr;
    dovecot->socklen = u.addrs[0].socklen;

    ngx_mail_policy_dovecot_init(service, dovecot);

    service->current = dovecot;
    ngx_queue_init(&service->leaving);

    return service;
}


static void
ngx_mail_policy_dovecot_init(ngx_mail_policy_dovecot_service_t *service,
    ngx_mail_policy_dovecot_t *dovecot)
{
    dovecot->service = service;
    dovecot->backoff = NGX_MAIL_POLICY_DOVECOT_BACKOFF;

    ngx_rbtree_init(&dovecot->requests, &dovecot->sentinel,
                    ngx_rbtree_insert_value);
}


ngx_mail_policy_dovecot_t *
ngx_mail_policy_dovecot_current(ngx_mail_policy_dovecot_service_t *service)
{
    ngx_mail_policy_dovecot_t  *old, *dovecot;

    old = service->current;

    if (old->state != NGX_MAIL_POLICY_DOVECOT_UP || !old->old) {
        return old;
    }

    dovecot = ngx_calloc(sizeof(ngx_mail_policy_dovecot_t), ngx_cycle->log);
    if (dovecot == NULL) {
        return old;
    }

    dovecot->name = old->name;
    dovecot->sockaddr = old->sockaddr;
    dovecot->socklen = old->socklen;
    dovecot->allocated = 1;

    ngx_mail_policy_dovecot_init(service, dovecot);

    service->current = dovecot;
    ngx_queue_insert_tail(&service->leaving, &old->queue);

    return dovecot;
}


/* one that is closed, and was not for new requests any more */

void
ngx_mail_policy_dovecot_free(ngx_mail_policy_dovecot_t *dovecot)
{
    if (dovecot == dovecot->service->current) {
        return;
    }

    ngx_queue_remove(&dovecot->queue);

    if (dovecot->allocated) {
        ngx_free(dovecot);
    }
}


/* sessions are gone, or end with the process */

void
ngx_mail_policy_dovecot_exit(ngx_mail_policy_dovecot_service_t *service)
{
    ngx_queue_t                *q;
    ngx_mail_policy_dovecot_t  *dovecot;

    ngx_mail_policy_dovecot_close(service->current);

    for (q = ngx_queue_head(&service->leaving);
         q != ngx_queue_sentinel(&service->leaving);
         q = ngx_queue_next(q))
    {
        dovecot = ngx_queue_data(q, ngx_mail_policy_dovecot_t, queue);

        ngx_mail_policy_dovecot_close(dovecot);
    }
}
