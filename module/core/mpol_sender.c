
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_sender.h"


static int mpol_senders_next(const uint8_t *list, size_t len, size_t *pos,
    mpol_str_t *entry);
static int mpol_sender_separator(uint8_t ch);
static int mpol_sender_valid(const mpol_str_t *entry);
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

    if (at == 0 || at == n) {
        return 0;
    }

    pos = 0;

    while (mpol_senders_next(list, len, &pos, &entry)) {

        if (!mpol_sender_valid(&entry)) {
            continue;
        }

        if (entry.data[0] == '@') {

            if (mpol_sender_same(entry.data, entry.len, address + at,
                                 n - at))
            {
                return 1;
            }

            continue;
        }

        if (mpol_sender_same(entry.data, entry.len, address, n)) {
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
    size_t  i;

    for (i = 0; i < entry->len; i++) {
        if (entry->data[i] < ' ' || entry->data[i] == 127) {
            return 0;
        }
    }

    /* "@" alone would be a domain of no name, "@a@b" is nothing */

    i = mpol_sender_at(entry->data, entry->len);

    return i + 1 < entry->len && (i == 0 || entry->data[0] != '@');
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
