
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The relays' ends: any number of connections, all of them the same relay.
 * What the module writes to them is read in session_relay_read.c.
 *
 * Each command waits for its reply.  A good relay answers at once (auto), or
 * so many commands as it is told; a reply may be laid down beforehand
 * (override), or any octets sent.  What was sent is read as replies, so that
 * it is known which commands they answer.
 */


#include <ctype.h>
#include <errno.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session_relay.h"


#define SESSION_OVERRIDE  1024
#define SESSION_MANY      1000000000


static size_t session_relay_fill(int fd);
static void session_relay_drain(session_relay_t *r);
static session_relay_t *session_relay_newest(void);
static unsigned session_relay_reply(session_relay_t *r);
static void session_relay_say(session_relay_t *r, const void *p, size_t len);
static void session_relay_said(session_relay_t *r, uint8_t ch);
static void session_relay_said_line(session_relay_t *r);
static void session_relay_offers(session_relay_t *r);


static const session_extension_t  session_extensions[] = {
    { "PIPELINING", 0x01 },
    { "SIZE 1000", 0x02 },
    { "8BITMIME", 0x04 },
    { "XCLIENT NAME ADDR PORT PROTO HELO LOGIN", 0x08 },
    { "SMTPUTF8", 0x10 },
    { "CHUNKING", 0x20 },
    { "BINARYMIME", 0x40 },
    { "DSN", 0x80 }
};

const session_verb_t  session_commands[SESSION_COMMANDS] = {
    { "", 'G', "220 relay.test ESMTP\r\n" },
    { "EHLO ", 'E', NULL },
    { "XCLIENT ", 'X', "220 relay.test ESMTP\r\n" },
    { "MAIL FROM:<", 'M', "250 2.1.0 Ok\r\n" },
    { "RCPT TO:<", 'R', "250 2.1.5 Ok\r\n" },
    { "DATA", 'D', "354 Go ahead\r\n" },
    { "BDAT ", 'B', "250 2.0.0 Ok\r\n" },
    { "", 'L', "250 2.0.0 Ok: queued\r\n" },
    { "", '.', "250 2.0.0 Ok: queued\r\n" },
    { "RSET", 'S', "250 2.0.0 Ok\r\n" },
    { "NOOP", 'N', "250 2.0.0 Ok\r\n" },
    { "QUIT", 'Q', "221 2.0.0 Bye\r\n" }
};


unsigned                session_relay_accepted;
unsigned                session_relay_recipients;
unsigned                session_relay_dots;

static session_relay_t  session_relays[SESSION_RELAYS];
static unsigned         session_nrelays;
static unsigned         session_attempts;
static unsigned         session_auto;
static unsigned         session_answers;
static unsigned         session_paused;
static unsigned         session_hanging;

static struct {
    uint8_t             text[SESSION_OVERRIDE];
    size_t              len;
    unsigned            set;
} session_overrides[SESSION_COMMANDS];


void
session_relay_reset(void)
{
    unsigned  i;

    (void) session_relay_close_all();

    for (i = 0; i < SESSION_COMMANDS; i++) {
        session_overrides[i].set = 0;
    }

    session_nrelays = 0;
    session_attempts = 0;
    session_relay_accepted = 0;
    session_relay_recipients = 0;
    session_relay_dots = 0;
    session_auto = 1;
    session_answers = 0;
    session_paused = 0;
    session_hanging = 0;
}


/*
 * A socket for nginx, in fd.  Returns what errno connect() has to fail with,
 * or 0; error: what the socket has to tell later.
 */

int
session_relay_connect(int *fd, int *error)
{
    int               pair[2], rc;
    unsigned          first;
    session_relay_t  *r;

    first = (session_attempts++ == 0);
    rc = 0;
    *error = 0;

    session_pair(pair);
    *fd = pair[1];

    switch (session_setup.connect) {

    case SESSION_CONNECT_LATER:
        rc = EINPROGRESS;
        break;

    case SESSION_CONNECT_REFUSED:
        rc = first ? ECONNREFUSED : EINPROGRESS;
        break;

    case SESSION_CONNECT_FAILS:
        rc = first ? EINPROGRESS : 0;
        *error = first;
        break;

    default:
        break;
    }

    if (session_nrelays == SESSION_RELAYS) {
        rc = ECONNREFUSED;
        *error = 0;
    }

    if (rc == ECONNREFUSED) {
        (void) close(pair[0]);
        return rc;
    }

    r = &session_relays[session_nrelays++];
    memset(r, 0, sizeof(session_relay_t));

    r->fd = pair[0];

    if (*error) {
        (void) close(r->fd);
        r->fd = -1;

    } else if (session_hanging) {
        r->hangs = session_relay_fill(pair[1]);
        rc = EINPROGRESS;

    } else {
        session_relay_push(r, SESSION_GREETING);
    }

    return rc;
}


/* a socket that cannot be written to is one that is not connected yet */

static size_t
session_relay_fill(int fd)
{
    size_t   sum;
    ssize_t  n;

    static const uint8_t  zeroes[4096];

    for (sum = 0; /* void */; sum += (size_t) n) {
        n = send(fd, zeroes, sizeof(zeroes), MSG_NOSIGNAL);

        if (n <= 0) {
            return sum;
        }
    }
}


static void
session_relay_drain(session_relay_t *r)
{
    ssize_t  n;
    uint8_t  buf[4096];

    while (r->hangs) {
        n = recv(r->fd, buf,
                 r->hangs < sizeof(buf) ? r->hangs : sizeof(buf), 0);

        if (n <= 0) {
            SESSION_DIE("a relay has lost what it was filled with");
        }

        r->hangs -= (size_t) n;
    }

    session_relay_push(r, SESSION_GREETING);
}


static session_relay_t *
session_relay_newest(void)
{
    unsigned  i;

    for (i = session_nrelays; i; i--) {
        if (session_relays[i - 1].fd != -1) {
            return &session_relays[i - 1];
        }
    }

    return NULL;
}


void
session_relay_free(session_relay_t *r)
{
    if (r->fd != -1) {
        (void) close(r->fd);
        r->fd = -1;
    }

    if (r->message) {
        session_relay_message(r);
        free(r->message);
        r->message = NULL;
    }
}


/* what the input tells relays to do */


void
session_relay_auto(unsigned on)
{
    session_auto = on;
}


void
session_relay_answer(unsigned n)
{
    session_answers += n;
}


void
session_relay_override(uint8_t which, const uint8_t *p, size_t len)
{
    unsigned  i;

    for (i = 0; i < SESSION_COMMANDS; i++) {

        if (session_commands[i].letter == which && len <= SESSION_OVERRIDE) {
            memcpy(session_overrides[i].text, p, len);
            session_overrides[i].len = len;
            session_overrides[i].set = 1;
        }
    }
}


void
session_relay_send(const uint8_t *p, size_t len)
{
    session_relay_t  *r;

    r = session_relay_newest();

    if (r == NULL || r->hangs) {
        return;
    }

    /* who answers has read the question */

    (void) session_relay_read(r);

    if (r->fd != -1) {
        session_relay_say(r, p, len);
    }
}


void
session_relay_pause(void)
{
    session_paused = !session_paused;

    /* it may answer what is still on its way: not to be told from good */

    session_relay_accepted = SESSION_MANY;
    session_relay_recipients = SESSION_MANY;
}


void
session_relay_hang(void)
{
    unsigned  i;

    session_hanging = !session_hanging;

    if (session_hanging) {
        return;
    }

    for (i = 0; i < session_nrelays; i++) {
        if (session_relays[i].fd != -1 && session_relays[i].hangs) {
            session_relay_drain(&session_relays[i]);
        }
    }
}


void
session_relay_shutdown(void)
{
    session_relay_t  *r;

    r = session_relay_newest();

    if (r) {
        (void) shutdown(r->fd, SHUT_WR);
        r->finished = 1;
    }
}


void
session_relay_close(void)
{
    session_relay_t  *r;

    r = session_relay_newest();

    if (r) {
        session_relay_free(r);
    }
}


unsigned
session_relay_close_all(void)
{
    unsigned  i, n;

    for (i = 0, n = 0; i < session_nrelays; i++) {
        n |= (session_relays[i].fd != -1);
        session_relay_free(&session_relays[i]);
    }

    return n;
}


/* 1 if something moved */

unsigned
session_relay_run(void)
{
    unsigned          i, moved;
    session_relay_t  *r;

    for (moved = 0, i = 0; i < session_nrelays; i++) {
        r = &session_relays[i];

        if (r->fd != -1 && !session_paused && !r->hangs) {
            moved |= session_relay_read(r);
        }

        while (r->fd != -1 && r->npending && !r->finished
               && !r->broken               && (session_auto || session_answers)
               && session_relay_reply(r))
        {
            moved = 1;
        }
    }

    return moved;
}


/* a reply to the oldest command; 0: there is to be none now */

static unsigned
session_relay_reply(session_relay_t *r)
{
    char               buf[1024];
    size_t             len;
    unsigned           i;
    const char        *text;
    session_command_e  cmd;

    cmd = r->pending[0];

    if (session_overrides[cmd].set) {
        session_overrides[cmd].set = 0;

        if (session_overrides[cmd].len == 0) {
            session_auto = 0;
            session_answers = 0;
            return 0;
        }

        session_relay_say(r, session_overrides[cmd].text,
                          session_overrides[cmd].len);
        return 1;
    }

    if (session_answers) {
        session_answers--;
    }

    text = session_commands[cmd].reply;

    if (cmd == SESSION_EHLO) {
        len = (size_t) sprintf(buf, "250-relay.test\r\n");

        for (i = 0; i < 8; i++) {
            if (session_setup.extensions & session_extensions[i].flag) {
                len += (size_t) sprintf(buf + len, "250-%s\r\n",
                                        session_extensions[i].keyword);
            }
        }

        sprintf(buf + len, "250 HELP\r\n");
        text = buf;
    }

    session_relay_say(r, text, strlen(text));

    return 1;
}


static void
session_relay_say(session_relay_t *r, const void *p, size_t len)
{
    size_t          i;
    const uint8_t  *q = p;

    if (r->finished) {
        return;
    }

    if (session_traced) {
        session_trace("R: ", p, len);
    }

    for (i = 0; i < len; i++) {
        session_relay_said(r, q[i]);
    }

    if (send(r->fd, p, len, MSG_NOSIGNAL) != (ssize_t) len) {
        r->finished = 1;
    }
}


static void
session_relay_said(session_relay_t *r, uint8_t ch)
{
    if (ch != '\n') {

        if (r->reply_len < SESSION_LINE) {
            r->reply[r->reply_len++] = ch;
        }

        return;
    }

    session_relay_said_line(r);
    r->reply_len = 0;
}


static void
session_relay_said_line(session_relay_t *r)
{
    uint8_t           *p;
    size_t             len;
    session_command_e  cmd;

    p = r->reply;
    len = r->reply_len;

    if (r->broken) {
        return;
    }

    if (len < 4 || len == SESSION_LINE || p[len - 1] != '\r' || p[0] < '2'
        || p[0] > '5' || !isdigit(p[1]) || !isdigit(p[2])
        || (len > 4 && p[3] != ' ' && p[3] != '-')
        || (r->code[0] && memcmp(r->code, p, 3) != 0))
    {
        r->broken = 1;
        return;
    }

    if (r->npending && r->pending[0] == SESSION_EHLO) {
        session_relay_offers(r);
    }

    if (len > 4 && p[3] == '-') {
        memcpy(r->code, p, 3);
        return;
    }

    r->code[0] = '\0';

    if (r->npending == 0) {

        /* nobody asked: the module has to give this connection up */

        r->broken = 1;
        return;
    }

    cmd = r->pending[0];
    r->npending--;
    memmove(r->pending, r->pending + 1, r->npending);

    if (cmd == SESSION_MAIL || cmd == SESSION_RSET) {
        r->recipients = 0;
    }

    if (cmd == SESSION_RCPT && p[0] == '2') {
        r->recipients++;
    }

    if (cmd == SESSION_DATA && memcmp(p, "354", 3) == 0) {
        r->body = 1;

        r->message = realloc(r->message, 2);
        r->message_size = 2;
        r->message_len = 2;
        memcpy(r->message, "\r\n", 2);
    }

    if ((cmd == SESSION_DOT || cmd == SESSION_LAST) && p[0] == '2') {
        session_relay_accepted += (session_relay_accepted < SESSION_MANY);
        session_relay_recipients += r->recipients;
        r->recipients = 0;
    }
}


/* a line of the reply to EHLO */

static void
session_relay_offers(session_relay_t *r)
{
    size_t       len;
    unsigned     i;
    const char  *word;

    if (r->reply_len < 5) {
        return;
    }

    r->reply[r->reply_len - 1] = '\0';

    for (i = 0; i < 8; i++) {
        word = session_extensions[i].keyword;
        len = strcspn(word, " ");

        if (strncasecmp((char *) r->reply + 4, word, len) == 0) {
            r->offered |= session_extensions[i].flag;
        }
    }

    r->reply[r->reply_len - 1] = '\r';
}
