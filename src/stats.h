/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_STATS_H
#define REDIAL_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What is counted. Each worker has cells of its own, which it alone writes, so that no instruction has to lock anything; whoever wants to know adds them up. The figures of
 * one moment need not fit together to the last one.
 */
#define STATS_ENDS_MAX  20 /* of enum session_end */
#define STATS_DIALS_MAX 12 /* of enum dial_result */

/* How many times lasted how long: as many buckets as bounds, and one for what is above them. */
#define STATS_BOUNDS 16
extern const double stats_bounds_s[STATS_BOUNDS];

struct stats_histogram {
    _Atomic uint64_t buckets[STATS_BOUNDS + 1];
    _Atomic uint64_t sum_us;
};

/* By enum relay_side, from where they came. */
struct stats_bytes {
    _Atomic uint64_t from[2];
};

/* One worker's, of a proxy. Here and below: counters and nothing else. */
struct stats_proxy {
    _Alignas(64) struct stats_bytes bytes;
    _Atomic uint64_t ended[STATS_ENDS_MAX]; /* sessions, by enum session_end */
    struct stats_histogram waited;          /* from a client's coming to a connected server */
};

/* One worker's, of a server. */
struct stats_server {
    _Alignas(64) struct stats_bytes bytes;
    _Atomic uint64_t sessions;               /* that were given a connection to it */
    _Atomic uint64_t dials[STATS_DIALS_MAX]; /* by enum dial_result */
    struct stats_histogram dialled;          /* how long those took that connected */
    _Atomic uint64_t self_connects;
    _Atomic uint64_t standby_idle, standby_wanted; /* now */
    _Atomic uint64_t standby_used;
};

/** stats_add(counter, n): from the one thread that writes it. stats_get(counter): a moment old. Cannot fail. */
static inline void
stats_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline uint64_t
stats_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/** stats_observe(histogram, seconds): something took so long. */
void stats_observe(struct stats_histogram *histogram, double seconds);

/** stats_proxies_new(n), stats_servers_new(n): ${n} cells, all zero, for free(3); or NULL with errno ENOMEM. */
struct stats_proxy *stats_proxies_new(unsigned n) __attribute__((warn_unused_result));
struct stats_server *stats_servers_new(unsigned n) __attribute__((warn_unused_result));

/** stats_proxy_sum(cells, n, sum), stats_server_sum(cells, n, sum): what they come to; ${sum} is the caller's alone. Any thread. */
void stats_proxy_sum(const struct stats_proxy *cells, unsigned n, struct stats_proxy *sum);
void stats_server_sum(const struct stats_server *cells, unsigned n, struct stats_server *sum);

#endif
