
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The variables that need no definition.  Handlers read the envelope, write
 * nothing to it, and give back a slice of it or of the pool.
 *
 * A phase says from when on a variable has its lasting value: $helo and
 * $protocol change with EHLO, STARTTLS and AUTH, so they count as AT_MAIL.
 */


#include "ngx_mail_policy_directive.h"


static ngx_int_t ngx_mail_policy_variable_string(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_number(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_message_size(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_limit(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_remote_addr(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_remote_port(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_client_net(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_server_addr(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_server_port(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_connection(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_pid(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_hostname(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_msec(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_session_time(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_time_local(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_time_iso8601(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_port(ngx_pool_t *pool,
    struct sockaddr *sockaddr, ngx_str_t *out);


#define ngx_mail_policy_field(name)                                          \
    offsetof(ngx_mail_policy_envelope_t, name)


static ngx_mail_policy_variable_t  ngx_mail_policy_variables[] = {

    { ngx_string("remote_addr"), ngx_mail_policy_variable_remote_addr,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("remote_port"), ngx_mail_policy_variable_remote_port,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("client_net"), ngx_mail_policy_variable_client_net,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("client_host"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(client_host), NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("server_addr"), ngx_mail_policy_variable_server_addr,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("server_port"), ngx_mail_policy_variable_server_port,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("server_name"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(server_name), NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("connection"), ngx_mail_policy_variable_connection,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("helo"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(helo), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("protocol"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(protocol), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("sasl_method"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sasl_method), NGX_MAIL_POLICY_AT_AUTH },

    { ngx_string("sasl_username"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sasl_username), NGX_MAIL_POLICY_AT_AUTH },

    { ngx_string("sasl_authzid"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sasl_authzid), NGX_MAIL_POLICY_AT_AUTH },

    { ngx_string("auth_failures"), ngx_mail_policy_variable_number,
      ngx_mail_policy_field(auth_failures), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("auth_relay"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(auth_relay), NGX_MAIL_POLICY_AT_AUTH },

    { ngx_string("transaction"), ngx_mail_policy_variable_number,
      ngx_mail_policy_field(transaction), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("sender"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sender), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("sender_local"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sender_local), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("sender_domain"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(sender_domain), NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("message_size"), ngx_mail_policy_variable_message_size,
      0, NGX_MAIL_POLICY_AT_MAIL },

    { ngx_string("recipient"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(recipient), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("recipient_domain"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(recipient_domain), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("recipients"), ngx_mail_policy_variable_number,
      ngx_mail_policy_field(recipients), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("rejected_recipients"), ngx_mail_policy_variable_number,
      ngx_mail_policy_field(rejected_recipients), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("limit"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(limit), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("verdict"), ngx_mail_policy_variable_string,
      ngx_mail_policy_field(verdict), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("limit_remaining"), ngx_mail_policy_variable_limit,
      ngx_mail_policy_field(limit_remaining), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("retry_after"), ngx_mail_policy_variable_limit,
      ngx_mail_policy_field(retry_after), NGX_MAIL_POLICY_AT_RCPT },

    { ngx_string("pid"), ngx_mail_policy_variable_pid,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("hostname"), ngx_mail_policy_variable_hostname,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("msec"), ngx_mail_policy_variable_msec,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("session_time"), ngx_mail_policy_variable_session_time,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("time_local"), ngx_mail_policy_variable_time_local,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_string("time_iso8601"), ngx_mail_policy_variable_time_iso8601,
      0, NGX_MAIL_POLICY_AT_CONNECT },

    { ngx_null_string, NULL, 0, 0 }
};


static ngx_mail_policy_variable_t  *ngx_mail_policy_variable_tables[] = {
    ngx_mail_policy_variables,
    ngx_mail_policy_end_variables,
    ngx_mail_policy_ssl_variables,
    NULL
};


ngx_mail_policy_variable_t *
ngx_mail_policy_variable_find(ngx_str_t *name)
{
    ngx_mail_policy_variable_t  *v, **table;

    for (table = ngx_mail_policy_variable_tables; *table; table++) {

        for (v = *table; v->name.len; v++) {
            if (v->name.len == name->len
                && ngx_strncasecmp(v->name.data, name->data, name->len) == 0)
            {
                return v;
            }
        }
    }

    return NULL;
}


/* all sizes are of values that a number can print to */

ngx_int_t
ngx_mail_policy_variable_print(ngx_pool_t *pool, size_t size, ngx_str_t *out,
    const char *fmt, ...)
{
    va_list  args;

    out->data = ngx_pnalloc(pool, size);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    out->len = ngx_vslprintf(out->data, out->data + size, fmt, args)
               - out->data;
    va_end(args);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_string(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    *out = *(ngx_str_t *) ((u_char *) envelope + data);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_number(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_uint_t  n;

    n = *(ngx_uint_t *) ((u_char *) envelope + data);

    return ngx_mail_policy_variable_print(pool, NGX_INT_T_LEN, out, "%ui", n);
}


static ngx_int_t
ngx_mail_policy_variable_message_size(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_variable_print(pool, NGX_INT64_LEN, out, "%uL",
                                          envelope->message_size);
}


/* empty until a limit has been asked, or where it has no number */

static ngx_int_t
ngx_mail_policy_variable_limit(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    uint64_t  n;

    n = *(uint64_t *) ((u_char *) envelope + data);

    if (envelope->limit.len == 0 || n >= MPOL_NEVER) {
        ngx_str_null(out);
        return NGX_OK;
    }

    return ngx_mail_policy_variable_print(pool, NGX_INT64_LEN, out, "%uL", n);
}


static ngx_int_t
ngx_mail_policy_variable_remote_addr(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    *out = envelope->connection->addr_text;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_remote_port(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_variable_port(pool, envelope->connection->sockaddr,
                                         out);
}


/*
 * What one customer has: an IPv4 address, also one that comes mapped into
 * IPv6, or the /64 of an IPv6 address.
 */

static ngx_int_t
ngx_mail_policy_variable_client_net(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_client_net(pool, envelope, out);
}


ngx_int_t
ngx_mail_policy_client_net(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *out)
{
    u_char               *p;
    size_t                len;
    struct sockaddr      *sa;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct in6_addr       net;
    struct sockaddr_in6  *sin6;
#endif

    sa = envelope->connection->sockaddr;

    if (sa->sa_family == AF_UNSPEC) {
        ngx_str_null(out);
        return NGX_OK;
    }

    if (sa->sa_family == AF_UNIX) {
        ngx_str_set(out, "unix");
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, NGX_INET6_ADDRSTRLEN + sizeof("/64") - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;

#if (NGX_HAVE_INET6)

    if (sa->sa_family == AF_INET6) {
        sin6 = (struct sockaddr_in6 *) sa;

        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            out->len = ngx_inet_ntop(AF_INET, &sin6->sin6_addr.s6_addr[12],
                                     p, NGX_INET_ADDRSTRLEN);
            return NGX_OK;
        }

        net = sin6->sin6_addr;
        ngx_memzero(&net.s6_addr[8], 8);

        len = ngx_inet_ntop(AF_INET6, &net, p, NGX_INET6_ADDRSTRLEN);

        ngx_memcpy(p + len, "/64", sizeof("/64") - 1);
        out->len = len + sizeof("/64") - 1;

        return NGX_OK;
    }

#endif

    sin = (struct sockaddr_in *) sa;

    len = ngx_inet_ntop(AF_INET, &sin->sin_addr, p, NGX_INET_ADDRSTRLEN);
    out->len = len;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_server_addr(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    out->len = NGX_SOCKADDR_STRLEN;
    out->data = ngx_pnalloc(pool, NGX_SOCKADDR_STRLEN);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    if (envelope->connection->fd == (ngx_socket_t) -1
        || ngx_connection_local_sockaddr(envelope->connection, out, 0)
           != NGX_OK)
    {
        ngx_str_null(out);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_server_port(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_connection_t  *c;

    c = envelope->connection;

    if (c->fd == (ngx_socket_t) -1
        || ngx_connection_local_sockaddr(c, NULL, 0) != NGX_OK)
    {
        ngx_str_null(out);
        return NGX_OK;
    }

    return ngx_mail_policy_variable_port(pool, c->local_sockaddr, out);
}


static ngx_int_t
ngx_mail_policy_variable_port(ngx_pool_t *pool, struct sockaddr *sockaddr,
    ngx_str_t *out)
{
    ngx_uint_t  port;

    port = ngx_inet_get_port(sockaddr);

    if (port == 0) {
        ngx_str_null(out);
        return NGX_OK;
    }

    return ngx_mail_policy_variable_print(pool, sizeof("65535") - 1, out,
                                          "%ui", port);
}


static ngx_int_t
ngx_mail_policy_variable_connection(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_variable_print(pool, NGX_ATOMIC_T_LEN, out, "%uA",
                                          envelope->connection->number);
}


static ngx_int_t
ngx_mail_policy_variable_pid(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_variable_print(pool, NGX_INT64_LEN, out, "%P",
                                          ngx_pid);
}


static ngx_int_t
ngx_mail_policy_variable_hostname(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    out->len = ngx_cycle->hostname.len;
    out->data = ngx_cycle->hostname.data;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_msec(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return ngx_mail_policy_variable_print(pool, NGX_TIME_T_LEN + 4, out,
                                          "%T.%03M", tp->sec, tp->msec);
}


static ngx_int_t
ngx_mail_policy_variable_session_time(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    ngx_msec_t  ms;

    ms = ngx_current_msec - envelope->connection->start_time;

    return ngx_mail_policy_variable_print(pool, NGX_TIME_T_LEN + 4, out,
                                          "%M.%03M", ms / 1000, ms % 1000);
}


static ngx_int_t
ngx_mail_policy_variable_time_local(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    out->len = ngx_cached_http_log_time.len;
    out->data = ngx_cached_http_log_time.data;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_time_iso8601(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    out->len = ngx_cached_http_log_iso8601.len;
    out->data = ngx_cached_http_log_iso8601.data;

    return NGX_OK;
}
