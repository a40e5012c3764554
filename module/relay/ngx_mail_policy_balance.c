
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The choice among the peers of a group.  No events arrive here.
 *
 * Backups are asked when no other is left.  If all are set aside, before any
 * was asked, they are taken to be well again: to refuse mail without having
 * asked anybody would be worse than to ask one that may be dead.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_mail.h>

#include "ngx_mail_policy_conf.h"
#include "ngx_mail_policy_balance.h"


static ngx_mail_policy_peer_t *ngx_mail_policy_balance_choose(
    ngx_mail_policy_balance_t *b);
static ngx_mail_policy_peer_t *ngx_mail_policy_balance_least_conn(
    ngx_mail_policy_balance_t *b, ngx_uint_t backup);
static ngx_uint_t ngx_mail_policy_balance_aside(
    ngx_mail_policy_peer_t *peer);
static ngx_uint_t ngx_mail_policy_balance_forget(
    ngx_mail_policy_upstream_t *upstream);
static void ngx_mail_policy_balance_take(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer);


ngx_int_t
ngx_mail_policy_balance_init(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_upstream_t *upstream, ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope)
{
    ngx_memzero(b, sizeof(ngx_mail_policy_balance_t));

    b->upstream = upstream;

    if (upstream->key == NULL) {
        return NGX_OK;
    }

    if (ngx_mail_policy_value_eval(pool, upstream->key, envelope, &b->key)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_mail_policy_balance_again(b);

    return NGX_OK;
}


void
ngx_mail_policy_balance_again(ngx_mail_policy_balance_t *b)
{
    ngx_mail_policy_upstream_t  *upstream;

    upstream = b->upstream;

    ngx_memzero(b->tried, sizeof(b->tried));

    b->asked = 0;
    b->tries = 0;
    b->rehash = 0;
    b->hash = 0;
    b->desperate = 0;

    if (upstream && upstream->method == NGX_MAIL_POLICY_CONSISTENT) {
        b->hash = mpol_points_find(upstream->points, upstream->npoints,
                                   mpol_crc32(0, b->key.data, b->key.len));
    }
}


ngx_mail_policy_peer_t *
ngx_mail_policy_balance_next(ngx_mail_policy_balance_t *b)
{
    ngx_mail_policy_peer_t  *peer;

    ngx_mail_policy_peer_lock(b->upstream->zone);

    peer = ngx_mail_policy_balance_choose(b);

    if (peer == NULL && b->asked == 0
        && ngx_mail_policy_balance_forget(b->upstream))
    {
        ngx_mail_policy_balance_again(b);
        b->desperate = 1;

        peer = ngx_mail_policy_balance_choose(b);
    }

    if (peer) {
        ngx_mail_policy_balance_take(b, peer);
    }

    ngx_mail_policy_peer_unlock(b->upstream->zone);

    return peer;
}


static ngx_mail_policy_peer_t *
ngx_mail_policy_balance_choose(ngx_mail_policy_balance_t *b)
{
    ngx_uint_t               backup;
    ngx_mail_policy_peer_t  *peer;

    peer = NULL;

    for (backup = 0; backup < 2 && peer == NULL; backup++) {

        switch (b->upstream->method) {

        case NGX_MAIL_POLICY_LEAST_CONN:
            peer = ngx_mail_policy_balance_least_conn(b, backup);
            break;

        case NGX_MAIL_POLICY_HASH:
            peer = ngx_mail_policy_balance_hash(b);
            break;

        case NGX_MAIL_POLICY_CONSISTENT:
            peer = ngx_mail_policy_balance_consistent(b);
            break;

        case NGX_MAIL_POLICY_RANDOM:
        case NGX_MAIL_POLICY_RANDOM_TWO:
            peer = ngx_mail_policy_balance_random(b);
            break;

        default:
            peer = ngx_mail_policy_balance_round_robin(b, backup, NULL);
        }
    }

    return peer;
}


/* of one server, or of all: NULL */

ngx_mail_policy_peer_t *
ngx_mail_policy_balance_round_robin(ngx_mail_policy_balance_t *b,
    ngx_uint_t backup, ngx_mail_policy_server_t *server)
{
    int64_t                       total;
    ngx_uint_t                    i;
    ngx_mail_policy_peer_t       *peer, *best;
    ngx_mail_policy_upstream_t   *upstream;

    best = NULL;
    total = 0;
    upstream = b->upstream;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (!ngx_mail_policy_balance_usable(b, peer, backup)
            || (server && peer->server != server))
        {
            continue;
        }

        mpol_turn_raise(&peer->state->turn, peer->server->weight,
                        ngx_mail_policy_balance_share(peer), &total);

        if (best == NULL
            || peer->state->turn.current > best->state->turn.current)
        {
            best = peer;
        }
    }

    if (best) {
        mpol_turn_take(&best->state->turn, total);
    }

    return best;
}


/* round robin among those that have the fewest */

static ngx_mail_policy_peer_t *
ngx_mail_policy_balance_least_conn(ngx_mail_policy_balance_t *b,
    ngx_uint_t backup)
{
    int                          cmp;
    int64_t                      total;
    ngx_uint_t                   i, many;
    ngx_mail_policy_peer_t      *peer, *best, *least;
    ngx_mail_policy_upstream_t  *upstream;

    many = 0;
    least = NULL;
    upstream = b->upstream;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (!ngx_mail_policy_balance_usable(b, peer, backup)) {
            continue;
        }

        cmp = least ? ngx_mail_policy_balance_load(peer, least) : -1;

        if (cmp < 0) {
            least = peer;
            many = 0;

        } else if (cmp == 0) {
            many = 1;
        }
    }

    if (!many) {
        return least;
    }

    best = NULL;
    total = 0;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (!ngx_mail_policy_balance_usable(b, peer, backup)
            || ngx_mail_policy_balance_load(peer, least) != 0)
        {
            continue;
        }

        mpol_turn_raise(&peer->state->turn, peer->server->weight,
                        ngx_mail_policy_balance_share(peer), &total);

        if (best == NULL
            || peer->state->turn.current > best->state->turn.current)
        {
            best = peer;
        }
    }

    mpol_turn_take(&best->state->turn, total);

    return best;
}


int
ngx_mail_policy_balance_load(ngx_mail_policy_peer_t *a,
    ngx_mail_policy_peer_t *b)
{
    return mpol_load_compare(a->state->conns,
                             a->server->weight
                             * ngx_max(ngx_mail_policy_balance_share(a), 1),
                             b->state->conns,
                             b->server->weight
                             * ngx_max(ngx_mail_policy_balance_share(b), 1));
}


ngx_uint_t
ngx_mail_policy_balance_usable(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer, ngx_uint_t backup)
{
    ngx_mail_policy_server_t      *server;
    ngx_mail_policy_peer_state_t  *state;

    if (peer == NULL
        || (b->tried[peer->index / 64]
            & ((uint64_t) 1 << (peer->index % 64))))
    {
        return 0;
    }

    state = peer->state;
    server = peer->server;

    if (server->down || server->backup != backup
        || (ngx_mail_policy_peer_unhealthy(peer) && !b->desperate))
    {
        return 0;
    }

    if (ngx_mail_policy_balance_aside(peer)) {
        return 0;
    }

    return server->max_conns == 0 || state->conns < server->max_conns;
}


static ngx_uint_t
ngx_mail_policy_balance_aside(ngx_mail_policy_peer_t *peer)
{
    ngx_mail_policy_server_t      *server;
    ngx_mail_policy_peer_state_t  *state;

    state = peer->state;
    server = peer->server;

    /* with one peer there is nothing to change over to */

    return peer->upstream->present > 1
           && server->max_fails
           && state->fails >= server->max_fails
           && ngx_time() - state->checked <= server->fail_timeout;
}


unsigned
ngx_mail_policy_balance_share(ngx_mail_policy_peer_t *peer)
{
    unsigned                       share;
    ngx_mail_policy_peer_state_t  *state;

    state = peer->state;

    if (state->slow_since == 0) {
        return MPOL_SHARE;
    }

    share = mpol_turn_share((ngx_msec_int_t) (ngx_current_msec
                                              - state->slow_since),
                            peer->server->slow_start);

    if (share == MPOL_SHARE) {
        state->slow_since = 0;
    }

    return share;
}


/* 1 if there was something to forget; who is but busy is well, and was asked */

static ngx_uint_t
ngx_mail_policy_balance_forget(ngx_mail_policy_upstream_t *upstream)
{
    ngx_uint_t               i, forgot;
    ngx_mail_policy_peer_t  *peer;

    forgot = 0;

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer && !peer->server->down
            && !ngx_mail_policy_peer_unhealthy(peer)
            && !ngx_mail_policy_balance_aside(peer))
        {
            return 0;
        }
    }

    for (i = 0; i < upstream->npeers; i++) {
        peer = upstream->peers[i];

        if (peer && (peer->state->fails
                     || ngx_mail_policy_peer_unhealthy(peer))) {
            peer->state->fails = 0;
            forgot = 1;
        }
    }

    return forgot;
}


static void
ngx_mail_policy_balance_take(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer)
{
    time_t                         now;
    ngx_mail_policy_peer_state_t  *state;

    now = ngx_time();
    state = peer->state;

    /* from now on the next check is fail_timeout away, for others too */

    if (now - state->checked > peer->server->fail_timeout) {
        state->checked = now;
    }

    ngx_mail_policy_balance_tried(b, peer);
    ngx_mail_policy_peer_acquire_locked(peer);
}


void
ngx_mail_policy_balance_tried(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer)
{
    uint64_t  bit, *tried;

    bit = (uint64_t) 1 << (peer->index % 64);
    tried = &b->tried[peer->index / 64];

    /* the place of one that has left may be another's */

    if (peer->gone || (*tried & bit)) {
        return;
    }

    *tried |= bit;
    b->asked++;
}


ngx_uint_t
ngx_mail_policy_balance_fits(ngx_mail_policy_balance_t *b,
    ngx_mail_policy_peer_t *peer)
{
    ngx_uint_t                 fits;
    ngx_mail_policy_balance_t  other;

    if (b->asked || peer->upstream != b->upstream || peer->gone
        || ngx_mail_policy_peer_unhealthy(peer))
    {
        return 0;
    }

    if (b->upstream->method != NGX_MAIL_POLICY_HASH
        && b->upstream->method != NGX_MAIL_POLICY_CONSISTENT)
    {
        return 1;
    }

    /* the connection that is there takes no other's place */

    other = *b;

    ngx_mail_policy_peer_lock(b->upstream->zone);

    peer->state->conns--;
    fits = ngx_mail_policy_balance_hashed(&other, peer);
    peer->state->conns++;

    ngx_mail_policy_peer_unlock(b->upstream->zone);

    return fits;
}


ngx_uint_t
ngx_mail_policy_balance_more(ngx_mail_policy_balance_t *b)
{
    ngx_uint_t               i;
    ngx_mail_policy_peer_t  *peer;

    for (i = 0; i < b->upstream->npeers; i++) {
        peer = b->upstream->peers[i];

        if (peer && !peer->server->down
            && !(b->tried[i / 64] & ((uint64_t) 1 << (i % 64))))
        {
            return 1;
        }
    }

    return 0;
}
