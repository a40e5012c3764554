
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the extensions offered; then one line, without its CRLF */


#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_command.h"
#include "mpol_text.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static const uint8_t  *begin, *end;     /* of the line */


static void
check_inside(const mpol_str_t *s)
{
    assert(s->data >= begin && s->data <= end);
    assert(s->len <= (size_t) (end - s->data));
}


/* an address means the same when it is written anew, without its route */

static void
check_path(const mpol_path_t *path, unsigned allow)
{
    size_t       len, used;
    uint8_t      buf[258];
    mpol_path_t  again;

    check_inside(&path->address);
    check_inside(&path->local);
    check_inside(&path->domain);

    assert(path->local.len <= 64 && path->domain.len <= 255);
    assert(path->domain.len == 0 || path->eightbit
           || mpol_domain_valid(path->domain.data, path->domain.len));
    assert(!path->eightbit || (allow & MPOL_PATH_UTF8));
    assert(mpol_utf8_clean(path->address.data, path->address.len));
    assert(path->literal == (path->domain.len != 0
                             && path->domain.data[0] == '['));

    len = path->address.len;
    assert(len <= 254);

    buf[0] = '<';
    memcpy(buf + 1, path->address.data, len);
    memcpy(buf + 1 + len, ">", 1);

    assert(mpol_path_parse(buf, len + 2, allow, &again, &used) == MPOL_OK);
    assert(used == len + 2);
    assert(again.local.len == path->local.len);
    assert(again.domain.len == path->domain.len);
    assert(again.quoted == path->quoted && again.literal == path->literal);
}


/* it decodes, to the same again when it is written anew */

static void
check_xtext(const mpol_str_t *s)
{
    size_t   i, k, n;
    uint8_t  plain[2048], again[2048], xtext[3 * 2048];

    check_inside(s);

    assert(mpol_xtext_decode(s->data, s->len, plain, &n) == MPOL_OK);
    assert(n != 0);

    for (i = 0; i < n; i++) {
        assert(plain[i] >= 32 && plain[i] <= 126);
    }

    k = mpol_xtext_encode(plain, n, xtext, sizeof(xtext));
    assert(mpol_xtext_decode(xtext, k, again, &k) == MPOL_OK);
    assert(k == n && memcmp(again, plain, n) == 0);
}


static int
same(const mpol_str_t *a, const mpol_str_t *b)
{
    return a->len == b->len && (a->len == 0 || a->data == b->data);
}


static void
check_mail(const mpol_str_t *arg, unsigned offered)
{
    int          rc;
    unsigned     utf8;
    mpol_mail_t  m, all;

    rc = mpol_mail_parse(arg->data, arg->len, offered, &m);
    assert(rc >= MPOL_OK && rc <= MPOL_ARG_8BIT);

    if (rc != MPOL_OK) {
        return;
    }

    utf8 = (offered & MPOL_EXT_SMTPUTF8) ? MPOL_PATH_UTF8 : 0;
    check_path(&m.path, MPOL_PATH_NULL | utf8);

    assert((offered & MPOL_EXT_SIZE) || !m.size_set);
    assert((offered & MPOL_EXT_AUTH) || m.auth.len == 0);
    assert((offered & MPOL_EXT_DSN) || (m.ret == 0 && m.envid.len == 0));
    assert((offered & MPOL_EXT_SMTPUTF8) || !m.smtputf8);
    assert((offered & MPOL_EXT_8BITMIME) || m.body != MPOL_BODY_8BITMIME);
    assert((offered & MPOL_EXT_BINARYMIME) || m.body != MPOL_BODY_BINARYMIME);
    assert((offered & (MPOL_EXT_8BITMIME | MPOL_EXT_BINARYMIME))
           || m.body == MPOL_BODY_UNSET);
    assert(m.smtputf8 || !m.path.eightbit);
    assert(m.ret <= MPOL_RET_HDRS);
    assert(m.envid.len <= MPOL_ENVID_MAX);

    if (m.auth.len != 0) {
        check_xtext(&m.auth);
    }

    if (m.envid.len != 0) {
        check_xtext(&m.envid);
    }

    /* an extension more changes nothing in what could be said without */

    assert(mpol_mail_parse(arg->data, arg->len, ~0u, &all) == MPOL_OK);
    assert(same(&all.path.address, &m.path.address));
    assert(same(&all.auth, &m.auth) && same(&all.envid, &m.envid));
    assert(all.size == m.size && all.size_set == m.size_set);
    assert(all.body == m.body && all.ret == m.ret);
    assert(all.smtputf8 == m.smtputf8);
}


/*
 * Also to who decodes xtext first: a backslash begins a character that is no
 * control, and nothing else.
 */

static void
check_embedded(const uint8_t *p, size_t len)
{
    char           *end;
    size_t          i;
    uint8_t         plain[2048];
    unsigned long   c;

    memset(plain, 0, sizeof(plain));
    memcpy(plain, p, len);

    if (mpol_xtext_decode(p, len, NULL, NULL) == MPOL_OK) {
        assert(mpol_xtext_decode(p, len, plain, &len) == MPOL_OK);
        plain[len] = 0;
    }

    for (i = 0; i < len; i++) {
        if (plain[i] != '\\') {
            continue;
        }

        assert(plain[i + 1] == 'x' && plain[i + 2] == '{');

        c = strtoul((char *) plain + i + 3, &end, 16);

        assert(*end == '}' && end >= (char *) plain + i + 5);
        assert(c >= 32 && c != 127 && (c < 128 || c > 159));
        assert((c < 0xd800 || c > 0xdfff) && c <= 0x10ffff);
    }
}


static void
check_orcpt(const mpol_str_t *orcpt, unsigned offered)
{
    mpol_str_t      address;
    const uint8_t  *semicolon;

    check_inside(orcpt);
    assert(orcpt->len <= MPOL_ORCPT_MAX);
    assert(mpol_utf8_clean(orcpt->data, orcpt->len));

    semicolon = memchr(orcpt->data, ';', orcpt->len);
    assert(semicolon != NULL && semicolon != orcpt->data);

    address.data = semicolon + 1;
    address.len = orcpt->len - (size_t) (address.data - orcpt->data);
    assert(address.len != 0);

    if (semicolon - orcpt->data == 5 && (orcpt->data[0] | 0x20) == 'u'
        && (orcpt->data[1] | 0x20) == 't' && (orcpt->data[2] | 0x20) == 'f'
        && memcmp(orcpt->data + 3, "-8", 2) == 0)
    {
        check_embedded(address.data, address.len);
    }

    if (mpol_xtext_decode(address.data, address.len, NULL, NULL) == MPOL_OK) {
        check_xtext(&address);
        return;
    }

    /* no xtext at all: for UTF-8 only */

    assert(offered & MPOL_EXT_SMTPUTF8);
    assert(semicolon - orcpt->data == 5
           && (orcpt->data[0] | 0x20) == 'u'
           && memcmp(orcpt->data + 3, "-8", 2) == 0);
}


static void
check_rcpt(const mpol_str_t *arg, unsigned offered)
{
    int          rc;
    unsigned     utf8;
    mpol_rcpt_t  r, all;

    rc = mpol_rcpt_parse(arg->data, arg->len, offered, &r);
    assert(rc >= MPOL_OK && rc <= MPOL_ARG_8BIT);

    if (rc != MPOL_OK) {
        return;
    }

    utf8 = (offered & MPOL_EXT_SMTPUTF8) ? MPOL_PATH_UTF8 : 0;
    check_path(&r.path, MPOL_PATH_POSTMASTER | utf8);

    assert(r.path.address.len != 0);
    assert((offered & MPOL_EXT_DSN) || (r.notify == 0 && r.orcpt.len == 0));
    assert(r.notify <= 0x0f);
    assert(!(r.notify & MPOL_NOTIFY_NEVER) || r.notify == MPOL_NOTIFY_NEVER);

    if (r.orcpt.len != 0) {
        check_orcpt(&r.orcpt, offered);
    }

    assert(mpol_rcpt_parse(arg->data, arg->len, ~0u, &all) == MPOL_OK);
    assert(same(&all.path.address, &r.path.address));
    assert(same(&all.orcpt, &r.orcpt) && all.notify == r.notify);
}


static void
check_bdat(const mpol_str_t *arg)
{
    int          n, rc;
    char         buf[64];
    mpol_bdat_t  bdat, again;

    rc = mpol_bdat_parse(arg->data, arg->len, &bdat);
    assert(rc == MPOL_OK || rc == MPOL_ARG_SYNTAX || rc == MPOL_ARG_LONG);

    if (rc != MPOL_OK) {
        return;
    }

    assert(bdat.size <= INT64_MAX);
    assert(arg->len <= 25);

    n = snprintf(buf, sizeof(buf), "%" PRIu64 "%s", bdat.size,
                 bdat.last ? " LAST" : "");

    assert((size_t) n <= arg->len);
    assert(mpol_bdat_parse((uint8_t *) buf, (size_t) n, &again) == MPOL_OK);
    assert(again.size == bdat.size && again.last == bdat.last);
}


static void
check_arg(const mpol_str_t *arg, unsigned offered)
{
    check_mail(arg, offered);
    check_rcpt(arg, offered);
    check_bdat(arg);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t          i, len;
    uint8_t        *line;
    mpol_str_t      whole;
    mpol_command_t  cmd;

    if (size < 1 || size > 2048) {
        return 0;
    }

    len = size - 1;

    for (i = 1; i < size; i++) {
        if (data[i] < 32 || data[i] == 127) {
            return 0;
        }
    }

    line = malloc(len ? len : 1);
    memcpy(line, data + 1, len);
    begin = line;
    end = line + len;

    mpol_command_parse(line, len, &cmd);

    assert(cmd.verb < MPOL_CMD_MAX);
    check_inside(&cmd.name);
    check_inside(&cmd.arg);
    assert(cmd.arg.len == 0 || cmd.arg.data[cmd.arg.len - 1] != ' ');

    check_arg(&cmd.arg, data[0]);

    /* the whole line as an argument reaches the parsers without a verb */

    whole.data = line;
    whole.len = len;
    check_arg(&whole, data[0]);

    (void) mpol_domain_valid(line, len);

    free(line);

    return 0;
}
