
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The client's end, and what it may be told:
 *
 *     reply = *( code "-" text CRLF ) code [ SP text ] CRLF
 *
 * one code through all lines, no control octets, no line above 512 octets.
 * Behind a 354 comes the reply to the message: a 2xx there is counted, and
 * some relay has to have said so before (I2).
 */


#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session.h"


#define SESSION_LINE  512


static unsigned session_client_write(void);
static unsigned session_client_read(void);
static void session_client_octet(uint8_t ch);
static void session_client_line(void);


uint8_t          session_sent[SESSION_MAX + 1];
size_t           session_sent_len;
unsigned         session_client_accepted;

static int       session_fd = -1;
static unsigned  session_paused;
static unsigned  session_was_paused;
static unsigned  session_finished;      /* nothing more is sent */
static unsigned  session_clear;         /* after TLS */

/* of session_sent: what the socket has taken */
static size_t    session_taken;

static char      session_line[SESSION_LINE];
static size_t    session_line_len;
static char      session_code[4];       /* of a reply that goes on */
static unsigned  session_cr;
static unsigned  session_data;          /* a 354 came last */
static unsigned  session_ready;         /* a 220 came last, not as greeting */
static unsigned  session_replies;


void
session_client_open(void)
{
    int  fd[2];

    session_sent_len = 0;
    session_sent[0] = '\0';
    session_taken = 0;
    session_client_accepted = 0;
    session_paused = 0;
    session_was_paused = 0;
    session_finished = 0;
    session_clear = 0;
    session_line_len = 0;
    session_code[0] = '\0';
    session_cr = 0;
    session_data = 0;
    session_ready = 0;
    session_replies = 0;

    session_pair(fd);
    session_fd = fd[0];

    session_nginx_accept(fd[1]);
}


void
session_client_send(const uint8_t *p, size_t len)
{
    if (session_finished || len > SESSION_MAX - session_sent_len) {
        return;
    }

    memcpy(session_sent + session_sent_len, p, len);
    session_sent_len += len;
    session_sent[session_sent_len] = '\0';

    (void) session_client_write();
}


void
session_client_pause(void)
{
    session_paused = !session_paused;
    session_was_paused = 1;
}


void
session_client_shutdown(void)
{
    session_finished = 1;

    if (session_fd != -1) {
        (void) shutdown(session_fd, SHUT_WR);
    }
}


void
session_client_close(void)
{
    if (session_fd == -1) {
        return;
    }

    /* what was said until now counts */

    if (!session_paused) {
        (void) session_client_read();
    }

    if (session_fd != -1) {
        session_tls_end();
        (void) close(session_fd);
        session_fd = -1;
    }

    session_finished = 1;
}


void
session_client_tls(unsigned on)
{
    if (session_fd == -1 || session_finished) {
        return;
    }

    if (on) {

        /* it has random octets, which must not be taken for anything else */

        if (session_ready && session_taken == session_sent_len) {
            session_tls_begin(session_fd);
        }

    } else if (session_tls_on() && !session_clear) {
        session_tls_notify();
        session_clear = 1;
    }
}


unsigned
session_client_run(void)
{
    unsigned  moved;

    if (session_fd == -1) {
        return 0;
    }

    moved = session_client_write();

    if (!session_paused && session_fd != -1) {
        moved |= session_client_read();
    }

    return moved;
}


static unsigned
session_client_write(void)
{
    ssize_t   n;
    unsigned  moved;

    for (moved = 0;
         session_fd != -1 && session_taken < session_sent_len;
         moved = 1)
    {
        if (session_tls_on() && !session_clear) {
            n = session_tls_write(session_sent + session_taken,
                                  session_sent_len - session_taken);

        } else {
            n = send(session_fd, session_sent + session_taken,
                     session_sent_len - session_taken, MSG_NOSIGNAL);

            if (n == -1 && errno != EAGAIN) {
                n = 0;
            }
        }

        if (n == -1) {
            break;
        }

        if (n == 0) {
            session_taken = session_sent_len;
            session_finished = 1;
            break;
        }

        if (session_traced) {
            session_trace("C: ", session_sent + session_taken, (size_t) n);
        }

        session_taken += (size_t) n;
    }

    return moved;
}


static unsigned
session_client_read(void)
{
    size_t    i;
    ssize_t   n;
    unsigned  moved;
    uint8_t   buf[4096];

    for (moved = 0; /* void */; moved = 1) {

        if (session_tls_on()) {
            n = session_tls_read(buf, sizeof(buf));

        } else {
            n = recv(session_fd, buf, sizeof(buf), 0);

            if (n == -1 && errno != EAGAIN) {
                n = 0;
            }
        }

        if (n > 0) {
            if (session_traced) {
                session_trace("C< ", buf, (size_t) n);
            }

            for (i = 0; i < (size_t) n; i++) {
                session_client_octet(buf[i]);
            }

            continue;
        }

        if (n == -1) {
            return moved;
        }

        if (session_traced) {
            session_trace("C< ", "closed", 6);
        }

        /* closed by nginx: a client that reads has whole replies */

        if (!session_was_paused && !session_tls_on() && session_line_len) {
            SESSION_DIE("the last reply has no end: \"%.*s\"",
                        (int) session_line_len, session_line);
        }

        session_tls_end();
        (void) close(session_fd);
        session_fd = -1;
        session_finished = 1;

        return 1;
    }
}


static void
session_client_octet(uint8_t ch)
{
    if (ch == '\n') {

        if (!session_cr) {
            SESSION_DIE("a bare LF in a reply");
        }

        session_cr = 0;
        session_client_line();
        session_line_len = 0;
        return;
    }

    if (session_cr) {
        SESSION_DIE("a bare CR in a reply");
    }

    if (ch == '\r') {
        session_cr = 1;
        return;
    }

    if (ch < 0x20 || ch == 0x7f) {
        SESSION_DIE("a control octet %d in a reply", ch);
    }

    if (session_line_len == SESSION_LINE - 2) {
        SESSION_DIE("a line of a reply is longer than %d", SESSION_LINE);
    }

    session_line[session_line_len++] = (char) ch;
}


static void
session_client_line(void)
{
    unsigned     more, data;
    const char  *p;

    p = session_line;

    if (session_line_len < 3 || p[0] < '2' || p[0] > '5' || p[1] < '0'
        || p[1] > '9' || p[2] < '0' || p[2] > '9'
        || (session_line_len > 3 && p[3] != ' ' && p[3] != '-'))
    {
        SESSION_DIE("not a reply: \"%.*s\"", (int) session_line_len, p);
    }

    more = (session_line_len > 3 && p[3] == '-');

    if (session_code[0] && memcmp(session_code, p, 3) != 0) {
        SESSION_DIE("a reply with two codes: %s, \"%.*s\"", session_code,
                    (int) session_line_len, p);
    }

    if (more) {
        memcpy(session_code, p, 3);
        return;
    }

    session_code[0] = '\0';

    session_ready = (session_replies++ > 0 && memcmp(p, "220", 3) == 0);

    data = session_data;
    session_data = (memcmp(p, "354", 3) == 0);

    if (session_data && data) {
        SESSION_DIE("354 twice");
    }

    if (data && p[0] == '2') {
        session_client_accepted++;

        if (session_client_accepted > session_relay_accepted) {
            SESSION_DIE("I2: the client was told \"%.*s\", and no relay "
                        "said so", (int) session_line_len, p);
        }
    }
}
