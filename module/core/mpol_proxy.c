
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_proxy.h"


#define MPOL_PROXY_HEAD   16

#define MPOL_PROXY_LOCAL  0x20
#define MPOL_PROXY_PROXY  0x21

#define MPOL_PROXY_TCP4   0x11
#define MPOL_PROXY_TCP6   0x21


static uint8_t *mpol_proxy_port(uint8_t *p, unsigned port);


size_t
mpol_proxy_v2(const mpol_proxy_t *proxy, uint8_t *out)
{
    size_t    len;
    uint8_t  *p;

    static const uint8_t  signature[] = {
        0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a
    };

    memcpy(out, signature, sizeof(signature));
    memset(out + sizeof(signature), 0, MPOL_PROXY_HEAD - sizeof(signature));

    out[12] = MPOL_PROXY_LOCAL;

    if (proxy->family != 4 && proxy->family != 6) {
        return MPOL_PROXY_HEAD;
    }

    len = (proxy->family == 4) ? 4 : 16;

    out[12] = MPOL_PROXY_PROXY;
    out[13] = (proxy->family == 4) ? MPOL_PROXY_TCP4 : MPOL_PROXY_TCP6;
    out[15] = (uint8_t) (2 * len + 4);

    p = out + MPOL_PROXY_HEAD;

    memcpy(p, proxy->source, len);
    memcpy(p + len, proxy->destination, len);

    p = mpol_proxy_port(p + 2 * len, proxy->source_port);
    p = mpol_proxy_port(p, proxy->destination_port);

    return (size_t) (p - out);
}


static uint8_t *
mpol_proxy_port(uint8_t *p, unsigned port)
{
    *p++ = (uint8_t) ((port >> 8) & 0xff);
    *p++ = (uint8_t) (port & 0xff);

    return p;
}
