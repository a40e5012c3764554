
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The page as a whole.  All facts are in it as it comes; its script only asks
 * for it again, and without scripts the browser does so itself.  No events
 * arrive here.
 */


#include "ngx_mail_policy_page.h"

/* ngx_mail_policy_page_css[] and ngx_mail_policy_page_js[], from page.css and
   page.js */
#include "ngx_mail_policy_page_text.h"


#define NGX_MAIL_POLICY_PAGE_REFRESH  10    /* s, without scripts */


typedef struct {
    ngx_mail_policy_html_t      *h;
    ngx_mail_policy_snapshot_t  *snapshot;
    ngx_mail_policy_trouble_t    trouble;
    ngx_mail_policy_html_t       title;
    const char                  *level;     /* ok, warn, bad, off */
    ngx_str_t                    host;
    ngx_str_t                    clock;     /* hh:mm:ss */
} ngx_mail_policy_page_t;


static void ngx_mail_policy_page_judge(ngx_mail_policy_page_t *page,
    ngx_pool_t *pool);
static void ngx_mail_policy_page_head(ngx_mail_policy_page_t *page,
    ngx_str_t *nonce);
static void ngx_mail_policy_page_icon(ngx_mail_policy_page_t *page);
static void ngx_mail_policy_page_verdict(ngx_mail_policy_page_t *page);
static void ngx_mail_policy_page_facts(ngx_mail_policy_page_t *page);
static void ngx_mail_policy_page_fact_relays(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_fact_keys(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_page_main(ngx_mail_policy_page_t *page);


ngx_int_t
ngx_mail_policy_snapshot_html(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *snapshot, ngx_str_t *nonce, ngx_str_t *text)
{
    ngx_mail_policy_html_t  h;
    ngx_mail_policy_page_t  page;

    ngx_memzero(&h, sizeof(ngx_mail_policy_html_t));
    h.pool = pool;

    ngx_memzero(&page, sizeof(ngx_mail_policy_page_t));
    page.h = &h;
    page.snapshot = snapshot;
    page.host = ngx_cycle->hostname;

    /* 2026-11-28T03:12:45+01:00 */

    page.clock = snapshot->time;

    if (page.clock.len > sizeof("2026-11-28T03:12:45") - 1) {
        page.clock.data += sizeof("2026-11-28T") - 1;
        page.clock.len = sizeof("03:12:45") - 1;
    }

    ngx_mail_policy_page_judge(&page, pool);
    ngx_mail_policy_page_head(&page, nonce);

    ngx_mail_policy_html(&h, "<main>\n");
    ngx_mail_policy_page_verdict(&page);
    ngx_mail_policy_page_main(&page);

    ngx_mail_policy_html(&h, "</main>\n"
                         "<footer><p id=stamp>%t, worker %d</footer>\n"
                         "<script nonce=\"%t\">\n%s</script>\n"
                         "</body>\n</html>\n", &snapshot->time,
                         (uint64_t) ngx_pid, nonce, ngx_mail_policy_page_js);

    text->data = h.start;
    text->len = h.last - h.start;

    return h.error ? NGX_ERROR : NGX_OK;
}


static void
ngx_mail_policy_page_judge(ngx_mail_policy_page_t *page, ngx_pool_t *pool)
{
    ngx_mail_policy_trouble_t  *trouble;

    trouble = &page->trouble;
    page->title.pool = pool;

    if (!page->snapshot->mail) {
        page->level = "off";
        ngx_mail_policy_html(&page->title, "No mail server here");
        return;
    }

    ngx_mail_policy_page_trouble(trouble, pool, page->snapshot);

    page->level = trouble->bad ? "bad" : trouble->warn ? "warn" : "ok";

    if (trouble->bad + trouble->warn == 0) {
        ngx_mail_policy_html(&page->title, "All is well");

    } else if (trouble->bad + trouble->warn == 1) {
        ngx_mail_policy_html(&page->title, "%h", &trouble->title);

    } else {
        ngx_mail_policy_html(&page->title, "%h, and %n more",
                             &trouble->title,
                             (uint64_t) trouble->bad + trouble->warn - 1);
    }
}


static void
ngx_mail_policy_page_head(ngx_mail_policy_page_t *page, ngx_str_t *nonce)
{
    ngx_mail_policy_html_t  *h;

    h = page->h;

    ngx_mail_policy_html(h, "<!DOCTYPE html>\n<html lang=en>\n<head>\n"
                         "<meta charset=utf-8>\n"
                         "<meta name=viewport "
                         "content=\"width=device-width, initial-scale=1\">\n"
                         "<meta name=color-scheme content=\"light dark\">\n"
                         "<meta name=robots content=noindex>\n"
                         "<title>%h &ndash; %t</title>\n"
                         "<noscript><meta http-equiv=refresh content=%d>"
                         "</noscript>\n", &page->title, &page->host,
                         (uint64_t) NGX_MAIL_POLICY_PAGE_REFRESH);

    ngx_mail_policy_page_icon(page);

    ngx_mail_policy_html(h, "<style nonce=\"%t\">\n%s</style>\n</head>\n"
                         "<body>\n<header>\n"
                         "<p><b>%t</b> mail policy</p>\n"
                         "<p id=live><span id=does>Updated</span> "
                         "<time id=at>%t</time></p>\n"
                         "<button id=pause type=button hidden>Pause</button>\n"
                         "</header>\n<p id=lost role=alert hidden></p>\n",
                         nonce, ngx_mail_policy_page_css, &page->host,
                         &page->clock);
}


/* a disc in the colour of the verdict, for the tab */

static void
ngx_mail_policy_page_icon(ngx_mail_policy_page_t *page)
{
    const char  *colour;

    switch (page->level[0]) {

    case 'b':
        colour = "d1242f";
        break;

    case 'w':
        colour = "bf8700";
        break;

    case 'o':
        colour = (page->level[1] == 'k') ? "1a7f37" : "6e7781";
        break;

    default:
        colour = "6e7781";
    }

    ngx_mail_policy_html(page->h, "<link id=icon rel=icon "
                         "href=\"data:image/svg+xml,%%3Csvg xmlns="
                         "'http://www.w3.org/2000/svg' viewBox='0 0 16 16'"
                         "%%3E%%3Ccircle cx='8' cy='8' r='7' fill='%%23%s'/"
                         "%%3E%%3C/svg%%3E\">\n", colour);
}


/* a reader of screens is told when it changes */

static void
ngx_mail_policy_page_verdict(ngx_mail_policy_page_t *page)
{
    ngx_mail_policy_html_t  *h;

    h = page->h;

    ngx_mail_policy_html(h, "<div id=verdict class=%s>\n"
                         "<h1 role=status>%h</h1>\n", page->level,
                         &page->title);

    if (!page->snapshot->mail) {
        ngx_mail_policy_html(h, "<p>No server of <code>mail{}</code> has "
                             "<code>policy on;</code> or <code>protocol "
                             "policy;</code>. Write one of them to see "
                             "something here.</p>\n</div>\n");
        return;
    }

    if (page->trouble.bad + page->trouble.warn == 1) {
        ngx_mail_policy_html(h, "<p class=why>%h</p>\n",
                             &page->trouble.detail);

    } else if (page->trouble.bad + page->trouble.warn) {
        ngx_mail_policy_html(h, "<ul>\n%h</ul>\n", &page->trouble.items);
    }

    ngx_mail_policy_page_facts(page);
    ngx_mail_policy_html(h, "</div>\n");
}


static void
ngx_mail_policy_page_facts(ngx_mail_policy_page_t *page)
{
    ngx_mail_policy_html_t      *h;
    ngx_mail_policy_snapshot_t  *snapshot;

    h = page->h;
    snapshot = page->snapshot;

    ngx_mail_policy_html(h, "<p>");

    ngx_mail_policy_page_fact_relays(h, snapshot);

    if (snapshot->store_name.len == 0) {
        ngx_mail_policy_html(h, "<span>Limits are counted in memory</span> ");

    } else if (snapshot->metrics
               ? snapshot->store_up == snapshot->store_workers
               : ngx_mail_policy_page_is(&snapshot->store_state, "up"))
    {
        ngx_mail_policy_html(h, "<span>Redis is up</span> ");
    }

    if (snapshot->metrics) {
        ngx_mail_policy_html(h, "<span>%n accepted and %n refused in the last "
                             "hour</span> ",
                             snapshot->hour[NGX_MAIL_POLICY_PAST_ACCEPTED],
                             snapshot->hour[NGX_MAIL_POLICY_PAST_REFUSED]
                             + snapshot->hour[
                                        NGX_MAIL_POLICY_PAST_AUTH_FAILURES]);
        ngx_mail_policy_page_fact_keys(h, snapshot);
    }

    ngx_mail_policy_html(h, "</p>\n");
}


static void
ngx_mail_policy_page_fact_relays(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t                              all, up;
    ngx_uint_t                            i;
    ngx_mail_policy_snapshot_upstream_t  *upstream;

    upstream = snapshot->upstreams.elts;

    for (i = 0, all = 0, up = 0; i < snapshot->upstreams.nelts; i++) {
        all += upstream[i].peers.nelts;
        up += ngx_mail_policy_page_usable(&upstream[i]);
    }

    if (all) {
        ngx_mail_policy_html(h, "<span>%n of %n relays up</span> ", up, all);
    }
}


static void
ngx_mail_policy_page_fact_keys(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t                          full;
    ngx_uint_t                        i;
    ngx_mail_policy_snapshot_near_t  *near;

    near = snapshot->near.elts;

    for (i = 0, full = 0; i < snapshot->near.nelts; i++) {
        full += near[i].used >= near[i].max;
    }

    if (snapshot->near.nelts == 0) {
        ngx_mail_policy_html(h, "<span>no key near its limit</span>");
        return;
    }

    ngx_mail_policy_html(h, "<span>%n %s near %s limit, %n of them at it"
                         "</span>", (uint64_t) snapshot->near.nelts,
                         snapshot->near.nelts == 1 ? "key" : "keys",
                         snapshot->near.nelts == 1 ? "its" : "their", full);
}


static void
ngx_mail_policy_page_main(ngx_mail_policy_page_t *page)
{
    ngx_mail_policy_html_t      *h;
    ngx_mail_policy_snapshot_t  *snapshot;

    h = page->h;
    snapshot = page->snapshot;

    if (!snapshot->mail) {
        return;
    }

    if (!snapshot->metrics) {
        ngx_mail_policy_page_begin(h, "off", "Rates, refusals, limits");
        ngx_mail_policy_page_empty(h, "Nothing is counted, as "
                                   "<code>policy_metrics</code> is off. Write "
                                   "<code>policy_metrics on;</code> in "
                                   "<code>mail{}</code> to see it here.");
        ngx_mail_policy_page_end(h);

        ngx_mail_policy_page_relays(h, snapshot);
        ngx_mail_policy_page_store(h, snapshot);
        return;
    }

    ngx_mail_policy_page_tiles(h, snapshot);
    ngx_mail_policy_page_charts(h, snapshot);

    ngx_mail_policy_html(h, "<div class=pair>\n");
    ngx_mail_policy_page_refused(h, snapshot);
    ngx_mail_policy_page_near(h, snapshot);
    ngx_mail_policy_html(h, "</div>\n");

    ngx_mail_policy_page_relays(h, snapshot);

    ngx_mail_policy_html(h, "<div class=pair>\n");
    ngx_mail_policy_page_limits(h, snapshot);
    ngx_mail_policy_page_logins(h, snapshot);
    ngx_mail_policy_html(h, "</div>\n<div class=three>\n");
    ngx_mail_policy_page_store(h, snapshot);
    ngx_mail_policy_page_services(h, snapshot);
    ngx_mail_policy_page_postfix(h, snapshot);
    ngx_mail_policy_html(h, "</div>\n");

    ngx_mail_policy_page_totals(h, snapshot);
}
