
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Directives of the stock mail modules that count in a server with policy.
 *
 * Where their configuration is public it is read as it is.  The proxy's and
 * the auth_http client's is private: a value is found there by the offset
 * that the directive's row in the module's own table has.  Our module
 * follows the stock ones in any build, so all of it is merged when we look.
 */


#include "ngx_mail_policy_directive.h"

#include "mpol_command.h"


extern ngx_module_t  ngx_mail_auth_http_module;


#define NGX_MAIL_POLICY_OFFER_PIPELINING  0x01
#define NGX_MAIL_POLICY_OFFER_ENHANCED    0x02
#define NGX_MAIL_POLICY_OFFER_LIMITS      0x04
#define NGX_MAIL_POLICY_OFFER_CONFIGURED  0x08  /* by other directives */


typedef struct {
    ngx_str_t   name;
    ngx_uint_t  offer;                          /* NGX_MAIL_POLICY_OFFER_... */
    ngx_uint_t  extension;                      /* MPOL_EXT_... */
} ngx_mail_policy_capability_t;


static ngx_command_t *ngx_mail_policy_stock_command(ngx_module_t *module,
    char *name);
static ngx_int_t ngx_mail_policy_stock_set(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf, char *name, char *argument);
static ngx_int_t ngx_mail_policy_stock_capabilities(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf,
    ngx_mail_smtp_srv_conf_t *sscf);
static ngx_mail_policy_capability_t *ngx_mail_policy_stock_capability(
    ngx_str_t *text, ngx_str_t *argument);
static ngx_int_t ngx_mail_policy_stock_size(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf,
    ngx_str_t *argument);
static ngx_int_t ngx_mail_policy_stock_methods(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf,
    ngx_mail_smtp_srv_conf_t *sscf);
static void ngx_mail_policy_stock_plaintext(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf);


static ngx_mail_policy_capability_t  ngx_mail_policy_capabilities[] = {
    { ngx_string("PIPELINING"), NGX_MAIL_POLICY_OFFER_PIPELINING, 0 },
    { ngx_string("ENHANCEDSTATUSCODES"), NGX_MAIL_POLICY_OFFER_ENHANCED, 0 },
    { ngx_string("LIMITS"), NGX_MAIL_POLICY_OFFER_LIMITS, 0 },
    { ngx_string("SIZE"), 0, MPOL_EXT_SIZE },
    { ngx_string("8BITMIME"), 0, MPOL_EXT_8BITMIME },
    { ngx_string("SMTPUTF8"), 0, MPOL_EXT_SMTPUTF8 },
    { ngx_string("DSN"), 0, MPOL_EXT_DSN },
    { ngx_string("CHUNKING"), 0, MPOL_EXT_CHUNKING },
    { ngx_string("BINARYMIME"), 0, MPOL_EXT_BINARYMIME },
    { ngx_string("AUTH"), NGX_MAIL_POLICY_OFFER_CONFIGURED, 0 },
    { ngx_string("STARTTLS"), NGX_MAIL_POLICY_OFFER_CONFIGURED, 0 },
    { ngx_null_string, 0, 0 }
};


/*
 * The configuration's first member is the address, and it is what nginx
 * tests.  That it still is so is seen on one that is created to be looked
 * at.  A later "auth_http" of the user overrides ours; it sets, and does not
 * ask whether something is set already.
 */

ngx_int_t
ngx_mail_policy_stock_auth_http(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf)
{
    void               *peer, **conf;
    ngx_command_t      *cmd;
    ngx_mail_module_t  *module;

    module = ngx_mail_auth_http_module.ctx;

    cmd = ngx_mail_policy_stock_command(&ngx_mail_auth_http_module,
                                        "auth_http");

    if (cmd == NULL || module->create_srv_conf == NULL) {
        goto unknown;
    }

    conf = module->create_srv_conf(cf);
    if (conf == NULL) {
        return NGX_ERROR;
    }

    if (*conf != NULL) {
        goto unknown;
    }

    if (ngx_mail_policy_stock_set(cf, cmd, conf, "auth_http",
                                  "http://unix:/nonexistent")
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    peer = *conf;

    if (peer == NULL) {
        goto unknown;
    }

    conf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_auth_http_module);

    if (*conf != NULL) {
        return NGX_OK;
    }

    if (ngx_mail_policy_stock_set(cf, cmd, conf, "auth_http",
                                  "http://unix:/nonexistent")
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (cf->cmd_type == NGX_MAIL_MAIN_CONF) {
        mcf->auth_http = *conf;
    }

    return NGX_OK;

unknown:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "ngx_mail_auth_http_module is of an unknown kind");
    return NGX_ERROR;
}


/* with policy off all is as without us, and that is stock's own message */

ngx_int_t
ngx_mail_policy_stock_auth_http_check(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf)
{
    void                      **conf;
    ngx_mail_core_srv_conf_t   *cscf;

    if (mcf->auth_http == NULL) {
        return NGX_OK;
    }

    conf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_auth_http_module);

    if (*conf != mcf->auth_http) {
        return NGX_OK;
    }

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "no \"auth_http\" is defined for server in %s:%ui",
                  cscf->file_name, cscf->line);

    return NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_stock_merge(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf)
{
    ngx_mail_core_srv_conf_t  *cscf;
    ngx_mail_smtp_srv_conf_t  *sscf;

    cscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_core_module);
    sscf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_smtp_module);

    /*
     * Input that comes while the client's name is looked up is seen by nobody,
     * unless there is a delay behind it in which it would be a fault.
     */

    if (cscf->resolver && sscf->greeting_delay == 0) {
        sscf->greeting_delay = 1;
    }

    if (ngx_mail_policy_stock_capabilities(cf, conf, cscf, sscf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_mail_policy_stock_methods(cf, conf, cscf, sscf);
}


static ngx_command_t *
ngx_mail_policy_stock_command(ngx_module_t *module, char *name)
{
    ngx_command_t  *cmd;

    for (cmd = module->commands; cmd && cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, name) == 0) {
            return cmd;
        }
    }

    return NULL;
}


void *
ngx_mail_policy_stock_value(ngx_conf_t *cf, ngx_module_t *module, char *name)
{
    u_char               *conf;
    ngx_command_t        *cmd;
    ngx_mail_conf_ctx_t  *ctx;

    cmd = ngx_mail_policy_stock_command(module, name);

    if (cmd == NULL || cmd->conf != NGX_MAIL_SRV_CONF_OFFSET) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "this nginx has no directive \"%s\"", name);
        return NULL;
    }

    ctx = cf->ctx;
    conf = ctx->srv_conf[module->ctx_index];

    return conf + cmd->offset;
}


/* runs a directive as if "name argument;" stood in the file */

static ngx_int_t
ngx_mail_policy_stock_set(ngx_conf_t *cf, ngx_command_t *cmd, void *conf,
    char *name, char *argument)
{
    char         *rv;
    ngx_str_t    *value;
    ngx_array_t  *args, *save;

    args = ngx_array_create(cf->pool, 2, sizeof(ngx_str_t));
    if (args == NULL) {
        return NGX_ERROR;
    }

    value = ngx_array_push_n(args, 2);
    if (value == NULL) {
        return NGX_ERROR;
    }

    value[0].len = ngx_strlen(name);
    value[0].data = (u_char *) name;

    /* handlers may write to their arguments */

    value[1].len = ngx_strlen(argument);
    value[1].data = ngx_pnalloc(cf->pool, value[1].len + 1);
    if (value[1].data == NULL) {
        return NGX_ERROR;
    }

    ngx_cpystrn(value[1].data, (u_char *) argument, value[1].len + 1);

    save = cf->args;
    cf->args = args;

    rv = cmd->set(cf, cmd, conf);

    cf->args = save;

    return (rv == NGX_CONF_OK) ? NGX_OK : NGX_ERROR;
}


/* smtp_capabilities: what the user lists, of what we can do; or all of it */

static ngx_int_t
ngx_mail_policy_stock_capabilities(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf,
    ngx_mail_smtp_srv_conf_t *sscf)
{
    ngx_str_t                     *text, argument;
    ngx_uint_t                     i, offers, extensions;
    ngx_mail_policy_capability_t  *known;

    text = sscf->capabilities.elts;

    offers = 0;
    extensions = 0;

    if (sscf->capabilities.nelts == 0) {
        for (known = ngx_mail_policy_capabilities; known->name.len; known++) {
            offers |= known->offer;
            extensions |= known->extension;
        }
    }

    for (i = 0; i < sscf->capabilities.nelts; i++) {

        known = ngx_mail_policy_stock_capability(&text[i], &argument);

        if (known == NULL) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "smtp_capabilities \"%V\" is not supported by this "
                          "version and is not offered by server in %s:%ui",
                          &text[i], cscf->file_name, cscf->line);
            continue;
        }

        if (known->extension == MPOL_EXT_SIZE
            && ngx_mail_policy_stock_size(cf, conf, cscf, &argument)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        offers |= known->offer;
        extensions |= known->extension;
    }

    /* RFC 3030, section 3: without chunks there is no way to send it */

    if (!(extensions & MPOL_EXT_CHUNKING)) {
        extensions &= ~MPOL_EXT_BINARYMIME;
    }

    /* RFC 6531, section 3.1 */

    if (!(extensions & MPOL_EXT_8BITMIME)) {
        extensions &= ~MPOL_EXT_SMTPUTF8;
    }

    if (!ngx_mail_policy_auth_off(conf->auth)) {
        extensions |= MPOL_EXT_AUTH;
    }

    conf->extensions = extensions;
    conf->pipelining = (offers & NGX_MAIL_POLICY_OFFER_PIPELINING) ? 1 : 0;
    conf->enhanced = (offers & NGX_MAIL_POLICY_OFFER_ENHANCED) ? 1 : 0;
    conf->limits_offered = (offers & NGX_MAIL_POLICY_OFFER_LIMITS) ? 1 : 0;

    return NGX_OK;
}


/* NULL: none that we know */

static ngx_mail_policy_capability_t *
ngx_mail_policy_stock_capability(ngx_str_t *text, ngx_str_t *argument)
{
    u_char                        *p, *last;
    size_t                         len;
    ngx_mail_policy_capability_t  *known;

    last = text->data + text->len;

    for (p = text->data; p < last && *p != ' '; p++) { /* void */ }

    len = p - text->data;

    while (p < last && *p == ' ') {
        p++;
    }

    argument->len = last - p;
    argument->data = p;

    for (known = ngx_mail_policy_capabilities; known->name.len; known++) {
        if (known->name.len == len
            && ngx_strncasecmp(known->name.data, text->data, len) == 0)
        {
            return known;
        }
    }

    return NULL;
}


/* "SIZE n" says as much as policy_message_size, which goes first */

static ngx_int_t
ngx_mail_policy_stock_size(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_core_srv_conf_t *cscf, ngx_str_t *argument)
{
    ssize_t  size;

    if (argument->len == 0) {
        return NGX_OK;
    }

    size = ngx_atosz(argument->data, argument->len);

    if (size == NGX_ERROR) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "invalid number in smtp_capabilities \"SIZE %V\" for "
                      "server in %s:%ui",
                      argument, cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    if (conf->message_size == NGX_CONF_UNSET_SIZE) {
        conf->message_size = size;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_stock_methods(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf,
    ngx_mail_smtp_srv_conf_t *sscf)
{
    if (ngx_mail_policy_auth_off(conf->auth)) {
        return NGX_OK;
    }

    if (sscf->auth_methods & NGX_MAIL_AUTH_NONE_ENABLED) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"smtp_auth none\" contradicts \"policy_auth\": remove "
                      "\"none\", or write \"policy_auth off;\" for server in "
                      "%s:%ui", cscf->file_name, cscf->line);
        return NGX_ERROR;
    }

    ngx_mail_policy_stock_plaintext(cf, conf, cscf);

    return NGX_OK;
}


/* a server that has a provider, and no session that may use it */

static void
ngx_mail_policy_stock_plaintext(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_core_srv_conf_t *cscf)
{
    ngx_flag_t           *ssl;
    ngx_mail_ssl_conf_t  *sslcf;

    sslcf = ngx_mail_conf_get_module_srv_conf(cf, ngx_mail_ssl_module);

    if (conf->auth_plaintext || sslcf->listen
        || sslcf->starttls != NGX_MAIL_STARTTLS_OFF)
    {
        return;
    }

    /* "ssl on" is gone since 1.25.1 */

    if (ngx_mail_policy_stock_command(&ngx_mail_ssl_module, "ssl")) {
        ssl = ngx_mail_policy_stock_value(cf, &ngx_mail_ssl_module, "ssl");

        if (ssl == NULL || *ssl) {
            return;
        }
    }

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "nobody can log in without TLS: set \"starttls\", "
                  "\"listen ... ssl\", or \"policy_auth_plaintext on\" for "
                  "server in %s:%ui", cscf->file_name, cscf->line);
}
