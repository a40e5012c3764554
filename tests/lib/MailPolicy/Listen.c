
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Loaded into nginx: what happens between listen() and the mode of a unix
 * socket, as the environment says.
 *
 *     MAIL_POLICY_EARLY=file   a process of "nobody" connects as soon as the
 *                              socket listens, and writes to the file what
 *                              came of it: "connected", then what it reads
 *     MAIL_POLICY_LCHOWN=1     lchown() fails
 */


#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>


static void
early(struct sockaddr_un *addr, int file, int told)
{
    char     octet;
    int      fd;
    ssize_t  n;

    alarm(20);

    fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (setgid(65534) != 0 || setuid(65534) != 0
        || connect(fd, (struct sockaddr *) addr, sizeof(*addr)) != 0)
    {
        dprintf(file, "%s\n", strerror(errno));
        _exit(1);
    }

    dprintf(file, "connected\n");
    close(told);

    /* a question would be answered */

    (void) !write(fd, "request=smtpd_access_policy\n\n", 29);

    n = read(fd, &octet, 1);
    dprintf(file, "%s\n", n > 0 ? "answered" : n == 0 ? "end"
                                             : strerror(errno));
    _exit(0);
}


int
listen(int fd, int backlog)
{
    int                  rc, file, told[2];
    char                 octet;
    pid_t                pid;
    socklen_t            len;
    const char          *name;
    struct sockaddr_un   addr;
    int                (*real)(int, int);

    *(void **) &real = dlsym(RTLD_NEXT, "listen");
    rc = real(fd, backlog);

    name = getenv("MAIL_POLICY_EARLY");

    memset(&addr, 0, sizeof(addr));
    len = sizeof(addr);

    if (rc != 0 || name == NULL
        || getsockname(fd, (struct sockaddr *) &addr, &len) != 0
        || addr.sun_family != AF_UNIX || pipe(told) != 0)
    {
        return rc;
    }

    unsetenv("MAIL_POLICY_EARLY");

    pid = fork();

    if (pid == 0) {
        close(told[0]);
        close(fd);
        file = open(name, O_WRONLY|O_CREAT|O_APPEND, 0644);

        if (fork() == 0) {
            early(&addr, file, told[1]);
        }

        _exit(0);
    }

    /* until it has connected, or cannot */

    close(told[1]);
    waitpid(pid, NULL, 0);
    (void) !read(told[0], &octet, 1);
    close(told[0]);

    return rc;
}


int
lchown(const char *path, uid_t owner, gid_t group)
{
    int  (*real)(const char *, uid_t, gid_t);

    if (getenv("MAIL_POLICY_LCHOWN")) {
        errno = EPERM;
        return -1;
    }

    *(void **) &real = dlsym(RTLD_NEXT, "lchown");

    return real(path, owner, group);
}
