
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * EXTERNAL, RFC 4422, appendix A: the client is who its certificate says.
 *
 *   [334 ->] authzid -> ask -> admit -> find -> done
 *
 *   certificate = verified in this very handshake
 *   login       = its only e-mail address (subjectAltName, rfc822Name)
 *               | without one, the only common name of its subject
 *
 * Two of a kind are none: nobody knows which of them an authority has looked
 * at.  What the client says never becomes the login.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/x509v3.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_auth_provider.h"


static void ngx_mail_policy_mech_external_respond(
    ngx_mail_policy_auth_t *auth, ngx_str_t *message);
static ngx_int_t ngx_mail_policy_mech_external_login(
    ngx_mail_policy_auth_t *auth, ngx_str_t *login);
static ngx_int_t ngx_mail_policy_mech_external_email(X509 *cert,
    ngx_pool_t *pool, ngx_str_t *login);
static ngx_int_t ngx_mail_policy_mech_external_name(X509 *cert,
    ngx_pool_t *pool, ngx_str_t *login);
static ngx_int_t ngx_mail_policy_mech_external_text(ASN1_STRING *string,
    ngx_pool_t *pool, ngx_str_t *login);
static void ngx_mail_policy_mech_external_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_external = {
    ngx_mail_policy_mech_external_respond,
    ngx_mail_policy_auth_find,
    ngx_mail_policy_mech_external_record,
    NULL,
    NULL,
    NULL
};


ngx_uint_t
ngx_mail_policy_mech_external_verified(ngx_connection_t *c)
{
    X509  *cert;

    if (c->ssl == NULL
        || SSL_get_verify_result(c->ssl->connection) != X509_V_OK

        /* AUTH-11, TLS-6: of another handshake, maybe with another server */

        || SSL_session_reused(c->ssl->connection))
    {
        return 0;
    }

    cert = SSL_get_peer_certificate(c->ssl->connection);
    if (cert == NULL) {
        return 0;
    }

    X509_free(cert);

    return 1;
}


static void
ngx_mail_policy_mech_external_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_str_t  login, none;

    if (message == NULL) {
        ngx_mail_policy_auth_challenge(auth, NULL, 0);
        return;
    }

    if (!ngx_mail_policy_mech_external_verified(auth->client->connection)
        || ngx_mail_policy_mech_external_login(auth, &login) != NGX_OK
        || login.len == 0)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    if (message->len) {

        if (!mpol_identity_valid(message->data, message->len)) {
            ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
            return;
        }

        auth->authzid.data = ngx_pstrdup(auth->pool, message);
        if (auth->authzid.data == NULL) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        auth->authzid.len = message->len;
    }

    ngx_str_null(&none);

    ngx_mail_policy_auth_ask(auth, &login, &none);
}


static ngx_int_t
ngx_mail_policy_mech_external_login(ngx_mail_policy_auth_t *auth,
    ngx_str_t *login)
{
    X509       *cert;
    ngx_int_t   rc;

    ngx_str_null(login);

    cert = SSL_get_peer_certificate(auth->client->connection->ssl->connection);
    if (cert == NULL) {
        return NGX_DECLINED;
    }

    rc = ngx_mail_policy_mech_external_email(cert, auth->pool, login);

    if (rc == NGX_OK && login->len == 0) {
        rc = ngx_mail_policy_mech_external_name(cert, auth->pool, login);
    }

    X509_free(cert);

    return rc;
}


/* NGX_OK, with a login of no octets: it has no address */

static ngx_int_t
ngx_mail_policy_mech_external_email(X509 *cert, ngx_pool_t *pool,
    ngx_str_t *login)
{
    int             i, n;
    ngx_int_t       rc;
    GENERAL_NAME   *name;
    GENERAL_NAMES  *names;

    names = X509_get_ext_d2i(cert, NID_subject_alt_name, &n, NULL);

    if (names == NULL) {

        /* -1: there are none; else they cannot be read, or stand twice */

        return (n == -1) ? NGX_OK : NGX_DECLINED;
    }

    rc = NGX_OK;

    for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        name = sk_GENERAL_NAME_value(names, i);

        if (name->type != GEN_EMAIL) {
            continue;
        }

        if (login->len) {
            rc = NGX_DECLINED;
            break;
        }

        rc = ngx_mail_policy_mech_external_text(name->d.rfc822Name, pool,
                                                login);
        if (rc != NGX_OK) {
            break;
        }
    }

    GENERAL_NAMES_free(names);

    return rc;
}


static ngx_int_t
ngx_mail_policy_mech_external_name(X509 *cert, ngx_pool_t *pool,
    ngx_str_t *login)
{
    int         i;
    X509_NAME  *subject;

    subject = X509_get_subject_name(cert);

    i = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    if (i < 0
        || X509_NAME_get_index_by_NID(subject, NID_commonName, i) >= 0)
    {
        return NGX_DECLINED;
    }

    return ngx_mail_policy_mech_external_text(
                X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)),
                pool, login);
}


/* as UTF-8; what is no login is none, a NUL within least of all */

static ngx_int_t
ngx_mail_policy_mech_external_text(ASN1_STRING *string, ngx_pool_t *pool,
    ngx_str_t *login)
{
    int         len;
    u_char     *text;
    ngx_int_t   rc;

    len = ASN1_STRING_to_UTF8(&text, string);
    if (len < 0) {
        return NGX_DECLINED;
    }

    rc = NGX_DECLINED;

    if (mpol_identity_valid(text, len)) {
        login->data = ngx_pnalloc(pool, len);

        if (login->data) {
            ngx_memcpy(login->data, text, len);
            login->len = len;
            rc = NGX_OK;
        }
    }

    OPENSSL_free(text);

    return rc;
}


/* no password is asked for: that the login is known is enough */

static void
ngx_mail_policy_mech_external_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record)
{
    auth->told.login = auth->login;

    ngx_mail_policy_auth_proved(auth);
}
