/* SPDX-License-Identifier: MIT */
#include "upstream_internal.h"

#include "conf.h"
#include "endpoints.h"
#include "generation.h"
#include "limit.h"
#include "process.h"
#include "server.h"
#include "sock.h"
#include "standby.h"
#include "stats.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

const struct conf_upstream *
upstream_conf(const struct upstream *u)
{
    return u->conf;
}

static bool
is_up(const struct server *s)
{
    return server_state(s) == HEALTH_UP && !s->doubted && s->addrs && !server_is_disabled(s);
}

bool
upstream_is_reachable(const struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (server_state(&u->servers[i]) != HEALTH_DOWN && !server_is_disabled(&u->servers[i]))
            return true;
    }
    return false;
}

static bool
is_paced(const struct server *s)
{
    unsigned share = UPSTREAM_LINE_DIALS / s->owner->env->process->n_workers;

    return s->line_dials >= (share > 0 ? share : 1);
}

bool
upstream_must_wait(const struct server *s, bool for_line)
{
    return !is_up(s) || (for_line && is_paced(s));
}

/*
 * One look at each server: what other workers change meanwhile cannot make the policy contradict itself. Primaries and backups are gathered apart; which of
 * them count is known at the end.
 */
struct server *
upstream_pick(struct upstream *u, uint64_t key, bool for_line)
{
    struct balance_candidate *tiers[] = {u->candidates, u->candidates + u->conf->n_servers};
    struct balance_candidate *picked;
    bool has_own = u->conf->balance == BALANCE_SOURCE_HASH && key != 0;
    bool is_primary_up = false;
    size_t tier, n[2] = {0};

    for (size_t i = 0; i < u->conf->n_servers; i++) {
        struct server *s = &u->servers[i];
        if (!is_up(s) && !(has_own && server_is_untried(s) && !server_is_disabled(s)))
            continue;
        tier = s->conf->backup ? 1 : 0;
        is_primary_up |= tier == 0;
        if (!limit_is_full(&s->shared->sessions) && (has_own || !for_line || !is_paced(s)))
            tiers[tier][n[tier]++] = (struct balance_candidate){
                .server = &s->balance,
                .sessions = limit_used(&s->shared->sessions),
            };
    }
    tier = is_primary_up ? 0 : 1;
    if (n[tier] == 0)
        return NULL;
    picked = &tiers[tier][balance_pick(u->conf->balance, key, tiers[tier], n[tier])];
    return (struct server *)((char *)picked->server - offsetof(struct server, balance));
}

void
upstream_hurry(struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (u->servers[i].prober)
            prober_hurry(u->servers[i].prober);
    }
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

/* Where does a connection go that was not made for a client? */
static void
on_connected(struct server *server, int fd, struct endpoint *endpoint)
{
    struct upstream *u = server->owner;
    /* A backup waits for its turn. With source_hash the first in line may be another server's. */
    bool is_anybodys =
        !(server->conf->backup && is_primary_up(u)) && u->conf->balance != BALANCE_SOURCE_HASH;

    if (is_anybodys && !server_is_disabled(server) && upstream_offer(u, server, fd, endpoint))
        return;
    if (!server_is_disabled(server) && standby_put(server->standby, fd, endpoint))
        return;
    endpoints_remove(u->env->process->endpoints, endpoint);
    sock_close_fin(fd);
}

static void
on_probed(void *arg, int fd, struct endpoint *endpoint)
{
    on_connected(arg, fd, endpoint);
}

static void
on_servers_changed(struct upstream *u)
{
    struct upstream_watch *watch;
    bool reachable = upstream_is_reachable(u);

    for (size_t i = 0; i < u->conf->n_servers; i++) {
        struct server *s = &u->servers[i];
        s->doubted = false;
        if (is_up(s))
            standby_fill(s->standby);
        else
            standby_drop(s->standby);
    }
    if (reachable != u->reachable) {
        u->reachable = reachable;
        TAILQ_FOREACH(watch, &u->watches, link)
            watch->on_reachable(watch, reachable);
        if (!reachable && u->conf->when_down == WHEN_DOWN_RESET)
            upstream_refuse_line(u, CLAIM_NO_SERVER);
    }
    upstream_serve_line_anew(u);
}

static void
refill(struct server *s)
{
    if (s->conf->max_sessions > 0 && is_up(s))
        standby_fill(s->standby);
}

/* How many places are left at ${s} beside those that the standby connections of all workers want? */
static int
places_beside_standby(const struct server *s)
{
    const struct limit *places = &s->shared->sessions;

    return (int)limit_max(places) - (int)limit_used(places) - (int)conf_standby(s->upstream);
}

/* A worker that lets a session go fills up by itself. The others do where all of them can: none of them sees how many the others have. */
static void
on_places(struct upstream *u)
{
    upstream_serve_line(u);
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (places_beside_standby(&u->servers[i]) >= 0)
            refill(&u->servers[i]);
    }
}

void
upstream_wake_others(const struct upstream *u)
{
    process_wake(u->env->process, WAKE_PLACES,
                 u->is_retired ? u->env->process->n_workers : u->env->worker);
}

void
upstream_on_wake(struct upstream *u, unsigned wake)
{
    if (wake & WAKE_PROBE)
        upstream_look_for_loops(u);
    if (wake & WAKE_SERVERS)
        on_servers_changed(u);
    else if (wake & WAKE_PLACES)
        on_places(u);
    if ((wake & WAKE_WAITING) && limit_used(u->waiting) > 0)
        upstream_hurry(u);
}

void
upstream_release(struct upstream *u, struct server *server)
{
    bool was_full = limit_give(&server->shared->sessions);

    if (was_full || (server->conf->max_sessions > 0 && places_beside_standby(server) == 0))
        upstream_wake_others(u);
    u->n_users--;
    upstream_serve_line(u);
    refill(server);
}

void
upstream_drain(struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        standby_free(u->servers[i].standby);
        u->servers[i].standby = NULL;
    }
}

/* One that is up, but had no address here, can be dialled now. */
static void
on_addrs(struct server *server)
{
    standby_check_addrs(server->standby);
    upstream_serve_line_anew(server->owner);
}

static struct prober_opts
prober_opts_of(const struct upstream *u, struct server *s)
{
    return (struct prober_opts){
        .waiting = u->waiting,
        .upstream = u->plan->shared->id,
        .on_probed = on_probed,
        .arg = s,
    };
}

/* They are dealt out to the workers, from the one that probes the server on. */
static int
make_standby(struct upstream *u, struct server *s)
{
    unsigned n_workers = u->env->process->n_workers, wanted = conf_standby(u->conf);
    unsigned rank = (u->env->worker + n_workers - s->shared->worker) % n_workers;
    const struct standby_opts opts = {
        .edges = u->edges,
        .endpoints = u->env->process->endpoints,
        .places = &u->env->process->standby,
        .upstream = u->plan->shared->id,
        .wanted = wanted / n_workers + (rank < wanted % n_workers ? 1 : 0),
        .learns = u->conf->standby == CONF_AUTO,
        .on_connected = on_connected,
    };

    if (opts.wanted == 0)
        return 0;
    s->standby = standby_new(s, &opts);
    return s->standby ? 0 : -1;
}

static int
make_server(struct upstream *u, size_t i)
{
    struct server *s = &u->servers[i];
    const struct prober_opts opts = prober_opts_of(u, s);

    if (server_init(s, u->loop, &u->conf->servers[i], u->conf, &u->generation->range) != 0)
        return -1;
    s->owner = u;
    s->on_addrs = on_addrs;
    s->process = u->env->process;
    s->worker = u->env->worker;
    s->shared = u->plan->servers[i];
    s->stats = &s->shared->stats[u->env->worker];
    s->dial_opts.endpoints = u->env->process->endpoints;
    if (u->plan->befores[i] == GENERATION_NEW && s->shared->worker == u->env->worker &&
        server_own(s, u->env->resolver, &opts) != 0)
        return -1;
    return make_standby(u, s);
}

struct upstream *
upstream_new(struct generation *generation, size_t index, const struct upstream_env *env)
{
    struct upstream *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->generation = generation_get(generation);
    u->plan = &generation->upstreams[index];
    u->conf = generation->conf->upstreams[index];
    u->env = env;
    u->loop = env->loop;
    u->edges = env->edges;
    u->waiting = &u->plan->shared->waiting;
    u->reachable = true;
    TAILQ_INIT(&u->line);
    TAILQ_INIT(&u->watches);
    ev_timer_init(&u->shortage, upstream_on_shortage_over, 0., 0.);
    u->servers = calloc(u->conf->n_servers, sizeof(*u->servers));
    u->candidates = calloc(u->conf->n_servers, 2 * sizeof(*u->candidates));
    if (!u->servers || !u->candidates)
        goto fail;
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        if (make_server(u, i) != 0)
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
    if (u->servers)
        upstream_drain(u);
    for (size_t i = 0; u->servers && i < u->conf->n_servers; i++)
        server_fini(&u->servers[i]);
    free(u->candidates);
    free(u->servers);
    generation_put(u->generation);
    free(u);
}

void
upstream_begin(struct upstream *u)
{
    for (size_t i = 0; i < u->conf->n_servers; i++)
        server_begin(&u->servers[i]);
    on_servers_changed(u);
}

void
upstream_succeed(struct upstream *u, struct upstream *before)
{
    for (size_t i = 0; i < u->conf->n_servers; i++) {
        struct server *s = &u->servers[i];
        size_t k = u->plan->befores[i];
        const struct prober_opts opts = prober_opts_of(u, s);
        if (k == GENERATION_NEW)
            continue;
        server_succeed(s, &before->servers[k], u->env->resolver, &opts);
        standby_succeed(s->standby, before->servers[k].standby);
    }
    u->reachable = before->reachable; /* what those who watch know */
}

void
upstream_retire(struct upstream *u)
{
    u->is_retired = true;
    ev_timer_stop(u->loop, &u->shortage);
    upstream_drain(u);
    for (size_t i = 0; i < u->conf->n_servers; i++)
        server_retire(&u->servers[i]);
    upstream_refuse_line(u, CLAIM_RETIRED);
}

bool
upstream_is_idle(const struct upstream *u)
{
    return u->n_users == 0 && TAILQ_EMPTY(&u->watches);
}

uint32_t
upstream_id(const struct upstream *u)
{
    return u->plan->shared->id;
}

const char *
upstream_name_of(const struct upstream *u, uint32_t id)
{
    const struct generation *g = u->generation;

    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        if (g->upstreams[i].shared->id == id)
            return g->upstreams[i].shared->name;
    }
    return NULL;
}

void
upstream_watch(struct upstream *u, struct upstream_watch *watch,
               void (*on_reachable)(struct upstream_watch *watch, bool reachable))
{
    watch->on_reachable = on_reachable;
    TAILQ_INSERT_TAIL(&u->watches, watch, link);
}

void
upstream_unwatch(struct upstream *u, struct upstream_watch *watch)
{
    TAILQ_REMOVE(&u->watches, watch, link);
}
