
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is said of mail that passes: "policy_action", or DUNNO.
 *
 * A refusal is written anew, with a status and a text: Postfix takes a bare
 * "550" for a permission.  What Postfix would add up for each recipient is
 * said once in a message for each text.
 *
 * Events: lookups that are there.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "mpol_text.h"
#include "ngx_mail_policy_postfix.h"


/* of a value in the log */
#define NGX_MAIL_POLICY_POSTFIX_ACTION_LOG  100


static ngx_int_t ngx_mail_policy_postfix_action_answer(
    ngx_mail_policy_postfix_t *s, ngx_str_t *text, mpol_access_t *access);
static ngx_int_t ngx_mail_policy_postfix_action_reply(
    ngx_mail_policy_postfix_t *s, ngx_str_t *text, mpol_access_t *access);
static ngx_int_t ngx_mail_policy_postfix_action_once(
    ngx_mail_policy_postfix_t *s, ngx_str_t *text, mpol_access_t *access);
static ngx_int_t ngx_mail_policy_postfix_action_text(
    ngx_mail_policy_postfix_t *s, ngx_str_t *text);
static void ngx_mail_policy_postfix_action_log(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text, const char *error);


static ngx_str_t  ngx_mail_policy_postfix_trouble =
    ngx_string("4.3.0 Temporary server problem, try again later");


ngx_int_t
ngx_mail_policy_postfix_action(ngx_mail_policy_postfix_t *s,
    ngx_mail_policy_fetch_pt handler)
{
    ngx_int_t                       rc;
    ngx_str_t                       text;
    const char                     *error;
    mpol_access_t                   access;
    ngx_mail_policy_action_conf_t  *action;

    action = s->conf->action;

    if (action == NULL
        || (s->state != NGX_MAIL_POLICY_POSTFIX_RCPT
            && ngx_mail_policy_postfix_acted(s)))
    {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    rc = ngx_mail_policy_fetch_wait(s->fetch, action->value.lookups, &s->wait,
                                    handler, s);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_mail_policy_value_eval(s->pool, &action->value, &s->envelope,
                                   &text)
        != NGX_OK)
    {
        ngx_mail_policy_postfix_say(s, "DEFER_IF_PERMIT",
                                    &ngx_mail_policy_postfix_trouble);
        return NGX_DECLINED;
    }

    error = ngx_mail_policy_action_parse(&text, &access);

    if (error) {
        ngx_mail_policy_postfix_act(s);
        ngx_mail_policy_postfix_action_log(s, &text, error);
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    return ngx_mail_policy_postfix_action_answer(s, &text, &access);
}


static ngx_int_t
ngx_mail_policy_postfix_action_answer(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text, mpol_access_t *access)
{
    ngx_int_t  rc;

    if (access->action == MPOL_ACCESS_REJECT
        || access->action == MPOL_ACCESS_DEFER
        || access->action == MPOL_ACCESS_DEFER_IF_PERMIT)
    {
        rc = ngx_mail_policy_postfix_action_reply(s, text, access);
        return (rc == NGX_OK) ? NGX_DECLINED : rc;
    }

    ngx_mail_policy_postfix_act(s);

    switch (access->action) {

    case MPOL_ACCESS_DUNNO:
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);

    case MPOL_ACCESS_DEFER_IF_REJECT:
        return ngx_mail_policy_postfix_action_reply(s, text, access);

    case MPOL_ACCESS_PREPEND:

        /* the message is there already, and Postfix would complain */

        if (s->state == NGX_MAIL_POLICY_POSTFIX_END) {
            return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
        }

        return ngx_mail_policy_postfix_action_once(s, text, access);

    case MPOL_ACCESS_BCC:
        return ngx_mail_policy_postfix_action_once(s, text, access);

    default:
        return ngx_mail_policy_postfix_action_text(s, text);
    }
}


static ngx_int_t
ngx_mail_policy_postfix_action_reply(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text, mpol_access_t *access)
{
    u_char     *p, *start;
    size_t      len, n;
    ngx_str_t   answer;
    u_char      reply[MPOL_ACCESS_REPLY];

    len = mpol_access_reply(access, reply);

    for (start = text->data; *start == ' ' || *start == '\t'; start++) {
        /* void */
    }

    /* a code is that of the reply, and a word stands instead of it */

    n = 0;

    if (*start < '0' || *start > '9') {
        while (n < (size_t) (text->data + text->len - start)
               && start[n] != ' ' && start[n] != '\t')
        {
            n++;
        }
    }

    answer.data = ngx_pnalloc(s->pool, n + len);
    if (answer.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(answer.data, start, n);
    p = n ? ngx_cpymem(p, reply + 3, len - 3) : ngx_cpymem(p, reply, len);

    answer.len = ngx_min((size_t) (p - answer.data),
                         NGX_MAIL_POLICY_POSTFIX_ANSWER
                         - (sizeof("action=" "\n\n") - 1));

    return ngx_mail_policy_postfix_action_text(s, &answer);
}


/* the further restrictions and recipients are told DUNNO */

static ngx_int_t
ngx_mail_policy_postfix_action_once(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text, mpol_access_t *access)
{
    ngx_str_t  what;

    what.data = (u_char *) access->text.data;
    what.len = access->text.len;

    if (ngx_mail_policy_postfix_said(s, access->action == MPOL_ACCESS_BCC
                                        ? "BCC" : "PREPEND", &what))
    {
        return ngx_mail_policy_postfix_say(s, "DUNNO", NULL);
    }

    s->once = 1;

    return ngx_mail_policy_postfix_action_text(s, text);
}


static ngx_int_t
ngx_mail_policy_postfix_action_text(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text)
{
    u_char  *p, *start, *last;

    start = text->data;
    last = text->data + text->len;

    while (*start == ' ' || *start == '\t') {
        start++;
    }

    p = ngx_pnalloc(s->pool, sizeof("action=" "\n\n") - 1 + (last - start));
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->out = p;

    p = ngx_cpymem(p, "action=", sizeof("action=") - 1);
    p = ngx_cpymem(p, start, last - start);

    *p++ = LF;
    *p++ = LF;

    s->out_pos = 0;
    s->out_last = p - s->out;

    return NGX_OK;
}


/* once a minute: it may be so for each message */

static void
ngx_mail_policy_postfix_action_log(ngx_mail_policy_postfix_t *s,
    ngx_str_t *text, const char *error)
{
    size_t                          len;
    u_char                          buf[NGX_MAIL_POLICY_POSTFIX_ACTION_LOG];
    ngx_mail_policy_action_conf_t  *action;

    action = s->conf->action;

    if (action->warned && ngx_time() - action->warned < 60) {
        return;
    }

    action->warned = ngx_time();

    len = ngx_min(text->len, NGX_MAIL_POLICY_POSTFIX_ACTION_LOG);
    mpol_reply_clean(text->data, len, buf);

    ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                  "policy_action gave \"%*s%s\", which %s, answering DUNNO "
                  "instead, in %s:%ui", len, buf,
                  len < text->len ? "..." : "", error, action->file,
                  action->line);
}
