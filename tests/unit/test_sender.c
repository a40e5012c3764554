
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_sender.h"
#include "tap.h"


static const struct {
    const char  *list;
    const char  *address;
    int          owned;
} matches[] = {
    { "", "alice@example.com", 0 },
    { "alice@example.com", "alice@example.com", 1 },
    { "alice@example.com", "bob@example.com", 0 },
    { "alice@example.com", "alice@example.co", 0 },
    { "alice@example.com", "alice@example.com.evil.example", 0 },
    { "alice@example.com", "malice@example.com", 0 },

    { "alice@example.com", "Alice@Example.COM", 1 },
    { "ALICE@EXAMPLE.com", "alice@example.com", 1 },
    { "al[ce@example.com", "al{ce@example.com", 0 },
    { "@example.c\xc3\xa4", "a@example.c\xc3\xa4", 1 },
    { "@example.c\xc3\xa4", "a@example.c\xc3\x84", 0 },

    { "@example.com", "anybody@example.com", 1 },
    { "@example.com", "anybody@EXAMPLE.com", 1 },
    { "@example.com", "anybody@mail.example.com", 0 },
    { "@example.com", "anybody@badexample.com", 0 },
    { "@example.com", "anybody@example.com.", 0 },
    { "example.com", "anybody@example.com", 0 },
    { "@example.com", "\"x@example.com\"@evil.example", 0 },
    { "@example.com", "\"x@evil.example\"@example.com", 1 },
    { "@evil.example", "\"x@example.com\"@evil.example", 1 },
    { "@[192.0.2.1]", "root@[192.0.2.1]", 1 },
    { "@example.com", "x%evil.example@example.com", 1 },
    { "alice@example.com", "\"alice\"@example.com", 0 },
    { "\"alice\"@example.com", "\"alice\"@example.com", 1 },

    { "a@x b@x", "b@x", 1 },
    { "a@x,b@x", "b@x", 1 },
    { " a@x ,\t b@x ,, ", "b@x", 1 },
    { "a@x\r\nb@x\n", "b@x", 1 },
    { ",,,", "b@x", 0 },
    { "a@x b@xx", "b@x", 0 },
    { "a@xb@x", "b@x", 0 },
    { "other@x @y b@x", "z@y", 1 },
    { "other@x @y b@x", "other@y", 1 },
    { "other@x @y b@x", "z@x", 0 },

    /* wildcards */

    { "*", "a@x", 1 }, { "*", "\"a@b\"@x", 1 }, { "*", "a", 0 },
    { "*", "", 0 }, { "*", "@x", 0 }, { "*", "a@", 0 }, { "b@x *", "a@x", 1 },

    { "*@example.com", "anybody@EXAMPLE.com", 1 },
    { "*@example.com", "\"x@evil.example\"@example.com", 1 },
    { "*@example.com", "\"x@example.com\"@evil.example", 0 },
    { "*@example.com", "anybody@mail.example.com", 0 },
    { "*@example.com", "anybody@badexample.com", 0 },
    { "*@example.com", "@example.com", 0 },

    { "alice+*@example.com", "alice+news@example.com", 1 },
    { "alice+*@example.com", "Alice+News@Example.com", 1 },
    { "alice+*@example.com", "alice+@example.com", 1 },
    { "alice+*@example.com", "alice+a+b@example.com", 1 },
    { "alice+*@example.com", "alice@example.com", 0 },
    { "alice+*@example.com", "malice+a@example.com", 0 },
    { "alice+*@example.com", "alice+a@example.net", 0 },
    { "alice+*@example.com", "alice+a@mail.example.com", 0 },
    { "alice+*@example.com", "alice+a@example.com@example.com", 0 },
    { "*-bounces@example.com", "list-bounces@example.com", 1 },
    { "*-bounces@example.com", "-bounces@example.com", 1 },
    { "*-bounces@example.com", "bounces@example.com", 0 },
    { "ab*ba@x", "abba@x", 1 }, { "ab*ba@x", "aba@x", 0 },
    { "ab*ba@x", "abxba@x", 1 }, { "ab*ba@x", "abab@x", 0 },
    { "\"*\"@x", "\"a b\"@x", 1 }, { "\"*\"@x", "\"a@b\"@x", 0 },
    { "\"*\"@x", "\"@x", 0 },

    { "@*.example.com", "a@mail.example.com", 1 },
    { "@*.example.com", "a@a.b.EXAMPLE.com", 1 },
    { "@*.example.com", "a@example.com", 0 },
    { "@*.example.com", "a@badexample.com", 0 },
    { "@*.example.com", "a@mail.example.com.evil.example", 0 },
    { "@*.example.com", "\"a@mail.example.com\"@evil.example", 0 },
    { "@*.example.com", "\"a@evil.example\"@mail.example.com", 1 },
    { "*@*.example.com", "a@mail.example.com", 1 },
    { "@mail*.example.com", "a@mail.example.com", 1 },
    { "@mail*.example.com", "a@mail12.example.com", 1 },
    { "@mail*.example.com", "a@nomail.example.com", 0 },
    { "@example.*", "a@example.org", 1 }, { "@example.*", "a@example", 0 },
    { "alice@*", "alice@any.example", 1 },
    { "alice@*", "bob@any.example", 0 },
    { "alice@*", "\"alice@\"@any.example", 0 },
    { "@*", "a@x", 1 }, { "*@*", "a@x", 1 }, { "@*", "@x", 0 },
    { "@*", "a@", 0 }, { "a*c@*.x", "abc@y.x", 1 },
    { "a*c@*.x", "abd@y.x", 0 },
    { "a@x*", "a*@x", 0 }, { "a*@x", "a*@x", 1 },

    /* what is no address matches nothing, and hides nothing */

    { "@", "a@x", 0 }, { "@ a@x", "a@x", 1 }, { "a@ a@x", "a@x", 1 },
    { "@y@x", "a@x", 0 }, { "**", "a@x", 0 }, { "**@x", "a@x", 0 },
    { "*a*@x", "a@x", 0 }, { "a@**", "a@x", 0 }, { "a@*x*", "a@x", 0 },
    { "@*.*", "a@x.y", 0 }, { "*@", "a@x", 0 }, { "a*", "a@x", 0 },
    { "*@y@x", "a@x", 0 }, { "** b@x", "b@x", 1 },
    { "a\x01@x", "a\x01@x", 0 }, { "a\x7f@x", "a\x7f@x", 0 },
    { "alice", "alice", 0 }, { "@x", "@x", 0 }, { "@x", "x", 0 },
    { "@x", "", 0 }, { "", "", 0 }, { "@", "@", 0 }
};


static const struct {
    const char  *list;
    int          rc;
} checks[] = {
    { "", MPOL_OK },
    { " , ", MPOL_OK },
    { "a@x, @y", MPOL_OK },
    { "\"a@b\"@y", MPOL_OK },
    { "a@x b", MPOL_SENDERS_ENTRY },
    { "b a@x", MPOL_SENDERS_ENTRY },
    { "example.com", MPOL_SENDERS_ENTRY },
    { "@", MPOL_SENDERS_ENTRY },
    { "a@", MPOL_SENDERS_ENTRY },
    { "@a@b", MPOL_SENDERS_ENTRY },
    { "*", MPOL_OK },
    { "*@x, @*.y a*b@c*d", MPOL_OK },
    { "**", MPOL_SENDERS_ENTRY },
    { "*a", MPOL_SENDERS_ENTRY },
    { "*@", MPOL_SENDERS_ENTRY },
    { "**@x", MPOL_SENDERS_ENTRY },
    { "a*b*@x", MPOL_SENDERS_ENTRY },
    { "@*.*", MPOL_SENDERS_ENTRY },
    { "*@*x*", MPOL_SENDERS_ENTRY },
    { "@*@x", MPOL_SENDERS_ENTRY },
    { "*\x02@b", MPOL_SENDERS_ENTRY },
    { "a\x02@b", MPOL_SENDERS_ENTRY },
    { "\"a b\"@x", MPOL_SENDERS_ENTRY }
};


static void
test_match(const char *list, const char *address, int owned)
{
    int       pass;
    size_t    len, n, i;
    uint8_t  *l, *a;

    len = strlen(list);
    n = strlen(address);

    l = tap_exact(list, len);
    a = tap_exact(address, n);

    ok(mpol_senders_match(l, len, a, n) == owned, "'%s' %s '%s'", list,
       owned ? "owns" : "does not own", address);

    /* cut anywhere: nothing is read behind the end */

    for (i = 0, pass = 1; i < n; i++) {
        pass &= mpol_senders_match(l, len, a, i) >= 0;
    }

    free(l);

    for (i = 0; i < len; i++) {
        l = tap_exact(list, i);
        pass &= mpol_senders_match(l, i, a, n) >= 0;
        pass &= mpol_senders_check(l, i) >= 0;
        free(l);
    }

    ok(pass, "  and cut at each octet");

    free(a);
}


static void
test_check(const char *list, int rc)
{
    size_t    len;
    uint8_t  *l;

    len = strlen(list);
    l = tap_exact(list, len);

    ok(mpol_senders_check(l, len) == rc, "check of '%s': %d", list, rc);

    free(l);
}


/* as many as there may be, and one more */

static void
test_bounds(void)
{
    size_t    i;
    uint8_t   list[MPOL_SENDERS_MAX + 1];

    memset(list, ' ', sizeof(list));
    memcpy(list + MPOL_SENDERS_MAX - 3, "a@x ", 4);

    ok(mpol_senders_match(list, MPOL_SENDERS_MAX, list + sizeof(list) - 4, 3)
       == 1, "a list of all the octets that it may have");
    ok(mpol_senders_match(list, MPOL_SENDERS_MAX + 1,
                          list + sizeof(list) - 4, 3)
       == 0, "one more: nobody's");
    ok(mpol_senders_check(list, MPOL_SENDERS_MAX + 1) == MPOL_SENDERS_LONG,
       "  and is told");

    for (i = 0; i <= MPOL_SENDERS_ENTRIES; i++) {
        memcpy(list + 4 * i, i + 1 < MPOL_SENDERS_ENTRIES ? "b@x " : "a@x ",
               4);
    }

    ok(mpol_senders_match(list, 4 * MPOL_SENDERS_ENTRIES,
                          (const uint8_t *) "a@x", 3)
       == 1, "as many entries as there may be");
    ok(mpol_senders_check(list, 4 * MPOL_SENDERS_ENTRIES) == MPOL_OK,
       "  are right");
    ok(mpol_senders_match(list, 4 * (MPOL_SENDERS_ENTRIES + 1),
                          (const uint8_t *) "a@x", 3)
       == 0, "one more: nobody's");
    ok(mpol_senders_check(list, 4 * (MPOL_SENDERS_ENTRIES + 1))
       == MPOL_SENDERS_LONG, "  and is told");
}


static void
test_same(void)
{
    ok(mpol_sender_same((const uint8_t *) "A@x", 3, (const uint8_t *) "a@X",
                        3)
       == 1, "the same in any case");
    ok(mpol_sender_same((const uint8_t *) "a@x", 3, (const uint8_t *) "a@xy",
                        4)
       == 0, "not the same: longer");
    ok(mpol_sender_same((const uint8_t *) "a@x", 3, (const uint8_t *) "b@x",
                        3)
       == 0, "not the same");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(matches) / sizeof(matches[0]); i++) {
        test_match(matches[i].list, matches[i].address, matches[i].owned);
    }

    for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        test_check(checks[i].list, checks[i].rc);
    }

    test_bounds();
    test_same();

    return done_testing();
}
