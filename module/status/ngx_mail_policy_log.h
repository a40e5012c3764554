
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The access log: one line a transaction in each log, whatever became of it,
 * and one for a session that was refused something and had none.
 */


#ifndef NGX_MAIL_POLICY_LOG_H
#define NGX_MAIL_POLICY_LOG_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_upstream.h"


/* tries that are written out one by one; what is more counts as the last */
#define NGX_MAIL_POLICY_LOG_TRIES       64

/* limits that were exceeded and are written out */
#define NGX_MAIL_POLICY_LOG_HITS        16

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


extern ngx_str_t  ngx_mail_policy_outcomes[];


/* one relay that was asked, whatever it said */
typedef struct {
    ngx_str_t                   relay;  /* address:port */
    ngx_uint_t                  status; /* what it said last; 0: it was lost,
                                           or has said nothing */
    ngx_msec_t                  start;
    ngx_msec_t                  time;   /* from then to its last word */
    unsigned                    ended:1;
} ngx_mail_policy_try_t;


/* what a line is about */
typedef enum {
    NGX_MAIL_POLICY_LOG_TRANSACTION = 0,
    NGX_MAIL_POLICY_LOG_SESSION,    /* that had none */
    NGX_MAIL_POLICY_LOG_QUESTION    /* of Postfix, "protocol policy" */
} ngx_mail_policy_log_type_e;


/* strings live as long as the transaction; empty ones are left out */
struct ngx_mail_policy_record_s {
    ngx_mail_policy_log_type_e  type;
    ngx_mail_policy_outcome_e   outcome;
    ngx_uint_t                  status; /* the reply's code; 0: none given */
    ngx_str_t                   reply;  /* the last one that refused, or the
                                           one to the final dot */
    ngx_str_t                   state;  /* of a question */
    ngx_str_t                   limit;  /* the limit that was exceeded last */
    ngx_str_t                   action; /* what came of that */
    uint64_t                    used;
    uint64_t                    max;
    uint64_t                    retry;  /* seconds */
    ngx_array_t                 hits;   /* ..._hit_t: all that were, the first
                                           ones */
    const char                 *relay_protocol; /* of the relay's TLS; NULL:
                                                   none */
    const char                 *relay_cipher;
    ngx_array_t                 tries;        /* ..._try_t */
    ngx_mail_policy_try_t       first;        /* ... room for one of them */
    ngx_str_t                   upstream;     /* the group, and ... */
    ngx_str_t                   relay;        /* ... address:port of the last
                                                 one */
    ngx_msec_t                  start;        /* ngx_current_msec at MAIL */
    ngx_msec_t                  relay_start;  /* of the first connection */
    ngx_str_t                  *recipients;   /* accepted ones, the first */
    ngx_uint_t                  nrecipients;
};


/*
 * A relay is asked; names that may be gone before are copied to pool.  Its try
 * lasts until the next one begins, or until tried() is told that it was lost
 * (status 0).  Each reply of it may be told: the last one stands.
 */
void ngx_mail_policy_record_try(ngx_mail_policy_record_t *record,
    ngx_pool_t *pool, ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_peer_t *peer);
void ngx_mail_policy_record_tried(ngx_mail_policy_record_t *record,
    ngx_uint_t status);

/*
 * A limit was exceeded, or several were.  What is said of one that was before
 * stands no more.
 */
void ngx_mail_policy_record_hit(ngx_mail_policy_record_t *record,
    ngx_pool_t *pool, ngx_mail_policy_verdict_t *verdict);


/* what a log in the format "postfix" says at once */
typedef enum {
    NGX_MAIL_POLICY_LOG_REFUSED = 0,    /* a command */
    NGX_MAIL_POLICY_LOG_LOGIN,          /* one that was not let in */
    NGX_MAIL_POLICY_LOG_ERRORS          /* too many of the client's */
} ngx_mail_policy_log_event_e;

typedef struct {
    ngx_mail_policy_log_event_e    type;
    ngx_mail_policy_at_command_e   command;
    ngx_str_t                     *text;        /* the reply */
    ngx_str_t                     *recipient;   /* of RCPT, or NULL */
    ngx_mail_policy_login_e        result;      /* of a login, and ... */
    ngx_str_t                     *method;      /* ... empty: an unknown one */
    ngx_str_t                     *login;       /* may be empty */
    ngx_uint_t                     limit;       /* 1: one refuses it */
} ngx_mail_policy_log_event_t;


/*
 * Writes the lines.  logs: ..._access_log_t; pool: for the lines; the
 * envelope's record is the transaction's, or that of a session without one,
 * whose number is 0.
 */
void ngx_mail_policy_log_record(ngx_array_t *logs, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope);

/*
 * The lines of an event; variables of "if=" see text as reply, whatever the
 * envelope's record is.
 */
void ngx_mail_policy_log_event(ngx_array_t *logs,
    ngx_mail_policy_envelope_t *envelope, ngx_mail_policy_log_event_t *event);

/*
 * How a format escapes what variables give, see mpol_text.h.  An empty value
 * is "-" with the first one only.
 */
ngx_int_t ngx_mail_policy_log_escape(ngx_pool_t *pool, ngx_str_t *value);
ngx_int_t ngx_mail_policy_log_escape_json(ngx_pool_t *pool, ngx_str_t *value);
ngx_int_t ngx_mail_policy_log_escape_none(ngx_pool_t *pool, ngx_str_t *value);


#endif /* NGX_MAIL_POLICY_LOG_H */
