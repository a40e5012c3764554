
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "jwt:name", and the directive "policy_auth_jwt name ...", which
 * says what that is.  They may stand in any order.
 *
 * Events: with a key set that is being read again, that it has been; else
 * there are none, find() answers at once.
 *
 *     find -> answer
 *        \-> wait -> answer
 *             \-> cancel
 *
 * A token goes to no log.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth_provider.h"
#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_jwt.h"
#include "mpol_jwt.h"


#if (NGX_MAIL_POLICY_JANSSON)

/* RFC 7519 section 4.1.4: "usually no more than a few minutes" */
#define NGX_MAIL_POLICY_AUTH_JWT_LEEWAY  60


typedef struct {
    ngx_str_t                     name;
    ngx_mail_policy_watch_t      *watch;    /* NULL: not defined yet */
    ngx_mail_policy_jwt_rules_t   rules;

    u_char                       *file;     /* where it was first named */
    ngx_uint_t                    line;
} ngx_mail_policy_auth_jwt_t;


static ngx_mail_policy_auth_jwt_t *ngx_mail_policy_auth_jwt_get(
    ngx_conf_t *cf, ngx_str_t *name);
static ngx_int_t ngx_mail_policy_auth_jwt_init(ngx_conf_t *cf, void *data);
static void ngx_mail_policy_auth_jwt_exit(void *data);
static char *ngx_mail_policy_auth_jwt_define(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *keys);
static ngx_int_t ngx_mail_policy_auth_jwt_parameter(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *value, ngx_str_t *keys);
static ngx_int_t ngx_mail_policy_auth_jwt_audience(
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *value);
static ngx_int_t ngx_mail_policy_auth_jwt_leeway(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *value);

static void ngx_mail_policy_auth_jwt_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_jwt_handler(void *data, void *table);
static void ngx_mail_policy_auth_jwt_cancel(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_jwt_verify(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_mail_policy_jwt_keys_t *keys);


ngx_int_t
ngx_mail_policy_auth_jwt(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_str_t  name;

    name.data = value->data + sizeof("jwt:") - 1;
    name.len = value->len - (sizeof("jwt:") - 1);

    provider->data = ngx_mail_policy_auth_jwt_get(cf, &name);
    if (provider->data == NULL) {
        return NGX_ERROR;
    }

    provider->methods = NGX_MAIL_POLICY_METHODS_TOKEN;
    provider->find = ngx_mail_policy_auth_jwt_find;
    provider->cancel = ngx_mail_policy_auth_jwt_cancel;
    provider->init = ngx_mail_policy_auth_jwt_init;
    provider->exit = ngx_mail_policy_auth_jwt_exit;

    return NGX_OK;
}


static ngx_mail_policy_auth_jwt_t *
ngx_mail_policy_auth_jwt_get(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_mail_policy_auth_jwt_t  **jwt, *new;
    ngx_mail_policy_main_conf_t  *mcf;

    if (!mpol_jwt_kid_valid(name->data, name->len)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is no name of a \"policy_auth_jwt\", "
                           "write 1 to 64 of letters, digits, \".\", \"_\" "
                           "and \"-\"", name);
        return NULL;
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);
    jwt = mcf->auth_jwts.elts;

    for (i = 0; i < mcf->auth_jwts.nelts; i++) {
        if (jwt[i]->name.len == name->len
            && ngx_strncmp(jwt[i]->name.data, name->data, name->len) == 0)
        {
            return jwt[i];
        }
    }

    new = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_jwt_t));
    jwt = ngx_array_push(&mcf->auth_jwts);

    if (new == NULL || jwt == NULL
        || ngx_array_init(&new->rules.audiences, cf->pool, 1,
                          sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NULL;
    }

    new->name = *name;
    new->file = cf->conf_file->file.name.data;
    new->line = cf->conf_file->line;
    new->rules.leeway = NGX_ERROR;

    *jwt = new;

    return new;
}


static ngx_int_t
ngx_mail_policy_auth_jwt_init(ngx_conf_t *cf, void *data)
{
    ngx_mail_policy_auth_jwt_t *jwt = data;

    if (jwt->watch == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_auth jwt:%V\" needs the directive "
                      "\"policy_auth_jwt %V keys=/path issuer=... "
                      "audience=...\" in mail{}, in %s:%ui",
                      &jwt->name, &jwt->name, jwt->file, jwt->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_auth_jwt_exit(void *data)
{
    ngx_mail_policy_auth_jwt_t *jwt = data;

    /* in servers without policy nobody has asked for it */

    if (jwt->watch) {
        ngx_mail_policy_watch_exit(jwt->watch);
    }
}


/* the directive */


char *
ngx_mail_policy_auth_jwt_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                   *value, keys;
    ngx_uint_t                   i;
    ngx_mail_policy_auth_jwt_t  *jwt;

    value = cf->args->elts;

    jwt = ngx_mail_policy_auth_jwt_get(cf, &value[1]);
    if (jwt == NULL) {
        return NGX_CONF_ERROR;
    }

    if (jwt->watch) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"policy_auth_jwt %V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&keys);

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_auth_jwt_parameter(cf, jwt, &value[i], &keys)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_mail_policy_auth_jwt_define(cf, jwt, &keys);
}


static char *
ngx_mail_policy_auth_jwt_define(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *keys)
{
    ngx_mail_policy_jwt_rules_t  *rules;

    rules = &jwt->rules;

    /* RFC 8725 sections 3.8 and 3.9: a token for others is none for us */

    if (keys->len == 0 || rules->issuer.len == 0
        || rules->audiences.nelts == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"policy_auth_jwt %V\" needs \"keys=/path\", "
                           "\"issuer=https://login.example.com\" and "
                           "\"audience=...\"", &jwt->name);
        return NGX_CONF_ERROR;
    }

    if (rules->claim.len == 0) {
        ngx_str_set(&rules->claim, "email");
    }

    if (rules->leeway == NGX_ERROR) {
        rules->leeway = NGX_MAIL_POLICY_AUTH_JWT_LEEWAY;
    }

    jwt->watch = ngx_mail_policy_watch_add(cf, keys, "policy_auth_jwt",
                                           ngx_mail_policy_jwt_keys, NULL);

    return jwt->watch ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_mail_policy_auth_jwt_parameter(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *value, ngx_str_t *keys)
{
    u_char     *p;
    ngx_str_t   text, *to;

    p = (u_char *) ngx_strchr(value->data, '=');

    if (p == NULL || p[1] == '\0') {
        goto invalid;
    }

    text.data = p + 1;
    text.len = value->data + value->len - text.data;

    if (ngx_strncmp(value->data, "audience=", 9) == 0) {
        return ngx_mail_policy_auth_jwt_audience(jwt, &text);
    }

    if (ngx_strncmp(value->data, "leeway=", 7) == 0) {
        return ngx_mail_policy_auth_jwt_leeway(cf, jwt, &text);
    }

    if (ngx_strncmp(value->data, "keys=", 5) == 0) {
        to = keys;

    } else if (ngx_strncmp(value->data, "issuer=", 7) == 0) {
        to = &jwt->rules.issuer;

    } else if (ngx_strncmp(value->data, "claim=", 6) == 0) {
        to = &jwt->rules.claim;

    } else {
        goto invalid;
    }

    if (to->len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is the second one of its kind, write only "
                           "one", value);
        return NGX_ERROR;
    }

    *to = text;

    return NGX_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", write \"keys=/path\", "
                       "\"issuer=...\", \"audience=...\", \"claim=email\" or "
                       "\"leeway=60s\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_auth_jwt_audience(ngx_mail_policy_auth_jwt_t *jwt,
    ngx_str_t *value)
{
    ngx_str_t  *audience;

    audience = ngx_array_push(&jwt->rules.audiences);
    if (audience == NULL) {
        return NGX_ERROR;
    }

    *audience = *value;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_jwt_leeway(ngx_conf_t *cf,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_str_t *value)
{
    if (jwt->rules.leeway != NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a second \"leeway\", write only one");
        return NGX_ERROR;
    }

    jwt->rules.leeway = ngx_parse_time(value, 1);

    if (jwt->rules.leeway == (time_t) NGX_ERROR
        || jwt->rules.leeway > NGX_MAIL_POLICY_AUTH_JWT_LEEWAY)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"leeway=%V\", write a time of at most "
                           "60s", value);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* run time */


static void
ngx_mail_policy_auth_jwt_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_jwt_t *jwt = data;

    ngx_mail_policy_jwt_keys_t  *keys;

    keys = ngx_mail_policy_watch_find(jwt->watch);

    if (keys) {
        ngx_mail_policy_auth_jwt_verify(auth, jwt, keys);
        return;
    }

    auth->wait = ngx_mail_policy_watch_wait(jwt->watch,
                                            ngx_mail_policy_auth_jwt_handler,
                                            auth);

    if (auth->wait == NULL) {
        ngx_mail_policy_auth_answer(auth, NGX_ERROR);
    }
}


static void
ngx_mail_policy_auth_jwt_handler(void *data, void *table)
{
    ngx_mail_policy_auth_t *auth = data;

    auth->wait = NULL;

    ngx_mail_policy_auth_jwt_verify(auth, auth->provider->data, table);
}


static void
ngx_mail_policy_auth_jwt_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_watch_cancel(auth->wait);
}


static void
ngx_mail_policy_auth_jwt_verify(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_jwt_t *jwt, ngx_mail_policy_jwt_keys_t *keys)
{
    ngx_int_t    rc;
    ngx_str_t    identity;
    const char  *why;

    why = "";

    rc = ngx_mail_policy_jwt_verify(keys, &jwt->rules, &auth->password,
                                    ngx_time(), auth->pool, &identity, &why);

    /* whoever the client says that it is, it has to be */

    if (rc == NGX_OK && auth->login.len
        && (auth->login.len != identity.len
            || ngx_memcmp(auth->login.data, identity.data, identity.len)
               != 0))
    {
        why = "its user is not the one that the client gave";
        rc = NGX_DECLINED;
    }

    if (rc == NGX_OK) {
        auth->told.login = identity;
    }

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_INFO, auth->client->connection->log, 0,
                      "token is none of \"policy_auth_jwt %V\": %s",
                      &jwt->name, why);
    }

    ngx_mail_policy_auth_answer(auth, rc);
}


#else /* !NGX_MAIL_POLICY_JANSSON */


ngx_int_t
ngx_mail_policy_auth_jwt(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "provider \"%V\" of \"policy_auth\": this build has "
                       "no jansson, build it with the library's development "
                       "package, libjansson-dev or jansson-devel", value);

    return NGX_ERROR;
}


char *
ngx_mail_policy_auth_jwt_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"policy_auth_jwt\": this build has no jansson, "
                       "build it with the library's development package, "
                       "libjansson-dev or jansson-devel");

    return NGX_CONF_ERROR;
}


#endif /* NGX_MAIL_POLICY_JANSSON */
