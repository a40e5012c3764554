
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A whole session of the module in nginx, in the process of the fuzzer: both
 * the client and the relays are ends of socketpairs here.
 *
 *     fuzz_session.c        the input: who does what, and when
 *     session_start.c       nginx is started, once
 *     session_nginx.c       its event loop, clock and threads, turned by hand
 *     session_net.c         what takes the place of the network
 *     session_client.c      the client's end, and what it may be told
 *     session_tls.c         its TLS
 *     session_relay.c       the relays' ends, and a script that answers
 *     session_relay_read.c  what a relay may be told
 *     session_log.c         the access log and the counters
 *
 * What is found wrong ends in SESSION_DIE, and so in abort().  Nothing but
 * the input decides what happens: an input shows the same each time.
 */


#ifndef SESSION_H
#define SESSION_H


#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define SESSION_RELAYS   32             /* connections to relays, an input */
#define SESSION_SERVERS  8
#define SESSION_MAX      65536          /* octets of a stream, remembered */

/* the server that changes messages */
#define SESSION_NORMALIZE  6


#define SESSION_DIE(...)                                                      \
    do {                                                                      \
        fprintf(stderr, "session: " __VA_ARGS__);                             \
        fprintf(stderr, "\n");                                                \
        abort();                                                              \
    } while (0)


/* how connect() to a relay goes */
typedef enum {
    SESSION_CONNECT_OK = 0,             /* at once */
    SESSION_CONNECT_LATER,              /* EINPROGRESS, then well */
    SESSION_CONNECT_REFUSED,            /* the first one; others later */
    SESSION_CONNECT_FAILS               /* EINPROGRESS and then refused, the
                                           first one; others at once */
} session_connect_e;


typedef struct {
    unsigned            server;
    session_connect_e   connect;
    unsigned            extensions;     /* of a relay: a mask, see there */
    unsigned            slow_store;     /* answers when told */
    unsigned            slow_threads;   /* the same */
    unsigned            small;          /* socket buffers */
} session_setup_t;


extern session_setup_t  session_setup;


/* SESSION_TRACE in the environment: what is said and logged, to stderr */
extern unsigned  session_traced;

void session_trace(const char *who, const void *p, size_t len);


/* nginx */

void session_nginx_start(void);

/* everything as it was after the start; fd: the client, of a socketpair */
void session_nginx_reset(void);
void session_nginx_accept(int fd);

/* turns the event loop until nothing moves, here and among the peers */
void session_nginx_run(unsigned (*peers)(void));

/* the clock goes on to the next timer; 0 if there is none */
unsigned session_nginx_timer(void);

/* what was slow comes; cap: at most so many */
void session_nginx_answer(unsigned cap);

/* the worker is told to stop; now: worker_shutdown_timeout is over */
void session_nginx_shutdown(unsigned now);

/*
 * What a limit has counted under a key, in the hour that the clock has to be
 * in: -1 if it is not.  unit: 0 messages, 1 recipients.
 */
int session_nginx_used(const char *limit, const char *key, unsigned unit,
    unsigned (*peers)(void));

/* aborts if a connection, a timer or an event is left */
void session_nginx_check(void);


/* the network */

extern unsigned  session_net_started;   /* what is wrapped is ours */
extern int       session_net_events;    /* of the last epoll_wait() */

/* a pair of connected sockets; both do not block */
void session_pair(int fd[2]);


/* the client */

void session_client_open(void);
void session_client_send(const uint8_t *p, size_t len);
void session_client_pause(void);        /* and goes on when called again */
void session_client_shutdown(void);
void session_client_close(void);
unsigned session_client_run(void);      /* 1 if something moved */

/* TLS begins; ends, and what is sent then is in the clear */
void session_client_tls(unsigned on);

/* what it has sent, all of it, and a NUL */
extern uint8_t   session_sent[SESSION_MAX + 1];
extern size_t    session_sent_len;

extern unsigned  session_client_accepted;    /* messages: 2xx to a dot */


/* its TLS: one at a time */

void session_tls_certificate(const char *certificate, const char *key);
void session_tls_begin(int fd);
unsigned session_tls_on(void);
void session_tls_notify(void);
void session_tls_end(void);

/* octets, 0: the end, -1: not now */
int session_tls_read(void *buf, size_t len);
int session_tls_write(const void *buf, size_t len);


/* relays */

void session_relay_reset(void);
int session_relay_connect(int *fd, int *error);

void session_relay_auto(unsigned on);
void session_relay_answer(unsigned n);
void session_relay_send(const uint8_t *p, size_t len);
void session_relay_override(uint8_t which, const uint8_t *p, size_t len);
void session_relay_pause(void);
void session_relay_hang(void);
void session_relay_shutdown(void);
void session_relay_close(void);
unsigned session_relay_close_all(void);     /* 1 if there was one */
unsigned session_relay_run(void);

extern unsigned  session_relay_accepted;     /* messages: 2xx said */
extern unsigned  session_relay_recipients;   /* of these: 2xx said */
extern unsigned  session_relay_dots;         /* messages that ended */


/* the access log */

void session_log_open(const char *path);
void session_log_check(unsigned (*peers)(void));
void session_log_reset(void);


#endif /* SESSION_H */
