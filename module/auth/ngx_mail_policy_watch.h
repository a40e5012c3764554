
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A file that is read with the configuration, and again once it has changed:
 * users, keys.  What is made of it is called a table.
 *
 *     find -> table, at once
 *        \-> (a look at the file is due or under way) wait -> handler
 *                                                         \-> cancel
 *
 * Nothing happens by itself: whoever asks a second or more after the last
 * look has another one made, in nginx's thread pool, and waits for it as all
 * do that ask meanwhile.  So one that asks more than a second after a change
 * is told what the file has now.  A file that is away or wrong is said once,
 * and the old table stays.
 *
 * A table may be gone as soon as who asked for it returns: what is needed
 * longer is to be copied.
 */


#ifndef NGX_MAIL_POLICY_WATCH_H
#define NGX_MAIL_POLICY_WATCH_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* octets of a file, at most */
#define NGX_MAIL_POLICY_WATCH_MAX    (64 * 1024 * 1024)

#define NGX_MAIL_POLICY_WATCH_ERROR  512


typedef struct ngx_mail_policy_watch_s      ngx_mail_policy_watch_t;
typedef struct ngx_mail_policy_watch_ask_s  ngx_mail_policy_watch_ask_t;


/*
 * What is wrong with a file.  It goes to a log: nothing of what stands in the
 * file may be in it.
 */
typedef struct {
    ngx_uint_t    line;     /* from 1; 0: the text goes behind the file's
                               name, as in "has no keys" */
    ngx_err_t     err;
    size_t        len;
    u_char        text[NGX_MAIL_POLICY_WATCH_ERROR];
} ngx_mail_policy_watch_error_t;


/*
 * Makes a table.  It runs in a thread, and must not touch anything but what
 * it is given: no log, no ngx_cycle, no cached time.  The text, which may be
 * written to, and the pool last as long as the table; then the text is wiped,
 * after the pool's cleanup handlers.  NULL: an error was said.
 */
typedef void *(*ngx_mail_policy_watch_parse_pt)(ngx_pool_t *pool,
    ngx_str_t *text, void *data, ngx_mail_policy_watch_error_t *error);

/* table: the new one, or the old one if there is no new one */
typedef void (*ngx_mail_policy_watch_pt)(void *data, void *table);


/*
 * For parse: says an error, and gives NULL.  After "no memory" it is tried
 * again, otherwise once the file has changed.
 */
void *ngx_mail_policy_watch_fail(ngx_mail_policy_watch_error_t *error,
    ngx_uint_t line, const char *fmt, ...);
void *ngx_mail_policy_watch_no_memory(ngx_mail_policy_watch_error_t *error);


/*
 * Reads the file; directive is for messages.  data goes to parse, and is not
 * to be changed any more.  NULL: logged.
 */
ngx_mail_policy_watch_t *ngx_mail_policy_watch_add(ngx_conf_t *cf,
    ngx_str_t *path, const char *directive,
    ngx_mail_policy_watch_parse_pt parse, void *data);

/* the table, if it is known to be good; NULL: wait for one */
void *ngx_mail_policy_watch_find(ngx_mail_policy_watch_t *watch);

/* the table there is, however old */
void *ngx_mail_policy_watch_table(ngx_mail_policy_watch_t *watch);

/*
 * After find() gave NULL.  The handler is called once, from the event loop,
 * never from within wait(), and not after cancel().  NULL: no memory.
 */
ngx_mail_policy_watch_ask_t *ngx_mail_policy_watch_wait(
    ngx_mail_policy_watch_t *watch, ngx_mail_policy_watch_pt handler,
    void *data);
void ngx_mail_policy_watch_cancel(ngx_mail_policy_watch_ask_t *ask);

/* the worker exits */
void ngx_mail_policy_watch_exit(ngx_mail_policy_watch_t *watch);


#endif /* NGX_MAIL_POLICY_WATCH_H */
