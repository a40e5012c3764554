
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Who knows the password: providers, asked in the order of "policy_auth".
 *
 *     start -> handler -> (freed)
 *        \-> cancel
 *
 * The first provider that knows the login decides.  Hashes are verified in a
 * thread pool.  A login nobody knows costs the same time (a hash of the same
 * kind is computed and thrown away) and has the same result as a wrong
 * password.
 *
 * An auth lives on memory of its own.  The handler is called once, never
 * from within start(); the auth is freed when it returns.  After cancel() it
 * is not called; the thread, if one is busy, ends into nothing.  Passwords
 * are wiped wherever they were copied to.
 */


#ifndef NGX_MAIL_POLICY_AUTH_H
#define NGX_MAIL_POLICY_AUTH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_store.h"


typedef struct ngx_mail_policy_auth_s       ngx_mail_policy_auth_t;
typedef struct ngx_mail_policy_auth_conf_s  ngx_mail_policy_auth_conf_t;


/*
 * rc: NGX_OK the password is right; NGX_DECLINED wrong password, no such
 * user, suspended; NGX_ERROR cannot tell now (store away, thread queue
 * full, an unreadable record).  senders: with NGX_OK the login's list, see
 * mpol_sender.h, empty if it has none; gone when the handler returns.
 */
typedef void (*ngx_mail_policy_auth_pt)(void *data, ngx_int_t rc,
    ngx_str_t *senders);


/*
 * The directive "policy_auth off | provider...": value[1..] of cf->args;
 * off gives an object with no providers.  NULL on error, logged.
 */
ngx_mail_policy_auth_conf_t *ngx_mail_policy_auth_conf(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);

/* 1 if "off" */
ngx_uint_t ngx_mail_policy_auth_off(ngx_mail_policy_auth_conf_t *conf);

/* checks at the end of mail{} (redis provider without policy_redis ...) */
ngx_int_t ngx_mail_policy_auth_conf_init(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf);

/*
 * create: login and password are copied; NULL: no memory.  begin: asks, once.
 */
ngx_mail_policy_auth_t *ngx_mail_policy_auth_create(
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *login, ngx_str_t *password,
    ngx_log_t *log, ngx_mail_policy_auth_pt handler, void *data);
void ngx_mail_policy_auth_begin(ngx_mail_policy_auth_t *auth);
void ngx_mail_policy_auth_cancel(ngx_mail_policy_auth_t *auth);


#endif /* NGX_MAIL_POLICY_AUTH_H */
