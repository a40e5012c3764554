
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Key sets, signatures and claims.  With JWT_BENCH set: how long a signature
 * takes.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <time.h>

#include "ngx_mail_policy_jwt.h"
#include "mpol_jwt.h"

#include "JwtVectors.h"
#include "tap.h"


#define NOW     1000000
#define SECRET  "0123456789abcdef0123456789abcdef"
#define K32     "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
#define K64     "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5"   \
                "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg"

#define A3_X    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define A3_Y    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define ED_X    "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"

#define KEY(rest)   "{\"keys\":[{" rest "}]}"
#define OCT(rest)   KEY("\"kty\":\"oct\",\"k\":\"" K32 "\"" rest)
#define HS          "{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"" K32 "\"}"
#define EC(crv, x, y, alg)                                                   \
    KEY("\"kty\":\"EC\",\"crv\":\"" crv "\",\"x\":\"" x "\",\"y\":\"" y      \
        "\",\"alg\":\"" alg "\"")


static ngx_log_t                      log;
static ngx_mail_policy_watch_error_t  error;


/* instead of that in the watched file, of which nothing else is needed */

void *
ngx_mail_policy_watch_fail(ngx_mail_policy_watch_error_t *e, ngx_uint_t line,
    const char *fmt, ...)
{
    va_list  args;

    e->line = line;

    va_start(args, fmt);
    e->len = ngx_vslprintf(e->text, e->text + sizeof(e->text) - 1, fmt, args)
             - e->text;
    va_end(args);

    e->text[e->len] = '\0';

    return NULL;
}


static ngx_str_t
str(const char *text)
{
    ngx_str_t  s;

    s.data = (u_char *) text;
    s.len = strlen(text);

    return s;
}


/* the text of a file may be written to */

static ngx_mail_policy_jwt_keys_t *
keys_of(ngx_pool_t *pool, const char *json)
{
    ngx_str_t  text;

    ngx_memzero(&error, sizeof(error));

    text.len = strlen(json);
    text.data = ngx_pnalloc(pool, text.len + 1);
    ngx_memcpy(text.data, json, text.len + 1);

    return ngx_mail_policy_jwt_keys(pool, &text, NULL, &error);
}


static ngx_str_t
decoded(ngx_pool_t *pool, mpol_str_t *part)
{
    ngx_str_t  s;

    s.data = ngx_pnalloc(pool, MPOL_BASE64URL_SIZE(part->len));
    (void) mpol_base64url_decode(part->data, part->len, s.data, &s.len);

    return s;
}


static void
test_vector(const vector_t *v)
{
    size_t                       i, len;
    mpol_jwt_t                   jwt;
    ngx_str_t                    message, signature;
    ngx_pool_t                  *pool;
    ngx_mail_policy_jwt_key_t   *key;
    ngx_mail_policy_jwt_keys_t  *keys;

    pool = ngx_create_pool(4096, &log);
    keys = keys_of(pool, v->keys);

    if (!ok(keys != NULL, "%s: its key", v->name)) {
        printf("# %s\n", error.text);
        ngx_destroy_pool(pool);
        return;
    }

    key = keys->keys.elts;

    (void) mpol_jwt_split((const uint8_t *) v->token, strlen(v->token), &jwt);

    message.data = (u_char *) jwt.message.data;
    message.len = jwt.message.len;
    signature = decoded(pool, &jwt.signature);

    ok(ngx_mail_policy_jwt_signed(key, &message, &signature) == NGX_OK,
       "%s: signature", v->name);

    /* cut off, with an octet more, with another octet, for another text */

    len = signature.len;

    for (i = 0; i < len; i++) {
        signature.len = i;

        if (ngx_mail_policy_jwt_signed(key, &message, &signature)
            != NGX_DECLINED)
        {
            break;
        }
    }

    is_u64(i, len, "AUTH-18 %s: each of its beginnings", v->name);

    for (i = 0; i < len; i++) {
        signature.data[i] ^= 0x40;
        signature.len = len;

        if (ngx_mail_policy_jwt_signed(key, &message, &signature)
            != NGX_DECLINED)
        {
            break;
        }

        signature.data[i] ^= 0x40;
    }

    is_u64(i, len, "  each octet changed");

    message.len--;
    ok(ngx_mail_policy_jwt_signed(key, &message, &signature) == NGX_DECLINED,
       "  another text");
    message.len++;

    /* CVE-2022-21449 */

    ngx_memzero(signature.data, len);
    ok(ngx_mail_policy_jwt_signed(key, &message, &signature) == NGX_DECLINED,
       "AUTH-18 %s: a signature of zeros", v->name);

    is_u64(ERR_peek_error(), 0, "  no errors are left to others");

    ngx_destroy_pool(pool);
}


static void
test_good_keys(void)
{
    size_t                       i;
    ngx_pool_t                  *pool;
    ngx_mail_policy_jwt_keys_t  *keys;

    static const struct {
        const char  *json;
        ngx_uint_t   n;
        const char  *what;
    } cases[] = {
        { OCT(",\"alg\":\"HS256\""), 1, "a secret of 32 octets" },
        { KEY("\"kty\":\"oct\",\"alg\":\"HS512\",\"k\":\"" K64 "\""), 1,
          "a secret of 64 octets" },
        { EC("P-256", A3_X, A3_Y, "ES256"), 1, "P-256" },
        { KEY("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"Ed25519\","
              "\"x\":\"" ED_X "\""), 1, "Ed25519, by RFC 9864" },
        { OCT(",\"alg\":\"HS256\",\"use\":\"sig\",\"kid\":\"a.B_c-1\","
              "\"key_ops\":[\"sign\",\"verify\"],\"x5c\":[],\"z\":{}"), 1,
          "members of all kinds" },
        { "{\"keys\":[" HS ",{\"use\":\"enc\",\"kty\":\"EC\"},"
          "{\"key_ops\":[\"encrypt\"]},{\"key_ops\":\"verify\"},"
          "{\"use\":1}]}", 1, "those for something else are left out" },
        { "{\"keys\":[" HS "," HS "],\"more\":1}", 2, "two without a name" }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pool = ngx_create_pool(4096, &log);
        keys = keys_of(pool, cases[i].json);

        if (ok(keys != NULL, "keys: %s", cases[i].what)) {
            is_u64(keys->keys.nelts, cases[i].n, "  so many");

        } else {
            printf("# %s\n", error.text);
        }

        ngx_destroy_pool(pool);
    }
}


static void
test_bad_keys(void)
{
    size_t       i;
    ngx_pool_t  *pool;

    static const struct {
        const char  *json;
        const char  *error;
    } cases[] = {
        { "", "no valid JSON" },
        { "{\"keys\":[", "no valid JSON" },
        { "{\"keys\":[" HS "]} x", "no valid JSON" },
        { "{\"keys\":[" HS "],\"keys\":[]}", "a member of an object twice" },
        { OCT(",\"alg\":\"HS256\",\"alg\":\"HS384\""), "of an object twice" },
        { "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "is nested too deep" },
        { "{}", "is no key set" },
        { "[]", "is no key set" },
        { HS, "is no key set" },
        { "{\"keys\":{}}", "is no key set" },
        { "{\"keys\":[]}", "has no key that verifies" },
        { "{\"keys\":[{\"use\":\"enc\"}]}", "has no key that verifies" },
        { "{\"keys\":[" HS ",1]}", "number 2: an object expected" },

        /* AUTH-16 */
        { OCT(""), "number 1: no \"alg\", write the one algorithm" },
        { OCT(",\"alg\":7"), "no \"alg\"" },
        { OCT(",\"alg\":\"none\""), "\"alg\" is not supported" },
        { OCT(",\"alg\":\"\""), "\"alg\" is not supported" },
        { OCT(",\"alg\":\"hs256\""), "\"alg\" is not supported" },
        { OCT(",\"alg\":\"ES512\""), "\"alg\" is not supported" },
        { OCT(",\"alg\":\"RSA-OAEP\""), "\"alg\" is not supported" },
        { OCT(",\"alg\":\"RS256\""), "\"kty\" does not fit" },
        { OCT(",\"alg\":\"EdDSA\""), "\"kty\" does not fit" },
        { EC("P-256", A3_X, A3_Y, "HS256"), "\"kty\" does not fit" },
        { EC("P-256", A3_X, A3_Y, "ES384"), "\"crv\" does not fit" },
        { EC("P-521", A3_X, A3_Y, "ES256"), "\"crv\" does not fit" },

        { OCT(",\"alg\":\"HS384\""), "\"k\" of base64url" },
        { KEY("\"kty\":\"oct\",\"alg\":\"HS256\""), "\"k\" of base64url" },
        { KEY("\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"\""), "\"k\" of" },
        { KEY("\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"" K32 "=\""),
          "\"k\" of base64url" },
        { KEY("\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"MDEyMzQ1\""),
          "at least 32 octets for HS256" },
        { EC("P-256", A3_X, A3_X, "ES256"), "no point of the curve" },
        { EC("P-256", A3_X, "AA", "ES256"), "32 octets each" },
        { KEY("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\","
              "\"x\":\"AA\""), "32 octets" },
        { KEY("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\","
              "\"x\":\"" ED_X "\",\"d\":\"" ED_X "\""), "a private key" },
        { KEY("\"kty\":\"RSA\",\"alg\":\"RS256\",\"n\":\"" K64 "\","
              "\"e\":\"AQAB\""), "an RSA key of 2048 to 8192 bits" },
        { KEY("\"kty\":\"RSA\",\"alg\":\"RS256\",\"n\":\"" K64 "\""),
          "\"n\" and \"e\" of base64url" },

        /* AUTH-17 */
        { OCT(",\"alg\":\"HS256\",\"kid\":\"../key\""), "invalid \"kid\"" },
        { OCT(",\"alg\":\"HS256\",\"kid\":\"\""), "invalid \"kid\"" },
        { OCT(",\"alg\":\"HS256\",\"kid\":5"), "invalid \"kid\"" },
        { "{\"keys\":[{\"kid\":\"a\",\"kty\":\"oct\",\"alg\":\"HS256\","
          "\"k\":\"" K32 "\"},{\"kid\":\"a\"}]}", "has the same \"kid\"" }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pool = ngx_create_pool(4096, &log);

        ok(keys_of(pool, cases[i].json) == NULL
           && strstr((char *) error.text, cases[i].error) != NULL
           && strstr((char *) error.text, "MDEy") == NULL,
           "AUTH-16 %s: %s", cases[i].error, error.text);

        ngx_destroy_pool(pool);
    }
}


/* an encoder of its own */

static size_t
encode(const u_char *p, size_t len, u_char *out)
{
    size_t    i, n;
    uint32_t  bits, left;

    static const u_char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "abcdefghijklmnopqrstuvwxyz0123456789-_";

    for (i = 0, n = 0, bits = 0, left = 0; i < len; i++) {
        bits = bits << 8 | p[i];

        for (left += 8; left >= 6; left -= 6) {
            out[n++] = digits[bits >> (left - 6) & 63];
        }
    }

    if (left) {
        out[n++] = digits[bits << (6 - left) & 63];
    }

    return n;
}


static size_t
sign(const char *header, const char *claims, u_char *token)
{
    size_t    n;
    u_char    mac[EVP_MAX_MD_SIZE];
    unsigned  len;

    n = encode((u_char *) header, strlen(header), token);
    token[n++] = '.';
    n += encode((u_char *) claims, strlen(claims), token + n);

    HMAC(EVP_sha256(), SECRET, sizeof(SECRET) - 1, token, n, mac, &len);

    token[n++] = '.';

    return n + encode(mac, len, token + n);
}


#define SET  "{\"keys\":["                                                   \
    "{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"one\",\"k\":\"" K32      \
    "\"},"                                                                   \
    "{\"kty\":\"oct\",\"alg\":\"HS512\",\"kid\":\"two\",\"k\":\"" K64 "\"}," \
    "{\"kty\":\"oct\",\"alg\":\"HS512\",\"kid\":\"six\",\"k\":\"" K64 "\"}]}"

#define HEADER  "{\"alg\":\"HS256\",\"kid\":\"one\"}"
#define BASE    "\"iss\":\"https://i\",\"aud\":\"mail\",\"exp\":1000100"
#define CLAIMS  "{" BASE ",\"email\":\"u@example.com\"}"
#define TIME(t)                                                              \
    "{\"iss\":\"https://i\",\"aud\":\"mail\",\"email\":\"u@example.com\"" t  \
    "}"
#define ISS(t)                                                               \
    "{\"aud\":\"mail\",\"exp\":1000100,\"email\":\"u@example.com\"" t "}"
#define AUD(t)                                                               \
    "{\"iss\":\"https://i\",\"exp\":1000100,\"email\":\"u@example.com\"" t "}"
#define EMAIL(t)  "{" BASE t "}"


static const struct {
    const char  *header;
    const char  *claims;
    const char  *why;                   /* NULL: good */
} tokens[] = {
    { HEADER, CLAIMS, NULL },
    { "{\"alg\":\"HS256\"}", CLAIMS, NULL },
    { "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", CLAIMS, NULL },
    { "{\"alg\":\"HS256\",\"typ\":\"at+JWT\"}", CLAIMS, NULL },
    { "{\"alg\":\"HS256\",\"typ\":\"application/at+jwt\"}", CLAIMS, NULL },

    /* AUTH-17: of no interest */
    { "{\"alg\":\"HS256\",\"jku\":\"http://127.0.0.1/\",\"x5u\":\"file:/x\","
      "\"jwk\":{\"kty\":\"oct\",\"k\":\"AA\"},\"x5c\":[],\"cty\":\"x\"}",
      CLAIMS, NULL },

    /* AUTH-16 */
    { "{\"alg\":\"none\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"none\",\"kid\":\"one\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"HS512\",\"kid\":\"one\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"hs256\",\"kid\":\"one\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"RS256\",\"kid\":\"one\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"HS512\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"\"}", CLAIMS, "no key with" },
    { "{\"alg\":[\"HS256\"]}", CLAIMS, "no \"alg\"" },
    { "{\"kid\":\"one\"}", CLAIMS, "no \"alg\"" },
    { "{\"alg\":\"HS256\",\"alg\":\"none\"}", CLAIMS, "no JSON object" },
    { "{\"alg\":\"HS512\",\"kid\":\"two\"}", CLAIMS, "does not match" },
    { "{\"alg\":\"HS256\",\"typ\":\"secevent+jwt\"}", CLAIMS, "\"typ\"" },
    { "{\"alg\":\"HS256\",\"typ\":\"\"}", CLAIMS, "\"typ\"" },
    { "{\"alg\":\"HS256\",\"typ\":1}", CLAIMS, "\"typ\"" },
    { "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", CLAIMS, "\"crit\"" },
    { "{\"alg\":\"HS256\",\"crit\":[],\"b64\":false}", CLAIMS, "\"crit\"" },
    { "{\"alg\":\"HS256\",\"crit\":null}", CLAIMS, "\"crit\"" },
    { "[\"HS256\"]", CLAIMS, "no JSON object" },
    { "\"HS256\"", CLAIMS, "no JSON object" },
    { "{\"alg\":\"HS256\"} ", CLAIMS, NULL },
    { "{\"alg\":\"HS256\"}x", CLAIMS, "no JSON object" },
    { "{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", CLAIMS,
      "nested too deep" },

    /* AUTH-17 */
    { "{\"alg\":\"HS256\",\"kid\":\"three\"}", CLAIMS, "no key with" },
    { "{\"alg\":\"HS256\",\"kid\":\"/dev/null\"}", CLAIMS, "\"kid\"" },
    { "{\"alg\":\"HS256\",\"kid\":\"../one\"}", CLAIMS, "\"kid\"" },
    { "{\"alg\":\"HS256\",\"kid\":\"one\\u0000\"}", CLAIMS, "no JSON" },
    { "{\"alg\":\"HS256\",\"kid\":\"\"}", CLAIMS, "invalid \"kid\"" },
    { "{\"alg\":\"HS256\",\"kid\":null}", CLAIMS, "invalid \"kid\"" },
    { "{\"alg\":\"HS256\",\"kid\":1}", CLAIMS, "invalid \"kid\"" },

    /* AUTH-18: times; now is 1000000, and the leeway 60 */
    { HEADER, TIME(""), "no \"exp\"" },
    { HEADER, TIME(",\"exp\":999941"), NULL },
    { HEADER, TIME(",\"exp\":999940"), "expired" },
    { HEADER, TIME(",\"exp\":999941.9"), NULL },
    { HEADER, TIME(",\"exp\":999940.9"), "expired" },
    { HEADER, TIME(",\"exp\":0"), "expired" },
    { HEADER, TIME(",\"exp\":-1"), "a time that is none" },
    { HEADER, TIME(",\"exp\":-1.5"), "a time that is none" },
    { HEADER, TIME(",\"exp\":\"1000100\""), "a time that is none" },
    { HEADER, TIME(",\"exp\":null"), "a time that is none" },
    { HEADER, TIME(",\"exp\":1e15"), NULL },
    { HEADER, TIME(",\"exp\":1e16"), "a time that is none" },
    { HEADER, TIME(",\"exp\":9223372036854775807"), "a time that is none" },
    { HEADER, TIME(",\"exp\":9223372036854775808"), "no JSON" },
    { HEADER, TIME(",\"exp\":1e999"), "no JSON" },
    { HEADER, TIME(",\"exp\":1000100,\"exp\":2000000"), "a member twice" },
    { HEADER, TIME(",\"exp\":1000100,\"nbf\":1000060"), NULL },
    { HEADER, TIME(",\"exp\":1000100,\"nbf\":1000061"), "by \"nbf\"" },
    { HEADER, TIME(",\"exp\":1000100,\"nbf\":true"), "a time that is none" },
    { HEADER, TIME(",\"exp\":1000100,\"iat\":1000060"), NULL },
    { HEADER, TIME(",\"exp\":1000100,\"iat\":1000061"), "by \"iat\"" },
    { HEADER, TIME(",\"exp\":1000100,\"iat\":{}"), "a time that is none" },

    /* AUTH-18: issuer and audience */
    { HEADER, ISS(""), "another \"iss\"" },
    { HEADER, ISS(",\"iss\":\"https://i/\""), "another \"iss\"" },
    { HEADER, ISS(",\"iss\":\"https://I\""), "another \"iss\"" },
    { HEADER, ISS(",\"iss\":[\"https://i\"]"), "another \"iss\"" },
    { HEADER, ISS(",\"iss\":\"\""), "another \"iss\"" },
    { HEADER, AUD(""), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":\"other\""), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":\"mai\""), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":\"mail2\""), NULL },
    { HEADER, AUD(",\"aud\":[\"other\",\"mail\"]"), NULL },
    { HEADER, AUD(",\"aud\":[\"mail2\"]"), NULL },
    { HEADER, AUD(",\"aud\":[\"other\",\"more\"]"), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":[]"), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":[\"mail\",1]"), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":[[\"mail\"]]"), "another \"aud\"" },
    { HEADER, AUD(",\"aud\":{\"mail\":1}"), "another \"aud\"" },

    /* AUTH-1 AUTH-18: the user */
    { HEADER, EMAIL(""), "no login" },
    { HEADER, EMAIL(",\"email\":\"\""), "no login" },
    { HEADER, EMAIL(",\"email\":[\"u@example.com\"]"), "no login" },
    { HEADER, EMAIL(",\"email\":\"u@example.com\\r\\nX\""), "no login" },
    { HEADER, EMAIL(",\"email\":\"u@example.com\\u0000\""), "no JSON" },
    { HEADER, EMAIL(",\"email\":\"\\u007f\""), "no login" },
    { HEADER, EMAIL(",\"email\":\" u@example.com\""), "no login" },
    { HEADER, EMAIL(",\"email\":\"\xff\""), "no JSON" },
    { HEADER, EMAIL(",\"email\":\"\\ud800\""), "no JSON" },
    { HEADER, EMAIL(",\"email\":\"u@example.com\",\"email\":\"x\""),
      "twice" },
    { HEADER, EMAIL(",\"email\":\"u@example.com\",\"email_verified\":true"),
      NULL },
    { HEADER, EMAIL(",\"email_verified\":\"true\",\"email\":\"u@example.com\""
      ), NULL },
    { HEADER, EMAIL(",\"email\":\"u@example.com\",\"email_verified\":false"),
      "\"email_verified\" is not true" },
    { HEADER, EMAIL(",\"email\":\"u@example.com\",\"email_verified\":null"),
      "\"email_verified\" is not true" },
    { HEADER, "[]", "no JSON object" },
    { HEADER, "x", "no JSON object" },
    { HEADER, "{" BASE ",\"email\":\"u@example.com\",\"x\":"
      "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "nested too deep" }
};


static void
rules_new(ngx_mail_policy_jwt_rules_t *rules, ngx_pool_t *pool)
{
    ngx_str_t  *audience;

    rules->issuer = str("https://i");
    rules->claim = str("email");
    rules->leeway = 60;

    (void) ngx_array_init(&rules->audiences, pool, 2, sizeof(ngx_str_t));

    audience = ngx_array_push_n(&rules->audiences, 2);
    audience[0] = str("mail");
    audience[1] = str("mail2");
}


static void
test_tokens(void)
{
    size_t                        i;
    u_char                        text[4096];
    ngx_int_t                     rc;
    ngx_str_t                     token, identity;
    ngx_pool_t                   *pool;
    const char                   *why;
    ngx_mail_policy_jwt_keys_t   *keys;
    ngx_mail_policy_jwt_rules_t   rules;

    pool = ngx_create_pool(4096, &log);
    keys = keys_of(pool, SET);
    rules_new(&rules, pool);

    for (i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        why = "";

        token.len = sign(tokens[i].header, tokens[i].claims, text);
        token.data = tap_exact(text, token.len);

        rc = ngx_mail_policy_jwt_verify(keys, &rules, &token, NOW, pool,
                                        &identity, &why);

        if (tokens[i].why == NULL) {
            if (ok(rc == NGX_OK, "%s %s", tokens[i].header,
                   tokens[i].claims))
            {
                is_mem(identity.data, identity.len, "u@example.com", 13,
                       "  is u@example.com");

            } else {
                printf("# %s\n", why);
            }

        } else if (!ok(rc == NGX_DECLINED
                       && strstr(why, tokens[i].why) != NULL,
                       "AUTH-18 %s: %s %s", tokens[i].why, tokens[i].header,
                       tokens[i].claims))
        {
            printf("# %d %s\n", (int) rc, why);
        }

        free(token.data);
    }

    is_u64(ERR_peek_error(), 0, "no errors are left to others");

    /* not one beginning of a good token is one */

    token.data = text;
    token.len = sign(HEADER, CLAIMS, text);

    while (token.len--) {
        if (ngx_mail_policy_jwt_verify(keys, &rules, &token, NOW, pool,
                                       &identity, &why)
            != NGX_DECLINED)
        {
            break;
        }
    }

    ok(token.len == (size_t) -1, "each beginning of a token is refused");

    ngx_destroy_pool(pool);
}


static void
bench(const vector_t *v)
{
    double                       us;
    unsigned                     i;
    mpol_jwt_t                   jwt;
    ngx_str_t                    message, signature;
    ngx_pool_t                  *pool;
    struct timespec              a, b;
    ngx_mail_policy_jwt_keys_t  *keys;

    pool = ngx_create_pool(4096, &log);
    keys = keys_of(pool, v->keys);

    (void) mpol_jwt_split((const uint8_t *) v->token, strlen(v->token), &jwt);

    message.data = (u_char *) jwt.message.data;
    message.len = jwt.message.len;
    signature = decoded(pool, &jwt.signature);

    clock_gettime(CLOCK_MONOTONIC, &a);

    for (i = 0; i < 2000; i++) {
        (void) ngx_mail_policy_jwt_signed(keys->keys.elts, &message,
                                          &signature);
    }

    clock_gettime(CLOCK_MONOTONIC, &b);

    us = ((double) (b.tv_sec - a.tv_sec) * 1e9
          + (double) (b.tv_nsec - a.tv_nsec)) / i / 1e3;

    printf("%-24s %6.1f us\n", v->name, us);

    ngx_destroy_pool(pool);
}


__attribute__((constructor)) static void
test(void)
{
    size_t  i;

    ngx_pagesize = getpagesize();
    log.log_level = NGX_LOG_EMERG;

    if (getenv("JWT_BENCH")) {
        for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
            bench(&vectors[i]);
        }

        exit(0);
    }

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        test_vector(&vectors[i]);
    }

    test_good_keys();
    test_bad_keys();
    test_tokens();

    exit(done_testing());
}
