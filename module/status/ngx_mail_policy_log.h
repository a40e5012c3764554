
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The access log: one JSON line a transaction, whatever became of it.
 */


#ifndef NGX_MAIL_POLICY_LOG_H
#define NGX_MAIL_POLICY_LOG_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_envelope.h"


/* recipients that are written out; how many there were is always said */
#define NGX_MAIL_POLICY_LOG_RECIPIENTS  100


typedef enum {
    NGX_MAIL_POLICY_ACCEPTED = 0,   /* the relay said 2xx */
    NGX_MAIL_POLICY_DEFERRED,       /* the client was told 4xx */
    NGX_MAIL_POLICY_REJECTED,       /* ... or 5xx */
    NGX_MAIL_POLICY_ABORTED,        /* by RSET, EHLO, QUIT, a lost client */
    NGX_MAIL_POLICY_UNKNOWN,        /* the relay has the final dot and did
                                       not answer: it may have the message */
    NGX_MAIL_POLICY_UNACKED         /* accepted, but the client was gone */
} ngx_mail_policy_outcome_e;


/* strings live as long as the transaction; empty ones are left out */
typedef struct {
    ngx_mail_policy_outcome_e   outcome;
    ngx_uint_t                  status; /* the reply's code; 0: none given */
    ngx_str_t                   reply;  /* the last one that refused, or the
                                           one to the final dot */
    ngx_str_t                   limit;  /* the limit that was exceeded last */
    ngx_str_t                   action; /* what came of that */
    uint64_t                    used;
    uint64_t                    max;
    uint64_t                    retry;  /* seconds */
    ngx_str_t                   upstream;     /* the group */
    ngx_str_t                   relay;        /* address:port */
    ngx_msec_t                  start;        /* ngx_current_msec at MAIL */
    ngx_msec_t                  relay_start;  /* of the first connection */
    ngx_str_t                  *recipients;   /* accepted ones, the first */
    ngx_uint_t                  nrecipients;
} ngx_mail_policy_record_t;


/* file NULL: off; pool: for the line */
void ngx_mail_policy_log_record(ngx_open_file_t *file, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_record_t *record);


#endif /* NGX_MAIL_POLICY_LOG_H */
