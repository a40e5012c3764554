
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What "policy_action" has said of a message, on whatever connection: that it
 * has said anything, and texts that are for once.  Both are notes among those
 * of messages that are paid for:
 *
 *     SHA-1("acted", 0, the directive's value, 0, instance)
 *     SHA-1("said", 0, action, 0, text, 0, instance)
 *
 * They are renewed with each recipient.  Without an instance there are none.
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>
#include <ngx_sha1.h>

#include "ngx_mail_policy_postfix.h"


/* seconds; Postfix waits five minutes for the next recipient */
#define NGX_MAIL_POLICY_POSTFIX_SAID  600


static void ngx_mail_policy_postfix_said_digest(ngx_mail_policy_postfix_t *s,
    const char *kind, ngx_str_t *text, u_char *digest);
static ngx_uint_t ngx_mail_policy_postfix_said_note(
    ngx_mail_policy_postfix_t *s, u_char *digest);
static void ngx_mail_policy_postfix_said_keep(ngx_mail_policy_postfix_t *s,
    u_char *digest, ngx_uint_t ttl);


ngx_uint_t
ngx_mail_policy_postfix_acted(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_note_t      note;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    if (m->acted || m->instance.len == 0) {
        return m->acted;
    }

    ngx_mail_policy_postfix_said_digest(s, "acted",
                                        &s->conf->action->value.text,
                                        note.digest);

    m->acted = ngx_mail_policy_postfix_seen_find(s->main_conf->postfix_seen,
                                                 &note)
               ? 1 : 0;

    return m->acted;
}


void
ngx_mail_policy_postfix_act(ngx_mail_policy_postfix_t *s)
{
    u_char  digest[NGX_MAIL_POLICY_POSTFIX_DIGEST];

    s->message->acted = 1;

    if (s->message->instance.len == 0) {
        return;
    }

    ngx_mail_policy_postfix_said_digest(s, "acted",
                                        &s->conf->action->value.text, digest);

    (void) ngx_mail_policy_postfix_said_note(s, digest);
}


ngx_uint_t
ngx_mail_policy_postfix_said(ngx_mail_policy_postfix_t *s, const char *action,
    ngx_str_t *text)
{
    u_char  digest[NGX_MAIL_POLICY_POSTFIX_DIGEST];

    if (s->message->instance.len == 0) {
        return 0;
    }

    ngx_mail_policy_postfix_said_digest(s, action, text, digest);

    return ngx_mail_policy_postfix_said_note(s, digest);
}


void
ngx_mail_policy_postfix_unsay(ngx_mail_policy_postfix_t *s)
{
    while (s->nsaid) {
        s->nsaid--;
        ngx_mail_policy_postfix_said_keep(s, s->said[s->nsaid], 0);
    }
}


static void
ngx_mail_policy_postfix_said_digest(ngx_mail_policy_postfix_t *s,
    const char *kind, ngx_str_t *text, u_char *digest)
{
    ngx_str_t   *instance;
    ngx_sha1_t   sha1;

    instance = &s->message->instance;

    ngx_sha1_init(&sha1);

    ngx_sha1_update(&sha1, kind, ngx_strlen(kind) + 1);
    ngx_sha1_update(&sha1, text->data, text->len);
    ngx_sha1_update(&sha1, "", 1);
    ngx_sha1_update(&sha1, instance->data, instance->len);

    ngx_sha1_final(digest, &sha1);
}


/* 1 if it was noted before; else it is taken back, if the answer is lost */

static ngx_uint_t
ngx_mail_policy_postfix_said_note(ngx_mail_policy_postfix_t *s,
    u_char *digest)
{
    ngx_uint_t                      found;
    ngx_mail_policy_postfix_note_t  note;

    ngx_memcpy(note.digest, digest, sizeof(note.digest));

    found = ngx_mail_policy_postfix_seen_find(s->main_conf->postfix_seen,
                                              &note);

    ngx_mail_policy_postfix_said_keep(s, digest, NGX_MAIL_POLICY_POSTFIX_SAID);

    if (!found) {
        ngx_memcpy(s->said[s->nsaid], digest, sizeof(s->said[0]));
        s->nsaid++;
    }

    return found;
}


static void
ngx_mail_policy_postfix_said_keep(ngx_mail_policy_postfix_t *s,
    u_char *digest, ngx_uint_t ttl)
{
    ngx_mail_policy_postfix_note_t  note;

    ngx_memzero(&note, sizeof(ngx_mail_policy_postfix_note_t));
    ngx_memcpy(note.digest, digest, sizeof(note.digest));

    ngx_mail_policy_postfix_seen_keep(s->main_conf->postfix_seen, &note, ttl);
}
