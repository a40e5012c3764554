
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_sasl.h"
#include "tap.h"


typedef struct {
    const char  *text;
    const char  *octets;                /* NULL: bad */
    size_t       len;
} base64_t;


#define GOOD(text, octets)  { text, octets, sizeof(octets) - 1 }
#define BAD(text)           { text, NULL, 0 }


static const base64_t  base64[] = {

    /* RFC 4648 section 10 */
    GOOD("", ""),
    GOOD("Zg==", "f"),
    GOOD("Zm8=", "fo"),
    GOOD("Zm9v", "foo"),
    GOOD("Zm9vYg==", "foob"),
    GOOD("Zm9vYmE=", "fooba"),
    GOOD("Zm9vYmFy", "foobar"),

    GOOD("AAAA", "\0\0\0"),
    GOOD("////", "\xff\xff\xff"),
    GOOD("+/+/", "\xfb\xff\xbf"),
    GOOD("AA==", "\0"),
    GOOD("/w==", "\xff"),
    GOOD("AGEAYg==", "\0a\0b"),

    BAD("="),
    BAD("Z"),
    BAD("Zg"),
    BAD("Zg="),
    BAD("Zm8"),
    BAD("===="),
    BAD("Z==="),
    BAD("=AAA"),
    BAD("A=AA"),
    BAD("Zg=A"),
    BAD("Zg==Zg=="),
    BAD("Zm8=Zm8="),
    BAD("Zm9v===="),
    BAD("Zm9vY==="),
    BAD("Zm9v\n"),
    BAD("Zm9 "),
    BAD(" Zm9"),
    BAD("Zm9v\r\n\r\n"),
    BAD("Zm-_"),
    BAD("Zm9v*AAA"),
    BAD("Zm9\x80"),
    BAD("Zm\xff="),

    /* bits left over: RFC 4648 section 3.5 */
    BAD("Zh=="),
    BAD("Zj=="),
    BAD("Zn=="),
    BAD("Zo=="),
    BAD("Zm9="),
    BAD("Zm+="),
    BAD("*")
};


typedef struct {
    const char  *msg;
    size_t       len;
    const char  *authzid;               /* NULL: bad */
    const char  *authcid;
    const char  *password;
} plain_t;


#define P(msg, authzid, authcid, password)                                   \
    { msg, sizeof(msg) - 1, authzid, authcid, password }
#define PBAD(msg)  P(msg, NULL, NULL, NULL)


static const plain_t  plains[] = {
    P("\0a\0b", "", "a", "b"),
    P("z\0a\0b", "z", "a", "b"),
    P("z@x\0user@example.com\0pass word ", "z@x", "user@example.com",
      "pass word "),
    P("\0\xc3\xa4\0\xe2\x82\xac", "", "\xc3\xa4", "\xe2\x82\xac"),
    P("\0a\0b\tc\r\n", "", "a", "b\tc\r\n"),
    P("\0a b\0c", "", "a b", "c"),

    PBAD(""),
    PBAD("\0"),
    PBAD("\0\0"),
    PBAD("\0\0b"),
    PBAD("\0a"),
    PBAD("\0a\0"),
    PBAD("z\0\0b"),
    PBAD("z\0a\0"),
    PBAD("a"),
    PBAD("a\0b"),
    PBAD("\0a\0b\0"),
    PBAD("\0a\0b\0c"),
    PBAD("\0a\0\0b"),
    PBAD("z\0a\0b\0c"),
    PBAD("\0a\r\nb\0c"),
    PBAD("z\n\0a\0c"),
    PBAD("\0 a\0c"),
    PBAD("\0a \0c"),
    PBAD(" \0a\0c"),
    PBAD("\0a\x7f\0c"),
    PBAD("\0\xff\0c"),
    PBAD("\0a\0\xff"),
    PBAD("\0a\0\xc3"),
    PBAD("\xc3\0a\0c")
};


typedef struct {
    const char  *msg;
    const char  *login;                 /* NULL: bad */
} cram_t;


#define DIGEST  "b913a602c7eda7a495b4e6e7334d3890"


static const cram_t  crams[] = {

    /* RFC 2195, section 2 */
    { "tim " DIGEST, "tim" },

    { "a " DIGEST, "a" },
    { "alice@example.com " DIGEST, "alice@example.com" },
    { "a b c " DIGEST, "a b c" },
    { "a  b " DIGEST, "a  b" },
    { DIGEST " " DIGEST, DIGEST },
    { "\xc3\xa4 " DIGEST, "\xc3\xa4" },
    { "tim 00000000000000000000000000000000", "tim" },

    { "", NULL },
    { " ", NULL },
    { DIGEST, NULL },
    { " " DIGEST, NULL },
    { "  " DIGEST, NULL },
    { " tim " DIGEST, NULL },
    { "tim  " DIGEST, NULL },
    { "tim" DIGEST, NULL },
    { "tim\t" DIGEST, NULL },
    { "tim\r " DIGEST, NULL },
    { "tim\x7f " DIGEST, NULL },
    { "\xff " DIGEST, NULL },
    { "tim " DIGEST "0", NULL },
    { "tim " DIGEST " ", NULL },
    { "tim " DIGEST "\n", NULL },
    { "tim B913A602C7EDA7A495B4E6E7334D3890", NULL },
    { "tim b913a602c7eda7a495b4e6e7334d389", NULL },
    { "tim b913a602c7eda7a495b4e6e7334d389g", NULL },
    { "tim b913a602c7eda7a495b4e6e7334d389:", NULL },
    { "tim b913a602c7eda7a495b4e6e7334d389/", NULL },
    { "tim `913a602c7eda7a495b4e6e7334d3890", NULL },
    { "tim b913a602 7eda7a495b4e6e7334d3890", NULL }
};


static void
test_base64(const base64_t *b)
{
    int       rc;
    size_t    len, n;
    uint8_t  *in, *out;

    len = strlen(b->text);
    in = tap_exact(b->text, len);
    out = tap_exact(b->text, len / 4 * 3);

    rc = mpol_base64_decode(in, len, out, &n);

    if (b->octets == NULL) {
        is_u64((uint64_t) rc, (uint64_t) MPOL_BAD, "'%s' is refused",
               b->text);

    } else {
        is_u64((uint64_t) rc, MPOL_OK, "'%s'", b->text);
        is_mem(out, n, b->octets, b->len, "  octets");

        rc = mpol_base64_decode(in, len, in, &n);

        is_u64((uint64_t) rc, MPOL_OK, "  in place");
        is_mem(in, n, b->octets, b->len, "  octets");

        free(in);
        free(out);

        in = tap_exact(b->octets, b->len);
        out = tap_exact(b->text, len);
        memset(out, 0, len);

        n = mpol_base64_encode(in, b->len, out);
        is_mem(out, n, b->text, len, "  and back");
    }

    free(in);
    free(out);
}


static size_t
encode(const uint8_t *p, size_t len, uint8_t *out)
{
    size_t    i, n;
    uint32_t  v;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789+/";

    for (i = 0, n = 0; i < len; i += 3) {
        v = (uint32_t) p[i] << 16;
        v |= (i + 1 < len) ? (uint32_t) p[i + 1] << 8 : 0;
        v |= (i + 2 < len) ? p[i + 2] : 0;

        out[n++] = (uint8_t) digits[v >> 18];
        out[n++] = (uint8_t) digits[v >> 12 & 63];
        out[n++] = (uint8_t) (i + 1 < len ? digits[v >> 6 & 63] : '=');
        out[n++] = (uint8_t) (i + 2 < len ? digits[v & 63] : '=');
    }

    return n;
}


/* strict means: whatever is decoded is the encoding of the result */

static void
test_base64_random(void)
{
    size_t    i, len, n;
    uint8_t   text[16], octets[12], again[16];
    unsigned  k, good;

    static const char  digits[] = "AQgwZz09+/=B";

    for (k = 0, good = 0; k < 100000; k++) {
        len = 4 * ((size_t) rand() % 3 + 1);

        for (i = 0; i < len; i++) {
            text[i] = (uint8_t) digits[(size_t) rand()
                                       % (sizeof(digits) - 1)];
        }

        if (mpol_base64_decode(text, len, octets, &n) != MPOL_OK) {
            continue;
        }

        good++;

        if (encode(octets, n, again) != len || memcmp(text, again, len) != 0) {
            break;
        }
    }

    ok(k == 100000 && good > 1000, "%u random texts: one encoding only",
       good);

    for (k = 0; k < 256 * 3; k++) {
        memset(octets, 0, 3);
        octets[k % 3] = (uint8_t) (k / 3);

        len = encode(octets, k % 3 + 1, text);

        if (mpol_base64_decode(text, len, again, &n) != MPOL_OK
            || n != k % 3 + 1 || memcmp(again, octets, n) != 0)
        {
            break;
        }
    }

    is_u64(k, 256 * 3, "each octet at each place");

    for (k = 0; k < 100000; k++) {
        len = (size_t) rand() % sizeof(octets);

        for (i = 0; i < len; i++) {
            octets[i] = (uint8_t) (rand() >> 8);
        }

        n = encode(octets, len, text);

        if (mpol_base64_encode(octets, len, again) != n
            || memcmp(text, again, n) != 0)
        {
            break;
        }
    }

    is_u64(k, 100000, "random octets, encoded");
}


static void
test_cram(const cram_t *c)
{
    int           rc;
    size_t        i, len, taken;
    uint8_t      *msg;
    mpol_cram_t   cram, before;

    len = strlen(c->msg);
    msg = tap_exact(c->msg, len);
    memset(&cram, 0x55, sizeof(cram));
    before = cram;

    rc = mpol_cram_parse(msg, len, &cram);

    if (c->login == NULL) {
        ok(rc == MPOL_BAD && memcmp(&cram, &before, sizeof(cram)) == 0,
           "CRAM-MD5 \"%s\" is refused, nothing set", c->msg);

    } else if (ok(rc == MPOL_OK, "CRAM-MD5 \"%s\"", c->msg)) {
        is_mem(cram.login.data, cram.login.len, c->login, strlen(c->login),
               "  login");
        ok(cram.digest.data == msg + len - 32 && cram.digest.len == 32,
           "  digest");
    }

    free(msg);

    for (i = 0, taken = 0; i < len; i++) {
        msg = tap_exact(c->msg, i);
        taken += mpol_cram_parse(msg, i, &cram) == MPOL_OK;
        free(msg);
    }

    /* of "tim DIGEST0" its first 36 octets are one */

    ok(taken == (c->login == NULL && len == 37
                 && memcmp(c->msg, "tim " DIGEST, 36) == 0),
       "  cut off");
}


static void
test_cram_broken(void)
{
    int           c;
    size_t        i, taken, bad;
    uint8_t      *msg;
    mpol_cram_t   cram;

    for (i = 0, taken = 0, bad = 0; i < 36; i++) {
        msg = tap_exact(crams[0].msg, 36);

        for (c = 0; c < 256; c++) {
            msg[i] = (uint8_t) c;

            if (mpol_cram_parse(msg, 36, &cram) == MPOL_OK) {
                taken++;
                bad += cram.login.data != msg || cram.login.len != 3
                       || cram.digest.data != msg + 4;
            }
        }

        free(msg);
    }

    /* no space at either end of a login */
    is_u64(taken, 94 + 95 + 94 + 1 + 32 * 16,
           "CRAM-MD5: each octet as any other");
    is_u64(bad, 0, "  and all of it in place");

    msg = malloc(256 + 33);
    if (msg == NULL) {
        abort();
    }

    memset(msg, 'a', 256 + 33);
    msg[255] = ' ';
    ok(mpol_cram_parse(msg, 255 + 33, &cram) == MPOL_OK,
       "CRAM-MD5: a login of 255");
    msg[255] = 'a';
    msg[256] = ' ';
    ok(mpol_cram_parse(msg, 256 + 33, &cram) == MPOL_BAD,
       "CRAM-MD5: a login of 256");

    free(msg);
}


static void
test_plain(const plain_t *p)
{
    int            rc;
    uint8_t       *msg;
    mpol_plain_t   plain, before;

    msg = tap_exact(p->msg, p->len);
    memset(&plain, 0x55, sizeof(plain));
    before = plain;

    rc = mpol_plain_parse(msg, p->len, &plain);

    if (p->authzid == NULL) {
        ok(rc == MPOL_BAD && memcmp(&plain, &before, sizeof(plain)) == 0,
           "bad PLAIN %u: refused, nothing set", (unsigned) (p - plains));

    } else if (ok(rc == MPOL_OK, "PLAIN %u", (unsigned) (p - plains))) {
        is_mem(plain.authzid.data, plain.authzid.len, p->authzid,
               strlen(p->authzid), "  authzid");
        is_mem(plain.authcid.data, plain.authcid.len, p->authcid,
               strlen(p->authcid), "  authcid");
        is_mem(plain.password.data, plain.password.len, p->password,
               strlen(p->password), "  password");
    }

    free(msg);
}


static void
test_limits(void)
{
    uint8_t       msg[2048];
    mpol_plain_t  plain;

    memset(msg, 'a', sizeof(msg));

    is_u64((uint64_t) mpol_identity_valid(msg, 255), 1, "identity of 255");
    is_u64((uint64_t) mpol_identity_valid(msg, 256), 0, "identity of 256");
    is_u64((uint64_t) mpol_identity_valid(msg, 1), 1, "identity of 1");
    is_u64((uint64_t) mpol_identity_valid(msg, 0), 0, "empty identity");

    msg[0] = '\0';
    msg[2] = '\0';

    is_u64((uint64_t) mpol_plain_parse(msg, 3 + 1024, &plain), MPOL_OK,
           "password of 1024");
    is_u64((uint64_t) mpol_plain_parse(msg, 3 + 1025, &plain),
           (uint64_t) MPOL_BAD, "password of 1025");
}


/* an encoder that knows nothing of the table in RFC 3629 */

static size_t
utf8(uint32_t c, uint8_t *out)
{
    if (c < 0x80) {
        out[0] = (uint8_t) c;
        return 1;
    }

    if (c < 0x800) {
        out[0] = (uint8_t) (0xc0 | c >> 6);
        out[1] = (uint8_t) (0x80 | (c & 0x3f));
        return 2;
    }

    if (c < 0x10000) {
        out[0] = (uint8_t) (0xe0 | c >> 12);
        out[1] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t) (0x80 | (c & 0x3f));
        return 3;
    }

    out[0] = (uint8_t) (0xf0 | c >> 18);
    out[1] = (uint8_t) (0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t) (0x80 | (c & 0x3f));

    return 4;
}


static void
test_utf8(void)
{
    int       valid;
    size_t    i, n;
    uint8_t   p[4], *cut;
    uint32_t  c, good;

    static const struct {
        const char  *p;
        int          valid;
    } cases[] = {
        { "", 1 }, { "a", 1 }, { "a\xc3\xa4z", 1 }, { "\xed\x9f\xbf", 1 },
        { "\x80", 0 }, { "a\xbf", 0 }, { "\xc0\x80", 0 }, { "\xc1\xbf", 0 },
        { "\xe0\x80\xaf", 0 }, { "\xe0\x9f\xbf", 0 }, { "\xed\xa0\x80", 0 },
        { "\xf0\x8f\xbf\xbf", 0 }, { "\xf4\x90\x80\x80", 0 },
        { "\xf5\x80\x80\x80", 0 }, { "\xfe", 0 }, { "\xff", 0 },
        { "\xc3", 0 }, { "\xc3\xc3", 0 }, { "\xc3""a", 0 },
        { "\xe2\x82", 0 }, { "\xe2\x82\xc0", 0 }, { "\xf0\x9f\x98", 0 },
        { "\xf0\x9f\x98\x7f", 0 }, { "a\xc3\xa4\xa4", 0 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        n = strlen(cases[i].p);
        cut = tap_exact(cases[i].p, n);

        is_u64((uint64_t) mpol_utf8_valid(cut, n),
               (uint64_t) cases[i].valid, "UTF-8 %u", (unsigned) i);
        free(cut);
    }

    for (c = 0; c < 0x140000; c++) {
        n = utf8(c, p);
        valid = (c < 0xd800 || c > 0xdfff) && c < 0x110000;

        if (mpol_utf8_valid(p, n) != valid
            || (n > 1 && mpol_utf8_valid(p, n - 1)))
        {
            break;
        }
    }

    is_u64(c, 0x140000, "each character, and no other");

    /* 128 + 1920 characters of one and two octets, in 65536 pairs */

    for (c = 0, good = 0; c < 65536; c++) {
        p[0] = (uint8_t) (c >> 8);
        p[1] = (uint8_t) c;
        good += mpol_utf8_valid(p, 2) ? 1 : 0;
    }

    is_u64(good, 128 * 128 + 1920, "pairs of octets");

    for (c = 0, good = 0; c < 0x1000000; c++) {
        p[0] = (uint8_t) (c >> 16);
        p[1] = (uint8_t) (c >> 8);
        p[2] = (uint8_t) c;
        good += mpol_utf8_valid(p, 3) ? 1 : 0;
    }

    is_u64(good, 128 * 128 * 128 + 2 * 128 * 1920 + (0x10000 - 0x800 - 0x800),
           "triples of octets");
}


int
main(void)
{
    size_t  i;

    srand(1);

    for (i = 0; i < sizeof(base64) / sizeof(base64[0]); i++) {
        test_base64(&base64[i]);
    }

    test_base64_random();

    for (i = 0; i < sizeof(plains) / sizeof(plains[0]); i++) {
        test_plain(&plains[i]);
    }

    for (i = 0; i < sizeof(crams) / sizeof(crams[0]); i++) {
        test_cram(&crams[i]);
    }

    test_cram_broken();
    test_limits();
    test_utf8();

    return done_testing();
}
