
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * The provider "file:/path": a file read with the configuration.
 *
 *     file  = *( line LF )
 *     line  = [ login ":" hash *( ":" ( senders / ignored ) ) ] / "#" comment
 *     senders = "senders=" list, see mpol_sender.h
 *
 * A {PLAIN} secret reaches to the end of its line and holds no ":".  A file
 * that has changed is read again on reload.
 *
 * No events: find() answers at once, out of a sorted array that lives as
 * long as the configuration.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_mail_policy_auth_provider.h"
#include "mpol_sasl.h"
#include "mpol_sender.h"


typedef struct {
    ngx_str_t                         login;
    ngx_str_t                         hash;
    ngx_str_t                         senders;
    ngx_uint_t                        line;
} ngx_mail_policy_auth_user_t;


typedef struct {
    ngx_str_t                         path;
    ngx_str_t                         text;
    ngx_array_t                       users;
} ngx_mail_policy_auth_file_t;


static ngx_int_t ngx_mail_policy_auth_file_read(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file);
static ngx_int_t ngx_mail_policy_auth_file_read_fd(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file, ngx_fd_t fd);
static void ngx_mail_policy_auth_file_wipe(void *data);
static ngx_int_t ngx_mail_policy_auth_file_parse(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file);
static char *ngx_mail_policy_auth_file_line(ngx_mail_policy_auth_file_t *file,
    u_char *p, u_char *last, ngx_uint_t line);
static char *ngx_mail_policy_auth_file_senders(u_char *p, u_char *last,
    ngx_str_t *senders);
static ngx_int_t ngx_mail_policy_auth_file_sort(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file);
static int ngx_libc_cdecl ngx_mail_policy_auth_file_cmp(const void *one,
    const void *two);
static ngx_int_t ngx_mail_policy_auth_file_cmp_logins(const ngx_str_t *one,
    const ngx_str_t *two);

static void ngx_mail_policy_auth_file_find(ngx_mail_policy_auth_t *auth,
    void *data);
static void ngx_mail_policy_auth_file_dummy(ngx_mail_policy_auth_t *auth,
    void *data, ngx_str_t *hash);


ngx_int_t
ngx_mail_policy_auth_file(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_auth_provider_t *provider)
{
    ngx_mail_policy_auth_file_t  *file;

    file = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_auth_file_t));
    if (file == NULL) {
        return NGX_ERROR;
    }

    file->path.data = value->data + sizeof("file:") - 1;
    file->path.len = value->len - (sizeof("file:") - 1);

    if (ngx_conf_full_name(cf->cycle, &file->path, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_array_init(&file->users, cf->pool, 16,
                       sizeof(ngx_mail_policy_auth_user_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_mail_policy_auth_file_read(cf, file) != NGX_OK
        || ngx_mail_policy_auth_file_parse(cf, file) != NGX_OK
        || ngx_mail_policy_auth_file_sort(cf, file) != NGX_OK)
    {
        return NGX_ERROR;
    }

    provider->data = file;
    provider->find = ngx_mail_policy_auth_file_find;
    provider->dummy = ngx_mail_policy_auth_file_dummy;
    provider->methods = NGX_MAIL_POLICY_METHODS_RECORDS;
    provider->records = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_auth_file_read(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file)
{
    ngx_fd_t   fd;
    ngx_int_t  rc;

    /* not to be held up by a FIFO */

    fd = ngx_open_file(file->path.data, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" of \"policy_auth\" failed",
                           &file->path);
        return NGX_ERROR;
    }

    rc = ngx_mail_policy_auth_file_read_fd(cf, file, fd);

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", &file->path);
    }

    return rc;
}


static ngx_int_t
ngx_mail_policy_auth_file_read_fd(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file, ngx_fd_t fd)
{
    size_t               size;
    ssize_t              n;
    ngx_file_info_t      fi;
    ngx_pool_cleanup_t  *cln;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_fd_info_n " \"%V\" failed", &file->path);
        return NGX_ERROR;
    }

    if (!ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" of \"policy_auth\" is not a regular file",
                           &file->path);
        return NGX_ERROR;
    }

    size = (size_t) ngx_file_size(&fi);

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    file->text.data = ngx_pnalloc(cf->pool, size + 1);
    if (file->text.data == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_mail_policy_auth_file_wipe;
    cln->data = &file->text;

    while (file->text.len < size) {
        n = ngx_read_fd(fd, file->text.data + file->text.len,
                        size - file->text.len);

        if (n == -1) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               ngx_read_fd_n " \"%V\" failed", &file->path);
            return NGX_ERROR;
        }

        if (n == 0) {
            break;
        }

        file->text.len += n;
    }

    return NGX_OK;
}


static void
ngx_mail_policy_auth_file_wipe(void *data)
{
    ngx_str_t *text = data;

    ngx_explicit_memzero(text->data, text->len);
}


/* what is wrong is told by line; what the line holds may be a secret */

static ngx_int_t
ngx_mail_policy_auth_file_parse(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file)
{
    char        *err;
    u_char      *p, *last, *end, *eol;
    ngx_uint_t   line;

    p = file->text.data;
    end = p + file->text.len;

    for (line = 1; p < end; line++) {

        eol = ngx_strlchr(p, end, LF);
        if (eol == NULL) {
            eol = end;
        }

        last = eol;

        if (last > p && last[-1] == CR) {
            last--;
        }

        err = ngx_mail_policy_auth_file_line(file, p, last, line);

        if (err) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V:%ui: %s",
                               &file->path, line, err);
            return NGX_ERROR;
        }

        p = eol + 1;
    }

    return NGX_OK;
}


/* NULL, or what is wrong */

static char *
ngx_mail_policy_auth_file_line(ngx_mail_policy_auth_file_t *file,
    u_char *p, u_char *last, ngx_uint_t line)
{
    char                         *err;
    u_char                       *colon, *end;
    ngx_str_t                     login, hash, senders;
    ngx_mail_policy_auth_user_t  *user;

    if (p == last || *p == '#') {
        return NULL;
    }

    colon = ngx_strlchr(p, last, ':');
    if (colon == NULL) {
        return "\"login:hash\" expected";
    }

    login.data = p;
    login.len = colon - p;

    if (!mpol_identity_valid(login.data, login.len)) {
        return "invalid login, expected 1 to 255 octets of UTF-8 without "
               "control characters, and no space at either end";
    }

    end = ngx_strlchr(colon + 1, last, ':');

    hash.data = colon + 1;
    hash.len = (end ? end : last) - hash.data;

    if (ngx_mail_policy_crypt_check(&hash) != NGX_OK) {
        return "unknown, incomplete or too costly password hash, expected "
               NGX_MAIL_POLICY_CRYPT_FORMATS;
    }

    /* rather no password than one that ends where nobody thinks it does */

    if (end
        && ngx_mail_policy_crypt_kind(&hash) == NGX_MAIL_POLICY_CRYPT_CLEAR)
    {
        return "a {PLAIN} password cannot have a \":\" in it or behind it";
    }

    err = ngx_mail_policy_auth_file_senders(end, last, &senders);
    if (err) {
        return err;
    }

    user = ngx_array_push(&file->users);
    if (user == NULL) {
        return "no memory";
    }

    user->login = login;
    user->hash = hash;
    user->senders = senders;
    user->line = line;

    return NULL;
}


/*
 * Files of other programs have fields of their own there, of which none
 * begins so.  p is at the colon behind the hash, or NULL.
 */

static char *
ngx_mail_policy_auth_file_senders(u_char *p, u_char *last,
    ngx_str_t *senders)
{
    size_t   n;
    u_char  *end;

    ngx_str_null(senders);

    n = sizeof("senders=") - 1;

    for ( /* void */ ; p; p = end) {

        p++;
        end = ngx_strlchr(p, last, ':');

        if ((size_t) (last - p) < n
            || ngx_strncmp(p, (u_char *) "senders=", n) != 0)
        {
            continue;
        }

        if (senders->data) {
            return "a second \"senders=\"";
        }

        senders->data = p + n;
        senders->len = (end ? end : last) - senders->data;
    }

    switch (mpol_senders_check(senders->data, senders->len)) {

    case MPOL_OK:
        return NULL;

    case MPOL_SENDERS_LONG:
        return "too many senders, expected at most "
               NGX_MAIL_POLICY_SENDERS_BOUNDS;

    default: /* MPOL_SENDERS_ENTRY */
        return "invalid sender, expected addresses and \"@domain\" behind "
               "\"senders=\", with \",\" between them, each part with one "
               "\"*\" at most";
    }
}


static ngx_int_t
ngx_mail_policy_auth_file_sort(ngx_conf_t *cf,
    ngx_mail_policy_auth_file_t *file)
{
    ngx_uint_t                    i;
    ngx_mail_policy_auth_user_t  *user;

    user = file->users.elts;

    ngx_qsort(user, file->users.nelts, sizeof(ngx_mail_policy_auth_user_t),
              ngx_mail_policy_auth_file_cmp);

    for (i = 1; i < file->users.nelts; i++) {

        if (ngx_mail_policy_auth_file_cmp_logins(&user[i - 1].login,
                                                 &user[i].login)
            == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V:%ui: the same login as in line %ui",
                               &file->path, user[i].line, user[i - 1].line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_mail_policy_auth_file_cmp(const void *one, const void *two)
{
    ngx_int_t                           rc;
    const ngx_mail_policy_auth_user_t  *first, *second;

    first = one;
    second = two;

    rc = ngx_mail_policy_auth_file_cmp_logins(&first->login, &second->login);

    if (rc == 0) {
        rc = (first->line < second->line) ? -1 : 1;
    }

    return (int) rc;
}


/* any order does, as long as it tells apart what differs in case only */

static ngx_int_t
ngx_mail_policy_auth_file_cmp_logins(const ngx_str_t *one,
    const ngx_str_t *two)
{
    if (one->len != two->len) {
        return (one->len < two->len) ? -1 : 1;
    }

    return ngx_memcmp(one->data, two->data, one->len);
}


static void
ngx_mail_policy_auth_file_find(ngx_mail_policy_auth_t *auth, void *data)
{
    ngx_mail_policy_auth_file_t *file = data;

    ngx_int_t                      rc;
    ngx_uint_t                     low, high, middle;
    ngx_mail_policy_auth_user_t   *user;
    ngx_mail_policy_auth_record_t  record;

    user = file->users.elts;

    low = 0;
    high = file->users.nelts;

    while (low < high) {
        middle = low + (high - low) / 2;

        rc = ngx_mail_policy_auth_file_cmp_logins(&auth->login,
                                                  &user[middle].login);
        if (rc == 0) {
            ngx_memzero(&record, sizeof(ngx_mail_policy_auth_record_t));

            record.hash = user[middle].hash;
            record.senders = user[middle].senders;

            ngx_mail_policy_auth_record(auth, NGX_OK, &record);
            return;
        }

        if (rc < 0) {
            high = middle;

        } else {
            low = middle + 1;
        }
    }

    ngx_mail_policy_auth_record(auth, NGX_DECLINED, NULL);
}


/*
 * The hash of somebody in the file: where hashes of several costs stand in
 * it, unknown logins have them in the same proportion.
 */

static void
ngx_mail_policy_auth_file_dummy(ngx_mail_policy_auth_t *auth, void *data,
    ngx_str_t *hash)
{
    ngx_mail_policy_auth_file_t *file = data;

    ngx_uint_t                    n;
    ngx_mail_policy_auth_user_t  *user;

    if (file->users.nelts == 0) {
        ngx_str_set(hash, NGX_MAIL_POLICY_CRYPT_DEFAULT);
        return;
    }

    user = file->users.elts;
    n = ngx_murmur_hash2(auth->login.data, auth->login.len)
        % file->users.nelts;

    *hash = user[n].hash;
}
