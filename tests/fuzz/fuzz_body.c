
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the octets that arrive together; then message content */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_body.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_body_t   st;
    int           rc;
    uint8_t      *out;
    size_t        len;                  /* of out */
    size_t        pos;                  /* consumed */
} result_t;


static void
run(const uint8_t *data, size_t size, size_t step, result_t *r)
{
    size_t    consumed, end, ready;
    uint8_t  *buf;

    memset(r, 0, sizeof(result_t));
    r->rc = MPOL_AGAIN;
    r->out = malloc(size + 1);

    for (end = 0; end < size && r->rc == MPOL_AGAIN; /* void */ ) {
        end = (size - end < step) ? size : end + step;

        buf = malloc(end - r->pos);
        memcpy(buf, data + r->pos, end - r->pos);

        r->rc = mpol_body_scan(&r->st, buf, end - r->pos, &consumed, &ready);

        assert(r->rc == MPOL_OK || r->rc == MPOL_AGAIN);
        assert(ready <= consumed && consumed <= end - r->pos);
        assert(r->rc == MPOL_OK || end - r->pos - consumed <= 2);
        assert(memcmp(buf + consumed, data + r->pos + consumed,
                      end - r->pos - consumed) == 0);

        memcpy(r->out + r->len, buf, ready);
        r->len += ready;
        r->pos += consumed;

        free(buf);
    }
}


/* what the relay sees has one end of data, and it is ours */

static void
check_output(const result_t *r)
{
    int       bol;
    size_t    i, stuffed;
    unsigned  cr;

    cr = 0;
    bol = 1;
    stuffed = 0;

    for (i = 0; i < r->len; i++) {

        if (bol && r->out[i] == '.' && i + 1 < r->len) {
            assert(r->out[i + 1] == '.');
            stuffed++;
        }

        if (r->st.fault == 0) {
            assert(r->out[i] != '\0');
            assert((r->out[i] == '\n') == cr);
        }

        bol = (r->out[i] == '\n' && i > 0 && r->out[i - 1] == '\r');
        cr = (r->out[i] == '\r');
    }

    assert(r->st.fault != 0 || cr == 0);
    assert(r->st.octets + stuffed == r->len);
    assert(r->rc != MPOL_OK || r->len == 0 || bol);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    step;
    result_t  whole, split;

    if (size < 2 || size > 8192) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    run(data, size, size, &whole);
    run(data, size, step, &split);

    assert(whole.rc == split.rc && whole.pos == split.pos);
    assert(whole.len == split.len);
    assert(memcmp(whole.out, split.out, whole.len) == 0);
    assert(whole.st.octets == split.st.octets);
    assert(whole.st.fault == split.st.fault);
    assert(whole.st.midline == split.st.midline);
    assert(whole.st.eightbit == split.st.eightbit);

    check_output(&whole);

    free(whole.out);
    free(split.out);

    return 0;
}
