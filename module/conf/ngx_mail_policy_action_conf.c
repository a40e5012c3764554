
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_action value
 *
 * What may come of the value is looked at when all of mail{} is known: a text
 * without variables, the results of a map, the default of a lookup, and the
 * word that stands in front of a variable.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"

#include "mpol_text.h"


/* of a value, in a message */
#define NGX_MAIL_POLICY_ACTION_SAID  100


static ngx_int_t ngx_mail_policy_action_check(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_mail_policy_value_t *value);
static ngx_int_t ngx_mail_policy_action_check_map(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_mail_policy_map_t *map);
static ngx_int_t ngx_mail_policy_action_check_word(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_str_t *text);
static ngx_int_t ngx_mail_policy_action_check_text(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_str_t *text);


char *
ngx_mail_policy_action(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t                      *value;
    ngx_mail_policy_action_conf_t  *action;

    if (pscf->action) {
        return "is duplicate";
    }

    action = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_action_conf_t));
    if (action == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    if (ngx_mail_policy_value_compile(cf, &value[1], &action->value)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    action->file = cf->conf_file->file.name.data;
    action->line = cf->conf_file->line;

    pscf->action = action;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_mail_policy_action_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_mail_policy_action_conf_t  *action;

    action = conf->action;

    if (action == NULL) {
        return NGX_OK;
    }

    if (action->value.text.len == 0) {
        conf->action = NULL;
        return NGX_OK;
    }

    ngx_mail_policy_value_phase(&action->value);
    ngx_mail_policy_lookup_use(mcf, conf, action->value.lookups);

    if (action->value.phase > NGX_MAIL_POLICY_AT_RCPT) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_action %V\" needs what is known at the end of "
                      "a transaction only, as $status, in %s:%ui",
                      &action->value.text, action->file, action->line);
        return NGX_ERROR;
    }

    return ngx_mail_policy_action_check(cf, action, &action->value);
}


static ngx_int_t
ngx_mail_policy_action_check(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_mail_policy_value_t *value)
{
    ngx_mail_policy_part_t  *part;

    if (value->parts == NULL) {
        return ngx_mail_policy_action_check_text(cf, action, &value->text);
    }

    part = value->parts->elts;

    if (!part->named) {
        return ngx_mail_policy_action_check_word(cf, action, &part->text);
    }

    if (value->parts->nelts > 1) {
        return NGX_OK;
    }

    if (part->map) {
        return ngx_mail_policy_action_check_map(cf, action, part->map);
    }

    return part->lookup
           ? ngx_mail_policy_action_check(cf, action, &part->lookup->fallback)
           : NGX_OK;
}


static ngx_int_t
ngx_mail_policy_action_check_map(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_mail_policy_map_t *map)
{
    ngx_uint_t                 i;
    ngx_mail_policy_value_t  **result;

    result = map->results.elts;

    for (i = 0; i < map->results.nelts; i++) {
        if (ngx_mail_policy_action_check(cf, action, result[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* what is in front of a variable; behind its word is all that any needs */

static ngx_int_t
ngx_mail_policy_action_check_word(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_str_t *text)
{
    u_char     *p;
    ngx_str_t   whole;

    p = ngx_strlchr(text->data, text->data + text->len, ' ');

    if (p == NULL || p == text->data) {
        return NGX_OK;
    }

    whole.len = p - text->data + sizeof(" x:@") - 1;
    whole.data = ngx_pnalloc(cf->pool, whole.len);
    if (whole.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(whole.data, "%*s x:@", (size_t) (p - text->data), text->data);

    return ngx_mail_policy_action_check_text(cf, action, &whole);
}


static ngx_int_t
ngx_mail_policy_action_check_text(ngx_conf_t *cf,
    ngx_mail_policy_action_conf_t *action, ngx_str_t *text)
{
    size_t          len;
    const char     *error;
    mpol_access_t   access;
    u_char          buf[NGX_MAIL_POLICY_ACTION_SAID];

    error = ngx_mail_policy_action_parse(text, &access);

    if (error == NULL) {
        return NGX_OK;
    }

    len = ngx_min(text->len, NGX_MAIL_POLICY_ACTION_SAID);
    mpol_reply_clean(text->data, len, buf);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"policy_action\" may answer \"%*s%s\", which %s: write "
                  "as \"FILTER smtp:[10.0.0.1]:25\", \"PREPEND X-Name: "
                  "text\", \"HOLD\", \"REDIRECT\" or \"BCC\" with an address, "
                  "\"REJECT text\", \"DEFER text\", or \"DUNNO\", in %s:%ui",
                  len, buf, len < text->len ? "..." : "", error, action->file,
                  action->line);

    return NGX_ERROR;
}


const char *
ngx_mail_policy_action_parse(ngx_str_t *text, mpol_access_t *access)
{
    int     rc;
    size_t  i;

    ngx_memzero(access, sizeof(mpol_access_t));

    for (i = 0; i < text->len; i++) {
        if (text->data[i] != ' ' && text->data[i] != '\t') {
            break;
        }
    }

    if (i == text->len) {
        return NULL;
    }

    if (text->len > NGX_MAIL_POLICY_ACTION_MAX) {
        return "is too long";
    }

    if (!mpol_utf8_clean(text->data, text->len)) {
        return "has control characters in it, or is not UTF-8";
    }

    rc = mpol_access_parse(text->data, text->len, access);

    if (access->action == MPOL_ACCESS_OK) {
        return "would let mail pass that Postfix would not";
    }

    if (access->action == MPOL_ACCESS_DISCARD) {
        return "would lose mail";
    }

    return (rc == MPOL_OK) ? NULL : "no Postfix takes";
}
