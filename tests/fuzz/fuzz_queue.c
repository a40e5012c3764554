
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* the text of a relay's reply */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_queue.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int         rc;
    size_t      i;
    uint8_t    *copy;
    mpol_str_t  id;

    if (size > 1024) {
        return 0;
    }

    copy = malloc(size ? size : 1);

    if (size) {
        memcpy(copy, data, size);
    }

    rc = mpol_queue_id(copy, size, &id);

    assert(rc == MPOL_OK || (rc == MPOL_BAD && id.len == 0));
    assert(id.data >= copy && id.len <= (size_t) (copy + size - id.data));

    if (rc == MPOL_OK) {
        assert(id.len > 0 && id.len <= MPOL_QUEUE_ID);
        assert(id.data[id.len - 1] != '.');

        for (i = 0; i < id.len; i++) {
            assert(id.data[i] > 32 && id.data[i] < 127);
            assert(id.data[i] != '"' && id.data[i] != '\\');
        }
    }

    free(copy);

    return 0;
}
