
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The plans that own entries name, as a worker has last seen them.  No
 * events arrive here.
 *
 * An id is found by its hash alone, and a place has one: what is wrong is
 * found out by the script, and costs one more question.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_ask.h"


/* how many ids are remembered to name one, and how many names */
#define NGX_MAIL_POLICY_PLANS_IDS    65536
#define NGX_MAIL_POLICY_PLANS_NAMES  1024


typedef struct {
    size_t                      len;
    u_char                      data[NGX_MAIL_POLICY_PLAN];
} ngx_mail_policy_plan_name_t;


typedef struct {
    uint32_t                    hash;
    uint32_t                    plan;       /* number from 1; 0: none */
} ngx_mail_policy_plan_id_t;


struct ngx_mail_policy_plans_s {
    ngx_mail_policy_plan_id_t    ids[NGX_MAIL_POLICY_PLANS_IDS];
    ngx_mail_policy_plan_name_t  names[NGX_MAIL_POLICY_PLANS_NAMES];
    ngx_uint_t                   n;         /* names seen */
};


static ngx_uint_t ngx_mail_policy_plans_number(
    ngx_mail_policy_plans_t *plans, ngx_str_t *plan);


ngx_mail_policy_plans_t *
ngx_mail_policy_plans_create(void)
{
    return ngx_calloc(sizeof(ngx_mail_policy_plans_t), ngx_cycle->log);
}


void
ngx_mail_policy_plans_get(ngx_mail_policy_plans_t *plans, ngx_str_t *id,
    ngx_str_t *plan)
{
    uint32_t                      hash;
    ngx_mail_policy_plan_id_t    *place;
    ngx_mail_policy_plan_name_t  *name;

    hash = ngx_crc32_short(id->data, id->len);
    place = &plans->ids[hash % NGX_MAIL_POLICY_PLANS_IDS];

    if (place->plan == 0 || place->hash != hash) {
        return;
    }

    name = &plans->names[place->plan - 1];

    ngx_memcpy(plan->data, name->data, name->len);
    plan->len = name->len;
}


void
ngx_mail_policy_plans_set(ngx_mail_policy_plans_t *plans, ngx_str_t *id,
    ngx_str_t *plan)
{
    uint32_t                    hash;
    ngx_mail_policy_plan_id_t  *place;

    hash = ngx_crc32_short(id->data, id->len);
    place = &plans->ids[hash % NGX_MAIL_POLICY_PLANS_IDS];

    place->hash = hash;
    place->plan = ngx_mail_policy_plans_number(plans, plan);
}


/* where there are too many names, old ones lose their place */

static ngx_uint_t
ngx_mail_policy_plans_number(ngx_mail_policy_plans_t *plans, ngx_str_t *plan)
{
    ngx_uint_t                    i, n;
    ngx_mail_policy_plan_name_t  *name;

    if (plan->len == 0) {
        return 0;
    }

    name = plans->names;
    n = ngx_min(plans->n, NGX_MAIL_POLICY_PLANS_NAMES);

    for (i = 0; i < n; i++) {
        if (name[i].len == plan->len
            && ngx_memcmp(name[i].data, plan->data, plan->len) == 0)
        {
            return i + 1;
        }
    }

    i = plans->n++ % NGX_MAIL_POLICY_PLANS_NAMES;

    name[i].len = plan->len;
    ngx_memcpy(name[i].data, plan->data, plan->len);

    return i + 1;
}
