
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A snapshot as one JSON object.  README describes its fields: they may be
 * joined by others, and keep their names.  No events arrive here.
 */


#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_log.h"
#include "ngx_mail_policy_snapshot.h"


#define NGX_MAIL_POLICY_SNAPSHOT_USEC   1000000

#define ngx_mail_policy_snapshot_text(text)  ((const char *) (text).data)


static void ngx_mail_policy_snapshot_json_store(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_seconds(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_upstreams(
    ngx_mail_policy_json_t *j, ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_peer(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s, ngx_mail_policy_snapshot_peer_t *peer);
static void ngx_mail_policy_snapshot_json_relays(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_relay(ngx_mail_policy_json_t *j,
    uint64_t *counters);
static void ngx_mail_policy_snapshot_json_counters(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_refusals(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_auth(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_limits(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_services(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_past(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_totals(ngx_mail_policy_json_t *j,
    const char *name, uint64_t *totals, uint64_t unit);
static void ngx_mail_policy_snapshot_json_refused(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_near(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s);
static void ngx_mail_policy_snapshot_json_names(ngx_mail_policy_json_t *j,
    ngx_str_t *names, uint64_t *counters, ngx_uint_t n);
static void ngx_mail_policy_snapshot_json_mean(ngx_mail_policy_json_t *j,
    uint64_t sum, uint64_t n);
static void ngx_mail_policy_snapshot_json_time(ngx_mail_policy_json_t *j,
    const char *name, time_t t);


ngx_int_t
ngx_mail_policy_snapshot_json(ngx_pool_t *pool, ngx_mail_policy_snapshot_t *s,
    ngx_str_t *text)
{
    ngx_mail_policy_json_t  j;

    static ngx_str_t  version = ngx_string(NGX_MAIL_POLICY_VERSION);

    ngx_memzero(&j, sizeof(ngx_mail_policy_json_t));
    j.pool = pool;

    ngx_mail_policy_json_open(&j, NULL, "{");

    ngx_mail_policy_json_str(&j, "time", &s->time);
    ngx_mail_policy_json_num(&j, "pid", ngx_pid);
    ngx_mail_policy_json_str(&j, "version", &version);
    ngx_mail_policy_json_bool(&j, "mail", s->mail);

    if (s->mail) {
        ngx_mail_policy_json_bool(&j, "metrics", s->metrics);

        if (s->metrics) {
            ngx_mail_policy_snapshot_json_time(&j, "started", s->started);
        }

        ngx_mail_policy_snapshot_json_store(&j, s);
        ngx_mail_policy_snapshot_json_upstreams(&j, s);

        if (s->metrics) {
            ngx_mail_policy_snapshot_json_counters(&j, s);
        }
    }

    ngx_mail_policy_json_close(&j, "}\n");

    text->data = j.start;
    text->len = j.last - j.start;

    return j.error ? NGX_ERROR : NGX_OK;
}


static void
ngx_mail_policy_snapshot_json_store(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_mail_policy_json_open(j, "store", "{");

    ngx_mail_policy_json_str(j, "kind", &s->store_kind);
    ngx_mail_policy_json_str(j, "name", &s->store_name);
    ngx_mail_policy_json_str(j, "state", &s->store_state);

    if (s->metrics) {
        ngx_mail_policy_json_num(j, "workers", s->store_workers);
        ngx_mail_policy_json_num(j, "up", s->store_up);
        ngx_mail_policy_snapshot_json_seconds(j, s);
        ngx_mail_policy_json_num(j, "errors",
                           s->counters[NGX_MAIL_POLICY_METRIC_STORE_ERRORS]);
    }

    ngx_mail_policy_json_close(j, "}");
}


static void
ngx_mail_policy_snapshot_json_seconds(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t    sum, *counters;
    ngx_uint_t  i;

    counters = &s->counters[NGX_MAIL_POLICY_METRIC_STORE_SECONDS];

    ngx_mail_policy_json_open(j, "histogram", "[");

    for (i = 0, sum = 0; i < NGX_MAIL_POLICY_METRICS_BOUNDS; i++) {
        sum += counters[i];

        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_part(j, "le", ngx_mail_policy_metrics_bounds[i],
                                  NGX_MAIL_POLICY_SNAPSHOT_USEC);
        ngx_mail_policy_json_num(j, "count", sum);
        ngx_mail_policy_json_close(j, "}");
    }

    sum += counters[i];

    ngx_mail_policy_json_close(j, "]");
    ngx_mail_policy_json_num(j, "answers", sum);
    ngx_mail_policy_snapshot_json_mean(j,
                       s->counters[NGX_MAIL_POLICY_METRIC_STORE_SUM], sum);
}


static void
ngx_mail_policy_snapshot_json_upstreams(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t                            i, k;
    ngx_mail_policy_snapshot_peer_t      *peer;
    ngx_mail_policy_snapshot_upstream_t  *upstream;

    ngx_mail_policy_json_open(j, "upstreams", "[");

    upstream = s->upstreams.elts;

    for (i = 0; i < s->upstreams.nelts; i++) {
        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "name", &upstream[i].name);
        ngx_mail_policy_json_open(j, "peers", "[");

        peer = upstream[i].peers.elts;

        for (k = 0; k < upstream[i].peers.nelts; k++) {
            ngx_mail_policy_snapshot_json_peer(j, s, &peer[k]);
        }

        ngx_mail_policy_json_close(j, "]}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_peer(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s, ngx_mail_policy_snapshot_peer_t *peer)
{
    ngx_mail_policy_json_open(j, NULL, "{");

    ngx_mail_policy_json_str(j, "server", &peer->server);
    ngx_mail_policy_json_str(j, "address", &peer->address);
    ngx_mail_policy_json_str(j, "state", &peer->state);
    ngx_mail_policy_json_bool(j, "backup", peer->backup);
    ngx_mail_policy_json_num(j, "weight", peer->weight);
    ngx_mail_policy_json_num(j, "active", peer->active);
    ngx_mail_policy_json_num(j, "fails", peer->fails);

    if (s->metrics) {
        ngx_mail_policy_snapshot_json_relay(j, peer->counters);
    }

    ngx_mail_policy_json_close(j, "}");
}


/* those that are no peers of upstreams */

static void
ngx_mail_policy_snapshot_json_relays(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t                         i;
    ngx_mail_policy_snapshot_block_t  *relay;

    ngx_mail_policy_json_open(j, "other_relays", "[");

    relay = s->relays.elts;

    for (i = 0; i < s->relays.nelts; i++) {

        if (relay[i].peer) {
            continue;
        }

        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "upstream", &relay[i].name);
        ngx_mail_policy_json_str(j, "address", &relay[i].address);
        ngx_mail_policy_snapshot_json_relay(j, relay[i].counters);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_relay(ngx_mail_policy_json_t *j,
    uint64_t *counters)
{
    ngx_mail_policy_json_num(j, "tries",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_TRIES]);
    ngx_mail_policy_json_num(j, "failures",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_FAILURES]);
    ngx_mail_policy_json_num(j, "accepted",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_2XX]);
    ngx_mail_policy_json_num(j, "deferred",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_4XX]);
    ngx_mail_policy_json_num(j, "rejected",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_5XX]);
    ngx_mail_policy_json_num(j, "connects",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_CONNECTS]);
    ngx_mail_policy_json_num(j, "reused",
                             counters[NGX_MAIL_POLICY_METRIC_PEER_REUSED]);
    ngx_mail_policy_snapshot_json_mean(j,
                             counters[NGX_MAIL_POLICY_METRIC_PEER_SUM],
                             counters[NGX_MAIL_POLICY_METRIC_PEER_TRIES]);
}


static void
ngx_mail_policy_snapshot_json_counters(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t  *n;

    n = s->counters;

    ngx_mail_policy_snapshot_json_relays(j, s);
    ngx_mail_policy_json_num(j, "kept_connections",
                             s->gauges[NGX_MAIL_POLICY_GAUGE_KEPT]);

    ngx_mail_policy_json_open(j, "sessions", "{");
    ngx_mail_policy_json_num(j, "active",
                             s->gauges[NGX_MAIL_POLICY_GAUGE_SESSIONS]);
    ngx_mail_policy_json_num(j, "total", n[NGX_MAIL_POLICY_METRIC_SESSIONS]);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_json_open(j, "transactions", "{");
    ngx_mail_policy_snapshot_json_names(j, ngx_mail_policy_outcomes,
                                    &n[NGX_MAIL_POLICY_METRIC_TRANSACTIONS],
                                    NGX_MAIL_POLICY_METRICS_OUTCOMES);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_json_open(j, "recipients", "{");
    ngx_mail_policy_json_num(j, "accepted",
                             n[NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED]);
    ngx_mail_policy_json_num(j, "refused",
                             n[NGX_MAIL_POLICY_METRIC_RCPT_REFUSED]);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_json_open(j, "bytes", "{");
    ngx_mail_policy_json_num(j, "messages",
                             n[NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES]);
    ngx_mail_policy_json_num(j, "received",
                             n[NGX_MAIL_POLICY_METRIC_BYTES_RECEIVED]);
    ngx_mail_policy_json_num(j, "sent", n[NGX_MAIL_POLICY_METRIC_BYTES_SENT]);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_snapshot_json_refusals(j, s);
    ngx_mail_policy_snapshot_json_auth(j, s);
    ngx_mail_policy_snapshot_json_limits(j, s);
    ngx_mail_policy_snapshot_json_services(j, s);

    ngx_mail_policy_json_open(j, "postfix", "{");
    ngx_mail_policy_snapshot_json_names(j, ngx_mail_policy_snapshot_answers,
                                        &n[NGX_MAIL_POLICY_METRIC_POSTFIX],
                                        NGX_MAIL_POLICY_ANSWERS);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_json_open(j, "log", "{");
    ngx_mail_policy_json_num(j, "lines", n[NGX_MAIL_POLICY_METRIC_LOG_LINES]);
    ngx_mail_policy_json_num(j, "lost", n[NGX_MAIL_POLICY_METRIC_LOG_LOST]);
    ngx_mail_policy_json_num(j, "events_lost",
                             n[NGX_MAIL_POLICY_METRIC_EVENTS_LOST]);
    ngx_mail_policy_json_close(j, "}");

    ngx_mail_policy_snapshot_json_past(j, s);
    ngx_mail_policy_snapshot_json_refused(j, s);
    ngx_mail_policy_snapshot_json_near(j, s);
}


static void
ngx_mail_policy_snapshot_json_refusals(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t    *n;
    ngx_uint_t   i;

    n = &s->counters[NGX_MAIL_POLICY_METRIC_REFUSED];

    ngx_mail_policy_json_open(j, "refusals", "{");

    for (i = 0; i < NGX_MAIL_POLICY_AT_COMMANDS; i++) {
        ngx_mail_policy_json_open(j, ngx_mail_policy_snapshot_text(
                                     ngx_mail_policy_snapshot_commands[i]),
                                  "{");
        ngx_mail_policy_json_num(j, "deferred", n[i]);
        ngx_mail_policy_json_num(j, "rejected",
                                 n[NGX_MAIL_POLICY_AT_COMMANDS + i]);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "}");
}


static void
ngx_mail_policy_snapshot_json_auth(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t    *n;
    ngx_uint_t   i;

    n = &s->counters[NGX_MAIL_POLICY_METRIC_AUTH];

    ngx_mail_policy_json_open(j, "auth", "{");

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_MECHANISMS; i++) {
        ngx_mail_policy_json_open(j, ngx_mail_policy_snapshot_text(
                                     ngx_mail_policy_snapshot_mechanisms[i]),
                                  "{");
        ngx_mail_policy_snapshot_json_names(j,
                                            ngx_mail_policy_snapshot_logins,
                                            n + i * NGX_MAIL_POLICY_LOGINS,
                                            NGX_MAIL_POLICY_LOGINS);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "}");
}


static void
ngx_mail_policy_snapshot_json_limits(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t                         i;
    ngx_mail_policy_snapshot_block_t  *limit;

    ngx_mail_policy_json_open(j, "limits", "[");

    limit = s->limits.elts;

    for (i = 0; i < s->limits.nelts; i++) {
        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "name", &limit[i].name);
        ngx_mail_policy_snapshot_json_names(j,
                                            ngx_mail_policy_snapshot_results,
                                            limit[i].counters,
                                            NGX_MAIL_POLICY_METRIC_LIMIT_NEAR);
        ngx_mail_policy_json_num(j, "near",
                    limit[i].counters[NGX_MAIL_POLICY_METRIC_LIMIT_NEAR]);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_services(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    uint64_t                          *n;
    ngx_uint_t                         i;
    ngx_mail_policy_snapshot_block_t  *service;

    ngx_mail_policy_json_open(j, "services", "[");

    service = s->services.elts;

    for (i = 0; i < s->services.nelts; i++) {
        n = service[i].counters;

        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "name", &service[i].name);
        ngx_mail_policy_json_num(j, "passed",
                                 n[NGX_MAIL_POLICY_METRIC_SERVICE_PASS]);
        ngx_mail_policy_json_num(j, "refused",
                                 n[NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE]);
        ngx_mail_policy_json_num(j, "default",
                                 n[NGX_MAIL_POLICY_METRIC_SERVICE_DEFAULT]);
        ngx_mail_policy_snapshot_json_mean(j,
                                 n[NGX_MAIL_POLICY_METRIC_SERVICE_SUM],
                                 n[NGX_MAIL_POLICY_METRIC_SERVICE_PASS]
                                 + n[NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE]);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_past(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t  i;

    ngx_mail_policy_snapshot_json_totals(j, "rate", s->rate, 1000);
    ngx_mail_policy_snapshot_json_totals(j, "hour", s->hour, 1);

    ngx_mail_policy_json_open(j, "minutes", "[");

    for (i = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES; i++) {
        ngx_mail_policy_snapshot_json_totals(j, NULL, s->minutes[i], 1);
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_totals(ngx_mail_policy_json_t *j,
    const char *name, uint64_t *totals, uint64_t unit)
{
    ngx_uint_t  i;

    static const char  *names[] = {
        "sessions", "accepted", "deferred", "rejected", "other",
        "recipients", "refused", "auth_failures", "bytes", "store_errors",
        "log_lost"
    };

    ngx_mail_policy_json_open(j, name, "{");

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {

        if (unit == 1) {
            ngx_mail_policy_json_num(j, names[i], totals[i]);

        } else {
            ngx_mail_policy_json_part(j, names[i], totals[i], unit);
        }
    }

    ngx_mail_policy_json_close(j, "}");
}


static void
ngx_mail_policy_snapshot_json_refused(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t                           i;
    ngx_mail_policy_snapshot_refused_t  *refused;

    ngx_mail_policy_json_open(j, "refused", "[");

    refused = s->refused.elts;

    for (i = 0; i < s->refused.nelts; i++) {
        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "reason", &refused[i].reason);
        ngx_mail_policy_json_str(j, "who", &refused[i].who);
        ngx_mail_policy_json_num(j, "count", refused[i].count);
        ngx_mail_policy_snapshot_json_time(j, "first", refused[i].first);
        ngx_mail_policy_snapshot_json_time(j, "last", refused[i].last);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_near(ngx_mail_policy_json_t *j,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_uint_t                        i;
    ngx_mail_policy_snapshot_near_t  *near;

    ngx_mail_policy_json_open(j, "near", "[");

    near = s->near.elts;

    for (i = 0; i < s->near.nelts; i++) {
        ngx_mail_policy_json_open(j, NULL, "{");
        ngx_mail_policy_json_str(j, "limit", &near[i].limit);
        ngx_mail_policy_json_str(j, "unit", &near[i].unit);
        ngx_mail_policy_json_str(j, "key", &near[i].key);
        ngx_mail_policy_json_num(j, "used", near[i].used);
        ngx_mail_policy_json_num(j, "max", near[i].max);
        ngx_mail_policy_snapshot_json_time(j, "last", near[i].last);
        ngx_mail_policy_json_close(j, "}");
    }

    ngx_mail_policy_json_close(j, "]");
}


static void
ngx_mail_policy_snapshot_json_names(ngx_mail_policy_json_t *j,
    ngx_str_t *names, uint64_t *counters, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        ngx_mail_policy_json_num(j, ngx_mail_policy_snapshot_text(names[i]),
                                 counters[i]);
    }
}


static void
ngx_mail_policy_snapshot_json_mean(ngx_mail_policy_json_t *j, uint64_t sum,
    uint64_t n)
{
    ngx_mail_policy_json_part(j, "seconds", n ? sum / n : 0,
                              NGX_MAIL_POLICY_SNAPSHOT_USEC);
}


static void
ngx_mail_policy_snapshot_json_time(ngx_mail_policy_json_t *j,
    const char *name, time_t t)
{
    u_char     buf[sizeof("1970-01-01T00:00:00+00:00") + NGX_INT64_LEN];
    ngx_tm_t   tm;
    ngx_str_t  text;

    ngx_gmtime(t, &tm);

    text.data = buf;
    text.len = ngx_sprintf(buf, "%4d-%02d-%02dT%02d:%02d:%02d+00:00",
                           tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                           tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec)
               - buf;

    ngx_mail_policy_json_str(j, name, &text);
}
