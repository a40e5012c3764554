
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a service of nginx' "auth_http" answers: the head of an HTTP reply.
 *
 *     head        = status-line *( field EOL ) EOL
 *     status-line = "HTTP/1." DIGIT SP 3DIGIT [ SP *text ] EOL
 *     field       = name ":" OWS *text OWS
 *     name        = 1*tchar                       RFC 9110 section 5.6.2
 *     EOL         = [ CR ] LF
 *
 * text is any octet but NUL, CR and LF; OWS are spaces and TABs.  A line that
 * continues the one before it (obs-fold) is refused, and so is white space in
 * front of the colon.
 *
 * Fields that are known:
 *
 *     Auth-Status  Auth-Server  Auth-Port  Auth-User  Auth-Pass  Auth-Wait
 *     Auth-Error-Code  Auth-Error-SASL
 *     Content-Length  Transfer-Encoding  Connection
 *
 * Names have no case.  Of one that stands there twice the last one holds, but
 * an Auth-Status that refuses is not taken back by another one.  A field
 * without value counts as one that is not there.
 */


#ifndef MPOL_AUTH_HTTP_H
#define MPOL_AUTH_HTTP_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


typedef enum {
    MPOL_AUTH_HTTP_STATUS = 0,
    MPOL_AUTH_HTTP_SERVER,
    MPOL_AUTH_HTTP_PORT,
    MPOL_AUTH_HTTP_USER,
    MPOL_AUTH_HTTP_PASS,
    MPOL_AUTH_HTTP_WAIT,
    MPOL_AUTH_HTTP_ERROR_CODE,
    MPOL_AUTH_HTTP_ERROR_SASL,
    MPOL_AUTH_HTTP_FIELDS
} mpol_auth_http_field_e;


/* what mpol_auth_http_verdict() says besides MPOL_OK and MPOL_BAD */
#define MPOL_AUTH_HTTP_REFUSED  1

/* "535 5.7.8", at its longest "535 5.123.123" */
#define MPOL_AUTH_HTTP_CODE     13


typedef struct {
    size_t    pos;                      /* octets of lines that were read; of
                                           the whole head in the end */
    size_t    scanned;                  /* no LF between pos and here */

    unsigned  status;                   /* 100 .. 599; 0: not read yet */
    uint64_t  length;                   /* Content-Length; 0: none */

    struct {
        size_t  pos;
        size_t  len;
    } fields[MPOL_AUTH_HTTP_FIELDS];

    unsigned  persistent:1;             /* HTTP/1.1, or it said so */
    unsigned  close:1;
    unsigned  has_length:1;
    unsigned  unframed:1;               /* where its body ends is unknown */
} mpol_auth_http_t;                     /* all zeroes to begin with */


/*
 * Takes buf[0 .. len), all that was received so far.  Returns MPOL_OK when
 * the head is complete (st->pos octets), MPOL_AGAIN, or MPOL_BAD; it is not
 * to be called again then, but behind MPOL_AGAIN.  What was shown once is
 * expected to be the same the next time, though it may have moved.  The
 * caller bounds len.
 */
int mpol_auth_http_parse(mpol_auth_http_t *st, const uint8_t *buf,
    size_t len);

/* a field's value, a slice of buf; len 0: it is not there */
mpol_str_t mpol_auth_http_field(const mpol_auth_http_t *st,
    const uint8_t *buf, mpol_auth_http_field_e field);

/* 1 if it is what Auth-Status says of a login that is right: "OK" */
int mpol_auth_http_ok(const mpol_str_t *value);

/*
 * Of a complete head: MPOL_OK if the login is right, which takes a status of
 * 2xx and an Auth-Status of "OK"; MPOL_AUTH_HTTP_REFUSED with any other
 * Auth-Status, where 401 and 403 do, too; else MPOL_BAD.
 */
int mpol_auth_http_verdict(const mpol_auth_http_t *st, const uint8_t *buf);

/*
 * Of a complete head: 1 if the connection can be used again behind the body,
 * which is st->length octets then, 0 if not
 */
int mpol_auth_http_persistent(const mpol_auth_http_t *st);

/*
 * Auth-Error-Code for a reply to a client:
 *
 *     value = code [ SP class "." 1*3DIGIT "." 1*3DIGIT ]
 *     code  = ( "4" / "5" ) "0" .. "5" DIGIT
 *
 * The class is the code's first digit.  Writes the value to out, with an
 * enhanced code where it has none, and returns its length; 0: it is no code.
 */
size_t mpol_auth_http_code(const mpol_str_t *value,
    uint8_t out[MPOL_AUTH_HTTP_CODE]);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_AUTH_HTTP_H */
