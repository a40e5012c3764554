
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "dovecot:unix:/path": Dovecot verifies.
 *
 *   PLAIN, LOGIN          AUTH PLAIN, with a message that we make
 *   XOAUTH2, OAUTHBEARER  the same mechanism, with a message that we make
 *   EXTERNAL              the same, with the name that a certificate gave
 *   CRAM-MD5, SCRAM       a dialogue: messages are passed on as they are
 *
 *     find ----> request ---------------------------> OK | FAIL -> answer
 *                       \-> CONT -> proceed (tokens) ---/
 *     proceed -> request -> CONT -> challenge
 *     proceed -------------> CONT -> challenge ... -> OK | FAIL -> answer
 *
 * Of a token that Dovecot does not like it sends an error, which is to be
 * acknowledged: by us, as the client gets it from its mechanism.
 *
 * auth->wait is there from the first message to the answer, also while it is
 * the client's turn.  What its request is of is gone with auth->pool.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_auth_dovecot.h"


#define NGX_MAIL_POLICY_AUTH_DOVECOT_PREFIX     "dovecot:"

/* that it is asked for in one go, and in a dialogue */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_FIND                                     \
    (NGX_MAIL_POLICY_METHODS_PASSWORD | NGX_MAIL_POLICY_METHODS_TOKEN         \
     | NGX_MAIL_POLICY_METHOD_EXTERNAL)
#define NGX_MAIL_POLICY_AUTH_DOVECOT_DIALOGUES                                \
    (NGX_MAIL_POLICY_METHOD_CRAM_MD5 | NGX_MAIL_POLICY_METHOD_SCRAM)

/* what RFC 7628, section 3.2.3 has a client say to an error */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_ACK        "\001"

/* octets of such an error that are passed on */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_OBJECT     1024

/* without certificate and port */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_PARAMS                                   \
    (sizeof("\tservice=smtp\tsecured=tls\tvalid-client-cert"                  \
            "\trip=\trport=65535\tlip=\tlport=65535\tcert_username=")         \
     + 2 * NGX_SOCKADDR_STRLEN)


static void ngx_mail_policy_auth_dovecot_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_dovecot_proceed(
    ngx_mail_policy_auth_t *auth, void *data, ngx_str_t *message);
static void ngx_mail_policy_auth_dovecot_cancel(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_dovecot_exit(void *data);
static ngx_mail_policy_auth_dovecot_ctx_t *ngx_mail_policy_auth_dovecot_ctx(
    ngx_mail_policy_auth_t *auth, void *data, ngx_uint_t method);
static void ngx_mail_policy_auth_dovecot_begin(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, ngx_str_t *message);
static ngx_int_t ngx_mail_policy_auth_dovecot_message(
    ngx_mail_policy_auth_t *auth, ngx_str_t *message);
static u_char *ngx_mail_policy_auth_dovecot_saslname(u_char *p,
    ngx_str_t *name);
static ngx_int_t ngx_mail_policy_auth_dovecot_params(
    ngx_mail_policy_auth_t *auth, ngx_str_t *params);
static u_char *ngx_mail_policy_auth_dovecot_addr(u_char *p, const char *side,
    struct sockaddr *sockaddr, socklen_t socklen);
static void ngx_mail_policy_auth_dovecot_handler(void *data,
    ngx_mail_policy_dovecot_answer_e answer, mpol_str_t *args);
static void ngx_mail_policy_auth_dovecot_say(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc);
static void ngx_mail_policy_auth_dovecot_cont(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args);
static ngx_int_t ngx_mail_policy_auth_dovecot_decode(ngx_pool_t *pool,
    mpol_str_t *args, ngx_str_t *challenge);
static ngx_uint_t ngx_mail_policy_auth_dovecot_object(ngx_str_t *text);


ngx_int_t
ngx_mail_policy_auth_dovecot(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    size_t                           n;
    ngx_str_t                        path;
    ngx_mail_policy_auth_dovecot_t  *conf;

    n = sizeof(NGX_MAIL_POLICY_AUTH_DOVECOT_PREFIX) - 1;

    path.data = value->data + n;
    path.len = value->len - n;

    if (path.len <= 6 || ngx_strncmp(path.data, "unix:/", 6) != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid provider \"%V\" in \"policy_auth\", it "
                           "must be \"dovecot:unix:/path\" with the path of a "
                           "socket of Dovecot's service \"auth\"", value);
        return NGX_ERROR;
    }

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_dovecot_t));
    if (conf == NULL) {
        return NGX_ERROR;
    }

    conf->service = ngx_mail_policy_dovecot_create(cf, &path);
    if (conf->service == NULL) {
        return NGX_ERROR;
    }

    provider->data = conf;
    provider->methods = NGX_MAIL_POLICY_AUTH_DOVECOT_FIND
                        | NGX_MAIL_POLICY_AUTH_DOVECOT_DIALOGUES;
    provider->dialogues = NGX_MAIL_POLICY_AUTH_DOVECOT_DIALOGUES;
    provider->find = ngx_mail_policy_auth_dovecot_find;
    provider->proceed = ngx_mail_policy_auth_dovecot_proceed;
    provider->cancel = ngx_mail_policy_auth_dovecot_cancel;
    provider->exit = ngx_mail_policy_auth_dovecot_exit;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_dovecot_exit(void *data)
{
    ngx_mail_policy_auth_dovecot_t *conf = data;

    ngx_mail_policy_dovecot_exit(conf->service);
}


static void
ngx_mail_policy_auth_dovecot_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_str_t                            message;
    ngx_uint_t                           method;
    ngx_mail_policy_auth_dovecot_ctx_t  *ctx;

    method = auth->method;

    /*
     * A proof was made for the challenge of another provider, and a NUL would
     * end the password for Dovecot.
     */

    if ((method & NGX_MAIL_POLICY_AUTH_DOVECOT_DIALOGUES)
        || ((method & NGX_MAIL_POLICY_METHODS_PASSWORD)
            && ngx_strlchr(auth->password.data,
                           auth->password.data + auth->password.len, '\0')))
    {
        ngx_mail_policy_auth_answer(auth, NGX_DECLINED);
        return;
    }

    if (method == NGX_MAIL_POLICY_METHOD_LOGIN) {
        method = NGX_MAIL_POLICY_METHOD_PLAIN;
    }

    ctx = ngx_mail_policy_auth_dovecot_ctx(auth, data, method);

    if (ctx == NULL
        || ngx_mail_policy_auth_dovecot_message(auth, &message) != NGX_OK)
    {
        ngx_mail_policy_auth_dovecot_say(auth, NGX_ERROR);
        return;
    }

    ngx_mail_policy_auth_dovecot_begin(ctx, &message);
}


static void
ngx_mail_policy_auth_dovecot_proceed(ngx_mail_policy_auth_t *auth,
    void *data, ngx_str_t *message)
{
    ngx_mail_policy_auth_dovecot_ctx_t  *ctx;

    ctx = auth->wait;

    if (ctx) {
        ngx_mail_policy_dovecot_proceed(ctx->request, message);
        return;
    }

    ctx = ngx_mail_policy_auth_dovecot_ctx(auth, data, auth->method);

    if (ctx == NULL) {
        ngx_mail_policy_auth_dovecot_say(auth, NGX_ERROR);
        return;
    }

    ctx->dialogue = 1;

    ngx_mail_policy_auth_dovecot_begin(ctx, message);
}


static void
ngx_mail_policy_auth_dovecot_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_dovecot_ctx_t  *ctx;

    ctx = auth->wait;
    auth->wait = NULL;

    ngx_mail_policy_dovecot_cancel(ctx->request);
}


static ngx_mail_policy_auth_dovecot_ctx_t *
ngx_mail_policy_auth_dovecot_ctx(ngx_mail_policy_auth_t *auth, void *data,
    ngx_uint_t method)
{
    ngx_mail_policy_auth_dovecot_t *conf = data;

    ngx_mail_policy_auth_dovecot_ctx_t  *ctx;

    ctx = ngx_pcalloc(auth->pool, sizeof(ngx_mail_policy_auth_dovecot_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    ctx->auth = auth;
    ctx->conf = conf;

    ctx->request = ngx_mail_policy_dovecot_request(conf->service, auth->pool,
                                        method,
                                        ngx_mail_policy_auth_dovecot_handler,
                                        ctx);
    if (ctx->request == NULL) {
        return NULL;
    }

    auth->wait = ctx;

    return ctx;
}


static void
ngx_mail_policy_auth_dovecot_begin(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    ngx_str_t *message)
{
    ngx_int_t  rc;
    ngx_str_t  params;

    rc = ngx_mail_policy_auth_dovecot_params(ctx->auth, &params);

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_dovecot_prepare(ctx->request, &params, message);
    }

    /* one that we have made is a copy of a password */

    if (!ctx->dialogue) {
        ngx_explicit_memzero(message->data, message->len);
    }

    if (rc != NGX_OK) {
        ngx_mail_policy_auth_dovecot_say(ctx->auth, NGX_ERROR);
        return;
    }

    ngx_mail_policy_dovecot_begin(ctx->request);
}


/* PLAIN, RFC 4616; XOAUTH2; OAUTHBEARER, RFC 7628; EXTERNAL has none */

static ngx_int_t
ngx_mail_policy_auth_dovecot_message(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    u_char  *p;

    p = ngx_pnalloc(auth->pool, sizeof("user=" "n,a=,\1auth=Bearer \1\1") - 1
                                + 3 * auth->login.len + auth->password.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    message->data = p;

    switch (auth->method) {

    case NGX_MAIL_POLICY_METHOD_EXTERNAL:
        break;

    case NGX_MAIL_POLICY_METHOD_XOAUTH2:
        p = ngx_sprintf(p, "user=%V\1auth=Bearer %V\1\1", &auth->login,
                        &auth->password);
        break;

    case NGX_MAIL_POLICY_METHOD_OAUTHBEARER:
        p = ngx_cpymem(p, "n,", 2);

        if (auth->login.len) {
            p = ngx_cpymem(p, "a=", 2);
            p = ngx_mail_policy_auth_dovecot_saslname(p, &auth->login);
        }

        p = ngx_sprintf(p, ",\1auth=Bearer %V\1\1", &auth->password);
        break;

    default: /* NGX_MAIL_POLICY_METHODS_PASSWORD */
        *p++ = '\0';
        p = ngx_cpymem(p, auth->login.data, auth->login.len);
        *p++ = '\0';
        p = ngx_cpymem(p, auth->password.data, auth->password.len);
    }

    message->len = p - message->data;

    return NGX_OK;
}


/* RFC 5801, section 4 */

static u_char *
ngx_mail_policy_auth_dovecot_saslname(u_char *p, ngx_str_t *name)
{
    u_char  *in, *last;

    last = name->data + name->len;

    for (in = name->data; in < last; in++) {

        if (*in == ',') {
            p = ngx_cpymem(p, "=2C", 3);

        } else if (*in == '=') {
            p = ngx_cpymem(p, "=3D", 3);

        } else {
            *p++ = *in;
        }
    }

    return p;
}


/*
 * The name of a certificate is said with EXTERNAL only, where the mechanism
 * has seen to it that it was verified.
 */

static ngx_int_t
ngx_mail_policy_auth_dovecot_params(ngx_mail_policy_auth_t *auth,
    ngx_str_t *params)
{
    u_char            *p;
    ngx_connection_t  *c;

    c = auth->client->connection;

    p = ngx_pnalloc(auth->pool, NGX_MAIL_POLICY_AUTH_DOVECOT_PARAMS
                                + 2 * auth->login.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    params->data = p;

    p = ngx_cpymem(p, "\tservice=smtp", sizeof("\tservice=smtp") - 1);

#if (NGX_MAIL_SSL || NGX_SSL)

    if (c->ssl) {
        p = ngx_cpymem(p, "\tsecured=tls", sizeof("\tsecured=tls") - 1);
    }

#endif

    p = ngx_mail_policy_auth_dovecot_addr(p, "r", c->sockaddr, c->socklen);

    if (ngx_connection_local_sockaddr(c, NULL, 0) == NGX_OK) {
        p = ngx_mail_policy_auth_dovecot_addr(p, "l", c->local_sockaddr,
                                              c->local_socklen);
    }

    if (auth->method == NGX_MAIL_POLICY_METHOD_EXTERNAL) {
        p = ngx_cpymem(p, "\tvalid-client-cert\tcert_username=",
                       sizeof("\tvalid-client-cert\tcert_username=") - 1);
        p += mpol_dovecot_escape(auth->login.data, auth->login.len, p,
                                 2 * auth->login.len);
    }

    params->len = p - params->data;

    return NGX_OK;
}


static u_char *
ngx_mail_policy_auth_dovecot_addr(u_char *p, const char *side,
    struct sockaddr *sockaddr, socklen_t socklen)
{
    size_t  len;
    u_char  text[NGX_SOCKADDR_STRLEN];

    if (sockaddr->sa_family != AF_INET
#if (NGX_HAVE_INET6)
        && sockaddr->sa_family != AF_INET6
#endif
       )
    {
        return p;
    }

    len = ngx_sock_ntop(sockaddr, socklen, text, NGX_SOCKADDR_STRLEN, 0);

    return ngx_sprintf(p, "\t%sip=%*s\t%sport=%ui", side, len, text, side,
                       (ngx_uint_t) ngx_inet_get_port(sockaddr));
}


static void
ngx_mail_policy_auth_dovecot_handler(void *data,
    ngx_mail_policy_dovecot_answer_e answer, mpol_str_t *args)
{
    ngx_mail_policy_auth_dovecot_ctx_t *ctx = data;

    ngx_int_t                rc;
    ngx_mail_policy_auth_t  *auth;

    auth = ctx->auth;

    switch (answer) {

    case NGX_MAIL_POLICY_DOVECOT_CONT:
        ngx_mail_policy_auth_dovecot_cont(ctx, args);
        return;

    case NGX_MAIL_POLICY_DOVECOT_OK:
        rc = ctx->refused ? NGX_ERROR
                          : ngx_mail_policy_auth_dovecot_ok(ctx, args);
        break;

    case NGX_MAIL_POLICY_DOVECOT_FAIL:
        rc = ngx_mail_policy_auth_dovecot_fail(ctx, args);
        break;

    case NGX_MAIL_POLICY_DOVECOT_NONE:
        ngx_mail_policy_auth_dovecot_error(ctx,
                        "has no mechanism \"%V\", add it to its "
                        "\"auth_mechanisms\"",
                        ngx_mail_policy_auth_name(ctx->request->method));

        /* the client has others, and nothing was wrong with its password */

        ngx_str_set(&auth->told.reply,
                    "504 5.5.4 Authentication mechanism not available");
        rc = NGX_ERROR;
        break;

    default: /* NGX_MAIL_POLICY_DOVECOT_LOST */
        rc = NGX_ERROR;
    }

    if (ctx->dialogue && rc == NGX_DECLINED) {

        /* nobody else can go on with it */

        auth->wait = NULL;
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    ngx_mail_policy_auth_dovecot_say(auth, rc);
}


static void
ngx_mail_policy_auth_dovecot_say(ngx_mail_policy_auth_t *auth, ngx_int_t rc)
{
    auth->wait = NULL;

    ngx_mail_policy_auth_answer(auth, rc);
}


static void
ngx_mail_policy_auth_dovecot_cont(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args)
{
    ngx_int_t                rc;
    ngx_str_t                challenge, message, *name;
    ngx_mail_policy_auth_t  *auth;

    auth = ctx->auth;
    name = ngx_mail_policy_auth_name(ctx->request->method);

    rc = ngx_mail_policy_auth_dovecot_decode(auth->pool, args, &challenge);

    if (rc == NGX_OK && ctx->dialogue) {
        ngx_mail_policy_auth_challenge(auth, challenge.data, challenge.len);
        return;
    }

    if (rc == NGX_OK
        && !ctx->refused
        && (ctx->request->method & NGX_MAIL_POLICY_METHODS_TOKEN))
    {
        ctx->refused = 1;

        if (ngx_mail_policy_auth_dovecot_object(&challenge)) {
            auth->told.sasl_error = challenge;
        }

        ngx_str_set(&message, NGX_MAIL_POLICY_AUTH_DOVECOT_ACK);
        ngx_mail_policy_dovecot_proceed(ctx->request, &message);
        return;
    }

    ngx_mail_policy_auth_dovecot_error(ctx, (rc == NGX_OK)
                                       ? "asks for more than \"%V\" says"
                                       : "sent a challenge to \"%V\" that is "
                                         "not base64",
                                       name);

    ngx_mail_policy_dovecot_cancel(ctx->request);
    ngx_mail_policy_auth_dovecot_say(auth, NGX_ERROR);
}


static ngx_int_t
ngx_mail_policy_auth_dovecot_decode(ngx_pool_t *pool, mpol_str_t *args,
    ngx_str_t *challenge)
{
    mpol_dovecot_arg_t  arg;

    if (!mpol_dovecot_arg(args, &arg)) {
        return NGX_DECLINED;
    }

    challenge->data = ngx_pnalloc(pool, arg.whole.len + 1);
    if (challenge->data == NULL) {
        return NGX_ERROR;
    }

    if (mpol_base64_decode(arg.whole.data, arg.whole.len, challenge->data,
                           &challenge->len)
        != MPOL_OK)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* an error that a client may see: by its looks a JSON object, of one line */

static ngx_uint_t
ngx_mail_policy_auth_dovecot_object(ngx_str_t *text)
{
    size_t  i;

    if (text->len < 2
        || text->len > NGX_MAIL_POLICY_AUTH_DOVECOT_OBJECT
        || text->data[0] != '{'
        || text->data[text->len - 1] != '}')
    {
        return 0;
    }

    for (i = 0; i < text->len; i++) {
        if (text->data[i] < 0x20 || text->data[i] > 0x7e) {
            return 0;
        }
    }

    return 1;
}
