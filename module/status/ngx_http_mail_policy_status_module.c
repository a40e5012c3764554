
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The directive "policy_status" of http{}: answers GET and HEAD with the
 * state of the mail side.  The only file that knows ngx_http.
 *
 * The mail configuration is looked up with each request, as it is of the
 * same cycle: what a static variable kept would be of a configuration that
 * may have failed to load.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include <openssl/rand.h>

#include "ngx_mail_policy_snapshot.h"


#define NGX_HTTP_MAIL_POLICY_STATUS_NONCE  16       /* octets, then in hex */


typedef enum {
    NGX_HTTP_MAIL_POLICY_STATUS_ANY = 0,    /* as it is asked for */
    NGX_HTTP_MAIL_POLICY_STATUS_JSON,
    NGX_HTTP_MAIL_POLICY_STATUS_HTML,
    NGX_HTTP_MAIL_POLICY_STATUS_PROMETHEUS,
    NGX_HTTP_MAIL_POLICY_STATUS_NONE
} ngx_http_mail_policy_status_format_e;


typedef struct {
    ngx_uint_t  format;                 /* NGX_CONF_UNSET_UINT: none */
} ngx_http_mail_policy_status_conf_t;


static void *ngx_http_mail_policy_status_create_conf(ngx_conf_t *cf);
static char *ngx_http_mail_policy_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_uint_t ngx_http_mail_policy_status_name(ngx_str_t *name);

static ngx_int_t ngx_http_mail_policy_status_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_mail_policy_status_asked(ngx_http_request_t *r);
static ngx_uint_t ngx_http_mail_policy_status_accept(ngx_http_request_t *r);
static ngx_int_t ngx_http_mail_policy_status_text(ngx_http_request_t *r,
    ngx_uint_t format, ngx_str_t *text);
static ngx_int_t ngx_http_mail_policy_status_nonce(ngx_http_request_t *r,
    ngx_str_t *nonce);
static ngx_int_t ngx_http_mail_policy_status_unknown(ngx_http_request_t *r);
static ngx_int_t ngx_http_mail_policy_status_header(ngx_http_request_t *r,
    const char *name, const char *value);
static ngx_int_t ngx_http_mail_policy_status_send(ngx_http_request_t *r,
    ngx_uint_t status, ngx_uint_t format, ngx_str_t *text);


static ngx_command_t  ngx_http_mail_policy_status_commands[] = {

    { ngx_string("policy_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_mail_policy_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_mail_policy_status_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_mail_policy_status_create_conf, /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_mail_policy_status_module = {
    NGX_MODULE_V1,
    &ngx_http_mail_policy_status_module_ctx, /* module context */
    ngx_http_mail_policy_status_commands,  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* by the enum; as the directive and ?format= write them */

static ngx_str_t  ngx_http_mail_policy_status_names[] = {
    ngx_null_string,
    ngx_string("json"),
    ngx_string("html"),
    ngx_string("prometheus")
};

static ngx_str_t  ngx_http_mail_policy_status_types[] = {
    ngx_string("text/plain"),
    ngx_string("application/json"),
    ngx_string("text/html; charset=utf-8"),
    ngx_string("text/plain; version=0.0.4; charset=utf-8")
};


static void *
ngx_http_mail_policy_status_create_conf(ngx_conf_t *cf)
{
    ngx_http_mail_policy_status_conf_t  *conf;

    conf = ngx_palloc(cf->pool, sizeof(ngx_http_mail_policy_status_conf_t));

    if (conf) {
        conf->format = NGX_CONF_UNSET_UINT;
    }

    return conf;
}


static char *
ngx_http_mail_policy_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_mail_policy_status_conf_t *mscf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    if (mscf->format != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    mscf->format = NGX_HTTP_MAIL_POLICY_STATUS_ANY;

    if (cf->args->nelts == 2) {
        value = cf->args->elts;
        mscf->format = ngx_http_mail_policy_status_name(&value[1]);

        if (mscf->format == NGX_HTTP_MAIL_POLICY_STATUS_NONE) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"policy_status %V\" is unknown, write "
                               "\"policy_status\" with \"json\", \"html\" or "
                               "\"prometheus\", or alone", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_mail_policy_status_handler;

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_mail_policy_status_name(ngx_str_t *name)
{
    ngx_uint_t   i;
    ngx_str_t   *known;

    known = ngx_http_mail_policy_status_names;

    for (i = NGX_HTTP_MAIL_POLICY_STATUS_JSON;
         i < NGX_HTTP_MAIL_POLICY_STATUS_NONE;
         i++)
    {
        if (name->len == known[i].len
            && ngx_strncmp(name->data, known[i].data, name->len) == 0)
        {
            break;
        }
    }

    return i;
}


static ngx_int_t
ngx_http_mail_policy_status_handler(ngx_http_request_t *r)
{
    ngx_int_t   rc;
    ngx_str_t   text;
    ngx_uint_t  format;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        rc = ngx_http_mail_policy_status_header(r, "Allow", "GET, HEAD");

        return rc == NGX_OK ? NGX_HTTP_NOT_ALLOWED
                            : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_mail_policy_status_header(r, "Cache-Control", "no-store")
        != NGX_OK
        || ngx_http_mail_policy_status_header(r, "X-Content-Type-Options",
                                              "nosniff")
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    format = ngx_http_mail_policy_status_asked(r);

    if (format == NGX_HTTP_MAIL_POLICY_STATUS_NONE) {
        return ngx_http_mail_policy_status_unknown(r);
    }

    if (ngx_http_mail_policy_status_text(r, format, &text) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_mail_policy_status_send(r, NGX_HTTP_OK, format, &text);
}


/*
 * A location that has a format has no other: whoever may see the metrics may
 * not be meant to see who is refused.
 */

static ngx_uint_t
ngx_http_mail_policy_status_asked(ngx_http_request_t *r)
{
    ngx_str_t                            value;
    ngx_uint_t                           format;
    ngx_http_mail_policy_status_conf_t  *mscf;

    mscf = ngx_http_get_module_loc_conf(r, ngx_http_mail_policy_status_module);

    if (ngx_http_arg(r, (u_char *) "format", 6, &value) != NGX_OK) {
        return mscf->format ? mscf->format
                            : ngx_http_mail_policy_status_accept(r);
    }

    format = ngx_http_mail_policy_status_name(&value);

    if (mscf->format == NGX_HTTP_MAIL_POLICY_STATUS_ANY
        || mscf->format == format)
    {
        return format;
    }

    return NGX_HTTP_MAIL_POLICY_STATUS_NONE;
}


/* what browsers and Prometheus say of themselves; all others get JSON */

static ngx_uint_t
ngx_http_mail_policy_status_accept(ngx_http_request_t *r)
{
    ngx_uint_t        i, format;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    format = NGX_HTTP_MAIL_POLICY_STATUS_JSON;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            part = part->next;

            if (part == NULL) {
                return format;
            }

            h = part->elts;
            i = 0;
        }

        if (h[i].key.len != sizeof("Accept") - 1
            || ngx_strncasecmp(h[i].key.data, (u_char *) "Accept",
                               sizeof("Accept") - 1)
               != 0)
        {
            continue;
        }

        if (ngx_strcasestrn(h[i].value.data, "text/html", 9 - 1)) {
            return NGX_HTTP_MAIL_POLICY_STATUS_HTML;
        }

        if (ngx_strcasestrn(h[i].value.data, "openmetrics-text", 16 - 1)
            || ngx_strcasestrn(h[i].value.data, "text/plain;version", 18 - 1)
            || ngx_strcasestrn(h[i].value.data, "text/plain; version", 19 - 1))
        {
            format = NGX_HTTP_MAIL_POLICY_STATUS_PROMETHEUS;
        }
    }
}


static ngx_int_t
ngx_http_mail_policy_status_text(ngx_http_request_t *r, ngx_uint_t format,
    ngx_str_t *text)
{
    ngx_str_t                    nonce;
    ngx_mail_policy_snapshot_t  *snapshot;

    snapshot = ngx_mail_policy_snapshot(r->pool);
    if (snapshot == NULL) {
        return NGX_ERROR;
    }

    switch (format) {

    case NGX_HTTP_MAIL_POLICY_STATUS_HTML:

        if (ngx_http_mail_policy_status_nonce(r, &nonce) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_mail_policy_snapshot_html(r->pool, snapshot, &nonce, text);

    case NGX_HTTP_MAIL_POLICY_STATUS_PROMETHEUS:
        return ngx_mail_policy_snapshot_prometheus(r->pool, snapshot, text);

    default: /* NGX_HTTP_MAIL_POLICY_STATUS_JSON */
        return ngx_mail_policy_snapshot_json(r->pool, snapshot, text);
    }
}


/* what runs on the page is what we have written into it, and no more */

static ngx_int_t
ngx_http_mail_policy_status_nonce(ngx_http_request_t *r, ngx_str_t *nonce)
{
    u_char  *p, random[NGX_HTTP_MAIL_POLICY_STATUS_NONCE];

    static const char  policy[] =
        "default-src 'none'; style-src 'nonce-%V'; script-src 'nonce-%V'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'%Z";

    nonce->len = 2 * sizeof(random);
    nonce->data = ngx_pnalloc(r->pool, nonce->len);

    p = ngx_pnalloc(r->pool, sizeof(policy) + 2 * nonce->len);

    if (nonce->data == NULL || p == NULL
        || RAND_bytes(random, sizeof(random)) != 1)
    {
        return NGX_ERROR;
    }

    ngx_hex_dump(nonce->data, random, sizeof(random));
    ngx_sprintf(p, policy, nonce, nonce);

    if (ngx_http_mail_policy_status_header(r, "Content-Security-Policy",
                                           (const char *) p)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_mail_policy_status_header(r, "Referrer-Policy",
                                              "no-referrer");
}


static ngx_int_t
ngx_http_mail_policy_status_unknown(ngx_http_request_t *r)
{
    ngx_str_t                            text;
    ngx_http_mail_policy_status_conf_t  *mscf;

    mscf = ngx_http_get_module_loc_conf(r, ngx_http_mail_policy_status_module);

    switch (mscf->format) {

    case NGX_HTTP_MAIL_POLICY_STATUS_JSON:
        ngx_str_set(&text, "format is json here\n");
        break;

    case NGX_HTTP_MAIL_POLICY_STATUS_HTML:
        ngx_str_set(&text, "format is html here\n");
        break;

    case NGX_HTTP_MAIL_POLICY_STATUS_PROMETHEUS:
        ngx_str_set(&text, "format is prometheus here\n");
        break;

    default: /* NGX_HTTP_MAIL_POLICY_STATUS_ANY */
        ngx_str_set(&text, "format is json, html or prometheus\n");
    }

    return ngx_http_mail_policy_status_send(r, NGX_HTTP_BAD_REQUEST,
                                   NGX_HTTP_MAIL_POLICY_STATUS_ANY, &text);
}


static ngx_int_t
ngx_http_mail_policy_status_header(ngx_http_request_t *r, const char *name,
    const char *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value.data = (u_char *) value;
    h->value.len = ngx_strlen(value);

    return NGX_OK;
}


static ngx_int_t
ngx_http_mail_policy_status_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_uint_t format, ngx_str_t *text)
{
    u_char       *p;
    ngx_buf_t    *b;
    ngx_int_t     rc;
    ngx_str_t    *type;
    ngx_chain_t   out;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->pos = text->data;
    b->last = text->data + text->len;
    b->memory = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    type = &ngx_http_mail_policy_status_types[format];
    p = ngx_strlchr(type->data, type->data + type->len, ';');

    r->headers_out.status = status;
    r->headers_out.content_length_n = text->len;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = p ? (size_t) (p - type->data)
                                        : type->len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}
