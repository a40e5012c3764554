
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include "mpol_rate.h"


#define MPOL_RATE_MAX        ((uint64_t) 1 << 40)
#define MPOL_RATE_LONGEST    ((uint64_t) 366 * 86400)
#define MPOL_RATE_DEPTH_MAX  ((uint64_t) 1 << 52)


/* the text as written, before its numbers are judged */
typedef struct {
    uint64_t  count;
    uint64_t  seconds;
    uint64_t  burst;
    unsigned  count_shift;
    unsigned  burst_shift;
    unsigned  bucket:1;
} mpol_rate_text_t;


static int mpol_rate_is(const uint8_t *p, size_t len, const char *word,
    size_t wlen);
static const uint8_t *mpol_rate_digits(const uint8_t *p, const uint8_t *end,
    uint64_t *n);
static const uint8_t *mpol_rate_count(const uint8_t *p, const uint8_t *end,
    uint64_t *n, unsigned *shift);
static const uint8_t *mpol_rate_period(const uint8_t *p, const uint8_t *end,
    uint64_t *seconds);
static int mpol_rate_scan(const uint8_t *p, const uint8_t *end,
    mpol_rate_text_t *t);
static int mpol_rate_sessions(const uint8_t *p, const uint8_t *end,
    mpol_rate_t *rate);
static int mpol_rate_judge(const mpol_rate_text_t *t, unsigned flags,
    mpol_rate_t *rate);


int
mpol_rate_parse(const uint8_t *p, size_t len, unsigned flags,
    mpol_rate_t *rate)
{
    int                     rc;
    mpol_rate_t             r = { MPOL_RATE_NONE, 0, 0, 0 };
    mpol_rate_text_t        t;

    static const mpol_rate_t  unlimited = { MPOL_RATE_UNLIMITED, 0, 0, 0 };
    static const mpol_rate_t  blocked = { MPOL_RATE_BLOCKED, 0, 0, 0 };

    if (len == 0) {
        return (flags & MPOL_RATE_SESSIONS) ? MPOL_RATE_NUMBER
                                            : MPOL_RATE_SYNTAX;
    }

    if (mpol_rate_is(p, len, "unlimited", sizeof("unlimited") - 1)) {
        *rate = unlimited;
        return MPOL_OK;
    }

    if (mpol_rate_is(p, len, "blocked", sizeof("blocked") - 1)) {
        *rate = blocked;
        return MPOL_OK;
    }

    if (flags & MPOL_RATE_SESSIONS) {
        return mpol_rate_sessions(p, p + len, rate);
    }

    rc = mpol_rate_scan(p, p + len, &t);

    if (rc == MPOL_OK) {
        rc = mpol_rate_judge(&t, flags, &r);
    }

    if (rc == MPOL_OK) {
        *rate = r;
    }

    return rc;
}


const char *
mpol_rate_error(int rc)
{
    switch (rc) {

    case MPOL_OK:
        return "no error";

    case MPOL_RATE_ZERO:
        return "0 is ambiguous, write \"unlimited\" or \"blocked\"";

    case MPOL_RATE_RANGE:
        return "number out of range: counts are 1 to 2^40, a period is "
               "1 second to 366 days, a burst refills within 142 years";

    case MPOL_RATE_SUFFIX:
        return "\"k\", \"m\" and \"g\" are for bytes only, "
               "write the number in full";

    case MPOL_RATE_BURST:
        return "no burst is possible here, write for example \"20/1h\"";

    case MPOL_RATE_NUMBER:
        return "not a number of sessions, write for example \"20\", "
               "\"unlimited\" or \"blocked\"";

    default:
        return "not a rate, write for example \"500/1h\", "
               "\"500/1h,burst=20\", \"unlimited\" or \"blocked\"";
    }
}


uint64_t
mpol_rate_cost(const mpol_rate_t *rate, uint64_t n)
{
    return mpol_rate_muldiv(n, rate->period, rate->count);
}


/*
 * n * a / b = n * (a / b) + n * (a % b) / b, the second by long division
 * in base 128: the remainder is below b <= 2^45, so that no intermediate
 * passes 2^53 and the scripts can do the same in their numbers.
 */

uint64_t
mpol_rate_muldiv(uint64_t n, uint64_t a, uint64_t b)
{
    uint64_t  whole, rest, q, r;
    unsigned  shift;

    if (n > MPOL_NEVER) {
        n = MPOL_NEVER;
    }

    whole = a / b;
    rest = a % b;

    if (whole != 0 && n > MPOL_NEVER / whole) {
        return MPOL_NEVER;
    }

    q = 0;
    r = 0;

    for (shift = 56; shift != 0; /* void */ ) {
        shift -= 7;
        r = r * 128 + (n >> shift) % 128 * rest;
        q = q * 128 + r / b;
        r %= b;
    }

    if (r != 0) {
        q++;
    }

    whole *= n;

    return (q > MPOL_NEVER - whole) ? MPOL_NEVER : whole + q;
}


static int
mpol_rate_is(const uint8_t *p, size_t len, const char *word, size_t wlen)
{
    size_t  i;

    if (len < wlen) {
        return 0;
    }

    /* | 0x20 maps no octet but the letter's other case to a letter */

    for (i = 0; i < wlen; i++) {
        if ((p[i] | 0x20) != word[i]) {
            return 0;
        }
    }

    return len == wlen;
}


/* the position after the digits; too large a number stays too large */

static const uint8_t *
mpol_rate_digits(const uint8_t *p, const uint8_t *end, uint64_t *n)
{
    uint64_t  v;

    v = 0;

    for ( /* void */ ; p < end && *p >= '0' && *p <= '9'; p++) {
        if (v <= MPOL_RATE_MAX) {
            v = v * 10 + (uint64_t) (*p - '0');
        }
    }

    *n = v;

    return p;
}


static const uint8_t *
mpol_rate_count(const uint8_t *p, const uint8_t *end, uint64_t *n,
    unsigned *shift)
{
    const uint8_t  *next;

    next = mpol_rate_digits(p, end, n);

    *shift = 0;

    if (next == p) {
        return NULL;
    }

    if (next == end) {
        return next;
    }

    switch (*next | 0x20) {
    case 'k':
        *shift = 10;
        break;
    case 'm':
        *shift = 20;
        break;
    case 'g':
        *shift = 30;
        break;
    default:
        return next;
    }

    return next + 1;
}


static const uint8_t *
mpol_rate_period(const uint8_t *p, const uint8_t *end, uint64_t *seconds)
{
    uint64_t        n;
    const uint8_t  *next;

    next = mpol_rate_digits(p, end, &n);

    if (next == p) {
        n = 1;
    }

    if (next == end) {
        return NULL;
    }

    /* below 2^44, it cannot overflow */

    switch (*next | 0x20) {
    case 's':
        *seconds = n;
        break;
    case 'm':
        *seconds = n * 60;
        break;
    case 'h':
        *seconds = n * 3600;
        break;
    case 'd':
        *seconds = n * 86400;
        break;
    case 'w':
        *seconds = n * 7 * 86400;
        break;
    default:
        return NULL;
    }

    return next + 1;
}


static int
mpol_rate_scan(const uint8_t *p, const uint8_t *end, mpol_rate_text_t *t)
{
    t->burst = 0;
    t->burst_shift = 0;
    t->bucket = 0;

    p = mpol_rate_count(p, end, &t->count, &t->count_shift);

    if (p == NULL) {
        return MPOL_RATE_SYNTAX;
    }

    if (p == end) {
        return (t->count == 0) ? MPOL_RATE_ZERO : MPOL_RATE_SYNTAX;
    }

    if (*p++ != '/') {
        return MPOL_RATE_SYNTAX;
    }

    p = mpol_rate_period(p, end, &t->seconds);

    if (p == NULL) {
        return MPOL_RATE_SYNTAX;
    }

    if (p == end) {
        return MPOL_OK;
    }

    if ((size_t) (end - p) < sizeof(",burst=") - 1
        || *p != ','
        || p[6] != '='
        || !mpol_rate_is(p + 1, 5, "burst", 5))
    {
        return MPOL_RATE_SYNTAX;
    }

    t->bucket = 1;

    p = mpol_rate_count(p + 7, end, &t->burst, &t->burst_shift);

    return (p == end) ? MPOL_OK : MPOL_RATE_SYNTAX;
}


/* a number and nothing else */

static int
mpol_rate_sessions(const uint8_t *p, const uint8_t *end, mpol_rate_t *rate)
{
    unsigned  shift;
    uint64_t  n;

    if (mpol_rate_count(p, end, &n, &shift) != end) {
        return MPOL_RATE_NUMBER;
    }

    if (shift != 0) {
        return MPOL_RATE_SUFFIX;
    }

    if (n == 0) {
        return MPOL_RATE_ZERO;
    }

    if (n > MPOL_RATE_MAX) {
        return MPOL_RATE_RANGE;
    }

    rate->kind = MPOL_RATE_WINDOW;
    rate->count = n;
    rate->period = 0;
    rate->burst = 0;

    return MPOL_OK;
}


static int
mpol_rate_judge(const mpol_rate_text_t *t, unsigned flags, mpol_rate_t *rate)
{
    if ((t->count_shift | t->burst_shift) != 0
        && (flags & MPOL_RATE_BYTES) == 0)
    {
        return MPOL_RATE_SUFFIX;
    }

    if (t->bucket && (flags & MPOL_RATE_NO_BURST)) {
        return MPOL_RATE_BURST;
    }

    if (t->count == 0) {
        return MPOL_RATE_ZERO;
    }

    if (t->count > MPOL_RATE_MAX >> t->count_shift
        || t->burst > MPOL_RATE_MAX >> t->burst_shift
        || t->seconds == 0
        || t->seconds > MPOL_RATE_LONGEST
        || (t->bucket && t->burst == 0))
    {
        return MPOL_RATE_RANGE;
    }

    rate->kind = t->bucket ? MPOL_RATE_BUCKET : MPOL_RATE_WINDOW;
    rate->count = t->count << t->count_shift;
    rate->period = t->seconds * 1000000;
    rate->burst = t->burst << t->burst_shift;

    /* tat = now + depth has to stay below 2^53 */

    if (mpol_rate_cost(rate, rate->burst) > MPOL_RATE_DEPTH_MAX) {
        return MPOL_RATE_RANGE;
    }

    return MPOL_OK;
}
