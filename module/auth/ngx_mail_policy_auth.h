
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One AUTH: a mechanism says what goes over the wire, providers know the
 * users, in the order of "policy_auth".
 *
 *     create -> respond --> CHALLENGE -> respond ...
 *                  |------> ASK -> admit -> CHALLENGE ... | DONE
 *                  \------> DONE -> (freed)
 *     cancel, in any state -> (freed)
 *
 * The handler is called once for each call of respond() and admit(), never
 * from within them.  With ASK the login is known, and nobody was asked for it
 * yet: this comes once, before a password is looked at.  With DONE the auth
 * is freed when the handler returns; it is not to be cancelled then.  After
 * cancel() the handler is not called; a thread or a service that is busy ends
 * into nothing.
 *
 * An auth lives on memory of its own, and wipes what is secret in it.
 */


#ifndef NGX_MAIL_POLICY_AUTH_H
#define NGX_MAIL_POLICY_AUTH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_store.h"


/* mechanisms, as a mask; 1 is NGX_CONF_BITMASK_SET */
#define NGX_MAIL_POLICY_METHOD_PLAIN          0x0002
#define NGX_MAIL_POLICY_METHOD_LOGIN          0x0004
#define NGX_MAIL_POLICY_METHOD_CRAM_MD5       0x0008
#define NGX_MAIL_POLICY_METHOD_SCRAM          0x0010    /* SCRAM-SHA-256 */
#define NGX_MAIL_POLICY_METHOD_SCRAM_PLUS     0x0020
#define NGX_MAIL_POLICY_METHOD_XOAUTH2        0x0040
#define NGX_MAIL_POLICY_METHOD_OAUTHBEARER    0x0080
#define NGX_MAIL_POLICY_METHOD_EXTERNAL       0x0100

#define NGX_MAIL_POLICY_METHODS_PASSWORD      0x0006
#define NGX_MAIL_POLICY_METHODS_TOKEN         0x00c0

/* that a record is enough for */
#define NGX_MAIL_POLICY_METHODS_RECORDS       0x013e


typedef struct ngx_mail_policy_auth_s       ngx_mail_policy_auth_t;
typedef struct ngx_mail_policy_auth_conf_s  ngx_mail_policy_auth_conf_t;


typedef enum {
    NGX_MAIL_POLICY_AUTH_CHALLENGE = 0,
    NGX_MAIL_POLICY_AUTH_ASK,
    NGX_MAIL_POLICY_AUTH_DONE
} ngx_mail_policy_auth_event_e;


/*
 * What an auth says; all of it is gone when the handler returns.
 *
 * rc: NGX_OK logged in; NGX_DECLINED wrong password, no such user, suspended,
 * a message that is none; NGX_ERROR cannot tell now (store or service away,
 * thread queue full, an unreadable record).
 */
typedef struct {
    ngx_str_t       challenge;  /* CHALLENGE: octets, not encoded */

    ngx_str_t       login;      /* ASK: who it is tried as; DONE, NGX_OK: who
                                   it is */
    ngx_str_t       secret;     /* ASK: what it is tried with, whatever the
                                   mechanism has; to tell failures apart */

    ngx_int_t       rc;         /* DONE; CHALLENGE: NGX_DECLINED if it tells
                                   the client that it has failed */
    ngx_str_t       reply;      /* not NGX_OK: "535 5.7.8 text", clean, no
                                   CRLF; empty: the usual one */
    ngx_msec_t      wait;       /* not NGX_OK: before the reply; 0: as the
                                   session sees fit */
    ngx_str_t       authzid;    /* NGX_OK: one that it may act as, and that
                                   differs from login; else empty */
    ngx_str_t       password;   /* NGX_OK: for relays; password or token;
                                   empty: there is none */
    ngx_str_t       senders;    /* NGX_OK: list, see mpol_sender.h */
    ngx_str_t       relay;      /* NGX_OK: "host:port" as a route of this
                                   login, or a group's name; may be empty */
    ngx_str_t       sasl_error; /* token refused: what the client is told, a
                                   JSON object; empty: the usual one */
} ngx_mail_policy_auth_told_t;


typedef void (*ngx_mail_policy_auth_pt)(void *data,
    ngx_mail_policy_auth_event_e event, ngx_mail_policy_auth_told_t *told);


/* the client, as mechanisms and providers see it; outlives its auths */
typedef struct {
    ngx_connection_t  *connection;  /* addresses, TLS */
    ngx_str_t         *host;        /* its PTR name, empty if unknown */
    ngx_str_t         *helo;
    ngx_uint_t         offered;     /* mask: what EHLO offers it */
    ngx_uint_t         attempt;     /* of this session, from 1 */

    void              *cache;       /* of passwords that were right, or NULL;
                                       see ..._auth_cache.h */
    ngx_msec_t         remember;    /* how long */

    /*
     * The provider "relay": the session has a relay decide.  It says
     * ngx_mail_policy_auth_answer() once, see ..._auth_provider.h; cancel:
     * that is not awaited any more.
     */
    void             (*ask_relay)(void *data, ngx_mail_policy_auth_t *auth);
    void             (*cancel_relay)(void *data);
    void              *data;
} ngx_mail_policy_auth_client_t;


/*
 * create: method is one bit; the client's session must have that method, see
 * ngx_mail_policy_auth_methods().  NULL: no memory.
 *
 * respond: what the client sent, decoded; NULL: AUTH came without an initial
 * response.  message may be wiped by the caller when respond() returns.
 */
ngx_mail_policy_auth_t *ngx_mail_policy_auth_create(
    ngx_mail_policy_auth_conf_t *conf, ngx_uint_t method,
    ngx_mail_policy_auth_client_t *client, ngx_log_t *log,
    ngx_mail_policy_auth_pt handler, void *data);
void ngx_mail_policy_auth_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
void ngx_mail_policy_auth_admit(ngx_mail_policy_auth_t *auth);
void ngx_mail_policy_auth_cancel(ngx_mail_policy_auth_t *auth);

/* 1 while a service is asked, which ends by itself, or has just answered */
ngx_uint_t ngx_mail_policy_auth_waits(ngx_mail_policy_auth_t *auth);

/* the bit of a name as in AUTH, any case; 0: unknown */
ngx_uint_t ngx_mail_policy_auth_method(u_char *name, size_t len);

/* names of a mask as EHLO has them, with a space in front of each */
u_char *ngx_mail_policy_auth_names(u_char *p, ngx_uint_t methods);
#define NGX_MAIL_POLICY_AUTH_NAMES  128

/* 1 if EXTERNAL can be offered: the client's certificate is verified */
ngx_uint_t ngx_mail_policy_mech_external_verified(ngx_connection_t *c);

/* the name of one bit as in $sasl_method, "SCRAM-SHA-256" */
ngx_str_t *ngx_mail_policy_auth_name(ngx_uint_t method);


/*
 * The directive "policy_auth off | provider...": value[1..] of cf->args;
 * off gives an object with no providers.  NULL on error, logged.
 */
ngx_mail_policy_auth_conf_t *ngx_mail_policy_auth_conf(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store);

/* the directive "policy_auth_jwt name keys=path ..." */
char *ngx_mail_policy_auth_jwt_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* 1 if "off" */
ngx_uint_t ngx_mail_policy_auth_off(ngx_mail_policy_auth_conf_t *conf);

/* 1 if one of the providers names relays: $auth_relay is the usual route */
ngx_uint_t ngx_mail_policy_auth_routes(ngx_mail_policy_auth_conf_t *conf);

/* 1 if one of them may name a password for relays that the client did not */
ngx_uint_t ngx_mail_policy_auth_passwords(ngx_mail_policy_auth_conf_t *conf);

/* 1 if one of the providers has a relay decide, see ask_relay above */
ngx_uint_t ngx_mail_policy_auth_asks(ngx_mail_policy_auth_conf_t *conf);

/* the mechanisms that one of the providers can serve */
ngx_uint_t ngx_mail_policy_auth_served(ngx_mail_policy_auth_conf_t *conf);

/* checks at the end of mail{} (redis provider without policy_redis ...) */
ngx_int_t ngx_mail_policy_auth_conf_init(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf);

/* the worker exits: connections to services are closed */
void ngx_mail_policy_auth_exit(ngx_mail_policy_auth_conf_t *conf);


#endif /* NGX_MAIL_POLICY_AUTH_H */
