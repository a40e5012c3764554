
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_once.h"
#include "tap.h"


static mpol_once_t  once;


static void
is_once(uint64_t hash, uint64_t now, uint64_t until, int expected,
    const char *what)
{
    is_u64((uint64_t) mpol_once(&once, hash, now, until), (uint64_t) expected,
           "%s", what);
}


static uint64_t
hash(const char *a, size_t a_len, const char *b, size_t b_len)
{
    uint8_t    *p, *q;
    uint64_t    h;
    mpol_str_t  one, other;

    p = tap_exact(a, a_len);
    q = tap_exact(b, b_len);

    one.data = p;
    one.len = a_len;
    other.data = q;
    other.len = b_len;

    h = mpol_once_hash(&one, &other);

    free(p);
    free(q);

    return h;
}


static void
test_time(void)
{
    memset(&once, 0, sizeof(mpol_once_t));

    is_once(7, 100, 200, 1, "the first time");
    is_once(7, 100, 200, 0, "not again");
    is_once(7, 199, 500, 0, "nor at the end, and that is not put off");
    is_once(8, 150, 250, 1, "another one");
    is_once(7, 200, 300, 1, "again when its time is over");
    is_once(7, 299, 400, 0, "once");
    is_once(0, 0, 10, 1, "no hash is special");
    is_once(0, 9, 20, 0, "not even 0");
}


/* all in one set: the one that ends first goes */

static void
test_full(void)
{
    uint64_t  i;

    memset(&once, 0, sizeof(mpol_once_t));

    for (i = 0; i < MPOL_ONCE_WAYS; i++) {
        is_once(i * MPOL_ONCE_SETS, 1, 100 - i, 1, "there is room");
    }

    is_once(i * MPOL_ONCE_SETS, 1, 100, 1, "one too many is known, too");
    is_once(i * MPOL_ONCE_SETS, 2, 100, 0, "from then on");

    for (i = 0; i < MPOL_ONCE_WAYS - 1; i++) {
        is_once(i * MPOL_ONCE_SETS, 2, 100, 0, "others stay");
    }

    is_once(i * MPOL_ONCE_SETS, 2, 100, 1, "the one that ended first is gone");
}


static void
test_many(void)
{
    char      text[32];
    int       n;
    uint64_t  i, twice;

    memset(&once, 0, sizeof(mpol_once_t));
    twice = 0;

    for (i = 0; i < 2 * 1000; i++) {
        n = snprintf(text, sizeof(text), "user:{user-%u@example.com}",
                     (unsigned) (i % 1000));
        twice += (uint64_t) mpol_once(&once, hash("messages", 8, text,
                                                  (size_t) n), i, 5000);
    }

    ok(twice >= 1000 && twice < 1030, "1000 keys, each once, or nearly: %u",
       (unsigned) twice);
}


int
main(void)
{
    test_time();
    test_full();
    test_many();

    ok(hash("ab", 2, "c", 1) != hash("a", 1, "bc", 2),
       "where the texts meet matters");
    ok(hash("", 0, "", 0) == hash("", 0, "", 0), "nothing has a hash");

    return done_testing();
}
