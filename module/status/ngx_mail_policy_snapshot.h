
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What there is to be seen of the mail side at one moment, gathered once for
 * the page, the JSON and the metrics, so that they agree.  All of it is on the
 * pool of the request; nothing is locked while it is written out.
 */


#ifndef NGX_MAIL_POLICY_SNAPSHOT_H
#define NGX_MAIL_POLICY_SNAPSHOT_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_board.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_metrics.h"


/* minutes of the last hour, oldest first */
#define NGX_MAIL_POLICY_SNAPSHOT_MINUTES  60

/* of the module */
#define NGX_MAIL_POLICY_VERSION           "0.1"

/* lines of each board */
#define NGX_MAIL_POLICY_SNAPSHOT_BOARD    32


typedef struct {
    ngx_str_t                   server;     /* as it was written */
    ngx_str_t                   address;    /* address:port */
    ngx_str_t                   state;      /* up, down, unhealthy, ... */
    ngx_uint_t                  backup;
    ngx_uint_t                  weight;
    ngx_uint_t                  active;     /* connections in use */
    ngx_uint_t                  fails;      /* counted now */
    uint64_t                    counters[NGX_MAIL_POLICY_METRICS_BLOCK];
                                            /* ..._METRIC_PEER_ */
} ngx_mail_policy_snapshot_peer_t;


typedef struct {
    ngx_str_t                   name;
    ngx_array_t                 peers;      /* ..._snapshot_peer_t */
} ngx_mail_policy_snapshot_upstream_t;


/*
 * What is counted by name: limits, policy servers and relays of the
 * configuration, and of one before.  Those relays that are no peers of
 * upstreams are of groups that are made at run time, or of a configuration
 * before.  "other" is what there was no room for.
 */
typedef struct {
    ngx_str_t                   name;       /* limit, service; or a group */
    ngx_str_t                   address;    /* of a relay: address:port */
    ngx_uint_t                  peer;       /* 1: is in upstreams, too */
    uint64_t                    counters[NGX_MAIL_POLICY_METRICS_BLOCK];
                                            /* ..._METRIC_LIMIT_, SERVICE_,
                                               PEER_ */
} ngx_mail_policy_snapshot_block_t;

typedef ngx_mail_policy_snapshot_block_t  ngx_mail_policy_snapshot_limit_t;
typedef ngx_mail_policy_snapshot_block_t  ngx_mail_policy_snapshot_service_t;


/* who is refused, and why; keys near their limit, or over it */
typedef ngx_mail_policy_board_refused_t  ngx_mail_policy_snapshot_refused_t;
typedef ngx_mail_policy_board_near_t     ngx_mail_policy_snapshot_near_t;


typedef struct {
    ngx_str_t                   time;       /* ISO 8601 */
    ngx_uint_t                  mail;       /* 0: no server of ours, and
                                               nothing below */
    ngx_uint_t                  metrics;    /* 0: policy_metrics off */
    time_t                      now;
    time_t                      started;    /* the counters did */

    ngx_str_t                   store_kind;     /* redis, memory */
    ngx_str_t                   store_name;     /* its URL; empty: memory */
    ngx_str_t                   store_state;    /* up, away: for this worker */
    uint64_t                    store_workers;  /* that use it */
    uint64_t                    store_up;       /* ... for whom it is there */

    uint64_t                    gauges[NGX_MAIL_POLICY_GAUGES];
    uint64_t                    counters[NGX_MAIL_POLICY_METRIC_FIXED];

    /*
     * Totals now; a second's, over the last 10 to 20 s; the last hour's, or
     * those since the start; and by minutes, the last of which is not over.
     */
    time_t                      minute;     /* when the last one began */
    ngx_uint_t                  known;      /* minutes of which there is
                                               something to be said */
    uint64_t                    totals[NGX_MAIL_POLICY_PASTS];
    uint64_t                    rate[NGX_MAIL_POLICY_PASTS];  /* thousandths */
    uint64_t                    hour[NGX_MAIL_POLICY_PASTS];
    uint64_t                    minutes[NGX_MAIL_POLICY_SNAPSHOT_MINUTES]
                                       [NGX_MAIL_POLICY_PASTS];

    ngx_array_t                 upstreams;  /* ..._snapshot_upstream_t */
    ngx_array_t                 relays;     /* ..._snapshot_block_t */
    ngx_array_t                 limits;     /* ..._snapshot_block_t */
    ngx_array_t                 services;   /* ..._snapshot_block_t */
    ngx_array_t                 refused;    /* ..._snapshot_refused_t */
    ngx_array_t                 near;       /* ..._snapshot_near_t */
} ngx_mail_policy_snapshot_t;


/* of an answer: names of what the counters are by, as the forms show them */
extern ngx_str_t  ngx_mail_policy_snapshot_commands[];   /* AT_COMMANDS */
extern ngx_str_t  ngx_mail_policy_snapshot_mechanisms[]; /* MECHANISMS */
extern ngx_str_t  ngx_mail_policy_snapshot_logins[];     /* LOGINS */
extern ngx_str_t  ngx_mail_policy_snapshot_answers[];    /* ANSWERS */
extern ngx_str_t  ngx_mail_policy_snapshot_results[];    /* of limits, without
                                                            LIMIT_NEAR */

/* NULL: no memory */
ngx_mail_policy_snapshot_t *ngx_mail_policy_snapshot(ngx_pool_t *pool);

/*
 * Its parts, if metrics are on: the counters, and the last hour.
 */
ngx_int_t ngx_mail_policy_snapshot_counters(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics);
void ngx_mail_policy_snapshot_past(ngx_mail_policy_snapshot_t *s,
    ngx_mail_policy_metrics_t *metrics);


/*
 * The three forms; text is on pool.  NGX_OK, or NGX_ERROR: no memory.
 * json: as README describes it.  prometheus: text format 0.0.4.  html: a whole
 * page, nonce being what the Content-Security-Policy of the answer says.
 */
ngx_int_t ngx_mail_policy_snapshot_json(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *snapshot, ngx_str_t *text);
ngx_int_t ngx_mail_policy_snapshot_prometheus(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *snapshot, ngx_str_t *text);
ngx_int_t ngx_mail_policy_snapshot_html(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *snapshot, ngx_str_t *nonce, ngx_str_t *text);


#endif /* NGX_MAIL_POLICY_SNAPSHOT_H */
