
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Fields of records.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_field.h"


static ngx_uint_t ngx_mail_policy_auth_field_text(ngx_str_t *text, size_t max,
    u_char first);


ngx_uint_t
ngx_mail_policy_auth_field_suspends(ngx_str_t *status)
{
    return status->len != 0
           && (status->len != sizeof("active") - 1
               || ngx_strncasecmp(status->data, (u_char *) "active",
                                  sizeof("active") - 1)
                  != 0);
}


ngx_uint_t
ngx_mail_policy_auth_field_message(ngx_str_t *message)
{
    return ngx_mail_policy_auth_field_text(message,
                                           NGX_MAIL_POLICY_AUTH_MESSAGE, ' ');
}


ngx_uint_t
ngx_mail_policy_auth_field_relay(ngx_str_t *relay)
{
    return ngx_mail_policy_auth_field_text(relay, NGX_MAIL_POLICY_AUTH_RELAY,
                                           '!');
}


static ngx_uint_t
ngx_mail_policy_auth_field_text(ngx_str_t *text, size_t max, u_char first)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {
        if (text->data[i] < first || text->data[i] > '~') {
            return 0;
        }
    }

    return text->len > 0 && text->len <= max;
}


ngx_mail_policy_crypt_kind_e
ngx_mail_policy_auth_field_kind(ngx_uint_t method)
{
    switch (method) {

    case NGX_MAIL_POLICY_METHOD_SCRAM:
    case NGX_MAIL_POLICY_METHOD_SCRAM_PLUS:
        return NGX_MAIL_POLICY_CRYPT_KEYS;

    case NGX_MAIL_POLICY_METHOD_CRAM_MD5:
        return NGX_MAIL_POLICY_CRYPT_CLEAR;

    default:
        return NGX_MAIL_POLICY_CRYPT_PASSWORD;
    }
}


void
ngx_mail_policy_auth_field_dummy(ngx_mail_policy_crypt_kind_e kind,
    ngx_str_t *hash)
{
    switch (kind) {

    case NGX_MAIL_POLICY_CRYPT_CLEAR:
        ngx_str_set(hash, NGX_MAIL_POLICY_CRYPT_PLAIN "nobody");
        return;

    case NGX_MAIL_POLICY_CRYPT_KEYS:
        ngx_str_set(hash, NGX_MAIL_POLICY_CRYPT_DEFAULT_SCRAM);
        return;

    default: /* NGX_MAIL_POLICY_CRYPT_PASSWORD */
        ngx_str_set(hash, NGX_MAIL_POLICY_CRYPT_DEFAULT);
        return;
    }
}
