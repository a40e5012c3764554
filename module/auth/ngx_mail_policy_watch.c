
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A file that is read again once it has changed.
 *
 * Events: the completion of a thread's task, given to the event loop by
 * nginx, and a timer for those that wait for it.
 *
 *     idle --(asked, the last look is a second old)--> looking
 *      ^                                                  |
 *      |  new table, or the same, or an error: all that   |
 *      +----- wait are told, and it may be looked again --+
 *
 * A look is a block of heap of its own, and the thread's between posting and
 * completion.  The completion handler takes out of it what it found and frees
 * it; when a worker exits completions do not come any more, and exit() does
 * it.  A look whose watch is gone frees itself.
 *
 * A look that does not end, as the file system hangs or all threads have a
 * lot to do, holds nobody up for long: after some seconds the old table is
 * used until it does end.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_thread_pool.h>

#include "ngx_mail_policy_watch.h"
#include "ngx_mail_policy_watch_look.h"


/* milliseconds: between looks, and to wait for one */
#define NGX_MAIL_POLICY_WATCH_EVERY  1000
#define NGX_MAIL_POLICY_WATCH_WAIT   2000


struct ngx_mail_policy_watch_s {
    ngx_str_t                        path;
    const char                      *directive;
    ngx_mail_policy_watch_parse_pt   parse;
    void                            *data;

    ngx_thread_pool_t               *thread_pool;
    ngx_log_t                       *log;       /* lasts as long as this */

    ngx_pool_t                      *pool;      /* the table's */
    void                            *table;
    ngx_mail_policy_watch_stat_t     stat;
    ngx_uint_t                       settled;
    ngx_mail_policy_watch_error_t    error;     /* of len 0: none */

    ngx_msec_t                       looked;    /* when that was begun */
    ngx_mail_policy_watch_look_t    *look;      /* under way */
    ngx_uint_t                       late;      /* it takes too long */
    ngx_event_t                      timer;
    ngx_queue_t                      waiting;
};


struct ngx_mail_policy_watch_ask_s {
    ngx_queue_t                      queue;
    ngx_mail_policy_watch_t         *watch;
    ngx_msec_t                       asked;
    ngx_mail_policy_watch_pt         handler;
    void                            *data;
};


static ngx_int_t ngx_mail_policy_watch_begin(ngx_mail_policy_watch_t *watch);
static void ngx_mail_policy_watch_timeout_handler(ngx_event_t *ev);
static void ngx_mail_policy_watch_drop(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_look_t *look, ngx_pool_t *pool);
static void ngx_mail_policy_watch_tell(ngx_mail_policy_watch_t *watch,
    ngx_uint_t all);
static void ngx_mail_policy_watch_cleanup(void *data);
static u_char *ngx_mail_policy_watch_message(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_error_t *error, u_char *p, u_char *last);

#if (NGX_THREADS)
static void ngx_mail_policy_watch_done_handler(ngx_event_t *ev);
static void ngx_mail_policy_watch_take(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_look_t *look);
static void ngx_mail_policy_watch_drop_thread(void *data, ngx_log_t *log);
static void ngx_mail_policy_watch_dropped_handler(ngx_event_t *ev);
static ngx_uint_t ngx_mail_policy_watch_same_error(
    ngx_mail_policy_watch_error_t *one, ngx_mail_policy_watch_error_t *two);
#endif


ngx_mail_policy_watch_t *
ngx_mail_policy_watch_add(ngx_conf_t *cf, ngx_str_t *path,
    const char *directive, ngx_mail_policy_watch_parse_pt parse, void *data)
{
    u_char                       *p;
    ngx_pool_cleanup_t           *cln;
    ngx_mail_policy_watch_t      *watch;
    ngx_mail_policy_watch_look_t  look;
    u_char                        message[NGX_MAX_CONF_ERRSTR];

    watch = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_watch_t));
    if (watch == NULL) {
        return NULL;
    }

    watch->path = *path;

    if (ngx_conf_full_name(cf->cycle, &watch->path, 1) != NGX_OK) {
        return NULL;
    }

    watch->directive = directive;
    watch->parse = parse;
    watch->data = data;
    watch->log = &cf->cycle->new_log;
    watch->looked = ngx_current_msec;

    watch->timer.handler = ngx_mail_policy_watch_timeout_handler;
    watch->timer.data = watch;
    watch->timer.log = watch->log;
    watch->timer.cancelable = 1;

    ngx_queue_init(&watch->waiting);

#if (NGX_THREADS)

    watch->thread_pool = ngx_thread_pool_add(cf, NULL);
    if (watch->thread_pool == NULL) {
        return NULL;
    }

#endif

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_mail_policy_watch_cleanup;
    cln->data = watch;

    ngx_memzero(&look, sizeof(ngx_mail_policy_watch_look_t));

    look.path = watch->path.data;
    look.parse = parse;
    look.data = data;

    ngx_mail_policy_watch_look(&look, watch->log);

    if (look.rc != NGX_OK) {
        p = ngx_mail_policy_watch_message(watch, &look.error, message,
                                          message + sizeof(message));
        ngx_conf_log_error(NGX_LOG_EMERG, cf, look.error.err, "%*s",
                           p - message, message);
        return NULL;
    }

    watch->pool = look.pool;
    watch->table = look.table;
    watch->stat = look.stat;
    watch->settled = look.settled;

    return watch;
}


void *
ngx_mail_policy_watch_find(ngx_mail_policy_watch_t *watch)
{
    if (watch->look) {
        return watch->late ? watch->table : NULL;
    }

    if (ngx_current_msec - watch->looked < NGX_MAIL_POLICY_WATCH_EVERY
        || ngx_mail_policy_watch_begin(watch) != NGX_OK)
    {
        return watch->table;
    }

    return NULL;
}


void *
ngx_mail_policy_watch_table(ngx_mail_policy_watch_t *watch)
{
    return watch->table;
}


ngx_mail_policy_watch_ask_t *
ngx_mail_policy_watch_wait(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_pt handler, void *data)
{
    ngx_mail_policy_watch_ask_t  *ask;

    ask = ngx_alloc(sizeof(ngx_mail_policy_watch_ask_t), watch->log);
    if (ask == NULL) {
        return NULL;
    }

    ask->watch = watch;
    ask->asked = ngx_current_msec;
    ask->handler = handler;
    ask->data = data;

    ngx_queue_insert_tail(&watch->waiting, &ask->queue);

    if (!watch->timer.timer_set) {
        ngx_add_timer(&watch->timer, NGX_MAIL_POLICY_WATCH_WAIT);
    }

    return ask;
}


void
ngx_mail_policy_watch_cancel(ngx_mail_policy_watch_ask_t *ask)
{
    ngx_mail_policy_watch_t  *watch;

    watch = ask->watch;

    ngx_queue_remove(&ask->queue);
    ngx_free(ask);

    if (ngx_queue_empty(&watch->waiting) && watch->timer.timer_set) {
        ngx_del_timer(&watch->timer);
    }
}


#if (NGX_THREADS)


static ngx_int_t
ngx_mail_policy_watch_begin(ngx_mail_policy_watch_t *watch)
{
    ngx_mail_policy_watch_look_t  *look;

    /* should it fail, it is not tried for each login */
    watch->looked = ngx_current_msec;

    look = ngx_calloc(sizeof(ngx_mail_policy_watch_look_t), watch->log);
    if (look == NULL) {
        return NGX_ERROR;
    }

    look->watch = watch;
    look->path = watch->path.data;
    look->parse = watch->parse;
    look->data = watch->data;
    look->again = 1;
    look->stat = watch->stat;
    look->settled = watch->settled;

    look->task.ctx = look;
    look->task.handler = ngx_mail_policy_watch_look;
    look->task.event.data = look;
    look->task.event.handler = ngx_mail_policy_watch_done_handler;
    look->task.event.log = watch->log;

    if (ngx_thread_task_post(watch->thread_pool, &look->task) != NGX_OK) {
        ngx_free(look);
        return NGX_ERROR;
    }

    watch->look = look;

    return NGX_OK;
}


static void
ngx_mail_policy_watch_done_handler(ngx_event_t *ev)
{
    ngx_pool_t                    *old;
    ngx_mail_policy_watch_t       *watch;
    ngx_mail_policy_watch_look_t  *look;

    look = ev->data;
    watch = look->watch;

    if (watch == NULL) {
        ngx_mail_policy_watch_drop(NULL, look, look->pool);
        return;
    }

    old = (look->rc == NGX_OK) ? watch->pool : NULL;

    ngx_mail_policy_watch_take(watch, look);
    ngx_mail_policy_watch_drop(watch, look, old);

    watch->look = NULL;
    watch->late = 0;

    ngx_mail_policy_watch_tell(watch, 0);
}


static void
ngx_mail_policy_watch_take(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_look_t *look)
{
    u_char  *p;
    u_char   message[NGX_MAX_ERROR_STR];

    switch (look->rc) {

    case NGX_OK:
        watch->pool = look->pool;
        watch->pool->log = watch->log;
        watch->table = look->table;

        /* one that was read twice, to be sure, is said once */

        if (watch->error.len
            || !ngx_mail_policy_watch_look_same(&watch->stat, &look->stat))
        {
            ngx_log_error(NGX_LOG_NOTICE, watch->log, 0,
                          "\"%V\" of \"%s\" was read again",
                          &watch->path, watch->directive);
        }

        break;

    case NGX_DECLINED:
        return;

    default: /* NGX_ERROR, NGX_AGAIN */
        if (ngx_mail_policy_watch_same_error(&watch->error, &look->error)) {
            break;
        }

        p = ngx_mail_policy_watch_message(watch, &look->error, message,
                                          message + sizeof(message));
        ngx_log_error(NGX_LOG_ERR, watch->log, look->error.err,
                      "%*s, what was read before stays in force",
                      p - message, message);
        break;
    }

    watch->stat = look->stat;
    watch->settled = look->settled;
    watch->error = look->error;
}


static ngx_uint_t
ngx_mail_policy_watch_same_error(ngx_mail_policy_watch_error_t *one,
    ngx_mail_policy_watch_error_t *two)
{
    return one->line == two->line
           && one->err == two->err
           && one->len == two->len
           && ngx_memcmp(one->text, two->text, one->len) == 0;
}


static void
ngx_mail_policy_watch_drop_thread(void *data, ngx_log_t *log)
{
    ngx_mail_policy_watch_look_t *look = data;

    ngx_destroy_pool(look->pool);
}


static void
ngx_mail_policy_watch_dropped_handler(ngx_event_t *ev)
{
    ngx_free(ev->data);
}


#else


/* what was read with the configuration stays */

static ngx_int_t
ngx_mail_policy_watch_begin(ngx_mail_policy_watch_t *watch)
{
    return NGX_ERROR;
}


#endif /* NGX_THREADS */


static void
ngx_mail_policy_watch_timeout_handler(ngx_event_t *ev)
{
    ngx_mail_policy_watch_t *watch = ev->data;

    watch->late = 1;

    ngx_mail_policy_watch_tell(watch, 1);
}


/* those that asked a second or more after it was begun need another look */

static void
ngx_mail_policy_watch_tell(ngx_mail_policy_watch_t *watch, ngx_uint_t all)
{
    void                         *data;
    ngx_queue_t                   told, *q, *next;
    ngx_mail_policy_watch_pt      handler;
    ngx_mail_policy_watch_ask_t  *ask;

    ngx_queue_init(&told);

    for (q = ngx_queue_head(&watch->waiting);
         q != ngx_queue_sentinel(&watch->waiting);
         q = next)
    {
        next = ngx_queue_next(q);
        ask = ngx_queue_data(q, ngx_mail_policy_watch_ask_t, queue);

        /* below 0: it was waiting already when this look was begun */

        if (all
            || (ngx_msec_int_t) (ask->asked - watch->looked)
               < NGX_MAIL_POLICY_WATCH_EVERY)
        {
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&told, q);
        }
    }

    if (!ngx_queue_empty(&watch->waiting)
        && ngx_mail_policy_watch_begin(watch) != NGX_OK)
    {
        ngx_queue_add(&told, &watch->waiting);
        ngx_queue_init(&watch->waiting);
    }

    /* a handler may have others of them canceled, and ask again */

    while (!ngx_queue_empty(&told)) {
        q = ngx_queue_head(&told);
        ask = ngx_queue_data(q, ngx_mail_policy_watch_ask_t, queue);

        data = ask->data;
        handler = ask->handler;

        ngx_mail_policy_watch_cancel(ask);

        handler(data, watch->table);
    }
}


/* octets by the million are wiped: that is for a thread, too */

static void
ngx_mail_policy_watch_drop(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_look_t *look, ngx_pool_t *pool)
{
#if (NGX_THREADS)

    look->pool = pool;
    look->task.handler = ngx_mail_policy_watch_drop_thread;
    look->task.event.handler = ngx_mail_policy_watch_dropped_handler;

    if (watch && pool
        && ngx_thread_task_post(watch->thread_pool, &look->task) == NGX_OK)
    {
        return;
    }

#endif

    if (pool) {
        ngx_destroy_pool(pool);
    }

    ngx_free(look);
}


/* threads have ended by now, nginx' own exit comes first */

void
ngx_mail_policy_watch_exit(ngx_mail_policy_watch_t *watch)
{
    ngx_mail_policy_watch_look_t  *look;

    look = watch->look;

    if (look) {
        watch->look = NULL;
        ngx_mail_policy_watch_drop(NULL, look, look->pool);
    }
}


/* with the configuration, in the master and at the end of a worker */

static void
ngx_mail_policy_watch_cleanup(void *data)
{
    ngx_mail_policy_watch_t *watch = data;

    if (watch->look) {
        watch->look->watch = NULL;
    }

    if (watch->timer.timer_set) {
        ngx_del_timer(&watch->timer);
    }

    if (watch->pool) {
        ngx_destroy_pool(watch->pool);
    }
}


static u_char *
ngx_mail_policy_watch_message(ngx_mail_policy_watch_t *watch,
    ngx_mail_policy_watch_error_t *error, u_char *p, u_char *last)
{
    if (error->line) {
        return ngx_slprintf(p, last, "%V:%ui: %*s", &watch->path, error->line,
                            error->len, error->text);
    }

    if (error->err) {
        return ngx_slprintf(p, last, "%*s \"%V\" of \"%s\" failed",
                            error->len, error->text, &watch->path,
                            watch->directive);
    }

    return ngx_slprintf(p, last, "\"%V\" of \"%s\" %*s", &watch->path,
                        watch->directive, error->len, error->text);
}


