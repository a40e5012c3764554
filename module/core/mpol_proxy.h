
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The header of the PROXY protocol, version 2, as HAProxy's proxy-protocol.txt
 * section 2.2 has it: a signature, version and command, family, the length of
 * what follows, and addresses and ports in network order.  No TLVs.
 *
 *     LOCAL   the connection is the sender's own: no addresses
 *     PROXY   on behalf of a client over TCP
 */


#ifndef MPOL_PROXY_H
#define MPOL_PROXY_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_PROXY_MAX    52            /* octets of a header */


typedef struct {
    unsigned        family;             /* 4, 6; 0: LOCAL, no more is read */
    const uint8_t  *source;             /* 4 or 16 octets */
    const uint8_t  *destination;
    unsigned        source_port;
    unsigned        destination_port;
} mpol_proxy_t;


/* writes a header into out, of MPOL_PROXY_MAX octets; returns its length */
size_t mpol_proxy_v2(const mpol_proxy_t *proxy, uint8_t *out);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_PROXY_H */
