
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * SCRAM-SHA-256 to a relay, RFC 5802 and RFC 7677.
 *
 *     client-first -> 334 server-first -> (keys, perhaps from a thread)
 *         client-final -> 334 server-final, verified -> 235
 *
 * The keys of our own logins are remembered, those of clients are not.
 *
 * Events: the end of a thread's work, through ngx_mail_policy_scram_start().
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "mpol_sasl.h"
#include "ngx_mail_policy_relay_auth.h"


static void ngx_mail_policy_relay_auth_keys(void *data,
    ngx_mail_policy_scram_keys_t *keys);
static ngx_int_t ngx_mail_policy_relay_auth_client_final(
    ngx_mail_policy_relay_auth_t *a, ngx_mail_policy_scram_keys_t *keys);


ngx_int_t
ngx_mail_policy_relay_auth_scram(ngx_mail_policy_relay_auth_t *a)
{
    size_t     n;
    ngx_str_t  random, nonce;
    u_char     octets[NGX_MAIL_POLICY_AUTH_NONCE / 4 * 3];
    u_char     buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    if (RAND_bytes(octets, sizeof(octets)) != 1) {
        return NGX_ERROR;
    }

    random.data = octets;
    random.len = sizeof(octets);
    nonce.data = a->nonce;

    ngx_encode_base64(&nonce, &random);

    n = mpol_scram_bare(a->user.data, a->user.len, a->nonce,
                        NGX_MAIL_POLICY_AUTH_NONCE, a->messages,
                        NGX_MAIL_POLICY_AUTH_MESSAGE - sizeof(MPOL_SCRAM_GS2));
    if (n == 0) {
        return NGX_ERROR;
    }

    ngx_memcpy(buf, MPOL_SCRAM_GS2, sizeof(MPOL_SCRAM_GS2) - 1);
    ngx_memcpy(buf + sizeof(MPOL_SCRAM_GS2) - 1, a->messages, n);

    a->messages[n] = ',';
    a->first_len = n + 1;

    return ngx_mail_policy_relay_auth_initial(a, buf,
                                              sizeof(MPOL_SCRAM_GS2) - 1 + n);
}


ngx_int_t
ngx_mail_policy_relay_auth_scram_first(ngx_mail_policy_relay_auth_t *a,
    ngx_str_t *message)
{
    u_char                        *p;
    size_t                         n;
    ngx_str_t                      salt;
    mpol_scram_server_t            server;
    ngx_mail_policy_relay_t       *relay;
    ngx_mail_policy_scram_keys_t  *keys;
    u_char                         buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    relay = a->relay;

    if (mpol_scram_server_first(message->data, message->len, a->nonce,
                                NGX_MAIL_POLICY_AUTH_NONCE, &server)
        != MPOL_OK
        || mpol_base64_decode(server.salt.data, server.salt.len, buf, &n)
           != MPOL_OK
        || n == 0 || n > NGX_MAIL_POLICY_SCRAM_SALT)
    {
        return ngx_mail_policy_relay_auth_bad(a, "SCRAM message");
    }

    /* too few give the password away, too many keep us busy */

    if (server.iterations < NGX_MAIL_POLICY_SCRAM_MIN
        || server.iterations > NGX_MAIL_POLICY_SCRAM_MAX)
    {
        return ngx_mail_policy_relay_auth_bad(a, "number of SCRAM iterations");
    }

    p = ngx_cpymem(a->messages + a->first_len, message->data, message->len);
    *p++ = ',';

    a->without = p - a->messages;

    p = ngx_cpymem(p, MPOL_SCRAM_BINDING, sizeof(MPOL_SCRAM_BINDING) - 1);
    p = ngx_cpymem(p, server.nonce.data, server.nonce.len);

    a->messages_len = p - a->messages;

    salt.data = buf;
    salt.len = n;

    keys = a->cache ? ngx_mail_policy_scram_find(a->cache, &salt,
                                                 server.iterations)
                    : NULL;

    if (keys) {
        return ngx_mail_policy_relay_auth_client_final(a, keys);
    }

    a->step = NGX_MAIL_POLICY_AUTH_KEYS;
    a->scram = ngx_mail_policy_scram_start(a->cache, relay->conf->thread_pool,
                                           &a->password, &salt,
                                           server.iterations,
                                           ngx_mail_policy_relay_auth_keys, a);
    if (a->scram == NULL) {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no thread to log in to the relay");
    }

    return NGX_OK;
}


static void
ngx_mail_policy_relay_auth_keys(void *data, ngx_mail_policy_scram_keys_t *keys)
{
    ngx_mail_policy_relay_auth_t *a = data;

    ngx_mail_policy_relay_t  *relay;

    relay = a->relay;
    a->scram = NULL;

    if (relay->failing) {
        return;
    }

    if (keys == NULL
        || ngx_mail_policy_relay_auth_client_final(a, keys) != NGX_OK)
    {
        ngx_mail_policy_relay_fail_as(relay, NGX_MAIL_POLICY_RELAY_OURSELVES,
                                      "no memory to log in to the relay");
        return;
    }

    ngx_mail_policy_relay_timers(relay);
    ngx_post_event(relay->pc.connection->write, &ngx_posted_events);
}


static ngx_int_t
ngx_mail_policy_relay_auth_client_final(ngx_mail_policy_relay_auth_t *a,
    ngx_mail_policy_scram_keys_t *keys)
{
    u_char     *p;
    ngx_str_t   messages, proof, text;
    u_char      hash[NGX_MAIL_POLICY_SCRAM_HASH];
    u_char      buf[NGX_MAIL_POLICY_AUTH_MESSAGE];

    messages.data = a->messages;
    messages.len = a->messages_len;

    if (ngx_mail_policy_scram_sign(keys, &messages, hash, a->signature)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_cpymem(buf, a->messages + a->without,
                   a->messages_len - a->without);
    p = ngx_cpymem(p, ",p=", 3);

    proof.data = hash;
    proof.len = NGX_MAIL_POLICY_SCRAM_HASH;
    text.data = p;

    ngx_encode_base64(&text, &proof);

    a->step = NGX_MAIL_POLICY_AUTH_FINAL;

    return ngx_mail_policy_relay_auth_say(a, buf, p + text.len - buf);
}


/* who does not know the password cannot give it */

ngx_int_t
ngx_mail_policy_relay_auth_scram_final(ngx_mail_policy_relay_auth_t *a,
    ngx_str_t *message)
{
    size_t      n;
    u_char      buf[NGX_MAIL_POLICY_AUTH_MESSAGE];
    mpol_str_t  signature;

    if (mpol_scram_server_final(message->data, message->len, &signature)
        != MPOL_OK
        || mpol_base64_decode(signature.data, signature.len, buf, &n)
           != MPOL_OK
        || n != NGX_MAIL_POLICY_SCRAM_HASH
        || CRYPTO_memcmp(buf, a->signature, NGX_MAIL_POLICY_SCRAM_HASH) != 0)
    {
        return ngx_mail_policy_relay_auth_bad(a, "signature: it does not know "
                                                 "the password");
    }

    a->step = NGX_MAIL_POLICY_AUTH_SENT;

    return ngx_mail_policy_relay_auth_say(a, NULL, 0);
}
