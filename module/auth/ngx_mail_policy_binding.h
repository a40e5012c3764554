
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Channel bindings of a TLS connection: "tls-exporter" (RFC 9266) and
 * "tls-server-end-point" (RFC 5929, section 4).  "tls-unique" is none of
 * TLS 1.3, and is broken without extended master secrets: it is not known
 * here.
 */


#ifndef NGX_MAIL_POLICY_BINDING_H
#define NGX_MAIL_POLICY_BINDING_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


#define NGX_MAIL_POLICY_BINDING  64     /* octets of one, at most */


/* its octets in data; 0: unknown, or this connection has none */
size_t ngx_mail_policy_binding(ngx_connection_t *c, ngx_str_t *name,
    u_char *data);


#endif /* NGX_MAIL_POLICY_BINDING_H */
