
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_cluster.h"
#include "tap.h"


#define ID     "07c37dfeb235213a872192d90877d0cd55635b91"
#define STATE  " - 0 1426238316232 2 connected"


/* "host|port|epoch|usable|slots", a line each; "BAD" ends it */

static const struct {
    const char  *text;
    const char  *nodes;
} nodes[] = {

    /* as Redis has it, 7.0 and 3.0 */

    { ID " 127.0.0.1:30004@31004,hostname4 slave " ID " 0 1426238317239 4"
          " connected\n"
      ID " 127.0.0.1:30002@31002,hostname2 master - 0 1426238316232 2"
          " connected 5461-10922\n"
      ID " 127.0.0.1:30001@31001,,shard-id=" ID " myself,master - 0 0 17"
          " connected 0-5460 10923 16383\n",
      "127.0.0.1|30004|4|0|\n"
      "127.0.0.1|30002|2|1|5461-10922\n"
      "127.0.0.1|30001|17|1|0-5460,10923-10923,16383-16383\n" },

    { ID " 10.0.0.1:7000 master - 0 1 18446744073709551615 connected 7",
      "10.0.0.1|7000|18446744073709551615|1|7-7\n" },

    /* addresses */

    { ID " 2001:db8::1:7000@17000 master" STATE " 1\n",
      "2001:db8::1|7000|2|1|1-1\n" },
    { ID " :7000@17000 myself,master" STATE " 1\n", "|7000|2|1|1-1\n" },
    { ID " host.example:7000@17000 master" STATE " 1\n",
      "host.example|7000|2|1|1-1\n" },
    { ID " 10.0.0.1:0@0 master" STATE " 1\n", "10.0.0.1|0|2|0|1-1\n" },
    { ID " 10.0.0.1:65535@0 master" STATE "\n", "10.0.0.1|65535|2|1|\n" },
    { ID " 10.0.0.1:65536@0 master" STATE "\n", "BAD" },
    { ID " 10.0.0.1 master" STATE "\n", "BAD" },
    { ID " 10.0.0.1: master" STATE "\n", "BAD" },
    { ID " 10.0.0.1:x@1 master" STATE "\n", "BAD" },
    { ID " @1 master" STATE "\n", "BAD" },

    /* flags */

    { ID " 10.0.0.1:1@1 myself,master,fail" STATE " 1\n",
      "10.0.0.1|1|2|1|1-1\n" },
    { ID " 10.0.0.1:1@1 master,fail?" STATE " 1\n", "10.0.0.1|1|2|1|1-1\n" },
    { ID " 10.0.0.1:1@1 master,noaddr" STATE " 1\n", "10.0.0.1|1|2|0|1-1\n" },
    { ID " 10.0.0.1:1@1 noaddr,master" STATE " 1\n", "10.0.0.1|1|2|0|1-1\n" },
    { ID " 10.0.0.1:1@1 master,handshake" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 handshake" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 slave,nofailover" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 noflags" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 masters" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 maste" STATE "\n", "10.0.0.1|1|2|0|\n" },
    { ID " 10.0.0.1:1@1 ,master," STATE "\n", "10.0.0.1|1|2|1|\n" },

    /* slots */

    { ID " 10.0.0.1:1@1 master" STATE " 1 [93-<-" ID "] 3 [77->-" ID "]\n",
      "10.0.0.1|1|2|1|1-1,3-3\n" },
    { ID " 10.0.0.1:1@1 master" STATE " [93-<-" ID "]\n",
      "10.0.0.1|1|2|1|\n" },
    { ID " 10.0.0.1:1@1 master" STATE "  1  2-3 \n",
      "10.0.0.1|1|2|1|1-1,2-3\n" },
    { ID " 10.0.0.1:1@1 master" STATE " 0-16383\n",
      "10.0.0.1|1|2|1|0-16383\n" },
    { ID " 10.0.0.1:1@1 master" STATE " 3-3\n", "10.0.0.1|1|2|1|3-3\n" },
    { ID " 10.0.0.1:1@1 master" STATE " 1 16384\n",
      "10.0.0.1|1|2|1|1-1,BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " 1-16384\n", "10.0.0.1|1|2|1|BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " 2-1\n", "10.0.0.1|1|2|1|BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " 2-\n", "10.0.0.1|1|2|1|BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " -2\n", "10.0.0.1|1|2|1|BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " 1-2-3\n", "10.0.0.1|1|2|1|BAD" },
    { ID " 10.0.0.1:1@1 master" STATE " x\n", "10.0.0.1|1|2|1|BAD" },

    /* lines */

    { "", "" },
    { "\n\n", "" },
    { "\n" ID " 10.0.0.1:1@1 master" STATE "\n\n", "10.0.0.1|1|2|1|\n" },
    { ID " 10.0.0.1:1@1 master - 0 0 2\n", "BAD" },
    { ID " 10.0.0.1:1@1 master - 0 0  connected\n", "BAD" },
    { ID " 10.0.0.1:1@1 master - 0 0 -1 connected\n", "BAD" },
    { ID " 10.0.0.1:1@1 master - 0 0 18446744073709551616 connected\n",
      "BAD" },
    { ID "\n", "BAD" },
    { " \n", "BAD" },
    { "x", "BAD" },
    { ID " 10.0.0.1:1@1 master" STATE "\nx\n", "10.0.0.1|1|2|1|\nBAD" }
};


static const struct {
    const char  *text;
    int          rc;
    unsigned     slot;
    const char  *host;
    unsigned     port;
} moves[] = {
    { "3999 127.0.0.1:6381", MPOL_OK, 3999, "127.0.0.1", 6381 },
    { "0 ::1:6381", MPOL_OK, 0, "::1", 6381 },
    { "16383 :6381", MPOL_OK, 16383, "", 6381 },
    { "1 host.example:65535", MPOL_OK, 1, "host.example", 65535 },
    { "1 ?:7000", MPOL_OK, 1, "?", 7000 },

    { "16384 127.0.0.1:6381", MPOL_BAD, 0, "", 0 },
    { "-1 127.0.0.1:6381", MPOL_BAD, 0, "", 0 },
    { "x 127.0.0.1:6381", MPOL_BAD, 0, "", 0 },
    { " 127.0.0.1:6381", MPOL_BAD, 0, "", 0 },
    { "1 127.0.0.1", MPOL_BAD, 0, "", 0 },
    { "1 127.0.0.1:", MPOL_BAD, 0, "", 0 },
    { "1 127.0.0.1:0", MPOL_BAD, 0, "", 0 },
    { "1 127.0.0.1:65536", MPOL_BAD, 0, "", 0 },
    { "1 127.0.0.1:6381 ", MPOL_BAD, 0, "", 0 },
    { "1  127.0.0.1:6381 x", MPOL_BAD, 0, "", 0 },
    { "1", MPOL_BAD, 0, "", 0 },
    { "1 ", MPOL_BAD, 0, "", 0 },
    { "", MPOL_BAD, 0, "", 0 }
};


/* all that is found, as text */

static size_t
render(mpol_str_t text, char *out, size_t size)
{
    int                  rc;
    size_t               n;
    unsigned             first, last;
    const char          *comma;
    mpol_cluster_node_t  node;

    n = 0;

    while ((rc = mpol_cluster_node(&text, &node)) == MPOL_OK) {

        n += (size_t) snprintf(out + n, size - n, "%.*s|%u|%llu|%u|",
                               (int) node.host.len,
                               (const char *) node.host.data,
                               (unsigned) node.port,
                               (unsigned long long) node.epoch,
                               (unsigned) node.usable);
        comma = "";

        while ((rc = mpol_cluster_slots(&node, &first, &last)) == MPOL_OK) {
            n += (size_t) snprintf(out + n, size - n, "%s%u-%u", comma, first,
                                   last);
            comma = ",";
        }

        if (rc == MPOL_BAD) {
            n += (size_t) snprintf(out + n, size - n, "%sBAD", comma);
            return n;
        }

        n += (size_t) snprintf(out + n, size - n, "\n");
    }

    if (rc == MPOL_BAD) {
        n += (size_t) snprintf(out + n, size - n, "BAD");
    }

    return n;
}


static void
test_nodes(size_t i)
{
    char        out[1024];
    size_t      n, len;
    uint8_t    *p;
    mpol_str_t  text;

    len = strlen(nodes[i].text);
    p = tap_exact(nodes[i].text, len);

    text.data = p;
    text.len = len;

    n = render(text, out, sizeof(out));

    is_mem(out, n, nodes[i].nodes, strlen(nodes[i].nodes), "nodes %lu '%s'",
           (unsigned long) i, nodes[i].text);

    free(p);
}


/* a text that ends early reads nothing behind it */

static void
test_cut(size_t i)
{
    char        out[1024];
    size_t      n, len;
    uint8_t    *p;
    mpol_str_t  text;

    for (len = strlen(nodes[i].text); len > 0; len--) {
        p = tap_exact(nodes[i].text, len);

        text.data = p;
        text.len = len;
        n = render(text, out, sizeof(out));

        free(p);

        if (n >= sizeof(out)) {
            break;
        }
    }

    is_u64(len, 0, "nodes %lu, cut at each octet", (unsigned long) i);
}


static void
test_moved(size_t i)
{
    int                    rc;
    size_t                 len;
    uint8_t               *p;
    mpol_cluster_moved_t   moved;

    len = strlen(moves[i].text);
    p = tap_exact(moves[i].text, len);

    rc = mpol_cluster_moved(p, len, &moved);

    if (ok(rc == moves[i].rc, "moved '%s'", moves[i].text) && rc == MPOL_OK) {
        is_u64(moved.slot, moves[i].slot, "  slot");
        is_u64(moved.port, moves[i].port, "  port");
        is_mem(moved.host.data, moved.host.len, moves[i].host,
               strlen(moves[i].host), "  host");
    }

    free(p);
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        test_nodes(i);
        test_cut(i);
    }

    for (i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        test_moved(i);
    }

    return done_testing();
}
