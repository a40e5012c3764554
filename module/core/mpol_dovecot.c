
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_dovecot.h"
#include "mpol_word.h"


#define MPOL_DOVECOT_ESCAPE  1

#define mpol_dovecot_name(text, command)  { text, sizeof(text) - 1, command }


static mpol_dovecot_command_e mpol_dovecot_command(const mpol_str_t *name);
static int mpol_dovecot_number(mpol_str_t *args, uint32_t *n);
static int mpol_dovecot_same(const mpol_str_t *s, const char *name,
    size_t len);
static uint8_t mpol_dovecot_code(uint8_t ch);


static const struct {
    const char              *name;
    size_t                   len;
    mpol_dovecot_command_e   command;
} mpol_dovecot_commands[] = {
    mpol_dovecot_name("OK", MPOL_DOVECOT_OK),
    mpol_dovecot_name("FAIL", MPOL_DOVECOT_FAIL),
    mpol_dovecot_name("CONT", MPOL_DOVECOT_CONT),
    mpol_dovecot_name("VERSION", MPOL_DOVECOT_VERSION),
    mpol_dovecot_name("MECH", MPOL_DOVECOT_MECH),
    mpol_dovecot_name("SPID", MPOL_DOVECOT_SPID),
    mpol_dovecot_name("CUID", MPOL_DOVECOT_CUID),
    mpol_dovecot_name("COOKIE", MPOL_DOVECOT_COOKIE),
    mpol_dovecot_name("DONE", MPOL_DOVECOT_DONE)
};


int
mpol_dovecot_parse(const uint8_t *p, size_t len, mpol_dovecot_line_t *line)
{
    size_t              i;
    uint32_t            minor;
    mpol_str_t          minor_arg;
    mpol_dovecot_arg_t  arg;

    for (i = 0; i < len; i++) {
        if (p[i] == '\0' || p[i] == '\n') {
            return MPOL_BAD;
        }
    }

    line->id = 0;
    line->args.data = p;
    line->args.len = len;

    if (!mpol_dovecot_arg(&line->args, &arg)) {
        return MPOL_BAD;
    }

    line->command = mpol_dovecot_command(&arg.whole);

    switch (line->command) {

    case MPOL_DOVECOT_VERSION:
        if (mpol_dovecot_number(&line->args, &line->id) != MPOL_OK) {
            return MPOL_BAD;
        }

        minor_arg = line->args;

        return mpol_dovecot_number(&minor_arg, &minor);

    case MPOL_DOVECOT_OK:
    case MPOL_DOVECOT_FAIL:
    case MPOL_DOVECOT_CONT:
        if (mpol_dovecot_number(&line->args, &line->id) != MPOL_OK) {
            return MPOL_BAD;
        }

        return line->id ? MPOL_OK : MPOL_BAD;

    default:
        return MPOL_OK;
    }
}


static mpol_dovecot_command_e
mpol_dovecot_command(const mpol_str_t *name)
{
    size_t  i, n;

    n = sizeof(mpol_dovecot_commands) / sizeof(mpol_dovecot_commands[0]);

    for (i = 0; i < n; i++) {
        if (mpol_dovecot_same(name, mpol_dovecot_commands[i].name,
                              mpol_dovecot_commands[i].len))
        {
            return mpol_dovecot_commands[i].command;
        }
    }

    return MPOL_DOVECOT_OTHER;
}


static int
mpol_dovecot_number(mpol_str_t *args, uint32_t *n)
{
    uint64_t            number;
    mpol_dovecot_arg_t  arg;

    if (!mpol_dovecot_arg(args, &arg)
        || mpol_word_number(arg.whole.data, arg.whole.len, &number) != MPOL_OK
        || number > UINT32_MAX)
    {
        return MPOL_BAD;
    }

    *n = (uint32_t) number;

    return MPOL_OK;
}


int
mpol_dovecot_arg(mpol_str_t *args, mpol_dovecot_arg_t *arg)
{
    size_t  n, equals;

    if (args->data == NULL) {
        return 0;
    }

    for (n = 0; n < args->len && args->data[n] != '\t'; n++) { /* void */ }

    arg->whole.data = args->data;
    arg->whole.len = n;

    for (equals = 0; equals < n && args->data[equals] != '='; equals++) {
        /* void */
    }

    arg->name.data = args->data;
    arg->name.len = equals;

    arg->value.data = (equals < n) ? args->data + equals + 1 : NULL;
    arg->value.len = (equals < n) ? n - equals - 1 : 0;

    /* a line that ends in HTAB has an empty one behind it */

    if (n == args->len) {
        args->data = NULL;
        args->len = 0;

    } else {
        args->data += n + 1;
        args->len -= n + 1;
    }

    return 1;
}


int
mpol_dovecot_find(const mpol_str_t *args, const char *name, size_t len,
    mpol_str_t *value)
{
    mpol_str_t          rest;
    mpol_dovecot_arg_t  arg;

    rest = *args;

    while (mpol_dovecot_arg(&rest, &arg)) {
        if (mpol_dovecot_same(&arg.name, name, len)) {
            *value = arg.value;
            return 1;
        }
    }

    return 0;
}


static int
mpol_dovecot_same(const mpol_str_t *s, const char *name, size_t len)
{
    size_t  i;

    if (s->len != len) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if (s->data[i] != (uint8_t) name[i]) {
            return 0;
        }
    }

    return 1;
}


int
mpol_dovecot_unescape(const uint8_t *in, size_t len, uint8_t *out, size_t *n)
{
    size_t   i, o;
    uint8_t  ch;

    for (i = 0, o = 0; i < len; i++) {
        ch = in[i];

        if (ch == MPOL_DOVECOT_ESCAPE) {

            if (++i == len) {
                return MPOL_BAD;
            }

            switch (in[i]) {
            case '0':  ch = '\0'; break;
            case '1':  ch = MPOL_DOVECOT_ESCAPE; break;
            case 't':  ch = '\t'; break;
            case 'r':  ch = '\r'; break;
            case 'n':  ch = '\n'; break;
            default:   ch = in[i]; break;
            }
        }

        out[o++] = ch;
    }

    *n = o;

    return MPOL_OK;
}


size_t
mpol_dovecot_escape(const uint8_t *in, size_t len, uint8_t *out, size_t size)
{
    size_t   i, o;
    uint8_t  code;

    for (i = 0, o = 0; i < len; i++) {
        code = mpol_dovecot_code(in[i]);

        if (code) {
            if (o < size) {
                out[o] = MPOL_DOVECOT_ESCAPE;
            }

            o++;
        }

        if (o < size) {
            out[o] = code ? code : in[i];
        }

        o++;
    }

    return o;
}


/* 0: it stands for itself */

static uint8_t
mpol_dovecot_code(uint8_t ch)
{
    switch (ch) {
    case '\0':                 return '0';
    case MPOL_DOVECOT_ESCAPE:  return '1';
    case '\t':                 return 't';
    case '\r':                 return 'r';
    case '\n':                 return 'n';
    default:                   return 0;
    }
}
