
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of store/ share: the store as the configuration made it.
 */


#ifndef NGX_MAIL_POLICY_STORE_CONF_H
#define NGX_MAIL_POLICY_STORE_CONF_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_redis.h"
#include "ngx_mail_policy_shm.h"
#include "ngx_mail_policy_store.h"


struct ngx_mail_policy_store_s {
    ngx_mail_policy_shm_t    *shm;
    ngx_mail_policy_redis_t  *redis;        /* NULL: shared memory only */
    ngx_uint_t                on_error;     /* NGX_MAIL_POLICY_ON_ERROR_... */
    size_t                    zone_size;    /* 0: not set */
    ngx_msec_t                cache;        /* of entries in Redis */
    ngx_uint_t                events;       /* kept in the stream; 0: none */
    u_char                    secret[20];

    ngx_flag_t                ssl_verify;
    ngx_str_t                 ssl_trusted_certificate;
    ngx_str_t                 ssl_name;

    /* a worker's */

    void                     *levels;       /* ..._levels_t; NULL: no Redis */
    void                     *strings;      /* ..._cache_t; NULL: none yet */
    ngx_event_t               local;        /* counts to be handed over */
    ngx_uint_t                nlocal;       /* on their way */
    ngx_queue_t               lost;         /* to be sent again */
    ngx_event_t               linger;       /* Redis has still to answer */
    ngx_msec_t                linger_end;
    unsigned                  exiting:1;    /* nobody will be answered */
};


/* urls: n of them, none empty; NULL, or what is wrong */
const char *ngx_mail_policy_redis_urls(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, ngx_str_t *urls, ngx_uint_t n);
/* for rediss://, when all directives are read */
ngx_int_t ngx_mail_policy_redis_ssl_init(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis);


/* the tag of the zone */
extern ngx_module_t  ngx_mail_policy_module;


#endif /* NGX_MAIL_POLICY_STORE_CONF_H */
