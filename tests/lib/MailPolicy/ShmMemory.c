
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What gives way, what a key takes, and what no order of calls breaks.  With
 * SHM_BENCH set: how long a call takes.
 */


#include "Shm.h"


static void
test_evict(void)
{
    char                      id[64];
    ngx_int_t                 rc;
    ngx_uint_t                i, room;
    ngx_mail_policy_charge_t  c;

    zone_new(256 * 1024);

    /* one over its limit, one at it, one below it, and all are silent */

    (void) send_as("user:{over}", 1);
    rc = send_as("user:{over}", 1);
    (void) send_as("user:{at}", 1);
    (void) send_as("user:{below}", 2);

    fresh(3000, "flood", 1);

    room = keys();
    ok(rc == NGX_DECLINED && room > 900 && room < 1100, "room for %u keys",
       (unsigned) room);
    ok(!exists("user:{below}"), "who is below his limit is forgotten");
    ok(send_as("user:{over}", 1) == NGX_DECLINED, "not who is over it");
    ok(send_as("user:{at}", 1) == NGX_DECLINED, "nor who is at it");
    ok(exists("user:{flood-2999@example.com}")
       && !exists("user:{flood-1000@example.com}"),
       "but those who were used longest ago");

    /* who comes again is not */

    (void) send_as("user:{again}", 10);
    fresh(room * 2 / 3, "between", 1);
    (void) send_as("user:{again}", 10);
    fresh(room * 2 / 3, "after", 1);
    is_u64(used("user:{again}", 0, 10, HOUR, 0), 2, "nor who comes again");
    fresh(room * 2 / 3, "later", 1);
    is_u64(used("user:{again}", 0, 10, HOUR, 0), 2, "or is looked at");

    /* an amount that does not fit, though one would */

    charge_new(&c, "user:{much}");
    ask(&c, 1, 10, HOUR, 0, 8);
    (void) charge_each(&c, 1);
    rc = charge_each(&c, 1);
    fresh(2000, "again", 1);
    ok(rc == NGX_DECLINED
       && charge_each(&c, 1) == NGX_DECLINED,
       "an amount that was refused goes on being so");

    /* when they fit again, they are as any other */

    later(3700 * 1000);
    (void) send_as("user:{waker}", 10);
    (void) send_as("user:{waker}", 10);
    ok(!exists("user:{over}") && !exists("user:{at}"),
       "when the hour is over, they are forgotten first");
    ok(consistent(), "flood: consistent");

    /* refused for a second, but counted for an hour */

    zone_new(256 * 1024);

    charge_new(&c, "user:{short}");
    ask(&c, 0, 60, 60 * SECOND, 1, 1);
    ask(&c, 1, 100, HOUR, 0, 1);
    (void) charge_each(&c, 1);
    ok(count_queue(&shm.sh->refused) == 1, "refused for a second");
    fresh(900, "few", 2);
    ok(count_queue(&shm.sh->refused) == 0 && exists("user:{short}"),
       "later it is as any other");
    fresh(200, "more", 2);
    ok(!exists("user:{short}"), "and the first to be forgotten");

    /* expired ones go first, however late they were used */

    zone_new(256 * 1024);

    fresh(room - 100, "old", 0);

    for (i = 0; i < 50; i++) {
        charge_new(&c, id);
        snprintf(id, sizeof(id), "user:{brief-%u}", (unsigned) i);
        str(&c.id, id);
        ask(&c, 0, 10, SECOND, 0, 1);
        (void) charge_each(&c, 1);
    }

    later(2100);
    fresh(90, "new", 0);
    ok(exists("user:{old-0@example.com}") && !exists("user:{brief-49}"),
       "what has expired gives way first");

    /* if all are over their limits, one of them has to go */

    zone_new(256 * 1024);

    for (i = 0; i < 2 * room; i++) {
        snprintf(id, sizeof(id), "user:{full-%u@example.com}", (unsigned) i);

        if (send_as(id, 1) != NGX_OK) {
            ok(0, "%s does not fit", id);
        }
    }

    ok(keys() == room && exists(id) && !exists("user:{full-0@example.com}"),
       "all are over their limits: the one used longest ago");
    ok(consistent(), "full: consistent");
}


/* a key of many members, in a zone that is full */

static void
test_large(void)
{
    char                      id[512], member[32];
    ngx_int_t                 rc;
    ngx_uint_t                i;
    ngx_mail_policy_charge_t  c;

    zone_new(256 * 1024);
    fresh(1000, "flood", 0);

    for (i = 0; i < 5000; i++) {
        snprintf(member, sizeof(member), "lease-%u", (unsigned) i);

        rc = lease(&c, "s:{many}", member, 10000);

        if (rc != NGX_OK) {
            break;
        }
    }

    ok(i == MPOL_SET_MAX && c.units[4].decision.used == MPOL_SET_MAX,
       "%u sessions, in other keys' place", (unsigned) i);
    ok(lease(&c, "s:{many}", "lease-7", 10000) == NGX_OK,
       "one that is there is there");
    ok(consistent() && keys() < 900, "%u keys are left", (unsigned) keys());

    /* it grows on what has expired, if anything has */

    zone_new(256 * 1024);
    fresh(600, "old", 0);

    for (i = 0; i < 400; i++) {
        snprintf(id, sizeof(id), "user:{brief-%u}", (unsigned) i);
        charge_new(&c, id);
        ask(&c, 0, 10, SECOND, 0, 1);
        (void) charge_each(&c, 1);
    }

    later(2100);

    for (i = 0; i < MPOL_SET_MAX; i++) {
        snprintf(member, sizeof(member), "lease-%u", (unsigned) i);
        (void) lease(&c, "s:{many}", member, 10000);
    }

    ok(exists("user:{old-0@example.com}") && c.charged,
       "in the place of those that have expired, if there are any");

    later(61000);
    ok(lease(&c, "s:{many}", "new", 10000) == NGX_OK
       && c.units[4].decision.used == 0, "they expire");
    fresh(300, "later", 0);
    ok(exists("user:{old-0@example.com}"), "and leave their place");

    /* ids of all lengths, also those that are in several cells */

    for (i = 1; i < sizeof(id) - 1; i += 7) {
        memset(id, 'x', i);
        id[i] = '\0';

        if (send_as(id, 1) != NGX_OK || send_as(id, 1) != NGX_DECLINED) {
            ok(0, "id of %u", (unsigned) i);
            break;
        }

        id[i - 1] = 'y';

        if (send_as(id, 1) != NGX_OK) {
            ok(0, "another id of %u", (unsigned) i);
            break;
        }
    }

    ok(i >= sizeof(id) - 1 && consistent(), "ids of any length");
}


/* how many octets of the zone a key takes: an hour's window, three units */

static void
test_memory(void)
{
    char                      id[64];
    ngx_uint_t                i, u, slot, most;
    ngx_mail_policy_charge_t  c;

    zone_new(1024 * 1024);

    most = 0;

    for (i = 0; i < 20000; i++) {
        snprintf(id, sizeof(id), "user:{somebody-%05u@example.com}",
                 (unsigned) i);
        charge_new(&c, id);

        for (u = 0; u < 3; u++) {
            ask(&c, u, u == 2 ? (uint64_t) 1 << 30 : 500, HOUR, 0,
                u == 2 ? 5000 : 1);
        }

        for (slot = 0; slot < 3; slot++) {
            (void) charge_each(&c, 1);
            later(60 * 1000);
        }

        now.sec -= 180;
        most = ngx_max(most, keys() * (i % 100 == 0));
    }

    ok(zone_size / most <= 400, "%u octets a key",
       (unsigned) (zone_size / most));
}


static void
random_charge(ngx_mail_policy_charge_t *c, char *id, char *member)
{
    ngx_uint_t  u;

    sprintf(id, "user:{%u%s}", (unsigned) below(400),
            below(4) ? "" : "-whose-name-is-so-long-that-it-takes-more-than-"
                            "what-is-left-of-the-first-cell-of-its-node");
    sprintf(member, "%04x", (unsigned) below(below(9) ? 16 : 65536));

    charge_new(c, id);
    str(&c->member, member);
    str(&c->client, below(2) ? "0001" : "0002");

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if (below(2)) {
            ask(c, u, 1 + below(u < 4 ? 1000 : 20),
                (1 + below(9)) * (below(3) ? SECOND : 60 * SECOND),
                u < 4 ? below(2) * (1 + below(30)) : 0, below(4));
            c->units[u].from = below(5);
        }
    }

    c->soft = below(5) == 0;
    c->forced = below(9) == 0;
}


/* anything, in any order, in a zone that is too small */

static void
test_random(ngx_uint_t steps)
{
    char                          id[3][256], member[3][32];
    ngx_int_t                     rc;
    ngx_uint_t                    i, n, right, kept, u;
    ngx_pool_t                   *pool;
    ngx_mail_policy_charge_t      c[3], old;
    ngx_mail_policy_shm_local_t   local;

    zone_new(128 * 1024);

    right = 1;
    kept = 0;
    pool = NULL;
    ngx_memzero(&old, sizeof(old));

    for (i = 0; i < steps && right; i++) {
        later(below(300));

        if (below(1000) == 0) {
            now.sec -= below(500);
        }

        n = 1 + below(3);

        for (u = 0; u < n; u++) {
            random_charge(&c[u], id[u], member[u]);
        }

        switch (below(9)) {

        case 0:
            for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
                c[0].units[u].decision.used = below(30);
                c[0].units[u].decision.remaining = below(30);
            }

            c[0].charged = below(2);
            learn_each(c, 1);
            break;

        case 1:
            if (old.asked) {
                (void) ngx_mail_policy_shm_give_back(&shm, &old, below(2));
                old.asked = 0;
            }
            break;

        case 2:
            c[0].units[4].rate.period = SECOND * below(50);
            c[0].local = below(2);
            ngx_mail_policy_shm_renew(&shm, &c[0]);
            break;

        case 3:
            if (kept) {
                ngx_mail_policy_shm_put_back(&shm, &local);
                ngx_destroy_pool(pool);
                kept = 0;
                break;
            }

            pool = ngx_create_pool(1024, &log);
            kept = (ngx_mail_policy_shm_take(&shm, NULL, pool, &local)
                    == NGX_OK);

            if (!kept || below(2)) {
                ngx_destroy_pool(pool);
                kept = 0;
            }
            break;

        default:
            rc = charge_each(c, n);

            for (u = 0; u < n; u++) {
                right = right && (c[u].charged == 0 || rc == NGX_OK)
                        && c[u].local && (rc == NGX_DECLINED || c[u].charged
                                          || c[u].soft);
            }

            if (c[0].charged && c[0].id.len < 12) {
                static char  kept_id[16], kept_member[16];

                old = c[0];
                strcpy(kept_id, id[0]);
                strcpy(kept_member, member[0]);
                str(&old.id, kept_id);
                str(&old.member, kept_member);
            }
        }

        right = right && (i % 64 != 0 || consistent());
    }

    ok(right, "at random: step %u, %u keys, %u wait", (unsigned) i,
       (unsigned) keys(), (unsigned) shm.sh->nwaiting);

    if (kept) {
        ngx_destroy_pool(pool);
    }

    /* all of it can be had again */

    while (keys()) {
        ngx_mail_policy_shm_free(&shm,
            ngx_queue_data(ngx_queue_head(ngx_queue_empty(&shm.sh->queue)
                                          ? &shm.sh->refused
                                          : &shm.sh->queue),
                           ngx_mail_policy_shm_node_t, queue));
    }

    n = shm.shpool->pfree;
    zone_new(128 * 1024);
    ok(n == shm.shpool->pfree, "no cell is lost: %u pages are free",
       (unsigned) n);
}


/* what a worker that died in the middle of it may have left */

static void
test_garbage(void)
{
    u_char                      *data;
    size_t                       len;
    ngx_str_t                    id;
    ngx_uint_t                   i, j, right;
    ngx_mail_policy_charge_t     c;
    ngx_mail_policy_shm_node_t  *n;

    zone_new(256 * 1024);

    data = malloc(4096);
    right = 1;
    str(&id, "user:{g}");

    for (i = 0; i < 20000; i++) {
        n = ngx_mail_policy_shm_get(&shm, &id,
                                    (uint64_t) now.sec * SECOND);

        len = below(300);

        for (j = 0; j < len; j++) {
            data[j] = below(below(2) ? 256 : 7);
        }

        (void) ngx_mail_policy_shm_write(&shm, n, data, len,
                                         (uint64_t) now.sec * SECOND);

        charge_new(&c, "user:{g}");
        ask(&c, 0, 10, HOUR, 0, 1);
        ask(&c, 1, 10, HOUR, 5, 1);
        ask(&c, 4, 10, HOUR, 0, 1);
        ask(&c, 5, 10, HOUR, 0, 1);
        str(&c.member, "00aa");
        str(&c.client, "00bb");

        (void) charge_each(&c, 1);
        right = right && consistent();
    }

    ok(right, "garbage is survived");
    free(data);
}


static void
bench(const char *name, ngx_uint_t units, ngx_uint_t charges,
    ngx_uint_t n_keys, ngx_uint_t do_learn)
{
    char                      id[3][64];
    ngx_uint_t                i, j, u, n;
    struct timespec           a, b;
    ngx_mail_policy_charge_t  c[3];

    zone_new(8 * 1024 * 1024);
    n = 200000;

    clock_gettime(CLOCK_MONOTONIC, &a);

    for (i = 0; i < n; i++) {
        for (j = 0; j < charges; j++) {
            snprintf(id[j], sizeof(id[j]), "limit%u:{somebody-%u@example.com}",
                     (unsigned) j, (unsigned) (i % n_keys));
            charge_new(&c[j], id[j]);

            for (u = 0; u < units; u++) {
                ask(&c[j], u, 100000000, HOUR, 0, 1);
                c[j].units[u].decision.remaining = 5;
            }

            c[j].charged = 1;
        }

        if (do_learn) {
            learn_each(c, charges);
        } else {
            (void) charge_each(c, charges);
        }

        if (i % 100 == 0) {
            later(100);
        }
    }

    clock_gettime(CLOCK_MONOTONIC, &b);

    printf("%-40s %6.2f us\n", name,
           ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / n / 1e3);
}


__attribute__((constructor)) static void
test(void)
{
    begin();

    if (getenv("SHM_BENCH")) {
        bench("charge, 1 limit x 1 unit", 1, 1, 10000, 0);
        bench("charge, 3 limits x 3 units", 3, 3, 5000, 0);
        bench("charge, 3 limits x 3 units, few keys", 3, 3, 10, 0);
        bench("learn, 1 limit x 1 unit", 1, 1, 10000, 1);
        bench("learn, 3 limits x 3 units", 3, 3, 5000, 1);
        exit(0);
    }

    test_evict();
    test_large();
    test_memory();
    test_random(200000);
    test_garbage();

    exit(done_testing());
}
