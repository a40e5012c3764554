
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_orcpt.h"
#include "mpol_text.h"
#include "mpol_word.h"


static int  mpol_orcpt_unitext(const uint8_t *p, size_t len);
static int  mpol_orcpt_embedded(const uint8_t *p, size_t len);
static size_t  mpol_orcpt_hexpoint(const uint8_t *p, size_t len);
static int  mpol_orcpt_digit(uint8_t c);
static int  mpol_orcpt_special(uint32_t c);


int
mpol_orcpt_check(const mpol_str_t *orcpt, int eightbit)
{
    int             rc;
    size_t          len, n;
    mpol_str_t      type;
    const uint8_t  *p;

    p = orcpt->data;
    len = orcpt->len;

    for (n = 0; n < len && mpol_word_octet(p[n]); n++) { /* void */ }

    type.data = p;
    type.len = n;

    if (n == 0 || n == len || p[n] != ';' || ++n == len) {
        return MPOL_BAD;
    }

    p += n;
    len -= n;

    if (!mpol_word_is(&type, "UTF-8")) {
        return mpol_xtext_decode(p, len, NULL, NULL);
    }

    rc = eightbit ? mpol_orcpt_unitext(p, len)
                  : mpol_xtext_decode(p, len, NULL, NULL);

    return (rc == MPOL_OK) ? mpol_orcpt_embedded(p, len) : rc;
}


/* runs of ASCII are xtext, what stands between them is UTF-8 */

static int
mpol_orcpt_unitext(const uint8_t *p, size_t len)
{
    size_t  i, n;

    if (!mpol_utf8_clean(p, len)) {
        return MPOL_BAD;
    }

    for (i = 0; i < len; i += n) {

        for (n = 0; i + n < len && p[i + n] < 128; n++) { /* void */ }

        if (mpol_xtext_decode(p + i, n, NULL, NULL) != MPOL_OK) {
            return MPOL_BAD;
        }

        for ( /* void */ ; i + n < len && p[i + n] > 127; n++) { /* void */ }
    }

    return MPOL_OK;
}


/*
 * A backslash stands for nothing but the beginning of an embedded character;
 * and not as "+5C", or decoding would give characters not looked at here.
 */

static int
mpol_orcpt_embedded(const uint8_t *p, size_t len)
{
    size_t  i, n;

    for (i = 0; i < len; i += n) {
        n = 1;

        if (len - i > 2 && p[i] == '+' && p[i + 1] == '5' && p[i + 2] == 'C') {
            return MPOL_BAD;
        }

        if (p[i] == '\\') {
            n = mpol_orcpt_hexpoint(p + i, len - i);

            if (n == 0) {
                return MPOL_BAD;
            }
        }
    }

    return MPOL_OK;
}


/* the octets of "\x{...}" at p, 0 if it is malformed or no character */

static size_t
mpol_orcpt_hexpoint(const uint8_t *p, size_t len)
{
    int       digit;
    size_t    i, n;
    uint32_t  c;

    if (len < 3 || p[1] != 'x' || p[2] != '{') {
        return 0;
    }

    p += 3;
    len -= 3;

    /* two digits at least, and more only if they are needed */

    for (i = 0, c = 0, n = (len < 6) ? len : 6; i < n; i++) {

        digit = mpol_orcpt_digit(p[i]);

        if (digit < 0 || (i > 1 && p[0] == '0')) {
            break;
        }

        c = c * 16 + (uint32_t) digit;
    }

    if (i < 2 || i == len || p[i] != '}') {
        return 0;
    }

    if (c < 0xa0 ? !mpol_orcpt_special(c)
                 : c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
    {
        return 0;
    }

    return 3 + i + 1;
}


static int
mpol_orcpt_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c = (uint8_t) (c | 0x20);

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}


/* all that is ASCII and has to be embedded; without the controls, as ever */

static int
mpol_orcpt_special(uint32_t c)
{
    return c == ' ' || c == '+' || c == '=' || c == '\\';
}
