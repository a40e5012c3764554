
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A file of users, as a table.
 *
 *     file   = *( line LF )
 *     line   = [ login ":" hash *( ":" field ) ] / "#" comment
 *     field  = "senders=" list                see mpol_sender.h
 *            / "status=" / "relay="           see ngx_mail_policy_auth_field.h
 *            / "message=" text                to the end of the line
 *            / ignored
 *
 * With a field, hash may be empty: such a login has no password.  A {PLAIN}
 * secret holds no ":".  The one in front of a port belongs to the relay.
 *
 * What parse() gives points into the text.
 */


#ifndef NGX_MAIL_POLICY_AUTH_USERS_H
#define NGX_MAIL_POLICY_AUTH_USERS_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_watch.h"


typedef struct ngx_mail_policy_auth_table_s  ngx_mail_policy_auth_table_t;


/* see ngx_mail_policy_watch_parse_pt */
void *ngx_mail_policy_auth_users_parse(ngx_pool_t *pool, ngx_str_t *text,
    void *data, ngx_mail_policy_watch_error_t *error);

/* NGX_OK: record is set; NGX_DECLINED: there is no such login */
ngx_int_t ngx_mail_policy_auth_users_find(ngx_mail_policy_auth_table_t *table,
    ngx_str_t *login, ngx_mail_policy_auth_record_t *record);

/*
 * The hash of somebody, of a kind or better; NGX_DECLINED: nobody has one.
 * They are in the order of costs, so that a point, of all that there are, has
 * the same cost after others have come and gone.
 */
ngx_int_t ngx_mail_policy_auth_users_pick(ngx_mail_policy_auth_table_t *table,
    ngx_mail_policy_crypt_kind_e kind, uint32_t point, ngx_str_t *hash);


#endif /* NGX_MAIL_POLICY_AUTH_USERS_H */
