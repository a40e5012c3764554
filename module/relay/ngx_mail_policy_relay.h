
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The dialogue with one relay: one connection, driven from above by commands,
 * telling what came back by callbacks.
 *
 * Commands may be given at once after open(): they wait until the relay is
 * ready, then go out in order, pipelined if the relay offers PIPELINING
 * (RFC 2920), one after the other if not.  Parameters that the relay does not
 * offer are left out where that loses nothing but a service (SIZE, DSN: RFC
 * 3461 section 5.2.2); a message that it cannot take is refused here.
 *
 * Callbacks come from the relay's own events only, never from within a call
 * of the owner.  The owner may close() in a callback.  Each command that was
 * given gets exactly one reply() unless failed() comes first, or the owner
 * forgot it by rset(), quit() or close().
 */


#ifndef NGX_MAIL_POLICY_RELAY_H
#define NGX_MAIL_POLICY_RELAY_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "mpol_pace.h"
#include "mpol_reply.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_scram.h"
#include "ngx_mail_policy_tls.h"
#include "ngx_mail_policy_upstream.h"


#define NGX_MAIL_POLICY_RELAY_BUFFER  4096
#define NGX_MAIL_POLICY_IDENTITY      4096

/* among the attributes that were sent: all were, and EHLO behind them */
#define NGX_MAIL_POLICY_XCLIENT_DONE  (1U << 31)


/* the stages of a dialogue, in their order */
typedef enum {
    NGX_MAIL_POLICY_RELAY_CONNECT = 0,
    NGX_MAIL_POLICY_RELAY_TLS,              /* the handshake; behind STARTTLS
                                               as well */
    NGX_MAIL_POLICY_RELAY_GREETING,
    NGX_MAIL_POLICY_RELAY_EHLO,
    NGX_MAIL_POLICY_RELAY_STARTTLS,
    NGX_MAIL_POLICY_RELAY_XCLIENT,
    NGX_MAIL_POLICY_RELAY_AUTH,
    NGX_MAIL_POLICY_RELAY_MAIL,
    NGX_MAIL_POLICY_RELAY_RCPT,
    NGX_MAIL_POLICY_RELAY_DATA,
    NGX_MAIL_POLICY_RELAY_BODY,
    NGX_MAIL_POLICY_RELAY_FINAL,
    NGX_MAIL_POLICY_RELAY_RSET,
    NGX_MAIL_POLICY_RELAY_QUIT
} ngx_mail_policy_relay_stage_e;


typedef struct {
    /* a reply to the command that was given with this tag */
    void    (*reply)(void *data, ngx_mail_policy_relay_stage_e stage,
                void *tag, mpol_reply_t *reply);

    /*
     * The relay is of no use any more; the last callback.  stage: of the
     * oldest command without reply, or where the set-up stood.  Why: see
     * relay->cause.
     */
    void    (*failed)(void *data, ngx_mail_policy_relay_stage_e stage);

    /* body() took less than it was given: now it takes more */
    void    (*writable)(void *data);

    /* it was left alone for a while (..._keep.h): the owner gives it back */
    void    (*idle)(void *data);

    /* NULL, or told that the set-up of a new connection is done */
    void    (*ready)(void *data);
} ngx_mail_policy_relay_handlers_t;


typedef struct ngx_mail_policy_relay_auth_s  ngx_mail_policy_relay_auth_t;


/* xclient, beside off and on: proxy_xclient_required */
#define NGX_MAIL_POLICY_XCLIENT_REQUIRED   2

/* proxy_starttls */
#define NGX_MAIL_POLICY_STARTTLS_OFF       0
#define NGX_MAIL_POLICY_STARTTLS_ON        1
#define NGX_MAIL_POLICY_STARTTLS_REQUIRED  2


/* proxy_auth, of a server or a group */
struct ngx_mail_policy_relay_login_s {
    ngx_str_t                          user;
    ngx_str_t                          password;
    ngx_mail_policy_scram_cache_t     *cache;
};


/* of a server; lives as long as the cycle, and longer than any relay */
typedef struct {
    ngx_msec_t                         connect_timeout;
    ngx_msec_t                         reply_timeout;
    ngx_msec_t                         final_timeout;
    size_t                             min_data_rate; /* that it takes */
    ngx_uint_t                         xclient;   /* use it where offered; or
                                                     ..._XCLIENT_REQUIRED */
    ngx_uint_t                         proxy_protocol;    /* 1, 2; 0: none */
    ngx_addr_t                        *bind;      /* or NULL */
    struct ngx_mail_policy_value_s    *bind_value;    /* goes first */
    ngx_mail_policy_relay_login_t     *login;     /* NULL: none; a group's own
                                                     goes first */
    ngx_uint_t                         client_login;  /* proxy_smtp_auth */
    ngx_uint_t                         auth_methods;  /* MPOL_AUTH_... */
    ngx_uint_t                         auth_plaintext;
    void                              *thread_pool;   /* or NULL */
    ngx_uint_t                         starttls;  /* ..._STARTTLS_... */
    ngx_ssl_t                         *ssl;       /* NULL: always in clear */
    ngx_mail_policy_tls_sessions_t    *ssl_sessions;  /* NULL: not kept */
    ngx_str_t                          ssl_name;  /* empty: as the peer's
                                                     "server" says */
    unsigned                           bind_transparent:1;
    unsigned                           ssl_at_once:1; /* without STARTTLS */
    unsigned                           ssl_verify:1;
    unsigned                           ssl_server_name:1; /* SNI */
    ngx_str_t                          name;      /* ours, for EHLO */
    ngx_log_t                         *log;       /* the server's, not the
                                                     session's */
} ngx_mail_policy_relay_conf_t;


/* why a relay is of no use any more */
typedef enum {
    NGX_MAIL_POLICY_RELAY_ERROR = 0,        /* no connection, or it was lost */
    NGX_MAIL_POLICY_RELAY_TIMEOUT,
    NGX_MAIL_POLICY_RELAY_INVALID,          /* what it said is not SMTP */
    NGX_MAIL_POLICY_RELAY_REFUSED,          /* 4xx, 5xx at set-up */
    NGX_MAIL_POLICY_RELAY_CLOSING,          /* 421 */
    NGX_MAIL_POLICY_RELAY_OURSELVES         /* no descriptors, shutting down:
                                               no fault of the relay's */
} ngx_mail_policy_relay_cause_e;


/* MAIL's parameters; strings are borrowed until the command is answered */
typedef struct {
    ngx_str_t                          sender;    /* without brackets */
    ngx_str_t                          envid;     /* xtext; empty: none */
    uint64_t                           size;      /* 0: not declared */
    ngx_uint_t                         body;      /* MPOL_BODY_... */
    ngx_uint_t                         ret;       /* MPOL_RET_..., 0: none */
    unsigned                           smtputf8:1;
} ngx_mail_policy_relay_mail_t;


/* RCPT's, likewise */
typedef struct {
    ngx_str_t                          address;
    ngx_str_t                          orcpt;     /* "type;xtext" */
    ngx_uint_t                         notify;    /* MPOL_NOTIFY_... */
} ngx_mail_policy_relay_rcpt_t;


typedef struct {
    ngx_queue_t                        queue;
    ngx_mail_policy_relay_stage_e      stage;
    void                              *tag;       /* NULL: forgotten */
    void                              *argument;  /* ..._relay_mail_t or
                                                     ..._relay_rcpt_t */
} ngx_mail_policy_relay_command_t;


typedef struct {
    ngx_pool_t                        *pool;
    ngx_log_t                          log;
    ngx_peer_connection_t              pc;
    const ngx_mail_policy_relay_conf_t  *conf;
    ngx_mail_policy_peer_t            *peer;
    ngx_mail_policy_envelope_t        *envelope;  /* NULL after quit() */

    ngx_mail_policy_relay_handlers_t  *handlers;
    void                              *data;

    ngx_mail_policy_relay_stage_e      stage;     /* of set-up; MAIL: ready */
    mpol_ehlo_t                        ehlo;
    ngx_uint_t                         xclient_sent;  /* attributes */
    ngx_str_t                          identity;  /* what they said; on the
                                                     heap */

    ngx_str_t                          host;      /* of TLS: a name or an
                                                     address */
    ngx_str_t                          session_key;
    ngx_mail_policy_relay_auth_t      *auth;      /* while logging in */

    ngx_queue_t                        waiting;   /* commands not yet sent */
    ngx_queue_t                        sent;      /* awaiting their replies */
    ngx_queue_t                        free;
    ngx_uint_t                         outstanding;
    ngx_uint_t                         mails;     /* MAIL commands so far */

    ngx_uint_t                         chunks;    /* BDATs without reply */

    mpol_pace_t                        pace;      /* of taking a body */
    ngx_msec_t                         blocked_since;

    u_char                            *out;       /* on the heap */
    size_t                             out_len;
    size_t                             out_sent;
    size_t                             out_size;

    size_t                             in_len;
    size_t                             in_pos;    /* so many of these are
                                                     handled */
    u_char                             in[NGX_MAIL_POLICY_RELAY_BUFFER];

    ngx_mail_policy_keep_t            *keep;      /* NULL: not to be kept */
    ngx_queue_t                        kept_queue;
    ngx_msec_t                         kept_since;
    ngx_msec_t                         opened;
    ngx_event_t                        idle;      /* timer: of no use to its
                                                     owner; of no use at all */

    ngx_event_t                        failure;   /* posted */
    ngx_mail_policy_relay_cause_e      cause;     /* of it */
    mpol_reply_t                       refusal;   /* at set-up; code 0: none;
                                                     points to "in" */

    unsigned                           in_transaction:1; /* MAIL was sent */
    unsigned                           in_body:1; /* from 354 or chunks() to
                                                     final() */
    unsigned                           secret:1;  /* out may have a password
                                                     in it: is wiped */
    unsigned                           listening:1; /* for chunks' replies */
    unsigned                           logged_in:1;
    unsigned                           asking:1;  /* set behind open(): whether
                                                     the envelope's client may
                                                     log in; as nobody else */
    unsigned                           declined:1;  /* he may not */
    unsigned                           as_client:1; /* his is the login */
    unsigned                           trusted:1; /* TLS, as it should be */
    unsigned                           clear:1;   /* no TLS, and it need not
                                                     be */
    unsigned                           spent:1;   /* not to be used again */
    unsigned                           bound:1;   /* it carries its client's
                                                     identity for good: for no
                                                     other one, ever */
    unsigned                           unable:1;  /* it lacks an extension that
                                                     MAIL needs: what reply()
                                                     gets then is our own */
    unsigned                           reused:1;  /* and no reply to MAIL since:
                                                     it may have been closed */
    unsigned                           kept:1;    /* for another owner */
    unsigned                           blocked:1; /* body() waits */
    unsigned                           busy:1;    /* in a handler of ours */
    unsigned                           closed:1;  /* free when not busy */
    unsigned                           resting:1; /* its peer is not used */
    unsigned                           failing:1;
} ngx_mail_policy_relay_t;


/*
 * Connects to a peer that is acquired; it is released with the connection.
 * envelope: whom we speak for (XCLIENT), must outlive quit() or close().
 * NULL: no memory, the peer is the caller's still.  What else goes wrong comes
 * as failed().
 */
ngx_mail_policy_relay_t *ngx_mail_policy_relay_open(
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data);

/* NGX_OK, or NGX_ERROR: no memory (the owner closes then) */
ngx_int_t ngx_mail_policy_relay_mail(ngx_mail_policy_relay_t *relay,
    void *tag, ngx_mail_policy_relay_mail_t *mail);
ngx_int_t ngx_mail_policy_relay_rcpt(ngx_mail_policy_relay_t *relay,
    void *tag, ngx_mail_policy_relay_rcpt_t *rcpt);
ngx_int_t ngx_mail_policy_relay_data(ngx_mail_policy_relay_t *relay,
    void *tag);

/*
 * RFC 3030 instead of DATA: 1 if the relay is ready and takes chunks; begins
 * a body of them; tells that a whole "BDAT" without LAST goes out with the
 * next body().  Its reply is awaited by listen(); a refusal comes as a reply of
 * stage BODY.
 */
ngx_uint_t ngx_mail_policy_relay_chunking(ngx_mail_policy_relay_t *relay);
void ngx_mail_policy_relay_chunks(ngx_mail_policy_relay_t *relay);
void ngx_mail_policy_relay_chunk(ngx_mail_policy_relay_t *relay);

/*
 * Between DATA's 354, or chunks(), and final(): sends what fits now, without
 * a copy.  Returns the number of octets taken; fewer than len: writable() will
 * come.
 */
size_t ngx_mail_policy_relay_body(ngx_mail_policy_relay_t *relay,
    u_char *data, size_t len);

/*
 * Before the octets go out that end a body.  NGX_OK: all that the relay has
 * said was looked at, so its next reply is to the end.  NGX_AGAIN: it is
 * listened to first; writable() or another callback will come.
 */
ngx_int_t ngx_mail_policy_relay_listen(ngx_mail_policy_relay_t *relay);

/* the body and its final dot or LAST have been taken: waits for the reply */
ngx_int_t ngx_mail_policy_relay_final(ngx_mail_policy_relay_t *relay,
    void *tag);

/* forgets the transaction; not between DATA and the final reply */
ngx_int_t ngx_mail_policy_relay_rset(ngx_mail_policy_relay_t *relay);

/* 1 if another transaction may use this connection */
ngx_uint_t ngx_mail_policy_relay_reusable(ngx_mail_policy_relay_t *relay);

/*
 * 1 if it has failed as one does that was closed while nobody used it, or while
 * our MAIL was on its way: that is no failure of the relay's.
 */
ngx_uint_t ngx_mail_policy_relay_stale(ngx_mail_policy_relay_t *relay);

/* ends the owner's ownership: says QUIT and lingers, or cuts at once */
void ngx_mail_policy_relay_quit(ngx_mail_policy_relay_t *relay);
void ngx_mail_policy_relay_close(ngx_mail_policy_relay_t *relay);


/* between the files of the relay */

/* it is not in use any more: not counted, though its peer is referenced */
void ngx_mail_policy_relay_rest(ngx_mail_policy_relay_t *relay);

/* the owner hears of it from a posted event; why is for the log */
void ngx_mail_policy_relay_fail(ngx_mail_policy_relay_t *relay,
    const char *why);

/* the same for a cause other than NGX_MAIL_POLICY_RELAY_ERROR */
void ngx_mail_policy_relay_fail_as(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_cause_e cause, const char *why);

/* sets the deadlines of what is awaited now */
void ngx_mail_policy_relay_timers(ngx_mail_policy_relay_t *relay);

/* puts a command into the queue */
ngx_int_t ngx_mail_policy_relay_command(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_stage_e stage, void *tag, void *argument);

/*
 * Formats what may be sent now.  NGX_OK, or NGX_ERROR: the relay failed, or
 * the owner closed it.
 */
ngx_int_t ngx_mail_policy_relay_send_commands(ngx_mail_policy_relay_t *relay);

/* a reply to a command; the owner may have closed the relay when it returns */
void ngx_mail_policy_relay_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);

/* a body may begin */
void ngx_mail_policy_relay_begin_body(ngx_mail_policy_relay_t *relay);

/* a reply to a chunk, or any other one before the end of the body */
void ngx_mail_policy_relay_chunk_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);
void ngx_mail_policy_relay_early_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);

/* the connection stands: what comes first */
ngx_int_t ngx_mail_policy_relay_connected(ngx_mail_policy_relay_t *relay);

/* where the connection is to come from: NGX_OK, or NGX_ERROR no memory */
ngx_int_t ngx_mail_policy_relay_bind(ngx_mail_policy_relay_t *relay);

/* the PROXY protocol's header: NGX_OK, or NGX_ERROR no memory */
ngx_int_t ngx_mail_policy_relay_proxy(ngx_mail_policy_relay_t *relay);

/* the line "proxy_auth name password"; NULL: logged */
ngx_mail_policy_relay_login_t *ngx_mail_policy_relay_login(ngx_conf_t *cf);

/* 1 if mail needs a login before; also for the client of a session */
ngx_uint_t ngx_mail_policy_relay_auth_needed(ngx_mail_policy_relay_t *relay);

/* begins: NGX_OK, or NGX_ERROR no memory */
ngx_int_t ngx_mail_policy_relay_auth(ngx_mail_policy_relay_t *relay);

/* NGX_OK go on, NGX_DONE logged in, NGX_ERROR refused */
ngx_int_t ngx_mail_policy_relay_auth_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);

void ngx_mail_policy_relay_auth_free(ngx_mail_policy_relay_t *relay);

/* all has gone out that was to be said in clear: the handshake */
void ngx_mail_policy_relay_tls(ngx_mail_policy_relay_t *relay);

/* it is done: NGX_OK, or NGX_ERROR no memory */
ngx_int_t ngx_mail_policy_relay_secured(ngx_mail_policy_relay_t *relay);

/* 1 if the relay has said something that is not read yet, or has closed */
ngx_uint_t ngx_mail_policy_relay_heard(ngx_mail_policy_relay_t *relay);

void ngx_mail_policy_relay_read_handler(ngx_event_t *rev);
void ngx_mail_policy_relay_write_handler(ngx_event_t *wev);

/* the reply in relay->in, at set-up: NGX_OK go on, NGX_ERROR it is no use */
ngx_int_t ngx_mail_policy_relay_setup(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply);

/*
 * One XCLIENT command, with what has not been sent yet: NGX_OK; NGX_DECLINED
 * all was sent; NGX_ERROR no memory.
 */
ngx_int_t ngx_mail_policy_relay_xclient(ngx_mail_policy_relay_t *relay);

/*
 * An identity is all that XCLIENT can say of a client and stays the same over
 * its sessions: not its port.  identity(): its length in buf, of
 * NGX_MAIL_POLICY_IDENTITY octets.  identified(): 1 if what the relay was told
 * last is this, or if it is not told anything.  renewable(): 1 if it can be
 * told another one.  renew(): tells it that of relay->envelope.
 */
size_t ngx_mail_policy_relay_identity(ngx_mail_policy_envelope_t *e,
    u_char *buf);
ngx_uint_t ngx_mail_policy_relay_identified(ngx_mail_policy_relay_t *relay,
    u_char *identity, size_t len);
ngx_uint_t ngx_mail_policy_relay_renewable(ngx_mail_policy_relay_t *relay);
ngx_int_t ngx_mail_policy_relay_renew(ngx_mail_policy_relay_t *relay);

/* NGX_OK: all went out; NGX_AGAIN; NGX_ERROR: the relay failed */
ngx_int_t ngx_mail_policy_relay_flush(ngx_mail_policy_relay_t *relay);

void ngx_mail_policy_relay_output_free(ngx_mail_policy_relay_t *relay);

/* room for n octets of output, or NULL; then tell how many were written */
u_char *ngx_mail_policy_relay_reserve(ngx_mail_policy_relay_t *relay,
    size_t n);
void ngx_mail_policy_relay_written(ngx_mail_policy_relay_t *relay, size_t n);


#endif /* NGX_MAIL_POLICY_RELAY_H */
