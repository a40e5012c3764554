
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octets 0, 1: where the first piece ends; then what a relay sends */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_reply.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data <= p + len);
    assert(s->len <= (size_t) (p + len - s->data));
}


static int
parse(const uint8_t *data, size_t len, mpol_reply_t *reply)
{
    int           rc;
    uint8_t      *p;
    mpol_ehlo_t   ehlo;

    p = malloc(len ? len : 1);
    memcpy(p, data, len);

    rc = mpol_reply_parse(p, len, reply);

    assert(rc == MPOL_AGAIN || rc == MPOL_BAD || rc > 0);
    assert(rc < 0 || (size_t) rc <= len);

    if (rc > 0) {
        assert(reply->code >= 200 && reply->code <= 599);
        assert(reply->lines >= 1 && reply->lines <= MPOL_REPLY_LINES);
        assert(p[rc - 2] == '\r' && p[rc - 1] == '\n');

        check_inside(&reply->text, p, (size_t) rc - 2);
        check_inside(&reply->status, reply->text.data, reply->text.len);
        check_inside(&reply->message, reply->text.data, reply->text.len);

        assert(reply->text.data + reply->text.len == p + rc - 2);
        assert(memchr(reply->text.data, '\n', reply->text.len) == NULL);

        if (reply->code == 250) {
            mpol_ehlo_parse(p, (size_t) rc, &ehlo);

            assert((ehlo.extensions & MPOL_RELAY_XCLIENT)
                   || ehlo.xclient == 0);
            assert((ehlo.extensions & MPOL_RELAY_SIZE) || ehlo.size == 0);
            assert((ehlo.extensions & MPOL_RELAY_LIMITS)
                   || (ehlo.mailmax == 0 && ehlo.rcptmax == 0));
            assert(ehlo.mailmax <= 999999 && ehlo.rcptmax <= 999999);
            assert((ehlo.extensions & MPOL_RELAY_CHUNKING)
                   || !(ehlo.extensions & MPOL_RELAY_BINARYMIME));
            assert((ehlo.extensions & MPOL_RELAY_8BITMIME)
                   || !(ehlo.extensions & MPOL_RELAY_SMTPUTF8));
        }
    }

    free(p);

    return rc;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int           rc, part;
    size_t        cut;
    mpol_reply_t  reply, again;

    if (size < 2 || size > 8192) {
        return 0;
    }

    cut = (size_t) data[0] * 256 + data[1];
    data += 2;
    size -= 2;

    rc = parse(data, size, &reply);

    if (rc > 0) {
        assert(parse(data, (size_t) rc, &again) == rc);
        assert(again.code == reply.code && again.lines == reply.lines);
        assert(again.status.len == reply.status.len);
        assert(again.message.len == reply.message.len);
    }

    /* fewer octets may leave it open, but never give another answer */

    if (cut < size) {
        part = parse(data, cut, &again);
        assert(part == rc || part == MPOL_AGAIN);
        assert(part == rc || rc < 0 || cut < (size_t) rc);
    }

    return 0;
}
