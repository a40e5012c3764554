
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_once.h"


int
mpol_once(mpol_once_t *once, uint64_t hash, uint64_t now, uint64_t until)
{
    size_t              i;
    mpol_once_entry_t  *set, *first;

    set = once->entries[(hash ^ (hash >> 32)) % MPOL_ONCE_SETS];
    first = set;

    for (i = 0; i < MPOL_ONCE_WAYS; i++) {

        if (set[i].hash == hash && set[i].until > now) {
            return 0;
        }

        if (set[i].until < first->until) {
            first = &set[i];
        }
    }

    first->hash = hash;
    first->until = until;

    return 1;
}


/* FNV-1a, with a length in front of what varies */

uint64_t
mpol_once_hash(const mpol_str_t *a, const mpol_str_t *b)
{
    size_t    i;
    uint64_t  hash;

    hash = 0xcbf29ce484222325 ^ a->len;

    for (i = 0; i < a->len; i++) {
        hash = (hash ^ a->data[i]) * 0x100000001b3;
    }

    for (i = 0; i < b->len; i++) {
        hash = (hash ^ b->data[i]) * 0x100000001b3;
    }

    return hash;
}
