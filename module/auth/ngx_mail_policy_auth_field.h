
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What records of logins have in common, wherever they are kept.
 *
 *     status   "active", in any case, or nothing; all else suspends
 *     message  1 .. 200 printable characters of ASCII: it is sent
 *     relay    1 .. 255 of them, with no space
 */


#ifndef NGX_MAIL_POLICY_AUTH_FIELD_H
#define NGX_MAIL_POLICY_AUTH_FIELD_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_crypt.h"


#define NGX_MAIL_POLICY_AUTH_MESSAGE  200
#define NGX_MAIL_POLICY_AUTH_RELAY    255


/* 1 if a login of that status is suspended */
ngx_uint_t ngx_mail_policy_auth_field_suspends(ngx_str_t *status);

/* 1 if it is one */
ngx_uint_t ngx_mail_policy_auth_field_message(ngx_str_t *message);
ngx_uint_t ngx_mail_policy_auth_field_relay(ngx_str_t *relay);

/* what a hash has to be good for, at least, to be of use with a method */
ngx_mail_policy_crypt_kind_e ngx_mail_policy_auth_field_kind(
    ngx_uint_t method);

/* for want of a hash that is: one that costs what such a one costs mostly */
void ngx_mail_policy_auth_field_dummy(ngx_mail_policy_crypt_kind_e kind,
    ngx_str_t *hash);


#endif /* NGX_MAIL_POLICY_AUTH_FIELD_H */
