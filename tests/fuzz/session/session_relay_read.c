
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a relay may be told:
 *
 *     commands of a known verb, in CRLF, without control octets;
 *     one at a time, unless it offers PIPELINING;
 *     parameters of extensions that it offers, and no others (EXT-1);
 *     a message as the client sent it, octet for octet (SMUG), but where line
 *     ends are repaired;
 *     the end of a message only behind one of the client's (I3), and only if
 *     there is no bare CR or LF, and no NUL, in it.
 */


#define _GNU_SOURCE

#include <ctype.h>
#include <errno.h>
#include <strings.h>
#include <sys/socket.h>

#include "session_relay.h"


static void session_relay_got(session_relay_t *r, uint8_t *p, size_t len);
static size_t session_relay_body(session_relay_t *r, uint8_t *p, size_t len);
static void session_relay_chunk(session_relay_t *r);
static size_t session_relay_canonical(uint8_t *sent);
static unsigned session_relay_chunks(session_relay_t *r);
static size_t session_relay_decode(session_relay_t *r, uint8_t *content);
static size_t session_relay_chunk_head(size_t pos);
static size_t session_relay_chunk_size(size_t pos, size_t *octets,
    unsigned *last);
static unsigned session_relay_chunks_at(size_t pos, const uint8_t *content,
    size_t len);
static void session_relay_bare(session_relay_t *r);
static void session_relay_end(session_relay_t *r, session_command_e cmd);
static unsigned session_relay_client_dots(void);
static void session_relay_line(session_relay_t *r);
static void session_relay_parameters(session_relay_t *r);


/* of MAIL and RCPT: parameter, what has to be offered for it */
static const session_extension_t  session_parameters[] = {
    { " SIZE=", 0x02 },
    { " BODY=8BITMIME", 0x04 },
    { " BODY=7BIT", 0x04 },
    { " BODY=BINARYMIME", 0x40 },
    { " SMTPUTF8", 0x10 },
    { " RET=", 0x80 },
    { " ENVID=", 0x80 },
    { " NOTIFY=", 0x80 },
    { " ORCPT=", 0x80 }
};


unsigned
session_relay_read(session_relay_t *r)
{
    ssize_t   n;
    unsigned  moved;
    uint8_t   buf[4096];

    for (moved = 0; /* void */; moved = 1) {

        n = recv(r->fd, buf, sizeof(buf), 0);

        if (n > 0) {
            if (session_traced) {
                session_trace("R< ", buf, (size_t) n);
            }

            session_relay_got(r, buf, (size_t) n);
            continue;
        }

        if (n == -1 && errno == EAGAIN) {
            return moved;
        }

        if (session_traced) {
            session_trace("R< ", "closed", 6);
        }

        session_relay_free(r);

        return 1;
    }
}


static void
session_relay_got(session_relay_t *r, uint8_t *p, size_t len)
{
    size_t  n;

    if (r->broken) {
        return;
    }

    while (len) {

        if (r->body || r->chunk) {
            n = session_relay_body(r, p, len);
            p += n;
            len -= n;
            continue;
        }

        if (*p == '\n') {
            session_relay_line(r);
            r->line_len = 0;

        } else if (r->line_len == SESSION_LINE) {
            SESSION_DIE("a relay got a command of %d octets", SESSION_LINE);

        } else {
            r->line[r->line_len++] = *p;
        }

        p++;
        len--;
    }
}


static size_t
session_relay_body(session_relay_t *r, uint8_t *p, size_t len)
{
    size_t  n, i;

    n = r->body ? len : (len < r->chunk) ? len : r->chunk;

    if (r->message_size - r->message_len < n) {
        r->message_size = 2 * (r->message_len + n);
        r->message = realloc(r->message, r->message_size);
    }

    if (r->chunk) {
        memcpy(r->message + r->message_len, p, n);
        r->message_len += n;
        r->chunk -= (unsigned) n;

        if (r->chunk == 0) {
            session_relay_chunk(r);
        }

        return n;
    }

    for (i = 0; i < n; i++) {
        r->message[r->message_len++] = p[i];

        if (r->message_len >= 5
            && memcmp(r->message + r->message_len - 5, "\r\n.\r\n", 5) == 0)
        {
            r->body = 0;
            session_relay_end(r, SESSION_DOT);

            return i + 1;
        }
    }

    return n;
}


static void
session_relay_chunk(session_relay_t *r)
{
    if (r->last) {
        session_relay_end(r, SESSION_LAST);
        return;
    }

    session_relay_push(r, SESSION_BDAT);
}


static void
session_relay_end(session_relay_t *r, session_command_e cmd)
{
    session_relay_dots++;

    if (session_relay_dots > session_relay_client_dots()) {
        SESSION_DIE("I3: a relay got an end of a message, and the client did "
                    "not send it");
    }

    session_relay_bare(r);
    session_relay_message(r);
    session_relay_push(r, cmd);
}


/*
 * A message is what the client sent, or the beginning of that; but a dot that
 * begins a line and was not doubled means nothing, and is not there any more
 * (RFC 5321 section 4.5.2).
 */

void
session_relay_message(session_relay_t *r)
{
    size_t  n;

    static uint8_t  sent[SESSION_MAX];

    /* it begins with the CRLF of DATA, which is not part of it */

    if (!r->chunked && r->message_len > 2
        && session_setup.server != SESSION_NORMALIZE)
    {
        n = session_relay_canonical(sent);

        if (memmem(sent, n, r->message + 2, r->message_len - 2) == NULL
            && !session_relay_chunks(r))
        {
            SESSION_DIE("SMUG: a relay got a message that the client did not "
                        "send: \"%.*s\"", (int) r->message_len, r->message);
        }
    }

    if (r->chunked && r->message_len
        && session_setup.server != SESSION_NORMALIZE
        && !session_relay_chunks(r))
    {
        SESSION_DIE("SMUG: a relay got chunks that the client did not send: "
                    "\"%.*s\"", (int) r->message_len, r->message);
    }

    r->message_len = 0;
    r->chunked = 0;
}


static size_t
session_relay_canonical(uint8_t *sent)
{
    size_t  i, n;

    for (i = 0, n = 0; i < session_sent_len; i++) {

        if (session_sent[i] == '.' && i >= 2
            && memcmp(session_sent + i - 2, "\r\n", 2) == 0
            && i + 1 < session_sent_len)
        {
            if (session_sent[i + 1] == '.') {
                sent[n++] = session_sent[i++];

            } else if (i + 2 >= session_sent_len
                       || memcmp(session_sent + i + 1, "\r\n", 2) != 0)
            {
                continue;
            }
        }

        sent[n++] = session_sent[i];
    }

    return n;
}


/* 1 if it is the content, or the beginning of it, of chunks in a row */

static unsigned
session_relay_chunks(session_relay_t *r)
{
    size_t    n, pos;
    uint8_t  *content;

    content = r->message;
    n = r->message_len;

    if (!r->chunked) {
        content = malloc(n);
        n = session_relay_decode(r, content);
    }

    for (pos = session_relay_chunk_head(0); pos < session_sent_len; /* void */)
    {
        if (session_relay_chunks_at(pos, content, n)) {
            break;
        }

        pos = session_relay_chunk_head(pos + 1);
    }

    if (!r->chunked) {
        free(content);
    }

    return pos < session_sent_len;
}


/* what was written for DATA, without its dots and its end */

static size_t
session_relay_decode(session_relay_t *r, uint8_t *content)
{
    size_t    i, n, end;
    uint8_t  *p;

    p = r->message;
    end = r->message_len;

    if (end >= 5 && memcmp(p + end - 5, "\r\n.\r\n", 5) == 0) {
        end -= 3;
    }

    for (i = 2, n = 0; i < end; i++) {

        if (p[i] == '.' && memcmp(p + i - 2, "\r\n", 2) == 0) {
            continue;
        }

        content[n++] = p[i];
    }

    return n;
}


/* where the next command begins that looks like one */

static size_t
session_relay_chunk_head(size_t pos)
{
    size_t   octets;
    unsigned last;

    for ( /* void */ ; pos < session_sent_len; pos++) {
        if (session_relay_chunk_size(pos, &octets, &last)) {
            return pos;
        }
    }

    return session_sent_len;
}


/* the length of BDAT SP size [SP LAST] CRLF, or 0 */

static size_t
session_relay_chunk_size(size_t pos, size_t *octets, unsigned *last)
{
    char        *end;
    const char  *p;

    if (session_sent_len - pos < sizeof("BDAT 0\r\n") - 1) {
        return 0;
    }

    /* there is a NUL behind all that was sent */

    p = (char *) session_sent + pos;

    if (strncasecmp(p, "BDAT ", 5) != 0) {
        return 0;
    }

    p += strspn(p + 5, " ") + 5;

    if (!isdigit((unsigned char) *p)) {
        return 0;
    }

    *octets = strtoul(p, &end, 10);
    p = end + strspn(end, " ");
    *last = (p != end && strncasecmp(p, "LAST", 4) == 0);

    if (*last) {
        p += 4;
        p += strspn(p, " ");
    }

    return strncmp(p, "\r\n", 2) == 0
           ? (size_t) (p + 2 - ((char *) session_sent + pos)) : 0;
}


static unsigned
session_relay_chunks_at(size_t pos, const uint8_t *content, size_t len)
{
    size_t    n, end;
    unsigned  last;

    while (pos < session_sent_len) {

        pos += session_relay_chunk_size(pos, &n, &last);
        n = (n < session_sent_len - pos) ? n : session_sent_len - pos;

        if (memcmp(session_sent + pos, content, n < len ? n : len) != 0) {
            return 0;
        }

        if (len <= n) {
            return 1;
        }

        content += n;
        len -= n;

        if (last) {

            /* for DATA, the last line has to end */

            return len <= 2 && memcmp(content, "\r\n", len) == 0;
        }

        /* other commands may come between two of them */

        end = pos + n;

        for (n = end; /* void */; n = pos + 1) {
            pos = session_relay_chunk_head(n);

            if (pos == session_sent_len || pos == end
                || memcmp(session_sent + pos - 2, "\r\n", 2) == 0)
            {
                break;
            }
        }
    }

    return 0;
}


/* as a whole, it has no CR and no LF but those that end lines, and no NUL */

static void
session_relay_bare(session_relay_t *r)
{
    size_t    i;
    uint8_t  *p;

    p = r->message;

    for (i = 0; i < r->message_len && !r->binary; i++) {

        if (p[i] == '\0'
            || (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'))
            || (p[i] == '\r' && (i + 1 == r->message_len
                                 || p[i + 1] != '\n')))
        {
            SESSION_DIE("SMUG: a relay got the end of a message with a bare "
                        "CR or LF, or NUL, at %d", (int) i);
        }
    }
}


static unsigned
session_relay_client_dots(void)
{
    size_t    i;
    unsigned  n;

    for (i = 0, n = 0; i + 5 <= session_sent_len; i++) {
        if (memcmp(session_sent + i, "\r\n.\r\n", 5) == 0) {
            n++;
        }
    }

    /* messages in chunks may become such ones for a relay without CHUNKING */

    for (i = 0; i + 4 <= session_sent_len; i++) {
        if (strncasecmp((char *) session_sent + i, "last", 4) == 0) {
            n++;
        }
    }

    return n;
}


static void
session_relay_line(session_relay_t *r)
{
    char              *p;
    size_t             i;
    session_command_e  cmd;

    if (r->line_len < 5 || r->line[r->line_len - 1] != '\r') {
        SESSION_DIE("a relay got \"%.*s\", without CRLF", (int) r->line_len,
                    r->line);
    }

    r->line[--r->line_len] = '\0';
    p = (char *) r->line;

    for (i = 0; i < r->line_len; i++) {

        if (r->line[i] > 0x7f && !(r->offered & 0x10)) {
            SESSION_DIE("EXT-2: a relay got \"%s\", without SMTPUTF8", p);
        }

        if (r->line[i] < 0x20 || r->line[i] == 0x7f) {
            SESSION_DIE("a relay got a control octet in \"%s\"", p);
        }
    }

    for (cmd = SESSION_EHLO; cmd < SESSION_COMMANDS; cmd++) {

        i = strlen(session_commands[cmd].verb);

        if (i == 0 || strncmp(p, session_commands[cmd].verb, i) != 0) {
            continue;
        }

        if (session_commands[cmd].verb[i - 1] >= 'A' && p[i] != '\0') {
            continue;
        }

        break;
    }

    switch (cmd) {

    case SESSION_COMMANDS:
        SESSION_DIE("a relay got \"%s\"", p);

    case SESSION_MAIL:
        r->binary = (strstr(p, " BODY=BINARYMIME") != NULL);

        /* fall through */

    case SESSION_RCPT:
        session_relay_parameters(r);
        break;

    case SESSION_BDAT:

        if (!(r->offered & 0x20)) {
            SESSION_DIE("EXT-1: a relay got \"%s\", without CHUNKING", p);
        }

        r->chunk = (unsigned) strtoul(p + 5, NULL, 10);
        r->last = (strstr(p, "LAST") != NULL);
        r->chunked = 1;

        if (r->chunk == 0) {
            session_relay_chunk(r);
        }

        return;

    default:
        break;
    }

    session_relay_push(r, cmd);
}


/* of "MAIL FROM:<...> parameters", and none that was not offered */

static void
session_relay_parameters(session_relay_t *r)
{
    char      *p;
    unsigned   i, quoted;

    p = strchr((char *) r->line, '<');

    for (quoted = 0; *p && (quoted || *p != '>'); p++) {

        if (*p == '"') {
            quoted = !quoted;

        } else if (quoted && *p == '\\' && p[1] != '\0') {
            p++;
        }
    }

    if (*p != '>' || (p[1] != '\0' && p[1] != ' ')) {
        SESSION_DIE("a relay got \"%s\"", r->line);
    }

    for (i = 0;
         i < sizeof(session_parameters) / sizeof(session_parameters[0]);
         i++)
    {
        if (strstr(p, session_parameters[i].keyword)
            && !(r->offered & session_parameters[i].flag))
        {
            SESSION_DIE("EXT-1: a relay got \"%s\", without that being "
                        "offered", r->line);
        }
    }
}


void
session_relay_push(session_relay_t *r, session_command_e cmd)
{
    if (r->npending && !(r->offered & 0x01)) {
        SESSION_DIE("EXT-1: a relay got \"%.*s\" before it had answered, "
                    "without PIPELINING", (int) r->line_len, r->line);
    }

    if (r->npending == SESSION_PENDING) {
        SESSION_DIE("a relay got %d commands, none of which it answered",
                    SESSION_PENDING);
    }

    r->pending[r->npending++] = (uint8_t) cmd;
}
