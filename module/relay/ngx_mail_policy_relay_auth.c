
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * AUTH to a relay, RFC 4954: with credentials of ours (proxy_auth, of the
 * group or of the server), or those that the client has given
 * (proxy_smtp_auth, "policy_auth relay").
 *
 *     PLAIN            AUTH PLAIN response                  -> 235
 *     LOGIN            AUTH LOGIN -> 334 name -> 334 password -> 235
 *     CRAM-MD5         AUTH CRAM-MD5 -> 334 response        -> 235
 *     SCRAM-SHA-256    ..._auth_scram.c
 *     XOAUTH2          AUTH XOAUTH2 response                -> 235
 *                                          334 why -> empty -> 535
 *     OAUTHBEARER      the same, and ^A for the empty one (RFC 7628)
 *
 * The strongest one is taken that the relay offers, for a client's token the
 * one that it came with; what tells a password or a token by TLS only, unless
 * that is allowed.  A relay that does not let us in is not used; what it has
 * said goes to nobody but the log.
 *
 * No events arrive here; replies come from the set-up.
 * ngx_mail_policy_relay_auth_free() cancels and wipes.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_relay_auth.h"
#include "ngx_mail_policy_upstream.h"


/* RFC 5321, section 4.5.3.1.4 */
#define NGX_MAIL_POLICY_AUTH_COMMAND  512

#define NGX_MAIL_POLICY_AUTH_BEARER   "auth=Bearer "

#define NGX_MAIL_POLICY_AUTH_TOKENS   (MPOL_AUTH_XOAUTH2|MPOL_AUTH_OAUTHBEARER)


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
static ngx_int_t ngx_mail_policy_relay_auth_xoauth2(
    ngx_mail_policy_relay_auth_t *a);
static ngx_int_t ngx_mail_policy_relay_auth_oauthbearer(
    ngx_mail_policy_relay_auth_t *a);
static ngx_int_t ngx_mail_policy_relay_auth_token(
    ngx_mail_policy_relay_auth_t *a, u_char *start, u_char *p);
static unsigned ngx_mail_policy_relay_auth_token_method(ngx_str_t *method);


/* the strongest first */

static ngx_mail_policy_auth_mechanism_t  ngx_mail_policy_auth_mechanisms[] = {
    { MPOL_AUTH_SCRAM_SHA_256, "SCRAM-SHA-256", NGX_MAIL_POLICY_AUTH_FIRST,
      ngx_mail_policy_relay_auth_scram },
    { MPOL_AUTH_CRAM_MD5, "CRAM-MD5", NGX_MAIL_POLICY_AUTH_CHALLENGE, NULL },
    { MPOL_AUTH_PLAIN, "PLAIN", NGX_MAIL_POLICY_AUTH_SENT,
      ngx_mail_policy_relay_auth_plain },
    { MPOL_AUTH_LOGIN, "LOGIN", NGX_MAIL_POLICY_AUTH_NAME, NULL },
    { MPOL_AUTH_OAUTHBEARER, "OAUTHBEARER", NGX_MAIL_POLICY_AUTH_TOKEN,
      ngx_mail_policy_relay_auth_oauthbearer },
    { MPOL_AUTH_XOAUTH2, "XOAUTH2", NGX_MAIL_POLICY_AUTH_TOKEN,
      ngx_mail_policy_relay_auth_xoauth2 },
    { 0, NULL, NGX_MAIL_POLICY_AUTH_SENT, NULL }
};


ngx_uint_t
ngx_mail_policy_relay_auth_needed(ngx_mail_policy_relay_t *relay)
{
    return relay->asking
           || relay->peer->upstream->login != NULL
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

    if (login && !relay->asking) {
        a->user = login->user;
        a->password = login->password;
        a->cache = login->cache;

    } else {
        relay->bound = 1;
        relay->as_client = 1;
        a->user = relay->envelope->sasl_username;
        a->password = relay->envelope->sasl_password;
        a->token = ngx_mail_policy_relay_auth_token_method(
                                             &relay->envelope->sasl_method);
    }

    relay->stage = NGX_MAIL_POLICY_RELAY_AUTH;
    relay->log.action = "logging in to relay";

    if (a->password.len == 0) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_REFUSED,
                                      "client has said no password to log in "
                                      "with");
        return NGX_OK;
    }

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

    usable = relay->ehlo.auth
             & (a->token ? a->token : relay->conf->auth_methods);

    if (relay->pc.connection->ssl == NULL && !relay->conf->auth_plaintext) {
        usable &= ~(MPOL_AUTH_PLAIN|MPOL_AUTH_LOGIN
                    |NGX_MAIL_POLICY_AUTH_TOKENS);
    }

    /* its keys are worth their while for a login that comes again */

    if (a->cache == NULL && (usable & ~MPOL_AUTH_SCRAM_SHA_256)) {
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
    u_char  *p;

    a->mechanism = m;

    if (m->initial) {
        return m->initial(a);
    }

    p = ngx_mail_policy_relay_reserve(a->relay, sizeof("AUTH " CRLF) - 1
                                                + ngx_strlen(m->name));
    if (p == NULL) {
        return NGX_ERROR;
    }

    a->step = m->step;

    ngx_mail_policy_relay_written(a->relay,
                             ngx_sprintf(p, "AUTH %s" CRLF, m->name) - p);

    return NGX_OK;
}


/*
 * RFC 4954, section 4: AUTH with all that it has is not longer than any other
 * command; a response may be.
 */

ngx_int_t
ngx_mail_policy_relay_auth_initial(ngx_mail_policy_relay_auth_t *a,
    u_char *data, size_t len)
{
    u_char      *p;
    size_t       n;
    ngx_uint_t   whole;

    n = sizeof("AUTH  " CRLF) - 1 + ngx_strlen(a->mechanism->name);

    if (!a->begun) {
        a->begun = 1;
        whole = (n + ngx_base64_encoded_length(len)
                 <= NGX_MAIL_POLICY_AUTH_COMMAND);

        p = ngx_mail_policy_relay_reserve(a->relay, n);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_mail_policy_relay_written(a->relay,
                                      ngx_sprintf(p, "AUTH %s%s",
                                                  a->mechanism->name,
                                                  whole ? " " : CRLF)
                                      - p);
        if (!whole) {
            a->step = NGX_MAIL_POLICY_AUTH_INITIAL;
            return NGX_OK;
        }
    }

    a->step = a->mechanism->step;

    return ngx_mail_policy_relay_auth_say(a, data, len);
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
        && a->step != NGX_MAIL_POLICY_AUTH_REFUSED
        && a->step != NGX_MAIL_POLICY_AUTH_KEYS)
    {
        return ngx_mail_policy_relay_auth_continue(a, reply);
    }

    rc = (reply->code == 235
          && (a->step == NGX_MAIL_POLICY_AUTH_SENT
              || a->step == NGX_MAIL_POLICY_AUTH_TOKEN))
         ? NGX_DONE : NGX_ERROR;

    if (rc == NGX_ERROR) {
        relay->declined = (relay->asking && reply->code >= 500);

        ngx_log_error((relay->declined ? NGX_LOG_INFO : NGX_LOG_ERR),
                      &relay->log, 0,
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

    switch (a->step) {

    case NGX_MAIL_POLICY_AUTH_INITIAL:
        return a->mechanism->initial(a);

    case NGX_MAIL_POLICY_AUTH_NAME:
        a->step = NGX_MAIL_POLICY_AUTH_SECRET;
        return ngx_mail_policy_relay_auth_say(a, a->user.data, a->user.len);

    case NGX_MAIL_POLICY_AUTH_SECRET:
        a->step = NGX_MAIL_POLICY_AUTH_SENT;
        return ngx_mail_policy_relay_auth_say(a, a->password.data,
                                              a->password.len);

    case NGX_MAIL_POLICY_AUTH_TOKEN:

        /* RFC 7628, section 3.2.3: why not, which has to be answered */

        a->step = NGX_MAIL_POLICY_AUTH_REFUSED;
        return ngx_mail_policy_relay_auth_say(a, (u_char *) "\1",
                                     a->token == MPOL_AUTH_OAUTHBEARER);

    default:
        break;
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
        return ngx_mail_policy_relay_auth_scram_first(a, &message);

    default:
        return ngx_mail_policy_relay_auth_scram_final(a, &message);
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

    rc = ngx_mail_policy_relay_auth_initial(a, buf, p - buf);

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


static unsigned
ngx_mail_policy_relay_auth_token_method(ngx_str_t *method)
{
    ngx_mail_policy_auth_mechanism_t  *m;

    for (m = ngx_mail_policy_auth_mechanisms; m->name; m++) {

        if ((m->mechanism & NGX_MAIL_POLICY_AUTH_TOKENS)
            && method->len == ngx_strlen(m->name)
            && ngx_memcmp(method->data, m->name, method->len) == 0)
        {
            return m->mechanism;
        }
    }

    return 0;
}


static ngx_int_t
ngx_mail_policy_relay_auth_xoauth2(ngx_mail_policy_relay_auth_t *a)
{
    u_char  *p, *start;

    start = ngx_alloc(sizeof("user=\1" NGX_MAIL_POLICY_AUTH_BEARER "\1\1")
                      + a->user.len + a->password.len, &a->relay->log);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_sprintf(start, "user=%V\1", &a->user);

    return ngx_mail_policy_relay_auth_token(a, start, p);
}


/* RFC 7628, section 3.1; the name as in SCRAM */

static ngx_int_t
ngx_mail_policy_relay_auth_oauthbearer(ngx_mail_policy_relay_auth_t *a)
{
    u_char  *p, *start;
    size_t   i;

    start = ngx_alloc(sizeof("n,a=,\1" NGX_MAIL_POLICY_AUTH_BEARER "\1\1")
                      + 3 * a->user.len + a->password.len, &a->relay->log);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(start, "n,a=", 4);

    for (i = 0; i < a->user.len; i++) {

        if (a->user.data[i] == ',' || a->user.data[i] == '=') {
            p = ngx_sprintf(p, "=%02Xd", (unsigned) a->user.data[i]);
            continue;
        }

        *p++ = a->user.data[i];
    }

    p = ngx_cpymem(p, ",\1", 2);

    return ngx_mail_policy_relay_auth_token(a, start, p);
}


/* start, on the heap, has room for what comes in both */

static ngx_int_t
ngx_mail_policy_relay_auth_token(ngx_mail_policy_relay_auth_t *a,
    u_char *start, u_char *p)
{
    ngx_int_t  rc;

    p = ngx_cpymem(p, NGX_MAIL_POLICY_AUTH_BEARER,
                   sizeof(NGX_MAIL_POLICY_AUTH_BEARER) - 1);
    p = ngx_cpymem(p, a->password.data, a->password.len);
    p = ngx_cpymem(p, "\1\1", 2);

    rc = ngx_mail_policy_relay_auth_initial(a, start, p - start);

    ngx_explicit_memzero(start, p - start);
    ngx_free(start);

    return rc;
}


ngx_int_t
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


ngx_int_t
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
