
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "policy_auth": asks providers one after the other, then a thread.
 *
 * Events: a provider's answer (at once, or from the store), the thread's
 * verdict, and a posted event of our own, from which alone the handler is
 * called.
 *
 *     create -> begin (find below)
 *
 *     find -> answer: known ----------> crypt -> end -> finalize
 *      ^         |                        ^       ^
 *      +---------+ unknown, next provider |       |
 *                | unknown, it was the    |       |
 *                | last: dummy -----------+       |
 *                \ error -------------------------+
 *
 * ngx_mail_policy_auth_finalize() (after end) and _cancel() (in any state)
 * free the auth, nothing else does.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_provider.h"


struct ngx_mail_policy_auth_conf_s {
    ngx_array_t                providers;   /* ..._auth_provider_t */
    ngx_thread_pool_t         *thread_pool;
    ngx_mail_policy_store_t   *store;

    u_char                    *file;
    ngx_uint_t                 line;
};


static ngx_int_t ngx_mail_policy_auth_conf_provider(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_auth_conf_threads(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf);

static void ngx_mail_policy_auth_find(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_auth_dummy(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_auth_verify(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);
static void ngx_mail_policy_auth_crypt_handler(void *data, ngx_int_t rc);
static void ngx_mail_policy_auth_end(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc);
static void ngx_mail_policy_auth_event_handler(ngx_event_t *ev);
static void ngx_mail_policy_auth_finalize(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_auth_free(ngx_mail_policy_auth_t *auth);


ngx_mail_policy_auth_conf_t *
ngx_mail_policy_auth_conf(ngx_conf_t *cf, ngx_mail_policy_store_t *store)
{
    ngx_str_t                    *value;
    ngx_uint_t                    i;
    ngx_mail_policy_auth_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->store = store;
    conf->file = cf->conf_file->file.name.data;
    conf->line = cf->conf_file->line;

    if (ngx_array_init(&conf->providers, cf->pool, 2,
                       sizeof(ngx_mail_policy_auth_provider_t))
        != NGX_OK)
    {
        return NULL;
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        return conf;
    }

    if (ngx_mail_policy_auth_conf_threads(cf, conf) != NGX_OK) {
        return NULL;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_auth_conf_provider(cf, conf, &value[i])
            != NGX_OK)
        {
            return NULL;
        }
    }

    return conf;
}


static ngx_int_t
ngx_mail_policy_auth_conf_provider(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *value)
{
    ngx_str_t                         path;
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    if (ngx_strcmp(value->data, "off") == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"policy_auth off\" takes no providers");
        return NGX_ERROR;
    }

    provider = conf->providers.elts;

    for (i = 0; i < conf->providers.nelts; i++) {
        if (ngx_strcmp(provider[i].name.data, value->data) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate provider \"%V\" in \"policy_auth\"",
                               value);
            return NGX_ERROR;
        }
    }

    provider = ngx_array_push(&conf->providers);
    if (provider == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(provider, sizeof(ngx_mail_policy_auth_provider_t));

    provider->name = *value;

    if (ngx_strcmp(value->data, "redis") == 0) {
        return ngx_mail_policy_auth_redis(cf, conf->store, provider);
    }

    if (ngx_strncmp(value->data, "file:", 5) == 0 && value->len > 5) {
        path.data = value->data + 5;
        path.len = value->len - 5;

        return ngx_mail_policy_auth_file(cf, &path, provider);
    }

    if (ngx_strcmp(value->data, "relay") == 0
        || ngx_strncmp(value->data, "dovecot:", 8) == 0
        || ngx_strncmp(value->data, "http://", 7) == 0
        || ngx_strncmp(value->data, "https://", 8) == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\" of \"policy_auth\" is not "
                           "supported by this version, use \"redis\" or "
                           "\"file:/path\"", value);
        return NGX_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown provider \"%V\" in \"policy_auth\", "
                       "must be \"redis\", \"file:/path\" or \"off\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_auth_conf_threads(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf)
{
#if (NGX_THREADS)

    conf->thread_pool = ngx_thread_pool_add(cf, NULL);

    return conf->thread_pool ? NGX_OK : NGX_ERROR;

#else

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"policy_auth\" needs nginx built --with-threads");

    return NGX_ERROR;

#endif
}


ngx_uint_t
ngx_mail_policy_auth_off(ngx_mail_policy_auth_conf_t *conf)
{
    return conf->providers.nelts == 0;
}


ngx_int_t
ngx_mail_policy_auth_conf_init(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf)
{
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    provider = conf->providers.elts;

    for (i = 0; i < conf->providers.nelts; i++) {

        if (provider[i].records
            && !ngx_mail_policy_store_has_records(conf->store))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"policy_auth %V\" needs the directive "
                          "\"policy_redis\" in mail{}, in %s:%ui",
                          &provider[i].name, conf->file, conf->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_mail_policy_auth_t *
ngx_mail_policy_auth_create(ngx_mail_policy_auth_conf_t *conf,
    ngx_str_t *login, ngx_str_t *password, ngx_log_t *log,
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
        goto failed;
    }

    auth->pool = pool;
    auth->conf = conf;
    auth->log = log;
    auth->handler = handler;
    auth->data = data;

    auth->event.data = auth;
    auth->event.handler = ngx_mail_policy_auth_event_handler;
    auth->event.log = ngx_cycle->log;

    auth->login.len = login->len;
    auth->login.data = ngx_pstrdup(pool, login);
    if (auth->login.data == NULL) {
        goto failed;
    }

    auth->password.len = password->len;
    auth->password.data = ngx_pstrdup(pool, password);
    if (auth->password.data == NULL) {
        goto failed;
    }

    return auth;

failed:

    /* the password is the last to be copied */

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_mail_policy_auth_begin(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_auth_find(auth);
}


static void
ngx_mail_policy_auth_find(ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_auth_provider_t  *provider;

    if (auth->current == auth->conf->providers.nelts) {
        ngx_mail_policy_auth_dummy(auth);
        return;
    }

    provider = auth->conf->providers.elts;
    provider += auth->current;

    auth->provider = provider;

    provider->find(auth, provider->data);
}


void
ngx_mail_policy_auth_answer(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    ngx_str_t *hash)
{
    switch (rc) {

    case NGX_OK:
        ngx_mail_policy_auth_verify(auth, hash);
        return;

    case NGX_DECLINED:
        auth->current++;
        ngx_mail_policy_auth_find(auth);
        return;

    default: /* NGX_ERROR */
        ngx_mail_policy_auth_end(auth, NGX_ERROR);
        return;
    }
}


/*
 * Nobody knows the login.  It is made to look like one of a provider that
 * depends on the login alone: asked twice, it takes the same time twice.
 */

static void
ngx_mail_policy_auth_dummy(ngx_mail_policy_auth_t *auth)
{
    ngx_str_t                         hash;
    ngx_uint_t                        n;
    ngx_mail_policy_auth_provider_t  *provider;

    auth->refuse = 1;

    n = auth->conf->providers.nelts;

    if (n == 0) {
        ngx_mail_policy_auth_end(auth, NGX_DECLINED);
        return;
    }

    provider = auth->conf->providers.elts;
    provider += ngx_murmur_hash2(auth->login.data, auth->login.len) % n;

    provider->dummy(provider->data, &auth->login, &hash);

    ngx_mail_policy_auth_verify(auth, &hash);
}


static void
ngx_mail_policy_auth_verify(ngx_mail_policy_auth_t *auth, ngx_str_t *hash)
{
    auth->crypt = ngx_mail_policy_crypt_start(auth->conf->thread_pool, hash,
                                         &auth->password, auth->log,
                                         ngx_mail_policy_auth_crypt_handler,
                                         auth);

    if (auth->crypt == NULL) {
        ngx_mail_policy_auth_end(auth, NGX_ERROR);
    }
}


static void
ngx_mail_policy_auth_crypt_handler(void *data, ngx_int_t rc)
{
    ngx_mail_policy_auth_t *auth = data;

    auth->crypt = NULL;

    if (rc == NGX_OK && auth->refuse) {
        rc = NGX_DECLINED;
    }

    ngx_mail_policy_auth_end(auth, rc);
}


static void
ngx_mail_policy_auth_end(ngx_mail_policy_auth_t *auth, ngx_int_t rc)
{
    auth->rc = rc;

    ngx_post_event(&auth->event, &ngx_posted_events);
}


static void
ngx_mail_policy_auth_event_handler(ngx_event_t *ev)
{
    ngx_mail_policy_auth_finalize(ev->data);
}


static void
ngx_mail_policy_auth_finalize(ngx_mail_policy_auth_t *auth)
{
    ngx_pool_t  *pool;

    /* the handler may close the session, and its log with it */

    pool = auth->pool;

    ngx_explicit_memzero(auth->password.data, auth->password.len);

    auth->handler(auth->data, auth->rc, &auth->senders);

    ngx_destroy_pool(pool);
}


void
ngx_mail_policy_auth_cancel(ngx_mail_policy_auth_t *auth)
{
    if (auth->lookup) {
        auth->provider->cancel(auth);
    }

    if (auth->crypt) {
        ngx_mail_policy_crypt_cancel(auth->crypt);
    }

    if (auth->event.posted) {
        ngx_delete_posted_event(&auth->event);
    }

    ngx_mail_policy_auth_free(auth);
}


static void
ngx_mail_policy_auth_free(ngx_mail_policy_auth_t *auth)
{
    ngx_explicit_memzero(auth->password.data, auth->password.len);

    ngx_destroy_pool(auth->pool);
}
