
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "if=$variable" of policy_limit and policy_service.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


char *
ngx_mail_policy_condition(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_value_t *condition)
{
    ngx_mail_policy_part_t  *part;

    if (ngx_mail_policy_value_variables(value)) {

        if (ngx_mail_policy_value_compile(cf, value, condition) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        part = condition->parts->elts;

        if (condition->parts->nelts == 1 && part->named) {
            return NGX_CONF_OK;
        }
    }

    /* with anything else in it, it would never be empty */

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"if=%V\" is not a variable: write as "
                       "\"if=$limited\", and \"map ... $limited { ... }\"",
                       value);
    return NGX_CONF_ERROR;
}
