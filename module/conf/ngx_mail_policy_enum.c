
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A directive that takes one of some words: as nginx's ngx_conf_set_enum_slot,
 * but a word that is none of them is told which there are.  No events arrive
 * here.
 */


#include "ngx_mail_policy_directive.h"


char *
ngx_mail_policy_enum_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char *p = conf;

    u_char           *last, words[128];
    ngx_str_t        *value;
    ngx_uint_t       *np, i;
    ngx_conf_enum_t  *e;

    np = (ngx_uint_t *) (p + cmd->offset);

    if (*np != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    e = cmd->post;
    last = words;

    for (i = 0; e[i].name.len; i++) {

        if (e[i].name.len == value[1].len
            && ngx_strcasecmp(e[i].name.data, value[1].data) == 0)
        {
            *np = e[i].value;
            return NGX_CONF_OK;
        }

        last = ngx_slprintf(last, words + sizeof(words), "%s\"%V\"",
                            i == 0 ? "" : e[i + 1].name.len ? ", " : " or ",
                            &e[i].name);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\", write %*s", &value[1],
                       (size_t) (last - words), words);

    return NGX_CONF_ERROR;
}
