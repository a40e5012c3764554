
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_command.h"
#include "tap.h"


#define ALL  (MPOL_EXT_SIZE | MPOL_EXT_8BITMIME | MPOL_EXT_AUTH)
#define U8   MPOL_EXT_SMTPUTF8
#define EACH (ALL | MPOL_EXT_DSN | U8 | MPOL_EXT_BINARYMIME                   \
              | MPOL_EXT_CHUNKING)
#define SYN  MPOL_ARG_SYNTAX
#define PTH  MPOL_ARG_PATH
#define PAR  MPOL_ARG_PARAM
#define VAL  MPOL_ARG_VALUE

#define UML  "\xc3\xa4"


static const struct {
    const char   *line;
    mpol_verb_e   verb;
    const char   *name;
    const char   *arg;
} lines[] = {
    { "HELO a", MPOL_CMD_HELO, "HELO", "a" },
    { "EHLO mx.example", MPOL_CMD_EHLO, "EHLO", "mx.example" },
    { "ehlo", MPOL_CMD_EHLO, "ehlo", "" },
    { "Auth PLAIN =", MPOL_CMD_AUTH, "Auth", "PLAIN =" },
    { "MAIL FROM:<a@b> SIZE=1  ", MPOL_CMD_MAIL, "MAIL", "FROM:<a@b> SIZE=1" },
    { "rcpt to:<a@b>", MPOL_CMD_RCPT, "rcpt", "to:<a@b>" },
    { "DATA", MPOL_CMD_DATA, "DATA", "" },
    { "DATA  \t ", MPOL_CMD_DATA, "DATA", "" },
    { "BDAT 5 LAST", MPOL_CMD_BDAT, "BDAT", "5 LAST" },
    { "RSET", MPOL_CMD_RSET, "RSET", "" },
    { "NOOP  x", MPOL_CMD_NOOP, "NOOP", " x" },
    { "VRFY a", MPOL_CMD_VRFY, "VRFY", "a" },
    { "EXPN a", MPOL_CMD_EXPN, "EXPN", "a" },
    { "HELP", MPOL_CMD_HELP, "HELP", "" },
    { "QuiT", MPOL_CMD_QUIT, "QuiT", "" },
    { "STARTTLS", MPOL_CMD_STARTTLS, "STARTTLS", "" },
    { "XCLIENT ADDR=1.2.3.4", MPOL_CMD_XCLIENT, "XCLIENT", "ADDR=1.2.3.4" },

    { "", MPOL_CMD_UNKNOWN, "", "" },
    { "   ", MPOL_CMD_UNKNOWN, "", "" },
    { " QUIT", MPOL_CMD_UNKNOWN, "", "QUIT" },
    { "QUI", MPOL_CMD_UNKNOWN, "QUI", "" },
    { "QUITX", MPOL_CMD_UNKNOWN, "QUITX", "" },
    { "DATA\tx", MPOL_CMD_UNKNOWN, "DATA\tx", "" },
    { "MAIL\xa0 x", MPOL_CMD_UNKNOWN, "MAIL\xa0", "x" },
    { "MAILFROM:<a@b>", MPOL_CMD_UNKNOWN, "MAILFROM:<a@b>", "" },
    { ":", MPOL_CMD_UNKNOWN, ":", "" },

    { "GET / HTTP/1.1", MPOL_CMD_FOREIGN, "GET", "/ HTTP/1.1" },
    { "POST / HTTP/1.1", MPOL_CMD_FOREIGN, "POST", "/ HTTP/1.1" },
    { "CONNECT a:25 HTTP/1.1", MPOL_CMD_FOREIGN, "CONNECT", "a:25 HTTP/1.1" },
    { "PRI * HTTP/2.0", MPOL_CMD_FOREIGN, "PRI", "* HTTP/2.0" },
    { "Host: a", MPOL_CMD_FOREIGN, "Host:", "a" },
    { "Subject:", MPOL_CMD_FOREIGN, "Subject:", "" }
};


typedef struct {
    const char  *arg;
    int          rc;
    const char  *address;
    uint64_t     size;
    unsigned     size_set;
    unsigned     body;
    const char  *auth;
    unsigned     offered;
} mail_t;


static const mail_t  mails[] = {
    { "FROM:<>", 0, "", 0, 0, 0, "", ALL },
    { "from: <a@b>", 0, "a@b", 0, 0, 0, "", 0 },
    { "From:<@r:a@b>", 0, "a@b", 0, 0, 0, "", ALL },
    { "FROM:<a@b> SIZE=0", 0, "a@b", 0, 1, 0, "", ALL },
    { "FROM:<a@b> size=18446744073709551615", 0, "a@b", UINT64_MAX, 1, 0, "",
      ALL },
    { "FROM:<a@b> SIZE=00000000000000000012", 0, "a@b", 12, 1, 0, "", ALL },
    { "FROM:<a@b> BODY=7BIT", 0, "a@b", 0, 0, MPOL_BODY_7BIT, "", ALL },
    { "FROM:<a@b> body=8bitmime SIZE=7 AUTH=<>", 0, "a@b", 7, 1,
      MPOL_BODY_8BITMIME, "<>", ALL },
    { "FROM:<a@b> AUTH=e+3Dmc2@example.com", 0, "a@b", 0, 0, 0,
      "e+3Dmc2@example.com", ALL },
    { "FROM:<\"a b\"@c> AUTH=+22a+20b+22@c", 0, "\"a b\"@c", 0, 0, 0,
      "+22a+20b+22@c", ALL },

    { "", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM <a@b>", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM :<a@b>", SYN, 0, 0, 0, 0, 0, ALL },
    { " FROM:<a@b>", SYN, 0, 0, 0, 0, 0, ALL },
    { "TO:<a@b>", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b>SIZE=1", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b>>", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b>  SIZE=1", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> ", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> =1", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> -X=1", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> S\xc3=1", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> <c@d>", SYN, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b>\r\nRCPT TO:<c@d>", SYN, 0, 0, 0, 0, 0, ALL },

    { "FROM:", PTH, 0, 0, 0, 0, 0, ALL },
    { "FROM:a@b", PTH, 0, 0, 0, 0, 0, ALL },
    { "FROM:  <a@b>", PTH, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a>", PTH, 0, 0, 0, 0, 0, ALL },
    { "FROM:<postmaster>", PTH, 0, 0, 0, 0, 0, ALL },
    { "FROM:<\xc3\xa4@b>", MPOL_ARG_8BIT, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a2345678901234567890123456789012345678901234567890"
      "123456789012345@b>", MPOL_ARG_LONG, 0, 0, 0, 0, 0, ALL },

    { "FROM:<a@b> FOO", PAR, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> FOO=bar", PAR, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZES=1", PAR, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=1 SMTPUTF8", PAR, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=1", PAR, 0, 0, 0, 0, 0, ALL & ~MPOL_EXT_SIZE },
    { "FROM:<a@b> BODY=7BIT", PAR, 0, 0, 0, 0, 0, ALL & ~MPOL_EXT_8BITMIME },
    { "FROM:<a@b> AUTH=<>", PAR, 0, 0, 0, 0, 0, ALL & ~MPOL_EXT_AUTH },

    { "FROM:<a@b> SIZE", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=-1", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=1x", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=18446744073709551616", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=000000000000000000001", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> SIZE=1 SIZE=1", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> BODY", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> BODY=BINARYMIME", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> BODY=7BIT body=7BIT", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a=b", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+0", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+3d", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+00", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+0D+0A", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+7F", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a+FF", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a\x80", VAL, 0, 0, 0, 0, 0, ALL },
    { "FROM:<a@b> AUTH=a\x01", VAL, 0, 0, 0, 0, 0, ALL }
};


/* who may say a path that is UTF-8; SMTPUTF8 of MAIL is behind the path */

static const struct {
    const char  *arg;
    int          rc;
    unsigned     offered;
} utf8[] = {
    { "FROM:<" UML "@b> SMTPUTF8", 0, EACH },
    { "FROM:<a@" UML "> SIZE=1 SMTPUTF8", 0, EACH },
    { "FROM:<\"" UML " x\"@b> SMTPUTF8", 0, U8 },
    { "FROM:<@" UML ":a@b> SMTPUTF8", 0, U8 },
    { "FROM:<" UML "@b>", MPOL_ARG_8BIT, EACH },
    { "FROM:<a@" UML "> SIZE=1", MPOL_ARG_8BIT, EACH },
    { "FROM:<@" UML ":a@b>", MPOL_ARG_8BIT, EACH },
    { "FROM:<" UML "@b> SMTPUTF8", MPOL_ARG_8BIT, EACH & ~U8 },
    { "FROM:<" UML "@b> SMTPUTF8=", VAL, EACH },
    { "FROM:<" UML "@b> FOO", PAR, EACH },
    { "FROM:<\xc3@b> SMTPUTF8", PTH, EACH },
    { "FROM:<\xe4@b> SMTPUTF8", PTH, EACH },
    { "FROM:<\xc2\x85@b> SMTPUTF8", PTH, EACH },
    { "FROM:<a@b> SMTPUTF8 \xc3\xa4", SYN, EACH },

    { "TO:<" UML "@b>", 0, EACH },
    { "TO:<a@" UML ">", 0, U8 },
    { "TO:<" UML "@b>", MPOL_ARG_8BIT, EACH & ~U8 },
    { "TO:<a@" UML ">", MPOL_ARG_8BIT, EACH & ~U8 },
    { "TO:<\xe4@b>", PTH, EACH },
    { "TO:<" UML ">", PTH, EACH },
    { "TO:<\xe4@b>", MPOL_ARG_8BIT, 0 }
};


static const struct {
    const char  *arg;
    int          rc;
    uint64_t     size;
    unsigned     last;
} bdats[] = {
    { "0", 0, 0, 0 },
    { "0 LAST", 0, 0, 1 },
    { "86 last", 0, 86, 1 },
    { "1 LaSt", 0, 1, 1 },
    { "100000", 0, 100000, 0 },
    { "9223372036854775807", 0, INT64_MAX, 0 },
    { "09223372036854775807 LAST", 0, INT64_MAX, 1 },
    { "00000000000000000007", 0, 7, 0 },

    { "9223372036854775808", MPOL_ARG_LONG, 0, 0 },
    { "09223372036854775808 LAST", MPOL_ARG_LONG, 0, 0 },
    { "18446744073709551615", MPOL_ARG_LONG, 0, 0 },
    { "18446744073709551616", MPOL_ARG_LONG, 0, 0 },
    { "18446744073709551623 LAST", MPOL_ARG_LONG, 0, 0 },
    { "99999999999999999999", MPOL_ARG_LONG, 0, 0 },

    { "000000000000000000007", SYN, 0, 0 },
    { "999999999999999999999", SYN, 0, 0 },
    { "9999999999999999999x", SYN, 0, 0 },
    { "9999999999999999999 LASTS", SYN, 0, 0 },
    { "", SYN, 0, 0 },
    { "LAST", SYN, 0, 0 },
    { " LAST", SYN, 0, 0 },
    { " 5", SYN, 0, 0 },
    { "5 ", SYN, 0, 0 },
    { "5 LAST ", SYN, 0, 0 },
    { "5  LAST", SYN, 0, 0 },
    { "5\tLAST", SYN, 0, 0 },
    { "5LAST", SYN, 0, 0 },
    { "5 LAS", SYN, 0, 0 },
    { "5 LASTS", SYN, 0, 0 },
    { "5 LAST LAST", SYN, 0, 0 },
    { "5 5", SYN, 0, 0 },
    { "-1", SYN, 0, 0 },
    { "+1", SYN, 0, 0 },
    { "1.0", SYN, 0, 0 },
    { "0x10", SYN, 0, 0 },
    { "5,LAST", SYN, 0, 0 },
    { "5\r\n", SYN, 0, 0 },
    { "\xc2\xb2", SYN, 0, 0 }
};


static const struct {
    const char  *arg;
    int          rc;
    const char  *address;
} rcpts[] = {
    { "TO:<a@b>", 0, "a@b" },
    { "to: <a@b>", 0, "a@b" },
    { "TO:<postmaster>", 0, "postmaster" },
    { "TO:<@x,@y:a@b>", 0, "a@b" },
    { "TO:<>", PTH, 0 },
    { "TO:", PTH, 0 },
    { "TO:<a@>", PTH, 0 },
    { "TO:a@b", PTH, 0 },
    { "TO:<\xe4@b>", MPOL_ARG_8BIT, 0 },
    { "TO", SYN, 0 },
    { "", SYN, 0 },
    { "FROM:<a@b>", SYN, 0 },
    { "TO:<a@b>,<c@d>", SYN, 0 },
    { "TO:<a@b> <c@d>", SYN, 0 },
    { "TO:<a@b> ", SYN, 0 },
    { "TO:<a@b> NOTIFY=NEVER", PAR, 0 },
    { "TO:<a@b> SIZE=1", PAR, 0 },
    { "TO:<a@b> x", PAR, 0 }
};


static void
test_line(size_t i)
{
    size_t           len;
    uint8_t         *p;
    mpol_command_t   cmd;

    len = strlen(lines[i].line);
    p = tap_exact(lines[i].line, len);

    mpol_command_parse(p, len, &cmd);

    is_u64(cmd.verb, lines[i].verb, "'%s'", lines[i].line);
    is_mem(cmd.name.data, cmd.name.len, lines[i].name, strlen(lines[i].name),
           "  name");
    is_mem(cmd.arg.data, cmd.arg.len, lines[i].arg, strlen(lines[i].arg),
           "  argument");

    free(p);
}


static void
test_mail(const mail_t *m)
{
    int          rc;
    size_t       len, n;
    uint8_t     *p;
    mpol_mail_t  mail;

    len = strlen(m->arg);

    for (n = 0; n < len; n++) {
        p = tap_exact(m->arg, n);
        (void) mpol_mail_parse(p, n, m->offered, &mail);
        free(p);
    }

    p = tap_exact(m->arg, len);

    rc = mpol_mail_parse(p, len, m->offered, &mail);

    if (is_u64((uint64_t) rc, (uint64_t) m->rc, "'%s'", m->arg)
        && rc == MPOL_OK)
    {
        is_mem(mail.path.address.data, mail.path.address.len, m->address,
               strlen(m->address), "  address");
        is_mem(mail.auth.data, mail.auth.len, m->auth, strlen(m->auth),
               "  auth");
        is_u64(mail.size, m->size, "  size");
        ok(mail.size_set == m->size_set && mail.body == m->body,
           "  size set %u, body %u", mail.size_set, mail.body);
    }

    free(p);
}


static void
test_rcpt(size_t i)
{
    int          rc;
    size_t       len, n;
    uint8_t     *p;
    mpol_rcpt_t  rcpt;

    len = strlen(rcpts[i].arg);

    for (n = 0; n < len; n++) {
        p = tap_exact(rcpts[i].arg, n);
        (void) mpol_rcpt_parse(p, n, ALL, &rcpt);
        free(p);
    }

    p = tap_exact(rcpts[i].arg, len);

    rc = mpol_rcpt_parse(p, len, ALL, &rcpt);

    if (is_u64((uint64_t) rc, (uint64_t) rcpts[i].rc, "'%s'", rcpts[i].arg)
        && rc == MPOL_OK)
    {
        is_mem(rcpt.path.address.data, rcpt.path.address.len,
               rcpts[i].address, strlen(rcpts[i].address), "  address");
    }

    free(p);
}


static void
test_utf8(size_t i)
{
    int          rc, to;
    size_t       len, n;
    uint8_t     *p;
    mpol_mail_t  mail;
    mpol_rcpt_t  rcpt;

    to = utf8[i].arg[0] == 'T';
    len = strlen(utf8[i].arg);

    for (n = 0, rc = 0; n <= len; n++) {
        p = tap_exact(utf8[i].arg, n);
        rc = to ? mpol_rcpt_parse(p, n, utf8[i].offered, &rcpt)
                : mpol_mail_parse(p, n, utf8[i].offered, &mail);
        free(p);
    }

    if (is_u64((uint64_t) rc, (uint64_t) utf8[i].rc, "STATE-3 '%s' of %x",
               utf8[i].arg, utf8[i].offered)
        && rc == MPOL_OK)
    {
        ok(to ? rcpt.path.eightbit : (mail.path.eightbit && mail.smtputf8),
           "  with octets above 127");
    }
}


static void
test_bdat(size_t i)
{
    int          rc;
    size_t       len, n;
    uint8_t     *p;
    mpol_bdat_t  bdat;

    len = strlen(bdats[i].arg);

    for (n = 0; n < len; n++) {
        p = tap_exact(bdats[i].arg, n);
        (void) mpol_bdat_parse(p, n, &bdat);
        free(p);
    }

    p = tap_exact(bdats[i].arg, len);

    rc = mpol_bdat_parse(p, len, &bdat);

    if (is_u64((uint64_t) rc, (uint64_t) bdats[i].rc, "RES-9 BDAT '%s'",
               bdats[i].arg)
        && rc == MPOL_OK)
    {
        is_u64(bdat.size, bdats[i].size, "  size");
        is_u64(bdat.last, bdats[i].last, "  last");
    }

    free(p);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        test_line(i);
    }

    for (i = 0; i < sizeof(mails) / sizeof(mails[0]); i++) {
        test_mail(&mails[i]);
    }

    for (i = 0; i < sizeof(rcpts) / sizeof(rcpts[0]); i++) {
        test_rcpt(i);
    }

    for (i = 0; i < sizeof(utf8) / sizeof(utf8[0]); i++) {
        test_utf8(i);
    }

    for (i = 0; i < sizeof(bdats) / sizeof(bdats[0]); i++) {
        test_bdat(i);
    }

    return done_testing();
}
