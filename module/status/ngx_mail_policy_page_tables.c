
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Who is refused, which keys are near their limit, and how the relays and the
 * store are.  No events arrive here.
 */


#include "ngx_mail_policy_page.h"


#define NGX_MAIL_POLICY_PAGE_NEAR  80       /* %, where a bar changes */


static void ngx_mail_policy_page_group(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_snapshot_upstream_t *upstream);
static void ngx_mail_policy_page_peer(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_snapshot_peer_t *peer);
static void ngx_mail_policy_page_others(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_asked(ngx_mail_policy_html_t *h,
    uint64_t *n);
static const char *ngx_mail_policy_page_state(ngx_str_t *state);
static void ngx_mail_policy_page_used(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_near_t *near);
static void ngx_mail_policy_page_answers(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_within(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, uint64_t answers,
    ngx_uint_t percent);


void
ngx_mail_policy_page_begin(ngx_mail_policy_html_t *h, const char *id,
    const char *title)
{
    ngx_mail_policy_html(h, "<section id=%s aria-labelledby=%s-h>\n"
                         "<h2 id=%s-h>%s</h2>\n", id, id, id, title);
}


void
ngx_mail_policy_page_end(ngx_mail_policy_html_t *h)
{
    ngx_mail_policy_html(h, "</section>\n");
}


void
ngx_mail_policy_page_empty(ngx_mail_policy_html_t *h, const char *text)
{
    ngx_mail_policy_html(h, "<p class=empty>%s</p>\n", text);
}


void
ngx_mail_policy_page_refused(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    time_t                              now;
    ngx_uint_t                          i;
    ngx_mail_policy_snapshot_refused_t  *line;

    ngx_mail_policy_page_begin(h, "refused", "Who is refused, and why");

    if (snapshot->refused.nelts == 0) {
        ngx_mail_policy_page_empty(h, "Nobody was refused in the last hour.");
        ngx_mail_policy_page_end(h);
        return;
    }

    ngx_mail_policy_html(h, "<table><caption>Most often first; left out once "
                         "an hour has passed without another one</caption>\n"
                         "<thead><tr><th scope=col>Who, and why"
                         "<th scope=col class=n>Times"
                         "<th scope=col class=n>Last<tbody>\n");

    now = snapshot->now;
    line = snapshot->refused.elts;

    for (i = 0; i < snapshot->refused.nelts; i++) {
        ngx_mail_policy_html(h, "<tr><th scope=row class=w><bdi>%t</bdi> "
                             "<small><bdi>%t</bdi></small>"
                             "<td class=n>%n<td class=n>%a ago\n",
                             &line[i].who, &line[i].reason, line[i].count,
                             (uint64_t) ngx_max(now - line[i].last, 0));
    }

    ngx_mail_policy_html(h, "</table>\n");
    ngx_mail_policy_page_end(h);
}


void
ngx_mail_policy_page_near(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t                        i;
    ngx_mail_policy_snapshot_near_t  *line;

    ngx_mail_policy_page_begin(h, "near", "Keys near their limit");

    if (snapshot->near.nelts == 0) {
        ngx_mail_policy_page_empty(h, "No key has used 80 % of its limit.");
        ngx_mail_policy_page_end(h);
        return;
    }

    ngx_mail_policy_html(h, "<table><caption>From 80 %% on, as of the last "
                         "time that each was counted</caption>\n"
                         "<thead><tr><th scope=col>Key, and limit"
                         "<th scope=col class=n>Used<tbody>\n");

    line = snapshot->near.elts;

    for (i = 0; i < snapshot->near.nelts; i++) {
        ngx_mail_policy_html(h, "<tr><th scope=row class=w><bdi>%t</bdi> "
                             "<small>%t</small>", &line[i].key,
                             &line[i].limit);
        ngx_mail_policy_page_used(h, &line[i]);
    }

    ngx_mail_policy_html(h, "</table>\n");
    ngx_mail_policy_page_end(h);
}


/* the bar is for the eye only: what it says stands beside it */

static void
ngx_mail_policy_page_used(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_near_t *near)
{
    uint64_t  percent;

    percent = near->max ? near->used * 100 / near->max : 100;

    ngx_mail_policy_html(h, "<td class=u>");

    if (ngx_mail_policy_page_is(&near->unit, "bytes")) {
        ngx_mail_policy_html(h, "%b of %b", near->used, near->max);

    } else {
        ngx_mail_policy_html(h, "%n of %n %t", near->used, near->max,
                             &near->unit);
    }

    ngx_mail_policy_html(h, ", <b>%n&nbsp;%%</b><svg class=\"bar %s\" "
                         "viewBox=\"0 0 100 4\" preserveAspectRatio=none "
                         "aria-hidden=true><path d=\"M0 0H100V4H0z\"/>"
                         "<path d=\"M0 0H%dV4H0z\"/></svg>\n", percent,
                         percent >= 100 ? "full" : "some",
                         ngx_min(percent, 100));
}


void
ngx_mail_policy_page_relays(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t                            i;
    ngx_mail_policy_snapshot_upstream_t  *upstream;

    ngx_mail_policy_page_begin(h, "relays", "Relays");

    if (snapshot->upstreams.nelts + snapshot->relays.nelts == 0) {
        ngx_mail_policy_page_empty(h, "No server has a group of relays.");
        ngx_mail_policy_page_end(h);
        return;
    }

    ngx_mail_policy_html(h, "<div class=scroll tabindex=0 role=region "
                         "aria-labelledby=relays-h><table><caption>%s"
                         "</caption>\n<thead><tr><th scope=col>Relay"
                         "<th scope=col>State<th scope=col class=n>In use"
                         "<th scope=col class=n>Fails now",
                         snapshot->metrics ? "State, in use and fails are of "
                                             "now, the rest since the start"
                                           : "As all workers know them");

    if (snapshot->metrics) {
        ngx_mail_policy_html(h, "<th scope=col class=n>Asked"
                             "<th scope=col class=n>Failed"
                             "<th scope=col class=n>2xx"
                             "<th scope=col class=n>4xx"
                             "<th scope=col class=n>5xx"
                             "<th scope=col class=n>Mean time"
                             "<th scope=col class=n>Connects"
                             "<th scope=col class=n>Reused");
    }

    upstream = snapshot->upstreams.elts;

    for (i = 0; i < snapshot->upstreams.nelts; i++) {
        ngx_mail_policy_page_group(h, snapshot, &upstream[i]);
    }

    ngx_mail_policy_page_others(h, snapshot);

    ngx_mail_policy_html(h, "</table></div>\n");

    if (snapshot->metrics) {
        ngx_mail_policy_html(h, "<p class=note>Connections that are kept for "
                             "the next one: <span id=kept>%n</span></p>\n",
                             snapshot->gauges[NGX_MAIL_POLICY_GAUGE_KEPT]);
    }

    ngx_mail_policy_page_end(h);
}


static void
ngx_mail_policy_page_group(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_snapshot_upstream_t *upstream)
{
    ngx_uint_t                        i;
    ngx_mail_policy_snapshot_peer_t  *peer;

    ngx_mail_policy_html(h, "\n<tbody><tr class=group><th scope=rowgroup "
                         "colspan=%d><span><bdi>%t</bdi> <small>%n of %n "
                         "up</small></span>",
                         (uint64_t) (snapshot->metrics ? 12 : 4),
                         &upstream->name,
                         (uint64_t) ngx_mail_policy_page_usable(upstream),
                         (uint64_t) upstream->peers.nelts);

    peer = upstream->peers.elts;

    for (i = 0; i < upstream->peers.nelts; i++) {
        ngx_mail_policy_page_peer(h, snapshot, &peer[i]);
    }
}


static void
ngx_mail_policy_page_peer(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_snapshot_peer_t *peer)
{
    ngx_mail_policy_html(h, "\n<tr><th scope=row>%t", &peer->address);

    if (peer->server.len != peer->address.len
        || ngx_memcmp(peer->server.data, peer->address.data, peer->server.len)
           != 0)
    {
        ngx_mail_policy_html(h, "<small>%t</small>", &peer->server);
    }

    if (peer->backup) {
        ngx_mail_policy_html(h, "<small>backup</small>");
    }

    ngx_mail_policy_html(h, "<td><span class=\"state %s\">%t</span>"
                         "<td class=n>%n<td class=n>%n",
                         ngx_mail_policy_page_state(&peer->state),
                         &peer->state, (uint64_t) peer->active,
                         (uint64_t) peer->fails);

    if (snapshot->metrics) {
        ngx_mail_policy_page_asked(h, peer->counters);
    }
}


/* groups that are made at run time, or were of a configuration before */

static void
ngx_mail_policy_page_others(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t                         i, n;
    ngx_mail_policy_snapshot_block_t  *relay;

    relay = snapshot->relays.elts;

    for (i = 0, n = 0; i < snapshot->relays.nelts; i++) {

        if (relay[i].peer) {
            continue;
        }

        if (n++ == 0) {
            ngx_mail_policy_html(h, "\n<tbody><tr class=group>"
                                 "<th scope=rowgroup colspan=12><span>"
                                 "Others <small>made while it runs, or of a "
                                 "configuration before</small></span>");
        }

        ngx_mail_policy_html(h, "\n<tr><th scope=row>%t<small>%t</small>"
                             "<td>&ndash;<td class=n>&ndash;"
                             "<td class=n>&ndash;",
                             relay[i].address.len ? &relay[i].address
                                                  : &relay[i].name,
                             relay[i].address.len ? &relay[i].name
                                                  : &relay[i].address);
        ngx_mail_policy_page_asked(h, relay[i].counters);
    }
}


static void
ngx_mail_policy_page_asked(ngx_mail_policy_html_t *h, uint64_t *n)
{
    ngx_mail_policy_html(h, "<td class=n>%n<td class=n>%n<td class=n>%n"
                         "<td class=n>%n<td class=n>%n<td class=n>",
                         n[NGX_MAIL_POLICY_METRIC_PEER_TRIES],
                         n[NGX_MAIL_POLICY_METRIC_PEER_FAILURES],
                         n[NGX_MAIL_POLICY_METRIC_PEER_2XX],
                         n[NGX_MAIL_POLICY_METRIC_PEER_4XX],
                         n[NGX_MAIL_POLICY_METRIC_PEER_5XX]);

    if (n[NGX_MAIL_POLICY_METRIC_PEER_TRIES]) {
        ngx_mail_policy_html(h, "%u",
                             n[NGX_MAIL_POLICY_METRIC_PEER_SUM]
                             / n[NGX_MAIL_POLICY_METRIC_PEER_TRIES]);

    } else {
        ngx_mail_policy_html(h, "&ndash;");
    }

    ngx_mail_policy_html(h, "<td class=n>%n<td class=n>%n",
                         n[NGX_MAIL_POLICY_METRIC_PEER_CONNECTS],
                         n[NGX_MAIL_POLICY_METRIC_PEER_REUSED]);
}


static const char *
ngx_mail_policy_page_state(ngx_str_t *state)
{
    if (ngx_mail_policy_page_is(state, "up")) {
        return "ok";
    }

    if (ngx_mail_policy_page_is(state, "down")) {
        return "off";
    }

    return ngx_mail_policy_page_is(state, "busy") ? "warn" : "bad";
}


void
ngx_mail_policy_page_store(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_mail_policy_page_begin(h, "store", "Where limits are counted");

    if (snapshot->store_name.len == 0) {
        ngx_mail_policy_page_empty(h, "In the memory of this machine "
                                   "(<code>policy_zone</code>); there is no "
                                   "Redis.");

    } else {
        ngx_mail_policy_html(h, "<dl class=facts><div><dt>Redis"
                             "<dd class=w>%t</div>\n<div><dt>State<dd>",
                             &snapshot->store_name);

        if (snapshot->metrics) {
            ngx_mail_policy_html(h, "<span class=\"state %s\">%s</span> for "
                                 "%n of %n workers</div>\n",
                                 snapshot->store_up == snapshot->store_workers
                                 ? "ok" : "bad",
                                 snapshot->store_up == snapshot->store_workers
                                 ? "up" : "away",
                                 snapshot->store_up == snapshot->store_workers
                                 ? snapshot->store_up
                                 : snapshot->store_workers
                                   - snapshot->store_up,
                                 snapshot->store_workers);

            ngx_mail_policy_page_answers(h, snapshot);

        } else {
            ngx_mail_policy_html(h, "<span class=\"state %s\">%t</span> for "
                                 "the worker that answers</div>\n",
                                 ngx_mail_policy_page_state(
                                                      &snapshot->store_state),
                                 &snapshot->store_state);
        }

        ngx_mail_policy_html(h, "</dl>\n");
    }

    ngx_mail_policy_page_end(h);
}


static void
ngx_mail_policy_page_answers(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = 0, n = 0; i <= NGX_MAIL_POLICY_METRICS_BOUNDS; i++) {
        n += snapshot->counters[NGX_MAIL_POLICY_METRIC_STORE_SECONDS + i];
    }

    ngx_mail_policy_html(h, "<div><dt>Answers<dd><span id=store-answers>%n"
                         "</span>", n);

    if (n) {
        ngx_mail_policy_html(h, ", in %u on average",
                             snapshot->counters[
                                 NGX_MAIL_POLICY_METRIC_STORE_SUM] / n);
        ngx_mail_policy_page_within(h, snapshot, n, 50);
        ngx_mail_policy_page_within(h, snapshot, n, 99);
    }

    ngx_mail_policy_html(h, "</div>\n<div><dt>Not in time"
                         "<dd><span id=store-errors>%n</span>, "
                         "<span id=hour-store_errors>%n</span> of them in the "
                         "last hour</div>\n",
                         snapshot->counters[
                             NGX_MAIL_POLICY_METRIC_STORE_ERRORS],
                         snapshot->hour[NGX_MAIL_POLICY_PAST_STORE_ERRORS]);
}


/* so many of the answers came within this time */

static void
ngx_mail_policy_page_within(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, uint64_t answers,
    ngx_uint_t percent)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = 0, n = 0; i < NGX_MAIL_POLICY_METRICS_BOUNDS; i++) {
        n += snapshot->counters[NGX_MAIL_POLICY_METRIC_STORE_SECONDS + i];

        if (n * 100 >= answers * percent) {
            ngx_mail_policy_html(h, "; %d %% within %u", (uint64_t) percent,
                                 (uint64_t) ngx_mail_policy_metrics_bounds[i]);
            return;
        }
    }
}
