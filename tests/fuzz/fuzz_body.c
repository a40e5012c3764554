
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the octets that arrive together; then message content */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_body.h"
#include "mpol_content.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_body_t   st;
    int           rc;
    uint8_t      *out;
    size_t        len;                  /* of out */
    size_t        pos;                  /* consumed */
} result_t;


static void
run(const uint8_t *data, size_t size, size_t step, int content, result_t *r)
{
    size_t    consumed, end, ready;
    uint8_t  *buf;

    memset(r, 0, sizeof(result_t));
    r->st.content = content ? 1 : 0;
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


static void
check_same(const result_t *a, const result_t *b)
{
    assert(a->rc == b->rc && a->pos == b->pos);
    assert(a->st.octets == b->st.octets);
    assert(a->st.fault == b->st.fault);
    assert(a->st.midline == b->st.midline);
    assert(a->st.eightbit == b->st.eightbit);
}


/* the content, encoded again, is what was passed on in place */

static void
check_content(const result_t *content, const result_t *passed)
{
    size_t           consumed, produced, size;
    uint8_t         *out;
    mpol_content_t   st;

    assert(content->len == content->st.octets);

    memset(&st, 0, sizeof(mpol_content_t));
    st.stuff = 1;

    size = 2 * content->len;
    out = malloc(size + MPOL_CONTENT_ROOM);

    mpol_content_encode(&st, content->out, content->len, out, size, &consumed,
                        &produced);

    assert(consumed == content->len);
    assert(st.octets == content->st.octets);
    assert(st.eightbit == content->st.eightbit);

    /* what was passed on ends in a CR if that had another one behind it */

    if (st.cr) {
        assert(mpol_content_finish(&st, out + produced) == MPOL_CONTENT_ROOM);
        produced++;

    } else {
        assert(st.midline == content->st.midline);
    }

    assert(st.fault == content->st.fault);
    assert(produced == passed->len);
    assert(memcmp(out, passed->out, produced) == 0);

    free(out);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    step;
    result_t  whole, split, content;

    if (size < 2 || size > 8192) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    run(data, size, size, 0, &whole);
    run(data, size, step, 0, &split);

    assert(whole.len == split.len);
    assert(memcmp(whole.out, split.out, whole.len) == 0);
    check_same(&whole, &split);
    check_output(&whole);
    free(split.out);

    run(data, size, step, 1, &split);
    run(data, size, size, 1, &content);

    assert(content.len == split.len);
    assert(memcmp(content.out, split.out, content.len) == 0);
    check_same(&whole, &content);
    check_same(&whole, &split);
    check_content(&content, &whole);

    free(whole.out);
    free(split.out);
    free(content.out);

    return 0;
}
