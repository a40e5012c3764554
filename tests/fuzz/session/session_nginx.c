
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * nginx in the fuzzer's process, once it is started.
 *
 * A client is one end of a socketpair, which gets what ngx_event_accept()
 * would give it.
 *
 * Time stands still but when a timer is to expire.  Threads run when they are
 * told to, and the store answers.  Shared memory and the choice among relays
 * are as after the start, for each input.
 */


#include "session_nginx.h"


#define SESSION_TURNS      20000        /* of the loop: it spins */
#define SESSION_HELD       512
#define SESSION_ZONES      2


static void session_nginx_asked(void *data, ngx_mail_policy_ask_t *ask);
static unsigned session_nginx_tasks(void);
static void session_nginx_forget(ngx_mail_policy_ask_t *ask);
static ngx_shm_zone_t *session_nginx_zone(ngx_uint_t n);


session_setup_t  session_setup;


ngx_listening_t                       *session_listening;
ngx_mail_policy_main_conf_t           *session_main_conf;

static ngx_uint_t                      session_connections;

/* as after the start: counters, and what is known of the relays */
static void                           *session_zones[SESSION_ZONES];
static ngx_msec_t                      session_msec;
static ngx_time_t                      session_time;

static ngx_thread_task_t              *session_tasks;
static ngx_mail_policy_ask_t          *session_asks[SESSION_HELD];
static unsigned                        session_nasks;


void __real_ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask);
void __real_ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask);
void __real_ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask);
void __real_ngx_mail_policy_ask_settle(ngx_mail_policy_ask_t *ask);


void
session_nginx_save(ngx_cycle_t *cycle)
{
    ngx_uint_t       i;
    ngx_event_t     *ev;
    ngx_shm_zone_t  *zone;

    /* what a worker does now and then: the clock is to go with sessions */

    while (ngx_event_timer_rbtree.root != ngx_event_timer_rbtree.sentinel) {
        ev = ngx_rbtree_data(ngx_event_timer_rbtree.root, ngx_event_t, timer);
        ngx_del_timer(ev);
    }

    for (i = 0; i < SESSION_ZONES; i++) {
        zone = session_nginx_zone(i);

        session_zones[i] = malloc(zone->shm.size);
        memcpy(session_zones[i], zone->shm.addr, zone->shm.size);
    }

    session_msec = ngx_current_msec;
    session_time = *ngx_timeofday();
    session_connections = cycle->free_connection_n;
    session_net_started = 1;
}


void
session_nginx_reset(void)
{
    ngx_uint_t       i;
    ngx_shm_zone_t  *zone;

    for (i = 0; i < SESSION_ZONES; i++) {
        zone = session_nginx_zone(i);

        memcpy(zone->shm.addr, session_zones[i], zone->shm.size);
    }

    ngx_current_msec = session_msec;
    *(ngx_time_t *) ngx_timeofday() = session_time;
    ngx_exiting = 0;
}


static ngx_shm_zone_t *
session_nginx_zone(ngx_uint_t n)
{
    ngx_list_part_t  *part;
    ngx_shm_zone_t   *zones;

    for (part = (ngx_list_part_t *) &ngx_cycle->shared_memory.part;
         part;
         part = part->next)
    {
        if (n < part->nelts) {
            zones = part->elts;
            return &zones[n];
        }

        n -= part->nelts;
    }

    SESSION_DIE("there is no zone %d", (int) n);
}


/* as ngx_event_accept() */

void
session_nginx_accept(int fd)
{
    ngx_log_t           *log;
    ngx_listening_t     *ls;
    ngx_connection_t    *c;
    struct sockaddr_in  *sin;

    ls = &session_listening[session_setup.server];

    c = ngx_get_connection(fd, &ls->log);
    if (c == NULL) {
        SESSION_DIE("no connection");
    }

    c->type = SOCK_STREAM;
    c->pool = ngx_create_pool(ls->pool_size, &ls->log);

    sin = ngx_pcalloc(c->pool, sizeof(struct sockaddr_in));
    sin->sin_family = AF_INET;
    sin->sin_addr.s_addr = htonl(0xc0000201);
    sin->sin_port = htons(40000);

    log = ngx_palloc(c->pool, sizeof(ngx_log_t));
    *log = ls->log;

    c->sockaddr = (struct sockaddr *) sin;
    c->socklen = sizeof(struct sockaddr_in);
    c->recv = ngx_recv;
    c->send = ngx_send;
    c->recv_chain = ngx_recv_chain;
    c->send_chain = ngx_send_chain;
    c->log = log;
    c->pool->log = log;
    c->listening = ls;
    c->local_sockaddr = ls->sockaddr;
    c->local_socklen = ls->socklen;
    c->read->log = log;
    c->write->log = log;
    c->write->ready = 1;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

    c->addr_text.data = ngx_pnalloc(c->pool, ls->addr_text_max_len);
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen,
                                     c->addr_text.data,
                                     ls->addr_text_max_len, 0);
    log->data = NULL;
    log->handler = NULL;

    ls->handler(c);
}


/* the loop */


void
session_nginx_run(unsigned (*peers)(void))
{
    unsigned      turn, moved;
    ngx_cycle_t  *cycle;

    cycle = (ngx_cycle_t *) ngx_cycle;

    for (turn = 0; turn < SESSION_TURNS; turn++) {

        moved = !ngx_queue_empty(&ngx_posted_next_events);

        if (moved) {
            ngx_event_move_posted_next(cycle);
        }

        session_net_events = 0;

        (void) ngx_process_events(cycle, 0, 0);

        if (!session_setup.slow_threads) {
            moved |= session_nginx_tasks();
        }

        moved |= session_net_events > 0
                 || !ngx_queue_empty(&ngx_posted_accept_events)
                 || !ngx_queue_empty(&ngx_posted_events);

        ngx_event_process_posted(cycle, &ngx_posted_accept_events);
        ngx_event_process_posted(cycle, &ngx_posted_events);

        moved |= peers();

        if (!moved) {
            return;
        }
    }

    SESSION_DIE("the event loop spins");
}


unsigned
session_nginx_timer(void)
{
    ngx_time_t         *tp;
    ngx_msec_int_t      delta;
    ngx_event_t        *ev;
    ngx_rbtree_node_t  *node;

    if (ngx_event_timer_rbtree.root == ngx_event_timer_rbtree.sentinel) {
        return 0;
    }

    node = ngx_rbtree_min(ngx_event_timer_rbtree.root,
                          ngx_event_timer_rbtree.sentinel);
    ev = ngx_rbtree_data(node, ngx_event_t, timer);

    delta = (ngx_msec_int_t) (ev->timer.key - ngx_current_msec);

    if (delta > 0) {
        ngx_current_msec = ev->timer.key;

        tp = (ngx_time_t *) ngx_timeofday();
        tp->sec += (tp->msec + delta) / 1000;
        tp->msec = (tp->msec + delta) % 1000;
    }

    if (session_traced) {
        fprintf(stderr, "     %d ms later\n", (int) delta);
    }

    ngx_event_expire_timers();

    return 1;
}


void
session_nginx_shutdown(unsigned now)
{
    ngx_uint_t         i;
    ngx_connection_t  *c;

    ngx_exiting = 1;

    if (!now) {
        ngx_close_idle_connections((ngx_cycle_t *) ngx_cycle);
        return;
    }

    /* as ngx_shutdown_timer_handler() */

    c = ngx_cycle->connections;

    for (i = 0; i < ngx_cycle->connection_n; i++) {

        if (c[i].fd == (ngx_socket_t) -1 || c[i].read == NULL
            || c[i].read->accept || c[i].read->channel || c[i].read->resolver)
        {
            continue;
        }

        c[i].close = 1;
        c[i].error = 1;

        c[i].read->handler(c[i].read);
    }
}


void
session_nginx_check(void)
{
    if (ngx_cycle->free_connection_n != session_connections) {
        SESSION_DIE("%d connections are left open",
                    (int) (session_connections
                           - ngx_cycle->free_connection_n));
    }

    if (ngx_event_timer_rbtree.root != ngx_event_timer_rbtree.sentinel) {
        SESSION_DIE("a timer is left");
    }

    if (!ngx_queue_empty(&ngx_posted_events)
        || !ngx_queue_empty(&ngx_posted_next_events))
    {
        SESSION_DIE("an event is left");
    }

    if (session_nasks || session_tasks) {
        SESSION_DIE("a question is left");
    }
}


int
session_nginx_used(const char *limit, const char *key, unsigned unit,
    unsigned (*peers)(void))
{
    int                             used[NGX_MAIL_POLICY_UNITS];
    static mpol_rate_t              rates[NGX_MAIL_POLICY_UNITS];
    ngx_uint_t                      i;
    ngx_mail_policy_ask_t          *ask;
    ngx_mail_policy_charge_t       *charge;

    if (ngx_current_msec - session_msec >= 3600000) {
        return -1;
    }

    ask = ngx_mail_policy_ask_create(session_main_conf->store, 1,
                                     session_nginx_asked, used);

    memset(rates, 0, sizeof(rates));

    for (i = 0; i < 2; i++) {
        rates[i].kind = MPOL_RATE_WINDOW;
        rates[i].count = 1;
        rates[i].period = UINT64_C(3600000000);
    }

    charge = ask->charges;

    charge->name.data = (u_char *) limit;
    charge->name.len = strlen(limit);
    charge->key.data = (u_char *) key;
    charge->key.len = strlen(key);
    charge->conf = rates;
    charge->asked = ngx_mail_policy_asked(NGX_MAIL_POLICY_MESSAGES)
                    | ngx_mail_policy_asked(NGX_MAIL_POLICY_RECIPIENTS);

    used[unit] = -1;

    ngx_mail_policy_ask_send(ask);
    session_nginx_run(peers);

    if (used[unit] == -1) {
        SESSION_DIE("the store does not answer");
    }

    return used[unit];
}


static void
session_nginx_asked(void *data, ngx_mail_policy_ask_t *ask)
{
    int  *used = data;

    ngx_uint_t  i;

    for (i = 0; i < 2; i++) {
        used[i] = (int) ask->charges[0].units[i].decision.used;
    }

    ngx_mail_policy_ask_keep(ask);
}


/* what is slow */


void
session_nginx_answer(unsigned cap)
{
    unsigned                n;
    ngx_mail_policy_ask_t  *ask;

    for (n = 0; n < cap && session_nasks; n++) {
        ask = session_asks[0];
        session_nginx_forget(ask);
        __real_ngx_mail_policy_ask_send(ask);
    }

    (void) session_nginx_tasks();
}


/* 1 if there was one */

static unsigned
session_nginx_tasks(void)
{
    unsigned            n;
    ngx_event_t        *ev;
    ngx_thread_task_t  *task, *next;

    task = session_tasks;
    session_tasks = NULL;

    for (n = 0; task; task = next) {
        next = task->next;
        n = 1;

        task->handler(task->ctx, ngx_cycle->log);

        ev = &task->event;
        ev->complete = 1;
        ev->active = 0;
        ev->handler(ev);
    }

    return n;
}


ngx_int_t
__wrap_ngx_thread_task_post(ngx_thread_pool_t *tp, ngx_thread_task_t *task)
{
    if (task->event.active) {
        SESSION_DIE("a task is posted twice");
    }

    task->event.active = 1;
    task->next = session_tasks;
    session_tasks = task;

    return NGX_OK;
}


void
__wrap_ngx_mail_policy_ask_send(ngx_mail_policy_ask_t *ask)
{
    if (!session_setup.slow_store || session_nasks == SESSION_HELD) {
        __real_ngx_mail_policy_ask_send(ask);
        return;
    }

    session_asks[session_nasks++] = ask;
}


static void
session_nginx_forget(ngx_mail_policy_ask_t *ask)
{
    unsigned  i;

    for (i = 0; i < session_nasks; i++) {

        if (session_asks[i] == ask) {
            session_nasks--;
            memmove(&session_asks[i], &session_asks[i + 1],
                    (session_nasks - i) * sizeof(ask));
            return;
        }
    }
}


void
__wrap_ngx_mail_policy_ask_keep(ngx_mail_policy_ask_t *ask)
{
    session_nginx_forget(ask);
    __real_ngx_mail_policy_ask_keep(ask);
}


void
__wrap_ngx_mail_policy_ask_give_back(ngx_mail_policy_ask_t *ask)
{
    session_nginx_forget(ask);
    __real_ngx_mail_policy_ask_give_back(ask);
}


void
__wrap_ngx_mail_policy_ask_settle(ngx_mail_policy_ask_t *ask)
{
    session_nginx_forget(ask);
    __real_ngx_mail_policy_ask_settle(ask);
}
