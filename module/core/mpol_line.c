
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_line.h"


#define CR  13
#define LF  10


static int  mpol_line_drop(mpol_line_t *st, const uint8_t *buf, size_t len,
    size_t max, size_t *consumed);
static int  mpol_line_control(const uint8_t *p, size_t len);


int
mpol_line_next(mpol_line_t *st, const uint8_t *buf, size_t len, size_t max,
    size_t *consumed, mpol_str_t *line)
{
    int             crlf, behind, overlong;
    size_t          n;
    const uint8_t  *lf;

    *consumed = 0;

    lf = (len != 0) ? memchr(buf, LF, len) : NULL;

    if (lf == NULL) {
        return mpol_line_drop(st, buf, len, max, consumed);
    }

    n = (size_t) (lf - buf);

    crlf = (n != 0) ? (buf[n - 1] == CR) : (st->dropped != 0 && st->cr);

    *consumed = n + 1;
    line->data = buf;
    line->len = (crlf && n != 0) ? n - 1 : n;

    behind = st->tainted;
    overlong = (st->dropped != 0 || *consumed > max);

    st->dropped = 0;
    st->cr = 0;
    st->tainted = crlf ? 0 : 1;

    if (overlong) {
        return MPOL_LINE_LONG;
    }

    if (!crlf || behind) {
        return MPOL_LINE_BARE_LF;
    }

    return mpol_line_control(line->data, line->len) ? MPOL_LINE_CONTROL
                                                    : MPOL_OK;
}


/* no LF in sight: waits, or gives up what can only become too long */

static int
mpol_line_drop(mpol_line_t *st, const uint8_t *buf, size_t len, size_t max,
    size_t *consumed)
{
    if (len == 0 || (len < max && st->dropped == 0)) {
        return MPOL_AGAIN;
    }

    /* the LF that comes may belong to a CR which the caller forgets now */

    st->cr = (buf[len - 1] == CR) ? 1 : 0;
    st->dropped += len;
    *consumed = len;

    return MPOL_AGAIN;
}


static int
mpol_line_control(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        if (p[i] < 0x20 || p[i] == 0x7f) {
            return 1;
        }
    }

    return 0;
}
