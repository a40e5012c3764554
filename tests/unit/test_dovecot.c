
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_dovecot.h"
#include "tap.h"


static const struct {
    const char  *input;
    int          rc;
    int          command;
    uint32_t     id;
    const char  *args;                  /* NULL: none */
} lines[] = {
    { "VERSION\t1\t2", MPOL_OK, MPOL_DOVECOT_VERSION, 1, "2" },
    { "VERSION\t2\t0\tmore", MPOL_OK, MPOL_DOVECOT_VERSION, 2, "0\tmore" },
    { "MECH\tPLAIN\tplaintext", MPOL_OK, MPOL_DOVECOT_MECH, 0,
      "PLAIN\tplaintext" },
    { "SPID\t617", MPOL_OK, MPOL_DOVECOT_SPID, 0, "617" },
    { "CUID\t2", MPOL_OK, MPOL_DOVECOT_CUID, 0, "2" },
    { "COOKIE\t9f", MPOL_OK, MPOL_DOVECOT_COOKIE, 0, "9f" },
    { "DONE", MPOL_OK, MPOL_DOVECOT_DONE, 0, NULL },
    { "OK\t1\tuser=a@example.com", MPOL_OK, MPOL_DOVECOT_OK, 1,
      "user=a@example.com" },
    { "OK\t4294967295", MPOL_OK, MPOL_DOVECOT_OK, 4294967295u, NULL },
    { "OK\t7\t", MPOL_OK, MPOL_DOVECOT_OK, 7, "" },
    { "FAIL\t1\tuser=a\tcode=temp_fail", MPOL_OK, MPOL_DOVECOT_FAIL, 1,
      "user=a\tcode=temp_fail" },
    { "CONT\t3\tPDE+", MPOL_OK, MPOL_DOVECOT_CONT, 3, "PDE+" },
    { "CONT\t3\t", MPOL_OK, MPOL_DOVECOT_CONT, 3, "" },
    { "CONT\t3", MPOL_OK, MPOL_DOVECOT_CONT, 3, NULL },

    { "CANCELLED\t3", MPOL_OK, MPOL_DOVECOT_OTHER, 0, "3" },
    { "ok\t1", MPOL_OK, MPOL_DOVECOT_OTHER, 0, "1" },
    { "OKAY\t1", MPOL_OK, MPOL_DOVECOT_OTHER, 0, "1" },
    { " OK\t1", MPOL_OK, MPOL_DOVECOT_OTHER, 0, "1" },
    { "OK 1", MPOL_OK, MPOL_DOVECOT_OTHER, 0, NULL },
    { "", MPOL_OK, MPOL_DOVECOT_OTHER, 0, NULL },
    { "\t", MPOL_OK, MPOL_DOVECOT_OTHER, 0, "" },

    { "VERSION", MPOL_BAD, 0, 0, NULL },
    { "VERSION\t1", MPOL_BAD, 0, 0, NULL },
    { "VERSION\t1\t", MPOL_BAD, 0, 0, NULL },
    { "VERSION\tone\t1", MPOL_BAD, 0, 0, NULL },
    { "OK", MPOL_BAD, 0, 0, NULL },
    { "OK\t", MPOL_BAD, 0, 0, NULL },
    { "OK\t0", MPOL_BAD, 0, 0, NULL },
    { "OK\t-1", MPOL_BAD, 0, 0, NULL },
    { "OK\t+1", MPOL_BAD, 0, 0, NULL },
    { "OK\t1x", MPOL_BAD, 0, 0, NULL },
    { "OK\t1 \tuser=a", MPOL_BAD, 0, 0, NULL },
    { "OK\t4294967296", MPOL_BAD, 0, 0, NULL },
    { "OK\t99999999999999999999999", MPOL_BAD, 0, 0, NULL },
    { "OK\tuser=a", MPOL_BAD, 0, 0, NULL },
    { "OK\t1\r", MPOL_BAD, 0, 0, NULL },
    { "FAIL", MPOL_BAD, 0, 0, NULL },
    { "CONT\t\tPDE+", MPOL_BAD, 0, 0, NULL },
    { "OK\t1\tuser=a\nOK\t2", MPOL_BAD, 0, 0, NULL }
};


static int
same(const mpol_str_t *s, const char *want)
{
    if (want == NULL) {
        return s->data == NULL && s->len == 0;
    }

    return s->data != NULL && s->len == strlen(want)
           && memcmp(s->data, want, s->len) == 0;
}


/* whole; and each beginning of it must be read no further than it goes */

static void
test_line(size_t i)
{
    int                   rc;
    size_t                len, n;
    uint8_t              *p;
    mpol_dovecot_arg_t    arg;
    mpol_dovecot_line_t   line;

    len = strlen(lines[i].input);
    p = tap_exact(lines[i].input, len);

    rc = mpol_dovecot_parse(p, len, &line);

    ok(rc == lines[i].rc
       && (rc != MPOL_OK
           || ((int) line.command == lines[i].command
               && line.id == lines[i].id
               && same(&line.args, lines[i].args))),
       "line '%s'", lines[i].input);

    free(p);

    for (n = 0; n < len; n++) {
        p = tap_exact(lines[i].input, n);

        if (mpol_dovecot_parse(p, n, &line) == MPOL_OK) {
            while (mpol_dovecot_arg(&line.args, &arg)) { /* void */ }
        }

        free(p);
    }
}


static void
test_nul(void)
{
    mpol_dovecot_line_t  line;

    ok(mpol_dovecot_parse((const uint8_t *) "OK\t1\tuser=a\0b", 13, &line)
       == MPOL_BAD, "a NUL in a line");
}


static void
test_args(void)
{
    size_t               i;
    mpol_str_t           args, value;
    mpol_dovecot_arg_t   arg;

    static const char  text[] = "user=a=b\tnologin\t=x\t\tuser=second\tend=";

    static const struct {
        const char  *whole, *name, *value;
    } want[] = {
        { "user=a=b", "user", "a=b" },
        { "nologin", "nologin", NULL },
        { "=x", "", "x" },
        { "", "", NULL },
        { "user=second", "user", "second" },
        { "end=", "end", "" }
    };

    args.data = (const uint8_t *) text;
    args.len = sizeof(text) - 1;

    for (i = 0; mpol_dovecot_arg(&args, &arg); i++) {
        ok(i < 6 && same(&arg.whole, want[i].whole)
           && same(&arg.name, want[i].name)
           && same(&arg.value, want[i].value),
           "arg %lu", (unsigned long) i);
    }

    ok(i == 6, "that was the last one");
    ok(!mpol_dovecot_arg(&args, &arg), "and stays the last one");

    args.data = (const uint8_t *) text;
    args.len = sizeof(text) - 1;

    ok(mpol_dovecot_get(&args, "user", &value) && same(&value, "a=b"),
       "the first one of a name");
    ok(mpol_dovecot_get(&args, "nologin", &value) && same(&value, NULL),
       "one without a value");
    ok(mpol_dovecot_get(&args, "end", &value) && same(&value, ""),
       "one with an empty value");
    ok(!mpol_dovecot_get(&args, "use", &value), "none of that name");
    ok(!mpol_dovecot_get(&args, "User", &value), "nor in another case");
    ok(args.len == sizeof(text) - 1, "nothing is taken off");
}


static const struct {
    const char  *plain;
    size_t       len;
    const char  *escaped;
} escapes[] = {
    { "", 0, "" },
    { "plain text=x", 12, "plain text=x" },
    { "\t", 1, "\001t" },
    { "a\tb\rc\nd", 7, "a\001tb\001rc\001nd" },
    { "\001", 1, "\0011" },
    { "\0", 1, "\0010" },
    { "\001\0t", 3, "\0011\0010t" },
    { "\x02\x7f\xff", 3, "\x02\x7f\xff" }
};


static void
test_escape(size_t i)
{
    int       pass;
    size_t    n, len, size;
    uint8_t  *in, *out;

    len = strlen(escapes[i].escaped);
    in = tap_exact(escapes[i].plain, escapes[i].len);

    for (size = 0, pass = 1; size <= len; size++) {
        out = malloc(size ? size : 1);
        n = mpol_dovecot_escape(in, escapes[i].len, out, size);
        pass &= (n == len
                 && (size < len || memcmp(out, escapes[i].escaped, len) == 0));
        free(out);
    }

    ok(pass, "escape %lu, with any room", (unsigned long) i);
    free(in);

    in = tap_exact(escapes[i].escaped, len);
    out = malloc(len ? len : 1);

    ok(mpol_dovecot_unescape(in, len, out, &n) == MPOL_OK
       && n == escapes[i].len && memcmp(out, escapes[i].plain, n) == 0,
       "and back");

    ok(mpol_dovecot_unescape(in, len, in, &n) == MPOL_OK
       && n == escapes[i].len && memcmp(in, escapes[i].plain, n) == 0,
       "and in itself");

    free(in);
    free(out);
}


static void
test_unescape(void)
{
    size_t   n;
    uint8_t  out[8];

    ok(mpol_dovecot_unescape((const uint8_t *) "\001xyz", 4, out, &n)
       == MPOL_OK && n == 3 && memcmp(out, "xyz", 3) == 0,
       "an unknown code stands for itself");

    ok(mpol_dovecot_unescape((const uint8_t *) "\001\001", 2, out, &n)
       == MPOL_OK && n == 1 && out[0] == 1, "an escape of the escape octet");

    ok(mpol_dovecot_unescape((const uint8_t *) "ab\001", 3, out, &n)
       == MPOL_BAD, "one that is cut off");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        test_line(i);
    }

    test_nul();
    test_args();

    for (i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++) {
        test_escape(i);
    }

    test_unescape();

    return done_testing();
}
