/* SPDX-License-Identifier: MIT */
#include "addrlist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool
holds(const struct addr *addrs, size_t n, const struct addr *addr)
{
    for (size_t i = 0; i < n; i++) {
        if (addr_equal(&addrs[i], addr))
            return true;
    }
    return false;
}

struct addrlist *
addrlist_new(const struct addr *addrs, size_t n)
{
    size_t room = n < ADDRLIST_MAX ? n : ADDRLIST_MAX;
    struct addrlist *list = malloc(sizeof(*list) + room * sizeof(list->addrs[0]));

    if (!list)
        return NULL;
    list->refs = 1;
    list->n = 0;
    for (size_t i = 0; i < n && list->n < room; i++) {
        if (!holds(list->addrs, list->n, &addrs[i]))
            list->addrs[list->n++] = addrs[i];
    }
    return list;
}

struct addrlist *
addrlist_get(struct addrlist *list)
{
    list->refs++;
    return list;
}

void
addrlist_put(struct addrlist *list)
{
    if (list && --list->refs == 0)
        free(list);
}

bool
addrlist_is_of(const struct addrlist *list, const struct addr *addrs, size_t n)
{
    if (!list)
        return n == 0;
    for (size_t i = 0; i < list->n; i++) {
        if (!holds(addrs, n, &list->addrs[i]))
            return false;
    }
    for (size_t i = 0; i < n && list->n < ADDRLIST_MAX; i++) {
        if (!holds(list->addrs, list->n, &addrs[i]))
            return false;
    }
    return true;
}

const char *
addrlist_str(const struct addrlist *list, char buf[ADDRLIST_STR_MAX])
{
    char addr[ADDR_STR_MAX];
    size_t len = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < list->n && len < ADDRLIST_STR_MAX; i++)
        len += (size_t)snprintf(buf + len, ADDRLIST_STR_MAX - len, "%s%s", i > 0 ? "," : "",
                                addr_str(&list->addrs[i], addr));
    return buf;
}
