
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Requests of a cluster that are sent again.
 *
 *     answered MOVED, ASK --> the other node is up --> on its connection
 *         |                                               ^
 *         | it is not             it is up, 25 ms are over|
 *         v                                               |
 *     parked <-- TRYAGAIN --------------------------------/
 *         \--> the owner is out of time or gone, or 40 times tried: freed
 *
 * Events: a timer of 25 ms while something is parked; posted, when a
 * connection is up.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_slot.h"
#include "ngx_mail_policy_redis_node.h"


#define NGX_MAIL_POLICY_REDIS_AGAIN_DELAY  25   /* ms */
#define NGX_MAIL_POLICY_REDIS_AGAIN_TRIES  40
#define NGX_MAIL_POLICY_REDIS_PARKED       4096


static ngx_int_t ngx_mail_policy_redis_park(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request);
static ngx_int_t ngx_mail_policy_redis_asking_answer(
    ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply);


/* the caller's no more, whatever comes of it */

void
ngx_mail_policy_redis_resend(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_mail_policy_redis_conn_t  *conn;
    ngx_mail_policy_redis_node_t  *node;

    /* what nobody waits for was not done, and need not be */

    if (request->done && request->data == NULL) {
        ngx_mail_policy_redis_request_free(request);
        return;
    }

    node = request->asked ? request->asked
                          : redis->slots[request->slot % MPOL_SLOTS];

    conn = NULL;

    if (node && !request->again) {
        conn = ngx_mail_policy_redis_node_conn(node);
    }

    if (conn && ngx_mail_policy_redis_repeat(conn, request) == NGX_OK) {
        return;
    }

    if (ngx_mail_policy_redis_park(redis, request) != NGX_OK) {
        ngx_mail_policy_redis_orphan(request);
        ngx_mail_policy_redis_request_free(request);
    }
}


/* push(), and what has to be said in front of it where a slot moves */

ngx_int_t
ngx_mail_policy_redis_repeat(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_str_t  asking = ngx_string("ASKING");

    if (request->asked
        && ngx_mail_policy_redis_command(conn,
                                         ngx_mail_policy_redis_asking_answer,
                                         1, &asking)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_redis_push(conn, request);
}


/* if it was refused, so is the request behind it */

static ngx_int_t
ngx_mail_policy_redis_asking_answer(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_redis_park(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request)
{
    if (redis->nparked >= NGX_MAIL_POLICY_REDIS_PARKED
        || request->tries >= NGX_MAIL_POLICY_REDIS_AGAIN_TRIES)
    {
        return NGX_ERROR;
    }

    request->tries++;
    request->conn = NULL;
    request->due = ngx_current_msec + NGX_MAIL_POLICY_REDIS_AGAIN_DELAY;

    ngx_queue_insert_tail(&redis->parked, &request->queue);
    redis->nparked++;

    if (!redis->retry.timer_set) {
        ngx_add_timer(&redis->retry, NGX_MAIL_POLICY_REDIS_AGAIN_DELAY);
    }

    return NGX_OK;
}


void
ngx_mail_policy_redis_unpark(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_queue_remove(&request->queue);
    redis->nparked--;

    ngx_mail_policy_redis_orphan(request);
    ngx_mail_policy_redis_request_free(request);
}


/* a connection is up */

void
ngx_mail_policy_redis_retry(ngx_mail_policy_redis_t *redis)
{
    if (redis->nparked) {
        ngx_post_event(&redis->retry, &ngx_posted_events);
    }
}


void
ngx_mail_policy_redis_retry_handler(ngx_event_t *ev)
{
    ngx_uint_t                        n;
    ngx_queue_t                      *q;
    ngx_mail_policy_redis_t          *redis;
    ngx_mail_policy_redis_request_t  *request;

    redis = ev->data;

    /* those that cannot go yet are parked again, behind the others */

    for (n = redis->nparked; n; n--) {

        q = ngx_queue_head(&redis->parked);
        ngx_queue_remove(q);

        request = ngx_queue_data(q, ngx_mail_policy_redis_request_t, queue);

        if ((ngx_msec_int_t) (request->due - ngx_current_msec) > 0
            && request->again)
        {
            ngx_queue_insert_tail(&redis->parked, q);
            continue;
        }

        redis->nparked--;
        request->again = 0;

        ngx_mail_policy_redis_resend(redis, request);
    }

    if (redis->nparked == 0) {
        /* a node that is gone may have waited for them */
        ngx_mail_policy_redis_sweep(redis);
        return;
    }

    if (!ev->timer_set) {
        ngx_add_timer(ev, NGX_MAIL_POLICY_REDIS_AGAIN_DELAY);
    }
}
