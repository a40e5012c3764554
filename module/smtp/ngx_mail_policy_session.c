
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A session's life, from its take-over (..._smtp.c) to its end.
 *
 *   take-over -> COMMAND <-> AUTH                    334 and its response
 *                COMMAND <-> NOTHING                 an answer is awaited
 *                COMMAND <-> BODY                    354 to the final dot
 *                COMMAND <-> CHUNK                   the octets of BDAT
 *                COMMAND  -> handshake -> init_protocol -> COMMAND
 *
 * Events: client readable, writable, its timer (on the read event: what the
 * client owes us; on the write event: what it does not take).  Answers of
 * store, relay and auth come to the commands' files, which call
 * session_resume(); that posts the read event.
 *
 * finalize() is the only way out; the pool's clean-up calls the first half
 * of it for the stock paths that close a connection themselves.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_session.h"


/* nginx-dev lacks NGX_MAIL_SSL, so ngx_mail.h hides it */
void ngx_mail_starttls_handler(ngx_event_t *rev);


static void ngx_mail_policy_session_process(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_session_line(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_session_command(ngx_mail_policy_session_t *s,
    mpol_str_t *line, ngx_uint_t more, ngx_uint_t *wait);
static ngx_int_t ngx_mail_policy_session_fault(ngx_mail_policy_session_t *s,
    ngx_int_t fault, mpol_str_t *line);
static ngx_uint_t ngx_mail_policy_session_bdat(u_char *p, size_t len);
static size_t ngx_mail_policy_session_line_max(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_session_wait(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_session_timedout(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_session_release(ngx_mail_policy_session_t *s);


void
ngx_mail_policy_session_read_handler(ngx_event_t *rev)
{
    ngx_connection_t           *c;
    ngx_mail_session_t         *ms;
    ngx_mail_policy_session_t  *s;

    c = rev->data;
    ms = c->data;
    s = ngx_mail_get_module_ctx(ms, ngx_mail_policy_module);

    if (c->close) {

        if (c->error) {
            /* worker_shutdown_timeout */
            ngx_mail_policy_session_finalize(s);
            return;
        }

        c->idle = 0;

        if (!s->shutdown) {

            /*
             * Not from here, outside of the event loop: a worker whose last
             * timer is gone exits, whatever is posted (421 to the client,
             * QUIT to the relay, charges to be given back).
             */

            s->shutdown = 1;
            ngx_post_event(rev, &ngx_posted_next_events);
            return;
        }

        c->close = 0;

        ngx_mail_policy_session_close(s, "421 4.3.2 Service shutting down");
        return;
    }

    if (rev->timedout) {
        ngx_mail_policy_session_timedout(s);
        return;
    }

    ngx_mail_policy_session_process(s);
}


void
ngx_mail_policy_session_write_handler(ngx_event_t *wev)
{
    ngx_connection_t           *c;
    ngx_mail_session_t         *ms;
    ngx_mail_policy_session_t  *s;

    c = wev->data;
    ms = c->data;
    s = ngx_mail_get_module_ctx(ms, ngx_mail_policy_module);

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
        c->timedout = 1;
        ngx_mail_policy_session_finalize(s);
        return;
    }

    switch (ngx_mail_policy_output_flush(s)) {

    case NGX_ERROR:
        ngx_mail_policy_session_finalize(s);
        return;

    case NGX_AGAIN:
        return;
    }

    if (s->closing) {
        ngx_mail_policy_session_finalize(s);
        return;
    }

    if (s->starttls) {

        /* the 220 is out: from here on TLS, or nothing */

        if (c->read->posted) {
            ngx_delete_posted_event(c->read);
        }

        c->log->action = "in starttls state";
        ngx_mail_starttls_handler(c->read);
        return;
    }

    if (s->paused) {
        s->paused = 0;
        ngx_mail_policy_session_resume(s);
    }
}


void
ngx_mail_policy_session_resume(ngx_mail_policy_session_t *s)
{
    ngx_post_event(s->connection->read, &ngx_posted_events);
}


/* goes on with what is there, until something has to be waited for */

static void
ngx_mail_policy_session_process(ngx_mail_policy_session_t *s)
{
    ngx_int_t  rc;

    do {
        if (s->closing || s->starttls) {
            break;
        }

        if (s->out_last - s->out_pos > NGX_MAIL_POLICY_OUTPUT) {

            /* a client that does not read is not read from */

            s->paused = 1;
            break;
        }

        switch (s->reading) {

        case NGX_MAIL_POLICY_READ_COMMAND:
        case NGX_MAIL_POLICY_READ_AUTH:
            rc = ngx_mail_policy_session_line(s);
            break;

        case NGX_MAIL_POLICY_READ_BODY:
            rc = ngx_mail_policy_data_read(s);
            break;

        case NGX_MAIL_POLICY_READ_CHUNK:
            rc = ngx_mail_policy_chunk_read(s);
            break;

        default:
            rc = ngx_mail_policy_asking_wait(s);
        }

        if (rc == NGX_DONE) {
            return;
        }

    } while (rc == NGX_OK);

    ngx_mail_policy_session_wait(s);
}


/* NGX_OK: a line was dealt with, or more has come; NGX_AGAIN; NGX_DONE */

static ngx_int_t
ngx_mail_policy_session_line(ngx_mail_policy_session_t *s)
{
    int          rc;
    size_t       consumed, max;
    ngx_int_t    n;
    ngx_uint_t   wait;
    mpol_str_t   str;
    mpol_line_t  line;

    max = ngx_mail_policy_session_line_max(s);
    line = s->line;

    rc = mpol_line_next(&line, s->in + s->in_pos, s->in_last - s->in_pos, max,
                        &consumed, &str);

    if (rc == MPOL_AGAIN) {

        /* too long already; its beginning is not seen again */

        if (consumed && s->line.dropped == 0
            && s->reading == NGX_MAIL_POLICY_READ_COMMAND
            && ngx_mail_policy_session_bdat(s->in + s->in_pos, consumed))
        {
            ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_DATA,
                                           "501 5.5.2 Bad BDAT command");
            return NGX_OK;
        }

        s->line = line;
        s->in_pos += consumed;

        if (line.dropped > NGX_MAIL_POLICY_DROPPED) {
            ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
                                           "421 4.7.0 Line too long");
            return NGX_DONE;
        }

        return ngx_mail_policy_session_recv(s, max);
    }

    if (rc == MPOL_OK && s->reading == NGX_MAIL_POLICY_READ_COMMAND) {
        wait = 0;
        n = ngx_mail_policy_session_command(s, &str,
                                     s->in_pos + consumed < s->in_last, &wait);

        if (wait) {

            /* not yet: it is read again when the replies due are out */

            return NGX_AGAIN;
        }

    } else if (!ngx_queue_empty(&s->dues)) {
        return NGX_AGAIN;

    } else if (rc == MPOL_OK) {
        n = ngx_mail_policy_auth_response(s, (u_char *) str.data, str.len);

    } else {
        n = ngx_mail_policy_session_fault(s, rc, &str);
    }

    if (n == NGX_DONE) {
        return NGX_DONE;
    }

    s->line = line;
    s->in_pos += consumed;

    ngx_mail_policy_session_waited(s);

    return n;
}


/* more: the client has sent something behind this line already */

static ngx_int_t
ngx_mail_policy_session_command(ngx_mail_policy_session_t *s,
    mpol_str_t *line, ngx_uint_t more, ngx_uint_t *wait)
{
    ngx_int_t                   rc;
    mpol_command_t              cmd;
    ngx_mail_policy_command_t  *command;

    mpol_command_parse(line->data, line->len, &cmd);

    for (command = ngx_mail_policy_commands;
         command->verb != MPOL_CMD_UNKNOWN && command->verb != cmd.verb;
         command++)
    {
        /* void */
    }

    if ((!command->pipelined && !ngx_queue_empty(&s->dues))
        || s->ndues >= NGX_MAIL_POLICY_DUES)
    {
        *wait = 1;
        return NGX_AGAIN;
    }

    s->connection->idle = 0;
    s->at = command->at;

    if (command->last && more) {
        ngx_mail_policy_session_unsynchronized(s);
        return NGX_OK;
    }

    if (command->junk) {
        ngx_mail_policy_session_junk(s);

        if (s->closing) {
            ngx_mail_policy_session_refused(s, "421 4.7.0 Too many errors");
            return NGX_OK;
        }
    }

    if (!command->clear && !ngx_mail_policy_session_clear(s)) {
        ngx_mail_policy_session_error(s,
                            "530 5.7.0 Must issue a STARTTLS command first");
        return NGX_OK;
    }

    rc = command->check ? command->check(s, &cmd) : NGX_OK;

    if (rc == NGX_DECLINED) {
        return NGX_OK;
    }

    return command->proceed(s, &cmd);
}


ngx_uint_t
ngx_mail_policy_session_clear(ngx_mail_policy_session_t *s)
{
    ngx_mail_ssl_conf_t  *sslcf;

    sslcf = ngx_mail_get_module_srv_conf(s->mail, ngx_mail_ssl_module);

    return ngx_mail_policy_session_tls(s)
           || sslcf->starttls != NGX_MAIL_STARTTLS_ONLY;
}


/*
 * SMUG-10, RFC 2920, section 3.1: a client that does not wait where it has to
 * is blind to replies, or somebody else's octets are in its stream.
 */

void
ngx_mail_policy_session_unsynchronized(ngx_mail_policy_session_t *s)
{
    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "client sent input before it had a reply");

    ngx_mail_policy_session_refuse(s, s->at,
                       "554 5.5.0 Protocol error: input before the reply");
}


static ngx_int_t
ngx_mail_policy_session_fault(ngx_mail_policy_session_t *s, ngx_int_t fault,
    mpol_str_t *line)
{
    const char  *reply;

    s->connection->idle = 0;

    /* EXT-4: the octets behind it would become commands */

    if (ngx_mail_policy_session_bdat((u_char *) line->data, line->len)) {
        ngx_mail_policy_session_refuse(s, NGX_MAIL_POLICY_AT_COMMAND_DATA,
                                       "501 5.5.2 Bad BDAT command");
        return NGX_OK;
    }

    switch (fault) {

    case MPOL_LINE_BARE_LF:
        reply = "500 5.5.2 Lines must end in <CR><LF>";
        break;

    case MPOL_LINE_CONTROL:
        reply = "501 5.5.2 Control characters not allowed";
        break;

    default:
        reply = "500 5.5.2 Line too long";
    }

    s->at = NGX_MAIL_POLICY_AT_COMMAND_OTHER;

    if (s->reading == NGX_MAIL_POLICY_READ_AUTH) {
        ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_FAILURE, reply,
                                  NULL);
        ngx_mail_policy_auth_abort(s);

        s->at = NGX_MAIL_POLICY_AT_COMMAND_AUTH;
        s->reading = NGX_MAIL_POLICY_READ_COMMAND;
    }

    ngx_mail_policy_session_error(s, reply);

    return NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_session_bdat(u_char *p, size_t len)
{
    return len >= 4 && ngx_strncasecmp(p, (u_char *) "BDAT", 4) == 0;
}


static size_t
ngx_mail_policy_session_line_max(ngx_mail_policy_session_t *s)
{
    if (s->reading == NGX_MAIL_POLICY_READ_AUTH
        || (s->in_last - s->in_pos >= 5
            && ngx_strncasecmp(s->in + s->in_pos, (u_char *) "AUTH ", 5) == 0))
    {
        return NGX_MAIL_POLICY_AUTH_LINE;
    }

    return NGX_MAIL_POLICY_LINE;
}


/* what is awaited now, and for how long */

static void
ngx_mail_policy_session_wait(ngx_mail_policy_session_t *s)
{
    ngx_uint_t         body, chunks, owed;
    ngx_connection_t  *c;

    c = s->connection;

    /* between them it is the message, too, that is waited for */

    chunks = (s->transaction && s->transaction->bdat);

    body = (s->reading == NGX_MAIL_POLICY_READ_BODY
            || s->reading == NGX_MAIL_POLICY_READ_CHUNK);

    owed = !s->closing && !s->starttls && ngx_queue_empty(&s->dues)
           && s->reading != NGX_MAIL_POLICY_READ_NOTHING
           && !s->paused
           && !(s->transaction && (s->transaction->ready
                                   || s->transaction->wire_last));

    if (owed && s->reading == NGX_MAIL_POLICY_READ_COMMAND && !chunks) {

        if (ngx_exiting) {
            ngx_mail_policy_session_close(s,
                                          "421 4.3.2 Service shutting down");
            return;
        }

        c->idle = 1;
        c->log->action = "waiting for a command";

    } else {
        c->idle = 0;
    }

    if (s->in_pos == s->in_last) {

        /* a client that is waited for holds no buffer, and no password */

        ngx_mail_policy_session_input_free(s, !body);
    }

    /*
     * A worker that shuts down waits for timers only; relay, store and limits
     * have theirs, the thread that hashes a password has none.
     */

    if (!owed && (s->auth == NULL || !s->auth_checked || s->asking)) {
        if (c->read->timer_set) {
            ngx_del_timer(c->read);
        }

    } else if (!c->read->timer_set) {
        s->waiting_since = ngx_current_msec;
        ngx_add_timer(c->read, (body || chunks) ? (ngx_msec_t) s->pace.left
                                                : s->core->timeout);
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_mail_policy_session_finalize(s);
    }
}


/* what was waited for has come, or a part of it */

void
ngx_mail_policy_session_waited(ngx_mail_policy_session_t *s)
{
    ngx_event_t  *rev;

    rev = s->connection->read;

    if (rev->timer_set) {
        mpol_pace_spent(&s->pace, ngx_current_msec - s->waiting_since);
        ngx_del_timer(rev);
    }
}


static void
ngx_mail_policy_session_timedout(ngx_mail_policy_session_t *s)
{
    ngx_connection_t  *c;

    c = s->connection;

    if (s->reading == NGX_MAIL_POLICY_READ_NOTHING
        && s->auth && ngx_mail_policy_auth_waits(s->auth))
    {
        /* it is not the client that is slow */

        c->read->timedout = 0;
        ngx_mail_policy_session_wait(s);
        return;
    }

    ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "client timed out");
    c->timedout = 1;

    if (s->closing || s->reading == NGX_MAIL_POLICY_READ_BODY
        || s->reading == NGX_MAIL_POLICY_READ_CHUNK)
    {
        ngx_mail_policy_session_finalize(s);
        return;
    }

    ngx_mail_policy_session_close(s, "421 4.4.2 Timeout, closing connection");
}


void
ngx_mail_policy_session_error(ngx_mail_policy_session_t *s, const char *reply)
{
    ngx_mail_policy_session_refused(s, reply);
    ngx_mail_policy_reply(s, "%s", reply);
    ngx_mail_policy_session_count_error(s);
}


void
ngx_mail_policy_session_count_error(ngx_mail_policy_session_t *s)
{
    if (++s->errors >= s->core->max_errors) {
        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "client made too many errors");

        ngx_mail_policy_account_errors(&s->account, s->at);
        ngx_mail_policy_session_close(s, "421 4.7.0 Too many errors");
    }
}


void
ngx_mail_policy_session_junk(ngx_mail_policy_session_t *s)
{
    if (++s->junk > NGX_MAIL_POLICY_JUNK) {
        ngx_mail_policy_session_count_error(s);
    }
}


/*
 * RFC 2920, section 3.1: a client that pipelines sends RCPT and DATA whatever
 * became of its MAIL, and chunks whatever became of those before.
 */

void
ngx_mail_policy_session_trailing(ngx_mail_policy_session_t *s)
{
    s->trailing = s->conf->max_recipients + 1;
}


void
ngx_mail_policy_session_no_mail(ngx_mail_policy_session_t *s)
{
    if (s->trailing) {
        s->trailing--;
        ngx_mail_policy_reply(s, "503 5.5.1 Need MAIL command");
        return;
    }

    ngx_mail_policy_session_error(s, "503 5.5.1 Need MAIL command");
}


void
ngx_mail_policy_session_close(ngx_mail_policy_session_t *s, const char *reply)
{
    if (s->closing) {
        return;
    }

    /* takes the place of what is due, which nobody will answer any more */

    ngx_mail_policy_session_release(s);
    ngx_mail_policy_reply(s, "%s", reply);

    s->closing = 1;
    s->connection->idle = 0;
    s->reading = NGX_MAIL_POLICY_READ_NOTHING;

    if (s->connection->read->timer_set) {
        ngx_del_timer(s->connection->read);
    }

    ngx_post_event(s->connection->write, &ngx_posted_events);
}


void
ngx_mail_policy_session_refuse(ngx_mail_policy_session_t *s,
    ngx_mail_policy_at_command_e command, const char *reply)
{
    if (s->closing) {
        return;
    }

    s->at = command;

    ngx_mail_policy_session_refused(s, reply);
    ngx_mail_policy_session_close(s, reply);
}


void
ngx_mail_policy_session_reset(ngx_mail_policy_session_t *s)
{
    if (s->transaction) {
        ngx_mail_policy_transaction_finalize(s->transaction,
                                             NGX_MAIL_POLICY_ABORTED);
    }

    /* what the relay was told of the client may be true no more */

    if (s->relay) {
        ngx_mail_policy_keep_put(s->relay);
        s->relay = NULL;
    }

    s->greeted = 0;
    s->esmtp = 0;
    s->extensions = 0;
    s->trailing = 0;
    ngx_str_null(&s->envelope.helo);
    ngx_str_set(&s->envelope.protocol, "SMTP");
}


/* cancels all that the session waits for and holds, but the connection */

static void
ngx_mail_policy_session_release(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_auth_told(s, NGX_MAIL_POLICY_LOGIN_ABORTED, NULL, NULL);
    ngx_mail_policy_auth_abort(s);
    ngx_mail_policy_asking_end(s);
    ngx_mail_policy_session_dismiss(s);

    ngx_queue_init(&s->dues);
    s->ndues = 0;

    if (s->transaction) {
        ngx_mail_policy_transaction_finalize(s->transaction,
                                             NGX_MAIL_POLICY_ABORTED);
    }

    if (s->relay) {
        ngx_mail_policy_keep_put(s->relay);
        s->relay = NULL;
    }
}


void
ngx_mail_policy_session_finalize(ngx_mail_policy_session_t *s)
{
    ngx_connection_t  *c;

    c = s->connection;

    ngx_mail_policy_session_cleanup(s);

    ngx_mail_close_connection(c);
}


void
ngx_mail_policy_session_cleanup(void *data)
{
    ngx_mail_policy_session_t  *s = data;

    if (s->finalized) {
        return;
    }

    s->finalized = 1;

    ngx_mail_policy_session_release(s);
    ngx_mail_policy_session_told(s);
    ngx_mail_policy_session_input_free(s, 1);

    if (s->envelope.sasl_password.data) {
        ngx_explicit_memzero(s->envelope.sasl_password.data,
                             s->envelope.sasl_password.len);
    }

    ngx_mail_policy_output_free(s);
}
