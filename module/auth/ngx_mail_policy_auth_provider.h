
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Between an auth, its mechanism and its providers.
 *
 * There are three kinds of providers:
 *
 *   records    knows logins and their hashes, and verifies nothing (file,
 *              redis):   find -> record(NGX_OK | NGX_DECLINED | NGX_ERROR)
 *   verifier   is given login and password, token, response, and says yes or
 *              no (http, jwt, relay, dovecot):   find -> answer(...)
 *   dialogue   speaks the mechanism itself, we pass its messages on
 *              (dovecot):   proceed -> challenge() | answer(...)
 *
 *   NGX_OK         knows the login; it is right
 *   NGX_DECLINED   does not know it, or it is wrong: the next is asked
 *   NGX_ERROR      cannot tell now
 *
 * A provider may say so from within the call.  It is the last thing that it
 * does with an auth, until it is called again.  cancel: it must not say
 * anything any more.
 */


#ifndef NGX_MAIL_POLICY_AUTH_PROVIDER_H
#define NGX_MAIL_POLICY_AUTH_PROVIDER_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_crypt.h"


/* for messages: what mpol_senders_check() lets in */
#define NGX_MAIL_POLICY_SENDERS_BOUNDS  "256 in 8192 octets"


typedef struct ngx_mail_policy_mech_s  ngx_mail_policy_mech_t;


/* what a provider of records knows of a login; gone when the call returns */
typedef struct {
    ngx_str_t       hash;       /* checked; of len 0: none is there */
    ngx_str_t       senders;    /* checked */
    ngx_str_t       relay;
    ngx_str_t       message;    /* of a suspended login; clean text */
    unsigned        suspended:1;
} ngx_mail_policy_auth_record_t;


typedef struct {
    ngx_str_t       name;       /* as in the configuration */
    void           *data;
    ngx_uint_t      methods;    /* that it can serve */

    /* records and verifiers: asked for auth->login */
    void          (*find)(ngx_mail_policy_auth_t *auth, void *data);

    /*
     * dialogue: message as in ngx_mail_policy_auth_respond().  Of a provider
     * that has both, methods in "dialogues" go this way.
     */
    void          (*proceed)(ngx_mail_policy_auth_t *auth, void *data,
                             ngx_str_t *message);
    ngx_uint_t      dialogues;

    /* NULL if nothing is ever waited for; called only while it is waited */
    void          (*cancel)(ngx_mail_policy_auth_t *auth, void *data);

    /*
     * records: a hash that costs what those of its logins cost with the
     * method of the auth; never matches
     */
    void          (*dummy)(ngx_mail_policy_auth_t *auth, void *data,
                           ngx_str_t *hash);

    /* end of mail{}, and of the worker; each may be NULL */
    ngx_int_t     (*init)(ngx_conf_t *cf, void *data);
    void          (*exit)(void *data);

    unsigned        records:1;  /* kind: records */
    unsigned        redis:1;    /* needs policy_redis */
    unsigned        routes:1;   /* knows a relay for each login */
    unsigned        passwords:1;    /* may know one for relays, whatever the
                                       client has said */
    unsigned        asks:1;     /* a relay */
} ngx_mail_policy_auth_provider_t;


struct ngx_mail_policy_mech_s {

    /* what respond() and admit() do; they say challenge, ask, done */
    void          (*respond)(ngx_mail_policy_auth_t *auth,
                             ngx_str_t *message);
    void          (*admit)(ngx_mail_policy_auth_t *auth);

    /* a record of auth->login */
    void          (*record)(ngx_mail_policy_auth_t *auth,
                            ngx_mail_policy_auth_record_t *record);

    /* no provider of records knows auth->login */
    void          (*unknown)(ngx_mail_policy_auth_t *auth);

    /* what the verifiers say in the end: auth->told has rc; NULL: done() */
    void          (*answered)(ngx_mail_policy_auth_t *auth, ngx_int_t rc);

    /* wipes auth->ctx, cancels threads; may be NULL */
    void          (*cleanup)(ngx_mail_policy_auth_t *auth);
};


struct ngx_mail_policy_auth_conf_s {
    ngx_array_t                       providers;
    ngx_uint_t                        methods;  /* that they serve */
    ngx_thread_pool_t                *thread_pool;
    ngx_mail_policy_store_t          *store;

    u_char                           *file;
    ngx_uint_t                        line;

    /* one of them does */
    unsigned                          routes:1;
    unsigned                          passwords:1;
    unsigned                          asks:1;
};


struct ngx_mail_policy_auth_s {
    ngx_pool_t                       *pool;
    ngx_mail_policy_auth_conf_t      *conf;
    ngx_mail_policy_mech_t           *mech;
    ngx_uint_t                        method;   /* its bit */
    void                             *ctx;      /* the mechanism's */
    ngx_mail_policy_auth_client_t    *client;

    ngx_str_t                         login;
    ngx_str_t                         password; /* or token, or what answers a
                                                   challenge; wiped */
    ngx_str_t                         authzid;  /* that the client asked for;
                                                   empty: none */
    ngx_str_t                         salt;     /* CRAM-MD5: our challenge */
    uint32_t                          point;    /* of login, for dummy() */

    ngx_mail_policy_auth_told_t       told;     /* what is to be said; what
                                                   its texts point to is on
                                                   the pool */

    ngx_log_t                        *log;
    ngx_mail_policy_auth_pt           handler;
    void                             *data;

    ngx_uint_t                        current;  /* provider's number */
    ngx_mail_policy_auth_provider_t  *provider;
    void                             *wait;     /* the provider's own, not
                                                   NULL while it is waited
                                                   for */
    ngx_mail_policy_crypt_t          *crypt;    /* while one is under way */
    ngx_str_t                         message;  /* of a suspended login */
    ngx_str_t                         refusal;  /* reply of a provider that
                                                   said no */

    ngx_mail_policy_auth_event_e      what;
    ngx_event_t                       event;

    unsigned                          refuse:1; /* whatever the password */
    unsigned                          again:1;  /* a service is asked again,
                                                   which may have no end */
    unsigned                          suspended:1;  /* the same, but who has
                                                   the password is told */
};


/* providers say */

void ngx_mail_policy_auth_record(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    ngx_mail_policy_auth_record_t *record);

/*
 * NGX_OK: auth->told has what there is to say (login, senders, relay,
 * password); login empty: it is auth->login.  NGX_DECLINED: told.reply and
 * told.wait, if the provider has a reply of its own.
 */
void ngx_mail_policy_auth_answer(ngx_mail_policy_auth_t *auth, ngx_int_t rc);


/* mechanisms, and providers of dialogues, say */

/* goes to the client; copied */
void ngx_mail_policy_auth_challenge(ngx_mail_policy_auth_t *auth, u_char *data,
    size_t len);

/*
 * Sets login and password, which are copied, and says ASK.  A login that is
 * not valid (mpol_identity_valid()) is DONE, NGX_DECLINED.
 */
void ngx_mail_policy_auth_ask(ngx_mail_policy_auth_t *auth, ngx_str_t *login,
    ngx_str_t *password);

/* asks providers, from the first one on; as mech->admit of most */
void ngx_mail_policy_auth_find(ngx_mail_policy_auth_t *auth);

/* asks the next one: what this one knows is of no use to the mechanism */
void ngx_mail_policy_auth_next(ngx_mail_policy_auth_t *auth);

/*
 * A hash for a login that nobody knows, of one of the providers, always the
 * same one for the same login.  It never matches.  NGX_OK; NGX_DECLINED: no
 * provider of records serves the method.
 */
ngx_int_t ngx_mail_policy_auth_dummy(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);

/*
 * Who proved to be auth->login is in: done() with NGX_OK, or with what is
 * to be said of a suspended login.
 */
void ngx_mail_policy_auth_proved(ngx_mail_policy_auth_t *auth);

/* HMAC-SHA256 of a text under what clients do not know, label tells uses */
ngx_int_t ngx_mail_policy_auth_hmac(ngx_mail_policy_auth_t *auth,
    const char *label, ngx_str_t *text, u_char *digest);

/* the end; reply: as in told, a constant, or NULL */
void ngx_mail_policy_auth_done(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    const char *reply);


extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_plain;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_login;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_cram_md5;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_scram;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_xoauth2;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_oauthbearer;
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_external;

/* instead of one of these, where a provider is to speak it */
extern ngx_mail_policy_mech_t  ngx_mail_policy_mech_dialogue;


/*
 * Providers, of value in "policy_auth"; each sets its part of provider.
 * NGX_OK; NGX_ERROR, logged.  Where a path or URL belongs to it, value is
 * the whole word ("file:/path").
 */
ngx_int_t ngx_mail_policy_auth_file(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider);
ngx_int_t ngx_mail_policy_auth_redis(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store,
    ngx_mail_policy_auth_provider_t *provider);
ngx_int_t ngx_mail_policy_auth_dovecot(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider);
ngx_int_t ngx_mail_policy_auth_http(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider);
ngx_int_t ngx_mail_policy_auth_jwt(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider);
ngx_int_t ngx_mail_policy_auth_relay(ngx_conf_t *cf,
    ngx_mail_policy_auth_provider_t *provider);


#endif /* NGX_MAIL_POLICY_AUTH_PROVIDER_H */
