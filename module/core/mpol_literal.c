
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_literal.h"
#include "mpol_word.h"


static int  mpol_literal_ipv4(const uint8_t *p, size_t len);
static int  mpol_literal_ipv6(const uint8_t *p, size_t len);
static size_t  mpol_literal_ipv6_group(const uint8_t *p, size_t len);


size_t
mpol_literal_scan(const uint8_t *p, size_t len)
{
    size_t          n;
    mpol_str_t      tag;
    const uint8_t  *end;

    if (len == 0 || p[0] != '[') {
        return 0;
    }

    end = memchr(p, ']', len);
    if (end == NULL) {
        return 0;
    }

    n = (size_t) (end - p) + 1;

    tag.data = p + 1;
    tag.len = 5;

    if (n > 7 && mpol_word_is(&tag, "IPV6:")) {
        return mpol_literal_ipv6(p + 6, n - 7) ? n : 0;
    }

    return mpol_literal_ipv4(p + 1, n - 2) ? n : 0;
}


static int
mpol_literal_ipv4(const uint8_t *p, size_t len)
{
    size_t    digits, i;
    unsigned  dots, value;

    dots = 0;
    value = 0;
    digits = 0;

    for (i = 0; i < len; i++) {

        if (p[i] == '.' && digits != 0) {
            dots++;
            value = 0;
            digits = 0;
            continue;
        }

        if (p[i] < '0' || p[i] > '9') {
            return 0;
        }

        value = value * 10 + (unsigned) (p[i] - '0');

        if (++digits > 3 || value > 255) {
            return 0;
        }
    }

    return dots == 3 && digits != 0;
}


/*
 * IPv6-addr.  "::" may stand for a single group of zeros too: RFC 5321 says
 * two at least, RFC 4291 section 2.2 one, and resolvers print one.
 */

static int
mpol_literal_ipv6(const uint8_t *p, size_t len)
{
    int       shortened;
    size_t    i, n;
    unsigned  groups;

    i = 0;
    groups = 0;
    shortened = 0;

    for ( ;; ) {

        if (len - i >= 2 && p[i] == ':' && p[i + 1] == ':') {
            if (shortened) {
                return 0;
            }

            shortened = 1;
            i += 2;

            if (i == len) {
                break;
            }

        } else if (groups != 0) {
            if (p[i] != ':') {
                return 0;
            }

            i++;
        }

        n = mpol_literal_ipv6_group(p + i, len - i);

        if (i + n < len && p[i + n] == '.') {
            groups += 2;

            if (!mpol_literal_ipv4(p + i, len - i)) {
                return 0;
            }

            break;
        }

        if (n == 0 || ++groups > 8) {
            return 0;
        }

        i += n;

        if (i == len) {
            break;
        }
    }

    return shortened ? groups <= 7 : groups == 8;
}


static size_t
mpol_literal_ipv6_group(const uint8_t *p, size_t len)
{
    size_t   i;
    uint8_t  c;

    for (i = 0; i < len && i < 4; i++) {
        c = (uint8_t) (p[i] | 0x20);

        if (!(p[i] >= '0' && p[i] <= '9') && !(c >= 'a' && c <= 'f')) {
            break;
        }
    }

    return i;
}
