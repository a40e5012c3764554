
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_attr.h"
#include "tap.h"


static const struct {
    const char  *input;
    int          rc;
    size_t       used;
} scans[] = {
    { "\n", MPOL_OK, 1 },
    { "a=b\n\n", MPOL_OK, 5 },
    { "a=b\n\nc=d\n\n", MPOL_OK, 5 },
    { "a=\n\n", MPOL_OK, 4 },
    { "a==b=\n\n", MPOL_OK, 7 },
    { "a=b c\t\r\x01\xff\n\n", MPOL_OK, 11 },
    { "request=smtpd_access_policy\nsender=\n\nrest", MPOL_OK, 37 },

    { "", MPOL_AGAIN, 0 },
    { "a", MPOL_AGAIN, 0 },
    { "a=b", MPOL_AGAIN, 0 },
    { "a=b\n", MPOL_AGAIN, 0 },
    { "a=b\nc", MPOL_AGAIN, 0 },

    { "a\n\n", MPOL_ATTR_E_SYNTAX, 0 },
    { "a=b\nc\n\n", MPOL_ATTR_E_SYNTAX, 0 },
    { "=b\n\n", MPOL_ATTR_E_SYNTAX, 0 },
    { "a=b\n=\n\n", MPOL_ATTR_E_SYNTAX, 0 },
    { "a=b\n\r\n", MPOL_ATTR_E_SYNTAX, 0 }
};


/* cut in two at each octet, and an octet at a time: the same */

static void
test_scan(const char *input, int rc, size_t used)
{
    int           pass, got;
    size_t        len, n;
    uint8_t      *p;
    mpol_attr_t   a, b;

    len = strlen(input);

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));

    p = tap_exact(input, len);
    got = mpol_attr_scan(&a, p, len);

    ok(got == rc && (rc != MPOL_OK || a.pos == used), "scan %d of '%s'", rc,
       input);
    free(p);

    for (n = 0, got = MPOL_AGAIN; n <= len && got == MPOL_AGAIN; n++) {
        p = tap_exact(input, n);
        got = mpol_attr_scan(&b, p, n);
        free(p);
    }

    pass = (got == rc && (rc != MPOL_OK || b.pos == used));

    for (n = 0; n <= len; n++) {
        memset(&b, 0, sizeof(b));

        p = tap_exact(input, n);
        got = mpol_attr_scan(&b, p, n);
        free(p);

        if (got == MPOL_AGAIN) {
            p = tap_exact(input, len);
            got = mpol_attr_scan(&b, p, len);
            free(p);
        }

        pass &= (got == rc && (rc != MPOL_OK || b.pos == used));
    }

    ok(pass, "  and cut at each octet");
}


static void
test_nul(void)
{
    mpol_attr_t  a;

    memset(&a, 0, sizeof(a));
    ok(mpol_attr_scan(&a, (const uint8_t *) "a=b\0c\n\n", 7)
       == MPOL_ATTR_E_NUL, "a NUL in a value");

    memset(&a, 0, sizeof(a));
    ok(mpol_attr_scan(&a, (const uint8_t *) "\0", 1) == MPOL_ATTR_E_NUL,
       "a NUL at the beginning");
}


/* the largest that there may be, and one more */

static int
scan_line(size_t len)
{
    int           rc;
    uint8_t      *p;
    mpol_attr_t   a;

    p = malloc(len + 1);
    memset(p, 'x', len);
    p[1] = '=';
    p[len - 1] = '\n';
    p[len] = '\n';

    memset(&a, 0, sizeof(a));
    rc = mpol_attr_scan(&a, p, len + 1);
    free(p);

    return rc;
}


static int
scan_count(unsigned n)
{
    int          rc;
    char        *s;
    size_t       len;
    unsigned     i;
    mpol_attr_t  a;

    s = malloc(4 * n + 1);

    for (i = 0, len = 0; i < n; i++, len += 4) {
        memcpy(s + len, "a=b\n", 4);
    }

    s[len++] = '\n';

    memset(&a, 0, sizeof(a));
    rc = mpol_attr_scan(&a, (uint8_t *) s, len);
    free(s);

    return rc;
}


/* lines of 1024 octets, and one that fills it up */

static int
scan_size(size_t len)
{
    int          rc;
    size_t       i;
    uint8_t     *p;
    mpol_attr_t  a;

    p = malloc(len);
    memset(p, 'x', len);

    for (i = 0; i + 1032 < len; i += 1024) {
        p[i + 1] = '=';
        p[i + 1023] = '\n';
    }

    p[i + 1] = '=';
    p[len - 2] = '\n';
    p[len - 1] = '\n';

    memset(&a, 0, sizeof(a));
    rc = mpol_attr_scan(&a, p, len);
    free(p);

    return rc;
}


static void
test_bounds(void)
{
    ok(scan_line(MPOL_ATTR_LINE) == MPOL_OK, "the longest line");
    ok(scan_line(MPOL_ATTR_LINE + 1) == MPOL_ATTR_E_LINE, "a longer one");
    ok(scan_count(MPOL_ATTR_COUNT) == MPOL_OK, "as many attributes");
    ok(scan_count(MPOL_ATTR_COUNT + 1) == MPOL_ATTR_E_COUNT, "one more");
    ok(scan_size(MPOL_ATTR_REQUEST) == MPOL_OK, "the largest request");
    ok(scan_size(MPOL_ATTR_REQUEST + 1) == MPOL_ATTR_E_SIZE, "a larger one");
}


/* what Postfix 3.7 sends, in part */

static const char  request[] =
    "request=smtpd_access_policy\n"
    "protocol_state=RCPT\n"
    "protocol_name=ESMTP\n"
    "helo_name=some.domain.tld\n"
    "queue_id=8045F2AB23\n"
    "sender=foo@bar.tld\n"
    "recipient=bar@foo.tld\n"
    "recipient_count=0\n"
    "client_address=1.2.3.4\n"
    "client_name=another.domain.tld\n"
    "reverse_client_name=another.domain.tld\n"
    "instance=123.456.7\n"
    "sasl_method=plain\n"
    "sasl_username=you\n"
    "sasl_sender=\n"
    "size=12345\n"
    "ccert_subject=solaris9.porcupine.org\n"
    "encryption_protocol=TLSv1/SSLv3\n"
    "encryption_cipher=DHE-RSA-AES256-SHA\n"
    "etrn_domain=\n"
    "stress=\n"
    "client_port=1234\n"
    "policy_context=submission\n"
    "server_address=10.3.2.1\n"
    "server_port=54321\n"
    "sender=second@one\n"
    "senders=x\n"
    "sende=x\n"
    "\n";


static void
is(const mpol_str_t *value, const char *want)
{
    ok(value->data != NULL && value->len == strlen(want)
       && memcmp(value->data, want, value->len) == 0, "a value '%s'", want);
}


static void
test_parse(void)
{
    size_t        len;
    uint8_t      *p;
    mpol_str_t    v[MPOL_ATTR_KNOWN];
    mpol_attr_t   a;

    len = sizeof(request) - 1;
    p = tap_exact(request, len);

    memset(&a, 0, sizeof(a));
    ok(mpol_attr_scan(&a, p, len) == MPOL_OK && a.pos == len, "a request");

    mpol_attr_parse(p, len, v);

    is(&v[MPOL_ATTR_REQUEST_TYPE], "smtpd_access_policy");
    is(&v[MPOL_ATTR_STATE], "RCPT");
    is(&v[MPOL_ATTR_PROTOCOL], "ESMTP");
    is(&v[MPOL_ATTR_INSTANCE], "123.456.7");
    is(&v[MPOL_ATTR_CLIENT_ADDRESS], "1.2.3.4");
    is(&v[MPOL_ATTR_CLIENT_PORT], "1234");
    is(&v[MPOL_ATTR_CLIENT_NAME], "another.domain.tld");
    is(&v[MPOL_ATTR_SERVER_ADDRESS], "10.3.2.1");
    is(&v[MPOL_ATTR_SERVER_PORT], "54321");
    is(&v[MPOL_ATTR_HELO_NAME], "some.domain.tld");
    is(&v[MPOL_ATTR_SENDER], "foo@bar.tld");
    is(&v[MPOL_ATTR_RECIPIENT], "bar@foo.tld");
    is(&v[MPOL_ATTR_RECIPIENT_COUNT], "0");
    is(&v[MPOL_ATTR_SIZE], "12345");
    is(&v[MPOL_ATTR_SASL_METHOD], "plain");
    is(&v[MPOL_ATTR_SASL_USERNAME], "you");
    is(&v[MPOL_ATTR_ENCRYPTION], "TLSv1/SSLv3");

    free(p);

    mpol_attr_parse((const uint8_t *) "\n", 1, v);
    ok(v[0].data == NULL && v[MPOL_ATTR_SIZE].data == NULL, "none of them");

    mpol_attr_parse((const uint8_t *) "size==\nsender=\n\n", 16, v);
    is(&v[MPOL_ATTR_SIZE], "=");
    is(&v[MPOL_ATTR_SENDER], "");
}


static void
test_number(void)
{
    size_t      i;
    mpol_str_t  s;

    static const struct {
        const char  *text;
        uint64_t     n;
    } numbers[] = {
        { "", 0 }, { "0", 0 }, { "1", 1 }, { "007", 7 }, { "12345", 12345 },
        { "4294967296", 4294967296u }, { "-1", 0 }, { "1x", 0 }, { " 1", 0 },
        { "1099511627775", 1099511627775u },
        { "1099511627776", MPOL_ATTR_NUMBER },
        { "1099511627777", MPOL_ATTR_NUMBER },
        { "99999999999999999999999999", MPOL_ATTR_NUMBER },
        { "18446744073709551617", MPOL_ATTR_NUMBER },
        { "99999999999999999999999999x", 0 }
    };

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        s.data = (const uint8_t *) numbers[i].text;
        s.len = strlen(numbers[i].text);

        ok(mpol_attr_number(&s) == numbers[i].n, "number '%s'",
           numbers[i].text);
    }
}


/* what may not be in a value, and the longest one */

static const struct {
    const char  *name;
    const char  *value;
    const char  *line;
} lines[] = {
    { "sender", "a@b.example", "sender=a@b.example\n" },
    { "sender", "", "sender=\n" },
    { "a", "b=c d", "a=b=c d\n" },
    { "a", "x\ny\rz\t\x01\x1f\x7f", "a=x?y?z????\n" },
    { "a", " \x80\xff~", "a= \x80\xff~\n" }
};


static void
test_put(const char *name, const char *text, const char *line)
{
    int          pass;
    size_t       len, n;
    uint8_t     *p, *q;
    mpol_str_t   value;

    value.len = strlen(text);
    value.data = tap_exact(text, value.len);
    len = strlen(line);

    for (n = 0, pass = 1; n < len; n++) {
        p = malloc(n ? n : 1);
        pass &= (mpol_attr_write(p, p + n, name, strlen(name),
                                 &value) == NULL);
        free(p);
    }

    ok(pass, "no room for '%s'", line);

    p = malloc(len + 1);
    q = mpol_attr_write(p, p + len, name, strlen(name), &value);
    ok(q == p + len && memcmp(p, line, len) == 0, "  room for it");

    ok(mpol_attr_end(q, p + len) == NULL, "  but not for the end");
    ok(mpol_attr_end(q, p + len + 1) == p + len + 1 && p[len] == '\n',
       "  room for the end, too");

    ok(mpol_attr_write(NULL, p + len, name, strlen(name), &value) == NULL
       && mpol_attr_end(NULL, p + len) == NULL, "  NULL stays NULL");

    free(p);
    free((void *) value.data);
}


static void
test_put_long(void)
{
    size_t        n;
    uint8_t      *p, *q;
    mpol_str_t    got, value;
    mpol_attr_t   a;

    for (n = MPOL_ATTR_LINE - 8; n < MPOL_ATTR_LINE + 8; n++) {
        value.data = memset(malloc(n), 'v', n);
        value.len = n;

        p = malloc(MPOL_ATTR_LINE + 1);
        q = mpol_attr_end(mpol_attr_put(p, p + MPOL_ATTR_LINE, "name",
                                        &value),
                          p + MPOL_ATTR_LINE + 1);

        memset(&a, 0, sizeof(a));

        ok(q != NULL && mpol_attr_scan(&a, p, (size_t) (q - p)) == MPOL_OK
           && mpol_attr_find(p, a.pos, "name", &got) == MPOL_OK
           && got.len == (n < MPOL_ATTR_LINE - 6 ? n : MPOL_ATTR_LINE - 6),
           "a value of %lu octets", (unsigned long) n);

        free(p);
        free((void *) value.data);
    }

    value.data = (const uint8_t *) "a\0b";
    value.len = 3;

    p = malloc(6);
    q = mpol_attr_put(p, p + 6, "n", &value);
    ok(q == p + 6 && memcmp(p, "n=a?b\n", 6) == 0, "a NUL");
    free(p);
}


static void
test_find(void)
{
    mpol_str_t  v;

    ok(mpol_attr_find((const uint8_t *) request, sizeof(request) - 1,
                      "queue_id", &v) == MPOL_OK, "an attribute by its name");
    is(&v, "8045F2AB23");

    ok(mpol_attr_find((const uint8_t *) request, sizeof(request) - 1,
                      "sender", &v) == MPOL_OK, "the first of two");
    is(&v, "foo@bar.tld");

    ok(mpol_attr_find((const uint8_t *) request, sizeof(request) - 1,
                      "queue", &v) == MPOL_BAD, "one that is missing");
}


int
main(void)
{
    int     rc;
    size_t  i;

    for (i = 0; i < sizeof(scans) / sizeof(scans[0]); i++) {
        test_scan(scans[i].input, scans[i].rc, scans[i].used);
    }

    test_nul();
    test_bounds();
    test_parse();
    test_number();
    test_find();

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        test_put(lines[i].name, lines[i].value, lines[i].line);
    }

    test_put_long();

    for (rc = MPOL_ATTR_E_LINE; rc <= MPOL_ATTR_E_SYNTAX; rc++) {
        ok(strlen(mpol_attr_error(rc)) > 3, "error %d has a text", rc);
    }

    return done_testing();
}
