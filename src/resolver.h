/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_RESOLVER_H
#define REDIAL_RESOLVER_H

#include "addr.h"

#include <stdint.h>

struct ev_loop;
struct lookup;
struct resolver;

/*
 * Names to addresses, by c-ares on one loop: /etc/hosts first, then the name servers and search domains of /etc/resolv.conf, which is read
 * again once it has changed. A name server that is silent is asked twice, 2 s and then 4 s long.
 *
 * Nothing here waits for the network. Local files are read on the loop: /etc/hosts at each lookup, /etc/resolv.conf at the first and after a
 * change; whether it has changed stat(2) tells, once for each lookup.
 */

/* Descriptors that a resolver may have open: for three name servers UDP and TCP, and a file. */
#define RESOLVER_FDS 7
/* An answer holds no more addresses. */
#define RESOLVER_ADDRS_MAX 64
/* A TTL of what does not come from a name server, and has none. */
#define RESOLVER_NO_TTL UINT64_MAX

struct resolver_answer {
    const struct addr *
        addrs; /* TCP, the preferred one first (RFC 6724); borrowed from the resolver until the callback returns */
    size_t n;          /* 0: the lookup has failed */
    uint64_t ttl_ms;   /* the shortest of them all, or RESOLVER_NO_TTL */
    const char *error; /* why it has failed; static */
};

struct resolver_query {
    const char *name; /* borrowed until resolver_start() returns */
    uint16_t port;    /* that the addresses shall have */
    int family;       /* AF_INET, AF_INET6, or AF_UNSPEC for both */
};

/**
 * resolver_new(loop):
 * Returns a new resolver for resolver_free(), or NULL with errno set. Both are called where no other thread uses a resolver: the
 * library is set up with the first, and cleaned up with the last.
 */
struct resolver *resolver_new(struct ev_loop *loop) __attribute__((warn_unused_result));

/** resolver_free(resolver): every lookup must have ended or been cancelled; NULL is fine. */
void resolver_free(struct resolver *resolver);

/**
 * resolver_start(resolver, query, done, arg):
 * Look a name up. Calls ${done}(${arg}, answer) exactly once, from the loop, never before this function has returned.
 *
 * Unspecified addresses (0.0.0.0, ::) are left out of the answer: they say that there is no such host, and would be dialled as this one.
 * Returns a handle for resolver_cancel(), dead once ${done} runs; or NULL with errno ENOMEM.
 */
struct lookup *resolver_start(struct resolver *resolver, const struct resolver_query *query,
                              void (*done)(void *arg, const struct resolver_answer *answer),
                              void *arg) __attribute__((warn_unused_result));

/** resolver_cancel(lookup): no callback follows; NULL is fine. */
void resolver_cancel(struct lookup *lookup);

#endif
