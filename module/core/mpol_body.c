
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_body.h"


#define CR  13
#define LF  10


static int  mpol_body_dot(const uint8_t *p, size_t len);
static size_t  mpol_body_line(mpol_body_t *st, const uint8_t *p, size_t len);
static void  mpol_body_check(mpol_body_t *st, const uint8_t *p, size_t len);
static size_t  mpol_body_move(uint8_t *buf, size_t to, size_t from,
    size_t end);


/* what a dot at the beginning of a line is; also MPOL_AGAIN */
#define MPOL_BODY_END      1
#define MPOL_BODY_DOUBLED  2
#define MPOL_BODY_LONE     3


int
mpol_body_scan(mpol_body_t *st, uint8_t *buf, size_t len, size_t *consumed,
    size_t *ready)
{
    int     dot;
    size_t  from, n, pos, to;

    /* buf[from .. pos) is passed on, but still has to go to buf[to ..) */

    to = 0;
    pos = 0;
    from = 0;
    dot = MPOL_AGAIN;

    while (pos < len) {

        if (!st->midline && buf[pos] == '.') {
            dot = mpol_body_dot(buf + pos, len - pos);

            if (dot == MPOL_BODY_END || dot == MPOL_AGAIN) {
                break;
            }

            if (dot == MPOL_BODY_LONE || st->content) {
                to = mpol_body_move(buf, to, from, pos);
                from = pos + 1;
            }

            /* either way this dot is no content, and what follows it is */

            pos++;
        }

        n = mpol_body_line(st, buf + pos, len - pos);
        if (n == 0) {
            break;
        }

        st->octets += n;
        pos += n;
    }

    *ready = mpol_body_move(buf, to, from, pos);

    if (dot == MPOL_BODY_END) {
        *consumed = pos + 3;
        return MPOL_OK;
    }

    *consumed = pos;

    return MPOL_AGAIN;
}


/* RFC 5321 section 4.5.2: p[0] is a dot at the beginning of a line */

static int
mpol_body_dot(const uint8_t *p, size_t len)
{
    if (len < 2) {
        return MPOL_AGAIN;
    }

    if (p[1] == '.') {
        return MPOL_BODY_DOUBLED;
    }

    if (p[1] != CR) {
        return MPOL_BODY_LONE;
    }

    if (len < 3) {
        return MPOL_AGAIN;
    }

    return (p[2] == LF) ? MPOL_BODY_END : MPOL_BODY_LONE;
}


/*
 * Takes one line, or what is there of it, without a CR at the very end: only
 * the octet behind that one says whether it is bare.
 */

static size_t
mpol_body_line(mpol_body_t *st, const uint8_t *p, size_t len)
{
    size_t          n;
    const uint8_t  *lf;

    lf = memchr(p, LF, len);

    if (lf == NULL) {
        n = (p[len - 1] == CR) ? len - 1 : len;

        if (n != 0) {
            mpol_body_check(st, p, n);
            st->midline = 1;
        }

        return n;
    }

    n = (size_t) (lf - p);

    if (n != 0 && p[n - 1] == CR) {
        mpol_body_check(st, p, n - 1);
        st->midline = 0;

        return n + 1;
    }

    /* a bare LF begins no line: a dot behind it is just a dot */

    mpol_body_check(st, p, n);
    st->midline = 1;

    if (st->fault == 0) {
        st->fault = MPOL_BODY_BARE_LF;
    }

    return n + 1;
}


/* p[0 .. len): no LF in it, and no CR that belongs to one */

static void
mpol_body_check(mpol_body_t *st, const uint8_t *p, size_t len)
{
    const uint8_t  *cr;

    if (st->fault == 0) {
        cr = memchr(p, CR, len);

        if (memchr(p, '\0', cr ? (size_t) (cr - p) : len) != NULL) {
            st->fault = MPOL_BODY_NUL;

        } else if (cr != NULL) {
            st->fault = MPOL_BODY_BARE_CR;
        }
    }

    if (!st->eightbit && mpol_body_eightbit(p, len)) {
        st->eightbit = 1;
    }
}


int
mpol_body_eightbit(const uint8_t *p, size_t len)
{
    uint64_t        word, all;
    const uint8_t  *end;

    all = 0;
    end = p + len;

    for ( /* void */ ; (size_t) (end - p) >= sizeof(word); p += sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        all |= word;
    }

    for ( /* void */ ; p < end; p++) {
        all |= *p;
    }

    return (all & UINT64_C(0x8080808080808080)) != 0;
}


static size_t
mpol_body_move(uint8_t *buf, size_t to, size_t from, size_t end)
{
    if (to != from && from < end) {
        memmove(buf + to, buf + from, end - from);
    }

    return to + (end - from);
}
