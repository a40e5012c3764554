
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is told of a session as it goes: each call counts, tells the board who
 * is refused, and writes the lines that the formats of the access log have
 * for it.  Front doors call these and no more.
 *
 *     start -> (refused | login | transaction) ... -> end
 *
 * A command that is refused is told once, where its reply is decided; what a
 * client has pipelined behind it and is refused for that ("503 Need MAIL") is
 * not, nor is a client that is sent away for its silence, or as the worker
 * shuts down.
 *
 * The lines of a JSON log without "if=" are as many as transactions, of any
 * outcome, and sessions that have a line of their own.
 */


#ifndef NGX_MAIL_POLICY_ACCOUNT_H
#define NGX_MAIL_POLICY_ACCOUNT_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_check.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_metrics.h"


/* of a session; zero it, set conf and envelope; account's own are below */
typedef struct {
    ngx_mail_policy_srv_conf_t  *conf;
    ngx_mail_policy_envelope_t  *envelope;

    ngx_uint_t                   transactions;  /* that ended */
    ngx_uint_t                   status;    /* of the last refusal, and ... */
    ngx_str_t                    reply;     /* ... its text, on the pool of
                                               the connection */
    ngx_mail_policy_verdict_t   *limit;     /* the last that was exceeded
                                               outside of a transaction */
    unsigned                     started:1;
    unsigned                     login:1;   /* one that failed was told, its
                                               reply was not */
} ngx_mail_policy_account_t;


typedef struct {
    ngx_uint_t                   method;    /* NGX_MAIL_POLICY_METHOD_, or 0:
                                               an unknown one */
    ngx_str_t                    name;      /* of it; empty if unknown */
    ngx_mail_policy_login_e      result;
    ngx_str_t                    login;     /* that was tried; may be empty */
    ngx_str_t                    text;      /* the reply; empty: let in, or
                                               there will be none */
    ngx_mail_policy_verdict_t   *verdict;   /* as below */
} ngx_mail_policy_account_login_t;


void ngx_mail_policy_account_start(ngx_mail_policy_account_t *account);

/*
 * A command was refused: text is the reply, as "550 5.7.1 No".  recipient: of
 * RCPT, else NULL; verdict: that of the limit that refused it, or NULL.
 */
void ngx_mail_policy_account_refused(ngx_mail_policy_account_t *account,
    ngx_mail_policy_at_command_e command, ngx_str_t *text,
    ngx_str_t *recipient, ngx_mail_policy_verdict_t *verdict);

/* the client has made too many errors; each of them was told */
void ngx_mail_policy_account_errors(ngx_mail_policy_account_t *account,
    ngx_mail_policy_at_command_e command);

/* a login has come to its end; that AUTH is refused is told behind it */
void ngx_mail_policy_account_login(ngx_mail_policy_account_t *account,
    ngx_mail_policy_account_login_t *login);

/*
 * The envelope's record is that of a transaction that ends; pool: its own.
 * The octets of the envelope are those since the call before.
 */
void ngx_mail_policy_account_transaction(ngx_mail_policy_account_t *account,
    ngx_pool_t *pool);

/* once; a session that was refused something and had no transaction has a
   line of its own */
void ngx_mail_policy_account_end(ngx_mail_policy_account_t *account);


#endif /* NGX_MAIL_POLICY_ACCOUNT_H */
