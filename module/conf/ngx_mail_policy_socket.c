
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * policy_socket_mode 0660 [user=name] [group=name]
 *
 * nginx makes sockets that all may connect to, and listens at once; the
 * directive's mode is set right behind that, by the master.  Who has connected
 * to a new socket by then is sent away, whoever that is.  A socket that was
 * there before is changed where it is not as it should be: with no more rights
 * in between than before and after.
 *
 * No events arrive here; init_module calls.
 */


#include "ngx_mail_policy_directive.h"

#include <grp.h>
#include <pwd.h>


#define NGX_MAIL_POLICY_SOCKET_UNSET  ((ngx_uint_t) -1)


typedef struct {
    struct sockaddr                *sockaddr;
    socklen_t                       socklen;
    ngx_mail_policy_socket_conf_t  *conf;
} ngx_mail_policy_socket_t;


static ngx_int_t ngx_mail_policy_socket_bits(ngx_conf_t *cf,
    ngx_str_t *value, ngx_mail_policy_socket_conf_t *socket);
static ngx_int_t ngx_mail_policy_socket_owner(ngx_conf_t *cf,
    ngx_str_t *value, ngx_mail_policy_socket_conf_t *socket);
static ngx_uint_t ngx_mail_policy_socket_member(gid_t gid);
static ngx_int_t ngx_mail_policy_socket_set(ngx_cycle_t *cycle,
    ngx_mail_policy_socket_t *socket, ngx_listening_t *ls);
static ngx_int_t ngx_mail_policy_socket_change(ngx_cycle_t *cycle,
    const char *path, ngx_mail_policy_socket_conf_t *conf);
static ngx_int_t ngx_mail_policy_socket_failed(ngx_cycle_t *cycle,
    const char *call, const char *path, ngx_mail_policy_socket_conf_t *conf);
static void ngx_mail_policy_socket_send_away(ngx_cycle_t *cycle,
    ngx_listening_t *ls);


char *
ngx_mail_policy_socket_mode(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_srv_conf_t *pscf = conf;

    ngx_str_t                      *value;
    ngx_uint_t                      i;
    ngx_mail_policy_socket_conf_t  *socket;

    if (pscf->socket) {
        return "is duplicate";
    }

    socket = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_socket_conf_t));
    if (socket == NULL) {
        return NGX_CONF_ERROR;
    }

    socket->user = NGX_MAIL_POLICY_SOCKET_UNSET;
    socket->group = NGX_MAIL_POLICY_SOCKET_UNSET;
    socket->file = cf->conf_file->file.name.data;
    socket->line = cf->conf_file->line;

    value = cf->args->elts;

    if (ngx_mail_policy_socket_bits(cf, &value[1], socket) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_mail_policy_socket_owner(cf, &value[i], socket) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    pscf->socket = socket;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_mail_policy_socket_bits(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_socket_conf_t *socket)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '7') {
            break;
        }

        socket->mode = socket->mode * 8 + (value->data[i] - '0');
    }

    if (i < value->len || value->len < 3 || value->len > 4
        || socket->mode > 0777)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid mode \"%V\": write three octal digits, as "
                           "\"0660\"", value);
        return NGX_ERROR;
    }

    /* to connect is to write */

    if (!(socket->mode & 0222)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "mode \"%V\" lets nobody connect: write as "
                           "\"0660\"", value);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_socket_owner(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_socket_conf_t *socket)
{
    struct group   *grp;
    struct passwd  *pwd;

    ngx_set_errno(0);

    if (ngx_strncmp(value->data, "user=", 5) == 0
        && socket->user == NGX_MAIL_POLICY_SOCKET_UNSET)
    {
        pwd = getpwnam((const char *) value->data + 5);
        if (pwd == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               "no user \"%s\" on this machine",
                               value->data + 5);
            return NGX_ERROR;
        }

        socket->user = pwd->pw_uid;

        if (geteuid() == 0 || geteuid() == pwd->pw_uid) {
            return NGX_OK;
        }

    } else if (ngx_strncmp(value->data, "group=", 6) == 0
               && socket->group == NGX_MAIL_POLICY_SOCKET_UNSET)
    {
        grp = getgrnam((const char *) value->data + 6);
        if (grp == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                               "no group \"%s\" on this machine",
                               value->data + 6);
            return NGX_ERROR;
        }

        socket->group = grp->gr_gid;

        if (geteuid() == 0 || ngx_mail_policy_socket_member(grp->gr_gid)) {
            return NGX_OK;
        }

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\": write \"user=name\" or "
                           "\"group=name\", each once", value);
        return NGX_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" needs an nginx that is started by root", value);

    return NGX_ERROR;
}


/* of ours, to which we may give what is ours */

static ngx_uint_t
ngx_mail_policy_socket_member(gid_t gid)
{
    int     i, n;
    gid_t  *groups;

    if (gid == getegid()) {
        return 1;
    }

    n = getgroups(0, NULL);

    if (n <= 0) {
        return 0;
    }

    groups = ngx_alloc(n * sizeof(gid_t), ngx_cycle->log);
    if (groups == NULL) {
        return 0;
    }

    n = getgroups(n, groups);

    for (i = 0; i < n; i++) {
        if (groups[i] == gid) {
            break;
        }
    }

    ngx_free(groups);

    return i < n;
}


ngx_int_t
ngx_mail_policy_socket_init(ngx_conf_t *cf, ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf, ngx_uint_t own)
{
    ngx_uint_t                  i, n;
    ngx_mail_listen_t          *listen;
    ngx_mail_policy_socket_t   *socket;
    ngx_mail_core_main_conf_t  *cmcf;

    if (conf->socket == NULL) {
        return NGX_OK;
    }

    cmcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_core_module);
    listen = cmcf->listen.elts;
    n = 0;

    for (i = 0; i < cmcf->listen.nelts; i++) {

        if (listen[i].ctx != cf->ctx
            || listen[i].sockaddr->sa_family != AF_UNIX)
        {
            continue;
        }

        if (mcf->sockets == NULL) {
            mcf->sockets = ngx_array_create(cf->pool, 2,
                                           sizeof(ngx_mail_policy_socket_t));
            if (mcf->sockets == NULL) {
                return NGX_ERROR;
            }
        }

        socket = ngx_array_push(mcf->sockets);
        if (socket == NULL) {
            return NGX_ERROR;
        }

        socket->sockaddr = listen[i].sockaddr;
        socket->socklen = listen[i].socklen;
        socket->conf = conf->socket;

        n++;
    }

    if (n || !own) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"policy_socket_mode\" is of no use: write \"listen "
                  "unix:/path\" into its server, in %s:%ui",
                  conf->socket->file, conf->socket->line);

    return NGX_ERROR;
}


ngx_int_t
ngx_mail_policy_socket_init_module(ngx_cycle_t *cycle,
    ngx_mail_policy_main_conf_t *mcf)
{
    ngx_uint_t                 i, n;
    ngx_listening_t           *ls;
    ngx_mail_policy_socket_t  *socket;

    /* a test finds the sockets of the nginx that is at work */

    if (mcf->sockets == NULL || ngx_test_config) {
        return NGX_OK;
    }

    ls = cycle->listening.elts;
    socket = mcf->sockets->elts;

    for (i = 0; i < mcf->sockets->nelts; i++) {
        for (n = 0; n < cycle->listening.nelts; n++) {

            if (ngx_cmp_sockaddr(ls[n].sockaddr, ls[n].socklen,
                                 socket[i].sockaddr, socket[i].socklen, 1)
                == NGX_OK
                && ngx_mail_policy_socket_set(cycle, &socket[i], &ls[n])
                   != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


/*
 * NGX_ERROR ends nginx, as it does not start with a socket that is not as it
 * was asked for; but one that is at work goes on.
 */

static ngx_int_t
ngx_mail_policy_socket_set(ngx_cycle_t *cycle,
    ngx_mail_policy_socket_t *socket, ngx_listening_t *ls)
{
    ngx_int_t    rc;
    const char  *path;

    path = ((struct sockaddr_un *) socket->sockaddr)->sun_path;

    rc = ngx_mail_policy_socket_change(cycle, path, socket->conf);

    if (ls->open) {
        ngx_mail_policy_socket_send_away(cycle, ls);
    }

    if (rc == NGX_OK || !ngx_is_init_cycle(cycle->old_cycle)) {
        return NGX_OK;
    }

    /* or the next start would find it */

    if (ls->open) {
        (void) ngx_delete_file(path);
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_mail_policy_socket_change(ngx_cycle_t *cycle, const char *path,
    ngx_mail_policy_socket_conf_t *conf)
{
    uid_t        user;
    gid_t        group;
    mode_t       mode;
    struct stat  st;

    if (lstat(path, &st) == -1) {
        return ngx_mail_policy_socket_failed(cycle, "lstat()", path, conf);
    }

    /* whoever may write to its folder has put something else there */

    if (!S_ISSOCK(st.st_mode)) {
        ngx_set_errno(0);
        return ngx_mail_policy_socket_failed(cycle, "it is no socket:", path,
                                             conf);
    }

    user = st.st_uid;
    group = st.st_gid;
    mode = st.st_mode & 0777;

    if (conf->user != NGX_MAIL_POLICY_SOCKET_UNSET) {
        user = (uid_t) conf->user;
    }

    if (conf->group != NGX_MAIL_POLICY_SOCKET_UNSET) {
        group = (gid_t) conf->group;
    }

    if (user != st.st_uid || group != st.st_gid) {

        if ((mode & ~conf->mode)
            && chmod(path, mode & conf->mode) == -1)
        {
            return ngx_mail_policy_socket_failed(cycle, "chmod()", path,
                                                 conf);
        }

        mode &= conf->mode;

        if (lchown(path, user, group) == -1) {
            return ngx_mail_policy_socket_failed(cycle, "chown()", path,
                                                 conf);
        }
    }

    if (mode != conf->mode && chmod(path, conf->mode) == -1) {
        return ngx_mail_policy_socket_failed(cycle, "chmod()", path, conf);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_socket_failed(ngx_cycle_t *cycle, const char *call,
    const char *path, ngx_mail_policy_socket_conf_t *conf)
{
    ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                  "\"policy_socket_mode\": %s \"%s\" failed, in %s:%ui",
                  call, path, conf->file, conf->line);

    return NGX_ERROR;
}


/* who came while all might; that has not been accepted by anybody */

static void
ngx_mail_policy_socket_send_away(ngx_cycle_t *cycle, ngx_listening_t *ls)
{
    ngx_socket_t  s;

    for ( ;; ) {
        s = accept(ls->fd, NULL, NULL);

        if (s == (ngx_socket_t) -1) {
            return;
        }

        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                      "\"policy_socket_mode\": a client that came to \"%V\" "
                      "before the mode was set is sent away",
                      &ls->addr_text);

        if (ngx_close_socket(s) == -1) {
            ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_socket_errno,
                          ngx_close_socket_n " failed");
        }
    }
}
