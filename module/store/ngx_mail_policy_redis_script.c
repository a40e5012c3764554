
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Requests that call a script.  No events arrive here.
 *
 *     EVAL, the first time on a connection -> answer
 *     EVALSHA -> NOSCRIPT -> EVAL -> answer
 *         \-> answer
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_sha1.h>

#include "ngx_mail_policy_redis_script.h"
#include "ngx_mail_policy_scripts.h"


#define ngx_mail_policy_redis_script_text(s, bit)                            \
    { { sizeof(s) - 1, (u_char *) s }, bit, { 0 } }


ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_charge_script =
    ngx_mail_policy_redis_script_text(ngx_mail_policy_script_charge, 1);
ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_back_script =
    ngx_mail_policy_redis_script_text(ngx_mail_policy_script_giveback, 2);
ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_renew_script =
    ngx_mail_policy_redis_script_text(ngx_mail_policy_script_renew, 4);
ngx_mail_policy_redis_script_t  ngx_mail_policy_redis_merge_script =
    ngx_mail_policy_redis_script_text(ngx_mail_policy_script_merge, 8);


static ngx_mail_policy_redis_script_t  *ngx_mail_policy_redis_scripts[] = {
    &ngx_mail_policy_redis_charge_script,
    &ngx_mail_policy_redis_back_script,
    &ngx_mail_policy_redis_renew_script,
    &ngx_mail_policy_redis_merge_script,
    NULL
};


void
ngx_mail_policy_redis_scripts_init(void)
{
    u_char                            sha1[20];
    ngx_sha1_t                        ctx;
    ngx_mail_policy_redis_script_t  **script;

    for (script = ngx_mail_policy_redis_scripts; *script; script++) {
        ngx_sha1_init(&ctx);
        ngx_sha1_update(&ctx, (*script)->text.data, (*script)->text.len);
        ngx_sha1_final(sha1, &ctx);

        ngx_hex_dump((*script)->sha1, sha1, sizeof(sha1));
    }
}


ngx_mail_policy_redis_request_t *
ngx_mail_policy_redis_script_request(ngx_mail_policy_redis_t *redis,
    ngx_mail_policy_redis_script_t *script,
    ngx_mail_policy_redis_answer_pt handler, ngx_uint_t nkeys,
    ngx_uint_t argc, size_t size, ngx_mail_policy_redis_args_t *args)
{
    ngx_mail_policy_redis_request_t  *request;

    request = ngx_mail_policy_redis_request(3 + argc, handler);
    if (request == NULL) {
        return NULL;
    }

    args->p = ngx_pnalloc(request->pool, size + NGX_INT64_LEN);
    if (args->p == NULL) {
        ngx_mail_policy_redis_request_free(request);
        return NULL;
    }

    args->request = request;
    args->redis = redis;
    args->arg = &request->argv[2];

    request->writes = 1;
    request->script = script;

    ngx_str_set(&request->argv[0], "EVALSHA");
    request->argv[1].data = script->sha1;
    request->argv[1].len = sizeof(script->sha1);

    ngx_mail_policy_redis_arg_num(args, nkeys);

    return request;
}


void
ngx_mail_policy_redis_arg_key(ngx_mail_policy_redis_args_t *args,
    const char *kind, ngx_str_t *id)
{
    ngx_str_t  *prefix;

    prefix = &args->redis->prefix;

    args->arg->data = args->p;

    args->p = ngx_cpymem(args->p, prefix->data, prefix->len);
    args->p = ngx_cpymem(args->p, kind, ngx_strlen(kind));
    args->p = ngx_cpymem(args->p, id->data, id->len);

    args->arg->len = args->p - args->arg->data;
    args->arg++;
}


void
ngx_mail_policy_redis_arg_str(ngx_mail_policy_redis_args_t *args,
    ngx_str_t *value)
{
    args->arg->data = args->p;
    args->arg->len = value->len;
    args->arg++;

    args->p = ngx_cpymem(args->p, value->data, value->len);
}


void
ngx_mail_policy_redis_arg_num(ngx_mail_policy_redis_args_t *args,
    uint64_t value)
{
    args->arg->data = args->p;
    args->p = ngx_sprintf(args->p, "%uL", value);
    args->arg->len = args->p - args->arg->data;
    args->arg++;
}


void
ngx_mail_policy_redis_arg_member(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit)
{
    args->arg->data = args->p;

    if (unit == NGX_MAIL_POLICY_SESSIONS) {
        args->p = ngx_cpymem(args->p, charge->member.data,
                             charge->member.len);

    } else if (unit == NGX_MAIL_POLICY_AUTH_FAILURES) {
        args->p = ngx_sprintf(args->p, "%V %V", &charge->member,
                              &charge->client);
    }

    args->arg->len = args->p - args->arg->data;
    args->arg++;
}


ngx_uint_t
ngx_mail_policy_redis_set_keys(ngx_uint_t asked)
{
    ngx_uint_t  n;

    n = 0;

    if (asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS)) {
        n++;
    }

    if (asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES)) {
        n += 2;
    }

    return n;
}


void
ngx_mail_policy_redis_arg_set_keys(ngx_mail_policy_redis_args_t *args,
    ngx_mail_policy_charge_t *charge, ngx_uint_t asked)
{
    if (asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_SESSIONS)) {
        ngx_mail_policy_redis_arg_key(args, "lease:", &charge->id);
    }

    if (asked & ngx_mail_policy_asked(NGX_MAIL_POLICY_AUTH_FAILURES)) {
        ngx_mail_policy_redis_arg_key(args, "failed:", &charge->id);
        ngx_mail_policy_redis_arg_key(args, "exempt:", &charge->id);
    }
}


void
ngx_mail_policy_redis_script_choose(ngx_mail_policy_redis_conn_t *conn,
    ngx_mail_policy_redis_request_t *request)
{
    ngx_mail_policy_redis_script_t  *script;

    script = request->script;

    if (script == NULL || (conn->loaded & script->bit)) {
        return;
    }

    conn->loaded |= script->bit;

    ngx_str_set(&request->argv[0], "EVAL");
    request->argv[1] = script->text;
}


ngx_uint_t
ngx_mail_policy_redis_script_missing(ngx_mail_policy_redis_request_t *request,
    ngx_mail_policy_redis_reply_t *reply)
{
    ngx_mail_policy_redis_script_t  *script;

    if (!ngx_mail_policy_redis_is_error(reply, "NOSCRIPT")
        || request->argv[0].len != sizeof("EVALSHA") - 1)
    {
        return 0;
    }

    script = request->script;

    ngx_str_set(&request->argv[0], "EVAL");
    request->argv[1] = script->text;

    return 1;
}
