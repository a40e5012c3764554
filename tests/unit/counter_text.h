
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The field of a counter as the scripts write it, see policies/counter.lua:
 * last and from are the rate that charged last and its letter.
 */


#ifndef COUNTER_TEXT_H
#define COUNTER_TEXT_H


#include <stdio.h>

#include "mpol_counter.h"


static void
counter_text(const mpol_counter_t *c, const mpol_rate_t *last, char from,
    char *out, size_t size)
{
    int       n;
    uint64_t  i, before;

    if (c->width == 0 && c->tat != 0) {
        snprintf(out, size, "b %llu %llu %llu %llu %c",
                 (unsigned long long) c->tat,
                 (unsigned long long) last->count,
                 (unsigned long long) last->period,
                 (unsigned long long) last->burst, from);
        return;
    }

    n = snprintf(out, size, "w %llu %llu %c", (unsigned long long) c->width,
                 (unsigned long long) last->count, from);

    i = c->newest < 64 ? 0 : c->newest - 64;
    before = MPOL_NEVER;

    for ( /* void */ ; i <= c->newest; i++) {
        if (c->slot[i % MPOL_WINDOW_SLOTS] == 0) {
            continue;
        }

        n += snprintf(out + n, size - (size_t) n, " %llu:%llu",
                      (unsigned long long) (before == MPOL_NEVER ? i
                                                                 : i - before),
                      (unsigned long long) c->slot[i % MPOL_WINDOW_SLOTS]);
        before = i;
    }

    if (before == MPOL_NEVER) {
        snprintf(out, size, "-");
    }
}


#endif /* COUNTER_TEXT_H */
