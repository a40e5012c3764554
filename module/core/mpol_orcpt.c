
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_orcpt.h"
#include "mpol_text.h"
#include "mpol_word.h"


static int  mpol_orcpt_unitext(const uint8_t *p, size_t len);


int
mpol_orcpt_check(const mpol_str_t *orcpt, int eightbit)
{
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

    if (eightbit && mpol_word_is(&type, "UTF-8")) {
        return mpol_orcpt_unitext(p + n, len - n);
    }

    return mpol_xtext_decode(p + n, len - n, NULL, NULL);
}


/*
 * utf-8-addr-unitext, RFC 6533 section 3; its "\x{...}" is xtext as it is.
 * "+" may stand for an octet here, too, as some clients write it.
 */

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
