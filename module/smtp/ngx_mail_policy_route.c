
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Where a transaction, or a recipient, goes: what "proxy_pass" gives, as soon
 * as the lookups that it needs are there.
 *
 *     fetch -> route -> group, or none such
 *                \-> "host:port": a group is made
 *
 * Whatever has to be waited for, whoever wanted to know asks again then.
 *
 * Events: lookups that are there; the addresses of a relay.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_int_t ngx_mail_policy_route_find(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t **upstream);
static ngx_uint_t ngx_mail_policy_route_address(ngx_str_t *name);
static ngx_int_t ngx_mail_policy_route_dynamic(ngx_mail_policy_route_t *r,
    ngx_str_t *name, ngx_mail_policy_upstream_t **upstream);
static ngx_int_t ngx_mail_policy_route_wait(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, uint64_t mask);
static void ngx_mail_policy_route_handler(void *data);
static void ngx_mail_policy_route_rcpt_handler(void *data);


/*
 * All that is known by MAIL, also of client and login: they may have been
 * asked for long ago.
 */

ngx_int_t
ngx_mail_policy_route_fetch(ngx_mail_policy_transaction_t *t)
{
    uint64_t                    mask;
    ngx_mail_policy_session_t  *s;

    s = t->session;
    mask = ngx_mail_policy_fetch_mask(s->conf, NGX_MAIL_POLICY_AT_MAIL);

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

        ngx_mail_policy_route_cancel(t, rcpt);
        ngx_mail_policy_fetch_end(rcpt->fetch);
    }

    ngx_mail_policy_route_cancel(t, NULL);
    ngx_mail_policy_fetch_end(t->fetch);
}


void
ngx_mail_policy_route_cancel(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt)
{
    ngx_mail_policy_dynamic_t  *dynamic;

    ngx_mail_policy_fetch_forget(rcpt ? &rcpt->wait : &t->wait);

    dynamic = rcpt ? rcpt->dynamic : t->dynamic;

    if (dynamic) {
        ngx_mail_policy_dynamic_cancel(dynamic);
    }
}


ngx_int_t
ngx_mail_policy_route(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t **upstream)
{
    ngx_int_t                    rc;
    ngx_mail_policy_session_t   *s;
    ngx_mail_policy_upstream_t  *found;

    s = t->session;

    found = t->diverted ? t->diverted : s->conf->upstream;

    if (found == NULL) {
        rc = ngx_mail_policy_route_find(t, rcpt, &found);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* what its "hash" needs */

    if (found->key) {
        rc = ngx_mail_policy_route_wait(t, rcpt, found->key->lookups);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    *upstream = found;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_route_find(ngx_mail_policy_transaction_t *t,
    ngx_mail_policy_rcpt_t *rcpt, ngx_mail_policy_upstream_t **upstream)
{
    ngx_int_t                   rc;
    ngx_mail_policy_route_t     r;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    rc = ngx_mail_policy_route_wait(t, rcpt, s->conf->route->lookups);

    if (rc != NGX_OK) {
        return rc;
    }

    if (rcpt) {
        ngx_mail_policy_rcpt_envelope(rcpt);

    } else {
        s->envelope.found = ngx_mail_policy_fetch_found(t->fetch);
    }

    r.session = s;
    r.envelope = &s->envelope;
    r.pool = t->pool;
    r.known = t->upstream;
    r.dynamic = rcpt ? &rcpt->dynamic : &t->dynamic;
    r.handler = rcpt ? ngx_mail_policy_route_rcpt_handler
                     : ngx_mail_policy_route_handler;
    r.data = rcpt ? (void *) rcpt : (void *) t;

    return ngx_mail_policy_route_eval(&r, upstream);
}


ngx_int_t
ngx_mail_policy_route_eval(ngx_mail_policy_route_t *r,
    ngx_mail_policy_upstream_t **upstream)
{
    ngx_str_t                   name;
    ngx_mail_policy_value_t    *route;
    ngx_mail_policy_session_t  *s;

    s = r->session;
    route = s->conf->route;

    if (ngx_mail_policy_value_eval(r->pool, route, r->envelope, &name)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    *upstream = ngx_mail_policy_upstream_find(&s->main_conf->upstreams, &name);

    if (*upstream) {
        return NGX_OK;
    }

    if (ngx_mail_policy_route_address(&name)) {
        return ngx_mail_policy_route_dynamic(r, &name, upstream);
    }

    if (name.len
        && ngx_mail_policy_log_escape(r->pool, &name) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                  "no upstream \"%V\", which \"proxy_pass %V\" gave",
                  &name, &route->text);

    return NGX_ERROR;
}


/* 1 if it is meant to be "host:port" or the like, and not a group's name */

static ngx_uint_t
ngx_mail_policy_route_address(ngx_str_t *name)
{
    ngx_uint_t  i, colon;

    colon = 0;

    for (i = 0; i < name->len; i++) {

        if (name->data[i] <= ' ' || name->data[i] > '~') {
            return 0;
        }

        colon |= (name->data[i] == ':');
    }

    return colon;
}


static ngx_int_t
ngx_mail_policy_route_dynamic(ngx_mail_policy_route_t *r, ngx_str_t *name,
    ngx_mail_policy_upstream_t **upstream)
{
    ngx_mail_policy_session_t  *s;
    ngx_mail_policy_dynamic_t  *d;

    s = r->session;

    /* most recipients go where the first one does */

    if (r->known && r->known->name.len == name->len
        && ngx_memcmp(r->known->name.data, name->data, name->len) == 0)
    {
        *upstream = r->known;
        return NGX_OK;
    }

    d = *r->dynamic;

    if (d == NULL) {
        d = ngx_pcalloc(r->pool, sizeof(ngx_mail_policy_dynamic_t));
        if (d == NULL) {
            return NGX_ERROR;
        }

        d->pool = r->pool;
        d->log = s->connection->log;
        d->resolver = s->core->resolver;
        d->timeout = s->core->resolver_timeout;
        d->handler = r->handler;
        d->data = r->data;

        *r->dynamic = d;

        if (ngx_mail_policy_dynamic_get(&s->main_conf->relays, name, d)
            == NGX_AGAIN)
        {
            return NGX_AGAIN;
        }
    }

    if (d->waits) {
        return NGX_AGAIN;
    }

    *upstream = d->upstream;

    return d->upstream ? NGX_OK : NGX_ERROR;
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
