
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directives proxy_* as they are written, for the files of conf/ that
 * make a ngx_mail_policy_relay_conf_t of them.
 */


#ifndef NGX_MAIL_POLICY_PROXY_H
#define NGX_MAIL_POLICY_PROXY_H


#include "ngx_mail_policy_directive.h"


typedef struct {
    ngx_msec_t                     connect_timeout;
    ngx_msec_t                     final_timeout;
    ngx_uint_t                     protocol_version;
    ngx_flag_t                     xclient_required;

    ngx_mail_policy_relay_login_t *login;       /* proxy_auth */
    ngx_uint_t                     auth_methods;
    ngx_flag_t                     auth_plaintext;

    ngx_addr_t                    *bind;
    ngx_mail_policy_value_t       *bind_value;  /* with variables */
    unsigned                       bind_transparent:1;
    unsigned                       bind_set:1;

    ngx_uint_t                     next_upstream;   /* NGX_MAIL_POLICY_NEXT_ */
    ngx_uint_t                     next_tries;
    ngx_msec_t                     next_timeout;

    ngx_flag_t                     ssl;
    ngx_uint_t                     starttls;    /* ..._STARTTLS_... */
    ngx_uint_t                     ssl_protocols;
    ngx_str_t                      ssl_ciphers;
    ngx_array_t                   *ssl_conf_commands;
    ngx_str_t                      ssl_certificate;
    ngx_str_t                      ssl_certificate_key;
    ngx_array_t                   *ssl_passwords;
    ngx_str_t                      ssl_name;
    ngx_flag_t                     ssl_server_name;
    ngx_flag_t                     ssl_session_reuse;
    ngx_flag_t                     ssl_verify;
    ngx_uint_t                     ssl_verify_depth;
    ngx_str_t                      ssl_trusted_certificate;
    ngx_str_t                      ssl_crl;

    ngx_mail_policy_relay_conf_t   relay;       /* what comes of it */
} ngx_mail_policy_proxy_conf_t;


/* "proxy_auth" */
char *ngx_mail_policy_proxy_auth(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_mail_policy_proxy_auth_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev);

/* behind proxy_ssl_init(); errors are logged */
ngx_int_t ngx_mail_policy_proxy_auth_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf);


/* "proxy_bind" */
char *ngx_mail_policy_proxy_bind(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_mail_policy_proxy_bind_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev);
ngx_int_t ngx_mail_policy_proxy_bind_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf);


/* "proxy_ssl_password_file" */
char *ngx_mail_policy_proxy_ssl_passwords(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

void ngx_mail_policy_proxy_ssl_create(ngx_mail_policy_proxy_conf_t *conf);
void ngx_mail_policy_proxy_ssl_merge(ngx_mail_policy_proxy_conf_t *conf,
    ngx_mail_policy_proxy_conf_t *prev);

/* of a server with policy: checks, and conf->relay; errors are logged */
ngx_int_t ngx_mail_policy_proxy_ssl_init(ngx_conf_t *cf,
    ngx_mail_policy_proxy_conf_t *conf);


#endif /* NGX_MAIL_POLICY_PROXY_H */
