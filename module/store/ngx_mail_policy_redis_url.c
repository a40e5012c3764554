
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The URLs of policy_redis.  No events arrive here.
 *
 *     redis://[user:password@]host[:port][/db]
 *     rediss://...                               the same, with TLS
 *     unix:/path
 *
 * Several are the Sentinels, or nodes of the cluster.  User, password and
 * database are those of the first that has them, for all; the others have
 * the same or none.  All are with TLS, or none.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_store_conf.h"


#define NGX_MAIL_POLICY_REDIS_PORT           6379
#define NGX_MAIL_POLICY_REDIS_SENTINEL_PORT  26379

#define NGX_MAIL_POLICY_REDIS_FORM                                           \
    "write \"redis://[user:password@]host[:port][/db]\", "                   \
    "\"rediss://...\" or \"unix:/path\""


/* what one says */
typedef struct {
    ngx_str_t   user;
    ngx_str_t   password;
    ngx_int_t   db;                     /* NGX_ERROR: none */
    ngx_str_t   server;                 /* host[:port] or unix:/path */
    unsigned    tls:1;
    unsigned    local:1;
} ngx_mail_policy_redis_url_t;


static const char *ngx_mail_policy_redis_url_parse(ngx_conf_t *cf,
    ngx_mail_policy_redis_url_t *url, ngx_str_t *text);
static const char *ngx_mail_policy_redis_userinfo(ngx_conf_t *cf,
    ngx_mail_policy_redis_url_t *url, u_char *p, u_char *last);
static ngx_int_t ngx_mail_policy_redis_unescape(ngx_pool_t *pool,
    ngx_str_t *out, u_char *p, u_char *last);
static const char *ngx_mail_policy_redis_url_merge(
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_redis_url_t *url,
    ngx_uint_t first);
static const char *ngx_mail_policy_redis_url_resolve(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_redis_url_t *url);
static const char *ngx_mail_policy_redis_url_name(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_redis_url_t *url);
static ngx_uint_t ngx_mail_policy_redis_same(ngx_str_t *a, ngx_str_t *b);


const char *
ngx_mail_policy_redis_urls(ngx_conf_t *cf, ngx_mail_policy_redis_t *redis,
    ngx_str_t *urls, ngx_uint_t n)
{
    ngx_uint_t                   i;
    const char                  *text;
    ngx_mail_policy_redis_url_t  url, first;

    if (redis->sentinel.len && redis->cluster) {
        return "the servers are Sentinels or a cluster, write \"sentinel=\" "
               "or \"cluster\"";
    }

    if (n > 1 && redis->sentinel.len == 0 && !redis->cluster) {
        return "there are several, write \"sentinel=name\" if they are "
               "Sentinels, \"cluster\" if they are nodes of a cluster";
    }

    if (ngx_array_init(&redis->addrs, cf->pool, n,
                       sizeof(ngx_mail_policy_redis_addr_t))
        != NGX_OK)
    {
        return "no memory";
    }

    for (i = 0; i < n; i++) {

        text = ngx_mail_policy_redis_url_parse(cf, &url, &urls[i]);

        if (text == NULL) {
            text = ngx_mail_policy_redis_url_merge(redis, &url, i == 0);
        }

        if (text == NULL) {
            text = ngx_mail_policy_redis_url_resolve(cf, redis, &url);
        }

        if (text) {
            return text;
        }

        if (i == 0) {
            first = url;
        }
    }

    if (redis->cluster && redis->db) {
        return "a cluster has no databases, leave out the number";
    }

    return ngx_mail_policy_redis_url_name(cf, redis, &first);
}


/* NULL, or what is wrong */

static const char *
ngx_mail_policy_redis_url_parse(ngx_conf_t *cf,
    ngx_mail_policy_redis_url_t *url, ngx_str_t *text)
{
    u_char  *p, *at, *last, *slash;

    ngx_memzero(url, sizeof(ngx_mail_policy_redis_url_t));
    url->db = NGX_ERROR;

    p = text->data;
    last = text->data + text->len;

    if (text->len > 6 && ngx_strncasecmp(p, (u_char *) "unix:/", 6) == 0) {
        url->server = *text;
        url->local = 1;
        return NULL;
    }

    if (text->len > 8 && ngx_strncasecmp(p, (u_char *) "redis://", 8) == 0) {
        p += 8;

    } else if (text->len > 9
               && ngx_strncasecmp(p, (u_char *) "rediss://", 9) == 0)
    {
        p += 9;
        url->tls = 1;

    } else {
        return NGX_MAIL_POLICY_REDIS_FORM;
    }

    slash = ngx_strlchr(p, last, '/');

    if (slash) {
        url->db = (last - slash == 1) ? 0
                                      : ngx_atoi(slash + 1, last - slash - 1);

        if (url->db == NGX_ERROR) {
            return "what follows the host is no database number, "
                   NGX_MAIL_POLICY_REDIS_FORM ", and \"%2F\" for a \"/\" "
                   "in the password";
        }

        last = slash;
    }

    for (at = last; at > p && at[-1] != '@'; at--) { /* void */ }

    url->server.data = at;
    url->server.len = last - at;

    if (at == p) {
        return NULL;
    }

    return ngx_mail_policy_redis_userinfo(cf, url, p, at - 1);
}


static const char *
ngx_mail_policy_redis_userinfo(ngx_conf_t *cf,
    ngx_mail_policy_redis_url_t *url, u_char *p, u_char *last)
{
    u_char  *colon;

    colon = ngx_strlchr(p, last, ':');

    if (colon == NULL) {
        return "is it a user or a password before the \"@\"? write "
               "\"redis://user:password@...\" or \"redis://:password@...\"";
    }

    if (ngx_mail_policy_redis_unescape(cf->pool, &url->user, p, colon)
        != NGX_OK
        || ngx_mail_policy_redis_unescape(cf->pool, &url->password,
                                          colon + 1, last)
           != NGX_OK)
    {
        return "a \"%\" in user and password begins two hexadecimal digits, "
               "write \"%25\" for itself";
    }

    if (url->password.len == 0) {
        return "the password is empty, write \"redis://host...\" for none";
    }

    return NULL;
}


/* the result is NUL-terminated, too */

static ngx_int_t
ngx_mail_policy_redis_unescape(ngx_pool_t *pool, ngx_str_t *out, u_char *p,
    u_char *last)
{
    u_char     *dst;
    ngx_int_t   n;

    out->data = ngx_pnalloc(pool, last - p + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    for (dst = out->data; p < last; p++) {

        if (*p != '%') {
            *dst++ = *p;
            continue;
        }

        if (last - p < 3) {
            return NGX_ERROR;
        }

        n = ngx_hextoi(p + 1, 2);

        if (n == NGX_ERROR || n == 0) {
            return NGX_ERROR;
        }

        *dst++ = (u_char) n;
        p += 2;
    }

    *dst = '\0';
    out->len = dst - out->data;

    return NGX_OK;
}


static const char *
ngx_mail_policy_redis_url_merge(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_url_t *url, ngx_uint_t first)
{
    if (url->local && (redis->sentinel.len || redis->cluster)) {
        return "Sentinels and nodes of a cluster have addresses, write "
               "\"redis://host\"";
    }

    if (first) {
        redis->tls = url->tls;

    } else if (redis->tls != url->tls) {
        return "some are with TLS and some are not, write \"rediss://\" in "
               "all of them or in none";
    }

    if (url->password.len && redis->password.len == 0) {
        redis->user = url->user;
        redis->password = url->password;

    } else if (url->password.len
               && (!ngx_mail_policy_redis_same(&redis->user, &url->user)
                   || !ngx_mail_policy_redis_same(&redis->password,
                                                  &url->password)))
    {
        return "users or passwords differ, write one for all";
    }

    if (url->db == NGX_ERROR) {
        return NULL;
    }

    if (redis->db_set && (ngx_uint_t) url->db != redis->db) {
        return first ? "the database is set twice, leave out \"db=\""
                     : "databases differ, write one for all";
    }

    redis->db = url->db;
    redis->db_set = 1;

    return NULL;
}


static ngx_uint_t
ngx_mail_policy_redis_same(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


static const char *
ngx_mail_policy_redis_url_resolve(ngx_conf_t *cf,
    ngx_mail_policy_redis_t *redis, ngx_mail_policy_redis_url_t *url)
{
    u_char                        *p;
    ngx_url_t                      u;
    ngx_str_t                      host;
    ngx_uint_t                     i;
    ngx_mail_policy_redis_addr_t  *addr;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = url->server;
    u.default_port = redis->sentinel.len ? NGX_MAIL_POLICY_REDIS_SENTINEL_PORT
                                         : NGX_MAIL_POLICY_REDIS_PORT;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {

        p = ngx_pnalloc(cf->pool, 256);
        if (p == NULL) {
            return "no memory";
        }

        (void) ngx_snprintf(p, 256, "%s, " NGX_MAIL_POLICY_REDIS_FORM "%Z",
                            u.err ? u.err : "no address");

        return (char *) p;
    }

    ngx_str_null(&host);

    if (!url->local) {
        host = u.host;

        /* an IPv6 address without its brackets */

        if (host.len > 2 && host.data[0] == '[') {
            host.data++;
            host.len -= 2;
        }

        p = ngx_pnalloc(cf->pool, host.len + 1);
        if (p == NULL) {
            return "no memory";
        }

        ngx_cpystrn(p, host.data, host.len + 1);
        host.data = p;
    }

    for (i = 0; i < u.naddrs; i++) {
        addr = ngx_array_push(&redis->addrs);
        if (addr == NULL) {
            return "no memory";
        }

        addr->sockaddr = u.addrs[i].sockaddr;
        addr->socklen = u.addrs[i].socklen;
        addr->name = u.addrs[i].name;
        addr->host = host;
    }

    if (redis->host.len == 0) {
        redis->host = host;
    }

    return NULL;
}


/* for the log */

static const char *
ngx_mail_policy_redis_url_name(ngx_conf_t *cf, ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_url_t *url)
{
    u_char  *p;

    p = ngx_pnalloc(cf->pool, sizeof("rediss:// db=") + NGX_INT_T_LEN
                              + url->server.len + redis->sentinel.len);
    if (p == NULL) {
        return "no memory";
    }

    redis->name.data = p;

    if (redis->sentinel.len) {
        p = ngx_sprintf(p, "sentinel=%V", &redis->sentinel);

    } else {
        p = ngx_sprintf(p, "%s%V",
                        url->local ? "" : url->tls ? "rediss://" : "redis://",
                        &url->server);

        if (redis->db) {
            p = ngx_sprintf(p, url->local ? " db=%ui" : "/%ui", redis->db);
        }
    }

    redis->name.len = p - redis->name.data;

    return NULL;
}
