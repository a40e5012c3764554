
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_edge off | xclient | address | network | server=address[:port] ...
 *
 * Lines of one level add up; a level that has any replaces that above it, as
 * nginx's array directives do.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


static ngx_mail_policy_edge_conf_t *ngx_mail_policy_edge_create(
    ngx_conf_t *cf);
static ngx_int_t ngx_mail_policy_edge_network(ngx_conf_t *cf,
    ngx_mail_policy_edge_conf_t *edge, ngx_str_t *value);
static ngx_uint_t ngx_mail_policy_edge_everybody(ngx_cidr_t *cidr);
static ngx_int_t ngx_mail_policy_edge_server(ngx_conf_t *cf,
    ngx_mail_policy_edge_conf_t *edge, ngx_str_t *value);
static ngx_uint_t ngx_mail_policy_edge_wildcard(struct sockaddr *sa);


char *
ngx_mail_policy_edge(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_int_t    rc;
    ngx_str_t   *value;
    ngx_uint_t   i, off;

    value = cf->args->elts;
    off = (ngx_strcmp(value[1].data, "off") == 0);

    if ((off && (pscf->edge || cf->args->nelts > 2))
        || (pscf->edge && pscf->edge->off))
    {
        return "is \"off\", and names edges: write one of both";
    }

    if (pscf->edge == NULL) {
        pscf->edge = ngx_mail_policy_edge_create(cf);
        if (pscf->edge == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (off) {
        pscf->edge->off = 1;
        return NGX_CONF_OK;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "xclient") == 0) {
            pscf->edge->xclient = 1;
            continue;
        }

        rc = (ngx_strncmp(value[i].data, "server=", 7) == 0)
             ? ngx_mail_policy_edge_server(cf, pscf->edge, &value[i])
             : ngx_mail_policy_edge_network(cf, pscf->edge, &value[i]);

        if (rc != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_mail_policy_edge_conf_t *
ngx_mail_policy_edge_create(ngx_conf_t *cf)
{
    ngx_mail_policy_edge_conf_t  *edge;

    edge = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_edge_conf_t));

    if (edge == NULL
        || ngx_array_init(&edge->networks, cf->pool, 2, sizeof(ngx_cidr_t))
           != NGX_OK
        || ngx_array_init(&edge->servers, cf->pool, 2, sizeof(ngx_addr_t))
           != NGX_OK)
    {
        return NULL;
    }

    return edge;
}


static ngx_int_t
ngx_mail_policy_edge_network(ngx_conf_t *cf,
    ngx_mail_policy_edge_conf_t *edge, ngx_str_t *value)
{
    ngx_cidr_t  *cidr;

    cidr = ngx_array_push(&edge->networks);
    if (cidr == NULL) {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_cidr(cf, value, cidr) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": write \"off\", "
                           "\"xclient\", an edge's address or network, as "
                           "\"192.0.2.0/24\", or \"server=\"", value);
        return NGX_ERROR;
    }

    if (ngx_mail_policy_edge_everybody(cidr)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is everybody, and nothing would be "
                           "charged: write the addresses of edges", value);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_edge_everybody(ngx_cidr_t *cidr)
{
#if (NGX_HAVE_INET6)
    static struct in6_addr  none;

    if (cidr->family == AF_INET6) {
        return ngx_memcmp(&cidr->u.in6.mask, &none, sizeof(none)) == 0;
    }
#endif

    return cidr->family == AF_INET && cidr->u.in.mask == 0;
}


/* without a port it has port 0 */

static ngx_int_t
ngx_mail_policy_edge_server(ngx_conf_t *cf,
    ngx_mail_policy_edge_conf_t *edge, ngx_str_t *value)
{
    ngx_addr_t  *addr;

    addr = ngx_array_push(&edge->servers);
    if (addr == NULL) {
        return NGX_ERROR;
    }

    switch (ngx_parse_addr_port(cf->pool, addr, value->data + 7,
                                value->len - 7))
    {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": write the address that "
                           "clients of the edge connect to, as "
                           "\"server=192.0.2.1:25\" or "
                           "\"server=[2001:db8::1]:25\"", value);
        return NGX_ERROR;

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }

    if (ngx_mail_policy_edge_wildcard(addr->sockaddr)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is no address that a client can connect "
                           "to: write that of the edge", value);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_edge_wildcard(struct sockaddr *sa)
{
#if (NGX_HAVE_INET6)
    if (sa->sa_family == AF_INET6) {
        return IN6_IS_ADDR_UNSPECIFIED(
                                 &((struct sockaddr_in6 *) sa)->sin6_addr);
    }
#endif

    return ((struct sockaddr_in *) sa)->sin_addr.s_addr == INADDR_ANY;
}
