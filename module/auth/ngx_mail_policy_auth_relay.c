
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "relay": the client's session has a relay decide, see
 * ..._cmd_auth_relay.c.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_auth_provider.h"


static void ngx_mail_policy_auth_relay_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_relay_cancel(ngx_mail_policy_auth_t *auth,
    void *data);


ngx_int_t
ngx_mail_policy_auth_relay(ngx_conf_t *cf,
    ngx_mail_policy_auth_provider_t *provider)
{
    provider->methods = NGX_MAIL_POLICY_METHODS_PASSWORD
                        |NGX_MAIL_POLICY_METHODS_TOKEN;

    provider->find = ngx_mail_policy_auth_relay_find;
    provider->cancel = ngx_mail_policy_auth_relay_cancel;
    provider->asks = 1;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_relay_find(ngx_mail_policy_auth_t *auth, void *data)
{
    auth->wait = auth->client;

    auth->client->ask_relay(auth->client->data, auth);
}


static void
ngx_mail_policy_auth_relay_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    auth->wait = NULL;

    auth->client->cancel_relay(auth->client->data);
}
