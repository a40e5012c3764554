
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The envelope: what is known of a session and its transaction, the same for
 * every front door.  Variables, limits, routes and the log read it; only the
 * front doors write it.  Strings live as long as the session (client, login)
 * or the transaction (sender, recipients).
 */


#ifndef NGX_MAIL_POLICY_ENVELOPE_H
#define NGX_MAIL_POLICY_ENVELOPE_H


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct ngx_mail_policy_record_s  ngx_mail_policy_record_t;


/* what one "policy_lookup" has found */
typedef struct ngx_mail_policy_found_value_s  ngx_mail_policy_found_value_t;

struct ngx_mail_policy_found_value_s {
    ngx_mail_policy_found_value_t  *next;
    ngx_uint_t                      n;      /* the lookup's number */
    ngx_str_t                       value;  /* data NULL: there is none */
};


/* what all of them have found for a session, a transaction, a recipient */
typedef struct ngx_mail_policy_found_s  ngx_mail_policy_found_t;

struct ngx_mail_policy_found_s {
    ngx_mail_policy_found_t        *wider;  /* where others are; or NULL */
    ngx_mail_policy_found_value_t  *values;
    uint64_t                        failed; /* mask: no memory for these */
};


typedef struct {
    /* session */

    ngx_connection_t   *connection;     /* client's: addresses, TLS */
    ngx_str_t           server_name;
    ngx_str_t           client_host;    /* PTR name; empty if unknown */
    ngx_str_t           helo;
    ngx_str_t           protocol;       /* SMTP, ESMTP, ESMTPS, ESMTPA ... */
    ngx_str_t           sasl_method;
    ngx_str_t           sasl_username;  /* empty: not authenticated */
    ngx_str_t           sasl_authzid;   /* whom it acts as; empty: itself */
    ngx_str_t           auth_relay;     /* its route, of its provider */
    ngx_str_t           sasl_password;  /* for relays, where proxy_smtp_auth
                                           is on; wiped with the session */
    ngx_uint_t          auth_failures;  /* logins that failed */

    off_t               bytes_received; /* by the client's connection, from
                                           the end of the transaction before
                                           to that of this one, or of the
                                           session */
    off_t               bytes_sent;

    /* transaction */

    ngx_mail_policy_record_t  *record;  /* what becomes of it; NULL: none */
    ngx_uint_t          transaction;    /* number within the session, from 1 */
    ngx_str_t           sender;         /* without brackets; empty for <> */
    ngx_str_t           sender_local;
    ngx_str_t           sender_domain;  /* lower case */
    ngx_str_t           recipient;      /* the one at hand */
    ngx_str_t           recipient_domain;
    ngx_uint_t          recipients;     /* accepted */
    ngx_uint_t          rejected_recipients;
    uint64_t            message_size;   /* declared, then counted */

    ngx_mail_policy_found_t  *found;    /* for the one at hand, or NULL */

    /* what limits said last */

    ngx_str_t           limit;          /* the one that was exceeded, or is
                                           nearest to it */
    ngx_str_t           verdict;        /* pass, defer, reject, ... */
    uint64_t            limit_remaining;    /* of it */
    uint64_t            retry_after;    /* seconds; 0: now, or unknown */
} ngx_mail_policy_envelope_t;


#endif /* NGX_MAIL_POLICY_ENVELOPE_H */
