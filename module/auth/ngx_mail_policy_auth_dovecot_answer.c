
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What Dovecot says of a login, as it goes to auth->told.  No events arrive
 * here.
 *
 *     OK     user                its name, which may not be as it was given
 *            senders             addresses that it may send from
 *            host, port          the relay of its mails
 *            nologin, reason     right, and all the same it may not log in
 *     FAIL   code, reason
 *
 * The client is told a reason where Dovecot says that the login is disabled
 * or that its password has expired.  Without a reason it gets the usual reply:
 * accounts of the system are called disabled before a password was looked at.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "mpol_sender.h"
#include "mpol_text.h"
#include "ngx_mail_policy_auth_dovecot.h"


/* seconds between two complaints */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_LOG     60

/* octets of a reason, and of a host, that are taken */
#define NGX_MAIL_POLICY_AUTH_DOVECOT_REASON  200
#define NGX_MAIL_POLICY_AUTH_DOVECOT_HOST    255


static ngx_int_t ngx_mail_policy_auth_dovecot_senders(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args);
static ngx_int_t ngx_mail_policy_auth_dovecot_relay(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args);
static ngx_int_t ngx_mail_policy_auth_dovecot_host(ngx_str_t *host,
    ngx_uint_t *ipv6);
static ngx_uint_t ngx_mail_policy_auth_dovecot_code(mpol_str_t *args,
    const char *name);
static ngx_int_t ngx_mail_policy_auth_dovecot_refuse(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args,
    const char *text);
static ngx_int_t ngx_mail_policy_auth_dovecot_arg(
    ngx_mail_policy_auth_dovecot_ctx_t *ctx, mpol_str_t *args,
    const char *name, ngx_str_t *value);


ngx_int_t
ngx_mail_policy_auth_dovecot_ok(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args)
{
    ngx_int_t                     rc;
    ngx_str_t                     user;
    mpol_str_t                    value;
    ngx_mail_policy_auth_told_t  *told;

    told = &ctx->auth->told;

    rc = ngx_mail_policy_auth_dovecot_arg(ctx, args, "user", &user);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED || !mpol_identity_valid(user.data, user.len)) {
        ngx_mail_policy_auth_dovecot_error(ctx, "accepts login \"%V\", but "
                                           "has no usable name for it",
                                           &ctx->auth->login);
        return NGX_ERROR;
    }

    /* the password is right, and all the same it may not log in */

    if (mpol_dovecot_get(args, "nologin", &value)) {
        return ngx_mail_policy_auth_dovecot_refuse(ctx, args,
                                                   "Login is not allowed");
    }

    if (ngx_mail_policy_auth_dovecot_senders(ctx, args) != NGX_OK
        || ngx_mail_policy_auth_dovecot_relay(ctx, args) != NGX_OK)
    {
        return NGX_ERROR;
    }

    told->login = user;

    return NGX_OK;
}


/* a list that is too long owns nothing: the login has its own address */

static ngx_int_t
ngx_mail_policy_auth_dovecot_senders(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args)
{
    ngx_int_t  rc;
    ngx_str_t  senders;

    rc = ngx_mail_policy_auth_dovecot_arg(ctx, args, "senders", &senders);

    if (rc != NGX_OK) {
        return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
    }

    switch (mpol_senders_check(senders.data, senders.len)) {

    case MPOL_SENDERS_LONG:
        ngx_mail_policy_auth_dovecot_error(ctx,
                        "has too many senders of login \"%V\": at most "
                        NGX_MAIL_POLICY_SENDERS_BOUNDS ", none is used",
                        &ctx->auth->login);
        return NGX_OK;

    case MPOL_SENDERS_ENTRY:
        ngx_mail_policy_auth_dovecot_error(ctx,
                        "has a sender of login \"%V\" that is neither an "
                        "address nor \"@domain\", it is skipped",
                        &ctx->auth->login);
        break;

    default: /* MPOL_OK */
        break;
    }

    ctx->auth->told.senders = senders;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_dovecot_relay(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args)
{
    u_char      *p;
    ngx_int_t    rc, n;
    ngx_str_t    host, port, *relay;
    ngx_uint_t   ipv6;

    rc = ngx_mail_policy_auth_dovecot_arg(ctx, args, "host", &host);

    if (rc == NGX_DECLINED || (rc == NGX_OK && host.len == 0)) {
        return NGX_OK;
    }

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_auth_dovecot_arg(ctx, args, "port", &port);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    n = 25;

    if (rc == NGX_OK) {
        n = ngx_atoi(port.data, port.len);
    }

    if (n < 1
        || n > 65535
        || ngx_mail_policy_auth_dovecot_host(&host, &ipv6) != NGX_OK)
    {
        ngx_mail_policy_auth_dovecot_error(ctx,
                        "has \"host\" or \"port\" of login \"%V\" that are "
                        "none", &ctx->auth->login);
        return NGX_ERROR;
    }

    p = ngx_pnalloc(ctx->auth->pool, host.len + sizeof("[]:65535") - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    relay = &ctx->auth->told.relay;

    relay->data = p;
    relay->len = ngx_sprintf(p, ipv6 ? "[%V]:%i" : "%V:%i", &host, n) - p;

    return NGX_OK;
}


/* an address, or what may be the name of a host */

static ngx_int_t
ngx_mail_policy_auth_dovecot_host(ngx_str_t *host, ngx_uint_t *ipv6)
{
    u_char   ch;
    size_t   i;
    u_char   addr[16];

    *ipv6 = 0;

#if (NGX_HAVE_INET6)

    if (ngx_inet6_addr(host->data, host->len, addr) == NGX_OK) {
        *ipv6 = 1;
        return NGX_OK;
    }

#endif

    if (host->len > NGX_MAIL_POLICY_AUTH_DOVECOT_HOST
        || host->data[0] == '-'
        || host->data[0] == '.')
    {
        return NGX_DECLINED;
    }

    for (i = 0; i < host->len; i++) {
        ch = ngx_tolower(host->data[i]);

        if ((ch < 'a' || ch > 'z') && (ch < '0' || ch > '9')
            && ch != '-' && ch != '.')
        {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


/* Dovecot before 2.3 has no "code", but the words alone */

ngx_int_t
ngx_mail_policy_auth_dovecot_fail(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args)
{
    mpol_str_t  value;

    if (mpol_dovecot_get(args, "temp", &value)
        || ngx_mail_policy_auth_dovecot_code(args, "temp_fail"))
    {
        return NGX_ERROR;
    }

    if (mpol_dovecot_get(args, "user_disabled", &value)
        || mpol_dovecot_get(args, "pass_expired", &value)
        || ngx_mail_policy_auth_dovecot_code(args, "user_disabled")
        || ngx_mail_policy_auth_dovecot_code(args, "pass_expired"))
    {
        return ngx_mail_policy_auth_dovecot_refuse(ctx, args, NULL);
    }

    return NGX_DECLINED;
}


static ngx_uint_t
ngx_mail_policy_auth_dovecot_code(mpol_str_t *args, const char *name)
{
    mpol_str_t  code;

    return mpol_dovecot_get(args, "code", &code)
           && code.len == ngx_strlen(name)
           && ngx_memcmp(code.data, name, code.len) == 0;
}


/* text: if Dovecot gives no reason; NULL: the usual reply then */

static ngx_int_t
ngx_mail_policy_auth_dovecot_refuse(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args, const char *text)
{
    u_char     *p;
    ngx_int_t   rc;
    ngx_str_t   reason, *reply;

    rc = ngx_mail_policy_auth_dovecot_arg(ctx, args, "reason", &reason);

    if (rc != NGX_OK || reason.len == 0) {

        if (text == NULL) {
            return NGX_DECLINED;
        }

        reason.data = (u_char *) text;
        reason.len = ngx_strlen(text);
    }

    reason.len = ngx_min(reason.len, NGX_MAIL_POLICY_AUTH_DOVECOT_REASON);

    p = ngx_pnalloc(ctx->auth->pool, sizeof("535 5.7.13 ") - 1 + reason.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    reply = &ctx->auth->told.reply;

    reply->data = p;
    p = ngx_cpymem(p, "535 5.7.13 ", sizeof("535 5.7.13 ") - 1);
    mpol_reply_clean(reason.data, reason.len, p);
    reply->len = p + reason.len - reply->data;

    ngx_log_error(NGX_LOG_INFO, ctx->auth->log, 0,
                  "login \"%V\" is not allowed by Dovecot",
                  &ctx->auth->login);

    return NGX_DECLINED;
}


/* a copy on the auth's pool; NGX_DECLINED: there is none */

static ngx_int_t
ngx_mail_policy_auth_dovecot_arg(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    mpol_str_t *args, const char *name, ngx_str_t *value)
{
    mpol_str_t  escaped;

    if (!mpol_dovecot_find(args, name, ngx_strlen(name), &escaped)
        || escaped.data == NULL)
    {
        return NGX_DECLINED;
    }

    value->data = ngx_pnalloc(ctx->auth->pool, escaped.len + 1);
    if (value->data == NULL) {
        return NGX_ERROR;
    }

    if (mpol_dovecot_unescape(escaped.data, escaped.len, value->data,
                              &value->len)
        != MPOL_OK)
    {
        ngx_mail_policy_auth_dovecot_error(ctx, "answers login \"%V\" with an "
                                           "escape that is cut off",
                                           &ctx->auth->login);
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_mail_policy_auth_dovecot_error(ngx_mail_policy_auth_dovecot_ctx_t *ctx,
    const char *what, ngx_str_t *name)
{
    time_t   now;
    u_char  *p, text[NGX_MAX_ERROR_STR];

    now = ngx_time();

    if (ctx->conf->logged
        && now - ctx->conf->logged < NGX_MAIL_POLICY_AUTH_DOVECOT_LOG)
    {
        return;
    }

    ctx->conf->logged = now;

    p = ngx_snprintf(text, NGX_MAX_ERROR_STR, what, name);

    ngx_log_error(NGX_LOG_ERR, ctx->auth->log, 0, "Dovecot at %V %*s",
                  &ctx->conf->service->current->name, (size_t) (p - text),
                  text);
}
