/* SPDX-License-Identifier: MIT */
/*
 * made by the main thread          on the worker's own thread
 * worker_set_new() --> worker_set_begin() --> the next set's worker_set_begin() --> retired --> worker_set_free_idle()
 *
 * What is the same in two generations goes over as it is. Else the new proxy takes the old one's sockets, the new upstream what is known of the servers, and
 * the old ones live on for the sessions that they have.
 */
#include "worker_internal.h"

#include "conf.h"
#include "generation.h"
#include "listener.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int
make_upstreams(struct worker *w, struct worker_set *set)
{
    struct generation *g = set->generation;

    set->upstreams = calloc(set->n_upstreams + 1, sizeof(struct upstream *));
    if (!set->upstreams)
        return -1;
    for (size_t i = 0; i < set->n_upstreams; i++) {
        if (g->upstreams[i].is_kept)
            continue;
        set->upstreams[i] = upstream_new(g, i, &w->env);
        if (!set->upstreams[i])
            return -1;
    }
    return 0;
}

static size_t
highest_fd(const struct worker_set *set, const struct worker_sockets *sockets)
{
    int highest = 0;

    for (size_t i = 0; i < set->n_proxies; i++) {
        for (size_t k = 0; k < sockets[i].n; k++) {
            if (sockets[i].sockets[k].fd > highest)
                highest = sockets[i].sockets[k].fd;
        }
    }
    return (size_t)highest;
}

static int
make_proxies(struct worker *w, struct worker_set *set, const struct worker_sockets *sockets)
{
    struct generation *g = set->generation;
    const struct proxy_opts opts = {
        .loop = w->loop,
        .shared = &w->shared,
        .group = &w->group,
        .process = w->opts.process,
        .worker = w->opts.index,
        .access_log = g->conf->daemon.access_log,
    };

    set->proxies = calloc(set->n_proxies + 1, sizeof(struct proxy *));
    if (!set->proxies)
        return -1;
    for (size_t i = 0; i < set->n_proxies; i++) {
        if (g->proxies[i].is_kept)
            continue;
        set->proxies[i] = proxy_new(g, i, sockets[i].sockets, sockets[i].n, &opts);
        if (!set->proxies[i])
            return -1;
    }
    return 0;
}

struct worker_set *
worker_set_new(struct worker *w, struct generation *generation,
               const struct worker_sockets *sockets)
{
    struct worker_set *set = calloc(1, sizeof(*set));

    if (!set)
        return NULL;
    set->generation = generation_get(generation);
    set->n_upstreams = generation->conf->n_upstreams;
    set->n_proxies = generation->conf->n_proxies;
    set->n_fds = highest_fd(set, sockets) + 1;
    set->by_fd = calloc(set->n_fds, sizeof(struct listener *));
    if (set->by_fd && make_upstreams(w, set) == 0 && make_proxies(w, set, sockets) == 0)
        return set;
    int err = errno;
    worker_set_free(set);
    errno = err;
    return NULL;
}

void
worker_set_free(struct worker_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; set->proxies && i < set->n_proxies; i++)
        proxy_free(set->proxies[i]);
    for (size_t i = 0; set->upstreams && i < set->n_upstreams; i++)
        upstream_free(set->upstreams[i]);
    generation_put(set->generation);
    free(set->proxies);
    free(set->upstreams);
    free(set->by_fd);
    free(set);
}

/* What is the same goes over from ${before}; what has changed is succeeded. */
static void
take_over(struct worker_set *set, struct worker_set *before)
{
    const struct generation *g = set->generation;

    for (size_t i = 0; i < set->n_upstreams; i++) {
        size_t k = g->upstreams[i].before;
        if (g->upstreams[i].is_kept) {
            set->upstreams[i] = before->upstreams[k];
            before->upstreams[k] = NULL;
        } else if (k != GENERATION_NEW) {
            upstream_succeed(set->upstreams[i], before->upstreams[k]);
        }
    }
    for (size_t i = 0; i < set->n_proxies; i++) {
        size_t k = g->proxies[i].before;
        if (!g->proxies[i].is_kept)
            continue;
        set->proxies[i] = before->proxies[k];
        before->proxies[k] = NULL;
        proxy_set_access_log(set->proxies[i], g->conf->daemon.access_log);
    }
    for (size_t i = 0; i < before->n_proxies; i++) {
        if (before->proxies[i])
            proxy_list_sockets(before->proxies[i], set->by_fd, set->n_fds);
    }
}

static void
begin_proxies(struct worker_set *set)
{
    const struct generation *g = set->generation;

    for (size_t i = 0; i < set->n_proxies; i++) {
        if (!g->proxies[i].is_kept)
            proxy_begin(set->proxies[i], set->upstreams[g->conf->proxies[i].upstream->index],
                        set->by_fd);
    }
    free(set->by_fd);
    set->by_fd = NULL;
}

/* Before the upstreams begin and are retired: those who wait there move on to these. */
static void
retire_proxies(struct worker *w, struct worker_set *before)
{
    const struct generation *g = w->set->generation;
    struct worker_set *set;

    for (size_t i = 0; i < w->set->n_proxies; i++) {
        if (!g->proxies[i].is_kept && g->proxies[i].before != GENERATION_NEW)
            proxy_retire(before->proxies[g->proxies[i].before], w->set->proxies[i]);
    }
    for (size_t i = 0; i < before->n_proxies; i++) {
        if (before->proxies[i])
            proxy_retire(before->proxies[i], NULL);
    }
    TAILQ_FOREACH(set, &w->retired, link) {
        for (size_t i = 0; i < set->n_proxies; i++) {
            if (set->proxies[i])
                proxy_follow(set->proxies[i]);
        }
    }
}

static void
let_standby_go(struct worker_set *before)
{
    for (size_t i = 0; i < before->n_upstreams; i++) {
        if (before->upstreams[i])
            upstream_drain(before->upstreams[i]);
    }
}

/* One session may keep it for days, and it is looked through whenever there is news. */
static void
compact(struct worker_set *set)
{
    size_t n = 0, m = 0;

    for (size_t i = 0; i < set->n_upstreams; i++) {
        if (set->upstreams[i])
            set->upstreams[n++] = set->upstreams[i];
    }
    for (size_t i = 0; i < set->n_proxies; i++) {
        if (set->proxies[i])
            set->proxies[m++] = set->proxies[i];
    }
    set->n_upstreams = n;
    set->n_proxies = m;
}

void
worker_set_begin(struct worker *w, struct worker_set *set)
{
    struct worker_set *before = w->set;

    w->set = set;
    if (before)
        take_over(set, before);
    begin_proxies(set);
    if (before) {
        retire_proxies(w, before);
        let_standby_go(before); /* they make room for those to come */
    }
    for (size_t i = 0; i < set->n_upstreams; i++) {
        if (!set->generation->upstreams[i].is_kept)
            upstream_begin(set->upstreams[i]);
    }
    if (!before)
        return;
    TAILQ_INSERT_TAIL(&w->retired, before, link);
    for (size_t i = 0; i < before->n_upstreams; i++) {
        if (before->upstreams[i])
            upstream_retire(before->upstreams[i]);
    }
    worker_set_free_idle(w);
}

void
worker_set_drain(struct worker_set *set)
{
    for (size_t i = 0; i < set->n_proxies; i++)
        proxy_stop_accepting(set->proxies[i]);
    for (size_t i = 0; i < set->n_upstreams; i++)
        upstream_drain(set->upstreams[i]);
}

static void
for_each_proxy(struct worker_set *set, void (*call)(struct proxy *proxy, void *arg), void *arg)
{
    for (size_t i = 0; i < set->n_proxies; i++) {
        if (set->proxies[i])
            call(set->proxies[i], arg);
    }
}

void
worker_for_each_proxy(struct worker *w, void (*call)(struct proxy *proxy, void *arg), void *arg)
{
    struct worker_set *set;

    for_each_proxy(w->set, call, arg);
    TAILQ_FOREACH(set, &w->retired, link)
        for_each_proxy(set, call, arg);
}

static void
cut(struct proxy *proxy, void *arg)
{
    (void)arg;
    proxy_cut(proxy);
}

void
worker_set_cut(struct worker *w)
{
    worker_for_each_proxy(w, cut, NULL);
}

static void
wake(struct worker_set *set, unsigned flags)
{
    for (size_t i = 0; i < set->n_upstreams; i++) {
        if (set->upstreams[i])
            upstream_on_wake(set->upstreams[i], flags);
    }
}

void
worker_set_wake(struct worker *w, unsigned flags)
{
    struct worker_set *set;

    wake(w->set, flags);
    TAILQ_FOREACH(set, &w->retired, link)
        wake(set, flags);
}

static void
free_idle_proxies(struct worker_set *set)
{
    for (size_t i = 0; i < set->n_proxies; i++) {
        if (set->proxies[i] && proxy_is_idle(set->proxies[i])) {
            proxy_free(set->proxies[i]);
            set->proxies[i] = NULL;
        }
    }
}

static void
free_idle_upstreams(struct worker_set *set)
{
    for (size_t i = 0; i < set->n_upstreams; i++) {
        if (set->upstreams[i] && upstream_is_idle(set->upstreams[i])) {
            upstream_free(set->upstreams[i]);
            set->upstreams[i] = NULL;
        }
    }
}

/* All proxies first: that of one set may have had the upstream of another. */
void
worker_set_free_idle(struct worker *w)
{
    struct worker_set *set, *next;

    TAILQ_FOREACH(set, &w->retired, link)
        free_idle_proxies(set);
    for (set = TAILQ_FIRST(&w->retired); set; set = next) {
        next = TAILQ_NEXT(set, link);
        free_idle_upstreams(set);
        compact(set);
        if (set->n_upstreams > 0 || set->n_proxies > 0)
            continue;
        TAILQ_REMOVE(&w->retired, set, link);
        worker_set_free(set);
    }
}

void
worker_set_free_all(struct worker *w)
{
    struct worker_set *set;

    if (w->set)
        TAILQ_INSERT_TAIL(&w->retired, w->set, link);
    w->set = NULL;
    TAILQ_FOREACH(set, &w->retired, link)
        free_idle_proxies(set);
    while ((set = TAILQ_FIRST(&w->retired))) {
        TAILQ_REMOVE(&w->retired, set, link);
        worker_set_free(set);
    }
}
