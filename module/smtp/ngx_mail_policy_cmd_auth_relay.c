
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * "policy_auth relay": a relay decides about a login.  The one that a message
 * of this login would go to is told what the client has said.
 *
 *     ask -> route -> lookups -> connect -> set-up and AUTH -> 235: OK
 *                                   ^          |           \-> 5xx: DECLINED
 *                                   +----------+ next one
 *                                   none is left, or nobody can tell: ERROR
 *
 *     OK -> the client is logged in: the connection is the session's, for its
 *       \                            first transaction
 *        \-> it is not: closed
 *
 * What is tried stands in an envelope of its own, so that the session's knows
 * of logins only that have succeeded.  Name and password are the auth's, which
 * outlives the question.
 *
 * Events: lookups and addresses that the route needs; the relay's.  Nothing
 * comes from within a call, but an answer may.  end() is the only way out.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_session.h"


#define NGX_MAIL_POLICY_ASKING_TEXT  400        /* of a relay's reply */


struct ngx_mail_policy_asking_s {
    ngx_pool_t                     *pool;
    ngx_mail_policy_session_t      *session;
    ngx_mail_policy_auth_t         *auth;   /* NULL: it was answered */
    ngx_mail_policy_envelope_t      envelope;   /* as if he had logged in */

    ngx_mail_policy_fetch_t        *fetch;  /* of lookups, or NULL */
    ngx_mail_policy_fetch_wait_t   *wait;
    ngx_mail_policy_dynamic_t      *dynamic;

    ngx_mail_policy_upstream_t     *upstream;
    ngx_mail_policy_balance_t       balance;
    ngx_mail_policy_next_t          next;
    ngx_mail_policy_relay_t        *relay;
};


static ngx_mail_policy_asking_t *ngx_mail_policy_asking_create(
    ngx_mail_policy_session_t *s, ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_asking_run(void *data);
static ngx_int_t ngx_mail_policy_asking_route(
    ngx_mail_policy_asking_t *asking);
static ngx_int_t ngx_mail_policy_asking_find(ngx_mail_policy_asking_t *asking,
    uint64_t mask);
static ngx_int_t ngx_mail_policy_asking_connect(
    ngx_mail_policy_asking_t *asking);
static void ngx_mail_policy_asking_ready(void *data);
static void ngx_mail_policy_asking_failed(void *data,
    ngx_mail_policy_relay_stage_e stage);
static void ngx_mail_policy_asking_refused(ngx_mail_policy_asking_t *asking);
static ngx_int_t ngx_mail_policy_asking_text(ngx_pool_t *pool,
    mpol_reply_t *reply, ngx_str_t *text);
static void ngx_mail_policy_asking_answer(ngx_mail_policy_asking_t *asking,
    ngx_int_t rc);
static void ngx_mail_policy_asking_idle(void *data);
static ngx_uint_t ngx_mail_policy_asking_left(ngx_connection_t *c);


static ngx_mail_policy_relay_handlers_t  ngx_mail_policy_asking_handlers = {
    NULL,
    ngx_mail_policy_asking_failed,
    NULL,
    ngx_mail_policy_asking_idle,
    ngx_mail_policy_asking_ready
};


void
ngx_mail_policy_asking_start(void *data, ngx_mail_policy_auth_t *auth)
{
    ngx_mail_policy_session_t *s = data;

    ngx_mail_policy_asking_t  *asking;

    /* not everything that comes with a token says whose it is */

    if (auth->login.len == 0 || auth->password.len == 0) {
        ngx_mail_policy_auth_answer(auth, NGX_DECLINED);
        return;
    }

    asking = ngx_mail_policy_asking_create(s, auth);
    if (asking == NULL) {
        ngx_mail_policy_auth_answer(auth, NGX_ERROR);
        return;
    }

    s->asking = asking;

    ngx_mail_policy_asking_run(asking);
}


void
ngx_mail_policy_asking_cancel(void *data)
{
    ngx_mail_policy_asking_end(data);
}


static ngx_mail_policy_asking_t *
ngx_mail_policy_asking_create(ngx_mail_policy_session_t *s,
    ngx_mail_policy_auth_t *auth)
{
    ngx_pool_t                  *pool;
    ngx_mail_policy_asking_t    *asking;
    ngx_mail_policy_envelope_t  *e;

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    asking = ngx_pcalloc(pool, sizeof(ngx_mail_policy_asking_t));
    if (asking == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    asking->pool = pool;
    asking->session = s;
    asking->auth = auth;
    asking->envelope = s->envelope;

    e = &asking->envelope;

    e->sasl_method = *ngx_mail_policy_auth_name(auth->method);
    e->sasl_username = auth->login;
    e->sasl_password = auth->password;
    e->found = NULL;

    return asking;
}


/* goes on when what was waited for is there */

static void
ngx_mail_policy_asking_run(void *data)
{
    ngx_mail_policy_asking_t *asking = data;

    ngx_int_t  rc;

    rc = ngx_mail_policy_asking_route(asking);

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_balance_init(&asking->balance, asking->upstream,
                                          asking->pool, &asking->envelope);
    }

    if (rc == NGX_OK) {
        rc = ngx_mail_policy_asking_connect(asking);
    }

    if (rc == NGX_ERROR) {
        ngx_mail_policy_asking_answer(asking, NGX_ERROR);
    }
}


/* NGX_OK: asking->upstream is known; NGX_AGAIN: run() will be called */

static ngx_int_t
ngx_mail_policy_asking_route(ngx_mail_policy_asking_t *asking)
{
    ngx_int_t                    rc;
    ngx_mail_policy_route_t      r;
    ngx_mail_policy_upstream_t  *found;
    ngx_mail_policy_srv_conf_t  *conf;

    conf = asking->session->conf;
    found = conf->upstream;

    if (found == NULL) {
        rc = ngx_mail_policy_asking_find(asking, conf->route->lookups);

        if (rc != NGX_OK) {
            return rc;
        }

        r.session = asking->session;
        r.envelope = &asking->envelope;
        r.pool = asking->pool;
        r.known = NULL;
        r.dynamic = &asking->dynamic;
        r.handler = ngx_mail_policy_asking_run;
        r.data = asking;

        rc = ngx_mail_policy_route_eval(&r, &found);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    /*
     * What its "hash" needs.  Of a group that a variable gives, the key may be
     * the sender's: then it is empty, and any relay of it is as good.
     */

    if (found->key && found->key->phase <= NGX_MAIL_POLICY_AT_AUTH) {
        rc = ngx_mail_policy_asking_find(asking, found->key->lookups);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    asking->upstream = found;

    return NGX_OK;
}


/* asks for those lookups of mask that nobody has asked for yet */

static ngx_int_t
ngx_mail_policy_asking_find(ngx_mail_policy_asking_t *asking, uint64_t mask)
{
    uint64_t                   more;
    ngx_mail_policy_session_t  *s;

    if (mask == 0) {
        return NGX_OK;
    }

    s = asking->session;

    if (asking->fetch == NULL) {
        asking->fetch = ngx_mail_policy_fetch_create(s->main_conf,
                                                     &asking->envelope,
                                                     asking->pool, NULL);
        if (asking->fetch == NULL) {
            return NGX_ERROR;
        }

        asking->envelope.found = &asking->fetch->found;
    }

    more = mask & ~asking->fetch->asked & ~asking->fetch->wanted;

    if (more) {
        ngx_mail_policy_fetch_start(asking->fetch,
                                    asking->fetch->wanted | more);
    }

    return ngx_mail_policy_fetch_wait(asking->fetch, mask, &asking->wait,
                                      ngx_mail_policy_asking_run, asking);
}


static ngx_int_t
ngx_mail_policy_asking_connect(ngx_mail_policy_asking_t *asking)
{
    ngx_mail_policy_peer_t     *peer;
    ngx_mail_policy_session_t  *s;

    s = asking->session;

    peer = ngx_mail_policy_next_peer(&asking->balance, s->connection);
    if (peer == NULL) {
        return NGX_ERROR;
    }

    asking->relay = ngx_mail_policy_keep_open(asking->upstream,
                                           s->conf->relay_conf, peer,
                                           &asking->envelope,
                                           &ngx_mail_policy_asking_handlers,
                                           asking);
    if (asking->relay == NULL) {
        ngx_mail_policy_peer_release(peer);
        return NGX_ERROR;
    }

    asking->relay->asking = 1;

    ngx_mail_policy_next_try(&asking->next);

    return NGX_OK;
}


/* the relay has let him in */

static void
ngx_mail_policy_asking_ready(void *data)
{
    ngx_mail_policy_asking_t *asking = data;

    ngx_mail_policy_upstream_report(asking->relay->peer, 0);

    ngx_mail_policy_asking_answer(asking, NGX_OK);
}


static void
ngx_mail_policy_asking_failed(void *data, ngx_mail_policy_relay_stage_e stage)
{
    ngx_mail_policy_asking_t *asking = data;

    ngx_uint_t                  condition;
    ngx_mail_policy_relay_t    *relay;
    ngx_mail_policy_session_t  *s;

    s = asking->session;
    relay = asking->relay;

    if (asking->auth == NULL) {

        /* lost between its answer and what the session makes of it */

        asking->relay = NULL;
        ngx_mail_policy_relay_close(relay);
        return;
    }

    if (relay->declined) {
        ngx_mail_policy_asking_refused(asking);
        return;
    }

    ngx_mail_policy_balance_tried(&asking->balance, relay->peer);

    if (ngx_mail_policy_next_failure(&asking->next, relay, stage)) {
        ngx_mail_policy_upstream_report(relay->peer, 1);
    }

    condition = ngx_mail_policy_next_condition(relay->cause);

    asking->relay = NULL;
    ngx_mail_policy_relay_close(relay);

    if (ngx_mail_policy_next_allowed(&asking->next, s->conf, condition)
        && ngx_mail_policy_asking_connect(asking) == NGX_OK)
    {
        return;
    }

    ngx_mail_policy_asking_answer(asking, NGX_ERROR);
}


static void
ngx_mail_policy_asking_refused(ngx_mail_policy_asking_t *asking)
{
    ngx_int_t                rc;
    ngx_mail_policy_auth_t  *auth;

    auth = asking->auth;

    ngx_mail_policy_upstream_report(asking->relay->peer, 0);

    rc = ngx_mail_policy_asking_text(auth->pool, &asking->relay->refusal,
                                     &auth->told.reply);

    ngx_mail_policy_asking_answer(asking, rc);
}


/*
 * What the relay has said, if nothing but plain text is in it; else the usual
 * reply.  NGX_DECLINED, or NGX_ERROR: no memory.
 */

static ngx_int_t
ngx_mail_policy_asking_text(ngx_pool_t *pool, mpol_reply_t *reply,
    ngx_str_t *text)
{
    size_t       i;
    u_char      *p;
    mpol_str_t  *message;

    ngx_str_null(text);

    message = &reply->message;

    if (message->len == 0 || message->len > NGX_MAIL_POLICY_ASKING_TEXT) {
        return NGX_DECLINED;
    }

    for (i = 0; i < message->len; i++) {
        if (message->data[i] < ' ' || message->data[i] > '~') {
            return NGX_DECLINED;
        }
    }

    p = ngx_pnalloc(pool, sizeof("535 5.999.999 ") + message->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    if (reply->status.len) {
        p = ngx_sprintf(p, "%ui %*s ", (ngx_uint_t) reply->code,
                        reply->status.len, reply->status.data);

    } else {
        p = ngx_sprintf(p, "%ui 5.7.%s ", (ngx_uint_t) reply->code,
                        reply->code == 535 ? "8" : "0");
    }

    p = ngx_cpymem(p, message->data, message->len);

    /* it ends a C string as well */

    *p = '\0';

    text->len = p - text->data;

    return NGX_DECLINED;
}


/* the last thing that is done with what is asked, unless the client is in */

static void
ngx_mail_policy_asking_answer(ngx_mail_policy_asking_t *asking, ngx_int_t rc)
{
    ngx_mail_policy_auth_t     *auth;
    ngx_mail_policy_session_t  *s;

    s = asking->session;
    auth = asking->auth;
    asking->auth = NULL;

    if (rc != NGX_OK) {
        ngx_mail_policy_asking_end(s);

        /* of what comes now, a thread maybe, the session has the timer */

        ngx_mail_policy_session_resume(s);
    }

    ngx_mail_policy_auth_answer(auth, rc);
}


/*
 * Where the relays of this group are logged in to with what "proxy_auth" says,
 * the connection of a client is of no use for its messages.
 */

void
ngx_mail_policy_asking_won(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_relay_t     *relay;
    ngx_mail_policy_asking_t    *asking;
    ngx_mail_policy_upstream_t  *upstream;

    asking = s->asking;

    if (asking == NULL) {
        return;
    }

    relay = asking->relay;
    upstream = asking->upstream;

    if (relay && s->relay == NULL && s->conf->relay_conf->client_login
        && upstream->login == NULL)
    {
        ngx_mail_policy_transaction_adopt(s, relay, upstream);
        asking->relay = NULL;
    }

    ngx_mail_policy_asking_end(s);
}


void
ngx_mail_policy_asking_end(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_asking_t  *asking;

    asking = s->asking;

    if (asking == NULL) {
        return;
    }

    s->asking = NULL;

    if (asking->relay) {
        ngx_mail_policy_keep_put(asking->relay);
    }

    if (asking->dynamic) {
        ngx_mail_policy_dynamic_cancel(asking->dynamic);
    }

    ngx_mail_policy_fetch_forget(&asking->wait);
    ngx_mail_policy_fetch_end(asking->fetch);

    ngx_destroy_pool(asking->pool);
}


static void
ngx_mail_policy_asking_idle(void *data)
{
    ngx_mail_policy_asking_t *asking = data;

    ngx_mail_policy_keep_put(asking->relay);
    asking->relay = NULL;
}


/*
 * A client that has left, or will not say anything any more, does not make a
 * relay's time ours.  What it has tried it has tried.
 */

ngx_int_t
ngx_mail_policy_asking_wait(ngx_mail_policy_session_t *s)
{
    if (s->asking == NULL || s->asking->auth == NULL
        || !ngx_mail_policy_asking_left(s->connection))
    {
        return NGX_AGAIN;
    }

    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "client left before a relay knew it");

    ngx_mail_policy_check_keep(&s->check);
    ngx_mail_policy_session_finalize(s);

    return NGX_DONE;
}


/* nothing of what there may be to read is taken away */

static ngx_uint_t
ngx_mail_policy_asking_left(ngx_connection_t *c)
{
    int      rc;
    u_char   octet;
    ssize_t  n;

    if (c->ssl == NULL) {
        n = recv(c->fd, &octet, 1, MSG_PEEK);

        return n == 0 || (n == -1 && ngx_socket_errno != NGX_EAGAIN
                          && ngx_socket_errno != NGX_EINTR);
    }

    ERR_clear_error();

    n = SSL_peek(c->ssl->connection, &octet, 1);
    rc = SSL_get_error(c->ssl->connection, n);

    ERR_clear_error();

    return n <= 0 && rc != SSL_ERROR_WANT_READ && rc != SSL_ERROR_WANT_WRITE;
}
