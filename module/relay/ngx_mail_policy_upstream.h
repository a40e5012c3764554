
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Groups of relays: "upstream name { ... }", what "proxy_pass host:port" names
 * by itself, and those that are made at run time.
 */


#ifndef NGX_MAIL_POLICY_UPSTREAM_H
#define NGX_MAIL_POLICY_UPSTREAM_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_health.h"
#include "ngx_mail_policy_keep_conf.h"
#include "ngx_mail_policy_peer.h"
#include "ngx_mail_policy_value.h"


/* addresses of a group at most: those that were tried are bits */
#define NGX_MAIL_POLICY_PEERS       256

#define NGX_MAIL_POLICY_MAX_WEIGHT  65535


typedef struct ngx_mail_policy_relay_login_s  ngx_mail_policy_relay_login_t;


typedef enum {
    NGX_MAIL_POLICY_ROUND_ROBIN = 0,
    NGX_MAIL_POLICY_LEAST_CONN,
    NGX_MAIL_POLICY_HASH,
    NGX_MAIL_POLICY_CONSISTENT,
    NGX_MAIL_POLICY_RANDOM,
    NGX_MAIL_POLICY_RANDOM_TWO
} ngx_mail_policy_method_e;


/* a line "server address ..." */
struct ngx_mail_policy_server_s {
    ngx_str_t                    name;          /* address, as written */
    ngx_uint_t                   ordinal;       /* of those with this name */

    ngx_int_t                    weight;
    ngx_uint_t                   max_fails;     /* 0: are not counted */
    time_t                       fail_timeout;
    ngx_uint_t                   max_conns;     /* 0: any number */
    ngx_msec_t                   slow_start;

    ngx_addr_t                  *addrs;         /* found at the start */
    ngx_uint_t                   naddrs;

    ngx_str_t                    host;          /* "resolve": asked for */
    in_port_t                    port;
    ngx_event_t                  ask;           /* when that is due */
    ngx_resolver_ctx_t          *asking;        /* NULL: nothing is asked */
    ngx_mail_policy_upstream_t  *upstream;      /* its group, then */

    unsigned                     backup:1;
    unsigned                     down:1;
    unsigned                     resolve:1;
};


struct ngx_mail_policy_upstream_s {
    ngx_str_t                    name;
    ngx_array_t                  servers;       /* ..._server_t */

    ngx_mail_policy_peer_t     **peers;         /* NULL where one has gone */
    ngx_uint_t                   npeers;        /* with these */
    ngx_uint_t                   max_peers;
    ngx_uint_t                   present;       /* without */

    ngx_mail_policy_method_e     method;
    ngx_mail_policy_value_t     *key;           /* of "hash" */
    mpol_point_t                *points;        /* of "hash consistent" */
    ngx_uint_t                   npoints;

    ngx_mail_policy_keep_t       keep;          /* connections */
    ngx_mail_policy_health_t     health;        /* checks */
    ngx_mail_policy_relay_login_t *login;       /* proxy_auth, or NULL */

    ngx_mail_policy_peer_zone_t *zone;          /* in a worker */

    ngx_resolver_t              *resolver;      /* of "resolve", or NULL */
    ngx_msec_t                   resolver_timeout;

    /* NULL, or told of each answer; may drop the group */
    void                       (*resolved)(ngx_mail_policy_upstream_t *u);
    void                        *data;

    ngx_uint_t                   refs;          /* of peers in use */

    u_char                      *file;          /* where it was defined */
    ngx_uint_t                   line;
    unsigned                     implicit:1;    /* of "proxy_pass" */
    unsigned                     dynamic:1;     /* made at run time */
};


/* of a configuration */
typedef struct {
    ngx_array_t                 *upstreams;     /* ..._upstream_t * */
    ngx_mail_policy_peer_zone_t *zone;
    ngx_event_t                  tick;

    ngx_rbtree_t                 dynamic;       /* groups of run time */
    ngx_rbtree_node_t            sentinel;
    ngx_queue_t                  recent;        /* the last used first */
    ngx_uint_t                   ndynamic;

    ngx_resolver_t              *resolver;      /* of mail{}, or NULL */
    ngx_msec_t                   resolver_timeout;
} ngx_mail_policy_upstreams_t;


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
 * 1 if a peer of the group can be chosen only when a recipient is known, as
 * the key of its "hash" says so.
 */
ngx_uint_t ngx_mail_policy_upstream_lazy(ngx_mail_policy_upstream_t *upstream);

/*
 * What is known of a group, joined to what is known of others: *lacking gets
 * the MPOL_RELAY_... that some peer of it is known not to offer, *unknown is
 * set if there is one that has not been asked yet, *size becomes the smallest
 * maximum (0: none).
 */
void ngx_mail_policy_upstream_offers(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t *lacking, ngx_uint_t *unknown, uint64_t *size);

/* when all groups of the configuration are known; errors are logged */
ngx_int_t ngx_mail_policy_upstream_init(ngx_conf_t *cf,
    ngx_mail_policy_upstreams_t *all);

/* in a worker */
ngx_int_t ngx_mail_policy_upstream_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_upstreams_t *all);
void ngx_mail_policy_upstream_exit_process(ngx_mail_policy_upstreams_t *all);


/* between the files of the groups */

/* a line of the block; what the lines mean together */
char *ngx_mail_policy_upstream_entry(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_mail_policy_upstream_check(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);

/* a line "server ..." */
char *ngx_mail_policy_upstream_server(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream);

/* a server with nothing but defaults; NULL: no memory */
ngx_mail_policy_server_t *ngx_mail_policy_upstream_server_push(
    ngx_mail_policy_upstream_t *upstream, ngx_str_t *name);

/* finds the addresses of a server at the start; what is wrong is logged */
ngx_int_t ngx_mail_policy_upstream_server_addrs(ngx_conf_t *cf,
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_server_t *server);

/* a new group without servers; NULL: no memory */
ngx_mail_policy_upstream_t *ngx_mail_policy_upstream_create(ngx_pool_t *pool,
    ngx_str_t *name);

/* room for n addresses */
ngx_int_t ngx_mail_policy_upstream_room(ngx_mail_policy_upstream_t *upstream,
    ngx_uint_t n, ngx_pool_t *pool);

/* the ring of "hash consistent" */
ngx_int_t ngx_mail_policy_upstream_points(
    ngx_mail_policy_upstream_t *upstream, ngx_pool_t *pool);

/* one address more, without state; NULL: no room or no memory */
ngx_mail_policy_peer_t *ngx_mail_policy_upstream_peer_add(
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_server_t *server,
    ngx_addr_t *addr, ngx_pool_t *pool);

/* one address less, its peer is gone with the last connection to it */
void ngx_mail_policy_upstream_peer_remove(
    ngx_mail_policy_upstream_t *upstream, ngx_mail_policy_peer_t *peer);

/* all of them, and no more questions */
void ngx_mail_policy_upstream_leave(ngx_mail_policy_upstream_t *upstream);

/* the names of "resolve" are asked for from now on */
void ngx_mail_policy_upstream_resolve_start(
    ngx_mail_policy_upstream_t *upstream, ngx_log_t *log);
void ngx_mail_policy_upstream_resolve_stop(
    ngx_mail_policy_upstream_t *upstream);


#endif /* NGX_MAIL_POLICY_UPSTREAM_H */
