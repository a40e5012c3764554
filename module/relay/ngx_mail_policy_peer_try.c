
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Counts what relays are asked and how they answer.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "ngx_mail_policy_metrics.h"
#include "ngx_mail_policy_peer_try.h"


static void ngx_mail_policy_peer_try_count(ngx_mail_policy_peer_try_t *try,
    ngx_uint_t n);


void
ngx_mail_policy_peer_try_begin(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_t *relay)
{
    ngx_mail_policy_peer_try_end(try);

    if (ngx_mail_policy_metrics_slot == NULL) {
        return;
    }

    ngx_memzero(try, sizeof(ngx_mail_policy_peer_try_t));

    try->counters = ngx_mail_policy_peer_counters(relay->peer);

    ngx_mail_policy_metrics_add(try->counters
                                + NGX_MAIL_POLICY_METRIC_PEER_TRIES, 1);

    if (relay->reused) {
        ngx_mail_policy_metrics_add(try->counters
                                    + NGX_MAIL_POLICY_METRIC_PEER_REUSED, 1);
    }

    ngx_mail_policy_peer_try_due(try);
}


void
ngx_mail_policy_peer_try_again(ngx_mail_policy_peer_try_t *try)
{
    try->due = 1;
}


void
ngx_mail_policy_peer_try_due(ngx_mail_policy_peer_try_t *try)
{
    if (try->counters && try->due++ == 0) {
        try->since = ngx_mail_policy_metrics_usec();
    }
}


void
ngx_mail_policy_peer_try_replied(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_stage_e stage, ngx_uint_t code)
{
    if (try->counters == 0) {
        return;
    }

    /* one within the message was not waited for */

    if (stage != NGX_MAIL_POLICY_RELAY_BODY && try->due && --try->due == 0) {
        try->waited += ngx_mail_policy_metrics_usec() - try->since;
    }

    switch (stage) {

    case NGX_MAIL_POLICY_RELAY_RCPT:

        if (code < 300) {
            try->taken = 1;
            try->code = 0;

        } else if (!try->taken) {
            try->code = code;
        }

        return;

    case NGX_MAIL_POLICY_RELAY_FINAL:
        try->code = code;
        return;

    default:
        try->code = (code >= 400) ? code : 0;
    }
}


void
ngx_mail_policy_peer_try_failed(ngx_mail_policy_peer_try_t *try,
    ngx_mail_policy_relay_t *relay, ngx_mail_policy_relay_stage_e stage)
{
    if (try->counters == 0) {
        return;
    }

    switch (relay->cause) {

    case NGX_MAIL_POLICY_RELAY_OURSELVES:
        try->code = 0;
        break;

    case NGX_MAIL_POLICY_RELAY_CLOSING:

        if (stage < NGX_MAIL_POLICY_RELAY_MAIL) {
            goto failed;
        }

        /* an answer as well */

        try->code = 421;
        break;

    case NGX_MAIL_POLICY_RELAY_REFUSED:

        if (stage != NGX_MAIL_POLICY_RELAY_AUTH || !relay->as_client) {
            goto failed;
        }

        /* it is the client that was refused */

        try->code = relay->refusal.code;
        break;

    default:
        goto failed;
    }

    ngx_mail_policy_peer_try_end(try);

    return;

failed:

    ngx_mail_policy_peer_try_count(try, NGX_MAIL_POLICY_METRIC_PEER_FAILURES);
}


void
ngx_mail_policy_peer_try_end(ngx_mail_policy_peer_try_t *try)
{
    ngx_uint_t  n;

    if (try->counters == 0) {
        return;
    }

    n = (try->code >= 500) ? NGX_MAIL_POLICY_METRIC_PEER_5XX
        : (try->code >= 400) ? NGX_MAIL_POLICY_METRIC_PEER_4XX
        : (try->code != 0) ? NGX_MAIL_POLICY_METRIC_PEER_2XX
        : NGX_MAIL_POLICY_METRIC_PEER_TRIES;

    ngx_mail_policy_peer_try_count(try, n);
}


/* TRIES: it came to nothing that is counted */

static void
ngx_mail_policy_peer_try_count(ngx_mail_policy_peer_try_t *try, ngx_uint_t n)
{
    if (try->due) {
        try->waited += ngx_mail_policy_metrics_usec() - try->since;
    }

    if (n != NGX_MAIL_POLICY_METRIC_PEER_TRIES) {
        ngx_mail_policy_metrics_add(try->counters + n, 1);
    }

    ngx_mail_policy_metrics_add(try->counters
                                + NGX_MAIL_POLICY_METRIC_PEER_SUM,
                                try->waited);
    try->counters = 0;
}
