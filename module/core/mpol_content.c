
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_body.h"
#include "mpol_content.h"


#define CR  13
#define LF  10


typedef struct {
    const uint8_t  *in;
    const uint8_t  *end;                /* of in */
    uint8_t        *out;
    uint8_t        *last;               /* the end of out */
} mpol_content_io_t;


static int  mpol_content_text(mpol_content_t *st, mpol_content_io_t *io,
    const uint8_t *stop);
static int  mpol_content_copy(mpol_content_t *st, mpol_content_io_t *io,
    size_t n);
static int  mpol_content_lf(mpol_content_t *st, mpol_content_io_t *io);
static uint8_t  mpol_content_bare_cr(mpol_content_t *st);


void
mpol_content_encode(mpol_content_t *st, const uint8_t *in, size_t len,
    uint8_t *out, size_t size, size_t *consumed, size_t *produced)
{
    const uint8_t      *lf;
    mpol_content_io_t   io;

    *consumed = 0;
    *produced = 0;

    if (len == 0 || size == 0) {
        return;
    }

    /* nothing gets shorter: what there is no room for is not looked at */

    io.in = in;
    io.end = in + (len < size ? len : size);
    io.out = out;
    io.last = out + size;

    while (io.in < io.end) {
        lf = memchr(io.in, LF, (size_t) (io.end - io.in));

        if (!mpol_content_text(st, &io, lf != NULL ? lf : io.end)) {
            break;
        }

        if (lf != NULL && !mpol_content_lf(st, &io)) {
            break;
        }
    }

    *consumed = (size_t) (io.in - in);
    *produced = (size_t) (io.out - out);

    st->octets += *consumed;
}


size_t
mpol_content_finish(mpol_content_t *st, uint8_t *out)
{
    size_t  n;

    n = 0;

    if (st->cr) {
        out[n++] = mpol_content_bare_cr(st);
    }

    if (st->stuff && st->midline) {
        out[n++] = CR;
        out[n++] = LF;
        st->midline = 0;
    }

    return n;
}


/* io->in up to stop: no LF in it; 0 if there was no room for all of it */

static int
mpol_content_text(mpol_content_t *st, mpol_content_io_t *io,
    const uint8_t *stop)
{
    const uint8_t  *cr;

    while (io->in < stop) {

        if (io->out == io->last) {
            return 0;
        }

        if (st->cr) {
            *io->out++ = mpol_content_bare_cr(st);
            continue;
        }

        /* the dot itself then is text like any other */

        if (st->stuff && !st->midline && *io->in == '.') {
            *io->out++ = '.';
            st->midline = 1;
        }

        cr = memchr(io->in, CR, (size_t) (stop - io->in));

        if (!mpol_content_copy(st, io,
                               (size_t) ((cr != NULL ? cr : stop) - io->in)))
        {
            return 0;
        }

        if (cr != NULL) {
            io->in++;
            st->cr = 1;
        }
    }

    return 1;
}


/* n octets without CR and LF; 0 if there was no room for all of them */

static int
mpol_content_copy(mpol_content_t *st, mpol_content_io_t *io, size_t n)
{
    size_t  room, wanted;

    wanted = n;
    room = (size_t) (io->last - io->out);

    if (n > room) {
        n = room;
    }

    if (n != 0) {
        memcpy(io->out, io->in, n);

        if (st->fault == 0 && memchr(io->in, '\0', n) != NULL) {
            st->fault = MPOL_BODY_NUL;
        }

        if (!st->eightbit && mpol_body_eightbit(io->in, n)) {
            st->eightbit = 1;
        }

        io->in += n;
        io->out += n;
        st->midline = 1;
    }

    return n == wanted;
}


/* io->in is an LF, the CR before it is held; 0 if there was no room */

static int
mpol_content_lf(mpol_content_t *st, mpol_content_io_t *io)
{
    size_t  n;

    n = (st->cr || st->normalize) ? 2 : 1;

    if ((size_t) (io->last - io->out) < n) {
        return 0;
    }

    if (n == 2) {
        *io->out++ = CR;
        st->midline = 0;

    } else {
        st->midline = 1;

        if (st->fault == 0) {
            st->fault = MPOL_BODY_BARE_LF;
        }
    }

    *io->out++ = LF;
    io->in++;
    st->cr = 0;

    return 1;
}


/* the CR that is held has no LF behind it; returns what is written for it */

static uint8_t
mpol_content_bare_cr(mpol_content_t *st)
{
    st->cr = 0;
    st->midline = 1;

    if (st->normalize) {
        return ' ';
    }

    if (st->fault == 0) {
        st->fault = MPOL_BODY_BARE_CR;
    }

    return CR;
}
