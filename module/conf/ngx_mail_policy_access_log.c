
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * log_format name [escape=default|json|none] string ...;
 * access_log path [format] [buffer=size [flush=time]] [if=$variable];
 * access_log syslog:server=address[,parameter=value] [format] [if=$variable];
 * access_log off;
 *
 * A format is a value with variables, of which what variables give is
 * escaped.  The format "json" is no value but made by status/.  No events
 * arrive here.
 */


#include "ngx_mail_policy_directive.h"

#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_log_write.h"


/* what has no place in a log itself */
typedef struct {
    ngx_mail_policy_access_log_t  *log;
    ngx_str_t                     *path;
    size_t                         buffer;      /* 0: none */
    ngx_msec_t                     flush;
    unsigned                       format:1;    /* it was written */
} ngx_mail_policy_access_log_conf_t;


static ngx_int_t ngx_mail_policy_log_format_escape(ngx_conf_t *cf,
    ngx_str_t *value, ngx_mail_policy_escape_pt *escape);
static ngx_int_t ngx_mail_policy_log_format_line(ngx_conf_t *cf,
    ngx_uint_t first, ngx_mail_policy_log_format_t *format);
static ngx_mail_policy_log_format_t *ngx_mail_policy_log_format_find(
    ngx_conf_t *cf, ngx_str_t *name);
static char *ngx_mail_policy_access_log_param(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value);
static char *ngx_mail_policy_access_log_format(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value);
static char *ngx_mail_policy_access_log_buffer(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value);
static char *ngx_mail_policy_access_log_flush(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value);
static char *ngx_mail_policy_access_log_if(ngx_conf_t *cf,
    ngx_mail_policy_access_log_t *log, ngx_str_t *value);
static char *ngx_mail_policy_access_log_twice(ngx_conf_t *cf, char *name);
static char *ngx_mail_policy_access_log_syslog(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf);
static char *ngx_mail_policy_access_log_file(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf);


char *
ngx_mail_policy_log_format(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_main_conf_t *mcf = conf;

    ngx_str_t                      *value;
    ngx_uint_t                      first;
    ngx_mail_policy_log_format_t   *format, **formats;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "json") == 0
        || ngx_strcmp(value[1].data, "postfix") == 0
        || ngx_mail_policy_log_format_find(cf, &value[1]))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"log_format\" name \"%V\", write "
                           "another one; \"json\" and \"postfix\" are there "
                           "already", &value[1]);
        return NGX_CONF_ERROR;
    }

    format = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_log_format_t));
    if (format == NULL) {
        return NGX_CONF_ERROR;
    }

    format->name = value[1];
    format->escape = ngx_mail_policy_log_escape;
    first = 2;

    if (ngx_strncmp(value[2].data, "escape=", 7) == 0) {
        first = 3;

        if (ngx_mail_policy_log_format_escape(cf, &value[2], &format->escape)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_mail_policy_log_format_line(cf, first, format) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    formats = ngx_array_push(&mcf->log_formats);
    if (formats == NULL) {
        return NGX_CONF_ERROR;
    }

    *formats = format;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_mail_policy_log_format_escape(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_escape_pt *escape)
{
    u_char  *name;

    name = value->data + sizeof("escape=") - 1;

    if (ngx_strcmp(name, "default") == 0) {
        *escape = ngx_mail_policy_log_escape;

    } else if (ngx_strcmp(name, "json") == 0) {
        *escape = ngx_mail_policy_log_escape_json;

    } else if (ngx_strcmp(name, "none") == 0) {
        *escape = ngx_mail_policy_log_escape_none;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown log format escaping \"%s\", write "
                           "\"escape=default\", \"escape=json\" or "
                           "\"escape=none\"", name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* strings are joined as they are, and the line's end behind them */

static ngx_int_t
ngx_mail_policy_log_format_line(ngx_conf_t *cf, ngx_uint_t first,
    ngx_mail_policy_log_format_t *format)
{
    size_t                   len;
    u_char                  *p;
    ngx_str_t               *value, line;
    ngx_uint_t               i;
    ngx_mail_policy_part_t  *part;

    value = cf->args->elts;
    len = 0;

    for (i = first; i < cf->args->nelts; i++) {
        len += value[i].len;
    }

    if (len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "log format \"%V\" is empty, write what is to be "
                           "logged, as '$sender $status'", &format->name);
        return NGX_ERROR;
    }

    p = ngx_pnalloc(cf->pool, len + NGX_LINEFEED_SIZE);
    if (p == NULL) {
        return NGX_ERROR;
    }

    line.data = p;
    line.len = len;

    for (i = first; i < cf->args->nelts; i++) {
        p = ngx_cpymem(p, value[i].data, value[i].len);
    }

    ngx_linefeed(p);

    if (ngx_mail_policy_value_compile(cf, &line, &format->line) != NGX_OK) {
        return NGX_ERROR;
    }

    if (format->line.parts == NULL) {
        format->line.text.len += NGX_LINEFEED_SIZE;
        return NGX_OK;
    }

    part = ngx_array_push(format->line.parts);
    if (part == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(part, sizeof(ngx_mail_policy_part_t));

    part->text.data = p - NGX_LINEFEED_SIZE;
    part->text.len = NGX_LINEFEED_SIZE;

    return NGX_OK;
}


static ngx_mail_policy_log_format_t *
ngx_mail_policy_log_format_find(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                      i;
    ngx_mail_policy_main_conf_t    *mcf;
    ngx_mail_policy_log_format_t  **format;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    format = mcf->log_formats.elts;

    for (i = 0; i < mcf->log_formats.nelts; i++) {
        if (format[i]->name.len == name->len
            && ngx_memcmp(format[i]->name.data, name->data, name->len) == 0)
        {
            return format[i];
        }
    }

    return NULL;
}


char *
ngx_mail_policy_access_log(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_mail_policy_access_log_conf_t   alcf;

    value = cf->args->elts;

    /* which would be the standard error output */

    if (value[1].len == 0) {
        return "is empty: write a file's name, or \"off\"";
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        pscf->access_log_off = 1;

        if (cf->args->nelts == 2) {
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", write \"access_log off\" "
                           "alone", &value[2]);
        return NGX_CONF_ERROR;
    }

    if (pscf->access_logs == NULL) {
        pscf->access_logs = ngx_array_create(cf->pool, 2,
                                        sizeof(ngx_mail_policy_access_log_t));
        if (pscf->access_logs == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    ngx_memzero(&alcf, sizeof(ngx_mail_policy_access_log_conf_t));

    alcf.path = &value[1];
    alcf.log = ngx_array_push(pscf->access_logs);

    if (alcf.log == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(alcf.log, sizeof(ngx_mail_policy_access_log_t));

    alcf.log->cycle = cf->cycle;

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_access_log_param(cf, &alcf, &value[i])
            != NGX_CONF_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (alcf.flush && alcf.buffer == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no buffer is defined for access_log \"%V\", write "
                           "\"buffer=64k\" beside \"flush=\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return ngx_strncmp(value[1].data, "syslog:", 7) == 0
           ? ngx_mail_policy_access_log_syslog(cf, &alcf)
           : ngx_mail_policy_access_log_file(cf, &alcf);
}


static char *
ngx_mail_policy_access_log_param(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value)
{
    if (ngx_strncmp(value->data, "if=", 3) == 0) {
        return ngx_mail_policy_access_log_if(cf, alcf->log, value);
    }

    if (ngx_strncmp(value->data, "buffer=", 7) == 0) {
        return ngx_mail_policy_access_log_buffer(cf, alcf, value);
    }

    if (ngx_strncmp(value->data, "flush=", 6) == 0) {
        return ngx_mail_policy_access_log_flush(cf, alcf, value);
    }

    if (ngx_strncmp(value->data, "gzip", 4) == 0
        && (value->len == 4 || value->data[4] == '='))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "parameter \"%V\" is not supported by this "
                           "version, have files compressed once they are "
                           "rotated", value);
        return NGX_CONF_ERROR;
    }

    if (alcf->format || ngx_strchr(value->data, '=')) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", write \"access_log "
                           "path [format] [buffer=size [flush=time]] "
                           "[if=$variable]\"", value);
        return NGX_CONF_ERROR;
    }

    return ngx_mail_policy_access_log_format(cf, alcf, value);
}


static char *
ngx_mail_policy_access_log_format(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value)
{
    alcf->format = 1;

    if (ngx_strcmp(value->data, "json") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "postfix") == 0) {
        alcf->log->postfix = 1;
        return NGX_CONF_OK;
    }

    alcf->log->format = ngx_mail_policy_log_format_find(cf, value);

    if (alcf->log->format == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown log format \"%V\", write \"json\", "
                           "\"postfix\", or define it with \"log_format\" "
                           "above", value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_access_log_buffer(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value)
{
    ssize_t    size;
    ngx_str_t  text;

    if (alcf->buffer) {
        return ngx_mail_policy_access_log_twice(cf, "buffer=");
    }

    text.len = value->len - 7;
    text.data = value->data + 7;

    size = ngx_parse_size(&text);

    if (size == NGX_ERROR || size == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid buffer size \"%V\", write a size, as "
                           "\"buffer=64k\"", &text);
        return NGX_CONF_ERROR;
    }

    alcf->buffer = size;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_access_log_flush(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf, ngx_str_t *value)
{
    ngx_int_t  flush;
    ngx_str_t  text;

    if (alcf->flush) {
        return ngx_mail_policy_access_log_twice(cf, "flush=");
    }

    text.len = value->len - 6;
    text.data = value->data + 6;

    flush = ngx_parse_time(&text, 0);

    if (flush == NGX_ERROR || flush == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid flush time \"%V\", write a time, as "
                           "\"flush=5s\"", &text);
        return NGX_CONF_ERROR;
    }

    alcf->flush = flush;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_access_log_if(ngx_conf_t *cf,
    ngx_mail_policy_access_log_t *log, ngx_str_t *value)
{
    ngx_str_t  text;

    text.len = value->len - 3;
    text.data = value->data + 3;

    if (log->condition.text.len) {
        return ngx_mail_policy_access_log_twice(cf, "if=");
    }

    if (!ngx_mail_policy_value_variables(&text)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", write a variable, as "
                           "\"if=$loggable\" with a map", value);
        return NGX_CONF_ERROR;
    }

    return ngx_mail_policy_value_compile(cf, &text, &log->condition) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_access_log_twice(ngx_conf_t *cf, char *name)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%s\" is set twice in \"access_log\"", name);
    return NGX_CONF_ERROR;
}


/* nginx reads the address, which takes it apart */

static char *
ngx_mail_policy_access_log_syslog(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf)
{
    ngx_uint_t          tag;
    ngx_syslog_peer_t  *peer;

    if (alcf->buffer) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "logs to syslog cannot be buffered, write "
                           "\"access_log %V\" without \"buffer=\"",
                           alcf->path);
        return NGX_CONF_ERROR;
    }

    peer = ngx_pcalloc(cf->pool, sizeof(ngx_syslog_peer_t));
    if (peer == NULL) {
        return NGX_CONF_ERROR;
    }

    tag = ngx_strstr(alcf->path->data, ":tag=")
          || ngx_strstr(alcf->path->data, ",tag=");

    if (ngx_syslog_process_conf(cf, peer) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    /* what reads the log of Postfix looks for its name */

    if (alcf->log->postfix && !tag) {
        ngx_str_set(&peer->tag, "postfix/smtpd");
    }

    alcf->log->syslog = peer;

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_access_log_file(ngx_conf_t *cf,
    ngx_mail_policy_access_log_conf_t *alcf)
{
    ngx_open_file_t  *file;

    if (ngx_mail_policy_value_variables(alcf->path)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not supported by this version, write "
                           "a file's name without variables", alcf->path);
        return NGX_CONF_ERROR;
    }

    file = ngx_conf_open_file(cf->cycle, alcf->path);
    if (file == NULL) {
        return NGX_CONF_ERROR;
    }

    alcf->log->file = file;

    if (alcf->buffer == 0) {
        return NGX_CONF_OK;
    }

    switch (ngx_mail_policy_log_buffer(cf, file, alcf->buffer, alcf->flush)) {

    case NGX_OK:
        return NGX_CONF_OK;

    case NGX_DECLINED:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "access_log \"%V\" already defined with "
                           "conflicting parameters, write the same "
                           "\"buffer=\" and \"flush=\"", alcf->path);
        return NGX_CONF_ERROR;

    case NGX_BUSY:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "access_log \"%V\" has a buffer of another module, "
                           "write a file of its own", alcf->path);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_ERROR;
}


void
ngx_mail_policy_access_log_merge(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_srv_conf_t *prev)
{
    if (conf->access_log_off) {
        conf->access_logs = NULL;
        return;
    }

    if (conf->access_logs == NULL && !prev->access_log_off) {
        conf->access_logs = prev->access_logs;
    }
}


void
ngx_mail_policy_access_log_init(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    uint64_t                       lookups;
    ngx_uint_t                     i;
    ngx_mail_policy_access_log_t  *log;

    if (conf->access_logs == NULL) {
        return;
    }

    log = conf->access_logs->elts;

    for (i = 0; i < conf->access_logs->nelts; i++) {
        ngx_mail_policy_value_phase(&log[i].condition);
        lookups = log[i].condition.lookups;

        if (log[i].format) {
            ngx_mail_policy_value_phase(&log[i].format->line);
            lookups |= log[i].format->line.lookups;
        }

        ngx_mail_policy_lookup_use(mcf, conf, lookups);
    }
}
