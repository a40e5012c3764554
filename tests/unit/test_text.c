
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_command.h"
#include "mpol_sasl.h"
#include "mpol_text.h"
#include "tap.h"


typedef size_t (*escape_pt)(const uint8_t *in, size_t len, uint8_t *out,
    size_t size);


typedef struct {
    escape_pt    escape;
    const char  *in;
    size_t       len;
    const char  *out;
} case_t;


#define X(in, out)  { mpol_xtext_encode, in, sizeof(in) - 1, out }
#define J(in, out)  { mpol_json_escape, in, sizeof(in) - 1, out }
#define K(in, out)  { mpol_key_escape, in, sizeof(in) - 1, out }
#define E(in, out)  { mpol_label_escape, in, sizeof(in) - 1, out }
#define L(in, out)  { mpol_log_escape, in, sizeof(in) - 1, out }
#define N(in, out)  { mpol_line_escape, in, sizeof(in) - 1, out }
#define H(in, out)  { mpol_html_escape, in, sizeof(in) - 1, out }


static const case_t  cases[] = {
    X("", ""),
    X("user@Example.com", "user@Example.com"),
    X("a+b=c", "a+2Bb+3Dc"),
    X("a b", "a+20b"),
    X("!~", "!~"),
    X("\0\r\n\x1f\x7f\x80\xff", "+00+0D+0A+1F+7F+80+FF"),

    J("", ""),
    J("plain text/", "plain text/"),
    J("\"\\", "\\\"\\\\"),
    J("a\r\nb", "a\\u000D\\u000Ab"),
    J("\0\x1f\x7f", "\\u0000\\u001F\\u007F"),
    J("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
      "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
    J("\xff\xfe", "\\u00FF\\u00FE"),
    J("\xc3", "\\u00C3"),
    J("\xc3\"", "\\u00C3\\\""),
    J("\xe2\x82\"", "\\u00E2\\u0082\\\""),
    J("\xc3\xc3\xa4", "\\u00C3\xc3\xa4"),
    J("\xed\xa0\x80z", "\\u00ED\\u00A0\\u0080z"),
    J("\x80\xa4", "\\u0080\\u00A4"),

    E("", ""),
    E("a b{}=,~", "a b{}=,~"),
    E("\"\\", "\\\"\\\\"),
    E("\0\r\n\x1f\x7f",
      "\\\\x00\\\\x0D\\\\x0A\\\\x1F\\\\x7F"),
    E("\xc3\xa4\xf0\x9f\x98\x80", "\xc3\xa4\xf0\x9f\x98\x80"),
    E("\xff\xc3\"", "\\\\xFF\\\\xC3\\\""),
    E("\xe2\x82", "\\\\xE2\\\\x82"),

    K("", ""),
    K("User@EXAMPLE.com", "user@example.com"),
    K("{tag}:100%", "%7Btag%7D:100%25"),
    K("a b\r\n", "a%20b%0D%0A"),
    K("\xc3\x84\0\x7f", "%C3%84%00%7F"),
    K("@AZ[`az", "@az[`az"),

    L("", ""),
    L("a b!~", "a b!~"),
    L("\"\\", "\\x22\\x5C"),
    L("\0\r\n\x1f\x7f\xc3\xa4", "\\x00\\x0D\\x0A\\x1F\\x7F\\xC3\\xA4"),

    N("", ""),
    N("a b!~\"\\\xc3\xa4\xff", "a b!~\"\\\xc3\xa4\xff"),
    N("\0\r\n\x1f\x7f", "\\x00\\x0D\\x0A\\x1F\\x7F"),

    H("", ""),
    H("a b\\/=`!~", "a b\\/=`!~"),
    H("<script>alert('&\"')</script>",
      "&lt;script&gt;alert(&#39;&amp;&#34;&#39;)&lt;/script&gt;"),
    H("&lt;", "&amp;lt;"),
    H("\0\t\r\n\x1f\x7f", "\\x00\\x09\\x0D\\x0A\\x1F\\x7F"),
    H("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xd7\x90",
      "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xd7\x90"),
    H("\xff\xfe", "\\xFF\\xFE"),
    H("\xc3", "\\xC3"),
    H("\xc3<", "\\xC3&lt;"),
    H("\xe2\x82<", "\\xE2\\x82&lt;"),
    H("\xed\xa0\x80", "\\xED\\xA0\\x80"),
    H("\xc0\xbc", "\\xC0\\xBC"),                    /* "<", overlong */
    H("\xc2\x80\xc2\x9f\xc2\xa0\xc2\xad",
      "\\xC2\\x80\\xC2\\x9F\xc2\xa0\\xC2\\xAD"),
    H("a\xe2\x80\xae@\xe2\x80\x8bz",              /* override, no width */
      "a\\xE2\\x80\\xAE@\\xE2\\x80\\x8Bz"),
    H("\xe2\x80\x8a\xe2\x80\x90\xe2\x80\xa7\xe2\x80\xaf",
      "\xe2\x80\x8a\xe2\x80\x90\xe2\x80\xa7\xe2\x80\xaf"),
    H("\xe2\x80\xa8\xe2\x81\xa6\xef\xbb\xbf",
      "\\xE2\\x80\\xA8\\xE2\\x81\\xA6\\xEF\\xBB\\xBF"),
    H("\xd8\x9c\xf3\xa0\x80\x81\xf3\xa1\x80\x80",
      "\\xD8\\x9C\\xF3\\xA0\\x80\\x81\xf3\xa1\x80\x80")
};


static void
test_case(const case_t *c)
{
    int       pass;
    size_t    n, size, want;
    uint8_t  *in, *out;

    want = strlen(c->out);
    in = tap_exact(c->in, c->len);
    out = tap_exact(c->out, want);
    memset(out, 0, want);

    n = c->escape(in, c->len, out, want);

    is_mem(out, n, c->out, want, "to '%s'", c->out);

    free(out);

    /* a lack of room is told, and nothing written behind the end */

    for (size = 0, pass = 1; size < want && pass; size++) {
        out = tap_exact(c->out, size);
        pass = c->escape(in, c->len, size ? out : NULL, size) == want;
        free(out);
    }

    ok(pass, "  sizes 0 .. %u", (unsigned) want);

    free(in);
}


/* reads back what was escaped; 0 if it was not valid */

static size_t
unescape_json(const uint8_t *p, size_t len, uint8_t *out)
{
    char      hex[3];
    size_t    i, n;
    unsigned  v;

    if (!mpol_utf8_valid(p, len)) {
        return 0;
    }

    hex[2] = '\0';

    for (i = 0, n = 0; i < len; i++) {
        if (p[i] < 32 || p[i] == 127 || p[i] == '"') {
            return 0;
        }

        if (p[i] != '\\') {
            out[n++] = p[i];
            continue;
        }

        i++;

        if (i < len && (p[i] == '"' || p[i] == '\\')) {
            out[n++] = p[i];
            continue;
        }

        if (len - i < 5 || memcmp(p + i, "u00", 3) != 0) {
            return 0;
        }

        hex[0] = (char) p[i + 3];
        hex[1] = (char) p[i + 4];

        if (sscanf(hex, "%2X", &v) != 1) {
            return 0;
        }

        out[n++] = (uint8_t) v;
        i += 4;
    }

    return n;
}


static void
test_random_json(void)
{
    size_t    i, len, n;
    uint8_t   in[12], out[72], again[72];
    unsigned  k;

    static const uint8_t  octets[] = "a\"\\\n\xc3\xa4\xe2\x82\xac\xed\xf0\x9f";

    for (k = 0; k < 100000; k++) {
        len = 1 + (size_t) rand() % sizeof(in);

        for (i = 0; i < len; i++) {
            in[i] = octets[(size_t) rand() % (sizeof(octets) - 1)];
        }

        n = mpol_json_escape(in, len, out, sizeof(out));

        if (n > sizeof(out) || unescape_json(out, n, again) != len
            || memcmp(in, again, len) != 0)
        {
            tap_dump("input", in, len);
            break;
        }
    }

    is_u64(k, 100000, "random octets are valid JSON, and come back");
}


/* xtext, and what it stands for; NULL where it is refused */

static const struct {
    const char  *in;
    const char  *out;
} xtext[] = {
    { "", "" }, { "user@Example.com", "user@Example.com" }, { "!~", "!~" },
    { "a+2Bb+3Dc", "a+b=c" }, { "+20", " " }, { "+7E", "~" }, { "+41", "A" },
    { "+2B+2B", "++" }, { "+2B41", "+41" }, { "\\x{E4}", "\\x{E4}" },

    { "+", NULL }, { "+2", NULL }, { "a+", NULL }, { "a+2", NULL },
    { "+2b", NULL }, { "+3d", NULL }, { "+G0", NULL }, { "+0G", NULL },
    { "++20", NULL }, { "+ 2", NULL }, { "+-2", NULL }, { "=", NULL },
    { "a=b", NULL }, { " ", NULL }, { "a b", NULL }, { "\t", NULL },
    { "\r\n", NULL }, { "\x7f", NULL }, { "\x80", NULL }, { "\xc3\xa4", NULL },
    { "+00", NULL }, { "+0A", NULL }, { "+0D", NULL }, { "+1F", NULL },
    { "+7F", NULL }, { "+80", NULL }, { "+C3+A4", NULL }, { "+FF", NULL },
    { "a+00b", NULL }, { "abc+0D+0A", NULL }
};


static void
test_decode(size_t i)
{
    int       rc, verdict;
    size_t    len, n, want;
    uint8_t  *in, *out;

    len = strlen(xtext[i].in);

    for (n = 0; n < len; n++) {
        in = tap_exact(xtext[i].in, n);
        (void) mpol_xtext_decode(in, n, in, &want);
        free(in);
    }

    in = tap_exact(xtext[i].in, len);
    out = tap_exact(xtext[i].in, len);

    verdict = xtext[i].out ? MPOL_OK : MPOL_BAD;
    want = xtext[i].out ? strlen(xtext[i].out) : 0;

    rc = mpol_xtext_decode(in, len, out, &n);
    is_u64((uint64_t) rc, (uint64_t) verdict, "STATE-7 xtext '%s'",
           xtext[i].in);

    if (rc == MPOL_OK && verdict == MPOL_OK) {
        is_mem(out, n, xtext[i].out, want, "  to another place");
    }

    ok(mpol_xtext_decode(in, len, NULL, NULL) == verdict, "  verdict only");

    n = len + 1;
    ok(mpol_xtext_decode(in, len, NULL, &n) == verdict
       && (verdict != MPOL_OK || n == want), "  length only");

    ok(mpol_xtext_decode(in, len, in, &n) == verdict
       && (verdict != MPOL_OK || (n == want && memcmp(in, out, n) == 0)),
       "  in itself");

    free(out);
    free(in);
}


/* each octet as itself and in hex: the round trip of what is printable */

static void
test_decode_octets(void)
{
    int      c, printable;
    char     hex[4];
    size_t   n, m;
    uint8_t  in[1], out[3], back[3];

    for (c = 0; c < 256; c++) {
        printable = c >= 32 && c <= 126;
        in[0] = (uint8_t) c;

        n = mpol_xtext_encode(in, 1, out, sizeof(out));

        if ((mpol_xtext_decode(out, n, back, &m) == MPOL_OK) != printable
            || (printable && (m != 1 || back[0] != c)))
        {
            break;
        }

        sprintf(hex, "+%02X", c);

        if ((mpol_xtext_decode((uint8_t *) hex, 3, back, &m) == MPOL_OK)
            != printable || (printable && (m != 1 || back[0] != c)))
        {
            break;
        }

        if ((mpol_xtext_decode(in, 1, back, &m) == MPOL_OK)
            != (printable && c != ' ' && c != '+' && c != '='))
        {
            break;
        }
    }

    is_u64((uint64_t) c, 256, "STATE-7 xtext of each octet, and back");
}


/* what we encode is what we accept, where it may be said at all */

static void
test_xtext_accepted(void)
{
    int           c, rc;
    size_t        n;
    uint8_t       in[1], arg[32];
    mpol_mail_t   mail;

    for (c = 0; c < 256; c++) {
        in[0] = (uint8_t) c;
        memcpy(arg, "FROM:<> AUTH=", 13);

        n = mpol_xtext_encode(in, 1, arg + 13, sizeof(arg) - 13);

        rc = mpol_mail_parse(arg, 13 + n, MPOL_EXT_AUTH, &mail);

        if ((rc == MPOL_OK) != (c >= 32 && c <= 126)) {
            break;
        }
    }

    is_u64((uint64_t) c, 256, "AUTH= takes the xtext of printable octets");
}


static const struct {
    const char  *in;
    int          clean;
} utf8[] = {
    { "", 1 }, { "plain", 1 }, { "\x01\x7f", 1 }, { "\xc2\xa0", 1 },
    { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 1 }, { "\xe2\x82\x80", 1 },
    { "\xe1\x80\x82", 1 },

    { "\xc2\x80", 0 }, { "\xc2\x9f", 0 }, { "\xc2\x85z", 0 },
    { "z\xc3\xa4\xc2\x8d", 0 }, { "\x80", 0 }, { "\x9f", 0 }, { "\xc2", 0 },
    { "\xc2z", 0 }, { "\xc0\x80", 0 }, { "\xed\xa0\x80", 0 }, { "\xff", 0 }
};


static void
test_utf8(void)
{
    size_t    i, len;
    uint8_t  *p;

    for (i = 0; i < sizeof(utf8) / sizeof(utf8[0]); i++) {
        len = strlen(utf8[i].in);
        p = tap_exact(utf8[i].in, len);

        ok(mpol_utf8_clean(p, len) == utf8[i].clean, "UTF-8 %u is%s clean",
           (unsigned) i, utf8[i].clean ? "" : " not");

        free(p);
    }
}


static void
test_clean(void)
{
    int      c, pass;
    uint8_t  p[256];

    for (c = 0; c < 256; c++) {
        p[c] = (uint8_t) c;
    }

    mpol_reply_clean(p, 256, p);

    for (c = 0, pass = 1; c < 256 && pass; c++) {
        pass = p[c] == (c == '\t' ? ' ' : c >= 32 && c <= 126 ? c : '?');
    }

    ok(pass, "reply text: each octet, in place");

    mpol_reply_clean((const uint8_t *) "a\tb\r\n", 5, p);
    is_mem(p, 5, "a b??", 5, "reply text: to another place");
}


int
main(void)
{
    size_t  i;

    srand(1);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(&cases[i]);
    }

    test_random_json();
    for (i = 0; i < sizeof(xtext) / sizeof(xtext[0]); i++) {
        test_decode(i);
    }

    test_decode_octets();
    test_xtext_accepted();
    test_clean();
    test_utf8();

    return done_testing();
}
