
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * octet 0: the octets that arrive together; octet 1: the room for what is
 * written; then message content
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_body.h"
#include "mpol_content.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    mpol_content_t   st;
    uint8_t         *out;
    size_t           len;               /* of out */
} result_t;


static void
take(result_t *r, const uint8_t *data, size_t len, size_t room)
{
    size_t    consumed, produced;
    uint8_t  *copy, *out;

    while (len != 0) {

        /* blocks of their own: nothing may be touched behind them */

        copy = malloc(len);
        memcpy(copy, data, len);
        out = malloc(room);

        mpol_content_encode(&r->st, copy, len, out, room, &consumed,
                            &produced);

        assert(consumed <= len && consumed <= room);
        assert(produced <= room && produced <= 2 * consumed + 1);
        assert(consumed != 0);

        memcpy(r->out + r->len, out, produced);
        r->len += produced;
        data += consumed;
        len -= consumed;

        free(copy);
        free(out);
    }
}


static void
run(int stuff, int normalize, const uint8_t *data, size_t size, size_t step,
    size_t room, result_t *r)
{
    size_t    n, pos;
    uint8_t  *end;

    memset(r, 0, sizeof(result_t));
    r->st.stuff = stuff ? 1 : 0;
    r->st.normalize = normalize ? 1 : 0;
    r->out = malloc(2 * size + MPOL_CONTENT_ROOM);

    for (pos = 0; pos < size; pos += n) {
        n = (size - pos < step) ? size - pos : step;
        take(r, data + pos, n, room);
    }

    assert(r->st.octets == size);
    assert(r->len <= 2 * size);

    end = malloc(MPOL_CONTENT_ROOM);
    n = mpol_content_finish(&r->st, end);
    assert(n <= MPOL_CONTENT_ROOM);

    memcpy(r->out + r->len, end, n);
    r->len += n;
    free(end);

    assert(r->st.octets == size && !r->st.cr);
}


/* without transparency: as it came, or repaired */

static void
check_plain(const result_t *r, const uint8_t *data, size_t size)
{
    size_t  i, n;

    if (!r->st.normalize) {
        assert(r->len == size && memcmp(r->out, data, size) == 0);
        return;
    }

    for (i = 0, n = 0; i < size; i++) {
        if (data[i] == '\n') {
            assert(r->out[n] == '\r' && r->out[n + 1] == '\n');
            n += 2;

        } else if (data[i] != '\r') {
            assert(r->out[n] == data[i]);
            n++;

        } else if (i + 1 == size || data[i + 1] != '\n') {
            assert(r->out[n] == ' ');
            n++;
        }
    }

    assert(r->len == n);
}


/* the first fault, and where there is none, the form of what went out */

static void
check_faults(const result_t *r, const uint8_t *data, size_t size)
{
    size_t    i;
    unsigned  eightbit, fault;

    fault = 0;
    eightbit = 0;

    for (i = 0; i < size; i++) {
        eightbit |= data[i] > 127;

        if (fault != 0) {
            continue;
        }

        if (data[i] == '\0') {
            fault = MPOL_BODY_NUL;

        } else if (r->st.normalize) {
            continue;

        } else if (data[i] == '\n' && (i == 0 || data[i - 1] != '\r')) {
            fault = MPOL_BODY_BARE_LF;

        } else if (data[i] == '\r' && (i + 1 == size || data[i + 1] != '\n')) {
            fault = MPOL_BODY_BARE_CR;
        }
    }

    assert(r->st.fault == fault && r->st.eightbit == eightbit);

    if (!r->st.normalize && fault != 0) {
        return;
    }

    for (i = 0; i < r->len; i++) {
        assert(r->out[i] != '\0' || fault == MPOL_BODY_NUL);
        assert(r->out[i] != '\n' || (i != 0 && r->out[i - 1] == '\r'));
        assert(r->out[i] != '\r' || (i + 1 < r->len && r->out[i + 1] == '\n'));
    }
}


/*
 * What a receiver of DATA makes of it is what went into it; and its end is
 * not in it, so that it is the dot that the caller writes behind it.
 */

static void
check_stuffed(const result_t *r, const result_t *plain)
{
    int           rc;
    size_t        consumed, ready;
    uint8_t      *wire;
    mpol_body_t   body;

    wire = malloc(r->len + 4);
    memcpy(wire, r->out, r->len);
    memcpy(wire + r->len, ".\r\nQ", 4);

    assert(r->len == 0
           || (r->len > 1 && memcmp(wire + r->len - 2, "\r\n", 2) == 0));

    memset(&body, 0, sizeof(mpol_body_t));
    body.content = 1;

    rc = mpol_body_scan(&body, wire, r->len + 4, &consumed, &ready);

    assert(rc == MPOL_OK && consumed == r->len + 3);
    assert(ready == plain->len || ready == plain->len + 2);
    assert(memcmp(wire, plain->out, plain->len) == 0);

    if (ready == plain->len) {
        assert(ready == 0
               || (ready > 1 && memcmp(wire + ready - 2, "\r\n", 2) == 0));

    } else {
        assert(memcmp(wire + plain->len, "\r\n", 2) == 0);
        assert(plain->len < 2
               || memcmp(plain->out + plain->len - 2, "\r\n", 2) != 0);
    }

    free(wire);
}


static void
check(int normalize, const uint8_t *data, size_t size, size_t step,
    size_t room)
{
    int       stuff;
    result_t  whole[2], split;

    for (stuff = 0; stuff < 2; stuff++) {
        run(stuff, normalize, data, size, size, 2 * size, &whole[stuff]);
        run(stuff, normalize, data, size, step, room, &split);

        assert(whole[stuff].len == split.len);
        assert(memcmp(whole[stuff].out, split.out, split.len) == 0);
        assert(whole[stuff].st.fault == split.st.fault);
        assert(whole[stuff].st.midline == split.st.midline);
        assert(whole[stuff].st.eightbit == split.st.eightbit);

        free(split.out);

        check_faults(&whole[stuff], data, size);
    }

    check_plain(&whole[0], data, size);
    check_stuffed(&whole[1], &whole[0]);

    free(whole[0].out);
    free(whole[1].out);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t  room, step;

    if (size < 4 || size > 8192) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    room = (size_t) data[1] + MPOL_CONTENT_ROOM;
    data += 2;
    size -= 2;

    check(0, data, size, step, room);
    check(1, data, size, step, room);

    return 0;
}
