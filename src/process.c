/* SPDX-License-Identifier: MIT */
#include "process.h"

#include "conf.h"
#include "endpoints.h"
#include "health.h"
#include "mailbox.h"

#include <errno.h>
#include <stdlib.h>

static int
make_upstream(struct process_upstream *u, const struct conf_upstream *conf, unsigned n_workers)
{
    u->servers = calloc(conf->n_servers + 1, sizeof(*u->servers));
    u->views = calloc(conf->n_servers * n_workers + 1, sizeof(struct server *));
    if (!u->servers || !u->views) {
        free(u->servers);
        free(u->views);
        return -1;
    }
    u->name = conf->name;
    u->n_servers = conf->n_servers;
    limit_init(&u->waiting, conf->max_waiting);
    for (size_t i = 0; i < conf->n_servers; i++) {
        atomic_init(&u->servers[i].state, 0);
        limit_init(&u->servers[i].sessions, conf->servers[i].max_sessions);
        u->servers[i].views = u->views + i * n_workers;
    }
    return 0;
}

struct process *
process_new(const struct conf *conf, unsigned n_workers, const struct process_most *most)
{
    struct process *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->n_workers = n_workers;
    limit_init(&p->sessions, most->sessions);
    limit_init(&p->standby, most->standby);
    p->mailboxes = calloc(n_workers, sizeof(struct mailbox *));
    p->proxies = calloc(conf->n_proxies + 1, sizeof(*p->proxies));
    p->upstreams = calloc(conf->n_upstreams + 1, sizeof(*p->upstreams));
    p->endpoints = endpoints_new(conf->n_proxies);
    if (!p->mailboxes || !p->proxies || !p->upstreams || !p->endpoints)
        goto fail;
    for (size_t i = 0; i < conf->n_proxies; i++)
        limit_init(&p->proxies[i].sessions, conf->proxies[i].max_sessions);
    for (; p->n_upstreams < conf->n_upstreams; p->n_upstreams++) {
        if (make_upstream(&p->upstreams[p->n_upstreams], conf->upstreams[p->n_upstreams],
                          n_workers) != 0)
            goto fail;
    }
    return p;

fail:
    process_free(p);
    errno = ENOMEM;
    return NULL;
}

void
process_free(struct process *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_upstreams; i++) {
        free(p->upstreams[i].servers);
        free(p->upstreams[i].views);
    }
    endpoints_free(p->endpoints);
    free(p->upstreams);
    free(p->proxies);
    free(p->mailboxes);
    free(p);
}

struct process_figures
process_figures(const struct process *p)
{
    struct process_figures f = {.sessions = limit_used(&p->sessions)};

    for (size_t i = 0; i < p->n_upstreams; i++) {
        const struct process_upstream *u = &p->upstreams[i];

        f.waiting += limit_used(&u->waiting);
        f.servers += u->n_servers;
        for (size_t k = 0; k < u->n_servers; k++)
            f.servers_up += (atomic_load_explicit(&u->servers[k].state, memory_order_relaxed) &
                             ~PROCESS_TAINTED) == HEALTH_UP;
    }
    return f;
}

void
process_wake(struct process *p, unsigned wake, unsigned but)
{
    for (unsigned i = 0; i < p->n_workers; i++) {
        if (i != but)
            mailbox_raise(p->mailboxes[i], wake);
    }
}
