
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Usage: test_set [vectors], tests/vectors/sets.txt by default; and what
 * callers with little memory see.
 */


#include "mpol_set.h"
#include "tap.h"


#define MEMBERS  16


typedef struct {
    mpol_set_t        leases;
    mpol_set_t        failed;
    mpol_set_t        exempt;
    mpol_set_entry_t  entries[3][MEMBERS];
    mpol_rate_t       rate;
} run_t;


static uint64_t
number(const char *text)
{
    return strcmp(text, "never") ? strtoull(text, NULL, 10) : MPOL_NEVER;
}


static uint64_t
tag(const char *text)
{
    return strtoull(text, NULL, 16);
}


static void
init(mpol_set_t *s, mpol_set_entry_t *entries, size_t max)
{
    s->entries = entries;
    s->max = max;
    s->n = 0;
}


static void
reset(run_t *r)
{
    init(&r->leases, r->entries[0], MEMBERS);
    init(&r->failed, r->entries[1], MEMBERS);
    init(&r->exempt, r->entries[2], MEMBERS);
}


static void
judged(const char *line, const mpol_decision_t *d, char word[][32])
{
    ok(d->fits == number(word[0]) && d->used == number(word[1])
       && d->remaining == number(word[2]) && d->retry == number(word[3]),
       "%s (%u %llu %llu %llu)", line, (unsigned) d->fits,
       (unsigned long long) d->used, (unsigned long long) d->remaining,
       (unsigned long long) d->retry);
}


static void
vector_lease(run_t *r, char word[][32], const char *line)
{
    uint64_t         now, member;
    mpol_decision_t  d;

    now = number(word[0]);
    member = tag(word[1]);

    (void) mpol_lease_check(&r->leases, &r->rate, now, member, 1, &d);

    if (d.fits) {
        (void) mpol_lease_charge(&r->leases, &r->rate, now, member, 0, &d);
    }

    judged(line, &d, word + 2);
}


static void
vector_fail(run_t *r, char word[][32], const char *line)
{
    uint64_t           now, member;
    mpol_decision_t    d;
    mpol_set_entry_t  *e;

    now = number(word[0]);
    member = tag(word[1]);
    e = mpol_set_find(&r->exempt, tag(word[2]));

    (void) mpol_failed_check(&r->failed, &r->rate, e && e->expires > now, now,
                             member, 1, &d);

    if (d.fits) {
        (void) mpol_failed_charge(&r->failed, &r->rate, now, member, 0, &d);
    }

    judged(line, &d, word + 3);
}


/* back NOW AT TAG CLIENT; login the same */

static void
vector_back(run_t *r, char word[][32], unsigned login)
{
    (void) mpol_failed_give_back(&r->failed, &r->rate, number(word[1]),
                                 tag(word[2]), login);

    if (login && r->rate.kind == MPOL_RATE_WINDOW) {
        (void) mpol_set_put(&r->exempt, tag(word[3]),
                            number(word[0]) + r->rate.period, 0);
    }
}


static int
by_expiry(const void *one, const void *two)
{
    const mpol_set_entry_t  *a = one, *b = two;

    if (a->expires != b->expires) {
        return a->expires < b->expires ? -1 : 1;
    }

    return a->member < b->member ? -1 : a->member > b->member;
}


static void
vector_kept(run_t *r, char word[][32], const char *line)
{
    size_t            i, n;
    char              text[1024];
    const char       *want;
    mpol_set_t       *s;
    mpol_set_entry_t  sorted[MEMBERS];

    s = strcmp(word[0], "leases") == 0 ? &r->leases
        : strcmp(word[0], "failed") == 0 ? &r->failed : &r->exempt;

    for (i = 1; i < s->n; i++) {
        if (s->entries[i - 1].expires > s->entries[i].expires) {
            ok(0, "%s: not in order", line);
        }
    }

    memcpy(sorted, s->entries, s->n * sizeof(mpol_set_entry_t));
    qsort(sorted, s->n, sizeof(mpol_set_entry_t), by_expiry);

    n = 0;
    strcpy(text, "-");

    for (i = 0; i < s->n; i++) {
        if (sorted[i].expires <= number(word[1])) {
            continue;
        }

        n += (size_t) snprintf(text + n, sizeof(text) - n, "%s%04llx:%llu",
                               n ? " " : "",
                               (unsigned long long) sorted[i].member,
                               (unsigned long long) sorted[i].expires);
    }

    want = strstr(line, word[1]) + strlen(word[1]) + 1;

    is_mem(text, strlen(text), want, strlen(want), "%s", line);
}


static void
vector_rate(run_t *r, char word[][32], const char *line)
{
    size_t  i;

    static const char  *kinds[] = { "none", "window", "bucket", "unlimited",
                                    "blocked" };
    static const mpol_rate_kind_e  enums[] = {
        MPOL_RATE_NONE, MPOL_RATE_WINDOW, MPOL_RATE_BUCKET,
        MPOL_RATE_UNLIMITED, MPOL_RATE_BLOCKED
    };

    for (i = 0; i < 5; i++) {
        if (strcmp(word[0], kinds[i]) == 0) {
            r->rate.kind = enums[i];
            r->rate.count = number(word[1]);
            r->rate.period = number(word[2]);
            return;
        }
    }

    ok(0, "no such kind: %s", line);
}


static void
vector(run_t *r, const char *line)
{
    char             op[16], word[7][32];
    uint64_t         now;
    mpol_decision_t  d;

    memset(word, 0, sizeof(word));

    sscanf(line, "%15s %31s %31s %31s %31s %31s %31s %31s", op, word[0],
           word[1], word[2], word[3], word[4], word[5], word[6]);

    now = number(word[0]);

    if (strcmp(op, "case") == 0) {
        reset(r);

    } else if (strcmp(op, "rate") == 0) {
        vector_rate(r, word, line);

    } else if (strcmp(op, "lease") == 0) {
        vector_lease(r, word, line);

    } else if (strcmp(op, "look") == 0) {
        (void) mpol_lease_check(&r->leases, &r->rate, now, 0, 0, &d);
        judged(line, &d, word + 1);

    } else if (strcmp(op, "renew") == 0) {
        (void) mpol_set_prune(&r->leases, now);
        (void) mpol_set_put(&r->leases, tag(word[1]), now + r->rate.period,
                            0);

    } else if (strcmp(op, "end") == 0) {
        if (r->rate.kind == MPOL_RATE_WINDOW) {
            (void) mpol_set_remove(&r->leases, tag(word[1]));
        }

    } else if (strcmp(op, "fail") == 0) {
        vector_fail(r, word, line);

    } else if (strcmp(op, "back") == 0 || strcmp(op, "login") == 0) {
        vector_back(r, word, op[0] == 'l');

    } else if (strcmp(op, "kept") == 0) {
        vector_kept(r, word, line);

    } else {
        ok(0, "no such line: %s", line);
    }
}


static void
test_vectors(const char *file_name)
{
    char    line[4096];
    FILE   *file;
    run_t   r;

    file = fopen(file_name, "r");

    if (!ok(file != NULL, "vectors in %s", file_name)) {
        return;
    }

    memset(&r, 0, sizeof(run_t));
    reset(&r);

    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';

        if (line[0] != '#' && line[0] != '\0') {
            vector(&r, line);
        }
    }

    fclose(file);
}


/* where the caller's memory is full, nothing new fits, whatever the room */

static void
test_full(void)
{
    mpol_set_t        s;
    mpol_rate_t       rate = { MPOL_RATE_WINDOW, 100, 1000000, 0 };
    mpol_decision_t   d;
    mpol_set_entry_t  entries[2];

    init(&s, entries, 2);

    ok(mpol_set_put(&s, 1, 10, 0) == MPOL_OK
       && mpol_set_put(&s, 2, 20, 0) == MPOL_OK, "full: two of two");
    ok(mpol_set_put(&s, 3, 30, 0) == MPOL_BAD && s.n == 2, "full: not three");
    ok(mpol_set_put(&s, 1, 30, 0) == MPOL_OK && s.n == 2
       && s.entries[1].member == 1, "full: one that is there is renewed");

    (void) mpol_lease_check(&s, &rate, 5, 3, 1, &d);
    ok(!d.fits && d.used == 2 && d.remaining == 98 && d.retry == 15,
       "full: a lease does not fit");
    (void) mpol_lease_check(&s, &rate, 5, 2, 1, &d);
    ok(d.fits, "full: one that is there does");

    (void) mpol_failed_check(&s, &rate, 0, 5, 3, 1, &d);
    ok(!d.fits && d.retry == 15, "full: a failure does not fit");
    (void) mpol_failed_check(&s, &rate, 0, 5, 2, 1, &d);
    ok(d.fits && mpol_failed_charge(&s, &rate, 5, 2, 0, &d) == 0,
       "full: one that is there does, and needs no memory");

    (void) mpol_lease_check(&s, &rate, 20, 3, 1, &d);
    ok(d.fits && s.n == 1, "full: until one of them expires");
}


/* members that are not known count, and nobody is one of them */

static void
test_strangers(void)
{
    mpol_set_t        s;
    mpol_rate_t       rate = { MPOL_RATE_WINDOW, 5, 1000, 0 };
    mpol_decision_t   d;
    mpol_set_entry_t  entries[6];

    init(&s, entries, 6);

    (void) mpol_set_put(&s, 1, 100, 0);
    (void) mpol_set_put(&s, 2, 300, 0);
    mpol_set_strangers(&s, 3, 200);

    ok(s.n == 5 && s.entries[0].member == 1 && s.entries[1].expires == 200
       && s.entries[3].expires == 200 && s.entries[4].member == 2,
       "strangers: in their place");
    ok(mpol_set_find(&s, 0) == NULL, "strangers: are not found");

    (void) mpol_lease_check(&s, &rate, 50, 0, 1, &d);
    ok(!d.fits && d.used == 5 && d.retry == 50, "strangers: count");
    (void) mpol_lease_check(&s, &rate, 200, 0, 1, &d);
    ok(d.fits && d.used == 1 && s.n == 1, "strangers: expire");

    mpol_set_strangers(&s, (uint64_t) 1 << 40, 400);
    ok(s.n == 6 && s.entries[0].member == 2,
       "strangers: no more than there is room for");
    mpol_set_strangers(&s, 1, 500);
    ok(s.n == 6, "strangers: none if there is no room");
}


int
main(int argc, char *argv[])
{
    test_vectors(argc > 1 ? argv[1] : "tests/vectors/sets.txt");
    test_full();
    test_strangers();

    return done_testing();
}
