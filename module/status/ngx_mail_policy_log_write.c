
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Where the lines of the access log go.
 *
 *     line -> (buffer ->) file
 *          -> syslog
 *
 * A buffer belongs to a file, whichever logs write to it.  It is written out
 * when the next line does not fit, by its timer, where nginx opens its files
 * anew (USR1), and when the worker ends; in a worker that is shutting down
 * with every line, as that may take hours.
 *
 * The one event that arrives here is a buffer's timer.  It does not keep a
 * worker that shuts down.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_log_write.h"


/* what a UDP datagram can carry */
#define NGX_MAIL_POLICY_LOG_DATAGRAM  65507

/* "<255>Jan 01 00:00:00 host tag: ", with a tag of 32 characters at most */
#define NGX_MAIL_POLICY_LOG_HEADER    (NGX_MAXHOSTNAMELEN + 64)


/*
 * It begins like the buffers of nginx's own modules, which take what they find
 * in a file for one of theirs: so both may log to it.
 */
typedef struct {
    u_char                       *start;
    u_char                       *pos;
    u_char                       *last;
    ngx_event_t                  *event;    /* NULL: no "flush=" */
    ngx_msec_t                    flush;
    ngx_int_t                     gzip;     /* 0 */

    ngx_mail_policy_log_fault_t   fault;
} ngx_mail_policy_log_buffer_t;


static ngx_open_file_t *ngx_mail_policy_log_file(
    ngx_mail_policy_access_log_t *log);
static ngx_int_t ngx_mail_policy_log_buffered(ngx_open_file_t *file,
    ngx_str_t *line, ngx_log_t *errlog);
static void ngx_mail_policy_log_flush(ngx_open_file_t *file, ngx_log_t *log);
static void ngx_mail_policy_log_flush_handler(ngx_event_t *ev);
static void ngx_mail_policy_log_put(ngx_open_file_t *file,
    ngx_mail_policy_log_fault_t *fault, u_char *data, size_t len,
    ngx_log_t *log);
static void ngx_mail_policy_log_put_failed(ngx_open_file_t *file,
    ngx_mail_policy_log_fault_t *fault, u_char *data, size_t len, ssize_t n,
    ngx_log_t *log);
static void ngx_mail_policy_log_syslog(ngx_mail_policy_access_log_t *log,
    ngx_str_t *line, ngx_log_t *errlog);
static ngx_int_t ngx_mail_policy_log_send(ngx_syslog_peer_t *peer,
    struct iovec *iov);
static ngx_int_t ngx_mail_policy_log_connect(ngx_syslog_peer_t *peer);
static void ngx_mail_policy_log_close(ngx_syslog_peer_t *peer);
static ngx_uint_t ngx_mail_policy_log_say(ngx_mail_policy_log_fault_t *fault,
    ngx_uint_t lost);


void
ngx_mail_policy_log_write(ngx_mail_policy_access_log_t *log, ngx_str_t *line,
    ngx_log_t *errlog)
{
    ngx_open_file_t  *file;

    if (log->syslog) {
        ngx_mail_policy_log_syslog(log, line, errlog);
        return;
    }

    file = ngx_mail_policy_log_file(log);

    if (file == NULL) {
        if (ngx_mail_policy_log_say(&log->fault, 1)) {
            ngx_log_error(NGX_LOG_CRIT, errlog, 0,
                          "the access log \"%V\" is closed", &log->file->name);
        }

        return;
    }

    if (ngx_mail_policy_log_buffered(file, line, errlog) == NGX_OK) {
        return;
    }

    /* a full disk may be slow to say so: it is asked once a second */

    if (log->fault.full == ngx_time()) {
        (void) ngx_mail_policy_log_say(&log->fault, 1);
        return;
    }

    ngx_mail_policy_log_put(file, &log->fault, line->data, line->len, errlog);
}


/*
 * Without a master process a session may be older than the configuration.
 * Its files are closed then, and their numbers those of others: the one of
 * the same name is taken.  NULL: there is none.
 */

static ngx_open_file_t *
ngx_mail_policy_log_file(ngx_mail_policy_access_log_t *log)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_open_file_t  *file;

    if (ngx_process != NGX_PROCESS_SINGLE || log->cycle == ngx_cycle) {
        return log->file;
    }

    for (part = (ngx_list_part_t *) &ngx_cycle->open_files.part;
         part;
         part = part->next)
    {
        file = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (file[i].name.len == log->file->name.len
                && ngx_strncmp(file[i].name.data, log->file->name.data,
                               file[i].name.len)
                   == 0)
            {
                return &file[i];
            }
        }
    }

    return NULL;
}


/* NGX_DECLINED: there is no buffer, or the line is too long for it */

static ngx_int_t
ngx_mail_policy_log_buffered(ngx_open_file_t *file, ngx_str_t *line,
    ngx_log_t *errlog)
{
    ngx_mail_policy_log_buffer_t  *buffer;

    if (file->flush != ngx_mail_policy_log_flush) {
        return NGX_DECLINED;
    }

    buffer = file->data;

    if (line->len > (size_t) (buffer->last - buffer->pos)) {
        ngx_mail_policy_log_flush(file, errlog);
    }

    if (line->len > (size_t) (buffer->last - buffer->pos)) {
        return NGX_DECLINED;
    }

    buffer->pos = ngx_cpymem(buffer->pos, line->data, line->len);

    if (ngx_exiting) {
        ngx_mail_policy_log_flush(file, errlog);

    } else if (buffer->event && !buffer->event->timer_set) {
        ngx_add_timer(buffer->event, buffer->flush);
    }

    return NGX_OK;
}


static void
ngx_mail_policy_log_flush(ngx_open_file_t *file, ngx_log_t *log)
{
    ngx_mail_policy_log_buffer_t  *buffer;

    buffer = file->data;

    if (buffer->pos != buffer->start) {
        ngx_mail_policy_log_put(file, &buffer->fault, buffer->start,
                                buffer->pos - buffer->start, log);
        buffer->pos = buffer->start;
    }

    if (buffer->event && buffer->event->timer_set) {
        ngx_del_timer(buffer->event);
    }
}


static void
ngx_mail_policy_log_flush_handler(ngx_event_t *ev)
{
    ngx_mail_policy_log_flush(ev->data, ev->log);
}


void
ngx_mail_policy_log_flush_all(ngx_cycle_t *cycle)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_open_file_t  *file;

    for (part = &cycle->open_files.part; part; part = part->next) {
        file = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (file[i].flush == ngx_mail_policy_log_flush) {
                ngx_mail_policy_log_flush(&file[i], cycle->log);
            }
        }
    }
}


ngx_int_t
ngx_mail_policy_log_buffer(ngx_conf_t *cf, ngx_open_file_t *file, size_t size,
    ngx_msec_t flush)
{
    ngx_mail_policy_log_buffer_t  *buffer;

    if (file->data && file->flush != ngx_mail_policy_log_flush) {
        return NGX_BUSY;
    }

    if (file->data) {
        buffer = file->data;

        return (size_t) (buffer->last - buffer->start) == size
               && buffer->flush == flush
               ? NGX_OK : NGX_DECLINED;
    }

    buffer = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_log_buffer_t));
    if (buffer == NULL) {
        return NGX_ERROR;
    }

    buffer->start = ngx_pnalloc(cf->pool, size);
    if (buffer->start == NULL) {
        return NGX_ERROR;
    }

    buffer->pos = buffer->start;
    buffer->last = buffer->start + size;
    buffer->flush = flush;

    if (flush) {
        buffer->event = ngx_pcalloc(cf->pool, sizeof(ngx_event_t));
        if (buffer->event == NULL) {
            return NGX_ERROR;
        }

        buffer->event->data = file;
        buffer->event->handler = ngx_mail_policy_log_flush_handler;
        buffer->event->log = &cf->cycle->new_log;
        buffer->event->cancelable = 1;
    }

    file->flush = ngx_mail_policy_log_flush;
    file->data = buffer;

    return NGX_OK;
}


static void
ngx_mail_policy_log_put(ngx_open_file_t *file,
    ngx_mail_policy_log_fault_t *fault, u_char *data, size_t len,
    ngx_log_t *log)
{
    ssize_t  n;

    /* so that a line is not joined to what is left of another one */

    if (fault->torn && fault->torn == file->fd) {
        (void) ngx_write_fd(file->fd, "\n", 1);
    }

    n = ngx_write_fd(file->fd, data, len);

    if (n > 0) {
        fault->torn = (data[n - 1] == LF) ? 0 : file->fd;
    }

    if (n != (ssize_t) len) {
        ngx_mail_policy_log_put_failed(file, fault, data, len, n, log);
    }
}


static void
ngx_mail_policy_log_put_failed(ngx_open_file_t *file,
    ngx_mail_policy_log_fault_t *fault, u_char *data, size_t len, ssize_t n,
    ngx_log_t *log)
{
    u_char      *p;
    ngx_err_t    err;
    ngx_uint_t   lost;

    err = (n == -1) ? ngx_errno : 0;

    if (err == NGX_ENOSPC) {
        fault->full = ngx_time();
    }

    lost = 0;
    p = (n > 0) ? data + n : data;

    while (p < data + len) {
        lost += (*p++ == LF);
    }

    if (!ngx_mail_policy_log_say(fault, lost)) {
        return;
    }

    if (n == -1) {
        ngx_log_error(NGX_LOG_CRIT, log, err,
                      ngx_write_fd_n " to \"%V\" failed", &file->name);
        return;
    }

    ngx_log_error(NGX_LOG_CRIT, log, 0,
                  ngx_write_fd_n " to \"%V\" was incomplete: %z of %uz",
                  &file->name, n, len);
}


static void
ngx_mail_policy_log_syslog(ngx_mail_policy_access_log_t *log, ngx_str_t *line,
    ngx_log_t *errlog)
{
    u_char              head[NGX_MAIL_POLICY_LOG_HEADER];
    ngx_int_t           rc;
    ngx_err_t           err;
    struct iovec        iov[2];
    ngx_syslog_peer_t  *peer;

    peer = log->syslog;

    iov[0].iov_base = head;
    iov[0].iov_len = ngx_syslog_add_header(peer, head) - head;

    iov[1].iov_base = line->data;
    iov[1].iov_len = ngx_min(line->len - NGX_LINEFEED_SIZE,
                         NGX_MAIL_POLICY_LOG_DATAGRAM - iov[0].iov_len);

    rc = ngx_mail_policy_log_send(peer, iov);

    if (rc == NGX_OK) {
        return;
    }

    err = ngx_socket_errno;

    /*
     * A server that was started again is found by a new socket.  Over UDP the
     * error tells of a line before, which is lost whatever comes of this one.
     */

    if (rc == NGX_ERROR && ngx_mail_policy_log_send(peer, iov) == NGX_OK
        && peer->server.sockaddr->sa_family == AF_UNIX)
    {
        return;
    }

    if (ngx_mail_policy_log_say(&log->fault, 1)) {
        ngx_log_error(NGX_LOG_ERR, errlog, err,
                      "a line of the access log is lost, syslog server \"%V\"",
                      &peer->server.name);
    }
}


/*
 * As ngx_syslog_send(), which would tell the error log of each line that it
 * cannot send.  NGX_ERROR: a new socket may help; NGX_AGAIN: it would not.
 */

static ngx_int_t
ngx_mail_policy_log_send(ngx_syslog_peer_t *peer, struct iovec *iov)
{
    ssize_t        n;
    struct msghdr  msg;

    if (peer->conn.fd == (ngx_socket_t) -1
        && ngx_mail_policy_log_connect(peer) != NGX_OK)
    {
        return NGX_AGAIN;
    }

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_iov = iov;
    msg.msg_iovlen = 2;

    do {
        n = sendmsg(peer->conn.fd, &msg, 0);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    if (n != -1) {
        return NGX_OK;
    }

    if (ngx_socket_errno == NGX_EAGAIN) {
        return NGX_AGAIN;
    }

    ngx_mail_policy_log_close(peer);

    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_log_connect(ngx_syslog_peer_t *peer)
{
    ngx_socket_t  fd;

    fd = ngx_socket(peer->server.sockaddr->sa_family, SOCK_DGRAM, 0);

    if (fd == (ngx_socket_t) -1) {
        return NGX_ERROR;
    }

    /* with its cycle nginx closes it */

    peer->conn.fd = fd;

    if (ngx_nonblocking(fd) == -1
        || connect(fd, peer->server.sockaddr, peer->server.socklen) == -1)
    {
        ngx_mail_policy_log_close(peer);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* what went wrong before is what is told */

static void
ngx_mail_policy_log_close(ngx_syslog_peer_t *peer)
{
    ngx_err_t  err;

    err = ngx_socket_errno;

    (void) ngx_close_socket(peer->conn.fd);
    peer->conn.fd = (ngx_socket_t) -1;

    ngx_set_socket_errno(err);
}


void
ngx_mail_policy_log_no_memory(ngx_mail_policy_access_log_t *log,
    ngx_log_t *errlog)
{
    if (ngx_mail_policy_log_say(&log->fault, 1)) {
        ngx_log_error(NGX_LOG_ALERT, errlog, 0,
                      "no memory for a line of the access log");
    }
}


/* counts what is lost; 1: it is to be said */

static ngx_uint_t
ngx_mail_policy_log_say(ngx_mail_policy_log_fault_t *fault, ngx_uint_t lost)
{
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_LOG_LOST, lost);

    if (ngx_time() - fault->said < 60) {
        return 0;
    }

    fault->said = ngx_time();

    return 1;
}
