
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "policy_auth off | provider...".  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_provider.h"


static ngx_int_t ngx_mail_policy_auth_conf_provider(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_auth_conf_kind(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider);
static ngx_int_t ngx_mail_policy_auth_conf_threads(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf);


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

    if (ngx_mail_policy_auth_conf_kind(cf, conf, value, provider) != NGX_OK) {
        return NGX_ERROR;
    }

    conf->methods |= provider->methods;
    conf->routes |= provider->routes;
    conf->passwords |= provider->passwords;
    conf->asks |= provider->asks;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_conf_kind(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    if (ngx_strcmp(value->data, "redis") == 0) {
        return ngx_mail_policy_auth_redis(cf, conf->store, provider);
    }

    if (ngx_strncmp(value->data, "file:", 5) == 0 && value->len > 5) {
        return ngx_mail_policy_auth_file(cf, value, provider);
    }

    if (ngx_strncmp(value->data, "http://", 7) == 0
        || ngx_strncmp(value->data, "https://", 8) == 0)
    {
        return ngx_mail_policy_auth_http(cf, value, provider);
    }

    if (ngx_strncmp(value->data, "jwt:", 4) == 0) {
        return ngx_mail_policy_auth_jwt(cf, value, provider);
    }

    if (ngx_strcmp(value->data, "relay") == 0) {
        return ngx_mail_policy_auth_relay(cf, provider);
    }

    if (ngx_strncmp(value->data, "dovecot:", 8) == 0) {
        return ngx_mail_policy_auth_dovecot(cf, value, provider);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown provider \"%V\" in \"policy_auth\", "
                       "must be \"redis\", \"file:/path\", "
                       "\"dovecot:unix:/path\", \"http://host/uri\", "
                       "\"jwt:name\", \"relay\" or \"off\"", value);

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


ngx_uint_t
ngx_mail_policy_auth_routes(ngx_mail_policy_auth_conf_t *conf)
{
    return conf->routes;
}


ngx_uint_t
ngx_mail_policy_auth_passwords(ngx_mail_policy_auth_conf_t *conf)
{
    return conf->passwords;
}


ngx_uint_t
ngx_mail_policy_auth_asks(ngx_mail_policy_auth_conf_t *conf)
{
    return conf->asks;
}


ngx_uint_t
ngx_mail_policy_auth_served(ngx_mail_policy_auth_conf_t *conf)
{
    return conf->methods;
}


ngx_int_t
ngx_mail_policy_auth_conf_init(ngx_conf_t *cf,
    ngx_mail_policy_auth_conf_t *conf)
{
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    provider = conf->providers.elts;

    for (i = 0; i < conf->providers.nelts; i++) {

        if (provider[i].redis
            && !ngx_mail_policy_store_has_records(conf->store))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"policy_auth %V\" needs the directive "
                          "\"policy_redis\" in mail{}, in %s:%ui",
                          &provider[i].name, conf->file, conf->line);
            return NGX_ERROR;
        }

        if (provider[i].init
            && provider[i].init(cf, provider[i].data) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_mail_policy_auth_exit(ngx_mail_policy_auth_conf_t *conf)
{
    ngx_uint_t                        i;
    ngx_mail_policy_auth_provider_t  *provider;

    provider = conf->providers.elts;

    for (i = 0; i < conf->providers.nelts; i++) {
        if (provider[i].exit) {
            provider[i].exit(provider[i].data);
        }
    }
}
