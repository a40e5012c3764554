
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a service is asked: the request of nginx' "auth_http", its header
 * lines in their order, plus "Connection: keep-alive".  No events arrive
 * here.
 *
 * Login and password are escaped as there: octets up to the space, and "%",
 * as %XX.  AUTH-1: no value has a control octet in it when it is sent,
 * whatever was to be escaped.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_auth_http.h"


#define NGX_MAIL_POLICY_AUTH_HTTP_LINES  24


typedef struct {
    ngx_str_t                     name;
    ngx_str_t                     value;
} ngx_mail_policy_auth_http_line_t;


typedef struct {
    ngx_mail_policy_auth_t            *auth;
    ngx_mail_policy_auth_http_line_t   lines[NGX_MAIL_POLICY_AUTH_HTTP_LINES];
    ngx_uint_t                         n;
    ngx_int_t                          rc;      /* of what cannot be sent */
} ngx_mail_policy_auth_http_lines_t;


typedef ngx_int_t (*ngx_mail_policy_auth_http_ssl_pt)(ngx_connection_t *c,
    ngx_pool_t *pool, ngx_str_t *s);


static void ngx_mail_policy_auth_http_credentials(
    ngx_mail_policy_auth_http_lines_t *l, ngx_str_t *login,
    ngx_str_t *password);
static void ngx_mail_policy_auth_http_client(
    ngx_mail_policy_auth_http_lines_t *l);
static void ngx_mail_policy_auth_http_proxy(
    ngx_mail_policy_auth_http_lines_t *l);
static void ngx_mail_policy_auth_http_tls(
    ngx_mail_policy_auth_http_lines_t *l);
static void ngx_mail_policy_auth_http_client_cert(
    ngx_mail_policy_auth_http_lines_t *l);
static void ngx_mail_policy_auth_http_add(
    ngx_mail_policy_auth_http_lines_t *l, const char *name, ngx_str_t *value);
static void ngx_mail_policy_auth_http_add_text(
    ngx_mail_policy_auth_http_lines_t *l, const char *name, const char *value);
static void ngx_mail_policy_auth_http_add_number(
    ngx_mail_policy_auth_http_lines_t *l, const char *name, ngx_uint_t n);
static void ngx_mail_policy_auth_http_add_ssl(
    ngx_mail_policy_auth_http_lines_t *l, const char *name,
    ngx_mail_policy_auth_http_ssl_pt get);
static ngx_uint_t ngx_mail_policy_auth_http_clean(ngx_str_t *value);
static ngx_int_t ngx_mail_policy_auth_http_escape(ngx_pool_t *pool,
    ngx_str_t *text, ngx_str_t *escaped);
static ngx_int_t ngx_mail_policy_auth_http_write(
    ngx_mail_policy_auth_http_lines_t *l, ngx_str_t *uri, ngx_str_t *headers,
    ngx_str_t *request);


ngx_int_t
ngx_mail_policy_auth_http_request(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_http_t *provider, ngx_str_t *request)
{
    ngx_int_t                          rc;
    ngx_str_t                          login, password;
    ngx_mail_policy_auth_http_conf_t  *conf;
    ngx_mail_policy_auth_http_lines_t  l;

    conf = ngx_mail_policy_auth_http_settings(auth);

    if (ngx_mail_policy_auth_http_escape(auth->pool, &auth->login, &login)
        != NGX_OK
        || ngx_mail_policy_auth_http_escape(auth->pool, &auth->password,
                                            &password)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    l.auth = auth;
    l.n = 0;
    l.rc = NGX_OK;

    ngx_mail_policy_auth_http_add(&l, "Host", &provider->host);
    ngx_mail_policy_auth_http_add_text(&l, "Connection", "keep-alive");

    ngx_mail_policy_auth_http_credentials(&l, &login, &password);
    ngx_mail_policy_auth_http_client(&l);

    if (auth->client->connection->proxy_protocol) {
        ngx_mail_policy_auth_http_proxy(&l);
    }

    if (auth->client->connection->ssl) {
        ngx_mail_policy_auth_http_tls(&l);
    }

    rc = l.rc;

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_auth_http_write(&l, &provider->uri,
                                             &conf->header, request);
    }

    if (password.data != auth->password.data) {
        ngx_explicit_memzero(password.data, password.len);
    }

    return rc;
}


static void
ngx_mail_policy_auth_http_credentials(ngx_mail_policy_auth_http_lines_t *l,
    ngx_str_t *login, ngx_str_t *password)
{
    const char              *method;
    ngx_mail_policy_auth_t  *auth;

    auth = l->auth;

    switch (auth->method) {

    case NGX_MAIL_POLICY_METHOD_CRAM_MD5:
        method = "cram-md5";
        break;

    case NGX_MAIL_POLICY_METHOD_EXTERNAL:
        method = "external";
        break;

    case NGX_MAIL_POLICY_METHOD_XOAUTH2:
        method = "xoauth2";
        break;

    case NGX_MAIL_POLICY_METHOD_OAUTHBEARER:
        method = "oauthbearer";
        break;

    default: /* PLAIN, LOGIN */
        method = "plain";
    }

    ngx_mail_policy_auth_http_add_text(l, "Auth-Method", method);

    if (!ngx_mail_policy_auth_http_clean(login)
        || !ngx_mail_policy_auth_http_clean(password))
    {
        l->rc = NGX_DECLINED;
        return;
    }

    ngx_mail_policy_auth_http_add(l, "Auth-User", login);
    ngx_mail_policy_auth_http_add(l, "Auth-Pass", password);

    if (auth->method == NGX_MAIL_POLICY_METHOD_CRAM_MD5) {
        ngx_mail_policy_auth_http_add(l, "Auth-Salt", &auth->salt);
    }

    ngx_mail_policy_auth_http_add_text(l, "Auth-Protocol", "smtp");
}


static void
ngx_mail_policy_auth_http_client(ngx_mail_policy_auth_http_lines_t *l)
{
    ngx_str_t                       host;
    ngx_mail_session_t             *ms;
    ngx_mail_policy_auth_client_t  *client;

    client = l->auth->client;

    ngx_mail_policy_auth_http_add_number(l, "Auth-Login-Attempt",
                                         client->attempt);
    ngx_mail_policy_auth_http_add(l, "Client-IP",
                                  &client->connection->addr_text);

    /* nginx says so where it does not know, or not now */

    host = *client->host;

    if (host.len == 0) {
        ms = client->connection->data;
        host = ms->host;

        if (host.len == 0 || host.data[0] != '[') {
            ngx_str_set(&host, "[UNAVAILABLE]");
        }
    }

    ngx_mail_policy_auth_http_add(l, "Client-Host", &host);
}


static void
ngx_mail_policy_auth_http_proxy(ngx_mail_policy_auth_http_lines_t *l)
{
    ngx_proxy_protocol_t  *pp;

    pp = l->auth->client->connection->proxy_protocol;

    ngx_mail_policy_auth_http_add(l, "Proxy-Protocol-Addr", &pp->src_addr);
    ngx_mail_policy_auth_http_add_number(l, "Proxy-Protocol-Port",
                                         pp->src_port);
    ngx_mail_policy_auth_http_add(l, "Proxy-Protocol-Server-Addr",
                                  &pp->dst_addr);
    ngx_mail_policy_auth_http_add_number(l, "Proxy-Protocol-Server-Port",
                                         pp->dst_port);
}


static void
ngx_mail_policy_auth_http_tls(ngx_mail_policy_auth_http_lines_t *l)
{
    ngx_mail_session_t   *ms;
    ngx_mail_ssl_conf_t  *sslcf;

    ngx_mail_policy_auth_http_add_text(l, "Auth-SSL", "on");
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Protocol",
                                      ngx_ssl_get_protocol);
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Cipher",
                                      ngx_ssl_get_cipher_name);

    ms = l->auth->client->connection->data;
    sslcf = ngx_mail_get_module_srv_conf(ms, ngx_mail_ssl_module);

    if (sslcf->verify) {
        ngx_mail_policy_auth_http_client_cert(l);
    }
}


static void
ngx_mail_policy_auth_http_client_cert(ngx_mail_policy_auth_http_lines_t *l)
{
    ngx_str_t                raw, cert;
    ngx_mail_policy_auth_t  *auth;

    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Verify",
                                      ngx_ssl_get_client_verify);
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Subject",
                                      ngx_ssl_get_subject_dn);
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Issuer",
                                      ngx_ssl_get_issuer_dn);
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Serial",
                                      ngx_ssl_get_serial_number);
    ngx_mail_policy_auth_http_add_ssl(l, "Auth-SSL-Fingerprint",
                                      ngx_ssl_get_fingerprint);

    auth = l->auth;

    if (!ngx_mail_policy_auth_http_settings(auth)->pass_client_cert) {
        return;
    }

    if (ngx_ssl_get_raw_certificate(auth->client->connection, auth->pool,
                                    &raw)
        != NGX_OK
        || ngx_mail_policy_auth_http_escape(auth->pool, &raw, &cert)
           != NGX_OK)
    {
        l->rc = NGX_ERROR;
        return;
    }

    if (cert.len) {
        ngx_mail_policy_auth_http_add(l, "Auth-SSL-Cert", &cert);
    }
}


/* what cannot be sent makes the whole of it an error */

static void
ngx_mail_policy_auth_http_add(ngx_mail_policy_auth_http_lines_t *l,
    const char *name, ngx_str_t *value)
{
    ngx_mail_policy_auth_http_line_t  *line;

    if (l->rc != NGX_OK) {
        return;
    }

    if (!ngx_mail_policy_auth_http_clean(value)) {
        ngx_log_error(NGX_LOG_ERR, l->auth->log, 0,
                      "auth service cannot be told \"%s\": there are control "
                      "characters in it", name);
        l->rc = NGX_ERROR;
        return;
    }

    line = &l->lines[l->n++];

    line->name.data = (u_char *) name;
    line->name.len = ngx_strlen(name);
    line->value = *value;
}


static void
ngx_mail_policy_auth_http_add_text(ngx_mail_policy_auth_http_lines_t *l,
    const char *name, const char *value)
{
    ngx_str_t  text;

    text.data = (u_char *) value;
    text.len = ngx_strlen(value);

    ngx_mail_policy_auth_http_add(l, name, &text);
}


static void
ngx_mail_policy_auth_http_add_number(ngx_mail_policy_auth_http_lines_t *l,
    const char *name, ngx_uint_t n)
{
    ngx_str_t  text;

    text.data = ngx_pnalloc(l->auth->pool, NGX_INT_T_LEN);
    if (text.data == NULL) {
        l->rc = NGX_ERROR;
        return;
    }

    text.len = ngx_sprintf(text.data, "%ui", n) - text.data;

    ngx_mail_policy_auth_http_add(l, name, &text);
}


/* of two of them the length is not set */

static void
ngx_mail_policy_auth_http_add_ssl(ngx_mail_policy_auth_http_lines_t *l,
    const char *name, ngx_mail_policy_auth_http_ssl_pt get)
{
    ngx_str_t  value;

    ngx_str_null(&value);

    if (get(l->auth->client->connection, l->auth->pool, &value) != NGX_OK) {
        l->rc = NGX_ERROR;
        return;
    }

    if (value.data
        && (get == ngx_ssl_get_protocol || get == ngx_ssl_get_cipher_name))
    {
        value.len = ngx_strlen(value.data);
    }

    if (value.len) {
        ngx_mail_policy_auth_http_add(l, name, &value);
    }
}


static ngx_uint_t
ngx_mail_policy_auth_http_clean(ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] == 0x7f) {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_mail_policy_auth_http_escape(ngx_pool_t *pool, ngx_str_t *text,
    ngx_str_t *escaped)
{
    uintptr_t  n;

    *escaped = *text;

    n = ngx_escape_uri(NULL, text->data, text->len, NGX_ESCAPE_MAIL_AUTH);

    if (n == 0) {
        return NGX_OK;
    }

    escaped->len = text->len + 2 * n;

    escaped->data = ngx_pnalloc(pool, escaped->len);
    if (escaped->data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_escape_uri(escaped->data, text->data, text->len,
                          NGX_ESCAPE_MAIL_AUTH);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_http_write(ngx_mail_policy_auth_http_lines_t *l,
    ngx_str_t *uri, ngx_str_t *headers, ngx_str_t *request)
{
    u_char      *p;
    size_t       len;
    ngx_uint_t   i;

    len = sizeof("GET  HTTP/1.0" CRLF CRLF) - 1 + uri->len + headers->len;

    for (i = 0; i < l->n; i++) {
        len += l->lines[i].name.len + l->lines[i].value.len
               + sizeof(": " CRLF) - 1;
    }

    p = ngx_pnalloc(l->auth->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    request->data = p;

    p = ngx_sprintf(p, "GET %V HTTP/1.0" CRLF, uri);

    for (i = 0; i < l->n; i++) {
        p = ngx_sprintf(p, "%V: %V" CRLF, &l->lines[i].name,
                        &l->lines[i].value);
    }

    p = ngx_cpymem(p, headers->data, headers->len);

    *p++ = CR; *p++ = LF;

    request->len = p - request->data;

    return NGX_OK;
}
