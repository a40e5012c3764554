
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The table of commands, and those that need nobody's answer: HELO, EHLO,
 * RSET, NOOP, VRFY, QUIT, STARTTLS, and what is refused.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static ngx_int_t ngx_mail_policy_cmd_ehlo_reply(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_cmd_refused(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
static ngx_int_t ngx_mail_policy_cmd_no_args(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
static ngx_uint_t ngx_mail_policy_starttls_offered(
    ngx_mail_policy_session_t *s);


ngx_mail_policy_command_t  ngx_mail_policy_commands[] = {

    { MPOL_CMD_EHLO, NULL, ngx_mail_policy_cmd_helo, 0, 1 },

    { MPOL_CMD_HELO, NULL, ngx_mail_policy_cmd_helo, 0, 1 },

    { MPOL_CMD_STARTTLS, ngx_mail_policy_cmd_starttls_check,
      ngx_mail_policy_cmd_starttls, 0, 1 },

    { MPOL_CMD_AUTH, ngx_mail_policy_cmd_auth_check,
      ngx_mail_policy_cmd_auth, 0, 0 },

    { MPOL_CMD_MAIL, ngx_mail_policy_cmd_mail_check,
      ngx_mail_policy_cmd_mail, 0, 0 },

    { MPOL_CMD_RCPT, ngx_mail_policy_cmd_rcpt_check,
      ngx_mail_policy_cmd_rcpt, 1, 0 },

    { MPOL_CMD_DATA, ngx_mail_policy_cmd_data_check,
      ngx_mail_policy_cmd_data, 0, 0 },

    { MPOL_CMD_RSET, ngx_mail_policy_cmd_no_args,
      ngx_mail_policy_cmd_rset, 0, 1 },

    { MPOL_CMD_NOOP, NULL, ngx_mail_policy_cmd_noop, 0, 1 },

    { MPOL_CMD_VRFY, NULL, ngx_mail_policy_cmd_vrfy, 0, 0 },

    { MPOL_CMD_QUIT, ngx_mail_policy_cmd_no_args,
      ngx_mail_policy_cmd_quit, 0, 1 },

    /* the last one takes all others */

    { MPOL_CMD_UNKNOWN, NULL, ngx_mail_policy_cmd_refused, 0, 1 }
};


ngx_int_t
ngx_mail_policy_cmd_helo(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    ngx_mail_policy_envelope_t  *e;

    /* lenient in what a name may be, strict in what it may hold */

    if (cmd->arg.len == 0 || cmd->arg.len > sizeof(s->helo)
        || ngx_strlchr((u_char *) cmd->arg.data,
                       (u_char *) cmd->arg.data + cmd->arg.len, ' '))
    {
        ngx_mail_policy_session_error(s, "501 5.5.4 Syntax: EHLO hostname");
        return NGX_OK;
    }

    ngx_mail_policy_session_reset(s);

    e = &s->envelope;

    ngx_memcpy(s->helo, cmd->arg.data, cmd->arg.len);
    e->helo.data = s->helo;
    e->helo.len = cmd->arg.len;

    s->greeted = 1;

    if (cmd->verb == MPOL_CMD_HELO) {
        ngx_mail_policy_reply(s, "250 %V", &s->core->server_name);
        return NGX_OK;
    }

    s->esmtp = 1;

    /* RFC 3848 */

    if (ngx_mail_policy_session_tls(s)) {
        if (e->sasl_username.len) {
            ngx_str_set(&e->protocol, "ESMTPSA");

        } else {
            ngx_str_set(&e->protocol, "ESMTPS");
        }

    } else if (e->sasl_username.len) {
        ngx_str_set(&e->protocol, "ESMTPA");

    } else {
        ngx_str_set(&e->protocol, "ESMTP");
    }

    return ngx_mail_policy_cmd_ehlo_reply(s);
}


/* what parser and configuration can do; what the relay cannot is seen later */

static ngx_int_t
ngx_mail_policy_cmd_ehlo_reply(ngx_mail_policy_session_t *s)
{
    ngx_uint_t                   methods;
    ngx_mail_policy_srv_conf_t  *pscf;

    pscf = s->conf;

    ngx_mail_policy_reply(s, "250-%V", &s->core->server_name);

    if (pscf->pipelining) {
        ngx_mail_policy_reply(s, "250-PIPELINING");
    }

    if (pscf->extensions & MPOL_EXT_SIZE) {
        if (pscf->message_size) {
            ngx_mail_policy_reply(s, "250-SIZE %uz", pscf->message_size);

        } else {
            ngx_mail_policy_reply(s, "250-SIZE");
        }
    }

    if (ngx_mail_policy_starttls_offered(s)) {
        ngx_mail_policy_reply(s, "250-STARTTLS");
    }

    methods = ngx_mail_policy_auth_methods(s);

    if (methods) {
        ngx_mail_policy_reply(s, "250-AUTH%s%s",
                              (methods & NGX_MAIL_AUTH_PLAIN_ENABLED)
                              ? " PLAIN" : "",
                              (methods & NGX_MAIL_AUTH_LOGIN_ENABLED)
                              ? " LOGIN" : "");
    }

    if (pscf->enhanced) {
        ngx_mail_policy_reply(s, "250-ENHANCEDSTATUSCODES");
    }

    ngx_mail_policy_reply(s, (pscf->extensions & MPOL_EXT_8BITMIME)
                             ? "250 8BITMIME" : "250 HELP");

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_rset(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    if (s->transaction) {
        ngx_mail_policy_transaction_finalize(s->transaction,
                                             NGX_MAIL_POLICY_ABORTED);
    }

    ngx_mail_policy_reply(s, "250 2.0.0 Ok");

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_noop(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    ngx_mail_policy_reply(s, "250 2.0.0 Ok");

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_vrfy(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    ngx_mail_policy_reply(s, "252 2.0.0 Cannot VRFY, send some mail");

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_quit(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    ngx_mail_policy_session_close(s, "221 2.0.0 Bye");

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_cmd_no_args(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    if (cmd->arg.len == 0) {
        return NGX_OK;
    }

    ngx_mail_policy_session_error(s, "501 5.5.4 No argument allowed");

    return NGX_DECLINED;
}


static ngx_int_t
ngx_mail_policy_cmd_refused(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    switch (cmd->verb) {

    case MPOL_CMD_FOREIGN:
        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "client does not speak SMTP");
        ngx_mail_policy_session_close(s, "421 4.7.0 This is an SMTP server");
        return NGX_OK;

    case MPOL_CMD_BDAT:

        /* RFC 3030: its octets follow unasked, they must not be commands */

        ngx_mail_policy_session_close(s, "502 5.5.1 BDAT not offered");
        return NGX_OK;

    case MPOL_CMD_XCLIENT:
        ngx_mail_policy_session_error(s, "550 5.7.0 XCLIENT not allowed");
        return NGX_OK;

    case MPOL_CMD_HELP:
        ngx_mail_policy_reply(s, "214 2.0.0 See RFC 5321");
        return NGX_OK;

    case MPOL_CMD_EXPN:
        ngx_mail_policy_session_error(s, "502 5.5.1 Command not offered");
        return NGX_OK;

    default:
        ngx_mail_policy_session_error(s, "500 5.5.1 Command unrecognized");
        return NGX_OK;
    }
}


static ngx_uint_t
ngx_mail_policy_starttls_offered(ngx_mail_policy_session_t *s)
{
    ngx_mail_ssl_conf_t  *sslcf;

    sslcf = ngx_mail_get_module_srv_conf(s->mail, ngx_mail_ssl_module);

    return !ngx_mail_policy_session_tls(s)
           && sslcf->starttls != NGX_MAIL_STARTTLS_OFF;
}


ngx_int_t
ngx_mail_policy_cmd_starttls_check(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    if (cmd->arg.len) {
        ngx_mail_policy_session_error(s, "501 5.5.4 No argument allowed");
        return NGX_DECLINED;
    }

    if (ngx_mail_policy_session_tls(s)) {
        ngx_mail_policy_session_error(s, "503 5.5.1 TLS already active");
        return NGX_DECLINED;
    }

    if (!ngx_mail_policy_starttls_offered(s)) {
        ngx_mail_policy_session_error(s, "502 5.5.1 STARTTLS not offered");
        return NGX_DECLINED;
    }

    if (s->transaction || s->envelope.sasl_username.len) {
        ngx_mail_policy_session_error(s, "503 5.5.1 Bad sequence of commands");
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_mail_policy_cmd_starttls(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd)
{
    const uint8_t  *end;

    /* CVE-2011-0411: nothing that came in clear is read as if under TLS */

    end = cmd->arg.data ? cmd->arg.data + cmd->arg.len
                        : cmd->name.data + cmd->name.len;

    while (end < s->in + s->in_last && *end != LF) {
        end++;
    }

    if (end + 1 < s->in + s->in_last) {
        ngx_mail_policy_session_close(s,
                             "554 5.5.0 Commands pipelined after STARTTLS");
        return NGX_OK;
    }

    ngx_mail_policy_session_reset(s);

    ngx_mail_policy_reply(s, "220 2.0.0 Ready to start TLS");

    s->starttls = 1;

    return NGX_OK;
}
