
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_proxy.h"
#include "tap.h"


#define SIGNATURE  "\r\n\r\n\0\r\nQUIT\n"


static const uint8_t  v4[] = { 192, 0, 2, 1, 198, 51, 100, 2 };

static const uint8_t  v6[] = {
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2
};


static void
header(const char *name, const mpol_proxy_t *proxy, const void *want,
    size_t len)
{
    size_t    n;
    uint8_t  *out;

    out = malloc(MPOL_PROXY_MAX);
    if (out == NULL) {
        abort();
    }

    n = mpol_proxy_v2(proxy, out);
    is_mem(out, n, want, len, "%s", name);

    free(out);
}


int
main(void)
{
    mpol_proxy_t  proxy;

    static const char  local[] = SIGNATURE "\x20\0\0\0";

    static const char  tcp4[] = SIGNATURE "\x21\x11\0\x0c"
        "\xc0\0\x02\x01" "\xc6\x33\x64\x02" "\xff\xff" "\0\x19";

    static const char  tcp6[] = SIGNATURE "\x21\x21\0\x24"
        "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
        "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02" "\x12\x34" "\x02\x4b";

    memset(&proxy, 0, sizeof(proxy));
    header("nobody's", &proxy, local, sizeof(local) - 1);

    proxy.family = 5;
    header("a family that there is none of", &proxy, local,
           sizeof(local) - 1);

    proxy.family = 4;
    proxy.source = v4;
    proxy.destination = v4 + 4;
    proxy.source_port = 65535;
    proxy.destination_port = 25;
    header("IPv4", &proxy, tcp4, sizeof(tcp4) - 1);

    proxy.family = 6;
    proxy.source = v6;
    proxy.destination = v6 + 16;
    proxy.source_port = 0x1234;
    proxy.destination_port = 587;
    header("IPv6", &proxy, tcp6, sizeof(tcp6) - 1);

    ok(sizeof(tcp6) - 1 == MPOL_PROXY_MAX, "the longest one");

    return done_testing();
}
