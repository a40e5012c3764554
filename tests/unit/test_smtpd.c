
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_smtpd.h"
#include "tap.h"


static const struct {
    const char  *reply;
    unsigned     code;
    const char  *dsn;
    const char  *text;
} replies[] = {
    { "550 5.7.1 No", 550, "5.7.1", "No" },
    { "450 4.7.1 <a@b>: x", 450, "4.7.1", "<a@b>: x" },
    { "250 2.0.0 Ok: queued as 1", 250, "2.0.0", "Ok: queued as 1" },
    { "421 4.7.999 x", 421, "4.7.999", "x" },
    { "550 5.100.200", 550, "5.100.200", "" },
    { "550 5.1.1 ", 550, "5.1.1", "" },

    { "550 No such user", 550, "5.0.0", "No such user" },
    { "451 later", 451, "4.0.0", "later" },
    { "550", 550, "5.0.0", "" },
    { "550 ", 550, "5.0.0", "" },

    /* not of the code's class: a mistake of the relay's */

    { "550 4.7.1 No", 550, "5.0.0", "No" },
    { "450 2.0.0 Ok", 450, "4.0.0", "Ok" },

    { "550 5.7.1No", 550, "5.0.0", "5.7.1No" },
    { "550 5.7 No", 550, "5.0.0", "5.7 No" },
    { "550 5.7. No", 550, "5.0.0", "5.7. No" },
    { "550 5..1 No", 550, "5.0.0", "5..1 No" },
    { "550 55.7.1 No", 550, "5.0.0", "55.7.1 No" },
    { "550 5.7777.1 No", 550, "5.0.0", "5.7777.1 No" },
    { "550 5.7.1.2 No", 550, "5.0.0", "5.7.1.2 No" },

    { "", 0, "5.0.0", "" },
    { "No", 0, "5.0.0", "No" },
    { "55", 0, "5.0.0", "55" },
    { "5501 No", 0, "5.0.0", "5501 No" },
    { "550-5.7.1 No", 0, "5.0.0", "550-5.7.1 No" },
    { "650 5.7.1 No", 0, "5.0.0", "650 5.7.1 No" },
    { "150 No", 0, "5.0.0", "150 No" },
    { "5.7.1 No", 0, "5.0.0", "No" }
};


static const struct {
    const char  *in;
    const char  *out;
} texts[] = {
    { "", "" },
    { "a b<c>[1.2.3.4]: \"\\'", "a b<c>[1.2.3.4]: \"\\'" },
    { "a\tb\r\nc\x01\x1b\x7f", "a?b??c???" },
    { "gr\xc3\xbc\xc3\x9f" "e", "gr\xc3\xbc\xc3\x9f" "e" },
    { "\xe2\x82\xac\xf0\x9f\x93\xa7", "\xe2\x82\xac\xf0\x9f\x93\xa7" },
    { "\xc3", "?" },
    { "\xc3\x28", "?(" },
    { "\xe2\x82", "??" },
    { "\xe2\x82\xc3\xa4", "??\xc3\xa4" },
    { "\xf0\x9f\x93", "???" },
    { "\xc0\xaf\xff\xfe\x80", "?????" },
    { "\xed\xa0\x80", "???" },
    { "\xc2\x85" "a\xc2\x9f\xc2\xa0", "??a??\xc2\xa0" }
};


static void
test_reply(size_t i)
{
    size_t              len;
    uint8_t            *copy;
    mpol_smtpd_reply_t  r;

    len = strlen(replies[i].reply);
    copy = tap_exact(replies[i].reply, len);

    mpol_smtpd_reply(copy, len, &r);

    ok(r.code == replies[i].code, "code of '%s'", replies[i].reply);
    is_mem(r.dsn, r.dsn_len, replies[i].dsn, strlen(replies[i].dsn),
           "status of '%s'", replies[i].reply);
    is_mem(r.text.data, r.text.len, replies[i].text, strlen(replies[i].text),
           "text of '%s'", replies[i].reply);

    free(copy);
}


static void
test_clean(size_t i)
{
    size_t    len;
    uint8_t  *copy, *out;

    len = strlen(texts[i].in);
    copy = tap_exact(texts[i].in, len);
    out = malloc(len ? len : 1);

    mpol_smtpd_clean(copy, len, out);
    is_mem(out, len, texts[i].out, strlen(texts[i].out), "clean, %u",
           (unsigned) i);

    mpol_smtpd_clean(copy, len, copy);
    is_mem(copy, len, texts[i].out, strlen(texts[i].out), "in itself, %u",
           (unsigned) i);

    free(copy);
    free(out);
}


static void
test_bracketed(void)
{
    uint8_t            out[64];
    static const char  in[] = "\"> to=<x>\"@b\r[\xc3\xa4]";

    mpol_smtpd_bracketed((const uint8_t *) in, sizeof(in) - 1, out);
    is_mem(out, sizeof(in) - 1, "\"? to=?x?\"@b?[\xc3\xa4]", sizeof(in) - 1,
           "between brackets");
}


/* cut anywhere, no octet behind the end is read, and none is a control */

static void
test_cuts(void)
{
    size_t              i, k, len, n;
    uint8_t            *copy;
    mpol_smtpd_reply_t  r;

    for (i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        len = strlen(replies[i].reply);

        for (n = 0; n < len; n++) {
            copy = tap_exact(replies[i].reply, n);
            mpol_smtpd_reply(copy, n, &r);

            if (r.text.data < copy || r.text.data + r.text.len != copy + n) {
                ok(0, "'%s' cut at %u", replies[i].reply, (unsigned) n);
                return;
            }

            free(copy);
        }
    }

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        len = strlen(texts[i].in);

        for (n = 0; n < len; n++) {
            copy = tap_exact(texts[i].in, n);
            mpol_smtpd_clean(copy, n, copy);

            for (k = 0; k < n; k++) {
                if (copy[k] < 0x20 || copy[k] == 0x7f) {
                    ok(0, "text %u cut at %u", (unsigned) i, (unsigned) n);
                    return;
                }
            }

            free(copy);
        }
    }

    ok(1, "cut at every octet");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        test_reply(i);
    }

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        test_clean(i);
    }

    test_bracketed();
    test_cuts();

    return done_testing();
}
