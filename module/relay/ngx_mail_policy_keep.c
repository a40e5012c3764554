
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The pools of connections to relays.
 *
 *     a session's --- rest() ---> idle --- 1 s: handlers->idle() ---+
 *      ^       ^                   |                                |
 *      |       +----- again() -----+                              put()
 *      |                                                            |
 *      +-- get() --- in the group's pool <--------------------------+
 *                      | keepalive_timeout, one too many, reload: QUIT
 *                      | the relay closes, or says anything: close
 *
 * Events: of one in the pool the relay's own files see all, and tell of a
 * failure (failed); its timer comes here (timeout).  A RSET may be without
 * reply when it is put; until that has come, nobody gets it.
 *
 * Who calls remove() closes, or has a new owner: get(), quit(), failed().
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_keep.h"
#include "ngx_mail_policy_metrics.h"


#define NGX_MAIL_POLICY_KEEP_REST  1000     /* its client may come again */


static ngx_mail_policy_relay_t *ngx_mail_policy_keep_find(
    ngx_mail_policy_keep_t *keep, const ngx_mail_policy_relay_conf_t *conf,
    ngx_mail_policy_peer_t *peer, u_char *identity, size_t len);
static ngx_uint_t ngx_mail_policy_keep_able(ngx_mail_policy_relay_t *relay);
static ngx_uint_t ngx_mail_policy_keep_worn(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_keep_quit(ngx_mail_policy_relay_t *relay);
static void ngx_mail_policy_keep_failed(void *data,
    ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_keep_timeout_handler(ngx_event_t *ev);


static ngx_mail_policy_relay_handlers_t  ngx_mail_policy_keep_handlers = {
    NULL,
    ngx_mail_policy_keep_failed,
    NULL,
    NULL,
    NULL
};


ngx_mail_policy_relay_t *
ngx_mail_policy_keep_open(ngx_mail_policy_upstream_t *upstream,
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data)
{
    ngx_mail_policy_relay_t  *relay;

    relay = ngx_mail_policy_relay_open(conf, peer, envelope, handlers, data);
    if (relay == NULL) {
        return NULL;
    }

    relay->opened = ngx_current_msec;

    /* a group that is made at run time may be gone before its connections */

    if (upstream->keep.max) {
        relay->keep = &upstream->keep;

        relay->idle.handler = ngx_mail_policy_keep_timeout_handler;
        relay->idle.data = relay;
        relay->idle.log = &relay->log;
        relay->idle.cancelable = 1;
    }

    return relay;
}


ngx_mail_policy_relay_t *
ngx_mail_policy_keep_get(ngx_mail_policy_upstream_t *upstream,
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    ngx_mail_policy_envelope_t *envelope,
    ngx_mail_policy_relay_handlers_t *handlers, void *data)
{
    size_t                    len;
    ngx_mail_policy_keep_t   *keep;
    ngx_mail_policy_relay_t  *relay;
    u_char                    identity[NGX_MAIL_POLICY_IDENTITY];

    keep = &upstream->keep;

    if (keep->count == 0) {
        return NULL;
    }

    len = ngx_mail_policy_relay_identity(envelope, identity);

    relay = ngx_mail_policy_keep_find(keep, conf, peer, identity, len);
    if (relay == NULL) {
        return NULL;
    }

    ngx_mail_policy_keep_remove(relay);

    relay->envelope = envelope;
    relay->handlers = handlers;
    relay->data = data;
    relay->unable = 0;
    relay->reused = 1;
    relay->log.action = "talking to relay";

    ngx_log_error(NGX_LOG_INFO, &relay->log, 0,
                  "relay connection is used again, %ui are left", keep->count);

    if (!ngx_mail_policy_relay_identified(relay, identity, len)
        && ngx_mail_policy_relay_renew(relay) != NGX_OK)
    {
        ngx_mail_policy_relay_close(relay);
        return NULL;
    }

    /* what was acquired for the session is the connection's now */

    relay->resting = 0;
    ngx_mail_policy_peer_unref(peer);

    return relay;
}


/*
 * The last one used of those that nothing has to be said to, so that others
 * time out.  Where there is none, one that can be told of another client: not
 * one that was used a moment ago, as its client may come again, and saves two
 * round trips then; unless there is no room for a new one.
 */

static ngx_mail_policy_relay_t *
ngx_mail_policy_keep_find(ngx_mail_policy_keep_t *keep,
    const ngx_mail_policy_relay_conf_t *conf, ngx_mail_policy_peer_t *peer,
    u_char *identity, size_t len)
{
    ngx_queue_t              *q;
    ngx_mail_policy_relay_t  *relay, *other, *busy;

    other = NULL;
    busy = NULL;

    for (q = ngx_queue_head(&keep->relays);
         q != ngx_queue_sentinel(&keep->relays);
         q = ngx_queue_next(q))
    {
        relay = ngx_queue_data(q, ngx_mail_policy_relay_t, kept_queue);

        if (relay->conf != conf || relay->peer != peer
            || !ngx_queue_empty(&relay->sent)
            || !ngx_queue_empty(&relay->waiting))
        {
            continue;
        }

        if (ngx_mail_policy_relay_identified(relay, identity, len)) {

            if (ngx_mail_policy_relay_reusable(relay)) {
                return relay;
            }

        } else if (!ngx_mail_policy_relay_renewable(relay)) {
            continue;

        } else if (ngx_current_msec - relay->kept_since
                   < NGX_MAIL_POLICY_KEEP_REST)
        {
            busy = relay;

        } else if (other == NULL && ngx_mail_policy_relay_reusable(relay)) {
            other = relay;
        }
    }

    if (other == NULL && busy && keep->count == keep->max
        && ngx_mail_policy_relay_reusable(busy))
    {
        return busy;
    }

    return other;
}


ngx_uint_t
ngx_mail_policy_keep_again(ngx_mail_policy_relay_t *relay,
    ngx_mail_policy_envelope_t *envelope)
{
    size_t  len;
    u_char  identity[NGX_MAIL_POLICY_IDENTITY];

    if (!ngx_mail_policy_relay_reusable(relay)
        || ngx_mail_policy_keep_worn(relay))
    {
        return 0;
    }

    /* he may have logged in meanwhile; at set-up there is time for it */

    if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL && !relay->logged_in
        && ngx_mail_policy_relay_auth_needed(relay))
    {
        return 0;
    }

    if (relay->xclient_sent) {
        len = ngx_mail_policy_relay_identity(envelope, identity);

        if (!ngx_mail_policy_relay_identified(relay, identity, len)) {
            return 0;
        }
    }

    if (relay->idle.timer_set) {
        ngx_del_timer(&relay->idle);
    }

    /* it cannot have been closed before it was ready */

    if (relay->stage == NGX_MAIL_POLICY_RELAY_MAIL) {
        relay->reused = 1;
    }

    return 1;
}


void
ngx_mail_policy_keep_rest(ngx_mail_policy_relay_t *relay)
{
    if (relay->keep) {
        ngx_add_timer(&relay->idle, NGX_MAIL_POLICY_KEEP_REST);
    }
}


void
ngx_mail_policy_keep_put(ngx_mail_policy_relay_t *relay)
{
    ngx_queue_t             *q;
    ngx_mail_policy_keep_t  *keep;

    if (relay->idle.timer_set) {
        ngx_del_timer(&relay->idle);
    }

    if (!ngx_mail_policy_keep_able(relay)) {
        ngx_mail_policy_relay_quit(relay);
        return;
    }

    /* what is without reply is nobody's any more; RSET, if need be */

    if (ngx_mail_policy_relay_rset(relay) != NGX_OK) {
        ngx_mail_policy_relay_close(relay);
        return;
    }

    relay->envelope = NULL;
    relay->handlers = &ngx_mail_policy_keep_handlers;
    relay->data = relay;
    relay->log.action = "keeping relay connection";

    keep = relay->keep;

    if (keep->count == keep->max) {
        q = ngx_queue_last(&keep->relays);
        ngx_mail_policy_keep_quit(ngx_queue_data(q, ngx_mail_policy_relay_t,
                                                 kept_queue));
    }

    ngx_queue_insert_head(&keep->relays, &relay->kept_queue);
    keep->count++;
    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_KEPT, 1);

    ngx_mail_policy_relay_rest(relay);

    relay->kept = 1;
    relay->kept_since = ngx_current_msec;
    relay->pc.connection->idle = 1;

    ngx_add_timer(&relay->idle, keep->timeout);

    ngx_log_error(NGX_LOG_INFO, &relay->log, 0,
                  "relay connection is kept, one of %ui", keep->count);
}


/* 1 if a transaction of somebody else may begin where this one stands */

static ngx_uint_t
ngx_mail_policy_keep_able(ngx_mail_policy_relay_t *relay)
{
    ngx_queue_t                      *q;
    ngx_mail_policy_relay_command_t  *cmd;

    if (relay->keep == NULL || relay->bound || ngx_exiting || ngx_terminate
        || relay->peer->gone
        || relay->stage != NGX_MAIL_POLICY_RELAY_MAIL
        || !ngx_mail_policy_relay_reusable(relay)
        || ngx_mail_policy_keep_worn(relay))
    {
        return 0;
    }

    for (q = ngx_queue_head(&relay->sent);
         q != ngx_queue_sentinel(&relay->sent);
         q = ngx_queue_next(q))
    {
        cmd = ngx_queue_data(q, ngx_mail_policy_relay_command_t, queue);

        if (cmd->stage == NGX_MAIL_POLICY_RELAY_DATA
            || cmd->stage == NGX_MAIL_POLICY_RELAY_FINAL)
        {
            return 0;
        }
    }

    return 1;
}


/* 1 if the group's directives do not let it have another transaction */

static ngx_uint_t
ngx_mail_policy_keep_worn(ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_keep_t  *keep;

    keep = relay->keep;

    return keep
           && (relay->mails >= keep->requests
               || ngx_current_msec - relay->opened >= keep->time);
}


void
ngx_mail_policy_keep_remove(ngx_mail_policy_relay_t *relay)
{
    ngx_queue_remove(&relay->kept_queue);
    relay->keep->count--;
    ngx_mail_policy_metrics_gauge(NGX_MAIL_POLICY_GAUGE_KEPT, -1);

    relay->kept = 0;
    relay->pc.connection->idle = 0;

    if (relay->idle.timer_set) {
        ngx_del_timer(&relay->idle);
    }
}


static void
ngx_mail_policy_keep_quit(ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_keep_remove(relay);
    ngx_mail_policy_relay_quit(relay);
}


static void
ngx_mail_policy_keep_failed(void *data, ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_relay_t *relay = data;

    ngx_mail_policy_keep_remove(relay);
    ngx_mail_policy_relay_close(relay);
}


static void
ngx_mail_policy_keep_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_relay_t  *relay;

    relay = ev->data;

    if (relay->kept) {
        ngx_mail_policy_keep_quit(relay);
        return;
    }

    relay->handlers->idle(relay->data);
}


void
ngx_mail_policy_keep_forget(ngx_mail_policy_upstream_t *upstream,
    ngx_mail_policy_peer_t *peer)
{
    ngx_queue_t              *q, *next;
    ngx_mail_policy_relay_t  *relay;

    for (q = ngx_queue_head(&upstream->keep.relays);
         q != ngx_queue_sentinel(&upstream->keep.relays);
         q = next)
    {
        next = ngx_queue_next(q);
        relay = ngx_queue_data(q, ngx_mail_policy_relay_t, kept_queue);

        if (peer == NULL || relay->peer == peer) {
            ngx_mail_policy_keep_quit(relay);
        }
    }
}


/* no event will come: what was to be said was said when c->close came */

void
ngx_mail_policy_keep_exit_process(ngx_array_t *upstreams)
{
    ngx_queue_t                  *q;
    ngx_uint_t                    i;
    ngx_mail_policy_relay_t      *relay;
    ngx_mail_policy_upstream_t  **upstream;

    upstream = upstreams->elts;

    for (i = 0; i < upstreams->nelts; i++) {

        while (!ngx_queue_empty(&upstream[i]->keep.relays)) {
            q = ngx_queue_head(&upstream[i]->keep.relays);
            relay = ngx_queue_data(q, ngx_mail_policy_relay_t, kept_queue);

            ngx_mail_policy_keep_remove(relay);
            ngx_mail_policy_relay_close(relay);
        }
    }
}
