
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Mail that an edge in front of Postfix has charged: "policy_edge".
 *
 *     xclient    sasl_method=XCLIENT: Postfix says so of a login that XCLIENT
 *                has told it, and of no other
 *     network    client_address: an edge that does not speak XCLIENT
 *     server=    server_address, server_port: what XCLIENT has told, or where
 *                the client has connected to Postfix itself
 *
 * Values are compared as Postfix writes them.  What is missing, or cannot be
 * read, is no sign of an edge, and the mail is charged.  No events arrive
 * here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_postfix.h"


static ngx_uint_t ngx_mail_policy_postfix_edge_client(
    ngx_mail_policy_postfix_t *s, ngx_pool_t *pool);
static ngx_uint_t ngx_mail_policy_postfix_edge_server(
    ngx_mail_policy_postfix_t *s, ngx_pool_t *pool);


ngx_uint_t
ngx_mail_policy_postfix_edge(ngx_mail_policy_postfix_t *s, ngx_pool_t *pool)
{
    ngx_mail_policy_edge_conf_t  *edge;

    edge = s->conf->edge;

    if (edge == NULL) {
        return 0;
    }

    return (edge->xclient
            && ngx_mail_policy_postfix_is(s, MPOL_ATTR_SASL_METHOD,
                                          "XCLIENT"))
           || (edge->networks.nelts
               && ngx_mail_policy_postfix_edge_client(s, pool))
           || (edge->servers.nelts
               && ngx_mail_policy_postfix_edge_server(s, pool));
}


static ngx_uint_t
ngx_mail_policy_postfix_edge_client(ngx_mail_policy_postfix_t *s,
    ngx_pool_t *pool)
{
    ngx_addr_t  addr;

    return ngx_mail_policy_postfix_addr(s, pool, MPOL_ATTR_CLIENT_ADDRESS,
                                        MPOL_ATTR_CLIENT_PORT, &addr)
           == NGX_OK
           && ngx_cidr_match(addr.sockaddr, &s->conf->edge->networks)
              == NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_postfix_edge_server(ngx_mail_policy_postfix_t *s,
    ngx_pool_t *pool)
{
    ngx_uint_t   i;
    ngx_addr_t  *server, addr;

    if (ngx_mail_policy_postfix_addr(s, pool, MPOL_ATTR_SERVER_ADDRESS,
                                     MPOL_ATTR_SERVER_PORT, &addr)
        != NGX_OK)
    {
        return 0;
    }

    server = s->conf->edge->servers.elts;

    for (i = 0; i < s->conf->edge->servers.nelts; i++) {

        if (ngx_cmp_sockaddr(server[i].sockaddr, server[i].socklen,
                             addr.sockaddr, addr.socklen,
                             ngx_inet_get_port(server[i].sockaddr) != 0)
            == NGX_OK)
        {
            return 1;
        }
    }

    return 0;
}
