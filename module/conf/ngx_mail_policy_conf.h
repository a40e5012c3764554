
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The configuration as the rest of the module reads it.
 */


#ifndef NGX_MAIL_POLICY_CONF_H
#define NGX_MAIL_POLICY_CONF_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>
#include <ngx_mail_ssl_module.h>
#include <ngx_mail_smtp_module.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_http_conf.h"
#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_relay.h"
#include "ngx_mail_policy_service.h"
#include "ngx_mail_policy_store.h"
#include "ngx_mail_policy_upstream.h"
#include "ngx_mail_policy_value.h"


/* on_exceed= */
typedef enum {
    NGX_MAIL_POLICY_DEFER = 0,
    NGX_MAIL_POLICY_REJECT,
    NGX_MAIL_POLICY_TARPIT,
    NGX_MAIL_POLICY_REPORT,
    NGX_MAIL_POLICY_RELAY
} ngx_mail_policy_exceed_e;

extern ngx_str_t  ngx_mail_policy_exceed_names[];


/* policy_edge */
typedef struct {
    ngx_array_t                   networks;     /* ngx_cidr_t: of clients */
    ngx_array_t                   servers;      /* ngx_addr_t; port 0: any */
    unsigned                      xclient:1;
    unsigned                      off:1;        /* said so: nothing is set */
} ngx_mail_policy_edge_conf_t;


/* policy_action */
typedef struct {
    ngx_mail_policy_value_t       value;
    time_t                        warned;       /* that it was no action */
    u_char                       *file;
    ngx_uint_t                    line;
} ngx_mail_policy_action_conf_t;

/* of its value: the answer is a line of at most 4096 octets */
#define NGX_MAIL_POLICY_ACTION_MAX  4087


/* policy_socket_mode */
typedef struct {
    ngx_uint_t                    mode;
    ngx_uint_t                    user;         /* or -1: as it is */
    ngx_uint_t                    group;
    u_char                       *file;
    ngx_uint_t                    line;
} ngx_mail_policy_socket_conf_t;


/* policy_lookup */
typedef struct {
    ngx_str_t                     name;         /* without "$" */
    ngx_uint_t                    n;            /* its bit in masks */
    ngx_mail_policy_value_t       key;
    ngx_mail_policy_value_t       fallback;     /* the default */
    ngx_uint_t                    phase;        /* of both */
    uint64_t                      lookups;      /* it and what both need */

    u_char                       *file;         /* where it was defined */
    ngx_uint_t                    line;
    unsigned                      entered:1;
    unsigned                      resolved:1;
} ngx_mail_policy_lookup_conf_t;

#define NGX_MAIL_POLICY_LOOKUPS_MAX  64         /* bits of a mask */


/* proxy_next_upstream; 1 is NGX_CONF_BITMASK_SET */
#define NGX_MAIL_POLICY_NEXT_OFF      0x0002
#define NGX_MAIL_POLICY_NEXT_ERROR    0x0004
#define NGX_MAIL_POLICY_NEXT_TIMEOUT  0x0008
#define NGX_MAIL_POLICY_NEXT_INVALID  0x0010
#define NGX_MAIL_POLICY_NEXT_SETUP    0x0020
#define NGX_MAIL_POLICY_NEXT_421      0x0040
#define NGX_MAIL_POLICY_NEXT_4XX      0x0080
#define NGX_MAIL_POLICY_NEXT_UNABLE   0x0100    /* always: it lacks what the
                                                   message needs */


/* policy_received */
#define NGX_MAIL_POLICY_RECEIVED_OFF   0
#define NGX_MAIL_POLICY_RECEIVED_ON    1
#define NGX_MAIL_POLICY_RECEIVED_AUTO  2    /* where the relay is not told
                                               the client by XCLIENT */


/* policy_limit */
typedef struct {
    ngx_str_t                     name;
    ngx_mail_policy_value_t       key;
    ngx_mail_policy_value_t       condition;    /* if=; text empty: none */
    ngx_mail_policy_value_t       message;      /* text empty: ours */
    ngx_uint_t                    phase;        /* of key and condition */
    uint64_t                      lookups;      /* of key, condition, and
                                                   message */
    mpol_rate_t                   rates[NGX_MAIL_POLICY_UNITS];
    ngx_uint_t                    units;        /* mask: those with a rate */
    ngx_mail_policy_exceed_e      exceed;
    ngx_str_t                     relay;        /* of on_exceed=relay: */
    ngx_mail_policy_upstream_t   *upstream;     /* the same, resolved */
    ngx_uint_t                    enforce;      /* percent of the keys */
    unsigned                      attempt:1;    /* charge=attempt */
    unsigned                      combined:1;   /* a key of several values */

    u_char                       *file;         /* where it was defined */
    ngx_uint_t                    line;

    ngx_uint_t                    block;        /* of its counters, in this
                                                   worker */
} ngx_mail_policy_limit_t;


/* policy_service */
typedef struct {
    ngx_mail_policy_service_t        *service;
    ngx_str_t                         name;         /* as it was written */
    ngx_mail_policy_service_point_e   point;        /* at= */
    ngx_msec_t                        timeout;
    mpol_access_t                     fallback;     /* default_action= */
    ngx_mail_policy_value_t           condition;    /* if=; text empty: none */
    uint64_t                          lookups;      /* of it */

    u_char                           *file;         /* where it was written */
    ngx_uint_t                        line;
} ngx_mail_policy_service_conf_t;


/* log_format */
typedef struct {
    ngx_str_t                     name;
    ngx_mail_policy_value_t       line;         /* with its end */
    ngx_mail_policy_escape_pt     escape;
} ngx_mail_policy_log_format_t;


/* what could not be written, in this process */
typedef struct {
    time_t                        said;         /* in the error log */
    time_t                        full;         /* the disk was */
    ngx_fd_t                      torn;         /* it ends amid a line; or 0 */
} ngx_mail_policy_log_fault_t;


/* access_log */
typedef struct {
    ngx_open_file_t              *file;         /* NULL: to syslog */
    ngx_syslog_peer_t            *syslog;       /* which puts the time and its
                                                   tag in front of a line */
    ngx_mail_policy_log_format_t *format;       /* NULL: json, or postfix */
    ngx_mail_policy_value_t       condition;    /* if=; text empty: none */
    ngx_cycle_t                  *cycle;        /* of the file */
    ngx_mail_policy_log_fault_t   fault;
    unsigned                      postfix:1;    /* the format */
} ngx_mail_policy_access_log_t;


typedef struct {
    ngx_mail_policy_store_t      *store;
    ngx_array_t                   upstreams;    /* ..._upstream_t * */
    ngx_mail_policy_upstreams_t   relays;       /* the same, at run time */
    ngx_array_t                   lookups;      /* ..._lookup_conf_t * */
    ngx_array_t                   maps;         /* conf/'s own */
    ngx_uint_t                    map_hash_max_size;
    ngx_uint_t                    map_hash_bucket_size;
    ngx_array_t                   values;       /* compiled, to be resolved */
    ngx_array_t                   log_formats;  /* ..._log_format_t * */
    ngx_array_t                   auths;        /* ..._auth_conf_t * */
    ngx_array_t                   auth_jwts;    /* auth/'s own */
    ngx_array_t                   services;     /* ..._service_t * */
    ngx_array_t                   limits;       /* of servers of ours: arrays
                                                   of ..._limit_t */
    ngx_array_t                  *sockets;      /* conf/'s own, or NULL */
    void                         *auth_http;    /* our stand-in for a server
                                                   that needs none, or NULL */
    void                         *postfix_seen; /* of "protocol policy", or
                                                   NULL */
    ngx_flag_t                    metrics_on;   /* policy_metrics */
    ngx_mail_policy_metrics_t    *metrics;      /* NULL: off */
    unsigned                      used:1;       /* a server has "policy on",
                                                   or "protocol policy" */
} ngx_mail_policy_main_conf_t;


typedef struct {
    ngx_flag_t                    policy;

    ngx_mail_policy_auth_conf_t  *auth;         /* policy_auth */
    ngx_mail_policy_value_t      *auth_route;   /* "proxy_pass", if there is
                                                   none; or NULL */
    ngx_mail_policy_auth_http_conf_t  *auth_http;   /* policy_auth_http_* */
    ngx_flag_t                    auth_plaintext;
    ngx_uint_t                    auth_methods; /* NGX_MAIL_POLICY_METHOD_ */
    ngx_msec_t                    auth_delay;   /* of the first refusal */
    ngx_msec_t                    auth_cache;   /* 0: none */
    void                         *passwords;    /* that cache, or NULL */
    ngx_uint_t                    sender_own;   /* policy_sender own */

    ngx_array_t                  *limits;       /* ..._limit_t, or NULL */
    ngx_uint_t                    diverts;      /* one of them may relay */

    ngx_array_t                  *services;     /* ..._service_conf_t; NULL:
                                                   none */
    ngx_uint_t                    services_off; /* said so */

    ngx_mail_policy_upstream_t   *upstream;     /* proxy_pass without ... */
    ngx_mail_policy_value_t      *route;        /* ... and with variables */

    ngx_mail_policy_relay_conf_t *relay_conf;   /* proxy_* */

    uint64_t                      lookups[NGX_MAIL_POLICY_AT_RCPT + 1];
                                                /* masks: by when they can be
                                                   asked */

    size_t                        message_size; /* 0: no limit */
    ngx_uint_t                    max_recipients;
    ngx_uint_t                    max_messages; /* of a session; 0: no limit */
    ngx_uint_t                    normalize;    /* bare CR and LF in bodies */
    ngx_uint_t                    next_upstream;    /* NGX_MAIL_POLICY_NEXT_ */
    ngx_uint_t                    next_tries;   /* 0: no limit */
    ngx_msec_t                    next_timeout; /* 0: none */

    ngx_uint_t                    received;     /* NGX_MAIL_POLICY_RECEIVED_ */
    size_t                        min_data_rate; /* octets a second; 0: any */

    /* of "protocol policy" */

    ngx_array_t                  *clients;      /* ngx_cidr_t: who may ask;
                                                   NULL or empty: all */
    ngx_mail_policy_edge_conf_t  *edge;         /* NULL: none */
    ngx_mail_policy_action_conf_t  *action;     /* NULL: DUNNO */
    ngx_mail_policy_socket_conf_t  *socket;     /* NULL: as nginx makes it */

    ngx_array_t                  *access_logs;  /* ..._access_log_t; NULL:
                                                   off */
    ngx_uint_t                    access_log_off;   /* said so */

    /* of stock directives */

    ngx_uint_t                    extensions;    /* MPOL_EXT_...: offered */
    unsigned                      pipelining:1;
    unsigned                      enhanced:1;
    unsigned                      limits_offered:1;  /* RFC 9422 */

    /* the protocol that was there before ours */

    ngx_mail_protocol_t          *stock;

    /* conf/'s own: proxy_pass, until all groups are known */

    ngx_str_t                     relay;
    u_char                       *file;
    ngx_uint_t                    line;
} ngx_mail_policy_srv_conf_t;


extern ngx_module_t  ngx_mail_policy_module;


/*
 * What policy_action may answer: NULL with *access, DUNNO for an empty one; or
 * why it may not, for a message.
 */
const char *ngx_mail_policy_action_parse(ngx_str_t *text,
    mpol_access_t *access);


#endif /* NGX_MAIL_POLICY_CONF_H */
