
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Values with variables, as "$sasl_username" or "x-$sender_domain", compiled
 * at configuration time and evaluated against an envelope.  Each use
 * evaluates each variable once and copies it (CVE-2026-42533): the result is
 * the caller's, on its pool.
 */


#ifndef NGX_MAIL_POLICY_VALUE_H
#define NGX_MAIL_POLICY_VALUE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_envelope.h"


/* what a value depends on: the earliest phase in which it can be evaluated */
#define NGX_MAIL_POLICY_AT_CONNECT  0
#define NGX_MAIL_POLICY_AT_AUTH     1   /* needs the login */
#define NGX_MAIL_POLICY_AT_MAIL     2   /* needs the sender */
#define NGX_MAIL_POLICY_AT_RCPT     3   /* needs a recipient */
#define NGX_MAIL_POLICY_AT_END      4   /* needs to know what came of it: for
                                           the log only */


typedef struct ngx_mail_policy_value_s {
    ngx_str_t        text;              /* as in the configuration */
    ngx_array_t     *parts;             /* NULL: text is the value */
    ngx_uint_t       phase;             /* NGX_MAIL_POLICY_AT_... */
    uint64_t         lookups;           /* mask: policy_lookup variables that
                                           it may need, and these need */
    ngx_uint_t       captures;          /* it has parts of what a regular
                                           expression captures */
} ngx_mail_policy_value_t;


/*
 * Compiles text ("$name", "${name}", "$$" is not special).  A map may be
 * defined behind its use, so unknown names are found by
 * ngx_mail_policy_value_resolve(), at the end of mail{}.  Logs what is wrong.
 */
ngx_int_t ngx_mail_policy_value_compile(ngx_conf_t *cf, ngx_str_t *text,
    ngx_mail_policy_value_t *value);

/* finds the variables of all compiled values and their phases */
ngx_int_t ngx_mail_policy_value_resolve(ngx_conf_t *cf, void *mcf);

/* NGX_OK with *out on pool (not NUL-terminated), or NGX_ERROR: no memory */
ngx_int_t ngx_mail_policy_value_eval(ngx_pool_t *pool,
    ngx_mail_policy_value_t *value, ngx_mail_policy_envelope_t *envelope,
    ngx_str_t *out);

/*
 * The same for a limit's key: empty as soon as one of its variables is, so
 * that "u:$sender" is not one bucket for all who have no sender.
 */
ngx_int_t ngx_mail_policy_value_eval_key(ngx_pool_t *pool,
    ngx_mail_policy_value_t *value, ngx_mail_policy_envelope_t *envelope,
    ngx_str_t *out);

/*
 * The same for a key in Redis, where what variables give is escaped as limits'
 * keys are.
 */
ngx_int_t ngx_mail_policy_value_eval_name(ngx_pool_t *pool,
    ngx_mail_policy_value_t *value, ngx_mail_policy_envelope_t *envelope,
    ngx_str_t *out);

/*
 * One use of several values, as a line of the log is: zeroed, with pool and
 * envelope.  Each map is evaluated once in it.
 */
typedef struct {
    ngx_pool_t                  *pool;
    ngx_mail_policy_envelope_t  *envelope;
    ngx_queue_t                 *maps;      /* conf/'s own */
} ngx_mail_policy_use_t;

/* what a variable gave, and is to be written: *value is replaced, on pool */
typedef ngx_int_t (*ngx_mail_policy_escape_pt)(ngx_pool_t *pool,
    ngx_str_t *value);

/* as eval(); escape: of what variables give, not of the text around them */
ngx_int_t ngx_mail_policy_value_use(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_escape_pt escape,
    ngx_str_t *out);

/* $client_net; NGX_OK, or NGX_ERROR: no memory */
ngx_int_t ngx_mail_policy_client_net(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *out);

/* the directive "map $source $name { ... }" */
char *ngx_mail_policy_map(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


#endif /* NGX_MAIL_POLICY_VALUE_H */
