
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A library for LD_PRELOAD: the monotonic clock is ahead by the seconds in
 * the file MAIL_POLICY_CLOCK, a number of eight octets that may change at any
 * time.
 */


#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>


typedef int (*clock_gettime_t)(clockid_t, struct timespec *);


static volatile int64_t  *ahead;
static clock_gettime_t    real;


__attribute__((constructor))
static void
begin(void)
{
    int          fd;
    void        *p;
    const char  *file;

    real = (clock_gettime_t) dlsym(RTLD_NEXT, "clock_gettime");
    file = getenv("MAIL_POLICY_CLOCK");

    if (file == NULL) {
        return;
    }

    fd = open(file, O_RDONLY);

    if (fd == -1) {
        return;
    }

    p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

    if (p != MAP_FAILED) {
        ahead = p;
    }

    close(fd);
}


int
clock_gettime(clockid_t id, struct timespec *ts)
{
    int  rc;

    if (real == NULL) {
        real = (clock_gettime_t) dlsym(RTLD_NEXT, "clock_gettime");
    }

    rc = real(id, ts);

    if (rc == 0 && ahead != NULL
        && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE))
    {
        ts->tv_sec += *ahead;
    }

    return rc;
}
