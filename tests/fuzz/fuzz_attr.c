
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: how many octets come at a time; then what a client sends */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_attr.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


/* a copy, so that one octet too far is seen */

static int
scan(mpol_attr_t *a, const uint8_t *p, size_t len)
{
    int       rc;
    uint8_t  *copy;

    copy = malloc(len ? len : 1);
    memcpy(copy, p, len);

    rc = mpol_attr_scan(a, copy, len);
    assert(a->pos <= len && a->line <= a->pos);

    free(copy);

    return rc;
}


static void
parse(const uint8_t *p, size_t len)
{
    int          i;
    uint8_t     *copy;
    mpol_str_t   v[MPOL_ATTR_KNOWN];

    copy = malloc(len);
    memcpy(copy, p, len);

    mpol_attr_parse(copy, len, v);

    for (i = 0; i < MPOL_ATTR_KNOWN; i++) {

        if (v[i].data == NULL) {
            continue;
        }

        assert(v[i].data > copy && v[i].data[-1] == '=');
        assert(v[i].len < len && v[i].data + v[i].len < copy + len);
        assert(v[i].data[v[i].len] == '\n');
        assert(v[i].len == 0 || memchr(v[i].data, '\n', v[i].len) == NULL);
        assert(v[i].len == 0 || memchr(v[i].data, '\0', v[i].len) == NULL);

        (void) mpol_attr_number(&v[i]);
    }

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int          whole, split;
    size_t       n, step;
    mpol_attr_t  a, b;

    if (size < 1 || size > 80000) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));

    whole = scan(&a, data, size);
    split = MPOL_AGAIN;

    for (n = 0; n < size && split == MPOL_AGAIN; /* void */ ) {
        n = (size - n < step) ? size : n + step;
        split = scan(&b, data, n);
    }

    assert(size == 0 || whole == split);
    assert(whole != MPOL_OK || (a.pos == b.pos && a.pos <= MPOL_ATTR_REQUEST));

    if (whole == MPOL_OK) {
        parse(data, a.pos);
    }

    return 0;
}
