
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* What is judged, charged, given back, learned, taken and put back. */


#include "Shm.h"


static void
test_charge(void)
{
    ngx_int_t                  rc;
    ngx_mail_policy_charge_t   c[3], d;

    zone_new(256 * 1024);

    rc = send_one(&d, "user:{a}", 2);
    ok(rc == NGX_OK && d.charged && d.local
       && d.at == (uint64_t) 1754006400 * SECOND
       && d.units[0].decision.used == 0 && d.units[0].decision.remaining == 1,
       "the first of two");
    ok(send_as("user:{a}", 2) == NGX_OK, "the second");
    rc = send_one(&d, "user:{a}", 2);
    ok(rc == NGX_DECLINED && !d.charged && d.units[0].decision.used == 2
       && d.units[0].decision.retry == HOUR + HOUR / 64, "not a third");

    /* all or none, but for the soft ones */

    (void) send_as("domain:{d}", 10);
    (void) send_as("domain:{d}", 10);

    charge_new(&c[0], "ip:{1}");
    ask(&c[0], NGX_MAIL_POLICY_MESSAGES, 10, HOUR, 0, 1);
    ask(&c[0], NGX_MAIL_POLICY_BYTES, 1000, HOUR, 0, 600);
    charge_new(&c[1], "user:{a}");
    ask(&c[1], NGX_MAIL_POLICY_MESSAGES, 2, HOUR, 0, 1);
    charge_new(&c[2], "domain:{d}");
    ask(&c[2], NGX_MAIL_POLICY_RECIPIENTS, 10, 60 * SECOND, 5, 3);

    rc = charge_each(c, 3);
    ok(rc == NGX_DECLINED && !c[0].charged && !c[1].charged && !c[2].charged
       && keys() == 2, "one of three refuses: nothing is charged");

    c[1].soft = 1;
    rc = charge_each(c, 3);
    ok(rc == NGX_OK && c[0].charged && !c[1].charged && c[2].charged
       && !c[1].units[0].decision.fits && keys() == 3,
       "a soft one refuses nobody, and is not charged");

    rc = charge_each(c, 3);
    ok(rc == NGX_DECLINED && c[0].units[0].decision.fits
       && !c[0].units[2].decision.fits && !c[2].units[1].decision.fits,
       "one unit of a limit refuses, and another limit");
    is_u64(used("ip:{1}", 0, 10, HOUR, 0), 1, "no unit of it was charged");
    is_u64(used("domain:{d}", 1, 10, 60 * SECOND, 5), 3, "nor the other");
    is_u64(used("domain:{d}", 0, 10, HOUR, 0), 2, "what is not asked stays");

    /* give back */

    c[0].charged = 1;
    c[0].units[2].kept = 100;
    c[0].units[0].kept = 1;
    ok(ngx_mail_policy_shm_give_back(&shm, &c[0], 0) == NGX_OK, "given back");
    is_u64(used("ip:{1}", 0, 10, HOUR, 0), 1, "a message stands");
    is_u64(used("ip:{1}", 2, 1000, HOUR, 0), 100, "and 100 octets");

    c[1].charged = 0;
    ok(ngx_mail_policy_shm_give_back(&shm, &c[1], 0) == NGX_OK
       && used("user:{a}", 0, 2, HOUR, 0) == 2,
       "what was not charged is not given back");

    /* of no rate, unlimited, blocked */

    charge_new(&d, "user:{n}");
    d.asked = MASK(NGX_MAIL_POLICY_MESSAGES) | MASK(NGX_MAIL_POLICY_BYTES)
              | MASK(NGX_MAIL_POLICY_SESSIONS);
    d.units[0].amount = 1;
    d.units[2].rate.kind = MPOL_RATE_UNLIMITED;
    d.units[2].amount = 1;
    d.units[4].amount = 1;
    ok(charge_each(&d, 1) == NGX_OK
       && !exists("user:{n}"), "without a limit nothing is kept");
    d.units[0].rate.kind = MPOL_RATE_BLOCKED;
    ok(charge_each(&d, 1) == NGX_DECLINED
       && d.units[0].decision.retry == MPOL_NEVER, "blocked");

    ok(consistent(), "charges: consistent");
}


static void
test_sessions(void)
{
    ngx_mail_policy_charge_t  a, b, c;

    zone_new(256 * 1024);

    ok(lease(&a, "s:{1}", "lease-a", 2) == NGX_OK
       && a.units[4].decision.remaining == 1, "a session");
    later(1000);
    ok(lease(&b, "s:{1}", "lease-b", 2) == NGX_OK, "two sessions");
    ok(lease(&c, "s:{1}", "lease-c", 2) == NGX_DECLINED
       && c.units[4].decision.retry == 59 * SECOND, "not three");
    ok(shm.sh->nwaiting == 0, "leases are handed to nobody");

    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_OK
       && lease(&c, "s:{1}", "lease-c", 2) == NGX_OK, "but when one ends");

    later(50 * 1000);
    ngx_mail_policy_shm_renew(&shm, &b);
    later(20 * 1000);
    ok(lease(&a, "s:{1}", "lease-a", 2) == NGX_OK
       && a.units[4].decision.used == 1, "one that is not renewed expires");

    ngx_mail_policy_shm_renew(&shm, &c);
    ok(lease(&c, "s:{1}", "lease-d", 2) == NGX_DECLINED
       && c.units[4].decision.used == 3, "one that is, is there again");

    /* Redis has four, of which one is this machine's */

    charge_new(&a, "s:{2}");
    ask(&a, NGX_MAIL_POLICY_SESSIONS, 5, 60 * SECOND, 0, 1);
    str(&a.member, "lease-a");
    learn(&a, NGX_MAIL_POLICY_SESSIONS, 3, 1);

    later(1000);
    ok(lease(&b, "s:{2}", "lease-b", 5) == NGX_OK
       && b.units[4].decision.used == 4
       && b.units[4].decision.remaining == 0, "four learned, one more");
    ok(lease(&c, "s:{2}", "lease-c", 5) == NGX_DECLINED
       && c.units[4].decision.retry == 59 * SECOND, "not six");
    ok(lease(&c, "s:{2}", "lease-a", 5) == NGX_OK, "its own is known");
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_DECLINED,
       "it ends: Redis has to know");
    ok(lease(&c, "s:{2}", "lease-c", 5) == NGX_OK, "and there is room");

    str(&a.member, "lease-x");
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_DECLINED
       && lease(&c, "s:{2}", "lease-d", 5) == NGX_OK,
       "also by one that is not known");

    later(60 * 1000);
    ok(lease(&c, "s:{2}", "lease-e", 5) == NGX_OK
       && c.units[4].decision.used == 0, "strangers expire, too");

    ok(consistent(), "sessions: consistent");
}


static void
test_failures(void)
{
    ngx_mail_policy_charge_t  a, b;

    zone_new(256 * 1024);

    ok(login(&a, "f:{1}", "00aa", "0001", 2) == NGX_OK, "a login");
    ok(login(&b, "f:{1}", "00aa", "0001", 2) == NGX_OK
       && b.units[5].decision.remaining == 1, "the same password again");
    ok(login(&b, "f:{1}", "00bb", "0001", 2) == NGX_OK, "another password");
    ok(login(&b, "f:{1}", "00cc", "0001", 2) == NGX_DECLINED,
       "not a third one");
    ok(shm.sh->nwaiting == 1, "failures wait for Redis");

    later(1);
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 1) == NGX_OK,
       "the first was right, after all");
    ok(login(&b, "f:{1}", "00cc", "0001", 2) == NGX_OK
       && b.units[5].decision.used == 1
       && b.units[5].decision.remaining == 2, "who is exempt has more room");
    ok(login(&b, "f:{1}", "00dd", "0002", 2) == NGX_DECLINED,
       "another client has not");

    /* a login of which nobody knows how it ended */

    ok(login(&a, "f:{2}", "00aa", "0001", 1) == NGX_OK
       && ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_OK
       && login(&b, "f:{2}", "00bb", "0001", 1) == NGX_OK, "is given back");

    /* Redis has charged it and is told; it is known here, too */

    charge_new(&a, "f:{3}");
    ask(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 3, HOUR, 0, 1);
    str(&a.member, "00aa");
    str(&a.client, "0001");
    learn(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 1, 1);
    ok(shm.sh->nwaiting == 2, "what is learned does not wait");
    ok(login(&b, "f:{3}", "00aa", "0002", 3) == NGX_OK
       && b.units[5].decision.used == 2, "the same password counts once");
    ok(shm.sh->nwaiting == 2, "and has not to be told");
    ok(login(&b, "f:{3}", "00bb", "0002", 3) == NGX_OK
       && login(&b, "f:{3}", "00cc", "0002", 3) == NGX_DECLINED,
       "one more");
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 1) == NGX_DECLINED
       && login(&b, "f:{3}", "00cc", "0001", 3) == NGX_OK
       && b.units[5].decision.used == 2
       && b.units[5].decision.remaining == 3, "right: exempt here, too");

    /* the same failure twice: it expires when the first one does */

    charge_new(&a, "f:{5}");
    ask(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 1, HOUR, 0, 1);
    str(&a.member, "00aa");
    learn(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 0, 1);
    later(1000);
    learn(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 1, 1);
    ok(login(&b, "f:{5}", "00bb", "0001", 1) == NGX_DECLINED
       && b.units[5].decision.retry == HOUR - SECOND,
       "it does not expire later because it comes again");

    charge_new(&a, "f:{4}");
    ask(&a, NGX_MAIL_POLICY_AUTH_FAILURES, 3, HOUR, 0, 1);
    str(&a.member, "00aa");
    str(&a.client, "0001");
    a.charged = 1;
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 1) == NGX_DECLINED
       && login(&b, "f:{4}", "00cc", "0001", 3) == NGX_OK
       && b.units[5].decision.remaining == 5,
       "who succeeds in Redis is exempt here");

    ok(consistent(), "failures: consistent");
}


static void
test_learn(void)
{
    ngx_mail_policy_charge_t  c, d;

    zone_new(256 * 1024);

    charge_new(&c, "user:{a}");
    ask(&c, 0, 100, HOUR, 0, 1);
    learn(&c, 0, 97, 1);
    ok(shm.sh->nwaiting == 0, "learned: nothing waits");

    ok(send_as("user:{a}", 100) == NGX_OK
       && send_as("user:{a}", 100) == NGX_OK
       && send_as("user:{a}", 100) == NGX_DECLINED, "98 learned, two more");
    ok(shm.sh->nwaiting == 1, "which wait");

    /* an answer of Redis, that knows nothing of the two */

    later(1000);
    learn(&c, 0, 90, 1);
    is_u64(used("user:{a}", 0, 100, HOUR, 0), 93, "learned, and the two");

    /* Redis gives some back */

    c.units[0].amount = 5;
    ok(ngx_mail_policy_shm_give_back(&shm, &c, 0) == NGX_DECLINED,
       "what Redis charged is given back there");
    is_u64(used("user:{a}", 0, 100, HOUR, 0), 88, "and here");

    /* rates */

    charge_new(&c, "user:{b}");
    ask(&c, 0, 1, HOUR, 0, 1);
    c.units[0].from = NGX_MAIL_POLICY_FROM_OWN;
    learn(&c, 0, 1, 0);

    ok(send_one(&d, "user:{b}", 50) == NGX_DECLINED
       && d.units[0].from == NGX_MAIL_POLICY_FROM_OWN
       && d.units[0].rate.count == 1, "its own rate is remembered");

    charge_new(&d, "user:{b}");
    ask(&d, 0, 50, HOUR, 0, 1);
    d.forced = 1;
    ok(charge_each(&d, 1) == NGX_OK
       && d.units[0].rate.count == 50, "but not if another one is forced");

    c.units[0].rate.kind = MPOL_RATE_UNLIMITED;
    learn(&c, 0, 0, 0);
    ok(send_one(&d, "user:{b}", 1) == NGX_OK, "unlimited is remembered");

    c.units[0].rate.kind = MPOL_RATE_BLOCKED;
    learn(&c, 0, 0, 0);
    ok(send_one(&d, "user:{b}", 50) == NGX_DECLINED
       && d.units[0].decision.retry == MPOL_NEVER, "suspended, too");
    d.forced = 1;
    d.units[0].rate.kind = MPOL_RATE_WINDOW;
    d.units[0].from = 0;
    ok(charge_each(&d, 1) == NGX_DECLINED,
       "even if a rate is forced");

    c.units[0].rate.kind = MPOL_RATE_NONE;
    c.units[0].from = 0;
    learn(&c, 0, 0, 0);
    ok(send_one(&d, "user:{b}", 50) == NGX_OK, "until there is none");

    /* what is not worth a node, and what no arithmetic could do with */

    charge_new(&c, "user:{c}");
    ask(&c, 0, 100, HOUR, 0, 1);
    learn(&c, 0, 0, 0);
    ok(!exists("user:{c}"), "nothing used: nothing to be remembered");

    c.units[0].rate.period = 63;
    c.units[0].from = NGX_MAIL_POLICY_FROM_OWN;
    learn(&c, 0, 5, 0);
    ok(!exists("user:{c}"), "a period of nearly nothing is not");

    c.units[0].rate.period = HOUR;
    c.units[0].from = 77;
    learn(&c, 0, 5, 0);
    ok(send_one(&d, "user:{c}", 1) == NGX_OK && d.units[0].from == 4,
       "from nowhere is from its own entry");

    /* a rate is remembered for a day, use as long as it counts */

    later(7200 * 1000);
    fresh(20, "x", 0);
    ok(exists("user:{c}"), "a rate of its own is not forgotten");
    is_u64(used("user:{c}", 0, 1, HOUR, 0), 0, "though nothing is used");
    later(86400 * 1000);
    fresh(20, "y", 0);
    ok(!exists("user:{c}"), "but after a day");

    ok(consistent(), "learned: consistent");
}


static const char *
text(ngx_mail_policy_shm_local_t *local, ngx_uint_t u)
{
    static char  buf[4096];

    snprintf(buf, sizeof(buf), "%.*s", (int) local->texts[u].len,
             (char *) local->texts[u].data);

    return buf;
}


static void
test_take(void)
{
    ngx_int_t                      rc;
    ngx_uint_t                     i, n;
    ngx_pool_t                    *pool;
    ngx_mail_policy_charge_t       a, b, c;
    ngx_mail_policy_shm_local_t    local, other;

    zone_new(256 * 1024);

    pool = ngx_create_pool(4096, &log);

    ok(ngx_mail_policy_shm_take(&shm, NULL, pool, &local) == NGX_DECLINED
       && ngx_mail_policy_shm_waiting(&shm) == 0, "nothing waits");

    (void) send_one(&a, "user:{a}", 10);
    (void) send_one(&b, "user:{b}", 10);
    later(57 * 1000);
    (void) send_one(&c, "user:{a}", 10);

    ok(ngx_mail_policy_shm_waiting(&shm) == 2, "two keys wait");

    rc = ngx_mail_policy_shm_take(&shm, NULL, pool, &local);
    ok(rc == NGX_OK && local.id.len == 8
       && ngx_strncmp(local.id.data, "user:{a}", 8) == 0,
       "the one that has waited longest");
    ok(strcmp(text(&local, 0), "w 56250000 10 c 31182336:1 1:1") == 0
       && local.texts[1].len == 0, "what it used (%s)", text(&local, 0));
    ok(ngx_mail_policy_shm_waiting(&shm) == 1, "one key waits");
    is_u64(used("user:{a}", 0, 10, HOUR, 0), 2, "it counts here, still");

    /* what was charged before is given back in Redis, what was later is not */

    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_DECLINED
       && used("user:{a}", 0, 10, HOUR, 0) == 1, "it is in Redis by now");
    (void) send_one(&a, "user:{a}", 10);
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_OK
       && used("user:{a}", 0, 10, HOUR, 0) == 1, "a later one is not");

    /* it could not be delivered */

    later(1000);
    (void) send_one(&a, "user:{a}", 10);
    ngx_mail_policy_shm_put_back(&shm, &local);
    ok(ngx_mail_policy_shm_waiting(&shm) == 2, "put back");
    is_u64(used("user:{a}", 0, 10, HOUR, 0), 3, "put back: as it was");
    ok(ngx_mail_policy_shm_give_back(&shm, &c, 0) == NGX_OK
       && used("user:{a}", 0, 10, HOUR, 0) == 2,
       "put back: an early one is given back here");
    ok(ngx_mail_policy_shm_give_back(&shm, &a, 0) == NGX_OK
       && used("user:{a}", 0, 10, HOUR, 0) == 1, "put back: a late one, too");

    /* and if the key has been forgotten meanwhile */

    (void) ngx_mail_policy_shm_take(&shm, NULL, pool, &other);
    (void) ngx_mail_policy_shm_take(&shm, NULL, pool, &local);
    ok(ngx_mail_policy_shm_waiting(&shm) == 0, "all are taken");
    ngx_mail_policy_shm_free(&shm, ngx_mail_policy_shm_find(&shm,
                                                            &other.id));
    ngx_mail_policy_shm_put_back(&shm, &other);
    ok(ngx_mail_policy_shm_waiting(&shm) == 1
       && used("user:{b}", 0, 10, HOUR, 0) == 1, "put back: it is made anew");
    ok(ngx_mail_policy_shm_give_back(&shm, &b, 0) == NGX_OK
       && used("user:{b}", 0, 10, HOUR, 0) == 0,
       "put back: and gives back, too");

    /* a bucket, of which some was learned */

    charge_new(&a, "user:{e}");
    ask(&a, NGX_MAIL_POLICY_RECIPIENTS, 10, 10 * SECOND, 5, 2);
    learn(&a, NGX_MAIL_POLICY_RECIPIENTS, 0, 1);
    (void) charge_each(&a, 1);
    later(500);
    (void) ngx_mail_policy_shm_take(&shm, NULL, pool, &local);
    ok(strcmp(text(&local, 1), "b 2000000 10 10000000 5 c") == 0,
       "a bucket (%s)", text(&local, 1));

    /* failures, more than one text takes */

    for (i = 0; i < 200; i++) {
        char  tag[8];

        snprintf(tag, sizeof(tag), "%04x", (unsigned) (i * 7 + 0xab00));
        (void) login(&c, "f:{1}", tag, "0001", 1000);
    }

    (void) login(&c, "f:{1}", "00aa", "0001", 1000);

    n = 0;
    i = 0;

    while (i < 9
           && ngx_mail_policy_shm_take(&shm, NULL, pool, &local) == NGX_OK)
    {
        if (i == 0) {
            ok(local.texts[5].len <= NGX_MAIL_POLICY_SHM_TEXT
               && strncmp(text(&local, 5), "1754010058500000:ab00 "
                          "1754010058500000:ab07 ", 44) == 0,
               "failures (%.60s)", text(&local, 5));
        }

        for (rc = 0; rc < (ngx_int_t) local.texts[5].len; rc++) {
            n += (local.texts[5].data[rc] == ':');
        }

        i++;
    }

    ok(i == 3 && n == 201 && ngx_mail_policy_shm_waiting(&shm) == 0,
       "all of them in three");

    ngx_mail_policy_shm_put_back(&shm, &local);
    ok(ngx_mail_policy_shm_take(&shm, NULL, pool, &other) == NGX_DECLINED,
       "of nothing nothing is put back");

    ok(consistent(), "taken: consistent");

    ngx_destroy_pool(pool);
}


/* what is judged is what counters of the core's own say, packed or not */

static void
test_oracle(void)
{
    char                           id[32];
    uint64_t                       at;
    ngx_int_t                      rc;
    ngx_uint_t                     i, k, u, fits, right;
    mpol_decision_t                d, *got;
    ngx_mail_policy_charge_t       c, old[20];
    ngx_mail_policy_charge_unit_t *unit;

    static mpol_counter_t  counters[20][NGX_MAIL_POLICY_SHM_COUNTERS];

    zone_new(1024 * 1024);
    ngx_memzero(counters, sizeof(counters));
    ngx_memzero(old, sizeof(old));

    right = 1;

    for (i = 0; i < 50000 && right; i++) {
        later(below(below(3) ? 50 : 4000));

        k = below(20);
        at = ngx_mail_policy_shm_now();
        snprintf(id, sizeof(id), "user:{%u}", (unsigned) k);

        if (old[k].charged && below(4) == 0) {
            str(&old[k].id, id);
            (void) ngx_mail_policy_shm_give_back(&shm, &old[k], 0);

            for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
                unit = &old[k].units[u];
                mpol_counter_give_back(&counters[k][u], &unit->rate, at,
                                       old[k].at, unit->amount - unit->kept);
            }

            old[k].charged = 0;
            continue;
        }

        charge_new(&c, id);
        ask(&c, 0, 10 + k, 60 * SECOND, 0, below(3));
        ask(&c, 1, 1000, HOUR, 0, below(30));
        ask(&c, 2, 100000, 600 * SECOND, 5000, below(1000));
        ask(&c, 3, 5, 5 * SECOND, 1, below(2));

        rc = charge_each(&c, 1);
        fits = 1;

        for (u = 0; u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
            unit = &c.units[u];
            got = &unit->decision;

            mpol_counter_check(&counters[k][u], &unit->rate, at, unit->amount,
                               &d);
            fits &= d.fits;
            right = right && got->fits == d.fits && got->used == d.used
                    && got->retry == d.retry
                    && (rc == NGX_OK || got->remaining == d.remaining);
        }

        right = right && rc == (fits ? NGX_OK : NGX_DECLINED);

        for (u = 0; fits && u < NGX_MAIL_POLICY_SHM_COUNTERS; u++) {
            unit = &c.units[u];

            mpol_counter_charge(&counters[k][u], &unit->rate, at,
                                unit->amount);
            mpol_counter_check(&counters[k][u], &unit->rate, at, 0, &d);
            right = right && unit->decision.remaining == d.remaining;

            unit->kept = below(2) ? 0 : unit->amount / 2;
            old[k] = c;
        }
    }

    ok(right, "the core's own counters say the same: step %u", (unsigned) i);
}


__attribute__((constructor)) static void
test(void)
{
    begin();

    test_charge();
    test_sessions();
    test_failures();
    test_learn();
    test_take();
    test_oracle();

    exit(done_testing());
}
