
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Asks a policy server.  As Postfix does: each connection puts one question,
 * and waits for its answer before the next one; or it has up to DEPTH of them
 * under way.
 *
 *     policy_load address:port|/path connections seconds users [depth]
 *
 * Each question is of a message of its own, by one of so many logins, with
 * the attributes of Postfix 3.7 at RCPT.  Prints "requests seconds p50 p99
 * max", the latter three in microseconds; what is no "action=DUNNO" ends it.
 */


#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>


#define CONNECTIONS  1024
#define ANSWER       "action=DUNNO\n\n"

/* one for each microsecond of an answer's time, the last one for all above */
#define LATENCIES    1000000


/* questions that one connection may have under way */
#define DEPTH        64


typedef struct {
    int       fd;
    uint64_t  asked[DEPTH];             /* when; a ring, by first and last */
    unsigned  first;
    unsigned  last;
    size_t    have;
    char      answer[DEPTH * (sizeof(ANSWER) - 1)];
} connection_t;


static connection_t  connections[CONNECTIONS];
static uint32_t      latencies[LATENCIES];
static uint64_t      questions, answers, longest;


static void
die(const char *what)
{
    fprintf(stderr, "policy_load: %s: %s\n", what, strerror(errno));
    exit(1);
}


static uint64_t
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}


static int
connect_tcp(const char *where)
{
    int                 fd, one = 1;
    char                host[64];
    const char         *colon = strrchr(where, ':');
    struct sockaddr_in  in;

    if (colon == NULL || (size_t) (colon - where) >= sizeof(host)) {
        errno = EINVAL;
        die(where);
    }

    memset(&in, 0, sizeof(in));
    memcpy(host, where, colon - where);
    host[colon - where] = '\0';

    in.sin_family = AF_INET;
    in.sin_port = htons(atoi(colon + 1));
    inet_pton(AF_INET, host, &in.sin_addr);

    fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd == -1 || connect(fd, (struct sockaddr *) &in, sizeof(in)) == -1) {
        die(where);
    }

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

    return fd;
}


static int
connect_unix(const char *where)
{
    int                 fd;
    struct sockaddr_un  un;

    memset(&un, 0, sizeof(un));
    un.sun_family = AF_UNIX;
    strncpy(un.sun_path, where, sizeof(un.sun_path) - 1);

    fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd == -1 || connect(fd, (struct sockaddr *) &un, sizeof(un)) == -1) {
        die(where);
    }

    return fd;
}


/* the next message of the next user, whose turns are far from each other */

static void
ask(connection_t *c, unsigned users)
{
    int       len;
    char      text[2048];
    unsigned  user;

    user = questions * 7919 % users;

    len = snprintf(text, sizeof(text),
        "request=smtpd_access_policy\n"
        "protocol_state=RCPT\n"
        "protocol_name=ESMTP\n"
        "client_address=192.0.2.%u\n"
        "client_name=client-%u.example.net\n"
        "client_port=%u\n"
        "reverse_client_name=client-%u.example.net\n"
        "server_address=198.51.100.25\n"
        "server_port=587\n"
        "helo_name=[192.0.2.%u]\n"
        "sender=user%u@example.com\n"
        "recipient=somebody.else-%llu@example.org\n"
        "recipient_count=0\n"
        "queue_id=\n"
        "instance=%x.%llx.%x.0\n"
        "size=14711\n"
        "etrn_domain=\n"
        "stress=\n"
        "sasl_method=PLAIN\n"
        "sasl_username=user%u@example.com\n"
        "sasl_sender=\n"
        "ccert_subject=\n"
        "ccert_issuer=\n"
        "ccert_fingerprint=\n"
        "ccert_pubkey_fingerprint=\n"
        "encryption_protocol=TLSv1.3\n"
        "encryption_cipher=TLS_AES_256_GCM_SHA384\n"
        "encryption_keysize=256\n"
        "policy_context=\n"
        "\n",
        user % 250 + 1, user, 1024 + user % 60000, user, user % 250 + 1, user,
        (unsigned long long) questions % 100000, (unsigned) getpid(),
        0x60000000ULL + questions, (unsigned) (c - connections), user);

    c->asked[c->last++ % DEPTH] = now();
    questions++;

    if (write(c->fd, text, len) != len) {
        die("write");
    }
}


/* how many answers are there */

static unsigned
answered(connection_t *c)
{
    size_t    done;
    ssize_t   n;
    uint64_t  took;
    unsigned  count;

    n = read(c->fd, c->answer + c->have, sizeof(c->answer) - c->have);

    if (n <= 0) {
        die("read");
    }

    c->have += n;
    count = 0;

    for (done = 0; c->have - done >= sizeof(ANSWER) - 1;
         done += sizeof(ANSWER) - 1)
    {
        /* in postfwd's words it is small */

        if (strncasecmp(c->answer + done, ANSWER, sizeof(ANSWER) - 1) != 0) {
            fprintf(stderr, "policy_load: answer: %.*s",
                    (int) (c->have - done), c->answer + done);
            exit(1);
        }

        took = (now() - c->asked[c->first++ % DEPTH]) / 1000;
        latencies[took < LATENCIES ? took : LATENCIES - 1]++;
        longest = took > longest ? took : longest;
        answers++;
        count++;
    }

    c->have -= done;
    memmove(c->answer, c->answer + done, c->have);

    return count;
}


static unsigned
percentile(unsigned percent)
{
    uint64_t  sum = 0;
    unsigned  i;

    for (i = 0; i < LATENCIES - 1; i++) {
        sum += latencies[i];

        if (sum * 100 >= answers * percent) {
            break;
        }
    }

    return i;
}


int
main(int argc, char *argv[])
{
    int                 i, n, epoll, count, depth;
    unsigned            more;
    uint64_t            begin, end;
    connection_t       *c;
    struct epoll_event  event, events[CONNECTIONS];

    depth = argc == 6 ? atoi(argv[5]) : 1;

    if (argc < 5 || argc > 6 || (count = atoi(argv[2])) < 1
        || count > CONNECTIONS || atoi(argv[4]) < 1 || depth < 1
        || depth > DEPTH)
    {
        fprintf(stderr, "usage: policy_load address:port|/path connections "
                        "seconds users [depth]\n");
        return 2;
    }

    epoll = epoll_create1(0);

    for (i = 0; i < count; i++) {
        c = &connections[i];
        c->fd = argv[1][0] == '/' ? connect_unix(argv[1])
                                  : connect_tcp(argv[1]);
        event.events = EPOLLIN;
        event.data.ptr = c;
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }

    begin = now();
    end = begin + (uint64_t) (atof(argv[3]) * 1e9);

    for (i = 0; i < count * depth; i++) {
        ask(&connections[i % count], atoi(argv[4]));
    }

    while (answers < questions) {
        n = epoll_wait(epoll, events, CONNECTIONS, 10000);

        if (n <= 0) {
            die("no answer for ten seconds");
        }

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            for (more = answered(c); more && now() < end; more--) {
                ask(c, atoi(argv[4]));
            }
        }
    }

    printf("%llu %.3f %u %u %llu\n", (unsigned long long) answers,
           (now() - begin) / 1e9, percentile(50), percentile(99),
           (unsigned long long) longest);

    return 0;
}
