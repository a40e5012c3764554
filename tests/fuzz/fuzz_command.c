
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* octet 0: the extensions offered; then one line, without its CRLF */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_command.h"


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
    assert(path->domain.len == 0
           || mpol_domain_valid(path->domain.data, path->domain.len));
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


static void
check_arg(const mpol_str_t *arg, unsigned offered)
{
    int          rc;
    mpol_mail_t  mail;
    mpol_rcpt_t  rcpt;

    rc = mpol_mail_parse(arg->data, arg->len, offered, &mail);
    assert(rc >= MPOL_OK && rc <= MPOL_ARG_8BIT);

    if (rc == MPOL_OK) {
        check_path(&mail.path, MPOL_PATH_NULL);
        assert(mail.body <= MPOL_BODY_8BITMIME);
        assert((offered & MPOL_EXT_SIZE) || !mail.size_set);
        assert((offered & MPOL_EXT_8BITMIME) || mail.body == 0);
        assert((offered & MPOL_EXT_AUTH) || mail.auth.len == 0);

        if (mail.auth.len != 0) {
            check_inside(&mail.auth);
        }
    }

    rc = mpol_rcpt_parse(arg->data, arg->len, offered, &rcpt);
    assert(rc >= MPOL_OK && rc <= MPOL_ARG_8BIT);

    if (rc == MPOL_OK) {
        check_path(&rcpt.path, MPOL_PATH_POSTMASTER);
        assert(rcpt.path.address.len != 0);
    }
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
