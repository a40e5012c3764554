
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The table of passwords that were right: a library that nginx loads before
 * it begins, so that what is tested calls nginx' own functions.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "ngx_mail_policy_auth_cache.h"
#include "ngx_mail_policy_crypt.h"
#include "tap.h"


/* bits of mechanisms, whatever they are */
#define PLAIN  0x0001
#define LOGIN  0x0002

#define DIGEST NGX_MAIL_POLICY_AUTH_CACHE_DIGEST


typedef ngx_mail_policy_auth_cache_t  cache_t;


static ngx_log_t    log;
static ngx_cycle_t  cycle;
static int          tag;
static u_char      *memory;
static size_t       memory_size;


static ngx_shm_zone_t *
zone_of(ngx_cycle_t *c)
{
    return c->shared_memory.part.elts;
}


/* a configuration, which may take over the zone of another one */

static cache_t *
configure(ngx_cycle_t *c, cache_t *old)
{
    cache_t         *cache;
    ngx_conf_t       cf;
    ngx_shmtx_sh_t  *lock;
    ngx_shm_zone_t  *zone;
    ngx_slab_pool_t *pool;

    ngx_memzero(c, sizeof(ngx_cycle_t));
    ngx_memzero(&cf, sizeof(ngx_conf_t));

    c->log = &log;
    cf.cycle = c;
    cf.log = &log;
    cf.pool = ngx_create_pool(4096, &log);

    if (ngx_list_init(&c->shared_memory, cf.pool, 1, sizeof(ngx_shm_zone_t))
        != NGX_OK)
    {
        abort();
    }

    cache = ngx_mail_policy_auth_cache_add(&cf, &tag);

    ok(cache != NULL && ngx_mail_policy_auth_cache_add(&cf, &tag) == cache,
       "one for all that add it");

    zone = zone_of(c);

    if (old == NULL) {
        memory_size = zone->shm.size;
        memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        lock = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        pool = (ngx_slab_pool_t *) memory;
        pool->end = memory + memory_size;
        pool->min_shift = 3;
        pool->addr = memory;

        if (ngx_shmtx_create(&pool->mutex, lock, NULL) != NGX_OK) {
            abort();
        }

        ngx_slab_init(pool);
    }

    zone->shm.addr = memory;
    zone->shm.log = &log;

    ok(zone->init(zone, old) == NGX_OK, "its memory is enough");

    return cache;
}


static ngx_str_t *
str(const char *text)
{
    static ngx_str_t   s[8];
    static ngx_uint_t  n;

    n = (n + 1) % 8;

    s[n].data = (u_char *) text;
    s[n].len = strlen(text);

    return &s[n];
}


static u_char *
digest(cache_t *cache, ngx_uint_t method, const char *login, const char *hash,
    const char *password)
{
    u_char  *d;

    d = calloc(1, DIGEST);

    if (ngx_mail_policy_auth_cache_digest(cache, method, str(login), str(hash),
                                          str(password), d)
        != NGX_OK)
    {
        return NULL;
    }

    return d;
}


static ngx_uint_t
found(cache_t *cache, u_char *d)
{
    return ngx_mail_policy_auth_cache_find(cache, d);
}


static void
remember(cache_t *cache, u_char *d, ngx_msec_t ttl)
{
    ngx_mail_policy_auth_cache_remember(cache, d, ttl);
}


static void
test_digest(cache_t *cache)
{
    char         data[2048];
    u_char      *d, out[DIGEST];
    ngx_str_t    s;
    ngx_uint_t   i, j, same;

    struct {
        ngx_uint_t   method;
        const char  *login, *hash, *password;
    } who[] = {
        { PLAIN, "alice", "$6$salt$hash", "secret-canary" },
        { LOGIN, "alice", "$6$salt$hash", "secret-canary" },
        { PLAIN, "bob", "$6$salt$hash", "secret-canary" },
        { PLAIN, "Alice", "$6$salt$hash", "secret-canary" },
        { PLAIN, "alice", "$6$salt$hasH", "secret-canary" },
        { PLAIN, "alice", "$6$salt$hash", "secret-canary2" },
        { PLAIN, "alice", "$6$salt$hash", "" },
        { PLAIN, "alice$", "6$salt$hash", "secret-canary" },
        { PLAIN, "alic", "e$6$salt$hash", "secret-canary" },
        { PLAIN, "alice", "$6$salt$hashs", "ecret-canary" }
    };

    enum { N = sizeof(who) / sizeof(who[0]) };

    u_char  *all[N];

    for (i = 0; i < N; i++) {
        all[i] = digest(cache, who[i].method, who[i].login, who[i].hash,
                        who[i].password);
    }

    same = 0;

    for (i = 0; i < N; i++) {
        for (j = 0; j < i; j++) {
            same += (memcmp(all[i], all[j], DIGEST) == 0);
        }
    }

    ok(same == 0, "AUTH-19 who and what differ have different digests");

    d = digest(cache, PLAIN, "alice", "$6$salt$hash", "secret-canary");
    ok(memcmp(d, all[0], DIGEST) == 0, "the same has the same");

    for (i = 0; i < N; i++) {
        ok(!found(cache, all[i]), "not known before, %u", (unsigned) i);
    }

    remember(cache, d, 1000);

    for (same = 0, i = 0; i < N; i++) {
        same += found(cache, all[i]);
    }

    ok(found(cache, all[0]) && same == 1, "AUTH-19 one is known, no other");

    ok(memmem(memory, memory_size, "secret-canary", 13) == NULL
       && memmem(memory, memory_size, "alice", 5) == NULL
       && memmem(memory, memory_size, "$salt$", 6) == NULL,
       "nothing of it is in the zone");

    /* what does not fit, and what would end elsewhere */

    memset(data, 'x', sizeof(data));
    s.data = (u_char *) data;

    s.len = MPOL_PASSWORD_MAX;
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, str("a"), str("b"), &s,
                                         out) == NGX_OK, "a long password");
    s.len++;
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, str("a"), str("b"), &s,
                                         out) == NGX_ERROR, "too long");
    s.len = MPOL_IDENTITY_MAX + 1;
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, &s, str("b"), str("c"),
                                         out) == NGX_ERROR, "no such login");
    s.len = NGX_MAIL_POLICY_CRYPT_HASH_MAX + 1;
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, str("a"), &s, str("c"),
                                         out) == NGX_ERROR, "no such hash");
    s.len = 5;
    data[2] = '\0';
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, &s, str("b"), str("c"),
                                         out) == NGX_ERROR, "NUL in a login");
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, str("a"), &s, str("c"),
                                         out) == NGX_ERROR, "NUL in a hash");
    ok(ngx_mail_policy_auth_cache_digest(cache, PLAIN, str("a"), str("b"), &s,
                                         out) == NGX_OK
       && memcmp(out, digest(cache, PLAIN, "a", "b", "xx"), DIGEST) != 0,
       "NUL in a password is an octet of it");
}


static void
test_expiry(cache_t *cache)
{
    u_char  *d;

    d = digest(cache, PLAIN, "expiry", "$6$", "x");

    remember(cache, d, 60000);
    ngx_current_msec += 59999;
    ok(found(cache, d), "known for as long as it is to be");
    ok(found(cache, d), "and is so twice");
    ngx_current_msec += 1;
    ok(!found(cache, d), "and no longer, for all that it was found");

    remember(cache, d, 60000);
    ngx_current_msec += 30000;
    remember(cache, d, 60000);
    ngx_current_msec += 59999;
    ok(found(cache, d), "known again, from then on");
    ngx_current_msec += 1;
    ok(!found(cache, d), "there is one of it");
}


/* digests of one set, as their first octets say */

static void
test_set(cache_t *cache)
{
    u_char      d[6][DIGEST];
    ngx_uint_t  i;

    for (i = 0; i < 6; i++) {
        memset(d[i], 0x55, DIGEST);
        d[i][DIGEST - 1] = (u_char) i;
    }

    remember(cache, d[0], 4000);
    remember(cache, d[1], 1000);
    remember(cache, d[2], 3000);
    remember(cache, d[3], 2000);

    ok(found(cache, d[0]) && found(cache, d[1]) && found(cache, d[2])
       && found(cache, d[3]), "four in a set");

    remember(cache, d[4], 5000);
    ok(found(cache, d[4]) && !found(cache, d[1]) && found(cache, d[0])
       && found(cache, d[2]) && found(cache, d[3]),
       "a fifth one replaces what expires first");

    remember(cache, d[3], 9000);
    remember(cache, d[5], 5000);
    ok(found(cache, d[5]) && found(cache, d[3]) && !found(cache, d[2]),
       "one that was remembered again is not that");

    ngx_current_msec += 4500;
    ok(!found(cache, d[0]), "one has expired");
    remember(cache, d[1], 100);
    ok(found(cache, d[1]) && found(cache, d[3]) && found(cache, d[4])
       && found(cache, d[5]), "and makes room before one that has not");
}


/* more than fit: never one that was not remembered, and never the last not */

static void
test_many(cache_t *cache)
{
    char         login[32];
    u_char      *d;
    ngx_uint_t   i, wrong, lost, kept;

    enum { MANY = 3 * NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES };

    wrong = 0;
    lost = 0;
    kept = 0;

    for (i = 0; i < MANY; i++) {
        snprintf(login, sizeof(login), "user-%u", (unsigned) i);
        d = digest(cache, PLAIN, login, "$6$", "x");
        wrong += found(cache, d);
        remember(cache, d, 3600000);
        lost += !found(cache, d);
        free(d);
    }

    for (i = 0; i < MANY; i++) {
        snprintf(login, sizeof(login), "user-%u", (unsigned) i);
        d = digest(cache, PLAIN, login, "$6$", "x");
        kept += found(cache, d);
        free(d);
    }

    ok(wrong == 0, "many: none is found that was not there");
    ok(lost == 0, "many: each is found at first");
    ok(kept > NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES * 9 / 10
       && kept <= NGX_MAIL_POLICY_AUTH_CACHE_ENTRIES,
       "many: as many are known as there is room for (%u)", (unsigned) kept);
}


static void
test_workers(cache_t *cache)
{
    int      status;
    pid_t    pid;
    u_char  *d;

    d = digest(cache, PLAIN, "workers", "$6$", "x");

    pid = fork();

    if (pid == 0) {
        remember(cache, digest(cache, PLAIN, "workers", "$6$", "x"), 3600000);
        _exit(0);
    }

    ok(waitpid(pid, &status, 0) == pid && status == 0 && found(cache, d),
       "what another process has remembered is known");
}


static void
test_zones(cache_t *cache)
{
    u_char       *d, *e;
    cache_t      *after, *other;
    ngx_cycle_t   reloaded, fresh;

    d = digest(cache, PLAIN, "zones", "$6$", "x");
    remember(cache, d, 3600000);

    after = configure(&reloaded, cache);
    e = digest(after, PLAIN, "zones", "$6$", "x");

    ok(memcmp(d, e, DIGEST) == 0 && found(after, e), "kept over reload");

    other = configure(&fresh, NULL);
    e = digest(other, PLAIN, "zones", "$6$", "x");

    ok(memcmp(d, e, DIGEST) != 0, "a zone has a secret of its own");
    ok(!found(other, d) && !found(other, e), "and knows nobody");
}


__attribute__((constructor)) static void
test(void)
{
    cache_t  *cache;

    ngx_pagesize = getpagesize();
    ngx_pagesize_shift = 12;
    ngx_cacheline_size = 64;
    ngx_current_msec = 100;

    log.log_level = NGX_LOG_EMERG;
    ngx_cycle = &cycle;
    cycle.log = &log;

    ngx_slab_sizes_init();

    cache = configure(&cycle, NULL);

    test_digest(cache);
    test_expiry(cache);
    test_set(cache);
    test_many(cache);
    test_workers(cache);
    test_zones(cache);

    exit(done_testing());
}
