
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * What the files of conf/ share among themselves.  Nobody else includes it.
 */


#ifndef NGX_MAIL_POLICY_DIRECTIVE_H
#define NGX_MAIL_POLICY_DIRECTIVE_H


#include "ngx_mail_policy_conf.h"


typedef struct ngx_mail_policy_variable_s  ngx_mail_policy_variable_t;
typedef struct ngx_mail_policy_map_s       ngx_mail_policy_map_t;
typedef struct ngx_mail_policy_geo_s       ngx_mail_policy_geo_t;

typedef ngx_int_t (*ngx_mail_policy_variable_pt)(ngx_pool_t *pool,
    ngx_mail_policy_envelope_t *envelope, uintptr_t data, ngx_str_t *out);


/* where the parts of a source are that a regex has captured */
typedef struct {
    ngx_str_t                     source;
    int                          *offsets;  /* two for each; -1: none */
    ngx_uint_t                    n;        /* of offsets */
} ngx_mail_policy_captures_t;


/* a variable that needs no definition */
struct ngx_mail_policy_variable_s {
    ngx_str_t                     name;
    ngx_mail_policy_variable_pt   handler;
    uintptr_t                     data;
    ngx_uint_t                    phase;
};


/* tables of them, up to one without a name */
extern ngx_mail_policy_variable_t  ngx_mail_policy_end_variables[];
extern ngx_mail_policy_variable_t  ngx_mail_policy_ssl_variables[];


/* a piece of a value: a literal, or one of the kinds of variables */
typedef struct {
    ngx_str_t                     text;     /* the literal, or the name */
    ngx_mail_policy_variable_t   *variable;
    ngx_mail_policy_map_t        *map;
    ngx_mail_policy_lookup_conf_t  *lookup;
    ngx_uint_t                    capture;  /* of a map's regex; 0: the whole */
    unsigned                      named:1;  /* text is a variable's name */
    unsigned                      captured:1;
} ngx_mail_policy_part_t;


/* "map", or "geo", which is another way to find a result */
struct ngx_mail_policy_map_s {
    ngx_str_t                     name;
    ngx_mail_policy_value_t       source;
    ngx_mail_policy_value_t      *fallback; /* "default", or NULL: empty */
    ngx_hash_combined_t           hash;     /* ..._value_t *, by lower case */
    ngx_array_t                  *regexes;  /* NULL: none */
    ngx_mail_policy_geo_t        *geo;      /* instead of both, or NULL */
    ngx_array_t                   results;  /* ..._value_t *, of all */
    ngx_uint_t                    phase;
    uint64_t                      lookups;
    u_char                       *file;
    ngx_uint_t                    line;
    unsigned                      hostnames:1;
    unsigned                      entered:1;
    unsigned                      resolved:1;
};


/* prints a number, of at most size octets */
ngx_int_t ngx_mail_policy_variable_print(ngx_pool_t *pool, size_t size,
    ngx_str_t *out, const char *fmt, ...);

/* a variable by name, without "$"; NULL if there is none */
ngx_mail_policy_variable_t *ngx_mail_policy_variable_find(ngx_str_t *name);
ngx_mail_policy_map_t *ngx_mail_policy_map_find(ngx_array_t *maps,
    ngx_str_t *name);

/*
 * A new map of the variable $name (with its "$"), which has no results yet.
 * result: one of them, which is text as it is or may have variables in it; a
 * text that many keys have is kept once.  NULL: error, logged.
 */
ngx_mail_policy_map_t *ngx_mail_policy_map_add(ngx_conf_t *cf,
    ngx_str_t *source, ngx_str_t *name);
ngx_mail_policy_value_t *ngx_mail_policy_map_result(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_str_t *text, ngx_uint_t variables);

/*
 * Regular expressions among a map's keys.  find: NGX_OK with *out, the result
 * of the first that matches; NGX_DECLINED; NGX_ERROR: no memory.
 */
ngx_int_t ngx_mail_policy_map_regex(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_str_t *key, ngx_str_t *result);
ngx_int_t ngx_mail_policy_map_regex_find(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *source, ngx_str_t *out);

/* the directive "geo [$address] $name { ... }"; NULL: not in any network */
char *ngx_mail_policy_geo(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_mail_policy_value_t *ngx_mail_policy_geo_find(ngx_mail_policy_geo_t *geo,
    ngx_str_t *address);

/* how large the hash of a map may be; in front of all maps */
char *ngx_mail_policy_map_hash_size(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

ngx_int_t ngx_mail_policy_map_eval(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *out);

/* a regex' result, with what it has captured */
ngx_int_t ngx_mail_policy_value_captured(ngx_mail_policy_use_t *use,
    ngx_mail_policy_value_t *value, ngx_mail_policy_captures_t *captures,
    ngx_str_t *out);

/*
 * Follows a map through its source and its results: sets its phase, and
 * refuses one that leads back to itself.
 */
ngx_int_t ngx_mail_policy_map_resolve(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map);

/*
 * The directive "policy_lookup $name key [default]".  find: by name, without
 * "$", NULL if there is none.  resolve: as map_resolve(); check: what needs
 * all of mail{}.  use: mask is evaluated in this server, so that it is asked
 * for there.
 */
char *ngx_mail_policy_lookup(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_mail_policy_lookup_conf_t *ngx_mail_policy_lookup_find(
    ngx_array_t *lookups, ngx_str_t *name);
ngx_int_t ngx_mail_policy_lookup_resolve(ngx_conf_t *cf,
    ngx_mail_policy_lookup_conf_t *lookup);
ngx_int_t ngx_mail_policy_lookup_check(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf);
void ngx_mail_policy_lookup_use(ngx_mail_policy_main_conf_t *mcf,
    ngx_mail_policy_srv_conf_t *conf, uint64_t mask);
ngx_int_t ngx_mail_policy_lookup_eval(ngx_pool_t *pool,
    ngx_mail_policy_lookup_conf_t *lookup,
    ngx_mail_policy_envelope_t *envelope, ngx_str_t *out);

/* makes the array in which compiled values wait for their variables */
ngx_int_t ngx_mail_policy_value_init(ngx_conf_t *cf, ngx_array_t *values);

/* the name of "$name", which text defines; logs what is wrong with it */
ngx_int_t ngx_mail_policy_value_define(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf, ngx_str_t *text, ngx_str_t *name);


/*
 * Values lie in arrays that move while they grow, so resolving leaves their
 * phases to whoever holds them: sets value->phase and value->lookups, once all
 * is resolved.
 */
void ngx_mail_policy_value_phase(ngx_mail_policy_value_t *value);

/* the same, resolving whatever its variables lead to before */
ngx_int_t ngx_mail_policy_value_follow(ngx_conf_t *cf,
    ngx_mail_policy_value_t *value);

/* 1 if a variable stands in text */
ngx_uint_t ngx_mail_policy_value_variables(ngx_str_t *text);

/* the groups that a route can name are made known; errors are logged */
ngx_int_t ngx_mail_policy_route_check(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf, ngx_mail_policy_value_t *route);


/* one of some words: post is their ngx_conf_enum_t */
char *ngx_mail_policy_enum_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/*
 * policy_auth_http_* and policy_auth_ssl_*, which lie in an object of their
 * own; with auth_http set by create() before any of them is read
 */
ngx_mail_policy_auth_http_conf_t *ngx_mail_policy_auth_http_create(
    ngx_conf_t *cf);
ngx_int_t ngx_mail_policy_auth_http_merge(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_srv_conf_t *prev);
char *ngx_mail_policy_auth_http_header(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_mail_policy_auth_http_flag(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_mail_policy_auth_http_str(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_mail_policy_auth_http_msec(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* "policy_auth_methods", and once the server is merged */
char *ngx_mail_policy_methods(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_mail_policy_methods_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);

/* "policy_sender own", once the server is merged */
ngx_int_t ngx_mail_policy_sender_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);

/*
 * "protocol policy".  auth_http(): the stand-in that all servers inherit, see
 * below; is(): 1 if a server has it; check(): before it is merged, what has
 * no meaning there is refused; refuse(): one directive that has none, if it
 * is not NULL; alone(): before a server of another protocol is merged, what
 * has no meaning in that; merge(): all else.
 */
ngx_int_t ngx_mail_policy_protocol_auth_http(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf);
ngx_uint_t ngx_mail_policy_protocol_is(ngx_mail_core_srv_conf_t *cscf);
ngx_int_t ngx_mail_policy_protocol_check(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);
ngx_int_t ngx_mail_policy_protocol_refuse(ngx_conf_t *cf, const char *name);
ngx_int_t ngx_mail_policy_protocol_alone(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);
ngx_int_t ngx_mail_policy_protocol_merge(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_srv_conf_t *prev,
    ngx_mail_policy_main_conf_t *mcf);

/* "policy_edge" */
char *ngx_mail_policy_edge(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* "policy_clients"; a network, which is warned about if it has low bits */
char *ngx_mail_policy_clients(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_mail_policy_cidr(ngx_conf_t *cf, ngx_str_t *value,
    ngx_cidr_t *cidr);

/* "policy_action", and once the server is merged */
char *ngx_mail_policy_action(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_mail_policy_action_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_main_conf_t *mcf);

/*
 * "policy_socket_mode", and once the server is merged: own says that it is
 * written there; and when sockets are there, in the master.
 */
char *ngx_mail_policy_socket_mode(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_mail_policy_socket_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_main_conf_t *mcf,
    ngx_uint_t own);
ngx_int_t ngx_mail_policy_socket_init_module(ngx_cycle_t *cycle,
    ngx_mail_policy_main_conf_t *mcf);

/* the directive "policy_limit", and the checks that need all of mail{} */
char *ngx_mail_policy_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_mail_policy_limit_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_main_conf_t *mcf);


/* "if=", one variable: NGX_CONF_OK, or NGX_CONF_ERROR, logged */
char *ngx_mail_policy_condition(ngx_conf_t *cf, ngx_str_t *value,
    ngx_mail_policy_value_t *condition);


/*
 * The directive "policy_service".  merge: a server's services, or those that
 * it inherits; init: what needs all variables, once merged.
 */
char *ngx_mail_policy_service(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void ngx_mail_policy_service_merge(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_srv_conf_t *prev);
ngx_int_t ngx_mail_policy_service_init(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf, ngx_mail_policy_main_conf_t *mcf);


/*
 * The directives "log_format" and "access_log".  merge: a server's logs, or
 * those that it inherits; init: what needs all variables, once merged.
 */
char *ngx_mail_policy_log_format(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_mail_policy_access_log(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_mail_policy_access_log_merge(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_srv_conf_t *prev);
void ngx_mail_policy_access_log_init(ngx_mail_policy_srv_conf_t *conf,
    ngx_mail_policy_main_conf_t *mcf);


/*
 * Stock directives.
 *
 * nginx asks for "auth_http" in every mail server.  auth_http() sets one
 * that nobody will ask, where the context of cf has none; auth_http_check()
 * refuses a server without policy that would inherit it.
 */
ngx_int_t ngx_mail_policy_stock_auth_http(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf);
ngx_int_t ngx_mail_policy_stock_auth_http_check(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf);

/* NULL, logged, if nginx has no such directive any more */
void *ngx_mail_policy_stock_value(ngx_conf_t *cf, ngx_module_t *module,
    char *name);

/* what a server with policy takes over of them; after their merge */
ngx_int_t ngx_mail_policy_stock_merge(ngx_conf_t *cf,
    ngx_mail_policy_srv_conf_t *conf);


#endif /* NGX_MAIL_POLICY_DIRECTIVE_H */
