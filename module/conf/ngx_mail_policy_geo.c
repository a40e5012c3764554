
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * geo [$address] $name { network value; ... }
 *
 * A map whose keys are networks: the longest one that has the address in it
 * gives the result, a plain text.  With "ranges", keys are "first-last", in a
 * sorted table without overlaps; a range within another one takes its part of
 * it.
 *
 * What is no address, as a client at a unix socket, is 255.255.255.255, as
 * elsewhere in nginx.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


typedef struct {
    uint32_t                      first;    /* in host order, both inclusive */
    uint32_t                      last;
    ngx_mail_policy_value_t      *result;
} ngx_mail_policy_range_t;


struct ngx_mail_policy_geo_s {
    ngx_radix_tree_t             *tree;     /* ..._value_t * */
#if (NGX_HAVE_INET6)
    ngx_radix_tree_t             *tree6;
#endif
    ngx_array_t                  *ranges;   /* ..._range_t; NULL: networks */
    unsigned                      filled:1;
};


/* ngx_radix128tree_find() reads an octet behind an address that is a key */
#if (NGX_HAVE_INET6)

typedef struct {
    struct in6_addr               addr;
    u_char                        behind;
} ngx_mail_policy_in6_t;

#endif


static char *ngx_mail_policy_geo_entry(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_mail_policy_geo_word(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map);
static char *ngx_mail_policy_geo_default(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_str_t *text);
static char *ngx_mail_policy_geo_network(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_str_t *net, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_geo_cidr(ngx_conf_t *cf, ngx_str_t *net,
    ngx_cidr_t *cidr);
static ngx_int_t ngx_mail_policy_geo_insert(ngx_mail_policy_geo_t *geo,
    ngx_cidr_t *cidr, uintptr_t value);
static ngx_int_t ngx_mail_policy_geo_delete(ngx_mail_policy_geo_t *geo,
    ngx_cidr_t *cidr);
static char *ngx_mail_policy_geo_range(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_str_t *net, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_geo_bounds(ngx_str_t *net,
    ngx_mail_policy_range_t *range);
static ngx_int_t ngx_mail_policy_geo_inet(u_char *data, size_t len,
    uint32_t *addr);
static ngx_uint_t ngx_mail_policy_geo_position(ngx_array_t *ranges,
    uint32_t addr);
static ngx_int_t ngx_mail_policy_geo_place(ngx_array_t *ranges, ngx_uint_t i,
    ngx_mail_policy_range_t *new);
static ngx_mail_policy_range_t *ngx_mail_policy_geo_room(ngx_array_t *ranges,
    ngx_uint_t i, ngx_uint_t n);


char *
ngx_mail_policy_geo(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                   *rv;
    ngx_str_t              *value, source;
    ngx_conf_t              save;
    ngx_mail_policy_map_t  *map;

    value = cf->args->elts;

    ngx_str_set(&source, "$remote_addr");

    if (cf->args->nelts == 3) {
        source = value[1];

        if (source.len < 2 || source.data[0] != '$') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid variable name \"%V\"", &source);
            return NGX_CONF_ERROR;
        }
    }

    map = ngx_mail_policy_map_add(cf, &source, &value[cf->args->nelts - 1]);
    if (map == NULL) {
        return NGX_CONF_ERROR;
    }

    map->geo = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_geo_t));
    if (map->geo == NULL) {
        return NGX_CONF_ERROR;
    }

    map->geo->tree = ngx_radix_tree_create(cf->pool, -1);
    if (map->geo->tree == NULL) {
        return NGX_CONF_ERROR;
    }

#if (NGX_HAVE_INET6)

    map->geo->tree6 = ngx_radix_tree_create(cf->pool, -1);
    if (map->geo->tree6 == NULL) {
        return NGX_CONF_ERROR;
    }

#endif

    save = *cf;
    cf->handler = ngx_mail_policy_geo_entry;
    cf->handler_conf = (char *) map;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    return rv;
}


/* one line of the block */

static char *
ngx_mail_policy_geo_entry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_map_t *map = (ngx_mail_policy_map_t *) conf;

    ngx_str_t  *value, *net, *text;

    value = cf->args->elts;

    if (cf->args->nelts == 1) {
        return ngx_mail_policy_geo_word(cf, map);
    }

    if (cf->args->nelts != 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of the geo parameters");
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "include") == 0) {
        return ngx_conf_include(cf, cmd, conf);
    }

    if (ngx_strcmp(value[0].data, "proxy") == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"proxy\" in a geo is not supported, write "
                           "\"set_real_ip_from %V;\" in the server instead",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "default") == 0) {
        return ngx_mail_policy_geo_default(cf, map, &value[1]);
    }

    net = &value[0];
    text = &value[1];

    if (ngx_strcmp(value[0].data, "delete") == 0) {
        net = &value[1];
        text = NULL;
    }

    map->geo->filled = 1;

    return map->geo->ranges
           ? ngx_mail_policy_geo_range(cf, map, net, text)
           : ngx_mail_policy_geo_network(cf, map, net, text);
}


static char *
ngx_mail_policy_geo_word(ngx_conf_t *cf, ngx_mail_policy_map_t *map)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "ranges") == 0) {

        if (map->geo->filled || map->fallback) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the \"ranges\" directive must be the first "
                               "directive inside \"geo\" block");
            return NGX_CONF_ERROR;
        }

        map->geo->filled = 1;
        map->geo->ranges = ngx_array_create(cf->pool, 16,
                                            sizeof(ngx_mail_policy_range_t));

        return map->geo->ranges ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "proxy_recursive") == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"proxy_recursive\" in a geo is not supported, "
                           "write \"set_real_ip_from\" in the server "
                           "instead");
        return NGX_CONF_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid number of the geo parameters");
    return NGX_CONF_ERROR;
}


static char *
ngx_mail_policy_geo_default(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *text)
{
    if (map->fallback) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate default geo parameter");
        return NGX_CONF_ERROR;
    }

    map->fallback = ngx_mail_policy_map_result(cf, map, text, 0);

    return map->fallback ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* text NULL: the network is taken out */

static char *
ngx_mail_policy_geo_network(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *net, ngx_str_t *text)
{
    ngx_int_t                 rc;
    ngx_cidr_t                cidr;
    ngx_mail_policy_value_t  *result;

    if (ngx_mail_policy_geo_cidr(cf, net, &cidr) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (text == NULL) {

        if (ngx_mail_policy_geo_delete(map->geo, &cidr) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "no network \"%V\" to delete", net);
        }

        return NGX_CONF_OK;
    }

    result = ngx_mail_policy_map_result(cf, map, text, 0);
    if (result == NULL) {
        return NGX_CONF_ERROR;
    }

    rc = ngx_mail_policy_geo_insert(map->geo, &cidr, (uintptr_t) result);

    if (rc == NGX_BUSY) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "duplicate network \"%V\", its value is \"%V\" "
                           "now", net, text);

        (void) ngx_mail_policy_geo_delete(map->geo, &cidr);

        rc = ngx_mail_policy_geo_insert(map->geo, &cidr, (uintptr_t) result);
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_mail_policy_geo_cidr(ngx_conf_t *cf, ngx_str_t *net, ngx_cidr_t *cidr)
{
    ngx_int_t  rc;

    /* which ngx_ptocidr() takes for an error */

    if (ngx_strcmp(net->data, "255.255.255.255") == 0) {
        cidr->family = AF_INET;
        cidr->u.in.addr = 0xffffffff;
        cidr->u.in.mask = 0xffffffff;
        return NGX_OK;
    }

    rc = ngx_ptocidr(net, cidr);

    if (rc == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid network \"%V\", write \"192.0.2.0/24\", "
                           "or \"ranges;\" first for \"first-last\"", net);
        return NGX_ERROR;
    }

    if (rc == NGX_DONE) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "low address bits of %V are meaningless", net);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_geo_insert(ngx_mail_policy_geo_t *geo, ngx_cidr_t *cidr,
    uintptr_t value)
{
#if (NGX_HAVE_INET6)

    if (cidr->family == AF_INET6) {
        return ngx_radix128tree_insert(geo->tree6, cidr->u.in6.addr.s6_addr,
                                       cidr->u.in6.mask.s6_addr, value);
    }

#endif

    return ngx_radix32tree_insert(geo->tree, ntohl(cidr->u.in.addr),
                                  ntohl(cidr->u.in.mask), value);
}


static ngx_int_t
ngx_mail_policy_geo_delete(ngx_mail_policy_geo_t *geo, ngx_cidr_t *cidr)
{
#if (NGX_HAVE_INET6)

    if (cidr->family == AF_INET6) {
        return ngx_radix128tree_delete(geo->tree6, cidr->u.in6.addr.s6_addr,
                                       cidr->u.in6.mask.s6_addr);
    }

#endif

    return ngx_radix32tree_delete(geo->tree, ntohl(cidr->u.in.addr),
                                  ntohl(cidr->u.in.mask));
}


/* text NULL: the range is taken out */

static char *
ngx_mail_policy_geo_range(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *net, ngx_str_t *text)
{
    ngx_uint_t                i;
    ngx_array_t              *ranges;
    ngx_mail_policy_range_t   new, *range;

    ranges = map->geo->ranges;

    if (ngx_mail_policy_geo_bounds(net, &new) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid range \"%V\", write "
                           "\"192.0.2.1-192.0.2.9\"", net);
        return NGX_CONF_ERROR;
    }

    i = ngx_mail_policy_geo_position(ranges, new.first);

    range = ranges->elts;
    range = (i < ranges->nelts && range[i].first <= new.last) ? &range[i]
                                                              : NULL;

    if (text == NULL) {

        if (range == NULL || range->first != new.first
            || range->last != new.last)
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "no address range \"%V\" to delete", net);
            return NGX_CONF_OK;
        }

        ranges->nelts--;
        ngx_memmove(range, range + 1,
                    (ranges->nelts - i) * sizeof(ngx_mail_policy_range_t));

        return NGX_CONF_OK;
    }

    if (range && (new.first < range->first || new.last > range->last)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "range \"%V\" overlaps another one, write the "
                           "larger one first, or cut it", net);
        return NGX_CONF_ERROR;
    }

    if (range && range->first == new.first && range->last == new.last) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "duplicate range \"%V\", its value is \"%V\" now",
                           net, text);
    }

    new.result = ngx_mail_policy_map_result(cf, map, text, 0);

    if (new.result == NULL
        || ngx_mail_policy_geo_place(ranges, i, &new) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_mail_policy_geo_bounds(ngx_str_t *net, ngx_mail_policy_range_t *range)
{
    u_char  *dash, *last;

    last = net->data + net->len;
    dash = ngx_strlchr(net->data, last, '-');

    if (dash == NULL
        || ngx_mail_policy_geo_inet(net->data, dash - net->data,
                                    &range->first)
           != NGX_OK
        || ngx_mail_policy_geo_inet(dash + 1, last - dash - 1, &range->last)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return (range->first <= range->last) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_geo_inet(u_char *data, size_t len, uint32_t *addr)
{
    in_addr_t  inaddr;

    inaddr = ngx_inet_addr(data, len);
    *addr = ntohl(inaddr);

    if (inaddr != INADDR_NONE) {
        return NGX_OK;
    }

    return (len == sizeof("255.255.255.255") - 1
            && ngx_strncmp(data, "255.255.255.255", len) == 0)
           ? NGX_OK : NGX_ERROR;
}


/* of the first range that ends at addr or behind it */

static ngx_uint_t
ngx_mail_policy_geo_position(ngx_array_t *ranges, uint32_t addr)
{
    ngx_uint_t                left, right, middle;
    ngx_mail_policy_range_t  *range;

    range = ranges->elts;
    left = 0;
    right = ranges->nelts;

    while (left < right) {
        middle = left + (right - left) / 2;

        if (range[middle].last < addr) {
            left = middle + 1;

        } else {
            right = middle;
        }
    }

    return left;
}


/* new overlaps no range, or is within that at i, which is cut for it */

static ngx_int_t
ngx_mail_policy_geo_place(ngx_array_t *ranges, ngx_uint_t i,
    ngx_mail_policy_range_t *new)
{
    ngx_uint_t                before, behind;
    ngx_mail_policy_range_t  *range, old;

    range = ranges->elts;

    if (i == ranges->nelts || range[i].first > new->last) {
        range = ngx_mail_policy_geo_room(ranges, i, 1);
        if (range == NULL) {
            return NGX_ERROR;
        }

        *range = *new;

        return NGX_OK;
    }

    old = range[i];
    before = (old.first < new->first);
    behind = (old.last > new->last);

    range = ngx_mail_policy_geo_room(ranges, i, before + behind);
    if (range == NULL) {
        return NGX_ERROR;
    }

    if (before) {
        *range = old;
        range->last = new->first - 1;
        range++;
    }

    *range = *new;

    if (behind) {
        range++;
        *range = old;
        range->first = new->last + 1;
    }

    return NGX_OK;
}


/* n more elements at i, for the caller to fill */

static ngx_mail_policy_range_t *
ngx_mail_policy_geo_room(ngx_array_t *ranges, ngx_uint_t i, ngx_uint_t n)
{
    ngx_uint_t                old;
    ngx_mail_policy_range_t  *range;

    old = ranges->nelts;

    if (n && ngx_array_push_n(ranges, n) == NULL) {
        return NULL;
    }

    range = ranges->elts;

    ngx_memmove(&range[i + n], &range[i],
                (old - i) * sizeof(ngx_mail_policy_range_t));

    return &range[i];
}


ngx_mail_policy_value_t *
ngx_mail_policy_geo_find(ngx_mail_policy_geo_t *geo, ngx_str_t *address)
{
    uint32_t                  addr;
    uintptr_t                 value;
    ngx_uint_t                i;
    ngx_mail_policy_range_t  *range;
#if (NGX_HAVE_INET6)
    u_char                   *p;
    ngx_mail_policy_in6_t     in6;
#endif

    if (ngx_mail_policy_geo_inet(address->data, address->len, &addr)
        != NGX_OK)
    {
        addr = 0xffffffff;

#if (NGX_HAVE_INET6)

        in6.behind = 0;
        p = in6.addr.s6_addr;

        if (ngx_inet6_addr(address->data, address->len, p) == NGX_OK) {

            if (IN6_IS_ADDR_V4MAPPED(&in6.addr)) {
                addr = (uint32_t) p[12] << 24 | p[13] << 16 | p[14] << 8
                       | p[15];

            } else if (geo->ranges == NULL) {
                value = ngx_radix128tree_find(geo->tree6, p);

                return (value == NGX_RADIX_NO_VALUE)
                       ? NULL : (ngx_mail_policy_value_t *) value;
            }
        }

#endif
    }

    if (geo->ranges == NULL) {
        value = ngx_radix32tree_find(geo->tree, addr);

        return (value == NGX_RADIX_NO_VALUE)
               ? NULL : (ngx_mail_policy_value_t *) value;
    }

    i = ngx_mail_policy_geo_position(geo->ranges, addr);

    range = geo->ranges->elts;

    return (i < geo->ranges->nelts && range[i].first <= addr)
           ? range[i].result : NULL;
}
