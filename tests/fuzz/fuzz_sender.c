
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the length of the address, which comes next; then the list */


#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_sender.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
swap_case(uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if ((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z')) {
            p[i] ^= 0x20;
        }
    }
}


/* "*" as it is understood, and not as it is computed */

static int
is_like(const char *pattern, const char *text)
{
    if (*pattern == '\0') {
        return *text == '\0';
    }

    if (*pattern == '*') {
        return is_like(pattern + 1, text)
               || (*text != '\0' && *text != '@' && is_like(pattern, text + 1));
    }

    return *text != '\0'
           && (*pattern == *text
               || (isalpha((unsigned char) *pattern)
                   && (*pattern ^ 0x20) == *text))
           && is_like(pattern + 1, text + 1);
}


static int
is_owned(char *entry, char *address)
{
    char  *domain, *at;

    domain = strrchr(entry, '@');
    at = strrchr(address, '@');

    if (at == NULL || at == address || at[1] == '\0') {
        return 0;
    }

    if (strcmp(entry, "*") == 0) {
        return 1;
    }

    assert(domain != NULL);

    if (!is_like(domain, at)) {
        return 0;
    }

    *domain = '\0';
    *at = '\0';

    return *entry == '\0' || strcmp(entry, "*") == 0
           || is_like(entry, address);
}


/* the list as one entry, if it is a good one */

static void
check_entry(const uint8_t *list, size_t len, const uint8_t *address, size_t n,
    int owned)
{
    size_t  i;
    char    entry[256], text[256];

    if (len == 0 || len > 64 || n > 64
        || mpol_senders_check(list, len) != MPOL_OK
        || memchr(address, '\0', n) != NULL)
    {
        return;
    }

    for (i = 0; i < len; i++) {
        if (list[i] <= ' ' || list[i] == ',') {
            return;
        }
    }

    memcpy(entry, list, len);
    entry[len] = '\0';
    memcpy(text, address, n);
    text[n] = '\0';

    assert(is_owned(entry, text) == owned);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int       rc, owned;
    size_t    i, n, len;
    uint8_t  *address, *list, *more;

    if (size < 1 || size - 1 < data[0] || size > 16384) {
        return 0;
    }

    n = data[0];
    len = size - 1 - n;

    address = malloc(n ? n : 1);
    memcpy(address, data + 1, n);

    list = malloc(len ? len : 1);
    memcpy(list, data + 1 + n, len);

    rc = mpol_senders_check(list, len);
    owned = mpol_senders_match(list, len, address, n);

    assert(rc == MPOL_OK || rc == MPOL_SENDERS_LONG
           || rc == MPOL_SENDERS_ENTRY);
    assert(owned == 0 || owned == 1);
    assert(rc != MPOL_SENDERS_LONG || owned == 0);

    /* an address is owned only if its domain stands in the list */

    if (owned) {
        assert(n >= 3);

        for (i = n; i > 0 && address[i - 1] != '@'; i--) { /* void */ }

        assert(i > 1 && i < n);
    }

    check_entry(list, len, address, n, owned);

    swap_case(address, n);
    assert(mpol_senders_match(list, len, address, n) == owned);

    /* one more entry takes none away; itself, if it can be one, is in it */

    if (len + 2 + n <= MPOL_SENDERS_MAX) {
        more = malloc(len + 2 + n);

        memcpy(more, list, len);
        memcpy(more + len, ", ", 2);
        memcpy(more + len + 2, address, n);

        if (mpol_senders_check(more, len + 2 + n) != MPOL_SENDERS_LONG) {
            assert(mpol_senders_match(more, len + 2 + n, address, n)
                   >= owned);
        }

        free(more);
    }

    free(list);
    free(address);

    return 0;
}
