
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What was counted since the start, as tables.  Rows and columns in which
 * nothing happened are left out where there may be many.  No events arrive
 * here.
 */


#include "ngx_mail_policy_page.h"


typedef struct {
    ngx_uint_t                    n;        /* of the counter in a block */
    const char                   *title;
    unsigned                      always:1;
    unsigned                      mean:1;   /* time of an answer */
} ngx_mail_policy_column_t;


static void ngx_mail_policy_page_blocks(ngx_mail_policy_html_t *h,
    const char *id, ngx_mail_policy_snapshot_block_t *blocks, ngx_uint_t n,
    ngx_mail_policy_column_t *columns);
static uint64_t ngx_mail_policy_page_cell(
    ngx_mail_policy_snapshot_block_t *block,
    ngx_mail_policy_column_t *column);
static void ngx_mail_policy_page_login(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t mechanism);
static void ngx_mail_policy_page_volume(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_commands(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_fact(ngx_mail_policy_html_t *h,
    const char *title, const char *id, uint64_t n);


static ngx_mail_policy_column_t  ngx_mail_policy_limit_columns[] = {
    { NGX_MAIL_POLICY_METRIC_LIMIT_PASS, "Passed", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_DEFER, "Deferred", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_REJECT, "Rejected", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_TARPIT, "Slowed down", 0, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_REPORT, "Would refuse", 0, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_RELAY, "Other relay", 0, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_ERROR, "Not decided", 0, 0 },
    { NGX_MAIL_POLICY_METRIC_LIMIT_NEAR, "Reached 80&nbsp;%", 0, 0 },
    { 0, NULL, 0, 0 }
};

static ngx_mail_policy_column_t  ngx_mail_policy_service_columns[] = {
    { NGX_MAIL_POLICY_METRIC_SERVICE_PASS, "Passed", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE, "Refused", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_SERVICE_DEFAULT, "No answer", 1, 0 },
    { NGX_MAIL_POLICY_METRIC_SERVICE_SUM, "Mean time", 1, 1 },
    { 0, NULL, 0, 0 }
};

static const char  *ngx_mail_policy_page_outcomes[][2] = {
    { "Accepted", "accepted" },
    { "Deferred", "deferred" },
    { "Rejected", "rejected" },
    { "Aborted by the client", "aborted" },
    { "No answer to the end of it", "unknown" },
    { "Accepted, client gone", "unacked" }
};

static const char  *ngx_mail_policy_page_stages[] = {
    "Connecting", "HELO, EHLO", "AUTH", "MAIL", "RCPT", "DATA",
    "End of message", "Others"
};

static const char  *ngx_mail_policy_page_postfixes[] = {
    "Passed", "Charged at an edge", "Deferred", "Rejected",
    "Closed without an answer"
};


void
ngx_mail_policy_page_limits(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_mail_policy_page_begin(h, "limits", "What limits decided");

    if (snapshot->limits.nelts == 0) {
        ngx_mail_policy_page_empty(h, "There is no <code>policy_limit</code>.");

    } else {
        ngx_mail_policy_page_blocks(h, "limits", snapshot->limits.elts,
                                    snapshot->limits.nelts,
                                    ngx_mail_policy_limit_columns);
    }

    ngx_mail_policy_page_end(h);
}


void
ngx_mail_policy_page_services(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    if (snapshot->services.nelts == 0) {
        return;
    }

    ngx_mail_policy_page_begin(h, "services", "Policy servers");

    ngx_mail_policy_page_blocks(h, "services", snapshot->services.elts,
                                snapshot->services.nelts,
                                ngx_mail_policy_service_columns);
    ngx_mail_policy_page_end(h);
}


/* a row each; columns that say nothing of any of them are left out */

static void
ngx_mail_policy_page_blocks(ngx_mail_policy_html_t *h, const char *id,
    ngx_mail_policy_snapshot_block_t *blocks, ngx_uint_t n,
    ngx_mail_policy_column_t *columns)
{
    uint64_t                   sum;
    ngx_uint_t                 i, shown;
    ngx_mail_policy_column_t  *column;

    ngx_mail_policy_html(h, "<div class=scroll tabindex=0 role=region "
                         "aria-labelledby=%s-h><table>"
                         "<caption>Since the start</caption>\n"
                         "<thead><tr><th scope=col>Name", id);

    for (shown = 0, column = columns; column->title; column++) {

        for (i = 0, sum = column->always; i < n; i++) {
            sum += blocks[i].counters[column->n];
        }

        if (sum) {
            shown |= 1 << (column - columns);
            ngx_mail_policy_html(h, "<th scope=col class=n>%s",
                                 column->title);
        }
    }

    ngx_mail_policy_html(h, "<tbody>");

    for (i = 0; i < n; i++) {
        ngx_mail_policy_html(h, "\n<tr><th scope=row class=w>%t",
                             &blocks[i].name);

        for (column = columns; column->title; column++) {
            if (shown & 1 << (column - columns)) {
                ngx_mail_policy_html(h, column->mean ? "<td class=n>%u"
                                                     : "<td class=n>%n",
                                     ngx_mail_policy_page_cell(&blocks[i],
                                                               column));
            }
        }
    }

    ngx_mail_policy_html(h, "</table></div>\n");
}


static uint64_t
ngx_mail_policy_page_cell(ngx_mail_policy_snapshot_block_t *block,
    ngx_mail_policy_column_t *column)
{
    uint64_t  n, answers;

    n = block->counters[column->n];

    if (column->mean) {
        answers = block->counters[NGX_MAIL_POLICY_METRIC_SERVICE_PASS]
                  + block->counters[NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE];

        return answers ? n / answers : 0;
    }

    return n;
}


void
ngx_mail_policy_page_logins(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t    sum;
    ngx_uint_t  i;

    ngx_mail_policy_page_begin(h, "logins", "Logins");

    for (i = 0, sum = 0; i < NGX_MAIL_POLICY_METRICS_MECHANISMS
                             * NGX_MAIL_POLICY_LOGINS; i++)
    {
        sum += snapshot->counters[NGX_MAIL_POLICY_METRIC_AUTH + i];
    }

    if (sum == 0) {
        ngx_mail_policy_page_empty(h, "Nobody has tried to log in since the "
                                   "start.");
        ngx_mail_policy_page_end(h);
        return;
    }

    ngx_mail_policy_html(h, "<div class=scroll tabindex=0 role=region "
                         "aria-labelledby=logins-h><table>"
                         "<caption>Since the start</caption>\n"
                         "<thead><tr><th scope=col>Mechanism"
                         "<th scope=col class=n>Success"
                         "<th scope=col class=n>Refused"
                         "<th scope=col class=n>Not now"
                         "<th scope=col class=n>Aborted<tbody>");

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_MECHANISMS; i++) {
        ngx_mail_policy_page_login(h, snapshot, i);
    }

    ngx_mail_policy_html(h, "</table></div>\n");
    ngx_mail_policy_page_end(h);
}


static void
ngx_mail_policy_page_login(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t mechanism)
{
    uint64_t  *n;

    n = &snapshot->counters[NGX_MAIL_POLICY_METRIC_AUTH
                            + mechanism * NGX_MAIL_POLICY_LOGINS];

    if (n[NGX_MAIL_POLICY_LOGIN_SUCCESS] + n[NGX_MAIL_POLICY_LOGIN_FAILURE]
        + n[NGX_MAIL_POLICY_LOGIN_TEMPORARY] + n[NGX_MAIL_POLICY_LOGIN_ABORTED]
        == 0)
    {
        return;
    }

    ngx_mail_policy_html(h, "\n<tr><th scope=row>%t<td class=n>%n"
                         "<td class=n>%n<td class=n>%n<td class=n>%n",
                         &ngx_mail_policy_snapshot_mechanisms[mechanism],
                         n[NGX_MAIL_POLICY_LOGIN_SUCCESS],
                         n[NGX_MAIL_POLICY_LOGIN_FAILURE],
                         n[NGX_MAIL_POLICY_LOGIN_TEMPORARY],
                         n[NGX_MAIL_POLICY_LOGIN_ABORTED]);
}


void
ngx_mail_policy_page_postfix(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t    sum;
    ngx_uint_t  i;

    for (i = 0, sum = 0; i < NGX_MAIL_POLICY_ANSWERS; i++) {
        sum += snapshot->counters[NGX_MAIL_POLICY_METRIC_POSTFIX + i];
    }

    if (sum == 0) {
        return;
    }

    ngx_mail_policy_page_begin(h, "postfix", "Answers to Postfix");
    ngx_mail_policy_html(h, "<table><caption>Since the start</caption>\n"
                         "<tbody>");

    for (i = 0; i < NGX_MAIL_POLICY_ANSWERS; i++) {
        ngx_mail_policy_html(h, "\n<tr><th scope=row>%s<td class=n>%n",
                             ngx_mail_policy_page_postfixes[i],
                             snapshot->counters[
                                          NGX_MAIL_POLICY_METRIC_POSTFIX + i]);
    }

    ngx_mail_policy_html(h, "</table>\n");
    ngx_mail_policy_page_end(h);
}


void
ngx_mail_policy_page_totals(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t  i;
    uint64_t   *n;

    n = snapshot->counters;

    ngx_mail_policy_page_begin(h, "totals", "All that was counted");
    ngx_mail_policy_html(h, "<div class=three>\n<table><caption>For %a"
                         "</caption>\n<tbody>",
                         (uint64_t) ngx_max(snapshot->now - snapshot->started,
                                            0));

    ngx_mail_policy_page_fact(h, "Sessions", "sessions",
                              n[NGX_MAIL_POLICY_METRIC_SESSIONS]);

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_OUTCOMES; i++) {
        ngx_mail_policy_page_fact(h, ngx_mail_policy_page_outcomes[i][0],
                                  ngx_mail_policy_page_outcomes[i][1],
                                  n[NGX_MAIL_POLICY_METRIC_TRANSACTIONS + i]);
    }

    ngx_mail_policy_html(h, "\n</table>\n");

    ngx_mail_policy_page_volume(h, snapshot);
    ngx_mail_policy_page_commands(h, snapshot);

    ngx_mail_policy_html(h, "</div>\n");
    ngx_mail_policy_page_end(h);
}


static void
ngx_mail_policy_page_volume(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t  *n;

    n = snapshot->counters;

    ngx_mail_policy_html(h, "<table><caption>Volume, and log</caption>\n"
                         "<tbody>");

    ngx_mail_policy_page_fact(h, "Recipients accepted", "recipients-accepted",
                              n[NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED]);
    ngx_mail_policy_page_fact(h, "Recipients refused", "recipients-refused",
                              n[NGX_MAIL_POLICY_METRIC_RCPT_REFUSED]);

    ngx_mail_policy_html(h, "\n<tr><th scope=row>Accepted messages"
                         "<td class=n>%b"
                         "\n<tr><th scope=row>Received from clients"
                         "<td class=n>%b"
                         "\n<tr><th scope=row>Sent to clients"
                         "<td class=n>%b",
                         n[NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES],
                         n[NGX_MAIL_POLICY_METRIC_BYTES_RECEIVED],
                         n[NGX_MAIL_POLICY_METRIC_BYTES_SENT]);

    ngx_mail_policy_page_fact(h, "Lines of the access log", "log-lines",
                              n[NGX_MAIL_POLICY_METRIC_LOG_LINES]);
    ngx_mail_policy_page_fact(h, "&hellip; that were lost", "log-lost",
                              n[NGX_MAIL_POLICY_METRIC_LOG_LOST]);
    ngx_mail_policy_page_fact(h, "Lost lines of <code>mail:events</code>",
                              "events-lost",
                              n[NGX_MAIL_POLICY_METRIC_EVENTS_LOST]);

    ngx_mail_policy_html(h, "\n</table>\n");
}


static void
ngx_mail_policy_page_fact(ngx_mail_policy_html_t *h, const char *title,
    const char *id, uint64_t n)
{
    ngx_mail_policy_html(h, "\n<tr><th scope=row>%s<td class=n id=total-%s>%n",
                         title, id, n);
}


static void
ngx_mail_policy_page_commands(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    ngx_uint_t  i;
    uint64_t   *n;

    n = &snapshot->counters[NGX_MAIL_POLICY_METRIC_REFUSED];

    ngx_mail_policy_html(h, "<table><caption>Refused commands</caption>\n"
                         "<thead><tr><th scope=col>At"
                         "<th scope=col class=n>For now (4xx)"
                         "<th scope=col class=n>For good (5xx)<tbody>");

    for (i = 0; i < NGX_MAIL_POLICY_AT_COMMANDS; i++) {
        ngx_mail_policy_html(h, "\n<tr><th scope=row>%s<td class=n>%n"
                             "<td class=n>%n",
                             ngx_mail_policy_page_stages[i], n[i],
                             n[NGX_MAIL_POLICY_AT_COMMANDS + i]);
    }

    ngx_mail_policy_html(h, "\n</table>\n");
}
