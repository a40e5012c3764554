
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
#define PAR  MPOL_ARG_PARAM
#define VAL  MPOL_ARG_VALUE

#define UML  "\xc3\xa4"
#define X10  "x123456789"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10


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
    { " ORCPT=utf-8;a\\x{20}\\x{2B}\\x{3d}@b", 0, DSN, 0,
      "utf-8;a\\x{20}\\x{2B}\\x{3d}@b" },
    { " ORCPT=utf-8;\\x{0A}@b", VAL, DSN, 0, 0 },
    { " ORCPT=utf-8;\\x{0A}@b", VAL, EACH, 0, 0 },
    { " ORCPT=rfc822;\\x{0A}@b", 0, EACH, 0, "rfc822;\\x{0A}@b" },

    { " NOTIFY=NEVER ORCPT=rfc822;a@b FOO", PAR, EACH, 0, 0 },
    { " NOTIFY=NEVER  ORCPT=rfc822;a@b", SYN, EACH, 0, 0 },
    { " RET=FULL", PAR, EACH, 0, 0 },
    { " ENVID=a", PAR, EACH, 0, 0 },
    { " SMTPUTF8", PAR, EACH, 0, 0 },
    { " BODY=7BIT", PAR, EACH, 0, 0 },
    { " AUTH=<>", PAR, EACH, 0, 0 },
    { " RRVS=2014-04-03T23:01:00Z", PAR, EACH, 0, 0 }
};


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

    for (i = 0; i < sizeof(extended) / sizeof(extended[0]); i++) {
        test_extended(i);
    }

    for (i = 0; i < sizeof(dsn) / sizeof(dsn[0]); i++) {
        test_dsn(i);
    }

    test_offered();

    return done_testing();
}
