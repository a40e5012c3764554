
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What is done with a single charge.  No events arrive here.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_ask.h"


void
ngx_mail_policy_charge_keep_nothing(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t  u;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        charge->units[u].kept = 0;
    }
}


ngx_uint_t
ngx_mail_policy_charge_fits(ngx_mail_policy_charge_t *charge)
{
    ngx_uint_t  u;

    for (u = 0; u < NGX_MAIL_POLICY_UNITS; u++) {
        if ((charge->asked & ngx_mail_policy_asked(u))
            && !charge->units[u].decision.fits)
        {
            return 0;
        }
    }

    return 1;
}


ngx_int_t
ngx_mail_policy_charge_copy(ngx_pool_t *pool,
    ngx_mail_policy_charge_t *charge)
{
    u_char  *p;

    p = ngx_pnalloc(pool, charge->id.len + charge->member.len
                          + charge->client.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    /* the id begins with the name; the key is in it, escaped */

    charge->name.data = p;
    ngx_str_null(&charge->key);

    p = ngx_cpymem(p, charge->id.data, charge->id.len);
    charge->id.data = charge->name.data;

    p = ngx_cpymem(p, charge->member.data, charge->member.len);
    charge->member.data = p - charge->member.len;

    p = ngx_cpymem(p, charge->client.data, charge->client.len);
    charge->client.data = p - charge->client.len;

    return NGX_OK;
}
