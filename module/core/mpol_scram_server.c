
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


#include <string.h>

#include "mpol_sasl.h"
#include "mpol_scram_server.h"


static int mpol_scram_gs2(const uint8_t **p, const uint8_t *end,
    mpol_scram_client_first_t *first);
static int mpol_scram_text(const uint8_t *msg, size_t len);
static int mpol_scram_value(const uint8_t **p, const uint8_t *end,
    const char *name, size_t len, mpol_str_t *value);
static int mpol_scram_extensions(const uint8_t *p, const uint8_t *end);
static int mpol_scram_saslname(const mpol_str_t *name);
static int mpol_scram_letter(uint8_t ch);
static int mpol_scram_binding_name(const mpol_str_t *name);
static int mpol_scram_nonce(const mpol_str_t *nonce);


int
mpol_scram_client_first(const uint8_t *msg, size_t len,
    mpol_scram_client_first_t *first)
{
    const uint8_t              *p, *end;
    mpol_scram_client_first_t   f;

    p = msg;
    end = msg + len;

    if (!mpol_scram_text(msg, len)
        || mpol_scram_gs2(&p, end, &f) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    f.bare.data = p;
    f.bare.len = (size_t) (end - p);

    if (mpol_scram_value(&p, end, "n=", 2, &f.username) != MPOL_OK
        || mpol_scram_value(&p, end, ",r=", 3, &f.nonce) != MPOL_OK
        || mpol_scram_extensions(p, end) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if (!mpol_scram_saslname(&f.username) || !mpol_scram_nonce(&f.nonce)) {
        return MPOL_BAD;
    }

    *first = f;

    return MPOL_OK;
}


/* leaves *p behind the second comma */

static int
mpol_scram_gs2(const uint8_t **p, const uint8_t *end,
    mpol_scram_client_first_t *first)
{
    mpol_str_t      flag, authzid;
    const uint8_t  *q;

    q = *p;

    flag = mpol_scram_part(&q, end);
    if (q == end) {
        return MPOL_BAD;
    }

    authzid = mpol_scram_part(&q, end);
    if (q == end) {
        return MPOL_BAD;
    }

    first->name.data = flag.data + flag.len;
    first->name.len = 0;

    if (flag.len > 2 && flag.data[0] == 'p' && flag.data[1] == '=') {
        first->name.data = flag.data + 2;
        first->name.len = flag.len - 2;

        if (!mpol_scram_binding_name(&first->name)) {
            return MPOL_BAD;
        }

    } else if (flag.len != 1
               || (flag.data[0] != 'n' && flag.data[0] != 'y'))
    {
        return MPOL_BAD;
    }

    if (authzid.len != 0) {

        if (authzid.len < 3 || authzid.data[0] != 'a'
            || authzid.data[1] != '=')
        {
            return MPOL_BAD;
        }

        authzid.data += 2;
        authzid.len -= 2;

        if (!mpol_scram_saslname(&authzid)) {
            return MPOL_BAD;
        }
    }

    first->binding = flag.data[0];
    first->authzid = authzid;
    first->gs2.data = *p;
    first->gs2.len = (size_t) (q - *p);

    *p = q;

    return MPOL_OK;
}


size_t
mpol_scram_name(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t      i, n;
    mpol_str_t  name;

    name.data = in;
    name.len = len;

    if (!mpol_scram_saslname(&name)) {
        return 0;
    }

    for (i = 0, n = 0; i < len; i++, n++) {

        if (in[i] == '=') {
            out[n] = (in[i + 1] == '2') ? ',' : '=';
            i += 2;
            continue;
        }

        out[n] = in[i];
    }

    return n;
}


int
mpol_scram_client_final(const uint8_t *msg, size_t len, const uint8_t *nonce,
    size_t nonce_len, mpol_scram_client_final_t *final)
{
    size_t                      n;
    const uint8_t              *p, *end;
    mpol_scram_client_final_t   f;

    /* a proof is as long as any other, and so it is known where it begins */

    n = (MPOL_SCRAM_KEY + 2) / 3 * 4;

    if (len < 3 + n || !mpol_scram_text(msg, len)) {
        return MPOL_BAD;
    }

    end = msg + len;

    f.proof.data = end - n;
    f.proof.len = n;
    f.without.data = msg;
    f.without.len = len - n - 3;

    if (memcmp(end - n - 3, ",p=", 3) != 0
        || mpol_scram_base64(&f.proof, &n) != MPOL_OK
        || n != MPOL_SCRAM_KEY)
    {
        return MPOL_BAD;
    }

    p = msg;
    end = msg + f.without.len;

    if (mpol_scram_value(&p, end, "c=", 2, &f.binding) != MPOL_OK
        || mpol_scram_value(&p, end, ",r=", 3, &f.nonce) != MPOL_OK
        || mpol_scram_extensions(p, end) != MPOL_OK
        || mpol_scram_base64(&f.binding, &n) != MPOL_OK)
    {
        return MPOL_BAD;
    }

    if (f.nonce.len != nonce_len
        || memcmp(f.nonce.data, nonce, nonce_len) != 0)
    {
        return MPOL_BAD;
    }

    *final = f;

    return MPOL_OK;
}


static int
mpol_scram_text(const uint8_t *msg, size_t len)
{
    return len != 0 && memchr(msg, '\0', len) == NULL
           && mpol_utf8_valid(msg, len);
}


/* "name=" and a value that is not empty; *p is left at the comma or end */

static int
mpol_scram_value(const uint8_t **p, const uint8_t *end, const char *name,
    size_t len, mpol_str_t *value)
{
    const uint8_t  *q;

    q = *p;

    if ((size_t) (end - q) < len || memcmp(q, name, len) != 0) {
        return MPOL_BAD;
    }

    q += len;
    value->data = q;

    while (q < end && *q != ',') {
        q++;
    }

    value->len = (size_t) (q - value->data);
    *p = q;

    return value->len ? MPOL_OK : MPOL_BAD;
}


static int
mpol_scram_extensions(const uint8_t *p, const uint8_t *end)
{
    const uint8_t  *q;

    while (p < end) {

        /* p is at a comma; what is behind it must not be empty */

        q = p + 1;

        for (p = q; p < end && *p != ','; p++) { /* void */ }

        if (p - q < 3 || !mpol_scram_letter(q[0]) || q[1] != '='
            || q[0] == 'm' || q[0] == 'p')
        {
            return MPOL_BAD;
        }
    }

    return MPOL_OK;
}


static int
mpol_scram_saslname(const mpol_str_t *name)
{
    size_t          i;
    const uint8_t  *p;

    p = name->data;

    for (i = 0; i < name->len; i++) {

        if (p[i] == '\0' || p[i] == ',') {
            return 0;
        }

        if (p[i] != '=') {
            continue;
        }

        if (name->len - i < 3
            || (memcmp(p + i, "=2C", 3) != 0 && memcmp(p + i, "=3D", 3) != 0))
        {
            return 0;
        }

        i += 2;
    }

    return name->len != 0;
}


static int
mpol_scram_letter(uint8_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}


static int
mpol_scram_binding_name(const mpol_str_t *name)
{
    size_t   i;
    uint8_t  ch;

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (!mpol_scram_letter(ch) && (ch < '0' || ch > '9')
            && ch != '.' && ch != '-')
        {
            return 0;
        }
    }

    return 1;
}


static int
mpol_scram_nonce(const mpol_str_t *nonce)
{
    size_t  i;

    if (nonce->len > MPOL_SCRAM_CLIENT_NONCE) {
        return 0;
    }

    for (i = 0; i < nonce->len; i++) {
        if (nonce->data[i] < 0x21 || nonce->data[i] > 0x7e) {
            return 0;
        }
    }

    return 1;
}
