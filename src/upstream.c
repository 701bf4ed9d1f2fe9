/* SPDX-License-Identifier: MIT */
#include "upstream_internal.h"

#include "conf.h"
#include "limit.h"
#include "process.h"
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

const struct conf_upstream *
upstream_conf(const struct upstream *u)
{
    return u->conf;
}

static bool
is_up(const struct server *s)
{
    return server_state(s) == HEALTH_UP && !s->doubted;
}

bool
upstream_is_reachable(const struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (server_state(&u->servers[i]) != HEALTH_DOWN)
            return true;
    }
    return false;
}

static bool
has_room(const struct upstream *u, const struct server *s, bool for_line)
{
    unsigned share = UPSTREAM_LINE_DIALS / u->env->process->n_workers;

    share = share > 0 ? share : 1;

    return !limit_is_full(&s->shared->sessions) && (!for_line || s->line_dials < share);
}

static bool
is_primary_up(const struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (is_up(&u->servers[i]) && !u->servers[i].conf->backup)
            return true;
    }
    return false;
}

/*
 * Smooth weighted round robin: each candidate gains its weight, the one that has most is picked and pays the sum of all weights.
 * Weights 5, 1, 1 give a a b a c a a.
 */
struct server *
upstream_pick(struct upstream *u, bool for_line)
{
    struct server *best = NULL;
    bool primary_up = is_primary_up(u);
    int total = 0;

    for (size_t i = 0; i < u->conf->n_servers; i++) {
        struct server *s = &u->servers[i];
        if (!is_up(s) || s->conf->backup == primary_up || !has_room(u, s, for_line))
            continue;
        if (u->conf->balance == BALANCE_FIRST)
            return s;
        s->current_weight += (int)s->conf->weight;
        total += (int)s->conf->weight;
        if (!best || s->current_weight > best->current_weight)
            best = s;
    }
    if (best)
        best->current_weight -= total;
    return best;
}

void
upstream_hurry(struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (u->servers[i].prober)
            prober_hurry(u->servers[i].prober);
    }
}

static void
on_probed(void *arg, int fd)
{
    struct server *server = arg;
    struct upstream *u = server->owner;

    /* A backup waits for its turn. */
    if (server->conf->backup && is_primary_up(u))
        close(fd);
    else
        upstream_offer(u, server, fd);
}

static void
on_servers_changed(struct upstream *u)
{
    struct upstream_watch *watch;
    bool reachable = upstream_is_reachable(u);

    for (size_t i = 0; i < u->conf->n_servers; i++)
        u->servers[i].doubted = false;
    if (reachable != u->reachable) {
        u->reachable = reachable;
        TAILQ_FOREACH(watch, &u->watches, link)
            watch->on_reachable(watch, reachable);
        if (!reachable && u->conf->when_down == WHEN_DOWN_RESET)
            upstream_refuse_line(u);
    }
    upstream_serve_line(u);
}

void
upstream_on_wake(struct upstream *u, unsigned wake)
{
    if (wake & WAKE_SERVERS)
        on_servers_changed(u);
    else if (wake & WAKE_PLACES)
        upstream_serve_line(u);
    if ((wake & WAKE_WAITING) && limit_used(u->waiting) > 0)
        upstream_hurry(u);
}

void
upstream_release(struct upstream *u, struct server *server)
{
    if (limit_give(&server->shared->sessions))
        process_wake(u->env->process, WAKE_PLACES, u->env->worker);
    upstream_serve_line(u);
}

/* The servers of all upstreams are dealt out to the workers in turn. */
static int
make_prober(struct upstream *u, struct server *s)
{
    const struct prober_opts opts = {
        .dial = &s->dial_opts,
        .waiting = u->waiting,
        .process = u->env->process,
        .shared = s->shared,
        .on_probed = on_probed,
        .arg = s,
    };

    s->prober = prober_new(u->loop, s->conf, u->conf, &opts);
    if (!s->prober)
        return -1;
    s->shared->owner = s->prober;
    s->shared->owner_mailbox = u->env->process->mailboxes[u->env->worker];
    return 0;
}

struct upstream *
upstream_new(const struct conf_upstream *conf, size_t index, size_t first,
             const struct upstream_env *env)
{
    struct upstream *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->conf = conf;
    u->env = env;
    u->loop = env->loop;
    u->edges = env->edges;
    u->waiting = &env->process->upstreams[index].waiting;
    u->reachable = true;
    TAILQ_INIT(&u->line);
    TAILQ_INIT(&u->watches);
    ev_timer_init(&u->shortage, upstream_on_shortage_over, 0., 0.);
    u->servers = calloc(conf->n_servers, sizeof(*u->servers));
    if (!u->servers)
        goto fail;
    for (size_t i = 0; i < conf->n_servers; i++) {
        struct server *s = &u->servers[i];
        server_init(s, env->loop, &conf->servers[i], conf, env->range);
        s->owner = u;
        s->mailbox = env->process->mailboxes[env->worker];
        s->shared = &env->process->upstreams[index].servers[i];
        if ((first + i) % env->process->n_workers == env->worker && make_prober(u, s) != 0)
            goto fail;
    }
    return u;

fail:
    upstream_free(u);
    errno = ENOMEM;
    return NULL;
}

void
upstream_free(struct upstream *u)
{
    if (!u)
        return;
    ev_timer_stop(u->loop, &u->shortage);
    for (size_t i = 0; u->servers && i < u->conf->n_servers; i++)
        prober_free(u->servers[i].prober);
    free(u->servers);
    free(u);
}

void
upstream_begin(struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (u->servers[i].prober)
            prober_begin(u->servers[i].prober);
    }
}

void
upstream_watch(struct upstream *u, struct upstream_watch *watch,
               void (*on_reachable)(struct upstream_watch *watch, bool reachable))
{
    watch->on_reachable = on_reachable;
    TAILQ_INSERT_TAIL(&u->watches, watch, link);
}
