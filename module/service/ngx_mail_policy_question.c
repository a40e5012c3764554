
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A question to another policy server.
 *
 *     send -> WAITING --a connection is free--> ASKING -> answered
 *                ^                                 \-> failed
 *                |                                 |
 *                \---- 1 s, once ---- PAUSED <-----/ a new one was lost, or
 *                                                    cannot be made
 *
 * Events: what its connection says, and one timer.  While a connection is
 * being made that is an address' patience; while PAUSED, the second; else,
 * all the time that there is.
 *
 * Both ways out are ..._finalize(), which calls the handler, once, or
 * ..._cancel(), which does not.  Both leave no connection behind.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_service_conn.h"


#define NGX_MAIL_POLICY_QUESTION_PAUSE  1000


static void ngx_mail_policy_question_wait(
    ngx_mail_policy_question_t *question);
static ngx_msec_int_t ngx_mail_policy_question_left(
    ngx_mail_policy_question_t *question);
static void ngx_mail_policy_question_timer(
    ngx_mail_policy_question_t *question, ngx_msec_int_t time);
static void ngx_mail_policy_question_connect(
    ngx_mail_policy_question_t *question);
static void ngx_mail_policy_question_next(
    ngx_mail_policy_question_t *question);
static ngx_int_t ngx_mail_policy_question_take(
    ngx_mail_policy_question_t *question, ssize_t n);
static void ngx_mail_policy_question_answered(
    ngx_mail_policy_question_t *question);
static const char *ngx_mail_policy_question_action(
    ngx_mail_policy_question_t *question);
static void ngx_mail_policy_question_lost(
    ngx_mail_policy_question_t *question, ngx_err_t err, const char *why);
static void ngx_mail_policy_question_again(
    ngx_mail_policy_question_t *question, ngx_err_t err, const char *why);
static void ngx_mail_policy_question_bad(
    ngx_mail_policy_question_t *question, const char *why);
static void ngx_mail_policy_question_failed(
    ngx_mail_policy_question_t *question, ngx_err_t err, const char *why);
static void ngx_mail_policy_question_timeout_handler(ngx_event_t *ev);
static void ngx_mail_policy_question_count(
    ngx_mail_policy_question_t *question, mpol_access_t *access,
    ngx_uint_t failed);
static void ngx_mail_policy_question_finalize(
    ngx_mail_policy_question_t *question, mpol_access_t *access,
    ngx_uint_t failed);


ngx_mail_policy_question_t *
ngx_mail_policy_question_create(ngx_mail_policy_service_t *service,
    ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *request, ngx_msec_t timeout,
    mpol_access_t *fallback, ngx_mail_policy_question_pt handler, void *data)
{
    ngx_mail_policy_question_t  *question;

    question = ngx_pcalloc(pool, sizeof(ngx_mail_policy_question_t));
    if (question == NULL) {
        return NULL;
    }

    question->service = service;
    question->pool = pool;
    question->log = log;
    question->request = request;
    question->timeout = timeout;
    question->fallback = fallback;
    question->handler = handler;
    question->data = data;

    question->timer.handler = ngx_mail_policy_question_timeout_handler;
    question->timer.data = question;
    question->timer.log = log;

    return question;
}


void
ngx_mail_policy_question_send(ngx_mail_policy_question_t *question)
{
    question->deadline = ngx_current_msec + question->timeout;
    question->begun = ngx_mail_policy_metrics_usec();

    ngx_queue_insert_tail(&question->service->waiting, &question->queue);

    ngx_mail_policy_question_wait(question);
}


static void
ngx_mail_policy_question_wait(ngx_mail_policy_question_t *question)
{
    question->state = NGX_MAIL_POLICY_QUESTION_WAITING;

    ngx_mail_policy_question_timer(question,
                                   ngx_mail_policy_question_left(question));

    ngx_mail_policy_service_wake(question->service);
}


static ngx_msec_int_t
ngx_mail_policy_question_left(ngx_mail_policy_question_t *question)
{
    return (ngx_msec_int_t) (question->deadline - ngx_current_msec);
}


/* nginx leaves a timer where it is if it is to be moved a little only */

static void
ngx_mail_policy_question_timer(ngx_mail_policy_question_t *question,
    ngx_msec_int_t time)
{
    if (question->timer.timer_set) {
        ngx_del_timer(&question->timer);
    }

    ngx_add_timer(&question->timer, (ngx_msec_t) ngx_max(time, 1));
}


void
ngx_mail_policy_question_begin(ngx_mail_policy_question_t *question)
{
    ngx_mail_policy_service_conn_t  *conn;

    question->state = NGX_MAIL_POLICY_QUESTION_ASKING;
    question->tried = 0;
    question->address = question->service->current;

    conn = ngx_mail_policy_service_conn_reuse(question);

    if (conn == NULL) {
        ngx_mail_policy_question_connect(question);
        return;
    }

    ngx_mail_policy_question_write(question);
}


/* the first address from the present one on to which one is under way */

static void
ngx_mail_policy_question_connect(ngx_mail_policy_question_t *question)
{
    ngx_uint_t                  left;
    ngx_msec_int_t              time;
    ngx_mail_policy_service_t  *service;

    service = question->service;

    while (question->tried < service->naddrs) {

        left = service->naddrs - question->tried;
        question->tried++;

        time = ngx_mail_policy_question_left(question);

        if (time <= 0) {
            break;
        }

        if (ngx_mail_policy_service_conn_open(question) == NGX_OK) {
            ngx_mail_policy_question_timer(question,
                                           time / (ngx_msec_int_t) left);
            return;
        }

        ngx_mail_policy_question_next(question);
    }

    ngx_mail_policy_question_again(question, question->err,
                                   "cannot be connected to");
}


void
ngx_mail_policy_question_made(ngx_mail_policy_question_t *question)
{
    question->service->current = question->address;

    ngx_mail_policy_question_timer(question,
                                   ngx_mail_policy_question_left(question));

    ngx_mail_policy_question_write(question);
}


void
ngx_mail_policy_question_unmade(ngx_mail_policy_question_t *question,
    ngx_err_t err)
{
    ngx_mail_policy_service_conn_close(question->conn);
    question->conn = NULL;

    question->err = err;

    ngx_mail_policy_question_next(question);
    ngx_mail_policy_question_connect(question);
}


/* which of them fails is of interest as long as another one may not */

static void
ngx_mail_policy_question_next(ngx_mail_policy_question_t *question)
{
    ngx_mail_policy_service_t  *service;

    service = question->service;

    if (question->tried < service->naddrs) {
        ngx_log_error(NGX_LOG_INFO, question->log, question->err,
                      "policy service \"%V\" cannot be connected to at %V, "
                      "its next address is tried", &service->name,
                      &service->addrs[question->address].name);
    }

    question->address = (question->address + 1) % service->naddrs;
}


void
ngx_mail_policy_question_write(ngx_mail_policy_question_t *question)
{
    ssize_t                          n;
    ngx_str_t                       *request;
    ngx_connection_t                *c;
    ngx_mail_policy_service_conn_t  *conn;

    conn = question->conn;
    request = question->request;
    c = conn->peer.connection;

    while (conn->sent < request->len) {

        n = c->send(c, request->data + conn->sent, request->len - conn->sent);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR || n == 0) {
            ngx_mail_policy_question_lost(question, ngx_socket_errno,
                                          "lost the connection");
            return;
        }

        conn->sent += n;
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_mail_policy_question_lost(question, 0, "lost the connection");
        return;
    }

    /* the event that told of the connection may have told of more */

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


void
ngx_mail_policy_question_read(ngx_mail_policy_question_t *question)
{
    ssize_t                          n;
    ngx_connection_t                *c;
    ngx_mail_policy_service_conn_t  *conn;

    conn = question->conn;
    c = conn->peer.connection;

    for ( ;; ) {

        n = c->recv(c, conn->in + conn->len,
                    NGX_MAIL_POLICY_SERVICE_ANSWER - conn->len);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n <= 0) {
            ngx_mail_policy_question_lost(question, n ? ngx_socket_errno : 0,
                                          conn->len
                                          ? "closed the connection within "
                                            "its answer"
                                          : "closed the connection");
            return;
        }

        switch (ngx_mail_policy_question_take(question, n)) {

        case NGX_AGAIN:
            break;

        case NGX_OK:
            ngx_mail_policy_question_answered(question);
            return;

        default:
            return;
        }
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_policy_question_lost(question, 0, "lost the connection");
    }
}


/* NGX_ERROR: it has failed, and is over */

static ngx_int_t
ngx_mail_policy_question_take(ngx_mail_policy_question_t *question, ssize_t n)
{
    ngx_mail_policy_service_conn_t  *conn;

    conn = question->conn;
    conn->len += n;

    switch (mpol_attr_scan(&conn->scan, conn->in, conn->len)) {

    case MPOL_OK:
        return NGX_OK;

    case MPOL_AGAIN:

        if (conn->len < NGX_MAIL_POLICY_SERVICE_ANSWER) {
            return NGX_AGAIN;
        }

        ngx_mail_policy_question_bad(question, "sent too long an answer");
        return NGX_ERROR;

    default:
        ngx_mail_policy_question_bad(question,
                                     "sent what is no answer of a policy "
                                     "server");
        return NGX_ERROR;
    }
}


static void
ngx_mail_policy_question_answered(ngx_mail_policy_question_t *question)
{
    const char                      *why;
    ngx_mail_policy_service_conn_t  *conn;

    why = ngx_mail_policy_question_action(question);

    if (why) {
        ngx_mail_policy_question_bad(question, why);
        return;
    }

    conn = question->conn;
    question->conn = NULL;

    /* what comes behind the answer was not asked for */

    if (conn->sent == question->request->len && conn->len == conn->scan.pos) {
        ngx_mail_policy_service_conn_keep(conn);

    } else {
        ngx_mail_policy_service_conn_close(conn);
    }

    ngx_mail_policy_question_finalize(question, &question->access, 0);
}


/* NULL, or what is wrong with it */

static const char *
ngx_mail_policy_question_action(ngx_mail_policy_question_t *question)
{
    u_char                          *p;
    mpol_str_t                       action;
    ngx_mail_policy_service_conn_t  *conn;

    conn = question->conn;

    if (mpol_access_find(conn->in, conn->scan.pos, &action) != MPOL_OK) {
        return "answered without an action";
    }

    /* what is read goes with the connection, or is written over */

    p = ngx_pnalloc(question->pool, action.len + 1);
    if (p == NULL) {
        return "answered, and there is no memory for it";
    }

    ngx_memcpy(p, action.data, action.len);

    if (mpol_access_parse(p, action.len, &question->access) != MPOL_OK) {
        return "answered with what is no action";
    }

    if (question->access.action >= MPOL_ACCESS_FILTER) {
        return "answered with what only a Postfix can do";
    }

    return NULL;
}


/* the connection is lost, or as good as lost */

static void
ngx_mail_policy_question_lost(ngx_mail_policy_question_t *question,
    ngx_err_t err, const char *why)
{
    ngx_uint_t  stale;

    stale = question->conn->reused && question->conn->len == 0;

    ngx_mail_policy_service_conn_close(question->conn);
    question->conn = NULL;

    if (!stale) {
        ngx_mail_policy_question_again(question, err, why);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_MAIL, question->log, 0,
                   "policy service \"%V\" closed a kept connection",
                   &question->service->name);

    ngx_mail_policy_question_connect(question);
}


static void
ngx_mail_policy_question_again(ngx_mail_policy_question_t *question,
    ngx_err_t err, const char *why)
{
    if (question->repeated
        || ngx_mail_policy_question_left(question)
           <= NGX_MAIL_POLICY_QUESTION_PAUSE)
    {
        ngx_mail_policy_question_failed(question, err, why);
        return;
    }

    ngx_log_error(NGX_LOG_INFO, question->log, err,
                  "policy service \"%V\" %s, it is asked again",
                  &question->service->name, why);

    question->repeated = 1;
    question->state = NGX_MAIL_POLICY_QUESTION_PAUSED;

    ngx_mail_policy_question_timer(question, NGX_MAIL_POLICY_QUESTION_PAUSE);
}


static void
ngx_mail_policy_question_bad(ngx_mail_policy_question_t *question,
    const char *why)
{
    ngx_str_t                        said;
    ngx_mail_policy_service_conn_t  *conn;

    conn = question->conn;

    said.data = conn->in;
    said.len = conn->len;

    ngx_mail_policy_service_failure(question->service, question->log, 0, why,
                                    &said);

    ngx_mail_policy_question_finalize(question, question->fallback, 1);
}


static void
ngx_mail_policy_question_failed(ngx_mail_policy_question_t *question,
    ngx_err_t err, const char *why)
{
    ngx_mail_policy_service_failure(question->service, question->log, err,
                                    why, NULL);

    ngx_mail_policy_question_finalize(question, question->fallback, 1);
}


void
ngx_mail_policy_question_shutdown(ngx_mail_policy_question_t *question)
{
    ngx_mail_policy_question_failed(question, 0, "was not waited for");
}


static void
ngx_mail_policy_question_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_question_t  *question;

    question = ev->data;

    switch (question->state) {

    case NGX_MAIL_POLICY_QUESTION_PAUSED:

        /* in front of those that came meanwhile */

        ngx_queue_insert_head(&question->service->waiting, &question->queue);
        ngx_mail_policy_question_wait(question);
        return;

    case NGX_MAIL_POLICY_QUESTION_WAITING:
        ngx_mail_policy_question_failed(question, NGX_ETIMEDOUT,
                                        "had no free connection in time");
        return;

    default: /* NGX_MAIL_POLICY_QUESTION_ASKING */

        if (question->conn->state == NGX_MAIL_POLICY_SERVICE_CONNECTING) {
            ngx_mail_policy_question_unmade(question, NGX_ETIMEDOUT);
            return;
        }

        ngx_mail_policy_question_failed(question, NGX_ETIMEDOUT,
                                        "did not answer in time");
    }
}


static void
ngx_mail_policy_question_finalize(ngx_mail_policy_question_t *question,
    mpol_access_t *access, ngx_uint_t failed)
{
    ngx_mail_policy_question_count(question, access, failed);
    ngx_mail_policy_question_cancel(question);

    question->handler(question->data, access, failed);
}


static void
ngx_mail_policy_question_count(ngx_mail_policy_question_t *question,
    mpol_access_t *access, ngx_uint_t failed)
{
    ngx_uint_t  counters;

    counters = question->service->counters;

    if (counters == 0) {
        /* a single process has reloaded */
        return;
    }

    if (failed) {
        ngx_mail_policy_metrics_add(counters
                                    + NGX_MAIL_POLICY_METRIC_SERVICE_DEFAULT,
                                    1);
        return;
    }

    ngx_mail_policy_metrics_add(counters
                                + (access->code
                                   ? NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE
                                   : NGX_MAIL_POLICY_METRIC_SERVICE_PASS),
                                1);
    ngx_mail_policy_metrics_add(counters + NGX_MAIL_POLICY_METRIC_SERVICE_SUM,
                                ngx_mail_policy_metrics_usec()
                                - question->begun);
}


void
ngx_mail_policy_question_cancel(ngx_mail_policy_question_t *question)
{
    if (question->state == NGX_MAIL_POLICY_QUESTION_WAITING) {
        ngx_queue_remove(&question->queue);
    }

    question->state = NGX_MAIL_POLICY_QUESTION_IDLE;

    if (question->timer.timer_set) {
        ngx_del_timer(&question->timer);
    }

    if (question->conn) {
        ngx_mail_policy_service_conn_close(question->conn);
        question->conn = NULL;
    }
}
