
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "http://host[:port]/uri", "https://...": a service that speaks
 * nginx' "auth_http" protocol, and verifies.
 *
 * Events: the answer to a request, and a timer, where the service asks to be
 * asked again.
 *
 *     find -> request under way -> answered
 *               ^             \-> "Auth-Status: WAIT" -> timer --\
 *               +-------------------------------------------------/
 *     cancel, in any state
 *
 * Only an answer that says "Auth-Status: OK" lets anybody in.  What is no
 * answer, and what an answer says that cannot be true, is an error: nobody
 * was told that a login is wrong who did not say so.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_auth_http.h"
#include "mpol_sasl.h"
#include "mpol_text.h"


#define NGX_MAIL_POLICY_AUTH_HTTP_TEXT    200   /* octets of a refusal */
#define NGX_MAIL_POLICY_AUTH_HTTP_WAIT    300   /* seconds */
#define NGX_MAIL_POLICY_AUTH_HTTP_SASL    1024  /* octets of Auth-Error-SASL */

/* what is under way for an auth: a request or a timer */
typedef struct {
    ngx_mail_policy_auth_t       *auth;
    ngx_mail_policy_auth_http_t  *provider;
    ngx_mail_policy_http_t       *http;     /* NULL: it waits */
    ngx_event_t                   timer;
} ngx_mail_policy_auth_http_ctx_t;


#define NGX_MAIL_POLICY_AUTH_HTTP_METHODS                                     \
    (NGX_MAIL_POLICY_METHODS_PASSWORD                                         \
     |NGX_MAIL_POLICY_METHODS_TOKEN                                           \
     |NGX_MAIL_POLICY_METHOD_CRAM_MD5                                         \
     |NGX_MAIL_POLICY_METHOD_EXTERNAL)


static ngx_int_t ngx_mail_policy_auth_http_url(ngx_conf_t *cf,
    ngx_str_t *value, ngx_mail_policy_auth_http_t *provider);
static ngx_int_t ngx_mail_policy_auth_http_init(ngx_conf_t *cf, void *data);
static void ngx_mail_policy_auth_http_exit(void *data);

static void ngx_mail_policy_auth_http_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_http_cancel(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_http_ask(
    ngx_mail_policy_auth_http_ctx_t *ctx);
static void ngx_mail_policy_auth_http_handler(ngx_mail_policy_http_t *http,
    ngx_int_t rc);
static ngx_uint_t ngx_mail_policy_auth_http_waits(
    ngx_mail_policy_http_t *http);
static ngx_msec_t ngx_mail_policy_auth_http_wait(
    ngx_mail_policy_http_t *http);
static void ngx_mail_policy_auth_http_timer_handler(ngx_event_t *ev);
static void ngx_mail_policy_auth_http_answer(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc);
static ngx_int_t ngx_mail_policy_auth_http_judge(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_auth_http_granted(
    ngx_mail_policy_auth_t *auth, ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_auth_http_relay(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_auth_http_refused(
    ngx_mail_policy_auth_t *auth, ngx_mail_policy_http_t *http);
static ngx_int_t ngx_mail_policy_auth_http_sasl(ngx_mail_policy_auth_t *auth,
    ngx_str_t *value);
static ngx_str_t ngx_mail_policy_auth_http_field(ngx_mail_policy_http_t *http,
    mpol_auth_http_field_e field);
static ngx_int_t ngx_mail_policy_auth_http_copy(ngx_mail_policy_auth_t *auth,
    ngx_str_t *to, ngx_str_t *from);


ngx_int_t
ngx_mail_policy_auth_http(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_mail_policy_auth_http_t  *http;

    http = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_http_t));
    if (http == NULL) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_auth_http_url(cf, value, http) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_queue_init(&http->service.kept);

    provider->data = http;
    provider->methods = NGX_MAIL_POLICY_AUTH_HTTP_METHODS;
    provider->find = ngx_mail_policy_auth_http_find;
    provider->cancel = ngx_mail_policy_auth_http_cancel;
    provider->init = ngx_mail_policy_auth_http_init;
    provider->exit = ngx_mail_policy_auth_http_exit;
    provider->routes = 1;
    provider->passwords = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_http_url(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_http_t *provider)
{
    u_char      *p;
    size_t       scheme;
    ngx_url_t    u;
    ngx_str_t   *name;

    provider->tls = (ngx_strncmp(value->data, "https://", 8) == 0);

    scheme = provider->tls ? 8 : 7;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url.data = value->data + scheme;
    u.url.len = value->len - scheme;
    u.default_port = provider->tls ? 443 : 80;
    u.uri_part = 1;

    for (p = u.url.data; p < u.url.data + u.url.len; p++) {
        if (*p <= ' ' || *p == 0x7f || *p == '#') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid character in \"policy_auth %V\", "
                               "write it as %%%02Xi", value,
                               (ngx_uint_t) *p);
            return NGX_ERROR;
        }
    }

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in \"policy_auth %V\", expected "
                           "\"http://host[:port]/uri\"",
                           u.err ? u.err : "an error", value);
        return NGX_ERROR;
    }

    provider->service.addrs = u.addrs;
    provider->service.naddrs = u.naddrs;

    provider->host = u.host;
    provider->uri = u.uri;

    if (u.family == AF_UNIX) {
        ngx_str_set(&provider->host, "localhost");
    }

    if (provider->uri.len == 0) {
        ngx_str_set(&provider->uri, "/");
    }

    /* OpenSSL asks for a string, and has no brackets around an address */

    name = &provider->service.name;

    name->len = provider->host.len;

    name->data = ngx_pcalloc(cf->pool, name->len + 1);
    if (name->data == NULL) {
        return NGX_ERROR;
    }

    if (name->len > 2 && provider->host.data[0] == '[') {
        name->len -= 2;
        ngx_memcpy(name->data, provider->host.data + 1, name->len);

    } else {
        ngx_memcpy(name->data, provider->host.data, name->len);
    }

    return NGX_OK;
}


/* of each server that has the provider; settings may be those of several */

static ngx_int_t
ngx_mail_policy_auth_http_init(ngx_conf_t *cf, void *data)
{
    ngx_mail_policy_auth_http_t *provider = data;

    ngx_mail_policy_srv_conf_t        *pscf;
    ngx_mail_policy_auth_http_conf_t  *conf;

    pscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_policy_module);
    conf = pscf->auth_http;

    if (!provider->tls || conf->tls.ssl) {
        return NGX_OK;
    }

    conf->tls.verify = conf->ssl_verify;
    conf->tls.name = conf->ssl_name;

    conf->tls.ssl = ngx_mail_policy_http_ssl(cf, conf->ssl_verify,
                                             &conf->ssl_trusted);

    return conf->tls.ssl ? NGX_OK : NGX_ERROR;
}


static void
ngx_mail_policy_auth_http_exit(void *data)
{
    ngx_mail_policy_auth_http_t *provider = data;

    ngx_mail_policy_http_close_kept(&provider->service);
}


ngx_mail_policy_auth_http_conf_t *
ngx_mail_policy_auth_http_settings(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_session_t          *ms;
    ngx_mail_policy_srv_conf_t  *pscf;

    ms = auth->client->connection->data;
    pscf = ngx_mail_get_module_srv_conf(ms, ngx_mail_policy_module);

    return pscf->auth_http;
}


static void
ngx_mail_policy_auth_http_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_http_ctx_t  *ctx;

    ctx = ngx_pcalloc(auth->pool, sizeof(ngx_mail_policy_auth_http_ctx_t));
    if (ctx == NULL) {
        ngx_mail_policy_auth_answer(auth, NGX_ERROR);
        return;
    }

    ctx->auth = auth;
    ctx->provider = data;

    ctx->timer.handler = ngx_mail_policy_auth_http_timer_handler;
    ctx->timer.data = ctx;
    ctx->timer.log = ngx_cycle->log;

    ngx_mail_policy_auth_http_ask(ctx);
}


static void
ngx_mail_policy_auth_http_ask(ngx_mail_policy_auth_http_ctx_t *ctx)
{
    ngx_int_t                          rc;
    ngx_mail_policy_auth_t            *auth;
    ngx_mail_policy_http_t            *http;
    ngx_mail_policy_auth_http_conf_t  *conf;

    auth = ctx->auth;
    conf = ngx_mail_policy_auth_http_settings(auth);

    http = ngx_mail_policy_http_create(auth->pool);
    if (http == NULL) {
        ngx_mail_policy_auth_http_answer(auth, NGX_ERROR);
        return;
    }

    rc = ngx_mail_policy_auth_http_request(auth, ctx->provider,
                                           &http->request);
    if (rc != NGX_OK) {
        ngx_mail_policy_auth_http_answer(auth, rc);
        return;
    }

    http->service = &ctx->provider->service;
    http->tls = ctx->provider->tls ? &conf->tls : NULL;
    http->timeout = conf->timeout;
    http->log = auth->log;
    http->handler = ngx_mail_policy_auth_http_handler;
    http->data = ctx;

    ctx->http = http;
    auth->wait = ctx;

    if (ngx_mail_policy_http_send(http) != NGX_OK) {
        ngx_mail_policy_auth_http_answer(auth, NGX_ERROR);
    }
}


static void
ngx_mail_policy_auth_http_answer(ngx_mail_policy_auth_t *auth, ngx_int_t rc)
{
    auth->wait = NULL;

    ngx_mail_policy_auth_answer(auth, rc);
}


static void
ngx_mail_policy_auth_http_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_http_ctx_t  *ctx;

    ctx = auth->wait;
    auth->wait = NULL;

    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
        return;
    }

    ngx_mail_policy_http_cancel(ctx->http);
}


static void
ngx_mail_policy_auth_http_handler(ngx_mail_policy_http_t *http, ngx_int_t rc)
{
    ngx_mail_policy_auth_http_ctx_t  *ctx;

    ctx = http->data;
    ctx->http = NULL;

    if (rc == NGX_OK && ngx_mail_policy_auth_http_waits(http)) {

        /* once a second at most; the session has a timer for all of it */

        ctx->auth->again = 1;

        ngx_add_timer(&ctx->timer,
                      ngx_max(ngx_mail_policy_auth_http_wait(http), 1000));

        /* the next request has a buffer of its own, and there may be many */

        ngx_mail_policy_http_wipe(http);
        (void) ngx_pfree(http->pool, http->buf);
        return;
    }

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_auth_http_judge(ctx->auth, http);
    }

    ngx_mail_policy_http_wipe(http);

    ngx_mail_policy_auth_http_answer(ctx->auth, rc);
}


/* it cannot say yet, and is to be asked again */

static ngx_uint_t
ngx_mail_policy_auth_http_waits(ngx_mail_policy_http_t *http)
{
    ngx_str_t  status;

    status = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_STATUS);

    return status.len == 4
           && ngx_memcmp(status.data, "WAIT", 4) == 0
           && http->head.status / 100 == 2;
}


/* milliseconds; 0: none was said */

static ngx_msec_t
ngx_mail_policy_auth_http_wait(ngx_mail_policy_http_t *http)
{
    ngx_int_t  wait;
    ngx_str_t  value;

    value = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_WAIT);
    wait = ngx_atoi(value.data, value.len);

    return (wait > 0) ? (ngx_msec_t) 1000
                        * ngx_min(wait, NGX_MAIL_POLICY_AUTH_HTTP_WAIT)
                      : 0;
}


static void
ngx_mail_policy_auth_http_timer_handler(ngx_event_t *ev)
{
    ngx_mail_policy_auth_http_ask(ev->data);
}


static ngx_int_t
ngx_mail_policy_auth_http_judge(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http)
{
    switch (mpol_auth_http_verdict(&http->head, http->buf)) {

    case MPOL_OK:
        return ngx_mail_policy_auth_http_granted(auth, http);

    case MPOL_AUTH_HTTP_REFUSED:
        return ngx_mail_policy_auth_http_refused(auth, http);

    default:
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "auth service %V answered with status %ui and %s, "
                      "expected 200 and Auth-Status",
                      ngx_mail_policy_http_address(http),
                      (ngx_uint_t) http->head.status,
                      http->head.fields[MPOL_AUTH_HTTP_STATUS].len
                      ? "an Auth-Status" : "no Auth-Status");
        return NGX_ERROR;
    }
}


static ngx_int_t
ngx_mail_policy_auth_http_granted(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http)
{
    ngx_str_t                     login, password;
    ngx_mail_policy_auth_told_t  *told;

    told = &auth->told;

    login = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_USER);
    password = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_PASS);

    if (login.len && !mpol_identity_valid(login.data, login.len)) {
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "auth service %V sent an invalid Auth-User",
                      ngx_mail_policy_http_address(http));
        return NGX_ERROR;
    }

    if (ngx_mail_policy_auth_http_relay(auth, http) != NGX_OK
        || (login.len
            && ngx_mail_policy_auth_http_copy(auth, &told->login, &login)
               != NGX_OK)
        || (password.len
            && ngx_mail_policy_auth_http_copy(auth, &told->password,
                                              &password)
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* none is fine: it has no route of its own then */

static ngx_int_t
ngx_mail_policy_auth_http_relay(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http)
{
    ngx_int_t    n;
    ngx_str_t    server, port, *relay;
    ngx_addr_t   addr;

    server = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_SERVER);
    port = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_PORT);

    if (server.len == 0) {
        return NGX_OK;
    }

    n = ngx_atoi(port.data, port.len);

    if (n < 1 || n > 65535
        || ngx_parse_addr(auth->pool, &addr, server.data, server.len)
           != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "auth service %V sent an invalid Auth-Server or "
                      "Auth-Port, expected an address and a port",
                      ngx_mail_policy_http_address(http));
        return NGX_ERROR;
    }

    relay = &auth->told.relay;

    relay->data = ngx_pnalloc(auth->pool,
                              server.len + sizeof("[]:65535") - 1);
    if (relay->data == NULL) {
        return NGX_ERROR;
    }

    relay->len = ngx_sprintf(relay->data,
                             (addr.sockaddr->sa_family == AF_INET)
                             ? "%V:%i" : "[%V]:%i", &server, n)
                 - relay->data;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_http_refused(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_http_t *http)
{
    size_t        n;
    u_char        code[MPOL_AUTH_HTTP_CODE], *p;
    ngx_str_t     text, value;
    mpol_str_t    errcode;

    text = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_STATUS);
    text.len = ngx_min(text.len, NGX_MAIL_POLICY_AUTH_HTTP_TEXT);

    errcode = mpol_auth_http_field(&http->head, http->buf,
                                   MPOL_AUTH_HTTP_ERROR_CODE);

    n = mpol_auth_http_code(&errcode, code);

    if (n == 0) {

        if (errcode.len) {
            ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                          "auth service %V sent an invalid Auth-Error-Code, "
                          "expected one like \"535 5.7.8\"",
                          ngx_mail_policy_http_address(http));
        }

        n = ngx_cpymem(code, "535 5.7.8", 9) - code;
    }

    p = ngx_pnalloc(auth->pool, n + 1 + text.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    auth->told.reply.data = p;
    auth->told.reply.len = n + 1 + text.len;

    p = ngx_cpymem(p, code, n);
    *p++ = ' ';
    mpol_reply_clean(text.data, text.len, p);

    auth->told.wait = ngx_mail_policy_auth_http_wait(http);

    value = ngx_mail_policy_auth_http_field(http, MPOL_AUTH_HTTP_ERROR_SASL);

    if (ngx_mail_policy_auth_http_sasl(auth, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_DECLINED;
}


/* it comes as it goes over the wire: base64 */

static ngx_int_t
ngx_mail_policy_auth_http_sasl(ngx_mail_policy_auth_t *auth, ngx_str_t *value)
{
    size_t      n;
    ngx_str_t  *error;

    if (value->len == 0 || value->len > NGX_MAIL_POLICY_AUTH_HTTP_SASL) {
        return NGX_OK;
    }

    error = &auth->told.sasl_error;

    error->data = ngx_pnalloc(auth->pool, value->len);
    if (error->data == NULL) {
        return NGX_ERROR;
    }

    if (mpol_base64_decode(value->data, value->len, error->data, &n)
        != MPOL_OK)
    {
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "auth service sent an Auth-Error-SASL that is no "
                      "base64");
        n = 0;
    }

    error->len = n;

    return NGX_OK;
}


static ngx_str_t
ngx_mail_policy_auth_http_field(ngx_mail_policy_http_t *http,
    mpol_auth_http_field_e field)
{
    ngx_str_t   value;
    mpol_str_t  slice;

    slice = mpol_auth_http_field(&http->head, http->buf, field);

    value.data = (u_char *) slice.data;
    value.len = slice.len;

    return value;
}


static ngx_int_t
ngx_mail_policy_auth_http_copy(ngx_mail_policy_auth_t *auth, ngx_str_t *to,
    ngx_str_t *from)
{
    to->data = ngx_pstrdup(auth->pool, from);
    if (to->data == NULL) {
        to->len = 0;
        return NGX_ERROR;
    }

    to->len = from->len;

    return NGX_OK;
}
