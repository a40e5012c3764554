
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Preloaded into nginx: allocations and system calls of one process that fail
 * when a test says so.
 *
 * What is to fail is in a file of one "fail_order_t" that the test writes and
 * this maps, named by MAIL_POLICY_FAIL.  Nothing fails without it, nor in
 * another process than "pid".  "left" counts down with each call of a kind
 * that is in "kinds"; those from which it has come to zero on fail, "times" of
 * them, with "error" in errno.
 *
 * "live" is what the process has allocated and not freed: what it did before
 * "pid" was known is missing there, so it is good for comparisons only.
 *
 * Of write() only those to files count: nginx wakes itself by others, and
 * nothing can fail there.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>


#define FAIL_ALLOC       0x001
#define FAIL_RECV        0x002
#define FAIL_SEND        0x004
#define FAIL_CONNECT     0x008
#define FAIL_SOCKET      0x010
#define FAIL_EPOLL_CTL   0x020
#define FAIL_GETSOCKOPT  0x040
#define FAIL_SETSOCKOPT  0x080
#define FAIL_IOCTL       0x100
#define FAIL_ACCEPT      0x200
#define FAIL_WRITE       0x400


typedef struct {
    int32_t    pid;
    int32_t    kinds;
    int32_t    left;
    int32_t    times;
    int32_t    error;
    int32_t    failed;
    int32_t    live;
} fail_order_t;


/* those of glibc behind the usual names */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);


static fail_order_t  *fail_order;


__attribute__((constructor))
static void
fail_init(void)
{
    int          fd;
    void        *p;
    const char  *name;

    name = getenv("MAIL_POLICY_FAIL");
    if (name == NULL) {
        return;
    }

    fd = open(name, O_RDWR|O_CLOEXEC);
    if (fd == -1) {
        abort();
    }

    p = mmap(NULL, sizeof(fail_order_t), PROT_READ|PROT_WRITE, MAP_SHARED,
             fd, 0);
    close(fd);

    if (p == MAP_FAILED) {
        abort();
    }

    fail_order = p;
}


static int
fail_is_meant(void)
{
    return fail_order && fail_order->pid && fail_order->pid == getpid();
}


static int
fail_now(int kind)
{
    int32_t  left;

    if (!fail_is_meant()
        || !(__atomic_load_n(&fail_order->kinds, __ATOMIC_ACQUIRE) & kind))
    {
        return 0;
    }

    left = __atomic_sub_fetch(&fail_order->left, 1, __ATOMIC_ACQ_REL);

    if (left > 0 || left <= -fail_order->times) {
        return 0;
    }

    __atomic_add_fetch(&fail_order->failed, 1, __ATOMIC_ACQ_REL);
    errno = fail_order->error;
    return 1;
}


static void *
fail_allocated(void *p)
{
    if (p && fail_is_meant()) {
        __atomic_add_fetch(&fail_order->live, 1, __ATOMIC_ACQ_REL);
    }

    return p;
}


static void
fail_freed(void *p)
{
    if (p && fail_is_meant()) {
        __atomic_sub_fetch(&fail_order->live, 1, __ATOMIC_ACQ_REL);
    }
}


/* memory */


void *
malloc(size_t size)
{
    return fail_now(FAIL_ALLOC) ? NULL : fail_allocated(__libc_malloc(size));
}


void *
calloc(size_t n, size_t size)
{
    return fail_now(FAIL_ALLOC) ? NULL
                                : fail_allocated(__libc_calloc(n, size));
}


void *
realloc(void *p, size_t size)
{
    void  *moved;

    if (size && fail_now(FAIL_ALLOC)) {
        return NULL;
    }

    moved = __libc_realloc(p, size);

    if (p == NULL) {
        return fail_allocated(moved);
    }

    if (size == 0) {
        fail_freed(p);
    }

    return moved;
}


void *
memalign(size_t alignment, size_t size)
{
    return fail_now(FAIL_ALLOC) ? NULL
                       : fail_allocated(__libc_memalign(alignment, size));
}


void *
aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}


int
posix_memalign(void **p, size_t alignment, size_t size)
{
    void  *memory;

    memory = memalign(alignment, size);
    if (memory == NULL) {
        return ENOMEM;
    }

    *p = memory;
    return 0;
}


void
free(void *p)
{
    fail_freed(p);
    __libc_free(p);
}


/* system calls */


#define fail_real(type, name)                                                \
    static type  real;                                                       \
                                                                             \
    if (real == NULL) {                                                      \
        real = (type) dlsym(RTLD_NEXT, name);                                \
    }


typedef ssize_t (*recv_pt)(int fd, void *buf, size_t len, int flags);
typedef ssize_t (*send_pt)(int fd, const void *buf, size_t len, int flags);
typedef int (*connect_pt)(int fd, const struct sockaddr *sa, socklen_t len);
typedef int (*socket_pt)(int domain, int type, int protocol);
typedef int (*epoll_ctl_pt)(int ep, int op, int fd, struct epoll_event *ev);
typedef int (*getsockopt_pt)(int fd, int level, int name, void *value,
    socklen_t *len);
typedef int (*setsockopt_pt)(int fd, int level, int name, const void *value,
    socklen_t len);
typedef int (*ioctl_pt)(int fd, unsigned long request, void *arg);
typedef int (*accept4_pt)(int fd, struct sockaddr *sa, socklen_t *len,
    int flags);
typedef ssize_t (*write_pt)(int fd, const void *buf, size_t len);


ssize_t
recv(int fd, void *buf, size_t len, int flags)
{
    fail_real(recv_pt, "recv");

    return fail_now(FAIL_RECV) ? -1 : real(fd, buf, len, flags);
}


ssize_t
send(int fd, const void *buf, size_t len, int flags)
{
    fail_real(send_pt, "send");

    return fail_now(FAIL_SEND) ? -1 : real(fd, buf, len, flags);
}


int
connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    fail_real(connect_pt, "connect");

    return fail_now(FAIL_CONNECT) ? -1 : real(fd, sa, len);
}


int
socket(int domain, int type, int protocol)
{
    fail_real(socket_pt, "socket");

    return fail_now(FAIL_SOCKET) ? -1 : real(domain, type, protocol);
}


int
epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
    fail_real(epoll_ctl_pt, "epoll_ctl");

    return fail_now(FAIL_EPOLL_CTL) ? -1 : real(ep, op, fd, ev);
}


int
getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    fail_real(getsockopt_pt, "getsockopt");

    return fail_now(FAIL_GETSOCKOPT) ? -1 : real(fd, level, name, value, len);
}


int
setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    fail_real(setsockopt_pt, "setsockopt");

    return fail_now(FAIL_SETSOCKOPT) ? -1 : real(fd, level, name, value, len);
}


int
ioctl(int fd, unsigned long request, ...)
{
    void     *arg;
    va_list   args;

    fail_real(ioctl_pt, "ioctl");

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);

    return fail_now(FAIL_IOCTL) ? -1 : real(fd, request, arg);
}


int
accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
    fail_real(accept4_pt, "accept4");

    return fail_now(FAIL_ACCEPT) ? -1 : real(fd, sa, len, flags);
}


ssize_t
write(int fd, const void *buf, size_t len)
{
    struct stat  st;

    fail_real(write_pt, "write");

    if (fail_is_meant() && fail_order->kinds & FAIL_WRITE
        && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fail_now(FAIL_WRITE))
    {
        return -1;
    }

    return real(fd, buf, len);
}
