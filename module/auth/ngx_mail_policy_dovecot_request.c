
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is asked of Dovecot, and what it answers.
 *
 *     AUTH <id> <mechanism> <params> [resp=<base64>]
 *     CONT <id> <base64>
 *     CANCEL <id>
 *
 * An id is used once.  Requests are listed by it from begin()
 * until their end; of one that is not listed any more an answer is passed
 * over, and one to an id that this connection was never asked with is the end
 * of the connection.
 *
 * Events: a timer of each request while Dovecot is to answer.  If it has said
 * nothing to anybody meanwhile, it is the connection that is dead.  It is not
 * cancelable: a worker that is to end waits for it, as the session may have no
 * timer then.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_dovecot.h"


#define NGX_MAIL_POLICY_DOVECOT_TIMEOUT  60000


static void ngx_mail_policy_dovecot_cleanup(void *data);
static u_char *ngx_mail_policy_dovecot_base64(u_char *p, ngx_str_t *message);
static void ngx_mail_policy_dovecot_send(
    ngx_mail_policy_dovecot_request_t *request);
static void ngx_mail_policy_dovecot_wait(
    ngx_mail_policy_dovecot_request_t *request);
static void ngx_mail_policy_dovecot_say(
    ngx_mail_policy_dovecot_request_t *request,
    ngx_mail_policy_dovecot_answer_e answer, mpol_str_t *args);
static void ngx_mail_policy_dovecot_unlist(
    ngx_mail_policy_dovecot_request_t *request);
static void ngx_mail_policy_dovecot_busy(ngx_mail_policy_dovecot_t *dovecot);
static void ngx_mail_policy_dovecot_timeout_handler(ngx_event_t *ev);


ngx_mail_policy_dovecot_request_t *
ngx_mail_policy_dovecot_request(ngx_mail_policy_dovecot_service_t *service,
    ngx_pool_t *pool, ngx_uint_t method, ngx_mail_policy_dovecot_pt handler,
    void *data)
{
    ngx_pool_cleanup_t                 *cln;
    ngx_mail_policy_dovecot_request_t  *request;

    cln = ngx_pool_cleanup_add(pool,
                               sizeof(ngx_mail_policy_dovecot_request_t));
    if (cln == NULL) {
        return NULL;
    }

    request = cln->data;

    ngx_memzero(request, sizeof(ngx_mail_policy_dovecot_request_t));

    request->dovecot = ngx_mail_policy_dovecot_current(service);
    request->pool = pool;
    request->method = method;
    request->handler = handler;
    request->data = data;

    request->timer.handler = ngx_mail_policy_dovecot_timeout_handler;
    request->timer.data = request;
    request->timer.log = ngx_cycle->log;

    cln->handler = ngx_mail_policy_dovecot_cleanup;

    return request;
}


static void
ngx_mail_policy_dovecot_cleanup(void *data)
{
    ngx_mail_policy_dovecot_cancel(data);
}


ngx_int_t
ngx_mail_policy_dovecot_prepare(
    ngx_mail_policy_dovecot_request_t *request, ngx_str_t *params,
    ngx_str_t *message)
{
    size_t                      size;
    u_char                     *p;
    ngx_str_t                  *name;
    ngx_mail_policy_dovecot_t  *dovecot;

    dovecot = request->dovecot;

    name = ngx_mail_policy_auth_name(request->method);

    size = sizeof("AUTH\t\t\tresp=\n") - 1 + NGX_INT32_LEN + name->len
           + params->len;

    if (message) {
        size += ngx_base64_encoded_length(message->len);
    }

    if (size > NGX_MAIL_POLICY_DOVECOT_LINE) {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(request->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (++dovecot->last == 0) {
        dovecot->last = 1;
    }

    request->node.key = dovecot->last;
    request->line.data = p;

    p = ngx_sprintf(p, "AUTH\t%ui\t%V%V", (ngx_uint_t) request->node.key,
                    name, params);

    /* it must be the last one */

    if (message) {
        p = ngx_cpymem(p, "\tresp=", sizeof("\tresp=") - 1);
        p = ngx_mail_policy_dovecot_base64(p, message);
    }

    *p++ = LF;

    request->line.len = p - request->line.data;

    return NGX_OK;
}


static u_char *
ngx_mail_policy_dovecot_base64(u_char *p, ngx_str_t *message)
{
    ngx_str_t  base64;

    base64.data = p;
    ngx_encode_base64(&base64, message);

    return p + base64.len;
}


void
ngx_mail_policy_dovecot_begin(ngx_mail_policy_dovecot_request_t *request)
{
    ngx_mail_policy_dovecot_t  *dovecot;

    dovecot = request->dovecot;

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_DOWN
        && dovecot->refused
        && (ngx_msec_int_t) (dovecot->retry - ngx_current_msec) > 0)
    {
        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_LOST,
                                    NULL);
        return;
    }

    ngx_rbtree_insert(&dovecot->requests, &request->node);
    dovecot->nrequests++;
    request->listed = 1;

    ngx_mail_policy_dovecot_busy(dovecot);
    ngx_mail_policy_dovecot_wait(request);

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_DOWN) {
        (void) ngx_mail_policy_dovecot_connect(dovecot);
        return;
    }

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_UP) {
        ngx_mail_policy_dovecot_send(request);
    }
}


void
ngx_mail_policy_dovecot_number(ngx_mail_policy_dovecot_t *dovecot)
{
    ngx_rbtree_node_t  *root, *sentinel;

    root = dovecot->requests.root;
    sentinel = dovecot->requests.sentinel;

    dovecot->first = (root == sentinel)
                     ? dovecot->last + 1
                     : (uint32_t) ngx_rbtree_min(root, sentinel)->key;
}


/* a handler may begin another request, which is not held back any more */

void
ngx_mail_policy_dovecot_release(ngx_mail_policy_dovecot_t *dovecot)
{
    ngx_rbtree_node_t                  *node, *next;
    ngx_mail_policy_dovecot_request_t  *request;

    ngx_mail_policy_dovecot_busy(dovecot);

    node = dovecot->requests.root;

    if (node == dovecot->requests.sentinel) {
        return;
    }

    for (node = ngx_rbtree_min(node, dovecot->requests.sentinel);
         node;
         node = next)
    {
        next = ngx_rbtree_next(&dovecot->requests, node);

        request = (ngx_mail_policy_dovecot_request_t *) node;

        if (request->line.len) {
            ngx_mail_policy_dovecot_send(request);
        }
    }
}


static void
ngx_mail_policy_dovecot_send(ngx_mail_policy_dovecot_request_t *request)
{
    ngx_int_t                   rc;
    ngx_mail_policy_dovecot_t  *dovecot;

    dovecot = request->dovecot;

    if (!(dovecot->methods & request->method)) {
        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_NONE,
                                    NULL);
        return;
    }

    rc = ngx_mail_policy_dovecot_push(dovecot, request->line.data,
                                      request->line.len);

    ngx_explicit_memzero(request->line.data, request->line.len);
    request->line.len = 0;

    if (rc != NGX_OK) {
        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_LOST,
                                    NULL);
        return;
    }

    /* its time begins now */

    ngx_mail_policy_dovecot_wait(request);
}


void
ngx_mail_policy_dovecot_proceed(ngx_mail_policy_dovecot_request_t *request,
    ngx_str_t *message)
{
    size_t      size;
    u_char     *line, *p;
    ngx_int_t   rc;

    rc = NGX_ERROR;

    /* it is not listed if the connection was lost meanwhile */

    if (request->listed && !request->waiting) {

        size = sizeof("CONT\t\t\n") - 1 + NGX_INT32_LEN
               + ngx_base64_encoded_length(message->len);

        line = (size <= NGX_MAIL_POLICY_DOVECOT_LINE)
               ? ngx_pnalloc(request->pool, size) : NULL;

        if (line) {
            p = ngx_sprintf(line, "CONT\t%ui\t",
                            (ngx_uint_t) request->node.key);
            p = ngx_mail_policy_dovecot_base64(p, message);
            *p++ = LF;

            rc = ngx_mail_policy_dovecot_push(request->dovecot, line,
                                              p - line);

            ngx_explicit_memzero(line, p - line);
        }
    }

    if (rc == NGX_OK) {
        ngx_mail_policy_dovecot_wait(request);
        return;
    }

    ngx_mail_policy_dovecot_cancel(request);
    ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_LOST, NULL);
}


static void
ngx_mail_policy_dovecot_wait(ngx_mail_policy_dovecot_request_t *request)
{
    request->waiting = 1;
    request->since = ngx_current_msec;

    ngx_add_timer(&request->timer, NGX_MAIL_POLICY_DOVECOT_TIMEOUT);
}


/* Dovecot keeps a request until it is answered, or for some minutes */

void
ngx_mail_policy_dovecot_cancel(ngx_mail_policy_dovecot_request_t *request)
{
    u_char                     *p, line[sizeof("CANCEL\t\n") + NGX_INT32_LEN];
    ngx_mail_policy_dovecot_t  *dovecot;

    dovecot = request->dovecot;

    if (request->listed
        && request->line.len == 0
        && dovecot->state == NGX_MAIL_POLICY_DOVECOT_UP)
    {
        p = ngx_sprintf(line, "CANCEL\t%ui\n", (ngx_uint_t) request->node.key);

        (void) ngx_mail_policy_dovecot_push(dovecot, line, p - line);
    }

    ngx_mail_policy_dovecot_unlist(request);
}


ngx_int_t
ngx_mail_policy_dovecot_answer(ngx_mail_policy_dovecot_t *dovecot,
    mpol_dovecot_line_t *line)
{
    ngx_rbtree_node_t                  *node, *sentinel;
    ngx_mail_policy_dovecot_request_t  *request;

    if ((uint32_t) (line->id - dovecot->first)
        > (uint32_t) (dovecot->last - dovecot->first))
    {
        return NGX_ERROR;
    }

    node = dovecot->requests.root;
    sentinel = dovecot->requests.sentinel;

    while (node != sentinel && node->key != line->id) {
        node = (line->id < node->key) ? node->left : node->right;
    }

    if (node == sentinel) {
        return NGX_OK;
    }

    request = (ngx_mail_policy_dovecot_request_t *) node;

    if (!request->waiting) {

        /* it is the client's turn: Dovecot has given up, and says so */

        ngx_mail_policy_dovecot_unlist(request);
        return NGX_OK;
    }

    switch (line->command) {

    case MPOL_DOVECOT_OK:
        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_OK,
                                    &line->args);
        break;

    case MPOL_DOVECOT_FAIL:
        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_FAIL,
                                    &line->args);
        break;

    default: /* MPOL_DOVECOT_CONT */
        request->waiting = 0;
        ngx_del_timer(&request->timer);

        request->handler(request->data, NGX_MAIL_POLICY_DOVECOT_CONT,
                         &line->args);
    }

    return NGX_OK;
}


/* the request's end; its memory may be gone when the handler returns */

static void
ngx_mail_policy_dovecot_say(ngx_mail_policy_dovecot_request_t *request,
    ngx_mail_policy_dovecot_answer_e answer, mpol_str_t *args)
{
    ngx_mail_policy_dovecot_unlist(request);

    request->handler(request->data, answer, args);
}


static void
ngx_mail_policy_dovecot_unlist(ngx_mail_policy_dovecot_request_t *request)
{
    ngx_mail_policy_dovecot_t  *dovecot;

    if (request->line.len) {
        ngx_explicit_memzero(request->line.data, request->line.len);
        request->line.len = 0;
    }

    if (request->timer.timer_set) {
        ngx_del_timer(&request->timer);
    }

    request->waiting = 0;

    if (!request->listed) {
        return;
    }

    dovecot = request->dovecot;

    ngx_rbtree_delete(&dovecot->requests, &request->node);
    dovecot->nrequests--;
    request->listed = 0;

    ngx_mail_policy_dovecot_busy(dovecot);
}


/*
 * An idle connection is closed by nginx when the worker is to end, one that
 * becomes idle afterwards, or is old, is closed by us: in its read handler, as
 * somebody may be reading from it.
 */

static void
ngx_mail_policy_dovecot_busy(ngx_mail_policy_dovecot_t *dovecot)
{
    ngx_connection_t  *c;

    if (dovecot->state != NGX_MAIL_POLICY_DOVECOT_UP) {
        return;
    }

    c = dovecot->peer.connection;

    c->idle = (dovecot->nrequests == 0);

    if (c->idle && (ngx_exiting || dovecot->old)) {
        c->close = 1;
        ngx_post_event(c->read, &ngx_posted_events);
    }
}


/* handlers may begin new requests, which have greater ids */

ngx_uint_t
ngx_mail_policy_dovecot_abandon(ngx_mail_policy_dovecot_t *dovecot)
{
    uint32_t                            span;
    ngx_uint_t                          n;
    ngx_rbtree_node_t                  *node;
    ngx_mail_policy_dovecot_request_t  *request;

    span = dovecot->last - dovecot->first;

    for (n = 0; dovecot->requests.root != dovecot->requests.sentinel; /* */ ) {

        node = ngx_rbtree_min(dovecot->requests.root,
                              dovecot->requests.sentinel);

        if ((uint32_t) (node->key - dovecot->first) > span) {
            break;
        }

        request = (ngx_mail_policy_dovecot_request_t *) node;

        if (!request->waiting) {

            /* it learns that when it is its turn */

            ngx_mail_policy_dovecot_unlist(request);
            continue;
        }

        n++;

        ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_LOST,
                                    NULL);
    }

    return n;
}


static void
ngx_mail_policy_dovecot_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_dovecot_t          *dovecot;
    ngx_mail_policy_dovecot_request_t  *request;

    request = ev->data;
    dovecot = request->dovecot;

    if (dovecot->state == NGX_MAIL_POLICY_DOVECOT_UP
        && (ngx_msec_int_t) (dovecot->heard - request->since) < 0)
    {
        ngx_mail_policy_dovecot_down(dovecot, NGX_ETIMEDOUT, "no answer");
        return;
    }

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, NGX_ETIMEDOUT,
                  "Dovecot at %V does not answer a login", &dovecot->name);

    ngx_mail_policy_dovecot_cancel(request);
    ngx_mail_policy_dovecot_say(request, NGX_MAIL_POLICY_DOVECOT_LOST, NULL);
}
