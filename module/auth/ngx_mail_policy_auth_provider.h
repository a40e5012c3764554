
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Between auth and its providers.  A provider knows logins and their
 * hashes; it verifies nothing.
 *
 *     find -> answer(NGX_OK, hash)       knows the login
 *         |-> answer(NGX_DECLINED)       does not know it: the next is asked
 *         |-> answer(NGX_ERROR)          cannot tell now
 *         \-> cancel
 *
 * answer() may be called from within find().  It is the last thing that a
 * provider does with an auth.
 */


#ifndef NGX_MAIL_POLICY_AUTH_PROVIDER_H
#define NGX_MAIL_POLICY_AUTH_PROVIDER_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth.h"
#include "ngx_mail_policy_crypt.h"


/* for messages: what mpol_senders_check() lets in */
#define NGX_MAIL_POLICY_SENDERS_BOUNDS  "256 in 8192 octets"


typedef struct {
    ngx_str_t                      name;    /* as in the configuration */
    void                          *data;

    void                         (*find)(ngx_mail_policy_auth_t *auth,
                                         void *data);

    /* NULL if find() never waits */
    void                         (*cancel)(ngx_mail_policy_auth_t *auth);

    /* a hash that costs what those of this provider's logins cost */
    void                         (*dummy)(void *data, ngx_str_t *login,
                                          ngx_str_t *hash);

    unsigned                       records:1;   /* needs policy_redis */
} ngx_mail_policy_auth_provider_t;


struct ngx_mail_policy_auth_s {
    ngx_pool_t                       *pool;
    ngx_mail_policy_auth_conf_t      *conf;

    ngx_str_t                         login;
    ngx_str_t                         password;
    ngx_str_t                         senders;  /* of the login's record */

    ngx_log_t                        *log;
    ngx_mail_policy_auth_pt           handler;
    void                             *data;

    ngx_uint_t                        current;  /* provider's number */
    ngx_mail_policy_auth_provider_t  *provider;
    ngx_mail_policy_lookup_t         *lookup;   /* while one is under way */
    ngx_mail_policy_crypt_t          *crypt;    /* the same */

    ngx_int_t                         rc;
    ngx_event_t                       event;

    unsigned                          refuse:1; /* whatever the password */
};


/* the hash is copied; auth->senders, if there are any, are set before */
void ngx_mail_policy_auth_answer(ngx_mail_policy_auth_t *auth, ngx_int_t rc,
    ngx_str_t *hash);

/* "file:/path": reads the file */
ngx_int_t ngx_mail_policy_auth_file(ngx_conf_t *cf, ngx_str_t *path,
    ngx_mail_policy_auth_provider_t *provider);

/* "redis" */
ngx_int_t ngx_mail_policy_auth_redis(ngx_conf_t *cf,
    ngx_mail_policy_store_t *store,
    ngx_mail_policy_auth_provider_t *provider);


#endif /* NGX_MAIL_POLICY_AUTH_PROVIDER_H */
