
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/* what the start of nginx leaves behind */


#ifndef SESSION_NGINX_H
#define SESSION_NGINX_H


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_mail.h>
#include <ngx_thread_pool.h>

#include "ngx_mail_policy_conf.h"
#include "session.h"


extern ngx_listening_t              *session_listening;
extern ngx_mail_policy_main_conf_t  *session_main_conf;


/* remembers what session_nginx_reset() is to restore */
void session_nginx_save(ngx_cycle_t *cycle);


#endif /* SESSION_NGINX_H */
