
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "proxy_auth name password|file:/path", of a server or a group: what we log
 * in to relays with.  No events arrive here.
 *
 * No message shows a password.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_relay.h"


static ngx_int_t ngx_mail_policy_relay_login_file(ngx_conf_t *cf,
    ngx_str_t *name, ngx_str_t *password);


ngx_mail_policy_relay_login_t *
ngx_mail_policy_relay_login(ngx_conf_t *cf)
{
    ngx_str_t                      *value, file;
    ngx_mail_policy_relay_login_t  *login;

    value = cf->args->elts;

    login = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_relay_login_t));
    if (login == NULL) {
        return NULL;
    }

    login->user = value[1];
    login->password = value[2];

    if (!mpol_identity_valid(value[1].data, value[1].len)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" in \"proxy_auth\", write "
                           "\"proxy_auth name file:/path;\", the name in "
                           "UTF-8, without a space at either end, at most "
                           "%d octets", &value[1], MPOL_IDENTITY_MAX);
        return NULL;
    }

    if (value[2].len >= 5 && ngx_strncmp(value[2].data, "file:", 5) == 0) {
        file.data = value[2].data + 5;
        file.len = value[2].len - 5;

        if (file.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "no file in \"proxy_auth %V file:\", write "
                               "\"proxy_auth %V file:/path;\"",
                               &value[1], &value[1]);
            return NULL;
        }

        if (ngx_mail_policy_relay_login_file(cf, &file, &login->password)
            != NGX_OK)
        {
            return NULL;
        }
    }

    if (login->password.len == 0
        || login->password.len > MPOL_PASSWORD_MAX
        || !mpol_utf8_valid(login->password.data, login->password.len))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the password of \"proxy_auth %V\" is empty, too "
                           "long, or no UTF-8", &value[1]);
        return NULL;
    }

    login->cache = ngx_mail_policy_scram_cache_create(cf->pool);

    return login->cache ? login : NULL;
}


/* the first line of a file */

static ngx_int_t
ngx_mail_policy_relay_login_file(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *password)
{
    u_char    *p;
    ssize_t    n;
    ngx_fd_t   fd;
    u_char     buf[MPOL_PASSWORD_MAX + 2];

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", name);
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf));

    if (n == -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_read_fd_n " \"%V\" failed", name);
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_ALERT, cf, ngx_errno,
                           ngx_close_file_n " \"%V\" failed", name);
    }

    if (n == -1) {
        return NGX_ERROR;
    }

    p = ngx_strlchr(buf, buf + n, LF);

    if (p) {
        n = p - buf;
    }

    if (n && buf[n - 1] == CR) {
        n--;
    }

    password->len = n;
    password->data = ngx_pnalloc(cf->pool, n + 1);

    if (password->data) {
        ngx_memcpy(password->data, buf, n);
    }

    ngx_explicit_memzero(buf, sizeof(buf));

    return password->data ? NGX_OK : NGX_ERROR;
}
