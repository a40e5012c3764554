
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A file of users.  No events arrive here.
 *
 * A table is a sorted array of lines, which are taken apart again when one is
 * asked for: what is wrong with them has been said.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "mpol_sasl.h"
#include "mpol_sender.h"
#include "ngx_mail_policy_auth_field.h"
#include "ngx_mail_policy_auth_users.h"


#define NGX_MAIL_POLICY_AUTH_KINDS  (NGX_MAIL_POLICY_CRYPT_CLEAR + 1)


/* of a line, which begins with the login */
typedef struct {
    u_char                       *data;
    uint32_t                      login;        /* lengths */
    uint32_t                      hash;
    uint32_t                      len;
    uint32_t                      number;
} ngx_mail_policy_auth_user_t;


struct ngx_mail_policy_auth_table_s {
    ngx_mail_policy_auth_user_t  *users;
    ngx_uint_t                    n;

    /* those whose hash is good for a kind, or more; by what it costs */
    struct {
        ngx_mail_policy_auth_user_t
                                **users;
        ngx_uint_t                n;
    } kinds[NGX_MAIL_POLICY_AUTH_KINDS];
};


static ngx_uint_t ngx_mail_policy_auth_users_lines(ngx_str_t *text);
static const char *ngx_mail_policy_auth_users_line(u_char *p, u_char *last,
    ngx_mail_policy_auth_user_t *user);
static const char *ngx_mail_policy_auth_users_fields(
    ngx_mail_policy_auth_user_t *user, ngx_mail_policy_auth_record_t *record);
static const char *ngx_mail_policy_auth_users_check(
    ngx_mail_policy_auth_record_t *record, ngx_str_t *status);
static ngx_uint_t ngx_mail_policy_auth_users_field(u_char *p, u_char *last);
static u_char *ngx_mail_policy_auth_users_end(ngx_uint_t field, u_char *p,
    u_char *last);
static ngx_uint_t ngx_mail_policy_auth_users_sort(
    ngx_mail_policy_auth_table_t *table,
    ngx_mail_policy_watch_error_t *error);
static ngx_int_t ngx_mail_policy_auth_users_kinds(ngx_pool_t *pool,
    ngx_mail_policy_auth_table_t *table);
static ngx_uint_t ngx_mail_policy_auth_users_good(
    ngx_mail_policy_auth_user_t *user, ngx_uint_t kind);
static void ngx_mail_policy_auth_users_hash(ngx_mail_policy_auth_user_t *user,
    ngx_str_t *hash);

static int ngx_libc_cdecl ngx_mail_policy_auth_users_cmp(const void *one,
    const void *two);
static int ngx_libc_cdecl ngx_mail_policy_auth_users_cmp_costs(const void *one,
    const void *two);
static int ngx_mail_policy_auth_users_cmp_texts(u_char *one, size_t n,
    u_char *two, size_t m);

static ngx_mail_policy_auth_user_t *ngx_mail_policy_auth_users_user(
    ngx_mail_policy_auth_table_t *table, ngx_str_t *login);


enum {
    NGX_MAIL_POLICY_AUTH_USERS_SENDERS = 0,
    NGX_MAIL_POLICY_AUTH_USERS_STATUS,
    NGX_MAIL_POLICY_AUTH_USERS_MESSAGE,
    NGX_MAIL_POLICY_AUTH_USERS_RELAY,
    NGX_MAIL_POLICY_AUTH_USERS_FIELDS
};


static ngx_str_t  ngx_mail_policy_auth_users_names[] = {
    ngx_string("senders="),
    ngx_string("status="),
    ngx_string("message="),
    ngx_string("relay=")
};

static const char  *ngx_mail_policy_auth_users_twice[] = {
    "a second \"senders=\"",
    "a second \"status=\"",
    "a second \"message=\"",
    "a second \"relay=\""
};


/* in a thread: what is wrong is told by line, of which nothing is told */

void *
ngx_mail_policy_auth_users_parse(ngx_pool_t *pool, ngx_str_t *text, void *data,
    ngx_mail_policy_watch_error_t *error)
{
    u_char                        *p, *last, *end, *eol;
    const char                    *wrong;
    ngx_uint_t                     line;
    ngx_mail_policy_auth_user_t   *user;
    ngx_mail_policy_auth_table_t  *table;

    table = ngx_pcalloc(pool, sizeof(ngx_mail_policy_auth_table_t));
    if (table == NULL) {
        return ngx_mail_policy_watch_no_memory(error);
    }

    table->users = ngx_palloc(pool, ngx_mail_policy_auth_users_lines(text)
                                    * sizeof(ngx_mail_policy_auth_user_t));
    if (table->users == NULL) {
        return ngx_mail_policy_watch_no_memory(error);
    }

    p = text->data;
    end = p + text->len;

    for (line = 1; p < end; line++) {

        eol = ngx_strlchr(p, end, LF);
        if (eol == NULL) {
            eol = end;
        }

        last = eol;

        if (last > p && last[-1] == CR) {
            last--;
        }

        if (p < last && *p != '#') {
            user = &table->users[table->n++];
            user->number = line;

            wrong = ngx_mail_policy_auth_users_line(p, last, user);
            if (wrong) {
                return ngx_mail_policy_watch_fail(error, line, "%s", wrong);
            }
        }

        p = eol + 1;
    }

    if (!ngx_mail_policy_auth_users_sort(table, error)) {
        return NULL;
    }

    if (ngx_mail_policy_auth_users_kinds(pool, table) != NGX_OK) {
        return ngx_mail_policy_watch_no_memory(error);
    }

    return table;
}


/* that are not empty, at most */

static ngx_uint_t
ngx_mail_policy_auth_users_lines(ngx_str_t *text)
{
    u_char      *p, *last, ch;
    ngx_uint_t   n;

    last = text->data + text->len;
    n = 1;
    ch = LF;

    for (p = text->data; p < last; p++) {
        n += (ch == LF && *p != LF);
        ch = *p;
    }

    return n;
}


/* NULL, or what is wrong */

static const char *
ngx_mail_policy_auth_users_line(u_char *p, u_char *last,
    ngx_mail_policy_auth_user_t *user)
{
    u_char                         *colon, *end;
    ngx_str_t                       hash;
    ngx_mail_policy_auth_record_t   record;

    colon = ngx_strlchr(p, last, ':');
    if (colon == NULL) {
        return "\"login:hash\" expected";
    }

    if (!mpol_identity_valid(p, colon - p)) {
        return "invalid login, expected 1 to 255 octets of UTF-8 without "
               "control characters, and no space at either end";
    }

    hash.data = colon + 1;

    end = ngx_strlchr(hash.data, last, ':');

    hash.len = (end ? end : last) - hash.data;

    if ((hash.len || end == NULL)
        && ngx_mail_policy_crypt_check(&hash) != NGX_OK)
    {
        return "unknown, incomplete or too costly password hash, expected "
               NGX_MAIL_POLICY_CRYPT_FORMATS;
    }

    /* rather no password than one that ends where nobody thinks it does */

    if (end
        && ngx_mail_policy_crypt_plain(&hash)
        && ngx_mail_policy_auth_users_field(end + 1, last)
           == NGX_MAIL_POLICY_AUTH_USERS_FIELDS)
    {
        return "a {PLAIN} password cannot have a \":\" in it, and behind it "
               "only \"senders=\", \"status=\", \"message=\" or \"relay=\"";
    }

    user->data = p;
    user->login = colon - p;
    user->hash = hash.len;
    user->len = last - p;

    return ngx_mail_policy_auth_users_fields(user, &record);
}


/*
 * Files of other programs have fields of their own there, of which none
 * begins so.
 */

static const char *
ngx_mail_policy_auth_users_fields(ngx_mail_policy_auth_user_t *user,
    ngx_mail_policy_auth_record_t *record)
{
    u_char      *p, *last;
    ngx_str_t    values[NGX_MAIL_POLICY_AUTH_USERS_FIELDS];
    ngx_uint_t   field;

    ngx_memzero(record, sizeof(ngx_mail_policy_auth_record_t));
    ngx_memzero(values, sizeof(values));

    ngx_mail_policy_auth_users_hash(user, &record->hash);

    p = record->hash.data + record->hash.len;
    last = user->data + user->len;

    while (p && p < last) {

        p++;

        field = ngx_mail_policy_auth_users_field(p, last);

        if (field == NGX_MAIL_POLICY_AUTH_USERS_FIELDS) {
            p = ngx_strlchr(p, last, ':');
            continue;
        }

        if (values[field].data) {
            return ngx_mail_policy_auth_users_twice[field];
        }

        p += ngx_mail_policy_auth_users_names[field].len;

        values[field].data = p;
        p = ngx_mail_policy_auth_users_end(field, p, last);
        values[field].len = p - values[field].data;
    }

    record->senders = values[NGX_MAIL_POLICY_AUTH_USERS_SENDERS];
    record->message = values[NGX_MAIL_POLICY_AUTH_USERS_MESSAGE];
    record->relay = values[NGX_MAIL_POLICY_AUTH_USERS_RELAY];

    return ngx_mail_policy_auth_users_check(record,
                                &values[NGX_MAIL_POLICY_AUTH_USERS_STATUS]);
}


static const char *
ngx_mail_policy_auth_users_check(ngx_mail_policy_auth_record_t *record,
    ngx_str_t *status)
{
    u_char      *p, *last;

    record->suspended = ngx_mail_policy_auth_field_suspends(status);

    switch (mpol_senders_check(record->senders.data, record->senders.len)) {

    case MPOL_OK:
        break;

    case MPOL_SENDERS_LONG:
        return "too many senders, expected at most "
               NGX_MAIL_POLICY_SENDERS_BOUNDS;

    default: /* MPOL_SENDERS_ENTRY */
        return "invalid sender, expected addresses and \"@domain\" behind "
               "\"senders=\", with \",\" between them, each part with one "
               "\"*\" at most";
    }

    if (record->relay.data
        && !ngx_mail_policy_auth_field_relay(&record->relay))
    {
        return "invalid relay, expected \"host:port\" or the name of an "
               "\"upstream\" behind \"relay=\"";
    }

    if (record->message.data == NULL) {
        return NULL;
    }

    if (!ngx_mail_policy_auth_field_message(&record->message)) {
        return "invalid message, expected 1 to 200 printable characters of "
               "ASCII behind \"message=\"";
    }

    /* it is sent to clients: what is meant for us must not get into it */

    p = record->message.data;
    last = p + record->message.len;

    while ((p = ngx_strlchr(p, last, ':')) != NULL) {

        if (ngx_mail_policy_auth_users_field(++p, last)
            != NGX_MAIL_POLICY_AUTH_USERS_FIELDS)
        {
            return "\"message=\" goes to the end of the line: no other field "
                   "can be behind it";
        }
    }

    return NULL;
}


/* which one begins here; ..._FIELDS: none */

static ngx_uint_t
ngx_mail_policy_auth_users_field(u_char *p, u_char *last)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    for (i = 0; i < NGX_MAIL_POLICY_AUTH_USERS_FIELDS; i++) {
        name = &ngx_mail_policy_auth_users_names[i];

        if ((size_t) (last - p) >= name->len
            && ngx_memcmp(p, name->data, name->len) == 0)
        {
            break;
        }
    }

    return i;
}


/* p: the value's beginning */

static u_char *
ngx_mail_policy_auth_users_end(ngx_uint_t field, u_char *p, u_char *last)
{
    u_char  *end, *port;

    if (field == NGX_MAIL_POLICY_AUTH_USERS_MESSAGE) {
        return last;
    }

    if (field == NGX_MAIL_POLICY_AUTH_USERS_RELAY) {

        if (p < last && *p == '[') {
            end = ngx_strlchr(p, last, ']');
            p = end ? end : p;

        } else if (last - p > 5 && ngx_memcmp(p, "unix:", 5) == 0) {
            p += 5;
        }
    }

    end = ngx_strlchr(p, last, ':');

    if (end == NULL) {
        return last;
    }

    if (field != NGX_MAIL_POLICY_AUTH_USERS_RELAY) {
        return end;
    }

    for (port = end + 1; port < last && *port >= '0' && *port <= '9'; port++) {
        /* void */
    }

    return (port > end + 1 && (port == last || *port == ':')) ? port : end;
}


static ngx_uint_t
ngx_mail_policy_auth_users_sort(ngx_mail_policy_auth_table_t *table,
    ngx_mail_policy_watch_error_t *error)
{
    ngx_uint_t                    i;
    ngx_mail_policy_auth_user_t  *user;

    user = table->users;

    ngx_qsort(user, table->n, sizeof(ngx_mail_policy_auth_user_t),
              ngx_mail_policy_auth_users_cmp);

    for (i = 1; i < table->n; i++) {

        if (ngx_mail_policy_auth_users_cmp_texts(user[i - 1].data,
                                                user[i - 1].login,
                                                user[i].data, user[i].login)
            == 0)
        {
            (void) ngx_mail_policy_watch_fail(error, user[i].number,
                                           "the same login as in line %ui",
                                           (ngx_uint_t) user[i - 1].number);
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_mail_policy_auth_users_kinds(ngx_pool_t *pool,
    ngx_mail_policy_auth_table_t *table)
{
    ngx_uint_t                     i, k, n;
    ngx_mail_policy_auth_user_t  **users;

    for (k = 0; k < NGX_MAIL_POLICY_AUTH_KINDS; k++) {

        n = 0;

        for (i = 0; i < table->n; i++) {
            n += ngx_mail_policy_auth_users_good(&table->users[i], k);
        }

        users = ngx_palloc(pool, (n + 1)
                                 * sizeof(ngx_mail_policy_auth_user_t *));
        if (users == NULL) {
            return NGX_ERROR;
        }

        n = 0;

        for (i = 0; i < table->n; i++) {
            if (ngx_mail_policy_auth_users_good(&table->users[i], k)) {
                users[n++] = &table->users[i];
            }
        }

        /* mostly, all are of one cost */

        for (i = 1; i < n; i++) {
            if (ngx_mail_policy_auth_users_cmp_costs(&users[i - 1], &users[i])
                > 0)
            {
                ngx_qsort(users, n, sizeof(ngx_mail_policy_auth_user_t *),
                          ngx_mail_policy_auth_users_cmp_costs);
                break;
            }
        }

        table->kinds[k].users = users;
        table->kinds[k].n = n;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_mail_policy_auth_users_good(ngx_mail_policy_auth_user_t *user,
    ngx_uint_t kind)
{
    ngx_str_t  hash;

    ngx_mail_policy_auth_users_hash(user, &hash);

    return hash.len && ngx_mail_policy_crypt_kind(&hash) >= kind;
}


static void
ngx_mail_policy_auth_users_hash(ngx_mail_policy_auth_user_t *user,
    ngx_str_t *hash)
{
    hash->data = user->data + user->login + 1;
    hash->len = user->hash;
}


static int ngx_libc_cdecl
ngx_mail_policy_auth_users_cmp(const void *one, const void *two)
{
    int                                 rc;
    const ngx_mail_policy_auth_user_t  *first, *second;

    first = one;
    second = two;

    rc = ngx_mail_policy_auth_users_cmp_texts(first->data, first->login,
                                             second->data, second->login);
    if (rc == 0) {
        rc = (first->number < second->number) ? -1 : 1;
    }

    return rc;
}


static int ngx_libc_cdecl
ngx_mail_policy_auth_users_cmp_costs(const void *one, const void *two)
{
    ngx_str_t  first, second;

    ngx_mail_policy_auth_users_hash(*(ngx_mail_policy_auth_user_t **) one,
                                   &first);
    ngx_mail_policy_auth_users_hash(*(ngx_mail_policy_auth_user_t **) two,
                                   &second);

    return ngx_mail_policy_auth_users_cmp_texts(first.data,
                                       ngx_mail_policy_crypt_cost(&first),
                                       second.data,
                                       ngx_mail_policy_crypt_cost(&second));
}


/* any order does, as long as it tells apart what differs in case only */

static int
ngx_mail_policy_auth_users_cmp_texts(u_char *one, size_t n, u_char *two,
    size_t m)
{
    if (n != m) {
        return (n < m) ? -1 : 1;
    }

    return ngx_memcmp(one, two, n);
}


ngx_int_t
ngx_mail_policy_auth_users_find(ngx_mail_policy_auth_table_t *table,
    ngx_str_t *login, ngx_mail_policy_auth_record_t *record)
{
    ngx_mail_policy_auth_user_t  *user;

    user = ngx_mail_policy_auth_users_user(table, login);

    if (user == NULL) {
        return NGX_DECLINED;
    }

    (void) ngx_mail_policy_auth_users_fields(user, record);

    return NGX_OK;
}


static ngx_mail_policy_auth_user_t *
ngx_mail_policy_auth_users_user(ngx_mail_policy_auth_table_t *table,
    ngx_str_t *login)
{
    int                           rc;
    ngx_uint_t                    low, high, middle;
    ngx_mail_policy_auth_user_t  *user;

    low = 0;
    high = table->n;

    while (low < high) {
        middle = low + (high - low) / 2;
        user = &table->users[middle];

        rc = ngx_mail_policy_auth_users_cmp_texts(login->data, login->len,
                                                 user->data, user->login);
        if (rc == 0) {
            return user;
        }

        if (rc < 0) {
            high = middle;

        } else {
            low = middle + 1;
        }
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_auth_users_pick(ngx_mail_policy_auth_table_t *table,
    ngx_mail_policy_crypt_kind_e kind, uint32_t point, ngx_str_t *hash)
{
    uint64_t  n;

    n = table->kinds[kind].n;

    if (n == 0) {
        return NGX_DECLINED;
    }

    n = (n * point) >> 32;

    ngx_mail_policy_auth_users_hash(table->kinds[kind].users[n], hash);

    return NGX_OK;
}
