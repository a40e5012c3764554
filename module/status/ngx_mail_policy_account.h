
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is told of a session as it goes: each call counts, tells the board who
 * is refused, and writes the lines that the formats of the access log have
 * for it.  Front doors call these and no more.
 *
 *     start -> (refused | login | transaction) ... -> end
 */


#ifndef NGX_MAIL_POLICY_ACCOUNT_H
#define NGX_MAIL_POLICY_ACCOUNT_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_envelope.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_metrics.h"


/* of a session; zero it, set conf and envelope; account's own are below */
typedef struct {
    ngx_mail_policy_srv_conf_t  *conf;
    ngx_mail_policy_envelope_t  *envelope;

    ngx_uint_t                   transactions;  /* that ended */
    ngx_uint_t                   auth_failures;
    ngx_uint_t                   status;    /* of the last refusal, and ... */
    ngx_str_t                    reply;     /* ... its text, on the pool of
                                               the connection */
    unsigned                     started:1;
} ngx_mail_policy_account_t;


void ngx_mail_policy_account_start(ngx_mail_policy_account_t *account);

/*
 * A command was refused: text is the reply, as "550 5.7.1 No".  recipient: of
 * RCPT, else NULL.
 */
void ngx_mail_policy_account_refused(ngx_mail_policy_account_t *account,
    ngx_mail_policy_at_command_e command, ngx_str_t *text,
    ngx_str_t *recipient);

/*
 * A login has come to its end; method: NGX_MAIL_POLICY_METHOD_, or 0;
 * login: what was tried, empty if unknown.
 */
void ngx_mail_policy_account_login(ngx_mail_policy_account_t *account,
    ngx_uint_t method, ngx_mail_policy_login_e result, ngx_str_t *login,
    ngx_str_t *text);

/* the envelope's record is that of a transaction that ends; pool: its own */
void ngx_mail_policy_account_transaction(ngx_mail_policy_account_t *account,
    ngx_pool_t *pool);

/* once; a session that was refused something and had no transaction has a
   line of its own */
void ngx_mail_policy_account_end(ngx_mail_policy_account_t *account);


#endif /* NGX_MAIL_POLICY_ACCOUNT_H */
