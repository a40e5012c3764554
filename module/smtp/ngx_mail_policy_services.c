
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What other policy servers say of a recipient, of DATA, and of a message at
 * its end (policy_service).  Those of a point are asked one after the other,
 * in the order of the configuration, once the limits have let it pass:
 *
 *     ask -> lookups -> question -> answer -> the next one ... -> handler
 *        \-> cancel, in any state
 *
 * An inquiry is the questions of one point; its request is the same for all
 * of them.  OK ends it, DUNNO goes on; neither grants anything that the
 * session would not have without them.
 *
 * Events: lookups that a condition needs; the answer of a server.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


/* a request, the question, and its answer */
#define NGX_MAIL_POLICY_INQUIRY_POOL  4096


struct ngx_mail_policy_inquiry_s {
    ngx_mail_policy_transaction_t    *transaction;
    ngx_mail_policy_rcpt_t           *rcpt;     /* NULL: of all */
    ngx_mail_policy_service_point_e   point;
    ngx_mail_policy_inquiry_pt        handler;
    void                             *data;

    ngx_pool_t                       *pool;     /* NULL: over, or no question
                                                   yet */
    ngx_str_t                         request;
    ngx_uint_t                        next;     /* of the services */
    ngx_mail_policy_question_t       *question;
    ngx_mail_policy_fetch_wait_t     *wait;

    ngx_str_t                         permitted;    /* DEFER_IF_PERMIT: what
                                                       is said instead */
    ngx_str_t                         rejected;     /* DEFER_IF_REJECT: the
                                                       same; of the pool */
};


static ngx_int_t ngx_mail_policy_inquiry_next(ngx_mail_policy_inquiry_t *i);
static ngx_int_t ngx_mail_policy_inquiry_applies(ngx_mail_policy_inquiry_t *i,
    ngx_mail_policy_service_conf_t *sc);
static ngx_int_t ngx_mail_policy_inquiry_send(ngx_mail_policy_inquiry_t *i,
    ngx_mail_policy_service_conf_t *sc);
static void ngx_mail_policy_inquiry_fetched(void *data);
static void ngx_mail_policy_inquiry_answered(void *data,
    mpol_access_t *access, ngx_uint_t failed);
static void ngx_mail_policy_inquiry_go(ngx_mail_policy_inquiry_t *i);
static void ngx_mail_policy_inquiry_refuse(ngx_mail_policy_inquiry_t *i,
    mpol_access_t *access);
static void ngx_mail_policy_inquiry_end(ngx_mail_policy_inquiry_t *i,
    ngx_uint_t status, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_inquiry_reply(ngx_pool_t *pool,
    mpol_access_t *access, ngx_str_t *reply);
static ngx_int_t ngx_mail_policy_inquiry_prepend(ngx_mail_policy_inquiry_t *i,
    mpol_access_t *access);
static void ngx_mail_policy_inquiry_log(ngx_mail_policy_inquiry_t *i,
    ngx_uint_t level, const char *what, mpol_str_t *text);


ngx_int_t
ngx_mail_policy_services_ask(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_service_point_e point,
    ngx_mail_policy_inquiry_pt handler, void *data)
{
    ngx_mail_policy_inquiry_t  *i, **owner;

    if (t->session->conf->services == NULL) {
        return NGX_OK;
    }

    owner = rcpt ? &rcpt->inquiry : &t->inquiry;
    i = *owner;

    /* one for each recipient, and one for DATA and the end */

    if (i == NULL) {
        i = ngx_palloc(t->pool, sizeof(ngx_mail_policy_inquiry_t));
        if (i == NULL) {
            return NGX_ERROR;
        }

        *owner = i;
    }

    ngx_memzero(i, sizeof(ngx_mail_policy_inquiry_t));

    i->transaction = t;
    i->rcpt = rcpt;
    i->point = point;
    i->handler = handler;
    i->data = data;

    return ngx_mail_policy_inquiry_next(i);
}


void
ngx_mail_policy_services_cancel(ngx_mail_policy_inquiry_t *i)
{
    if (i == NULL) {
        return;
    }

    ngx_mail_policy_fetch_forget(&i->wait);

    if (i->question) {
        ngx_mail_policy_question_cancel(i->question);
        i->question = NULL;
    }

    if (i->pool) {
        ngx_destroy_pool(i->pool);
        i->pool = NULL;
    }
}


void
ngx_mail_policy_services_forget(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    if (t->session->conf->services == NULL) {
        return;
    }

    ngx_mail_policy_services_cancel(t->inquiry);

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        ngx_mail_policy_services_cancel(rcpt->inquiry);
    }
}


/*
 * The next service that is to be asked.  NGX_OK: there is none; NGX_AGAIN: it
 * was, or lookups are awaited; NGX_ERROR: no memory.
 */

static ngx_int_t
ngx_mail_policy_inquiry_next(ngx_mail_policy_inquiry_t *i)
{
    ngx_int_t                        rc;
    ngx_array_t                     *services;
    ngx_mail_policy_service_conf_t  *sc;

    services = i->transaction->session->conf->services;
    sc = services->elts;

    for ( /* void */ ; i->next < services->nelts; i->next++) {

        if (sc[i->next].point != i->point) {
            continue;
        }

        rc = ngx_mail_policy_inquiry_applies(i, &sc[i->next]);

        if (rc == NGX_OK) {
            return ngx_mail_policy_inquiry_send(i, &sc[i->next]);
        }

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    return NGX_OK;
}


/* NGX_DECLINED: its "if=" is empty or 0; NGX_AGAIN: it waits for lookups */

static ngx_int_t
ngx_mail_policy_inquiry_applies(ngx_mail_policy_inquiry_t *i,
    ngx_mail_policy_service_conf_t *sc)
{
    ngx_int_t                       rc;
    ngx_str_t                       value;
    ngx_mail_policy_fetch_t        *fetch;
    ngx_mail_policy_transaction_t  *t;

    if (sc->condition.text.len == 0) {
        return NGX_OK;
    }

    t = i->transaction;
    fetch = (i->rcpt && i->rcpt->fetch) ? i->rcpt->fetch : t->fetch;

    rc = ngx_mail_policy_fetch_wait(fetch, sc->lookups, &i->wait,
                                    ngx_mail_policy_inquiry_fetched, i);
    if (rc != NGX_OK) {
        return rc;
    }

    if (i->rcpt) {
        ngx_mail_policy_rcpt_envelope(i->rcpt);

    } else {
        t->session->envelope.found = ngx_mail_policy_fetch_found(t->fetch);
    }

    if (ngx_mail_policy_value_eval(t->pool, &sc->condition,
                                   &t->session->envelope, &value)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return (value.len == 0 || (value.len == 1 && value.data[0] == '0'))
           ? NGX_DECLINED : NGX_OK;
}


static ngx_int_t
ngx_mail_policy_inquiry_send(ngx_mail_policy_inquiry_t *i,
    ngx_mail_policy_service_conf_t *sc)
{
    if (i->pool == NULL) {
        i->pool = ngx_create_pool(NGX_MAIL_POLICY_INQUIRY_POOL,
                                  ngx_cycle->log);

        if (i->pool == NULL
            || ngx_mail_policy_service_request(i->transaction, i->rcpt,
                                               i->point, i->pool, &i->request)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    i->question = ngx_mail_policy_question_create(sc->service, i->pool,
                                    i->transaction->session->connection->log,
                                    &i->request, sc->timeout, &sc->fallback,
                                    ngx_mail_policy_inquiry_answered, i);
    if (i->question == NULL) {
        return NGX_ERROR;
    }

    ngx_mail_policy_question_send(i->question);

    return NGX_AGAIN;
}


static void
ngx_mail_policy_inquiry_fetched(void *data)
{
    ngx_mail_policy_inquiry_go(data);
}


/* the next step, not from within ask() */

static void
ngx_mail_policy_inquiry_go(ngx_mail_policy_inquiry_t *i)
{
    switch (ngx_mail_policy_inquiry_next(i)) {

    case NGX_AGAIN:
        return;

    case NGX_OK:
        ngx_mail_policy_inquiry_end(i, i->permitted.len ? 450 : 0,
                                    &i->permitted);
        return;

    default:
        ngx_mail_policy_inquiry_end(i, 452, &ngx_mail_policy_no_memory);
    }
}


static void
ngx_mail_policy_inquiry_answered(void *data, mpol_access_t *access,
    ngx_uint_t failed)
{
    ngx_mail_policy_inquiry_t *i = data;

    ngx_int_t                        rc;
    ngx_mail_policy_service_conf_t  *sc;

    sc = i->transaction->session->conf->services->elts;
    sc = &sc[i->next++];

    i->question = NULL;

    rc = NGX_OK;

    if (access->action == MPOL_ACCESS_PREPEND) {
        rc = ngx_mail_policy_inquiry_prepend(i, access);
    }

    if (rc == NGX_DECLINED) {
        access = &sc->fallback;
    }

    switch (access->action) {

    case MPOL_ACCESS_OK:
        i->next = NGX_MAX_UINT32_VALUE;
        break;

    case MPOL_ACCESS_REJECT:
    case MPOL_ACCESS_DEFER:
        ngx_mail_policy_inquiry_refuse(i, access);
        return;

    case MPOL_ACCESS_DEFER_IF_PERMIT:
        if (i->permitted.len == 0) {
            rc = ngx_mail_policy_inquiry_reply(i->transaction->pool, access,
                                               &i->permitted);
        }

        break;

    case MPOL_ACCESS_DEFER_IF_REJECT:
        if (i->rejected.len == 0) {
            rc = ngx_mail_policy_inquiry_reply(i->transaction->pool, access,
                                               &i->rejected);
        }

        break;

    case MPOL_ACCESS_INFO:
        ngx_mail_policy_inquiry_log(i, NGX_LOG_INFO, "says", &access->text);
        break;

    case MPOL_ACCESS_WARN:
        ngx_mail_policy_inquiry_log(i, NGX_LOG_WARN, "warns", &access->text);
        break;

    default: /* MPOL_ACCESS_DUNNO, MPOL_ACCESS_PREPEND */
        break;
    }

    if (rc == NGX_ERROR) {
        ngx_mail_policy_inquiry_end(i, 452, &ngx_mail_policy_no_memory);
        return;
    }

    ngx_mail_policy_inquiry_go(i);
}


static void
ngx_mail_policy_inquiry_refuse(ngx_mail_policy_inquiry_t *i,
    mpol_access_t *access)
{
    ngx_str_t   text;
    ngx_uint_t  status;

    status = access->code;

    if (status >= 500 && i->rejected.len) {
        ngx_mail_policy_inquiry_end(i, 450, &i->rejected);
        return;
    }

    if (ngx_mail_policy_inquiry_reply(i->transaction->pool, access, &text)
        != NGX_OK)
    {
        ngx_mail_policy_inquiry_end(i, 452, &ngx_mail_policy_no_memory);
        return;
    }

    ngx_mail_policy_inquiry_end(i, status, &text);
}


/* it is over; the handler may end the transaction */

static void
ngx_mail_policy_inquiry_end(ngx_mail_policy_inquiry_t *i, ngx_uint_t status,
    ngx_str_t *text)
{
    ngx_mail_policy_services_cancel(i);

    if (status) {
        ngx_log_error(NGX_LOG_INFO,
                      i->transaction->session->connection->log, 0,
                      "policy service refused: \"%V\"", text);
    }

    i->handler(i->data, status, text);
}


static ngx_int_t
ngx_mail_policy_inquiry_reply(ngx_pool_t *pool, mpol_access_t *access,
    ngx_str_t *reply)
{
    u_char  buf[MPOL_ACCESS_REPLY];

    reply->len = mpol_access_reply(access, buf);
    reply->data = ngx_pnalloc(pool, reply->len);

    if (reply->data == NULL) {
        ngx_str_null(reply);
        return NGX_ERROR;
    }

    ngx_memcpy(reply->data, buf, reply->len);

    return NGX_OK;
}


/* NGX_DECLINED: it cannot be done, logged */

static ngx_int_t
ngx_mail_policy_inquiry_prepend(ngx_mail_policy_inquiry_t *i,
    mpol_access_t *access)
{
    ngx_int_t  rc;
    ngx_str_t  field;

    if (i->point == NGX_MAIL_POLICY_SERVICE_END) {

        /* as with Postfix: the message is on its way */

        ngx_mail_policy_inquiry_log(i, NGX_LOG_WARN,
                                    "asks too late for a field",
                                    &access->text);
        return NGX_OK;
    }

    field.data = (u_char *) access->text.data;
    field.len = access->text.len;

    rc = ngx_mail_policy_prepend(i->transaction, &field);

    if (rc == NGX_DECLINED) {
        ngx_mail_policy_inquiry_log(i, NGX_LOG_ERR,
                                    "asks for a field that is too long",
                                    &access->text);
    }

    return rc;
}


/* of the one whose answer is dealt with */

static void
ngx_mail_policy_inquiry_log(ngx_mail_policy_inquiry_t *i, ngx_uint_t level,
    const char *what, mpol_str_t *text)
{
    ngx_str_t                        said;
    ngx_mail_policy_service_conf_t  *sc;

    sc = i->transaction->session->conf->services->elts;

    said.data = (u_char *) text->data;
    said.len = text->len;

    if (ngx_mail_policy_log_escape(i->pool, &said) != NGX_OK) {
        ngx_str_null(&said);
    }

    ngx_log_error(level, i->transaction->session->connection->log, 0,
                  "policy service \"%V\" %s: \"%V\"", &sc[i->next - 1].name,
                  what, &said);
}
