
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * DATA, and the client's octets up to its final dot.
 *
 *   DATA -> relay's 354 -> BODY ... client's dot -> relay's reply -> COMMAND
 *
 * The body goes from the client's buffer straight to the relay's socket; with
 * "policy_bare_newline normalize" it is decoded in that buffer and encoded
 * anew into another.  The dot that ends it goes with the last octets.
 *
 * Events: octets of the client (by the session).
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_data_scan(ngx_mail_policy_transaction_t *t);


ngx_int_t
ngx_mail_policy_cmd_data_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (cmd->arg.len) {
        ngx_mail_policy_session_error(s, "501 5.5.4 No argument allowed");
        return NGX_DECLINED;
    }

    if (s->transaction == NULL) {
        ngx_mail_policy_session_no_mail(s);
        return NGX_DECLINED;
    }

    /* RFC 3030, section 2; and section 3: there is no end to be found */

    if (s->transaction->bdat) {
        ngx_mail_policy_session_error(s, "503 5.5.1 DATA after BDAT");
        return NGX_DECLINED;
    }

    if (s->transaction->mail.body == MPOL_BODY_BINARYMIME) {
        ngx_mail_policy_session_error(s, "503 5.5.1 BINARYMIME needs BDAT");
        return NGX_DECLINED;
    }

    if (s->envelope.recipients == 0) {

        /*
         * RFC 2920, section 3.1: a client that pipelines sends DATA whatever
         * became of its recipients, so it is no error of the client's then
         */

        if (s->transaction->nrcpts) {
            ngx_mail_policy_reply(s, "554 5.5.1 No valid recipients");
            ngx_mail_policy_session_junk(s);

        } else {
            ngx_mail_policy_session_error(s, "503 5.5.1 Need RCPT command");
        }

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_data(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    return ngx_mail_policy_transaction_data(s->transaction);
}


/* NGX_OK: goes on; NGX_AGAIN: waits for client or relay; NGX_DONE: gone */

ngx_int_t
ngx_mail_policy_data_read(ngx_mail_policy_session_t *s)
{
    ngx_mail_policy_transaction_t  *t;

    t = s->transaction;

    if (!t->end && t->consumed == 0 && t->wire_last == 0) {
        ngx_mail_policy_data_scan(t);
    }

    if (ngx_mail_policy_body_send(t) != NGX_OK) {
        return NGX_AGAIN;
    }

    if (t->consumed) {
        s->in_pos += t->consumed;
        t->consumed = 0;

        if (!t->end && s->in_pos < s->in_last) {
            return NGX_OK;
        }
    }

    if (t->end) {
        return ngx_mail_policy_body_end(t);
    }

    return ngx_mail_policy_body_recv(s);
}


static void
ngx_mail_policy_data_scan(ngx_mail_policy_transaction_t *t)
{
    int                         rc;
    u_char                     *p;
    size_t                      len;
    ngx_mail_policy_session_t  *s;

    s = t->session;

    if (s->in_pos == s->in_last) {
        return;
    }

    p = s->in + s->in_pos;
    len = ngx_min(s->in_last - s->in_pos, NGX_MAIL_POLICY_BODY);

    rc = mpol_body_scan(&t->body, p, len, &t->consumed, &t->ready);

    mpol_pace_moved(&s->pace, t->consumed);

    s->envelope.message_size = t->body.octets;
    t->end = (rc == MPOL_OK);

    if (t->failed) {
        t->ready = 0;
        return;
    }

    mpol_header_scan(&t->header, p, t->ready);

    if (t->encoded) {
        ngx_mail_policy_body_encode(t, p, t->ready, t->end);
        t->ready = 0;

    } else {
        ngx_mail_policy_body_front(t);

        if (t->end) {

            /* the dot goes with the last octets, in place of the client's */

            ngx_memcpy(p + t->ready, "." CRLF, 3);
            t->ready += 3;
        }
    }

    ngx_mail_policy_body_judge(t);
}
