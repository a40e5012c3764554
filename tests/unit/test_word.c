
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_word.h"
#include "tap.h"


static const struct {
    const char  *input;
    int          rc;
    uint64_t     n;
} numbers[] = {
    { "0", MPOL_OK, 0 },
    { "7", MPOL_OK, 7 },
    { "00000000000000000012", MPOL_OK, 12 },
    { "9223372036854775808", MPOL_OK, (uint64_t) INT64_MAX + 1 },
    { "18446744073709551609", MPOL_OK, UINT64_MAX - 6 },
    { "18446744073709551610", MPOL_OK, UINT64_MAX - 5 },
    { "18446744073709551615", MPOL_OK, UINT64_MAX },

    { "18446744073709551616", MPOL_WORD_LONG, 0 },
    { "18446744073709551620", MPOL_WORD_LONG, 0 },
    { "36893488147419103232", MPOL_WORD_LONG, 0 },
    { "99999999999999999999", MPOL_WORD_LONG, 0 },

    { "", MPOL_BAD, 0 },
    { "000000000000000000001", MPOL_BAD, 0 },
    { "184467440737095516150", MPOL_BAD, 0 },
    { "9999999999999999999x", MPOL_BAD, 0 },
    { "x9999999999999999999", MPOL_BAD, 0 },
    { "-1", MPOL_BAD, 0 },
    { "+1", MPOL_BAD, 0 },
    { " 1", MPOL_BAD, 0 },
    { "1 ", MPOL_BAD, 0 },
    { "1.0", MPOL_BAD, 0 },
    { "/", MPOL_BAD, 0 },
    { ":", MPOL_BAD, 0 },
    { "\xc2\xb2", MPOL_BAD, 0 }
};


static const struct {
    const char  *input;
    int          same;
} words[] = {
    { "IPV6:-9", 1 }, { "ipv6:-9", 1 }, { "IpV6:-9", 1 },
    { "", 0 }, { "IPV6:-", 0 }, { "IPV6:-99", 0 }, { "PV6:-9", 0 },
    { "IPV6\x1a-9", 0 }, { "IPV6:\x0d" "9", 0 }, { "IPV6:-\x19", 0 },
    { "\xc9PV6:-9", 0 }, { "\xe9PV6:-9", 0 }
};


static void
test_number(size_t i)
{
    int        rc;
    size_t     len;
    uint8_t   *p;
    uint64_t   n;

    len = strlen(numbers[i].input);
    p = tap_exact(numbers[i].input, len);

    rc = mpol_word_number(p, len, &n);

    if (is_u64((uint64_t) rc, (uint64_t) numbers[i].rc, "number '%s'",
               numbers[i].input)
        && rc == MPOL_OK)
    {
        is_u64(n, numbers[i].n, "  value");
    }

    free(p);
}


static void
test_word(size_t i)
{
    uint8_t     *p;
    mpol_str_t   s;

    s.len = strlen(words[i].input);
    s.data = p = tap_exact(words[i].input, s.len);

    ok(mpol_word_is(&s, "IPV6:-9") == words[i].same, "word '%s'",
       words[i].input);

    free(p);
}


static void
test_keyword(void)
{
    int  c;

    for (c = 0; c < 256; c++) {
        if (mpol_word_octet((uint8_t) c)
            != (c != 0 && strchr("abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-", c)
                          != NULL))
        {
            break;
        }
    }

    is_u64((uint64_t) c, 256, "each octet in a keyword");
}


/* only a letter has another octet that means the same */

static void
test_octets(void)
{
    int         a, b, letter, pass;
    char        upper;
    uint8_t     octet;
    mpol_str_t  s;

    s.data = &octet;
    s.len = 1;

    for (a = 0, pass = 1; a < 256; a++) {
        if (a >= 'a' && a <= 'z') {
            continue;
        }

        upper = (char) a;
        letter = a >= 'A' && a <= 'Z';

        for (b = 0; b < 256; b++) {
            octet = (uint8_t) b;

            pass &= mpol_word_same(&s, &upper, 1)
                    == (b == a || (letter && b == a + 'a' - 'A'));
        }
    }

    ok(pass, "each octet, and each that a word may have");
}


/* len: of the status that the text begins with */

static const struct {
    const char  *text;
    size_t       len;
} statuses[] = {
    { "5.7.1", 5 }, { "4.0.0 x", 5 }, { "2.123.456", 9 }, { "5.7.1x", 5 },
    { "5.7.1.1", 5 }, { "4.22.3\t", 6 },

    { "", 0 }, { "5", 0 }, { "5.7.", 0 }, { "5.7.x", 0 }, { "5.7x1", 0 },
    { "5..1x", 0 }, { "5x7.1", 0 }, { "3.7.1", 0 }, { "1.7.1", 0 },
    { "x.7.1", 0 }, { "55.7.1", 0 }, { "5.1234.1", 0 }, { "5.7.1234", 0 },
    { "5.777", 0 }, { " 5.7.1", 0 }
};


static void
test_status(const char *text, size_t want)
{
    int       pass;
    size_t    len, n;
    uint8_t  *p;

    len = strlen(text);

    for (n = 0, pass = 1; n <= len; n++) {
        p = tap_exact(text, n);
        pass &= (n < len || mpol_word_status(p, n) == want);
        pass &= (mpol_word_status(p, n) <= n);
        pass &= (want == 0 || n < want || mpol_word_status(p, n) == want);
        pass &= (mpol_word_digits(p, n) <= n);
        free(p);
    }

    ok(pass, "the status of '%s'", text);
}


static void
test_digits(void)
{
    ok(mpol_word_digits((const uint8_t *) "0199", 4) == 4
       && mpol_word_digits((const uint8_t *) "0199", 2) == 2
       && mpol_word_digits((const uint8_t *) "1/2", 3) == 1
       && mpol_word_digits((const uint8_t *) ":1", 2) == 0
       && mpol_word_digits(NULL, 0) == 0, "digits at the beginning");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        test_number(i);
    }

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        test_word(i);
    }

    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        test_status(statuses[i].text, statuses[i].len);
    }

    test_digits();
    test_keyword();
    test_octets();

    return done_testing();
}
