
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "policy_sender own": a login sends with its own addresses only.  No events
 * arrive here.
 */


#include "ngx_mail_policy_directive.h"


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
