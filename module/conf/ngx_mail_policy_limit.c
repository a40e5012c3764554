
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_limit name key=... [unit=rate]... [if=...] [charge=accepted|attempt]
 *              [on_exceed=defer|reject|tarpit|report|relay:NAME]
 *              [enforce=N%] [message=...]
 *
 * A level that sets any limit replaces those of the level above, as nginx's
 * array directives do.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"
#include "mpol_set.h"


/* of 65,536 that there are, see cmd_auth.c */
#define NGX_MAIL_POLICY_LIMIT_FAILURES_MAX  1000


typedef char *(*ngx_mail_policy_limit_pt)(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);

typedef struct {
    ngx_str_t                  name;        /* "key=" */
    ngx_mail_policy_limit_pt   set;
} ngx_mail_policy_limit_param_t;


static ngx_mail_policy_limit_t *ngx_mail_policy_limit_add(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_limit_name(ngx_conf_t *cf, ngx_str_t *name);
static char *ngx_mail_policy_limit_param(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *parameter, ngx_uint_t *seen);
static char *ngx_mail_policy_limit_rate(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *parameter);
static char *ngx_mail_policy_limit_key(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static char *ngx_mail_policy_limit_if(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static ngx_uint_t ngx_mail_policy_limit_coded(ngx_str_t *value);
static char *ngx_mail_policy_limit_message(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static char *ngx_mail_policy_limit_charge(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static char *ngx_mail_policy_limit_exceed(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static char *ngx_mail_policy_limit_enforce(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_str_t *value);
static ngx_uint_t ngx_mail_policy_limit_combined(
    ngx_mail_policy_value_t *key);
static ngx_int_t ngx_mail_policy_limit_check(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, ngx_mail_policy_store_t *store);
static ngx_int_t ngx_mail_policy_limit_error(ngx_conf_t *cf,
    ngx_mail_policy_limit_t *limit, const char *text);


static ngx_mail_policy_limit_param_t  ngx_mail_policy_limit_params[] = {
    { ngx_string("key="), ngx_mail_policy_limit_key },
    { ngx_string("if="), ngx_mail_policy_limit_if },
    { ngx_string("message="), ngx_mail_policy_limit_message },
    { ngx_string("charge="), ngx_mail_policy_limit_charge },
    { ngx_string("on_exceed="), ngx_mail_policy_limit_exceed },
    { ngx_string("enforce="), ngx_mail_policy_limit_enforce },
    { ngx_null_string, NULL }
};


ngx_str_t  ngx_mail_policy_exceed_names[] = {
    ngx_string("defer"),
    ngx_string("reject"),
    ngx_string("tarpit"),
    ngx_string("report"),
    ngx_string("relay")
};


char *
ngx_mail_policy_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                     *rv;
    ngx_str_t                *value;
    ngx_uint_t                i, seen;
    ngx_mail_policy_limit_t  *limit;

    value = cf->args->elts;
    seen = 0;

    limit = ngx_mail_policy_limit_add(cf, conf, &value[1]);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    limit->enforce = 100;

    /* a lease lasts as long as it is renewed, whatever their number is */

    limit->rates[NGX_MAIL_POLICY_SESSIONS].period = NGX_MAIL_POLICY_LEASE;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_mail_policy_limit_param(cf, limit, &value[i], &seen);

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


static char *
ngx_mail_policy_limit_param(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *parameter, ngx_uint_t *seen)
{
    ngx_str_t                       rest;
    ngx_uint_t                      i;
    ngx_mail_policy_limit_param_t  *param;

    param = ngx_mail_policy_limit_params;

    for (i = 0; param[i].name.len; i++) {

        if (parameter->len < param[i].name.len
            || ngx_strncmp(parameter->data, param[i].name.data,
                           param[i].name.len)
               != 0)
        {
            continue;
        }

        if (*seen & ((ngx_uint_t) 1 << i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "policy_limit \"%V\" has more than one "
                               "\"%V\"", &limit->name, &param[i].name);
            return NGX_CONF_ERROR;
        }

        *seen |= (ngx_uint_t) 1 << i;

        rest.data = parameter->data + param[i].name.len;
        rest.len = parameter->len - param[i].name.len;

        return param[i].set(cf, limit, &rest);
    }

    return ngx_mail_policy_limit_rate(cf, limit, parameter);
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
    if (ngx_mail_policy_store_is_name(name)) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid policy_limit name \"%V\": write 1 to %d "
                       "letters, digits, \"_\" and \"-\"",
                       name, NGX_MAIL_POLICY_NAME_MAX);
    return NGX_ERROR;
}


static char *
ngx_mail_policy_limit_key(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    if (!ngx_mail_policy_value_variables(value)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"key=%V\" has no variable: all would share one "
                           "counter", value);
        return NGX_CONF_ERROR;
    }

    return (ngx_mail_policy_value_compile(cf, value, &limit->key) == NGX_OK)
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_limit_if(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    return ngx_mail_policy_condition(cf, value, &limit->condition);
}


/* 1 if it begins with a code (RFC 5321, 4.2) or an enhanced one (RFC 3463) */

static ngx_uint_t
ngx_mail_policy_limit_coded(ngx_str_t *value)
{
    u_char  *p;

    if (value->len > 3 && ngx_atoi(value->data, 3) != NGX_ERROR
        && (value->data[3] == ' ' || value->data[3] == '-'))
    {
        return 1;
    }

    /* the string ends with a zero */

    p = value->data;

    if ((*p != '2' && *p != '4' && *p != '5') || *++p != '.') {
        return 0;
    }

    do {
        p++;
    } while (*p >= '0' && *p <= '9');

    return *p == '.' && p[1] >= '0' && p[1] <= '9';
}


static char *
ngx_mail_policy_limit_message(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] > '~') {
            break;
        }
    }

    if (value->len == 0 || value->len > 400 || i < value->len
        || ngx_mail_policy_limit_coded(value))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"message=\" of policy_limit \"%V\": "
                           "write 1 to 400 ASCII characters, without the "
                           "reply code and the enhanced code", &limit->name);
        return NGX_CONF_ERROR;
    }

    return (ngx_mail_policy_value_compile(cf, value, &limit->message)
            == NGX_OK)
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_limit_charge(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    if (ngx_strcmp(value->data, "attempt") == 0) {
        limit->attempt = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "accepted") == 0) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"charge=%V\": write "
                       "\"charge=accepted\" or \"charge=attempt\"", value);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_limit_exceed(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    ngx_uint_t  i;

    for (i = NGX_MAIL_POLICY_DEFER; i < NGX_MAIL_POLICY_RELAY; i++) {
        if (ngx_strcmp(value->data, ngx_mail_policy_exceed_names[i].data)
            == 0)
        {
            limit->exceed = (ngx_mail_policy_exceed_e) i;
            return NGX_CONF_OK;
        }
    }

    if (value->len > 6 && ngx_strncmp(value->data, "relay:", 6) == 0) {
        limit->exceed = NGX_MAIL_POLICY_RELAY;
        limit->relay.data = value->data + 6;
        limit->relay.len = value->len - 6;
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"on_exceed=%V\": write defer, "
                       "reject, tarpit, report or relay:NAME, NAME being an "
                       "upstream", value);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_limit_enforce(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *value)
{
    ngx_int_t  n;

    n = (value->len && value->data[value->len - 1] == '%')
        ? ngx_atoi(value->data, value->len - 1) : NGX_ERROR;

    if (n == NGX_ERROR || n > 100) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"enforce=%V\": write 0%% to "
                           "100%%, as \"enforce=10%%\"", value);
        return NGX_CONF_ERROR;
    }

    limit->enforce = n;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_limit_rate(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_str_t *parameter)
{
    int           rc;
    ngx_str_t    *name, rest;
    ngx_uint_t    unit;
    mpol_rate_t  *rate;

    name = ngx_mail_policy_store_units;

    for (unit = 0; unit < NGX_MAIL_POLICY_UNITS; unit++, name++) {
        if (parameter->len > name->len && parameter->data[name->len] == '='
            && ngx_strncmp(parameter->data, name->data, name->len) == 0)
        {
            break;
        }
    }

    if (unit == NGX_MAIL_POLICY_UNITS) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": policy_limit has "
                           "key=, messages=, recipients=, bytes=, "
                           "connections=, sessions=, auth_failures=, if=, "
                           "charge=, on_exceed=, enforce= and message=",
                           parameter);
        return NGX_CONF_ERROR;
    }

    rate = &limit->rates[unit];

    if (limit->units & ngx_mail_policy_asked(unit)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate parameter \"%V\"", parameter);
        return NGX_CONF_ERROR;
    }

    rest.data = parameter->data + name->len + 1;
    rest.len = parameter->len - name->len - 1;

    rc = ngx_mail_policy_store_rate(unit, &rest, rate);

    if (rc == MPOL_OK && unit == NGX_MAIL_POLICY_AUTH_FAILURES
        && rate->kind == MPOL_RATE_WINDOW
        && rate->count > NGX_MAIL_POLICY_LIMIT_FAILURES_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is more than can be told apart: write at "
                           "most %d failed logins, as \"auth_failures=10/15m\"",
                           parameter, NGX_MAIL_POLICY_LIMIT_FAILURES_MAX);
        return NGX_CONF_ERROR;
    }

    if (rc != MPOL_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid rate in \"%V\": %s",
                           parameter, mpol_rate_error(rc));
        return NGX_CONF_ERROR;
    }

    limit->units |= ngx_mail_policy_asked(unit);

    return NGX_CONF_OK;
}


/* what needs all of mail{} */

ngx_int_t
ngx_mail_policy_limit_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                i;
    ngx_array_t             **limits;
    ngx_mail_policy_limit_t  *limit;

    if (conf->limits == NULL) {
        return NGX_OK;
    }

    limits = ngx_array_push(&mcf->limits);
    if (limits == NULL) {
        return NGX_ERROR;
    }

    *limits = conf->limits;

    limit = conf->limits->elts;

    for (i = 0; i < conf->limits->nelts; i++) {

        ngx_mail_policy_value_phase(&limit[i].key);
        ngx_mail_policy_value_phase(&limit[i].condition);
        ngx_mail_policy_value_phase(&limit[i].message);

        limit[i].lookups = limit[i].key.lookups | limit[i].condition.lookups
                           | limit[i].message.lookups;

        ngx_mail_policy_lookup_use(mcf, conf, limit[i].lookups);

        limit[i].combined = ngx_mail_policy_limit_combined(&limit[i].key);

        limit[i].phase = ngx_max(limit[i].key.phase,
                                 limit[i].condition.phase);

        if (ngx_mail_policy_limit_check(cf, &limit[i], mcf->store)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (limit[i].relay.len == 0) {
            continue;
        }

        limit[i].upstream = ngx_mail_policy_upstream_find(&mcf->upstreams,
                                                          &limit[i].relay);
        if (limit[i].upstream == NULL) {
            return ngx_mail_policy_limit_error(cf, &limit[i],
                                  "relays to an upstream that is not there: "
                                  "add \"upstream NAME { ... }\"");
        }

        conf->diverts = 1;
    }

    return NGX_OK;
}


/*
 * 1 if it does not end in its only variable, or a map gives something of that
 * kind: what is the domain of that?
 */

static ngx_uint_t
ngx_mail_policy_limit_combined(ngx_mail_policy_value_t *key)
{
    ngx_uint_t                 i, n;
    ngx_mail_policy_map_t     *map;
    ngx_mail_policy_part_t    *part;
    ngx_mail_policy_value_t  **result;

    if (key->parts == NULL) {
        return 0;
    }

    part = key->parts->elts;
    n = 0;

    for (i = 0; i < key->parts->nelts; i++) {
        n += part[i].named;
    }

    if (n > 1 || !part[i - 1].named) {
        return 1;
    }

    map = part[i - 1].map;

    if (map == NULL) {
        return 0;
    }

    result = map->results.elts;

    for (i = 0; i < map->results.nelts; i++) {
        if (ngx_mail_policy_limit_combined(result[i])) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_mail_policy_limit_check(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    ngx_mail_policy_store_t *store)
{
    ngx_uint_t    early;
    mpol_rate_t  *rate;

    if (limit->units == 0 && !ngx_mail_policy_store_has_records(store)) {
        return ngx_mail_policy_limit_error(cf, limit,
                           "has no rate: add \"messages=\" or another "
                           "unit, or set \"policy_redis\" to read it from "
                           "there");
    }

    rate = &limit->rates[NGX_MAIL_POLICY_SESSIONS];

    if (rate->kind == MPOL_RATE_WINDOW && rate->count > MPOL_SET_MAX
        && !ngx_mail_policy_store_has_records(store))
    {
        return ngx_mail_policy_limit_error(cf, limit,
                           "has more sessions than shared memory can count: "
                           "write \"sessions=4096\" at most, or set "
                           "\"policy_redis\"");
    }

    if (limit->phase > NGX_MAIL_POLICY_AT_RCPT
        || limit->message.phase > NGX_MAIL_POLICY_AT_RCPT)
    {
        return ngx_mail_policy_limit_error(cf, limit,
                           "needs what is known at the end of a transaction "
                           "only, as $status: use variables of the client "
                           "and the message");
    }

    early = limit->units
            & (ngx_mail_policy_asked(NGX_MAIL_POLICY_CONNECTIONS)
               | ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS)
               | ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES));

    if (early && limit->phase > NGX_MAIL_POLICY_AT_AUTH) {
        return ngx_mail_policy_limit_error(cf, limit,
                           "counts connections, sessions or auth_failures "
                           "under what is known with MAIL only: use "
                           "variables as $client_net or $sasl_username");
    }

    if (early && limit->exceed == NGX_MAIL_POLICY_RELAY) {
        return ngx_mail_policy_limit_error(cf, limit,
                           "has \"on_exceed=relay:\", which is for "
                           "messages, recipients and bytes: write another "
                           "policy_limit for the other units");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_limit_error(ngx_conf_t *cf, ngx_mail_policy_limit_t *limit,
    const char *text)
{
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "policy_limit \"%V\" %s, in %s:%ui",
                  &limit->name, text, limit->file, limit->line);

    return NGX_ERROR;
}
