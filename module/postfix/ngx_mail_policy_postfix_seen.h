
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * Messages that are paid for, known to all workers: another connection may
 * ask for the same one.  Postfix has one for each service that it is told of
 * in other words, and makes a new one when that was idle for five minutes, as
 * amid a message that comes slowly, or when nginx has been reloaded.
 *
 *     digest = SHA-1(names of the limits, each with NUL; instance)
 *
 * A table of sets that never grows, in shared memory that is kept over
 * reload.  In a full set the entry that expires first makes room: a message
 * that is not found is charged as another one.
 */


#ifndef NGX_MAIL_POLICY_POSTFIX_SEEN_H
#define NGX_MAIL_POLICY_POSTFIX_SEEN_H


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_MAIL_POLICY_POSTFIX_DIGEST      20

#define NGX_MAIL_POLICY_POSTFIX_WAYS        8
#define NGX_MAIL_POLICY_POSTFIX_ENTRIES     32768

/* seconds; a message that has come to its end is asked for soon or never */
#define NGX_MAIL_POLICY_POSTFIX_SEEN        3600
#define NGX_MAIL_POLICY_POSTFIX_SEEN_END    60


typedef struct ngx_mail_policy_postfix_seen_s  ngx_mail_policy_postfix_seen_t;


typedef struct {
    u_char                        digest[NGX_MAIL_POLICY_POSTFIX_DIGEST];
    uint32_t                      requests;     /* that were asked */
    uint64_t                      octets;       /* that are paid for */
    uint32_t                      recipients;   /* the same */
    u_char                        recipient[NGX_MAIL_POLICY_POSTFIX_DIGEST];
                                                /* the last one that passed */
    uint32_t                      expires;      /* seen's own; seconds */
} ngx_mail_policy_postfix_note_t;


/* the same for all that call it with this tag; NULL: logged */
ngx_mail_policy_postfix_seen_t *ngx_mail_policy_postfix_seen_add(
    ngx_conf_t *cf, void *tag);

/* limits: of ..._limit_t */
void ngx_mail_policy_postfix_seen_digest(ngx_array_t *limits,
    ngx_str_t *instance, u_char digest[NGX_MAIL_POLICY_POSTFIX_DIGEST]);
void ngx_mail_policy_postfix_seen_recipient(ngx_str_t *recipient,
    u_char digest[NGX_MAIL_POLICY_POSTFIX_DIGEST]);

/* of note->digest: 1, and the note is filled */
ngx_uint_t ngx_mail_policy_postfix_seen_find(
    ngx_mail_policy_postfix_seen_t *seen,
    ngx_mail_policy_postfix_note_t *note);

/* for so many seconds, in the place of what was known of it */
void ngx_mail_policy_postfix_seen_keep(ngx_mail_policy_postfix_seen_t *seen,
    ngx_mail_policy_postfix_note_t *note, ngx_uint_t ttl);


#endif /* NGX_MAIL_POLICY_POSTFIX_SEEN_H */
