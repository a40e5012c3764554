
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Other policy servers, which speak Postfix's policy delegation protocol
 * (SMTPD_POLICY_README): postgrey, SPF daemons and the like.
 *
 * A question is one request, and one answer.  It goes over a connection that
 * the worker keeps, or a new one; one question at a time on each, as not all
 * servers read ahead.  A kept one that turns out to be closed before it
 * answered is made anew at once; a new one that fails, once more after a
 * second, within the timeout, as Postfix does.  Then the answer is
 * default_action.
 *
 *     create -> send -> handler
 *          \        \-> cancel
 *           \-> cancel
 */


#ifndef NGX_MAIL_POLICY_SERVICE_H
#define NGX_MAIL_POLICY_SERVICE_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_access.h"


/* at=, in the order in which a transaction passes them */
typedef enum {
    NGX_MAIL_POLICY_SERVICE_RCPT = 0,
    NGX_MAIL_POLICY_SERVICE_DATA,
    NGX_MAIL_POLICY_SERVICE_END,
    NGX_MAIL_POLICY_SERVICE_POINTS
} ngx_mail_policy_service_point_e;


/* a server, by its address: the same for all lines that name it */
typedef struct ngx_mail_policy_service_s   ngx_mail_policy_service_t;
typedef struct ngx_mail_policy_question_s  ngx_mail_policy_question_t;


/*
 * access: the answer, or default_action; what it points to lies on the
 * question's pool, or is the configuration's.  failed: 1 if it is
 * default_action, and why was said in the log.  The question is over.
 */
typedef void (*ngx_mail_policy_question_pt)(void *data,
    mpol_access_t *access, ngx_uint_t failed);


/*
 * On the pool, which has to be there until the handler is called or the
 * question is cancelled.  request: as it goes over the wire, not copied.
 * timeout: ms, of the whole; fallback: default_action.  NULL: no memory.
 */
ngx_mail_policy_question_t *ngx_mail_policy_question_create(
    ngx_mail_policy_service_t *service, ngx_pool_t *pool, ngx_log_t *log,
    ngx_str_t *request, ngx_msec_t timeout, mpol_access_t *fallback,
    ngx_mail_policy_question_pt handler, void *data);

/* the handler is never called from within it, but from the event loop */
void ngx_mail_policy_question_send(ngx_mail_policy_question_t *question);

/* no effect on one that is over; the handler is not called any more */
void ngx_mail_policy_question_cancel(ngx_mail_policy_question_t *question);


/*
 * "unix:/path", "inet:host:port": NULL on error, logged.  max: connections of
 * a worker at a time, of the first line that names it.
 */
ngx_mail_policy_service_t *ngx_mail_policy_service_create(ngx_conf_t *cf,
    ngx_array_t *services, ngx_str_t *name, ngx_uint_t max);

/* a worker begins: their counters */
void ngx_mail_policy_service_start(ngx_array_t *services);

/* the worker exits: nothing is kept any more */
void ngx_mail_policy_service_exit(ngx_array_t *services);


#endif /* NGX_MAIL_POLICY_SERVICE_H */
