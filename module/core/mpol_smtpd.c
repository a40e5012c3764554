
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_smtpd.h"
#include "mpol_text.h"


static size_t mpol_smtpd_status(const uint8_t *p, size_t len);
static size_t mpol_smtpd_digits(const uint8_t *p, size_t len, size_t max);


void
mpol_smtpd_reply(const uint8_t *p, size_t len, mpol_smtpd_reply_t *reply)
{
    size_t  n;

    memset(reply, 0, sizeof(mpol_smtpd_reply_t));

    if (mpol_smtpd_digits(p, len, 3) == 3
        && p[0] >= '2' && p[0] <= '5' && (len == 3 || p[3] == ' '))
    {
        reply->code = (unsigned) ((p[0] - '0') * 100 + (p[1] - '0') * 10
                                  + (p[2] - '0'));
        n = (len == 3) ? 3 : 4;
        p += n;
        len -= n;
    }

    n = mpol_smtpd_status(p, len);

    if (n && reply->code && (unsigned) (p[0] - '0') == reply->code / 100) {
        memcpy(reply->dsn, p, n);
        reply->dsn_len = n;

    } else {
        memcpy(reply->dsn, "x.0.0", 5);
        reply->dsn[0] = (uint8_t) ('0' + (reply->code ? reply->code / 100
                                                      : 5));
        reply->dsn_len = 5;
    }

    if (n) {
        n += (n < len) ? 1 : 0;
        p += n;
        len -= n;
    }

    reply->text.data = p;
    reply->text.len = len;
}


/* length of the "x.y.z" in front, 0 if there is none */

static size_t
mpol_smtpd_status(const uint8_t *p, size_t len)
{
    size_t  n, k, part;

    n = mpol_smtpd_digits(p, len, 1);

    if (n == 0) {
        return 0;
    }

    for (part = 0; part < 2; part++) {

        if (n == len || p[n] != '.') {
            return 0;
        }

        n++;
        k = mpol_smtpd_digits(p + n, len - n, 3);

        if (k == 0) {
            return 0;
        }

        n += k;
    }

    return (n == len || p[n] == ' ') ? n : 0;
}


static size_t
mpol_smtpd_digits(const uint8_t *p, size_t len, size_t max)
{
    size_t  n;

    for (n = 0; n < len && n < max && p[n] >= '0' && p[n] <= '9'; n++) {
        /* void */
    }

    return n;
}


void
mpol_smtpd_clean(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t  i, n;

    for (i = 0; i < len; i += n) {

        n = (in[i] < 0xc0) ? 1 : (in[i] < 0xe0) ? 2 : (in[i] < 0xf0) ? 3 : 4;

        if (n == 1) {
            out[i] = (in[i] < 0x20 || in[i] > 0x7e) ? '?' : in[i];
            continue;
        }

        if (n <= len - i && mpol_utf8_clean(in + i, n)) {
            memmove(out + i, in + i, n);
            continue;
        }

        n = 1;
        out[i] = '?';
    }
}


void
mpol_smtpd_bracketed(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t  i;

    mpol_smtpd_clean(in, len, out);

    for (i = 0; i < len; i++) {
        if (out[i] == '<' || out[i] == '>') {
            out[i] = '?';
        }
    }
}
