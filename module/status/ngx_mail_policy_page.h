
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The parts of the page.  Each writes markup to h of what the snapshot says,
 * in words where there is nothing to be shown.
 *
 *     page    = head, header, main (verdict, charts, tables), footer, script
 *
 * A table names its rows by ids, where a program may look for numbers:
 * "hour-accepted" and so on.
 */


#ifndef NGX_MAIL_POLICY_PAGE_H
#define NGX_MAIL_POLICY_PAGE_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_html.h"
#include "ngx_mail_policy_snapshot.h"


/* what is wrong: an item of a list each, the gravest first */
typedef struct {
    ngx_uint_t                bad;      /* so many that cannot wait */
    ngx_uint_t                warn;     /* ... that should be looked at */
    ngx_mail_policy_html_t    title;    /* of the first, ... */
    ngx_mail_policy_html_t    detail;   /* ... with a link */
    ngx_mail_policy_html_t    items;
} ngx_mail_policy_trouble_t;


/* zero it; what is written is on pool */
void ngx_mail_policy_page_trouble(ngx_mail_policy_trouble_t *trouble,
    ngx_pool_t *pool, ngx_mail_policy_snapshot_t *snapshot);

/* relays of a group that a choice would find now */
ngx_uint_t ngx_mail_policy_page_usable(
    ngx_mail_policy_snapshot_upstream_t *upstream);

ngx_uint_t ngx_mail_policy_page_is(ngx_str_t *text, const char *what);

/* sums over the minutes from .. to of the last hour, 0 being the oldest */
uint64_t ngx_mail_policy_page_minutes(ngx_mail_policy_snapshot_t *snapshot,
    ngx_uint_t past, ngx_uint_t from, ngx_uint_t to);

/* a part with its heading, and one that has nothing to show but these words */
void ngx_mail_policy_page_begin(ngx_mail_policy_html_t *h, const char *id,
    const char *title);
void ngx_mail_policy_page_end(ngx_mail_policy_html_t *h);
void ngx_mail_policy_page_empty(ngx_mail_policy_html_t *h, const char *text);

void ngx_mail_policy_page_tiles(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_charts(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_refused(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_near(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_relays(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_store(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_limits(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_services(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_logins(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_postfix(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);
void ngx_mail_policy_page_totals(ngx_mail_policy_html_t *h,
    ngx_mail_policy_snapshot_t *snapshot);


#endif /* NGX_MAIL_POLICY_PAGE_H */
