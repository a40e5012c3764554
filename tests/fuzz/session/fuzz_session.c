
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The input:
 *
 *     input  = server extensions *octet *record
 *     record = %xFF op *octet
 *
 * server: bits 0-2 which one (see session_nginx.c), 3-4 how a relay is
 * connected to, 5 the store is slow, 6 the threads are slow, 7 small socket
 * buffers.  extensions: what a relay offers, a bit each.
 *
 * The octets behind these two are those of a record "l".  All octets up to
 * the next %xFF are of the record; %xFF %xFF is one of them.  So a piece more
 * or less leaves the rest what it was.
 *
 *     l octets   the client sends these, a line at a time, each when the one
 *                before has had its effect
 *     c octets   the client sends these, at once
 *     f          has sent all
 *     x          is gone
 *     p          does not read; when said again, it does
 *     T          begins TLS, if the last reply was that to STARTTLS
 *     N          sends close_notify, and then in the clear
 *     r octets   a relay sends these, the one that was connected to last
 *     F          has sent all
 *     X          is gone
 *     P          relays do not read; when said again, they do
 *     h          connections to relays hang; when said again, no more
 *     m          relays answer nothing by themselves
 *     a digit    they answer so many commands
 *     g          they answer all by themselves, as in the beginning
 *     o letter octets
 *                the next command of this kind gets these as its reply; none:
 *                as "m" from there on.  Kinds: G(reeting) E(HLO) X(CLIENT)
 *                M(AIL) R(CPT) D(ATA) B(DAT) L(AST) .(dot) S(RSET) N(OOP) Q
 *     d digit    the store and the threads answer, so many asks (all)
 *     t digit    so many times, the clock goes on to the next timer (1)
 *     s, S       the worker is told to stop; and its time is over
 *
 * What is wrong in it is left out.  In the end all are gone.
 */


#include "session.h"


#define SESSION_INPUT    8192
#define SESSION_RECORDS  64


int  LLVMFuzzerInitialize(int *argc, char ***argv);
int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


unsigned  session_traced;


static unsigned session_peers(void);
static void session_record(uint8_t op, const uint8_t *p, size_t len);
static void session_lines(const uint8_t *p, size_t len);
static void session_end(void);


int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    session_traced = (getenv("SESSION_TRACE") != NULL);

    session_nginx_start();

    return 0;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    len;
    uint8_t   op;
    unsigned  records;

    static uint8_t  octets[SESSION_INPUT];

    if (size < 2 || size > SESSION_INPUT) {
        return 0;
    }

    session_setup.server = data[0] & 0x07;
    session_setup.connect = (data[0] >> 3) & 0x03;
    session_setup.slow_store = (data[0] & 0x20) != 0;
    session_setup.slow_threads = (data[0] & 0x40) != 0;
    session_setup.small = (data[0] & 0x80) != 0;
    session_setup.extensions = data[1];

    data += 2;
    size -= 2;

    session_relay_reset();
    session_nginx_reset();
    session_log_reset();

    session_client_open();
    session_nginx_run(session_peers);

    op = 'l';
    len = 0;

    for (records = 0; size && records < SESSION_RECORDS; /* void */) {

        if (*data != 0xff || size == 1) {
            octets[len++] = *data++;
            size--;
            continue;
        }

        if (data[1] == 0xff) {
            octets[len++] = 0xff;

        } else {
            session_record(op, octets, len);
            records++;

            op = data[1];
            len = 0;
        }

        data += 2;
        size -= 2;
    }

    session_record(op, octets, len);
    session_end();

    return 0;
}


void
session_trace(const char *who, const void *p, size_t len)
{
    size_t          i;
    const uint8_t  *q = p;

    fprintf(stderr, "%s ", who);

    for (i = 0; i < len; i++) {

        if (q[i] == '\n' && i + 1 < len) {
            fprintf(stderr, "\\n\n    ");

        } else if (q[i] == '\r' || q[i] == '\n') {
            fprintf(stderr, q[i] == '\r' ? "\\r" : "\\n");

        } else if (q[i] < 0x20 || q[i] > 0x7e) {
            fprintf(stderr, "\\x%02x", q[i]);

        } else {
            fputc(q[i], stderr);
        }
    }

    fputc('\n', stderr);
}


static unsigned
session_peers(void)
{
    unsigned  moved;

    moved = session_client_run();
    moved |= session_relay_run();

    return moved;
}


static void
session_record(uint8_t op, const uint8_t *p, size_t len)
{
    unsigned  n;

    if (session_traced && op != 'c' && op != 'l' && op != 'r') {
        fprintf(stderr, "%c ", op);
        session_trace(" ", p, len);
    }

    n = (len && *p >= '0' && *p <= '9') ? (unsigned) (*p - '0') : 0;

    switch (op) {

    case 'l':
        session_lines(p, len);
        break;

    case 'c':
        session_client_send(p, len);
        break;

    case 'f':
        session_client_shutdown();
        break;

    case 'x':
        session_client_close();
        break;

    case 'p':
        session_client_pause();
        break;

    case 'T':
    case 'N':
        session_client_tls(op == 'T');
        break;

    case 'r':
        session_relay_send(p, len);
        break;

    case 'F':
        session_relay_shutdown();
        break;

    case 'X':
        session_relay_close();
        break;

    case 'P':
        session_relay_pause();
        break;

    case 'h':
        session_relay_hang();
        break;

    case 'm':
        session_relay_auto(0);
        break;

    case 'a':
        session_relay_answer(n);
        break;

    case 'g':
        session_relay_auto(1);
        break;

    case 'o':
        if (len) {
            session_relay_override(*p, p + 1, len - 1);
        }
        break;

    case 'd':
        session_nginx_answer(n ? n : ~0U);
        break;

    case 't':
        for (n = n ? n : 1; n; n--) {
            if (session_nginx_timer()) {
                session_nginx_run(session_peers);
            }
        }
        break;

    case 's':
    case 'S':
        session_nginx_shutdown(op == 'S');
        break;

    default:
        return;
    }

    session_nginx_run(session_peers);
}


static void
session_lines(const uint8_t *p, size_t len)
{
    size_t          n;
    const uint8_t  *lf;

    for ( /* void */ ; len; p += n, len -= n) {
        lf = memchr(p, '\n', len);
        n = lf ? (size_t) (lf - p) + 1 : len;

        session_client_send(p, n);
        session_nginx_run(session_peers);
    }
}


static void
session_end(void)
{
    session_client_close();
    session_nginx_run(session_peers);

    /* another one is tried in the place of one that is gone */

    while (session_relay_close_all()) {
        session_nginx_run(session_peers);
    }

    /* what was forgotten by all is still to come to its end */

    session_setup.slow_store = 0;
    session_setup.slow_threads = 0;

    do {
        session_nginx_answer(~0U);
        session_nginx_run(session_peers);

    } while (session_relay_close_all());

    session_nginx_check();
    session_log_check(session_peers);
    session_nginx_check();
}
