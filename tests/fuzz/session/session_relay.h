
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* a connection to a relay, as the relay has it */


#ifndef SESSION_RELAY_H
#define SESSION_RELAY_H


#include "session.h"


#define SESSION_LINE      4096
#define SESSION_PENDING   512


/* commands, and the letters of session_relay_override() */
typedef enum {
    SESSION_GREETING = 0,
    SESSION_EHLO,
    SESSION_XCLIENT,
    SESSION_MAIL,
    SESSION_RCPT,
    SESSION_DATA,
    SESSION_BDAT,
    SESSION_LAST,                       /* BDAT n LAST, all of it */
    SESSION_DOT,                        /* the end of DATA */
    SESSION_RSET,
    SESSION_NOOP,
    SESSION_QUIT,
    SESSION_COMMANDS
} session_command_e;


/* octets of a relay's EHLO: keyword, bit of session_setup.extensions */
typedef struct {
    const char  *keyword;
    unsigned     flag;
} session_extension_t;


typedef struct {
    int          fd;
    size_t       hangs;                 /* octets that keep nginx from having
                                           connected */

    /* from the module */

    uint8_t      line[SESSION_LINE];
    size_t       line_len;
    unsigned     body;                  /* a message is coming in */
    unsigned     chunk;                 /* BDAT: octets to come */
    unsigned     last;                  /* BDAT: it is the last one */
    unsigned     chunked;               /* the message is of these */
    unsigned     binary;                /* BODY=BINARYMIME */
    uint8_t     *message;
    size_t       message_len;
    size_t       message_size;

    /* to the module */

    uint8_t      reply[SESSION_LINE];
    size_t       reply_len;
    char         code[4];               /* of a reply that goes on */
    unsigned     broken;                /* not SMTP: anything goes */
    unsigned     offered;
    unsigned     recipients;            /* said 2xx to, of this message */
    unsigned     finished;              /* nothing more is sent */

    uint8_t      pending[SESSION_PENDING];
    unsigned     npending;
} session_relay_t;


typedef struct {
    const char  *verb;
    char         letter;
    const char  *reply;
} session_verb_t;


extern const session_verb_t  session_commands[SESSION_COMMANDS];


/* 1 if something came, the end included */
unsigned session_relay_read(session_relay_t *r);

/* the command waits for its reply */
void session_relay_push(session_relay_t *r, session_command_e cmd);

/* what there is of a message has to be right (SMUG) */
void session_relay_message(session_relay_t *r);

void session_relay_free(session_relay_t *r);


#endif /* SESSION_RELAY_H */
