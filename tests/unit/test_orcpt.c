
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_orcpt.h"
#include "tap.h"


#define UML  "\xc3\xa4"


/* an address of type "utf-8"; an "8" in front: only where UTF-8 may be */

static const struct {
    const char  *address;
    int          valid;
} addresses[] = {
    { "a@b", 1 },
    { "\\x{E4}", 1 },
    { "\\x{e4}\\x{E4}", 1 },
    { "j\\x{F6}rg@ex\\x{e4}mple.com", 1 },
    { "\\x{A0}", 1 },
    { "\\x{FFF}", 1 },
    { "\\x{20AC}", 1 },
    { "\\x{D7FF}\\x{E000}", 1 },
    { "\\x{1F600}", 1 },
    { "\\x{10FFFF}", 1 },
    { "\\x{fFfF}@b", 1 },
    { "\\x{20}\\x{2B}\\x{3D}\\x{5C}", 1 },
    { "+20\\x{E4}+2B", 1 },
    { "x{E4}", 1 },
    { "{}x", 1 },

    /* control characters */
    { "\\x{00}", 0 },
    { "\\x{01}", 0 },
    { "\\x{09}", 0 },
    { "\\x{0A}", 0 },
    { "\\x{0D}\\x{0A}", 0 },
    { "a\\x{1F}@b", 0 },
    { "\\x{7F}", 0 },
    { "\\x{80}", 0 },
    { "\\x{85}", 0 },
    { "\\x{9F}", 0 },

    /* no characters */
    { "\\x{D800}", 0 },
    { "\\x{DBFF}", 0 },
    { "\\x{DC00}", 0 },
    { "\\x{dfff}", 0 },
    { "\\x{110000}", 0 },
    { "\\x{FFFFFF}", 0 },

    /* what needs not to be embedded, and what has zeros in front */
    { "\\x{21}", 0 },
    { "\\x{40}", 0 },
    { "\\x{41}", 0 },
    { "\\x{7E}", 0 },
    { "\\x{020}", 0 },
    { "\\x{0E4}", 0 },
    { "\\x{00E4}", 0 },
    { "\\x{0000E4}", 0 },
    { "\\x{0020AC}", 0 },
    { "\\x{00000A}", 0 },

    /* malformed */
    { "\\", 0 },
    { "\\x", 0 },
    { "\\x{", 0 },
    { "\\x{E", 0 },
    { "\\x{E4", 0 },
    { "\\x{E4@b", 0 },
    { "\\x{}", 0 },
    { "\\x{A}", 0 },
    { "\\x{ E4}", 0 },
    { "\\x{G4}", 0 },
    { "\\x{E4g}", 0 },
    { "\\x{+41}", 0 },
    { "\\x{-1}", 0 },
    { "\\x{E4)", 0 },
    { "\\x(E4}", 0 },
    { "\\x{{E4}}", 0 },
    { "\\x{1000000}", 0 },
    { "\\x{10000000A}", 0 },
    { "\\x{10FFFF0}", 0 },
    { "\\X{E4}", 0 },
    { "\\u{E4}", 0 },
    { "\\E4", 0 },
    { "\\\\x{E4}", 0 },
    { "\"a\\\"b\"@c", 0 },
    { "\\\x7f{E4}", 0 },

    /* what would be "\\x{0A}" when it is decoded */
    { "+5Cx{0A}", 0 },
    { "+5Cx{E4}", 0 },
    { "+5C+78+7B0A+7D", 0 },
    { "\\+78{0A}", 0 },
    { "\\x+7B0A}", 0 },
    { "\\x{0A+7D", 0 },
    { "a+5C", 0 },
    { "\\x{5C}x{0A}", 1 },

    { "8" UML "\\x{E4}@" UML, 1 },
    { "8\\x{E4}" UML "+20" UML "\\x{20}", 1 },
    { "8" UML "\\x{0A}", 0 },
    { "8\\" UML "x{E4}", 0 },
    { "8\\x{" UML "}", 0 },
    { "8\\x{E4" UML, 0 },
    { "8" UML "+5C", 0 },
    { "8\xc3\\x{E4}\xa4", 0 }
};


static int
has_form(uint32_t c)
{
    return c == 0x20 || c == 0x2b || c == 0x3d || c == 0x5c
           || (c >= 0xa0 && c < 0xd800) || (c > 0xdfff && c < 0x110000);
}


static int
check(const char *type, const char *address, size_t len, int eightbit)
{
    int          rc;
    char        *p;
    mpol_str_t   s;

    s.len = strlen(type) + len;
    p = malloc(s.len ? s.len : 1);
    if (p == NULL) {
        abort();
    }

    memcpy(p, type, strlen(type));
    memcpy(p + strlen(type), address, len);
    s.data = (uint8_t *) p;

    rc = mpol_orcpt_check(&s, eightbit);

    free(p);

    return rc;
}


static void
test_address(const char *address, int valid)
{
    int     only, want;
    size_t  len, n;

    only = address[0] == '8';
    address += only;
    len = strlen(address);
    want = valid ? MPOL_OK : MPOL_BAD;

    for (n = 0; n < len; n++) {
        (void) check("utf-8;", address, n, 1);
        (void) check("utf-8;", address, n, 0);
    }

    ok(check("utf-8;", address, len, 1) == want
       && check("UTF-8;", address, len, 0) == (only ? MPOL_BAD : want),
       "STATE-7 ORCPT=utf-8;%s is %s", address, valid ? "valid" : "refused");
}


/* in as few digits as each has, but two at least */

static void
test_points(void)
{
    int       n;
    char      s[32];
    uint32_t  c;

    for (c = 0; c < 0x111000; c++) {
        n = sprintf(s, (c & 1) ? "a\\x{%02x}b" : "\\x{%02X}",
                    (unsigned) c);

        if (check("utf-8;", s, (size_t) n, 0)
            != (has_form(c) ? MPOL_OK : MPOL_BAD))
        {
            break;
        }
    }

    is_u64(c, 0x111000, "STATE-7 each code point");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        test_address(addresses[i].address, addresses[i].valid);
    }

    test_points();

    ok(check("rfc822;", "\\x{0A}\\", 7, 1) == MPOL_OK,
       "other types are not looked into");
    ok(check("utf-8;", "", 0, 1) == MPOL_BAD, "an address is needed");
    ok(check("", "", 0, 1) == MPOL_BAD, "a type is needed");

    return done_testing();
}
