
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The choice by a key, or by chance, as nginx does it: one that cannot be
 * chosen now is stepped over, and after twenty steps it is round robin's
 * turn.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_balance.h"


#define NGX_MAIL_POLICY_BALANCE_TRIES  20


static ngx_uint_t ngx_mail_policy_balance_by_turns(
    ngx_mail_policy_balance_t *b);
static ngx_mail_policy_peer_t *ngx_mail_policy_balance_hash_peer(
    ngx_mail_policy_balance_t *b);
static ngx_mail_policy_server_t *ngx_mail_policy_balance_point(
    ngx_mail_policy_balance_t *b);
static ngx_uint_t ngx_mail_policy_balance_serves(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_server_t *server);
static ngx_mail_policy_peer_t *ngx_mail_policy_balance_at(
    ngx_mail_policy_upstream_t *upstream, uint64_t place);
static uint64_t ngx_mail_policy_balance_total(
    ngx_mail_policy_upstream_t *upstream);


ngx_mail_policy_peer_t *
ngx_mail_policy_balance_hash(ngx_mail_policy_balance_t *b)
{
    ngx_mail_policy_peer_t  *peer;

    peer = ngx_mail_policy_balance_hash_peer(b);

    return peer ? peer : ngx_mail_policy_balance_round_robin(b, 0, NULL);
}


ngx_mail_policy_peer_t *
ngx_mail_policy_balance_consistent(ngx_mail_policy_balance_t *b)
{
    /* NULL is all of them */

    return ngx_mail_policy_balance_round_robin(b, 0,
                                         ngx_mail_policy_balance_point(b));
}


ngx_uint_t
ngx_mail_policy_balance_hashed(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer)
{
    if (b->upstream->present < 2 || b->key.len == 0) {
        return 1;
    }

    if (b->upstream->method == NGX_MAIL_POLICY_HASH) {
        return ngx_mail_policy_balance_hash_peer(b) == peer;
    }

    return ngx_mail_policy_balance_point(b) == peer->server;
}


/* no key is no reason to go to one of them always */

static ngx_uint_t
ngx_mail_policy_balance_by_turns(ngx_mail_policy_balance_t *b)
{
    return b->tries > NGX_MAIL_POLICY_BALANCE_TRIES
           || b->upstream->present < 2;
}


static ngx_mail_policy_peer_t *
ngx_mail_policy_balance_hash_peer(ngx_mail_policy_balance_t *b)
{
    uint64_t                 total;
    ngx_mail_policy_peer_t  *peer;

    if (ngx_mail_policy_balance_by_turns(b) || b->key.len == 0) {
        return NULL;
    }

    total = ngx_mail_policy_balance_total(b->upstream);

    do {
        b->hash = mpol_hash_try(b->hash, b->rehash++, b->key.data,
                                b->key.len);

        peer = ngx_mail_policy_balance_at(b->upstream, b->hash % total);

        if (ngx_mail_policy_balance_usable(b, peer, 0)) {
            return peer;
        }

    } while (++b->tries <= NGX_MAIL_POLICY_BALANCE_TRIES);

    return NULL;
}


/* the server that has the next point */

static ngx_mail_policy_server_t *
ngx_mail_policy_balance_point(ngx_mail_policy_balance_t *b)
{
    mpol_point_t              *point;
    ngx_mail_policy_server_t  *server;

    if (ngx_mail_policy_balance_by_turns(b) || b->key.len == 0) {
        return NULL;
    }

    do {
        point = &b->upstream->points[b->hash % b->upstream->npoints];

        server = b->upstream->servers.elts;
        server += point->server;

        if (ngx_mail_policy_balance_serves(b, server)) {
            return server;
        }

        b->hash++;

    } while (++b->tries <= NGX_MAIL_POLICY_BALANCE_TRIES);

    return NULL;
}


static ngx_uint_t
ngx_mail_policy_balance_serves(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_server_t *server)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    for (i = 0; i < b->upstream->npeers; i++) {
        peer = b->upstream->peers[i];

        if (peer && peer->server == server
            && ngx_mail_policy_balance_usable(b, peer, 0))
        {
            return 1;
        }
    }

    return 0;
}


/* "two": of two that can be chosen, the one with fewer connections */

ngx_mail_policy_peer_t *
ngx_mail_policy_balance_random(ngx_mail_policy_balance_t *b)
{
    uint64_t                 total;
    ngx_mail_policy_peer_t  *peer, *first;

    if (ngx_mail_policy_balance_by_turns(b)) {
        return ngx_mail_policy_balance_round_robin(b, 0, NULL);
    }

    first = NULL;
    total = ngx_mail_policy_balance_total(b->upstream);

    do {
        peer = ngx_mail_policy_balance_at(b->upstream,
                                          (uint64_t) ngx_random() % total);

        if (peer == first || !ngx_mail_policy_balance_usable(b, peer, 0)) {
            continue;
        }

        if (b->upstream->method == NGX_MAIL_POLICY_RANDOM) {
            return peer;
        }

        if (first) {
            return ngx_mail_policy_balance_load(peer, first) > 0 ? first
                                                                 : peer;
        }

        first = peer;

    } while (++b->tries <= NGX_MAIL_POLICY_BALANCE_TRIES);

    return ngx_mail_policy_balance_round_robin(b, 0, NULL);
}


/* where the weights of all, in their order, reach a place below their sum */

static ngx_mail_policy_peer_t *
ngx_mail_policy_balance_at(ngx_mail_policy_upstream_t *upstream,
    uint64_t place)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer == NULL) {
            continue;
        }

        if (place < (uint64_t) peer->server->weight) {
            return peer;
        }

        place -= peer->server->weight;
    }

    return NULL;
}


static uint64_t
ngx_mail_policy_balance_total(ngx_mail_policy_upstream_t *upstream)
{
    uint64_t                 total;
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    total = 0;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer) {
            total += peer->server->weight;
        }
    }

    return total;
}
