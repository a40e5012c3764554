
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is known of a message from one question to the next: its recipients
 * that are paid for, and the last answer.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_postfix.h"


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
        && ++m->requests < NGX_MAIL_POLICY_POSTFIX_SAME)
    {
        return NGX_OK;
    }

    ngx_mail_policy_postfix_forget(s);

    pool = ngx_create_pool(2048, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    m = ngx_pcalloc(pool, sizeof(ngx_mail_policy_postfix_message_t));

    if (m == NULL
        || ngx_array_init(&m->charged, pool, 1,
                          sizeof(ngx_mail_policy_charged_t))
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

    s->message = m;
    s->envelope.transaction++;

    return NGX_OK;

failed:

    ngx_destroy_pool(pool);

    return NGX_ERROR;
}


/*
 * 1 if the last answer is the one for this recipient.  Postfix goes on with
 * its restrictions behind DEFER_IF_PERMIT: were the next one told that there
 * is room by now, that would be charged, and the recipient deferred anyway.
 */

ngx_uint_t
ngx_mail_policy_postfix_answers(ngx_mail_policy_postfix_message_t *m,
    ngx_str_t *recipient)
{
    if (m->answer_len == 0 || recipient->len != m->recipient.len
        || ngx_memcmp(recipient->data, m->recipient.data, recipient->len) != 0)
    {
        return 0;
    }

    return !m->refused
           || ngx_current_msec - m->answered < NGX_MAIL_POLICY_POSTFIX_REFUSED;
}


/* the keys under which the message is paid for outlive this request */

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

    return NGX_OK;
}


/* for the next restriction, which asks the same; it was the last step */

ngx_int_t
ngx_mail_policy_postfix_remember(ngx_mail_policy_postfix_t *s,
    ngx_uint_t refused)
{
    ngx_str_t                          *recipient;
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

    ngx_memcpy(m->answer, s->out, s->out_last);
    m->answer_len = s->out_last;
    m->answered = ngx_current_msec;
    m->refused = refused;

    return NGX_OK;
}
