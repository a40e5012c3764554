
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Relays that are asked whether they are well, before a message has to find
 * out: "health_check" of a group.
 */


#ifndef NGX_MAIL_POLICY_HEALTH_H
#define NGX_MAIL_POLICY_HEALTH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_peer.h"


typedef struct {
    ngx_msec_t    interval;             /* 0: no checks */
    ngx_msec_t    jitter;
    ngx_msec_t    timeout;              /* of one check */
    ngx_uint_t    fails;
    ngx_uint_t    passes;
    in_port_t     port;                 /* 0: that of the server */

    ngx_event_t   timer;
    ngx_queue_t   probes;               /* those under way */
} ngx_mail_policy_health_t;


/* the directive */
char *ngx_mail_policy_health_directive(ngx_conf_t *cf,
    ngx_mail_policy_health_t *health);

/* in a worker */
void ngx_mail_policy_health_start(ngx_mail_policy_upstream_t *upstream,
    ngx_log_t *log);
void ngx_mail_policy_health_stop(ngx_mail_policy_upstream_t *upstream);


/* between its files */

/* asks one relay; verdict() comes, unless it cannot be asked at all */
void ngx_mail_policy_health_probe(ngx_mail_policy_peer_t *peer);

/* ends what is under way, without verdicts */
void ngx_mail_policy_health_probes_close(ngx_mail_policy_health_t *health);

/* why: it is not well; NULL: it is */
void ngx_mail_policy_health_verdict(ngx_mail_policy_peer_t *peer,
    const char *why);


#endif /* NGX_MAIL_POLICY_HEALTH_H */
