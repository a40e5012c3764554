
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The module: its directives, what they mean together, and its place in
 * nginx.
 *
 *     mail { parsed -> init_main_conf -> merge_srv_conf for each server }
 *
 * While directives are read, a name may mean something that comes behind it
 * in the file, so names wait: variables until init_main_conf, groups of
 * relays until merge_srv_conf.  A server with "policy on" gets a copy of the
 * stock SMTP protocol in which our functions stand; any other server is left
 * as it is.
 *
 * No events arrive here.  init_process and exit_process open and close what
 * the store has in a worker.
 */


#include "ngx_mail_policy_directive.h"
#include "ngx_mail_policy_keep.h"
#include "ngx_mail_policy_log_write.h"

#include "ngx_mail_policy_postfix.h"
#include "ngx_mail_policy_smtp.h"


extern ngx_module_t  ngx_mail_module;


#define NGX_MAIL_POLICY_MAX_RECIPIENTS   1000
#define NGX_MAIL_POLICY_MIN_DATA_RATE    500
#define NGX_MAIL_POLICY_AUTH_DELAY       1000
#define NGX_MAIL_POLICY_AUTH_CACHE       60000


static void *ngx_mail_policy_create_main_conf(ngx_conf_t *cf);
static char *ngx_mail_policy_init_main_conf(ngx_conf_t *cf, void *conf);
static ngx_int_t ngx_mail_policy_init_hash(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf);
static void *ngx_mail_policy_create_srv_conf(ngx_conf_t *cf);
static char *ngx_mail_policy_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_mail_policy_merge_server(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);
static void ngx_mail_policy_merge_keys(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf);
static ngx_int_t ngx_mail_policy_merge_relay(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);
static ngx_int_t ngx_mail_policy_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_mail_policy_init_process(ngx_cycle_t *cycle);
static void ngx_mail_policy_exit_process(ngx_cycle_t *cycle);
static ngx_mail_policy_main_conf_t *ngx_mail_policy_process_conf(
    ngx_cycle_t *cycle);
static ngx_mail_policy_main_conf_t *ngx_mail_policy_cycle_conf(
    ngx_cycle_t *cycle);

static char *ngx_mail_policy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *ngx_mail_policy_auth(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_mail_policy_proxy_pass(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_conf_num_bounds_t  ngx_mail_policy_max_recipients_bounds = {
    ngx_conf_check_num_bounds, 1, -1
};


static ngx_str_t  ngx_mail_policy_auth_relay = ngx_string("$auth_relay");


static ngx_conf_enum_t  ngx_mail_policy_sender_values[] = {
    { ngx_string("any"), 0 },
    { ngx_string("own"), 1 },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_mail_policy_bare_newline_values[] = {
    { ngx_string("reject"), 0 },
    { ngx_string("normalize"), 1 },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_mail_policy_received_values[] = {
    { ngx_string("off"), NGX_MAIL_POLICY_RECEIVED_OFF },
    { ngx_string("on"), NGX_MAIL_POLICY_RECEIVED_ON },
    { ngx_string("auto"), NGX_MAIL_POLICY_RECEIVED_AUTO },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_mail_policy_commands[] = {

    { ngx_string("policy"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_mail_policy,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, policy),
      NULL },

    { ngx_string("policy_zone"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_zone,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_metrics"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_MAIN_CONF_OFFSET,
      offsetof(ngx_mail_policy_main_conf_t, metrics_on),
      NULL },

    { ngx_string("policy_redis"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_redis,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_redis_ssl_verify"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_FLAG,
      ngx_mail_policy_redis_ssl_verify,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_redis_ssl_trusted_certificate"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_redis_ssl_trusted_certificate,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_redis_ssl_name"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_redis_ssl_name,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_auth"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_auth,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_auth_jwt"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_auth_jwt_set,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_auth_plaintext"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, auth_plaintext),
      NULL },

    { ngx_string("policy_auth_http_header"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE2,
      ngx_mail_policy_auth_http_header,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_auth_http_timeout"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_auth_http_msec,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_auth_http_conf_t, timeout),
      NULL },

    { ngx_string("policy_auth_http_pass_client_cert"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_mail_policy_auth_http_flag,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_auth_http_conf_t, pass_client_cert),
      NULL },

    { ngx_string("policy_auth_ssl_verify"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_FLAG,
      ngx_mail_policy_auth_http_flag,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_auth_http_conf_t, ssl_verify),
      NULL },

    { ngx_string("policy_auth_ssl_trusted_certificate"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_auth_http_str,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_auth_http_conf_t, ssl_trusted),
      NULL },

    { ngx_string("policy_auth_ssl_name"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_auth_http_str,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_auth_http_conf_t, ssl_name),
      NULL },

    { ngx_string("policy_auth_methods"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_methods,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_auth_delay"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, auth_delay),
      NULL },

    { ngx_string("policy_auth_cache"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, auth_cache),
      NULL },

    { ngx_string("policy_sender"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_enum_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, sender_own),
      &ngx_mail_policy_sender_values },

    { ngx_string("policy_limit"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_limit,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_service"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_service,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_clients"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_clients,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_edge"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_edge,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_action"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_action,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_socket_mode"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE123,
      ngx_mail_policy_socket_mode,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_lookup"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE23,
      ngx_mail_policy_lookup,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("policy_message_size"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, message_size),
      NULL },

    { ngx_string("policy_max_recipients"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, max_recipients),
      &ngx_mail_policy_max_recipients_bounds },

    { ngx_string("policy_max_messages"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, max_messages),
      NULL },

    { ngx_string("policy_bare_newline"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_enum_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, normalize),
      &ngx_mail_policy_bare_newline_values },

    { ngx_string("policy_received"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_enum_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, received),
      &ngx_mail_policy_received_values },

    { ngx_string("policy_min_data_rate"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_MAIL_SRV_CONF_OFFSET,
      offsetof(ngx_mail_policy_srv_conf_t, min_data_rate),
      NULL },

    { ngx_string("upstream"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_mail_policy_upstream,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("map"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE2,
      ngx_mail_policy_map,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("map_hash_max_size"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_map_hash_size,
      NGX_MAIL_MAIN_CONF_OFFSET,
      offsetof(ngx_mail_policy_main_conf_t, map_hash_max_size),
      NULL },

    { ngx_string("map_hash_bucket_size"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_map_hash_size,
      NGX_MAIL_MAIN_CONF_OFFSET,
      offsetof(ngx_mail_policy_main_conf_t, map_hash_bucket_size),
      NULL },

    { ngx_string("geo"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE12,
      ngx_mail_policy_geo,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("proxy_pass"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_TAKE1,
      ngx_mail_policy_proxy_pass,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("log_format"),
      NGX_MAIL_MAIN_CONF|NGX_CONF_2MORE,
      ngx_mail_policy_log_format,
      NGX_MAIL_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("access_log"),
      NGX_MAIL_MAIN_CONF|NGX_MAIL_SRV_CONF|NGX_CONF_1MORE,
      ngx_mail_policy_access_log,
      NGX_MAIL_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_mail_module_t  ngx_mail_policy_module_ctx = {
    &ngx_mail_policy_postfix_protocol,     /* protocol */

    ngx_mail_policy_create_main_conf,      /* create main configuration */
    ngx_mail_policy_init_main_conf,        /* init main configuration */

    ngx_mail_policy_create_srv_conf,       /* create server configuration */
    ngx_mail_policy_merge_srv_conf         /* merge server configuration */
};


ngx_module_t  ngx_mail_policy_module = {
    NGX_MODULE_V1,
    &ngx_mail_policy_module_ctx,           /* module context */
    ngx_mail_policy_commands,              /* module directives */
    NGX_MAIL_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_mail_policy_init_module,           /* init module */
    ngx_mail_policy_init_process,          /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_mail_policy_exit_process,          /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_mail_policy_create_main_conf(ngx_conf_t *cf)
{
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    mcf->map_hash_max_size = NGX_CONF_UNSET_UINT;
    mcf->map_hash_bucket_size = NGX_CONF_UNSET_UINT;
    mcf->metrics_on = NGX_CONF_UNSET;

    mcf->store = ngx_mail_policy_store_create(cf);
    if (mcf->store == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mcf->upstreams, cf->pool, 4,
                       sizeof(ngx_mail_policy_upstream_t *))
        != NGX_OK)
    {
        return NULL;
    }

    mcf->relays.upstreams = &mcf->upstreams;

    if (ngx_array_init(&mcf->lookups, cf->pool, 4, sizeof(void *)) != NGX_OK
        || ngx_array_init(&mcf->auths, cf->pool, 4, sizeof(void *)) != NGX_OK
        || ngx_array_init(&mcf->auth_jwts, cf->pool, 4, sizeof(void *))
           != NGX_OK
        || ngx_array_init(&mcf->services, cf->pool, 4, sizeof(void *))
           != NGX_OK
        || ngx_array_init(&mcf->limits, cf->pool, 4, sizeof(void *))
           != NGX_OK
        || ngx_array_init(&mcf->maps, cf->pool, 4, sizeof(void *)) != NGX_OK
        || ngx_array_init(&mcf->log_formats, cf->pool, 4, sizeof(void *))
           != NGX_OK)
    {
        return NULL;
    }

    if (ngx_mail_policy_value_init(cf, &mcf->values) != NGX_OK
        || ngx_mail_policy_protocol_auth_http(cf, mcf) != NGX_OK)
    {
        return NULL;
    }

    return mcf;
}


static char *
ngx_mail_policy_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_mail_policy_main_conf_t  *mcf = conf;

    ngx_uint_t                    s, i;
    ngx_mail_conf_ctx_t          *ctx;
    ngx_mail_core_srv_conf_t    **cscf;
    ngx_mail_core_main_conf_t    *cmcf;
    ngx_mail_policy_srv_conf_t   *main, *server;

    if (ngx_mail_policy_value_resolve(cf, mcf) != NGX_OK
        || ngx_mail_policy_lookup_check(cf, mcf) != NGX_OK
        || ngx_mail_policy_init_hash(cf, mcf) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    /* servers are not merged yet */

    ctx = cf->ctx;
    i = ngx_mail_policy_module.ctx_index;
    main = ctx->srv_conf[i];

    cmcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_core_module);
    cscf = cmcf->servers.elts;

    for (s = 0; s < cmcf->servers.nelts; s++) {
        server = cscf[s]->ctx->srv_conf[i];

        if (server->policy == 1
            || ngx_mail_policy_protocol_is(cscf[s])
            || (server->policy == NGX_CONF_UNSET && main->policy == 1))
        {
            mcf->used = 1;
        }
    }

    if (!mcf->used) {
        return NGX_CONF_OK;
    }

    if (mcf->metrics_on) {
        mcf->metrics = ngx_mail_policy_metrics_zone(cf,
                                                    &ngx_mail_policy_module);
        if (mcf->metrics == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_mail_policy_store_init(cf, mcf->store) != NGX_OK
        || ngx_mail_policy_upstream_init(cf, &mcf->relays) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* when the keys of groups with "hash" are known */

static ngx_int_t
ngx_mail_policy_init_hash(ngx_conf_t *cf, ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                    i;
    ngx_mail_policy_upstream_t  **upstream;

    upstream = mcf->upstreams.elts;

    for (i = 0; i < mcf->upstreams.nelts; i++) {

        if (upstream[i]->key == NULL) {
            continue;
        }

        ngx_mail_policy_value_phase(upstream[i]->key);

        if (upstream[i]->key->phase > NGX_MAIL_POLICY_AT_RCPT) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"hash %V\" is not known when a relay is chosen: "
                          "use variables of the client and the message, in "
                          "%s:%ui", &upstream[i]->key->text,
                          upstream[i]->file, upstream[i]->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void *
ngx_mail_policy_create_srv_conf(ngx_conf_t *cf)
{
    ngx_mail_policy_srv_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_srv_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->auth = NULL;
     *     conf->auth_methods = 0;
     *     conf->limits = NULL;
     *     conf->diverts = 0;
     *     conf->services = NULL;
     *     conf->services_off = 0;
     *     conf->upstream = NULL;
     *     conf->route = NULL;
     *     conf->lookups = { 0 };
     *     conf->relay = { 0, NULL };
     *     conf->relay_conf = NULL;
     *     conf->clients = NULL;
     *     conf->edge = NULL;
     *     conf->action = NULL;
     *     conf->socket = NULL;
     *     conf->access_logs = NULL;
     *     conf->access_log_off = 0;
     *     conf->stock = NULL;
     */

    conf->auth_http = ngx_mail_policy_auth_http_create(cf);
    if (conf->auth_http == NULL) {
        return NULL;
    }

    conf->policy = NGX_CONF_UNSET;
    conf->auth_plaintext = NGX_CONF_UNSET;
    conf->auth_delay = NGX_CONF_UNSET_MSEC;
    conf->auth_cache = NGX_CONF_UNSET_MSEC;
    conf->sender_own = NGX_CONF_UNSET_UINT;
    conf->message_size = NGX_CONF_UNSET_SIZE;
    conf->max_recipients = NGX_CONF_UNSET_UINT;
    conf->max_messages = NGX_CONF_UNSET_UINT;
    conf->normalize = NGX_CONF_UNSET_UINT;
    conf->received = NGX_CONF_UNSET_UINT;
    conf->min_data_rate = NGX_CONF_UNSET_SIZE;

    return conf;
}


static char *
ngx_mail_policy_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_mail_policy_srv_conf_t *prev = parent;
    ngx_mail_policy_srv_conf_t *conf = child;

    ngx_mail_core_srv_conf_t     *cscf;
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);
    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    if ((ngx_mail_policy_protocol_is(cscf)
         ? ngx_mail_policy_protocol_check(cf, conf)
         : ngx_mail_policy_protocol_alone(cf, conf))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_conf_merge_value(conf->policy, prev->policy, 0);
    ngx_conf_merge_value(conf->auth_plaintext, prev->auth_plaintext, 0);
    ngx_conf_merge_msec_value(conf->auth_delay, prev->auth_delay,
                              NGX_MAIL_POLICY_AUTH_DELAY);
    ngx_conf_merge_msec_value(conf->auth_cache, prev->auth_cache,
                              NGX_MAIL_POLICY_AUTH_CACHE);
    ngx_conf_merge_uint_value(conf->sender_own, prev->sender_own, 0);
    ngx_conf_merge_uint_value(conf->max_recipients, prev->max_recipients,
                              NGX_MAIL_POLICY_MAX_RECIPIENTS);

    ngx_conf_merge_uint_value(conf->max_messages, prev->max_messages, 0);
    ngx_conf_merge_uint_value(conf->normalize, prev->normalize, 0);
    ngx_conf_merge_uint_value(conf->received, prev->received,
                              NGX_MAIL_POLICY_RECEIVED_AUTO);
    ngx_conf_merge_size_value(conf->min_data_rate, prev->min_data_rate,
                              NGX_MAIL_POLICY_MIN_DATA_RATE);

    /* "smtp_capabilities SIZE n" may set it yet, below */

    ngx_conf_merge_size_value(conf->message_size, prev->message_size,
                              NGX_CONF_UNSET_SIZE);

    if (conf->auth == NULL) {
        conf->auth = prev->auth;
        conf->auth_route = prev->auth_route;
    }

    if (ngx_mail_policy_auth_http_merge(cf, conf, prev) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->auth_methods == 0) {
        conf->auth_methods = prev->auth_methods;
    }

    if (conf->limits == NULL) {
        conf->limits = prev->limits;
    }

    ngx_mail_policy_service_merge(conf, prev);

    if (conf->relay.len == 0) {
        conf->relay = prev->relay;
        conf->route = prev->route;
        conf->file = prev->file;
        conf->line = prev->line;
    }

    if (conf->clients == NULL) {
        conf->clients = prev->clients;
    }

    if (conf->edge == NULL) {
        conf->edge = prev->edge;
    }

    if (conf->action == NULL) {
        conf->action = prev->action;
    }

    if (conf->socket == NULL) {
        conf->socket = prev->socket;
    }

    ngx_mail_policy_access_log_merge(conf, prev);

    if (ngx_mail_policy_protocol_is(cscf)) {
        return ngx_mail_policy_protocol_merge(cf, conf, prev, mcf) == NGX_OK
               ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    if (!conf->policy) {
        return ngx_mail_policy_stock_auth_http_check(cf, mcf) == NGX_OK
               ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    if (ngx_mail_policy_merge_server(cf, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* what "policy on" needs, checks and changes */

static ngx_int_t
ngx_mail_policy_merge_server(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf)
{
    ngx_mail_protocol_t          *protocol;
    ngx_mail_core_srv_conf_t     *cscf;
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);
    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    if (cscf->protocol->type != NGX_MAIL_SMTP_PROTOCOL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy on\" works in a server with \"protocol "
                      "smtp\", write \"policy off;\" for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (conf->auth == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_auth\" is not set: name a provider, or write "
                      "\"policy_auth off;\" for a server that takes mail "
                      "without login, for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (conf->relay.len == 0 && conf->auth_route) {
        conf->relay = ngx_mail_policy_auth_relay;
        conf->route = conf->auth_route;
        conf->file = cscf->file_name;
        conf->line = cscf->line;
    }

    if (conf->relay.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"proxy_pass\" is not set: name a relay, as "
                      "\"proxy_pass 127.0.0.1:10025;\", for server in %s:%ui",
                      cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (ngx_mail_policy_auth_conf_init(cf, conf->auth) != NGX_OK
        || ngx_mail_policy_methods_init(cf, conf) != NGX_OK
        || ngx_mail_policy_sender_init(cf, conf) != NGX_OK
        || ngx_mail_policy_merge_relay(cf, conf) != NGX_OK
        || ngx_mail_policy_limit_init(cf, conf, mcf) != NGX_OK
        || ngx_mail_policy_service_init(cf, conf, mcf) != NGX_OK
        || ngx_mail_policy_stock_merge(cf, conf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_access_log_init(conf, mcf);

    if (conf->message_size == NGX_CONF_UNSET_SIZE) {
        conf->message_size = 0;
    }

    protocol = ngx_mail_policy_smtp_protocol(cf, cscf->protocol);
    if (protocol == NULL) {
        return NGX_ERROR;
    }

    conf->stock = cscf->protocol;
    cscf->protocol = protocol;

    return NGX_OK;
}


/* any group may be the one that a message of this server goes to */

static void
ngx_mail_policy_merge_keys(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                    i;
    ngx_mail_policy_upstream_t  **upstream;

    upstream = mcf->upstreams.elts;

    for (i = 0; i < mcf->upstreams.nelts; i++) {
        if (upstream[i]->key) {
            ngx_mail_policy_value_phase(upstream[i]->key);
            ngx_mail_policy_lookup_use(mcf, conf, upstream[i]->key->lookups);
        }
    }
}


/* what is wrong is told with the place of the "proxy_pass" */

static ngx_int_t
ngx_mail_policy_merge_relay(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf)
{
    ngx_conf_t                    at;
    ngx_conf_file_t               file;
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    ngx_mail_policy_merge_keys(conf, mcf);

    if (conf->route) {
        ngx_mail_policy_value_phase(conf->route);
        ngx_mail_policy_lookup_use(mcf, conf, conf->route->lookups);

        if (conf->route->phase > NGX_MAIL_POLICY_AT_RCPT) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"proxy_pass %V\" needs what is known at the end "
                          "of a transaction only, as $status, in %s:%ui",
                          &conf->route->text, conf->file, conf->line);
            return NGX_ERROR;
        }

        return ngx_mail_policy_route_check(cf, mcf, conf->route);
    }

    file = *cf->conf_file;
    file.file.name.data = conf->file;
    file.line = conf->line;

    at = *cf;
    at.conf_file = &file;

    conf->upstream = ngx_mail_policy_upstream_add(&at, &mcf->upstreams,
                                                  &conf->relay);

    return conf->upstream ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_init_module(ngx_cycle_t *cycle)
{
    ngx_mail_policy_main_conf_t  *mcf;

    /* nginx closes its files next; only without a master is there anything */

    if (cycle->old_cycle) {
        ngx_mail_policy_log_flush_all(cycle->old_cycle);
    }

    mcf = ngx_mail_policy_cycle_conf(cycle);

    return mcf ? ngx_mail_policy_socket_init_module(cycle, mcf) : NGX_OK;
}


/* cache managers run this too, and have no sessions */

static ngx_int_t
ngx_mail_policy_init_process(ngx_cycle_t *cycle)
{
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_policy_process_conf(cycle);

    if (mcf == NULL) {
        return NGX_OK;
    }

    /* first: the others have counters there */

    ngx_mail_policy_metrics_init_process(cycle, mcf->metrics);
    ngx_mail_policy_decision_init(&mcf->limits);

    if (ngx_mail_policy_upstream_init_process(cycle, &mcf->relays) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_mail_policy_service_start(&mcf->services);

    return ngx_mail_policy_store_init_process(cycle, mcf->store);
}


static void
ngx_mail_policy_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                     i;
    ngx_mail_policy_auth_conf_t  **auth;
    ngx_mail_policy_main_conf_t   *mcf;

    mcf = ngx_mail_policy_process_conf(cycle);

    if (mcf) {
        ngx_mail_policy_keep_exit_process(&mcf->upstreams);
        ngx_mail_policy_store_exit_process(mcf->store);
        ngx_mail_policy_upstream_exit_process(&mcf->relays);
        ngx_mail_policy_service_exit(&mcf->services);

        auth = mcf->auths.elts;

        for (i = 0; i < mcf->auths.nelts; i++) {
            ngx_mail_policy_auth_exit(auth[i]);
        }

        /* nginx has done so before, but what ends above may be logged */

        ngx_mail_policy_log_flush_all(cycle);
        ngx_mail_policy_metrics_exit_process();
    }
}


/* NULL: there is nothing for this process to do */

static ngx_mail_policy_main_conf_t *
ngx_mail_policy_process_conf(ngx_cycle_t *cycle)
{
    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NULL;
    }

    return ngx_mail_policy_cycle_conf(cycle);
}


/* NULL: no server of ours */

static ngx_mail_policy_main_conf_t *
ngx_mail_policy_cycle_conf(ngx_cycle_t *cycle)
{
    ngx_mail_conf_ctx_t          *ctx;
    ngx_mail_policy_main_conf_t  *mcf;

    ctx = (ngx_mail_conf_ctx_t *) ngx_get_conf(cycle->conf_ctx,
                                               ngx_mail_module);
    if (ctx == NULL) {
        return NULL;
    }

    mcf = ctx->main_conf[ngx_mail_policy_module.ctx_index];

    return mcf->used ? mcf : NULL;
}


static char *
ngx_mail_policy(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    char                         *rv;
    ngx_mail_policy_main_conf_t  *mcf;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);

    if (rv != NGX_CONF_OK || !pscf->policy) {
        return rv;
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    if (ngx_mail_policy_stock_auth_http(cf, mcf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_mail_policy_auth_conf_t  **auth;
    ngx_mail_policy_main_conf_t   *mcf;

    if (pscf->auth) {
        return "is duplicate";
    }

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    pscf->auth = ngx_mail_policy_auth_conf(cf, mcf->store);
    if (pscf->auth == NULL) {
        return NGX_CONF_ERROR;
    }

    auth = ngx_array_push(&mcf->auths);
    if (auth == NULL) {
        return NGX_CONF_ERROR;
    }

    *auth = pscf->auth;

    if (!ngx_mail_policy_auth_routes(pscf->auth)) {
        return NGX_CONF_OK;
    }

    /* what "proxy_pass" is where there is none */

    pscf->auth_route = ngx_palloc(cf->pool, sizeof(ngx_mail_policy_value_t));

    if (pscf->auth_route == NULL
        || ngx_mail_policy_value_compile(cf, &ngx_mail_policy_auth_relay,
                                         pscf->auth_route)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_mail_policy_proxy_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t  *value;

    if (pscf->relay.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (value[1].len == 0) {
        return "is empty";
    }

    pscf->relay = value[1];
    pscf->file = cf->conf_file->file.name.data;
    pscf->line = cf->conf_file->line;

    if (!ngx_mail_policy_value_variables(&value[1])) {
        return NGX_CONF_OK;
    }

    pscf->route = ngx_palloc(cf->pool, sizeof(ngx_mail_policy_value_t));
    if (pscf->route == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_mail_policy_value_compile(cf, &value[1], pscf->route) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
