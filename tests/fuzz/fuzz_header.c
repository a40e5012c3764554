
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the octets that arrive together; then a message */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_header.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
run(const uint8_t *data, size_t size, size_t step, mpol_header_t *st)
{
    size_t    n, pos;
    uint8_t  *copy;
    unsigned  before;

    memset(st, 0, sizeof(mpol_header_t));

    for (pos = 0; pos < size; pos += n) {
        n = (size - pos < step) ? size - pos : step;

        copy = malloc(n);
        memcpy(copy, data + pos, n);

        before = st->done ? st->received : 0;
        mpol_header_scan(st, copy, n);
        assert(before == 0 || st->received == before);

        free(copy);
    }
}


/* where the first empty line begins, or size if there is none */

static size_t
header_end(const uint8_t *data, size_t size)
{
    size_t  i;

    for (i = 0; i < size; i++) {
        if (i != 0 && data[i - 1] != '\n') {
            continue;
        }

        if (data[i] == '\n'
            || (data[i] == '\r' && i + 1 < size && data[i + 1] == '\n'))
        {
            break;
        }
    }

    return i;
}


static unsigned
count(const uint8_t *data, size_t size)
{
    size_t    i, n;
    unsigned  received;

    received = 0;

    for (i = 0; i < size; i++) {
        if (i != 0 && data[i - 1] != '\n') {
            continue;
        }

        for (n = 0; n < 8 && i + n < size; n++) {
            if (data[i + n] != (uint8_t) "received"[n]
                && data[i + n] != (uint8_t) "RECEIVED"[n])
            {
                break;
            }
        }

        if (n < 8) {
            continue;
        }

        while (i + n < size && (data[i + n] == ' ' || data[i + n] == '\t')) {
            n++;
        }

        if (i + n < size && data[i + n] == ':') {
            received++;
        }
    }

    return received;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t         end, step;
    mpol_header_t  whole, split;

    if (size < 2 || size > 8192) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    run(data, size, size, &whole);
    run(data, size, step, &split);

    assert(whole.received == split.received && whole.done == split.done);

    end = header_end(data, size);

    assert(whole.done == (end < size));
    assert(whole.received == count(data, end));

    return 0;
}
