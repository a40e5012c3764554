
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a path and what stands behind it; or a domain, literal or host name */


#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_addr.h"
#include "mpol_literal.h"
#include "mpol_sasl.h"


#define ALLOW_ALL  (MPOL_PATH_NULL | MPOL_PATH_POSTMASTER | MPOL_PATH_UTF8)


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
same(const mpol_str_t *a, const uint8_t *p, size_t len)
{
    return a->len == len && (len == 0 || memcmp(a->data, p, len) == 0);
}


static int
has(const mpol_str_t *s, int c)
{
    return s->len != 0 && memchr(s->data, c, s->len) != NULL;
}


/* it goes into lines of text, and to terminals */

static void
check_octets(const uint8_t *p, size_t len, int eightbit)
{
    size_t  i;

    assert(mpol_utf8_valid(p, len));

    for (i = 0; i < len; i++) {
        assert(p[i] >= 32 && p[i] != 127);
        assert(eightbit || p[i] < 127);
        assert(p[i] != 0xc2 || p[i + 1] >= 0xa0);
    }
}


/* who maps names as IDNA once did sees the same domain */

static void
check_stops(const mpol_str_t *domain)
{
    size_t  i, k;

    static const uint8_t  stops[][3] = {
        { 0xe3, 0x80, 0x82 }, { 0xef, 0xbc, 0x8e }, { 0xef, 0xbd, 0xa1 }
    };

    for (i = 0; i + 3 <= domain->len; i++) {
        for (k = 0; k < 3; k++) {
            assert(memcmp(domain->data + i, stops[k], 3) != 0);
        }
    }
}


/* what is sent on means the same to who reads it */

static void
check_again(const mpol_path_t *path, unsigned allow)
{
    size_t        len, used;
    uint8_t      *p;
    mpol_path_t   again;

    len = path->address.len + 2;

    p = malloc(len);
    p[0] = '<';
    memcpy(p + 1, path->address.data, path->address.len);
    p[len - 1] = '>';

    assert(mpol_path_parse(p, len, allow, &again, &used) == MPOL_OK);
    assert(used == len);
    assert(same(&again.address, path->address.data, path->address.len));
    assert(same(&again.local, path->local.data, path->local.len));
    assert(same(&again.domain, path->domain.data, path->domain.len));
    assert(again.quoted == path->quoted && again.literal == path->literal);
    assert(mpol_addr_routed(&again) == mpol_addr_routed(path));

    /* octets above 127 can be in the route, which is gone now */

    assert(path->eightbit || !again.eightbit);

    free(p);
}


static void
check_path(const uint8_t *p, size_t len, unsigned allow)
{
    int             rc;
    size_t          used, more;
    mpol_path_t     path, all;
    const uint8_t  *end;

    rc = mpol_path_parse(p, len, allow, &path, &used);

    assert(rc >= MPOL_OK && rc <= MPOL_PATH_8BIT);
    assert(rc != MPOL_PATH_8BIT || !(allow & MPOL_PATH_UTF8));

    if (rc != MPOL_OK) {
        return;
    }

    assert(used >= 2 && used <= len && used <= 256);
    assert(p[0] == '<' && p[used - 1] == '>');

    assert(path.address.data > p);
    assert(path.address.data + path.address.len == p + used - 1);

    end = path.local.data + path.local.len;

    assert(path.local.data == path.address.data && path.local.len <= 64);
    assert(path.domain.len <= 255);

    if (path.domain.len != 0) {
        assert(*end == '@' && path.domain.data == end + 1);
        assert(path.domain.data + path.domain.len == p + used - 1);
        assert(path.local.len != 0);

    } else if (path.local.len != 0) {
        assert(allow & MPOL_PATH_POSTMASTER);
        assert(path.local.len == 10 && path.address.len == 10);

    } else {
        assert(allow & MPOL_PATH_NULL);
        assert(used == 2 && path.address.len == 0);
    }

    assert(path.quoted == (path.local.len != 0 && path.local.data[0] == '"'));
    assert(path.literal == (path.domain.len != 0
                            && path.domain.data[0] == '['));
    assert(!path.eightbit || (allow & MPOL_PATH_UTF8));

    check_octets(p, used, path.eightbit);
    check_stops(&path.domain);

    assert(!has(&path.domain, '@') && !has(&path.domain, '"'));
    assert(path.eightbit || path.domain.len == 0
           || mpol_domain_valid(path.domain.data, path.domain.len));

    assert(mpol_addr_routed(&path) == (has(&path.local, '@')
                                       || has(&path.local, '%')
                                       || has(&path.local, '!')));

    check_again(&path, allow);

    /* what is right is so wherever more is allowed */

    assert(mpol_path_parse(p, len, ALLOW_ALL, &all, &more) == MPOL_OK);
    assert(more == used && all.local.len == path.local.len);
    assert(all.domain.len == path.domain.len);
    assert(all.eightbit == path.eightbit);
}


static void
check_domain(const uint8_t *p, size_t len)
{
    size_t        used;
    uint8_t       buf[260];
    mpol_path_t   path;

    if (!mpol_domain_valid(p, len)) {
        return;
    }

    assert(len >= 1 && len <= 255);
    check_octets(p, len, 0);
    assert(mpol_hostname_clean(p, len));

    memcpy(buf, "<a@", 3);
    memcpy(buf + 3, p, len);
    buf[3 + len] = '>';

    if (len + 4 <= 256) {
        assert(mpol_path_parse(buf, len + 4, 0, &path, &used) == MPOL_OK);
        assert(used == len + 4 && same(&path.domain, p, len));
    }
}


/*
 * The resolver is of the same opinion, but has no zeros in front of a number
 * in an IPv4 address: they are counted as octal by some.
 */

static void
check_literal(const uint8_t *p, size_t len)
{
    int              ours, theirs, zeros;
    char             s[64];
    size_t           i, n, tag;
    unsigned char    addr[16];

    n = mpol_literal_scan(p, len);
    assert(n <= len);

    if (n != 0) {
        assert(p[0] == '[' && p[n - 1] == ']');
        assert(memchr(p, ']', n) == p + n - 1);
    }

    if (len < 2 || p[0] != '[' || p[len - 1] != ']') {
        return;
    }

    ours = n == len;
    tag = (len > 6 && memcmp(p + 1, "IPv6:", 5) == 0) ? 6 : 1;
    n = len - tag - 1;

    if (n >= sizeof(s)) {
        return;
    }

    memcpy(s, p + tag, n);
    s[n] = '\0';

    if (strlen(s) != n) {
        assert(!ours);
        return;
    }

    for (i = 0, zeros = 0; i + 1 < n; i++) {
        if (s[i] == '0' && (i == 0 || s[i - 1] == '.' || s[i - 1] == ':')
            && s[i + 1] >= '0' && s[i + 1] <= '9')
        {
            zeros = 1;
        }
    }

    theirs = inet_pton(tag == 6 ? AF_INET6 : AF_INET, s, addr) == 1;

    if (tag == 6 || (p[1] | 0x20) != 'i') {
        assert(ours == theirs || (zeros && ours && strchr(s, '.') != NULL));
    }
}


static void
check_hostname(const uint8_t *p, size_t len)
{
    size_t  i;

    if (!mpol_hostname_clean(p, len)) {
        return;
    }

    assert(len >= 1 && len <= 255);
    check_octets(p, len, 0);

    if (p[0] == '[') {
        assert(mpol_domain_valid(p, len));
        return;
    }

    for (i = 0; i < len; i++) {
        assert(strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789._-", p[i]) != NULL);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t   *p;
    unsigned   allow;

    if (size > 1024) {
        return 0;
    }

    p = malloc(size ? size : 1);
    memcpy(p, data, size);

    for (allow = 0; allow <= ALLOW_ALL; allow++) {
        check_path(p, size, allow);
    }

    check_domain(p, size);
    check_literal(p, size);
    check_hostname(p, size);

    free(p);

    return 0;
}
