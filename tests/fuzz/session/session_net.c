
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The network of nginx in the fuzzer's process: calls of the system that the
 * linker has sent here (--wrap).  socket() gives one end of a socketpair,
 * whose other end is a relay; connect() goes as the input says.  epoll is the
 * real one, and is asked whether it had something.
 */


#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session.h"


#define SESSION_BUFFER  1               /* the kernel knows how small */


int __real_socket(int family, int type, int protocol);
int __real_setsockopt(int fd, int level, int name, const void *value,
    socklen_t len);
int __real_epoll_wait(int ep, struct epoll_event *list, int n, int timeout);


unsigned    session_net_started;
int         session_net_events;

/* of the socket that was made last: connect() follows at once */
static int  session_connect_error;
static int  session_socket_error;

/* which is to tell of an error */
static int  session_socket_failed = -1;


void
session_pair(int fd[2])
{
    int  size;

    if (socketpair(AF_UNIX, SOCK_STREAM|SOCK_NONBLOCK, 0, fd) == -1) {
        SESSION_DIE("socketpair() failed: %s", strerror(errno));
    }

    if (session_setup.small) {
        size = SESSION_BUFFER;

        (void) __real_setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &size,
                                 sizeof(int));
        (void) __real_setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &size,
                                 sizeof(int));
    }
}


int
__wrap_socket(int family, int type, int protocol)
{
    int  fd;

    if (!session_net_started) {
        return __real_socket(family, type, protocol);
    }

    session_connect_error = session_relay_connect(&fd, &session_socket_error);

    if (session_socket_error) {
        session_socket_failed = fd;

    } else if (session_socket_failed == fd) {
        session_socket_failed = -1;
    }

    return fd;
}


int
__wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    if (session_connect_error) {
        errno = session_connect_error;
        return -1;
    }

    return 0;
}


int
__wrap_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
    return 0;
}


int
__wrap_listen(int fd, int backlog)
{
    return 0;
}


int
__wrap_setsockopt(int fd, int level, int name, const void *value,
    socklen_t len)
{
    return 0;
}


int
__wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    if (level == SOL_SOCKET && name == SO_ERROR) {
        *(int *) value = 0;

        if (session_socket_failed == fd) {
            *(int *) value = ECONNREFUSED;
            session_socket_failed = -1;
        }

        return 0;
    }

    errno = ENOPROTOOPT;
    return -1;
}


int
__wrap_epoll_wait(int ep, struct epoll_event *list, int n, int timeout)
{
    session_net_events = __real_epoll_wait(ep, list, n, timeout);

    return session_net_events;
}
