
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Where a transaction, or a recipient, goes: what "proxy_pass" gives, as soon
 * as the lookups that it needs are there.
 *
 *     fetch -> route -> group, or none such
 *        \-> AGAIN -> asked again by whoever wanted to know
 *
 * Event: lookups that are there.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_int_t ngx_mail_policy_route_wait(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, uint64_t mask);
static void ngx_mail_policy_route_handler(void *data);
static void ngx_mail_policy_route_rcpt_handler(void *data);
static ngx_int_t ngx_mail_policy_route_group(ngx_mail_policy_transaction_t *t,
    ngx_str_t *name, ngx_mail_policy_upstream_t **upstream);


/*
 * All that is known by MAIL, also of client and login: they may have been
 * asked for long ago.
 */

ngx_int_t
ngx_mail_policy_route_fetch(ngx_mail_policy_transaction_t *t)
{
    uint64_t                    mask;
    ngx_uint_t                  i;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    mask = 0;

    for (i = 0; i <= NGX_MAIL_POLICY_AT_MAIL; i++) {
        mask |= s->conf->lookups[i];
    }

    if (mask == 0) {
        return NGX_OK;
    }

    t->fetch = ngx_mail_policy_fetch_create(s->main_conf, &s->envelope,
                                            t->pool, NULL);
    if (t->fetch == NULL) {
        return NGX_ERROR;
    }

    s->envelope.found = &t->fetch->found;

    ngx_mail_policy_fetch_start(t->fetch, mask);

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_route_fetch_rcpt(ngx_mail_policy_rcpt_t *rcpt)
{
    uint64_t                        mask;
    ngx_mail_policy_session_t      *s;
    ngx_mail_policy_transaction_t  *t;

    t = rcpt->transaction;
    s = t->session;

    mask = s->conf->lookups[NGX_MAIL_POLICY_AT_RCPT];

    if (mask == 0) {
        return NGX_OK;
    }

    rcpt->fetch = ngx_mail_policy_fetch_create(s->main_conf, &s->envelope,
                                               t->pool, t->fetch);
    if (rcpt->fetch == NULL) {
        return NGX_ERROR;
    }

    rcpt->fetch->recipient = rcpt->to.address;
    rcpt->fetch->recipient_domain = rcpt->domain;

    s->envelope.found = &rcpt->fetch->found;

    ngx_mail_policy_fetch_start(rcpt->fetch, mask);

    return NGX_OK;
}


/* those of recipients are narrower than the transaction's */

void
ngx_mail_policy_route_forget(ngx_mail_policy_transaction_t *t)
{
    ngx_queue_t             *q;
    ngx_mail_policy_rcpt_t  *rcpt;

    for (q = ngx_queue_head(&t->rcpts);
         q != ngx_queue_sentinel(&t->rcpts);
         q = ngx_queue_next(q))
    {
        rcpt = ngx_queue_data(q, ngx_mail_policy_rcpt_t, queue);

        ngx_mail_policy_fetch_forget(&rcpt->wait);
        ngx_mail_policy_fetch_end(rcpt->fetch);
    }

    ngx_mail_policy_fetch_forget(&t->wait);
    ngx_mail_policy_fetch_end(t->fetch);
}


ngx_int_t
ngx_mail_policy_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t **upstream)
{
    ngx_int_t                   rc;
    ngx_str_t                   name;
    ngx_mail_policy_value_t    *route;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    route = s->conf->route;

    if (t->diverted || s->conf->upstream) {
        *upstream = t->diverted ? t->diverted : s->conf->upstream;
        return NGX_OK;
    }

    rc = ngx_mail_policy_route_wait(t, rcpt, route->lookups);

    if (rc != NGX_OK) {
        return rc;
    }

    if (rcpt) {
        ngx_mail_policy_rcpt_envelope(rcpt);

    } else {
        s->envelope.found = ngx_mail_policy_fetch_found(t->fetch);
    }

    if (ngx_mail_policy_value_eval(t->pool, route, &s->envelope, &name)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_route_group(t, &name, upstream);
}


static ngx_int_t
ngx_mail_policy_route_wait(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, uint64_t mask)
{
    if (rcpt) {
        return ngx_mail_policy_fetch_wait(rcpt->fetch ? rcpt->fetch : t->fetch,
                                          mask, &rcpt->wait,
                                          ngx_mail_policy_route_rcpt_handler,
                                          rcpt);
    }

    return ngx_mail_policy_fetch_wait(t->fetch, mask, &t->wait,
                                      ngx_mail_policy_route_handler, t);
}


static void
ngx_mail_policy_route_handler(void *data)
{
    ngx_mail_policy_transaction_routed(data);
}


static void
ngx_mail_policy_route_rcpt_handler(void *data)
{
    ngx_mail_policy_rcpt_t *rcpt = data;

    ngx_mail_policy_rcpts_kick(rcpt->transaction);
}


static ngx_int_t
ngx_mail_policy_route_group(ngx_mail_policy_transaction_t *t,
    ngx_str_t *name, ngx_mail_policy_upstream_t **upstream)
{
    ngx_mail_policy_session_t  *s;

    s = t->session;

    *upstream = ngx_mail_policy_upstream_find(&s->main_conf->upstreams, name);

    if (*upstream) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                  "no upstream \"%V\", which \"proxy_pass %V\" gave",
                  name, &s->conf->route->text);

    return NGX_ERROR;
}
