
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays that are made at run time, from "address:port",
 * "[address]:port", "unix:/path", or "name:port", which the resolver is asked
 * for.  A worker has a number of them at most; one that was not used for a
 * while is dropped.
 */


#ifndef NGX_MAIL_POLICY_DYNAMIC_H
#define NGX_MAIL_POLICY_DYNAMIC_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_upstream.h"


typedef struct {
    /* set by the caller */

    ngx_pool_t                  *pool;      /* the group lives as long as it */
    ngx_log_t                   *log;
    ngx_resolver_t              *resolver;  /* NULL: names are refused */
    ngx_msec_t                   timeout;
    void                       (*handler)(void *data);
    void                        *data;

    /* the result; NULL: there is none, which was logged */

    ngx_mail_policy_upstream_t  *upstream;

    ngx_queue_t                  queue;
    unsigned                     waits:1;
} ngx_mail_policy_dynamic_t;


/*
 * NGX_OK: d->upstream is set.  NGX_AGAIN: a name is asked for; handler() comes
 * from an event, with d->upstream set or NULL, if it is not cancelled before.
 * NGX_ERROR: there is none: no address, no resolver, no memory, too many.
 */
ngx_int_t ngx_mail_policy_dynamic_get(ngx_mail_policy_upstreams_t *all,
    ngx_str_t *text, ngx_mail_policy_dynamic_t *d);

/* handler() will not come; may be called at any time */
void ngx_mail_policy_dynamic_cancel(ngx_mail_policy_dynamic_t *d);


/* of a worker: none yet; drops those that were not used for so many seconds */
void ngx_mail_policy_dynamic_init(ngx_mail_policy_upstreams_t *all);
void ngx_mail_policy_dynamic_expire(ngx_mail_policy_upstreams_t *all,
    time_t unused);


#endif /* NGX_MAIL_POLICY_DYNAMIC_H */
