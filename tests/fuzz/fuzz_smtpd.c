
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a reply, and what is made harmless for a line of the log */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_smtpd.h"
#include "mpol_text.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t               i;
    uint8_t             *copy;
    mpol_smtpd_reply_t   r;

    if (size > 1024) {
        return 0;
    }

    copy = malloc(size ? size : 1);

    if (size) {
        memcpy(copy, data, size);
    }

    mpol_smtpd_reply(copy, size, &r);

    assert(r.code == 0 || (r.code >= 200 && r.code <= 599));
    assert(r.dsn_len >= 5 && r.dsn_len <= MPOL_SMTPD_DSN);
    assert(r.dsn[0] >= '2' && r.dsn[0] <= '5' && r.dsn[1] == '.');
    assert(r.text.data >= copy && r.text.data + r.text.len == copy + size);

    mpol_smtpd_clean(copy, size, copy);

    for (i = 0; i < size; i++) {
        assert(copy[i] >= 0x20 && copy[i] != 0x7f);
    }

    assert(mpol_utf8_clean(copy, size));

    mpol_smtpd_bracketed(data, size, copy);

    for (i = 0; i < size; i++) {
        assert(copy[i] >= 0x20 && copy[i] != '<' && copy[i] != '>');
    }

    free(copy);

    return 0;
}
