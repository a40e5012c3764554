
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The zone, the slots, and what is read of them.  A timer of each worker
 * looks whether the next step of history is due.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <signal.h>

#include "ngx_mail_policy_metrics.h"


/* pages of it are described by the pool, one for each page of ours */
#define NGX_MAIL_POLICY_METRICS_ZONE                                         \
    (sizeof(ngx_mail_policy_metrics_shm_t)                                   \
     + sizeof(ngx_mail_policy_metrics_shm_t) / 32 + 262144)

/* of a step that is being written */
#define ngx_mail_policy_metrics_mark(step)  ((ngx_atomic_uint_t) -(step))


static ngx_int_t ngx_mail_policy_metrics_zone_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_mail_policy_metrics_process_t *ngx_mail_policy_metrics_claim(
    ngx_mail_policy_metrics_t *metrics);
static ngx_uint_t ngx_mail_policy_metrics_alive(ngx_atomic_uint_t pid);
static ngx_msec_t ngx_mail_policy_metrics_next(void);
static void ngx_mail_policy_metrics_timer(ngx_event_t *ev);
static void ngx_mail_policy_metrics_past_keep(
    ngx_mail_policy_metrics_t *metrics);


ngx_mail_policy_metrics_t          *ngx_mail_policy_metrics;
ngx_mail_policy_metrics_slot_t     *ngx_mail_policy_metrics_slot;
ngx_mail_policy_metrics_process_t  *ngx_mail_policy_metrics_process;

ngx_uint_t  ngx_mail_policy_metrics_bounds[NGX_MAIL_POLICY_METRICS_BOUNDS] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
    1000000
};

static ngx_event_t       ngx_mail_policy_metrics_event;
static ngx_connection_t  ngx_mail_policy_metrics_dumb;


ngx_mail_policy_metrics_t *
ngx_mail_policy_metrics_zone(ngx_conf_t *cf, void *tag)
{
    ngx_shm_zone_t             *shm_zone;
    ngx_mail_policy_metrics_t  *metrics;

    static ngx_str_t  name = ngx_string("mail_policy_metrics");

    shm_zone = ngx_shared_memory_add(cf, &name, NGX_MAIL_POLICY_METRICS_ZONE,
                                     tag);
    if (shm_zone == NULL) {
        return NULL;
    }

    if (shm_zone->data) {
        return shm_zone->data;
    }

    metrics = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_metrics_t));
    if (metrics == NULL) {
        return NULL;
    }

    shm_zone->init = ngx_mail_policy_metrics_zone_init;
    shm_zone->data = metrics;

    return metrics;
}


static ngx_int_t
ngx_mail_policy_metrics_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_mail_policy_metrics_t *old = data;

    ngx_mail_policy_metrics_t  *metrics;

    metrics = shm_zone->data;

    if (old) {
        metrics->shm = old->shm;
        metrics->shpool = old->shpool;
        metrics->configuration = ++metrics->shm->configurations;
        return NGX_OK;
    }

    metrics->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        metrics->shm = metrics->shpool->data;
        return NGX_OK;
    }

    metrics->shm = ngx_slab_calloc(metrics->shpool,
                                   sizeof(ngx_mail_policy_metrics_shm_t));
    if (metrics->shm == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "no memory for \"%V\"", &shm_zone->shm.name);
        return NGX_ERROR;
    }

    metrics->configuration = ++metrics->shm->configurations;
    metrics->shm->started = ngx_time();
    metrics->shpool->data = metrics->shm;

    return NGX_OK;
}


void
ngx_mail_policy_metrics_init_process(ngx_cycle_t *cycle,
    ngx_mail_policy_metrics_t *metrics)
{
    ngx_event_t  *ev;

    ngx_mail_policy_metrics = metrics;

    if (metrics == NULL) {
        return;
    }

    ngx_mail_policy_metrics_slot = &metrics->shm->slots[
                                  ngx_worker % NGX_MAIL_POLICY_METRICS_SLOTS];
    ngx_mail_policy_metrics_process = ngx_mail_policy_metrics_claim(metrics);

    ngx_mail_policy_metrics_past_keep(metrics);

    ev = &ngx_mail_policy_metrics_event;

    ngx_memzero(ev, sizeof(ngx_event_t));
    ngx_mail_policy_metrics_dumb.fd = (ngx_socket_t) -1;

    ev->handler = ngx_mail_policy_metrics_timer;
    ev->data = &ngx_mail_policy_metrics_dumb;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_add_timer(ev, ngx_mail_policy_metrics_next());
}


void
ngx_mail_policy_metrics_exit_process(void)
{
    ngx_uint_t                          i;
    ngx_mail_policy_metrics_process_t  *process;

    ngx_mail_policy_metrics_slot = NULL;

    process = ngx_mail_policy_metrics_process;

    if (process == NULL) {
        return;
    }

    ngx_mail_policy_metrics_process = NULL;

    for (i = 0; i < NGX_MAIL_POLICY_GAUGES; i++) {
        process->gauges[i] = 0;
    }

    ngx_memory_barrier();

    process->pid = 0;
}


/*
 * A worker that was killed has left its pid, which any process may have by
 * now: the worker that comes in its place knows it by its number.
 */

static ngx_mail_policy_metrics_process_t *
ngx_mail_policy_metrics_claim(ngx_mail_policy_metrics_t *metrics)
{
    ngx_uint_t                          i, last;
    ngx_atomic_uint_t                   worker;
    ngx_mail_policy_metrics_process_t  *process, *found;

    found = NULL;
    last = NGX_MAIL_POLICY_METRICS_PROCESSES;

    /* worker_processes is at most 1024 */
    worker = (metrics->configuration << 10) + ngx_worker % 1024;

    ngx_shmtx_lock(&metrics->shpool->mutex);

    for (i = 0; i < last && found == NULL; i++) {
        process = &metrics->shm->processes[i];
        found = process->pid && process->worker == worker ? process : NULL;
    }

    for (i = 0; i < last && found == NULL; i++) {
        process = &metrics->shm->processes[i];
        found = ngx_mail_policy_metrics_alive(process->pid) ? NULL : process;
    }

    if (found) {
        ngx_memzero(found, sizeof(ngx_mail_policy_metrics_process_t));
        found->worker = worker;
        found->pid = (ngx_atomic_uint_t) ngx_pid;
    }

    ngx_shmtx_unlock(&metrics->shpool->mutex);

    return found;
}


/* one of another user is there, too */

static ngx_uint_t
ngx_mail_policy_metrics_alive(ngx_atomic_uint_t pid)
{
    return pid != 0
           && (kill((ngx_pid_t) pid, 0) == 0 || ngx_errno != NGX_ESRCH);
}


uint64_t
ngx_mail_policy_metrics_total(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t n)
{
    uint64_t    total;
    ngx_uint_t  i;

    total = 0;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_SLOTS; i++) {
        total += metrics->shm->slots[i].counters[n];
    }

    return total;
}


uint64_t
ngx_mail_policy_metrics_now(ngx_mail_policy_metrics_t *metrics,
    ngx_uint_t gauge)
{
    ngx_uint_t                          i;
    ngx_atomic_int_t                    total;
    ngx_mail_policy_metrics_process_t  *process;

    total = 0;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_PROCESSES; i++) {
        process = &metrics->shm->processes[i];

        if (ngx_mail_policy_metrics_alive(process->pid)) {
            total += (ngx_atomic_int_t) process->gauges[gauge];
        }
    }

    return total > 0 ? total : 0;
}


void
ngx_mail_policy_metrics_store(uint64_t usec)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_BOUNDS; i++) {
        if (usec <= ngx_mail_policy_metrics_bounds[i]) {
            break;
        }
    }

    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_STORE_SECONDS + i, 1);
    ngx_mail_policy_metrics_add(NGX_MAIL_POLICY_METRIC_STORE_SUM, usec);
}


uint64_t
ngx_mail_policy_metrics_usec(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


static void
ngx_mail_policy_metrics_timer(ngx_event_t *ev)
{
    ngx_mail_policy_metrics_past_keep(ngx_mail_policy_metrics);

    ngx_add_timer(ev, ngx_mail_policy_metrics_next());
}


/* steps begin at the same time for all, so that none is left out */

static ngx_msec_t
ngx_mail_policy_metrics_next(void)
{
    ngx_msec_t  now;

    now = (ngx_msec_t) (ngx_mail_policy_metrics_usec() / 1000);

    return NGX_MAIL_POLICY_PAST_STEP * 1000
           - now % (NGX_MAIL_POLICY_PAST_STEP * 1000);
}


uint64_t
ngx_mail_policy_metrics_step(void)
{
    return ngx_mail_policy_metrics_usec() / 1000000
           / NGX_MAIL_POLICY_PAST_STEP + 1;
}


/*
 * The first worker that comes by in a step writes it.  If it is killed there,
 * the step is none, and its place is written again an hour later.
 */

static void
ngx_mail_policy_metrics_past_keep(ngx_mail_policy_metrics_t *metrics)
{
    uint64_t                 totals[NGX_MAIL_POLICY_PASTS];
    ngx_uint_t               i;
    ngx_atomic_uint_t        step, old, mark;
    ngx_mail_policy_past_t  *past;

    step = (ngx_atomic_uint_t) ngx_mail_policy_metrics_step();
    mark = ngx_mail_policy_metrics_mark(step);
    past = &metrics->shm->past[step % NGX_MAIL_POLICY_PAST_STEPS];
    old = past->step;

    if (old == step || old == mark
        || !ngx_atomic_cmp_set(&past->step, old, mark))
    {
        return;
    }

    ngx_mail_policy_metrics_past_now(metrics, totals);

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        past->totals[i] = totals[i];
    }

    past->msec = ngx_mail_policy_metrics_usec() / 1000;

    ngx_memory_barrier();

    past->step = step;
}


ngx_uint_t
ngx_mail_policy_metrics_past(ngx_mail_policy_metrics_t *metrics,
    uint64_t step, uint64_t totals[NGX_MAIL_POLICY_PASTS], uint64_t *msec)
{
    ngx_uint_t               i;
    ngx_mail_policy_past_t  *past;

    past = &metrics->shm->past[step % NGX_MAIL_POLICY_PAST_STEPS];

    if (past->step != step) {
        return 0;
    }

    ngx_memory_barrier();

    for (i = 0; i < NGX_MAIL_POLICY_PASTS; i++) {
        totals[i] = past->totals[i];
    }

    *msec = past->msec;

    ngx_memory_barrier();

    return past->step == step;
}


void
ngx_mail_policy_metrics_past_now(ngx_mail_policy_metrics_t *metrics,
    uint64_t totals[NGX_MAIL_POLICY_PASTS])
{
    ngx_uint_t  i, n;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_OUTCOMES; i++) {
        n = NGX_MAIL_POLICY_METRIC_TRANSACTIONS + i;
        /* accepted, deferred, rejected, and the others */
        totals[ngx_min(NGX_MAIL_POLICY_PAST_ACCEPTED + i,
                       NGX_MAIL_POLICY_PAST_OTHER)]
            = ngx_mail_policy_metrics_total(metrics, n)
              + (i > 3 ? totals[NGX_MAIL_POLICY_PAST_OTHER] : 0);
    }

    totals[NGX_MAIL_POLICY_PAST_SESSIONS] = ngx_mail_policy_metrics_total(
                                  metrics, NGX_MAIL_POLICY_METRIC_SESSIONS);
    totals[NGX_MAIL_POLICY_PAST_RECIPIENTS] = ngx_mail_policy_metrics_total(
                              metrics, NGX_MAIL_POLICY_METRIC_RCPT_ACCEPTED);
    totals[NGX_MAIL_POLICY_PAST_BYTES] = ngx_mail_policy_metrics_total(
                              metrics, NGX_MAIL_POLICY_METRIC_MESSAGE_BYTES);
    totals[NGX_MAIL_POLICY_PAST_STORE_ERRORS] = ngx_mail_policy_metrics_total(
                               metrics, NGX_MAIL_POLICY_METRIC_STORE_ERRORS);
    totals[NGX_MAIL_POLICY_PAST_LOG_LOST] = ngx_mail_policy_metrics_total(
                                  metrics, NGX_MAIL_POLICY_METRIC_LOG_LOST);

    totals[NGX_MAIL_POLICY_PAST_REFUSED] = 0;

    for (i = 0; i < 2 * NGX_MAIL_POLICY_AT_COMMANDS; i++) {

        if (i % NGX_MAIL_POLICY_AT_COMMANDS
            != NGX_MAIL_POLICY_AT_COMMAND_AUTH)
        {
            totals[NGX_MAIL_POLICY_PAST_REFUSED]
                += ngx_mail_policy_metrics_total(metrics,
                                      NGX_MAIL_POLICY_METRIC_REFUSED + i);
        }
    }

    totals[NGX_MAIL_POLICY_PAST_AUTH_FAILURES] = 0;

    for (i = 0; i < NGX_MAIL_POLICY_METRICS_MECHANISMS; i++) {
        totals[NGX_MAIL_POLICY_PAST_AUTH_FAILURES]
            += ngx_mail_policy_metrics_total(metrics,
                   NGX_MAIL_POLICY_METRIC_AUTH + i * NGX_MAIL_POLICY_LOGINS
                   + NGX_MAIL_POLICY_LOGIN_FAILURE);
    }
}
