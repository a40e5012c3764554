
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * From the store's answer to the verdict of a check; and what the files of
 * this folder know of each other.
 */


#ifndef NGX_MAIL_POLICY_VERDICT_H
#define NGX_MAIL_POLICY_VERDICT_H


#include "ngx_mail_policy_check.h"


/* check->verdict and the envelope's part of it, of check->ask's answer */
void ngx_mail_policy_verdict(ngx_mail_policy_check_t *check);

/* where nothing was asked, or cannot be: NGX_OK, NGX_BUSY, NGX_ERROR */
ngx_mail_policy_verdict_t *ngx_mail_policy_verdict_plain(ngx_int_t rc);

/*
 * 1 if all limits that refuse have on_exceed=tarpit; *retry: microseconds
 * until they will not.
 */
ngx_uint_t ngx_mail_policy_verdict_delays(ngx_mail_policy_check_t *check,
    uint64_t *retry);

/* the keys that a check was about to pay for are paid, or up to the next one */
void ngx_mail_policy_check_end(ngx_mail_policy_check_t *check,
    ngx_uint_t paid);

/* 1 if octets of a charge that passed were counted under a rate */
ngx_uint_t ngx_mail_policy_check_octets(ngx_mail_policy_charge_t *charge);

/* 1 if a limit is in force for that key, by its enforce= */
ngx_uint_t ngx_mail_policy_check_enforced(ngx_mail_policy_limit_t *limit,
    ngx_str_t *key);

/* 1 if charge i, where it does not fit, sends the message elsewhere */
ngx_uint_t ngx_mail_policy_verdict_relays(ngx_mail_policy_check_t *check,
    ngx_uint_t i);

/* what each limit decided is counted: of the last answer; of one that delays */
void ngx_mail_policy_decision(ngx_mail_policy_check_t *check);
void ngx_mail_policy_decision_slowed(ngx_mail_policy_check_t *check);

/* the verdict's list of limits, where more than one was exceeded */
void ngx_mail_policy_decision_hits(ngx_mail_policy_check_t *check);

/* the board and the warning of what an answer says is nearly used up */
void ngx_mail_policy_near(ngx_mail_policy_check_t *check);

/* an event's names and values; what numbers say is in it */

#define NGX_MAIL_POLICY_WORDS  20

typedef struct {
    ngx_str_t                     words[NGX_MAIL_POLICY_WORDS];
    u_char                        numbers[3 * NGX_INT64_LEN];
} ngx_mail_policy_words_t;

void ngx_mail_policy_verdict_words(ngx_mail_policy_check_t *check,
    ngx_mail_policy_charge_t *charge, ngx_uint_t unit, ngx_str_t *action,
    uint64_t used, uint64_t max, uint64_t retry,
    ngx_mail_policy_words_t *words);

/* the limit that was exceeded, for the help desk and the error log */
void ngx_mail_policy_verdict_tell(ngx_mail_policy_check_t *check);


#endif /* NGX_MAIL_POLICY_VERDICT_H */
