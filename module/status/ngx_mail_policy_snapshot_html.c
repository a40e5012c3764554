
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The page.  No events arrive here.
 */


#include "ngx_mail_policy_snapshot.h"


ngx_int_t
ngx_mail_policy_snapshot_html(ngx_pool_t *pool,
    ngx_mail_policy_snapshot_t *snapshot, ngx_str_t *nonce, ngx_str_t *text)
{
    ngx_str_set(text, "<!DOCTYPE html><title>mail policy</title>\n");

    return NGX_OK;
}
