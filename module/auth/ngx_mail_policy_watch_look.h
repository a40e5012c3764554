
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A look at a watched file: what a thread does.  Until it has ended it is the
 * thread's.
 */


#ifndef NGX_MAIL_POLICY_WATCH_LOOK_H
#define NGX_MAIL_POLICY_WATCH_LOOK_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_thread_pool.h>

#include "ngx_mail_policy_watch.h"


/* all zero: of no file */
typedef struct {
    dev_t                            device;
    ino_t                            inode;
    off_t                            size;
    struct timespec                  mtime;
    struct timespec                  ctime;
} ngx_mail_policy_watch_stat_t;


typedef struct {
    ngx_thread_task_t                task;

    ngx_mail_policy_watch_t         *watch;     /* the event loop's */

    /* given */
    u_char                          *path;
    ngx_mail_policy_watch_parse_pt   parse;
    void                            *data;
    ngx_uint_t                       again;     /* it has been read before */

    /* given: what was seen last; found: what is there now */
    ngx_mail_policy_watch_stat_t     stat;
    ngx_uint_t                       settled;

    /*
     * found: NGX_OK a table; NGX_DECLINED no change; NGX_AGAIN somebody is
     * writing to it; NGX_ERROR an error
     */
    ngx_int_t                        rc;
    ngx_pool_t                      *pool;
    void                            *table;
    ngx_mail_policy_watch_error_t    error;
} ngx_mail_policy_watch_look_t;


/* data: the look.  log is for what nginx' pools say of memory. */
void ngx_mail_policy_watch_look(void *data, ngx_log_t *log);

ngx_uint_t ngx_mail_policy_watch_look_same(ngx_mail_policy_watch_stat_t *one,
    ngx_mail_policy_watch_stat_t *two);


#endif /* NGX_MAIL_POLICY_WATCH_LOOK_H */
