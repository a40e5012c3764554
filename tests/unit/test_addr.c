
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_addr.h"
#include "tap.h"


#define NUL    MPOL_PATH_NULL
#define PM     MPOL_PATH_POSTMASTER
#define U8     MPOL_PATH_UTF8
#define SYN    MPOL_PATH_SYNTAX
#define BIT8   MPOL_PATH_8BIT

#define UML    "\xc3\xa4"
#define UML8   UML UML UML UML UML UML UML UML
#define EURO   "\xe2\x82\xac"
#define U3002  "\xe3\x80\x82"
#define UFF0E  "\xef\xbc\x8e"
#define UFF61  "\xef\xbd\xa1"
#define L63    "123456789012345678901234567890123456789012345678901234567890123"
#define D50    "a23456789.b23456789.c23456789.d23456789.e23456789."


typedef struct {
    const char  *input;
    unsigned     allow;
    int          rc;
    const char  *local;
    const char  *domain;
    const char  *rest;                  /* behind the path */
    unsigned     quoted;
    unsigned     literal;
} case_t;


static const case_t  cases[] = {
    { "<a@b>", 0, 0, "a", "b", "", 0, 0 },
    { "<User.Name+x@Example.COM> SIZE=1", 0, 0, "User.Name+x", "Example.COM",
      " SIZE=1", 0, 0 },
    { "<!#$%&'*+-/=?^_`{|}~@a-b.c_d>", 0, 0, "!#$%&'*+-/=?^_`{|}~",
      "a-b.c_d", "", 0, 0 },
    { "<a@_dmarc.example>>", 0, 0, "a", "_dmarc.example", ">", 0, 0 },
    { "<a@1.2>", 0, 0, "a", "1.2", "", 0, 0 },

    /* who may use them is policy */
    { "<user%other@ours>", 0, 0, "user%other", "ours", "", 0, 0 },
    { "<other!user@ours>", 0, 0, "other!user", "ours", "", 0, 0 },

    /* null and postmaster */
    { "<>", NUL, 0, "", "", "", 0, 0 },
    { "<>", PM, SYN, 0, 0, 0, 0, 0 },
    { "<> X", NUL | PM, 0, "", "", " X", 0, 0 },
    { "<postmaster>", PM, 0, "postmaster", "", "", 0, 0 },
    { "<PostMASTER>", PM, 0, "PostMASTER", "", "", 0, 0 },
    { "<postmaster>", NUL, SYN, 0, 0, 0, 0, 0 },
    { "<postmaster@b>", 0, 0, "postmaster", "b", "", 0, 0 },
    { "<postmasters>", PM, SYN, 0, 0, 0, 0, 0 },
    { "<postmaste>", PM, SYN, 0, 0, 0, 0, 0 },
    { "<hostmaster>", PM, SYN, 0, 0, 0, 0, 0 },
    { "<@x:postmaster>", PM, SYN, 0, 0, 0, 0, 0 },

    /* source routes are dropped */
    { "<@a:u@c>", 0, 0, "u", "c", "", 0, 0 },
    { "<@a.x,@b:u@c>", 0, 0, "u", "c", "", 0, 0 },
    { "<@a,b:u@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@a,@:u@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@a,:u@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@a>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@a:>", NUL, SYN, 0, 0, 0, 0, 0 },
    { "<@:u@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a:u@c>", 0, SYN, 0, 0, 0, 0, 0 },

    /* quoted local parts */
    { "<\"a b\"@c>", 0, 0, "\"a b\"", "c", "", 1, 0 },
    { "<\"user@other\"@ours>", 0, 0, "\"user@other\"", "ours", "", 1, 0 },
    { "<\"a>b\"@c>", 0, 0, "\"a>b\"", "c", "", 1, 0 },
    { "<\"\"@c>", 0, 0, "\"\"", "c", "", 1, 0 },
    { "<\"\\\"\"@c>", 0, 0, "\"\\\"\"", "c", "", 1, 0 },
    { "<\"\\\\\"@c>", 0, 0, "\"\\\\\"", "c", "", 1, 0 },
    { "<\"a\"b@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a\"b\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\\\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\x01\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\r\n\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\\\n\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\x7f\"@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\">", PM, SYN, 0, 0, 0, 0, 0 },

    /* literals */
    { "<a@[192.0.2.1]>", 0, 0, "a", "[192.0.2.1]", "", 0, 1 },
    { "<a@[IPv6:2001:db8::1]>", 0, 0, "a", "[IPv6:2001:db8::1]", "", 0, 1 },
    { "<a@[192.0.2.1>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@[]>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@[192.0.2.1].x>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@[x:y]>", 0, SYN, 0, 0, 0, 0, 0 },

    /* what is no path */
    { "", 0, SYN, 0, 0, 0, 0, 0 },
    { "<", NUL, SYN, 0, 0, 0, 0, 0 },
    { "a@b", 0, SYN, 0, 0, 0, 0, 0 },
    { " <a@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a>", PM, SYN, 0, 0, 0, 0, 0 },
    { "<a@>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<@>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b@c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b.>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@.b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b..c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@-b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b->", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b-.c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b c>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<.a@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a.@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a..c@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a c@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a,c@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a\t@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<<a@b>>", 0, SYN, 0, 0, 0, 0, 0 },
    { "< a@b>", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b >", 0, SYN, 0, 0, 0, 0, 0 },
    { "<a@b\r\nRCPT TO:<c@d>", 0, SYN, 0, 0, 0, 0, 0 },

    /* octets above 127 */
    { "<\xc3\xa4@b>", 0, BIT8, 0, 0, 0, 0, 0 },
    { "<a@b\xc3\xa4>", 0, BIT8, 0, 0, 0, 0, 0 },
    { "<a@b.\xc3\xa4.c>", 0, BIT8, 0, 0, 0, 0, 0 },
    { "<\"\xff\"@b>", 0, BIT8, 0, 0, 0, 0, 0 },
    { "<a b>\xc3", 0, SYN, 0, 0, 0, 0, 0 },

    /* RFC 6531: in atoms, quoted strings, sub-domains and source routes */
    { "<" UML "@b>", U8, 0, UML, "b", "", 0, 0 },
    { "<a." UML ".c+" UML "@b>", U8, 0, "a." UML ".c+" UML, "b", "", 0, 0 },
    { "<a@" UML ">", U8, 0, "a", UML, "", 0, 0 },
    { "<a@x-" UML ".b" EURO ".c> X", U8, 0, "a", "x-" UML ".b" EURO ".c", " X",
      0, 0 },
    { "<\"" UML " " EURO "\"@b>", U8, 0, "\"" UML " " EURO "\"", "b", "", 1,
      0 },
    { "<\"\\\"" UML "\"@b>", U8, 0, "\"\\\"" UML "\"", "b", "", 1, 0 },
    { "<@" UML ".x:a@b>", U8, 0, "a", "b", "", 0, 0 },
    { "<@x,@y:" UML "@b>", U8, 0, UML, "b", "", 0, 0 },
    { "<a@b> \xff", U8, 0, "a", "b", " \xff", 0, 0 },
    { "<>", U8 | NUL, 0, "", "", "", 0, 0 },
    { "<postmaster>", U8 | PM, 0, "postmaster", "", "", 0, 0 },
    { "<a@[192.0.2.1]>", U8, 0, "a", "[192.0.2.1]", "", 0, 1 },
    { "<\xc2\xa0@b>", U8, 0, "\xc2\xa0", "b", "", 0, 0 },
    { "<\xf4\x8f\xbf\xbf@b>", U8, 0, "\xf4\x8f\xbf\xbf", "b", "", 0, 0 },

    /* and nowhere else */
    { "<\"\\" UML "\"@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@[" UML "]>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@[IPv6:" UML "::]>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@" UML "->", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@-" UML ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@" UML ".>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<." UML "@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<" UML ".@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<" UML ">", U8 | PM, SYN, 0, 0, 0, 0, 0 },
    { "<" UML "postmaster>", U8 | PM, SYN, 0, 0, 0, 0, 0 },
    { "<@x:postmaster>", U8 | PM, SYN, 0, 0, 0, 0, 0 },
    { UML "<a@b>", U8, SYN, 0, 0, 0, 0, 0 },

    /* nor what may be a dot to somebody else, as part of a domain */
    { "<a@ours" U3002 "example>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@ours" UFF0E "example>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@ours" UFF61 "example>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@" U3002 ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@b.c" UFF0E ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@" UML "." UFF61 "." UML ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\"a\"@" UML U3002 UML ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@\xef\xbd\x85xample.com>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@ours\xe2\x80\xa4" "example>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@ours\xef\xb9\x92" "example>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<@x" U3002 "y:a@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<@x,@y" UFF0E "z:a@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@ours" U3002 "example>", 0, BIT8, 0, 0, 0, 0, 0 },
    { "<" U3002 UFF0E UFF61 "@b>", U8, 0, U3002 UFF0E UFF61, "b", "", 0, 0 },
    { "<\"" UFF0E "\"@b>", U8, 0, "\"" UFF0E "\"", "b", "", 1, 0 },
    { "<a@b\xe3\x80\x81>", U8, 0, "a", "b\xe3\x80\x81", "", 0, 0 },
    { "<a@b\xe3\x80>\x82", U8, SYN, 0, 0, 0, 0, 0 },

    /* what is no UTF-8, or a C1 control */
    { "<\xe4@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xc3@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xa4@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\"\xc3\"@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@b\xc3.c>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@b\xc3>\xa4", U8, SYN, 0, 0, 0, 0, 0 },
    { "<@\xc3:a@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xc0\xaf@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xe0\x80\xaf@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xed\xa0\x80@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xf4\x90\x80\x80@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xc2\x80@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\xc2\x9f@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\"\xc2\x85\"@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<a@b\xc2\x8d" UML ">", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\"\x7f" UML "\"@b>", U8, SYN, 0, 0, 0, 0, 0 },
    { "<\"" UML "\n\"@b>", U8, SYN, 0, 0, 0, 0, 0 },

    /* the limits count octets */
    { "<" UML8 UML8 UML8 UML8 "@b>", U8, 0, UML8 UML8 UML8 UML8, "b", "", 0,
      0 },
    { "<1" UML8 UML8 UML8 UML8 "@b>", U8, MPOL_PATH_LONG, 0, 0, 0, 0, 0 },
    { "<a@" D50 D50 D50 D50 D50 UML ">", U8, 0, "a", D50 D50 D50 D50 D50 UML,
      "", 0, 0 },
    { "<a@" D50 D50 D50 D50 D50 EURO ">", U8, MPOL_PATH_LONG, 0, 0, 0, 0, 0 },

    /* limits of RFC 5321 section 4.5.3.1 */
    { "<1" L63 "@b>", 0, 0, "1" L63, "b", "", 0, 0 },
    { "<12" L63 "@b>", 0, MPOL_PATH_LONG, 0, 0, 0, 0, 0 },
    { "<a@" D50 D50 D50 D50 D50 "ab>", 0, 0, "a", D50 D50 D50 D50 D50 "ab",
      "", 0, 0 },
    { "<a@" D50 D50 D50 D50 D50 "abc>", 0, MPOL_PATH_LONG, 0, 0, 0, 0, 0 },
    { "<@abcd:a@" D50 D50 D50 D50 D50 "a>", 0, MPOL_PATH_LONG, 0, 0, 0, 0, 0 }
};


static const struct {
    const char  *input;
    int          valid;
} domains[] = {
    { "a", 1 }, { "mx.example.org", 1 }, { "MX-1.Example.ORG", 1 },
    { "my_host", 1 }, { "a--b", 1 }, { "127.0.0.1", 1 },
    { "", 0 }, { ".", 0 }, { "a.", 0 }, { ".a", 0 }, { "a..b", 0 },
    { "-a", 0 }, { "a-", 0 }, { "a b", 0 }, { "a\xc3\xa4", 0 },
    { "a\r\n", 0 }, { "a@b", 0 }, { "<a>", 0 }, { "a/b", 0 },

    { "[127.0.0.1]", 1 }, { "[127.0.0.1", 0 }, { "[127.0.0.1]x", 0 },

    { D50 D50 D50 D50 D50 "12345", 1 }, { D50 D50 D50 D50 D50 "123456", 0 }
};


static const struct {
    const char  *input;
    int          routed;
} locals[] = {
    { "<a@b>", 0 }, { "<>", 0 }, { "<postmaster>", 0 }, { "<a+x@b>", 0 },
    { "<\"a b\"@c>", 0 }, { "<\"\"@c>", 0 }, { "<\"a:b\"@c>", 0 },
    { "<a@[192.0.2.1]>", 0 }, { "<@x.example,@y:a@b>", 0 },
    { "<\"a\\b\"@c>", 0 }, { "<" UML "@b>", 0 },

    { "<user%other@ours>", 1 }, { "<%@b>", 1 }, { "<a%@b>", 1 },
    { "<other!user@ours>", 1 }, { "<!@b>", 1 },
    { "<\"user@other\"@ours>", 1 }, { "<\"user%other\"@ours>", 1 },
    { "<\"other!user\"@ours>", 1 }, { "<\"user\\@other\"@ours>", 1 },
    { "<\"user\\%other\"@ours>", 1 }, { "<\"@\"@b>", 1 },
    { "<@x:user%other@ours>", 1 }, { "<" UML "%b@c>", 1 }
};


static const struct {
    const char  *input;
    int          clean;
} hosts[] = {
    { "a", 1 }, { "mx.example.org", 1 }, { "MX-1.Example_2.ORG.", 1 },
    { "-", 1 }, { "..", 1 }, { "192.0.2.1", 1 }, { "[192.0.2.1]", 1 },
    { "[IPv6:2001:db8::1]", 1 },

    { "", 0 }, { " ", 0 }, { "a b", 0 }, { "a\r\nb", 0 }, { "a\n", 0 },
    { "a\t", 0 }, { "a\x7f", 0 }, { "a" UML, 0 }, { "a+b", 0 }, { "a=b", 0 },
    { "a@b", 0 }, { "a:b", 0 }, { "a/b", 0 }, { "\"a\"", 0 }, { "<a>", 0 },
    { "[TEMPUNAVAIL]", 0 }, { "[UNAVAILABLE]", 0 }, { "[a]", 0 },
    { "[]", 0 }, { "[", 0 }, { "a]", 0 }, { "[192.0.2.1", 0 },
    { "[192.0.2.1]x", 0 }, { "[192.0.2.1]\r\n", 0 },

    { D50 D50 D50 D50 D50 "12345", 1 }, { D50 D50 D50 D50 D50 "123456", 0 }
};


static void
test_path(const case_t *c)
{
    int           pass, rc;
    size_t        i, len, n, used;
    uint8_t      *p;
    mpol_path_t   path;

    len = strlen(c->input);
    p = tap_exact(c->input, len);
    used = 0;

    rc = mpol_path_parse(p, len, c->allow, &path, &used);

    is_u64((uint64_t) rc, (uint64_t) c->rc, "'%s'", c->input);

    if (rc == MPOL_OK && c->rc == MPOL_OK) {
        is_mem(path.local.data, path.local.len, c->local, strlen(c->local),
               "  local");
        is_mem(path.domain.data, path.domain.len, c->domain,
               strlen(c->domain), "  domain");
        is_mem(p + used, len - used, c->rest, strlen(c->rest), "  rest");

        n = path.local.len + path.domain.len + (path.domain.len ? 1 : 0);

        ok(path.address.data == path.local.data && path.address.len == n,
           "  address");
        ok(path.quoted == c->quoted && path.literal == c->literal,
           "  quoted %u, literal %u", path.quoted, path.literal);

        for (i = 0; i < used && p[i] < 128; i++) { /* void */ }

        ok(path.eightbit == (i != used), "  eightbit %u", path.eightbit);
    }

    free(p);

    /* what is cut off is no path, and nothing behind the cut is read */

    n = (c->rc == MPOL_OK) ? len - strlen(c->rest) : len;

    for (pass = 1; n-- > 0 && pass; /* void */ ) {
        p = tap_exact(c->input, n);
        pass = mpol_path_parse(p, n, c->allow, &path, &used) > 0
               || c->rc != MPOL_OK;
        free(p);
    }

    ok(pass, "  cut off at each octet");
}


static void
test_domain(const char *input, int valid)
{
    size_t    len, n;
    uint8_t  *p;

    len = strlen(input);

    for (n = 0; n < len; n++) {
        p = tap_exact(input, n);
        (void) mpol_domain_valid(p, n);
        free(p);
    }

    p = tap_exact(input, len);

    ok(mpol_domain_valid(p, len) == valid, "'%s' is %s", input,
       valid ? "a domain" : "no domain");

    free(p);
}


/* RELAY-2, RELAY-3 */

static void
test_routed(const char *input, int routed)
{
    int           rc;
    size_t        used;
    mpol_path_t   path;

    rc = mpol_path_parse((const uint8_t *) input, strlen(input),
                         NUL | PM | U8, &path, &used);

    ok(rc == MPOL_OK && mpol_addr_routed(&path) == routed,
       "RELAY-2/3 %s is%s routed", input, routed ? "" : " not");
}


static void
test_host(const char *input, int clean)
{
    size_t    len, n;
    uint8_t  *p;

    len = strlen(input);

    for (n = 0; n < len; n++) {
        p = tap_exact(input, n);
        (void) mpol_hostname_clean(p, n);
        free(p);
    }

    p = tap_exact(input, len);

    ok(mpol_hostname_clean(p, len) == clean, "TRUST-5 '%s' is%s clean", input,
       clean ? "" : " not");

    free(p);
}


/* each octet in each part: only what the grammar names may stand there */

static void
test_octets(void)
{
    int          c, atext, in_domain, in_quotes;
    char         s[16];
    size_t       used;
    mpol_path_t  path;

    for (c = 1; c < 256; c++) {
        in_domain = strchr("abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", c)
                    != NULL;
        atext = in_domain || strchr("!#$%&'*+/=?^`{|}~", c) != NULL;
        in_quotes = c >= 32 && c <= 126 && c != '"' && c != '\\';

        sprintf(s, "<x%cx@b>", c);
        if ((mpol_path_parse((uint8_t *) s, 7, 0, &path, &used) == 0) != atext
            && c != '@')
        {
            break;
        }

        sprintf(s, "<a@x%cx>", c);
        if ((mpol_path_parse((uint8_t *) s, 7, 0, &path, &used) == 0)
            != in_domain && c != '>')
        {
            break;
        }

        sprintf(s, "<\"%c\"@b>", c);
        if ((mpol_path_parse((uint8_t *) s, 7, 0, &path, &used) == 0)
            != in_quotes)
        {
            break;
        }
    }

    is_u64((uint64_t) c, 256, "each octet in local part, domain, quotes");
}


static void
test_host_octets(void)
{
    int      c, want;
    uint8_t  p[3];

    p[0] = p[2] = 'a';

    for (c = 0; c < 256; c++) {
        p[1] = (uint8_t) c;
        want = c != 0 && strchr("abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c)
                         != NULL;

        if (mpol_hostname_clean(p, 3) != want) {
            break;
        }
    }

    is_u64((uint64_t) c, 256, "TRUST-5 each octet in a host name");
}


static size_t
put_character(uint8_t *p, uint32_t c)
{
    size_t  n;

    n = 0;

    if (c < 0x800) {
        p[n++] = (uint8_t) (0xc0 | c >> 6);

    } else {
        if (c < 0x10000) {
            p[n++] = (uint8_t) (0xe0 | c >> 12);

        } else {
            p[n++] = (uint8_t) (0xf0 | c >> 18);
            p[n++] = (uint8_t) (0x80 | (c >> 12 & 0x3f));
        }

        p[n++] = (uint8_t) (0x80 | (c >> 6 & 0x3f));
    }

    p[n++] = (uint8_t) (0x80 | (c & 0x3f));

    return n;
}


/* every character there is, and the surrogates, which are none */

static void
test_characters(const char *begin, const char *end, int domain)
{
    int           rc, want;
    size_t        n, used;
    uint8_t       s[16];
    uint32_t      c;
    mpol_path_t   path;

    for (c = 0x80; c < 0x120000; c++) {
        n = strlen(begin);
        memcpy(s, begin, n);
        n += put_character(s + n, c);
        memcpy(s + n, end, strlen(end));
        n += strlen(end);

        want = c >= 0xa0 && (c < 0xd800 || c > 0xdfff) && c < 0x110000
               && !(domain && (c == 0x3002 || c == 0x2024
                               || (c >= 0xfe50 && c <= 0xfe6f)
                               || (c >= 0xff00 && c <= 0xffef)));

        rc = mpol_path_parse(s, n, U8, &path, &used);

        if (rc != (want ? MPOL_OK : MPOL_PATH_SYNTAX)) {
            break;
        }
    }

    is_u64(c, 0x120000, "each character in '%sX%s'", begin, end);
}


/* any two octets above 127: a character of two, or nothing */

static void
test_pairs(void)
{
    int            i, pass, want;
    size_t         place, used;
    uint8_t        s[16];
    unsigned       a, b;
    mpol_path_t    path;

    static const char *const  places[] = { "<..@b>", "<a@..>", "<\"..\"@b>" };

    for (i = 0; i < 3; i++) {
        place = (size_t) (strstr(places[i], "..") - places[i]);
        memcpy(s, places[i], strlen(places[i]));

        for (a = 128, pass = 1; a < 256; a++) {
            for (b = 128; b < 256; b++) {
                s[place] = (uint8_t) a;
                s[place + 1] = (uint8_t) b;
                want = a >= 0xc2 && a < 0xe0 && b < 0xc0
                       && (a > 0xc2 || b >= 0xa0);

                pass &= mpol_path_parse(s, strlen(places[i]), U8, &path,
                                        &used)
                        == (want ? MPOL_OK : MPOL_PATH_SYNTAX);
                pass &= mpol_path_parse(s, strlen(places[i]), 0, &path,
                                        &used)
                        == MPOL_PATH_8BIT;
            }
        }

        ok(pass, "any two octets above 127 in '%s'", places[i]);
    }
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_path(&cases[i]);
    }

    for (i = 0; i < sizeof(domains) / sizeof(domains[0]); i++) {
        test_domain(domains[i].input, domains[i].valid);
    }

    for (i = 0; i < sizeof(locals) / sizeof(locals[0]); i++) {
        test_routed(locals[i].input, locals[i].routed);
    }

    for (i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        test_host(hosts[i].input, hosts[i].clean);
    }

    test_octets();
    test_host_octets();
    test_characters("<", "@b>", 0);
    test_characters("<\"", "\"@b>", 0);
    test_characters("<a@b", "c>", 1);
    test_characters("<@b", "c:a@b>", 1);
    test_pairs();

    return done_testing();
}
