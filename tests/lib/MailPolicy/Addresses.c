
/*
 * Copyright (C) the ngx_mail_policy_module authors
 */


/*
 * A library for LD_PRELOAD: the host "several.test" has the addresses in
 * MAIL_POLICY_ADDRESSES, with spaces between them, in that order.
 */


#define _GNU_SOURCE

#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>


typedef int (*lookup_t)(const char *, const char *, const struct addrinfo *,
    struct addrinfo **);


int
getaddrinfo(const char *node, const char *service,
    const struct addrinfo *hints, struct addrinfo **res)
{
    int                rc;
    char              *list, *name, *left;
    lookup_t           lookup;
    const char        *addresses;
    struct addrinfo  **last;

    lookup = (lookup_t) dlsym(RTLD_NEXT, "getaddrinfo");
    addresses = getenv("MAIL_POLICY_ADDRESSES");

    if (node == NULL || strcmp(node, "several.test") != 0
        || addresses == NULL)
    {
        return lookup(node, service, hints, res);
    }

    list = strdup(addresses);
    last = res;
    rc = EAI_NONAME;

    for (name = strtok_r(list, " ", &left);
         name != NULL;
         name = strtok_r(NULL, " ", &left))
    {
        rc = lookup(name, service, hints, last);
        if (rc != 0) {
            break;
        }

        while (*last) {
            last = &(*last)->ai_next;
        }
    }

    free(list);

    return rc;
}
