
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_limit name key=... [messages=rate] [recipients=rate]
 *              [on_exceed=defer|reject]
 *
 * A level that sets any limit replaces those of the level above, as nginx's
 * array directives do.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


#define NGX_MAIL_POLICY_LIMIT_NAME_MAX  64


/* parameters that the contract knows and this version does not */
static char  *ngx_mail_policy_limit_later[] = {
    "bytes=",
    "connections=",
    "sessions=",
    "auth_failures=",
    "charge=",
    "enforce=",
    "message=",
    "if=",
    "on_exceed=tarpit",
    "on_exceed=report",
    "on_exceed=relay:",
    NULL
};


static ngx_mail_policy_limit_t *ngx_mail_policy_limit_add(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_limit_name(ngx_conf_t *cf, ngx_str_t *name);
static char *ngx_mail_policy_limit_key(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *key);
static char *ngx_mail_policy_limit_rate(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_uint_t unit, ngx_str_t *parameter,
    size_t skip);
static char *ngx_mail_policy_limit_unknown(ngx_conf_t *cf,
    ngx_str_t *parameter);


char *
ngx_mail_policy_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                     *rv;
    ngx_str_t                *value, key;
    ngx_uint_t                i, exceed;
    ngx_mail_policy_limit_t  *limit;

    value = cf->args->elts;
    exceed = 0;

    limit = ngx_mail_policy_limit_add(cf, conf, &value[1]);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "key=", 4) == 0) {
            key.len = value[i].len - 4;
            key.data = value[i].data + 4;

            rv = ngx_mail_policy_limit_key(cf, limit, &key);

        } else if (ngx_strncmp(value[i].data, "messages=", 9) == 0) {
            rv = ngx_mail_policy_limit_rate(cf, limit,
                                            NGX_MAIL_POLICY_MESSAGES,
                                            &value[i], 9);

        } else if (ngx_strncmp(value[i].data, "recipients=", 11) == 0) {
            rv = ngx_mail_policy_limit_rate(cf, limit,
                                            NGX_MAIL_POLICY_RECIPIENTS,
                                            &value[i], 11);

        } else if (ngx_strcmp(value[i].data, "on_exceed=defer") == 0
                   || ngx_strcmp(value[i].data, "on_exceed=reject") == 0)
        {
            rv = exceed++ ? "has more than one \"on_exceed=\""
                          : NGX_CONF_OK;
            limit->reject = (value[i].data[10] == 'r');

        } else {
            rv = ngx_mail_policy_limit_unknown(cf, &value[i]);
        }

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (limit->key.text.len == 0) {
        return "says nothing of what is counted: add \"key=\", "
               "as \"key=$sasl_username\"";
    }

    return NGX_CONF_OK;
}


static ngx_mail_policy_limit_t *
ngx_mail_policy_limit_add(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_str_t *name)
{
    ngx_uint_t                i;
    ngx_mail_policy_limit_t  *limit;

    if (ngx_mail_policy_limit_name(cf, name) != NGX_OK) {
        return NULL;
    }

    if (conf->limits == NULL) {
        conf->limits = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_mail_policy_limit_t));
        if (conf->limits == NULL) {
            return NULL;
        }
    }

    limit = conf->limits->elts;

    for (i = 0; i < conf->limits->nelts; i++) {
        if (limit[i].name.len == name->len
            && ngx_memcmp(limit[i].name.data, name->data, name->len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate policy_limit \"%V\"", name);
            return NULL;
        }
    }

    limit = ngx_array_push(conf->limits);
    if (limit == NULL) {
        return NULL;
    }

    ngx_memzero(limit, sizeof(ngx_mail_policy_limit_t));

    limit->name = *name;
    limit->file = cf->conf_file->file.name.data;
    limit->line = cf->conf_file->line;

    return limit;
}


/* it stands in store keys, in replies and in the log */

static ngx_int_t
ngx_mail_policy_limit_name(ngx_conf_t *cf, ngx_str_t *name)
{
    u_char      ch;
    ngx_uint_t  i;

    if (name->len == 0 || name->len > NGX_MAIL_POLICY_LIMIT_NAME_MAX) {
        goto invalid;
    }

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
            || (ch >= '0' && ch <= '9') || ch == '_' || ch == '-')
        {
            continue;
        }

        goto invalid;
    }

    return NGX_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid policy_limit name \"%V\": write 1 to %d "
                       "letters, digits, \"_\" and \"-\"",
                       name, NGX_MAIL_POLICY_LIMIT_NAME_MAX);
    return NGX_ERROR;
}


static char *
ngx_mail_policy_limit_key(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *key)
{
    if (limit->key.text.len) {
        return "has more than one \"key=\"";
    }

    if (!ngx_mail_policy_value_variables(key)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"key=%V\" has no variable: all would share one "
                           "counter", key);
        return NGX_CONF_ERROR;
    }

    if (ngx_mail_policy_value_compile(cf, key, &limit->key) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_limit_rate(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_uint_t unit, ngx_str_t *parameter, size_t skip)
{
    int           rc;
    mpol_rate_t  *rate;

    rate = &limit->rates[unit];

    if (rate->kind != MPOL_RATE_NONE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate parameter \"%V\"", parameter);
        return NGX_CONF_ERROR;
    }

    rc = mpol_rate_parse(parameter->data + skip, parameter->len - skip, 0,
                         rate);

    if (rc != MPOL_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid rate in \"%V\": %s",
                           parameter, mpol_rate_error(rc));
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_limit_unknown(ngx_conf_t *cf, ngx_str_t *parameter)
{
    char  **later;

    for (later = ngx_mail_policy_limit_later; *later; later++) {

        if (ngx_strncmp(parameter->data, *later, ngx_strlen(*later)) == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "parameter \"%V\" is not supported by this "
                               "version", parameter);
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_strncmp(parameter->data, "on_exceed=", 10) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": write "
                           "\"on_exceed=defer\" or \"on_exceed=reject\"",
                           parameter);
        return NGX_CONF_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", parameter);
    return NGX_CONF_ERROR;
}


/*
 * A limit without a rate of its own asks the store's records for one, so
 * there must be a store that has records.
 */

ngx_int_t
ngx_mail_policy_limit_init(ngx_conf_t *cf, ngx_array_t *limits,
    ngx_mail_policy_store_t *store)
{
    ngx_uint_t                i, unit;
    ngx_mail_policy_limit_t  *limit;

    if (limits == NULL) {
        return NGX_OK;
    }

    limit = limits->elts;

    for (i = 0; i < limits->nelts; i++) {

        ngx_mail_policy_value_phase(&limit[i].key);

        for (unit = 0; unit < NGX_MAIL_POLICY_UNITS; unit++) {
            if (limit[i].rates[unit].kind != MPOL_RATE_NONE) {
                break;
            }
        }

        if (unit == NGX_MAIL_POLICY_UNITS
            && !ngx_mail_policy_store_has_records(store))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "policy_limit \"%V\" has no rate: add "
                          "\"messages=\" or \"recipients=\", or set "
                          "\"policy_redis\" to read it from there, in %s:%ui",
                          &limit[i].name, limit[i].file, limit[i].line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
