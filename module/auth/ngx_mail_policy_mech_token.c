
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * XOAUTH2 and OAUTHBEARER (RFC 7628): the client has a token, which a
 * provider verifies.
 *
 *   [334 ->] login and token -> ask -> admit -> find -> done
 *                                                 \-> 334 why -> done
 *
 * No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_token.h"
#include "ngx_mail_policy_auth_provider.h"


/* RFC 7628, section 3.2.2; what else there is to say is the provider's */
#define NGX_MAIL_POLICY_MECH_TOKEN_REFUSED  "{\"status\":\"invalid_token\"}"


static void ngx_mail_policy_mech_xoauth2_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static void ngx_mail_policy_mech_oauthbearer_respond(
    ngx_mail_policy_auth_t *auth, ngx_str_t *message);
static void ngx_mail_policy_mech_token_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, int (*parse)(uint8_t *, size_t, mpol_token_t *));
static void ngx_mail_policy_mech_token_answered(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_xoauth2 = {
    ngx_mail_policy_mech_xoauth2_respond,
    ngx_mail_policy_auth_find,
    NULL,
    NULL,
    ngx_mail_policy_mech_token_answered,
    NULL
};


ngx_mail_policy_mech_t  ngx_mail_policy_mech_oauthbearer = {
    ngx_mail_policy_mech_oauthbearer_respond,
    ngx_mail_policy_auth_find,
    NULL,
    NULL,
    ngx_mail_policy_mech_token_answered,
    NULL
};


static void
ngx_mail_policy_mech_xoauth2_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_mail_policy_mech_token_respond(auth, message, mpol_xoauth2_parse);
}


static void
ngx_mail_policy_mech_oauthbearer_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_mail_policy_mech_token_respond(auth, message, mpol_oauthbearer_parse);
}


static void
ngx_mail_policy_mech_token_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, int (*parse)(uint8_t *, size_t, mpol_token_t *))
{
    ngx_str_t     login, secret;
    mpol_token_t  token;

    /* the client has seen why: RFC 7628 asks it for one more message */

    if (auth->ctx) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, NULL, 0);
        return;
    }

    if (parse(message->data, message->len, &token) != MPOL_OK) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    login.data = (u_char *) token.user.data;
    login.len = token.user.len;

    secret.data = (u_char *) token.token.data;
    secret.len = token.token.len;

    ngx_mail_policy_auth_ask(auth, &login, &secret);
}


static void
ngx_mail_policy_mech_token_answered(ngx_mail_policy_auth_t *auth,
    ngx_int_t rc)
{
    ngx_str_t  *error;

    if (rc == NGX_OK && auth->told.password.len == 0) {
        auth->told.password = auth->password;
    }

    if (rc != NGX_DECLINED) {
        ngx_mail_policy_auth_done(auth, rc, NULL);
        return;
    }

    error = &auth->told.sasl_error;

    if (error->len == 0) {
        ngx_str_set(error, NGX_MAIL_POLICY_MECH_TOKEN_REFUSED);
    }

    auth->ctx = auth;
    auth->told.rc = NGX_DECLINED;

    ngx_mail_policy_auth_challenge(auth, error->data, error->len);
}
