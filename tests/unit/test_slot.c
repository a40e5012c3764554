
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_slot.h"
#include "tap.h"


/* what CLUSTER KEYSLOT of Redis 7.0.15 answers */

static const struct {
    const char  *key;
    unsigned     slot;
} slots[] = {
    { "", 0 },
    { "a", 15495 },
    { "foo", 12182 },
    { "123456789", 12739 },
    { "mail:used:user:{alice@example.com}", 350 },
    { "mail:limit:user:{alice@example.com}", 350 },
    { "mail:user:{Bob@example.com}", 2915 },
    { "{user1000}.following", 3443 },
    { "{user1000}.followers", 3443 },
    { "foo{}{bar}", 8363 },
    { "foo{{bar}}zap", 4015 },
    { "foo{bar}{zap}", 5061 },
    { "{", 4092 },
    { "}", 12090 },
    { "{}", 15257 },
    { "a{b", 13340 },
    { "a}b", 7866 },
    { "}{", 12793 },
    { "x{y", 2740 },
    { "{a}", 15495 },
    { "mail:used:client:{2001:db8::/64}", 26 },
    { "k{\xc3\xa4}", 13929 }
};


static unsigned
slot(const void *key, size_t len)
{
    unsigned   n;
    uint8_t   *p;

    p = tap_exact(key, len);
    n = mpol_slot(p, len);
    free(p);

    return n;
}


/* all octets, as the CRC is a table: one wrong entry shows */

static void
test_octets(void)
{
    unsigned  i;
    uint64_t  sum;
    uint8_t   key[2];

    for (i = 0, sum = 0; i < 65536; i++) {
        key[0] = (uint8_t) (i >> 8);
        key[1] = (uint8_t) i;
        sum += slot(key, 2);
    }

    /* CRC16 of two octets is a permutation of 65536 values */
    is_u64(sum, (uint64_t) 65536 / 2 * (MPOL_SLOTS - 1),
           "each two octets: slots are used evenly");
}


int
main(void)
{
    size_t  i;

    for (i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        is_u64(slot(slots[i].key, strlen(slots[i].key)), slots[i].slot,
               "slot of '%s'", slots[i].key);
    }

    is_u64(mpol_slot(NULL, 0), 0, "no key");

    test_octets();

    return done_testing();
}
