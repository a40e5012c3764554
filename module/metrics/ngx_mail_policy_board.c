
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The boards are copied under the lock of the pool, and read outside of it.
 * The master opens the lock if a worker dies that holds it.  No events arrive
 * here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_board.h"


/* a limit's name, a blank that is in none, and the unit */
#define NGX_MAIL_POLICY_BOARD_WHAT  MPOL_TOP_WHAT


static mpol_top_t *ngx_mail_policy_board_copy(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, mpol_top_t *board);
static void ngx_mail_policy_board_what(mpol_top_entry_t *e,
    ngx_str_t *limit, ngx_str_t *unit);


void
ngx_mail_policy_board_refused(ngx_str_t *reason, ngx_str_t *who)
{
    mpol_str_t                  what, by;
    ngx_mail_policy_metrics_t  *metrics;

    metrics = ngx_mail_policy_metrics;

    if (metrics == NULL) {
        return;
    }

    what.data = reason->data;
    what.len = reason->len;
    by.data = who->data;
    by.len = who->len;

    ngx_shmtx_lock(&metrics->shpool->mutex);

    (void) mpol_top_add(&metrics->shm->refused, &what, &by, ngx_time(),
                        ngx_time() + NGX_MAIL_POLICY_BOARD_TIME);

    ngx_shmtx_unlock(&metrics->shpool->mutex);
}


void
ngx_mail_policy_board_near(ngx_str_t *limit, ngx_str_t *unit, ngx_str_t *key,
    uint64_t used, uint64_t max, time_t expires)
{
    u_char                     *p, text[NGX_MAIL_POLICY_BOARD_WHAT];
    mpol_str_t                  what, who;
    ngx_mail_policy_metrics_t  *metrics;

    metrics = ngx_mail_policy_metrics;

    if (metrics == NULL) {
        return;
    }

    p = ngx_snprintf(text, sizeof(text), "%V %V", limit, unit);

    what.data = text;
    what.len = p - text;
    who.data = key->data;
    who.len = key->len;

    expires = ngx_min(expires, ngx_time() + NGX_MAIL_POLICY_BOARD_TIME);

    ngx_shmtx_lock(&metrics->shpool->mutex);

    (void) mpol_top_put(&metrics->shm->near, &what, &who, used, max,
                        ngx_time(), ngx_max(expires, 0));

    ngx_shmtx_unlock(&metrics->shpool->mutex);
}


ngx_int_t
ngx_mail_policy_board_once(ngx_str_t *id, ngx_str_t *unit, uint64_t usec)
{
    int                         first;
    uint64_t                    now;
    mpol_str_t                  what, who;
    ngx_mail_policy_metrics_t  *metrics;

    metrics = ngx_mail_policy_metrics;

    if (metrics == NULL) {
        return NGX_ERROR;
    }

    what.data = unit->data;
    what.len = unit->len;
    who.data = id->data;
    who.len = id->len;

    now = ngx_mail_policy_metrics_usec();

    ngx_shmtx_lock(&metrics->shpool->mutex);

    first = mpol_once(&metrics->shm->warned, mpol_once_hash(&what, &who), now,
                      now + usec);

    ngx_shmtx_unlock(&metrics->shpool->mutex);

    return first ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_mail_policy_board_get_refused(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, ngx_uint_t max, ngx_array_t *lines)
{
    size_t                            i, n;
    uint8_t                           order[MPOL_TOP_ENTRIES];
    mpol_top_t                       *board;
    mpol_top_entry_t                 *e;
    ngx_mail_policy_board_refused_t  *line;

    if (ngx_array_init(lines, pool, MPOL_TOP_ENTRIES,
                       sizeof(ngx_mail_policy_board_refused_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (metrics == NULL) {
        return NGX_OK;
    }

    board = ngx_mail_policy_board_copy(pool, metrics, &metrics->shm->refused);
    if (board == NULL) {
        return NGX_ERROR;
    }

    n = mpol_top_list(board, MPOL_TOP_BY_COUNT, ngx_time(), order);

    for (i = 0; i < n && i < max; i++) {
        e = &board->entries[order[i]];

        line = ngx_array_push(lines);
        if (line == NULL) {
            return NGX_ERROR;
        }

        line->reason.data = e->what;
        line->reason.len = e->what_len;
        line->who.data = e->who;
        line->who.len = e->who_len;
        line->count = e->used;
        line->first = e->first;
        line->last = e->last;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_board_get_near(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, ngx_uint_t max, ngx_array_t *lines)
{
    size_t                         i, n;
    uint8_t                        order[MPOL_TOP_ENTRIES];
    mpol_top_t                    *board;
    mpol_top_entry_t              *e;
    ngx_mail_policy_board_near_t  *line;

    if (ngx_array_init(lines, pool, MPOL_TOP_ENTRIES,
                       sizeof(ngx_mail_policy_board_near_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (metrics == NULL) {
        return NGX_OK;
    }

    board = ngx_mail_policy_board_copy(pool, metrics, &metrics->shm->near);
    if (board == NULL) {
        return NGX_ERROR;
    }

    n = mpol_top_list(board, MPOL_TOP_BY_SHARE, ngx_time(), order);

    for (i = 0; i < n && i < max; i++) {
        e = &board->entries[order[i]];

        line = ngx_array_push(lines);
        if (line == NULL) {
            return NGX_ERROR;
        }

        ngx_mail_policy_board_what(e, &line->limit, &line->unit);
        line->key.data = e->who;
        line->key.len = e->who_len;
        line->used = e->used;
        line->max = e->max;
        line->last = e->last;
    }

    return NGX_OK;
}


static mpol_top_t *
ngx_mail_policy_board_copy(ngx_pool_t *pool,
    ngx_mail_policy_metrics_t *metrics, mpol_top_t *board)
{
    mpol_top_t  *copy;

    copy = ngx_palloc(pool, sizeof(mpol_top_t));
    if (copy == NULL) {
        return NULL;
    }

    ngx_shmtx_lock(&metrics->shpool->mutex);
    ngx_memcpy(copy, board, sizeof(mpol_top_t));
    ngx_shmtx_unlock(&metrics->shpool->mutex);

    return copy;
}


static void
ngx_mail_policy_board_what(mpol_top_entry_t *e, ngx_str_t *limit,
    ngx_str_t *unit)
{
    u_char  *blank, *last;

    last = e->what + e->what_len;
    blank = ngx_strlchr(e->what, last, ' ');

    limit->data = e->what;
    limit->len = (blank ? blank : last) - e->what;

    unit->data = blank ? blank + 1 : last;
    unit->len = last - unit->data;
}
