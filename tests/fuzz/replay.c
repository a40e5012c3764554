
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The corpora as ordinary tests: main() for a fuzz target, for compilers
 * without libFuzzer.
 *
 *     replay_NAME [file-or-directory...]
 *
 * Without an argument it takes the directory REPLAY_CORPUS, if compiled with
 * one, as what runs the tests gives no arguments.
 *
 * Each file is a test: the target is given all of it and, if it is short,
 * each of its beginnings.  It runs in a process of its own, so that a failed
 * assertion or a sanitizer's report is one failed test.  Prints TAP.
 */


#define _POSIX_C_SOURCE  200809L


#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>


/* the longest file whose beginnings are tried */
#define REPLAY_SHORT  512


static unsigned  replay_count;
static unsigned  replay_failed;


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
die(const char *what, const char *path)
{
    printf("Bail out! %s: %s\n", what, path);
    exit(2);
}


/* in a block of its own size, or reading behind it would not be seen */

static void
target(const uint8_t *data, size_t size)
{
    uint8_t  *copy;

    copy = malloc(size ? size : 1);
    if (copy == NULL) {
        abort();
    }

    memcpy(copy, data, size);
    (void) LLVMFuzzerTestOneInput(copy, size);

    free(copy);
}


static uint8_t *
content(const char *path, size_t *size)
{
    FILE     *file;
    size_t    n, room;
    uint8_t  *data;

    file = fopen(path, "rb");
    if (file == NULL) {
        die("cannot open", path);
    }

    data = NULL;
    room = 0;
    *size = 0;

    do {
        room += 65536;
        data = realloc(data, room);

        if (data == NULL) {
            die("no memory for", path);
        }

        n = fread(data + *size, 1, room - *size, file);
        *size += n;

    } while (n != 0);

    if (ferror(file)) {
        die("cannot read", path);
    }

    fclose(file);

    return data;
}


/* "body/plain" of "tests/fuzz/corpus/body/plain" */

static const char *
name(const char *path)
{
    int          slashes;
    const char  *p;

    slashes = 0;

    for (p = path + strlen(path); p != path; p--) {
        if (p[-1] == '/' && ++slashes == 2) {
            break;
        }
    }

    return p;
}


static void
replay_file(const char *path)
{
    int       status;
    pid_t     pid;
    size_t    size, whole;
    uint8_t  *data;

    data = content(path, &whole);

    fflush(stdout);

    pid = fork();
    if (pid == -1) {
        die("cannot fork for", path);
    }

    if (pid == 0) {
        target(data, whole);

        if (whole <= REPLAY_SHORT) {
            for (size = 0; size < whole; size++) {
                target(data, size);
            }
        }

        free(data);
        exit(0);
    }

    free(data);

    if (waitpid(pid, &status, 0) != pid) {
        die("cannot wait for", path);
    }

    replay_count++;
    replay_failed += status != 0;

    printf("%sok %u - corpus %s\n", status ? "not " : "", replay_count,
           name(path));
}


/* in the order of names */

static void
replay_directory(const char *path)
{
    int              i, n;
    char            *file;
    size_t           len;
    const char      *slash;
    struct dirent  **entries;

    n = scandir(path, &entries, NULL, alphasort);
    if (n == -1) {
        die("cannot read", path);
    }

    len = strlen(path);
    slash = (len != 0 && path[len - 1] == '/') ? "" : "/";

    for (i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            len = strlen(path) + strlen(entries[i]->d_name) + 2;

            file = malloc(len);
            if (file == NULL) {
                die("no memory for", path);
            }

            snprintf(file, len, "%s%s%s", path, slash,
                     entries[i]->d_name);
            replay_file(file);
            free(file);
        }

        free(entries[i]);
    }

    free(entries);
}


static void
replay(const char *path)
{
    struct stat  st;

    if (stat(path, &st) == -1) {
        die("no such file", path);
    }

    if (S_ISDIR(st.st_mode)) {
        replay_directory(path);

    } else {
        replay_file(path);
    }
}


int
main(int argc, char **argv)
{
    int  i;

    for (i = 1; i < argc; i++) {
        replay(argv[i]);
    }

#ifdef REPLAY_CORPUS
    if (argc < 2) {
        replay(REPLAY_CORPUS);
    }
#endif

    printf("1..%u\n", replay_count);

    return replay_count == 0 || replay_failed ? 1 : 0;
}
