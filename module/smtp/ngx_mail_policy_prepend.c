
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Fields that policy servers want in front of a message.  They go to the
 * relay as the Received field does, and in front of it; what several servers
 * say, or one says of several recipients, is there once.
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


/* octets of a line without its CRLF, RFC 5322, section 2.1.1 */
#define NGX_MAIL_POLICY_FIELD      998

/* of all fields of a message, with theirs */
#define NGX_MAIL_POLICY_PREPENDED  8192


struct ngx_mail_policy_field_s {
    ngx_queue_t  queue;
    ngx_str_t    text;
};


ngx_int_t
ngx_mail_policy_prepend(ngx_mail_policy_transaction_t *t, ngx_str_t *text)
{
    ngx_queue_t              *q;
    ngx_mail_policy_field_t  *field;

    for (q = ngx_queue_head(&t->fields);
         q != ngx_queue_sentinel(&t->fields);
         q = ngx_queue_next(q))
    {
        field = ngx_queue_data(q, ngx_mail_policy_field_t, queue);

        if (field->text.len == text->len
            && ngx_memcmp(field->text.data, text->data, text->len) == 0)
        {
            return NGX_OK;
        }
    }

    if (text->len > NGX_MAIL_POLICY_FIELD
        || t->prepended + text->len + 2 > NGX_MAIL_POLICY_PREPENDED)
    {
        return NGX_DECLINED;
    }

    field = ngx_palloc(t->pool, sizeof(ngx_mail_policy_field_t));
    if (field == NULL) {
        return NGX_ERROR;
    }

    field->text.len = text->len;
    field->text.data = ngx_pstrdup(t->pool, text);
    if (field->text.data == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_insert_tail(&t->fields, &field->queue);
    t->prepended += text->len + 2;

    return NGX_OK;
}


size_t
ngx_mail_policy_prepended(ngx_mail_policy_transaction_t *t, u_char *out)
{
    u_char                   *p;
    ngx_queue_t              *q;
    ngx_mail_policy_field_t  *field;

    p = out;

    for (q = ngx_queue_head(&t->fields);
         q != ngx_queue_sentinel(&t->fields);
         q = ngx_queue_next(q))
    {
        field = ngx_queue_data(q, ngx_mail_policy_field_t, queue);

        p = ngx_cpymem(p, field->text.data, field->text.len);
        *p++ = CR;
        *p++ = LF;
    }

    return p - out;
}
