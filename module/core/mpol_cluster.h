
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the nodes of a Redis Cluster say of it: the answer to CLUSTER NODES,
 * and the errors MOVED and ASK.
 *
 *     line  = id SP addr SP flags SP id SP time SP time SP epoch SP state
 *             *( SP slots ) LF
 *     addr  = host ":" port [ "@" port *( "," text ) ]
 *     slots = number [ "-" number ] / "[" text "]"
 *
 * The host is an address, IPv6 without brackets, or empty: a node that does
 * not know its own, so the one that it was asked at.  The port is 0 if there
 * is none.  Slots in brackets are on their way, and still the node's.
 *
 *     moved = slot SP host ":" port         behind "MOVED " or "ASK "
 *
 * Slices point into the text.  Nothing here looks up names.
 */


#ifndef MPOL_CLUSTER_H
#define MPOL_CLUSTER_H


#include "mpol.h"


#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif


#define MPOL_CLUSTER_NONE  1            /* no more */


typedef struct {
    mpol_str_t  host;
    uint16_t    port;
    uint64_t    epoch;                  /* of its slots: a later one is true */
    mpol_str_t  slots;
    unsigned    usable:1;               /* a master with an address */
} mpol_cluster_node_t;


typedef struct {
    unsigned    slot;
    mpol_str_t  host;
    uint16_t    port;
} mpol_cluster_moved_t;


/*
 * The next line of the text, which is taken from it.  Returns MPOL_OK,
 * MPOL_CLUSTER_NONE at the end of the text, MPOL_BAD.
 */
int mpol_cluster_node(mpol_str_t *text, mpol_cluster_node_t *node);

/*
 * The next slots of a node, which are taken from node->slots.  Returns
 * MPOL_OK with first <= last < MPOL_SLOTS, MPOL_CLUSTER_NONE, MPOL_BAD.
 */
int mpol_cluster_slots(mpol_cluster_node_t *node, unsigned *first,
    unsigned *last);

/* what follows the error's code and a space: MPOL_OK, MPOL_BAD */
int mpol_cluster_moved(const uint8_t *p, size_t len,
    mpol_cluster_moved_t *moved);


#if defined(__GNUC__)
#pragma GCC visibility pop
#endif


#endif /* MPOL_CLUSTER_H */
