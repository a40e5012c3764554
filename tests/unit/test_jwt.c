
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_jwt.h"
#include "tap.h"


typedef struct {
    const char  *text;
    const char  *octets;                /* NULL: bad */
    size_t       len;
} base64url_t;


#define GOOD(text, octets)  { text, octets, sizeof(octets) - 1 }
#define BAD(text)           { text, NULL, 0 }


static const base64url_t  base64url[] = {

    /* RFC 4648 section 10, without padding */
    GOOD("", ""),
    GOOD("Zg", "f"),
    GOOD("Zm8", "fo"),
    GOOD("Zm9v", "foo"),
    GOOD("Zm9vYg", "foob"),
    GOOD("Zm9vYmE", "fooba"),
    GOOD("Zm9vYmFy", "foobar"),

    /* RFC 7515 appendix C */
    GOOD("A-z_4ME", "\x03\xec\xff\xe0\xc1"),

    GOOD("____", "\xff\xff\xff"),
    GOOD("-_-_", "\xfb\xff\xbf"),
    GOOD("AA", "\0"),
    GOOD("_w", "\xff"),

    BAD("Z"),
    BAD("Zm9vY"),
    BAD("Zg=="),
    BAD("Zm8="),
    BAD("="),
    BAD("Z="),
    BAD("+/+/"),
    BAD("Zm9v\n"),
    BAD("Zm9v.Zg"),
    BAD(" Zg"),
    BAD("Z\x80"),
    BAD("\xff\xff"),

    /* bits left over: RFC 4648 section 3.5 */
    BAD("Zh"),
    BAD("Zo"),
    BAD("Zm9"),
    BAD("Zm-"),
    BAD("Zm9vZv")
};


/* RFC 7515 appendix A.1 */

#define HEADER_A1   "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
#define PAYLOAD_A1  "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0d"  \
                    "HA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define SIGN_A1     "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

#define JSON_A1     "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n "         \
                    "\"http://example.com/is_root\":true}"


static const char *const  bad_tokens[] = {
    "",
    ".",
    "..",
    "...",
    "YQ",
    "YQ.YQ",
    "YQ.YQ.",                           /* "alg": "none" looks like this */
    "YQ..YQ",
    ".YQ.YQ",
    "YQ.YQ.YQ.",
    ".YQ.YQ.YQ",
    "YQ.YQ.YQ.YQ",
    "YQ.YQ.YQ.YQ.YQ",                   /* RFC 7516: encrypted */
    "YQ==.YQ.YQ",
    "YQ.YQ==.YQ",
    "YQ.YQ.YQ==",
    "YR.YQ.YQ",
    "YQ.YR.YQ",
    "YQ.YQ.YR",
    "Y.YQ.YQ",
    "YQ.Y.YQ",
    "YQ.YQ.Y",
    "YQ.YQ.YQ\n",
    " YQ.YQ.YQ",
    "YQ.YQ .YQ",
    "YQ.YQ.+/+/",
    "YQ.YQ.Y\xc3"
};


static void
test_base64url(const base64url_t *b)
{
    int       rc;
    size_t    len, n;
    uint8_t  *in, *out;

    len = strlen(b->text);
    in = tap_exact(b->text, len);
    out = tap_exact(b->text, MPOL_BASE64URL_SIZE(len));

    rc = mpol_base64url_decode(in, len, out, &n);

    is_u64((uint64_t) mpol_base64url_decode(in, len, NULL, &n),
           (uint64_t) rc, "'%s', the verdict alone", b->text);

    if (b->octets == NULL) {
        is_u64((uint64_t) rc, (uint64_t) MPOL_BAD, "  is refused");

    } else {
        is_u64((uint64_t) rc, MPOL_OK, "  is decoded");
        is_u64(n, MPOL_BASE64URL_SIZE(len), "  to its size");
        is_mem(out, n, b->octets, b->len, "  octets");

        rc = mpol_base64url_decode(in, len, in, &n);

        is_u64((uint64_t) rc, MPOL_OK, "  in place");
        is_mem(in, n, b->octets, b->len, "  octets");
    }

    free(in);
    free(out);
}


/* an encoder of its own: one octet sequence has one encoding */

static size_t
encode(const uint8_t *p, size_t len, char *out)
{
    size_t    i, n;
    uint32_t  bits, left;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789-_";

    for (i = 0, n = 0, bits = 0, left = 0; i < len; i++) {
        bits = bits << 8 | p[i];
        left += 8;

        while (left >= 6) {
            left -= 6;
            out[n++] = digits[bits >> left & 63];
        }
    }

    if (left) {
        out[n++] = digits[bits << (6 - left) & 63];
    }

    return n;
}


static void
test_base64url_random(void)
{
    char      text[9], again[16];
    size_t    i, len, n;
    uint8_t   octets[9];
    unsigned  k, good;

    static const char  digits[] = "AQgwZz09-_B=";

    for (k = 0, good = 0; k < 100000; k++) {
        len = (size_t) rand() % 8 + 1;

        for (i = 0; i < len; i++) {
            text[i] = digits[(size_t) rand() % (sizeof(digits) - 1)];
        }

        if (mpol_base64url_decode((uint8_t *) text, len, octets, &n)
            != MPOL_OK)
        {
            continue;
        }

        good++;

        if (encode(octets, n, again) != len
            || memcmp(text, again, len) != 0)
        {
            break;
        }
    }

    ok(k == 100000 && good > 1000, "%u random texts: one encoding only",
       good);

    for (k = 0; k < 256 * 3; k++) {
        memset(octets, 0, 3);
        octets[k % 3] = (uint8_t) (k / 3);
        len = encode(octets, k % 3 + 1, text);

        if (mpol_base64url_decode((uint8_t *) text, len, (uint8_t *) again,
                                  &n)
            != MPOL_OK
            || n != k % 3 + 1 || memcmp(again, octets, n) != 0)
        {
            break;
        }
    }

    is_u64(k, 256 * 3, "each octet at each place");
}


static void
is_slice(mpol_str_t s, const char *want, const char *what)
{
    is_mem(s.data, s.len, want, strlen(want), "%s", what);
}


static void
test_token(void)
{
    size_t       i, n, len;
    uint8_t     *p, octets[256];
    mpol_jwt_t   jwt, before;

    static const char  token[] = HEADER_A1 "." PAYLOAD_A1 "." SIGN_A1;

    len = sizeof(token) - 1;
    p = tap_exact(token, len);

    is_u64((uint64_t) mpol_jwt_split(p, len, &jwt), MPOL_OK,
           "RFC 7515 appendix A.1");
    is_slice(jwt.header, HEADER_A1, "  header");
    is_slice(jwt.payload, PAYLOAD_A1, "  payload");
    is_slice(jwt.signature, SIGN_A1, "  signature");
    is_slice(jwt.message, HEADER_A1 "." PAYLOAD_A1, "  what is signed");

    mpol_base64url_decode(jwt.header.data, jwt.header.len, octets, &n);
    is_mem(octets, n, "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}", 30,
           "  header, decoded");

    mpol_base64url_decode(jwt.payload.data, jwt.payload.len, octets, &n);
    is_mem(octets, n, JSON_A1, sizeof(JSON_A1) - 1, "  payload, decoded");

    mpol_base64url_decode(jwt.signature.data, jwt.signature.len, octets, &n);
    is_u64(n, 32, "  octets of the signature");

    free(p);

    /* each beginning is refused or has all the dots */

    memset(&before, 0x55, sizeof(before));

    for (i = 0; i < len; i++) {
        p = tap_exact(token, i);
        jwt = before;

        if (mpol_jwt_split(p, i, &jwt) == MPOL_OK) {
            if (i < sizeof(HEADER_A1 "." PAYLOAD_A1 ".")) {
                break;
            }

        } else if (memcmp(&jwt, &before, sizeof(jwt)) != 0) {
            break;
        }

        free(p);
    }

    is_u64(i, len, "  each of its beginnings");
}


static void
test_bad_token(const char *token)
{
    size_t       len;
    uint8_t     *p;
    mpol_jwt_t   jwt, before;

    len = strlen(token);
    p = tap_exact(token, len);
    memset(&jwt, 0x55, sizeof(jwt));
    before = jwt;

    is_u64((uint64_t) mpol_jwt_split(p, len, &jwt), (uint64_t) MPOL_BAD,
           "'%s' is no token", token);
    ok(memcmp(&jwt, &before, sizeof(jwt)) == 0, "  nothing is set");

    free(p);
}


static void
test_long_token(void)
{
    uint8_t      token[MPOL_JWT_MAX + 4];
    mpol_jwt_t   jwt;

    memset(token, 'A', sizeof(token));
    token[4] = '.';
    token[9] = '.';

    /* 8182 digits behind the second dot, of which 8182 % 4 == 2 */

    is_u64((uint64_t) mpol_jwt_split(token, MPOL_JWT_MAX, &jwt), MPOL_OK,
           "the longest token");
    is_u64((uint64_t) mpol_jwt_split(token, MPOL_JWT_MAX + 1, &jwt),
           (uint64_t) MPOL_BAD, "one octet more");
    is_u64((uint64_t) mpol_jwt_split(token, MPOL_JWT_MAX + 4, &jwt),
           (uint64_t) MPOL_BAD, "four octets more");
}


static void
test_kid(void)
{
    unsigned  c;
    uint8_t   p[65], good;

    static const struct {
        const char  *kid;
        int          valid;
    } cases[] = {
        { "a", 1 }, { "2011-04-29", 1 }, { "A.b_c-9", 1 }, { "..", 1 },
        { "", 0 }, { "a b", 0 }, { "../../etc/passwd", 0 }, { "a/b", 0 },
        { "a'--", 0 }, { "http://x", 0 }, { "a%00", 0 }, { "a\n", 0 },
        { "bilbo.baggins@hobbiton.example", 0 }, { "\xc3\xa4", 0 }
    };

    for (c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        is_u64((uint64_t) mpol_jwt_kid_valid((const uint8_t *) cases[c].kid,
                                             strlen(cases[c].kid)),
               (uint64_t) cases[c].valid, "AUTH-17 kid '%s'", cases[c].kid);
    }

    memset(p, 'k', sizeof(p));
    is_u64((uint64_t) mpol_jwt_kid_valid(p, 64), 1, "kid of 64 octets");
    is_u64((uint64_t) mpol_jwt_kid_valid(p, 65), 0, "kid of 65 octets");

    for (c = 0, good = 0; c < 256; c++) {
        p[1] = (uint8_t) c;
        good = (uint8_t) (good + mpol_jwt_kid_valid(p, 3));
    }

    is_u64(good, 26 + 26 + 10 + 3, "octets of a kid");
}


static void
test_time(void)
{
    size_t  i;

    static const struct {
        mpol_jwt_time_t  t;
        int64_t          leeway;
        int              rc;
        const char      *what;
    } cases[] = {
        { { 1001, -1, -1 }, 0, MPOL_OK, "the last second" },
        { { 1000, -1, -1 }, 0, MPOL_JWT_EXPIRED, "expired this second" },
        { { 999, -1, -1 }, 0, MPOL_JWT_EXPIRED, "expired" },
        { { 0, -1, -1 }, 60, MPOL_JWT_EXPIRED, "expired in 1970" },
        { { 941, -1, -1 }, 60, MPOL_OK, "expired, within leeway" },
        { { 940, -1, -1 }, 60, MPOL_JWT_EXPIRED, "expired, and leeway" },
        { { -1, -1, -1 }, 60, MPOL_JWT_ENDLESS, "no exp" },
        { { -1, 900, 900 }, 60, MPOL_JWT_ENDLESS, "no exp, but others" },
        { { MPOL_JWT_TIME_MAX, 0, 0 }, 60, MPOL_OK, "the latest exp" },
        { { MPOL_JWT_TIME_MAX + 1, 0, 0 }, 60, MPOL_BAD, "exp too late" },
        { { INT64_MAX, 0, 0 }, 60, MPOL_BAD, "exp of INT64_MAX" },
        { { INT64_MIN, 0, 0 }, 60, MPOL_BAD, "exp of INT64_MIN" },
        { { -2, -1, -1 }, 60, MPOL_BAD, "exp negative" },

        { { 2000, 1000, -1 }, 0, MPOL_OK, "nbf now" },
        { { 2000, 1001, -1 }, 0, MPOL_JWT_EARLY, "nbf in a second" },
        { { 2000, 1060, -1 }, 60, MPOL_OK, "nbf within leeway" },
        { { 2000, 1061, -1 }, 60, MPOL_JWT_EARLY, "nbf past leeway" },
        { { 2000, -2, -1 }, 60, MPOL_BAD, "nbf negative" },
        { { 2000, INT64_MAX, -1 }, 60, MPOL_BAD, "nbf of INT64_MAX" },

        { { 2000, -1, 1000 }, 0, MPOL_OK, "iat now" },
        { { 2000, -1, 1001 }, 0, MPOL_JWT_FUTURE, "iat in a second" },
        { { 2000, -1, 1060 }, 60, MPOL_OK, "iat within leeway" },
        { { 2000, -1, 1061 }, 60, MPOL_JWT_FUTURE, "iat past leeway" },
        { { 2000, -1, INT64_MIN }, 60, MPOL_BAD, "iat of INT64_MIN" },
        { { 2000, -1, MPOL_JWT_TIME_MAX + 1 }, 60, MPOL_BAD, "iat too late" }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        is_u64((uint64_t) mpol_jwt_time(&cases[i].t, 1000, cases[i].leeway),
               (uint64_t) cases[i].rc, "AUTH-18 %s", cases[i].what);
    }
}


static void
test_depth(void)
{
    size_t    i, len;
    uint8_t  *p;

    static const struct {
        const char  *json;
        size_t       depth;
    } cases[] = {
        { "", 0 }, { "1", 0 }, { "\"[{\"", 0 }, { "{}", 1 }, { "[]", 1 },
        { "{\"a\":[1,{\"b\":[]}]}", 4 }, { "[][][]", 1 }, { "[[],[[]]]", 3 },
        { "{\"[\\\"[\":\"]]\"}", 1 }, { "[\"\\\\\",[]]", 2 },
        { "]]]][[", 2 }, { "[[[[[[", 6 }, { "[\"[[[[", 1 }, { "\"\\", 0 },
        { "\\", 0 }, { "\\[[", 2 }, { "\"\\\"[", 0 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        len = strlen(cases[i].json);
        p = tap_exact(cases[i].json, len);

        is_u64(mpol_json_depth(p, len), cases[i].depth, "depth of '%s'",
               cases[i].json);
        free(p);
    }
}


int
main(void)
{
    size_t  i;

    srand(1);

    for (i = 0; i < sizeof(base64url) / sizeof(base64url[0]); i++) {
        test_base64url(&base64url[i]);
    }

    test_base64url_random();
    test_token();

    for (i = 0; i < sizeof(bad_tokens) / sizeof(bad_tokens[0]); i++) {
        test_bad_token(bad_tokens[i]);
    }

    test_long_token();
    test_kid();
    test_time();
    test_depth();

    return done_testing();
}
