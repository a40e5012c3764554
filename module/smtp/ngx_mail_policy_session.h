
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The SMTP front door's objects: the session (one client connection) and its
 * transaction (MAIL to end of data).
 */


#ifndef NGX_MAIL_POLICY_SESSION_H
#define NGX_MAIL_POLICY_SESSION_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_body.h"
#include "mpol_command.h"
#include "mpol_content.h"
#include "mpol_header.h"
#include "mpol_line.h"
#include "mpol_pace.h"
#include "ngx_mail_policy_account.h"
#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_balance.h"
#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_dynamic.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_keep.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_peer_try.h"
#include "ngx_mail_policy_relay.h"
#include "ngx_mail_policy_service.h"


/* RFC 5321, section 4.5.3.1.4, and RFC 4954, section 4 */
#define NGX_MAIL_POLICY_LINE       2048
#define NGX_MAIL_POLICY_AUTH_LINE  (12288 + sizeof("AUTH SCRAM-SHA-256-PLUS "))
#define NGX_MAIL_POLICY_AUTH_TAG   4        /* hex digits, see store.h */
#define NGX_MAIL_POLICY_BODY       32768
#define NGX_MAIL_POLICY_DROPPED    65536    /* of a line; then 421 */
#define NGX_MAIL_POLICY_OUTPUT     16384    /* replies not taken; then wait */
#define NGX_MAIL_POLICY_DUES       256      /* replies due; then wait */
#define NGX_MAIL_POLICY_JUNK       100      /* commands between messages that
                                               lead nowhere; then errors */
#define NGX_MAIL_POLICY_HOPS       100      /* Received fields; RFC 5321, 6.3 */

/* octets of a chunk that are read only to be dropped; then the end */
#define NGX_MAIL_POLICY_CHUNK_DROPPED  (64 * 1024 * 1024)


/* what the next octets of the client are */
typedef enum {
    NGX_MAIL_POLICY_READ_COMMAND = 0,
    NGX_MAIL_POLICY_READ_AUTH,              /* a response to a 334 */
    NGX_MAIL_POLICY_READ_BODY,
    NGX_MAIL_POLICY_READ_CHUNK,             /* of BDAT */
    NGX_MAIL_POLICY_READ_NOTHING            /* an answer is awaited first */
} ngx_mail_policy_read_e;


typedef enum {
    NGX_MAIL_POLICY_RCPT_NEW = 0,           /* waits for its check */
    NGX_MAIL_POLICY_RCPT_CHECKING,          /* at the store */
    NGX_MAIL_POLICY_RCPT_CHECKED,           /* waits for MAIL, its route, and
                                               its turn */
    NGX_MAIL_POLICY_RCPT_ASKING,            /* at other policy servers */
    NGX_MAIL_POLICY_RCPT_PASSED,            /* waits for the relay */
    NGX_MAIL_POLICY_RCPT_RELAYING,          /* at the relay */
    NGX_MAIL_POLICY_RCPT_ACCEPTED,
    NGX_MAIL_POLICY_RCPT_REFUSED
} ngx_mail_policy_rcpt_e;


typedef struct ngx_mail_policy_session_s      ngx_mail_policy_session_t;
typedef struct ngx_mail_policy_transaction_s  ngx_mail_policy_transaction_t;
typedef struct ngx_mail_policy_asking_s       ngx_mail_policy_asking_t;
typedef struct ngx_mail_policy_inquiry_s      ngx_mail_policy_inquiry_t;
typedef struct ngx_mail_policy_field_s        ngx_mail_policy_field_t;


/* a reply that is due to the client, in the order of the commands */
typedef struct {
    ngx_queue_t                     queue;
    ngx_str_t                       text;   /* "250 2.1.0 Ok"; no CRLF */
    unsigned                        done:1;
    unsigned                        last:1; /* nothing is said behind it */
} ngx_mail_policy_due_t;


/* of a transaction, or of a login that a relay decides about */
typedef struct {
    ngx_uint_t                      tries;  /* relays that were asked */
    ngx_uint_t                      lost;   /* of them, over MAIL, or the
                                               client's AUTH */
    ngx_msec_t                      first_try;
} ngx_mail_policy_next_t;


/* who wants to know where "proxy_pass" leads */
typedef struct {
    ngx_mail_policy_session_t      *session;
    ngx_mail_policy_envelope_t     *envelope;
    ngx_pool_t                     *pool;
    ngx_mail_policy_upstream_t     *known;  /* where others go, or NULL */
    ngx_mail_policy_dynamic_t     **dynamic;    /* a group made for it */
    void                          (*handler)(void *data);   /* ask again */
    void                           *data;
} ngx_mail_policy_route_t;


typedef struct {
    ngx_mail_policy_due_t           due;
    ngx_queue_t                     queue;  /* among the recipients */
    ngx_mail_policy_transaction_t  *transaction;
    ngx_mail_policy_rcpt_e          state;
    ngx_mail_policy_relay_rcpt_t    to;
    ngx_str_t                       domain;
    ngx_mail_policy_check_t         check;
    ngx_mail_policy_fetch_t        *fetch;  /* of its lookups, or NULL */
    ngx_mail_policy_fetch_wait_t   *wait;   /* for its route */
    ngx_mail_policy_dynamic_t      *dynamic;    /* a group made for it */
    ngx_mail_policy_inquiry_t      *inquiry;    /* or NULL */
    unsigned                        routing:1;  /* its route is not known, or
                                                   one before it decides */
    unsigned                        unsaid:1;   /* that it is refused is not
                                                   said, or no news */
} ngx_mail_policy_rcpt_t;


struct ngx_mail_policy_transaction_s {
    ngx_pool_t                     *pool;
    ngx_mail_policy_session_t      *session;

    ngx_mail_policy_due_t           due;    /* the reply to MAIL */
    ngx_mail_policy_check_t         check;
    ngx_mail_policy_check_t         rest;   /* octets that MAIL did not say */
    ngx_mail_policy_relay_mail_t    mail;
    ngx_queue_t                     rcpts;
    ngx_uint_t                      nrcpts; /* seen, whatever became of them */
    ngx_mail_policy_fetch_t        *fetch;  /* of lookups, or NULL */
    ngx_mail_policy_fetch_wait_t   *wait;   /* for the route */
    ngx_mail_policy_dynamic_t      *dynamic;    /* a group made for it */
    ngx_array_t                     charged;
    ngx_mail_policy_inquiry_t      *inquiry;    /* DATA's, then the end's; or
                                                   NULL */
    ngx_queue_t                     fields;     /* to be in front of it */
    size_t                          prepended;  /* octets of them, until they
                                                   are */

    ngx_mail_policy_upstream_t     *upstream;
    ngx_mail_policy_upstream_t     *diverted;  /* by on_exceed=relay: */
    ngx_mail_policy_balance_t       balance;    /* among its peers */
    ngx_mail_policy_next_t          next;
    ngx_mail_policy_peer_try_t      try;        /* as it is counted */
    ngx_uint_t                      mail_status;    /* and ... */
    ngx_str_t                       mail_refused;   /* ... text: to MAIL, for
                                                       all recipients */
    ngx_msec_t                      delayed;    /* by limits */

    mpol_header_t                   header;
    mpol_body_t                     body;      /* what DATA brings */
    size_t                          ready;     /* of the input: to the relay */
    size_t                          consumed;  /* of the input: done with */

    mpol_content_t                  content;   /* what does not go in place */
    u_char                         *wire;      /* its form for the relay */
    size_t                          wire_size;
    size_t                          wire_pos;
    size_t                          wire_last;

    ngx_mail_policy_record_t        record;

    ngx_mail_policy_verdict_t      *verdict;  /* the last that refused */
    ngx_mail_policy_verdict_t      *refusing; /* behind the refusal that comes
                                                 next; or NULL */

    unsigned                        lazy:1;   /* relay chosen at first RCPT */
    unsigned                        routing:1;  /* lookups of the route */
    unsigned                        mail_checked:1;   /* by the limits */
    unsigned                        prepaid:1;  /* a recipient, with MAIL, and
                                                   none has taken it */
    unsigned                        rest_asked:1;
    unsigned                        rest_paid:1;
    unsigned                        asking:1;     /* policy servers, about a
                                                     recipient */
    unsigned                        end_asked:1;  /* of policy servers */
    unsigned                        end_passed:1;
    unsigned                        mail_asked:1;     /* of the relay */
    unsigned                        mail_relayed:1;   /* it said 2xx */
    unsigned                        mail_answered:1;  /* to the client */
    unsigned                        relay_told:1;  /* the client knows an
                                                      answer of the relay */
    unsigned                        rcpt_told:1;  /* ... of what it says of a
                                                      recipient */
    unsigned                        peer_failed:1;  /* one of its group */
    unsigned                        relay_lost:1;
    unsigned                        bdat:1;   /* the client sends chunks */
    unsigned                        chunking:1;   /* and the relay takes them */
    unsigned                        encoded:1;    /* by way of "wire" */
    unsigned                        trace:1;  /* a Received field is to go in
                                                 front of it */
    unsigned                        data:1;   /* the relay was told DATA, or
                                                 has the first chunk */
    unsigned                        end:1;    /* the client's final dot came */
    unsigned                        listened:1;  /* to the relay before it */
    unsigned                        dot:1;    /* the relay has its dot, and
                                                 has not answered */
    unsigned                        failed:1; /* the body is swallowed */
    unsigned                        refused:1;  /* its MAIL was */
    unsigned                        leaving:1;  /* the reply to it, or to a
                                                   recipient, ends the
                                                   session */
};


struct ngx_mail_policy_session_s {
    ngx_mail_session_t             *mail;   /* nginx's */
    ngx_connection_t               *connection;
    ngx_mail_policy_main_conf_t    *main_conf;
    ngx_mail_policy_srv_conf_t     *conf;
    ngx_mail_core_srv_conf_t       *core;

    ngx_mail_policy_envelope_t      envelope;
    ngx_mail_policy_account_t       account;
    ngx_mail_policy_at_command_e    at;     /* the command that came last */
    ngx_mail_policy_verdict_t      *refusing;   /* as a transaction's */
    ngx_mail_policy_read_e          reading;

    mpol_line_t                     line;
    u_char                         *in;     /* on the heap; NULL when idle */
    size_t                          in_size;
    size_t                          in_pos;
    size_t                          in_last;
    off_t                           received;   /* octets, all of them */
    off_t                           received_told;
    off_t                           sent_told;

    u_char                         *out;    /* on the heap; NULL when empty */
    size_t                          out_size;
    size_t                          out_pos;
    size_t                          out_last;

    ngx_queue_t                     dues;
    ngx_uint_t                      ndues;

    mpol_pace_t                     pace;   /* of a body */
    ngx_msec_t                      waiting_since;

    uint64_t                        chunk;  /* octets of it still to come */
    uint64_t                        chunk_size;
    ngx_str_t                      *chunk_refused;

    ngx_mail_policy_fetch_t        *fetch;  /* for the checks below, or NULL */
    ngx_mail_policy_check_t         admission;  /* the client's, and ... */
    ngx_mail_policy_check_t         login_check;    /* ... the login's */
    ngx_mail_policy_check_t         check;  /* of AUTH, or EHLO */
    ngx_str_t                       lease;

    ngx_mail_policy_transaction_t  *transaction;
    ngx_mail_policy_relay_t        *relay;
    ngx_mail_policy_upstream_t     *relay_upstream;

    ngx_mail_policy_auth_t         *auth;
    ngx_mail_policy_auth_client_t   auth_client;
    ngx_uint_t                      auth_method;    /* one bit */
    ngx_str_t                       auth_login;     /* that is tried */
    ngx_event_t                     auth_delay;     /* of the next reply */
    ngx_uint_t                      auth_failures;
    u_char                         *auth_reply;     /* while it is delayed */
    ngx_mail_policy_asking_t       *asking; /* a relay about it, or NULL */
    ngx_str_t                       senders;    /* the login's, if asked */
    u_char                          auth_tags[2 * NGX_MAIL_POLICY_AUTH_TAG];
    ngx_str_t                       net;    /* the client's; empty until the
                                               first AUTH */
    ngx_uint_t                      transactions;
    ngx_uint_t                      extensions;  /* MPOL_EXT_..., as EHLO
                                                    was told */
    ngx_uint_t                      errors;
    ngx_uint_t                      junk;
    ngx_uint_t                      trailing;   /* commands that may follow
                                                   a refused MAIL or BDAT */

    u_char                          helo[256];
    u_char                          login[256];

    unsigned                        greeted:1;
    unsigned                        esmtp:1;
    unsigned                        chunk_last:1;
    unsigned                        starttls:1;    /* after the 220 is out */
    unsigned                        auth_checked:1;    /* by the limits */
    unsigned                        auth_failed:1;     /* it was told so */
    unsigned                        auth_begun:1;  /* what became of it has
                                                      not been told */
    unsigned                        shutdown:1;    /* the worker is told */
    unsigned                        closing:1;     /* after the output */
    unsigned                        paused:1;      /* until output is out */
    unsigned                        finalized:1;
};


typedef struct {
    mpol_verb_e     verb;
    ngx_mail_policy_at_command_e  at;   /* as what its refusals count */

    /*
     * Sequence, permission and syntax, synchronously.  NGX_OK: go on with
     * proceed; NGX_DECLINED: a reply was given.  NULL: nothing to check.
     */
    ngx_int_t     (*check)(ngx_mail_policy_session_t *s, mpol_command_t *cmd);

    /*
     * NGX_OK: the next command may be read; NGX_AGAIN: an answer is awaited
     * (reading says of what); NGX_DONE: the session is gone or handed over.
     */
    ngx_int_t     (*proceed)(ngx_mail_policy_session_t *s,
                             mpol_command_t *cmd);

    unsigned        pipelined:1;    /* may start while replies are due */
    unsigned        clear:1;        /* allowed before STARTTLS where that is
                                       required, RFC 3207 section 4 */
    unsigned        last:1;         /* of a pipelined group: nothing may follow
                                       before its reply, RFC 2920 section 3.1 */
    unsigned        junk:1;         /* brings no message nearer */
} ngx_mail_policy_command_t;


/* session: life */

void ngx_mail_policy_session_read_handler(ngx_event_t *rev);
void ngx_mail_policy_session_write_handler(ngx_event_t *wev);

/* goes on with what the client has sent; not from within a command */
void ngx_mail_policy_session_resume(ngx_mail_policy_session_t *s);

/* ends everything of the session and closes it; the only way out */
void ngx_mail_policy_session_finalize(ngx_mail_policy_session_t *s);

/* its first half, as the clean-up handler of the connection's pool */
void ngx_mail_policy_session_cleanup(void *data);

/* replies with 421 and closes when that is out */
void ngx_mail_policy_session_close(ngx_mail_policy_session_t *s,
    const char *reply);

/* the same, by which a command is refused */
void ngx_mail_policy_session_refuse(ngx_mail_policy_session_t *s,
    ngx_mail_policy_at_command_e command, const char *reply);

/* an error of the client's: counted, the last one ends the session */
void ngx_mail_policy_session_error(ngx_mail_policy_session_t *s,
    const char *reply);

/* a client that did not wait for a reply where it has to: 554, the end */
void ngx_mail_policy_session_unsynchronized(ngx_mail_policy_session_t *s);

/* an error that has had its reply; the last one ends the session */
void ngx_mail_policy_session_count_error(ngx_mail_policy_session_t *s);

/* a command that brought no message nearer; many of them are errors */
void ngx_mail_policy_session_junk(ngx_mail_policy_session_t *s);

/* octets of the client have come: ends the wait for them */
void ngx_mail_policy_session_waited(ngx_mail_policy_session_t *s);

/*
 * No transaction for RCPT, DATA or BDAT: an error, unless MAIL or a chunk was
 * just refused.
 */
void ngx_mail_policy_session_no_mail(ngx_mail_policy_session_t *s);

/* what may follow a refusal in a pipeline is no error of the client's */
void ngx_mail_policy_session_trailing(ngx_mail_policy_session_t *s);

/*
 * Limits of the session itself.  admit: at the take-over; login: when the
 * login is known, NGX_OK, NGX_ERROR, or NGX_AGAIN (auth_admitted() is called
 * then); left: what EHLO may offer, NGX_OK (nothing is asked) or NGX_AGAIN
 * (ehlo_reply() is called then).  dismiss: all of them end.
 */
void ngx_mail_policy_session_admit(ngx_mail_policy_session_t *s);
ngx_int_t ngx_mail_policy_session_login(ngx_mail_policy_session_t *s);
ngx_int_t ngx_mail_policy_session_left(ngx_mail_policy_session_t *s);
void ngx_mail_policy_session_dismiss(ngx_mail_policy_session_t *s);

void ngx_mail_policy_auth_admitted(ngx_mail_policy_session_t *s);
void ngx_mail_policy_auth_abort(ngx_mail_policy_session_t *s);
void ngx_mail_policy_ehlo_reply(ngx_mail_policy_session_t *s);

/*
 * Asks for what lookups can say by phase, before a check; tried: the login, or
 * NULL.  NGX_OK, NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_session_fetch(ngx_mail_policy_session_t *s,
    ngx_uint_t phase, ngx_str_t *tried);

/* makes a check one of the session's; pool: outlives it */
void ngx_mail_policy_session_check(ngx_mail_policy_session_t *s,
    ngx_mail_policy_check_t *check, ngx_pool_t *pool,
    ngx_mail_policy_check_pt handler, void *data);

/* 0 where "starttls only" asks for TLS first */
ngx_uint_t ngx_mail_policy_session_clear(ngx_mail_policy_session_t *s);

/* 1 if TLS is on */
#define ngx_mail_policy_session_tls(s)  ((s)->connection->ssl != NULL)


/*
 * What is told of the session, see ngx_mail_policy_account.h.  refused: the
 * command at hand is, the caller replies; auth_told: what became of an AUTH,
 * if that was not told yet; limited: what a limit says of the transaction, be
 * it that it passes; transaction_told: before its end; session_told: at its
 * own.
 */
void ngx_mail_policy_session_begun(ngx_mail_policy_session_t *s);
void ngx_mail_policy_session_refused(ngx_mail_policy_session_t *s,
    const char *reply);
void ngx_mail_policy_session_refused_text(ngx_mail_policy_session_t *s,
    ngx_str_t *text);
void ngx_mail_policy_transaction_refused(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_at_command_e command, ngx_str_t *text,
    ngx_str_t *recipient);
void ngx_mail_policy_auth_told(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, const char *reply,
    ngx_mail_policy_verdict_t *verdict);
void ngx_mail_policy_auth_told_text(ngx_mail_policy_session_t *s,
    ngx_mail_policy_login_e result, ngx_str_t *text,
    ngx_mail_policy_verdict_t *verdict);
void ngx_mail_policy_transaction_limited(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_verdict_t *verdict);
void ngx_mail_policy_transaction_told(ngx_mail_policy_transaction_t *t);
void ngx_mail_policy_session_told(ngx_mail_policy_session_t *s);


/* input */

/* reads on: NGX_OK more is there, NGX_AGAIN, NGX_DONE: the session is gone */
ngx_int_t ngx_mail_policy_session_recv(ngx_mail_policy_session_t *s,
    size_t size);

/* octets [in_pos, in_last) of the client, with room for size in all */
ngx_int_t ngx_mail_policy_session_input(ngx_mail_policy_session_t *s,
    size_t size);
void ngx_mail_policy_session_input_free(ngx_mail_policy_session_t *s,
    ngx_uint_t wipe);


/* output: replies, in order, one write a loop turn */

void ngx_mail_policy_reply(ngx_mail_policy_session_t *s, const char *fmt, ...);

/* a 334 with these octets, encoded */
void ngx_mail_policy_challenge(ngx_mail_policy_session_t *s,
    ngx_str_t *octets);
void ngx_mail_policy_due_add(ngx_mail_policy_session_t *s,
    ngx_mail_policy_due_t *due);
void ngx_mail_policy_due_done(ngx_mail_policy_session_t *s,
    ngx_mail_policy_due_t *due, ngx_str_t *text);
void ngx_mail_policy_output_free(ngx_mail_policy_session_t *s);
ngx_int_t ngx_mail_policy_output_flush(ngx_mail_policy_session_t *s);


/* commands */

extern ngx_mail_policy_command_t  ngx_mail_policy_commands[];

ngx_int_t ngx_mail_policy_cmd_helo(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_rset(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_noop(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_vrfy(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_quit(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_starttls_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_starttls(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_auth_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_auth(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_mail_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_mail(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_rcpt_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_rcpt(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_data_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_data(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_bdat_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
ngx_int_t ngx_mail_policy_cmd_bdat(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);

/* forgets the greeting and what hangs on it: EHLO, STARTTLS */
void ngx_mail_policy_session_reset(ngx_mail_policy_session_t *s);

/* octets have come: a response to 334, a piece of body or of a chunk */
ngx_int_t ngx_mail_policy_auth_response(ngx_mail_policy_session_t *s,
    u_char *data, size_t len);
ngx_int_t ngx_mail_policy_data_read(ngx_mail_policy_session_t *s);
ngx_int_t ngx_mail_policy_chunk_read(ngx_mail_policy_session_t *s);

/* which of PLAIN and LOGIN may be used now; a mask of NGX_MAIL_AUTH_... */
ngx_uint_t ngx_mail_policy_auth_methods(ngx_mail_policy_session_t *s);


/* the transaction */

ngx_mail_policy_transaction_t *ngx_mail_policy_transaction_create(
    ngx_mail_policy_session_t *s);

/*
 * Ends it: charges stand or are given back, the relay forgets it, one line
 * is logged, the memory goes.
 */
void ngx_mail_policy_transaction_finalize(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_outcome_e outcome);

/* MAIL, a recipient, DATA: on their way to store and relay */
void ngx_mail_policy_transaction_mail(ngx_mail_policy_transaction_t *t);
void ngx_mail_policy_transaction_rcpt(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);
ngx_int_t ngx_mail_policy_transaction_data(ngx_mail_policy_transaction_t *t);

/* MAIL: tells the client, once limits and relay have agreed */
void ngx_mail_policy_transaction_ready(ngx_mail_policy_transaction_t *t);

/* MAIL is refused; text begins with the code; t is gone when it returns */
void ngx_mail_policy_transaction_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);

/* a connection to t->upstream, and MAIL on its way there */
ngx_int_t ngx_mail_policy_transaction_relay(ngx_mail_policy_transaction_t *t);

/* as balance_next(), and not where the client's connection has arrived */
ngx_mail_policy_peer_t *ngx_mail_policy_next_peer(
    ngx_mail_policy_balance_t *balance, ngx_connection_t *c);

/* a ready connection that was somebody else's is the session's from now on */
void ngx_mail_policy_transaction_adopt(ngx_mail_policy_session_t *s,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_upstream_t *upstream);

/*
 * What is passed to the next relay.  try: one is asked; reset: another group,
 * or all of it anew; allowed: 1 if a failure of this kind, one of
 * NGX_MAIL_POLICY_NEXT_..., is.
 */
void ngx_mail_policy_next_try(ngx_mail_policy_next_t *next);
void ngx_mail_policy_next_reset(ngx_mail_policy_next_t *next);
ngx_uint_t ngx_mail_policy_next_allowed(ngx_mail_policy_next_t *next,
    ngx_mail_policy_srv_conf_t *conf, ngx_uint_t condition);

/* 1 if its failure counts against the relay; to be asked once */
ngx_uint_t ngx_mail_policy_next_failure(ngx_mail_policy_next_t *next,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_stage_e stage);
ngx_uint_t ngx_mail_policy_next_condition(
    ngx_mail_policy_relay_cause_e cause);

/*
 * All of the transaction goes to another group, which is asked anew: divert,
 * as a limit says so; reroute, as the route of a recipient is another one.
 */
void ngx_mail_policy_transaction_divert(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_upstream_t *upstream);
void ngx_mail_policy_transaction_reroute(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_upstream_t *upstream);

/*
 * Where the transaction's group needs a recipient for its choice: those that
 * were there before it was known go by it, too.
 */
void ngx_mail_policy_rcpts_route(ngx_mail_policy_transaction_t *t);

/* 1 if all others have a state below, are refused, or come behind it */
ngx_uint_t ngx_mail_policy_rcpt_alone(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_rcpt_e state);

/* moves each recipient on as far as it can go */
void ngx_mail_policy_rcpts_kick(ngx_mail_policy_transaction_t *t);

/* the answer to a recipient; the second: to all that have none yet */
void ngx_mail_policy_rcpt_accept(ngx_mail_policy_rcpt_t *rcpt,
    ngx_str_t *text);
void ngx_mail_policy_rcpt_refuse(ngx_mail_policy_rcpt_t *rcpt,
    ngx_uint_t status, ngx_str_t *text);
void ngx_mail_policy_rcpts_refuse(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);

/*
 * "policy_auth relay".  start, cancel: as ask_relay and cancel_relay in
 * ..._auth.h, data is the session.  Of a login that a relay has let in: won,
 * the session is logged in, and has the relay; end, it is not.  wait: octets
 * of the client have come, or its end: NGX_AGAIN, NGX_DONE (the session is
 * gone).  All may be called where nothing was asked.
 */
void ngx_mail_policy_asking_start(void *data, ngx_mail_policy_auth_t *auth);
void ngx_mail_policy_asking_cancel(void *data);
void ngx_mail_policy_asking_won(ngx_mail_policy_session_t *s);
void ngx_mail_policy_asking_end(ngx_mail_policy_session_t *s);
ngx_int_t ngx_mail_policy_asking_wait(ngx_mail_policy_session_t *s);

/*
 * The group that "proxy_pass" names: for the transaction, or for a recipient
 * (else NULL).  NGX_OK; NGX_AGAIN: routed() or rcpts_kick() will be called;
 * NGX_ERROR: none such, said in the log.
 */
ngx_int_t ngx_mail_policy_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t **upstream);

/* the same where it has variables, once what they need is there */
ngx_int_t ngx_mail_policy_route_eval(ngx_mail_policy_route_t *r,
    ngx_mail_policy_upstream_t **upstream);
void ngx_mail_policy_transaction_routed(ngx_mail_policy_transaction_t *t);

/*
 * Lookups of a transaction, when MAIL is known, and of a recipient: NGX_OK,
 * NGX_ERROR: no memory.  forget: ends all of them, and waits for them.
 */
ngx_int_t ngx_mail_policy_route_fetch(ngx_mail_policy_transaction_t *t);
ngx_int_t ngx_mail_policy_route_fetch_rcpt(ngx_mail_policy_rcpt_t *rcpt);
void ngx_mail_policy_route_forget(ngx_mail_policy_transaction_t *t);

/* what a route waits for is not awaited any more; rcpt as above */
void ngx_mail_policy_route_cancel(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt);

/* what variables say of the recipient from now on is of this one */
void ngx_mail_policy_rcpt_envelope(ngx_mail_policy_rcpt_t *rcpt);

/*
 * Other policy servers (policy_service), of a recipient, or of all (NULL).
 * NGX_OK: they have nothing against it; NGX_AGAIN: the handler will be called,
 * with status 0 likewise, or with a reply, which is on the transaction's pool;
 * NGX_ERROR: no memory.  forget: all of the transaction's are cancelled.
 */
typedef void (*ngx_mail_policy_inquiry_pt)(void *data, ngx_uint_t status,
    ngx_str_t *text);

ngx_int_t ngx_mail_policy_services_ask(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_service_point_e point,
    ngx_mail_policy_inquiry_pt handler, void *data);
void ngx_mail_policy_services_cancel(ngx_mail_policy_inquiry_t *inquiry);
void ngx_mail_policy_services_forget(ngx_mail_policy_transaction_t *t);

/* 1 if that is said, and then no more: 421, and 521 of RFC 1846 */
#define ngx_mail_policy_service_leaves(status)                               \
    ((status) == 421 || (status) == 521)

/* a whole request; NGX_ERROR: no memory */
ngx_int_t ngx_mail_policy_service_request(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_service_point_e point,
    ngx_pool_t *pool, ngx_str_t *request);

/*
 * A field in front of the message, without CRLF; copied.  NGX_DECLINED: it is
 * too long, or all of them are; NGX_ERROR: no memory.  prepended: writes them
 * to out, t->prepended octets.
 */
ngx_int_t ngx_mail_policy_prepend(ngx_mail_policy_transaction_t *t,
    ngx_str_t *field);
size_t ngx_mail_policy_prepended(ngx_mail_policy_transaction_t *t,
    u_char *out);

/* the body: what its relay says, and what becomes of DATA or BDAT */
void ngx_mail_policy_body_begin(ngx_mail_policy_transaction_t *t);
void ngx_mail_policy_body_refused(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);
void ngx_mail_policy_body_reply(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_relay_stage_e stage, mpol_reply_t *reply);
void ngx_mail_policy_body_lost(ngx_mail_policy_transaction_t *t);

/* sets how the body goes to the relay, before the first octet of it */
ngx_int_t ngx_mail_policy_body_prepare(ngx_mail_policy_transaction_t *t);

/* a body that goes in place: what is to go in front of it, if anything */
void ngx_mail_policy_body_front(ngx_mail_policy_transaction_t *t);

/* reads on, as session_recv(), within the deadline that octets extend */
ngx_int_t ngx_mail_policy_body_recv(ngx_mail_policy_session_t *s);

/*
 * Content for a relay that does not get it in place: data[0 .. len), of
 * NGX_MAIL_POLICY_BODY octets at the most; end: all of it has come.  Only
 * when all that was encoded before has been sent.
 */
void ngx_mail_policy_body_encode(ngx_mail_policy_transaction_t *t,
    u_char *data, size_t len, ngx_uint_t end);

/* 1 if the relay is to get a Received field; the field: octets of it */
ngx_uint_t ngx_mail_policy_received_wanted(ngx_mail_policy_session_t *s);
size_t ngx_mail_policy_received(ngx_mail_policy_transaction_t *t,
    u_char *out);

/* refuses what limits of size, form and hops do not allow */
void ngx_mail_policy_body_judge(ngx_mail_policy_transaction_t *t);

/* NGX_OK: all of it is at the relay; NGX_AGAIN: it will ask for the rest */
ngx_int_t ngx_mail_policy_body_send(ngx_mail_policy_transaction_t *t);

/* the client's end of the message, which has been sent: NGX_OK, NGX_AGAIN */
ngx_int_t ngx_mail_policy_body_end(ngx_mail_policy_transaction_t *t);

/* cuts the relay; what comes yet is swallowed, then text is the reply */
void ngx_mail_policy_body_fail(ngx_mail_policy_transaction_t *t,
    ngx_uint_t status, ngx_str_t *text);

/* gives a body that failed its reply, and ends the transaction */
void ngx_mail_policy_body_failed(ngx_mail_policy_transaction_t *t);

/* a relay's reply as text for the client, on the transaction's pool */
void ngx_mail_policy_transaction_text(ngx_mail_policy_transaction_t *t,
    ngx_uint_t code, mpol_reply_t *reply, const char *status, ngx_str_t *text);


/* replies that several commands give */

extern ngx_str_t  ngx_mail_policy_no_memory;
extern ngx_str_t  ngx_mail_policy_no_route;
extern ngx_str_t  ngx_mail_policy_no_relay;
extern ngx_str_t  ngx_mail_policy_relay_lost;
extern ngx_str_t  ngx_mail_policy_too_big;


#endif /* NGX_MAIL_POLICY_SESSION_H */
