
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_body.h"
#include "tap.h"


#define BODY_MAX  1024


/* what every scan is told: mpol_body_t.content */
static unsigned  content;


typedef struct {
    const char  *input;
    size_t       len;
    const char  *output;
    size_t       output_len;
    size_t       behind;                /* octets behind the end; or, if
                                           there is none, not judged yet */
    int          rc;
    unsigned     octets;
    unsigned     fault;
    unsigned     eightbit;
} case_t;


#define C(input, output, rc, behind, octets, fault, eightbit)                \
    { input, sizeof(input) - 1, output, sizeof(output) - 1, behind, rc,      \
      octets, fault, eightbit }


static const case_t  cases[] = {

    C("", "", MPOL_AGAIN, 0, 0, 0, 0),
    C("a", "a", MPOL_AGAIN, 0, 1, 0, 0),
    C("a\r\n", "a\r\n", MPOL_AGAIN, 0, 3, 0, 0),

    /* the end, also of nothing, and what is pipelined behind it */
    C(".\r\n", "", MPOL_OK, 0, 0, 0, 0),
    C("a\r\n.\r\n", "a\r\n", MPOL_OK, 0, 3, 0, 0),
    C("\r\n.\r\n", "\r\n", MPOL_OK, 0, 2, 0, 0),
    C(".\r\nQUIT\r\n", "", MPOL_OK, 6, 0, 0, 0),
    C("a\r\n.\r\nMAIL FROM:<>\r\n.\r\n", "a\r\n", MPOL_OK, 17, 3, 0, 0),
    C("a\r\n.\r\n\r\n.\r\n", "a\r\n", MPOL_OK, 5, 3, 0, 0),
    C("a\r\n.\r\n\n\r\0\xff", "a\r\n", MPOL_OK, 4, 3, 0, 0),

    /* what cannot be judged yet */
    C(".", "", MPOL_AGAIN, 1, 0, 0, 0),
    C(".\r", "", MPOL_AGAIN, 2, 0, 0, 0),
    C("a\r\n.", "a\r\n", MPOL_AGAIN, 1, 3, 0, 0),
    C("a\r\n.\r", "a\r\n", MPOL_AGAIN, 2, 3, 0, 0),
    C("a\r", "a", MPOL_AGAIN, 1, 1, 0, 0),
    C("\r", "", MPOL_AGAIN, 1, 0, 0, 0),
    C("a\r\n\r", "a\r\n", MPOL_AGAIN, 1, 3, 0, 0),
    C("..\r", "..", MPOL_AGAIN, 1, 1, 0, 0),

    /* doubled dots stay and count once */
    C("..\r\n.\r\n", "..\r\n", MPOL_OK, 0, 3, 0, 0),
    C("...\r\n.\r\n", "...\r\n", MPOL_OK, 0, 4, 0, 0),
    C("..a\r\n..b\r\n.\r\n", "..a\r\n..b\r\n", MPOL_OK, 0, 8, 0, 0),
    C("\r\n..\r\n.\r\n", "\r\n..\r\n", MPOL_OK, 0, 5, 0, 0),
    C("....\r\n....\r\n.\r\n", "....\r\n....\r\n", MPOL_OK, 0, 10, 0, 0),

    /* lone dots go */
    C(".a\r\n.\r\n", "a\r\n", MPOL_OK, 0, 3, 0, 0),
    C(".a\r\n.b\r\nc\r\n.\r\n", "a\r\nb\r\nc\r\n", MPOL_OK, 0, 9, 0, 0),
    C("x\r\n.a.\r\n..b\r\n.\r\nQ", "x\r\na.\r\n..b\r\n", MPOL_OK, 1, 11, 0, 0),
    C(". \r\n.\r\n", " \r\n", MPOL_OK, 0, 3, 0, 0),

    /* dots elsewhere are dots */
    C("a.\r\n.\r\n", "a.\r\n", MPOL_OK, 0, 4, 0, 0),
    C("a.b\r\n.\r\n", "a.b\r\n", MPOL_OK, 0, 5, 0, 0),
    C("a..\r\n.\r\n", "a..\r\n", MPOL_OK, 0, 5, 0, 0),

    /* 8bit */
    C("\x80\r\n.\r\n", "\x80\r\n", MPOL_OK, 0, 3, 0, 1),
    C("aaaaaaaaaaaaaaa\xff", "aaaaaaaaaaaaaaa\xff", MPOL_AGAIN, 0, 16, 0, 1),
    C("a\x7f\r\n.\r\n\x80", "a\x7f\r\n", MPOL_OK, 1, 4, 0, 0),

    /* faults: the first one counts, the end is found all the same */
    C("a\nb\r\n.\r\n", "a\nb\r\n", MPOL_OK, 0, 5, MPOL_BODY_BARE_LF, 0),
    C("a\rb\r\n.\r\n", "a\rb\r\n", MPOL_OK, 0, 5, MPOL_BODY_BARE_CR, 0),
    C("a\0b\r\n.\r\n", "a\0b\r\n", MPOL_OK, 0, 5, MPOL_BODY_NUL, 0),
    C("\0\r\n\n\r\n.\r\n", "\0\r\n\n\r\n", MPOL_OK, 0, 6, MPOL_BODY_NUL, 0),
    C("\r\0\r\n.\r\n", "\r\0\r\n", MPOL_OK, 0, 4, MPOL_BODY_BARE_CR, 0),
    C("\0\r\r\n.\r\n", "\0\r\r\n", MPOL_OK, 0, 4, MPOL_BODY_NUL, 0),
    C("\n\0\r\n.\r\n", "\n\0\r\n", MPOL_OK, 0, 4, MPOL_BODY_BARE_LF, 0),
    C("\r\r\n.\r\n", "\r\r\n", MPOL_OK, 0, 3, MPOL_BODY_BARE_CR, 0),
    C("a\r\n.\r\n\n", "a\r\n", MPOL_OK, 1, 3, 0, 0),

    /* lone dots before a fault */
    C(".\n.\r\n.\r\n", "\n.\r\n", MPOL_OK, 0, 4, MPOL_BODY_BARE_LF, 0),
    C(".\ra\r\n.\r\n", "\ra\r\n", MPOL_OK, 0, 4, MPOL_BODY_BARE_CR, 0),
    C(".\r\r\n.\r\n", "\r\r\n", MPOL_OK, 0, 3, MPOL_BODY_BARE_CR, 0),
    C(".\0\r\n.\r\n", "\0\r\n", MPOL_OK, 0, 3, MPOL_BODY_NUL, 0)
};


/* what other servers have taken for the end of data */

static const struct {
    const char  *data;
    size_t       len;
    unsigned     fault;
} smuggled[] = {
    { "\n.\n", 3, MPOL_BODY_BARE_LF },
    { "\n.\r", 3, MPOL_BODY_BARE_LF },
    { "\r.\n", 3, MPOL_BODY_BARE_CR },
    { "\r.\r", 3, MPOL_BODY_BARE_CR },
    { "\n.\r\n", 4, MPOL_BODY_BARE_LF },
    { "\r.\r\n", 4, MPOL_BODY_BARE_CR },
    { "\r\n\0.\r\n", 6, MPOL_BODY_NUL },
    { "\r\n.\r\r\n", 6, MPOL_BODY_BARE_CR },
    { "\r\r\n.\r\r\n", 7, MPOL_BODY_BARE_CR }
};


typedef struct {
    mpol_body_t  st;
    int          rc;
    uint8_t      buf[BODY_MAX];         /* not consumed */
    size_t       len;
    uint8_t      out[BODY_MAX];
    size_t       out_len;
} feed_t;


static int
feed(feed_t *f, const uint8_t *data, size_t len)
{
    int       sane;
    size_t    consumed, ready;
    uint8_t  *copy;

    memcpy(f->buf + f->len, data, len);
    f->len += len;

    if (f->rc == MPOL_OK) {
        return 1;
    }

    copy = tap_exact(f->buf, f->len);

    f->rc = mpol_body_scan(&f->st, copy, f->len, &consumed, &ready);

    sane = ready <= consumed && consumed <= f->len
           && (f->rc == MPOL_OK || f->rc == MPOL_AGAIN)
           && (f->rc == MPOL_OK || f->len - consumed <= 2)
           && memcmp(copy + consumed, f->buf + consumed, f->len - consumed)
              == 0;

    if (sane) {
        memcpy(f->out + f->out_len, copy, ready);
        f->out_len += ready;

        f->len -= consumed;
        memmove(f->buf, f->buf + consumed, f->len);
    }

    free(copy);

    return sane;
}


static int
run(const uint8_t *data, size_t len, size_t cut, size_t step, feed_t *f)
{
    int     sane;
    size_t  i, n;

    f->len = 0;
    f->out_len = 0;
    f->rc = MPOL_AGAIN;
    memset(&f->st, 0, sizeof(mpol_body_t));
    f->st.content = content ? 1 : 0;

    sane = feed(f, data, cut);

    for (i = cut; i < len && sane; i += n) {
        n = (step == 0 || len - i < step) ? len - i : step;
        sane = feed(f, data + i, n);
    }

    return sane;
}


/* p without the first dot of each line, which ends in CRLF */

static size_t
unstuff(const uint8_t *p, size_t len, uint8_t *out)
{
    int     bol;
    size_t  i, n;

    for (i = 0, n = 0, bol = 1; i < len; i++) {
        if (!bol || p[i] != '.') {
            out[n++] = p[i];
        }

        bol = p[i] == '\n' && i != 0 && p[i - 1] == '\r';
    }

    return n;
}


static int
same(const feed_t *f, const case_t *c)
{
    size_t   len;
    uint8_t  want[BODY_MAX];

    memcpy(want, c->output, c->output_len);
    len = c->output_len;

    if (content) {
        len = unstuff((const uint8_t *) c->output, len, want);
    }

    return f->rc == c->rc && f->len == c->behind
           && memcmp(f->buf, c->input + c->len - c->behind, c->behind) == 0
           && f->out_len == len && memcmp(f->out, want, len) == 0
           && (!content || len == c->octets)
           && f->st.octets == c->octets && f->st.fault == c->fault
           && f->st.eightbit == c->eightbit;
}


static void
test_case(const case_t *c)
{
    int             pass;
    size_t          cut;
    feed_t          f;
    const uint8_t  *input;

    input = (const uint8_t *) c->input;

    pass = run(input, c->len, c->len, 0, &f) && same(&f, c);

    ok(pass, "%s'%s'", content ? "content of " : "", c->input);

    if (!pass) {
        printf("#   rc %d, behind %u, octets %u, fault %u, eightbit %u\n",
               f.rc, (unsigned) f.len, (unsigned) f.st.octets,
               (unsigned) f.st.fault, (unsigned) f.st.eightbit);
        tap_dump("output", f.out, f.out_len);
    }

    for (cut = 0, pass = 1; cut <= c->len && pass; cut++) {
        pass = run(input, c->len, cut, 0, &f) && same(&f, c);
    }

    ok(pass, "  split at %u", (unsigned) cut - 1);
    ok(run(input, c->len, 0, 1, &f) && same(&f, c), "  one at a time");
}


/* a message behind the sequence, as an attacker would put it there */

static void
test_smuggled(size_t n)
{
    int      pass;
    char     name[16];
    size_t   cut, end, i, len;
    feed_t   f;
    uint8_t  data[64];

    static const uint8_t  head[] = "a\r\nb", tail[] = "MAIL\r\n.\r\nQUIT";

    for (i = 0, name[0] = '\0'; i < smuggled[n].len; i++) {
        strcat(name, smuggled[n].data[i] == '\r' ? "r"
                     : smuggled[n].data[i] == '\n' ? "n"
                     : smuggled[n].data[i] == '\0' ? "0" : ".");
    }

    memcpy(data, head, 4);
    memcpy(data + 4, smuggled[n].data, smuggled[n].len);
    end = 4 + smuggled[n].len;

    pass = run(data, end, end, 0, &f);

    ok(pass && f.rc == MPOL_AGAIN, "%s does not end the data", name);

    memcpy(data + end, tail, sizeof(tail) - 1);
    len = end + sizeof(tail) - 1;

    for (cut = 0, pass = 1; cut <= len && pass; cut++) {
        pass = run(data, len, cut, 0, &f) && f.rc == MPOL_OK && f.len == 4
               && f.st.fault == smuggled[n].fault;
    }

    ok(pass, "%s: the true end and the fault are found, split at %u", name,
       (unsigned) cut - 1);

    pass = run(data, len, 0, 1, &f) && f.rc == MPOL_OK && f.len == 4
           && f.st.fault == smuggled[n].fault;

    ok(pass, "%s: one octet at a time", name);
}


/* the transparency of RFC 5321 section 4.5.2, one octet after the other */

static void
model(const uint8_t *p, size_t len, feed_t *f)
{
    int     bol;
    size_t  i;

    memset(&f->st, 0, sizeof(mpol_body_t));
    f->out_len = 0;
    f->rc = MPOL_AGAIN;

    for (i = 0, bol = 1; i < len; /* void */ ) {

        if (bol && p[i] == '.') {
            if (len - i < 2 || (p[i + 1] == '\r' && len - i < 3)) {
                break;
            }

            if (p[i + 1] == '\r' && p[i + 2] == '\n') {
                f->rc = MPOL_OK;
                i += 3;
                break;
            }

            if (p[i + 1] == '.' && !content) {
                f->out[f->out_len++] = '.';
            }

            i++;
            bol = 0;
            continue;
        }

        if (p[i] == '\r' && len - i < 2) {
            break;
        }

        if (p[i] == '\r' && p[i + 1] == '\n') {
            f->out[f->out_len++] = p[i++];
            f->out[f->out_len++] = p[i++];
            f->st.octets += 2;
            bol = 1;
            continue;
        }

        if (f->st.fault == 0) {
            f->st.fault = p[i] == '\r' ? MPOL_BODY_BARE_CR
                          : p[i] == '\n' ? MPOL_BODY_BARE_LF
                          : p[i] == '\0' ? MPOL_BODY_NUL : 0;
        }

        if (p[i] > 127) {
            f->st.eightbit = 1;
        }

        f->out[f->out_len++] = p[i++];
        f->st.octets++;
        bol = 0;
    }

    f->len = len - i;
}


static int
same_as_model(const feed_t *f, const feed_t *m)
{
    return f->rc == m->rc && f->len == m->len && f->out_len == m->out_len
           && memcmp(f->out, m->out, m->out_len) == 0
           && f->st.octets == m->st.octets && f->st.fault == m->st.fault
           && f->st.eightbit == m->st.eightbit;
}


static void
test_random(void)
{
    size_t    i, len, step;
    feed_t    f, m;
    uint8_t   data[64];
    unsigned  n;

    static const uint8_t  octets[] = "a...\r\r\r\n\n\n\0\x80";

    for (n = 0; n < 100000; n++) {
        len = (size_t) rand() % sizeof(data);
        step = 1 + (size_t) rand() % 9;

        for (i = 0; i < len; i++) {
            data[i] = octets[(size_t) rand() % (sizeof(octets) - 1)];
        }

        model(data, len, &m);

        if (!run(data, len, 0, step, &f) || !same_as_model(&f, &m)) {
            tap_dump("input", data, len);
            break;
        }
    }

    ok(n == 100000, "random octets: as the model says");
}


/* random lines of a content; returns its length, at most 200 octets */

static size_t
random_content(uint8_t *p)
{
    int     lines;
    size_t  chars, len;

    len = 0;

    for (lines = rand() % 10; lines != 0; lines--) {
        for (chars = (size_t) rand() % 18; chars != 0; chars--) {
            p[len++] = (uint8_t) ".a\xc3"[rand() % 3];
        }

        p[len++] = '\r';
        p[len++] = '\n';
    }

    return len;
}


/* lazy: leaves single the dots that may be single */

static size_t
encode(const uint8_t *p, size_t len, int lazy, uint8_t *out)
{
    size_t  i, n;

    for (i = 0, n = 0; i < len; i++) {
        if ((i == 0 || p[i - 1] == '\n')
            && (p[i] == '.' || (lazy && p[i] != '\r')))
        {
            out[n++] = '.';
        }

        out[n++] = p[i];
    }

    return n;
}


static size_t
decode(const uint8_t *p, size_t len, uint8_t *out)
{
    size_t  i, n;

    for (i = 0, n = 0; i < len; i++) {
        if (p[i] != '.' || (i != 0 && p[i - 1] != '\n')) {
            out[n++] = p[i];

        } else if (i + 1 < len) {
            out[n++] = p[++i];
        }
    }

    return n;
}


static void
test_round_trip(int lazy)
{
    size_t    decoded_len, encoded_len, len, step;
    feed_t    f;
    uint8_t   plain[256], wire[512], encoded[512], decoded[512];
    unsigned  n;

    for (n = 0; n < 20000; n++) {
        len = random_content(plain);
        encoded_len = encode(plain, len, lazy, wire);
        memcpy(wire + encoded_len, ".\r\n.\r\n", 6);
        step = 1 + (size_t) rand() % 40;

        if (!run(wire, encoded_len + 6, 0, step, &f) || f.rc != MPOL_OK
            || f.len != 3 || f.st.octets != len || f.st.fault != 0)
        {
            break;
        }

        encoded_len = encode(plain, len, 0, encoded);
        decoded_len = decode(f.out, f.out_len, decoded);

        if (content) {
            encoded_len = len;
            memcpy(encoded, plain, len);

            decoded_len = f.out_len;
            memcpy(decoded, f.out, f.out_len);
        }

        if (f.out_len != encoded_len
            || memcmp(f.out, encoded, encoded_len) != 0
            || decoded_len != len || memcmp(decoded, plain, len) != 0)
        {
            break;
        }
    }

    ok(n == 20000, "encoded, scanned, decoded (%s)",
       lazy ? "a dot before each line" : "canonical");
}


/* a dot at each place of a message, and a fault at each place */

static void
test_every_place(void)
{
    int             pass;
    size_t          at, k;
    feed_t          f, m;
    uint8_t         data[32];

    static const char     octets[] = ".\r\n\0\x80";
    static const uint8_t  base[] = "one\r\n..two\r\n\r\n.x\r\n.\r\nQU";

    for (k = 0, pass = 1; k < 5 && pass; k++) {
        for (at = 0; at < sizeof(base) && pass; at++) {
            memcpy(data, base, at);
            data[at] = (uint8_t) octets[k];
            memcpy(data + at + 1, base + at, sizeof(base) - 1 - at);

            model(data, sizeof(base), &m);

            pass = run(data, sizeof(base), at, 0, &f) && same_as_model(&f, &m)
                   && run(data, sizeof(base), 0, 1, &f)
                   && same_as_model(&f, &m);
        }
    }

    ok(pass, "each of 5 octets at each place");
}


/* 8 octets are looked at together: the one may be any of them */

static void
test_eightbit(void)
{
    int      pass;
    feed_t   f;
    size_t   at, len;
    uint8_t  data[40];

    for (len = 1, pass = 1; len < 36 && pass; len++) {
        memset(data, 0x7f, len);
        data[len] = '\r';
        data[len + 1] = '\n';

        pass = run(data, len + 2, len + 2, 0, &f) && !f.st.eightbit;

        for (at = 0; at < len && pass; at++) {
            data[at] = 0x80;
            pass = run(data, len + 2, len + 2, 0, &f) && f.st.eightbit;
            data[at] = 0x7f;
        }
    }

    ok(pass, "an octet above 127 is seen at each place of 1 .. 35 octets");
}


/* literally, not by unstuff() */

static void
test_content(void)
{
    feed_t  f;

    static const uint8_t  data[] =
        "..a\r\n.b\r\n..\r\n...\r\nc\n..d\r\n..\n.\r\n.\r\n";

    static const char  want[] =
        ".a\r\nb\r\n.\r\n..\r\nc\n..d\r\n.\n.\r\n";

    run(data, sizeof(data) - 1, 0, 1, &f);

    is_mem(f.out, f.out_len, want, sizeof(want) - 1,
           "the content has no dot of transparency, and every other");
    is_u64(f.st.octets, sizeof(want) - 1, "and as many octets");
}


int
main(void)
{
    size_t  i;

    srand(1);

    for (content = 0; content < 2; content++) {

        for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            test_case(&cases[i]);
        }

        for (i = 0; i < sizeof(smuggled) / sizeof(smuggled[0]); i++) {
            test_smuggled(i);
        }

        test_every_place();
        test_random();
        test_round_trip(0);
        test_round_trip(1);
    }

    content = 0;
    test_eightbit();

    content = 1;
    test_content();

    return done_testing();
}
