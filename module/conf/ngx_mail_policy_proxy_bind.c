
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directive "proxy_bind address [transparent] | off".  No events arrive
 * here.
 *
 * A connection may serve several transactions of a session, so its address
 * depends on the client alone.
 */


#include "ngx_mail_policy_proxy.h"


static char *ngx_mail_policy_proxy_bind_address(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_str_t *value);


char *
ngx_mail_policy_proxy_bind(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_proxy_conf_t *pcf = conf;

    ngx_str_t  *value;

    if (pcf->bind_set) {
        return "is duplicate";
    }

    value = cf->args->elts;
    pcf->bind_set = 1;

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[2].data, "transparent") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", write "
                               "\"transparent\"", &value[2]);
            return NGX_CONF_ERROR;
        }

#if (NGX_HAVE_TRANSPARENT_PROXY)
        {
        ngx_core_conf_t  *ccf;

        /* workers keep the capability for it */

        ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                               ngx_core_module);
        ccf->transparent = 1;
        pcf->bind_transparent = 1;
        }
#else
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "transparent proxying is not supported on this "
                           "platform, remove \"transparent\"");
        return NGX_CONF_ERROR;
#endif

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_mail_policy_value_variables(&value[1])) {
        pcf->bind_value = ngx_palloc(cf->pool,
                                     sizeof(ngx_mail_policy_value_t));
        if (pcf->bind_value == NULL
            || ngx_mail_policy_value_compile(cf, &value[1], pcf->bind_value)
               != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    return ngx_mail_policy_proxy_bind_address(cf, pcf, &value[1]);
}


static char *
ngx_mail_policy_proxy_bind_address(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf, ngx_str_t *value)
{
    conf->bind = ngx_palloc(cf->pool, sizeof(ngx_addr_t));
    if (conf->bind == NULL) {
        return NGX_CONF_ERROR;
    }

    switch (ngx_parse_addr_port(cf->pool, conf->bind, value->data,
                                value->len))
    {

    case NGX_OK:
        conf->bind->name = *value;
        return NGX_CONF_OK;

    case NGX_DECLINED:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid address \"%V\", write an address of this "
                           "machine, or \"off\"", value);
        return NGX_CONF_ERROR;

    default:
        return NGX_CONF_ERROR;
    }
}


void
ngx_mail_policy_proxy_bind_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev)
{
    if (conf->bind_set) {
        return;
    }

    conf->bind_set = prev->bind_set;
    conf->bind = prev->bind;
    conf->bind_value = prev->bind_value;
    conf->bind_transparent = prev->bind_transparent;
}


ngx_int_t
ngx_mail_policy_proxy_bind_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf)
{
    ngx_mail_core_srv_conf_t  *cscf;

    conf->relay.bind = conf->bind;
    conf->relay.bind_value = conf->bind_value;
    conf->relay.bind_transparent = conf->bind_transparent;

    if (conf->bind_value == NULL) {
        return NGX_OK;
    }

    ngx_mail_policy_value_phase(conf->bind_value);

    if (conf->bind_value->phase == NGX_MAIL_POLICY_AT_CONNECT
        && conf->bind_value->lookups == 0)
    {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"proxy_bind %V\" is not known when a relay is connected "
                  "to: use variables of the connection, as $remote_addr, for "
                  "server in %s:%ui", &conf->bind_value->text,
                  cscf->file_name, cscf->line);

    return NGX_ERROR;
}
