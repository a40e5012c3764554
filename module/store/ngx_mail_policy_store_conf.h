
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
    ngx_event_t               linger;       /* Redis has still to answer */
    ngx_msec_t                linger_end;
    unsigned                  exiting:1;    /* nobody will be answered */
};


/* the tag of the zone */
extern ngx_module_t  ngx_mail_policy_module;


#endif /* NGX_MAIL_POLICY_STORE_CONF_H */
