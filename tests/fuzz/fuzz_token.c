
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a message of XOAUTH2 or OAUTHBEARER, tried as either */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_sasl.h"
#include "mpol_token.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(const mpol_token_t *t, const uint8_t *p, size_t len)
{
    size_t  i;

    assert(t->user.data >= p && t->user.data <= p + len);
    assert(t->user.len <= (size_t) (p + len - t->user.data));
    assert(t->user.len == 0
           || mpol_identity_valid(t->user.data, t->user.len));

    assert(t->token.data > t->user.data + t->user.len);
    assert(t->token.data <= p + len);
    assert(t->token.len <= (size_t) (p + len - t->token.data));
    assert(t->token.len >= 1 && t->token.len <= MPOL_TOKEN_MAX);
    assert(t->token.data[0] != '=' && t->token.data[-1] == ' ');
    assert(t->token.data[t->token.len] == 0x01);

    /* a token goes to lines of text, and into JSON: nothing breaks them */

    for (i = 0; i < t->token.len; i++) {
        assert(t->token.data[i] > ' ' && t->token.data[i] < 127
               && t->token.data[i] != '"' && t->token.data[i] != '\\');
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int            x;
    uint8_t       *p;
    mpol_token_t   t;

    if (size > 16384) {
        return 0;
    }

    p = malloc(size ? size : 1);
    assert(p != NULL);
    memcpy(p, data, size);

    x = mpol_xoauth2_parse(p, size, &t);

    if (x == MPOL_OK) {
        check(&t, p, size);
        assert(t.user.len != 0);
        assert(t.user.data == p + 5 && p[5 + t.user.len] == 0x01);
    }

    memcpy(p, data, size);

    if (mpol_oauthbearer_parse(p, size, &t) == MPOL_OK) {
        assert(x != MPOL_OK);
        check(&t, p, size);
    }

    free(p);

    return 0;
}
