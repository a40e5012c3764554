
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_addr.h"
#include "mpol_literal.h"
#include "tap.h"


/* whole literals; as a domain they are the same */

static const struct {
    const char  *input;
    int          valid;
} literals[] = {
    { "[127.0.0.1]", 1 }, { "[255.255.255.255]", 1 }, { "[0.0.0.0]", 1 },
    { "[1.2.3]", 0 }, { "[1.2.3.4.5]", 0 }, { "[1.2.3.256]", 0 },
    { "[1.2.3.]", 0 }, { "[.1.2.3]", 0 }, { "[1..2.3]", 0 }, { "[1.2.3.4", 0 },
    { "[1.2.3.0004]", 0 }, { "[1.2.3.-4]", 0 }, { "[1.2.3.4]]", 0 },
    { "[]", 0 }, { "[", 0 }, { "[ 1.2.3.4]", 0 }, { "[1.2.3.4] ", 0 },

    { "[IPv6:::]", 1 }, { "[IPv6:::1]", 1 }, { "[ipv6:1::]", 1 },
    { "[IPv6:1:2:3:4:5:6:7:8]", 1 }, { "[IPv6:1:2:3:4:5:6:7::]", 1 },
    { "[IPv6:::2:3:4:5:6:7:8]", 1 }, { "[IPv6:ABCD:ef01::1.2.3.4]", 1 },
    { "[IPv6:1:2:3:4:5:6:1.2.3.4]", 1 }, { "[IPv6:::1.2.3.4]", 1 },
    { "[IPv6:]", 0 }, { "[IPv6::]", 0 }, { "[IPv6:1]", 0 },
    { "[IPv6:1:2:3:4:5:6:7]", 0 }, { "[IPv6:1:2:3:4:5:6:7:8:9]", 0 },
    { "[IPv6:1:2:3:4:5:6:7:8::]", 0 }, { "[IPv6:::1:2:3:4:5:6:7:8]", 0 },
    { "[IPv6:1::2::3]", 0 }, { "[IPv6:1:::2]", 0 }, { "[IPv6:12345::]", 0 },
    { "[IPv6:g::]", 0 }, { "[IPv6:1:2:3:4:5:6:7:]", 0 },
    { "[IPv6::1:2:3:4:5:6:7]", 0 }, { "[IPv6:1.2.3.4]", 0 },
    { "[IPv6:1:2:3:4:5:6:7:1.2.3.4]", 0 }, { "[IPv6:::1.2.3]", 0 },
    { "[IPv6:::1.2.3.4:5]", 0 }, { "[IPv6 ::1]", 0 }, { "[::1]", 0 },
    { "[IPv6:fe80::1%eth0]", 0 }
};


/* what may stand behind one */

static const struct {
    const char  *input;
    size_t       len;
} prefixes[] = {
    { "[192.0.2.1]>", 11 },
    { "[192.0.2.1]]", 11 },
    { "[192.0.2.1][IPv6:::1]", 11 },
    { "[IPv6:::1]> SIZE=1", 10 },
    { "[IPv6:::1].example", 10 },

    { "192.0.2.1]", 0 },
    { "[192.0.2.1>]", 0 },
    { " [192.0.2.1]", 0 },
    { "[[192.0.2.1]]", 0 },
    { "[IPv6]:1]", 0 },
    { "[IPv6:]::1]", 0 },
    { "", 0 }
};


static void
test_literal(const char *input, int valid)
{
    size_t    len, n;
    uint8_t  *p;

    len = strlen(input);

    for (n = 0; n < len; n++) {
        p = tap_exact(input, n);
        (void) mpol_domain_valid(p, n);
        (void) mpol_literal_scan(p, n);
        free(p);
    }

    p = tap_exact(input, len);

    ok(mpol_domain_valid(p, len) == valid, "'%s' is %s", input,
       valid ? "a domain" : "no domain");
    ok((mpol_literal_scan(p, len) == len) == valid, "  and %s literal",
       valid ? "a" : "no");

    free(p);
}


static void
test_prefix(const char *input, size_t want)
{
    int       pass;
    size_t    len, n;
    uint8_t  *p;

    len = strlen(input);

    for (n = 0, pass = 1; n <= len; n++) {
        p = tap_exact(input, n);
        pass &= mpol_literal_scan(p, n) == (n < want ? 0 : want);
        free(p);
    }

    ok(pass, "'%s' begins with %u octets of one, at each length", input,
       (unsigned) want);
}


/* each number there may be, and each one digit more or less */

static void
test_numbers(void)
{
    int       pass;
    char      s[64];
    size_t    n;
    unsigned  i;

    for (i = 0, pass = 1; i < 1100; i++) {
        n = (size_t) sprintf(s, "[1.%u.3.4]", i);
        pass &= (mpol_literal_scan((uint8_t *) s, n) == n) == (i < 256);

        n = (size_t) sprintf(s, "[IPv6:1::2.3.%u.4]", i);
        pass &= (mpol_literal_scan((uint8_t *) s, n) == n) == (i < 256);
    }

    ok(pass, "IPv4: each number");

    for (i = 0, pass = 1; i < 0x11000; i++) {
        n = (size_t) sprintf(s, "[IPv6:1:%x::]", i);
        pass &= (mpol_literal_scan((uint8_t *) s, n) == n) == (i < 0x10000);
    }

    ok(pass, "IPv6: each group");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        test_literal(literals[i].input, literals[i].valid);
    }

    for (i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        test_prefix(prefixes[i].input, prefixes[i].len);
    }

    test_numbers();

    return done_testing();
}
