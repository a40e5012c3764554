
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <limits.h>

#include "mpol_header.h"
#include "tap.h"


typedef struct {
    const char  *input;
    size_t       len;
    unsigned     received;
    unsigned     done;
} case_t;


#define C(input, received, done)  { input, sizeof(input) - 1, received, done }


static const case_t  cases[] = {

    C("", 0, 0),
    C("a", 0, 0),
    C("Subject: a\r\n", 0, 0),
    C("Subject: a\r\n\r\n", 0, 1),

    /* as soon as the colon is there, in any case */
    C("Received", 0, 0),
    C("Received:", 1, 0),
    C("Received:\r\n", 1, 0),
    C("received: by a\r\n", 1, 0),
    C("RECEIVED: by a\r\nReCeIvEd:b\r\n", 2, 0),
    C("A: b\r\nReceived: c\r\nD: e\r\nReceived: f\r\n\r\n", 2, 1),

    /* white space before the colon, and nothing else */
    C("Received :\r\n", 1, 0),
    C("Received\t \t: a\r\n", 1, 0),
    C("Received \r\n: a\r\n", 0, 0),
    C("Received\r\n :\r\n", 0, 0),
    C("Received\r:\r\n", 0, 0),
    C("Received \r:\r\n", 0, 0),
    C("Received;:\r\n", 0, 0),
    C("Received\0:\r\n", 0, 0),
    C("Received \n\n", 0, 1),

    /* other fields */
    C("Receive: a\r\n", 0, 0),
    C("Receivedx: a\r\n", 0, 0),
    C("Received-SPF: pass\r\nReceived: a\r\n", 1, 0),
    C("X-Received: a\r\n", 0, 0),
    C("Subject: Received: a\r\n", 0, 0),
    C("Rece\r\nived: a\r\n", 0, 0),
    C("Received: Received: a\r\n", 1, 0),
    C("\xd2" "eceived: a\r\n", 0, 0),
    C("\x12" "eceived: a\r\n", 0, 0),
    C("receive\x04: a\r\n", 0, 0),
    C(".Received: a\r\n", 0, 0),

    /* folded lines */
    C(" Received: a\r\n", 0, 0),
    C("\tReceived: a\r\n", 0, 0),
    C("Received: a\r\n\tby b\r\n Received: c\r\nReceived: d\r\n", 2, 0),
    C(" \r\nReceived: a\r\n", 1, 0),

    /* the end of the header section */
    C("\r\n", 0, 1),
    C("\n", 0, 1),
    C("\r\nReceived: a\r\n", 0, 1),
    C("\nReceived: a\r\n", 0, 1),
    C("Received: a\r\n\r\nReceived: b\r\n", 1, 1),
    C("Received: a\r\n\nReceived: b\r\n", 1, 1),
    C("Received: a\n\nReceived: b\n", 1, 1),
    C("Received: a\n\r\nReceived: b\n", 1, 1),
    C("Received: a\nReceived: b\n", 2, 0),
    C("a\r\n\r\n\r\nReceived: a\r\n", 0, 1),

    /* a bare CR begins no line, and makes none empty */
    C("\r", 0, 0),
    C("\r\r\nReceived: a\r\n", 1, 0),
    C("\rReceived: a\r\nReceived: b\r\n", 1, 0),
    C("\r\rReceived: a\r\n\r\n", 0, 1),
    C("a\rReceived: a\r\n", 0, 0),
    C("a\r\n\r \nReceived: a\r\n", 1, 0),
    C("Received: a\r\r\nReceived: b\r\n", 2, 0)
};


static void
feed(mpol_header_t *st, const uint8_t *data, size_t len)
{
    uint8_t  *copy;

    copy = tap_exact(data, len);
    mpol_header_scan(st, copy, len);
    free(copy);
}


/* data[0 .. cut), then step octets at a time (0: all) */

static void
run(const uint8_t *data, size_t len, size_t cut, size_t step,
    mpol_header_t *st)
{
    size_t  i, n;

    memset(st, 0, sizeof(mpol_header_t));

    feed(st, data, cut);

    for (i = cut; i < len; i += n) {
        n = (step == 0 || len - i < step) ? len - i : step;
        feed(st, data + i, n);
    }
}


static int
same(const mpol_header_t *st, const case_t *c)
{
    return st->received == c->received && st->done == c->done;
}


static void
test_case(const case_t *c)
{
    int             pass;
    size_t          cut;
    mpol_header_t   st;
    const uint8_t  *input;

    input = (const uint8_t *) c->input;

    run(input, c->len, c->len, 0, &st);

    if (!ok(same(&st, c), "'%s'", c->input)) {
        printf("#   received %u, done %u\n", st.received,
               (unsigned) st.done);
    }

    for (cut = 0, pass = 1; cut <= c->len && pass; cut++) {
        run(input, c->len, cut, 0, &st);
        pass = same(&st, c);
    }

    ok(pass, "  split at %u", (unsigned) cut - 1);

    run(input, c->len, 0, 1, &st);
    ok(same(&st, c), "  one at a time");
}


/* line by line; the last one may have no end */

static void
model(const uint8_t *p, size_t len, mpol_header_t *st)
{
    size_t  end, i, n;

    static const char  low[] = "received", high[] = "RECEIVED";

    memset(st, 0, sizeof(mpol_header_t));

    for (i = 0; i < len && !st->done; i = end + 1) {

        for (end = i; end < len && p[end] != '\n'; end++) { /* void */ }

        n = end - i;

        if (end < len && (n == 0 || (n == 1 && p[i] == '\r'))) {
            st->done = 1;
        }

        for (n = 0; n < 8 && i + n < end; n++) {
            if (p[i + n] != (uint8_t) low[n] && p[i + n] != (uint8_t) high[n])
            {
                break;
            }
        }

        if (n < 8) {
            continue;
        }

        while (i + n < end && (p[i + n] == ' ' || p[i + n] == '\t')) {
            n++;
        }

        if (i + n < end && p[i + n] == ':') {
            st->received++;
        }
    }
}


static void
test_random(void)
{
    size_t         len, step;
    uint8_t        data[128];
    unsigned       n, counted;
    const char    *word;
    mpol_header_t  st, m;

    static const char *const  words[] = {
        "Received:", "received:", "RECEIVED", "Received", "Rec", "eived",
        ":", " ", "\t", "\r", "\n", "\r\n", "\r\n", "\r\n", "\n", "x"
    };

    counted = 0;

    for (n = 0; n < 100000; n++) {
        step = 1 + (size_t) rand() % 12;

        for (len = 0; len < 100 && rand() % 16 != 0; len += strlen(word)) {
            word = words[rand() % 16];
            memcpy(data + len, word, strlen(word));
        }

        model(data, len, &m);
        run(data, len, 0, step, &st);

        counted += m.received;

        if (st.received != m.received || st.done != m.done) {
            tap_dump("input", data, len);
            break;
        }
    }

    ok(n == 100000 && counted > 10000, "random lines: as the model says");
}


static void
test_limits(void)
{
    mpol_header_t  st;

    static const uint8_t  line[] = "Received: a\r\n";

    memset(&st, 0, sizeof(mpol_header_t));
    st.received = UINT_MAX - 1;

    mpol_header_scan(&st, line, sizeof(line) - 1);
    is_u64(st.received, UINT_MAX, "counts up to UINT_MAX");

    mpol_header_scan(&st, line, sizeof(line) - 1);
    is_u64(st.received, UINT_MAX, "and stays there");

    mpol_header_scan(&st, NULL, 0);
    ok(!st.done, "no octets at all");

    mpol_header_scan(&st, (const uint8_t *) "\r\n", 2);
    ok(st.done, "the end");

    /* an octet that is not there is not looked at */

    mpol_header_scan(&st, NULL, 1000);
    ok(st.done, "and behind it nothing is looked at");
}


int
main(void)
{
    size_t  i;

    srand(1);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(&cases[i]);
    }

    test_limits();
    test_random();

    return done_testing();
}
