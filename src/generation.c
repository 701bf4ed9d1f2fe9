/* SPDX-License-Identifier: MIT */
#include "generation.h"

#include "conf.h"
#include "endpoints.h"
#include "health.h"
#include "nameindex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool
is_same_range(const struct generation *a, const struct generation *b)
{
    return portrange_equal(&a->range, &b->range);
}

/* The server of ${before} that is ${conf}. */
static size_t
find_server(const struct conf_upstream *before, struct nameindex *index,
            const struct conf_server *conf)
{
    size_t i = nameindex_find(index, conf->name);

    if (i == GENERATION_NEW || strcmp(before->servers[i].text, conf->text) != 0)
        return GENERATION_NEW;
    return i;
}

static int
index_servers(struct nameindex *index, const struct conf_upstream *conf)
{
    if (nameindex_init(index, conf->n_servers) != 0)
        return -1;
    for (size_t i = 0; i < conf->n_servers; i++) {
        if (nameindex_add(index, conf->servers[i].name, i) != 0)
            return -1;
    }
    return 0;
}

/* Which servers it had before; those that are new get what they need. */
static int
make_servers(struct process *process, struct generation_upstream *u,
             const struct conf_upstream *conf, const struct conf_upstream *conf_before,
             const struct generation_upstream *before)
{
    struct nameindex index = {.is_made = false};
    int rc = -1;

    if (before && index_servers(&index, conf_before) != 0)
        goto done;
    for (size_t i = 0; i < conf->n_servers; i++) {
        const struct conf_server *s = &conf->servers[i];
        size_t k = before ? find_server(conf_before, &index, s) : GENERATION_NEW;
        u->befores[i] = k;
        u->servers[i] = k != GENERATION_NEW ? process_server_get(before->servers[k])
                                            : process_server_new(process, s->name, s->text);
        if (!u->servers[i])
            goto done;
    }
    rc = 0;
done:
    nameindex_fini(&index);
    return rc;
}

static int
make_upstream(struct generation *g, size_t i, struct process *process,
              const struct generation *before)
{
    struct generation_upstream *u = &g->upstreams[i];
    const struct conf_upstream *conf = g->conf->upstreams[i], *conf_before = NULL;
    const struct generation_upstream *u_before = NULL;

    if (u->before != GENERATION_NEW) {
        u_before = &before->upstreams[u->before];
        conf_before = before->conf->upstreams[u->before];
        u->is_kept = g->number - u_before->since < GENERATION_KEEPS && is_same_range(g, before) &&
                     conf_upstream_equal(conf, conf_before);
    }
    u->since = u->is_kept ? u_before->since : g->number;
    u->shared = u_before ? process_upstream_get(u_before->shared)
                         : process_upstream_new(process, conf->name);
    u->servers = calloc(conf->n_servers + 1, sizeof(struct process_server *));
    u->befores = calloc(conf->n_servers + 1, sizeof(*u->befores));
    if (!u->shared || !u->servers || !u->befores)
        return -1;
    return make_servers(process, u, conf, conf_before, u_before);
}

static int
make_proxy(struct generation *g, size_t i, struct process *process, const struct generation *before)
{
    struct generation_proxy *p = &g->proxies[i];
    const struct conf_proxy *conf = &g->conf->proxies[i];

    if (p->before != GENERATION_NEW)
        p->is_kept = g->upstreams[conf->upstream->index].is_kept &&
                     g->number - before->proxies[p->before].since < GENERATION_KEEPS &&
                     conf_proxy_equal(conf, &before->conf->proxies[p->before]);
    p->since = p->is_kept ? before->proxies[p->before].since : g->number;
    p->shared = p->before != GENERATION_NEW ? process_proxy_get(before->proxies[p->before].shared)
                                            : process_proxy_new(process);
    return p->shared ? 0 : -1;
}

/* Whose names were there before? */
static int
find_befores(struct generation *g, const struct generation *before)
{
    struct nameindex proxies = {.is_made = false}, upstreams = {.is_made = false};
    int rc = -1;

    if (nameindex_init(&proxies, before->conf->n_proxies) != 0 ||
        nameindex_init(&upstreams, before->conf->n_upstreams) != 0)
        goto done;
    for (size_t i = 0; i < before->conf->n_proxies; i++) {
        if (nameindex_add(&proxies, before->conf->proxies[i].name, i) != 0)
            goto done;
    }
    for (size_t i = 0; i < before->conf->n_upstreams; i++) {
        if (nameindex_add(&upstreams, before->conf->upstreams[i]->name, i) != 0)
            goto done;
    }
    for (size_t i = 0; i < g->conf->n_proxies; i++)
        g->proxies[i].before = nameindex_find(&proxies, g->conf->proxies[i].name);
    for (size_t i = 0; i < g->conf->n_upstreams; i++)
        g->upstreams[i].before = nameindex_find(&upstreams, g->conf->upstreams[i]->name);
    rc = 0;
done:
    nameindex_fini(&proxies);
    nameindex_fini(&upstreams);
    return rc;
}

static int
make(struct generation *g, struct process *process, const struct generation *before)
{
    for (size_t i = 0; i < g->conf->n_proxies; i++)
        g->proxies[i].before = GENERATION_NEW;
    for (size_t i = 0; i < g->conf->n_upstreams; i++)
        g->upstreams[i].before = GENERATION_NEW;
    if (before && find_befores(g, before) != 0)
        return -1;
    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        if (make_upstream(g, i, process, before) != 0)
            return -1;
    }
    for (size_t i = 0; i < g->conf->n_proxies; i++) {
        if (make_proxy(g, i, process, before) != 0)
            return -1;
    }
    return 0;
}

/* All but the configuration. */
static void
fini(struct generation *g)
{
    for (size_t i = 0; g->upstreams && i < g->conf->n_upstreams; i++) {
        struct generation_upstream *u = &g->upstreams[i];
        for (size_t k = 0; u->servers && k < g->conf->upstreams[i]->n_servers; k++)
            process_server_put(u->servers[k]);
        process_upstream_put(u->shared);
        free(u->servers);
        free(u->befores);
    }
    for (size_t i = 0; g->proxies && i < g->conf->n_proxies; i++)
        process_proxy_put(g->proxies[i].shared);
    free(g->upstreams);
    free(g->proxies);
    free(g);
}

struct generation *
generation_new(struct process *process, struct conf *conf, const struct portrange *range,
               const struct generation *before)
{
    struct generation *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    atomic_init(&g->refs, 1);
    g->conf = conf;
    g->number = before ? before->number + 1 : 0;
    g->range = *range;
    g->proxies = calloc(conf->n_proxies + 1, sizeof(*g->proxies));
    g->upstreams = calloc(conf->n_upstreams + 1, sizeof(*g->upstreams));
    if (g->proxies && g->upstreams && make(g, process, before) == 0)
        return g;
    fini(g);
    errno = ENOMEM;
    return NULL;
}

void
generation_begin(const struct generation *g, struct process *process,
                 const struct process_most *most)
{
    endpoints_set_hops_max(process->endpoints, g->conf->n_proxies);
    limit_set_max(&process->sessions, most->sessions);
    limit_set_max(&process->standby, most->standby);
    for (size_t i = 0; i < g->conf->n_proxies; i++)
        limit_set_max(&g->proxies[i].shared->sessions, g->conf->proxies[i].max_sessions);
    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        const struct conf_upstream *conf = g->conf->upstreams[i];
        limit_set_max(&g->upstreams[i].shared->waiting, conf->max_waiting);
        for (size_t k = 0; k < conf->n_servers; k++)
            limit_set_max(&g->upstreams[i].servers[k]->sessions, conf->servers[k].max_sessions);
    }
}

struct generation *
generation_get(struct generation *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void
generation_put(struct generation *g)
{
    struct conf *conf;

    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
        return;
    conf = g->conf;
    fini(g);
    conf_free(conf);
}

struct generation_figures
generation_figures(const struct generation *g, const struct process *process)
{
    struct generation_figures f = {.sessions = limit_used(&process->sessions)};

    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        const struct generation_upstream *u = &g->upstreams[i];
        size_t n = g->conf->upstreams[i]->n_servers;

        f.waiting += limit_used(&u->shared->waiting);
        f.servers += n;
        for (size_t k = 0; k < n; k++)
            f.servers_up += (atomic_load_explicit(&u->servers[k]->state, memory_order_relaxed) &
                             ~PROCESS_TAINTED) == HEALTH_UP;
    }
    return f;
}
