
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Between the files that log in to a relay; the rest of the module goes by
 * ngx_mail_policy_relay.h.
 */


#ifndef NGX_MAIL_POLICY_RELAY_AUTH_H
#define NGX_MAIL_POLICY_RELAY_AUTH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_relay.h"


#define NGX_MAIL_POLICY_AUTH_NONCE    24        /* octets of base64 */
#define NGX_MAIL_POLICY_AUTH_MESSAGE  2048      /* of one, decoded */


typedef enum {
    NGX_MAIL_POLICY_AUTH_SENT = 0,              /* 235 is to come */
    NGX_MAIL_POLICY_AUTH_INITIAL,               /* 334, then the first one */
    NGX_MAIL_POLICY_AUTH_NAME,                  /* ... 334, then the name */
    NGX_MAIL_POLICY_AUTH_SECRET,
    NGX_MAIL_POLICY_AUTH_CHALLENGE,
    NGX_MAIL_POLICY_AUTH_TOKEN,                 /* 235, or 334 and why not */
    NGX_MAIL_POLICY_AUTH_REFUSED,               /* anything but 235 */
    NGX_MAIL_POLICY_AUTH_FIRST,                 /* server-first */
    NGX_MAIL_POLICY_AUTH_KEYS,                  /* a thread is at it */
    NGX_MAIL_POLICY_AUTH_FINAL                  /* server-final */
} ngx_mail_policy_auth_step_e;


typedef struct {
    unsigned                       mechanism;   /* MPOL_AUTH_... */
    char                          *name;
    ngx_mail_policy_auth_step_e    step;

    /* says the first message by ..._initial(); may be called twice */
    ngx_int_t                    (*initial)(ngx_mail_policy_relay_auth_t *a);
} ngx_mail_policy_auth_mechanism_t;


struct ngx_mail_policy_relay_auth_s {
    ngx_mail_policy_relay_t       *relay;
    ngx_str_t                      user;
    ngx_str_t                      password;    /* or token */
    unsigned                       token;       /* its mechanism, or 0 */
    ngx_mail_policy_scram_cache_t *cache;       /* of our own ones */

    ngx_mail_policy_auth_mechanism_t *mechanism;
    ngx_mail_policy_auth_step_e    step;
    ngx_uint_t                     begun;       /* AUTH was said */

    ngx_mail_policy_scram_t       *scram;
    u_char                         signature[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char                         nonce[NGX_MAIL_POLICY_AUTH_NONCE + 1];

    /* bare "," server-first "," client-final-without-proof */

    size_t                         first_len;   /* of bare and its comma */
    size_t                         without;     /* where that begins */
    size_t                         messages_len;
    u_char                         messages[3 * NGX_MAIL_POLICY_AUTH_MESSAGE];
};


/* all return NGX_OK, or NGX_ERROR: no memory, or the message is bad */

/* "AUTH name message", or, where that is too long a command, one by one */
ngx_int_t ngx_mail_policy_relay_auth_initial(ngx_mail_policy_relay_auth_t *a,
    u_char *data, size_t len);

/* a line of base64 */
ngx_int_t ngx_mail_policy_relay_auth_say(ngx_mail_policy_relay_auth_t *a,
    u_char *data, size_t len);

/* NGX_ERROR; what: for the log */
ngx_int_t ngx_mail_policy_relay_auth_bad(ngx_mail_policy_relay_auth_t *a,
    char *what);

/* SCRAM-SHA-256: begins; what the relay answers */
ngx_int_t ngx_mail_policy_relay_auth_scram(ngx_mail_policy_relay_auth_t *a);
ngx_int_t ngx_mail_policy_relay_auth_scram_first(
    ngx_mail_policy_relay_auth_t *a, ngx_str_t *message);
ngx_int_t ngx_mail_policy_relay_auth_scram_final(
    ngx_mail_policy_relay_auth_t *a, ngx_str_t *message);


#endif /* NGX_MAIL_POLICY_RELAY_AUTH_H */
