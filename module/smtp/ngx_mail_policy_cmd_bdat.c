
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * BDAT, RFC 3030: chunks of a message, each with its length in front.
 *
 *   BDAT n [-> relay's 354] -> CHUNK ... n octets -> 250 -> COMMAND
 *   BDAT n LAST             -> CHUNK ... n octets -> relay's reply -> COMMAND
 *
 * A relay that offers CHUNKING gets chunks too, though other ones: a buffer
 * of octets is one.  Any other gets DATA, and the content dot-stuffed.  The
 * 250 to a chunk that is not the last says no more than that its octets were
 * taken; LAST is answered by the relay.
 *
 * The octets follow the command unasked, so they are read whatever becomes of
 * it; where their number is not known, or is too large to be read for
 * nothing, the session ends.  A chunk that is refused ends the transaction: a
 * message must not be without it.
 *
 * Events: octets of the client (by the session).
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_str_t *ngx_mail_policy_chunk_sequence(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_chunk_begin(ngx_mail_policy_transaction_t *t);
static void ngx_mail_policy_chunk_scan(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_chunk_end(ngx_mail_policy_session_t *s);
static void ngx_mail_policy_chunk_refuse(ngx_mail_policy_session_t *s);


static ngx_str_t  ngx_mail_policy_chunk_no_mail =
    ngx_string("503 5.5.1 Need MAIL command");
static ngx_str_t  ngx_mail_policy_chunk_no_rcpt =
    ngx_string("503 5.5.1 Need RCPT command");
static ngx_str_t  ngx_mail_policy_chunk_no_valid =
    ngx_string("554 5.5.1 No valid recipients");


ngx_int_t
ngx_mail_policy_cmd_bdat_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    int          rc;
    mpol_bdat_t  bdat;

    if (!ngx_mail_policy_session_clear(s)) {
        ngx_mail_policy_session_refuse(s, s->at,
                            "530 5.7.0 Must issue a STARTTLS command first");
        return NGX_DECLINED;
    }

    if (!(s->extensions & MPOL_EXT_CHUNKING)) {
        ngx_mail_policy_session_refuse(s, s->at, "502 5.5.1 BDAT not offered");
        return NGX_DECLINED;
    }

    rc = mpol_bdat_parse(cmd->arg.data, cmd->arg.len, &bdat);

    if (rc == MPOL_ARG_LONG) {
        ngx_mail_policy_session_refuse(s, s->at, "552 5.3.4 Chunk too big");
        return NGX_DECLINED;
    }

    if (rc != MPOL_OK) {
        ngx_mail_policy_session_refuse(s, s->at,
                                       "501 5.5.4 Syntax: BDAT size [LAST]");
        return NGX_DECLINED;
    }

    s->chunk = bdat.size;
    s->chunk_size = bdat.size;
    s->chunk_last = bdat.last;
    s->chunk_refused = ngx_mail_policy_chunk_sequence(s);

    return NGX_OK;
}


/* NULL: the chunk may come; otherwise it is read, and then this the reply */

static ngx_str_t *
ngx_mail_policy_chunk_sequence(ngx_mail_policy_session_t *s)
{
    if (s->transaction == NULL) {
        return &ngx_mail_policy_chunk_no_mail;
    }

    if (s->envelope.recipients == 0) {
        return s->transaction->nrcpts ? &ngx_mail_policy_chunk_no_valid
                                      : &ngx_mail_policy_chunk_no_rcpt;
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_cmd_bdat(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    size_t                          max;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;
    max = s->conf->message_size;

    /* one for all chunks of a message */

    if (t == NULL || !t->bdat) {
        mpol_pace_init(&s->pace, s->core->timeout, s->conf->min_data_rate);
    }

    s->reading = NGX_MAIL_POLICY_READ_CHUNK;
    s->connection->log->action = "reading message";

    if (s->chunk_refused == NULL && !t->failed && max
        && s->chunk_size > max - ngx_min(max, t->content.octets))
    {
        t->bdat = 1;
        ngx_mail_policy_body_fail(t, 552, &ngx_mail_policy_too_big);
    }

    if (s->chunk_refused || t->failed) {
        return NGX_OK;
    }

    /* RES-4: a few octets each cost as much as many */

    if (s->chunk_size < 64 && !s->chunk_last) {
        ngx_mail_policy_session_junk(s);

        if (s->closing) {
            ngx_mail_policy_session_refused(s, "421 4.7.0 Too many errors");
            return NGX_OK;
        }
    }

    return t->bdat ? NGX_OK : ngx_mail_policy_chunk_begin(t);
}


/* the first chunk of a message */

static ngx_int_t
ngx_mail_policy_chunk_begin(ngx_mail_policy_transaction_t *t)
{
    t->bdat = 1;

    return ngx_mail_policy_transaction_data(t);
}


/* NGX_OK: goes on; NGX_AGAIN: waits for client or relay; NGX_DONE: gone */

ngx_int_t
ngx_mail_policy_chunk_read(ngx_mail_policy_session_t *s)
{
    ngx_uint_t                      dropped;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    if (t && ngx_mail_policy_body_send(t) != NGX_OK) {
        return NGX_AGAIN;
    }

    dropped = (s->chunk_refused || t->failed);

    if (s->chunk == 0 && (dropped || !s->chunk_last || t->end)) {
        return ngx_mail_policy_chunk_end(s);
    }

    if (dropped && s->chunk > NGX_MAIL_POLICY_CHUNK_DROPPED) {
        (void) ngx_mail_policy_chunk_end(s);
        ngx_mail_policy_session_close(s, "421 4.7.0 Chunk too big to be "
                                         "dropped, closing connection");
        return NGX_OK;
    }

    if (s->in_pos == s->in_last && s->chunk) {
        return ngx_mail_policy_body_recv(s);
    }

    ngx_mail_policy_chunk_scan(s);

    return NGX_OK;
}


/* what is there of the chunk, and the end of the message behind it */

static void
ngx_mail_policy_chunk_scan(ngx_mail_policy_session_t *s)
{
    size_t                          n;
    u_char                         *p;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    n = ngx_min(s->in_last - s->in_pos, NGX_MAIL_POLICY_BODY);

    if (n > s->chunk) {
        n = (size_t) s->chunk;
    }

    /* "BDAT 0 LAST" may find no buffer at all */

    p = n ? s->in + s->in_pos : NULL;

    s->chunk -= n;
    s->in_pos += n;

    mpol_pace_moved(&s->pace, n);

    if (s->chunk_refused || t->failed) {
        return;
    }

    t->end = (s->chunk_last && s->chunk == 0);

    mpol_header_scan(&t->header, p, n);
    ngx_mail_policy_body_encode(t, p, n, t->end);

    s->envelope.message_size = t->content.octets;

    ngx_mail_policy_body_judge(t);
}


/* all octets of the chunk have come, and are at the relay, or dropped */

static ngx_int_t
ngx_mail_policy_chunk_end(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    s->reading = NGX_MAIL_POLICY_READ_COMMAND;

    if (s->chunk_refused) {
        ngx_mail_policy_chunk_refuse(s);
        return NGX_OK;
    }

    if (t->failed) {
        ngx_mail_policy_session_trailing(s);
        ngx_mail_policy_body_failed(t);
        return NGX_OK;
    }

    if (t->end) {
        return ngx_mail_policy_body_end(t);
    }

    ngx_mail_policy_reply(s, "250 2.0.0 %uL octets received", s->chunk_size);

    return NGX_OK;
}


static void
ngx_mail_policy_chunk_refuse(ngx_mail_policy_session_t *s)
{
    ngx_str_t                      *text;
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;
    text = s->chunk_refused;

    ngx_mail_policy_session_junk(s);

    if (s->closing) {
        ngx_mail_policy_session_refused(s, "421 4.7.0 Too many errors");
        return;
    }

    if (t == NULL) {
        ngx_mail_policy_session_no_mail(s);
        return;
    }

    t->record.status = (text == &ngx_mail_policy_chunk_no_valid) ? 554 : 503;
    t->record.reply = *text;

    ngx_mail_policy_transaction_finalize(t, NGX_MAIL_POLICY_REJECTED);
    ngx_mail_policy_session_trailing(s);

    if (text == &ngx_mail_policy_chunk_no_valid) {

        /* the client could not know, RFC 2920, section 3.1 */

        ngx_mail_policy_reply(s, "%V", text);
        return;
    }

    ngx_mail_policy_session_error(s, (char *) text->data);
}
