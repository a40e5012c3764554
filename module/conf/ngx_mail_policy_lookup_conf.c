
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_lookup $name key [default]
 *
 * A variable whose value is a string in Redis.  It is asked for before it is
 * evaluated, by check/, for all that a server uses; here it is read from the
 * envelope.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


char *
ngx_mail_policy_lookup(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_main_conf_t *mcf = conf;

    ngx_str_t                       *value;
    ngx_mail_policy_lookup_conf_t   *lookup, **lookups;

    value = cf->args->elts;

    if (mcf->lookups.nelts == NGX_MAIL_POLICY_LOOKUPS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "too many \"policy_lookup\": write %d at the most",
                           NGX_MAIL_POLICY_LOOKUPS_MAX);
        return NGX_CONF_ERROR;
    }

    lookup = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_lookup_conf_t));
    if (lookup == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_mail_policy_value_define(cf, mcf, &value[1], &lookup->name)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (value[2].len == 0) {
        return "has an empty key: write what stands behind the prefix in "
               "Redis, as \"route:$recipient_domain\"";
    }

    if (ngx_mail_policy_value_compile(cf, &value[2], &lookup->key) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 4
        && ngx_mail_policy_value_compile(cf, &value[3], &lookup->fallback)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    lookup->file = cf->conf_file->file.name.data;
    lookup->line = cf->conf_file->line;

    lookups = ngx_array_push(&mcf->lookups);
    if (lookups == NULL) {
        return NGX_CONF_ERROR;
    }

    *lookups = lookup;
    lookup->n = mcf->lookups.nelts - 1;

    return NGX_CONF_OK;
}


ngx_mail_policy_lookup_conf_t *
ngx_mail_policy_lookup_find(ngx_array_t *lookups, ngx_str_t *name)
{
    ngx_uint_t                       i;
    ngx_mail_policy_lookup_conf_t  **lookup;

    lookup = lookups->elts;

    for (i = 0; i < lookups->nelts; i++) {
        if (lookup[i]->name.len == name->len
            && ngx_strncasecmp(lookup[i]->name.data, name->data, name->len)
               == 0)
        {
            return lookup[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_lookup_resolve(ngx_conf_t *cf,
    ngx_mail_policy_lookup_conf_t *lookup)
{
    if (lookup->resolved) {
        return NGX_OK;
    }

    if (lookup->entered) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "policy_lookup of \"%V\" variable leads back to itself "
                      "in %s:%ui", &lookup->name, lookup->file, lookup->line);
        return NGX_ERROR;
    }

    lookup->entered = 1;

    if (ngx_mail_policy_value_follow(cf, &lookup->key) != NGX_OK
        || ngx_mail_policy_value_follow(cf, &lookup->fallback) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (lookup->key.phase > NGX_MAIL_POLICY_AT_RCPT) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "policy_lookup of \"%V\" variable has a key that is "
                      "known for the log only: write \"$sasl_username\", "
                      "\"$sender_domain\", \"$recipient_domain\" or the "
                      "like, in %s:%ui",
                      &lookup->name, lookup->file, lookup->line);
        return NGX_ERROR;
    }

    lookup->phase = ngx_max(lookup->key.phase, lookup->fallback.phase);
    lookup->lookups = lookup->key.lookups | lookup->fallback.lookups
                      | (uint64_t) 1 << lookup->n;

    if (lookup->phase > NGX_MAIL_POLICY_AT_RCPT) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "policy_lookup of \"%V\" variable needs what is known "
                      "at the end of a transaction only, as $status, in "
                      "%s:%ui", &lookup->name, lookup->file, lookup->line);
        return NGX_ERROR;
    }

    lookup->resolved = 1;

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_lookup_check(ngx_conf_t *cf, ngx_mail_policy_main_conf_t *mcf)
{
    ngx_str_t                       *prefix, *text;
    ngx_uint_t                       i;
    ngx_mail_policy_lookup_conf_t  **lookup;

    lookup = mcf->lookups.elts;
    prefix = ngx_mail_policy_store_prefix(mcf->store);

    if (mcf->lookups.nelts && prefix == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"policy_lookup\" reads from Redis: add "
                      "\"policy_redis redis://127.0.0.1:6379/0;\" for that "
                      "in %s:%ui", lookup[0]->file, lookup[0]->line);
        return NGX_ERROR;
    }

    for (i = 0; i < mcf->lookups.nelts; i++) {
        text = &lookup[i]->key.text;

        if (prefix->len && text->len > prefix->len
            && ngx_memcmp(text->data, prefix->data, prefix->len) == 0)
        {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "\"policy_lookup\" puts the prefix in front of its "
                          "key, which is \"%V%V\" so: leave \"%V\" out in "
                          "%s:%ui", prefix, text, prefix,
                          lookup[i]->file, lookup[i]->line);
        }
    }

    return NGX_OK;
}


void
ngx_mail_policy_lookup_use(ngx_mail_policy_main_conf_t *mcf,
    ngx_mail_policy_srv_conf_t *conf, uint64_t mask)
{
    ngx_uint_t                       i;
    ngx_mail_policy_lookup_conf_t  **lookup;

    lookup = mcf->lookups.elts;

    for (i = 0; i < mcf->lookups.nelts; i++) {
        if (mask & (uint64_t) 1 << i) {
            conf->lookups[lookup[i]->key.phase] |= (uint64_t) 1 << i;
        }
    }
}


/* one that was not asked for, or not yet, is as one that is not there */

ngx_int_t
ngx_mail_policy_lookup_eval(ngx_pool_t *pool,
    ngx_mail_policy_lookup_conf_t *lookup,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *out)
{
    ngx_mail_policy_found_t        *found;
    ngx_mail_policy_found_value_t  *value;

    for (found = envelope->found; found; found = found->wider) {

        if (found->failed & (uint64_t) 1 << lookup->n) {
            return NGX_ERROR;
        }

        for (value = found->values; value; value = value->next) {

            if (value->n == lookup->n && value->value.data) {
                *out = value->value;
                return NGX_OK;
            }
        }
    }

    return ngx_mail_policy_value_eval(pool, &lookup->fallback, envelope, out);
}
