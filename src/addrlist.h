/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ADDRLIST_H
#define REDIAL_ADDRLIST_H

#include "addr.h"

/*
 * The addresses of a server, the preferred one first. Nobody changes a list; it lives as long as somebody holds a reference. Lists and their references belong to
 * one thread: what goes to another is a copy.
 */

/* More are not kept: a dial would not come to them. */
#define ADDRLIST_MAX 16
/* Room for the text of a list, with its NUL. */
#define ADDRLIST_STR_MAX 1024

struct addrlist {
    unsigned refs;
    unsigned n; /* > 0 */
    struct addr addrs[];
};

/**
 * addrlist_new(addrs, n):
 * Returns a new list, with one reference, of the first ADDRLIST_MAX of the ${n} > 0 addresses; one that comes twice counts once. NULL with errno ENOMEM.
 */
struct addrlist *addrlist_new(const struct addr *addrs, size_t n)
    __attribute__((warn_unused_result));

/** addrlist_get(list): one more reference; returns ${list}. addrlist_put(list): one less; NULL is fine. */
struct addrlist *addrlist_get(struct addrlist *list);
void addrlist_put(struct addrlist *list);

/**
 * addrlist_is_of(list, addrs, n):
 * Are the ${n} addresses, in whatever order, those of ${list} (NULL: none)? A full list is still right when all that it holds is among more.
 */
bool addrlist_is_of(const struct addrlist *list, const struct addr *addrs, size_t n);

/** addrlist_str(list, buf): write the list to ${buf}, with commas; what does not fit is cut. Returns ${buf}. */
const char *addrlist_str(const struct addrlist *list, char buf[ADDRLIST_STR_MAX]);

#endif
