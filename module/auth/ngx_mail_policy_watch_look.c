
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A look at a watched file.  No events; nothing is logged.
 *
 * The file is opened anew each time, as its name may be given to another one.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_watch_look.h"


/*
 * Milliseconds: a file that was written to so short a time ago may be half
 * written; it is read when it has been left alone, or at the next look.  A
 * clock of files may be as coarse as the second one: two writes within it
 * look like one.
 */
#define NGX_MAIL_POLICY_WATCH_STILL   100
#define NGX_MAIL_POLICY_WATCH_COARSE  2000

#define NGX_MAIL_POLICY_WATCH_TRIES   10


static ngx_int_t ngx_mail_policy_watch_look_fd(
    ngx_mail_policy_watch_look_t *look, ngx_fd_t fd, ngx_log_t *log);
static ngx_int_t ngx_mail_policy_watch_stat(
    ngx_mail_policy_watch_look_t *look, ngx_fd_t fd,
    ngx_mail_policy_watch_stat_t *stat);
static int64_t ngx_mail_policy_watch_age(struct timespec *time);
static ngx_str_t *ngx_mail_policy_watch_read(
    ngx_mail_policy_watch_look_t *look, ngx_fd_t fd, ngx_log_t *log);
static void ngx_mail_policy_watch_wipe(void *data);
static ngx_int_t ngx_mail_policy_watch_failed(
    ngx_mail_policy_watch_look_t *look, const char *call);


void *
ngx_mail_policy_watch_fail(ngx_mail_policy_watch_error_t *error,
    ngx_uint_t line, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    error->len = ngx_vslprintf(error->text,
                               error->text + NGX_MAIL_POLICY_WATCH_ERROR,
                               fmt, args)
                 - error->text;
    va_end(args);

    error->line = line;
    error->err = 0;

    return NULL;
}


void *
ngx_mail_policy_watch_no_memory(ngx_mail_policy_watch_error_t *error)
{
    (void) ngx_mail_policy_watch_fail(error, 0, "malloc()");
    error->err = NGX_ENOMEM;

    return NULL;
}


void
ngx_mail_policy_watch_look(void *data, ngx_log_t *log)
{
    ngx_mail_policy_watch_look_t *look = data;

    ngx_fd_t  fd;

    /* not to be held up by a FIFO */

    fd = ngx_open_file(look->path, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        look->rc = ngx_mail_policy_watch_failed(look, ngx_open_file_n);

    } else {
        look->rc = ngx_mail_policy_watch_look_fd(look, fd, log);
        (void) ngx_close_file(fd);
    }

    if (look->rc == NGX_OK) {
        look->error.len = 0;
        return;
    }

    /* one that could not be read is looked at again, changed or not */

    if (look->rc == NGX_AGAIN || look->error.err) {
        ngx_memzero(&look->stat, sizeof(ngx_mail_policy_watch_stat_t));
    }

    if (look->pool) {
        ngx_destroy_pool(look->pool);
        look->pool = NULL;
    }
}


static ngx_int_t
ngx_mail_policy_watch_look_fd(ngx_mail_policy_watch_look_t *look, ngx_fd_t fd,
    ngx_log_t *log)
{
    int64_t                        age;
    ngx_str_t                     *text;
    ngx_uint_t                     tries;
    ngx_mail_policy_watch_stat_t   was, now;

    was = look->stat;

    for (tries = 0; tries < NGX_MAIL_POLICY_WATCH_TRIES; tries++) {

        if (ngx_mail_policy_watch_stat(look, fd, &look->stat) != NGX_OK) {
            return NGX_ERROR;
        }

        if (look->settled
            && ngx_mail_policy_watch_look_same(&was, &look->stat))
        {
            return NGX_DECLINED;
        }

        age = ngx_mail_policy_watch_age(&look->stat.mtime);

        if (look->again && age >= 0 && age < NGX_MAIL_POLICY_WATCH_STILL) {
            age = NGX_MAIL_POLICY_WATCH_STILL - age;
            ngx_msleep(age);
            continue;
        }

        age = ngx_mail_policy_watch_age(&look->stat.ctime);
        look->settled = (age < 0 || age >= NGX_MAIL_POLICY_WATCH_COARSE);

        text = ngx_mail_policy_watch_read(look, fd, log);

        if (text == NULL
            || ngx_mail_policy_watch_stat(look, fd, &now) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (ngx_mail_policy_watch_look_same(&look->stat, &now)) {
            look->table = look->parse(look->pool, text, look->data,
                                      &look->error);
            return look->table ? NGX_OK : NGX_ERROR;
        }

        ngx_destroy_pool(look->pool);
        look->pool = NULL;
        look->settled = 0;
    }

    (void) ngx_mail_policy_watch_fail(&look->error, 0,
                                      "is being written to all the time");

    return NGX_AGAIN;
}


static ngx_int_t
ngx_mail_policy_watch_stat(ngx_mail_policy_watch_look_t *look, ngx_fd_t fd,
    ngx_mail_policy_watch_stat_t *stat)
{
    ngx_file_info_t  fi;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        return ngx_mail_policy_watch_failed(look, ngx_fd_info_n);
    }

    stat->device = fi.st_dev;
    stat->inode = fi.st_ino;
    stat->size = ngx_file_size(&fi);
    stat->mtime = fi.st_mtim;
    stat->ctime = fi.st_ctim;

    if (!ngx_is_file(&fi)) {
        (void) ngx_mail_policy_watch_fail(&look->error, 0,
                                          "is not a regular file");
        return NGX_ERROR;
    }

    if (stat->size > NGX_MAIL_POLICY_WATCH_MAX) {
        (void) ngx_mail_policy_watch_fail(&look->error, 0,
                                          "is larger than %i megabytes",
                                          (ngx_int_t)
                                          NGX_MAIL_POLICY_WATCH_MAX >> 20);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_mail_policy_watch_look_same(ngx_mail_policy_watch_stat_t *one,
    ngx_mail_policy_watch_stat_t *two)
{
    return one->device == two->device
           && one->inode == two->inode
           && one->size == two->size
           && one->mtime.tv_sec == two->mtime.tv_sec
           && one->mtime.tv_nsec == two->mtime.tv_nsec
           && one->ctime.tv_sec == two->ctime.tv_sec
           && one->ctime.tv_nsec == two->ctime.tv_nsec;
}


/* milliseconds; below 0: in the future, as another machine's clock says */

static int64_t
ngx_mail_policy_watch_age(struct timespec *time)
{
    struct timespec  now;

    (void) clock_gettime(CLOCK_REALTIME, &now);

    return ((int64_t) now.tv_sec - time->tv_sec) * 1000
           + (now.tv_nsec - time->tv_nsec) / 1000000;
}


/* the text, on a pool that wipes it; NULL: an error was said */

static ngx_str_t *
ngx_mail_policy_watch_read(ngx_mail_policy_watch_look_t *look, ngx_fd_t fd,
    ngx_log_t *log)
{
    size_t               size;
    ssize_t              n;
    ngx_str_t           *text;
    ngx_pool_cleanup_t  *cln;

    size = (size_t) look->stat.size;

    look->pool = ngx_create_pool(4096, log);
    if (look->pool == NULL) {
        return ngx_mail_policy_watch_no_memory(&look->error);
    }

    text = ngx_pcalloc(look->pool, sizeof(ngx_str_t));
    cln = ngx_pool_cleanup_add(look->pool, 0);

    if (text == NULL || cln == NULL) {
        return ngx_mail_policy_watch_no_memory(&look->error);
    }

    text->data = ngx_pnalloc(look->pool, size + 1);
    if (text->data == NULL) {
        return ngx_mail_policy_watch_no_memory(&look->error);
    }

    cln->handler = ngx_mail_policy_watch_wipe;
    cln->data = text;

    while (text->len < size) {
        n = pread(fd, text->data + text->len, size - text->len, text->len);

        if (n == -1) {
            (void) ngx_mail_policy_watch_failed(look, "pread()");
            return NULL;
        }

        /* that it has become shorter is seen by its size */

        if (n == 0) {
            break;
        }

        text->len += n;
    }

    return text;
}


static void
ngx_mail_policy_watch_wipe(void *data)
{
    ngx_str_t *text = data;

    ngx_explicit_memzero(text->data, text->len);
}


static ngx_int_t
ngx_mail_policy_watch_failed(ngx_mail_policy_watch_look_t *look,
    const char *call)
{
    ngx_err_t  err;

    err = ngx_errno;

    (void) ngx_mail_policy_watch_fail(&look->error, 0, "%s", call);
    look->error.err = err;

    return NGX_ERROR;
}
