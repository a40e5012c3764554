
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A server with "protocol policy": what of the configuration it has.
 *
 * The directive is nginx's own, which finds our protocol by its name; so
 * nothing of ours runs while it is read.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"

#include "ngx_mail_policy_postfix.h"


extern ngx_module_t  ngx_mail_module;


static const char *ngx_mail_policy_protocol_foreign(
    ngx_mail_policy_srv_conf_t *conf);
static ngx_int_t ngx_mail_policy_protocol_logs(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_srv_conf_t *prev);
static ngx_uint_t ngx_mail_policy_protocol_asks(
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_main_conf_t *mcf);


/*
 * nginx asks for an "auth_http" in each server, and does so before we are
 * asked.  There is one for all of mail{} from the beginning; whether a server
 * of another protocol lives on it is looked at when that is merged.
 */

ngx_int_t
ngx_mail_policy_protocol_auth_http(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf)
{
    void        *ctx;
    ngx_int_t    rc;
    ngx_uint_t   type;

    ctx = cf->ctx;
    type = cf->cmd_type;

    /* confs of mail{} are still being made, those of stock modules are there */

    cf->ctx = (void *) ngx_get_conf(cf->cycle->conf_ctx, ngx_mail_module);
    cf->cmd_type = NGX_MAIL_MAIN_CONF;

    rc = ngx_mail_policy_stock_auth_http(cf, mcf);

    cf->ctx = ctx;
    cf->cmd_type = type;

    return rc;
}


ngx_uint_t
ngx_mail_policy_protocol_is(ngx_mail_core_srv_conf_t *cscf)
{
    return cscf->protocol == &ngx_mail_policy_postfix_protocol;
}


ngx_int_t
ngx_mail_policy_protocol_check(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf)
{
    return ngx_mail_policy_protocol_refuse(cf,
                                      ngx_mail_policy_protocol_foreign(conf));
}


ngx_int_t
ngx_mail_policy_protocol_refuse(ngx_conf_t *cf, const char *name)
{
    ngx_mail_core_srv_conf_t  *cscf;

    if (name == NULL) {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"%s\" is for sessions of SMTP: write it in a server with "
                  "\"protocol smtp\", and not in one with \"protocol policy\", "
                  "for server in %s:%ui",
                  name, cscf->file_name, cscf->line);

    return NGX_ERROR;
}


/* a directive in the server itself; what stands above it is for others */

static const char *
ngx_mail_policy_protocol_foreign(ngx_mail_policy_srv_conf_t *conf)
{
    return conf->policy == 1 ? "policy"
         : conf->auth ? "policy_auth"
         : conf->auth_plaintext != NGX_CONF_UNSET ? "policy_auth_plaintext"
         : conf->auth_methods ? "policy_auth_methods"
         : conf->auth_delay != NGX_CONF_UNSET_MSEC ? "policy_auth_delay"
         : conf->auth_cache != NGX_CONF_UNSET_MSEC ? "policy_auth_cache"
         : conf->sender_own != NGX_CONF_UNSET_UINT ? "policy_sender"
         : conf->services || conf->services_off ? "policy_service"
         : conf->relay.len ? "proxy_pass"
         : conf->message_size != NGX_CONF_UNSET_SIZE ? "policy_message_size"
         : conf->max_recipients != NGX_CONF_UNSET_UINT
           ? "policy_max_recipients"
         : conf->max_messages != NGX_CONF_UNSET_UINT ? "policy_max_messages"
         : conf->normalize != NGX_CONF_UNSET_UINT ? "policy_bare_newline"
         : conf->received != NGX_CONF_UNSET_UINT ? "policy_received"
         : conf->min_data_rate != NGX_CONF_UNSET_SIZE ? "policy_min_data_rate"
         : NULL;
}


ngx_int_t
ngx_mail_policy_protocol_alone(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf)
{
    const char                *name;
    ngx_mail_core_srv_conf_t  *cscf;

    name = conf->edge ? "policy_edge"
         : conf->action ? "policy_action"
         : conf->clients ? "policy_clients"
         : conf->socket ? "policy_socket_mode"
         : NULL;

    if (name == NULL) {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"%s\" is for the questions of Postfix: write it in a "
                  "server with \"protocol policy\", for server in %s:%ui",
                  name, cscf->file_name, cscf->line);

    return NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_protocol_merge(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_srv_conf_t *prev,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_mail_core_srv_conf_t  *cscf;

    /* the modules of the SMTP proxy pass by this server */

    conf->policy = 0;
    conf->services = NULL;

    if (ngx_mail_policy_protocol_logs(cf, conf, prev) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_limit_init(cf, conf, mcf) != NGX_OK
        || ngx_mail_policy_action_init(cf, conf, mcf) != NGX_OK
        || ngx_mail_policy_socket_init(cf, conf, mcf,
                                       conf->socket != prev->socket)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!ngx_mail_policy_protocol_asks(conf, mcf)) {
        cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"protocol policy\" has no limits to ask: write a "
                      "\"policy_limit\" with \"messages=\", \"recipients=\" "
                      "or \"bytes=\" for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    ngx_mail_policy_access_log_init(conf, mcf);

    mcf->postfix_seen = ngx_mail_policy_postfix_seen_add(cf,
                                                     &ngx_mail_policy_module);

    return mcf->postfix_seen ? NGX_OK : NGX_ERROR;
}


/*
 * Questions are in logs of their own: those of mail{} have a line for each
 * transaction, and for nothing else.
 */

static ngx_int_t
ngx_mail_policy_protocol_logs(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_srv_conf_t *prev)
{
    ngx_uint_t                     i;
    ngx_mail_core_srv_conf_t      *cscf;
    ngx_mail_policy_access_log_t  *log;

    if (conf->access_logs == NULL || conf->access_logs == prev->access_logs) {
        conf->access_logs = NULL;
        return NGX_OK;
    }

    log = conf->access_logs->elts;

    for (i = 0; i < conf->access_logs->nelts; i++) {

        if (log[i].postfix) {
            cscf = ngx_mail_conf_get_module_srv_conf(cf,
                                                     ngx_mail_core_module);

            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "the log format \"postfix\" has no lines for the "
                          "questions of Postfix, which logs what becomes of "
                          "them: write \"json\", or a format of your own, "
                          "for server in %s:%ui",
                          cscf->file_name, cscf->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* 1 if one of its limits is for messages, be it in Redis only */

static ngx_uint_t
ngx_mail_policy_protocol_asks(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                i, units;
    ngx_mail_policy_limit_t  *limit;

    if (conf->limits == NULL) {
        return 0;
    }

    limit = conf->limits->elts;
    units = ngx_mail_policy_store_has_records(mcf->store);

    for (i = 0; i < conf->limits->nelts; i++) {
        units |= limit[i].units
                 & (ngx_mail_policy_asked(NGX_MAIL_POLICY_MESSAGES)
                    | ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS)
                    | ngx_mail_policy_asked(NGX_MAIL_POLICY_BYTES));
    }

    return units != 0;
}
