/* SPDX-License-Identifier: MIT */
/*
 * Shards, each a hash with a lock of its own, by the local end. A shard without entries is passed by without its lock; whoever comes
 * faster than its dialler has put it in is missed in any case.
 */
#include "endpoints.h"

#include "addr.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_BITS  6
#define SHARDS      (1U << SHARD_BITS)
#define BUCKETS_MIN 4U

SLIST_HEAD(bucket, endpoint);

/* A cache line each. */
struct shard {
    pthread_mutex_t lock;
    atomic_uint n;      /* changed under the lock */
    unsigned n_buckets; /* a power of two */
    struct bucket *buckets;
} __attribute__((aligned(64)));

struct endpoints {
    atomic_size_t hops_max;
    atomic_uint dialling __attribute__((aligned(64)));
    struct shard shards[SHARDS];
};

void
trail_extend(struct trail *t, uint32_t upstream)
{
    if (t->hops == 0)
        t->first = upstream;
    if (t->hops < UINT16_MAX)
        t->hops++;
    if ((t->hops & (t->hops - 1)) == 0)
        t->mark = upstream;
    t->last = upstream;
}

bool
trail_leads_back(const struct trail *t, uint32_t upstream, size_t hops_max)
{
    return t->hops > 0 && (t->hops > hops_max || t->first == upstream || t->mark == upstream ||
                           t->last == upstream);
}

/* One end, in the form in which it is kept. Link-local ones are not told apart by their interfaces: the other end does. */
struct end {
    struct in6_addr ip;
    in_port_t port;
};

static struct end
end_of(const struct addr *a)
{
    struct end e;

    if (a->sa.sa_family == AF_INET6)
        return (struct end){.ip = a->in6.sin6_addr, .port = a->in6.sin6_port};
    e = (struct end){.ip = {.s6_addr = {[10] = 0xff, [11] = 0xff}}, .port = a->in.sin_port};
    memcpy(&e.ip.s6_addr[12], &a->in.sin_addr, sizeof(a->in.sin_addr));
    return e;
}

static bool
is_end(const struct end *e, const struct in6_addr *ip, in_port_t port)
{
    return e->port == port && memcmp(&e->ip, ip, sizeof(*ip)) == 0;
}

/* The kernel deals the ports out; nobody else can crowd a bucket. */
static uint64_t
hash(const struct in6_addr *ip, in_port_t port)
{
    uint64_t half[2];

    memcpy(half, ip, sizeof(half));
    return ((half[0] ^ half[1]) + port) * 0x9e3779b97f4a7c15U;
}

static struct shard *
shard_of(struct endpoints *t, uint64_t h)
{
    return &t->shards[h >> (64 - SHARD_BITS)];
}

static struct bucket *
bucket_of(const struct shard *s, uint64_t h)
{
    return &s->buckets[(h >> 32) & (s->n_buckets - 1)];
}

struct endpoints *
endpoints_new(size_t hops_max)
{
    struct endpoints *t = aligned_alloc(_Alignof(struct endpoints), sizeof(*t));

    if (!t)
        return NULL;
    memset(t, 0, sizeof(*t));
    atomic_init(&t->hops_max, hops_max);
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &t->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->n_buckets = BUCKETS_MIN;
        s->buckets = calloc(BUCKETS_MIN, sizeof(*s->buckets));
        if (!s->buckets)
            goto fail;
    }
    return t;

fail:
    endpoints_free(t);
    errno = ENOMEM;
    return NULL;
}

void
endpoints_set_hops_max(struct endpoints *t, size_t hops_max)
{
    atomic_store_explicit(&t->hops_max, hops_max, memory_order_relaxed);
}

void
endpoints_free(struct endpoints *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < SHARDS; i++)
        free(t->shards[i].buckets);
    free(t);
}

void
endpoint_init(struct endpoint *e, const struct trail *trail)
{
    *e = (struct endpoint){.trail = *trail};
}

bool
endpoint_is_inner(const struct endpoint *e)
{
    return e->trail.hops > 1;
}

bool
endpoint_is_in(const struct endpoint *e)
{
    return e->is_in;
}

bool
endpoint_came_back(const struct endpoint *e)
{
    return atomic_load_explicit(&e->came_back, memory_order_acquire);
}

/* Twice as many buckets. Without the memory the chains grow longer. */
static void
grow(struct shard *s)
{
    const struct shard before = {.n_buckets = s->n_buckets, .buckets = s->buckets};
    struct bucket *buckets = calloc(2 * (size_t)before.n_buckets, sizeof(*buckets));
    struct endpoint *e;

    if (!buckets)
        return;
    s->buckets = buckets;
    s->n_buckets = 2 * before.n_buckets;
    for (unsigned i = 0; i < before.n_buckets; i++) {
        while ((e = SLIST_FIRST(&before.buckets[i]))) {
            SLIST_REMOVE_HEAD(&before.buckets[i], link);
            SLIST_INSERT_HEAD(bucket_of(s, hash(&e->local, e->local_port)), e, link);
        }
    }
    free(before.buckets);
}

static void
put_in(struct shard *s, struct endpoint *e, uint64_t h)
{
    SLIST_INSERT_HEAD(bucket_of(s, h), e, link);
    e->is_in = true;
}

void
endpoints_add(struct endpoints *t, struct endpoint *e, const struct addr *local,
              const struct addr *peer)
{
    struct end from = end_of(local), to = end_of(peer);
    uint64_t h = hash(&from.ip, from.port);
    struct shard *s = shard_of(t, h);

    e->local = from.ip;
    e->local_port = from.port;
    e->peer = to.ip;
    e->peer_port = to.port;
    pthread_mutex_lock(&s->lock);
    if (atomic_fetch_add_explicit(&s->n, 1, memory_order_relaxed) >= s->n_buckets)
        grow(s);
    put_in(s, e, h);
    pthread_mutex_unlock(&s->lock);
}

static void
take_out(struct shard *s, struct endpoint *e, uint64_t h)
{
    SLIST_REMOVE(bucket_of(s, h), e, endpoint, link);
    e->is_in = false;
    atomic_store_explicit(&e->came_back, false, memory_order_relaxed);
}

void
endpoints_remove(struct endpoints *t, struct endpoint *e)
{
    uint64_t h;
    struct shard *s;

    if (!e->is_in)
        return;
    h = hash(&e->local, e->local_port);
    s = shard_of(t, h);
    pthread_mutex_lock(&s->lock);
    take_out(s, e, h);
    atomic_fetch_sub_explicit(&s->n, 1, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
}

void
endpoints_move(struct endpoints *t, struct endpoint *from, struct endpoint *to)
{
    uint64_t h;
    struct shard *s;

    if (!from->is_in)
        return;
    h = hash(&from->local, from->local_port);
    s = shard_of(t, h);
    to->local = from->local;
    to->local_port = from->local_port;
    to->peer = from->peer;
    to->peer_port = from->peer_port;
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&to->came_back, endpoint_came_back(from), memory_order_relaxed);
    take_out(s, from, h);
    put_in(s, to, h);
    pthread_mutex_unlock(&s->lock);
}

/* The kernel has ordered connect(2) before the accept(2) of the other end: whoever accepts sees that it has begun. */
void
endpoints_begin_dial(struct endpoints *t)
{
    atomic_fetch_add_explicit(&t->dialling, 1, memory_order_relaxed);
}

void
endpoints_end_dial(struct endpoints *t)
{
    atomic_fetch_sub_explicit(&t->dialling, 1, memory_order_release);
}

bool
endpoints_is_dialling(const struct endpoints *t)
{
    return atomic_load_explicit(&t->dialling, memory_order_acquire) > 0;
}

/* The next one of a chain, from ${e} on, that begins at ${local}; NULL: none. */
static struct endpoint *
find(struct endpoint *e, const struct end *local)
{
    while (e && !is_end(local, &e->local, e->local_port))
        e = SLIST_NEXT(e, link);
    return e;
}

static bool
is_empty(const struct shard *s)
{
    return atomic_load_explicit(&s->n, memory_order_relaxed) == 0;
}

bool
endpoints_has(struct endpoints *t, const struct addr *local)
{
    struct end from = end_of(local);
    uint64_t h = hash(&from.ip, from.port);
    struct shard *s = shard_of(t, h);

    if (is_empty(s))
        return false;
    pthread_mutex_lock(&s->lock);
    bool has = find(SLIST_FIRST(bucket_of(s, h)), &from) != NULL;
    pthread_mutex_unlock(&s->lock);
    return has;
}

enum arrival
endpoints_arrive(struct endpoints *t, const struct addr *local, const struct addr *peer,
                 uint32_t upstream, struct trail *trail)
{
    struct end from = end_of(local), to = end_of(peer);
    uint64_t h = hash(&from.ip, from.port);
    struct shard *s = shard_of(t, h);
    enum arrival arrival = ARRIVAL_UNKNOWN;
    struct endpoint *e;

    if (is_empty(s))
        return ARRIVAL_UNKNOWN;
    pthread_mutex_lock(&s->lock);
    e = find(SLIST_FIRST(bucket_of(s, h)), &from);
    while (e && !is_end(&to, &e->peer, e->peer_port))
        e = find(SLIST_NEXT(e, link), &from);
    if (e) {
        *trail = e->trail;
        arrival = ARRIVAL_OWN;
        if (trail_leads_back(trail, upstream,
                             atomic_load_explicit(&t->hops_max, memory_order_relaxed))) {
            arrival = ARRIVAL_LOOP;
            atomic_store_explicit(&e->came_back, true, memory_order_release);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return arrival;
}
