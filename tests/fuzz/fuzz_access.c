
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: how many octets come at a time; then what a server answers */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_access.h"
#include "mpol_attr.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data <= p + len);
    assert(s->len <= (size_t) (p + len - s->data));
}


static void
check_reply(const mpol_access_t *a)
{
    size_t    i, n;
    uint8_t  *out;

    out = malloc(MPOL_ACCESS_REPLY);
    n = mpol_access_reply(a, out);

    if (a->code == 0) {
        assert(n == 0);
        free(out);
        return;
    }

    assert(n > 10 && n <= MPOL_ACCESS_REPLY);
    assert(out[0] == '4' || out[0] == '5');
    assert(out[0] == '0' + a->code / 100);
    assert(out[3] == ' ' && out[4] == out[0] && out[5] == '.');

    for (i = 0; i < n; i++) {
        assert(out[i] >= 32 && out[i] <= 126);
    }

    free(out);
}


static int
parse(const uint8_t *data, size_t len, mpol_access_t *a)
{
    int       rc;
    uint8_t  *p;

    p = malloc(len ? len : 1);
    memcpy(p, data, len);

    rc = mpol_access_parse(p, len, a);

    assert(rc == MPOL_OK || rc == MPOL_BAD);
    assert(a->action <= MPOL_ACCESS_UNKNOWN);
    assert(rc == MPOL_BAD || a->action != MPOL_ACCESS_UNKNOWN);
    assert((a->code != 0) == (a->status.len != 0));

    if (a->text.len != 0) {
        check_inside(&a->text, p, len);
        assert(a->text.data[0] != ' ');
        assert(a->text.data[a->text.len - 1] != ' ');
    }

    switch (a->action) {

    case MPOL_ACCESS_REJECT:
        assert(a->code >= 500 && a->code <= 599);
        break;

    case MPOL_ACCESS_DEFER:
        assert(a->code >= 400 && a->code <= 499);
        break;

    case MPOL_ACCESS_DEFER_IF_PERMIT:
    case MPOL_ACCESS_DEFER_IF_REJECT:
        assert(a->code == 450);
        break;

    case MPOL_ACCESS_PREPEND:
        assert(rc == MPOL_BAD
               || memchr(a->text.data, ':', a->text.len) != NULL);
        /* fall through */

    default:
        assert(a->code == 0);
    }

    check_reply(a);

    free(p);

    return rc;
}


/* what is put into a request comes out of it again, but for controls */

static void
put(const uint8_t *data, size_t len)
{
    size_t        i, n;
    uint8_t      *end, *p;
    mpol_str_t    got, value;
    mpol_attr_t   a;

    value.data = data;
    value.len = len;

    n = (len < MPOL_ATTR_LINE - 8) ? len : MPOL_ATTR_LINE - 8;

    p = malloc(n + 9);
    end = p + n + 9;

    assert(mpol_attr_put(p, end - 2, "action", &value) == NULL);
    assert(mpol_attr_end(mpol_attr_put(p, end, "action", &value), end)
           == end);

    memset(&a, 0, sizeof(a));

    assert(mpol_attr_scan(&a, p, n + 9) == MPOL_OK && a.pos == n + 9);
    assert(mpol_access_find(p, n + 9, &got) == MPOL_OK);
    assert(got.len == n);

    for (i = 0; i < n; i++) {
        assert(got.data[i] >= 32 && got.data[i] != 127);
        assert(got.data[i] == data[i]
               || (got.data[i] == '?' && (data[i] < 32 || data[i] == 127)));
    }

    free(p);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int             rc;
    size_t          n, step;
    uint8_t        *copy;
    mpol_str_t      action;
    mpol_attr_t     a;
    mpol_access_t   access;

    if (size < 1 || size > 8192) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    parse(data, size, &access);
    put(data, size);

    memset(&a, 0, sizeof(a));
    rc = MPOL_AGAIN;

    for (n = 0; n < size && rc == MPOL_AGAIN; /* void */ ) {
        n = (size - n < step) ? size : n + step;

        copy = malloc(n);
        memcpy(copy, data, n);

        rc = mpol_attr_scan(&a, copy, n);

        if (rc == MPOL_OK && mpol_access_find(copy, a.pos, &action) == 0) {
            check_inside(&action, copy, a.pos);
            parse(action.data, action.len, &access);
        }

        free(copy);
    }

    return 0;
}
