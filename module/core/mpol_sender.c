
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sender.h"


static int mpol_senders_next(const uint8_t *list, size_t len, size_t *pos,
    mpol_str_t *entry);
static int mpol_sender_separator(uint8_t ch);
static int mpol_sender_valid(const mpol_str_t *entry);
static size_t mpol_sender_stars(const uint8_t *p, size_t len);
static int mpol_sender_any(const uint8_t *p, size_t len);
static int mpol_sender_match(const mpol_str_t *entry, const uint8_t *address,
    size_t n, size_t at);
static int mpol_sender_like(const uint8_t *pattern, size_t len,
    const uint8_t *p, size_t n);
static size_t mpol_sender_at(const uint8_t *p, size_t len);
static uint8_t mpol_sender_lower(uint8_t ch);


int
mpol_senders_check(const uint8_t *list, size_t len)
{
    int         rc;
    size_t      n, pos;
    mpol_str_t  entry;

    if (len > MPOL_SENDERS_MAX) {
        return MPOL_SENDERS_LONG;
    }

    rc = MPOL_OK;
    pos = 0;

    for (n = 0; mpol_senders_next(list, len, &pos, &entry); n++) {

        if (n == MPOL_SENDERS_ENTRIES) {
            return MPOL_SENDERS_LONG;
        }

        if (!mpol_sender_valid(&entry)) {
            rc = MPOL_SENDERS_ENTRY;
        }
    }

    return rc;
}


int
mpol_senders_match(const uint8_t *list, size_t len, const uint8_t *address,
    size_t n)
{
    size_t      at, pos;
    mpol_str_t  entry;

    if (mpol_senders_check(list, len) == MPOL_SENDERS_LONG) {
        return 0;
    }

    /* no domain has an "@" in it; a quoted local part may */

    at = mpol_sender_at(address, n);

    if (at == 0 || at + 1 >= n) {
        return 0;
    }

    pos = 0;

    while (mpol_senders_next(list, len, &pos, &entry)) {

        if (!mpol_sender_valid(&entry)) {
            continue;
        }

        if (mpol_sender_match(&entry, address, n, at)) {
            return 1;
        }
    }

    return 0;
}


int
mpol_sender_same(const uint8_t *one, size_t n, const uint8_t *two, size_t m)
{
    size_t  i;

    if (n != m) {
        return 0;
    }

    for (i = 0; i < n; i++) {
        if (mpol_sender_lower(one[i]) != mpol_sender_lower(two[i])) {
            return 0;
        }
    }

    return 1;
}


static int
mpol_senders_next(const uint8_t *list, size_t len, size_t *pos,
    mpol_str_t *entry)
{
    size_t  i;

    i = *pos;

    while (i < len && mpol_sender_separator(list[i])) {
        i++;
    }

    if (i == len) {
        *pos = i;
        return 0;
    }

    entry->data = list + i;

    while (i < len && !mpol_sender_separator(list[i])) {
        i++;
    }

    entry->len = (size_t) (list + i - entry->data);
    *pos = i;

    return 1;
}


static int
mpol_sender_separator(uint8_t ch)
{
    return ch == ',' || ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
}


static int
mpol_sender_valid(const mpol_str_t *entry)
{
    size_t  i, at;

    for (i = 0; i < entry->len; i++) {
        if (entry->data[i] < ' ' || entry->data[i] == 127) {
            return 0;
        }
    }

    if (mpol_sender_any(entry->data, entry->len)) {
        return 1;
    }

    /* "@" alone would be a domain of no name, "@a@b" is nothing */

    at = mpol_sender_at(entry->data, entry->len);

    if (at + 1 >= entry->len || (at != 0 && entry->data[0] == '@')) {
        return 0;
    }

    return mpol_sender_stars(entry->data, at) <= 1
           && mpol_sender_stars(entry->data + at, entry->len - at) <= 1;
}


static size_t
mpol_sender_stars(const uint8_t *p, size_t len)
{
    size_t  i, n;

    for (i = 0, n = 0; i < len; i++) {
        n += (p[i] == '*') ? 1 : 0;
    }

    return n;
}


static int
mpol_sender_any(const uint8_t *p, size_t len)
{
    return len == 1 && p[0] == '*';
}


/* entry is valid; at is where the "@" of address is */

static int
mpol_sender_match(const mpol_str_t *entry, const uint8_t *address, size_t n,
    size_t at)
{
    size_t  local;

    if (mpol_sender_any(entry->data, entry->len)) {
        return 1;
    }

    local = mpol_sender_at(entry->data, entry->len);

    if (!mpol_sender_like(entry->data + local, entry->len - local,
                          address + at, n - at))
    {
        return 0;
    }

    /* any local part is any: a quoted one may have an "@" in it */

    return local == 0 || mpol_sender_any(entry->data, local)
           || mpol_sender_like(entry->data, local, address, at);
}


/* the same, where one "*" is anything without "@" */

static int
mpol_sender_like(const uint8_t *pattern, size_t len, const uint8_t *p,
    size_t n)
{
    size_t          head, tail;
    const uint8_t  *star;

    star = memchr(pattern, '*', len);

    if (star == NULL) {
        return mpol_sender_same(pattern, len, p, n);
    }

    head = (size_t) (star - pattern);
    tail = len - head - 1;

    return n >= head + tail
           && mpol_sender_same(pattern, head, p, head)
           && mpol_sender_same(star + 1, tail, p + n - tail, tail)
           && memchr(p + head, '@', n - head - tail) == NULL;
}


/* where the last "@" is; len: nowhere */

static size_t
mpol_sender_at(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = len; i > 0; i--) {
        if (p[i - 1] == '@') {
            return i - 1;
        }
    }

    return len;
}


static uint8_t
mpol_sender_lower(uint8_t ch)
{
    return (uint8_t) (ch >= 'A' && ch <= 'Z' ? ch | 0x20 : ch);
}
