
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_clients all | address | network | unix: ...
 *
 * Lines of one level add up; a level that has any replaces that above it, as
 * nginx's array directives do.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


char *
ngx_mail_policy_clients(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t   *value;
    ngx_uint_t   i, all;
    ngx_cidr_t  *cidr;

    value = cf->args->elts;
    all = (ngx_strcmp(value[1].data, "all") == 0);

    if ((all && (pscf->clients || cf->args->nelts > 2))
        || (pscf->clients && pscf->clients->nelts == 0))
    {
        return "is \"all\", and names clients: write one of both";
    }

    if (pscf->clients == NULL) {
        pscf->clients = ngx_array_create(cf->pool, 2, sizeof(ngx_cidr_t));
        if (pscf->clients == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = all ? 2 : 1; i < cf->args->nelts; i++) {

        cidr = ngx_array_push(pscf->clients);
        if (cidr == NULL) {
            return NGX_CONF_ERROR;
        }

        if (ngx_strcmp(value[i].data, "unix:") == 0) {
            cidr->family = AF_UNIX;
            continue;
        }

        if (ngx_mail_policy_cidr(cf, &value[i], cidr) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\": write \"all\", "
                               "\"unix:\", or the address or network of a "
                               "Postfix, as \"192.0.2.0/24\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_mail_policy_cidr(ngx_conf_t *cf, ngx_str_t *value, ngx_cidr_t *cidr)
{
    ngx_int_t  rc;
    ngx_str_t  text;

    /* which is put an end to at its "/" */

    text.len = value->len;
    text.data = ngx_pstrdup(cf->pool, value);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_ptocidr(&text, cidr);

    if (rc == NGX_DONE) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "low address bits of %V are meaningless", value);
        return NGX_OK;
    }

    return rc;
}
