
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_service unix:/path|inet:host:port [at=rcpt|data|end]
 *                [default_action=...] [timeout=...] [connections=...]
 *                [if=...]
 * policy_service off
 *
 * A level that names any replaces those of the level above, as nginx's array
 * directives do.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


#define NGX_MAIL_POLICY_SERVICE_TIMEOUT          30000
#define NGX_MAIL_POLICY_SERVICE_TIMEOUT_MIN      10
#define NGX_MAIL_POLICY_SERVICE_TIMEOUT_MAX      300000
#define NGX_MAIL_POLICY_SERVICE_CONNECTIONS_MAX  1000


/* of one line */
typedef struct {
    ngx_mail_policy_service_conf_t  *conf;
    ngx_uint_t                       connections;   /* 0: not said */
    ngx_uint_t                       seen;          /* mask of parameters */
} ngx_mail_policy_service_line_t;

typedef char *(*ngx_mail_policy_service_conf_pt)(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);

typedef struct {
    ngx_str_t                        name;          /* "at=" */
    ngx_mail_policy_service_conf_pt  set;
} ngx_mail_policy_service_param_t;


static char *ngx_mail_policy_service_off(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *pscf);
static ngx_mail_policy_service_conf_t *ngx_mail_policy_service_add(
    ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *pscf);
static char *ngx_mail_policy_service_param(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *parameter);
static char *ngx_mail_policy_service_at(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);
static char *ngx_mail_policy_service_action(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);
static char *ngx_mail_policy_service_timeout(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);
static char *ngx_mail_policy_service_connections(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);
static char *ngx_mail_policy_service_if(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_service_check(ngx_conf_t *cf,
    ngx_mail_policy_service_conf_t *service);


static ngx_mail_policy_service_param_t  ngx_mail_policy_service_params[] = {
    { ngx_string("at="), ngx_mail_policy_service_at },
    { ngx_string("default_action="), ngx_mail_policy_service_action },
    { ngx_string("timeout="), ngx_mail_policy_service_timeout },
    { ngx_string("connections="), ngx_mail_policy_service_connections },
    { ngx_string("if="), ngx_mail_policy_service_if },
    { ngx_null_string, NULL }
};


/* in the order of ..._service_point_e */

static const char  *ngx_mail_policy_service_points[] = {
    "rcpt", "data", "end"
};


static ngx_str_t  ngx_mail_policy_service_default = ngx_string(
    "451 4.3.5 Server configuration problem");


char *
ngx_mail_policy_service(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t                       *value;
    ngx_uint_t                       i;
    ngx_mail_policy_main_conf_t     *mcf;
    ngx_mail_policy_service_line_t   line;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return ngx_mail_policy_service_off(cf, pscf);
    }

    if (pscf->services_off) {
        return "stands beside \"policy_service off\": leave one of them out";
    }

    ngx_memzero(&line, sizeof(ngx_mail_policy_service_line_t));

    line.conf = ngx_mail_policy_service_add(cf, pscf);
    if (line.conf == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_service_param(cf, &line, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    line.conf->service = ngx_mail_policy_service_create(cf, &mcf->services,
                                                        &line.conf->name,
                                                        line.connections);

    return line.conf->service ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_service_off(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *pscf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (cf->args->nelts > 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": \"policy_service off\" "
                           "has none", &value[2]);
        return NGX_CONF_ERROR;
    }

    if (pscf->services_off) {
        return "is duplicate";
    }

    if (pscf->services) {
        return "\"off\" stands beside another one: leave one of them out";
    }

    pscf->services_off = 1;

    return NGX_CONF_OK;
}


static ngx_mail_policy_service_conf_t *
ngx_mail_policy_service_add(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *pscf)
{
    ngx_str_t                       *value;
    ngx_mail_policy_service_conf_t  *service;

    value = cf->args->elts;

    if (pscf->services == NULL) {
        pscf->services = ngx_array_create(cf->pool, 2,
                                      sizeof(ngx_mail_policy_service_conf_t));
        if (pscf->services == NULL) {
            return NULL;
        }
    }

    service = ngx_array_push(pscf->services);
    if (service == NULL) {
        return NULL;
    }

    ngx_memzero(service, sizeof(ngx_mail_policy_service_conf_t));

    service->name = value[1];
    service->point = NGX_MAIL_POLICY_SERVICE_RCPT;
    service->timeout = NGX_MAIL_POLICY_SERVICE_TIMEOUT;
    service->file = cf->conf_file->file.name.data;
    service->line = cf->conf_file->line;

    (void) mpol_access_parse(ngx_mail_policy_service_default.data,
                             ngx_mail_policy_service_default.len,
                             &service->fallback);

    return service;
}


static char *
ngx_mail_policy_service_param(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *parameter)
{
    ngx_str_t                         rest;
    ngx_uint_t                        i;
    ngx_mail_policy_service_param_t  *param;

    param = ngx_mail_policy_service_params;

    for (i = 0; param[i].name.len; i++) {

        if (parameter->len < param[i].name.len
            || ngx_strncmp(parameter->data, param[i].name.data,
                           param[i].name.len)
               != 0)
        {
            continue;
        }

        if (line->seen & ((ngx_uint_t) 1 << i)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "policy_service \"%V\" has more than one "
                               "\"%V\"", &line->conf->name, &param[i].name);
            return NGX_CONF_ERROR;
        }

        line->seen |= (ngx_uint_t) 1 << i;

        rest.data = parameter->data + param[i].name.len;
        rest.len = parameter->len - param[i].name.len;

        return param[i].set(cf, line, &rest);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\": policy_service has at=, "
                       "default_action=, timeout=, connections= and if=; a "
                       "value with spaces needs quotes around the whole, as "
                       "\"default_action=451 4.3.0 Later\"", parameter);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_service_at(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_SERVICE_POINTS; i++) {
        if (ngx_strcmp(value->data, ngx_mail_policy_service_points[i]) == 0) {
            line->conf->point = (ngx_mail_policy_service_point_e) i;
            return NGX_CONF_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"at=%V\": write \"at=rcpt\", "
                       "\"at=data\" or \"at=end\"", value);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_service_action(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value)
{
    mpol_access_t  *access;

    access = &line->conf->fallback;

    if (mpol_access_parse(value->data, value->len, access) == MPOL_OK) {

        switch (access->action) {

        case MPOL_ACCESS_DUNNO:
        case MPOL_ACCESS_OK:
        case MPOL_ACCESS_REJECT:
        case MPOL_ACCESS_DEFER:
        case MPOL_ACCESS_DEFER_IF_PERMIT:
            return NGX_CONF_OK;

        default:
            break;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"default_action=%V\": write "
                       "DUNNO, OK, REJECT, DEFER, DEFER_IF_PERMIT, or a code "
                       "and a text, as \"default_action=451 4.3.0 Later\"",
                       value);
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_service_timeout(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms < NGX_MAIL_POLICY_SERVICE_TIMEOUT_MIN
        || ms > NGX_MAIL_POLICY_SERVICE_TIMEOUT_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"timeout=%V\": write 10ms to "
                           "5m, as \"timeout=30s\"", value);
        return NGX_CONF_ERROR;
    }

    line->conf->timeout = ms;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_service_connections(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n < 1 || n > NGX_MAIL_POLICY_SERVICE_CONNECTIONS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"connections=%V\": write 1 to "
                           "%d, so many at a time and worker", value,
                           NGX_MAIL_POLICY_SERVICE_CONNECTIONS_MAX);
        return NGX_CONF_ERROR;
    }

    line->connections = n;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_service_if(ngx_conf_t *cf,
    ngx_mail_policy_service_line_t *line, ngx_str_t *value)
{
    return ngx_mail_policy_condition(cf, value, &line->conf->condition);
}


void
ngx_mail_policy_service_merge(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_srv_conf_t *prev)
{
    if (conf->services == NULL && !conf->services_off) {
        conf->services = prev->services;
    }
}


/* what needs all of mail{} */

ngx_int_t
ngx_mail_policy_service_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                       i;
    ngx_mail_policy_service_conf_t  *service;

    if (conf->services == NULL) {
        return NGX_OK;
    }

    service = conf->services->elts;

    for (i = 0; i < conf->services->nelts; i++) {

        ngx_mail_policy_value_phase(&service[i].condition);

        service[i].lookups = service[i].condition.lookups;

        ngx_mail_policy_lookup_use(mcf, conf, service[i].lookups);

        if (ngx_mail_policy_service_check(cf, &service[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* of a whole message there is no recipient at hand */

static ngx_int_t
ngx_mail_policy_service_check(ngx_conf_t *cf,
    ngx_mail_policy_service_conf_t *service)
{
    ngx_uint_t   known;
    const char  *text;

    if (service->point == NGX_MAIL_POLICY_SERVICE_RCPT) {
        known = NGX_MAIL_POLICY_AT_RCPT;
        text = "is not known before the end of a transaction, as $status: "
               "use variables of the client and the message";

    } else {
        known = NGX_MAIL_POLICY_AT_MAIL;
        text = "is of a recipient, and the service is asked about a whole "
               "message: write \"at=rcpt\", or use variables of the client "
               "and the sender";
    }

    if (service->condition.phase <= known) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"if=%V\" of policy_service \"%V\" %s, in %s:%ui",
                  &service->condition.text, &service->name, text,
                  service->file, service->line);

    return NGX_ERROR;
}
