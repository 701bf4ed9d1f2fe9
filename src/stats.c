/* SPDX-License-Identifier: MIT */
#include "stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const double stats_bounds_s[STATS_BOUNDS] = {.0005, .001, .0025, .005, .01, .025, .05, .1,
                                             .25,   .5,   1.,    2.5,  5.,  10.,  30., 60.};

void
stats_observe(struct stats_histogram *h, double seconds)
{
    size_t i = 0;

    while (i < STATS_BOUNDS && seconds > stats_bounds_s[i])
        i++;
    stats_add(&h->buckets[i], 1);
    if (seconds > 0.) /* the signed conversion is one instruction */
        stats_add(&h->sum_us, (uint64_t)(int64_t)(seconds * 1e6 + .5));
}

static void *
cells_new(size_t size, unsigned n)
{
    void *cells = aligned_alloc(64, size * n);

    if (!cells)
        errno = ENOMEM;
    else
        memset(cells, 0, size * n);
    return cells;
}

struct stats_proxy *
stats_proxies_new(unsigned n)
{
    return cells_new(sizeof(struct stats_proxy), n);
}

struct stats_server *
stats_servers_new(unsigned n)
{
    return cells_new(sizeof(struct stats_server), n);
}

/* A cell is nothing but counters. */
static void
sum_up(const void *cells, size_t size, unsigned n, void *sum)
{
    const _Atomic uint64_t *from = cells;
    _Atomic uint64_t *to = sum;
    size_t n_counters = size / sizeof(*to);

    memset(sum, 0, size);
    for (size_t i = 0; i < n_counters * n; i++)
        stats_add(&to[i % n_counters], stats_get(&from[i]));
}

void
stats_proxy_sum(const struct stats_proxy *cells, unsigned n, struct stats_proxy *sum)
{
    sum_up(cells, sizeof(*cells), n, sum);
}

void
stats_server_sum(const struct stats_server *cells, unsigned n, struct stats_server *sum)
{
    sum_up(cells, sizeof(*cells), n, sum);
}
