
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Lines of Prometheus' text format, and those of limits, relays and policy
 * servers.  No events arrive here.
 */


#include "ngx_mail_policy_prometheus.h"
#include "mpol_text.h"


#define NGX_MAIL_POLICY_PROMETHEUS_PREFIX  "nginx_mail_policy_"


/* a counter in blocks of one kind */
typedef struct {
    ngx_uint_t   n;
    const char  *family;                /* NULL: as the line before */
    const char  *label;                 /* NULL: none */
    const char  *value;
    const char  *help;
} ngx_mail_policy_prometheus_block_t;


static void ngx_mail_policy_prometheus_lines(ngx_mail_policy_prometheus_t *p,
    ngx_array_t *blocks, const char *name,
    ngx_mail_policy_prometheus_block_t *counter);
static void ngx_mail_policy_prometheus_summary(
    ngx_mail_policy_prometheus_t *p, ngx_array_t *blocks, const char *name,
    ngx_uint_t usec, ngx_uint_t first, ngx_uint_t last);
static void ngx_mail_policy_prometheus_name(ngx_mail_policy_prometheus_t *p,
    const char *name, ngx_mail_policy_snapshot_block_t *block);
static void ngx_mail_policy_prometheus_begin(ngx_mail_policy_prometheus_t *p,
    const char *suffix);


static ngx_mail_policy_prometheus_block_t  ngx_mail_policy_prometheus_limits[]
    =
{
    { NGX_MAIL_POLICY_METRIC_LIMIT_PASS, "limit_decisions_total",
      "result", "pass", "What limits decided." },
    { NGX_MAIL_POLICY_METRIC_LIMIT_DEFER, NULL, "result", "defer", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_REJECT, NULL, "result", "reject", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_TARPIT, NULL, "result", "tarpit", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_REPORT, NULL,
      "result", "would_reject", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_RELAY, NULL, "result", "relay", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_ERROR, NULL, "result", "error", NULL },
    { NGX_MAIL_POLICY_METRIC_LIMIT_NEAR, "limit_near_total",
      NULL, NULL, "Keys that came to 80 % of a limit, once a window." },
    { 0, NULL, NULL, NULL, NULL }
};


static ngx_mail_policy_prometheus_block_t  ngx_mail_policy_prometheus_relays[]
    =
{
    { NGX_MAIL_POLICY_METRIC_PEER_TRIES, "upstream_peer_tries_total",
      NULL, NULL, "Transactions that a relay was asked for." },
    { NGX_MAIL_POLICY_METRIC_PEER_FAILURES, "upstream_peer_failures_total",
      NULL, NULL, "Tries that a relay failed: no connection, no answer." },
    { NGX_MAIL_POLICY_METRIC_PEER_2XX, "upstream_peer_replies_total",
      "class", "2xx", "Tries that a relay answered, by class of reply." },
    { NGX_MAIL_POLICY_METRIC_PEER_4XX, NULL, "class", "4xx", NULL },
    { NGX_MAIL_POLICY_METRIC_PEER_5XX, NULL, "class", "5xx", NULL },
    { NGX_MAIL_POLICY_METRIC_PEER_CONNECTS, "upstream_peer_connects_total",
      NULL, NULL, "Connections made to a relay." },
    { NGX_MAIL_POLICY_METRIC_PEER_REUSED, "upstream_peer_reused_total",
      NULL, NULL, "Tries on a connection that was there." },
    { 0, NULL, NULL, NULL, NULL }
};


static ngx_mail_policy_prometheus_block_t
    ngx_mail_policy_prometheus_services[] =
{
    { NGX_MAIL_POLICY_METRIC_SERVICE_PASS, "service_answers_total",
      "result", "pass", "What policy servers answered; default: nothing." },
    { NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE, NULL, "result", "refuse", NULL },
    { NGX_MAIL_POLICY_METRIC_SERVICE_DEFAULT, NULL,
      "result", "default", NULL },
    { 0, NULL, NULL, NULL, NULL }
};


void
ngx_mail_policy_prometheus_blocks(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s)
{
    ngx_mail_policy_prometheus_lines(p, &s->limits, "limit",
                                     ngx_mail_policy_prometheus_limits);

    ngx_mail_policy_prometheus_lines(p, &s->relays, "upstream",
                                     ngx_mail_policy_prometheus_relays);
    ngx_mail_policy_prometheus_family(p, "upstream_peer_duration_seconds",
                                      "summary",
                                      "How long tries waited for a relay.");
    ngx_mail_policy_prometheus_summary(p, &s->relays, "upstream",
                                       NGX_MAIL_POLICY_METRIC_PEER_SUM,
                                       NGX_MAIL_POLICY_METRIC_PEER_TRIES,
                                       NGX_MAIL_POLICY_METRIC_PEER_TRIES);

    ngx_mail_policy_prometheus_lines(p, &s->services, "service",
                                     ngx_mail_policy_prometheus_services);
    ngx_mail_policy_prometheus_family(p, "service_duration_seconds",
                                      "summary",
                                      "How long policy servers took.");
    ngx_mail_policy_prometheus_summary(p, &s->services, "service",
                                       NGX_MAIL_POLICY_METRIC_SERVICE_SUM,
                                       NGX_MAIL_POLICY_METRIC_SERVICE_PASS,
                                       NGX_MAIL_POLICY_METRIC_SERVICE_REFUSE);
}


/* lines of a family have to follow each other */

static void
ngx_mail_policy_prometheus_lines(ngx_mail_policy_prometheus_t *p,
    ngx_array_t *blocks, const char *name,
    ngx_mail_policy_prometheus_block_t *counter)
{
    ngx_uint_t                         i;
    ngx_mail_policy_snapshot_block_t  *block;

    block = blocks->elts;

    for ( /* void */ ; counter->family || counter->label; counter++) {

        if (counter->family) {
            ngx_mail_policy_prometheus_family(p, counter->family, "counter",
                                              counter->help);
        }

        for (i = 0; i < blocks->nelts; i++) {
            ngx_mail_policy_prometheus_name(p, name, &block[i]);

            if (counter->label) {
                ngx_mail_policy_prometheus_word(p, counter->label,
                                                counter->value);
            }

            ngx_mail_policy_prometheus_value(p, "",
                                             block[i].counters[counter->n]);
        }
    }
}


/* how many: the sum of the counters from first to last */

static void
ngx_mail_policy_prometheus_summary(ngx_mail_policy_prometheus_t *p,
    ngx_array_t *blocks, const char *name, ngx_uint_t usec, ngx_uint_t first,
    ngx_uint_t last)
{
    uint64_t                           n;
    ngx_uint_t                         i, k;
    ngx_mail_policy_snapshot_block_t  *block;

    block = blocks->elts;

    for (i = 0; i < blocks->nelts; i++) {

        for (n = 0, k = first; k <= last; k++) {
            n += block[i].counters[k];
        }

        ngx_mail_policy_prometheus_name(p, name, &block[i]);
        ngx_mail_policy_prometheus_seconds(p, "_sum",
                                           block[i].counters[usec]);

        ngx_mail_policy_prometheus_name(p, name, &block[i]);
        ngx_mail_policy_prometheus_value(p, "_count", n);
    }
}


static void
ngx_mail_policy_prometheus_name(ngx_mail_policy_prometheus_t *p,
    const char *name, ngx_mail_policy_snapshot_block_t *block)
{
    ngx_mail_policy_prometheus_label(p, name, &block->name);

    if (block->address.len) {
        ngx_mail_policy_prometheus_label(p, "address", &block->address);
    }
}


void
ngx_mail_policy_prometheus_family(ngx_mail_policy_prometheus_t *p,
    const char *name, const char *type, const char *help)
{
    p->family = name;

    ngx_mail_policy_json_raw(&p->out,
                             "# HELP " NGX_MAIL_POLICY_PROMETHEUS_PREFIX);
    ngx_mail_policy_json_raw(&p->out, name);
    ngx_mail_policy_json_raw(&p->out, " ");
    ngx_mail_policy_json_raw(&p->out, help);

    ngx_mail_policy_json_raw(&p->out,
                             "\n# TYPE " NGX_MAIL_POLICY_PROMETHEUS_PREFIX);
    ngx_mail_policy_json_raw(&p->out, name);
    ngx_mail_policy_json_raw(&p->out, " ");
    ngx_mail_policy_json_raw(&p->out, type);
    ngx_mail_policy_json_raw(&p->out, "\n");
}


void
ngx_mail_policy_prometheus_label(ngx_mail_policy_prometheus_t *p,
    const char *name, ngx_str_t *value)
{
    ngx_mail_policy_prometheus_label_t  *label;

    label = &p->labels[p->nlabels++];

    label->name = name;
    label->value = *value;
}


void
ngx_mail_policy_prometheus_word(ngx_mail_policy_prometheus_t *p,
    const char *name, const char *value)
{
    ngx_str_t  text;

    text.data = (u_char *) value;
    text.len = ngx_strlen(value);

    ngx_mail_policy_prometheus_label(p, name, &text);
}


void
ngx_mail_policy_prometheus_value(ngx_mail_policy_prometheus_t *p,
    const char *suffix, uint64_t value)
{
    ngx_mail_policy_prometheus_begin(p, suffix);

    if (ngx_mail_policy_json_reserve(&p->out, NGX_INT64_LEN + 1) == NGX_OK) {
        p->out.last = ngx_sprintf(p->out.last, "%uL\n", value);
    }
}


void
ngx_mail_policy_prometheus_seconds(ngx_mail_policy_prometheus_t *p,
    const char *suffix, uint64_t usec)
{
    ngx_mail_policy_prometheus_begin(p, suffix);
    ngx_mail_policy_json_decimal(&p->out, usec, 1000000);
    ngx_mail_policy_json_raw(&p->out, "\n");
}


static void
ngx_mail_policy_prometheus_begin(ngx_mail_policy_prometheus_t *p,
    const char *suffix)
{
    size_t       len;
    ngx_str_t   *value;
    ngx_uint_t   i;

    ngx_mail_policy_json_raw(&p->out, NGX_MAIL_POLICY_PROMETHEUS_PREFIX);
    ngx_mail_policy_json_raw(&p->out, p->family);
    ngx_mail_policy_json_raw(&p->out, suffix);

    for (i = 0; i < p->nlabels; i++) {
        value = &p->labels[i].value;

        ngx_mail_policy_json_raw(&p->out, i ? "," : "{");
        ngx_mail_policy_json_raw(&p->out, p->labels[i].name);
        ngx_mail_policy_json_raw(&p->out, "=\"");

        len = mpol_label_escape(value->data, value->len, NULL, 0);

        if (ngx_mail_policy_json_reserve(&p->out, len) == NGX_OK) {
            p->out.last += mpol_label_escape(value->data, value->len,
                                             p->out.last, len);
        }

        ngx_mail_policy_json_raw(&p->out, "\"");
    }

    ngx_mail_policy_json_raw(&p->out, p->nlabels ? "} " : " ");

    p->nlabels = 0;
}
