
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_token.h"
#include "tap.h"


#define TOKEN   "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
#define X       "\x01"
#define AUTH    "auth=Bearer " TOKEN X

/* RFC 7628, section 4.1 */
#define OAUTH   "n,a=user@example.com," X "host=server.example.com" X          \
                "port=143" X AUTH X
#define XOAUTH  "user=someuser@example.com" X AUTH X

#define A16   "aaaaaaaaaaaaaaaa"
#define A255  A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16      \
              "aaaaaaaaaaaaaaa"


typedef int (*parse_t)(uint8_t *msg, size_t len, mpol_token_t *t);


typedef struct {
    const char  *msg;
    const char  *user;                  /* NULL: bad */
    const char  *token;
} case_t;


static const case_t  xoauths[] = {
    { XOAUTH, "someuser@example.com", TOKEN },
    { "user=a" X "auth=Bearer x" X X, "a", "x" },
    { "user=a b=c,=2C" X "auth=bearer x" X X, "a b=c,=2C", "x" },
    { "user=\xc3\xa4" X "auth=BEARER   azAZ09-._~+/==" X X, "\xc3\xa4",
      "azAZ09-._~+/==" },
    { "user=" A255 X "auth=Bearer x" X X, A255, "x" },

    { "", NULL, NULL }, { X, NULL, NULL }, { X X, NULL, NULL },
    { X X X, NULL, NULL }, { "user=a", NULL, NULL },
    { "user=a" X X, NULL, NULL },
    { "user=a" X X X, NULL, NULL },
    { "user=" X "auth=Bearer x" X X, NULL, NULL },
    { "user= a" X "auth=Bearer x" X X, NULL, NULL },
    { "user=a\n" X "auth=Bearer x" X X, NULL, NULL },
    { "user=\xc3" X "auth=Bearer x" X X, NULL, NULL },
    { "user=" A255 "a" X "auth=Bearer x" X X, NULL, NULL },
    { "use=a" X "auth=Bearer x" X X, NULL, NULL },
    { "User=a" X "auth=Bearer x" X X, NULL, NULL },
    { "usera" X "auth=Bearer x" X X, NULL, NULL },
    { "a" X "auth=Bearer x" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x", NULL, NULL },
    { "user=a" X "auth=Bearer x" X, NULL, NULL },
    { "user=a" X "auth=Bearer x" X X X, NULL, NULL },
    { "user=a" X "auth=Bearer x" X "\n", NULL, NULL },
    { "user=a" X "auth=Bearer x" X "x" X, NULL, NULL },
    { "user=a" X "auth=Bearer x" X "host=y" X X, NULL, NULL },
    { "auth=Bearer x" X "user=a" X X, NULL, NULL },
    { "user=a" X X "auth=Bearer x" X X, NULL, NULL },
    { "user=a" X "auth=" X X, NULL, NULL },
    { "user=a" X "auth" X X, NULL, NULL },
    { "user=a" X "aut=Bearer x" X X, NULL, NULL },
    { "user=a" X "Auth=Bearer x" X X, NULL, NULL },
    { "user=a" X "auth=Bearer" X X, NULL, NULL },
    { "user=a" X "auth=Bearer " X X, NULL, NULL },
    { "user=a" X "auth=Bearer    " X X, NULL, NULL },
    { "user=a" X "auth=Bearerx" X X, NULL, NULL },
    { "user=a" X "auth=Bearer\tx" X X, NULL, NULL },
    { "user=a" X "auth= Bearer x" X X, NULL, NULL },
    { "user=a" X "auth=Basic eDp4" X X, NULL, NULL },
    { "user=a" X "auth=Bearet x" X X, NULL, NULL },
    { "user=a" X "auth=x" X X, NULL, NULL },
    { "user=a" X "auth=Bearer =" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x=y" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x " X X, NULL, NULL },
    { "user=a" X "auth=Bearer x y" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x,y" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x\r\nRCPT" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x\"" X X, NULL, NULL },
    { "user=a" X "auth=Bearer x\x7f" X X, NULL, NULL },
    { "user=a" X "auth=Bearer \xc3\xa4" X X, NULL, NULL },
    { OAUTH, NULL, NULL }
};


static const case_t  oauths[] = {
    { OAUTH, "user@example.com", TOKEN },
    { "n,," X AUTH X, "", TOKEN },
    { "y,," X AUTH X, "", TOKEN },
    { "n,a=a=2Cb=3Dc," X "auth=bEARER  x" X X, "a,b=c", "x" },
    { "n,a==2C," X "auth=Bearer x" X X, ",", "x" },
    { "n,a=\xc3\xa4 b," X "auth=Bearer x=" X X, "\xc3\xa4 b", "x=" },
    { "n,a=" A255 "," X "auth=Bearer x" X X, A255, "x" },
    { "n,," X "auth=Bearer x" X "host=" X "port=143" X X, "", "x" },
    { "n,," X "q=a=b ,~\t\r\n" X "auth=Bearer x" X X, "", "x" },
    { "n,," X "authz=Basic x" X "auth=Bearer x" X "aut=y" X X, "", "x" },
    { "n,," X "host=x" X "host=y" X "auth=Bearer x" X X, "", "x" },

    { "", NULL, NULL }, { X, NULL, NULL }, { "n", NULL, NULL },
    { "n,", NULL, NULL }, { "n,,", NULL, NULL }, { "n,," X, NULL, NULL },
    { "n,," X X, NULL, NULL },
    { "n,a=u," X "host=x" X "port=1" X X, NULL, NULL },
    { "n,a=u," X "auth=" X X, NULL, NULL },
    { "n,a=u," X "auth=Bearer " X X, NULL, NULL },
    { "n,a=u," X "auth=Basic x" X X, NULL, NULL },
    { "n,a=u," X "AUTH=Bearer x" X X, NULL, NULL },
    { "n,a=u," X AUTH AUTH X, NULL, NULL },
    { "n,a=u," X AUTH "auth=" X X, NULL, NULL },
    { "n,a=u," X "auth=Basic x" X AUTH X, NULL, NULL },
    { "n,a=u," X AUTH, NULL, NULL },
    { "n,a=u," X AUTH X X, NULL, NULL },
    { "n,a=u," X AUTH X "x", NULL, NULL },
    { "n,a=u," X X AUTH X, NULL, NULL },
    { "n,a=u," AUTH X, NULL, NULL },
    { "n,a=u" X AUTH X, NULL, NULL },
    { "n,a=u,x" X AUTH X, NULL, NULL },
    { "n,a=u,," X AUTH X, NULL, NULL },
    { "p=tls-exporter,a=u," X AUTH X, NULL, NULL },
    { "p,a=u," X AUTH X, NULL, NULL },
    { "x,a=u," X AUTH X, NULL, NULL },
    { "N,a=u," X AUTH X, NULL, NULL },
    { ",a=u," X AUTH X, NULL, NULL },
    { "nn,a=u," X AUTH X, NULL, NULL },
    { "n,a=," X AUTH X, NULL, NULL },
    { "n,a," X AUTH X, NULL, NULL },
    { "n,u," X AUTH X, NULL, NULL },
    { "n,b=u," X AUTH X, NULL, NULL },
    { "n,a=u=," X AUTH X, NULL, NULL },
    { "n,a=u=2c," X AUTH X, NULL, NULL },
    { "n,a= u," X AUTH X, NULL, NULL },
    { "n,a=u\x02," X AUTH X, NULL, NULL },
    { "n,a=u\xff," X AUTH X, NULL, NULL },
    { "n,a=" X "," X AUTH X, NULL, NULL },
    { "n,a=" A255 "a," X AUTH X, NULL, NULL },
    { "n,a=u," X "host" X AUTH X, NULL, NULL },
    { "n,a=u," X "=x" X AUTH X, NULL, NULL },
    { "n,a=u," X "=" X AUTH X, NULL, NULL },
    { "n,a=u," X "ho-st=x" X AUTH X, NULL, NULL },
    { "n,a=u," X "h0=x" X AUTH X, NULL, NULL },
    { "n,a=u," X "host=\x02" X AUTH X, NULL, NULL },
    { "n,a=u," X "host=\x7f" X AUTH X, NULL, NULL },
    { "n,a=u," X "host=\xc3\xa4" X AUTH X, NULL, NULL },
    { XOAUTH, NULL, NULL }
};


static int
inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    return s->data >= p && s->data <= p + len
           && s->len <= (size_t) (p + len - s->data);
}


static void
test_case(parse_t parse, const case_t *c, const char *name)
{
    int            rc;
    size_t         len;
    uint8_t       *p;
    mpol_token_t   t, before;

    len = strlen(c->msg);
    p = tap_exact(c->msg, len);
    memset(&t, 0x55, sizeof(t));
    before = t;

    rc = parse(p, len, &t);

    if (c->user == NULL) {
        ok(rc == MPOL_BAD && memcmp(&t, &before, sizeof(t)) == 0,
           "%s \"%s\" is refused, nothing set", name, c->msg);

    } else if (ok(rc == MPOL_OK, "%s \"%s\"", name, c->msg)) {
        is_mem(t.user.data, t.user.len, c->user, strlen(c->user), "  user");
        is_mem(t.token.data, t.token.len, c->token, strlen(c->token),
               "  token");
        ok(inside(&t.user, p, len) && inside(&t.token, p, len),
           "  in the message");
    }

    free(p);
}


/* cut off anywhere, and with each octet as any other */

static void
test_broken(parse_t parse, const char *msg, const char *name)
{
    int            c;
    size_t         i, len, bad, taken;
    uint8_t       *p;
    mpol_token_t   t;

    len = strlen(msg);

    for (i = 0, taken = 0; i < len; i++) {
        p = tap_exact(msg, i);
        taken += parse(p, i, &t) == MPOL_OK;
        free(p);
    }

    is_u64(taken, 0, "%s: cut off", name);

    for (i = 0, taken = 0, bad = 0; i < len; i++) {

        for (c = 0; c < 256; c++) {
            p = tap_exact(msg, len);
            p[i] = (uint8_t) c;

            if (parse(p, len, &t) == MPOL_OK) {
                taken++;
                bad += !inside(&t.user, p, len) || !inside(&t.token, p, len)
                       || t.token.len == 0 || c == 0
                       || memchr(t.user.data, 1, t.user.len) != NULL;
            }

            free(p);
        }
    }

    ok(bad == 0 && taken > 40 * 60, "%s: each octet as any other", name);
}


static void
test_long(parse_t parse, const char *head, const char *name)
{
    size_t         n;
    uint8_t        msg[MPOL_TOKEN_MAX + 64];
    mpol_token_t   t;

    n = strlen(head);
    memcpy(msg, head, n);
    memset(msg + n, 'a', sizeof(msg) - n);

    memcpy(msg + n + MPOL_TOKEN_MAX, X X, 2);
    ok(parse(msg, n + MPOL_TOKEN_MAX + 2, &t) == MPOL_OK
       && t.token.len == MPOL_TOKEN_MAX, "%s: the longest token", name);

    memcpy(msg + n + MPOL_TOKEN_MAX, "=" X X, 3);
    ok(parse(msg, n + MPOL_TOKEN_MAX + 3, &t) == MPOL_BAD,
       "%s: a longer one", name);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(xoauths) / sizeof(xoauths[0]); i++) {
        test_case(mpol_xoauth2_parse, &xoauths[i], "XOAUTH2");
    }

    for (i = 0; i < sizeof(oauths) / sizeof(oauths[0]); i++) {
        test_case(mpol_oauthbearer_parse, &oauths[i], "OAUTHBEARER");
    }

    test_broken(mpol_xoauth2_parse, XOAUTH, "XOAUTH2");
    test_broken(mpol_oauthbearer_parse, OAUTH, "OAUTHBEARER");

    test_long(mpol_xoauth2_parse, "user=a" X "auth=Bearer ", "XOAUTH2");
    test_long(mpol_oauthbearer_parse, "n,," X "auth=Bearer ", "OAUTHBEARER");

    return done_testing();
}
