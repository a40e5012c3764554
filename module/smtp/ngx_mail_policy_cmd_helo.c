
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The table of commands, and those that need nobody's answer: HELO, EHLO (but
 * for what limits leave, which it may offer), RSET, NOOP, VRFY, QUIT,
 * STARTTLS, and what is refused.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_session.h"


static void ngx_mail_policy_ehlo_offers(ngx_mail_policy_session_t *s,
    uint64_t *size);
static void ngx_mail_policy_ehlo_limits(ngx_mail_policy_session_t *s);
static ngx_int_t ngx_mail_policy_cmd_foreign(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
static ngx_int_t ngx_mail_policy_cmd_refused(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
static ngx_int_t ngx_mail_policy_cmd_no_args(ngx_mail_policy_session_t *s,
    mpol_command_t *cmd);
static ngx_uint_t ngx_mail_policy_starttls_offered(
    ngx_mail_policy_session_t *s);


/* as what it counts, check, proceed; then: pipelined, clear, last, junk */

ngx_mail_policy_command_t  ngx_mail_policy_commands[] = {

    { MPOL_CMD_EHLO, NGX_MAIL_POLICY_AT_COMMAND_HELO,
      NULL, ngx_mail_policy_cmd_helo, 0, 1, 1, 1 },

    { MPOL_CMD_HELO, NGX_MAIL_POLICY_AT_COMMAND_HELO,
      NULL, ngx_mail_policy_cmd_helo, 0, 0, 1, 1 },

    { MPOL_CMD_STARTTLS, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      ngx_mail_policy_cmd_starttls_check,
      ngx_mail_policy_cmd_starttls, 0, 1, 1, 0 },

    { MPOL_CMD_AUTH, NGX_MAIL_POLICY_AT_COMMAND_AUTH,
      ngx_mail_policy_cmd_auth_check,
      ngx_mail_policy_cmd_auth, 0, 0, 1, 0 },

    { MPOL_CMD_MAIL, NGX_MAIL_POLICY_AT_COMMAND_MAIL,
      ngx_mail_policy_cmd_mail_check,
      ngx_mail_policy_cmd_mail, 0, 0, 0, 0 },

    { MPOL_CMD_RCPT, NGX_MAIL_POLICY_AT_COMMAND_RCPT,
      ngx_mail_policy_cmd_rcpt_check,
      ngx_mail_policy_cmd_rcpt, 1, 0, 0, 0 },

    { MPOL_CMD_DATA, NGX_MAIL_POLICY_AT_COMMAND_DATA,
      ngx_mail_policy_cmd_data_check,
      ngx_mail_policy_cmd_data, 0, 0, 1, 0 },

    /* judges TLS itself: its octets must not become commands */

    { MPOL_CMD_BDAT, NGX_MAIL_POLICY_AT_COMMAND_DATA,
      ngx_mail_policy_cmd_bdat_check,
      ngx_mail_policy_cmd_bdat, 0, 1, 0, 0 },

    { MPOL_CMD_RSET, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      ngx_mail_policy_cmd_no_args,
      ngx_mail_policy_cmd_rset, 0, 0, 0, 1 },

    { MPOL_CMD_NOOP, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      NULL, ngx_mail_policy_cmd_noop, 0, 1, 0, 1 },

    { MPOL_CMD_VRFY, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      NULL, ngx_mail_policy_cmd_vrfy, 0, 0, 0, 1 },

    { MPOL_CMD_QUIT, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      ngx_mail_policy_cmd_no_args,
      ngx_mail_policy_cmd_quit, 0, 1, 0, 0 },

    { MPOL_CMD_FOREIGN, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      NULL, ngx_mail_policy_cmd_foreign, 0, 1, 0, 0 },

    /* the last one takes all others */

    { MPOL_CMD_UNKNOWN, NGX_MAIL_POLICY_AT_COMMAND_OTHER,
      NULL, ngx_mail_policy_cmd_refused, 0, 0, 0, 1 }
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

    if (ngx_mail_policy_session_left(s) == NGX_AGAIN) {
        s->reading = NGX_MAIL_POLICY_READ_NOTHING;
        return NGX_AGAIN;
    }

    ngx_mail_policy_ehlo_reply(s);

    return NGX_OK;
}


/*
 * What is offered is what the parser can do, the configuration allows, and no
 * relay is known to lack: one that has not been asked yet is taken to offer
 * what most do, as a client may bounce a message for want of it.
 */

static void
ngx_mail_policy_ehlo_offers(ngx_mail_policy_session_t *s, uint64_t *size)
{
    ngx_uint_t                    i, lacking, unknown;
    ngx_mail_policy_upstream_t  **upstream;

    lacking = 0;
    unknown = 0;
    *size = s->conf->message_size;

    if (s->conf->upstream) {
        ngx_mail_policy_upstream_offers(s->conf->upstream, &lacking, &unknown,
                                        size);

    } else {
        upstream = s->main_conf->upstreams.elts;

        for (i = 0; i < s->main_conf->upstreams.nelts; i++) {
            ngx_mail_policy_upstream_offers(upstream[i], &lacking, &unknown,
                                            size);
        }
    }

    s->extensions = s->conf->extensions;

    if (lacking & MPOL_RELAY_8BITMIME) {
        s->extensions &= ~MPOL_EXT_8BITMIME;
    }

    if (lacking & MPOL_RELAY_SMTPUTF8) {
        s->extensions &= ~MPOL_EXT_SMTPUTF8;
    }

    if (lacking & MPOL_RELAY_DSN) {
        s->extensions &= ~MPOL_EXT_DSN;
    }

    /* few offer it, and every client can do without */

    if (unknown
        || (lacking & (MPOL_RELAY_BINARYMIME|MPOL_RELAY_CHUNKING
                       |MPOL_RELAY_PIPELINING)))
    {
        s->extensions &= ~MPOL_EXT_BINARYMIME;
    }
}


void
ngx_mail_policy_ehlo_reply(ngx_mail_policy_session_t *s)
{
    size_t                       n;
    uint64_t                     size;
    ngx_uint_t                   methods;
    ngx_mail_policy_srv_conf_t  *pscf;
    u_char                       names[NGX_MAIL_POLICY_AUTH_NAMES];

    pscf = s->conf;

    ngx_mail_policy_ehlo_offers(s, &size);

    ngx_mail_policy_reply(s, "250-%V", &s->core->server_name);

    if (pscf->pipelining) {
        ngx_mail_policy_reply(s, "250-PIPELINING");
    }

    if (s->extensions & MPOL_EXT_SIZE) {
        if (size) {
            ngx_mail_policy_reply(s, "250-SIZE %uL", size);

        } else {
            ngx_mail_policy_reply(s, "250-SIZE");
        }
    }

    if (ngx_mail_policy_starttls_offered(s)) {
        ngx_mail_policy_reply(s, "250-STARTTLS");
    }

    methods = ngx_mail_policy_auth_methods(s);

    if (methods) {
        n = ngx_mail_policy_auth_names(names, methods) - names;
        ngx_mail_policy_reply(s, "250-AUTH%*s", n, names);
    }

    if (pscf->enhanced) {
        ngx_mail_policy_reply(s, "250-ENHANCEDSTATUSCODES");
    }

    if (s->extensions & MPOL_EXT_8BITMIME) {
        ngx_mail_policy_reply(s, "250-8BITMIME");
    }

    if (s->extensions & MPOL_EXT_SMTPUTF8) {
        ngx_mail_policy_reply(s, "250-SMTPUTF8");
    }

    if (s->extensions & MPOL_EXT_DSN) {
        ngx_mail_policy_reply(s, "250-DSN");
    }

    if (s->extensions & MPOL_EXT_CHUNKING) {
        ngx_mail_policy_reply(s, "250-CHUNKING");
    }

    if (s->extensions & MPOL_EXT_BINARYMIME) {
        ngx_mail_policy_reply(s, "250-BINARYMIME");
    }

    if (pscf->limits_offered) {
        ngx_mail_policy_ehlo_limits(s);
    }

    ngx_mail_policy_reply(s, "250 HELP");
}


/*
 * RFC 9422, section 5: a limit has six digits at the most.  What is left of
 * the limits in force is offered, but one at least: none at all is said by
 * the reply to MAIL.
 */

static void
ngx_mail_policy_ehlo_limits(ngx_mail_policy_session_t *s)
{
    u_char      *p, *last;
    uint64_t     mails, rcpts, left_mails, left_rcpts;
    u_char       buf[sizeof(" MAILMAX=999999 RCPTMAX=999999")];

    mails = s->conf->max_messages;
    rcpts = s->conf->max_recipients;

    ngx_mail_policy_check_left(&s->check, &left_mails, &left_rcpts);

    rcpts = ngx_max(ngx_min(rcpts, left_rcpts), 1);

    if (left_mails < MPOL_NEVER) {
        left_mails = ngx_max(left_mails, 1) + s->transactions;
        mails = mails ? ngx_min(mails, left_mails) : left_mails;
    }

    p = buf;
    last = buf + sizeof(buf);

    if (mails && mails < 1000000) {
        p = ngx_slprintf(p, last, " MAILMAX=%uL", mails);
    }

    if (rcpts < 1000000) {
        p = ngx_slprintf(p, last, " RCPTMAX=%uL", rcpts);
    }

    if (p != buf) {
        ngx_mail_policy_reply(s, "250-LIMITS%*s", (size_t) (p - buf), buf);
    }
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
    if (cmd->arg.len == 0) {
        ngx_mail_policy_session_error(s, "501 5.5.4 Syntax: VRFY address");
        return NGX_OK;
    }

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
ngx_mail_policy_cmd_foreign(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "client does not speak SMTP");

    ngx_mail_policy_session_refuse(s, s->at,
                                   "421 4.7.0 This is an SMTP server");

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_cmd_refused(ngx_mail_policy_session_t *s, mpol_command_t *cmd)
{
    switch (cmd->verb) {

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
    /* CVE-2011-0411: it is the last of its group, so nothing follows */

    ngx_mail_policy_session_reset(s);

    ngx_mail_policy_reply(s, "220 2.0.0 Ready to start TLS");

    s->starttls = 1;

    return NGX_OK;
}
