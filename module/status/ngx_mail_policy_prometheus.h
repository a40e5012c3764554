
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A writer of Prometheus' text format.  Zero it, set out.pool, then:
 *
 *     family -> (label ... -> value) ...
 *
 * A line goes to the family that was begun last.  The text is [out.start,
 * out.last) unless out.error is set: no memory.
 */


#ifndef NGX_MAIL_POLICY_PROMETHEUS_H
#define NGX_MAIL_POLICY_PROMETHEUS_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_json.h"
#include "ngx_mail_policy_snapshot.h"


#define NGX_MAIL_POLICY_PROMETHEUS_LABELS  4


typedef struct {
    const char                     *name;
    ngx_str_t                       value;
} ngx_mail_policy_prometheus_label_t;


typedef struct {
    ngx_mail_policy_json_t          out;
    const char                     *family;
    ngx_mail_policy_prometheus_label_t
                                    labels[NGX_MAIL_POLICY_PROMETHEUS_LABELS];
    ngx_uint_t                      nlabels;    /* of the next line */
} ngx_mail_policy_prometheus_t;


/* name: without what all begin with */
void ngx_mail_policy_prometheus_family(ngx_mail_policy_prometheus_t *p,
    const char *name, const char *type, const char *help);

/* of the next line; values have to stay until it is written */
void ngx_mail_policy_prometheus_label(ngx_mail_policy_prometheus_t *p,
    const char *name, ngx_str_t *value);
void ngx_mail_policy_prometheus_word(ngx_mail_policy_prometheus_t *p,
    const char *name, const char *value);

/* the line; suffix: "_bucket" and the like, or "" */
void ngx_mail_policy_prometheus_value(ngx_mail_policy_prometheus_t *p,
    const char *suffix, uint64_t value);
void ngx_mail_policy_prometheus_seconds(ngx_mail_policy_prometheus_t *p,
    const char *suffix, uint64_t usec);

/* what is counted of limits, relays and policy servers */
void ngx_mail_policy_prometheus_blocks(ngx_mail_policy_prometheus_t *p,
    ngx_mail_policy_snapshot_t *s);


#endif /* NGX_MAIL_POLICY_PROMETHEUS_H */
