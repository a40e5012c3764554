
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The rates now, and what the last hour was like, minute by minute.  A chart
 * is stretched to the width that there is, so what is to be read in it stands
 * around it; the same numbers follow as a table.  No events arrive here.
 */


#include "ngx_mail_policy_page.h"


/* units of a chart: a minute is 10 wide */
#define NGX_MAIL_POLICY_CHART_HEIGHT  1000
#define NGX_MAIL_POLICY_CHART_LEAST   12    /* of what is not nothing */

/* minutes that a row of the table has */
#define NGX_MAIL_POLICY_CHART_ROW     5

#define NGX_MAIL_POLICY_CHART_SERIES  4


typedef struct {
    ngx_uint_t                       past;
    const char                      *name;      /* and part of an id */
    const char                      *title;
    const char                      *series;    /* class: its colour */
} ngx_mail_policy_page_past_t;


typedef struct {
    const char                      *id;
    const char                      *title;
    const char                      *empty;
    ngx_uint_t                       n;
    ngx_mail_policy_page_past_t     *series[NGX_MAIL_POLICY_CHART_SERIES];
} ngx_mail_policy_chart_t;


/* what there is to be said about it */
typedef struct {
    uint64_t                         sum;
    uint64_t                         most;      /* in a minute */
    uint64_t                         scale;     /* top of the axis */
    ngx_uint_t                       minute;    /* of the most */
} ngx_mail_policy_chart_range_t;


static void ngx_mail_policy_page_tile(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_page_past_t *past);
static void ngx_mail_policy_chart(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart);
static void ngx_mail_policy_chart_range(ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_chart_t *chart, ngx_mail_policy_chart_range_t *range);
static uint64_t ngx_mail_policy_chart_value(
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_uint_t n, ngx_uint_t minute);
static void ngx_mail_policy_chart_plot(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_mail_policy_chart_range_t *range);
static void ngx_mail_policy_chart_bars(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_uint_t n, uint64_t scale);
static void ngx_mail_policy_chart_caption(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_mail_policy_chart_range_t *range);
static void ngx_mail_policy_chart_table(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart);
static uint64_t ngx_mail_policy_chart_time(
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t minute);


static ngx_mail_policy_page_past_t  ngx_mail_policy_page_pasts[] = {
    { NGX_MAIL_POLICY_PAST_ACCEPTED, "accepted", "Accepted", "s1" },
    { NGX_MAIL_POLICY_PAST_DEFERRED, "deferred", "Deferred", "s2" },
    { NGX_MAIL_POLICY_PAST_REJECTED, "rejected", "Rejected", "s3" },
    { NGX_MAIL_POLICY_PAST_OTHER, "other", "Other", "s4" },
    { NGX_MAIL_POLICY_PAST_RECIPIENTS, "recipients", "Recipients", "" },
    { NGX_MAIL_POLICY_PAST_REFUSED, "refused", "Refusals", "s5" },
    { NGX_MAIL_POLICY_PAST_AUTH_FAILURES, "auth_failures", "Refused logins",
      "s6" }
};


static ngx_mail_policy_chart_t  ngx_mail_policy_charts[] = {

    { "messages", "Messages a minute", "No message came in the last hour.", 4,
      { &ngx_mail_policy_page_pasts[0], &ngx_mail_policy_page_pasts[1],
        &ngx_mail_policy_page_pasts[2], &ngx_mail_policy_page_pasts[3] } },

    { "refusals", "Refusals a minute",
      "Nothing was refused in the last hour.", 2,
      { &ngx_mail_policy_page_pasts[5], &ngx_mail_policy_page_pasts[6] } }
};


void
ngx_mail_policy_page_tiles(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t  i;

    ngx_mail_policy_html(h, "<section id=now aria-labelledby=now-h>\n"
                         "<h2 id=now-h>Now, and in the last hour</h2>\n"
                         "<dl class=tiles>\n");

    for (i = 0; i < sizeof(ngx_mail_policy_page_pasts)
                    / sizeof(ngx_mail_policy_page_past_t); i++)
    {
        ngx_mail_policy_page_tile(h, snapshot, &ngx_mail_policy_page_pasts[i]);
    }

    ngx_mail_policy_html(h, "<div><dt>Sessions open</dt>"
                         "<dd><b id=sessions-active>%n</b></dd>"
                         "<dd><span id=hour-sessions>%n</span> begun"
                         "</dd></div>\n</dl></section>\n",
                         snapshot->gauges[NGX_MAIL_POLICY_GAUGE_SESSIONS],
                         snapshot->hour[NGX_MAIL_POLICY_PAST_SESSIONS]);
}


static void
ngx_mail_policy_page_tile(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_page_past_t *past)
{
    ngx_mail_policy_html(h, "<div><dt>");

    if (past->series[0]) {
        ngx_mail_policy_html(h, "<i class=%s></i>", past->series);
    }

    ngx_mail_policy_html(h, "%s</dt>"
                         "<dd><b id=rate-%s>%r</b>/s</dd>"
                         "<dd><span id=hour-%s>%n</span> in the hour</dd>"
                         "</div>\n",
                         past->title, past->name, snapshot->rate[past->past],
                         past->name, snapshot->hour[past->past]);
}


void
ngx_mail_policy_page_charts(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_mail_policy_html(h, "<div class=pair>\n");
    ngx_mail_policy_chart(h, snapshot, &ngx_mail_policy_charts[0]);
    ngx_mail_policy_chart(h, snapshot, &ngx_mail_policy_charts[1]);
    ngx_mail_policy_html(h, "</div>\n");
}


static void
ngx_mail_policy_chart(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart)
{
    ngx_mail_policy_chart_range_t  range;

    ngx_mail_policy_page_begin(h, chart->id, chart->title);
    ngx_mail_policy_chart_range(snapshot, chart, &range);

    if (range.sum == 0) {
        ngx_mail_policy_page_empty(h, chart->empty);

    } else {
        ngx_mail_policy_html(h, "<figure>\n");
        ngx_mail_policy_chart_plot(h, snapshot, chart, &range);
        ngx_mail_policy_chart_caption(h, snapshot, chart, &range);
        ngx_mail_policy_html(h, "</figure>\n");
        ngx_mail_policy_chart_table(h, snapshot, chart);
    }

    ngx_mail_policy_page_end(h);
}


/* the top has two digits, of an even number: half of it is whole, too */

static void
ngx_mail_policy_chart_range(ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_chart_t *chart, ngx_mail_policy_chart_range_t *range)
{
    uint64_t    n, power;
    ngx_uint_t  i;

    ngx_memzero(range, sizeof(ngx_mail_policy_chart_range_t));

    for (i = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES; i++) {
        n = ngx_mail_policy_chart_value(snapshot, chart, chart->n, i);
        range->sum += n;

        if (n > range->most) {
            range->most = n;
            range->minute = i;
        }
    }

    for (power = 2; range->most > 10 * power; power *= 10) { /* void */ }

    range->scale = power * ngx_max((range->most + power - 1) / power, 1);
}


/* the first n series of a minute, one on top of the other */

static uint64_t
ngx_mail_policy_chart_value(ngx_mail_policy_snapshot_t *snapshot,
    ngx_mail_policy_chart_t *chart, ngx_uint_t n, ngx_uint_t minute)
{
    uint64_t    sum;
    ngx_uint_t  i;

    for (i = 0, sum = 0; i < n; i++) {
        sum += snapshot->minutes[minute][chart->series[i]->past];
    }

    return sum;
}


static void
ngx_mail_policy_chart_plot(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_mail_policy_chart_range_t *range)
{
    ngx_uint_t  i;

    ngx_mail_policy_html(h, "<div class=plot>\n"
                         "<p class=y aria-hidden=true><span>%n</span>"
                         "<span>%n</span><span>0</span></p>\n",
                         range->scale, range->scale / 2);

    ngx_mail_policy_html(h, "<svg viewBox=\"0 0 %d %d\" "
                         "preserveAspectRatio=none role=img "
                         "aria-labelledby=%s-c>\n"
                         "<path class=grid d=\"M0 0H%dM0 %dH%d\"/>\n",
                         (uint64_t) NGX_MAIL_POLICY_SNAPSHOT_MINUTES * 10,
                         (uint64_t) NGX_MAIL_POLICY_CHART_HEIGHT, chart->id,
                         (uint64_t) NGX_MAIL_POLICY_SNAPSHOT_MINUTES * 10,
                         (uint64_t) NGX_MAIL_POLICY_CHART_HEIGHT / 2,
                         (uint64_t) NGX_MAIL_POLICY_SNAPSHOT_MINUTES * 10);

    for (i = 0; i < chart->n; i++) {
        ngx_mail_policy_chart_bars(h, snapshot, chart, i, range->scale);
    }

    ngx_mail_policy_html(h, "<path class=axis d=\"M0 %dH%d\"/>\n</svg>\n"
                         "<p class=x aria-hidden=true>",
                         (uint64_t) NGX_MAIL_POLICY_CHART_HEIGHT,
                         (uint64_t) NGX_MAIL_POLICY_SNAPSHOT_MINUTES * 10);

    for (i = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES; i += 15) {
        ngx_mail_policy_html(h, "<span>%c</span>",
                             ngx_mail_policy_chart_time(snapshot, i));
    }

    ngx_mail_policy_html(h, "<span>now</span></p>\n</div>\n");
}


/* those of series n, as one path */

static void
ngx_mail_policy_chart_bars(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_uint_t n, uint64_t scale)
{
    uint64_t    bottom, top;
    ngx_uint_t  i;

    ngx_mail_policy_html(h, "<path class=%s d=\"", chart->series[n]->series);

    for (i = 0; i < NGX_MAIL_POLICY_SNAPSHOT_MINUTES; i++) {

        if (snapshot->minutes[i][chart->series[n]->past] == 0) {
            continue;
        }

        bottom = ngx_mail_policy_chart_value(snapshot, chart, n, i)
                 * NGX_MAIL_POLICY_CHART_HEIGHT / scale;
        top = ngx_mail_policy_chart_value(snapshot, chart, n + 1, i)
              * NGX_MAIL_POLICY_CHART_HEIGHT / scale;

        top = ngx_max(top, bottom + NGX_MAIL_POLICY_CHART_LEAST);
        top = ngx_min(top, NGX_MAIL_POLICY_CHART_HEIGHT);
        bottom = ngx_min(bottom, top);

        ngx_mail_policy_html(h, "M%d %dh8v%dh-8z", (uint64_t) i * 10 + 1,
                             NGX_MAIL_POLICY_CHART_HEIGHT - top,
                             top - bottom);
    }

    ngx_mail_policy_html(h, "\"/>\n");
}


static void
ngx_mail_policy_chart_caption(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart,
    ngx_mail_policy_chart_range_t *range)
{
    ngx_uint_t  i;

    ngx_mail_policy_html(h, "<figcaption id=%s-c>", chart->id);

    for (i = 0; i < chart->n; i++) {
        ngx_mail_policy_html(h, "<span><i class=%s></i>%s %n</span> ",
                             chart->series[i]->series,
                             chart->series[i]->title,
                             snapshot->hour[chart->series[i]->past]);
    }

    ngx_mail_policy_html(h, "<span>Most in a minute: %n at %c</span>",
                         range->most,
                         ngx_max(ngx_mail_policy_chart_time(snapshot,
                                                            range->minute),
                                 (uint64_t) snapshot->started));

    if (snapshot->now - snapshot->started < 3600) {
        ngx_mail_policy_html(h, " <span>Counted since %c</span>",
                             (uint64_t) snapshot->started);
    }

    ngx_mail_policy_html(h, "</figcaption>\n");
}


/* newest first */

static void
ngx_mail_policy_chart_table(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_mail_policy_chart_t *chart)
{
    ngx_uint_t  i, k;

    ngx_mail_policy_html(h, "<details id=%s-t><summary>The same as a table"
                         "</summary><div class=scroll tabindex=0 role=region "
                         "aria-labelledby=%s-h><table>"
                         "<caption>In %d minutes each</caption>"
                         "<thead><tr><th scope=col>From",
                         chart->id, chart->id,
                         (uint64_t) NGX_MAIL_POLICY_CHART_ROW);

    for (i = 0; i < chart->n; i++) {
        ngx_mail_policy_html(h, "<th scope=col class=n>%s",
                             chart->series[i]->title);
    }

    ngx_mail_policy_html(h, "<tbody>");

    for (k = NGX_MAIL_POLICY_SNAPSHOT_MINUTES; k > 0; /* void */ ) {
        k -= NGX_MAIL_POLICY_CHART_ROW;
        ngx_mail_policy_html(h, "\n<tr><th scope=row>%c",
                             ngx_mail_policy_chart_time(snapshot, k));

        for (i = 0; i < chart->n; i++) {
            ngx_mail_policy_html(h, "<td class=n>%n",
                                 ngx_mail_policy_page_minutes(snapshot,
                                     chart->series[i]->past, k,
                                     k + NGX_MAIL_POLICY_CHART_ROW));
        }
    }

    ngx_mail_policy_html(h, "</table></div></details>\n");
}


/* when it began; the last one is not over */

static uint64_t
ngx_mail_policy_chart_time(ngx_mail_policy_snapshot_t *snapshot,
    ngx_uint_t minute)
{
    return snapshot->minute
           - (NGX_MAIL_POLICY_SNAPSHOT_MINUTES - 1 - minute) * 60;
}
