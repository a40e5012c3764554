
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_slot.h"

#include <string.h>


static unsigned mpol_slot_crc16(const uint8_t *p, size_t len);


unsigned
mpol_slot(const uint8_t *key, size_t len)
{
    size_t          taglen;
    const uint8_t  *open, *close;

    open = len ? memchr(key, '{', len) : NULL;

    if (open != NULL) {
        open++;
        taglen = len - (size_t) (open - key);
        close = taglen ? memchr(open, '}', taglen) : NULL;

        if (close != NULL && close != open) {
            key = open;
            len = (size_t) (close - open);
        }
    }

    return mpol_slot_crc16(key, len) % MPOL_SLOTS;
}


/* four bits at a time */

static unsigned
mpol_slot_crc16(const uint8_t *p, size_t len)
{
    size_t    i;
    unsigned  crc;

    static const uint16_t  table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef
    };

    crc = 0;

    for (i = 0; i < len; i++) {
        crc = ((crc << 4) & 0xffff) ^ table[(crc >> 12) ^ (p[i] >> 4)];
        crc = ((crc << 4) & 0xffff) ^ table[(crc >> 12) ^ (p[i] & 0xf)];
    }

    return crc;
}
