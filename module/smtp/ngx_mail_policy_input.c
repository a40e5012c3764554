
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the client has sent and nobody has consumed yet: one buffer on the
 * heap, as large as what is being read asks for, given back whenever the client
 * is waited for.  It is wiped then, unless a body is what was in it: there may
 * have been a password.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


ngx_int_t
ngx_mail_policy_session_recv(ngx_mail_policy_session_t *s, size_t size)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = s->connection;

    if (!c->read->ready) {
        return NGX_AGAIN;
    }

    if (ngx_mail_policy_session_input(s, size) != NGX_OK) {
        ngx_mail_policy_session_finalize(s);
        return NGX_DONE;
    }

    n = c->recv(c, s->in + s->in_last, s->in_size - s->in_last);

    if (n == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (n == NGX_ERROR || n == 0) {
        ngx_mail_policy_session_finalize(s);
        return NGX_DONE;
    }

    s->in_last += n;
    s->received += n;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_session_input(ngx_mail_policy_session_t *s, size_t size)
{
    size_t                     len;
    u_char                    *p;
    ngx_mail_smtp_srv_conf_t  *sscf;

    len = s->in_last - s->in_pos;

    if (s->in_size < size || s->in == NULL) {
        sscf = ngx_mail_get_module_srv_conf(s->mail, ngx_mail_smtp_module);

        size = ngx_max(size, sscf->client_buffer_size);
        size = ngx_max(size, NGX_MAIL_POLICY_LINE);

        p = ngx_alloc(size, s->connection->log);
        if (p == NULL) {
            return NGX_ERROR;
        }

        if (s->in) {
            ngx_memcpy(p, s->in + s->in_pos, len);
            ngx_explicit_memzero(s->in, s->in_size);
            ngx_free(s->in);
        }

        s->in = p;
        s->in_size = size;

    } else if (s->in_pos) {
        ngx_memmove(s->in, s->in + s->in_pos, len);
    }

    s->in_pos = 0;
    s->in_last = len;

    return NGX_OK;
}


void
ngx_mail_policy_session_input_free(ngx_mail_policy_session_t *s,
    ngx_uint_t wipe)
{
    if (s->in) {
        if (wipe) {
            ngx_explicit_memzero(s->in, s->in_size);
        }

        ngx_free(s->in);
    }

    s->in = NULL;
    s->in_size = 0;
    s->in_pos = 0;
    s->in_last = 0;
}
