
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_command.h"
#include "tap.h"


#define ALL  (MPOL_EXT_SIZE | MPOL_EXT_8BITMIME | MPOL_EXT_AUTH)
#define DSN  MPOL_EXT_DSN
#define U8   MPOL_EXT_SMTPUTF8
#define BIN  MPOL_EXT_BINARYMIME
#define EACH (ALL | DSN | U8 | BIN | MPOL_EXT_CHUNKING)
#define SYN  MPOL_ARG_SYNTAX
#define PTH  MPOL_ARG_PATH
#define PAR  MPOL_ARG_PARAM
#define VAL  MPOL_ARG_VALUE

#define UML  "\xc3\xa4"
#define X10  "x123456789"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10


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


/* parameters of extensions that came later; the address is always <a@b> */

static const struct {
    const char  *params;                /* behind "FROM:<a@b>" */
    int          rc;
    unsigned     offered;
    unsigned     smtputf8;
    unsigned     body;
    unsigned     ret;
    const char  *envid;
} extended[] = {
    { " SMTPUTF8", 0, U8, 1, 0, 0, "" },
    { " smtpUTF8 BODY=8BITMIME SIZE=1 AUTH=<>", 0, EACH, 1,
      MPOL_BODY_8BITMIME, 0, "" },
    { " SMTPUTF8=", VAL, EACH, 0, 0, 0, 0 },
    { " SMTPUTF8=x", VAL, EACH, 0, 0, 0, 0 },
    { " SMTPUTF8 SMTPUTF8", VAL, EACH, 0, 0, 0, 0 },
    { " SMTPUTF8", PAR, EACH & ~U8, 0, 0, 0, 0 },
    { " SMTPUTF8=", PAR, EACH & ~U8, 0, 0, 0, 0 },
    { " SMTPUTF", PAR, EACH, 0, 0, 0, 0 },

    { " BODY=BINARYMIME", 0, EACH, 0, MPOL_BODY_BINARYMIME, 0, "" },
    { " body=binaryMIME", 0, BIN, 0, MPOL_BODY_BINARYMIME, 0, "" },
    { " BODY=7BIT", 0, BIN, 0, MPOL_BODY_7BIT, 0, "" },
    { " BODY=8BITMIME", 0, EACH & ~BIN, 0, MPOL_BODY_8BITMIME, 0, "" },
    { " BODY=8BITMIME", VAL, BIN, 0, 0, 0, 0 },
    { " BODY=BINARYMIME", VAL, EACH & ~BIN, 0, 0, 0, 0 },
    { " BODY=BINARYMIME", PAR, EACH & ~BIN & ~MPOL_EXT_8BITMIME, 0, 0, 0, 0 },
    { " BODY=BINARY", VAL, EACH, 0, 0, 0, 0 },
    { " BODY=BINARYMIMES", VAL, EACH, 0, 0, 0, 0 },
    { " BODY=BINARYMIME BODY=7BIT", VAL, EACH, 0, 0, 0, 0 },

    { " RET=FULL", 0, DSN, 0, 0, MPOL_RET_FULL, "" },
    { " ret=hdrs ENVID=QQ314159", 0, DSN, 0, 0, MPOL_RET_HDRS, "QQ314159" },
    { " RET", VAL, EACH, 0, 0, 0, 0 },
    { " RET=", VAL, EACH, 0, 0, 0, 0 },
    { " RET=NONE", VAL, EACH, 0, 0, 0, 0 },
    { " RET=FULLS", VAL, EACH, 0, 0, 0, 0 },
    { " RET=FULL,HDRS", VAL, EACH, 0, 0, 0, 0 },
    { " RET=FULL RET=FULL", VAL, EACH, 0, 0, 0, 0 },
    { " RET=FULL", PAR, EACH & ~DSN, 0, 0, 0, 0 },

    { " ENVID=a+2Bb+3Dc+20d", 0, DSN, 0, 0, 0, "a+2Bb+3Dc+20d" },
    { " envid=!~", 0, EACH, 0, 0, 0, "!~" },
    { " ENVID=" X100, 0, EACH, 0, 0, 0, X100 },
    { " ENVID=x" X100, VAL, EACH, 0, 0, 0, 0 },
    { " ENVID", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a=b", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+0", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+2b", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+00", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+0D+0A", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+0A", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+1F", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+7F", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a+80", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=" UML, VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=" UML " SMTPUTF8", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a ENVID=a", VAL, EACH, 0, 0, 0, 0 },
    { " ENVID=a", PAR, EACH & ~DSN, 0, 0, 0, 0 },

    { " SMTPUTF8 RET=HDRS ENVID=z BODY=BINARYMIME", 0, EACH, 1,
      MPOL_BODY_BINARYMIME, MPOL_RET_HDRS, "z" },

    { " NOTIFY=NEVER", PAR, EACH, 0, 0, 0, 0 },
    { " ORCPT=rfc822;a@b", PAR, EACH, 0, 0, 0, 0 },
    { " REQUIRETLS", PAR, EACH, 0, 0, 0, 0 },
    { " MT-PRIORITY=3", PAR, EACH, 0, 0, 0, 0 },
    { " HOLDFOR=1", PAR, EACH, 0, 0, 0, 0 },
    { " BY=1;R", PAR, EACH, 0, 0, 0, 0 }
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
    const char  *params;                /* behind "TO:<a@b>" */
    int          rc;
    unsigned     offered;
    unsigned     notify;
    const char  *orcpt;
} dsn[] = {
    { " NOTIFY=NEVER", 0, DSN, MPOL_NOTIFY_NEVER, "" },
    { " notify=success", 0, DSN, MPOL_NOTIFY_SUCCESS, "" },
    { " NOTIFY=FAILURE,DELAY", 0, DSN,
      MPOL_NOTIFY_FAILURE | MPOL_NOTIFY_DELAY, "" },
    { " NOTIFY=Delay,Failure,Success", 0, EACH,
      MPOL_NOTIFY_SUCCESS | MPOL_NOTIFY_FAILURE | MPOL_NOTIFY_DELAY, "" },
    { " NOTIFY", VAL, EACH, 0, 0 },
    { " NOTIFY=", VAL, EACH, 0, 0 },
    { " NOTIFY=,", VAL, EACH, 0, 0 },
    { " NOTIFY=NEVER,", VAL, EACH, 0, 0 },
    { " NOTIFY=,NEVER", VAL, EACH, 0, 0 },
    { " NOTIFY=DELAY,,FAILURE", VAL, EACH, 0, 0 },
    { " NOTIFY=NEVER,NEVER", VAL, EACH, 0, 0 },
    { " NOTIFY=NEVER,DELAY", VAL, EACH, 0, 0 },
    { " NOTIFY=SUCCESS,NEVER", VAL, EACH, 0, 0 },
    { " NOTIFY=SUCCESS,FAILURE,SUCCESS", VAL, EACH, 0, 0 },
    { " NOTIFY=delay,DELAY", VAL, EACH, 0, 0 },
    { " NOTIFY=ALWAYS", VAL, EACH, 0, 0 },
    { " NOTIFY=DELAYS", VAL, EACH, 0, 0 },
    { " NOTIFY=DELA", VAL, EACH, 0, 0 },
    { " NOTIFY=SUCCESS;DELAY", VAL, EACH, 0, 0 },
    { " NOTIFY=SUCCESS, DELAY", VAL, EACH, 0, 0 },
    { " NOTIFY=DELAY NOTIFY=DELAY", VAL, EACH, 0, 0 },
    { " NOTIFY=NEVER", PAR, EACH & ~DSN, 0, 0 },

    { " ORCPT=rfc822;a@b", 0, DSN, 0, "rfc822;a@b" },
    { " orcpt=RFC822;a+2Bx@b NOTIFY=DELAY", 0, DSN, MPOL_NOTIFY_DELAY,
      "RFC822;a+2Bx@b" },
    { " ORCPT=x-400;/G=x/", VAL, DSN, 0, 0 },
    { " ORCPT=X-400;/G+3Dx/+20", 0, DSN, 0, "X-400;/G+3Dx/+20" },
    { " ORCPT=a;b;c", 0, DSN, 0, "a;b;c" },
    { " ORCPT=-;b", 0, DSN, 0, "-;b" },
    { " ORCPT=a;" X100 X100 X100 X100 X10 X10 X10 X10 X10 X10 X10 X10 X10
      "12345678", 0, EACH, 0,
      "a;" X100 X100 X100 X100 X10 X10 X10 X10 X10 X10 X10 X10 X10
      "12345678" },
    { " ORCPT=a;" X100 X100 X100 X100 X10 X10 X10 X10 X10 X10 X10 X10 X10
      "123456789", VAL, EACH, 0, 0 },
    { " ORCPT", VAL, EACH, 0, 0 },
    { " ORCPT=", VAL, EACH, 0, 0 },
    { " ORCPT=;", VAL, EACH, 0, 0 },
    { " ORCPT=;a@b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;", VAL, EACH, 0, 0 },
    { " ORCPT=a@b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc_822;a@b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc+38;a@b", VAL, EACH, 0, 0 },
    { " ORCPT=" UML ";a@b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a=b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+4", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+4g", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+3d", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+00", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+0D", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;+0A", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+7F", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a+C3+A4", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;" UML, VAL, EACH, 0, 0 },
    { " ORCPT=a;b ORCPT=a;b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;a@b", PAR, EACH & ~DSN, 0, 0 },

    /* RFC 6533 */
    { " ORCPT=utf-8;\\x{E4}@b", 0, DSN, 0, "utf-8;\\x{E4}@b" },
    { " ORCPT=UTF-8;a" UML "@" UML "+20z", 0, DSN | U8, 0,
      "UTF-8;a" UML "@" UML "+20z" },
    { " ORCPT=utf-8;" UML, 0, DSN | U8, 0, "utf-8;" UML },
    { " ORCPT=utf-8;" UML, VAL, EACH & ~U8, 0, 0 },
    { " ORCPT=utf-7;" UML, VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;\xe4", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;a\xc3", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;\xc2\x85", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;" UML "+", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;+" UML "20", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;" UML "+0A", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;" UML "=", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;+C3+A4", VAL, EACH, 0, 0 },
    { " ORCPT=utf-8;" UML "\x7f", VAL, EACH, 0, 0 },

    { " NOTIFY=NEVER ORCPT=rfc822;a@b FOO", PAR, EACH, 0, 0 },
    { " NOTIFY=NEVER  ORCPT=rfc822;a@b", SYN, EACH, 0, 0 },
    { " RET=FULL", PAR, EACH, 0, 0 },
    { " ENVID=a", PAR, EACH, 0, 0 },
    { " SMTPUTF8", PAR, EACH, 0, 0 },
    { " BODY=7BIT", PAR, EACH, 0, 0 },
    { " AUTH=<>", PAR, EACH, 0, 0 },
    { " RRVS=2014-04-03T23:01:00Z", PAR, EACH, 0, 0 }
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


static char *
join(const char *path, const char *params)
{
    char  *arg;

    arg = malloc(strlen(path) + strlen(params) + 1);
    if (arg == NULL) {
        abort();
    }

    strcpy(arg, path);

    return strcat(arg, params);
}


static void
test_extended(size_t i)
{
    int           rc;
    char         *arg;
    size_t        len, n;
    uint8_t      *p;
    mpol_mail_t   mail;

    arg = join("FROM:<a@b>", extended[i].params);
    len = strlen(arg);

    for (n = 0; n < len; n++) {
        p = tap_exact(arg, n);
        (void) mpol_mail_parse(p, n, extended[i].offered, &mail);
        free(p);
    }

    p = tap_exact(arg, len);

    rc = mpol_mail_parse(p, len, extended[i].offered, &mail);

    if (is_u64((uint64_t) rc, (uint64_t) extended[i].rc, "STATE-7 '%s' of %x",
               arg, extended[i].offered)
        && rc == MPOL_OK)
    {
        ok(mail.smtputf8 == extended[i].smtputf8
           && mail.body == extended[i].body && mail.ret == extended[i].ret,
           "  SMTPUTF8 %u, BODY %u, RET %u", mail.smtputf8, mail.body,
           mail.ret);
        is_mem(mail.envid.data, mail.envid.len, extended[i].envid,
               strlen(extended[i].envid), "  ENVID");
        is_mem(mail.path.address.data, mail.path.address.len, "a@b", 3,
               "  address");
    }

    free(p);
    free(arg);
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
test_dsn(size_t i)
{
    int           rc;
    char         *arg;
    size_t        len, n;
    uint8_t      *p;
    mpol_rcpt_t   rcpt;

    arg = join("TO:<a@b>", dsn[i].params);
    len = strlen(arg);

    for (n = 0; n < len; n++) {
        p = tap_exact(arg, n);
        (void) mpol_rcpt_parse(p, n, dsn[i].offered, &rcpt);
        free(p);
    }

    p = tap_exact(arg, len);

    rc = mpol_rcpt_parse(p, len, dsn[i].offered, &rcpt);

    if (is_u64((uint64_t) rc, (uint64_t) dsn[i].rc, "STATE-7 '%s' of %x",
               arg, dsn[i].offered)
        && rc == MPOL_OK)
    {
        is_u64(rcpt.notify, dsn[i].notify, "  NOTIFY");
        is_mem(rcpt.orcpt.data, rcpt.orcpt.len, dsn[i].orcpt,
               strlen(dsn[i].orcpt), "  ORCPT");
        is_mem(rcpt.path.address.data, rcpt.path.address.len, "a@b", 3,
               "  address");
    }

    free(p);
    free(arg);
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


/* a parameter of an extension is known exactly where that is offered */

static void
test_offered(void)
{
    int          pass, rc;
    size_t       i, len;
    uint8_t      arg[64];
    unsigned     offered;
    mpol_mail_t  mail;
    mpol_rcpt_t  rcpt;

    static const struct {
        const char  *arg;
        unsigned     extension;         /* each of them */
    } one[] = {
        { "FROM:<a@b> SIZE=1", MPOL_EXT_SIZE },
        { "FROM:<a@b> BODY=7BIT", MPOL_EXT_8BITMIME | BIN },
        { "FROM:<a@b> AUTH=<>", MPOL_EXT_AUTH },
        { "FROM:<a@b> SMTPUTF8", U8 },
        { "FROM:<a@b> RET=FULL", DSN },
        { "FROM:<a@b> ENVID=x", DSN },
        { "TO:<a@b> NOTIFY=NEVER", DSN },
        { "TO:<a@b> ORCPT=rfc822;a@b", DSN }
    };

    for (i = 0; i < sizeof(one) / sizeof(one[0]); i++) {
        len = strlen(one[i].arg);
        memcpy(arg, one[i].arg, len);

        for (offered = 0, pass = 1; offered < 256; offered++) {
            rc = (arg[0] == 'F') ? mpol_mail_parse(arg, len, offered, &mail)
                                 : mpol_rcpt_parse(arg, len, offered, &rcpt);

            pass &= rc == ((offered & one[i].extension) ? MPOL_OK : PAR);
        }

        ok(pass, "EXT-1 '%s' of each set of extensions", one[i].arg);
    }
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

    for (i = 0; i < sizeof(extended) / sizeof(extended[0]); i++) {
        test_extended(i);
    }

    for (i = 0; i < sizeof(utf8) / sizeof(utf8[0]); i++) {
        test_utf8(i);
    }

    for (i = 0; i < sizeof(dsn) / sizeof(dsn[0]); i++) {
        test_dsn(i);
    }

    for (i = 0; i < sizeof(bdats) / sizeof(bdats[0]); i++) {
        test_bdat(i);
    }

    test_offered();

    return done_testing();
}
