
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_access.h"
#include "mpol_attr.h"
#include "tap.h"


/* reply: NULL for what is no refusal */

static const struct {
    const char     *input;
    int             rc;
    mpol_access_e   action;
    const char     *text;
    const char     *reply;
} actions[] = {

    { "DUNNO", MPOL_OK, MPOL_ACCESS_DUNNO, "", NULL },
    { "dunno", MPOL_OK, MPOL_ACCESS_DUNNO, "", NULL },
    { "DuNnO whatever follows", MPOL_OK, MPOL_ACCESS_DUNNO,
      "whatever follows", NULL },
    { " \t DUNNO \t ", MPOL_OK, MPOL_ACCESS_DUNNO, "", NULL },
    { "OK", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "ok\tso far", MPOL_OK, MPOL_ACCESS_OK, "so far", NULL },
    { "permit", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "RELAY", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "0", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "250", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "45", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "5500", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "1700000000", MPOL_OK, MPOL_ACCESS_OK, "", NULL },
    { "123456789012345678901234567890", MPOL_OK, MPOL_ACCESS_OK, "", NULL },

    { "REJECT", MPOL_OK, MPOL_ACCESS_REJECT, "",
      "554 5.7.1 Access denied" },
    { "reject", MPOL_OK, MPOL_ACCESS_REJECT, "",
      "554 5.7.1 Access denied" },
    { "Reject no, thanks", MPOL_OK, MPOL_ACCESS_REJECT, "no, thanks",
      "554 5.7.1 no, thanks" },
    { "REJECT 5.1.8 who are you", MPOL_OK, MPOL_ACCESS_REJECT, "who are you",
      "554 5.1.8 who are you" },
    { "REJECT 5.1.8", MPOL_OK, MPOL_ACCESS_REJECT, "",
      "554 5.1.8 Access denied" },
    { "REJECT 5.1.8\t \ttab", MPOL_OK, MPOL_ACCESS_REJECT, "tab",
      "554 5.1.8 tab" },
    { "REJECT a\tb  c", MPOL_OK, MPOL_ACCESS_REJECT, "a\tb  c",
      "554 5.7.1 a b  c" },
    { "REJECT 4.7.0 wrong class", MPOL_OK, MPOL_ACCESS_REJECT, "wrong class",
      "554 5.7.0 wrong class" },
    { "REJECT 2.0.0 very wrong", MPOL_OK, MPOL_ACCESS_REJECT, "very wrong",
      "554 5.0.0 very wrong" },
    { "REJECT gr\xc3\xbc\xc3\x9f", MPOL_OK, MPOL_ACCESS_REJECT,
      "gr\xc3\xbc\xc3\x9f", "554 5.7.1 gr????" },

    { "DEFER", MPOL_OK, MPOL_ACCESS_DEFER, "",
      "450 4.7.1 Try again later" },
    { "defer 4.2.0 not now", MPOL_OK, MPOL_ACCESS_DEFER, "not now",
      "450 4.2.0 not now" },
    { "DEFER 5.2.0 not now", MPOL_OK, MPOL_ACCESS_DEFER, "not now",
      "450 4.2.0 not now" },
    { "DEFER_IF_PERMIT", MPOL_OK, MPOL_ACCESS_DEFER_IF_PERMIT, "",
      "450 4.7.1 Try again later" },
    { "defer_if_permit Greylisted, see http://a/b", MPOL_OK,
      MPOL_ACCESS_DEFER_IF_PERMIT, "Greylisted, see http://a/b",
      "450 4.7.1 Greylisted, see http://a/b" },
    { "DEFER_IF_REJECT 4.3.0 db", MPOL_OK, MPOL_ACCESS_DEFER_IF_REJECT, "db",
      "450 4.3.0 db" },

    { "450 text", MPOL_OK, MPOL_ACCESS_DEFER, "text", "450 4.7.1 text" },
    { "550 text", MPOL_OK, MPOL_ACCESS_REJECT, "text", "550 5.7.1 text" },
    { "450", MPOL_OK, MPOL_ACCESS_DEFER, "", "450 4.7.1 Try again later" },
    { "550", MPOL_OK, MPOL_ACCESS_REJECT, "", "550 5.7.1 Access denied" },
    { "550 ", MPOL_OK, MPOL_ACCESS_REJECT, "", "550 5.7.1 Access denied" },
    { "400 a", MPOL_OK, MPOL_ACCESS_DEFER, "a", "400 4.7.1 a" },
    { "499 a", MPOL_OK, MPOL_ACCESS_DEFER, "a", "499 4.7.1 a" },
    { "599 a", MPOL_OK, MPOL_ACCESS_REJECT, "a", "599 5.7.1 a" },
    { "421 4.7.0 bye", MPOL_OK, MPOL_ACCESS_DEFER, "bye",
      "421 4.7.0 bye" },
    { "521 bye", MPOL_OK, MPOL_ACCESS_REJECT, "bye", "521 5.7.1 bye" },
    { "550\t5.7.26 unsigned", MPOL_OK, MPOL_ACCESS_REJECT, "unsigned",
      "550 5.7.26 unsigned" },
    { "550 5.123.456 x", MPOL_OK, MPOL_ACCESS_REJECT, "x",
      "550 5.123.456 x" },
    { "550 5.7.2", MPOL_OK, MPOL_ACCESS_REJECT, "",
      "550 5.7.2 Access denied" },
    { "550 4.7.2", MPOL_OK, MPOL_ACCESS_REJECT, "",
      "550 5.7.2 Access denied" },
    { "450 5.7.2 x", MPOL_OK, MPOL_ACCESS_DEFER, "x", "450 4.7.2 x" },
    { "550 5.7.2x", MPOL_OK, MPOL_ACCESS_REJECT, "5.7.2x",
      "550 5.7.1 5.7.2x" },
    { "550 5.7. x", MPOL_OK, MPOL_ACCESS_REJECT, "5.7. x",
      "550 5.7.1 5.7. x" },
    { "550 5.7", MPOL_OK, MPOL_ACCESS_REJECT, "5.7", "550 5.7.1 5.7" },
    { "550 5.7.1234 x", MPOL_OK, MPOL_ACCESS_REJECT, "5.7.1234 x",
      "550 5.7.1 5.7.1234 x" },
    { "550 3.7.1 x", MPOL_OK, MPOL_ACCESS_REJECT, "3.7.1 x",
      "550 5.7.1 3.7.1 x" },

    { "PREPEND X-A: b", MPOL_OK, MPOL_ACCESS_PREPEND, "X-A: b", NULL },
    { "prepend X-A:", MPOL_OK, MPOL_ACCESS_PREPEND, "X-A:", NULL },
    { "PREPEND X-A \t: b", MPOL_OK, MPOL_ACCESS_PREPEND, "X-A \t: b", NULL },
    { "PREPEND X: gr\xc3\xbc", MPOL_OK, MPOL_ACCESS_PREPEND,
      "X: gr\xc3\xbc", NULL },
    { "PREPEND", MPOL_BAD, MPOL_ACCESS_PREPEND, "", NULL },
    { "PREPEND :b", MPOL_BAD, MPOL_ACCESS_PREPEND, ":b", NULL },
    { "PREPEND X-A", MPOL_BAD, MPOL_ACCESS_PREPEND, "X-A", NULL },
    { "PREPEND X-A b: c", MPOL_BAD, MPOL_ACCESS_PREPEND, "X-A b: c", NULL },
    { "PREPEND gr\xc3\xbc: c", MPOL_BAD, MPOL_ACCESS_PREPEND,
      "gr\xc3\xbc: c", NULL },

    { "INFO", MPOL_OK, MPOL_ACCESS_INFO, "", NULL },
    { "info seen", MPOL_OK, MPOL_ACCESS_INFO, "seen", NULL },
    { "WARN seen", MPOL_OK, MPOL_ACCESS_WARN, "seen", NULL },

    { "FILTER smtp:[127.0.0.1]:26", MPOL_OK, MPOL_ACCESS_FILTER,
      "smtp:[127.0.0.1]:26", NULL },
    { "FILTER", MPOL_BAD, MPOL_ACCESS_FILTER, "", NULL },
    { "FILTER smtp", MPOL_BAD, MPOL_ACCESS_FILTER, "smtp", NULL },
    { "REDIRECT a@b.example", MPOL_OK, MPOL_ACCESS_REDIRECT, "a@b.example",
      NULL },
    { "REDIRECT a", MPOL_BAD, MPOL_ACCESS_REDIRECT, "a", NULL },
    { "BCC a@b.example", MPOL_OK, MPOL_ACCESS_BCC, "a@b.example", NULL },
    { "BCC", MPOL_BAD, MPOL_ACCESS_BCC, "", NULL },
    { "HOLD", MPOL_OK, MPOL_ACCESS_HOLD, "", NULL },
    { "hold look at it", MPOL_OK, MPOL_ACCESS_HOLD, "look at it", NULL },
    { "DISCARD", MPOL_OK, MPOL_ACCESS_DISCARD, "", NULL },

    { "", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { " \t", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "DUNN", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "DUNNOT", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "DELAY 1h", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "permit,reject", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "check_sender_access hash:/x", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "",
      NULL },
    { "250 fine", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "5500 x", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "45 x", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "55x x", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "-550 x", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "REJECT a\rb", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "OK\r", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "REJECT a\nb", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "REJECT \x7f", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL },
    { "PREPEND X: a\x1b[2J", MPOL_BAD, MPOL_ACCESS_UNKNOWN, "", NULL }
};

#define ACTIONS  (sizeof(actions) / sizeof(actions[0]))


static int
inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    return s->data >= p && s->data <= p + len
           && s->len <= (size_t) (p + len - s->data);
}


/* into exactly as many octets as it is said to need */

static size_t
reply(const mpol_access_t *a, char *copy)
{
    size_t    n;
    uint8_t  *out;

    out = malloc(MPOL_ACCESS_REPLY);
    n = mpol_access_reply(a, out);
    memcpy(copy, out, n);
    free(out);

    copy[n] = '\0';

    return n;
}


static void
test_action(size_t i)
{
    int             rc;
    char            text[MPOL_ACCESS_REPLY + 1];
    size_t          len, n;
    uint8_t        *p;
    const char     *input, *want;
    mpol_access_t   a;

    input = actions[i].input;
    len = strlen(input);

    memset(&a, 0xff, sizeof(a));

    p = tap_exact(input, len);
    rc = mpol_access_parse(p, len, &a);

    ok(rc == actions[i].rc && a.action == actions[i].action,
       "action '%s'", input);
    is_mem(a.text.data, a.text.len, actions[i].text, strlen(actions[i].text),
           "  its text");

    want = actions[i].reply;

    n = reply(&a, text);
    is_mem(text, n, want, want ? strlen(want) : 0, "  its reply");

    ok(want != NULL || (a.code == 0 && a.status.len == 0),
       "  no code without a reply");

    free(p);

    /* all that it may begin with */

    rc = 1;

    for (n = 0; n < len; n++) {
        p = tap_exact(input, n);
        mpol_access_parse(p, n, &a);

        rc &= a.text.len == 0 || inside(&a.text, p, n);
        rc &= (a.code != 0) == (reply(&a, text) != 0);
        rc &= a.action <= MPOL_ACCESS_UNKNOWN;

        free(p);
    }

    ok(rc, "  cut at each octet");
}


static void
test_nul(void)
{
    mpol_access_t  a;

    ok(mpol_access_parse((const uint8_t *) "OK\0", 3, &a) == MPOL_BAD
       && a.action == MPOL_ACCESS_UNKNOWN, "a NUL");
    ok(mpol_access_parse(NULL, 0, &a) == MPOL_BAD
       && a.action == MPOL_ACCESS_UNKNOWN, "nothing at all");
}


/* a code that the caller has set, and a reply made by hand */

static void
test_reply(void)
{
    int             i, pass;
    char            text[MPOL_ACCESS_REPLY + 1];
    size_t          n;
    uint8_t        *p;
    mpol_access_t   a;

    mpol_access_parse((const uint8_t *) "550 5.1.1 no user", 17, &a);
    a.code = 450;
    n = reply(&a, text);
    is_mem(text, n, "450 4.1.1 no user", 17, "5xx as 450");

    a.status.len = 0;
    n = reply(&a, text);
    is_mem(text, n, "450 no user", 11, "no status");

    for (i = 0, pass = 1; i < 1000; i++) {
        a.code = (unsigned) i;
        pass &= (reply(&a, text) != 0) == (i >= 400 && i < 600);
    }

    ok(pass, "codes 400 .. 599 alone are refusals");

    for (n = MPOL_ACCESS_REPLY - 20; n < MPOL_ACCESS_REPLY + 20; n++) {
        p = malloc(n);
        memset(p, 'x', n);
        memcpy(p, "554 ", 4);

        mpol_access_parse(p, n, &a);

        /* the status makes it longer by six */

        pass &= reply(&a, text)
                == (n + 6 < MPOL_ACCESS_REPLY ? n + 6 : MPOL_ACCESS_REPLY);
        pass &= memcmp(text, "554 5.7.1 xxx", 13) == 0;

        free(p);
    }

    ok(pass, "a long text is cut");

    memset(text, '5', sizeof(text));
    a.status.data = p = tap_exact(text, MPOL_ACCESS_REPLY);
    a.status.len = MPOL_ACCESS_REPLY;
    a.text.len = 0;
    ok(reply(&a, text) == MPOL_ACCESS_REPLY, "even a long status");
    free(p);
}


static const struct {
    const char  *answer;
    const char  *action;
} answers[] = {
    { "action=DUNNO\n\n", "DUNNO" },
    { "action=\n\n", "" },
    { "action=a=b\n\n", "a=b" },
    { "x=y\naction=OK\naction=REJECT\n\n", "OK" },
    { "x=action=no\n\n", NULL },
    { "actions=no\nactio=no\nACTION=no\n\n", NULL },
    { "\n", NULL }
};


static void
test_find(const char *answer, const char *want)
{
    int           rc;
    size_t        len, n;
    uint8_t      *p;
    mpol_str_t    s;
    mpol_attr_t   scan;

    len = strlen(answer);

    memset(&scan, 0, sizeof(scan));

    for (n = 0, rc = MPOL_AGAIN; n <= len && rc == MPOL_AGAIN; n++) {
        p = tap_exact(answer, n);
        rc = mpol_attr_scan(&scan, p, n);

        if (rc == MPOL_OK) {
            rc = mpol_access_find(p, scan.pos, &s);

            ok(want != NULL ? (rc == MPOL_OK && s.len == strlen(want)
                               && memcmp(s.data, want, s.len) == 0)
                            : rc == MPOL_BAD,
               "the action in '%s'", answer);
        }

        free(p);
    }

    ok(n == len + 1, "  was found at its end");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < ACTIONS; i++) {
        test_action(i);
    }

    test_nul();
    test_reply();

    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        test_find(answers[i].answer, answers[i].action);
    }

    return done_testing();
}
