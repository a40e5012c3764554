
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "file:/path": users in a file that is read with the
 * configuration, and again once it has changed.
 *
 * Events: the end of a look at the file, once.
 *
 *     find -> answer, at once
 *        \-> wait -> answer
 *                \-> cancel
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth_field.h"
#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_auth_users.h"
#include "ngx_mail_policy_watch.h"


static void ngx_mail_policy_auth_file_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_file_handler(void *data, void *table);
static void ngx_mail_policy_auth_file_answer(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_table_t *table);
static void ngx_mail_policy_auth_file_cancel(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_file_dummy(ngx_mail_policy_auth_t *auth,
    void *data, ngx_str_t *hash);
static void ngx_mail_policy_auth_file_exit(void *data);


ngx_int_t
ngx_mail_policy_auth_file(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_str_t  path;

    path.data = value->data + sizeof("file:") - 1;
    path.len = value->len - (sizeof("file:") - 1);

    provider->data = ngx_mail_policy_watch_add(cf, &path, "policy_auth",
                                              ngx_mail_policy_auth_users_parse,
                                               NULL);
    if (provider->data == NULL) {
        return NGX_ERROR;
    }

    provider->find = ngx_mail_policy_auth_file_find;
    provider->cancel = ngx_mail_policy_auth_file_cancel;
    provider->dummy = ngx_mail_policy_auth_file_dummy;
    provider->exit = ngx_mail_policy_auth_file_exit;
    provider->methods = NGX_MAIL_POLICY_METHODS_RECORDS;
    provider->records = 1;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_file_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_watch_t *watch = data;

    ngx_mail_policy_auth_table_t  *table;

    table = ngx_mail_policy_watch_find(watch);

    if (table == NULL) {
        auth->wait = ngx_mail_policy_watch_wait(watch,
                                          ngx_mail_policy_auth_file_handler,
                                          auth);
        if (auth->wait) {
            return;
        }

        table = ngx_mail_policy_watch_table(watch);
    }

    ngx_mail_policy_auth_file_answer(auth, table);
}


static void
ngx_mail_policy_auth_file_handler(void *data, void *table)
{
    ngx_mail_policy_auth_t *auth = data;

    auth->wait = NULL;

    ngx_mail_policy_auth_file_answer(auth, table);
}


static void
ngx_mail_policy_auth_file_answer(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_table_t *table)
{
    ngx_int_t                      rc;
    ngx_mail_policy_auth_record_t  record;

    rc = ngx_mail_policy_auth_users_find(table, &auth->login, &record);

    ngx_mail_policy_auth_record(auth, rc, &record);
}


static void
ngx_mail_policy_auth_file_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_watch_cancel(auth->wait);

    auth->wait = NULL;
}


/*
 * The hash of somebody in the file: where hashes of several costs stand in
 * it, unknown logins have them in the same proportion.
 */

static void
ngx_mail_policy_auth_file_dummy(ngx_mail_policy_auth_t *auth, void *data,
    ngx_str_t *hash)
{
    ngx_mail_policy_crypt_kind_e  kind;

    kind = ngx_mail_policy_auth_field_kind(auth->method);

    if (ngx_mail_policy_auth_users_pick(ngx_mail_policy_watch_table(data),
                                        kind, auth->point, hash)
        != NGX_OK)
    {
        ngx_mail_policy_auth_field_dummy(kind, hash);
    }
}


static void
ngx_mail_policy_auth_file_exit(void *data)
{
    ngx_mail_policy_watch_exit(data);
}
