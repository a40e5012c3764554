
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The counters of policy_zone: the store of a machine without Redis, and the
 * one that takes over while Redis is away.  Charges are identified by their
 * id.  Judging is exact: all under one lock, all charged or none.
 */


#ifndef NGX_MAIL_POLICY_SHM_H
#define NGX_MAIL_POLICY_SHM_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_store.h"


typedef struct ngx_mail_policy_shm_s  ngx_mail_policy_shm_t;


/* adds the zone; NULL on error, logged */
ngx_mail_policy_shm_t *ngx_mail_policy_shm_add(ngx_conf_t *cf, size_t size,
    void *tag);

/*
 * NGX_OK: all charged; NGX_DECLINED: none.  *at: the time that a later
 * give_back() has to name.  What finds no memory is not counted and fits.
 */
ngx_int_t ngx_mail_policy_shm_charge(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t *at);
void ngx_mail_policy_shm_give_back(ngx_mail_policy_shm_t *shm,
    ngx_mail_policy_charge_t *charges, ngx_uint_t n, uint64_t at);

/* the time of this store, microseconds */
uint64_t ngx_mail_policy_shm_now(void);


#endif /* NGX_MAIL_POLICY_SHM_H */
