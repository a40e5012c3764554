
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* No events arrive here. */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/x509.h>

#include "ngx_mail_policy_binding.h"


#define NGX_MAIL_POLICY_BINDING_EXPORTER  32
#define NGX_MAIL_POLICY_BINDING_LABEL     "EXPORTER-Channel-Binding"


static size_t ngx_mail_policy_binding_exporter(SSL *ssl, u_char *data);
static size_t ngx_mail_policy_binding_end_point(SSL *ssl, u_char *data);


size_t
ngx_mail_policy_binding(ngx_connection_t *c, ngx_str_t *name, u_char *data)
{
    if (c->ssl == NULL) {
        return 0;
    }

    if (name->len == sizeof("tls-exporter") - 1
        && ngx_memcmp(name->data, "tls-exporter", name->len) == 0)
    {
        return ngx_mail_policy_binding_exporter(c->ssl->connection, data);
    }

    if (name->len == sizeof("tls-server-end-point") - 1
        && ngx_memcmp(name->data, "tls-server-end-point", name->len) == 0)
    {
        return ngx_mail_policy_binding_end_point(c->ssl->connection, data);
    }

    return 0;
}


/* RFC 9266, section 4.2: before TLS 1.3 it takes extended master secrets */

static size_t
ngx_mail_policy_binding_exporter(SSL *ssl, u_char *data)
{
    if (SSL_version(ssl) < TLS1_3_VERSION
        && SSL_get_extms_support(ssl) != 1)
    {
        return 0;
    }

    if (SSL_export_keying_material(ssl, data,
                                   NGX_MAIL_POLICY_BINDING_EXPORTER,
                                   NGX_MAIL_POLICY_BINDING_LABEL,
                                   sizeof(NGX_MAIL_POLICY_BINDING_LABEL) - 1,
                                   NULL, 0, 0)
        != 1)
    {
        ERR_clear_error();
        return 0;
    }

    return NGX_MAIL_POLICY_BINDING_EXPORTER;
}


/*
 * The hash of our certificate, by the hash that its signature is made with;
 * SHA-256 in the place of those that are broken.
 */

static size_t
ngx_mail_policy_binding_end_point(SSL *ssl, u_char *data)
{
    int            nid;
    X509          *cert;
    unsigned int   len;
    const EVP_MD  *md;

    cert = SSL_get_certificate(ssl);

    if (cert == NULL
        || X509_get_signature_info(cert, &nid, NULL, NULL, NULL) != 1
        || nid == NID_undef)
    {
        ERR_clear_error();
        return 0;
    }

    if (nid == NID_md5 || nid == NID_sha1 || nid == NID_md5_sha1) {
        nid = NID_sha256;
    }

    md = EVP_get_digestbynid(nid);

    if (md == NULL
        || EVP_MD_size(md) > NGX_MAIL_POLICY_BINDING
        || X509_digest(cert, md, data, &len) != 1)
    {
        ERR_clear_error();
        return 0;
    }

    return len;
}
