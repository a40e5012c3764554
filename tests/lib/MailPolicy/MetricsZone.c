
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The counters of all workers: real processes that count at the same time,
 * end, are killed, and come again; what is left of each; the room there is,
 * and the steps of history.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <sys/mman.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "ngx_mail_policy_metrics.h"
#include "tap.h"


#define SESSIONS  NGX_MAIL_POLICY_METRIC_SESSIONS
#define ACTIVE    NGX_MAIL_POLICY_GAUGE_SESSIONS


static ngx_log_t                   log;
static ngx_time_t                  wall;
static struct timespec             now;
static ngx_cycle_t                 cycle;
static ngx_shmtx_sh_t              lock;
static ngx_shm_zone_t             *zone;
static ngx_mail_policy_metrics_t  *metrics;


/* for all of this process */

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
    *ts = now;

    return 0;
}


/* a configuration is read; old: what the one before it has */

static ngx_mail_policy_metrics_t *
configuration(ngx_mail_policy_metrics_t *old)
{
    ngx_conf_t                  cf;
    ngx_slab_pool_t            *pool;
    ngx_mail_policy_metrics_t  *new;

    static int  tag;

    ngx_memzero(&cf, sizeof(ngx_conf_t));
    ngx_memzero(&cycle, sizeof(ngx_cycle_t));

    cycle.log = &log;
    cf.cycle = &cycle;
    cf.log = &log;
    cf.pool = ngx_create_pool(4096, &log);

    if (ngx_list_init(&cycle.shared_memory, cf.pool, 1,
                      sizeof(ngx_shm_zone_t))
        != NGX_OK)
    {
        abort();
    }

    new = ngx_mail_policy_metrics_zone(&cf, &tag);

    if (new == NULL || ngx_mail_policy_metrics_zone(&cf, &tag) != new) {
        abort();
    }

    zone = cycle.shared_memory.part.elts;
    zone->shm.log = &log;

    if (old == NULL) {
        zone->shm.addr = mmap(NULL, zone->shm.size, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pool = (ngx_slab_pool_t *) zone->shm.addr;
        pool->end = zone->shm.addr + zone->shm.size;
        pool->min_shift = 3;
        pool->addr = zone->shm.addr;

        if (ngx_shmtx_create(&pool->mutex, &lock, NULL) != NGX_OK) {
            abort();
        }

        ngx_slab_init(pool);
    }

    return zone->init(zone, old) == NGX_OK ? new : NULL;
}


static void
begin(ngx_uint_t worker)
{
    ngx_pid = getpid();
    ngx_worker = worker;

    ngx_event_timer_init(&log);
    ngx_mail_policy_metrics_init_process(&cycle, metrics);
}


/* counts so many sessions, says so, and waits until it is ended */

static pid_t
worker(ngx_uint_t number, ngx_uint_t sessions)
{
    int    fds[2];
    char   c;
    pid_t  pid;

    if (pipe(fds) != 0) {
        abort();
    }

    pid = fork();

    if (pid == 0) {
        begin(number);

        while (sessions--) {
            ngx_mail_policy_metrics_add(SESSIONS, 1);
            ngx_mail_policy_metrics_gauge(ACTIVE, 1);
        }

        (void) !write(fds[1], "x", 1);
        pause();
        _exit(0);
    }

    close(fds[1]);
    (void) !read(fds[0], &c, 1);
    close(fds[0]);

    return pid;
}


static void
end(pid_t pid)
{
    kill(pid, SIGKILL);
    (void) waitpid(pid, NULL, 0);
}


static ngx_mail_policy_metrics_process_t *
process(pid_t pid)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_PROCESSES; i++) {
        if (metrics->shm->processes[i].pid == (ngx_atomic_uint_t) pid) {
            return &metrics->shm->processes[i];
        }
    }

    return NULL;
}


static void
test_room(void)
{
    size_t  left;

    for (ngx_pagesize_shift = 12; ngx_pagesize_shift <= 16;
         ngx_pagesize_shift++)
    {
        ngx_pagesize = (ngx_uint_t) 1 << ngx_pagesize_shift;
        ngx_slab_sizes_init();

        metrics = configuration(NULL);
        left = metrics ? metrics->shpool->pfree * ngx_pagesize : 0;

        ok(left >= 65536, "pages of %u: %u octets are left",
           (unsigned) ngx_pagesize, (unsigned) left);
    }

    ngx_pagesize_shift = 12;
    ngx_pagesize = 4096;
    ngx_slab_sizes_init();
}


static void
test_killed(void)
{
    pid_t                               pid, next;
    ngx_mail_policy_metrics_process_t  *p;

    metrics = configuration(NULL);

    pid = worker(1, 5);
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 5, "five sessions");

    end(pid);
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 0,
           "none, as the worker was killed");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 5,
           "there were five");

    /* its number is another process' by now */

    p = process(pid);
    p->pid = getpid();

    next = worker(1, 2);
    ok(process(next) == p, "the next worker knows the one before it");
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 2, "two sessions");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 7, "seven");

    /* as it is no other worker's */

    pid = worker(0, 1);
    ok(process(next) == p && process(pid) != p && process(pid),
       "a worker has a place of its own");
    end(pid);
    end(next);
}


static void
test_reload(void)
{
    pid_t                       old, new;
    ngx_mail_policy_metrics_t  *first;

    first = configuration(NULL);
    metrics = first;

    old = worker(0, 3);
    metrics = configuration(first);
    new = worker(0, 4);

    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 7,
           "old and new workers' sessions");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 7,
           "and what they counted");

    end(old);
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 4,
           "the old one is gone");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 7,
           "not what it counted");
    end(new);

    /* one ends as it should */

    begin(2);
    ngx_mail_policy_metrics_gauge(ACTIVE, 1);
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 1, "one session");
    ngx_mail_policy_metrics_exit_process();
    ngx_mail_policy_metrics_exit_process();
    ngx_mail_policy_metrics_gauge(ACTIVE, -1);
    ngx_mail_policy_metrics_add(SESSIONS, 1);
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 0,
           "none, the worker has ended");
    ok(process(getpid()) == NULL, "and has no place");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 7,
           "what ends behind it is not counted");
}


/* the user of the workers is another one since the reload */

static void
test_user(void)
{
    int         status;
    pid_t       old, new;
    ngx_uint_t  own;

    if (getuid() != 0) {
        return;
    }

    metrics = configuration(NULL);
    old = worker(0, 3);
    metrics = configuration(metrics);

    new = fork();

    if (new == 0) {
        if (setuid(65534) != 0) {
            _exit(2);
        }

        begin(0);

        own = process(old) && process(getpid());
        _exit(own && ngx_mail_policy_metrics_now(metrics, ACTIVE) == 3
              ? 0 : 1);
    }

    (void) waitpid(new, &status, 0);
    ok(status == 0, "a worker of another user is seen to be there");
    end(old);
}


static void
test_many(void)
{
    pid_t       pids[4];
    ngx_uint_t  i;

    metrics = configuration(NULL);

    /* two of one slot, and others, at the same time */

    for (i = 0; i < 4; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            begin(i % 2 ? i : i + NGX_MAIL_POLICY_METRICS_SLOTS * i);

            for (i = 0; i < 200000; i++) {
                ngx_mail_policy_metrics_add(SESSIONS, 1);
                ngx_mail_policy_metrics_gauge(ACTIVE, 1);
                ngx_mail_policy_metrics_gauge(ACTIVE, -1);
            }

            _exit(0);
        }
    }

    for (i = 0; i < 4; i++) {
        (void) waitpid(pids[i], NULL, 0);
    }

    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 800000,
           "nothing is lost that is counted at the same time");
    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 0, "0 is left");

    /* more workers than places */

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_PROCESSES; i++) {
        metrics->shm->processes[i].pid = getppid();
        metrics->shm->processes[i].worker = 0;
    }

    begin(0);
    ok(ngx_mail_policy_metrics_process == NULL, "no place is left");
    ngx_mail_policy_metrics_gauge(ACTIVE, 1);
    ngx_mail_policy_metrics_add(SESSIONS, 1);
    ngx_mail_policy_metrics_exit_process();

    is_u64(ngx_mail_policy_metrics_now(metrics, ACTIVE), 0,
           "its sessions are not seen");
    is_u64(ngx_mail_policy_metrics_total(metrics, SESSIONS), 800001,
           "they are counted");
}


static void
test_off(void)
{
    ngx_str_t  name = ngx_string("user");

    metrics = NULL;
    begin(0);

    ngx_mail_policy_metrics_add(SESSIONS, 1);
    ngx_mail_policy_metrics_add(
        ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_LIMIT, &name,
                                      NULL), 1);
    ngx_mail_policy_metrics_gauge(ACTIVE, 1);
    ngx_mail_policy_metrics_store(1);
    ngx_mail_policy_metrics_exit_process();

    ok(1, "all of it does nothing where metrics are off");
}


static ngx_uint_t
limit(const char *format, ngx_uint_t i)
{
    char       text[256];
    ngx_str_t  name;

    name.len = snprintf(text, sizeof(text), format, (unsigned) i);
    name.data = (u_char *) text;

    return ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_LIMIT, &name,
                                         NULL);
}


static void
test_blocks(void)
{
    int         status;
    pid_t       pid;
    u_char      text[64];
    ngx_str_t   name = ngx_string("user3"), second = ngx_string("a:25");
    ngx_uint_t  i, n, different;

    metrics = configuration(NULL);
    begin(0);

    n = limit("user%u", 3);
    ok(limit("user%u", 3) == n && limit("user%u", 4) != n,
       "a name has a number");
    ok(ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_PEER, &name, NULL)
       != n, "that of another kind has its own");
    ok(ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_PEER, &name,
                                     &second)
       != ngx_mail_policy_metrics_block(NGX_MAIL_POLICY_BLOCK_PEER, &name,
                                        NULL),
       "and a second name tells them apart");

    pid = fork();

    if (pid == 0) {
        begin(1);
        _exit(limit("user%u", 3) == n && limit("new%u", 0) != n ? 0 : 1);
    }

    (void) waitpid(pid, &status, 0);
    ok(status == 0, "the same one in another worker");

    different = 0;

    for (i = 0; i < 1000; i++) {
        name.len = ngx_sprintf(text, "client%ui", i) - text;
        name.data = text;
        (void) ngx_mail_policy_metrics_block_dynamic(
                              NGX_MAIL_POLICY_BLOCK_LIMIT, &name, NULL);
    }

    is_u64(metrics->shm->nblocks, NGX_MAIL_POLICY_METRICS_BLOCKS / 2,
           "half of the room for what is not of the configuration");

    for (i = 0; i < 1000; i++) {
        different += limit("name%u", i) != limit("name%u", i + 5000);
    }

    ok(different < NGX_MAIL_POLICY_METRICS_BLOCKS && different > 50,
       "no name is without one, though there is room for few");
    is_u64(metrics->shm->nblocks, NGX_MAIL_POLICY_METRICS_BLOCKS, "not more");
    ok(limit("user%u", 3) == n, "those that had one keep it");
    ok(limit("name%u", 999) + NGX_MAIL_POLICY_METRICS_BLOCK
       <= NGX_MAIL_POLICY_METRIC_FIXED + NGX_MAIL_POLICY_METRICS_BLOCKS
                                         * NGX_MAIL_POLICY_METRICS_BLOCK,
       "the numbers are in the slot");

    metrics = configuration(NULL);
    begin(0);
    n = limit("%0250u", 1);
    ok(limit("%0250u", 1) == n, "a long name has one");
    ngx_mail_policy_metrics_exit_process();
}


static void
test_past(void)
{
    uint64_t                 totals[NGX_MAIL_POLICY_PASTS], step, msec;
    ngx_msec_t               timer;
    ngx_mail_policy_past_t  *past;

    now.tv_sec = 1007;
    now.tv_nsec = 250000000;
    step = ngx_mail_policy_metrics_step();

    metrics = configuration(NULL);
    begin(0);

    timer = ngx_event_find_timer();
    is_u64(timer, 2750, "the next step begins at a round time");
    ok(ngx_mail_policy_metrics_past(metrics, step, totals, &msec)
       && totals[NGX_MAIL_POLICY_PAST_SESSIONS] == 0 && msec == 1007250,
       "the worker's first one");
    ok(!ngx_mail_policy_metrics_past(metrics, step - 1, totals, &msec)
       && !ngx_mail_policy_metrics_past(metrics, step + 1, totals, &msec),
       "and no other");

    ngx_mail_policy_metrics_add(SESSIONS, 3);
    now.tv_sec += 3;
    now.tv_nsec = 1000000;
    ngx_current_msec += 2751;
    ngx_event_expire_timers();

    ok(ngx_mail_policy_metrics_past(metrics, step + 1, totals, &msec)
       && totals[NGX_MAIL_POLICY_PAST_SESSIONS] == 3, "the next one");

    timer = ngx_event_find_timer();
    is_u64(timer, 9999, "and it goes on");

    /* killed while it wrote: the place is not lost */

    past = &metrics->shm->past[(step + 2) % NGX_MAIL_POLICY_PAST_STEPS];
    past->step = -(step + 2);
    now.tv_sec += NGX_MAIL_POLICY_PAST_STEP;
    begin(0);
    ok(!ngx_mail_policy_metrics_past(metrics, step + 2, totals, &msec),
       "one that was never written to its end is none");

    now.tv_sec += NGX_MAIL_POLICY_PAST_STEP * NGX_MAIL_POLICY_PAST_STEPS;
    begin(0);
    ok(ngx_mail_policy_metrics_past(metrics,
                                    step + 2 + NGX_MAIL_POLICY_PAST_STEPS,
                                    totals, &msec),
       "its place is used again");
    ok(!ngx_mail_policy_metrics_past(metrics, step + 2, totals, &msec),
       "and is that of the new one");
    ngx_mail_policy_metrics_exit_process();
}


__attribute__((constructor)) static void
test(void)
{
    log.log_level = NGX_LOG_EMERG;
    ngx_cycle = &cycle;
    ngx_cached_time = &wall;
    now.tv_sec = 1000;

    test_room();
    test_killed();
    test_reload();
    test_user();
    test_many();
    test_off();
    test_blocks();
    test_past();

    exit(done_testing());
}
