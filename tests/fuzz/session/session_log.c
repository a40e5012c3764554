
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The access log of one input: whole lines without control octets, each with
 * an outcome; as many accepted messages as the client and the relays know of
 * (G1).
 */


#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session.h"


#define SESSION_LOG  1048576


static unsigned session_log_outcomes(const char *outcome);
static unsigned session_log_recipients(unsigned unknown);
static void session_log_limits(unsigned kept, unsigned (*peers)(void));


static int     session_fd = -1;
static char   *session_lines;


void
session_log_open(const char *path)
{
    session_fd = open(path, O_RDWR|O_CLOEXEC);

    if (session_fd == -1) {
        SESSION_DIE("%s cannot be opened", path);
    }

    session_lines = malloc(SESSION_LOG + 1);
}


void
session_log_reset(void)
{
    if (ftruncate(session_fd, 0) == -1) {
        SESSION_DIE("the access log cannot be truncated");
    }
}


void
session_log_check(unsigned (*peers)(void))
{
    char      *p, *end;
    ssize_t    n;
    unsigned   accepted;

    n = pread(session_fd, session_lines, SESSION_LOG, 0);

    if (n <= 0) {
        n = 0;
    }

    session_lines[n] = '\0';

    for (p = session_lines; *p; p = end + 1) {

        end = strchr(p, '\n');

        if (end == NULL || end == p || end[-1] != '}' || *p != '{') {
            SESSION_DIE("not a line of the log: \"%s\"", p);
        }

        for ( /* void */ ; p < end; p++) {
            if ((unsigned char) *p < 0x20 || *p == 0x7f) {
                SESSION_DIE("a control octet in the log: \"%s\"",
                            session_lines);
            }
        }
    }

    accepted = session_log_outcomes("accepted")
               + session_log_outcomes("delivered_unacked");

    if (accepted > session_relay_accepted) {
        SESSION_DIE("I2: %u messages are logged as accepted, by relays %u:\n"
                    "%s", accepted, session_relay_accepted, session_lines);
    }

    if (session_log_recipients(0) > session_relay_recipients) {
        SESSION_DIE("G1: %u recipients are logged as accepted, by relays %u:\n"
                    "%s", session_log_recipients(0), session_relay_recipients,
                    session_lines);
    }

    if (accepted < session_client_accepted) {
        SESSION_DIE("I5: %u messages are logged as accepted, the client knows "
                    "of %u:\n%s", accepted, session_client_accepted,
                    session_lines);
    }

    session_log_limits(accepted + session_log_outcomes("unknown"), peers);
}


/* what was given back is forgotten, and nothing else (I4) */

static void
session_log_limits(unsigned kept, unsigned (*peers)(void))
{
    int                 used;
    unsigned            i, unit, sum;
    const char *const  *key;

    static const struct {
        unsigned     server;
        const char  *name;
        const char  *keys[3];
    } limits[] = {
        { 1, "user", { "alice", "bob@one.test", NULL } },
        { 5, "client", { "192.0.2.1", NULL, NULL } }
    };

    for (i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {

        if (limits[i].server == session_setup.server) {
            break;
        }
    }

    if (i == sizeof(limits) / sizeof(limits[0])) {
        return;
    }

    for (unit = 0; unit < 2; unit++) {

        sum = 0;

        for (key = limits[i].keys; *key; key++) {

            used = session_nginx_used(limits[i].name, *key, unit, peers);

            if (used == -1) {
                return;
            }

            sum += (unsigned) used;
        }

        if (sum != (unit ? session_log_recipients(1) : kept)) {
            SESSION_DIE("I4: %u %s are counted, other than logged:\n%s", sum,
                        unit ? "recipients" : "messages", session_lines);
        }
    }
}


/* of accepted messages, and of those that may be */

static unsigned
session_log_recipients(unsigned unknown)
{
    char      *p, *end;
    unsigned   n;

    for (n = 0, p = session_lines; *p; p = end + 1) {

        end = strchr(p, '\n');
        *end = '\0';

        if (strstr(p, "\"outcome\":\"accepted\"")
            || strstr(p, "\"outcome\":\"delivered_unacked\"")
            || (unknown && strstr(p, "\"outcome\":\"unknown\"")))
        {
            n += (unsigned) strtoul(strstr(p, "\"recipients\":") + 13, NULL,
                                    10);
        }

        *end = '\n';
    }

    return n;
}


static unsigned
session_log_outcomes(const char *outcome)
{
    char      *p, text[64];
    unsigned   n;

    sprintf(text, "\"outcome\":\"%s\"", outcome);

    for (n = 0, p = session_lines; (p = strstr(p, text)) != NULL; p++) {
        n++;
    }

    return n;
}
