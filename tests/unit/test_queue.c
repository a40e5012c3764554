
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_queue.h"
#include "tap.h"


#define DIGITS_40   "0123456789012345678901234567890123456789"
#define DIGITS_120  DIGITS_40 DIGITS_40 DIGITS_40


/* what servers say to the end of a message; NULL: no name is in it */

static const struct {
    const char  *reply;
    const char  *id;
} cases[] = {
    { "250 2.0.0 Ok: queued as 4XyZ1k2m3nzDbk", "4XyZ1k2m3nzDbk" },
    { "Ok: queued as BADFACE", "BADFACE" },
    { "2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 8A1",
      "8A1" },
    { "Ok: queued as 1, queued as 2", "2" },
    { "250 OK id=1r5abc-0003xY-2Z", "1r5abc-0003xY-2Z" },
    { "250 OK ids=9f3c0011aa22bb33", "9f3c0011aa22bb33" },
    { "250 2.6.0 <m-1@host.example> [InternalId=12345678, Hostname=a.b] "
      "Queued mail for delivery", "12345678" },
    { "250 2.0.0 Message queued with id 21af9.", "21af9" },
    { "250 2.0.0 3AR1x2y3012345 Message accepted for delivery",
      "3AR1x2y3012345" },
    { "2.0.0 4ba1c2d3 Message accepted for delivery", "4ba1c2d3" },
    { "250 Message Queued (5F3C-4D1A.1)", "5F3C-4D1A.1" },
    { "250 ok 1700000000 qp 12345", "12345" },
    { "250 ok:  Message 12345 accepted", "12345" },
    { "250 2.0.0 OK  1700000000 x12-20020a05.12 - gsmtp", "x12-20020a05.12" },
    { "250 Ok 0100018b9c1d2e3f-5c4d-000000", "0100018b9c1d2e3f-5c4d-000000" },
    { "250 Ok. 0000000A.6553.0001", "0000000A.6553.0001" },
    { "250 2.0.0 OK 0A/1B-23456-7C8D9E", "0A/1B-23456-7C8D9E" },
    { "queued as a", "a" },
    { "QUEUED AS AbC", "AbC" },

    { "", NULL },
    { "250", NULL },
    { "250 2.0.0", NULL },
    { "250 2.0.0 ", NULL },
    { "250 2.0.0 Ok", NULL },
    { "250 Ok", NULL },
    { "250 ok dirdel", NULL },
    { "250 Queued (0.123 seconds)", NULL },
    { "250 Message queued (0.123 seconds)", NULL },
    { "250 2.0.0 Message accepted for delivery", NULL },
    { "250 Ok, message accepted for delivery", NULL },
    { "250 2.6.0 message received", NULL },
    { "250 Great success", NULL },
    { "250 Ok 3.5s", NULL },
    { "250 Ok 12345 octets", NULL },
    { "250 Ok abcdefghij", NULL },
    { "250 Ok: queued as ", NULL },
    { "250 Ok: queued as (none)", NULL },
    { "250 Ok: queued as ...", NULL },
    { "250 unqueued as 12", NULL },
    { "250 paid=12", NULL },
    { "250 Ok message 12345", NULL },
    { "250 Ok queued as \xc3\xa4", NULL },
    { "250 queued as " DIGITS_120 "12345678", DIGITS_120 "12345678" },
    { "250 queued as " DIGITS_120 "123456789", NULL }
};


static void
test_case(size_t i)
{
    int         rc;
    size_t      len;
    uint8_t    *copy;
    mpol_str_t  id;

    len = strlen(cases[i].reply);
    copy = tap_exact(cases[i].reply, len);

    rc = mpol_queue_id(copy, len, &id);

    if (cases[i].id != NULL) {
        is_mem(id.data, id.len, cases[i].id, strlen(cases[i].id), "in '%s'",
               cases[i].reply);

    } else {
        ok(rc == MPOL_BAD && id.len == 0, "none in '%s'", cases[i].reply);
    }

    free(copy);
}


/* cut anywhere, it is read no further than it is long */

static void
test_cuts(void)
{
    size_t      i, len, n;
    uint8_t    *copy;
    mpol_str_t  id;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        len = strlen(cases[i].reply);

        for (n = 0; n < len; n++) {
            copy = tap_exact(cases[i].reply, n);

            if (mpol_queue_id(copy, n, &id) == MPOL_OK
                && (id.len == 0 || id.data + id.len > copy + n))
            {
                ok(0, "'%s' cut at %u", cases[i].reply, (unsigned) n);
                return;
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

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(i);
    }

    test_cuts();

    return done_testing();
}
