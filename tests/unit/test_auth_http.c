
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_auth_http.h"
#include "tap.h"


#define MORE     1                      /* expected: MPOL_AGAIN */
#define BROKEN   2                      /* MPOL_BAD */
#define REPLY    3                      /* MPOL_OK, and: */

#define HEAD     "HTTP/1.0 200 OK\r\n"
#define GRANTED  HEAD "Auth-Status: OK\r\n"


typedef struct {
    const char  *input;
    size_t       len;
    int          result;
    int          verdict;
    int          persistent;
    const char  *field;                 /* "n=value", or NULL */
    size_t       rest;                  /* octets behind the head */
} case_t;


#define IN(text)  text, sizeof(text) - 1


static const case_t  cases[] = {

    { IN(""), MORE, 0, 0, NULL, 0 },
    { IN("H"), MORE, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 200"), MORE, 0, 0, NULL, 0 },
    { IN(HEAD), MORE, 0, 0, NULL, 0 },
    { IN(GRANTED), MORE, 0, 0, NULL, 0 },
    { IN(GRANTED "\r"), MORE, 0, 0, NULL, 0 },

    /* what is no HTTP, as soon as that shows */
    { IN("\r"), BROKEN, 0, 0, NULL, 0 },
    { IN("\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("220 relay ESMTP\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("Auth-Status: OK\r\n\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/2"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.x 200\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 \r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 20\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 2000\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 20x OK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 099 OK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 600 OK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0  200 OK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0\t200 OK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 200\tOK\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 200 \0\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN("HTTP/1.0 200 \r \r\n"), BROKEN, 0, 0, NULL, 0 },

    /* right */
    { IN(GRANTED "\r\n"), REPLY, MPOL_OK, 0, "0=OK", 0 },
    { IN("HTTP/1.0 200\nAuth-Status: OK\n\n"), REPLY, MPOL_OK, 0, "0=OK", 0 },
    { IN("HTTP/1.1 204 No\r\nAUTH-STATUS:OK\r\n\r\n"), REPLY, MPOL_OK, 1,
      "0=OK", 0 },
    { IN("HTTP/1.0 299 \r\nauth-status:\t OK \t\r\n\r\n"), REPLY, MPOL_OK, 0,
      "0=OK", 0 },
    { IN(GRANTED "Auth-Server: 127.0.0.1\r\n\r\n"), REPLY, MPOL_OK, 0,
      "1=127.0.0.1", 0 },
    { IN(GRANTED "Auth-Port: 25\r\n\r\n"), REPLY, MPOL_OK, 0, "2=25", 0 },
    { IN(GRANTED "Auth-User: a@example.com\r\n\r\n"), REPLY, MPOL_OK, 0,
      "3=a@example.com", 0 },
    { IN(GRANTED "Auth-Pass: a  b\r\n\r\n"), REPLY, MPOL_OK, 0, "4=a  b", 0 },
    { IN(GRANTED "Auth-Wait: 3\r\n\r\n"), REPLY, MPOL_OK, 0, "5=3", 0 },
    { IN(GRANTED "Auth-Error-Code: 535\r\n\r\n"), REPLY, MPOL_OK, 0,
      "6=535", 0 },
    { IN(GRANTED "Auth-Error-SASL: e30=\r\n\r\n"), REPLY, MPOL_OK, 0,
      "7=e30=", 0 },
    { IN(GRANTED "X-Auth-Status: no\r\nAuth-StatusX: no\r\n"
         "a_b!#$%&'*+.^`|~0: \r\n\r\n"), REPLY, MPOL_OK, 0, "0=OK", 0 },

    /* not right */
    { IN(HEAD "\r\n"), REPLY, MPOL_BAD, 0, "0=", 0 },
    { IN(HEAD "Auth-Status:\r\n\r\n"), REPLY, MPOL_BAD, 0, "0=", 0 },
    { IN(HEAD "Auth-Status: \t \r\n\r\n"), REPLY, MPOL_BAD, 0, "0=", 0 },
    { IN(HEAD "Auth-Status: ok\r\n\r\n"), REPLY, MPOL_AUTH_HTTP_REFUSED, 0,
      "0=ok", 0 },
    { IN(HEAD "Auth-Status: OK.\r\n\r\n"), REPLY, MPOL_AUTH_HTTP_REFUSED, 0,
      "0=OK.", 0 },
    { IN(HEAD "Auth-Status: Invalid login\r\n\r\n"), REPLY,
      MPOL_AUTH_HTTP_REFUSED, 0, "0=Invalid login", 0 },
    { IN("HTTP/1.1 500 x\r\nAuth-Status: OK\r\n\r\n"), REPLY, MPOL_BAD, 0,
      NULL, 0 },
    { IN("HTTP/1.1 500 x\r\nAuth-Status: no\r\n\r\n"), REPLY, MPOL_BAD, 0,
      NULL, 0 },
    { IN("HTTP/1.1 302 x\r\nAuth-Status: OK\r\n\r\n"), REPLY, MPOL_BAD, 0,
      NULL, 0 },
    { IN("HTTP/1.1 100 x\r\n\r\n"), REPLY, MPOL_BAD, 0, NULL, 0 },
    { IN("HTTP/1.1 199 x\r\nContent-Length: 0\r\n\r\n"), REPLY, MPOL_BAD, 0,
      NULL, 0 },
    { IN("HTTP/1.1 403 x\r\nAuth-Status: OK\r\n\r\n"), REPLY, MPOL_BAD, 0,
      NULL, 0 },
    { IN("HTTP/1.1 403 x\r\nAuth-Status: no\r\n\r\n"), REPLY,
      MPOL_AUTH_HTTP_REFUSED, 0, NULL, 0 },
    { IN("HTTP/1.1 401 x\r\nAuth-Status: no\r\n\r\n"), REPLY,
      MPOL_AUTH_HTTP_REFUSED, 0, NULL, 0 },
    { IN("HTTP/1.1 403 x\r\n\r\n"), REPLY, MPOL_BAD, 0, NULL, 0 },

    /* twice */
    { IN(HEAD "Auth-Status: OK\r\nAuth-Status: no\r\n\r\n"), REPLY,
      MPOL_AUTH_HTTP_REFUSED, 0, "0=no", 0 },
    { IN(HEAD "Auth-Status: no\r\nAuth-Status: OK\r\n\r\n"), REPLY,
      MPOL_AUTH_HTTP_REFUSED, 0, "0=no", 0 },
    { IN(GRANTED "Auth-User: a\r\nAuth-User: b\r\nAuth-User:\r\n\r\n"), REPLY,
      MPOL_OK, 0, "3=b", 0 },

    /* fields that are none */
    { IN(GRANTED "Auth-Server\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED ":\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED ": a\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "Auth-Server : a\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED " Auth-Server: a\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A: b\r\n\tc\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A(: b\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A\x80: b\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A\0: b\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A: \0\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A: b\rc\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A: b\r\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "\r\r\n"), BROKEN, 0, 0, NULL, 0 },
    { IN(GRANTED "A: \x01\x7f\x80\xff\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },

    /* whether it can be used again */
    { IN(GRANTED "Connection: keep-alive\r\n\r\n"), REPLY, MPOL_OK, 0,
      NULL, 0 },
    { IN(GRANTED "Connection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
      REPLY, MPOL_OK, 1, NULL, 3 },
    { IN(GRANTED "Connection: a, Keep-Alive\r\nContent-Length: 0\r\n\r\n"),
      REPLY, MPOL_OK, 1, NULL, 0 },
    { IN(GRANTED "Connection: keep-alives\r\nContent-Length: 0\r\n\r\n"),
      REPLY, MPOL_OK, 0, NULL, 0 },
    { IN(GRANTED "Content-Length: 0\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n"),
      REPLY, MPOL_OK, 1, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n\r\n"),
      REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n"
         "Connection: close\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n"
         "Connection: keep-alive,close\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n"
         "Transfer-Encoding: chunked\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 1\r\n"
         "Content-Length: 2\r\n\r\n"), REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 1\r\n"
         "Content-Length: 1\r\n\r\nx"), REPLY, MPOL_OK, 1, NULL, 1 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: -1\r\n\r\n"),
      REPLY, MPOL_OK, 0, NULL, 0 },
    { IN("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n"
         "Content-Length: 18446744073709551616\r\n\r\n"), REPLY, MPOL_OK, 0,
      NULL, 0 },
    { IN("HTTP/1.1 204 No\r\nAuth-Status: OK\r\nContent-Length: 1\r\n\r\n"),
      REPLY, MPOL_OK, 0, NULL, 0 },

    /* a second one is not looked at */
    { IN(GRANTED "\r\n" HEAD "\0\r\n"), REPLY, MPOL_OK, 0, "0=OK",
      sizeof(HEAD "\0\r\n") - 1 }
};


typedef struct {
    const char  *value;
    const char  *code;                  /* NULL: it is none */
} code_t;


static const code_t  codes[] = {
    { "535", "535 5.7.8" },
    { "550", "550 5.7.0" },
    { "454", "454 4.7.0" },
    { "435", "435 4.7.0" },
    { "535 5.7.8", "535 5.7.8" },
    { "454 4.7.0", "454 4.7.0" },
    { "535 5.123.123", "535 5.123.123" },
    { "", NULL },
    { "5", NULL },
    { "53", NULL },
    { "235", NULL },
    { "235 2.7.0", NULL },
    { "334", NULL },
    { "635", NULL },
    { "565", NULL },
    { "53x", NULL },
    { "5350", NULL },
    { "535 ", NULL },
    { "535 5", NULL },
    { "535 5.", NULL },
    { "535 5.7", NULL },
    { "535 5.7.", NULL },
    { "535 5..8", NULL },
    { "535 5.7.8 ", NULL },
    { "535 5.7.8.9", NULL },
    { "535 5.7x8", NULL },
    { "535 4.7.8", NULL },
    { "454 5.7.0", NULL },
    { "535-5.7.8", NULL },
    { "535  5.7.8", NULL },
    { "535 5.1234.1", NULL },
    { "535 5.1.1234", NULL },
    { "535 5.1234.123", NULL },
    { "535 No", NULL }
};


/* the head grows to len octets, by step of them at a time behind cut */

static int
run(const case_t *c, size_t cut, size_t step, mpol_auth_http_t *st)
{
    int       rc;
    size_t    len;
    uint8_t  *copy;

    memset(st, 0, sizeof(mpol_auth_http_t));

    for (len = cut; /* void */; len += step) {

        if (len > c->len) {
            len = c->len;
        }

        copy = tap_exact(c->input, len);
        rc = mpol_auth_http_parse(st, copy, len);
        free(copy);

        if (rc != MPOL_AGAIN || len == c->len) {
            return rc;
        }
    }
}


static int
same(const case_t *c, int rc, const mpol_auth_http_t *st)
{
    mpol_str_t      value;
    const uint8_t  *input;

    input = (const uint8_t *) c->input;

    switch (c->result) {

    case MORE:
        return rc == MPOL_AGAIN;

    case BROKEN:
        return rc == MPOL_BAD;
    }

    if (rc != MPOL_OK
        || c->len - st->pos != c->rest
        || mpol_auth_http_verdict(st, input) != c->verdict
        || mpol_auth_http_persistent(st) != c->persistent)
    {
        return 0;
    }

    if (c->field == NULL) {
        return 1;
    }

    value = mpol_auth_http_field(st, input,
                           (mpol_auth_http_field_e) (c->field[0] - '0'));

    return value.len == strlen(c->field + 2)
           && memcmp(value.data, c->field + 2, value.len) == 0;
}


static void
test_case(const case_t *c)
{
    int               rc, pass;
    size_t            cut;
    mpol_auth_http_t  st;

    rc = run(c, c->len, 1, &st);

    if (!ok(same(c, rc, &st), "'%s'", c->input)) {
        printf("#   rc %d, status %u, pos %lu\n", rc, st.status,
               (unsigned long) st.pos);
    }

    for (cut = 0, pass = 1; cut < c->len && pass; cut++) {
        rc = run(c, cut, c->len, &st);
        pass = same(c, rc, &st);
    }

    ok(pass, "  split at %lu", (unsigned long) cut);

    rc = run(c, 0, 1, &st);
    ok(same(c, rc, &st), "  one at a time");
}


/* what lacks its end is never complete, and never wrong */

static void
test_truncated(const case_t *c)
{
    int               pass;
    size_t            len;
    uint8_t          *copy;
    mpol_auth_http_t  st;

    for (len = 0, pass = 1; len < c->len - c->rest && pass; len++) {
        copy = tap_exact(c->input, len);
        memset(&st, 0, sizeof(mpol_auth_http_t));
        pass = mpol_auth_http_parse(&st, copy, len) == MPOL_AGAIN;
        free(copy);
    }

    ok(pass, "'%s' truncated: at %lu", c->input, (unsigned long) len);
}


static void
test_code(const code_t *c)
{
    size_t      n;
    uint8_t     out[MPOL_AUTH_HTTP_CODE];
    mpol_str_t  value;

    value.len = strlen(c->value);
    value.data = tap_exact(c->value, value.len);

    n = mpol_auth_http_code(&value, out);

    free((void *) value.data);

    is_mem(out, n, c->code ? c->code : "", c->code ? strlen(c->code) : 0,
           "code '%s'", c->value);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(&cases[i]);

        if (cases[i].result == REPLY) {
            test_truncated(&cases[i]);
        }
    }

    for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        test_code(&codes[i]);
    }

    return done_testing();
}
