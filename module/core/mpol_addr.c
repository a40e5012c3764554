
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_addr.h"
#include "mpol_literal.h"
#include "mpol_text.h"
#include "mpol_word.h"


/* RFC 5321 section 4.5.3.1 */
#define MPOL_LOCAL_MAX   64
#define MPOL_DOMAIN_MAX  255
#define MPOL_PATH_MAX    256


/* the scanners return the octets that match at p, 0 if it is malformed */
static int  mpol_path_mailbox(const uint8_t *p, size_t len, unsigned allow,
    mpol_path_t *path);
static int  mpol_path_malformed(const uint8_t *p, size_t len, unsigned allow);
static int  mpol_path_eightbit(const uint8_t *p, size_t len);
static size_t  mpol_path_route(const uint8_t *p, size_t len, unsigned allow);
static size_t  mpol_addr_dot_string(const uint8_t *p, size_t len,
    unsigned allow);
static size_t  mpol_addr_quoted(const uint8_t *p, size_t len, unsigned allow);
static size_t  mpol_addr_domain(const uint8_t *p, size_t len, unsigned allow);
static int  mpol_addr_stop(const uint8_t *p, size_t len);
static int  mpol_addr_atext(uint8_t c, unsigned allow);
static int  mpol_addr_let_dig(uint8_t c, unsigned allow);
static int  mpol_addr_non_ascii(uint8_t c, unsigned allow);


int
mpol_path_parse(const uint8_t *p, size_t len, unsigned allow,
    mpol_path_t *path, size_t *used)
{
    size_t  pos;

    memset(path, 0, sizeof(mpol_path_t));

    if (len < 2 || p[0] != '<') {
        return MPOL_PATH_SYNTAX;
    }

    if (p[1] == '>') {
        path->address.data = p + 1;
        path->local = path->address;
        path->domain = path->address;
        *used = 2;

        return (allow & MPOL_PATH_NULL) ? MPOL_OK : MPOL_PATH_SYNTAX;
    }

    pos = 1 + mpol_path_route(p + 1, len - 1, allow);

    /* behind a source route there must be a whole mailbox */

    if (pos != 1) {
        allow &= MPOL_PATH_UTF8;
    }

    if (mpol_path_mailbox(p + pos, len - pos, allow, path) != MPOL_OK) {
        return mpol_path_malformed(p, len, allow);
    }

    pos += path->address.len;

    if (pos == len || p[pos] != '>') {
        return mpol_path_malformed(p, len, allow);
    }

    /* parts end at ASCII octets, which are in no character but their own */

    path->eightbit = mpol_path_eightbit(p, pos) ? 1 : 0;

    if (path->eightbit && !mpol_utf8_clean(p, pos)) {
        return MPOL_PATH_SYNTAX;
    }

    if (pos + 1 > MPOL_PATH_MAX || path->local.len > MPOL_LOCAL_MAX
        || path->domain.len > MPOL_DOMAIN_MAX)
    {
        return MPOL_PATH_LONG;
    }

    *used = pos + 1;

    return MPOL_OK;
}


/* lengths are not judged here */

static int
mpol_path_mailbox(const uint8_t *p, size_t len, unsigned allow,
    mpol_path_t *path)
{
    size_t  n, pos;

    path->quoted = (len != 0 && p[0] == '"') ? 1 : 0;

    pos = path->quoted ? mpol_addr_quoted(p, len, allow)
                       : mpol_addr_dot_string(p, len, allow);
    if (pos == 0 || pos == len) {
        return MPOL_BAD;
    }

    path->local.data = p;
    path->local.len = pos;

    if (p[pos] == '@') {
        pos++;
        path->literal = (pos < len && p[pos] == '[') ? 1 : 0;

        n = path->literal ? mpol_literal_scan(p + pos, len - pos)
                          : mpol_addr_domain(p + pos, len - pos, allow);
        if (n == 0) {
            return MPOL_BAD;
        }

    } else {
        n = 0;

        if (!(allow & MPOL_PATH_POSTMASTER)
            || !mpol_word_is(&path->local, "POSTMASTER"))
        {
            return MPOL_BAD;
        }
    }

    path->domain.data = p + pos;
    path->domain.len = n;

    path->address.data = p;
    path->address.len = pos + n;

    return MPOL_OK;
}


/* an address that is not ASCII may be right elsewhere: that is to be said */

static int
mpol_path_malformed(const uint8_t *p, size_t len, unsigned allow)
{
    size_t          n;
    const uint8_t  *end;

    end = memchr(p, '>', len);
    n = (end != NULL) ? (size_t) (end - p) : len;

    return (!(allow & MPOL_PATH_UTF8) && mpol_path_eightbit(p, n))
           ? MPOL_PATH_8BIT : MPOL_PATH_SYNTAX;
}


static int
mpol_path_eightbit(const uint8_t *p, size_t len)
{
    size_t  i;

    for (i = 0; i < len && p[i] < 128; i++) { /* void */ }

    return i != len;
}


/* A-d-l ":", RFC 5321 appendix C; 0 where there is none */

static size_t
mpol_path_route(const uint8_t *p, size_t len, unsigned allow)
{
    size_t  n, pos;

    for (pos = 0; pos < len && p[pos] == '@'; pos++) {
        pos++;

        n = mpol_addr_domain(p + pos, len - pos, allow);
        pos += n;

        if (n == 0 || pos == len) {
            return 0;
        }

        if (p[pos] == ':') {
            return pos + 1;
        }

        if (p[pos] != ',') {
            return 0;
        }
    }

    return 0;
}


int
mpol_domain_valid(const uint8_t *p, size_t len)
{
    if (len == 0 || len > MPOL_DOMAIN_MAX) {
        return 0;
    }

    if (p[0] == '[') {
        return mpol_literal_scan(p, len) == len;
    }

    return mpol_addr_domain(p, len, 0) == len;
}


int
mpol_addr_routed(const mpol_path_t *path)
{
    size_t          i;
    const uint8_t  *p;

    p = path->local.data;

    /* quotes and backslashes may be gone when somebody else looks at it */

    for (i = 0; i < path->local.len; i++) {
        if (p[i] == '%' || p[i] == '!' || p[i] == '@') {
            return 1;
        }
    }

    return 0;
}


int
mpol_hostname_clean(const uint8_t *p, size_t len)
{
    size_t  i;

    if (len == 0 || len > MPOL_DOMAIN_MAX) {
        return 0;
    }

    if (p[0] == '[') {
        return mpol_literal_scan(p, len) == len;
    }

    for (i = 0; i < len; i++) {
        if (!mpol_addr_let_dig(p[i], 0) && p[i] != '.' && p[i] != '-') {
            return 0;
        }
    }

    return 1;
}


static size_t
mpol_addr_dot_string(const uint8_t *p, size_t len, unsigned allow)
{
    size_t  atom, i;

    atom = 0;

    for (i = 0; i < len; i++) {

        if (mpol_addr_atext(p[i], allow)) {
            continue;
        }

        if (p[i] != '.') {
            break;
        }

        if (i == atom) {
            return 0;
        }

        atom = i + 1;
    }

    return (i == atom) ? 0 : i;
}


/* through the closing quote; what is inside is never looked at again */

static size_t
mpol_addr_quoted(const uint8_t *p, size_t len, unsigned allow)
{
    size_t  i;

    for (i = 1; i < len; i++) {

        if (p[i] == '"') {
            return i + 1;
        }

        if (mpol_addr_non_ascii(p[i], allow)) {
            continue;
        }

        if (p[i] == '\\') {
            i++;
        }

        if (i == len || p[i] < 32 || p[i] > 126) {
            return 0;
        }
    }

    return 0;
}


static size_t
mpol_addr_domain(const uint8_t *p, size_t len, unsigned allow)
{
    size_t  i, label;

    label = 0;

    for (i = 0; i < len; i++) {

        if (mpol_addr_stop(p + i, len - i)) {
            return 0;
        }

        if (mpol_addr_let_dig(p[i], allow)) {
            continue;
        }

        if (p[i] == '-' && i != label) {
            continue;
        }

        if (p[i] != '.') {
            break;
        }

        if (i == label || p[i - 1] == '-') {
            return 0;
        }

        label = i + 1;
    }

    return (i == label || p[i - 1] == '-') ? 0 : i;
}


/*
 * U+3002 and U+2024, U+FE50..FE6F (small forms), U+FF00..FFEF (full and half
 * width): dots and letters to a relay that maps names as RFC 3490 section 3.1
 * or UTS 46 do, and the domain another one than we looked at.
 */

static int
mpol_addr_stop(const uint8_t *p, size_t len)
{
    if (len < 3) {
        return 0;
    }

    switch (p[0]) {

    case 0xe2:
        return p[1] == 0x80 && p[2] == 0xa4;

    case 0xe3:
        return p[1] == 0x80 && p[2] == 0x82;

    case 0xef:
        return (p[1] == 0xb9 && p[2] >= 0x90 && p[2] <= 0xaf)
               || (p[1] >= 0xbc && p[1] <= 0xbe)
               || (p[1] == 0xbf && p[2] <= 0xaf);

    default:
        return 0;
    }
}


static int
mpol_addr_atext(uint8_t c, unsigned allow)
{
    static const char  special[] = "!#$%&'*+-/=?^`{|}~";

    return mpol_addr_let_dig(c, allow)
           || memchr(special, c, sizeof(special) - 1) != NULL;
}


/* with "_", which many hosts have in their names */

static int
mpol_addr_let_dig(uint8_t c, unsigned allow)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9') || c == '_'
           || mpol_addr_non_ascii(c, allow);
}


/* of a character that is looked at when the whole path is known */

static int
mpol_addr_non_ascii(uint8_t c, unsigned allow)
{
    return c > 127 && (allow & MPOL_PATH_UTF8);
}
