
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is known of a message from one question to the next: what is paid for,
 * and the last answer; and, by way of shared memory, what other connections
 * have paid for it.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_postfix.h"


static void ngx_mail_policy_postfix_learn(ngx_mail_policy_postfix_t *s);


/* the message that is asked for, which may be the same as before */

ngx_int_t
ngx_mail_policy_postfix_message(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           instance;
    ngx_pool_t                         *pool;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_INSTANCE, &instance);

    if (m && instance.len && instance.len == m->instance.len
        && ngx_memcmp(instance.data, m->instance.data, instance.len) == 0
        && m->requests < NGX_MAIL_POLICY_POSTFIX_SAME)
    {
        return NGX_OK;
    }

    ngx_mail_policy_postfix_drop(s, 1);

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    m = ngx_pcalloc(pool, sizeof(ngx_mail_policy_postfix_message_t));

    if (m == NULL
        || ngx_array_init(&m->charged, pool, 1,
                          sizeof(ngx_mail_policy_charged_t))
           != NGX_OK
        || ngx_array_init(&m->held, pool, 1, sizeof(ngx_mail_policy_check_t))
           != NGX_OK)
    {
        goto failed;
    }

    m->pool = pool;
    m->instance.len = instance.len;
    m->instance.data = ngx_pstrdup(pool, &instance);

    if (m->instance.data == NULL) {
        goto failed;
    }

    m->edge = ngx_mail_policy_postfix_edge(s, pool) ? 1 : 0;

    ngx_mail_policy_postfix_seen_digest(s->conf->limits, &m->instance,
                                        m->note.digest);

    s->message = m;
    s->envelope.transaction++;

    return NGX_OK;

failed:

    ngx_destroy_pool(pool);

    return NGX_ERROR;
}


/*
 * Other connections may have begun it, or gone on with it since it was asked
 * for here.
 */

static void
ngx_mail_policy_postfix_learn(ngx_mail_policy_postfix_t *s)
{
    ngx_mail_policy_postfix_note_t      note;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    note = m->note;

    if (m->instance.len == 0
        || !ngx_mail_policy_postfix_seen_find(s->main_conf->postfix_seen,
                                              &note)
        || note.requests == m->note.requests
        || note.requests >= NGX_MAIL_POLICY_POSTFIX_SAME)
    {
        return;
    }

    m->note = note;
    m->before = note;

    m->requests = ngx_max(m->requests, note.requests);
    m->recipients = ngx_max(m->recipients, note.recipients);
    m->heard = 1;

    if (!m->paid) {
        m->paid = 1;
        m->foreign = 1;
    }
}


ngx_uint_t
ngx_mail_policy_postfix_heard(ngx_mail_policy_postfix_t *s)
{
    u_char                              digest[NGX_MAIL_POLICY_POSTFIX_DIGEST];
    ngx_str_t                           recipient;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    ngx_mail_policy_postfix_learn(s);

    if (!m->heard || s->state != NGX_MAIL_POLICY_POSTFIX_RCPT) {
        return 0;
    }

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &recipient);
    ngx_mail_policy_postfix_seen_recipient(&recipient, digest);

    return ngx_memcmp(digest, m->note.recipient, sizeof(digest)) == 0;
}


void
ngx_mail_policy_postfix_tell(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           recipient;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    if (m->instance.len == 0) {
        return;
    }

    m->heard = 0;
    m->telling = 1;

    m->note.requests = (uint32_t) m->requests;
    m->note.recipients = (uint32_t) ngx_min(m->recipients,
                                            NGX_MAX_UINT32_VALUE);
    m->note.octets = ngx_max(m->note.octets, m->octets);

    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &recipient);
    ngx_mail_policy_postfix_seen_recipient(&recipient, m->note.recipient);

    ngx_mail_policy_postfix_seen_keep(s->main_conf->postfix_seen, &m->note,
                                      s->state == NGX_MAIL_POLICY_POSTFIX_END
                                      ? NGX_MAIL_POLICY_POSTFIX_SEEN_END
                                      : NGX_MAIL_POLICY_POSTFIX_SEEN);
}


void
ngx_mail_policy_postfix_untell(ngx_mail_policy_postfix_t *s, ngx_uint_t all)
{
    ngx_uint_t                          ttl;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    if (m == NULL || m->instance.len == 0 || (!all && !m->telling)) {
        return;
    }

    if (all) {
        ngx_memzero(&m->before, sizeof(ngx_mail_policy_postfix_note_t));
    }

    /* what nobody has asked for was not paid */

    ttl = m->before.requests ? NGX_MAIL_POLICY_POSTFIX_SEEN : 0;

    ngx_memcpy(m->before.digest, m->note.digest, sizeof(m->note.digest));

    ngx_mail_policy_postfix_seen_keep(s->main_conf->postfix_seen, &m->before,
                                      ttl);
}


/*
 * Postfix goes on with its restrictions behind DEFER_IF_PERMIT: were the next
 * one told that there is room by now, that would be charged, and the recipient
 * deferred anyway.
 */

ngx_uint_t
ngx_mail_policy_postfix_answers(ngx_mail_policy_postfix_t *s)
{
    ngx_str_t                           recipient;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    ngx_mail_policy_postfix_value(s, MPOL_ATTR_RECIPIENT, &recipient);

    if (m->answer_len == 0 || s->state != m->state
        || recipient.len != m->recipient.len
        || ngx_memcmp(recipient.data, m->recipient.data, recipient.len) != 0)
    {
        return 0;
    }

    if (m->refused) {
        return ngx_current_msec - m->answered
               < NGX_MAIL_POLICY_POSTFIX_REFUSED;
    }

    /* somebody else may have refused it, and there is more of it now */

    return s->state == NGX_MAIL_POLICY_POSTFIX_RCPT;
}


ngx_int_t
ngx_mail_policy_postfix_paid(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                          i;
    ngx_mail_policy_charged_t          *seen;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    seen = m->charged.elts;

    for (i = s->known; i < m->charged.nelts; i++) {
        seen[i].key.data = ngx_pstrdup(m->pool, &seen[i].key);
        if (seen[i].key.data == NULL) {
            return NGX_ERROR;
        }
    }

    if (!m->paid) {
        m->note.octets = ngx_max(s->envelope.message_size, 1);
    }

    m->paid = 1;
    m->recipients += s->count;

    if (s->state == NGX_MAIL_POLICY_POSTFIX_END) {
        m->octets = ngx_max(m->octets, s->envelope.message_size);
    }

    if (ngx_mail_policy_check_has_octets(&s->mail)
        || ngx_mail_policy_check_has_octets(&s->rcpt))
    {
        m->holds = 1;
    }

    if (m->holds) {

        if (ngx_array_push_n(&m->held, 3) == NULL) {
            return NGX_ERROR;
        }

        m->held.nelts -= 3;
    }

    return NGX_OK;
}


void
ngx_mail_policy_postfix_hold(ngx_mail_policy_postfix_t *s)
{
    ngx_uint_t                          i;
    ngx_mail_policy_check_t            *check[3];
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;

    check[0] = &s->mail;
    check[1] = &s->rcpt;
    check[2] = &s->rest;

    for (i = 0; i < 3; i++) {

        if (check[i]->ask == NULL) {
            continue;
        }

        if (!m->holds) {
            ngx_mail_policy_check_keep(check[i]);
            continue;
        }

        /* there is room, see paid() */

        ngx_mail_policy_check_move(check[i], ngx_array_push(&m->held));
    }
}


/* those at an end first: their keys are those of the others */

void
ngx_mail_policy_postfix_held(ngx_mail_policy_postfix_message_t *m,
    ngx_uint_t keep)
{
    ngx_mail_policy_check_t  *check;

    check = m->held.elts;

    while (m->held.nelts) {
        m->held.nelts--;

        if (keep) {
            ngx_mail_policy_check_keep(&check[m->held.nelts]);

        } else {
            ngx_mail_policy_check_give_back(&check[m->held.nelts]);
        }
    }
}


void
ngx_mail_policy_postfix_drop(ngx_mail_policy_postfix_t *s, ngx_uint_t keep)
{
    if (s->message == NULL) {
        return;
    }

    ngx_mail_policy_postfix_held(s->message, keep);

    ngx_destroy_pool(s->message->pool);
    s->message = NULL;
}


/* for the next restriction, which asks the same; it was the last step */

ngx_int_t
ngx_mail_policy_postfix_remember(ngx_mail_policy_postfix_t *s,
    ngx_uint_t refused)
{
    ngx_str_t                           answer, *recipient;
    ngx_mail_policy_postfix_message_t  *m;

    m = s->message;
    recipient = &s->envelope.recipient;

    if (m->recipient.data == NULL) {
        m->recipient.data = ngx_pnalloc(m->pool, MPOL_ATTR_LINE);
        if (m->recipient.data == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memcpy(m->recipient.data, recipient->data, recipient->len);
    m->recipient.len = recipient->len;

    answer.data = s->out;
    answer.len = s->out_last;

    if (s->once) {
        ngx_str_set(&answer, "action=DUNNO\n\n");
    }

    if (answer.len > m->answer_size) {
        m->answer_size = ngx_max(answer.len, 2 * m->answer_size);

        m->answer = ngx_pnalloc(m->pool, m->answer_size);
        if (m->answer == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_memcpy(m->answer, answer.data, answer.len);
    m->answer_len = answer.len;
    m->answered = ngx_current_msec;
    m->state = s->state;
    m->refused = refused;

    return NGX_OK;
}
