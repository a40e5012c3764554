
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays and the choice among them: smooth weighted round robin
 * with max_fails, fail_timeout, backup and down, as nginx's stream upstream.
 * The state is a worker's own.
 */


#ifndef NGX_MAIL_POLICY_UPSTREAM_H
#define NGX_MAIL_POLICY_UPSTREAM_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_reply.h"
#include "ngx_mail_policy_keep_conf.h"


typedef struct {
    struct sockaddr  *sockaddr;
    socklen_t         socklen;
    ngx_str_t         name;             /* address:port, for the log */
    ngx_str_t         server;           /* as in the configuration */

    ngx_int_t         weight;
    ngx_int_t         effective_weight;
    ngx_int_t         current_weight;

    ngx_uint_t        max_fails;        /* 0: failures are not counted */
    time_t            fail_timeout;
    ngx_uint_t        fails;
    time_t            accessed;
    time_t            checked;

    uint64_t          size;             /* of a message; 0: no maximum */
    ngx_uint_t        extensions;       /* MPOL_RELAY_..., of its last EHLO */
    unsigned          known:1;          /* ... which it has answered */

    unsigned          backup:1;
    unsigned          down:1;
} ngx_mail_policy_peer_t;


typedef struct {
    ngx_str_t         name;
    ngx_array_t       peers;            /* ngx_mail_policy_peer_t; at most 64
                                           so that "tried" is one word */
    ngx_mail_policy_keep_t  keep;

    u_char           *file;             /* where it was defined */
    ngx_uint_t        line;
    unsigned          implicit:1;       /* from "proxy_pass host:port" */
} ngx_mail_policy_upstream_t;


/* the directive "upstream name { server ...; }" */
char *ngx_mail_policy_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * A group by name, or a new implicit one for "host:port", "unix:/path"
 * (names are resolved now).  NULL: error, logged.
 */
ngx_mail_policy_upstream_t *ngx_mail_policy_upstream_add(ngx_conf_t *cf,
    ngx_array_t *upstreams, ngx_str_t *name);

/* at run time: NULL if there is no group of that name */
ngx_mail_policy_upstream_t *ngx_mail_policy_upstream_find(
    ngx_array_t *upstreams, ngx_str_t *name);

/*
 * The next peer that is not among *tried (a bit a peer), which it is added
 * to; NULL if none is left.  Backups only when no other is left.
 */
ngx_mail_policy_peer_t *ngx_mail_policy_upstream_get(
    ngx_mail_policy_upstream_t *upstream, uint64_t *tried);

/* 1 if a peer is not among tried: set aside, it is away for a while only */
ngx_uint_t ngx_mail_policy_upstream_more(ngx_mail_policy_upstream_t *upstream,
    uint64_t tried);

/* tells how it went with a peer that was got; failed: it could not serve */
void ngx_mail_policy_upstream_report(ngx_mail_policy_peer_t *peer,
    ngx_uint_t failed);


/* keeps what a peer's EHLO has offered */
void ngx_mail_policy_upstream_learn(ngx_mail_policy_peer_t *peer,
    mpol_ehlo_t *ehlo);

/*
 * What is known of a group, joined to what is known of others: *lacking gets
 * the MPOL_RELAY_... that some peer of it is known not to offer, *unknown is
 * set if there is one that has not been asked yet, *size becomes the smallest
 * maximum (0: none).
 */
void ngx_mail_policy_upstream_offers(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t *lacking, ngx_uint_t *unknown, uint64_t *size);


#endif /* NGX_MAIL_POLICY_UPSTREAM_H */
