
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a relay says in SCRAM.  The first octet tells how long our nonce is,
 * which comes next; the rest is a message of the server, tried as either.
 */


#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_scram.h"


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


#define check(condition)                                                      \
    do {                                                                      \
        if (!(condition)) {                                                   \
            abort();                                                          \
        }                                                                     \
    } while (0)


static void
inside(const mpol_str_t *slice, const uint8_t *msg, size_t len)
{
    check(slice->data >= msg && slice->len <= len
          && (size_t) (slice->data - msg) <= len - slice->len);
    check(slice->len != 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t                nonce_len, len, n;
    uint8_t               out[600];
    mpol_str_t            signature;
    const uint8_t        *nonce, *msg;
    mpol_scram_server_t   server;

    if (size < 1) {
        return 0;
    }

    nonce_len = data[0] % 32;

    if (size - 1 < nonce_len) {
        return 0;
    }

    nonce = data + 1;
    msg = nonce + nonce_len;
    len = size - 1 - nonce_len;

    if (mpol_scram_server_first(msg, len, nonce, nonce_len, &server)
        == MPOL_OK)
    {
        inside(&server.nonce, msg, len);
        inside(&server.salt, msg, len);
        check(server.nonce.len > nonce_len);
        check(memcmp(server.nonce.data, nonce, nonce_len) == 0);
        check(server.iterations >= 1);
        check(server.iterations <= MPOL_SCRAM_ITERATIONS);
    }

    if (mpol_scram_server_final(msg, len, &signature) == MPOL_OK) {
        inside(&signature, msg, len);
    }

    /* the message as a name */

    n = mpol_scram_bare(msg, len, nonce, nonce_len, out, sizeof(out));
    check(n <= sizeof(out));
    check(n != 0 || 5 + len + nonce_len > sizeof(out) / 3);

    return 0;
}
