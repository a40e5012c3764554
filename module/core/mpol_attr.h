
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Requests of Postfix's policy delegation protocol (SMTPD_POLICY_README), to
 * be read and to be written.
 *
 *     request   = *attribute LF
 *     attribute = name "=" value LF
 *
 * A value may have any octet in it but NUL and LF.  Of attributes of the same
 * name the first one counts; unknown ones are passed over.  Bounds: a line of
 * MPOL_ATTR_LINE octets with its LF, MPOL_ATTR_COUNT attributes,
 * MPOL_ATTR_REQUEST octets in all.
 *
 * Answers are
 *
 *     "action=" action [ SP text ] LF LF
 */


#ifndef MPOL_ATTR_H
#define MPOL_ATTR_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_ATTR_LINE      4096
#define MPOL_ATTR_COUNT     128
#define MPOL_ATTR_REQUEST   65536
#define MPOL_ATTR_NUMBER    ((uint64_t) 1 << 40)

/* positive errors: nothing of the request can be relied on */
#define MPOL_ATTR_E_LINE    1           /* a line is too long */
#define MPOL_ATTR_E_COUNT   2           /* too many attributes */
#define MPOL_ATTR_E_SIZE    3           /* too many octets */
#define MPOL_ATTR_E_NUL     4           /* a NUL */
#define MPOL_ATTR_E_SYNTAX  5           /* a line without "=", or a name */


typedef enum {
    MPOL_ATTR_REQUEST_TYPE = 0,         /* "request" */
    MPOL_ATTR_STATE,                    /* "protocol_state" */
    MPOL_ATTR_PROTOCOL,                 /* "protocol_name" */
    MPOL_ATTR_INSTANCE,
    MPOL_ATTR_CLIENT_ADDRESS,
    MPOL_ATTR_CLIENT_PORT,
    MPOL_ATTR_CLIENT_NAME,
    MPOL_ATTR_SERVER_ADDRESS,
    MPOL_ATTR_SERVER_PORT,
    MPOL_ATTR_HELO_NAME,
    MPOL_ATTR_SENDER,
    MPOL_ATTR_RECIPIENT,
    MPOL_ATTR_RECIPIENT_COUNT,
    MPOL_ATTR_SIZE,
    MPOL_ATTR_SASL_METHOD,
    MPOL_ATTR_SASL_USERNAME,
    MPOL_ATTR_ENCRYPTION,               /* "encryption_protocol" */
    MPOL_ATTR_KNOWN                     /* how many these are */
} mpol_attr_e;


/* how far a request has been looked at: zero it before each one */
typedef struct {
    size_t      pos;
    size_t      line;                   /* where the current line begins */
    unsigned    count;
    unsigned    equals:1;               /* the current line has a "=" */
} mpol_attr_t;


/*
 * Looks for the end of the request that p begins with.  May be called again
 * with more octets of the same request, wherever they lie.  MPOL_OK: a->pos
 * octets are the request; MPOL_AGAIN: more is needed; or an error.
 */
int mpol_attr_scan(mpol_attr_t *a, const uint8_t *p, size_t len);

/*
 * The known attributes of a request that scan() has found: slices of p, with
 * data NULL for those that are missing.
 */
void mpol_attr_parse(const uint8_t *p, size_t len,
    mpol_str_t values[MPOL_ATTR_KNOWN]);

/*
 * The first attribute of that name in what scan() has found.  MPOL_OK with
 * *value, a slice of p, or MPOL_BAD: there is none.
 */
int mpol_attr_get(const uint8_t *p, size_t len, const char *name, size_t n,
    mpol_str_t *value);

#define mpol_attr_find(p, len, name, value)                                  \
    mpol_attr_get(p, len, "" name, sizeof(name) - 1, value)

/*
 * For who asks: puts an attribute at p, the octets up to end are free; the
 * name is shorter than MPOL_ATTR_LINE - 1.  Controls, which no value may
 * have, become "?", and of a value that does not fit into a line the end is
 * left out.  Returns where the next one goes, or NULL: no room; with p NULL
 * it is NULL again, so that the last call tells.
 */
uint8_t *mpol_attr_write(uint8_t *p, uint8_t *end, const char *name, size_t n,
    const mpol_str_t *value);

#define mpol_attr_put(p, end, name, value)                                   \
    mpol_attr_write(p, end, "" name, sizeof(name) - 1, value)

/* the empty line at the end of a request, likewise */
uint8_t *mpol_attr_end(uint8_t *p, uint8_t *end);

/* a decimal number, MPOL_ATTR_NUMBER if it is larger; 0 if it is none */
uint64_t mpol_attr_number(const mpol_str_t *value);

/* what is wrong, for a log */
const char *mpol_attr_error(int rc);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_ATTR_H */
