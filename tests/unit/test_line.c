
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_line.h"
#include "tap.h"


#define INPUT_MAX  64


typedef struct {
    const char  *input;
    size_t       len;
    size_t       max;
    const char  *want;                  /* see log_line() */
} case_t;


#define C(input, max, want)  { input, sizeof(input) - 1, max, want }


static const case_t  cases[] = {

    /* lines, and what is none yet */
    C("", 20, ""),
    C("QUIT\r\n", 20, "ok(QUIT)"),
    C("\r\n", 20, "ok()"),
    C("QUIT", 20, "+4"),
    C("QUIT\r", 20, "+5"),
    C("A\r\nB\r\n", 20, "ok(A)ok(B)"),
    C("A\r\nB", 20, "ok(A)+1"),
    C(" A \r\n", 20, "ok( A )"),
    C("\x80\xff\r\n", 20, "ok(\x80\xff)"),

    /* a bare LF: this piece and the next one, to CRLF */
    C("A\n", 20, "lf(A)"),
    C("\n", 20, "lf()"),
    C("NOOP\nMAIL FROM:<x>\r\n", 20, "lf(NOOP)lf(MAIL FROM:<x>)"),
    C("A\nB\nC\r\nD\r\n", 20, "lf(A)lf(B)lf(C)ok(D)"),
    C("\n\r\nD\r\n", 20, "lf()lf()ok(D)"),
    C("A\r\n\nB\r\nC\r\n", 20, "ok(A)lf()lf(B)ok(C)"),
    C("A\n\rB\r\nC\r\n", 20, "lf(A)lf(\rB)ok(C)"),

    /* control octets */
    C("A\rB\r\nC\r\n", 20, "ctl(A\rB)ok(C)"),
    C("A\r\r\n", 20, "ctl(A\r)"),
    C("\tA\r\n", 20, "ctl(\tA)"),
    C("A\x01\r\n", 20, "ctl(A\x01)"),
    C("A\x1f\r\n", 20, "ctl(A\x1f)"),
    C("A\x7f\r\n", 20, "ctl(A\x7f)"),
    C("A\0B\r\n", 20, "ctl(A)"),        /* printed up to the NUL */

    /* the length, CRLF included */
    C("123456\r\n", 8, "ok(123456)"),
    C("1234567\r\n", 8, "long"),
    C("12345678\r\nA\r\n", 8, "longok(A)"),
    C("1234567\rA\r\nB\r\n", 8, "longok(B)"),
    C("123456789abcdef0123456789\r\nA\r\n", 8, "longok(A)"),
    C("123456789abcdef0123456789", 8, "+0"),
    C("1234567", 8, "+7"),
    C("123456789\nA\r\nB\r\n", 8, "longlf(A)ok(B)"),
    C("A\n123456789\r\nB\r\n", 8, "lf(A)longok(B)"),
    C("123456789\n\r\nB\r\n", 8, "longlf()ok(B)"),
    C("\r\r\r\r\r\r\r\r\r\r\nB\r\n", 8, "longok(B)"),
    C("12345678\n12345678\nA\r\nB\r\n", 8, "longlonglf(A)ok(B)")
};


typedef struct {
    mpol_line_t  st;
    char         log[1024];
    size_t       used;                  /* of the log */
    uint8_t      buf[INPUT_MAX];        /* what was not consumed */
    size_t       len;
    size_t       max;
} feed_t;


static void
log_line(feed_t *f, int rc, const mpol_str_t *line)
{
    static const char  *names[] = { "ok", "lf", "ctl" };

    if (rc == MPOL_LINE_LONG) {
        f->used += (size_t) sprintf(f->log + f->used, "long");
        return;
    }

    f->used += (size_t) sprintf(f->log + f->used, "%s(%.*s)", names[rc],
                                (int) line->len, (const char *) line->data);
}


static int
feed(feed_t *f, const void *data, size_t len)
{
    int          rc, sane;
    size_t       n;
    uint8_t     *copy;
    mpol_str_t   line;

    memcpy(f->buf + f->len, data, len);
    f->len += len;

    do {
        copy = tap_exact(f->buf, f->len);

        rc = mpol_line_next(&f->st, copy, f->len, f->max, &n, &line);

        sane = (rc == MPOL_AGAIN) ? n == 0 || n == f->len
                                  : n > 0 && n <= f->len
                                    && line.data == copy && line.len < n;
        if (sane && rc != MPOL_AGAIN) {
            log_line(f, rc, &line);
        }

        free(copy);

        if (!sane) {
            return 0;
        }

        f->len -= n;
        memmove(f->buf, f->buf + n, f->len);

    } while (rc != MPOL_AGAIN);

    return f->len < f->max;
}


/* in two pieces, or (step != 0) in many; the log says what came out */

static int
run(const case_t *c, size_t cut, size_t step, feed_t *f)
{
    int     sane;
    size_t  i, n;

    memset(f, 0, sizeof(feed_t));
    f->max = c->max;

    if (step == 0) {
        sane = feed(f, c->input, cut)
               && feed(f, c->input + cut, c->len - cut);

    } else {
        sane = 1;

        for (i = 0; i < c->len && sane; i += n) {
            n = (c->len - i < step) ? c->len - i : step;
            sane = feed(f, c->input + i, n);
        }
    }

    if (f->len != 0 || (c->len != 0 && f->used == 0)) {
        sprintf(f->log + f->used, "+%u", (unsigned) f->len);
    }

    return sane;
}


static void
test_case(const case_t *c)
{
    int     same;
    feed_t  f;
    size_t  cut;

    ok(run(c, c->len, 0, &f) && strcmp(f.log, c->want) == 0,
       "max %u, '%s': %s", (unsigned) c->max, c->input, f.log);

    for (cut = 0, same = 1; cut <= c->len && same; cut++) {
        same = run(c, cut, 0, &f) && strcmp(f.log, c->want) == 0;
    }

    ok(same, "  split at %u: %s", (unsigned) cut - 1, f.log);

    same = run(c, 0, 1, &f) && strcmp(f.log, c->want) == 0;

    ok(same, "  one octet at a time: %s", f.log);
}


/* another way to say the same: one octet after the other */

static void
model(const case_t *c, feed_t *f)
{
    int         rc, tainted;
    size_t      i, k, start;
    mpol_str_t  line;

    memset(f, 0, sizeof(feed_t));
    tainted = 0;

    for (i = 0, start = 0; i < c->len; i++) {
        if (c->input[i] != '\n') {
            continue;
        }

        rc = MPOL_OK;
        line.data = (const uint8_t *) c->input + start;
        line.len = i - start;

        if (i > start && c->input[i - 1] == '\r') {
            line.len--;
            rc = tainted ? MPOL_LINE_BARE_LF : MPOL_OK;
            tainted = 0;

        } else {
            rc = MPOL_LINE_BARE_LF;
            tainted = 1;
        }

        for (k = 0; k < line.len && rc == MPOL_OK; k++) {
            if (line.data[k] < 32 || line.data[k] == 127) {
                rc = MPOL_LINE_CONTROL;
            }
        }

        if (i + 1 - start > c->max) {
            rc = MPOL_LINE_LONG;
        }

        log_line(f, rc, &line);
        start = i + 1;
    }

    f->len = (c->len - start >= c->max) ? 0 : c->len - start;

    if (f->len != 0 || (c->len != 0 && f->used == 0)) {
        sprintf(f->log + f->used, "+%u", (unsigned) f->len);
    }
}


static void
test_random(void)
{
    char      input[41];
    case_t    c;
    feed_t    got, want;
    size_t    i;
    unsigned  n;

    static const char  octets[] = "aab\r\r\n\n\r\n\001";

    srand(1);
    memset(input, 0, sizeof(input));
    c.input = input;

    for (n = 0; n < 50000; n++) {
        c.len = (size_t) rand() % 41;
        c.max = 2 + (size_t) rand() % 12;

        for (i = 0; i < c.len; i++) {
            input[i] = octets[(size_t) rand() % (sizeof(octets) - 1)];
        }

        model(&c, &want);

        if (!run(&c, 0, 1 + (size_t) rand() % 6, &got)
            || strcmp(got.log, want.log) != 0)
        {
            tap_dump("input", input, c.len);
            break;
        }
    }

    ok(n == 50000, "random input: %s is %s", got.log, want.log);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(&cases[i]);
    }

    test_random();

    return done_testing();
}
