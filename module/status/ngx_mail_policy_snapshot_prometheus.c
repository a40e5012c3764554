
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A snapshot in Prometheus' text format, version 0.0.4.  Labels are names of
 * the configuration, of relays, of which there are so many and no more, and
 * words of ours.  No two lines have the same: that would spoil the whole
 * answer.  No events arrive here.
 */


#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_prometheus.h"
#include "ngx_mail_policy_snapshot.h"


#define NGX_MAIL_POLICY_PROMETHEUS_USEC  1000000


/* a counter by itself */
typedef struct {
    ngx_uint_t   n;
    const char  *family;
    const char  *help;
} ngx_mail_policy_prometheus_counter_t;


static void ngx_mail_policy_prometheus_store(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_prometheus_requests(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_prometheus_peers(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s,
    ngx_uint_t up);
static ngx_uint_t ngx_mail_policy_prometheus_seen(
    ngx_mail_policy_snapshot_peer_t *first,
    ngx_mail_policy_snapshot_peer_t *peer);
static void ngx_mail_policy_prometheus_counters(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_prometheus_refusals(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_prometheus_logins(
    ngx_mail_policy_prometheus_t *p, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_prometheus_by(ngx_mail_policy_prometheus_t *p,
    const char *label, ngx_str_t *names, uint64_t *counters, ngx_uint_t n);


static ngx_mail_policy_prometheus_counter_t
    ngx_mail_policy_prometheus_single[] =
{
    { NGX_MAIL_POLICY_METRIC_SESSIONS, "sessions_total",
      "Sessions of clients." },
    { NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES, "message_bytes_total",
      "Octets of the messages that were accepted." },
    { NGX_MAIL_POLICY_METRIC_BYTES_RECEIVED, "client_received_bytes_total",
      "Octets received from clients, within TLS." },
    { NGX_MAIL_POLICY_METRIC_BYTES_SENT, "client_sent_bytes_total",
      "Octets sent to clients, within TLS." },
    { NGX_MAIL_POLICY_METRIC_STORE_ERRORS, "store_errors_total",
      "Questions that the store did not answer." },
    { NGX_MAIL_POLICY_METRIC_LOG_LINES, "log_lines_total",
      "Lines written to access logs." },
    { NGX_MAIL_POLICY_METRIC_LOG_LOST, "log_lines_lost_total",
      "Lines that could not be written to access logs." },
    { NGX_MAIL_POLICY_METRIC_EVENTS_LOST, "events_lost_total",
      "Events that are not known to be in the store's stream." },
    { 0, NULL, NULL }
};


ngx_int_t
ngx_mail_policy_snapshot_prometheus(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *s, ngx_str_t *text)
{
    ngx_mail_policy_prometheus_t  p;

    ngx_memzero(&p, sizeof(ngx_mail_policy_prometheus_t));
    p.out.pool = pool;

    ngx_mail_policy_prometheus_family(&p, "info", "gauge",
                                      "1, by versions of module and nginx.");
    ngx_mail_policy_prometheus_word(&p, "version", NGX_MAIL_POLICY_VERSION);
    ngx_mail_policy_prometheus_word(&p, "nginx", NGINX_VERSION);
    ngx_mail_policy_prometheus_value(&p, "", 1);

    if (s->mail) {
        ngx_mail_policy_prometheus_store(&p, s);
        ngx_mail_policy_prometheus_peers(&p, s, 1);
        ngx_mail_policy_prometheus_peers(&p, s, 0);
    }

    if (s->metrics) {
        ngx_mail_policy_prometheus_counters(&p, s);
        ngx_mail_policy_prometheus_blocks(&p, s);
    }

    text->data = p.out.start;
    text->len = p.out.last - p.out.start;

    return p.out.error ? NGX_ERROR : NGX_OK;
}


static void
ngx_mail_policy_prometheus_store(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t  away;

    away = s->store_workers > s->store_up ? s->store_workers - s->store_up : 0;

    ngx_mail_policy_prometheus_family(p, "store_up", "gauge",
                        "1 if all workers have the store, 0 if one has not.");
    ngx_mail_policy_prometheus_value(p, "",
                        s->store_state.data[0] == 'u' && away == 0);

    if (!s->metrics) {
        return;
    }

    ngx_mail_policy_prometheus_family(p, "store_workers", "gauge",
                        "Workers that use Redis, by whether it is there.");
    ngx_mail_policy_prometheus_word(p, "state", "up");
    ngx_mail_policy_prometheus_value(p, "", s->store_up);
    ngx_mail_policy_prometheus_word(p, "state", "away");
    ngx_mail_policy_prometheus_value(p, "", away);

    ngx_mail_policy_prometheus_requests(p, s);
}


static void
ngx_mail_policy_prometheus_requests(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    u_char      *last, le[NGX_INT64_LEN + sizeof(".000000")];
    uint64_t     sum, *n;
    ngx_uint_t   i, bound;

    n = &s->counters[NGX_MAIL_POLICY_METRIC_STORE_SECONDS];

    ngx_mail_policy_prometheus_family(p, "store_request_duration_seconds",
                                      "histogram",
                                      "How long Redis took to answer.");

    for (i = 0, sum = 0; i < NGX_MAIL_POLICY_METRICS_BOUNDS; i++) {
        sum += n[i];

        bound = ngx_mail_policy_metrics_bounds[i];
        last = ngx_sprintf(le, "%ui.%06ui",
                           bound / NGX_MAIL_POLICY_PROMETHEUS_USEC,
                           bound % NGX_MAIL_POLICY_PROMETHEUS_USEC);

        /* one number has one form: 0.05, 1.0 */

        while (last[-1] == '0' && last[-2] != '.') {
            last--;
        }

        *last = '\0';

        ngx_mail_policy_prometheus_word(p, "le", (const char *) le);
        ngx_mail_policy_prometheus_value(p, "_bucket", sum);
    }

    sum += n[i];

    ngx_mail_policy_prometheus_word(p, "le", "+Inf");
    ngx_mail_policy_prometheus_value(p, "_bucket", sum);
    ngx_mail_policy_prometheus_seconds(p, "_sum",
                            s->counters[NGX_MAIL_POLICY_METRIC_STORE_SUM]);
    ngx_mail_policy_prometheus_value(p, "_count", sum);
}


/* "down" is what somebody wrote: that is no news, and no alert */

static void
ngx_mail_policy_prometheus_peers(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s, ngx_uint_t up)
{
    ngx_uint_t                            i, k;
    ngx_mail_policy_snapshot_peer_t      *peer;
    ngx_mail_policy_snapshot_upstream_t  *upstream;

    if (up) {
        ngx_mail_policy_prometheus_family(p, "upstream_peer_up", "gauge",
                        "1 if the relay may be chosen or is busy, 0 if not; "
                        "nothing for one that is marked \"down\".");

    } else {
        ngx_mail_policy_prometheus_family(p,
                        "upstream_peer_active_connections", "gauge",
                        "Connections to the relay that are in use.");
    }

    upstream = s->upstreams.elts;

    for (i = 0; i < s->upstreams.nelts; i++) {
        peer = upstream[i].peers.elts;

        for (k = 0; k < upstream[i].peers.nelts; k++) {

            if (ngx_mail_policy_prometheus_seen(peer, &peer[k])
                || (up && ngx_strcmp(peer[k].state.data, "down") == 0))
            {
                continue;
            }

            ngx_mail_policy_prometheus_label(p, "upstream", &upstream[i].name);
            ngx_mail_policy_prometheus_label(p, "server", &peer[k].server);
            ngx_mail_policy_prometheus_label(p, "address", &peer[k].address);

            ngx_mail_policy_prometheus_value(p, "", up
                              ? (ngx_strcmp(peer[k].state.data, "up") == 0
                                 || ngx_strcmp(peer[k].state.data, "busy")
                                    == 0)
                              : peer[k].active);
        }
    }
}


/* a server may be written twice */

static ngx_uint_t
ngx_mail_policy_prometheus_seen(ngx_mail_policy_snapshot_peer_t *first,
    ngx_mail_policy_snapshot_peer_t *peer)
{
    for ( /* void */ ; first < peer; first++) {
        if (first->server.len == peer->server.len
            && first->address.len == peer->address.len
            && ngx_strncmp(first->server.data, peer->server.data,
                           peer->server.len)
               == 0
            && ngx_strncmp(first->address.data, peer->address.data,
                           peer->address.len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_mail_policy_prometheus_counters(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_mail_policy_prometheus_counter_t  *counter;

    ngx_mail_policy_prometheus_family(p, "start_time_seconds", "gauge",
                            "When the counters began, since 1970.");
    ngx_mail_policy_prometheus_value(p, "", s->started);

    ngx_mail_policy_prometheus_family(p, "sessions_active", "gauge",
                            "Sessions of clients that are there.");
    ngx_mail_policy_prometheus_value(p, "",
                            s->gauges[NGX_MAIL_POLICY_GAUGE_SESSIONS]);

    ngx_mail_policy_prometheus_family(p, "kept_connections", "gauge",
                            "Connections to relays that wait to be used.");
    ngx_mail_policy_prometheus_value(p, "",
                            s->gauges[NGX_MAIL_POLICY_GAUGE_KEPT]);

    for (counter = ngx_mail_policy_prometheus_single;
         counter->family;
         counter++)
    {
        ngx_mail_policy_prometheus_family(p, counter->family, "counter",
                                          counter->help);
        ngx_mail_policy_prometheus_value(p, "", s->counters[counter->n]);
    }

    ngx_mail_policy_prometheus_family(p, "transactions_total", "counter",
                            "Transactions, by what became of them.");
    ngx_mail_policy_prometheus_by(p, "outcome", ngx_mail_policy_outcomes,
                            &s->counters[NGX_MAIL_POLICY_METRIC_TRANSACTIONS],
                            NGX_MAIL_POLICY_METRICS_OUTCOMES);

    ngx_mail_policy_prometheus_family(p, "recipients_total", "counter",
                            "Recipients, by whether they were accepted.");
    ngx_mail_policy_prometheus_word(p, "result", "accepted");
    ngx_mail_policy_prometheus_value(p, "",
                          s->counters[NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED]);
    ngx_mail_policy_prometheus_word(p, "result", "refused");
    ngx_mail_policy_prometheus_value(p, "",
                          s->counters[NGX_MAIL_POLICY_METRIC_RCPT_REFUSED]);

    ngx_mail_policy_prometheus_refusals(p, s);
    ngx_mail_policy_prometheus_logins(p, s);

    ngx_mail_policy_prometheus_family(p, "postfix_answers_total", "counter",
                            "What Postfix was answered.");
    ngx_mail_policy_prometheus_by(p, "answer",
                            ngx_mail_policy_snapshot_answers,
                            &s->counters[NGX_MAIL_POLICY_METRIC_POSTFIX],
                            NGX_MAIL_POLICY_ANSWERS);
}


static void
ngx_mail_policy_prometheus_refusals(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t  i;

    ngx_mail_policy_prometheus_family(p, "refusals_total", "counter",
                            "Commands that were refused, by class of reply.");

    for (i = 0; i < 2 * NGX_MAIL_POLICY_AT_COMMANDS; i++) {
        ngx_mail_policy_prometheus_label(p, "command",
                                         &ngx_mail_policy_snapshot_commands[
                                            i % NGX_MAIL_POLICY_AT_COMMANDS]);
        ngx_mail_policy_prometheus_word(p, "class",
                                        i < NGX_MAIL_POLICY_AT_COMMANDS
                                        ? "4xx" : "5xx");
        ngx_mail_policy_prometheus_value(p, "",
                          s->counters[NGX_MAIL_POLICY_METRIC_REFUSED + i]);
    }
}


static void
ngx_mail_policy_prometheus_logins(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t  i, k;

    ngx_mail_policy_prometheus_family(p, "auth_total", "counter",
                            "Logins, by mechanism and what became of them.");

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_MECHANISMS; i++) {

        for (k = 0; k < NGX_MAIL_POLICY_LOGINS; k++) {
            ngx_mail_policy_prometheus_label(p, "mechanism",
                                    &ngx_mail_policy_snapshot_mechanisms[i]);
            ngx_mail_policy_prometheus_label(p, "result",
                                    &ngx_mail_policy_snapshot_logins[k]);
            ngx_mail_policy_prometheus_value(p, "",
                                    s->counters[NGX_MAIL_POLICY_METRIC_AUTH
                                              + i * NGX_MAIL_POLICY_LOGINS
                                              + k]);
        }
    }
}


static void
ngx_mail_policy_prometheus_by(ngx_mail_policy_prometheus_t *p,
    const char *label, ngx_str_t *names, uint64_t *counters, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        ngx_mail_policy_prometheus_label(p, label, &names[i]);
        ngx_mail_policy_prometheus_value(p, "", counters[i]);
    }
}
