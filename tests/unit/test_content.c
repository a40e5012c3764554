
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_body.h"
#include "mpol_content.h"
#include "tap.h"


#define CONTENT_MAX  1024

#define PLAIN        0
#define STUFF        1
#define NORMALIZE    2
#define BOTH         (STUFF | NORMALIZE)


typedef struct {
    unsigned     mode;
    const char  *input;
    size_t       len;
    const char  *output;
    size_t       output_len;
    unsigned     fault;
    unsigned     eightbit;
} case_t;


#define C(mode, input, output, fault, eightbit)                              \
    { mode, input, sizeof(input) - 1, output, sizeof(output) - 1, fault,     \
      eightbit }


static const case_t  cases[] = {

    /* BDAT to BDAT: to the octet, ended or not */
    C(PLAIN, "", "", 0, 0),
    C(PLAIN, "a", "a", 0, 0),
    C(PLAIN, "a\r\n", "a\r\n", 0, 0),
    C(PLAIN, "\r\n\r\n", "\r\n\r\n", 0, 0),
    C(PLAIN, ".", ".", 0, 0),
    C(PLAIN, ".\r\n..\r\n.a", ".\r\n..\r\n.a", 0, 0),
    C(PLAIN, "\r\n.\r\nQUIT\r\n", "\r\n.\r\nQUIT\r\n", 0, 0),
    C(PLAIN, "a\nb", "a\nb", MPOL_BODY_BARE_LF, 0),
    C(PLAIN, "a\rb", "a\rb", MPOL_BODY_BARE_CR, 0),
    C(PLAIN, "a\0b", "a\0b", MPOL_BODY_NUL, 0),
    C(PLAIN, "a\r", "a\r", MPOL_BODY_BARE_CR, 0),
    C(PLAIN, "\r", "\r", MPOL_BODY_BARE_CR, 0),
    C(PLAIN, "\n", "\n", MPOL_BODY_BARE_LF, 0),
    C(PLAIN, "\r\r\n", "\r\r\n", MPOL_BODY_BARE_CR, 0),
    C(PLAIN, "\n\r", "\n\r", MPOL_BODY_BARE_LF, 0),
    C(PLAIN, "\x80\0\r\n\n", "\x80\0\r\n\n", MPOL_BODY_NUL, 1),

    /* to DATA: leading dots are doubled, the last line is ended */
    C(STUFF, "", "", 0, 0),
    C(STUFF, "a", "a\r\n", 0, 0),
    C(STUFF, "a\r\n", "a\r\n", 0, 0),
    C(STUFF, "\r\n", "\r\n", 0, 0),
    C(STUFF, ".", "..\r\n", 0, 0),
    C(STUFF, ".\r\n", "..\r\n", 0, 0),
    C(STUFF, "..\r\n", "...\r\n", 0, 0),
    C(STUFF, ".a", "..a\r\n", 0, 0),
    C(STUFF, "a.", "a.\r\n", 0, 0),
    C(STUFF, "a.b\r\n.c.\r\n", "a.b\r\n..c.\r\n", 0, 0),
    C(STUFF, "\r\n.", "\r\n..\r\n", 0, 0),
    C(STUFF, "\r\n.\r\n", "\r\n..\r\n", 0, 0),
    C(STUFF, "\r\n\r\n.\r\n\r\n", "\r\n\r\n..\r\n\r\n", 0, 0),
    C(STUFF, ".\r\n.\r\n.\r\n", "..\r\n..\r\n..\r\n", 0, 0),
    C(STUFF, "a\r\n.\r\nQUIT\r\n", "a\r\n..\r\nQUIT\r\n", 0, 0),
    C(STUFF, "\xc3\xa4\r\n.\xff", "\xc3\xa4\r\n..\xff\r\n", 0, 1),

    /* a bare LF or CR begins no line of what is written */
    C(STUFF, "\n.\n", "\n.\n\r\n", MPOL_BODY_BARE_LF, 0),
    C(STUFF, "a\n.\r\n", "a\n.\r\n", MPOL_BODY_BARE_LF, 0),
    C(STUFF, "\r.\r\n", "\r.\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, ".\r.\r.\r\n", "..\r.\r.\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, "\r\r\n.\r\r\n", "\r\r\n..\r\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, ".\r", "..\r\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, "a\r\n\r", "a\r\n\r\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, "\n\r.", "\n\r.\r\n", MPOL_BODY_BARE_LF, 0),
    C(STUFF, "\0.\r\n\0", "\0.\r\n\0\r\n", MPOL_BODY_NUL, 0),

    /* the first fault */
    C(STUFF, "\0\n\r\0", "\0\n\r\0\r\n", MPOL_BODY_NUL, 0),
    C(STUFF, "a\r\0\n", "a\r\0\n\r\n", MPOL_BODY_BARE_CR, 0),
    C(STUFF, "a\n\0\r", "a\n\0\r\r\n", MPOL_BODY_BARE_LF, 0),
    C(STUFF, "a\0\r\r\n", "a\0\r\r\n", MPOL_BODY_NUL, 0),

    /* repaired, and then no fault */
    C(NORMALIZE, "", "", 0, 0),
    C(NORMALIZE, "a\r\n.\r\nb", "a\r\n.\r\nb", 0, 0),
    C(NORMALIZE, "\n", "\r\n", 0, 0),
    C(NORMALIZE, "\n\n", "\r\n\r\n", 0, 0),
    C(NORMALIZE, "\r", " ", 0, 0),
    C(NORMALIZE, "\r\r", "  ", 0, 0),
    C(NORMALIZE, "a\rb\nc", "a b\r\nc", 0, 0),
    C(NORMALIZE, "\r\r\n", " \r\n", 0, 0),
    C(NORMALIZE, "\r\r\r\n\n", "  \r\n\r\n", 0, 0),
    C(NORMALIZE, "\n\r", "\r\n ", 0, 0),
    C(NORMALIZE, "\n\r\n", "\r\n\r\n", 0, 0),
    C(NORMALIZE, "a\x80\r", "a\x80 ", 0, 1),
    C(NORMALIZE, "\r\0\n", " \0\r\n", MPOL_BODY_NUL, 0),

    /* repaired, and then doubled */
    C(BOTH, "", "", 0, 0),
    C(BOTH, "a", "a\r\n", 0, 0),
    C(BOTH, "\n", "\r\n", 0, 0),
    C(BOTH, "\r", " \r\n", 0, 0),
    C(BOTH, ".", "..\r\n", 0, 0),
    C(BOTH, ".\r", ".. \r\n", 0, 0),
    C(BOTH, ".\n", "..\r\n", 0, 0),
    C(BOTH, "a\n.\nb", "a\r\n..\r\nb\r\n", 0, 0),
    C(BOTH, "a\n.\n", "a\r\n..\r\n", 0, 0),
    C(BOTH, "a\n..\n", "a\r\n...\r\n", 0, 0),
    C(BOTH, "\n\n.\r\n", "\r\n\r\n..\r\n", 0, 0),
    C(BOTH, "a\r.\rb", "a . b\r\n", 0, 0),
    C(BOTH, "\r.\n", " .\r\n", 0, 0),
    C(BOTH, "\r\n\r.\r\n", "\r\n .\r\n", 0, 0),
    C(BOTH, ".\r\r\n.", ".. \r\n..\r\n", 0, 0),
    C(BOTH, "\r\n.\r\nMAIL", "\r\n..\r\nMAIL\r\n", 0, 0),
    C(BOTH, "\n.\0\n", "\r\n..\0\r\n", MPOL_BODY_NUL, 0)
};


/* what other servers have taken for the end of data, and what of it goes out
   when repaired */

static const struct {
    const char  *data;
    size_t       len;
    const char  *repaired;
} smuggled[] = {
    { "\n.\n", 3, "\r\n..\r\n" },
    { "\n.\r", 3, "\r\n.. " },
    { "\r.\n", 3, " .\r\n" },
    { "\r.\r", 3, " . " },
    { "\n.\r\n", 4, "\r\n..\r\n" },
    { "\r.\r\n", 4, " .\r\n" },
    { "\r\n.\n", 4, "\r\n\r\n" },       /* a lone dot of DATA goes */
    { "\r\n..\n", 5, "\r\n..\r\n" },
    { "\r\n.\r\r\n", 6, "\r\n \r\n" },
    { "\r\r\n..\r\r\n", 8, " \r\n.. \r\n" }
};


typedef struct {
    mpol_content_t  st;
    uint8_t         out[CONTENT_MAX];
    size_t          len;
} result_t;


/* in pieces of room octets at the most; 0 if a promise was broken */

static int
feed(result_t *r, const uint8_t *data, size_t len, size_t room)
{
    int       sane;
    size_t    consumed, produced;
    uint8_t  *copy, *out;

    do {
        copy = tap_exact(data, len);
        out = malloc(room);

        mpol_content_encode(&r->st, copy, len, out, room, &consumed,
                            &produced);

        sane = consumed <= len && consumed <= room && produced <= room
               && produced <= 2 * consumed + 1
               && (consumed != 0 || len == 0)
               && memcmp(copy, data, len) == 0;

        if (sane) {
            memcpy(r->out + r->len, out, produced);
            r->len += produced;
            data += consumed;
            len -= consumed;
        }

        free(copy);
        free(out);

    } while (sane && len != 0);

    return sane;
}


/* data[0 .. cut), then step octets at a time (0: all) */

static int
run(unsigned mode, const uint8_t *data, size_t len, size_t cut, size_t step,
    size_t room, result_t *r)
{
    int       sane;
    size_t    i, n;
    uint8_t  *end;

    memset(&r->st, 0, sizeof(mpol_content_t));
    r->st.stuff = (mode & STUFF) ? 1 : 0;
    r->st.normalize = (mode & NORMALIZE) ? 1 : 0;
    r->len = 0;

    sane = feed(r, data, cut, room);

    for (i = cut; i < len && sane; i += n) {
        n = (step == 0 || len - i < step) ? len - i : step;
        sane = feed(r, data + i, n, room);
    }

    end = malloc(MPOL_CONTENT_ROOM);
    n = mpol_content_finish(&r->st, end);

    sane = sane && n <= MPOL_CONTENT_ROOM && r->st.octets == len
           && !r->st.cr;

    if (sane) {
        memcpy(r->out + r->len, end, n);
        r->len += n;

        sane = mpol_content_finish(&r->st, end) == 0;
    }

    free(end);

    return sane;
}


static int
same(const result_t *r, const case_t *c)
{
    return r->len == c->output_len
           && memcmp(r->out, c->output, c->output_len) == 0
           && r->st.fault == c->fault && r->st.eightbit == c->eightbit;
}


static void
test_case(const case_t *c)
{
    int             pass;
    size_t          cut, room;
    result_t        r;
    const uint8_t  *input;

    static const char *const  names[] = {
        "SMUG-9 plain", "SMUG-8 stuff", "SMUG-3 normalize", "SMUG-4 both"
    };

    input = (const uint8_t *) c->input;

    pass = run(c->mode, input, c->len, c->len, 0, CONTENT_MAX, &r)
           && same(&r, c);

    ok(pass, "%s '%s'", names[c->mode], c->input);

    if (!pass) {
        printf("#   octets %u, fault %u, eightbit %u\n",
               (unsigned) r.st.octets, (unsigned) r.st.fault,
               (unsigned) r.st.eightbit);
        tap_dump("output", r.out, r.len);
    }

    for (cut = 0, pass = 1; cut <= c->len && pass; cut++) {
        for (room = MPOL_CONTENT_ROOM; room < 12 && pass; room++) {
            pass = run(c->mode, input, c->len, cut, 0, room, &r)
                   && same(&r, c)
                   && run(c->mode, input, c->len, cut, 1, room, &r)
                   && same(&r, c);
        }

        pass = pass && run(c->mode, input, c->len, cut, 0, CONTENT_MAX, &r)
               && same(&r, c);
    }

    ok(pass, "  split at %u", (unsigned) cut - 1);

    ok(run(c->mode, input, c->len, 0, 1, CONTENT_MAX, &r) && same(&r, c),
       "  one at a time");
}


/* what is there before the end is known */

static void
test_held(void)
{
    size_t          consumed, produced;
    uint8_t         out[8];
    mpol_content_t  st;

    memset(&st, 0, sizeof(mpol_content_t));
    mpol_content_encode(&st, (const uint8_t *) "a\r", 2, out, 8, &consumed,
                        &produced);

    ok(consumed == 2 && st.octets == 2 && st.cr, "a CR at the end is taken");
    is_mem(out, produced, "a", 1, "and held");
    ok(st.fault == 0, "and no fault yet");

    mpol_content_encode(&st, (const uint8_t *) "", 0, out, 8, &consumed,
                        &produced);

    ok(consumed == 0 && produced == 0 && st.cr, "an empty chunk: nothing");

    mpol_content_encode(&st, (const uint8_t *) "\n", 1, out, 8, &consumed,
                        &produced);

    is_mem(out, produced, "\r\n", 2, "its LF comes with the next chunk");
    ok(!st.midline && !st.cr && st.fault == 0, "a line has ended, no fault");

    mpol_content_encode(&st, (const uint8_t *) "\r", 1, out, 8, &consumed,
                        &produced);

    is_u64(mpol_content_finish(&st, out), 1, "a CR at the very end comes out");
    ok(st.fault == MPOL_BODY_BARE_CR, "and is a fault");
    is_u64(st.octets, 4, "octets of it all");

    mpol_content_encode(&st, NULL, 0, NULL, 0, &consumed, &produced);
    ok(consumed == 0 && produced == 0, "nothing into nothing");

    mpol_content_encode(&st, (const uint8_t *) "a", 1, NULL, 0, &consumed,
                        &produced);
    ok(consumed == 0 && produced == 0 && st.octets == 4, "no room at all");
}


/* little room: what is not written is shown again, and nothing is lost */

static void
test_no_room(void)
{
    int             pass;
    size_t          consumed, end, len, pos, produced, room, step;
    uint8_t         out[CONTENT_MAX], *p;
    unsigned        idle, mode;
    result_t        want;
    mpol_content_t  st;

    static const uint8_t  data[] = ".\r\n.a\r\r\n\n.\n\r.\r\n..\r.\n\n";

    for (mode = 0, pass = 1; mode < 4 && pass; mode++) {
        run(mode, data, sizeof(data) - 1, 0, 0, CONTENT_MAX, &want);

        memset(&st, 0, sizeof(mpol_content_t));
        st.stuff = (mode & STUFF) ? 1 : 0;
        st.normalize = (mode & NORMALIZE) ? 1 : 0;

        pos = 0;
        len = 0;
        idle = 0;
        end = sizeof(data) - 1;

        for (step = 0; pos < end && idle < 10; step++) {
            room = step % 4;
            p = malloc(room + 1);

            mpol_content_encode(&st, data + pos, end - pos, p + 1, room,
                                &consumed, &produced);

            pass = pass && produced <= room && produced <= 2 * consumed + 1
                   && (consumed != 0 || room < MPOL_CONTENT_ROOM);

            memcpy(out + len, p + 1, produced);
            len += produced;
            pos += consumed;
            idle = consumed ? 0 : idle + 1;
            free(p);
        }

        len += mpol_content_finish(&st, out + len);

        pass = pass && pos == end && len == want.len
               && memcmp(out, want.out, len) == 0;
    }

    ok(pass, "SMUG-8 room for 0 .. 3 octets in turn");
}


/* one octet after the other: repaired to norm, and from there to out */

static void
model(unsigned mode, const uint8_t *p, size_t len, result_t *r)
{
    int      bol;
    size_t   i, n;
    uint8_t  norm[CONTENT_MAX];

    memset(&r->st, 0, sizeof(mpol_content_t));
    r->st.octets = len;
    r->len = 0;

    for (i = 0, n = 0; i < len; i++) {

        if (p[i] > 127) {
            r->st.eightbit = 1;
        }

        if (p[i] == '\r' && i + 1 < len && p[i + 1] == '\n') {
            norm[n++] = p[i++];
            norm[n++] = p[i];
            continue;
        }

        if (r->st.fault == 0
            && (p[i] == '\0' || (!(mode & NORMALIZE)
                                 && (p[i] == '\r' || p[i] == '\n'))))
        {
            r->st.fault = p[i] == '\r' ? MPOL_BODY_BARE_CR
                          : p[i] == '\n' ? MPOL_BODY_BARE_LF : MPOL_BODY_NUL;
        }

        if ((mode & NORMALIZE) && p[i] == '\n') {
            norm[n++] = '\r';
        }

        norm[n++] = ((mode & NORMALIZE) && p[i] == '\r') ? ' ' : p[i];
    }

    for (i = 0, bol = 1; i < n; i++) {
        if (bol && norm[i] == '.' && (mode & STUFF)) {
            r->out[r->len++] = '.';
        }

        r->out[r->len++] = norm[i];
        bol = norm[i] == '\n' && i != 0 && norm[i - 1] == '\r';
    }

    if (!bol && (mode & STUFF)) {
        r->out[r->len++] = '\r';
        r->out[r->len++] = '\n';
    }
}


static int
same_as_model(const result_t *r, const result_t *m)
{
    return r->len == m->len && memcmp(r->out, m->out, m->len) == 0
           && r->st.octets == m->st.octets && r->st.fault == m->st.fault
           && r->st.eightbit == m->st.eightbit;
}


static void
test_random(unsigned mode)
{
    size_t    i, len, room, step;
    uint8_t   data[64];
    result_t  r, m;
    unsigned  n;

    static const uint8_t  octets[] = "aa...\r\r\r\n\n\n\0\x80";

    for (n = 0; n < 50000; n++) {
        len = (size_t) rand() % sizeof(data);
        step = 1 + (size_t) rand() % 9;
        room = MPOL_CONTENT_ROOM + (size_t) rand() % 20;

        for (i = 0; i < len; i++) {
            data[i] = octets[(size_t) rand() % (sizeof(octets) - 1)];
        }

        model(mode, data, len, &m);

        if (!run(mode, data, len, 0, step, room, &r)
            || !same_as_model(&r, &m))
        {
            tap_dump("input", data, len);
            break;
        }
    }

    ok(n == 50000, "mode %u: random octets: as the model says", mode);
}


/* longer lines than any room, 8 octets of which are looked at together */

static void
test_long_lines(unsigned mode)
{
    int       pass;
    size_t    at, len, room;
    uint8_t   data[200];
    result_t  r, m;

    static const char  octets[] = "\r\n.\0\x80";

    for (at = 0, pass = 1; at < 60 && pass; at++) {
        for (len = 0; len < 5 && pass; len++) {
            memset(data, 'x', sizeof(data));
            data[at] = (uint8_t) octets[len];
            memcpy(data + 60, "\r\n.", 3);

            model(mode, data, sizeof(data), &m);

            for (room = MPOL_CONTENT_ROOM; room < 70 && pass; room += 11) {
                pass = run(mode, data, sizeof(data), at, 0, room, &r)
                       && same_as_model(&r, &m);
            }
        }
    }

    ok(pass, "mode %u: each of 5 octets at each place of a line", mode);
}


/* from a client's DATA, repaired, to a relay's DATA, in pieces of step */

static int
through(const uint8_t *data, size_t len, size_t step, size_t room,
    result_t *r)
{
    int          rc;
    size_t       consumed, end, pos, ready;
    uint8_t      buf[CONTENT_MAX];
    mpol_body_t  body;

    memset(&body, 0, sizeof(mpol_body_t));
    body.content = 1;

    memset(&r->st, 0, sizeof(mpol_content_t));
    r->st.stuff = 1;
    r->st.normalize = 1;
    r->len = 0;

    rc = MPOL_AGAIN;

    for (pos = 0, end = 0; end < len && rc == MPOL_AGAIN; /* void */ ) {
        end = (len - end < step) ? len : end + step;

        memcpy(buf, data + pos, end - pos);
        rc = mpol_body_scan(&body, buf, end - pos, &consumed, &ready);
        pos += consumed;

        if (!feed(r, buf, ready, room)) {
            return 0;
        }
    }

    r->len += mpol_content_finish(&r->st, r->out + r->len);

    return rc == MPOL_OK && pos == len && r->st.octets == body.octets;
}


static void
test_smuggled(size_t n)
{
    int       pass;
    char      name[16], want[64];
    size_t    i, len, step;
    uint8_t   data[64];
    result_t  r;

    for (i = 0, name[0] = '\0'; i < smuggled[n].len; i++) {
        strcat(name, smuggled[n].data[i] == '\r' ? "r"
                     : smuggled[n].data[i] == '\n' ? "n" : ".");
    }

    memcpy(data, "a\r\nb", 4);
    memcpy(data + 4, smuggled[n].data, smuggled[n].len);
    memcpy(data + 4 + smuggled[n].len, "MAIL\r\n.\r\n", 9);
    len = 4 + smuggled[n].len + 9;

    sprintf(want, "a\r\nb%sMAIL\r\n", smuggled[n].repaired);

    pass = through(data, len, len, CONTENT_MAX, &r);

    ok(pass && r.st.fault == 0, "SMUG-3 %s is repaired", name);
    is_mem(r.out, r.len, want, strlen(want), "SMUG-4 %s is no end", name);

    for (step = 1, pass = 1; step <= len && pass; step++) {
        pass = through(data, len, step, MPOL_CONTENT_ROOM + step % 5, &r)
               && r.len == strlen(want) && memcmp(r.out, want, r.len) == 0;
    }

    ok(pass, "SMUG-8 %s in pieces of 1 .. %u", name, (unsigned) len);
}


int
main(void)
{
    size_t    i;
    unsigned  mode;

    srand(1);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_case(&cases[i]);
    }

    for (i = 0; i < sizeof(smuggled) / sizeof(smuggled[0]); i++) {
        test_smuggled(i);
    }

    test_held();
    test_no_room();

    for (mode = 0; mode < 4; mode++) {
        test_long_lines(mode);
        test_random(mode);
    }

    return done_testing();
}
