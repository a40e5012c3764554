
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Usage: test_rate [vectors], tests/vectors/rates.txt by default.
 */


#include <stdlib.h>

#include "mpol_rate.h"
#include "tap.h"


__extension__ typedef unsigned __int128  u128_t;


#define T53  ((uint64_t) 1 << 53)
#define T52  ((uint64_t) 1 << 52)
#define T45  ((uint64_t) 1 << 45)
#define T40  ((uint64_t) 1 << 40)


static const struct {
    const char  *name;
    int          rc;
    unsigned     kind;
} results[] = {
    { "window", MPOL_OK, MPOL_RATE_WINDOW },
    { "bucket", MPOL_OK, MPOL_RATE_BUCKET },
    { "unlimited", MPOL_OK, MPOL_RATE_UNLIMITED },
    { "blocked", MPOL_OK, MPOL_RATE_BLOCKED },
    { "syntax", MPOL_RATE_SYNTAX, 0 },
    { "zero", MPOL_RATE_ZERO, 0 },
    { "range", MPOL_RATE_RANGE, 0 },
    { "suffix", MPOL_RATE_SUFFIX, 0 },
    { "burst", MPOL_RATE_BURST, 0 },
    { "number", MPOL_RATE_NUMBER, 0 },
};


static const struct {
    const char  *name;
    unsigned     flags;
} units[] = {
    { "messages", 0 },
    { "bytes", MPOL_RATE_BYTES },
    { "sessions", MPOL_RATE_SESSIONS },
    { "auth_failures", MPOL_RATE_NO_BURST },
};


static const struct {
    uint64_t  n;
    uint64_t  a;
    uint64_t  b;
    uint64_t  want;
} products[] = {
    { 0, 0, 1, 0 },
    { 0, T53, 1, 0 },
    { 1, 1, 1, 1 },
    { 1, 1, 2, 1 },
    { 2, 1, 2, 1 },
    { 3, 1, 2, 2 },
    { 1, 1, T45, 1 },
    { T53, 1, 1, T53 },
    { T53 - 1, 1, 1, T53 - 1 },
    { T53, 1, 2, T52 },
    { T53 - 1, 1, 2, T52 },
    { T53, 2, 1, T53 },
    { T53 / 3, 3, 1, T53 - 2 },
    { T53 / 3 + 1, 3, 1, T53 },
    { T53, T45 - 1, T45, T53 - 256 },
    { T53 - 1, T45 - 1, T45, T53 - 256 },
    { T53, T45 + 1, T45, T53 },
    { T53 - 257, T45 + 1, T45, T53 - 1 },
    { T53 - 256, T45 + 1, T45, T53 },
    { T40, T45, T40, T45 },
    { T40, T45, T40 - 1, T45 + 33 },
    { UINT64_MAX, 1, 1, T53 },
    { T53 + 1, 1, 1, T53 },
};


/* \xNN and the end of the line; the length */

static size_t
unescape(const char *p, uint8_t *out)
{
    size_t    n;
    unsigned  octet;

    for (n = 0; *p != '\0' && *p != '\n'; n++) {
        if (p[0] == '\\' && p[1] == 'x' && sscanf(p + 2, "%2x", &octet) == 1) {
            out[n] = (uint8_t) octet;
            p += 4;

        } else {
            out[n] = (uint8_t) *p++;
        }
    }

    return n;
}


static void
check(const char *line, unsigned flags, size_t result, const uint64_t *want)
{
    int           rc;
    size_t        len;
    uint8_t      *exact;
    uint8_t       text[256];
    mpol_rate_t   rate;

    len = unescape(strchr(line, '|') + 1 + (strchr(line, '|')[1] == ' '),
                   text);

    /* of its exact size, for the sanitizer to see what is behind */

    exact = malloc(len ? len : 1);
    memcpy(exact, text, len);
    memset(&rate, 0xa5, sizeof(mpol_rate_t));

    rc = mpol_rate_parse(exact, len, flags, &rate);

    free(exact);

    if (results[result].rc != MPOL_OK) {
        memset(text, 0xa5, sizeof(text));
        ok(rc == results[result].rc
           && memcmp(&rate, text, sizeof(mpol_rate_t)) == 0,
           "%s (%d)", line, rc);
        return;
    }

    ok(rc == MPOL_OK && rate.kind == results[result].kind
       && rate.count == want[0] && rate.period == want[1]
       && rate.burst == want[2],
       "%s (%d: %d %llu %llu %llu)", line, rc, (int) rate.kind,
       (unsigned long long) rate.count, (unsigned long long) rate.period,
       (unsigned long long) rate.burst);
}


static void
vector(char *line)
{
    char                unit[16], name[16];
    size_t              i, u;
    uint64_t            want[3];
    unsigned long long  n[3];

    n[0] = n[1] = n[2] = 0;

    if (sscanf(line, "%15s %15s %llu %llu %llu", unit, name, &n[0], &n[1],
               &n[2]) < 2)
    {
        return;
    }

    for (i = 0; i < 3; i++) {
        want[i] = n[i];
    }

    for (u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        if (strcmp(unit, units[u].name) == 0) {
            break;
        }
    }

    for (i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        if (strcmp(name, results[i].name) == 0) {
            break;
        }
    }

    if (u == sizeof(units) / sizeof(units[0])
        || i == sizeof(results) / sizeof(results[0]))
    {
        ok(0, "no such unit or result: %s", line);
        return;
    }

    check(line, units[u].flags, i, want);
}


static void
test_vectors(const char *name)
{
    char   line[512];
    FILE  *file;

    file = fopen(name, "r");

    if (!ok(file != NULL, "vectors in %s", name)) {
        return;
    }

    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';

        if (line[0] != '#' && line[0] != '\0') {
            vector(line);
        }
    }

    fclose(file);
}


static void
test_muldiv(void)
{
    size_t    i;
    u128_t    exact;
    uint64_t  x, v[3];
    unsigned  j, wrong;

    for (i = 0; i < sizeof(products) / sizeof(products[0]); i++) {
        is_u64(mpol_rate_muldiv(products[i].n, products[i].a, products[i].b),
               products[i].want, "muldiv %u", (unsigned) i);
    }

    x = 88172645463325252;
    wrong = 0;

    for (i = 0; i < 200000; i++) {
        for (j = 0; j < 3; j++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            v[j] = (x >> 11) >> ((x >> 3) % 53);
        }

        v[2] = v[2] % T45 + 1;
        exact = ((u128_t) v[0] * v[1] + v[2] - 1) / v[2];

        if (exact > T53) {
            exact = T53;
        }

        if (mpol_rate_muldiv(v[0], v[1], v[2]) != (uint64_t) exact) {
            wrong++;
        }
    }

    is_u64(wrong, 0, "muldiv against 128 bits");
}


static void
test_errors(void)
{
    int  rc;

    for (rc = MPOL_RATE_SYNTAX; rc <= MPOL_RATE_NUMBER; rc++) {
        ok(strlen(mpol_rate_error(rc)) > 20, "%s", mpol_rate_error(rc));
    }

    ok(strlen(mpol_rate_error(MPOL_OK)) > 0, "a text for no error");
    ok(strlen(mpol_rate_error(-7)) > 0, "a text for any other number");
}


int
main(int argc, char *argv[])
{
    test_vectors(argc > 1 ? argv[1] : "tests/vectors/rates.txt");
    test_muldiv();
    test_errors();

    return done_testing();
}
