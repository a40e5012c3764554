
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Variables of what came of a transaction: for the log, and for maps that are
 * used there.  Before its end there is nothing to tell, and they are empty.
 * No events arrive here.
 */


#include "ngx_mail_policy_directive.h"

#include "mpol_queue.h"
#include "ngx_mail_policy_log.h"


static ngx_int_t ngx_mail_policy_variable_status(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_record(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_outcome(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_queue_id(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_bytes(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_variable_tries(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);
static u_char *ngx_mail_policy_try_addr(u_char *p,
    ngx_mail_policy_try_t *try);
static u_char *ngx_mail_policy_try_status(u_char *p,
    ngx_mail_policy_try_t *try);
static u_char *ngx_mail_policy_try_time(u_char *p,
    ngx_mail_policy_try_t *try);


/* writes what is asked for of a try */
typedef u_char *(*ngx_mail_policy_try_pt)(u_char *p,
    ngx_mail_policy_try_t *try);


ngx_mail_policy_variable_t  ngx_mail_policy_end_variables[] = {

    { ngx_string("status"), ngx_mail_policy_variable_status,
      0, NGX_MAIL_POLICY_AT_END },

    { ngx_string("reply"), ngx_mail_policy_variable_record,
      offsetof(ngx_mail_policy_record_t, reply), NGX_MAIL_POLICY_AT_END },

    { ngx_string("outcome"), ngx_mail_policy_variable_outcome,
      0, NGX_MAIL_POLICY_AT_END },

    { ngx_string("queue_id"), ngx_mail_policy_variable_queue_id,
      0, NGX_MAIL_POLICY_AT_END },

    { ngx_string("upstream_name"), ngx_mail_policy_variable_record,
      offsetof(ngx_mail_policy_record_t, upstream), NGX_MAIL_POLICY_AT_END },

    { ngx_string("upstream_addr"), ngx_mail_policy_variable_tries,
      (uintptr_t) ngx_mail_policy_try_addr, NGX_MAIL_POLICY_AT_END },

    { ngx_string("upstream_status"), ngx_mail_policy_variable_tries,
      (uintptr_t) ngx_mail_policy_try_status, NGX_MAIL_POLICY_AT_END },

    { ngx_string("upstream_response_time"), ngx_mail_policy_variable_tries,
      (uintptr_t) ngx_mail_policy_try_time, NGX_MAIL_POLICY_AT_END },

    { ngx_string("bytes_received"), ngx_mail_policy_variable_bytes,
      offsetof(ngx_mail_policy_envelope_t, bytes_received),
      NGX_MAIL_POLICY_AT_END },

    { ngx_string("bytes_sent"), ngx_mail_policy_variable_bytes,
      offsetof(ngx_mail_policy_envelope_t, bytes_sent),
      NGX_MAIL_POLICY_AT_END },

    { ngx_null_string, NULL, 0, 0 }
};


static ngx_int_t
ngx_mail_policy_variable_status(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    if (envelope->record == NULL || envelope->record->status == 0) {
        ngx_str_null(out);
        return NGX_OK;
    }

    return ngx_mail_policy_variable_print(pool, NGX_INT_T_LEN, out, "%ui",
                                          envelope->record->status);
}


static ngx_int_t
ngx_mail_policy_variable_record(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    if (envelope->record == NULL) {
        ngx_str_null(out);
        return NGX_OK;
    }

    *out = *(ngx_str_t *) ((u_char *) envelope->record + data);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_outcome(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    if (envelope->record == NULL) {
        ngx_str_null(out);
        return NGX_OK;
    }

    *out = ngx_mail_policy_outcomes[envelope->record->outcome];

    return NGX_OK;
}


/* the reply to the end of a message is the relay's, if it was taken */

static ngx_int_t
ngx_mail_policy_variable_queue_id(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    mpol_str_t                 id;
    ngx_mail_policy_record_t  *record;

    ngx_str_null(out);

    record = envelope->record;

    if (record == NULL || record->status < 200 || record->status >= 300) {
        return NGX_OK;
    }

    if (mpol_queue_id(record->reply.data, record->reply.len, &id) == MPOL_OK) {
        out->data = (u_char *) id.data;
        out->len = id.len;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_variable_bytes(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    return ngx_mail_policy_variable_print(pool, NGX_OFF_T_LEN, out, "%O",
                                  *(off_t *) ((u_char *) envelope + data));
}


/* "a, b", as nginx writes them */

static ngx_int_t
ngx_mail_policy_variable_tries(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out)
{
    size_t                   len;
    u_char                  *p;
    ngx_uint_t               i, n;
    ngx_mail_policy_try_t   *try;
    ngx_mail_policy_try_pt   write = (ngx_mail_policy_try_pt) data;

    ngx_str_null(out);

    if (envelope->record == NULL || envelope->record->tries.nelts == 0) {
        return NGX_OK;
    }

    try = envelope->record->tries.elts;
    n = envelope->record->tries.nelts;
    len = 0;

    for (i = 0; i < n; i++) {
        len += try[i].relay.len + NGX_TIME_T_LEN + sizeof(".000, ") - 1;
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->data = p;

    for (i = 0; i < n; i++) {

        if (i) {
            *p++ = ',';
            *p++ = ' ';
        }

        p = write(p, &try[i]);
    }

    out->len = p - out->data;

    return NGX_OK;
}


static u_char *
ngx_mail_policy_try_addr(u_char *p, ngx_mail_policy_try_t *try)
{
    return ngx_cpymem(p, try->relay.data, try->relay.len);
}


static u_char *
ngx_mail_policy_try_status(u_char *p, ngx_mail_policy_try_t *try)
{
    if (try->status == 0) {
        *p++ = '-';
        return p;
    }

    return ngx_sprintf(p, "%ui", try->status);
}


static u_char *
ngx_mail_policy_try_time(u_char *p, ngx_mail_policy_try_t *try)
{
    ngx_msec_t  ms;

    ms = try->ended ? try->time : ngx_current_msec - try->start;

    return ngx_sprintf(p, "%M.%03M", ms / 1000, ms % 1000);
}
