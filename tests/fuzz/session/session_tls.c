
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * TLS of the client: a certificate for nginx, made anew for each process, and
 * the client's side of the handshake.
 */


#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "session.h"


static int session_tls_result(SSL *ssl, int n);


static SSL_CTX  *session_ctx;
static SSL      *session_ssl;


void
session_tls_certificate(const char *certificate, const char *key)
{
    FILE       *f;
    X509       *x509;
    EVP_PKEY   *pkey;
    X509_NAME  *name;

    pkey = EVP_EC_gen("P-256");
    x509 = X509_new();

    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), 0);
    X509_gmtime_adj(X509_getm_notAfter(x509), 86400L * 365);
    X509_set_pubkey(x509, pkey);

    name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               (const unsigned char *) "mail.test", -1, -1,
                               0);
    X509_set_issuer_name(x509, name);

    if (X509_sign(x509, pkey, EVP_sha256()) == 0) {
        SESSION_DIE("no certificate");
    }

    f = fopen(certificate, "w");
    PEM_write_X509(f, x509);
    fclose(f);

    f = fopen(key, "w");
    PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL);
    fclose(f);

    X509_free(x509);
    EVP_PKEY_free(pkey);

    session_ctx = SSL_CTX_new(TLS_client_method());

    if (session_ctx == NULL) {
        SESSION_DIE("no SSL_CTX");
    }

    SSL_CTX_set_mode(session_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE
                                  |SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}


void
session_tls_begin(int fd)
{
    if (session_ssl) {
        return;
    }

    session_ssl = SSL_new(session_ctx);

    if (session_ssl == NULL || SSL_set_fd(session_ssl, fd) == 0) {
        SESSION_DIE("no SSL");
    }

    SSL_set_connect_state(session_ssl);

    (void) session_tls_result(session_ssl, SSL_do_handshake(session_ssl));
}


unsigned
session_tls_on(void)
{
    return session_ssl != NULL;
}


/* octets, 0: the end, -1: not now */

int
session_tls_read(void *buf, size_t len)
{
    return session_tls_result(session_ssl,
                              SSL_read(session_ssl, buf, (int) len));
}


int
session_tls_write(const void *buf, size_t len)
{
    return session_tls_result(session_ssl,
                              SSL_write(session_ssl, buf, (int) len));
}


/* close_notify; what is sent then is in the clear */

void
session_tls_notify(void)
{
    if (session_ssl && SSL_is_init_finished(session_ssl)) {
        (void) session_tls_result(session_ssl, SSL_shutdown(session_ssl));
    }
}


void
session_tls_end(void)
{
    if (session_ssl) {
        SSL_free(session_ssl);
        session_ssl = NULL;
    }
}


/* nginx wonders about errors that are not its own */

static int
session_tls_result(SSL *ssl, int n)
{
    int  error;

    error = (n > 0) ? SSL_ERROR_NONE : SSL_get_error(ssl, n);

    ERR_clear_error();

    switch (error) {

    case SSL_ERROR_NONE:
        return n;

    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -1;

    default:
        return 0;
    }
}
