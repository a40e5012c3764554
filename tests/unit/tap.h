
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Test Anything Protocol for the unit tests: a test is one file with one
 * main(), which ends in "return done_testing();".
 *
 *     ok(cond, "what %s", ...)                       1 if it passed
 *     is_u64(got, want, "what", ...)
 *     is_mem(got, got_len, want, want_len, "what", ...)
 *     done_testing()                                 plan, exit status
 *
 * tap_exact() gives a copy in a block of its own size, so that a sanitizer
 * sees each octet read or written behind it.
 */


#ifndef TAP_H
#define TAP_H


#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#if defined(__GNUC__)
#define TAP_UNUSED        __attribute__((unused))
#define TAP_PRINTF(f, a)  __attribute__((unused, format(printf, f, a)))
#else
#define TAP_UNUSED
#define TAP_PRINTF(f, a)
#endif


static unsigned  tap_count;
static unsigned  tap_failed;


/* a name must stay on its line, and "#" would begin a TAP directive */
TAP_UNUSED static void
tap_result(int pass, const char *fmt, va_list args)
{
    char    name[512];
    size_t  i;

    vsnprintf(name, sizeof(name), fmt, args);

    for (i = 0; name[i] != '\0'; i++) {
        if ((unsigned char) name[i] < 0x20 || name[i] == 0x7f
            || name[i] == '#')
        {
            name[i] = '?';
        }
    }

    tap_count++;
    tap_failed += pass ? 0 : 1;

    printf("%sok %u - %s\n", pass ? "" : "not ", tap_count, name);
    fflush(stdout);
}


TAP_UNUSED static void
tap_dump(const char *label, const void *data, size_t len)
{
    size_t                i;
    const unsigned char  *p;

    p = data;

    printf("#   %s (%lu): ", label, (unsigned long) len);

    for (i = 0; i < len && i < 256; i++) {
        if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\') {
            putchar(p[i]);

        } else {
            printf("\\x%02x", p[i]);
        }
    }

    printf("%s\n", i < len ? " ..." : "");
}


TAP_PRINTF(2, 3) static int
ok(int pass, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    tap_result(pass, fmt, args);
    va_end(args);

    return pass;
}


TAP_PRINTF(3, 4) static int
is_u64(uint64_t got, uint64_t want, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    tap_result(got == want, fmt, args);
    va_end(args);

    if (got != want) {
        printf("#   got  %llu (signed %lld)\n#   want %llu (signed %lld)\n",
               (unsigned long long) got, (long long) got,
               (unsigned long long) want, (long long) want);
    }

    return got == want;
}


TAP_PRINTF(5, 6) static int
is_mem(const void *got, size_t got_len, const void *want, size_t want_len,
    const char *fmt, ...)
{
    int      pass;
    va_list  args;

    pass = got_len == want_len
           && (want_len == 0 || memcmp(got, want, want_len) == 0);

    va_start(args, fmt);
    tap_result(pass, fmt, args);
    va_end(args);

    if (!pass) {
        tap_dump("got ", got, got_len);
        tap_dump("want", want, want_len);
    }

    return pass;
}


TAP_UNUSED static void *
tap_exact(const void *data, size_t len)
{
    void  *copy;

    copy = malloc(len ? len : 1);
    if (copy == NULL) {
        abort();
    }

    if (len != 0) {
        memcpy(copy, data, len);
    }

    return copy;
}


TAP_UNUSED static int
done_testing(void)
{
    printf("1..%u\n", tap_count);

    if (tap_failed) {
        printf("# %u of %u failed\n", tap_failed, tap_count);
    }

    return tap_count == 0 || tap_failed ? 1 : 0;
}


#endif /* TAP_H */
