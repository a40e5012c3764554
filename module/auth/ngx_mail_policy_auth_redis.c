
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "redis": records that operators write.
 *
 *     HSET mail:user:{alice@example.com} password '$6$...' [status active]
 *          [senders 'a@example.com @example.net'] [message '...'] [relay ...]
 *
 * Behind "mail:" the key is the login as it is, in its case, with octets
 * outside 33..126 and any of "{}%" as %XX.  For status, message and relay see
 * ngx_mail_policy_auth_field.h.  All fields are asked for with the password,
 * as a change of them is in force with the next login.
 *
 * Events: the store's answer to a lookup, once.
 *
 *     find -> lookup under way -> answer
 *                            \-> cancel
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sender.h"
#include "ngx_mail_policy_auth_field.h"
#include "ngx_mail_policy_auth_provider.h"


/* a setting has no hash in it; formats and salts that we let in are shorter */
#define NGX_MAIL_POLICY_AUTH_SETTING                                          \
    (128 + sizeof(NGX_MAIL_POLICY_CRYPT_NO_KEYS) - 1)

/* seconds between two complaints about records */
#define NGX_MAIL_POLICY_AUTH_LOG      60


typedef struct {
    size_t                            len;          /* 0: none */
    u_char                            data[NGX_MAIL_POLICY_AUTH_SETTING];
} ngx_mail_policy_auth_setting_t;


typedef struct {
    ngx_mail_policy_store_t          *store;

    /*
     * Each worker's own: what its last readable record costs, of those with
     * passwords, and of those that SCRAM has a use for.
     */
    ngx_mail_policy_auth_setting_t    passwords;
    ngx_mail_policy_auth_setting_t    keys;

    time_t                            logged;
} ngx_mail_policy_auth_redis_t;


static void ngx_mail_policy_auth_redis_find(ngx_mail_policy_auth_t *auth,
    void *data);
static ngx_int_t ngx_mail_policy_auth_redis_key(ngx_pool_t *pool,
    ngx_str_t *login, ngx_str_t *key);
static void ngx_mail_policy_auth_redis_handler(void *data,
    ngx_mail_policy_lookup_t *lookup);
static ngx_int_t ngx_mail_policy_auth_redis_judge(
    ngx_mail_policy_auth_t *auth, ngx_str_t *values,
    ngx_mail_policy_auth_record_t *record);
static ngx_int_t ngx_mail_policy_auth_redis_password(
    ngx_mail_policy_auth_t *auth, ngx_str_t *password,
    ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_auth_redis_senders(ngx_mail_policy_auth_t *auth,
    ngx_str_t *senders, ngx_mail_policy_auth_record_t *record);
static ngx_int_t ngx_mail_policy_auth_redis_relay(
    ngx_mail_policy_auth_t *auth, ngx_str_t *relay,
    ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_auth_redis_message(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, ngx_mail_policy_auth_record_t *record);
static void ngx_mail_policy_auth_redis_remember(
    ngx_mail_policy_auth_redis_t *redis, ngx_str_t *hash);
static void ngx_mail_policy_auth_redis_set(
    ngx_mail_policy_auth_setting_t *setting, ngx_str_t *hash);
static void ngx_mail_policy_auth_redis_unreadable(
    ngx_mail_policy_auth_t *auth, const char *what);
static void ngx_mail_policy_auth_redis_cancel(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_redis_dummy(ngx_mail_policy_auth_t *auth,
    void *data, ngx_str_t *hash);


static ngx_str_t  ngx_mail_policy_auth_redis_fields[] = {
    ngx_string("password"),
    ngx_string("status"),
    ngx_string("senders"),
    ngx_string("message"),
    ngx_string("relay")
};

enum {
    NGX_MAIL_POLICY_AUTH_REDIS_PASSWORD = 0,
    NGX_MAIL_POLICY_AUTH_REDIS_STATUS,
    NGX_MAIL_POLICY_AUTH_REDIS_SENDERS,
    NGX_MAIL_POLICY_AUTH_REDIS_MESSAGE,
    NGX_MAIL_POLICY_AUTH_REDIS_RELAY
};

#define NGX_MAIL_POLICY_AUTH_FIELDS                                           \
    (sizeof(ngx_mail_policy_auth_redis_fields) / sizeof(ngx_str_t))


ngx_int_t
ngx_mail_policy_auth_redis(ngx_conf_t *cf, ngx_mail_policy_store_t *store,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_mail_policy_auth_redis_t  *redis;

    redis = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_redis_t));
    if (redis == NULL) {
        return NGX_ERROR;
    }

    redis->store = store;

    provider->data = redis;
    provider->find = ngx_mail_policy_auth_redis_find;
    provider->cancel = ngx_mail_policy_auth_redis_cancel;
    provider->dummy = ngx_mail_policy_auth_redis_dummy;
    provider->methods = NGX_MAIL_POLICY_METHODS_RECORDS;
    provider->records = 1;
    provider->redis = 1;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_redis_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_redis_t *redis = data;

    ngx_mail_policy_lookup_t  *lookup;

    lookup = ngx_mail_policy_lookup_create(redis->store,
                                           NGX_MAIL_POLICY_AUTH_FIELDS,
                                           ngx_mail_policy_auth_redis_handler,
                                           auth);
    if (lookup == NULL) {
        ngx_mail_policy_auth_record(auth, NGX_ERROR, NULL);
        return;
    }

    if (ngx_mail_policy_auth_redis_key(lookup->pool, &auth->login,
                                       &lookup->key)
        != NGX_OK)
    {
        ngx_mail_policy_lookup_cancel(lookup);
        ngx_mail_policy_auth_record(auth, NGX_ERROR, NULL);
        return;
    }

    lookup->fields = ngx_mail_policy_auth_redis_fields;
    auth->wait = lookup;

    ngx_mail_policy_lookup_send(lookup);
}


/*
 * mpol_key_escape() is not for logins: it gives one key to names that differ
 * in case only, and a login would have as many names as it has letters.
 */

static ngx_int_t
ngx_mail_policy_auth_redis_key(ngx_pool_t *pool, ngx_str_t *login,
    ngx_str_t *key)
{
    u_char  *p, *in, *last, ch;

    static u_char  hex[] = "0123456789ABCDEF";

    p = ngx_pnalloc(pool, sizeof("user:{}") - 1 + 3 * login->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    key->data = p;

    p = ngx_cpymem(p, "user:{", sizeof("user:{") - 1);

    last = login->data + login->len;

    for (in = login->data; in < last; in++) {
        ch = *in;

        if (ch > ' ' && ch < 127 && ch != '{' && ch != '}' && ch != '%') {
            *p++ = ch;
            continue;
        }

        *p++ = '%';
        *p++ = hex[ch >> 4];
        *p++ = hex[ch & 0xf];
    }

    *p++ = '}';

    key->len = p - key->data;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_redis_handler(void *data,
    ngx_mail_policy_lookup_t *lookup)
{
    ngx_mail_policy_auth_t *auth = data;

    ngx_int_t                      rc;
    ngx_mail_policy_auth_record_t  record;

    rc = NGX_ERROR;
    ngx_memzero(&record, sizeof(ngx_mail_policy_auth_record_t));

    if (lookup->rc == NGX_OK) {
        rc = ngx_mail_policy_auth_redis_judge(auth, lookup->values, &record);

    } else if (lookup->rc == NGX_DECLINED) {
        ngx_mail_policy_auth_redis_unreadable(auth, "is not a hash, delete "
                                              "it");
    }

    ngx_mail_policy_auth_record(auth, rc, &record);

    /* the hash was in there */

    ngx_mail_policy_lookup_done(lookup);
}


/* what is not there has no data */

static ngx_int_t
ngx_mail_policy_auth_redis_judge(ngx_mail_policy_auth_t *auth,
    ngx_str_t *values, ngx_mail_policy_auth_record_t *record)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_AUTH_FIELDS; i++) {
        if (values[i].data) {
            break;
        }
    }

    if (i == NGX_MAIL_POLICY_AUTH_FIELDS) {
        return NGX_DECLINED;
    }

    record->suspended = ngx_mail_policy_auth_field_suspends(
                                  &values[NGX_MAIL_POLICY_AUTH_REDIS_STATUS]);

    if (ngx_mail_policy_auth_redis_password(auth,
                          &values[NGX_MAIL_POLICY_AUTH_REDIS_PASSWORD], record)
        != NGX_OK
        || ngx_mail_policy_auth_redis_relay(auth,
                          &values[NGX_MAIL_POLICY_AUTH_REDIS_RELAY], record)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_auth_redis_senders(auth,
                          &values[NGX_MAIL_POLICY_AUTH_REDIS_SENDERS], record);
    ngx_mail_policy_auth_redis_message(auth,
                          &values[NGX_MAIL_POLICY_AUTH_REDIS_MESSAGE], record);

    return NGX_OK;
}


/*
 * The mechanism decides what a record without a password is good for.  Who is
 * suspended is so, whatever stands there.
 */

static ngx_int_t
ngx_mail_policy_auth_redis_password(ngx_mail_policy_auth_t *auth,
    ngx_str_t *password, ngx_mail_policy_auth_record_t *record)
{
    if (password->data == NULL) {
        return NGX_OK;
    }

    if (ngx_mail_policy_crypt_check(password) == NGX_OK) {
        ngx_mail_policy_auth_redis_remember(auth->provider->data, password);
        record->hash = *password;
        return NGX_OK;
    }

    if (record->suspended) {
        return NGX_OK;
    }

    ngx_mail_policy_auth_redis_unreadable(auth,
                       "has a password of an unknown format, incomplete or "
                       "too costly, expected " NGX_MAIL_POLICY_CRYPT_FORMATS);
    return NGX_ERROR;
}


/* a list that is too long owns nothing: the login has its own address */

static void
ngx_mail_policy_auth_redis_senders(ngx_mail_policy_auth_t *auth,
    ngx_str_t *senders, ngx_mail_policy_auth_record_t *record)
{
    if (senders->data == NULL || senders->len == 0) {
        return;
    }

    switch (mpol_senders_check(senders->data, senders->len)) {

    case MPOL_SENDERS_LONG:
        ngx_mail_policy_auth_redis_unreadable(auth,
                        "has too many senders: at most "
                        NGX_MAIL_POLICY_SENDERS_BOUNDS ", none is used");
        return;

    case MPOL_SENDERS_ENTRY:
        ngx_mail_policy_auth_redis_unreadable(auth,
                        "has a sender that is neither an address nor "
                        "\"@domain\", it is skipped");
        break;

    default: /* MPOL_OK */
        break;
    }

    record->senders = *senders;
}


/* rather no login than mail that goes where it is not meant to */

static ngx_int_t
ngx_mail_policy_auth_redis_relay(ngx_mail_policy_auth_t *auth,
    ngx_str_t *relay, ngx_mail_policy_auth_record_t *record)
{
    if (relay->data == NULL || relay->len == 0) {
        return NGX_OK;
    }

    if (!ngx_mail_policy_auth_field_relay(relay)) {
        ngx_mail_policy_auth_redis_unreadable(auth,
                        "has a relay that is neither \"host:port\" nor the "
                        "name of an \"upstream\"");
        return NGX_ERROR;
    }

    record->relay = *relay;

    return NGX_OK;
}


static void
ngx_mail_policy_auth_redis_message(ngx_mail_policy_auth_t *auth,
    ngx_str_t *message, ngx_mail_policy_auth_record_t *record)
{
    if (message->data == NULL || message->len == 0) {
        return;
    }

    if (!ngx_mail_policy_auth_field_message(message)) {
        ngx_mail_policy_auth_redis_unreadable(auth,
                        "has a message that is not 1 to 200 printable "
                        "characters of ASCII, it is not used");
        return;
    }

    record->message = *message;
}


static void
ngx_mail_policy_auth_redis_remember(ngx_mail_policy_auth_redis_t *redis,
    ngx_str_t *hash)
{
    ngx_mail_policy_crypt_kind_e     kind;
    ngx_mail_policy_auth_setting_t  *setting;

    kind = ngx_mail_policy_crypt_kind(hash);

    /* among hashes, the odd password in clear shall not set the time */

    setting = &redis->passwords;

    if (setting->len == 0 || setting->data[0] != '$'
        || kind == NGX_MAIL_POLICY_CRYPT_PASSWORD)
    {
        ngx_mail_policy_auth_redis_set(setting, hash);
    }

    setting = &redis->keys;

    if (kind == NGX_MAIL_POLICY_CRYPT_KEYS
        || (kind == NGX_MAIL_POLICY_CRYPT_CLEAR
            && (setting->len == 0
                || setting->data[1] == NGX_MAIL_POLICY_CRYPT_PLAIN[1])))
    {
        ngx_mail_policy_auth_redis_set(setting, hash);
    }
}


static void
ngx_mail_policy_auth_redis_set(ngx_mail_policy_auth_setting_t *setting,
    ngx_str_t *hash)
{
    size_t   len;
    u_char  *p;

    len = ngx_mail_policy_crypt_setting(hash);

    if (len > NGX_MAIL_POLICY_AUTH_SETTING
              - (sizeof(NGX_MAIL_POLICY_CRYPT_NO_KEYS) - 1))
    {
        return;
    }

    p = ngx_cpymem(setting->data, hash->data, len);

    if (ngx_mail_policy_crypt_kind(hash) == NGX_MAIL_POLICY_CRYPT_KEYS) {
        p = ngx_cpymem(p, NGX_MAIL_POLICY_CRYPT_NO_KEYS,
                       sizeof(NGX_MAIL_POLICY_CRYPT_NO_KEYS) - 1);
    }

    setting->len = p - setting->data;
}


static void
ngx_mail_policy_auth_redis_unreadable(ngx_mail_policy_auth_t *auth,
    const char *what)
{
    time_t                         now;
    ngx_mail_policy_auth_redis_t  *redis;

    now = ngx_time();
    redis = auth->provider->data;

    if (redis->logged && now - redis->logged < NGX_MAIL_POLICY_AUTH_LOG) {
        return;
    }

    redis->logged = now;

    ngx_log_error(NGX_LOG_ERR, auth->log, 0,
                  "the record of login \"%V\" in Redis %s",
                  &auth->login, what);
}


static void
ngx_mail_policy_auth_redis_cancel(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_lookup_cancel(auth->wait);

    auth->wait = NULL;
}


static void
ngx_mail_policy_auth_redis_dummy(ngx_mail_policy_auth_t *auth, void *data,
    ngx_str_t *hash)
{
    ngx_mail_policy_auth_redis_t *redis = data;

    ngx_mail_policy_crypt_kind_e     kind;
    ngx_mail_policy_auth_setting_t  *setting;

    kind = ngx_mail_policy_auth_field_kind(auth->method);

    setting = (kind == NGX_MAIL_POLICY_CRYPT_PASSWORD) ? &redis->passwords
                                                       : &redis->keys;

    if (kind == NGX_MAIL_POLICY_CRYPT_CLEAR || setting->len == 0) {
        ngx_mail_policy_auth_field_dummy(kind, hash);
        return;
    }

    hash->data = setting->data;
    hash->len = setting->len;
}
