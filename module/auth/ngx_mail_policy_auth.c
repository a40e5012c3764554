
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * One AUTH, between its mechanism and the providers of "policy_auth".
 *
 * Events: a provider's answer (at once, or from a store or a service), a
 * thread's verdict, and a posted event of our own, from which alone the
 * handler is called.
 *
 *     create -> respond, admit: the mechanism's
 *
 *     find -> record: known ------> the mechanism's record() -> done
 *      ^      answer: NGX_OK -----> done
 *      |         |
 *      +---------+ unknown, or wrong: the next provider
 *                | it was the last: the mechanism's unknown(), answered()
 *                \ error -> done
 *
 * The posted event after done, and _cancel() in any state, free the auth;
 * nothing else does.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "mpol_sasl.h"
#include "mpol_sender.h"
#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_provider.h"


#define NGX_MAIL_POLICY_AUTH_SUSPENDED  "535 5.7.13 "


typedef struct {
    ngx_str_t                name;
    ngx_uint_t               method;
    ngx_mail_policy_mech_t  *mech;
} ngx_mail_policy_auth_method_t;


static ngx_mail_policy_auth_method_t *ngx_mail_policy_auth_find_method(
    ngx_uint_t method);
static ngx_mail_policy_mech_t *ngx_mail_policy_auth_mech(
    ngx_mail_policy_auth_t *auth);
static ngx_int_t ngx_mail_policy_auth_point(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_auth_end(ngx_mail_policy_auth_t *auth);
static ngx_int_t ngx_mail_policy_auth_remember(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record);
static ngx_int_t ngx_mail_policy_auth_copy(ngx_pool_t *pool, ngx_str_t *to,
    ngx_str_t *from);
static void ngx_mail_policy_auth_suspended(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_auth_check_identity(ngx_mail_policy_auth_t *auth);
static ngx_uint_t ngx_mail_policy_auth_same(ngx_str_t *one, ngx_str_t *two);
static void ngx_mail_policy_auth_tell(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_event_e event);
static void ngx_mail_policy_auth_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_auth_free(ngx_mail_policy_auth_t *auth);


/* in the order in which they are offered, which clients go by: best first */

static ngx_mail_policy_auth_method_t  ngx_mail_policy_auth_method_list[] = {

    { ngx_string("SCRAM-SHA-256-PLUS"), NGX_MAIL_POLICY_METHOD_SCRAM_PLUS,
      &ngx_mail_policy_mech_scram },

    { ngx_string("SCRAM-SHA-256"), NGX_MAIL_POLICY_METHOD_SCRAM,
      &ngx_mail_policy_mech_scram },

    { ngx_string("PLAIN"), NGX_MAIL_POLICY_METHOD_PLAIN,
      &ngx_mail_policy_mech_plain },

    { ngx_string("LOGIN"), NGX_MAIL_POLICY_METHOD_LOGIN,
      &ngx_mail_policy_mech_login },

    { ngx_string("CRAM-MD5"), NGX_MAIL_POLICY_METHOD_CRAM_MD5,
      &ngx_mail_policy_mech_cram_md5 },

    { ngx_string("OAUTHBEARER"), NGX_MAIL_POLICY_METHOD_OAUTHBEARER,
      &ngx_mail_policy_mech_oauthbearer },

    { ngx_string("XOAUTH2"), NGX_MAIL_POLICY_METHOD_XOAUTH2,
      &ngx_mail_policy_mech_xoauth2 },

    { ngx_string("EXTERNAL"), NGX_MAIL_POLICY_METHOD_EXTERNAL,
      &ngx_mail_policy_mech_external },

    { ngx_null_string, 0, NULL }
};


ngx_uint_t
ngx_mail_policy_auth_method(u_char *name, size_t len)
{
    ngx_mail_policy_auth_method_t  *m;

    for (m = ngx_mail_policy_auth_method_list; m->method; m++) {

        if (m->name.len == len
            && ngx_strncasecmp(m->name.data, name, len) == 0)
        {
            break;
        }
    }

    return m->method;
}


u_char *
ngx_mail_policy_auth_names(u_char *p, ngx_uint_t methods)
{
    ngx_mail_policy_auth_method_t  *m;

    for (m = ngx_mail_policy_auth_method_list; m->method; m++) {

        if (methods & m->method) {
            *p++ = ' ';
            p = ngx_cpymem(p, m->name.data, m->name.len);
        }
    }

    return p;
}


ngx_str_t *
ngx_mail_policy_auth_name(ngx_uint_t method)
{
    return &ngx_mail_policy_auth_find_method(method)->name;
}


static ngx_mail_policy_auth_method_t *
ngx_mail_policy_auth_find_method(ngx_uint_t method)
{
    ngx_mail_policy_auth_method_t  *m;

    for (m = ngx_mail_policy_auth_method_list; m->method; m++) {

        if (m->method == method) {
            break;
        }
    }

    return m;
}


ngx_mail_policy_auth_t *
ngx_mail_policy_auth_create(ngx_mail_policy_auth_conf_t *conf,
    ngx_uint_t method, ngx_mail_policy_auth_client_t *client, ngx_log_t *log,
    ngx_mail_policy_auth_pt handler, void *data)
{
    ngx_pool_t              *pool;
    ngx_mail_policy_auth_t  *auth;

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    auth = ngx_pcalloc(pool, sizeof(ngx_mail_policy_auth_t));
    if (auth == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    auth->pool = pool;
    auth->conf = conf;
    auth->method = method;
    auth->mech = ngx_mail_policy_auth_mech(auth);
    auth->client = client;
    auth->log = log;
    auth->handler = handler;
    auth->data = data;

    auth->event.data = auth;
    auth->event.handler = ngx_mail_policy_auth_event_handler;
    auth->event.log = ngx_cycle->log;

    return auth;
}


/* the first provider that has the method decides who speaks it */

static ngx_mail_policy_mech_t *
ngx_mail_policy_auth_mech(ngx_mail_policy_auth_t *auth)
{
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    provider = auth->conf->providers.elts;

    for (i = 0; i < auth->conf->providers.nelts; i++) {

        if (!(provider[i].methods & auth->method)) {
            continue;
        }

        if (provider[i].dialogues & auth->method) {
            auth->current = i;
            auth->provider = &provider[i];

            return &ngx_mail_policy_mech_dialogue;
        }

        break;
    }

    return ngx_mail_policy_auth_find_method(auth->method)->mech;
}


void
ngx_mail_policy_auth_respond(ngx_mail_policy_auth_t *auth, ngx_str_t *message)
{
    ngx_str_null(&auth->told.challenge);

    auth->mech->respond(auth, message);
}


void
ngx_mail_policy_auth_admit(ngx_mail_policy_auth_t *auth)
{
    auth->mech->admit(auth);
}


/* what mechanisms say */


void
ngx_mail_policy_auth_challenge(ngx_mail_policy_auth_t *auth, u_char *data,
    size_t len)
{
    ngx_str_t  challenge;

    challenge.data = data;
    challenge.len = len;

    if (ngx_mail_policy_auth_copy(auth->pool, &auth->told.challenge,
                                  &challenge)
        != NGX_OK)
    {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ngx_mail_policy_auth_tell(auth, NGX_MAIL_POLICY_AUTH_CHALLENGE);
}


void
ngx_mail_policy_auth_ask(ngx_mail_policy_auth_t *auth, ngx_str_t *login,
    ngx_str_t *password)
{
    if (login->len && !mpol_identity_valid(login->data, login->len)) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    if (ngx_mail_policy_auth_copy(auth->pool, &auth->login, login) != NGX_OK
        || ngx_mail_policy_auth_copy(auth->pool, &auth->password, password)
           != NGX_OK)
    {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    if (ngx_mail_policy_auth_point(auth) != NGX_OK) {
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    auth->told.login = auth->login;
    auth->told.secret = auth->password;

    ngx_mail_policy_auth_tell(auth, NGX_MAIL_POLICY_AUTH_ASK);
}


/* AUTH-15: for those, too, who are known, as it takes a microsecond or two */

static ngx_int_t
ngx_mail_policy_auth_point(ngx_mail_policy_auth_t *auth)
{
    u_char  digest[EVP_MAX_MD_SIZE];

    if (ngx_mail_policy_auth_hmac(auth, "dummy", &auth->login, digest)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(&auth->point, digest, sizeof(uint32_t));

    return NGX_OK;
}


void
ngx_mail_policy_auth_done(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    const char *reply)
{
    auth->told.rc = rc;

    if (reply) {
        auth->told.reply.data = (u_char *) reply;
        auth->told.reply.len = ngx_strlen(reply);
    }

    if (rc == NGX_OK) {
        ngx_mail_policy_auth_check_identity(auth);
    }

    /* AUTH-15: whether or not a provider behind that one knows the login */

    if (auth->told.rc == NGX_DECLINED && auth->told.reply.len == 0) {
        auth->told.reply = auth->refusal;
    }

    ngx_mail_policy_auth_tell(auth, NGX_MAIL_POLICY_AUTH_DONE);
}


/* RFC 4422, section 3.4.1: to act as somebody else takes permission */

static void
ngx_mail_policy_auth_check_identity(ngx_mail_policy_auth_t *auth)
{
    ngx_str_t                    *login, *authzid;
    ngx_mail_policy_auth_told_t  *told;

    told = &auth->told;
    login = &told->login;
    authzid = &auth->authzid;

    /* a provider has the last word on names, but not on what a name is */

    if (!mpol_identity_valid(login->data, login->len)) {
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "provider \"%V\" gave an invalid login",
                      auth->provider ? &auth->provider->name : login);
        told->rc = NGX_ERROR;
        return;
    }

    /* nor is it somebody else whom the provider has given another name */

    if (authzid->len == 0
        || ngx_mail_policy_auth_same(authzid, login)
        || ngx_mail_policy_auth_same(authzid, &auth->login))
    {
        return;
    }

    if (!mpol_senders_match(told->senders.data, told->senders.len,
                            authzid->data, authzid->len))
    {
        ngx_log_error(NGX_LOG_INFO, auth->log, 0,
                      "login \"%V\" may not act as \"%V\"", login, authzid);
        told->rc = NGX_DECLINED;
        return;
    }

    told->authzid = *authzid;
}


static ngx_uint_t
ngx_mail_policy_auth_same(ngx_str_t *one, ngx_str_t *two)
{
    return one->len == two->len
           && ngx_memcmp(one->data, two->data, one->len) == 0;
}


void
ngx_mail_policy_auth_proved(ngx_mail_policy_auth_t *auth)
{
    if (auth->suspended) {
        ngx_mail_policy_auth_suspended(auth);
        return;
    }

    ngx_mail_policy_auth_done(auth, auth->refuse ? NGX_DECLINED : NGX_OK,
                              NULL);
}


/* said to those only who have the password */

static void
ngx_mail_policy_auth_suspended(ngx_mail_policy_auth_t *auth)
{
    u_char     *p;
    ngx_str_t  *reply;

    ngx_log_error(NGX_LOG_INFO, auth->log, 0, "login \"%V\" is suspended",
                  &auth->login);

    if (auth->message.len == 0) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED,
                          NGX_MAIL_POLICY_AUTH_SUSPENDED "Account suspended");
        return;
    }

    reply = &auth->told.reply;

    reply->len = sizeof(NGX_MAIL_POLICY_AUTH_SUSPENDED) - 1
                 + auth->message.len;

    reply->data = ngx_pnalloc(auth->pool, reply->len);
    if (reply->data == NULL) {
        ngx_str_null(reply);
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    p = ngx_cpymem(reply->data, NGX_MAIL_POLICY_AUTH_SUSPENDED,
                   sizeof(NGX_MAIL_POLICY_AUTH_SUSPENDED) - 1);
    ngx_memcpy(p, auth->message.data, auth->message.len);

    ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
}


/* the chain of providers */


void
ngx_mail_policy_auth_find(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_auth_provider_t  *provider;

    provider = auth->conf->providers.elts;

    while (auth->current < auth->conf->providers.nelts
           && !(provider[auth->current].methods & auth->method))
    {
        auth->current++;
    }

    if (auth->current == auth->conf->providers.nelts) {
        ngx_mail_policy_auth_end(auth);
        return;
    }

    /* what another one knew of the login is of no use */

    auth->suspended = 0;
    auth->again = 0;
    ngx_str_null(&auth->told.senders);
    ngx_str_null(&auth->told.relay);

    auth->provider = &provider[auth->current];
    auth->provider->find(auth, auth->provider->data);
}


void
ngx_mail_policy_auth_next(ngx_mail_policy_auth_t *auth)
{
    /* should none of the others let him in, that is what is told */

    if (auth->told.reply.len) {
        auth->refusal = auth->told.reply;
        ngx_str_null(&auth->told.reply);
    }

    auth->current++;

    ngx_mail_policy_auth_find(auth);
}


/*
 * Nobody knows the login, or all said no.  Where there are records, somebody
 * who is in none of them costs what one costs who is.
 */

static void
ngx_mail_policy_auth_end(ngx_mail_policy_auth_t *auth)
{
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    auth->refuse = 1;
    auth->suspended = 0;

    provider = auth->conf->providers.elts;

    for (i = 0; i < auth->conf->providers.nelts; i++) {

        if (provider[i].records && (provider[i].methods & auth->method)
            && auth->mech->unknown)
        {
            auth->mech->unknown(auth);
            return;
        }
    }

    if (auth->mech->answered) {
        auth->mech->answered(auth, NGX_DECLINED);
        return;
    }

    ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
}


void
ngx_mail_policy_auth_record(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    ngx_mail_policy_auth_record_t *record)
{
    auth->wait = NULL;

    switch (rc) {

    case NGX_OK:

        if (ngx_mail_policy_auth_remember(auth, record) != NGX_OK) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        auth->mech->record(auth, record);
        return;

    case NGX_DECLINED:
        ngx_mail_policy_auth_next(auth);
        return;

    default: /* NGX_ERROR */
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }
}


static ngx_int_t
ngx_mail_policy_auth_remember(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record)
{
    auth->suspended = record->suspended;

    if (ngx_mail_policy_auth_copy(auth->pool, &auth->told.senders,
                                  &record->senders)
           != NGX_OK
        || ngx_mail_policy_auth_copy(auth->pool, &auth->told.relay,
                                     &record->relay)
           != NGX_OK
        || ngx_mail_policy_auth_copy(auth->pool, &auth->message,
                                     &record->message)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_mail_policy_auth_answer(ngx_mail_policy_auth_t *auth, ngx_int_t rc)
{
    auth->wait = NULL;

    if (rc == NGX_DECLINED) {
        ngx_mail_policy_auth_next(auth);
        return;
    }

    if (rc == NGX_OK) {
        ngx_str_null(&auth->told.reply);

        if (auth->told.login.len == 0) {
            auth->told.login = auth->login;
        }
    }

    if (auth->mech->answered) {
        auth->mech->answered(auth, rc);
        return;
    }

    ngx_mail_policy_auth_done(auth, rc, NULL);
}


/*
 * It is made to look like one of a provider that depends on the login alone:
 * asked twice, it takes the same time twice.
 */

ngx_int_t
ngx_mail_policy_auth_dummy(ngx_mail_policy_auth_t *auth, ngx_str_t *hash)
{
    ngx_uint_t                        i, n;
    ngx_mail_policy_auth_provider_t  *provider;

    auth->refuse = 1;

    provider = auth->conf->providers.elts;
    n = 0;

    for (i = 0; i < auth->conf->providers.nelts; i++) {
        n += (provider[i].records && (provider[i].methods & auth->method));
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    /* AUTH-14: its upper bits tell whose hash it is at that provider */

    n = auth->point % n;

    for (i = 0; i < auth->conf->providers.nelts; i++) {

        if (provider[i].records && (provider[i].methods & auth->method)
            && n-- == 0)
        {
            provider[i].dummy(auth, provider[i].data, hash);
            break;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_auth_hmac(ngx_mail_policy_auth_t *auth, const char *label,
    ngx_str_t *text, u_char *digest)
{
    size_t      n, len;
    u_char      key[EVP_MAX_MD_SIZE];
    ngx_int_t   rc;

    n = ngx_strlen(label);
    rc = NGX_ERROR;
    len = 32;

    if (HMAC(EVP_sha256(), ngx_mail_policy_store_secret(auth->conf->store), 20,
             (u_char *) label, n, key, NULL)
        && HMAC(EVP_sha256(), key, len, text->data, text->len, digest, NULL))
    {
        rc = NGX_OK;
    }

    ngx_explicit_memzero(key, EVP_MAX_MD_SIZE);

    return rc;
}


static ngx_int_t
ngx_mail_policy_auth_copy(ngx_pool_t *pool, ngx_str_t *to, ngx_str_t *from)
{
    if (from->len == 0) {
        ngx_str_null(to);
        return NGX_OK;
    }

    to->data = ngx_pstrdup(pool, from);
    if (to->data == NULL) {
        ngx_str_null(to);
        return NGX_ERROR;
    }

    to->len = from->len;

    return NGX_OK;
}


/* life */


static void
ngx_mail_policy_auth_tell(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_event_e event)
{
    auth->what = event;

    ngx_post_event(&auth->event, &ngx_posted_events);
}


static void
ngx_mail_policy_auth_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_auth_t  *auth;

    auth = ev->data;

    if (auth->what != NGX_MAIL_POLICY_AUTH_DONE) {

        /* goes on with the auth, or cancels it */

        auth->handler(auth->data, auth->what, &auth->told);
        return;
    }

    /* the handler may close the session, and its log with it */

    auth->handler(auth->data, auth->what, &auth->told);

    ngx_mail_policy_auth_free(auth);
}


ngx_uint_t
ngx_mail_policy_auth_waits(ngx_mail_policy_auth_t *auth)
{
    /* what it has said is heard later in this turn of the event loop */

    return auth->event.posted
           || (auth->wait != NULL && !auth->provider->records
               && !auth->again);
}


void
ngx_mail_policy_auth_cancel(ngx_mail_policy_auth_t *auth)
{
    if (auth->wait) {
        auth->provider->cancel(auth, auth->provider->data);
    }

    if (auth->event.posted) {
        ngx_delete_posted_event(&auth->event);
    }

    ngx_mail_policy_auth_free(auth);
}


static void
ngx_mail_policy_auth_free(ngx_mail_policy_auth_t *auth)
{
    if (auth->crypt) {
        ngx_mail_policy_crypt_cancel(auth->crypt);
    }

    if (auth->mech->cleanup) {
        auth->mech->cleanup(auth);
    }

    if (auth->password.len) {
        ngx_explicit_memzero(auth->password.data, auth->password.len);
    }

    if (auth->told.password.len) {
        ngx_explicit_memzero(auth->told.password.data,
                             auth->told.password.len);
    }

    ngx_destroy_pool(auth->pool);
}
