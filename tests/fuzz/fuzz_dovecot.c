
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a line as Dovecot might send it; and, apart from that, octets to escape */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_dovecot.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data + s->len <= p + len);
}


static void
args(mpol_str_t rest, const uint8_t *p, size_t len)
{
    size_t               n, total;
    uint8_t             *out;
    mpol_str_t           first, all;
    mpol_dovecot_arg_t   arg;

    all = rest;
    total = 0;

    while (mpol_dovecot_arg(&rest, &arg)) {
        inside(&arg.whole, p, len);
        inside(&arg.name, p, len);
        total += arg.whole.len + 1;

        assert(arg.whole.len == 0
               || memchr(arg.whole.data, '\t', arg.whole.len) == NULL);

        assert(mpol_dovecot_find(&all, (const char *) arg.name.data,
                                 arg.name.len, &first));

        if (arg.value.data == NULL) {
            assert(arg.name.len == arg.whole.len);
            continue;
        }

        inside(&arg.value, p, len);
        assert(arg.name.len + 1 + arg.value.len == arg.whole.len);

        out = malloc(arg.value.len ? arg.value.len : 1);

        if (mpol_dovecot_unescape(arg.value.data, arg.value.len, out, &n)
            == MPOL_OK)
        {
            assert(n <= arg.value.len);
        }

        free(out);
    }

    assert(total == 0 || total == all.len + 1);
}


static void
escape(const uint8_t *p, size_t len)
{
    size_t    n, m;
    uint8_t  *out;

    n = mpol_dovecot_escape(p, len, NULL, 0);
    assert(n >= len && n <= 2 * len);

    out = malloc(n ? n : 1);
    assert(mpol_dovecot_escape(p, len, out, n) == n);

    /* what was escaped is one arg of one line */

    for (m = 0; m < n; m++) {
        assert(out[m] != '\0' && out[m] != '\t' && out[m] != '\r'
               && out[m] != '\n');
    }

    assert(mpol_dovecot_unescape(out, n, out, &m) == MPOL_OK);
    assert(m == len && (len == 0 || memcmp(out, p, len) == 0));

    free(out);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t              *copy;
    mpol_dovecot_line_t   line;

    if (size > MPOL_DOVECOT_LINE) {
        return 0;
    }

    copy = malloc(size ? size : 1);
    memcpy(copy, data, size);

    if (mpol_dovecot_parse(copy, size, &line) == MPOL_OK) {
        args(line.args, copy, size);
        assert(line.command < MPOL_DOVECOT_OK || line.id != 0);
    }

    escape(copy, size);

    free(copy);

    return 0;
}
