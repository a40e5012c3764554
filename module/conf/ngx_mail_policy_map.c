
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * map $source $name { key value; ... }
 *
 * Keys are whole strings, letters in any case, with "hostnames" also
 * wildcards, and regular expressions; they are tried in this order.  A result
 * is a value itself.  No events arrive here.
 */


#include "ngx_mail_policy_directive.h"


/* of one block, while it is read */
typedef struct {
    ngx_mail_policy_map_t        *map;
    ngx_hash_keys_arrays_t        keys;
    size_t                        longest;
} ngx_mail_policy_map_block_t;


/* what a map has given in this use */
typedef struct {
    ngx_queue_t                   queue;
    ngx_mail_policy_map_t        *map;
    ngx_str_t                     result;
} ngx_mail_policy_known_t;


static char *ngx_mail_policy_map_entry(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_mail_policy_map_word(ngx_conf_t *cf,
    ngx_mail_policy_map_block_t *block);
static char *ngx_mail_policy_map_key(ngx_conf_t *cf,
    ngx_mail_policy_map_block_t *block, ngx_str_t *key,
    ngx_mail_policy_value_t *result);
static ngx_int_t ngx_mail_policy_map_hash(ngx_conf_t *cf,
    ngx_mail_policy_map_block_t *block);
static ngx_int_t ngx_mail_policy_map_wildcards(ngx_hash_init_t *hash,
    ngx_array_t *names, ngx_pool_t *temp, ngx_hash_wildcard_t **wildcards);
static int ngx_libc_cdecl ngx_mail_policy_map_cmp(const void *one,
    const void *two);
static ngx_int_t ngx_mail_policy_map_find_result(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *source,
    ngx_mail_policy_value_t **result);
static ngx_int_t ngx_mail_policy_map_result_of(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *out);
static ngx_int_t ngx_mail_policy_map_follow(ngx_conf_t *cf,
    ngx_mail_policy_map_t *map, ngx_mail_policy_value_t *value);
static ngx_int_t ngx_mail_policy_route_result(ngx_conf_t *cf,
    ngx_mail_policy_main_conf_t *mcf, ngx_mail_policy_value_t *result,
    u_char *name, ngx_uint_t line);


char *
ngx_mail_policy_map(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                         *rv;
    ngx_int_t                     rc;
    ngx_str_t                    *value;
    ngx_conf_t                    save;
    ngx_pool_t                   *pool;
    ngx_mail_policy_map_block_t   block;

    ngx_memzero(&block, sizeof(ngx_mail_policy_map_block_t));

    value = cf->args->elts;

    block.map = ngx_mail_policy_map_add(cf, &value[1], &value[2]);
    if (block.map == NULL) {
        return NGX_CONF_ERROR;
    }

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, cf->log);
    if (pool == NULL) {
        return NGX_CONF_ERROR;
    }

    block.keys.pool = cf->pool;
    block.keys.temp_pool = pool;

    if (ngx_hash_keys_array_init(&block.keys, NGX_HASH_LARGE) != NGX_OK) {
        ngx_destroy_pool(pool);
        return NGX_CONF_ERROR;
    }

    save = *cf;
    cf->handler = ngx_mail_policy_map_entry;
    cf->handler_conf = (char *) &block;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    rc = NGX_OK;

    if (rv == NGX_CONF_OK) {
        rc = ngx_mail_policy_map_hash(cf, &block);
    }

    ngx_destroy_pool(pool);

    return (rc == NGX_OK) ? rv : NGX_CONF_ERROR;
}


ngx_mail_policy_map_t *
ngx_mail_policy_map_add(ngx_conf_t *cf, ngx_str_t *source,
    ngx_str_t *variable)
{
    ngx_str_t                     name;
    ngx_mail_policy_map_t        *map, **mapp;
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    if (ngx_mail_policy_value_define(cf, mcf, variable, &name) != NGX_OK) {
        return NULL;
    }

    map = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_map_t));
    if (map == NULL) {
        return NULL;
    }

    map->name = name;
    map->file = cf->conf_file->file.name.data;
    map->line = cf->conf_file->line;

    if (ngx_array_init(&map->results, cf->pool, 4,
                       sizeof(ngx_mail_policy_value_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_mail_policy_value_compile(cf, source, &map->source) != NGX_OK) {
        return NULL;
    }

    mapp = ngx_array_push(&mcf->maps);
    if (mapp == NULL) {
        return NULL;
    }

    *mapp = map;

    return map;
}


/* one line of the block */

static char *
ngx_mail_policy_map_entry(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_map_block_t  *block = conf;

    ngx_str_t                    *value;
    ngx_mail_policy_value_t      *result;

    if (cf->args->nelts == 1) {
        return ngx_mail_policy_map_word(cf, block);
    }

    if (cf->args->nelts != 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of the map parameters");
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "include") == 0) {
        return ngx_conf_include(cf, cmd, conf);
    }

    if (value[0].len && value[0].data[0] == '~') {
        return ngx_mail_policy_map_regex(cf, block->map, &value[0], &value[1])
               == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    result = ngx_mail_policy_map_result(cf, block->map, &value[1], 1);
    if (result == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strcmp(value[0].data, "default") != 0) {
        return ngx_mail_policy_map_key(cf, block, &value[0], result);
    }

    if (block->map->fallback) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate default map parameter");
        return NGX_CONF_ERROR;
    }

    block->map->fallback = result;

    return NGX_CONF_OK;
}


/* a map is evaluated for each use anyway, so "volatile" changes nothing */

static char *
ngx_mail_policy_map_word(ngx_conf_t *cf, ngx_mail_policy_map_block_t *block)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "volatile") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[0].data, "hostnames") == 0) {

        if (block->longest) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"hostnames\" must be in front of the keys "
                               "of a map");
            return NGX_CONF_ERROR;
        }

        block->map->hostnames = 1;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid number of the map parameters");
    return NGX_CONF_ERROR;
}


/*
 * Many keys have the same few results, so a text is compiled once; but "$1" of
 * a regular expression is nobody else's.
 */

ngx_mail_policy_value_t *
ngx_mail_policy_map_result(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_str_t *text, ngx_uint_t variables)
{
    ngx_uint_t                 i, n;
    ngx_mail_policy_value_t   *result, **results;

    results = map->results.elts;
    n = ngx_min(map->results.nelts, 64);

    for (i = 0; i < n; i++) {
        if (!results[i]->captures && results[i]->text.len == text->len
            && ngx_memcmp(results[i]->text.data, text->data, text->len) == 0)
        {
            return results[i];
        }
    }

    result = ngx_pcalloc(cf->pool, sizeof(ngx_mail_policy_value_t));
    if (result == NULL) {
        return NULL;
    }

    result->text = *text;

    if (variables
        && ngx_mail_policy_value_compile(cf, text, result) != NGX_OK)
    {
        return NULL;
    }

    results = ngx_array_push(&map->results);
    if (results == NULL) {
        return NULL;
    }

    *results = result;

    return result;
}


static char *
ngx_mail_policy_map_key(ngx_conf_t *cf, ngx_mail_policy_map_block_t *block,
    ngx_str_t *key, ngx_mail_policy_value_t *result)
{
    ngx_int_t  rc;

    /* "\default" is the string, not the word */

    if (key->len && key->data[0] == '\\') {
        key->len--;
        key->data++;
    }

    block->longest = ngx_max(block->longest, key->len);

    rc = ngx_hash_add_key(&block->keys, key, result,
                          block->map->hostnames ? NGX_HASH_WILDCARD_KEY : 0);

    if (rc == NGX_BUSY) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "conflicting parameter \"%V\"", key);

    } else if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid hostname or wildcard \"%V\", write "
                           "\"example.com\", \"*.example.com\", "
                           "\".example.com\" or \"example.*\"", key);
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* unless they are set, sizes follow from the keys, and need no tuning */

static ngx_int_t
ngx_mail_policy_map_hash(ngx_conf_t *cf, ngx_mail_policy_map_block_t *block)
{
    size_t                        size;
    ngx_uint_t                    n;
    ngx_hash_init_t               hash;
    ngx_hash_keys_arrays_t       *keys;
    ngx_mail_policy_main_conf_t  *mcf;

    mcf = ngx_mail_conf_get_module_main_conf(cf, ngx_mail_policy_module);

    keys = &block->keys;
    n = keys->keys.nelts + keys->dns_wc_head.nelts + keys->dns_wc_tail.nelts;

    /* some of the largest elements and the bucket's end */

    size = sizeof(ngx_hash_elt_t) + ngx_align(block->longest, sizeof(void *));
    size = 4 * size + sizeof(void *);

    ngx_memzero(&hash, sizeof(ngx_hash_init_t));

    hash.key = ngx_hash_key_lc;
    hash.max_size = (mcf->map_hash_max_size != NGX_CONF_UNSET_UINT)
                    ? mcf->map_hash_max_size : ngx_max(2048, 2 * n);
    hash.bucket_size = ngx_align((mcf->map_hash_bucket_size
                                  != NGX_CONF_UNSET_UINT)
                                 ? mcf->map_hash_bucket_size : size,
                                 ngx_cacheline_size);
    hash.name = "map_hash";
    hash.pool = cf->pool;

    if (keys->keys.nelts) {
        hash.hash = &block->map->hash.hash;

        if (ngx_hash_init(&hash, keys->keys.elts, keys->keys.nelts)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_mail_policy_map_wildcards(&hash, &keys->dns_wc_head,
                                      keys->temp_pool,
                                      &block->map->hash.wc_head)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_mail_policy_map_wildcards(&hash, &keys->dns_wc_tail,
                                         keys->temp_pool,
                                         &block->map->hash.wc_tail);
}


static ngx_int_t
ngx_mail_policy_map_wildcards(ngx_hash_init_t *hash, ngx_array_t *names,
    ngx_pool_t *temp, ngx_hash_wildcard_t **wildcards)
{
    if (names->nelts == 0) {
        return NGX_OK;
    }

    ngx_qsort(names->elts, names->nelts, sizeof(ngx_hash_key_t),
              ngx_mail_policy_map_cmp);

    hash->hash = NULL;
    hash->temp_pool = temp;

    if (ngx_hash_wildcard_init(hash, names->elts, names->nelts) != NGX_OK) {
        return NGX_ERROR;
    }

    *wildcards = (ngx_hash_wildcard_t *) hash->hash;

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_mail_policy_map_cmp(const void *one, const void *two)
{
    const ngx_hash_key_t  *first = one;
    const ngx_hash_key_t  *second = two;

    return (int) ngx_dns_strcmp(first->key.data, second->key.data);
}


/* a hash is built when its map ends, so a size that comes later is too late */

char *
ngx_mail_policy_map_hash_size(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_mail_policy_main_conf_t *mcf = conf;

    if (mcf->maps.nelts) {
        return "must be in front of all \"map\" and \"geo\"";
    }

    return ngx_conf_set_num_slot(cf, cmd, conf);
}


ngx_mail_policy_map_t *
ngx_mail_policy_map_find(ngx_array_t *maps, ngx_str_t *name)
{
    ngx_uint_t               i;
    ngx_mail_policy_map_t  **map;

    map = maps->elts;

    for (i = 0; i < maps->nelts; i++) {
        if (map[i]->name.len == name->len
            && ngx_strncasecmp(map[i]->name.data, name->data, name->len) == 0)
        {
            return map[i];
        }
    }

    return NULL;
}


ngx_int_t
ngx_mail_policy_map_resolve(ngx_conf_t *cf, ngx_mail_policy_map_t *map)
{
    ngx_uint_t                 i;
    ngx_mail_policy_value_t  **results;

    if (map->resolved) {
        return NGX_OK;
    }

    if (map->entered) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "map of \"%V\" variable leads back to itself in %s:%ui",
                      &map->name, map->file, map->line);
        return NGX_ERROR;
    }

    map->entered = 1;

    if (ngx_mail_policy_map_follow(cf, map, &map->source) != NGX_OK) {
        return NGX_ERROR;
    }

    results = map->results.elts;

    for (i = 0; i < map->results.nelts; i++) {
        if (ngx_mail_policy_map_follow(cf, map, results[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    map->resolved = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_map_follow(ngx_conf_t *cf, ngx_mail_policy_map_t *map,
    ngx_mail_policy_value_t *value)
{
    if (ngx_mail_policy_value_follow(cf, value) != NGX_OK) {
        return NGX_ERROR;
    }

    map->phase = ngx_max(map->phase, value->phase);
    map->lookups |= value->lookups;

    return NGX_OK;
}


/* once in a use, wherever it stands */

ngx_int_t
ngx_mail_policy_map_eval(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *out)
{
    ngx_queue_t              *q;
    ngx_mail_policy_known_t  *known;

    if (use->maps == NULL) {
        use->maps = ngx_palloc(use->pool, sizeof(ngx_queue_t));
        if (use->maps == NULL) {
            return NGX_ERROR;
        }

        ngx_queue_init(use->maps);
    }

    for (q = ngx_queue_head(use->maps);
         q != ngx_queue_sentinel(use->maps);
         q = ngx_queue_next(q))
    {
        known = ngx_queue_data(q, ngx_mail_policy_known_t, queue);

        if (known->map == map) {
            *out = known->result;
            return NGX_OK;
        }
    }

    if (ngx_mail_policy_map_result_of(use, map, out) != NGX_OK) {
        return NGX_ERROR;
    }

    known = ngx_palloc(use->pool, sizeof(ngx_mail_policy_known_t));
    if (known == NULL) {
        return NGX_ERROR;
    }

    known->map = map;
    known->result = *out;

    ngx_queue_insert_tail(use->maps, &known->queue);

    return NGX_OK;
}


static ngx_int_t
ngx_mail_policy_map_result_of(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *out)
{
    ngx_int_t                 rc;
    ngx_str_t                 source;
    ngx_mail_policy_value_t  *result;

    if (ngx_mail_policy_value_use(use, &map->source, NULL, &source)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (map->geo) {
        result = ngx_mail_policy_geo_find(map->geo, &source);

    } else {

        if (map->hostnames && source.len
            && source.data[source.len - 1] == '.')
        {
            source.len--;
        }

        if (ngx_mail_policy_map_find_result(use, map, &source, &result)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (result == NULL && map->regexes) {
            rc = ngx_mail_policy_map_regex_find(use, map, &source, out);

            if (rc != NGX_DECLINED) {
                return rc;
            }
        }
    }

    if (result == NULL) {
        result = map->fallback;
    }

    if (result == NULL) {
        ngx_str_null(out);
        return NGX_OK;
    }

    return ngx_mail_policy_value_use(use, result, NULL, out);
}


/* among the keys in the hash; *result is NULL if it is none of them */

static ngx_int_t
ngx_mail_policy_map_find_result(ngx_mail_policy_use_t *use,
    ngx_mail_policy_map_t *map, ngx_str_t *source,
    ngx_mail_policy_value_t **result)
{
    u_char      *low;
    ngx_uint_t   key;

    *result = NULL;

    if (map->hash.hash.size == 0 && map->hash.wc_head == NULL
        && map->hash.wc_tail == NULL)
    {
        return NGX_OK;
    }

    low = ngx_pnalloc(use->pool, source->len ? source->len : 1);
    if (low == NULL) {
        return NGX_ERROR;
    }

    key = ngx_hash_strlow(low, source->data, source->len);

    *result = ngx_hash_find_combined(&map->hash, key, low, source->len);

    return NGX_OK;
}


/*
 * Where a route is nothing but a map or a lookup, what the map gives, or the
 * lookup's default, are groups or addresses: a misspelled one is found now,
 * and addresses become groups.
 */

ngx_int_t
ngx_mail_policy_route_check(ngx_conf_t *cf, ngx_mail_policy_main_conf_t *mcf,
    ngx_mail_policy_value_t *route)
{
    ngx_uint_t                       i;
    ngx_mail_policy_map_t           *map;
    ngx_mail_policy_part_t          *part;
    ngx_mail_policy_value_t        **results;
    ngx_mail_policy_lookup_conf_t   *lookup;

    if (route->parts == NULL || route->parts->nelts != 1) {
        return NGX_OK;
    }

    part = route->parts->elts;
    map = part[0].map;
    lookup = part[0].lookup;

    if (lookup) {
        return ngx_mail_policy_route_result(cf, mcf, &lookup->fallback,
                                            lookup->file, lookup->line);
    }

    if (map == NULL) {
        return NGX_OK;
    }

    results = map->results.elts;

    for (i = 0; i < map->results.nelts; i++) {
        if (ngx_mail_policy_route_result(cf, mcf, results[i], map->file,
                                         map->line)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* what is wrong is told with the place of whatever gives it */

static ngx_int_t
ngx_mail_policy_route_result(ngx_conf_t *cf, ngx_mail_policy_main_conf_t *mcf,
    ngx_mail_policy_value_t *result, u_char *name, ngx_uint_t line)
{
    ngx_conf_t       at;
    ngx_conf_file_t  file;

    if (result->parts) {
        return ngx_mail_policy_route_check(cf, mcf, result);
    }

    if (result->text.len == 0) {
        return NGX_OK;
    }

    file = *cf->conf_file;
    file.file.name.data = name;
    file.line = line;

    at = *cf;
    at.conf_file = &file;

    return ngx_mail_policy_upstream_add(&at, &mcf->upstreams, &result->text)
           ? NGX_OK : NGX_ERROR;
}
