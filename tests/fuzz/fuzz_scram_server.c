
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a client says in SCRAM, or what is kept of a login.  The first octet
 * tells how long the whole nonce is, which comes next; the rest is a message,
 * tried as each of them.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_sasl.h"
#include "mpol_scram_server.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data <= p + len);
    assert(s->len <= (size_t) (p + len - s->data));
}


static void
check_name(const mpol_str_t *name, int must)
{
    size_t    i, n, k;
    uint8_t  *in, *out;

    in = malloc(name->len ? name->len : 1);
    out = malloc(name->len ? name->len : 1);
    assert(in != NULL && out != NULL);
    memcpy(in, name->data, name->len);

    n = mpol_scram_name(in, name->len, out);
    assert(n <= name->len && (n != 0 || !must));
    assert(mpol_scram_name(in, name->len, in) == n);

    if (n != 0) {
        assert(memcmp(in, out, n) == 0);

        /* one way to write it: encoded again, it is the same */

        for (i = 0, k = 0; i < n; i++) {
            if (out[i] == ',' || out[i] == '=') {
                assert(memcmp(name->data + k, out[i] == ',' ? "=2C" : "=3D",
                              3) == 0);
                k += 3;
                continue;
            }

            assert(out[i] == name->data[k++]);
        }

        assert(k == name->len);
    }

    free(in);
    free(out);
}


static void
check_first(const uint8_t *p, size_t len)
{
    mpol_scram_client_first_t  f;

    if (mpol_scram_client_first(p, len, &f) != MPOL_OK) {
        return;
    }

    assert(f.gs2.data == p && f.bare.data == p + f.gs2.len);
    assert(f.gs2.len + f.bare.len == len);
    assert(f.gs2.data[f.gs2.len - 1] == ',');
    assert(f.binding == 'n' || f.binding == 'y' || f.binding == 'p');
    assert((f.binding == 'p') == (f.name.len != 0));

    check_inside(&f.name, p, f.gs2.len);
    check_inside(&f.authzid, p, f.gs2.len);
    check_inside(&f.username, f.bare.data, f.bare.len);
    check_inside(&f.nonce, f.bare.data, f.bare.len);

    assert(f.username.data == f.bare.data + 2);
    assert(f.nonce.data == f.username.data + f.username.len + 3);
    assert(f.nonce.len != 0 && f.nonce.len <= MPOL_SCRAM_CLIENT_NONCE);
    assert(memchr(f.nonce.data, ',', f.nonce.len) == NULL);

    check_name(&f.username, 1);
    check_name(&f.authzid, f.authzid.len != 0);
}


static void
check_base64(const mpol_str_t *s, size_t low, size_t high)
{
    size_t    n;
    uint8_t  *out;

    out = malloc(s->len + 1);
    assert(out != NULL);

    assert(mpol_base64_decode(s->data, s->len, out, &n) == MPOL_OK);
    assert(n >= low && n <= high);

    free(out);
}


static void
check_final(const uint8_t *p, size_t len, const uint8_t *nonce,
    size_t nonce_len)
{
    mpol_scram_client_final_t  f;

    if (mpol_scram_client_final(p, len, nonce, nonce_len, &f) != MPOL_OK) {
        return;
    }

    assert(f.without.data == p);
    assert(f.proof.data == p + f.without.len + 3);
    assert(f.proof.len + f.without.len + 3 == len);
    assert(memcmp(p + f.without.len, ",p=", 3) == 0);

    assert(f.binding.data == p + 2);
    assert(f.nonce.data == f.binding.data + f.binding.len + 3);
    check_inside(&f.nonce, p, f.without.len);
    assert(f.nonce.len == nonce_len);
    assert(memcmp(f.nonce.data, nonce, nonce_len) == 0);

    check_base64(&f.proof, MPOL_SCRAM_KEY, MPOL_SCRAM_KEY);
    check_base64(&f.binding, 1, len);
}


static void
check_secret(const uint8_t *p, size_t len)
{
    mpol_scram_secret_t  s;

    if (mpol_scram_secret(p, len, &s) != MPOL_OK) {
        return;
    }

    assert(s.iterations >= MPOL_SCRAM_ITERATIONS_LOW);
    assert(s.iterations <= MPOL_SCRAM_ITERATIONS_HIGH);

    check_inside(&s.salt, p, len);
    assert(s.stored.data == s.salt.data + s.salt.len + 1);
    assert(s.server.data == s.stored.data + s.stored.len + 1);
    assert(s.server.data + s.server.len == p + len);

    check_base64(&s.salt, 1, MPOL_SCRAM_SALT_MAX);
    check_base64(&s.stored, MPOL_SCRAM_KEY, MPOL_SCRAM_KEY);
    check_base64(&s.server, MPOL_SCRAM_KEY, MPOL_SCRAM_KEY);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t      n, len;
    uint8_t    *nonce, *p;
    mpol_str_t  name;

    if (size < 1 || size - 1 < data[0] || size > 16384) {
        return 0;
    }

    n = data[0];
    len = size - 1 - n;

    nonce = malloc(n ? n : 1);
    p = malloc(len ? len : 1);
    assert(nonce != NULL && p != NULL);
    memcpy(nonce, data + 1, n);
    memcpy(p, data + 1 + n, len);

    check_first(p, len);
    check_final(p, len, nonce, n);
    check_secret(p, len);

    name.data = p;
    name.len = len;
    check_name(&name, 0);

    assert(memcmp(p, data + 1 + n, len) == 0);

    free(nonce);
    free(p);

    return 0;
}
