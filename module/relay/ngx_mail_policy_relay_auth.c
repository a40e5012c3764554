
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * AUTH to a relay, RFC 4954: with credentials of ours (proxy_auth, of the
 * group or of the server), or those that the client has given
 * (proxy_smtp_auth).
 *
 *     PLAIN            AUTH PLAIN response                  -> 235
 *     LOGIN            AUTH LOGIN -> 334 name -> 334 password -> 235
 *     CRAM-MD5         AUTH CRAM-MD5 -> 334 response        -> 235
 *     SCRAM-SHA-256    AUTH SCRAM-SHA-256 client-first -> 334 server-first
 *                          -> (keys, perhaps from a thread) client-final
 *                          -> 334 server-final, verified -> 235
 *
 * The strongest one is taken that the relay offers; PLAIN and LOGIN by TLS
 * only, unless that is allowed.  A relay that does not let us in is not used;
 * what it has said goes to nobody but the log.
 *
 * Events: the end of a thread's work, through ngx_mail_policy_scram_start();
 * replies come from the set-up.  ngx_mail_policy_relay_auth_free() cancels
 * and wipes.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_relay.h"
#include "ngx_mail_policy_upstream.h"


#define NGX_MAIL_POLICY_AUTH_NONCE    24        /* octets of base64 */
#define NGX_MAIL_POLICY_AUTH_MESSAGE  2048      /* of one, decoded */


typedef enum {
    NGX_MAIL_POLICY_AUTH_SENT = 0,              /* 235 is to come */
    NGX_MAIL_POLICY_AUTH_NAME,                  /* ... 334, then the name */
    NGX_MAIL_POLICY_AUTH_SECRET,
    NGX_MAIL_POLICY_AUTH_CHALLENGE,
    NGX_MAIL_POLICY_AUTH_FIRST,                 /* server-first */
    NGX_MAIL_POLICY_AUTH_KEYS,                  /* a thread is at it */
    NGX_MAIL_POLICY_AUTH_FINAL                  /* server-final */
} ngx_mail_policy_auth_step_e;


struct ngx_mail_policy_relay_auth_s {
    ngx_mail_policy_relay_t       *relay;
    ngx_str_t                      user;
    ngx_str_t                      password;
    ngx_mail_policy_scram_cache_t *cache;       /* of our own ones */
    ngx_mail_policy_auth_step_e    step;

    ngx_mail_policy_scram_t       *scram;
    u_char                         signature[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char                         nonce[NGX_MAIL_POLICY_AUTH_NONCE + 1];

    /* bare "," server-first "," client-final-without-proof */

    size_t                         first_len;   /* of bare and its comma */
    size_t                         without;     /* where that begins */
    size_t                         messages_len;
    u_char                         messages[3 * NGX_MAIL_POLICY_AUTH_MESSAGE];
};


typedef struct {
    unsigned                       mechanism;   /* MPOL_AUTH_... */
    char                          *name;
    ngx_mail_policy_auth_step_e    step;
    ngx_int_t                    (*initial)(ngx_mail_policy_relay_auth_t *a);
} ngx_mail_policy_auth_mechanism_t;


static ngx_mail_policy_auth_mechanism_t *ngx_mail_policy_relay_auth_choose(
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_auth_t *a);
static ngx_int_t ngx_mail_policy_relay_auth_begin(
    ngx_mail_policy_relay_auth_t *a, ngx_mail_policy_auth_mechanism_t *m);
static ngx_int_t ngx_mail_policy_relay_auth_continue(
    ngx_mail_policy_relay_auth_t *a, mpol_reply_t *reply);
static ngx_int_t ngx_mail_policy_relay_auth_plain(
    ngx_mail_policy_relay_auth_t *a);
static ngx_int_t ngx_mail_policy_relay_auth_cram_md5(
    ngx_mail_policy_relay_auth_t *a, ngx_str_t *challenge);
static ngx_int_t ngx_mail_policy_relay_auth_scram(
    ngx_mail_policy_relay_auth_t *a);
static ngx_int_t ngx_mail_policy_relay_auth_server_first(
    ngx_mail_policy_relay_auth_t *a, ngx_str_t *message);
static void ngx_mail_policy_relay_auth_keys(void *data,
    ngx_mail_policy_scram_keys_t *keys);
static ngx_int_t ngx_mail_policy_relay_auth_client_final(
    ngx_mail_policy_relay_auth_t *a, ngx_mail_policy_scram_keys_t *keys);
static ngx_int_t ngx_mail_policy_relay_auth_server_final(
    ngx_mail_policy_relay_auth_t *a, ngx_str_t *message);
static ngx_int_t ngx_mail_policy_relay_auth_say(
    ngx_mail_policy_relay_auth_t *a, u_char *data, size_t len);
static ngx_int_t ngx_mail_policy_relay_auth_bad(
    ngx_mail_policy_relay_auth_t *a, char *what);


/* the strongest first */

static ngx_mail_policy_auth_mechanism_t  ngx_mail_policy_auth_mechanisms[] = {
    { MPOL_AUTH_SCRAM_SHA_256, "SCRAM-SHA-256", NGX_MAIL_POLICY_AUTH_FIRST,
      ngx_mail_policy_relay_auth_scram },
    { MPOL_AUTH_CRAM_MD5, "CRAM-MD5", NGX_MAIL_POLICY_AUTH_CHALLENGE, NULL },
    { MPOL_AUTH_PLAIN, "PLAIN", NGX_MAIL_POLICY_AUTH_SENT,
      ngx_mail_policy_relay_auth_plain },
    { MPOL_AUTH_LOGIN, "LOGIN", NGX_MAIL_POLICY_AUTH_NAME, NULL },
    { 0, NULL, NGX_MAIL_POLICY_AUTH_SENT, NULL }
};


ngx_uint_t
ngx_mail_policy_relay_auth_needed(ngx_mail_policy_relay_t *relay)
{
    return relay->peer->upstream->login != NULL
           || relay->conf->login != NULL
           || (relay->conf->client_login && relay->envelope
               && relay->envelope->sasl_username.len);
}


ngx_int_t
ngx_mail_policy_relay_auth(ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_relay_auth_t      *a;
    ngx_mail_policy_relay_login_t     *login;
    ngx_mail_policy_auth_mechanism_t  *m;

    ngx_mail_policy_relay_auth_free(relay);

    a = ngx_calloc(sizeof(ngx_mail_policy_relay_auth_t), &relay->log);
    if (a == NULL) {
        return NGX_ERROR;
    }

    relay->auth = a;
    a->relay = relay;

    login = relay->peer->upstream->login;

    if (login == NULL) {
        login = relay->conf->login;
    }

    if (login) {
        a->user = login->user;
        a->password = login->password;
        a->cache = login->cache;

    } else {
        relay->bound = 1;
        a->user = relay->envelope->sasl_username;
        a->password = relay->envelope->sasl_password;
    }

    relay->stage = NGX_MAIL_POLICY_RELAY_AUTH;
    relay->log.action = "logging in to relay";

    m = ngx_mail_policy_relay_auth_choose(relay, a);

    if (m == NULL) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_REFUSED,
                                      "relay offers no way to log in that may "
                                      "be used");
        return NGX_OK;
    }

    return ngx_mail_policy_relay_auth_begin(a, m);
}


static ngx_mail_policy_auth_mechanism_t *
ngx_mail_policy_relay_auth_choose(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_relay_auth_t *a)
{
    unsigned                           usable;
    ngx_mail_policy_auth_mechanism_t  *m;

    usable = relay->ehlo.auth & relay->conf->auth_methods;

    if (relay->pc.connection->ssl == NULL && !relay->conf->auth_plaintext) {
        usable &= ~(MPOL_AUTH_PLAIN|MPOL_AUTH_LOGIN);
    }

    /* its keys are worth their while for a login that comes again */

    if (a->cache == NULL) {
        usable &= ~MPOL_AUTH_SCRAM_SHA_256;
    }

    for (m = ngx_mail_policy_auth_mechanisms; m->name; m++) {
        if (usable & m->mechanism) {
            return m;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_mail_policy_relay_auth_begin(ngx_mail_policy_relay_auth_t *a,
    ngx_mail_policy_auth_mechanism_t *m)
{
    u_char  *p, *last;

    p = ngx_mail_policy_relay_reserve(a->relay, sizeof("AUTH " CRLF) - 1
                                                + ngx_strlen(m->name) + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    a->step = m->step;

    last = ngx_sprintf(p, "AUTH %s%s", m->name, m->initial ? " " : CRLF);
    ngx_mail_policy_relay_written(a->relay, last - p);

    return m->initial ? m->initial(a) : NGX_OK;
}


/* NGX_OK go on, NGX_DONE we are in, NGX_ERROR we are not */

ngx_int_t
ngx_mail_policy_relay_auth_reply(ngx_mail_policy_relay_t *relay,
    mpol_reply_t *reply)
{
    ngx_int_t                      rc;
    ngx_mail_policy_relay_auth_t  *a;

    a = relay->auth;

    if (reply->code == 334 && a->step != NGX_MAIL_POLICY_AUTH_SENT
        && a->step != NGX_MAIL_POLICY_AUTH_KEYS)
    {
        return ngx_mail_policy_relay_auth_continue(a, reply);
    }

    rc = (reply->code == 235 && a->step == NGX_MAIL_POLICY_AUTH_SENT)
         ? NGX_DONE : NGX_ERROR;

    if (rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, &relay->log, 0,
                      "relay does not let \"%V\" log in", &a->user);
    }

    ngx_mail_policy_relay_auth_free(relay);

    return rc;
}


static ngx_int_t
ngx_mail_policy_relay_auth_continue(ngx_mail_policy_relay_auth_t *a,
    mpol_reply_t *reply)
{
    size_t     n;
    ngx_str_t  message;
    u_char     text[NGX_MAIL_POLICY_AUTH_MESSAGE];

    if (a->step == NGX_MAIL_POLICY_AUTH_NAME) {
        a->step = NGX_MAIL_POLICY_AUTH_SECRET;
        return ngx_mail_policy_relay_auth_say(a, a->user.data, a->user.len);
    }

    if (a->step == NGX_MAIL_POLICY_AUTH_SECRET) {
        a->step = NGX_MAIL_POLICY_AUTH_SENT;
        return ngx_mail_policy_relay_auth_say(a, a->password.data,
                                              a->password.len);
    }

    if (reply->text.len > NGX_MAIL_POLICY_AUTH_MESSAGE
        || mpol_base64_decode(reply->text.data, reply->text.len, text, &n)
           != MPOL_OK)
    {
        return ngx_mail_policy_relay_auth_bad(a, "challenge");
    }

    message.data = text;
    message.len = n;

    switch (a->step) {

    case NGX_MAIL_POLICY_AUTH_CHALLENGE:
        return ngx_mail_policy_relay_auth_cram_md5(a, &message);

    case NGX_MAIL_POLICY_AUTH_FIRST:
        return ngx_mail_policy_relay_auth_server_first(a, &message);

    default:
        return ngx_mail_policy_relay_auth_server_final(a, &message);
    }
}


/* RFC 4616 */

static ngx_int_t
ngx_mail_policy_relay_auth_plain(ngx_mail_policy_relay_auth_t *a)
{
    u_char     *p;
    ngx_int_t   rc;
    u_char      buf[2 + MPOL_IDENTITY_MAX + MPOL_PASSWORD_MAX];

    if (a->user.len > MPOL_IDENTITY_MAX
        || a->password.len > MPOL_PASSWORD_MAX)
    {
        return NGX_ERROR;
    }

    p = buf;
    *p++ = '\0';
    p = ngx_cpymem(p, a->user.data, a->user.len);
    *p++ = '\0';
    p = ngx_cpymem(p, a->password.data, a->password.len);

    rc = ngx_mail_policy_relay_auth_say(a, buf, p - buf);

    ngx_explicit_memzero(buf, sizeof(buf));

    return rc;
}


/* RFC 2195 */

static ngx_int_t
ngx_mail_policy_relay_auth_cram_md5(ngx_mail_policy_relay_auth_t *a,
    ngx_str_t *challenge)
{
    u_char    *p;
    unsigned   n;
    u_char     digest[EVP_MAX_MD_SIZE];
    u_char     buf[MPOL_IDENTITY_MAX + 1 + 2 * EVP_MAX_MD_SIZE];

    if (a->user.len > MPOL_IDENTITY_MAX
        || HMAC(EVP_md5(), a->password.data, a->password.len,
                challenge->data, challenge->len, digest, &n)
           == NULL)
    {
        /* MD5 may be forbidden */
        ERR_clear_error();

        return ngx_mail_policy_relay_auth_bad(a, "CRAM-MD5, which cannot be "
                                                 "used here");
    }

    p = ngx_cpymem(buf, a->user.data, a->user.len);
    *p++ = ' ';
    p = ngx_hex_dump(p, digest, n);

    a->step = NGX_MAIL_POLICY_AUTH_SENT;

    return ngx_mail_policy_relay_auth_say(a, buf, p - buf);
}


static ngx_int_t
ngx_mail_policy_relay_auth_scram(ngx_mail_policy_relay_auth_t *a)
{
    size_t     n;
    ngx_str_t  random, nonce;
    u_char     octets[NGX_MAIL_POLICY_AUTH_NONCE / 4 * 3];
    u_char     buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    if (RAND_bytes(octets, sizeof(octets)) != 1) {
        return NGX_ERROR;
    }

    random.data = octets;
    random.len = sizeof(octets);
    nonce.data = a->nonce;

    ngx_encode_base64(&nonce, &random);

    n = mpol_scram_bare(a->user.data, a->user.len, a->nonce,
                        NGX_MAIL_POLICY_AUTH_NONCE, a->messages,
                        NGX_MAIL_POLICY_AUTH_MESSAGE - sizeof(MPOL_SCRAM_GS2));
    if (n == 0) {
        return NGX_ERROR;
    }

    ngx_memcpy(buf, MPOL_SCRAM_GS2, sizeof(MPOL_SCRAM_GS2) - 1);
    ngx_memcpy(buf + sizeof(MPOL_SCRAM_GS2) - 1, a->messages, n);

    a->messages[n] = ',';
    a->first_len = n + 1;

    return ngx_mail_policy_relay_auth_say(a, buf,
                                          sizeof(MPOL_SCRAM_GS2) - 1 + n);
}


static ngx_int_t
ngx_mail_policy_relay_auth_server_first(ngx_mail_policy_relay_auth_t *a,
    ngx_str_t *message)
{
    u_char                        *p;
    size_t                         n;
    ngx_str_t                      salt;
    mpol_scram_server_t            server;
    ngx_mail_policy_relay_t       *relay;
    ngx_mail_policy_scram_keys_t  *keys;
    u_char                         buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    relay = a->relay;

    if (mpol_scram_server_first(message->data, message->len, a->nonce,
                                NGX_MAIL_POLICY_AUTH_NONCE, &server)
        != MPOL_OK
        || mpol_base64_decode(server.salt.data, server.salt.len, buf, &n)
           != MPOL_OK
        || n == 0 || n > NGX_MAIL_POLICY_SCRAM_SALT)
    {
        return ngx_mail_policy_relay_auth_bad(a, "SCRAM message");
    }

    /* too few give the password away, too many keep us busy */

    if (server.iterations < NGX_MAIL_POLICY_SCRAM_MIN
        || server.iterations > NGX_MAIL_POLICY_SCRAM_MAX)
    {
        return ngx_mail_policy_relay_auth_bad(a, "number of SCRAM iterations");
    }

    p = ngx_cpymem(a->messages + a->first_len, message->data, message->len);
    *p++ = ',';

    a->without = p - a->messages;

    p = ngx_cpymem(p, MPOL_SCRAM_BINDING, sizeof(MPOL_SCRAM_BINDING) - 1);
    p = ngx_cpymem(p, server.nonce.data, server.nonce.len);

    a->messages_len = p - a->messages;

    salt.data = buf;
    salt.len = n;

    keys = ngx_mail_policy_scram_find(a->cache, &salt, server.iterations);

    if (keys) {
        return ngx_mail_policy_relay_auth_client_final(a, keys);
    }

    a->step = NGX_MAIL_POLICY_AUTH_KEYS;
    a->scram = ngx_mail_policy_scram_start(a->cache, relay->conf->thread_pool,
                                           &a->password, &salt,
                                           server.iterations,
                                           ngx_mail_policy_relay_auth_keys, a);
    if (a->scram == NULL) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no thread to log in to the relay");
    }

    return NGX_OK;
}


static void
ngx_mail_policy_relay_auth_keys(void *data, ngx_mail_policy_scram_keys_t *keys)
{
    ngx_mail_policy_relay_auth_t *a = data;

    ngx_mail_policy_relay_t  *relay;

    relay = a->relay;
    a->scram = NULL;

    if (relay->failing) {
        return;
    }

    if (keys == NULL
        || ngx_mail_policy_relay_auth_client_final(a, keys) != NGX_OK)
    {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no memory to log in to the relay");
        return;
    }

    ngx_mail_policy_relay_timers(relay);
    ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
}


static ngx_int_t
ngx_mail_policy_relay_auth_client_final(ngx_mail_policy_relay_auth_t *a,
    ngx_mail_policy_scram_keys_t *keys)
{
    u_char     *p;
    ngx_str_t   messages, proof, text;
    u_char      hash[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char      buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    messages.data = a->messages;
    messages.len = a->messages_len;

    if (ngx_mail_policy_scram_sign(keys, &messages, hash, a->signature)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_cpymem(buf, a->messages + a->without,
                   a->messages_len - a->without);
    p = ngx_cpymem(p, ",p=", 3);

    proof.data = hash;
    proof.len = NGX_MAIL_POLICY_SCRAM_HASH;
    text.data = p;

    ngx_encode_base64(&text, &proof);

    a->step = NGX_MAIL_POLICY_AUTH_FINAL;

    return ngx_mail_policy_relay_auth_say(a, buf, p + text.len - buf);
}


/* who does not know the password cannot give it */

static ngx_int_t
ngx_mail_policy_relay_auth_server_final(ngx_mail_policy_relay_auth_t *a,
    ngx_str_t *message)
{
    size_t      n;
    u_char      buf[NGX_MAIL_POLICY_AUTH_MESSAGE];
    mpol_str_t  signature;

    if (mpol_scram_server_final(message->data, message->len, &signature)
        != MPOL_OK
        || mpol_base64_decode(signature.data, signature.len, buf, &n)
           != MPOL_OK
        || n != NGX_MAIL_POLICY_SCRAM_HASH
        || CRYPTO_memcmp(buf, a->signature, NGX_MAIL_POLICY_SCRAM_HASH) != 0)
    {
        return ngx_mail_policy_relay_auth_bad(a, "signature: it does not know "
                                                 "the password");
    }

    a->step = NGX_MAIL_POLICY_AUTH_SENT;

    return ngx_mail_policy_relay_auth_say(a, NULL, 0);
}


/* a line of base64 */

static ngx_int_t
ngx_mail_policy_relay_auth_say(ngx_mail_policy_relay_auth_t *a, u_char *data,
    size_t len)
{
    u_char     *p;
    ngx_str_t   from, to;

    p = ngx_mail_policy_relay_reserve(a->relay,
                                      ngx_base64_encoded_length(len) + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    a->relay->secret = 1;

    from.data = data;
    from.len = len;
    to.data = p;
    to.len = 0;

    if (len) {
        ngx_encode_base64(&to, &from);
    }

    ngx_memcpy(p + to.len, CRLF, 2);
    ngx_mail_policy_relay_written(a->relay, to.len + 2);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_relay_auth_bad(ngx_mail_policy_relay_auth_t *a, char *what)
{
    ngx_log_error(NGX_LOG_ERR, &a->relay->log, 0,
                  "relay sent an invalid %s", what);

    return NGX_ERROR;
}


void
ngx_mail_policy_relay_auth_free(ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_relay_auth_t  *a;

    a = relay->auth;

    if (a == NULL) {
        return;
    }

    if (a->scram) {
        ngx_mail_policy_scram_cancel(a->scram);
    }

    ngx_explicit_memzero(a, sizeof(ngx_mail_policy_relay_auth_t));
    ngx_free(a);

    relay->auth = NULL;
}
