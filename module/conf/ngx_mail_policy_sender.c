
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directive "policy_sender": whether a login sends as whom it likes, or
 * with its own addresses only.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


char *
ngx_mail_policy_sender(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t  *value;

    if (pscf->sender_own != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "any") == 0) {
        pscf->sender_own = 0;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "own") == 0) {
        pscf->sender_own = 1;
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\", write \"any\" or \"own\"",
                       &value[1]);

    return NGX_CONF_ERROR;
}


/* without logins, "own" would be nobody's, and all mail refused */

ngx_int_t
ngx_mail_policy_sender_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf)
{
    ngx_mail_core_srv_conf_t  *cscf;

    if (!conf->sender_own || !ngx_mail_policy_auth_off(conf->auth)) {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"policy_sender own\" needs logins, and with "
                  "\"policy_auth off\" there are none: name a provider, or "
                  "write \"policy_sender any;\" for server in %s:%ui",
                  cscf->file_name, cscf->line);

    return NGX_ERROR;
}
