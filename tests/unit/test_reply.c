
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_reply.h"
#include "tap.h"


typedef struct {
    const char  *input;
    size_t       len;
    int          rc;                    /* length, MPOL_AGAIN, MPOL_BAD */
    unsigned     code;
    unsigned     lines;
    const char  *status;
    const char  *message;
    size_t       message_len;
} case_t;


#define C(input, rc, code, lines, status, message)                           \
    { input, sizeof(input) - 1, rc, code, lines, status, message,        \
      sizeof(message) - 1 }
#define BAD(input)    C(input, MPOL_BAD, 0, 0, 0, "")
#define AGAIN(input)  C(input, MPOL_AGAIN, 0, 0, 0, "")


static const case_t  cases[] = {

    C("220 ready\r\n", 11, 220, 1, "", "ready"),
    C("250\r\n", 5, 250, 1, "", ""),
    C("250 \r\n", 6, 250, 1, "", ""),
    C("354 go\r\n250 ok\r\n", 8, 354, 1, "", "go"),
    C("250-a\r\n250-b\r\n250 c\r\n", 21, 250, 3, "", "c"),
    C("250-\r\n250\r\n", 11, 250, 2, "", ""),
    C("599 \t\x01\x7f\xff\0x\r\n", 12, 599, 1, "", "\t\x01\x7f\xff\0x"),
    C("250 a\rb\r\n", 9, 250, 1, "", "a\rb"),
    C("250 a\r\r\n", 8, 250, 1, "", "a\r"),

    /* enhanced codes, those of the last line */
    C("451 4.7.1 later\r\n", 17, 451, 1, "4.7.1", "later"),
    C("550 5.7.2\r\n", 11, 550, 1, "5.7.2", ""),
    C("550 5.7.2 \r\n", 12, 550, 1, "5.7.2", ""),
    C("250 2.123.456  x\r\n", 18, 250, 1, "2.123.456", " x"),
    C("550-5.1.1 no\r\n550 5.1.2 such\r\n", 30, 550, 2, "5.1.2", "such"),
    C("550-5.1.1 no\r\n550 such\r\n", 24, 550, 2, "", "such"),
    C("550 4.7.1 no\r\n", 14, 550, 1, "", "4.7.1 no"),
    C("354 3.0.0 go\r\n", 14, 354, 1, "", "3.0.0 go"),
    C("550 5.7.1x\r\n", 12, 550, 1, "", "5.7.1x"),
    C("550 5.7.1-x\r\n", 13, 550, 1, "", "5.7.1-x"),
    C("550 5.7\r\n", 9, 550, 1, "", "5.7"),
    C("550 5.7.\r\n", 10, 550, 1, "", "5.7."),
    C("550 5..1\r\n", 10, 550, 1, "", "5..1"),
    C("550 5.1234.1\r\n", 14, 550, 1, "", "5.1234.1"),
    C("550 5.1.1234\r\n", 14, 550, 1, "", "5.1.1234"),
    C("550 5.7.1.1 x\r\n", 15, 550, 1, "", "5.7.1.1 x"),
    C("550 5,7.1 x\r\n", 13, 550, 1, "", "5,7.1 x"),
    C("550 5.12345\r\n", 13, 550, 1, "", "5.12345"),

    AGAIN(""),
    AGAIN("2"),
    AGAIN("250 ok"),
    AGAIN("250 ok\r"),
    AGAIN("250-ok\r\n"),
    AGAIN("250-ok\r\n250 x"),

    BAD("\n"),
    BAD("\r\n"),
    BAD("25\r\n"),
    BAD("250 ok\n"),
    BAD("250\n"),
    BAD("250-a\n250 b\r\n"),
    BAD("250-a\r\n250 b\n"),
    BAD("250-a\r\n251 b\r\n"),
    BAD("250-a\r\n550 b\r\n"),
    BAD("250-a\r\n\r\n"),
    BAD("250-a\r\nb\r\n"),
    BAD("250 a\nb\r\n"),
    BAD("150 x\r\n"),
    BAD("050 x\r\n"),
    BAD("600 x\r\n"),
    BAD("2x0 x\r\n"),
    BAD("25x x\r\n"),
    BAD("250_x\r\n"),
    BAD("250\tx\r\n"),
    BAD("2500 x\r\n"),
    BAD(" 250 x\r\n"),
    BAD("HTTP/1.1 400 Bad Request\r\n"),
    BAD("\x15\x03\x03\0\x02\x02\x32\r\n")
};


static const struct {
    const char  *input;
    unsigned     extensions;
    unsigned     xclient;
    uint64_t     size;
} ehlos[] = {
    { "250 mx\r\n", 0, 0, 0 },
    { "250-SIZE 5\r\n250 x\r\n", 0, 0, 0 },
    { "250-mx\r\n250 SIZE 10240000\r\n", MPOL_RELAY_SIZE, 0, 10240000 },
    { "250-mx\r\n250-SIZE\r\n250 HELP\r\n", MPOL_RELAY_SIZE, 0, 0 },
    { "250-mx\r\n250 size 0\r\n", MPOL_RELAY_SIZE, 0, 0 },
    { "250-mx\r\n250 SIZE 18446744073709551615\r\n", MPOL_RELAY_SIZE, 0,
      UINT64_MAX },
    { "250-mx\r\n250 SIZE 18446744073709551616\r\n", MPOL_RELAY_SIZE, 0, 0 },
    { "250-mx\r\n250 SIZE 5x\r\n", MPOL_RELAY_SIZE, 0, 0 },
    { "250-mx\r\n250 SIZES 5\r\n", 0, 0, 0 },
    { "250-mx\r\n250-PIPELINING\r\n250-8bitMIME\r\n250-STARTTLS\r\n"
      "250-ENHANCEDSTATUSCODES\r\n250-SIZE 7\r\n250-AUTH=LOGIN\r\n"
      "250-\r\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR"
      " DESTPORT\r\n", 0x3f, 0xff, 7 },
    { "250-mx\r\n250-xclient name  login bogus \r\n250 DSN\r\n",
      MPOL_RELAY_XCLIENT | MPOL_RELAY_DSN,
      MPOL_XCLIENT_NAME | MPOL_XCLIENT_LOGIN, 0 },
    { "250-mx\r\n250 XCLIENT\r\n", MPOL_RELAY_XCLIENT, 0, 0 },
    { "250-mx\r\n250-NAME ADDR\r\n250 X XCLIENT\r\n", 0, 0, 0 },
    { "250-mx\r\n250-PIPELININ\r\n250-PIPELININGS\r\n250\r\n", 0, 0, 0 },
    { "250-mx\r\n250  STARTTLS\r\n", MPOL_RELAY_STARTTLS, 0, 0 },
    { "250-mx\r\n250-   \r\n250 STARTTLS\r\n", MPOL_RELAY_STARTTLS, 0, 0 },

    { "250-mx\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-SMTPUTF8\r\n"
      "250-8BITMIME\r\n250-DSN\r\n250 LIMITS\r\n",
      MPOL_RELAY_CHUNKING | MPOL_RELAY_BINARYMIME | MPOL_RELAY_SMTPUTF8
      | MPOL_RELAY_8BITMIME | MPOL_RELAY_DSN | MPOL_RELAY_LIMITS, 0, 0 },
    { "250-mx\r\n250-binaryMime\r\n250-chunking\r\n250-smtpUtf8\r\n"
      "250-8bitmime\r\n250 dsn\r\n",
      MPOL_RELAY_CHUNKING | MPOL_RELAY_BINARYMIME | MPOL_RELAY_SMTPUTF8
      | MPOL_RELAY_8BITMIME | MPOL_RELAY_DSN, 0, 0 },
    { "250-mx\r\n250-SMTPUTF\r\n250-DSNS\r\n250-LIMIT RCPTMAX=1\r\n"
      "250 X DSN\r\n", 0, 0, 0 },
    { "250-mx\r\n250 CHUNKING\r\n", MPOL_RELAY_CHUNKING, 0, 0 },

    /* EXT-3: nothing else could carry it */
    { "250-mx\r\n250-BINARYMIME\r\n250 8BITMIME\r\n", MPOL_RELAY_8BITMIME, 0,
      0 },
    { "250-mx\r\n250 BINARYMIME CHUNKING\r\n", 0, 0, 0 },
    { "250-CHUNKING\r\n250 BINARYMIME\r\n", 0, 0, 0 },

    /* EXT-2: nor can octets above 127 be in a body without the one */
    { "250-mx\r\n250-SMTPUTF8\r\n250 DSN\r\n", MPOL_RELAY_DSN, 0, 0 },
    { "250-mx\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 SMTPUTF8\r\n",
      MPOL_RELAY_CHUNKING | MPOL_RELAY_BINARYMIME, 0, 0 },
    { "250-mx\r\n250 SMTPUTF8 8BITMIME\r\n", 0, 0, 0 },
    { "250-8BITMIME\r\n250 SMTPUTF8\r\n", 0, 0, 0 },
    { "250-mx\r\n250-SMTPUTF8\r\n250 8BITMIME\r\n",
      MPOL_RELAY_SMTPUTF8 | MPOL_RELAY_8BITMIME, 0, 0 }
};


/* what stands behind LIMITS, and the lines behind it */

static const struct {
    const char  *input;
    uint64_t     mailmax;
    uint64_t     rcptmax;
} limits[] = {
    { "", 0, 0 },
    { " ", 0, 0 },
    { " MAILMAX=20 RCPTMAX=100", 20, 100 },
    { " RCPTMAX=100 RCPTDOMAINMAX=1", 0, 100 },
    { "  mailmax=1   RcptMax=999999 ", 1, 999999 },
    { " MAILMAX=5", 5, 0 },
    { " FOO BAR=1 RCPTMAX=7 BAZ=", 0, 7 },

    { " MAILMAX RCPTMAX=7", 0, 7 },
    { " MAILMAX= RCPTMAX=7", 0, 7 },
    { " MAILMAX=0 RCPTMAX=000000", 0, 0 },
    { " MAILMAX=020 RCPTMAX=1", 0, 1 },
    { " MAILMAX=1000000 RCPTMAX=1", 0, 1 },
    { " MAILMAX=18446744073709551617 RCPTMAX=1", 0, 1 },
    { " MAILMAX=5x RCPTMAX=x5", 0, 0 },
    { " MAILMAX=-5 RCPTMAX=+5", 0, 0 },
    { " MAILMAX=5,RCPTMAX=6", 0, 0 },
    { " MAILMAX==5 RCPTMAX =6", 0, 0 },
    { " MAILMAXS=5 XRCPTMAX=6", 0, 0 },
    { " =5 RCPTMAX=6", 0, 6 },
    { " RCPTMAX=6\t MAILMAX=5", 5, 0 },
    { "=RCPTMAX=6", 0, 0 },

    { " RCPTMAX=9 RCPTMAX=4 RCPTMAX=6", 0, 4 },
    { " RCPTMAX=9\r\n250-LIMITS MAILMAX=3 RCPTMAX=8", 3, 8 },
    { " RCPTMAX=9 RCPTMAX=x RCPTMAX=0", 0, 9 },
    { "\r\n250-RCPTMAX=9", 0, 0 }
};


static void
test_reply(const case_t *c)
{
    int            bad, pass, rc;
    size_t         n, whole;
    uint8_t       *p;
    mpol_reply_t   reply;

    p = tap_exact(c->input, c->len);

    rc = mpol_reply_parse(p, c->len, &reply);

    if (is_u64((uint64_t) rc, (uint64_t) c->rc, "'%s'", c->input) && rc > 0) {
        ok(reply.code == c->code && reply.lines == c->lines,
           "  code %u, lines %u", reply.code, reply.lines);
        is_mem(reply.status.data, reply.status.len, c->status,
               strlen(c->status), "  status");

        is_mem(reply.message.data, reply.message.len, c->message,
               c->message_len, "  message");

        ok(reply.text.data + reply.text.len
           == reply.message.data + reply.message.len
           && (p[rc - 2] == '\r' && reply.text.data + reply.text.len
                                    == p + rc - 2),
           "  the text ends before CRLF");
    }

    free(p);

    /* whatever lacks octets waits for them; what is bad once stays so */

    whole = (c->rc > 0) ? (size_t) c->rc : c->len;

    for (n = 0, pass = 1, bad = 0; n < whole && pass; n++) {
        p = tap_exact(c->input, n);

        rc = mpol_reply_parse(p, n, &reply);
        pass = (rc == MPOL_BAD) ? c->rc == MPOL_BAD : rc == MPOL_AGAIN && !bad;
        bad = (rc == MPOL_BAD);

        free(p);
    }

    ok(pass, "  cut off at %u", (unsigned) n - 1);
}


static void
test_lines(unsigned lines, int want)
{
    char          buf[2048];
    size_t        i, n;
    mpol_reply_t  reply;

    for (i = 0, n = 0; i < lines; i++) {
        n += (size_t) sprintf(buf + n, "250%cx\r\n",
                              i + 1 == lines ? ' ' : '-');
    }

    is_u64((uint64_t) mpol_reply_parse((uint8_t *) buf, n, &reply),
           (uint64_t) want, "%u lines", lines);
}


static void
test_ehlo(size_t i)
{
    size_t        len, n;
    uint8_t      *p;
    mpol_ehlo_t   ehlo;
    mpol_reply_t  reply;

    len = strlen(ehlos[i].input);

    for (n = 0; n <= len; n++) {
        p = tap_exact(ehlos[i].input, n);
        mpol_ehlo_parse(p, n, &ehlo);

        if (n == len) {
            is_u64((uint64_t) mpol_reply_parse(p, n, &reply), len, "'%s'",
                   ehlos[i].input);
        }

        free(p);
    }

    is_u64(ehlo.extensions, ehlos[i].extensions, "  extensions");
    is_u64(ehlo.xclient, ehlos[i].xclient, "  xclient");
    is_u64(ehlo.size, ehlos[i].size, "  size");
}


static const struct {
    const char  *line;
    unsigned     auth;
} auths[] = {
    { "AUTH", 0 },
    { "AUTH PLAIN", MPOL_AUTH_PLAIN },
    { "auth login  Plain GSSAPI", MPOL_AUTH_LOGIN|MPOL_AUTH_PLAIN },
    { "AUTH CRAM-MD5 SCRAM-SHA-256",
      MPOL_AUTH_CRAM_MD5|MPOL_AUTH_SCRAM_SHA_256 },
    { "AUTH XOAUTH2 oauthbearer", MPOL_AUTH_XOAUTH2|MPOL_AUTH_OAUTHBEARER },
    { "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-1 XOAUTH OAUTHBEARER2", 0 },
    { "AUTH=PLAIN LOGIN", 0 },
    { "AUTHS PLAIN", 0 }
};


static void
test_auth(size_t i)
{
    char          s[256];
    size_t        len;
    uint8_t      *p;
    mpol_ehlo_t   ehlo;

    len = (size_t) sprintf(s, "250-mx\r\n250-%s\r\n250 HELP\r\n",
                           auths[i].line);
    p = tap_exact(s, len);

    mpol_ehlo_parse(p, len, &ehlo);
    is_u64(ehlo.auth, auths[i].auth, "%s", auths[i].line);

    free(p);
}


static void
test_limits(size_t i)
{
    char         *s;
    size_t        len, n;
    uint8_t      *p;
    mpol_ehlo_t   ehlo;

    s = malloc(strlen(limits[i].input) + 64);
    if (s == NULL) {
        abort();
    }

    len = (size_t) sprintf(s, "250-mx\r\n250-LIMITS%s\r\n250 HELP\r\n",
                           limits[i].input);

    for (n = 0; n <= len; n++) {
        p = tap_exact(s, n);
        mpol_ehlo_parse(p, n, &ehlo);
        free(p);
    }

    ok(ehlo.mailmax == limits[i].mailmax && ehlo.rcptmax == limits[i].rcptmax,
       "LIMITS%s: %u, %u", limits[i].input, (unsigned) ehlo.mailmax,
       (unsigned) ehlo.rcptmax);

    free(s);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_reply(&cases[i]);
    }

    test_lines(MPOL_REPLY_LINES, MPOL_REPLY_LINES * 7);
    test_lines(MPOL_REPLY_LINES + 1, MPOL_BAD);

    for (i = 0; i < sizeof(ehlos) / sizeof(ehlos[0]); i++) {
        test_ehlo(i);
    }

    for (i = 0; i < sizeof(auths) / sizeof(auths[0]); i++) {
        test_auth(i);
    }

    for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        test_limits(i);
    }

    return done_testing();
}
