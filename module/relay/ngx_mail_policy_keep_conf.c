
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives keepalive, keepalive_requests, keepalive_time and
 * keepalive_timeout of an upstream {}.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_keep_conf.h"


void
ngx_mail_policy_keep_init(ngx_mail_policy_keep_t *keep)
{
    ngx_memzero(keep, sizeof(ngx_mail_policy_keep_t));
    ngx_queue_init(&keep->relays);

    keep->requests = 1000;
    keep->time = 3600000;
    keep->timeout = 60000;
}


char *
ngx_mail_policy_keep_directive(ngx_conf_t *cf, ngx_mail_policy_keep_t *keep)
{
    ngx_int_t    n;
    ngx_str_t   *value;
    ngx_uint_t   set;
    const char  *example;

    value = cf->args->elts;

    if (cf->args->nelts != 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of arguments in \"%V\" directive",
                           &value[0]);
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "keepalive") == 0) {
        set = keep->max;
        example = "a number, as 32";
        keep->max = n = ngx_atoi(value[1].data, value[1].len);

    } else if (ngx_strcmp(value[0].data, "keepalive_requests") == 0) {
        set = keep->requests_set;
        keep->requests_set = 1;
        example = "a number, as 1000";
        keep->requests = n = ngx_atoi(value[1].data, value[1].len);

    } else if (ngx_strcmp(value[0].data, "keepalive_time") == 0) {
        set = keep->time_set;
        keep->time_set = 1;
        example = "a time, as 1h";
        keep->time = n = ngx_parse_time(&value[1], 0);

    } else {
        set = keep->timeout_set;
        keep->timeout_set = 1;
        example = "a time, as 60s";
        keep->timeout = n = ngx_parse_time(&value[1], 0);
    }

    if (set) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" directive is duplicate", &value[0]);
        return NGX_CONF_ERROR;
    }

    if (n == NGX_ERROR || n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\" directive, write "
                           "%s", &value[1], &value[0], example);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
