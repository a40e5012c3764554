
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_scram_server.h"
#include "tap.h"


/* RFC 7677, section 3: password "pencil" */

#define CLIENT  "rOprNGfwEbeRWgbNEkqO"
#define NONCE   CLIENT "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT    "W22ZaJ0SNY7soEsUEjb6gQ=="
#define PROOF   "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define STORED  "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
#define SERVER  "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

#define FIRST   "n,,n=user,r=" CLIENT
#define FINAL   "c=biws,r=" NONCE ",p=" PROOF
#define SECRET  "4096," SALT "," STORED "," SERVER

#define A16  "aaaaaaaaaaaaaaaa"
#define A64  A16 A16 A16 A16
#define A256 A64 A64 A64 A64

/* base64 of 31, 33, 64 and 65 octets */
#define B31  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
#define B33  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define B64  B31_WHOLE B31_WHOLE "AAAAAA=="
#define B65  B31_WHOLE B31_WHOLE "AAAAAAA="
#define B31_WHOLE  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


static const struct {
    const char  *text;
    const char  *gs2;                   /* its length is where bare begins */
    const char  *name;
    const char  *authzid;
    const char  *username;
    const char  *nonce;
} firsts[] = {
    { FIRST, "n,,", "", "", "user", CLIENT },
    { "y,,n=user,r=abc", "y,,", "", "", "user", "abc" },
    { "n,a=admin,n=user,r=abc", "n,a=admin,", "", "admin", "user", "abc" },
    { "p=tls-exporter,,n=user,r=abc", "p=tls-exporter,,", "tls-exporter", "",
      "user", "abc" },
    { "p=tls-server-end-point,a=z,n=u,r=abc", "p=tls-server-end-point,a=z,",
      "tls-server-end-point", "z", "u", "abc" },
    { "p=A.9-z,,n=u,r=a", "p=A.9-z,,", "A.9-z", "", "u", "a" },
    { "n,a=a=2Cb,n=c=3Dd=2C,r=a", "n,a=a=2Cb,", "", "a=2Cb", "c=3Dd=2C",
      "a" },
    { "n,,n=j\xc3\xb6rg,r=a", "n,,", "", "", "j\xc3\xb6rg", "a" },
    { "n,,n= \x01,r=!~=", "n,,", "", "", " \x01", "!~=" },
    { "n,,n=u,r=a,x=1", "n,,", "", "", "u", "a" },
    { "n,,n=u,r=a,Z=a=b=c,t=\xe2\x82\xac", "n,,", "", "", "u", "a" },
    { "n,,n=u,r=" A256, "n,,", "", "", "u", A256 }
};


static const char  *bad_firsts[] = {
    "n", "n,", "n,,", ",,n=u,r=a", "x,,n=u,r=a", "N,,n=u,r=a", "ny,,n=u,r=a",
    "n=,,n=u,r=a", "y=x,,n=u,r=a", "p,,n=u,r=a", "p=,,n=u,r=a",
    "p=a_b,,n=u,r=a", "p=a b,,n=u,r=a", "p=a=b,,n=u,r=a",
    "p=\xc3\xa4,,n=u,r=a", "q=a,,n=u,r=a", "px=,,n=u,r=a",
    "n,a,n=u,r=a", "n,a=,n=u,r=a", "n,b=x,n=u,r=a", "n,ab=x,n=u,r=a",
    "n,a=x=,n=u,r=a", "n,a=x=2,n=u,r=a", "n,a=x=2D,n=u,r=a",
    "n,a=x,,n=u,r=a", "n,,,n=u,r=a", "n,n=u,r=a", "n=u,r=a",
    "n,,n=,r=a", "n,,n=u", "n,,n=u,", "n,,n=u,r=", "n,,n=u,r", "n,,r=a,n=u",
    "n,,u=u,r=a", "n,,n=u,s=a", "n,,n=u,,r=a", "n,,n=u,x=1,r=a",
    "n,,n=u=,r=a", "n,,n=u=3,r=a", "n,,n=u=3E,r=a", "n,,n=u=2c,r=a",
    "n,,n=u=3d,r=a", "n,,n=u==2C,r=a", "n,,n=\xc3,r=a", "n,,n=\xff,r=a",
    "n,,n=u,r=a b", "n,,n=u,r=a\x7f", "n,,n=u,r=\x1f", "n,,n=u,r=\xc3\xa4",
    "n,,n=u,r=" A256 "a",
    "n,,m=x,n=u,r=a", "n,,n=u,m=x,r=a", "n,,n=u,r=a,m=x", "n,,n=u,r=a,x=1,m=y",
    "n,,n=u,r=a,", "n,,n=u,r=a,,x=1", "n,,n=u,r=a,x", "n,,n=u,r=a,x=",
    "n,,n=u,r=a,1=x", "n,,n=u,r=a,xy=1", "n,,n=u,r=a,x=1,", "n,,n=u,r=a,=x1",
    "n,,n=u,r=a,x=\xff", " n,,n=u,r=a", ""
};


static const struct {
    const char  *in;
    const char  *out;                   /* "": none */
} names[] = {
    { "user", "user" }, { "a=2Cb", "a,b" }, { "a=3Db", "a=b" },
    { "=2C", "," }, { "=3D=2C", "=," }, { "=3D2C", "=2C" },
    { "=2C=2C=3D=3D", ",,==" }, { "j\xc3\xb6rg ", "j\xc3\xb6rg " },
    { "", "" }, { "=", "" }, { "a=", "" }, { "=2", "" }, { "a=3", "" },
    { "=2c", "" }, { "=3d", "" }, { "=2D", "" }, { "=3C", "" },
    { "==2C", "" }, { "a,b", "" }, { ",", "" }, { "a=2Cb=", "" }
};


static const struct {
    const char  *text;
    const char  *binding;               /* NULL: bad */
} finals[] = {
    { FINAL, "biws" },
    { "c=eSws,r=" NONCE ",p=" PROOF, "eSws" },
    { "c=bixhPXosAA==,r=" NONCE ",p=" PROOF, "bixhPXosAA==" },
    { "c=biws,r=" NONCE ",x=1,p=" PROOF, "biws" },
    { "c=biws,r=" NONCE ",x==,Y=p=,p=" PROOF, "biws" },

    { "", NULL },
    { ",p=" PROOF, NULL },
    { "p=" PROOF, NULL },
    { "c=biws,p=" PROOF, NULL },
    { "r=" NONCE ",p=" PROOF, NULL },
    { "r=" NONCE ",c=biws,p=" PROOF, NULL },
    { "c=,r=" NONCE ",p=" PROOF, NULL },
    { "c=biw,r=" NONCE ",p=" PROOF, NULL },
    { "c=biw*,r=" NONCE ",p=" PROOF, NULL },
    { "c=bi==biws,r=" NONCE ",p=" PROOF, NULL },
    { "c=biwsbh==,r=" NONCE ",p=" PROOF, NULL },
    { "c=biws,r=" CLIENT ",p=" PROOF, NULL },
    { "c=biws,r=" NONCE "x,p=" PROOF, NULL },
    { "c=biws,r=x" NONCE ",p=" PROOF, NULL },
    { "c=biws,r=,p=" PROOF, NULL },
    { "c=biws,m=x,r=" NONCE ",p=" PROOF, NULL },
    { "m=x,c=biws,r=" NONCE ",p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",m=x,p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",p=x,p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",p=" PROOF ",p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",p=" PROOF ",x=1", NULL },
    { "c=biws,r=" NONCE ",p=" PROOF ",", NULL },
    { "c=biws,r=" NONCE ",,p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",x=,p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",x=\xff,p=" PROOF, NULL },
    { "c=biws,r=" NONCE ",P=" PROOF, NULL },
    { "c=biws,r=" NONCE ",p=", NULL },
    { "c=biws,r=" NONCE, NULL },
    { "c=biws,r=" NONCE ",p=" B31, NULL },
    { "c=biws,r=" NONCE ",p=" B33, NULL },
    { "c=biws,r=" NONCE ",p=" B33 B33, NULL },
    { "c=biws,r=" NONCE ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=",
      NULL },
    { "c=biws,r=" NONCE ",p=dHzbZapWIk4jUhN-Ute9ytag9zjfMHgsqmmiz7AndVQ=",
      NULL },
    { "e=other-error", NULL }
};


static const struct {
    const char  *text;
    unsigned     iterations;            /* 0: bad */
    const char  *salt;
} secrets[] = {
    { SECRET, 4096, SALT },

    /* of doveadm pw -s SCRAM-SHA-256 -p secret */
    { "4096,DE6vX1JJohHZzbo7LcAQlg==,"
      "b2Y3SnRyj7T9NXnpZAinl9gEkhnY2gJL8EOPlrIWXjQ=,"
      "vN+NmGxYbG8TlNvbP8eabo2UFFMb5X3AIlaqlU+0Pzk=", 4096,
      "DE6vX1JJohHZzbo7LcAQlg==" },

    { "1000000,AA==," STORED "," SERVER, 1000000, "AA==" },
    { "4097," B64 "," STORED "," SERVER, 4097, B64 },

    { "", 0, NULL }, { ",,,", 0, NULL }, { "4096", 0, NULL },
    { "4096," SALT, 0, NULL },
    { "4096," SALT "," STORED, 0, NULL },
    { "4096," SALT "," STORED ",", 0, NULL },
    { SECRET ",", 0, NULL },
    { SECRET " ", 0, NULL },
    { SECRET "," SERVER, 0, NULL },
    { " " SECRET, 0, NULL },
    { "," SALT "," STORED "," SERVER, 0, NULL },
    { "0," SALT "," STORED "," SERVER, 0, NULL },
    { "04096," SALT "," STORED "," SERVER, 0, NULL },
    { "+4096," SALT "," STORED "," SERVER, 0, NULL },
    { "4096x," SALT "," STORED "," SERVER, 0, NULL },
    { "4095," SALT "," STORED "," SERVER, 0, NULL },
    { "1000001," SALT "," STORED "," SERVER, 0, NULL },
    { "4294971392," SALT "," STORED "," SERVER, 0, NULL },
    { "99999999999999999999," SALT "," STORED "," SERVER, 0, NULL },
    { "4096,," STORED "," SERVER, 0, NULL },
    { "4096," B65 "," STORED "," SERVER, 0, NULL },
    { "4096,AB==," STORED "," SERVER, 0, NULL },
    { "4096,AA=," STORED "," SERVER, 0, NULL },
    { "4096,AA==AA==," STORED "," SERVER, 0, NULL },
    { "4096,AAA*," STORED "," SERVER, 0, NULL },
    { "4096," SALT "," B31 "," SERVER, 0, NULL },
    { "4096," SALT "," B33 "," SERVER, 0, NULL },
    { "4096," SALT "," STORED "," B31, 0, NULL },
    { "4096," SALT "," STORED "," B33, 0, NULL },
    { "4096," SALT ",," SERVER, 0, NULL },
    { "4096:" SALT "," STORED "," SERVER, 0, NULL }
};


static int
inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    return s->data >= p && s->data <= p + len
           && s->len <= (size_t) (p + len - s->data);
}


static int
is_text(const mpol_str_t *got, const char *want, const char *name)
{
    return is_mem(got->data, got->len, want, strlen(want), "  %s", name);
}


static void
test_first(size_t i)
{
    uint8_t                    *p;
    size_t                      len;
    const char                 *text;
    mpol_scram_client_first_t   f;

    text = firsts[i].text;
    len = strlen(text);
    p = tap_exact(text, len);

    if (ok(mpol_scram_client_first(p, len, &f) == MPOL_OK,
           "client-first \"%s\"", text))
    {
        is_u64((uint64_t) f.binding, (uint64_t) text[0], "  binding");
        is_text(&f.gs2, firsts[i].gs2, "gs2");
        is_text(&f.name, firsts[i].name, "name");
        is_text(&f.authzid, firsts[i].authzid, "authzid");
        is_text(&f.username, firsts[i].username, "username");
        is_text(&f.nonce, firsts[i].nonce, "nonce");
        is_text(&f.bare, text + strlen(firsts[i].gs2), "bare");

        ok(inside(&f.gs2, p, len) && inside(&f.name, p, len)
           && inside(&f.authzid, p, len) && inside(&f.username, p, len)
           && inside(&f.nonce, p, len) && inside(&f.bare, p, len),
           "  all of it in the message");
    }

    free(p);
}


static void
test_bad_first(const char *text, size_t len)
{
    uint8_t                    *p;
    mpol_scram_client_first_t   f, before;

    p = tap_exact(text, len);
    memset(&f, 0x55, sizeof(f));
    before = f;

    ok(mpol_scram_client_first(p, len, &f) == MPOL_BAD
       && memcmp(&f, &before, sizeof(f)) == 0,
       "client-first \"%s\" is refused, nothing set", text);

    free(p);
}


/*
 * Each way to break one octet: what is still taken is a message of the same
 * form, and its slices are in it.
 */

static void
test_first_broken(const char *text)
{
    int                         c;
    uint8_t                    *p;
    size_t                      i, len, bad, taken;
    mpol_scram_client_first_t   f;

    len = strlen(text);
    bad = 0;
    taken = 0;

    for (i = 0; i < len; i++) {
        p = tap_exact(text, len);

        for (c = 0; c < 256; c++) {
            p[i] = (uint8_t) c;

            if (mpol_scram_client_first(p, len, &f) != MPOL_OK) {
                continue;
            }

            taken++;

            bad += c == 0 || !inside(&f.name, p, f.gs2.len)
                   || !inside(&f.authzid, p, f.gs2.len)
                   || !inside(&f.username, f.bare.data, f.bare.len)
                   || !inside(&f.nonce, f.bare.data, f.bare.len)
                   || f.gs2.data != p || f.bare.data != p + f.gs2.len
                   || f.gs2.len + f.bare.len != len
                   || f.username.len == 0 || f.nonce.len == 0
                   || f.binding != p[0]
                   || (f.binding == 'p') != (f.name.len != 0);
        }

        free(p);
    }

    ok(bad == 0 && taken > len, "\"%s\": each octet as any other", text);

    for (i = 0, taken = 0; i < len; i++) {
        p = tap_exact(text, i);
        taken += mpol_scram_client_first(p, i, &f) == MPOL_OK;
        free(p);
    }

    /* a nonce may be shorter */
    is_u64(taken, strlen(strstr(text, "r=")) - 3, "  cut off");
}


static void
test_names(void)
{
    size_t    i, len, n;
    uint8_t  *in, *out;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        len = strlen(names[i].in);
        in = tap_exact(names[i].in, len);
        out = tap_exact(names[i].in, len);

        n = mpol_scram_name(in, len, out);
        is_mem(out, n, names[i].out, strlen(names[i].out), "name \"%s\"",
               names[i].in);
        is_mem(in, len, names[i].in, len, "  is left alone");

        n = mpol_scram_name(in, len, in);
        is_mem(in, n, names[i].out, strlen(names[i].out), "  in place");

        free(in);
        free(out);
    }

    is_u64(mpol_scram_name((const uint8_t *) "a\0b", 3, (uint8_t[3]) { 0 }),
           0, "name with a NUL");
}


static int
final_of(const uint8_t *p, size_t len, mpol_scram_client_final_t *f)
{
    return mpol_scram_client_final(p, len, (const uint8_t *) NONCE,
                                   sizeof(NONCE) - 1, f);
}


static void
test_final(size_t i)
{
    int                         rc;
    uint8_t                    *p;
    size_t                      len;
    const char                 *text;
    mpol_scram_client_final_t   f, before;

    text = finals[i].text;
    len = strlen(text);
    p = tap_exact(text, len);
    memset(&f, 0x55, sizeof(f));
    before = f;

    rc = final_of(p, len, &f);

    if (finals[i].binding == NULL) {
        ok(rc == MPOL_BAD && memcmp(&f, &before, sizeof(f)) == 0,
           "client-final \"%s\" is refused, nothing set", text);

    } else if (ok(rc == MPOL_OK, "client-final \"%s\"", text)) {
        is_text(&f.binding, finals[i].binding, "binding");
        is_text(&f.nonce, NONCE, "nonce");
        is_text(&f.proof, PROOF, "proof");
        is_mem(f.without.data, f.without.len, text,
               len - strlen(",p=" PROOF), "  without");
        ok(f.without.data == p && inside(&f.binding, p, len)
           && inside(&f.nonce, p, len) && inside(&f.proof, p, len),
           "  all of it in the message");
    }

    free(p);
}


static void
test_final_broken(void)
{
    int                         c;
    uint8_t                    *p;
    size_t                      i, bad, taken;
    mpol_scram_client_final_t   f;

    bad = 0;
    taken = 0;

    for (i = 0; i < sizeof(FINAL) - 1; i++) {
        p = tap_exact(FINAL, sizeof(FINAL) - 1);

        for (c = 0; c < 256; c++) {
            p[i] = (uint8_t) c;

            if (final_of(p, sizeof(FINAL) - 1, &f) != MPOL_OK) {
                continue;
            }

            taken++;
            bad += f.without.len != sizeof(FINAL) - 1 - sizeof(PROOF) - 2
                   || f.proof.data != p + f.without.len + 3
                   || f.binding.data != p + 2 || f.binding.len != 4
                   || f.nonce.data != p + 9;
        }

        free(p);
    }

    /*
     * 64 digits, but for the last one, which has two bits that are zero, and
     * "biw="; of the others there is one each
     */
    is_u64(taken, 4 * 64 + 1 + (42 * 64 + 16) + (sizeof(FINAL) - 1 - 4 - 43),
           "client-final: each octet as any other");
    is_u64(bad, 0, "  and all of it in place");

    for (i = 0, taken = 0; i < sizeof(FINAL) - 1; i++) {
        p = tap_exact(FINAL, i);
        taken += final_of(p, i, &f) == MPOL_OK;
        free(p);
    }

    is_u64(taken, 0, "  cut off");

    ok(mpol_scram_client_final((const uint8_t *) FINAL, sizeof(FINAL) - 1,
                               NULL, 0, &f) == MPOL_BAD,
       "client-final to no nonce");
    ok(mpol_scram_client_final((const uint8_t *) "c=biws,r=a\0b,p=" PROOF,
                               15 + sizeof(PROOF) - 1,
                               (const uint8_t *) "a\0b", 3, &f) == MPOL_BAD,
       "client-final with a NUL");
}


static void
test_secret(size_t i)
{
    int                   rc;
    uint8_t              *p;
    size_t                len;
    const char           *text;
    mpol_scram_secret_t   s, before;

    text = secrets[i].text;
    len = strlen(text);
    p = tap_exact(text, len);
    memset(&s, 0x55, sizeof(s));
    before = s;

    rc = mpol_scram_secret(p, len, &s);

    if (secrets[i].iterations == 0) {
        ok(rc == MPOL_BAD && memcmp(&s, &before, sizeof(s)) == 0,
           "secret \"%s\" is refused, nothing set", text);

    } else if (ok(rc == MPOL_OK, "secret \"%s\"", text)) {
        is_u64(s.iterations, secrets[i].iterations, "  iterations");
        is_text(&s.salt, secrets[i].salt, "salt");
        ok(s.stored.len == 44 && s.server.len == 44
           && s.stored.data == s.salt.data + s.salt.len + 1
           && s.server.data == s.stored.data + 45
           && s.server.data + 44 == p + len, "  keys");
    }

    free(p);
}


static void
test_secret_broken(void)
{
    int                   c;
    uint8_t              *p;
    size_t                i, bad, taken;
    mpol_scram_secret_t   s;

    bad = 0;
    taken = 0;

    for (i = 0; i < sizeof(SECRET) - 1; i++) {
        p = tap_exact(SECRET, sizeof(SECRET) - 1);

        for (c = 0; c < 256; c++) {
            p[i] = (uint8_t) c;

            if (mpol_scram_secret(p, sizeof(SECRET) - 1, &s) == MPOL_OK) {
                taken++;
                bad += s.iterations < 4096 || !inside(&s.salt, p, 30)
                       || s.server.data + 44 != p + sizeof(SECRET) - 1;
            }
        }

        free(p);
    }

    ok(taken > 106 * 64 && bad == 0, "secret: each octet as any other");

    for (i = 0, taken = 0; i < sizeof(SECRET) - 1; i++) {
        p = tap_exact(SECRET, i);
        taken += mpol_scram_secret(p, i, &s) == MPOL_OK;
        free(p);
    }

    is_u64(taken, 0, "  cut off");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        test_first(i);
    }

    for (i = 0; i < sizeof(bad_firsts) / sizeof(bad_firsts[0]); i++) {
        test_bad_first(bad_firsts[i], strlen(bad_firsts[i]));
    }

    test_bad_first("n,,n=u\0,r=a", 11);
    test_bad_first("n,,n=u,r=a\0", 11);

    test_first_broken(FIRST);
    test_first_broken("p=tls-exporter,a=z=2C,n=u=3D,r=abcdef");

    test_names();

    for (i = 0; i < sizeof(finals) / sizeof(finals[0]); i++) {
        test_final(i);
    }

    test_final_broken();

    for (i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
        test_secret(i);
    }

    test_secret_broken();

    return done_testing();
}
