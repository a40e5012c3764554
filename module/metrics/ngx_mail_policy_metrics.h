
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counters of all workers, in shared memory that is kept over reload.
 *
 *     zone     = processes, slots, registry of blocks, history, boards
 *     process  = pid, gauges       of one worker
 *     slot     = counters          of the workers with one number
 *
 * A worker adds to the slot of its number, without a lock; who reads adds up
 * the slots.  Two may have one: the old worker and the new one over a reload,
 * and where there are more workers than slots, so all is added atomically.
 * Counters stay when a worker is gone.  Its gauges end with it, however it
 * ended.
 *
 * A counter is named by its number: fixed ones by the enum below, those of a
 * limit, a relay, a policy server by the number of its block and theirs in
 * it.  There is room for NGX_MAIL_POLICY_METRICS_BLOCKS; what finds none is
 * counted by the block "other" of its kind.  Names that are not of the
 * configuration get half of the room at the most: a client may have a say in
 * them.
 *
 * Where metrics are off (policy_metrics off) all of this does nothing.
 */


#ifndef NGX_MAIL_POLICY_METRICS_H
#define NGX_MAIL_POLICY_METRICS_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "mpol_once.h"
#include "mpol_top.h"


#define NGX_MAIL_POLICY_METRICS_PROCESSES   512     /* workers, old ones too */
#define NGX_MAIL_POLICY_METRICS_SLOTS       32
#define NGX_MAIL_POLICY_METRICS_BLOCKS      256
#define NGX_MAIL_POLICY_METRICS_BLOCK       8       /* counters in one */
#define NGX_MAIL_POLICY_METRICS_NAME        96      /* octets, at most */

/* of the store's answers, see ..._metrics_bounds; one more is "+Inf" */
#define NGX_MAIL_POLICY_METRICS_BOUNDS      12

#define NGX_MAIL_POLICY_METRICS_OUTCOMES    6       /* ..._outcome_e */
#define NGX_MAIL_POLICY_METRICS_MECHANISMS  9   /* bits of METHOD_, from PLAIN
                                                   on; then unknown */


/* of which command a refusal was */
typedef enum {
    NGX_MAIL_POLICY_AT_COMMAND_CONNECT = 0,
    NGX_MAIL_POLICY_AT_COMMAND_HELO,
    NGX_MAIL_POLICY_AT_COMMAND_AUTH,
    NGX_MAIL_POLICY_AT_COMMAND_MAIL,
    NGX_MAIL_POLICY_AT_COMMAND_RCPT,
    NGX_MAIL_POLICY_AT_COMMAND_DATA,
    NGX_MAIL_POLICY_AT_COMMAND_END,     /* of the message */
    NGX_MAIL_POLICY_AT_COMMAND_OTHER,
    NGX_MAIL_POLICY_AT_COMMANDS
} ngx_mail_policy_at_command_e;

/* what became of a login */
typedef enum {
    NGX_MAIL_POLICY_LOGIN_SUCCESS = 0,
    NGX_MAIL_POLICY_LOGIN_FAILURE,      /* 535 and other 5xx */
    NGX_MAIL_POLICY_LOGIN_TEMPORARY,    /* 454, 421 */
    NGX_MAIL_POLICY_LOGIN_ABORTED,      /* "*", or the client went */
    NGX_MAIL_POLICY_LOGINS
} ngx_mail_policy_login_e;

/* what Postfix was answered */
typedef enum {
    NGX_MAIL_POLICY_ANSWER_PASS = 0,    /* DUNNO, or what policy_action says */
    NGX_MAIL_POLICY_ANSWER_EDGE,        /* charged at an edge */
    NGX_MAIL_POLICY_ANSWER_DEFER,
    NGX_MAIL_POLICY_ANSWER_REJECT,
    NGX_MAIL_POLICY_ANSWER_NONE,        /* closed instead */
    NGX_MAIL_POLICY_ANSWERS
} ngx_mail_policy_answer_e;


/* counters; those with a number behind them are so many */
enum {
    NGX_MAIL_POLICY_METRIC_SESSIONS = 0,
    NGX_MAIL_POLICY_METRIC_TRANSACTIONS,    /* by ..._outcome_e */
    NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED = NGX_MAIL_POLICY_METRIC_TRANSACTIONS
                                      + NGX_MAIL_POLICY_METRICS_OUTCOMES,
    NGX_MAIL_POLICY_METRIC_RCPT_REFUSED,
    NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES,   /* of accepted messages */
    NGX_MAIL_POLICY_METRIC_BYTES_RECEIVED,  /* from clients */
    NGX_MAIL_POLICY_METRIC_BYTES_SENT,
    NGX_MAIL_POLICY_METRIC_REFUSED,         /* by ..._at_command_e, twice:
                                               4xx, then 5xx */
    NGX_MAIL_POLICY_METRIC_AUTH = NGX_MAIL_POLICY_METRIC_REFUSED
                                  + 2 * NGX_MAIL_POLICY_AT_COMMANDS,
                                            /* mechanism * LOGINS + result */
    /* Redis', of each question that somebody waits for; memory has none */
    NGX_MAIL_POLICY_METRIC_STORE_SECONDS = NGX_MAIL_POLICY_METRIC_AUTH
            + NGX_MAIL_POLICY_METRICS_MECHANISMS * NGX_MAIL_POLICY_LOGINS,
                                            /* answers by bound, not summed
                                               up; the last is "+Inf" */
    NGX_MAIL_POLICY_METRIC_STORE_SUM = NGX_MAIL_POLICY_METRIC_STORE_SECONDS
                                       + NGX_MAIL_POLICY_METRICS_BOUNDS + 1,
                                            /* microseconds */
    NGX_MAIL_POLICY_METRIC_STORE_ERRORS,    /* by on_error: away, late, or an
                                               error was the answer */
    NGX_MAIL_POLICY_METRIC_POSTFIX,         /* by ..._answer_e */
    NGX_MAIL_POLICY_METRIC_LOG_LINES = NGX_MAIL_POLICY_METRIC_POSTFIX
                                       + NGX_MAIL_POLICY_ANSWERS,
    NGX_MAIL_POLICY_METRIC_LOG_LOST,        /* lines that could not be
                                               written */
    NGX_MAIL_POLICY_METRIC_EVENTS_LOST,     /* of mail:events: not known to
                                               be written */
    NGX_MAIL_POLICY_METRIC_FIXED
};

/* in the block of a limit; the names of on_exceed= from DEFER on */
enum {
    NGX_MAIL_POLICY_METRIC_LIMIT_PASS = 0,
    NGX_MAIL_POLICY_METRIC_LIMIT_DEFER,     /* + ..._exceed_e */
    NGX_MAIL_POLICY_METRIC_LIMIT_REJECT,
    NGX_MAIL_POLICY_METRIC_LIMIT_TARPIT,
    NGX_MAIL_POLICY_METRIC_LIMIT_REPORT,    /* would have been refused */
    NGX_MAIL_POLICY_METRIC_LIMIT_RELAY,
    NGX_MAIL_POLICY_METRIC_LIMIT_ERROR,     /* the store could not say */
    NGX_MAIL_POLICY_METRIC_LIMIT_NEAR       /* 80 % were reached */
};

/*
 * In the block of a relay.  A try is a MAIL for it, and ends with the
 * transaction or when the next relay is asked.  It comes to a failure, to a
 * reply, or, where the client or the edge ends it, to neither.  Logins and
 * health checks are no tries.
 */
enum {
    NGX_MAIL_POLICY_METRIC_PEER_TRIES = 0,
    NGX_MAIL_POLICY_METRIC_PEER_FAILURES,   /* no connection, lost, refused
                                               the set-up, not SMTP, ... */
    NGX_MAIL_POLICY_METRIC_PEER_2XX,        /* it took the message */
    NGX_MAIL_POLICY_METRIC_PEER_4XX,        /* ... or not, or no recipient */
    NGX_MAIL_POLICY_METRIC_PEER_5XX,
    NGX_MAIL_POLICY_METRIC_PEER_SUM,        /* microseconds that tries waited
                                               for it: to connect, and for
                                               replies; not for the client */
    NGX_MAIL_POLICY_METRIC_PEER_CONNECTS,   /* connections made */
    NGX_MAIL_POLICY_METRIC_PEER_REUSED      /* tries on one that was there */
};

/* in the block of a policy server: what its questions came to */
enum {
    NGX_MAIL_POLICY_METRIC_SERVICE_PASS = 0,
    NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE,  /* REJECT, DEFER and their like */
    NGX_MAIL_POLICY_METRIC_SERVICE_DEFAULT, /* default_action: no answer */
    NGX_MAIL_POLICY_METRIC_SERVICE_SUM      /* microseconds, of answers */
};

typedef enum {
    NGX_MAIL_POLICY_BLOCK_LIMIT = 0,        /* name: of the limit */
    NGX_MAIL_POLICY_BLOCK_PEER,             /* the group, and address:port */
    NGX_MAIL_POLICY_BLOCK_SERVICE,          /* as it was written */
    NGX_MAIL_POLICY_BLOCK_KINDS
} ngx_mail_policy_block_e;

/* gauges; what a worker adds it takes away itself, or its end does */
enum {
    NGX_MAIL_POLICY_GAUGE_SESSIONS = 0,
    NGX_MAIL_POLICY_GAUGE_STORE,            /* workers that use Redis */
    NGX_MAIL_POLICY_GAUGE_STORE_UP,         /* ... for whom it is there */
    NGX_MAIL_POLICY_GAUGE_KEPT,             /* relays' connections, idle */
    NGX_MAIL_POLICY_GAUGES
};

/* what history keeps: totals */
enum {
    NGX_MAIL_POLICY_PAST_SESSIONS = 0,
    NGX_MAIL_POLICY_PAST_ACCEPTED,          /* transactions */
    NGX_MAIL_POLICY_PAST_DEFERRED,
    NGX_MAIL_POLICY_PAST_REJECTED,
    NGX_MAIL_POLICY_PAST_OTHER,             /* the other outcomes */
    NGX_MAIL_POLICY_PAST_RECIPIENTS,
    NGX_MAIL_POLICY_PAST_REFUSED,           /* commands, but AUTH */
    NGX_MAIL_POLICY_PAST_AUTH_FAILURES,
    NGX_MAIL_POLICY_PAST_BYTES,
    NGX_MAIL_POLICY_PAST_STORE_ERRORS,
    NGX_MAIL_POLICY_PAST_LOG_LOST,
    NGX_MAIL_POLICY_PASTS
};

#define NGX_MAIL_POLICY_PAST_STEP   10      /* seconds */
#define NGX_MAIL_POLICY_PAST_STEPS  361     /* an hour, and one */


/* one is a cache line */
typedef struct {
    ngx_atomic_t                   pid;     /* 0: nobody's */
    ngx_atomic_t                   worker;  /* configuration and number */
    ngx_atomic_t                   gauges[NGX_MAIL_POLICY_GAUGES];
    ngx_atomic_t                   unused[2];
} ngx_mail_policy_metrics_process_t;


typedef struct {
    ngx_atomic_t                   counters[NGX_MAIL_POLICY_METRIC_FIXED
                                       + NGX_MAIL_POLICY_METRICS_BLOCKS
                                         * NGX_MAIL_POLICY_METRICS_BLOCK];
} ngx_mail_policy_metrics_slot_t;


typedef struct {
    ngx_atomic_uint_t              kind;
    u_char                         len;         /* 0: the block is free */
    u_char                         second_len;
    u_char                         name[NGX_MAIL_POLICY_METRICS_NAME];
    u_char                         second[NGX_MAIL_POLICY_METRICS_NAME];
} ngx_mail_policy_metrics_block_t;


typedef struct {
    ngx_atomic_t                   step;    /* ..._metrics_step(); 0: none;
                                               below 0: being written */
    ngx_atomic_t                   msec;    /* when, by the same clock */
    ngx_atomic_t                   totals[NGX_MAIL_POLICY_PASTS];
} ngx_mail_policy_past_t;


typedef struct {
    ngx_mail_policy_metrics_process_t
                                     processes
                                         [NGX_MAIL_POLICY_METRICS_PROCESSES];
    ngx_mail_policy_metrics_slot_t   slots[NGX_MAIL_POLICY_METRICS_SLOTS];
    ngx_mail_policy_metrics_block_t  blocks[NGX_MAIL_POLICY_METRICS_BLOCKS];
    ngx_atomic_t                     nblocks;   /* never falls */
    ngx_mail_policy_past_t           past[NGX_MAIL_POLICY_PAST_STEPS];
    ngx_uint_t                       configurations;    /* the master's */
    time_t                           started;
    mpol_top_t                       refused;   /* board's own, under the */
    mpol_top_t                       near;      /* lock of the pool */
    mpol_once_t                      warned;
} ngx_mail_policy_metrics_shm_t;


typedef struct {
    ngx_slab_pool_t                *shpool;
    ngx_mail_policy_metrics_shm_t  *shm;
    ngx_uint_t                      configuration;  /* which one it is */
} ngx_mail_policy_metrics_t;


/*
 * This process' own; NULL in all: metrics are off, or it is no worker.  The
 * last one is NULL too if there are too many workers.
 */
extern ngx_mail_policy_metrics_t          *ngx_mail_policy_metrics;
extern ngx_mail_policy_metrics_slot_t     *ngx_mail_policy_metrics_slot;
extern ngx_mail_policy_metrics_process_t  *ngx_mail_policy_metrics_process;

/* upper bounds of the store's answers, microseconds */
extern ngx_uint_t  ngx_mail_policy_metrics_bounds[];


/* n is one of the enum, or block + one of its enums; how much: >= 0 */
#define ngx_mail_policy_metrics_add(n, much)                                 \
    if (ngx_mail_policy_metrics_slot) {                                      \
        (void) ngx_atomic_fetch_add(                                         \
            &ngx_mail_policy_metrics_slot->counters[n],                      \
            (ngx_atomic_int_t) (much));                                      \
    }

/* much may be < 0 */
#define ngx_mail_policy_metrics_gauge(n, much)                               \
    if (ngx_mail_policy_metrics_process) {                                   \
        (void) ngx_atomic_fetch_add(                                         \
            &ngx_mail_policy_metrics_process->gauges[n],                     \
            (ngx_atomic_int_t) (much));                                      \
    }


/*
 * The zone of a configuration, the same for all that call it with this tag;
 * NULL: logged.
 */
ngx_mail_policy_metrics_t *ngx_mail_policy_metrics_zone(ngx_conf_t *cf,
    void *tag);

/* a worker begins, and ends; metrics: NULL if they are off */
void ngx_mail_policy_metrics_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_metrics_t *metrics);
void ngx_mail_policy_metrics_exit_process(void);

/*
 * The number of the first counter in a block; the same name has the same one
 * in all workers.  Takes a lock when it is new: keep the number, it stays
 * true as long as the process.  second: of a relay, else NULL.
 */
ngx_uint_t ngx_mail_policy_metrics_block(ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second);

/* the same for a name that is not of the configuration */
ngx_uint_t ngx_mail_policy_metrics_block_dynamic(ngx_mail_policy_block_e kind,
    ngx_str_t *name, ngx_str_t *second);

/*
 * The i-th block, its name and (empty but of a relay) second, where they are:
 * they stay, and do not change.  Returns the number of its first counter, or
 * 0: there is none.
 */
ngx_uint_t ngx_mail_policy_metrics_block_get(
    ngx_mail_policy_metrics_t *metrics, ngx_uint_t i,
    ngx_mail_policy_block_e *kind, ngx_str_t *name, ngx_str_t *second);

/* 1 if the name of a block is this one, of which it may be the beginning */
ngx_uint_t ngx_mail_policy_metrics_block_is(ngx_str_t *block, ngx_str_t *name);

/* counts an answer of the store that took so many microseconds */
void ngx_mail_policy_metrics_store(uint64_t usec);

/* microseconds of a clock that only goes forward */
uint64_t ngx_mail_policy_metrics_usec(void);

/* for who shows them: sums over all slots */
uint64_t ngx_mail_policy_metrics_total(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t n);
uint64_t ngx_mail_policy_metrics_now(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t gauge);

/* the step that is now, by the clock that only goes forward: >= 1 */
uint64_t ngx_mail_policy_metrics_step(void);

/*
 * The totals as of now, and those of a step, which were taken as it began, or
 * later: at *msec.  0: there are none of it.
 */
void ngx_mail_policy_metrics_past_now(ngx_mail_policy_metrics_t *metrics,
    uint64_t totals[NGX_MAIL_POLICY_PASTS]);
ngx_uint_t ngx_mail_policy_metrics_past(ngx_mail_policy_metrics_t *metrics,
    uint64_t step, uint64_t totals[NGX_MAIL_POLICY_PASTS], uint64_t *msec);


#endif /* NGX_MAIL_POLICY_METRICS_H */
