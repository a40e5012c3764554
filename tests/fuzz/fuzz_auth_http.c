
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the octets that arrive together; then what a service says */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_auth_http.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
run(const uint8_t *data, size_t size, size_t step, mpol_auth_http_t *st)
{
    int       rc;
    size_t    len;
    uint8_t  *copy;

    memset(st, 0, sizeof(mpol_auth_http_t));

    for (len = 0; /* void */; len += step) {

        if (len > size) {
            len = size;
        }

        copy = malloc(len ? len : 1);
        memcpy(copy, data, len);

        rc = mpol_auth_http_parse(st, copy, len);
        assert(st->pos <= len && st->scanned <= len);

        free(copy);

        if (rc != MPOL_AGAIN || len == size) {
            return rc;
        }
    }
}


/* 1 if a line of its own says so, in front of the empty line */

static int
says_ok(const uint8_t *data, size_t size)
{
    size_t  i, j;

    static const char  name[] = "auth-status:";

    for (i = 0; i < size; i++) {
        if (i == 0 || data[i - 1] != '\n') {
            continue;
        }

        for (j = 0; j < sizeof(name) - 1 && i + j < size; j++) {
            if ((data[i + j] | 0x20) != (uint8_t) (name[j] | 0x20)) {
                break;
            }
        }

        if (j < sizeof(name) - 1) {
            continue;
        }

        for (j += i;
             j < size && (data[j] == ' ' || data[j] == '\t');
             j++)
        {
            /* void */
        }

        if (j + 2 <= size && data[j] == 'O' && data[j + 1] == 'K') {
            return 1;
        }
    }

    return 0;
}


static void
check_code(const mpol_str_t *value)
{
    size_t   i, n;
    uint8_t  out[MPOL_AUTH_HTTP_CODE];

    n = mpol_auth_http_code(value, out);

    assert(n == 0 || (n >= 9 && n <= sizeof(out)));
    assert(n == 0 || out[0] == '4' || out[0] == '5');
    assert(n == 0 || out[4] == out[0]);

    for (i = 0; i < n; i++) {
        assert(out[i] == ' ' || out[i] == '.'
               || (out[i] >= '0' && out[i] <= '9'));
    }
}


static void
check_head(const uint8_t *data, size_t size, mpol_auth_http_t *st)
{
    int         field;
    size_t      i;
    mpol_str_t  value;

    assert(st->pos != 0 && st->pos <= size && data[st->pos - 1] == '\n');
    assert(st->status >= 100 && st->status <= 599);

    for (field = 0; field < MPOL_AUTH_HTTP_FIELDS; field++) {
        value = mpol_auth_http_field(st, data,
                                     (mpol_auth_http_field_e) field);

        assert(value.data >= data && value.data + value.len <= data + st->pos);

        for (i = 0; i < value.len; i++) {
            assert(value.data[i] != '\r' && value.data[i] != '\n'
                   && value.data[i] != '\0');
        }

        check_code(&value);
    }

    if (mpol_auth_http_verdict(st, data) == MPOL_OK) {
        assert(st->status / 100 == 2);
        assert(says_ok(data, st->pos));
    }

    if (mpol_auth_http_persistent(st)) {
        assert(st->has_length || st->status == 204 || st->status == 304);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int               rc;
    size_t            step;
    mpol_str_t        all;
    mpol_auth_http_t  whole, split;

    if (size < 2 || size > 4096) {
        return 0;
    }

    step = (size_t) data[0] + 1;
    data++;
    size--;

    all.data = data;
    all.len = size;
    check_code(&all);

    rc = run(data, size, size, &whole);

    assert(run(data, size, step, &split) == rc);

    if (rc == MPOL_OK) {
        assert(memcmp(&whole, &split, sizeof(mpol_auth_http_t)) == 0);
        check_head(data, size, &whole);
    }

    return 0;
}
