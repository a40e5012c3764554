
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * octets 0 .. 7: lengths of five values, and numbers; then the values, of
 * which helo and host are the client's making, name the operator's
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_header.h"
#include "mpol_received.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static mpol_str_t
slice(const uint8_t **data, size_t *size, size_t len)
{
    mpol_str_t  value;

    value.data = *data;
    value.len = len < *size ? len : *size;

    *data += value.len;
    *size -= value.len;

    return value;
}


/* addresses and protocols are nginx's: of a few octets only */

static void
plain(const mpol_str_t *value, uint8_t *out)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        out[i] = (uint8_t) "0123456789abcdef:.EA"[value->data[i] % 20];
    }
}


/* one field of lines that are not too long, and nothing behind it */

static void
check(const uint8_t *p, size_t len)
{
    size_t         i, column;
    mpol_header_t  header;

    assert(len > 2 && len <= MPOL_RECEIVED_SIZE);

    memset(&header, 0, sizeof(header));
    mpol_header_scan(&header, p, len);
    assert(header.received == 1 && !header.done);

    for (i = 0, column = 0; i + 2 < len; i++, column++) {

        if (p[i] == '\r') {
            assert(p[i + 1] == '\n' && p[i + 2] == '\t');
            i += 2;
            column = 0;
            continue;
        }

        assert(p[i] >= 0x20 && p[i] < 0x7f);
        assert(column < 78 + 255);
    }

    assert(p[len - 2] == '\r' && p[len - 1] == '\n');
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t           n;
    uint8_t         *out;
    uint8_t          address[256], protocol[256];
    const uint8_t   *head;
    mpol_received_t  r;

    if (size < 8 || size > 4096) {
        return 0;
    }

    head = data;
    data += 8;
    size -= 8;

    r.helo = slice(&data, &size, head[0] * 2U);
    r.host = slice(&data, &size, head[1] * 2U);
    r.name = slice(&data, &size, head[2] * 2U);
    r.address = slice(&data, &size, head[3]);
    r.protocol = slice(&data, &size, head[4]);

    plain(&r.address, address);
    plain(&r.protocol, protocol);
    r.address.data = address;
    r.protocol.data = protocol;

    r.connection = head[5] * 72340172838076673U;
    r.transaction = head[6];
    r.time = head[6] * 993734512U;
    r.offset = (head[7] - 128) * 11;
    r.utf8 = head[5] & 1;

    out = malloc(MPOL_RECEIVED_SIZE);
    n = mpol_received_build(&r, out);

    check(out, n);
    free(out);

    return 0;
}
