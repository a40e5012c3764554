
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_top.h"
#include "tap.h"


#define NOW   1000
#define HOUR  3600


static const struct {
    const char  *text;
    size_t       max;
    size_t       kept;
} cuts[] = {
    { "", 0, 0 },
    { "", 4, 0 },
    { "abcd", 4, 4 },
    { "abcde", 4, 4 },
    { "abcde", 0, 0 },
    { "abc\xc3\xa4", 5, 5 },
    { "abc\xc3\xa4", 4, 3 },
    { "abc\xc3\xa4", 3, 3 },
    { "a\xe2\x82\xac", 3, 1 },
    { "a\xe2\x82\xac", 2, 1 },
    { "a\xe2\x82\xac" "b", 4, 4 },
    { "a\xf0\x9f\x93\xa7", 4, 1 },
    { "a\xf0\x9f\x93\xa7", 2, 1 },
    { "a\xf0\x9f\x93\xa7", 1, 1 },
    { "\xf0\x9f\x93\xa7", 3, 0 },

    /* no UTF-8: as octets */
    { "\x80\x80\x80\x80\x80\x80", 5, 5 },
    { "\x80\x80\x80", 2, 2 },
    { "a\x80\x80\x80\x80\x80", 5, 5 }
};


static mpol_top_t  top;
static uint8_t     order[MPOL_TOP_ENTRIES];


static mpol_str_t
text(const char *s)
{
    mpol_str_t  str;

    str.data = (const uint8_t *) s;
    str.len = strlen(s);

    return str;
}


static int
add(const char *what, const char *who, uint64_t now)
{
    mpol_str_t  a, b;

    a = text(what);
    b = text(who);

    return mpol_top_add(&top, &a, &b, now, now + HOUR);
}


static int
put(const char *who, uint64_t used, uint64_t max)
{
    mpol_str_t  a, b;

    a = text("user messages");
    b = text(who);

    return mpol_top_put(&top, &a, &b, used, max, NOW, NOW + HOUR);
}


static int
add_number(unsigned n, uint64_t now)
{
    char  name[32];

    snprintf(name, sizeof(name), "single-%u", n);

    return add("limit client", name, now);
}


/* what the table says at a place of its order; NULL: it ends before */

static const mpol_top_entry_t *
at(size_t place, mpol_top_order_e by, uint64_t now)
{
    return place < mpol_top_list(&top, by, now, order)
           ? &top.entries[order[place]] : NULL;
}


static void
is_at(size_t place, mpol_top_order_e by, const char *who, uint64_t used)
{
    const mpol_top_entry_t  *e;

    e = at(place, by, NOW);

    if (!ok(e != NULL, "there is one at place %u", (unsigned) place)) {
        return;
    }

    is_mem(e->who, e->who_len, who, strlen(who), "it is %s", who);
    is_u64(e->used, used, "and its number");
}


static void
begin(void)
{
    memset(&top, 0, sizeof(mpol_top_t));
}


static void
test_cut(size_t i)
{
    size_t    len;
    uint8_t  *p;

    len = strlen(cuts[i].text);
    p = tap_exact(cuts[i].text, len);

    is_u64(mpol_top_cut(p, len, cuts[i].max), cuts[i].kept,
           "%u of '%s'", (unsigned) cuts[i].max, cuts[i].text);

    free(p);
}


static void
test_counts(void)
{
    begin();

    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, 0, order), 0,
           "nothing is in it");

    add("limit user", "alice", NOW - 20);
    add("limit user", "bob", NOW - 19);
    add("limit client", "bob", NOW - 18);
    add("limit user", "bob", NOW - 10);
    add("limit user", "Bob", NOW - 5);

    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW, order), 4,
           "pairs are told apart by both, and by case");

    is_at(0, MPOL_TOP_BY_COUNT, "bob", 2);
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW)->first, NOW - 19, "first");
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW)->last, NOW - 10, "last");

    is_at(1, MPOL_TOP_BY_COUNT, "Bob", 1);
    is_at(2, MPOL_TOP_BY_COUNT, "bob", 1);
    is_at(3, MPOL_TOP_BY_COUNT, "alice", 1);

    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW - 20 + HOUR, order), 3,
           "an entry is over when its time has come");
    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW + HOUR, order), 0,
           "and so are all");

    add("limit user", "bob", NOW + HOUR);
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW + HOUR)->used, 1,
           "who comes again later begins anew");

    begin();
    add("ab", "c", NOW);
    add("a", "bc", NOW);
    add("", "abc", NOW);
    add("abc", "", NOW);
    add("", "", NOW);
    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW, order), 5,
           "where the texts meet matters");
}


static void
test_long(void)
{
    char        name[MPOL_TOP_WHO + 4];
    uint8_t    *p;
    mpol_str_t  what, who;

    begin();

    memset(name, 'a', sizeof(name));
    what = text("limit user");

    who.len = sizeof(name);
    p = tap_exact(name, sizeof(name));
    who.data = p;

    mpol_top_add(&top, &what, &who, NOW, NOW + 1);
    mpol_top_add(&top, &what, &who, NOW, NOW + 1);

    p[MPOL_TOP_WHO + 1] = 'b';
    mpol_top_add(&top, &what, &who, NOW, NOW + 1);

    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW, order), 2,
           "what is cut off tells pairs apart");
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW)->used, 2, "counts");
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW)->who_len, MPOL_TOP_WHO, "cut");

    /* the last character that begins within it does not end there */

    memcpy(p + MPOL_TOP_WHO - 1, "\xc3\xa4", 2);
    mpol_top_add(&top, &what, &who, NOW + 1, NOW + 2);

    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW + 1)->who_len, MPOL_TOP_WHO - 1,
           "cut between characters");

    mpol_top_add(&top, &who, &what, NOW + 2, NOW + 3);
    is_u64(at(0, MPOL_TOP_BY_COUNT, NOW + 2)->what_len, MPOL_TOP_WHAT,
           "the reason, too");

    free(p);
}


static const mpol_top_entry_t *
find(const char *who, uint64_t now)
{
    size_t  i, n;

    n = mpol_top_list(&top, MPOL_TOP_BY_COUNT, now, order);

    for (i = 0; i < n; i++) {
        if (top.entries[order[i]].who_len == strlen(who)
            && memcmp(top.entries[order[i]].who, who, strlen(who)) == 0)
        {
            return &top.entries[order[i]];
        }
    }

    return NULL;
}


/* one that comes often among many who come once */

static void
test_flood(void)
{
    unsigned                 i;
    const mpol_top_entry_t  *e;

    begin();

    for (i = 0; i < 100000; i++) {
        add_number(i, NOW + i / 100);

        if (i % 100 == 99) {
            add("limit user", "heavy", NOW + i / 100);
        }
    }

    e = at(0, MPOL_TOP_BY_COUNT, NOW + 1000);
    is_mem(e->who, e->who_len, "heavy", 5, "one in 100 is first");
    ok(e->used >= 800 && e->used <= 1000, "and nearly all are counted: %u",
       (unsigned) e->used);

    e = at(1, MPOL_TOP_BY_COUNT, NOW + 1000);
    is_u64(e->used, 1, "nobody else is said to have come twice");
    is_u64(mpol_top_list(&top, MPOL_TOP_BY_COUNT, NOW + 1000, order),
           MPOL_TOP_ENTRIES, "all entries are in use");

    /* and one that has gone before they come */

    begin();

    for (i = 0; i < 100; i++) {
        add("limit user", "heavy", NOW);
    }

    for (i = 0; i < 100000; i++) {
        add_number(i, NOW + i / 100);
    }

    e = find("heavy", NOW + 1000);
    ok(e != NULL && e->used == 100, "a flood does not push it out");

    /* who comes first has no better right */

    begin();

    for (i = 0; i < MPOL_TOP_ENTRIES; i++) {
        add_number(i, NOW);
    }

    is_u64((uint64_t) add("limit user", "late", NOW + 1), MPOL_OK,
           "among those that came once there is room");
    ok(find("late", NOW + 1) != NULL, "for one that comes now");
    ok(find("single-0", NOW + 1) == NULL, "instead of the first");
}


static void
test_put(void)
{
    char      name[32];
    unsigned  i;

    begin();

    put("alice", 90, 100);
    put("bob", 1000, 1000);
    put("carol", 8, 10);
    put("blocked", 1, 0);
    put("dave", 90000, 100000);

    is_at(0, MPOL_TOP_BY_SHARE, "blocked", 1);
    is_at(1, MPOL_TOP_BY_SHARE, "bob", 1000);
    is_at(2, MPOL_TOP_BY_SHARE, "alice", 90);
    is_at(3, MPOL_TOP_BY_SHARE, "dave", 90000);
    is_at(4, MPOL_TOP_BY_SHARE, "carol", 8);

    put("carol", 11, 10);
    is_at(1, MPOL_TOP_BY_SHARE, "carol", 11);

    put("carol", 9, 100);
    is_at(4, MPOL_TOP_BY_SHARE, "carol", 9);
    is_u64(at(4, MPOL_TOP_BY_SHARE, NOW)->max, 100, "the newest values stand");

    put("huge", UINT64_MAX, UINT64_MAX);
    put("large", ((uint64_t) 1 << 40) - 1, (uint64_t) 1 << 40);
    is_at(1, MPOL_TOP_BY_SHARE, "bob", 1000);
    is_at(2, MPOL_TOP_BY_SHARE, "huge", (uint64_t) 1 << 53);
    is_at(3, MPOL_TOP_BY_SHARE, "large", ((uint64_t) 1 << 40) - 1);

    begin();

    for (i = 0; i < MPOL_TOP_ENTRIES; i++) {
        snprintf(name, sizeof(name), "user-%u", i);
        put(name, 100 + i, 200);
    }

    is_u64((uint64_t) put("low", 99, 200), (uint64_t) MPOL_BAD,
           "where all are fuller there is no room");
    is_u64((uint64_t) put("high", 190, 200), MPOL_OK, "a fuller one gets it");

    is_at(0, MPOL_TOP_BY_SHARE, "high", 190);
    is_at(MPOL_TOP_ENTRIES - 1, MPOL_TOP_BY_SHARE, "user-1", 101);
    is_u64((uint64_t) put("user-1", 1, 200), MPOL_OK,
           "who is in it may become less full");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        test_cut(i);
    }

    test_counts();
    test_long();
    test_flood();
    test_put();

    return done_testing();
}
