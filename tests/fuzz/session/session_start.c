
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * nginx is started as by its own main() for one process, up to and without
 * the loop.  No listening socket is left, and no file.
 */


#include <sanitizer/lsan_interface.h>

#include "session_nginx.h"


#define SESSION_PATH  512


static void session_nginx_path(char *path, const char *dir, const char *name);
static void session_nginx_write(char *dir, const char *name,
    const char *text);
static ngx_cycle_t *session_nginx_cycle(char *dir);
static void session_nginx_processes(ngx_cycle_t *cycle);
static void session_nginx_log(ngx_log_t *log, ngx_uint_t level, u_char *buf,
    size_t len);


extern ngx_module_t  ngx_mail_module;
extern ngx_module_t  ngx_thread_pool_module;


static const char  session_conf[] =
    "daemon off;\n"
    "master_process off;\n"
    "error_log /dev/null info;\n"
    "events { worker_connections 64; }\n"
    "mail {\n"
    "    server_name mail.test;\n"
    "    access_log access.log;\n"
    "    policy_zone 256k;\n"
    "    policy on;\n"
    "    policy_auth off;\n"
    "    policy_received off;\n"
    "    ssl_certificate cert.pem;\n"
    "    ssl_certificate_key key.pem;\n"
    "    upstream group {\n"
    "        server 127.0.0.1:1 max_fails=2;\n"
    "        server 127.0.0.1:2 weight=2;\n"
    "        server 127.0.0.1:3 backup;\n"
    "    }\n"
    "    map $recipient_domain $route {\n"
    "        default group;\n"
    "        one.test 127.0.0.1:1;\n"
    "        none.test $sender_domain;\n"
    "    }\n"
    "    proxy_pass 127.0.0.1:1;\n"

    /* 0: nothing but a relay */
    "    server {\n"
    "        listen 127.0.0.1:2525;\n"
    "        protocol smtp;\n"
    "        xclient off;\n"
    "    }\n"

    /* 1: users and limits; TLS */
    "    server {\n"
    "        listen 127.0.0.1:2526;\n"
    "        protocol smtp;\n"
    "        starttls on;\n"
    "        smtp_auth plain login;\n"
    "        policy_auth file:users;\n"
    "        policy_auth_plaintext on;\n"
    "        policy_limit user key=$sasl_username\n"
    "            messages=3/1h recipients=4/1h;\n"
    "    }\n"

    /* 2: several relays that are to know the client */
    "    server {\n"
    "        listen 127.0.0.1:2527;\n"
    "        protocol smtp;\n"
    "        proxy_pass group;\n"
    "        xclient on;\n"
    "    }\n"

    /* 3: the relay is chosen by the recipient; everything is too much; TLS */
    "    server {\n"
    "        listen 127.0.0.1:2528;\n"
    "        protocol smtp;\n"
    "        starttls on;\n"
    "        proxy_pass $route;\n"
    "        policy_message_size 100;\n"
    "        policy_max_recipients 3;\n"
    "        max_errors 3;\n"
    "    }\n"

    /* 4: not taken over before the first command */
    "    server {\n"
    "        listen 127.0.0.1:2529;\n"
    "        protocol smtp;\n"
    "        smtp_greeting_delay 1s;\n"
    "        proxy_pass group;\n"
    "    }\n"

    /* 5: a message is counted with its recipients */
    "    server {\n"
    "        listen 127.0.0.1:2530;\n"
    "        protocol smtp;\n"
    "        policy_limit client key=$remote_addr\n"
    "            messages=3/1h recipients=4/1h on_exceed=reject;\n"
    "        policy_limit domain key=$recipient_domain\n"
    "            messages=2/1h,burst=2 recipients=3/1h;\n"
    "    }\n"

    /*
     * 6: what is before the greeting decides who the client is; line ends are
     * repaired: see SESSION_NORMALIZE
     */
    "    server {\n"
    "        listen 127.0.0.1:2531 proxy_protocol;\n"
    "        protocol smtp;\n"
    "        policy_bare_newline normalize;\n"
    "        set_real_ip_from 192.0.2.0/24;\n"
    "        proxy_pass group;\n"
    "    }\n"

    /* 7: few extensions; a relay by recipient that counts as well */
    "    server {\n"
    "        listen 127.0.0.1:2532;\n"
    "        protocol smtp;\n"
    "        smtp_capabilities \"SIZE 300\" ENHANCEDSTATUSCODES;\n"
    "        policy_limit sender key=$sender messages=2/1h;\n"
    "        policy_limit to key=$recipient recipients=1/1h;\n"
    "        proxy_pass $route;\n"
    "    }\n"
    "}\n";

static const char  session_users[] =
    "alice:{PLAIN}secret\n"
    "bob@one.test:{PLAIN}p w\n";


void
session_nginx_start(void)
{
    char         *tmp;
    char          dir[SESSION_PATH];
    char          certificate[SESSION_PATH], key[SESSION_PATH];
    ngx_cycle_t  *cycle;

    /* what nginx allocates once is nowhere freed */

    __lsan_disable();

    tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/fuzz_session.XXXXXX/", tmp ? tmp : "/tmp");
    dir[strlen(dir) - 1] = '\0';

    if (mkdtemp(dir) == NULL) {
        SESSION_DIE("mkdtemp(%s) failed", dir);
    }

    strcat(dir, "/");

    session_nginx_write(dir, "nginx.conf", session_conf);
    session_nginx_write(dir, "users", session_users);

    session_nginx_path(certificate, dir, "cert.pem");
    session_nginx_path(key, dir, "key.pem");
    session_tls_certificate(certificate, key);

    cycle = session_nginx_cycle(dir);
    session_nginx_processes(cycle);
    session_nginx_save(cycle);

    session_nginx_write(dir, "access.log", NULL);
    session_nginx_write(dir, "users", NULL);
    session_nginx_write(dir, "nginx.conf", NULL);
    session_nginx_write(dir, "cert.pem", NULL);
    session_nginx_write(dir, "key.pem", NULL);
    rmdir(dir);

    signal(SIGPIPE, SIG_IGN);

    __lsan_enable();
}


static void
session_nginx_path(char *path, const char *dir, const char *name)
{
    if (snprintf(path, SESSION_PATH, "%s%s", dir, name) >= SESSION_PATH) {
        SESSION_DIE("TMPDIR is too long");
    }
}


/* no text: the file is not needed any more */

static void
session_nginx_write(char *dir, const char *name, const char *text)
{
    char   path[SESSION_PATH];
    FILE  *f;

    session_nginx_path(path, dir, name);

    if (text == NULL) {

        if (strcmp(name, "access.log") == 0) {
            session_log_open(path);
        }

        unlink(path);
        return;
    }

    f = fopen(path, "w");

    if (f == NULL || fputs(text, f) == EOF || fclose(f) == EOF) {
        SESSION_DIE("%s cannot be written", path);
    }
}


/* main() of nginx, without what a command line and signals need */

static ngx_cycle_t *
session_nginx_cycle(char *dir)
{
    static char   *argv[] = { "fuzz_session", NULL };

    char          *conf;
    ngx_log_t     *log;
    ngx_cycle_t   *cycle;

    static ngx_cycle_t  init_cycle;

    if (ngx_strerror_init() != NGX_OK) {
        SESSION_DIE("ngx_strerror_init() failed");
    }

    ngx_max_sockets = -1;
    ngx_process = NGX_PROCESS_SINGLE;
    ngx_os_argv = argv;
    ngx_argc = 1;

    ngx_time_init();
#if (NGX_PCRE)
    ngx_regex_init();
#endif

    ngx_pid = ngx_getpid();
    ngx_parent = ngx_getppid();

    log = ngx_log_init((u_char *) dir, (u_char *) "");
    ngx_ssl_init(log);

    init_cycle.log = log;
    ngx_cycle = &init_cycle;

    init_cycle.pool = ngx_create_pool(1024, log);

    conf = malloc(SESSION_PATH);
    session_nginx_path(conf, dir, "nginx.conf");

    init_cycle.conf_file.data = (u_char *) conf;
    init_cycle.conf_file.len = strlen(conf);
    init_cycle.conf_prefix.data = (u_char *) strdup(dir);
    init_cycle.conf_prefix.len = strlen(dir);
    init_cycle.prefix = init_cycle.conf_prefix;
    ngx_str_set(&init_cycle.error_log, "/dev/null");

    ngx_os_argv = argv;

    if (ngx_os_init(log) != NGX_OK || ngx_crc32_table_init() != NGX_OK) {
        SESSION_DIE("ngx_os_init() failed");
    }

    ngx_slab_sizes_init();

    if (ngx_preinit_modules() != NGX_OK) {
        SESSION_DIE("ngx_preinit_modules() failed");
    }

    cycle = ngx_init_cycle(&init_cycle);
    if (cycle == NULL) {
        SESSION_DIE("ngx_init_cycle() failed");
    }

    ngx_cycle = cycle;
    ngx_use_stderr = 0;

    return cycle;
}


static void
session_nginx_processes(ngx_cycle_t *cycle)
{
    ngx_uint_t                  i;
    ngx_log_t                  *log;
    ngx_mail_conf_ctx_t        *ctx;

    for (log = &cycle->new_log; log; log = log->next) {
        log->writer = session_nginx_log;
    }

    for (i = 0; cycle->modules[i]; i++) {

        /* threads are ours, see ngx_thread_task_post() */

        if (cycle->modules[i] == &ngx_thread_pool_module) {
            continue;
        }

        if (cycle->modules[i]->init_process
            && cycle->modules[i]->init_process(cycle) == NGX_ERROR)
        {
            SESSION_DIE("init_process() of %s failed",
                        cycle->modules[i]->name);
        }
    }

    /* the sockets go, the configuration that belongs to them stays */

    session_listening = cycle->listening.elts;

    if (cycle->listening.nelts != SESSION_SERVERS) {
        SESSION_DIE("%d listening sockets", (int) cycle->listening.nelts);
    }

    ngx_close_listening_sockets(cycle);

    ctx = (ngx_mail_conf_ctx_t *) ngx_get_conf(cycle->conf_ctx,
                                               ngx_mail_module);
    session_main_conf = ctx->main_conf[ngx_mail_policy_module.ctx_index];
}


/* the log has to be written, as its handlers look at what may be gone */

static void
session_nginx_log(ngx_log_t *log, ngx_uint_t level, u_char *buf, size_t len)
{
    if (session_traced) {
        session_trace("log", buf, len);
    }

    /* what OpenSSL says of a client that is none is nginx' to judge */

    if (level <= NGX_LOG_CRIT && strstr((char *) buf, "SSL_") == NULL) {
        SESSION_DIE("in the error log: %.*s", (int) len, (char *) buf);
    }
}
