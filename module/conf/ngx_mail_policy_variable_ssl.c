
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Variables of the client's TLS, empty without it.  STARTTLS may come after
 * AUTH, so they have their lasting value at MAIL.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


/* as ngx_ssl_get_...() */
typedef ngx_int_t (*ngx_mail_policy_ssl_pt)(ngx_connection_t *c,
    ngx_pool_t *pool, ngx_str_t *s);


static ngx_int_t ngx_mail_policy_variable_ssl_static(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_ssl(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);


ngx_mail_policy_variable_t  ngx_mail_policy_ssl_variables[] = {

    { ngx_string("ssl_protocol"), ngx_mail_policy_variable_ssl_static,
      (uintptr_t) ngx_ssl_get_protocol, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("ssl_cipher"), ngx_mail_policy_variable_ssl_static,
      (uintptr_t) ngx_ssl_get_cipher_name, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("ssl_client_verify"), ngx_mail_policy_variable_ssl,
      (uintptr_t) ngx_ssl_get_client_verify, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("ssl_client_s_dn"), ngx_mail_policy_variable_ssl,
      (uintptr_t) ngx_ssl_get_subject_dn, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("ssl_client_fingerprint"), ngx_mail_policy_variable_ssl,
      (uintptr_t) ngx_ssl_get_fingerprint, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_null_string, NULL, 0, 0 }
};


/* these give a string of OpenSSL's, and no length */

static ngx_int_t
ngx_mail_policy_variable_ssl_static(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_mail_policy_ssl_pt  get = (ngx_mail_policy_ssl_pt) data;

    ngx_str_null(out);

    if (envelope->connection->ssl == NULL) {
        return NGX_OK;
    }

    (void) get(envelope->connection, NULL, out);

    if (out->data) {
        out->len = ngx_strlen(out->data);
    }

    return NGX_OK;
}


/* what there is not, or no memory for, is empty */

static ngx_int_t
ngx_mail_policy_variable_ssl(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_mail_policy_ssl_pt  get = (ngx_mail_policy_ssl_pt) data;

    ngx_str_null(out);

    if (envelope->connection->ssl
        && get(envelope->connection, pool, out) != NGX_OK)
    {
        ngx_str_null(out);
    }

    return NGX_OK;
}
