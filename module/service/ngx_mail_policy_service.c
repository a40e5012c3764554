
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Other policy servers: which there are, who waits for a connection to one,
 * and what the log is told of their failures.
 *
 * Events: wake, which is posted when there may be a connection for a question
 * that waits; and a timer, while failures are counted.  That one is
 * cancelable.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_service_conn.h"
#include "mpol_text.h"


#define NGX_MAIL_POLICY_SERVICE_MAX     20
#define NGX_MAIL_POLICY_SERVICE_MINUTE  60000

/* octets of an answer that the log shows; four for each */
#define NGX_MAIL_POLICY_SERVICE_SAID    100


static ngx_mail_policy_service_t *ngx_mail_policy_service_find(
    ngx_array_t *services, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_service_max(ngx_conf_t *cf,
    ngx_mail_policy_service_t *service, ngx_uint_t max);
static ngx_int_t ngx_mail_policy_service_address(ngx_conf_t *cf,
    ngx_mail_policy_service_t *service);
static void ngx_mail_policy_service_wake_handler(ngx_event_t *ev);
static void ngx_mail_policy_service_minute_handler(ngx_event_t *ev);
static void ngx_mail_policy_service_count(ngx_mail_policy_service_t *service);


ngx_mail_policy_service_t *
ngx_mail_policy_service_create(ngx_conf_t *cf, ngx_array_t *services,
    ngx_str_t *name, ngx_uint_t max)
{
    ngx_mail_policy_service_t  *service, **s;

    service = ngx_mail_policy_service_find(services, name);

    if (service) {
        return ngx_mail_policy_service_max(cf, service, max) == NGX_OK
               ? service : NULL;
    }

    service = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_service_t));
    if (service == NULL) {
        return NULL;
    }

    service->name = *name;
    service->max = max;

    if (ngx_mail_policy_service_address(cf, service) != NGX_OK) {
        return NULL;
    }

    ngx_queue_init(&service->kept);
    ngx_queue_init(&service->waiting);

    service->wake.handler = ngx_mail_policy_service_wake_handler;
    service->wake.data = service;
    service->minute.handler = ngx_mail_policy_service_minute_handler;
    service->minute.data = service;
    service->minute.cancelable = 1;

    s = ngx_array_push(services);
    if (s == NULL) {
        return NULL;
    }

    *s = service;

    return service;
}


static ngx_mail_policy_service_t *
ngx_mail_policy_service_find(ngx_array_t *services, ngx_str_t *name)
{
    ngx_uint_t                   i;
    ngx_mail_policy_service_t  **service;

    service = services->elts;

    for (i = 0; i < services->nelts; i++) {
        if (service[i]->name.len == name->len
            && ngx_memcmp(service[i]->name.data, name->data, name->len) == 0)
        {
            return service[i];
        }
    }

    return NULL;
}


/* another line with the same service */

static ngx_int_t
ngx_mail_policy_service_max(ngx_conf_t *cf,
    ngx_mail_policy_service_t *service, ngx_uint_t max)
{
    if (max == 0 || max == service->max) {
        return NGX_OK;
    }

    if (service->max == 0) {
        service->max = max;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"connections=%ui\" of policy_service \"%V\" is %ui "
                       "in another line: they are the same connections, "
                       "write one number", max, &service->name, service->max);
    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_service_address(ngx_conf_t *cf,
    ngx_mail_policy_service_t *service)
{
    ngx_url_t  u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = service->name;

    if (u.url.len > 6 && ngx_strncmp(u.url.data, "unix:/", 6) == 0) {
        /* void */

    } else if (u.url.len > 5 && ngx_strncmp(u.url.data, "inet:", 5) == 0) {
        u.url.data += 5;
        u.url.len -= 5;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid policy_service \"%V\": write "
                           "\"unix:/path\", \"inet:host:port\" or \"off\"",
                           &service->name);
        return NGX_ERROR;
    }

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in policy_service \"%V\"",
                           u.err ? u.err : "no memory", &service->name);
        return NGX_ERROR;
    }

    if (u.family != AF_UNIX && u.no_port) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no port in policy_service \"%V\": write "
                           "\"inet:host:port\"", &service->name);
        return NGX_ERROR;
    }

    service->addrs = u.addrs;
    service->naddrs = u.naddrs;

    return NGX_OK;
}


void
ngx_mail_policy_service_wake(ngx_mail_policy_service_t *service)
{
    if (!ngx_queue_empty(&service->waiting)) {
        service->wake.log = ngx_cycle->log;
        ngx_post_event(&service->wake, &ngx_posted_events);
    }
}


static void
ngx_mail_policy_service_wake_handler(ngx_event_t *ev)
{
    ngx_uint_t                   max;
    ngx_queue_t                 *q;
    ngx_mail_policy_service_t   *service;
    ngx_mail_policy_question_t  *question;

    service = ev->data;
    max = service->max ? service->max : NGX_MAIL_POLICY_SERVICE_MAX;

    /* what a question ends in may add and remove others */

    while (!ngx_queue_empty(&service->waiting)) {

        if (ngx_queue_empty(&service->kept) && service->nconns >= max) {
            return;
        }

        q = ngx_queue_head(&service->waiting);
        ngx_queue_remove(q);

        question = ngx_queue_data(q, ngx_mail_policy_question_t, queue);

        ngx_mail_policy_question_begin(question);
    }
}


void
ngx_mail_policy_service_failure(ngx_mail_policy_service_t *service,
    ngx_log_t *log, ngx_err_t err, const char *why, ngx_str_t *said)
{
    size_t      len;
    u_char      text[NGX_MAIL_POLICY_SERVICE_SAID * 4];
    ngx_uint_t  level;

    len = 0;

    if (said) {
        len = mpol_log_escape(said->data,
                              ngx_min(said->len,
                                      NGX_MAIL_POLICY_SERVICE_SAID),
                              text, sizeof(text));
    }

    level = NGX_LOG_INFO;

    if (!service->minute.timer_set) {
        level = NGX_LOG_ERR;

        service->minute.log = ngx_cycle->log;
        ngx_add_timer(&service->minute, NGX_MAIL_POLICY_SERVICE_MINUTE);

    } else {
        service->failures++;
    }

    ngx_log_error(level, log, err,
                  "policy service \"%V\" %s%s%*s%s, default_action is taken",
                  &service->name, why, said ? ": \"" : "", len, text,
                  said ? "\"" : "");
}


static void
ngx_mail_policy_service_minute_handler(ngx_event_t *ev)
{
    ngx_mail_policy_service_t  *service;

    service = ev->data;

    if (service->failures) {
        ngx_mail_policy_service_count(service);
        ngx_add_timer(ev, NGX_MAIL_POLICY_SERVICE_MINUTE);
    }
}


static void
ngx_mail_policy_service_count(ngx_mail_policy_service_t *service)
{
    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "more failures of policy service \"%V\": %ui, "
                  "default_action was taken", &service->name,
                  service->failures);

    service->failures = 0;
}


void
ngx_mail_policy_service_start(ngx_array_t *services)
{
    ngx_uint_t                   i;
    ngx_mail_policy_service_t  **service;

    service = services->elts;

    for (i = 0; i < services->nelts; i++) {
        service[i]->counters = ngx_mail_policy_metrics_block(
                                                NGX_MAIL_POLICY_BLOCK_SERVICE,
                                                &service[i]->name, NULL);
    }
}


void
ngx_mail_policy_service_exit(ngx_array_t *services)
{
    ngx_uint_t                   i;
    ngx_queue_t                 *q;
    ngx_mail_policy_service_t  **service;

    service = services->elts;

    for (i = 0; i < services->nelts; i++) {

        while (!ngx_queue_empty(&service[i]->kept)) {
            q = ngx_queue_head(&service[i]->kept);

            ngx_mail_policy_service_conn_close(
                ngx_queue_data(q, ngx_mail_policy_service_conn_t, queue));
        }

        if (service[i]->failures) {
            ngx_mail_policy_service_count(service[i]);
        }
    }
}
