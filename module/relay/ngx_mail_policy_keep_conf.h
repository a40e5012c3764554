
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A group's connections that are kept (..._keep.h), and its directives
 * keepalive, keepalive_requests, keepalive_time and keepalive_timeout.
 */


#ifndef NGX_MAIL_POLICY_KEEP_CONF_H
#define NGX_MAIL_POLICY_KEEP_CONF_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_uint_t    max;                  /* at once, a worker; 0: none */
    ngx_uint_t    requests;             /* transactions of a connection */
    ngx_msec_t    time;                 /* its age */
    ngx_msec_t    timeout;              /* unused */

    ngx_queue_t   relays;               /* the last used first */
    ngx_uint_t    count;

    unsigned      requests_set:1;
    unsigned      time_set:1;
    unsigned      timeout_set:1;
} ngx_mail_policy_keep_t;


/* of a new group: nothing is kept */
void ngx_mail_policy_keep_init(ngx_mail_policy_keep_t *keep);

/* one of the directives */
char *ngx_mail_policy_keep_directive(ngx_conf_t *cf,
    ngx_mail_policy_keep_t *keep);


#endif /* NGX_MAIL_POLICY_KEEP_CONF_H */
