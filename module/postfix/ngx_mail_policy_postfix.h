
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The second front door: Postfix asks for a verdict before it answers a
 * client of its own ("check_policy_service").  One session is a connection
 * of a Postfix process, which asks one question after the other.
 *
 * What comes of a message is never told, so charges are final as soon as the
 * answer is out, unless it is refused here later.  A message is what has the
 * same "instance": several recipients, and for each of them as many questions
 * as Postfix has restrictions; they come one after the other, as a rule on
 * the same connection.
 */


#ifndef NGX_MAIL_POLICY_POSTFIX_H
#define NGX_MAIL_POLICY_POSTFIX_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_attr.h"
#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_fetch.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_postfix_seen.h"


#define NGX_MAIL_POLICY_POSTFIX_ANSWER  512

/* ms; Postfix closes what it does not need after five minutes by itself */
#define NGX_MAIL_POLICY_POSTFIX_IDLE    1000000

/* questions of a session that are answered before others have their turn */
#define NGX_MAIL_POLICY_POSTFIX_TURN    16

/* questions for a message; then it counts as another one */
#define NGX_MAIL_POLICY_POSTFIX_SAME    4096


/* ms; one recipient's restrictions, with lookups in DNS between them */
#define NGX_MAIL_POLICY_POSTFIX_REFUSED  5000


typedef enum {
    NGX_MAIL_POLICY_POSTFIX_OTHER = 0,  /* nothing is asked */
    NGX_MAIL_POLICY_POSTFIX_RCPT,
    NGX_MAIL_POLICY_POSTFIX_DATA,
    NGX_MAIL_POLICY_POSTFIX_END
} ngx_mail_policy_postfix_state_e;


typedef struct {
    ngx_pool_t                     *pool;
    ngx_str_t                       instance;   /* empty: asked for once */
    ngx_array_t                     charged;
    ngx_uint_t                      requests;
    ngx_uint_t                      recipients; /* charged */
    uint64_t                        octets;     /* charged at its end */

    /*
     * Where octets count, what was charged is held: it may be asked for more
     * at its end, or not be accepted.  Of ..._check_t.
     */
    ngx_array_t                     held;

    /* what was asked for last, and what was said */

    ngx_mail_policy_postfix_state_e  state;
    ngx_str_t                       recipient;
    u_char                         *answer;
    size_t                          answer_len;
    size_t                          answer_size;
    ngx_msec_t                      answered;
    unsigned                        refused:1;

    unsigned                        edge:1;     /* an edge has charged it */
    unsigned                        acted:1;    /* an action was said of it */
    unsigned                        paid:1;     /* the message is charged */
    unsigned                        tried:1;    /* it was, see check.h */
    unsigned                        holds:1;

    /* what other connections are told of it, and have told */

    ngx_mail_policy_postfix_note_t  note;
    ngx_mail_policy_postfix_note_t  before;     /* if the answer is lost */
    unsigned                        foreign:1;  /* another one has begun it */
    unsigned                        heard:1;    /* of what passed last there */
    unsigned                        telling:1;  /* as the answer goes out */
} ngx_mail_policy_postfix_message_t;


typedef struct {
    ngx_connection_t               *connection;
    ngx_mail_policy_main_conf_t    *main_conf;
    ngx_mail_policy_srv_conf_t     *conf;
    ngx_mail_core_srv_conf_t       *core;

    u_char                         *in;     /* on the heap; NULL when idle */
    size_t                          in_size;
    size_t                          in_last;
    mpol_attr_t                     attr;   /* the request it begins with */

    size_t                          out_pos;
    size_t                          out_last;
    u_char                         *out;    /* of buffer, the request's pool,
                                               or the message's */
    u_char                          buffer[NGX_MAIL_POLICY_POSTFIX_ANSWER];

    ngx_connection_t                client; /* a copy, with the addresses of
                                               Postfix's client; for the
                                               envelope alone */
    ngx_mail_policy_envelope_t      envelope;
    mpol_str_t                      values[MPOL_ATTR_KNOWN];

    ngx_mail_policy_postfix_state_e  state; /* of the request */
    ngx_mail_policy_postfix_message_t  *message;
    ngx_pool_t                     *pool;   /* the request's, or NULL */
    ngx_uint_t                      known;  /* of message->charged, before */
    ngx_mail_policy_fetch_t        *fetch;  /* the request's lookups, or NULL */
    ngx_mail_policy_check_t         mail;
    ngx_mail_policy_check_t         rcpt;
    ngx_mail_policy_check_t         rest;   /* octets, at the end */
    ngx_mail_policy_fetch_wait_t   *wait;   /* before that, or NULL */
    ngx_uint_t                      count;  /* recipients, asked for at once */

    ngx_uint_t                      requests;   /* that came to their end */
    ngx_mail_policy_record_t        record; /* of the request; limits alone */

    /* what is noted with this answer, and forgotten if it is lost */

    u_char                          said[2][NGX_MAIL_POLICY_POSTFIX_DIGEST];
    ngx_uint_t                      nsaid;

    unsigned                        free:1;     /* it costs nothing */
    unsigned                        once:1;     /* the answer is not to be
                                                   said again */
    unsigned                        busy:1;     /* with a request */
    unsigned                        timed:1;    /* the request has its timer */
} ngx_mail_policy_postfix_t;


/* "protocol policy" */
extern ngx_mail_protocol_t  ngx_mail_policy_postfix_protocol;


/*
 * The request at s->in.  NGX_OK: the answer is in s->out; NGX_AGAIN:
 * answered() is called when it is; NGX_ERROR: close, it was logged.
 */
ngx_int_t ngx_mail_policy_postfix_request(ngx_mail_policy_postfix_t *s);

/* NGX_OK: sends what is in s->out, and goes on; NGX_ERROR: closes */
void ngx_mail_policy_postfix_answered(ngx_mail_policy_postfix_t *s,
    ngx_int_t rc);

/* the answer is out: what it cost stands */
void ngx_mail_policy_postfix_sent(ngx_mail_policy_postfix_t *s);

/*
 * What a request came to is counted and logged.  limited: what a limit says
 * of it, be it that it passes; told: the answer is out; untold: there was
 * none, and the connection is closed.
 */
void ngx_mail_policy_postfix_limited(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_verdict_t *verdict);
void ngx_mail_policy_postfix_told(ngx_mail_policy_postfix_t *s);
void ngx_mail_policy_postfix_untold(ngx_mail_policy_postfix_t *s);

/* gives up a request that has not been answered, and forgets the message */
void ngx_mail_policy_postfix_forget(ngx_mail_policy_postfix_t *s);


/*
 * The message that is asked for is s->message: the one before, or a new one.
 * answers(): 1 if its last answer is that to this request, too; remember():
 * s->out is that answer, it was the last step; paid(): it is charged, what
 * has to be known of that outlives the request, and hold() cannot fail.
 *
 * heard(): learns what other connections have paid for meanwhile; 1 if one has
 * let this recipient pass; tell(): what is paid, for other connections, before
 * the answer goes out, as who has that may ask there at once; untell(): it
 * does not get out, or the message is refused as a whole, and nothing of it is
 * paid.
 */
ngx_int_t ngx_mail_policy_postfix_message(ngx_mail_policy_postfix_t *s);
ngx_uint_t ngx_mail_policy_postfix_answers(ngx_mail_policy_postfix_t *s);
ngx_int_t ngx_mail_policy_postfix_remember(ngx_mail_policy_postfix_t *s,
    ngx_uint_t refused);
ngx_int_t ngx_mail_policy_postfix_paid(ngx_mail_policy_postfix_t *s);
ngx_uint_t ngx_mail_policy_postfix_heard(ngx_mail_policy_postfix_t *s);
void ngx_mail_policy_postfix_tell(ngx_mail_policy_postfix_t *s);
void ngx_mail_policy_postfix_untell(ngx_mail_policy_postfix_t *s,
    ngx_uint_t all);

/*
 * hold(): what this request was charged is held, or kept; held(): the end of
 * that, be it kept or given back; drop(): that, and of the message.
 */
void ngx_mail_policy_postfix_hold(ngx_mail_policy_postfix_t *s);
void ngx_mail_policy_postfix_held(ngx_mail_policy_postfix_message_t *m,
    ngx_uint_t keep);
void ngx_mail_policy_postfix_drop(ngx_mail_policy_postfix_t *s,
    ngx_uint_t keep);

/* s->envelope is filled from s->values, with memory of s->pool */
ngx_int_t ngx_mail_policy_postfix_fill(ngx_mail_policy_postfix_t *s);

/* "action=", and a text made harmless; always NGX_OK */
ngx_int_t ngx_mail_policy_postfix_say(ngx_mail_policy_postfix_t *s,
    const char *action, ngx_str_t *text);

/*
 * What is said of mail that passes limits.  NGX_OK; NGX_DECLINED: it refuses
 * it; NGX_AGAIN: handler(s) is called when it can be tried again.
 */
ngx_int_t ngx_mail_policy_postfix_action(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_fetch_pt handler);

/*
 * acted(): 1 if an action was said of the message; act(): it is; said(): 1 if
 * this one was, else it is; unsay(): the answer did not get out.
 */
ngx_uint_t ngx_mail_policy_postfix_acted(ngx_mail_policy_postfix_t *s);
void ngx_mail_policy_postfix_act(ngx_mail_policy_postfix_t *s);
ngx_uint_t ngx_mail_policy_postfix_said(ngx_mail_policy_postfix_t *s,
    const char *action, ngx_str_t *text);
void ngx_mail_policy_postfix_unsay(ngx_mail_policy_postfix_t *s);

/* 1: the mail of s->values has come through an edge that has charged it */
ngx_uint_t ngx_mail_policy_postfix_edge(ngx_mail_policy_postfix_t *s,
    ngx_pool_t *pool);

/* an attribute of the request; is(): exactly that, with case */
ngx_uint_t ngx_mail_policy_postfix_is(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, const char *text);
void ngx_mail_policy_postfix_value(ngx_mail_policy_postfix_t *s,
    ngx_uint_t attribute, ngx_str_t *value);

/* two attributes; NGX_DECLINED: there is no address; NGX_ERROR: no memory */
ngx_int_t ngx_mail_policy_postfix_addr(ngx_mail_policy_postfix_t *s,
    ngx_pool_t *pool, ngx_uint_t address, ngx_uint_t port, ngx_addr_t *addr);


#endif /* NGX_MAIL_POLICY_POSTFIX_H */
