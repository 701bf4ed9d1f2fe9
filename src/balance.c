/* SPDX-License-Identifier: MIT */
#include "balance.h"

#include "addr.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): each bit of ${x} changes half of the bits of the result; no two have the same. */
static uint64_t
mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* FNV-1a, which takes bytes as they come whatever the machine's byte order; its high bits alone are poor. */
static uint64_t
hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return mix(h);
}

void
balance_init(struct balance_server *server, const char *name, unsigned weight)
{
    *server = (struct balance_server){.seed = hash(name, strlen(name)), .weight = weight};
}

uint64_t
balance_key(const struct addr *client)
{
    struct addr a = addr_unmap(client);
    uint64_t key;

    if (!addr_is_inet(&a))
        return 0;
    if (a.sa.sa_family == AF_INET)
        key = hash(&a.in.sin_addr, sizeof(a.in.sin_addr));
    else
        key = hash(&a.in6.sin6_addr, sizeof(a.in6.sin6_addr));
    return key != 0 ? key : 1;
}

/*
 * Weighted rendezvous hashing: client and server draw a number u in (0, 1), and the least -ln(u)/weight wins. These are exponentially distributed,
 * and the least of such is each server's with a chance in proportion to its weight. No draw depends on another server, hence nobody moves who need not.
 * Libraries round logarithms differently in the last bit: that is another server for one client in 10^15.
 */
static double
distance(uint64_t key, const struct balance_server *s)
{
    double u = ((double)(mix(key ^ s->seed) >> 12) + .5) * 0x1p-52;

    return -log(u) / s->weight;
}

static size_t
pick_by_source(uint64_t key, const struct balance_candidate *c, size_t n)
{
    double least = distance(key, c[0].server);
    size_t best = 0;

    for (size_t i = 1; i < n; i++) {
        double d = distance(key, c[i].server);
        if (d < least) {
            least = d;
            best = i;
        }
    }
    return best;
}

/* Has ${a} fewer sessions for its weight than ${b}? */
static bool
is_less_busy(const struct balance_candidate *a, const struct balance_candidate *b)
{
    return (uint64_t)a->sessions * b->server->weight < (uint64_t)b->sessions * a->server->weight;
}

/*
 * Smooth weighted round robin among those no busier than ${busiest}: each gains its weight, the one that has most is picked and pays the sum of all
 * weights. Weights 5, 1, 1 give a a b a c a a.
 */
static size_t
pick_in_turn(const struct balance_candidate *c, size_t n, const struct balance_candidate *busiest)
{
    size_t best = n;
    int total = 0;

    for (size_t i = 0; i < n; i++) {
        struct balance_server *s = c[i].server;
        if (busiest && is_less_busy(busiest, &c[i]))
            continue;
        s->credit += (int)s->weight;
        total += (int)s->weight;
        if (best == n || s->credit > c[best].server->credit)
            best = i;
    }
    c[best].server->credit -= total;
    return best;
}

static size_t
pick_least_busy(const struct balance_candidate *c, size_t n)
{
    const struct balance_candidate *least = &c[0];

    for (size_t i = 1; i < n; i++) {
        if (is_less_busy(&c[i], least))
            least = &c[i];
    }
    return pick_in_turn(c, n, least);
}

size_t
balance_pick(enum balance_policy policy, uint64_t key, const struct balance_candidate *candidates,
             size_t n)
{
    switch (policy) {
    case BALANCE_FIRST:
        return 0;
    case BALANCE_LEAST_CONN:
        return pick_least_busy(candidates, n);
    case BALANCE_SOURCE_HASH:
        if (key != 0)
            return pick_by_source(key, candidates, n);
        break;
    case BALANCE_ROUND_ROBIN:
        break;
    }
    return pick_in_turn(candidates, n, NULL);
}
