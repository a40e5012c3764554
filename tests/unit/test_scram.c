
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_scram.h"
#include "tap.h"


/* RFC 7677, section 3 */

#define NONCE     "rOprNGfwEbeRWgbNEkqO"
#define REST      "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT      "W22ZaJ0SNY7soEsUEjb6gQ=="
#define FIRST     "r=" NONCE REST ",s=" SALT ",i=4096"
#define VERIFIER  "6rriTRBi23WpRPx9GsEmsHEk5Y1YrYGyQBZSD/vI0GU="


static const struct {
    const char  *text;
    int          rc;
    unsigned     iterations;
} firsts[] = {
    { FIRST, MPOL_OK, 4096 },
    { FIRST ",x=more", MPOL_OK, 4096 },
    { "r=" NONCE "x,s=QQ==,i=1", MPOL_OK, 1 },
    { "r=" NONCE "x,s=QQ==,i=10000000", MPOL_OK, 10000000 },
    { "", MPOL_BAD, 0 },
    { "r=" NONCE ",s=QQ==,i=4096", MPOL_BAD, 0 },
    { "r=" REST ",s=QQ==,i=4096", MPOL_BAD, 0 },
    { "r=" NONCE "x y,s=QQ==,i=4096", MPOL_BAD, 0 },
    { "r=" NONCE "x\x7f,s=QQ==,i=4096", MPOL_BAD, 0 },
    { "m=x," FIRST, MPOL_BAD, 0 },
    { "e=unknown-user", MPOL_BAD, 0 },
    { "s=QQ==,r=" NONCE "x,i=4096", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=,i=4096", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=0", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=04096", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=-1", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=4096 ", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=10000001", MPOL_BAD, 0 },
    { "r=" NONCE "x,s=QQ==,i=99999999999999999999", MPOL_BAD, 0 }
};


static const struct {
    const char  *text;
    const char  *signature;             /* NULL: bad */
} finals[] = {
    { "v=" VERIFIER, VERIFIER },
    { "v=" VERIFIER ",x=more", VERIFIER },
    { "e=invalid-proof", NULL },
    { "v=", NULL },
    { "v", NULL },
    { "", NULL },
    { "x=1,v=" VERIFIER, NULL }
};


static const struct {
    const char  *name;
    const char  *bare;
} names[] = {
    { "user", "n=user,r=" NONCE },
    { "a=b,c", "n=a=3Db=2Cc,r=" NONCE },
    { "j\xc3\xb6rg", "n=j\xc3\xb6rg,r=" NONCE },
    { "", "n=,r=" NONCE }
};


static int
first(const char *text, size_t len, mpol_scram_server_t *server)
{
    int       rc;
    uint8_t  *p;

    p = tap_exact(text, len);
    rc = mpol_scram_server_first(p, len, (const uint8_t *) NONCE,
                                 sizeof(NONCE) - 1, server);

    /* its slices are of no use any more, but for their lengths */
    free(p);

    return rc;
}


static void
test_first(void)
{
    size_t               i, n, good;
    mpol_scram_server_t  server;

    for (i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        memset(&server, 0, sizeof(server));

        ok(first(firsts[i].text, strlen(firsts[i].text), &server)
           == firsts[i].rc, "server-first \"%s\"", firsts[i].text);
        is_u64(server.iterations, firsts[i].iterations, "... iterations");
    }

    /* cut off anywhere: what is left of "i=4096" is a number as well */

    good = 0;

    for (n = 0; n < sizeof(FIRST) - 1; n++) {
        good += (first(FIRST, n, &server) == MPOL_OK);
    }

    is_u64(good, 3, "server-first, cut off");

    (void) mpol_scram_server_first((const uint8_t *) FIRST, sizeof(FIRST) - 1,
                                   (const uint8_t *) NONCE,
                                   sizeof(NONCE) - 1, &server);
    is_mem(server.nonce.data, server.nonce.len, NONCE REST,
           sizeof(NONCE REST) - 1, "the nonce");
    is_mem(server.salt.data, server.salt.len, SALT, sizeof(SALT) - 1,
           "the salt");
}


static void
test_final(void)
{
    int          rc;
    size_t       i, len;
    uint8_t     *p;
    mpol_str_t   signature;

    for (i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        len = strlen(finals[i].text);
        p = tap_exact(finals[i].text, len);
        rc = mpol_scram_server_final(p, len, &signature);

        if (finals[i].signature == NULL) {
            ok(rc == MPOL_BAD, "server-final \"%s\"", finals[i].text);

        } else if (ok(rc == MPOL_OK, "server-final \"%s\"", finals[i].text)) {
            is_mem(signature.data, signature.len, finals[i].signature,
                   strlen(finals[i].signature), "... signature");
        }

        free(p);
    }
}


static void
test_bare(void)
{
    size_t    i, n, len;
    uint8_t  *out;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        len = strlen(names[i].bare);

        for (n = 0; n <= len; n++) {
            out = malloc(n ? n : 1);
            if (out == NULL) {
                abort();
            }

            if (mpol_scram_bare((const uint8_t *) names[i].name,
                                strlen(names[i].name),
                                (const uint8_t *) NONCE, sizeof(NONCE) - 1,
                                out, n)
                != (n == len ? len : 0))
            {
                ok(0, "bare of \"%s\" in %lu octets", names[i].name,
                   (unsigned long) n);
            }

            if (n == len) {
                is_mem(out, n, names[i].bare, len, "bare of \"%s\"",
                       names[i].name);
            }

            free(out);
        }
    }
}


int
main(void)
{
    test_first();
    test_final();
    test_bare();

    return done_testing();
}
