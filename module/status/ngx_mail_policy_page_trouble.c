
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is wrong.  An administrator who was woken up reads this first, so it
 * says what is so now or was within the hour, and never what has been so
 * since the start.  No events arrive here.
 */


#include "ngx_mail_policy_page.h"


/* refusals of so many minutes, if there were so many of them ... */
#define NGX_MAIL_POLICY_SURGE_MINUTES  5
#define NGX_MAIL_POLICY_SURGE_LEAST    30

/* ... are a surge if it is so many times what it was before, where so many
   minutes of that are known */
#define NGX_MAIL_POLICY_SURGE_TIMES    4
#define NGX_MAIL_POLICY_SURGE_BEFORE   10


/* one that is being written */
typedef struct {
    ngx_uint_t                bad;
    const char               *where;    /* the id of what is behind it */
    ngx_mail_policy_html_t    title;
    ngx_mail_policy_html_t    detail;
} ngx_mail_policy_finding_t;


static void ngx_mail_policy_finding_begin(ngx_mail_policy_finding_t *f,
    ngx_pool_t *pool, ngx_uint_t bad, const char *where);
static void ngx_mail_policy_finding_end(ngx_mail_policy_finding_t *f,
    ngx_mail_policy_trouble_t *trouble);
static void ngx_mail_policy_trouble_store(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t bad);
static void ngx_mail_policy_trouble_late(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot);
static void ngx_mail_policy_trouble_relays(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t bad);
static void ngx_mail_policy_trouble_group(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_upstream_t *upstream, ngx_uint_t bad);
static void ngx_mail_policy_trouble_ill(ngx_mail_policy_finding_t *f,
    ngx_mail_policy_snapshot_upstream_t *upstream);
static void ngx_mail_policy_trouble_surge(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t past, const char *what,
    const char *where);
static void ngx_mail_policy_trouble_lost(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot);


void
ngx_mail_policy_page_trouble(ngx_mail_policy_trouble_t *trouble,
    ngx_pool_t *pool, ngx_mail_policy_snapshot_t *snapshot)
{
    trouble->title.pool = pool;
    trouble->detail.pool = pool;
    trouble->items.pool = pool;

    ngx_mail_policy_trouble_relays(trouble, snapshot, 1);
    ngx_mail_policy_trouble_store(trouble, snapshot, 1);

    ngx_mail_policy_trouble_store(trouble, snapshot, 0);
    ngx_mail_policy_trouble_relays(trouble, snapshot, 0);

    if (!snapshot->metrics) {
        return;
    }

    ngx_mail_policy_trouble_late(trouble, snapshot);

    ngx_mail_policy_trouble_surge(trouble, snapshot,
                                  NGX_MAIL_POLICY_PAST_REFUSED,
                                  "Refusals", "refused");
    ngx_mail_policy_trouble_surge(trouble, snapshot,
                                  NGX_MAIL_POLICY_PAST_AUTH_FAILURES,
                                  "Refused logins", "logins");

    ngx_mail_policy_trouble_lost(trouble, snapshot);
}


static void
ngx_mail_policy_finding_begin(ngx_mail_policy_finding_t *f, ngx_pool_t *pool,
    ngx_uint_t bad, const char *where)
{
    ngx_memzero(f, sizeof(ngx_mail_policy_finding_t));

    f->bad = bad;
    f->where = where;
    f->title.pool = pool;
    f->detail.pool = pool;
}


static void
ngx_mail_policy_finding_end(ngx_mail_policy_finding_t *f,
    ngx_mail_policy_trouble_t *trouble)
{
    if (trouble->bad + trouble->warn == 0) {
        ngx_mail_policy_html(&trouble->title, "%h", &f->title);
        ngx_mail_policy_html(&trouble->detail, "%h <a href=\"#%s\">See "
                             "below</a>", &f->detail, f->where);
    }

    if (f->bad) {
        trouble->bad++;

    } else {
        trouble->warn++;
    }

    ngx_mail_policy_html(&trouble->items,
                         "<li class=%s><a href=\"#%s\">%h</a> %h</li>\n",
                         f->bad ? "bad" : "warn", f->where, &f->title,
                         &f->detail);
}


/* bad: it is away for all workers */

static void
ngx_mail_policy_trouble_store(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t bad)
{
    uint64_t                   up, workers;
    ngx_mail_policy_finding_t  f;

    workers = snapshot->store_workers;
    up = snapshot->store_up;

    if (!snapshot->metrics) {
        /* the worker that answers knows of itself only */
        workers = 1;
        up = !ngx_mail_policy_page_is(&snapshot->store_state, "away");
    }

    if (snapshot->store_name.len == 0 || up >= workers || bad != (up == 0)) {
        return;
    }

    ngx_mail_policy_finding_begin(&f, trouble->items.pool, bad, "store");

    if (bad) {
        ngx_mail_policy_html(&f.title, "Redis is away");
        ngx_mail_policy_html(&f.detail, "%t does not answer. Limits follow "
                             "<code>on_error</code> of "
                             "<code>policy_redis</code>.",
                             &snapshot->store_name);

    } else {
        ngx_mail_policy_html(&f.title, "Redis is away for %n of %n workers",
                             workers - up, workers);
        ngx_mail_policy_html(&f.detail, "They follow <code>on_error</code> of "
                             "<code>policy_redis</code>.");
    }

    ngx_mail_policy_finding_end(&f, trouble);
}


static void
ngx_mail_policy_trouble_late(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t                   n;
    ngx_mail_policy_finding_t  f;

    n = snapshot->hour[NGX_MAIL_POLICY_PAST_STORE_ERRORS];

    if (n == 0) {
        return;
    }

    ngx_mail_policy_finding_begin(&f, trouble->items.pool, 0, "store");
    ngx_mail_policy_html(&f.title, "Redis left questions unanswered");
    ngx_mail_policy_html(&f.detail, "%n in the last hour, %n of them in the "
                         "last %d minutes.", n,
                         ngx_mail_policy_page_minutes(snapshot,
                             NGX_MAIL_POLICY_PAST_STORE_ERRORS,
                             NGX_MAIL_POLICY_SNAPSHOT_MINUTES
                             - NGX_MAIL_POLICY_SURGE_MINUTES,
                             NGX_MAIL_POLICY_SNAPSHOT_MINUTES),
                         (uint64_t) NGX_MAIL_POLICY_SURGE_MINUTES);
    ngx_mail_policy_finding_end(&f, trouble);
}


/* bad: groups of which no relay can be used */

static void
ngx_mail_policy_trouble_relays(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t bad)
{
    ngx_uint_t                            i;
    ngx_mail_policy_snapshot_upstream_t  *upstream;

    upstream = snapshot->upstreams.elts;

    for (i = 0; i < snapshot->upstreams.nelts; i++) {
        ngx_mail_policy_trouble_group(trouble, &upstream[i], bad);
    }
}


static void
ngx_mail_policy_trouble_group(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_upstream_t *upstream, ngx_uint_t bad)
{
    ngx_uint_t                        i, ill, usable;
    ngx_mail_policy_finding_t         f;
    ngx_mail_policy_snapshot_peer_t  *peer;

    peer = upstream->peers.elts;
    usable = ngx_mail_policy_page_usable(upstream);

    for (i = 0, ill = 0; i < upstream->peers.nelts; i++) {
        ill += ngx_mail_policy_page_is(&peer[i].state, "failed")
               || ngx_mail_policy_page_is(&peer[i].state, "unhealthy");
    }

    if (bad != (usable == 0) || (ill == 0 && usable)) {
        return;
    }

    ngx_mail_policy_finding_begin(&f, trouble->items.pool, bad, "relays");

    if (bad) {
        ngx_mail_policy_html(&f.title, "No relay of %t can be used",
                             &upstream->name);

    } else {
        ngx_mail_policy_html(&f.title, "%n of %n relays of %t %s ill",
                             (uint64_t) ill,
                             (uint64_t) upstream->peers.nelts,
                             &upstream->name, (ill == 1) ? "is" : "are");
    }

    ngx_mail_policy_trouble_ill(&f, upstream);
    ngx_mail_policy_finding_end(&f, trouble);
}


/* names the first of those that are not up */

static void
ngx_mail_policy_trouble_ill(ngx_mail_policy_finding_t *f,
    ngx_mail_policy_snapshot_upstream_t *upstream)
{
    ngx_uint_t                        i, n;
    ngx_mail_policy_snapshot_peer_t  *peer;

    peer = upstream->peers.elts;

    if (upstream->peers.nelts == 0) {
        ngx_mail_policy_html(&f->detail, "Its names have no address.");
        return;
    }

    for (i = 0, n = 0; i < upstream->peers.nelts; i++) {

        if (ngx_mail_policy_page_is(&peer[i].state, "up")
            || (!f->bad
                && (ngx_mail_policy_page_is(&peer[i].state, "down")
                    || ngx_mail_policy_page_is(&peer[i].state, "busy"))))
        {
            continue;
        }

        if (n++ == 3) {
            ngx_mail_policy_html(&f->detail, " and others");
            break;
        }

        ngx_mail_policy_html(&f->detail, "%s%t (%t)", (n > 1) ? ", " : "",
                             &peer[i].address, &peer[i].state);
    }

    ngx_mail_policy_html(&f->detail, ".");
}


ngx_uint_t
ngx_mail_policy_page_usable(ngx_mail_policy_snapshot_upstream_t *upstream)
{
    ngx_uint_t                        i, n;
    ngx_mail_policy_snapshot_peer_t  *peer;

    peer = upstream->peers.elts;

    for (i = 0, n = 0; i < upstream->peers.nelts; i++) {
        n += ngx_mail_policy_page_is(&peer[i].state, "up");
    }

    return n;
}


ngx_uint_t
ngx_mail_policy_page_is(ngx_str_t *text, const char *what)
{
    return text->len == ngx_strlen(what)
           && ngx_strncmp(text->data, what, text->len) == 0;
}


static void
ngx_mail_policy_trouble_surge(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot, ngx_uint_t past, const char *what,
    const char *where)
{
    uint64_t                   now, before;
    ngx_uint_t                 begin, known;
    ngx_mail_policy_finding_t  f;

    begin = NGX_MAIL_POLICY_SNAPSHOT_MINUTES - NGX_MAIL_POLICY_SURGE_MINUTES;
    now = ngx_mail_policy_page_minutes(snapshot, past, begin,
                                       NGX_MAIL_POLICY_SNAPSHOT_MINUTES);

    if (snapshot->known < NGX_MAIL_POLICY_SURGE_MINUTES
                          + NGX_MAIL_POLICY_SURGE_BEFORE
        || now < NGX_MAIL_POLICY_SURGE_LEAST)
    {
        return;
    }

    known = ngx_min(snapshot->known - NGX_MAIL_POLICY_SURGE_MINUTES, begin);
    before = ngx_mail_policy_page_minutes(snapshot, past, begin - known, begin)
             * NGX_MAIL_POLICY_SURGE_MINUTES / known;

    if (now < before * NGX_MAIL_POLICY_SURGE_TIMES) {
        return;
    }

    ngx_mail_policy_finding_begin(&f, trouble->items.pool, 0, where);
    ngx_mail_policy_html(&f.title, "%s surge", what);
    ngx_mail_policy_html(&f.detail, "%n in the last %d minutes; before that, "
                         "%n in as many.", now,
                         (uint64_t) NGX_MAIL_POLICY_SURGE_MINUTES, before);
    ngx_mail_policy_finding_end(&f, trouble);
}


static void
ngx_mail_policy_trouble_lost(ngx_mail_policy_trouble_t *trouble,
    ngx_mail_policy_snapshot_t *snapshot)
{
    uint64_t                   n;
    ngx_mail_policy_finding_t  f;

    n = snapshot->hour[NGX_MAIL_POLICY_PAST_LOG_LOST];

    if (n == 0) {
        return;
    }

    ngx_mail_policy_finding_begin(&f, trouble->items.pool, 0, "totals");
    ngx_mail_policy_html(&f.title, "Lines of the access log were lost");
    ngx_mail_policy_html(&f.detail, "%n in the last hour could not be "
                         "written; the error log says why.", n);
    ngx_mail_policy_finding_end(&f, trouble);
}


uint64_t
ngx_mail_policy_page_minutes(ngx_mail_policy_snapshot_t *snapshot,
    ngx_uint_t past, ngx_uint_t from, ngx_uint_t to)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = from, n = 0; i < to; i++) {
        n += snapshot->minutes[i][past];
    }

    return n;
}
