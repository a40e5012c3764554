
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * CRAM-MD5, RFC 2195: a proof of the password, which the record has to have
 * in clear.
 *
 *   334 challenge -> login and digest -> ask -> admit -> find -> record
 *
 * No events arrive here: a digest takes a microsecond.  A login that cannot
 * be tried so is compared with what nobody has, and refused.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_auth_provider.h"


#define NGX_MAIL_POLICY_CRAM_MD5  16


static void ngx_mail_policy_mech_cram_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message);
static ngx_int_t ngx_mail_policy_mech_cram_salt(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_cram_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_mech_cram_unknown(ngx_mail_policy_auth_t *auth);
static void ngx_mail_policy_mech_cram_verify(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash);


ngx_mail_policy_mech_t  ngx_mail_policy_mech_cram_md5 = {
    ngx_mail_policy_mech_cram_respond,
    ngx_mail_policy_auth_find,
    ngx_mail_policy_mech_cram_record,
    ngx_mail_policy_mech_cram_unknown,
    NULL,
    NULL
};


static void
ngx_mail_policy_mech_cram_respond(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message)
{
    ngx_str_t    login, digest;
    mpol_cram_t  cram;

    if (message == NULL && auth->salt.len == 0) {

        if (ngx_mail_policy_mech_cram_salt(auth) != NGX_OK) {
            ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
            return;
        }

        ngx_mail_policy_auth_challenge(auth, auth->salt.data, auth->salt.len);
        return;
    }

    /* RFC 4954, section 4: the server speaks first */

    if (auth->salt.len == 0) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED,
                                  "501 5.7.0 No initial response, please");
        return;
    }

    if (mpol_cram_parse(message->data, message->len, &cram) != MPOL_OK) {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    login.data = (u_char *) cram.login.data;
    login.len = cram.login.len;

    digest.data = (u_char *) cram.digest.data;
    digest.len = cram.digest.len;

    ngx_mail_policy_auth_ask(auth, &login, &digest);
}


/* "<random.time@host>", RFC 2195, section 2 */

static ngx_int_t
ngx_mail_policy_mech_cram_salt(ngx_mail_policy_auth_t *auth)
{
    size_t  len;
    u_char  random[16], hex[2 * sizeof(random)];

    len = sizeof("<.@>") - 1 + sizeof(hex) + NGX_TIME_T_LEN
          + ngx_cycle->hostname.len;

    auth->salt.data = ngx_pnalloc(auth->pool, len);

    if (auth->salt.data == NULL || RAND_bytes(random, sizeof(random)) != 1) {
        return NGX_ERROR;
    }

    ngx_hex_dump(hex, random, sizeof(random));

    auth->salt.len = ngx_sprintf(auth->salt.data, "<%*s.%T@%V>", sizeof(hex),
                                 hex, ngx_time(), &ngx_cycle->hostname)
                     - auth->salt.data;

    return NGX_OK;
}


static void
ngx_mail_policy_mech_cram_record(ngx_mail_policy_auth_t *auth,
    ngx_mail_policy_auth_record_t *record)
{
    if (record->hash.len == 0 && !auth->suspended) {
        ngx_mail_policy_auth_next(auth);
        return;
    }

    if (!ngx_mail_policy_crypt_plain(&record->hash)) {
        ngx_mail_policy_mech_cram_unknown(auth);
        return;
    }

    ngx_mail_policy_mech_cram_verify(auth, &record->hash);
}


static void
ngx_mail_policy_mech_cram_unknown(ngx_mail_policy_auth_t *auth)
{
    ngx_str_t  hash;

    auth->refuse = 1;
    auth->suspended = 0;

    ngx_str_set(&hash, NGX_MAIL_POLICY_CRYPT_PLAIN "unknown");

    ngx_mail_policy_mech_cram_verify(auth, &hash);
}


static void
ngx_mail_policy_mech_cram_verify(ngx_mail_policy_auth_t *auth,
    ngx_str_t *hash)
{
    size_t  n;
    u_char  md[EVP_MAX_MD_SIZE], hex[2 * NGX_MAIL_POLICY_CRAM_MD5];

    n = sizeof(NGX_MAIL_POLICY_CRYPT_PLAIN) - 1;

    if (HMAC(EVP_md5(), hash->data + n, hash->len - n, auth->salt.data,
             auth->salt.len, md, NULL)
        == NULL)
    {
        ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                      "CRAM-MD5 failed: this OpenSSL has no MD5");
        ngx_mail_policy_auth_done(auth, NGX_ERROR, NULL);
        return;
    }

    ngx_hex_dump(hex, md, NGX_MAIL_POLICY_CRAM_MD5);

    if (auth->password.len != sizeof(hex)
        || CRYPTO_memcmp(hex, auth->password.data, sizeof(hex)) != 0)
    {
        ngx_mail_policy_auth_done(auth, NGX_DECLINED, NULL);
        return;
    }

    ngx_mail_policy_auth_proved(auth);
}
