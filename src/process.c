/* SPDX-License-Identifier: MIT */
#include "process.h"

#include "addr.h"
#include "addrlist.h"
#include "endpoints.h"
#include "mailbox.h"
#include "stats.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct process *
process_new(unsigned n_workers)
{
    struct process *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->n_workers = n_workers;
    limit_init(&p->sessions, 1);
    limit_init(&p->standby, 1);
    p->mailboxes = calloc(n_workers, sizeof(struct mailbox *));
    p->turns = calloc(n_workers, sizeof(p->turns[0]));
    p->endpoints = endpoints_new(0);
    if (p->mailboxes && p->turns && p->endpoints)
        return p;
    process_free(p);
    errno = ENOMEM;
    return NULL;
}

void
process_free(struct process *p)
{
    if (!p)
        return;
    endpoints_free(p->endpoints);
    free(p->mailboxes);
    free(p->turns);
    free(p);
}

void
process_wake(struct process *p, unsigned wake, unsigned but)
{
    for (unsigned i = 0; i < p->n_workers; i++) {
        if (i != but)
            mailbox_raise(p->mailboxes[i], wake);
    }
}

uint32_t
process_ask_turn(struct process *p)
{
    uint32_t turn = atomic_fetch_add(&p->asked_turn, 1) + 1;

    process_wake(p, WAKE_PROBE, p->n_workers);
    return turn;
}

bool
process_has_turned(const struct process *p, uint32_t turn)
{
    for (unsigned i = 0; i < p->n_workers; i++) {
        if ((int32_t)(atomic_load(&p->turns[i]) - turn) < 0)
            return false;
    }
    return true;
}

void
process_on_turn(struct process *p, unsigned worker)
{
    atomic_store(&p->turns[worker], atomic_load(&p->asked_turn));
}

static void
get(atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* Was it the last one? Whoever frees sees all that was done with the others. */
static bool
put(atomic_uint *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

struct process_server *
process_server_new(struct process *p, const char *name, const char *text)
{
    struct process_server *s = calloc(1, sizeof(*s) + p->n_workers * sizeof(s->views[0]));

    if (!s)
        return NULL;
    s->n_views = p->n_workers;
    atomic_init(&s->refs, 1);
    atomic_init(&s->state, 0);
    limit_init(&s->sessions, 0);
    atomic_init(&s->news.reason, REASON_NONE);
    pthread_mutex_init(&s->lock, NULL);
    s->stats = stats_servers_new(p->n_workers);
    s->worker = p->n_servers % p->n_workers;
    s->name = strdup(name);
    s->text = strdup(text);
    if (!s->name || !s->text || !s->stats) {
        process_server_put(s);
        return NULL;
    }
    p->n_servers++;
    return s;
}

struct process_server *
process_server_get(struct process_server *s)
{
    get(&s->refs);
    return s;
}

void
process_server_put(struct process_server *s)
{
    if (!s || !put(&s->refs))
        return;
    for (unsigned i = 0; i < s->n_views; i++)
        addrlist_put(s->views[i].early);
    pthread_mutex_destroy(&s->lock);
    free(s->addrs);
    free(s->stats);
    free(s->name);
    free(s->text);
    free(s);
}

void
process_server_set_addrs(struct process_server *s, const struct addr *addrs, size_t n)
{
    struct addr *copy = calloc(n + 1, sizeof(*copy)), *before;

    if (!copy)
        return; /* what people see is old */
    for (size_t i = 0; i < n; i++)
        copy[i] = addrs[i];
    pthread_mutex_lock(&s->lock);
    before = s->addrs;
    s->addrs = copy;
    s->n_addrs = n;
    pthread_mutex_unlock(&s->lock);
    free(before);
}

size_t
process_server_copy_addrs(struct process_server *s, struct addr *addrs, size_t max)
{
    size_t n;

    pthread_mutex_lock(&s->lock);
    n = s->n_addrs < max ? s->n_addrs : max;
    for (size_t i = 0; i < n; i++)
        addrs[i] = s->addrs[i];
    pthread_mutex_unlock(&s->lock);
    return n;
}

struct process_upstream *
process_upstream_new(struct process *p, const char *name)
{
    struct process_upstream *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    atomic_init(&u->refs, 1);
    limit_init(&u->waiting, 0);
    u->name = strdup(name);
    if (!u->name) {
        free(u);
        return NULL;
    }
    u->id = p->n_upstreams++;
    return u;
}

struct process_upstream *
process_upstream_get(struct process_upstream *u)
{
    get(&u->refs);
    return u;
}

void
process_upstream_put(struct process_upstream *u)
{
    if (!u || !put(&u->refs))
        return;
    free(u->name);
    free(u);
}

struct process_proxy *
process_proxy_new(struct process *p)
{
    struct process_proxy *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    atomic_init(&x->refs, 1);
    atomic_init(&x->next_told, 0);
    limit_init(&x->sessions, 0);
    x->stats = stats_proxies_new(p->n_workers);
    if (x->stats)
        return x;
    free(x);
    return NULL;
}

struct process_proxy *
process_proxy_get(struct process_proxy *x)
{
    get(&x->refs);
    return x;
}

void
process_proxy_put(struct process_proxy *x)
{
    if (!x || !put(&x->refs))
        return;
    free(x->stats);
    free(x);
}
