
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A writer of HTML on a pool.  There is no way to write a string of nginx that
 * does not escape it, so markup comes from our own sources only.  Zero it, set
 * pool, write; the text is [start, last) unless error is set: no memory.
 */


#ifndef NGX_MAIL_POLICY_HTML_H
#define NGX_MAIL_POLICY_HTML_H


#include <ngx_config.h>
#include <ngx_core.h>

#include "ngx_mail_policy_json.h"


typedef ngx_mail_policy_json_t  ngx_mail_policy_html_t;


/*
 * As it is, but for
 *
 *     %s  const char *    as it is: our own
 *     %t  ngx_str_t *     escaped
 *     %h  ..._html_t *    what was written there
 *     %d  uint64_t        12345
 *     %n  uint64_t        12,345
 *     %r  uint64_t        thousandths: 0.35, 12.3, 1,234
 *     %b  uint64_t        octets: 512 B, 1.5 kB, 12 MB
 *     %u  uint64_t        microseconds: 0.35 ms, 12 ms, 1.5 s
 *     %a  uint64_t        seconds: 12 s, 5 min, 3 h, 2 d
 *     %c  uint64_t        hh:mm of a time_t, here
 *     %%                  a percent sign
 *
 * Numbers are uint64_t whatever they count: cast those that are not.
 */
void ngx_mail_policy_html(ngx_mail_policy_html_t *h, const char *fmt, ...);


#endif /* NGX_MAIL_POLICY_HTML_H */
