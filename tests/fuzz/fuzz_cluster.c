
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What a node of a cluster says: the first octet tells whether the rest is
 * the answer to CLUSTER NODES, an error behind its code, or a key.
 */


#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mpol_cluster.h"
#include "mpol_slot.h"


int  LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check_inside(const mpol_str_t *s, const uint8_t *p, size_t len)
{
    assert(s->data >= p && s->data <= p + len);
    assert(s->len <= (size_t) (p + len - s->data));
}


static void
check_slots(mpol_cluster_node_t *node, const uint8_t *p, size_t len)
{
    int       rc;
    size_t    left;
    unsigned  first, last;

    for ( ;; ) {
        left = node->slots.len;
        rc = mpol_cluster_slots(node, &first, &last);
        check_inside(&node->slots, p, len);

        if (rc != MPOL_OK) {
            assert(rc == MPOL_CLUSTER_NONE || rc == MPOL_BAD);
            return;
        }

        assert(node->slots.len < left);
        assert(first <= last && last < MPOL_SLOTS);
    }
}


static void
check_nodes(const uint8_t *p, size_t len)
{
    int                  rc;
    size_t               left;
    mpol_str_t           text;
    mpol_cluster_node_t  node;

    text.data = p;
    text.len = len;

    for ( ;; ) {
        left = text.len;
        rc = mpol_cluster_node(&text, &node);
        check_inside(&text, p, len);

        if (rc != MPOL_OK) {
            assert(rc == MPOL_CLUSTER_NONE || rc == MPOL_BAD);
            assert(rc == MPOL_BAD || text.len == 0);
            return;
        }

        assert(text.len < left);
        assert(!node.usable || node.port != 0);
        check_inside(&node.host, p, len);
        check_inside(&node.slots, p, len);
        assert(memchr(node.host.data, ' ', node.host.len) == NULL);
        assert(memchr(node.host.data, '\n', node.host.len) == NULL);
        check_slots(&node, p, len);
    }
}


static void
check_moved(const uint8_t *p, size_t len)
{
    mpol_cluster_moved_t  moved;

    if (mpol_cluster_moved(p, len, &moved) != MPOL_OK) {
        return;
    }

    assert(moved.slot < MPOL_SLOTS);
    assert(moved.port != 0);
    check_inside(&moved.host, p, len);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t   how, *p;
    unsigned  slot;

    if (size == 0) {
        return 0;
    }

    how = data[0];
    size--;

    p = malloc(size ? size : 1);
    memcpy(p, data + 1, size);

    switch (how) {

    case 'm':
        check_moved(p, size);
        break;

    case 'k':
        slot = mpol_slot(p, size);
        assert(slot < MPOL_SLOTS);
        break;

    default:
        check_nodes(p, size);
    }

    free(p);

    return 0;
}
