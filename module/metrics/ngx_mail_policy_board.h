
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Two boards in the zone of the metrics: who is refused most often, and which
 * keys are nearest to their limit.  They are for people to look at: short,
 * and never complete.  A board is told only what is rare, as it has a lock.
 *
 * Where metrics are off, or in no worker, all of this does nothing.
 */


#ifndef NGX_MAIL_POLICY_BOARD_H
#define NGX_MAIL_POLICY_BOARD_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_metrics.h"


#define NGX_MAIL_POLICY_BOARD_TIME  3600    /* s: what was not seen for so
                                               long is left out */


typedef struct {
    ngx_str_t                   reason;     /* "limit user", "535 5.7.8" */
    ngx_str_t                   who;        /* the limit's key, the login, or
                                               the client's address */
    uint64_t                    count;      /* since first */
    time_t                      first;
    time_t                      last;
} ngx_mail_policy_board_refused_t;


typedef struct {
    ngx_str_t                   limit;
    ngx_str_t                   unit;       /* messages, recipients, ... */
    ngx_str_t                   key;
    uint64_t                    used;
    uint64_t                    max;
    time_t                      last;       /* when it was asked for */
} ngx_mail_policy_board_near_t;


/* counts one */
void ngx_mail_policy_board_refused(ngx_str_t *reason, ngx_str_t *who);

/* the newest values stand, until expires: then nothing is used any more */
void ngx_mail_policy_board_near(ngx_str_t *limit, ngx_str_t *unit,
    ngx_str_t *key, uint64_t used, uint64_t max, time_t expires);

/*
 * What is to be told once in so many microseconds of a pair, by all workers
 * of this machine: NGX_OK, tell it; NGX_DECLINED: it was, or is about to be;
 * NGX_ERROR: metrics are off, nobody knows.
 */
ngx_int_t ngx_mail_policy_board_once(ngx_str_t *id, ngx_str_t *unit,
    uint64_t usec);

/*
 * For who shows them: at most max lines, most often or fullest first; all of
 * it is on pool.  The texts are octets, as clients sent them.  NGX_OK, or
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_board_get_refused(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, ngx_uint_t max, ngx_array_t *lines);
ngx_int_t ngx_mail_policy_board_get_near(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, ngx_uint_t max, ngx_array_t *lines);


#endif /* NGX_MAIL_POLICY_BOARD_H */
