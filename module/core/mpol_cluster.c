
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_cluster.h"

#include "mpol_slot.h"
#include "mpol_word.h"

#include <string.h>


#define MPOL_CLUSTER_WORDS  8           /* in front of the slots: id, addr, */
#define MPOL_CLUSTER_EPOCH  6           /* flags, id, 2 times, epoch, state */


static void mpol_cluster_word(mpol_str_t *text, mpol_str_t *word,
    uint8_t end);
static int mpol_cluster_addr(mpol_str_t *addr, mpol_str_t *host,
    uint16_t *port);
static int mpol_cluster_number(const mpol_str_t *s, uint64_t max,
    uint64_t *n);
static int mpol_cluster_master(mpol_str_t *flags);


int
mpol_cluster_node(mpol_str_t *text, mpol_cluster_node_t *node)
{
    int         master;
    unsigned    i;
    mpol_str_t  line, word[MPOL_CLUSTER_WORDS];

    do {
        if (text->len == 0) {
            return MPOL_CLUSTER_NONE;
        }

        mpol_cluster_word(text, &line, '\n');

    } while (line.len == 0);

    for (i = 0; i < MPOL_CLUSTER_WORDS; i++) {
        mpol_cluster_word(&line, &word[i], ' ');

        if (word[i].len == 0) {
            return MPOL_BAD;
        }
    }

    if (mpol_cluster_addr(&word[1], &node->host, &node->port) != MPOL_OK
        || mpol_cluster_number(&word[MPOL_CLUSTER_EPOCH], UINT64_MAX,
                               &node->epoch)
           != MPOL_OK)
    {
        return MPOL_BAD;
    }

    master = mpol_cluster_master(&word[2]);

    node->usable = master && node->port != 0;
    node->slots = line;

    return MPOL_OK;
}


/* what is in front of the first "end", or all, is taken from the text */

static void
mpol_cluster_word(mpol_str_t *text, mpol_str_t *word, uint8_t end)
{
    const uint8_t  *p;

    word->data = text->data;

    p = text->len ? memchr(text->data, end, text->len) : NULL;

    if (p == NULL) {
        word->len = text->len;
        text->data += text->len;
        text->len = 0;
        return;
    }

    word->len = (size_t) (p - text->data);
    text->data += word->len + 1;
    text->len -= word->len + 1;
}


/* the port is behind the last colon: IPv6 has many */

static int
mpol_cluster_addr(mpol_str_t *addr, mpol_str_t *host, uint16_t *port)
{
    size_t      i;
    uint64_t    n;
    mpol_str_t  before, number;

    mpol_cluster_word(addr, &before, '@');

    for (i = before.len; i > 0 && before.data[i - 1] != ':'; i--) {
        /* void */
    }

    if (i == 0) {
        return MPOL_BAD;
    }

    host->data = before.data;
    host->len = i - 1;

    number.data = before.data + i;
    number.len = before.len - i;

    if (mpol_cluster_number(&number, 65535, &n) != MPOL_OK) {
        return MPOL_BAD;
    }

    *port = (uint16_t) n;

    return MPOL_OK;
}


static int
mpol_cluster_number(const mpol_str_t *s, uint64_t max, uint64_t *n)
{
    if (mpol_word_number(s->data, s->len, n) != MPOL_OK || *n > max) {
        return MPOL_BAD;
    }

    return MPOL_OK;
}


/* failing ones, too: nobody else has their slots yet */

static int
mpol_cluster_master(mpol_str_t *flags)
{
    int         master;
    mpol_str_t  flag;

    master = 0;

    while (flags->len) {
        mpol_cluster_word(flags, &flag, ',');

        if (flag.len == sizeof("master") - 1
            && memcmp(flag.data, "master", flag.len) == 0)
        {
            master = 1;
        }

        if ((flag.len == sizeof("noaddr") - 1
             && memcmp(flag.data, "noaddr", flag.len) == 0)
            || (flag.len == sizeof("handshake") - 1
                && memcmp(flag.data, "handshake", flag.len) == 0))
        {
            return 0;
        }
    }

    return master;
}


int
mpol_cluster_slots(mpol_cluster_node_t *node, unsigned *first, unsigned *last)
{
    uint64_t    n;
    mpol_str_t  word, from;

    do {
        if (node->slots.len == 0) {
            return MPOL_CLUSTER_NONE;
        }

        mpol_cluster_word(&node->slots, &word, ' ');

    } while (word.len == 0 || word.data[0] == '[');

    mpol_cluster_word(&word, &from, '-');

    if (mpol_cluster_number(&from, MPOL_SLOTS - 1, &n) != MPOL_OK) {
        return MPOL_BAD;
    }

    *first = (unsigned) n;
    *last = (unsigned) n;

    /* there was a "-" if anything but its end is behind the first number */

    if (word.data == from.data + from.len) {
        return MPOL_OK;
    }

    if (mpol_cluster_number(&word, MPOL_SLOTS - 1, &n) != MPOL_OK
        || n < *first)
    {
        return MPOL_BAD;
    }

    *last = (unsigned) n;

    return MPOL_OK;
}


int
mpol_cluster_moved(const uint8_t *p, size_t len, mpol_cluster_moved_t *moved)
{
    uint64_t    n;
    mpol_str_t  text, slot;

    text.data = p;
    text.len = len;

    mpol_cluster_word(&text, &slot, ' ');

    if (mpol_cluster_number(&slot, MPOL_SLOTS - 1, &n) != MPOL_OK
        || mpol_cluster_addr(&text, &moved->host, &moved->port) != MPOL_OK
        || moved->port == 0)
    {
        return MPOL_BAD;
    }

    moved->slot = (unsigned) n;

    return MPOL_OK;
}
