/* SPDX-License-Identifier: MIT */
#include "proxy_internal.h"

#include "addr.h"
#include "conf.h"
#include "generation.h"
#include "listener.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "session.h"
#include "sock.h"
#include "stats.h"
#include "upstream.h"

#include <errno.h>
#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define RELISTEN_RETRY_S 1.

static struct proxy *
of_host(struct session_host *host)
{
    return (struct proxy *)((char *)host - offsetof(struct proxy, host));
}

static void
tell_idle(const struct proxy *p)
{
    if (p->is_retired && proxy_is_idle(p))
        p->group->on_idle(p->group);
}

/* Its place in the process stays its own; that in a proxy of another name is another one. */
static void
on_moved(struct session_host *host, struct session_host *next_host)
{
    struct proxy *p = of_host(host), *next = of_host(next_host);

    if (next->shared != p->shared) {
        limit_force(&next->shared->sessions);
        (void)limit_give(&p->shared->sessions); /* nobody waits for it: nothing accepts there */
    }
    tell_idle(p);
}

/* Of a client that came in at ${dest}. */
static struct proxy *
heir_of(const struct proxy *p, const struct addr *dest)
{
    for (size_t i = 0; i < p->n_listeners; i++) {
        if (addr_covers(p->listeners[i].addr, dest))
            return p->listeners[i].heir;
    }
    return NULL;
}

static struct session_host *
successor(struct session_host *host, int fd)
{
    const struct proxy *p = of_host(host);
    struct proxy *heir = NULL;
    struct addr dest;

    if (p->n_listeners == 1)
        heir = p->listeners[0].heir;
    else if (sock_local(fd, &dest) == 0)
        heir = heir_of(p, &dest);
    return heir ? &heir->host : NULL;
}

static void
on_session_ended(struct session_host *host)
{
    struct proxy *p = of_host(host);

    proxy_give_places(p);
    tell_idle(p);
    if (--p->group->sessions == 0)
        p->group->on_empty(p->group);
}

/* How many sockets do not listen just now? */
static size_t
count_missing(const struct proxy *p)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_listeners; i++)
        n += (p->listeners[i].listener.paused & LISTENER_UNLISTENED) != 0;
    return n;
}

static void
unlisten(struct proxy *p)
{
    ev_timer_stop(p->loop, &p->relisten);
    if (count_missing(p) == p->n_listeners)
        return;
    for (size_t i = 0; i < p->n_listeners; i++)
        listener_unlisten(&p->listeners[i].listener);
    if (p->worker == 0)
        log_event(LOG_NOTICE, "unlistened", LOG_FIELDS(LOG_STR("proxy", p->conf->name)),
                  "proxy %s refuses clients until a server is back", p->conf->name);
}

static void
relisten(struct proxy *p)
{
    uint64_t suppressed;
    int err = 0;

    ev_timer_stop(p->loop, &p->relisten);
    if (count_missing(p) == 0)
        return;
    for (size_t i = 0; i < p->n_listeners; i++) {
        if (listener_relisten(&p->listeners[i].listener) != 0)
            err = errno;
    }
    if (err == 0) {
        if (p->worker == 0)
            log_event(LOG_NOTICE, "relistened", LOG_FIELDS(LOG_STR("proxy", p->conf->name)),
                      "proxy %s listens again", p->conf->name);
        return;
    }
    ev_timer_set(&p->relisten, RELISTEN_RETRY_S, 0.);
    ev_timer_start(p->loop, &p->relisten);
    if (log_limit_pass(&p->relisten_limit, monotonic_ms(), &suppressed))
        log_event(LOG_ERROR, "relisten_failed",
                  LOG_FIELDS(LOG_STR("proxy", p->conf->name), LOG_STR("error", strerror(err)),
                             LOG_UINT("suppressed", suppressed)),
                  "proxy %s cannot listen again: %s", p->conf->name, strerror(err));
}

static void
on_relisten(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    relisten((struct proxy *)((char *)timer - offsetof(struct proxy, relisten)));
}

static void
on_reachable(struct upstream_watch *watch, bool reachable)
{
    struct proxy *p = (struct proxy *)((char *)watch - offsetof(struct proxy, watch));

    if (p->is_stopped || upstream_conf(p->host.upstream)->when_down != WHEN_DOWN_UNLISTEN)
        return;
    if (reachable)
        relisten(p);
    else
        unlisten(p);
}

static int
init_listeners(struct proxy *p, const struct proxy_socket *sockets, size_t n)
{
    p->listeners = calloc(n + 1, sizeof(*p->listeners));
    if (!p->listeners)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct listener *l = &p->listeners[i].listener;
        p->listeners[i].is_old = sockets[i].is_old;
        p->listeners[i].addr = sockets[i].addr;
        l->arg = p;
        l->fd = l->watched_fd = sockets[i].fd;
        if (!sockets[i].is_old && listener_init(l, sockets[i].fd, sockets[i].is_shared) != 0)
            return -1;
        p->n_listeners++;
    }
    return 0;
}

struct proxy *
proxy_new(struct generation *generation, size_t index, const struct proxy_socket *sockets, size_t n,
          const struct proxy_opts *opts)
{
    struct proxy *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->generation = generation_get(generation);
    p->conf = &generation->conf->proxies[index];
    p->loop = opts->loop;
    p->group = opts->group;
    p->process = opts->process;
    p->shared = generation->proxies[index].shared;
    p->worker = opts->worker;
    ev_timer_init(&p->relisten, on_relisten, 0., 0.);
    p->host = (struct session_host){
        .conf = p->conf,
        .process = opts->process,
        .loop = opts->loop,
        .shared = opts->shared,
        .stats = &p->shared->stats[opts->worker],
        .access_log = opts->access_log,
        .on_ended = on_session_ended,
        .successor = successor,
        .on_moved = on_moved,
    };
    TAILQ_INIT(&p->host.sessions);
    if (init_listeners(p, sockets, n) != 0) {
        int err = errno;
        proxy_free(p);
        errno = err;
        return NULL;
    }
    return p;
}

void
proxy_list_sockets(struct proxy *p, struct listener **by_fd, size_t n)
{
    for (size_t i = 0; i < p->n_listeners; i++) {
        struct listener *l = &p->listeners[i].listener;
        if (l->fd >= 0 && (size_t)l->fd < n)
            by_fd[l->fd] = l;
    }
}

/* What the sockets are, and what they should be: as the proxy that had them before left them, and as its own policy will have them. */
static void
listen_as_due(struct proxy *p)
{
    bool is_due = upstream_is_reachable(p->host.upstream) ||
                  upstream_conf(p->host.upstream)->when_down != WHEN_DOWN_UNLISTEN;

    if (is_due)
        relisten(p);
    else
        unlisten(p);
}

/* Who waits there has come to this address, and not to a proxy of some name. */
static void
take_over(struct proxy *p, struct listener *l, struct listener *old)
{
    ((struct proxy_listener *)((char *)old - offsetof(struct proxy_listener, listener)))->heir = p;
    listener_succeed(l, old, p->conf->backlog, &proxy_accept_events);
}

void
proxy_begin(struct proxy *p, struct upstream *upstream, struct listener *const *by_fd)
{
    for (size_t i = 0; i < p->n_listeners; i++) {
        struct listener *l = &p->listeners[i].listener;
        if (p->listeners[i].is_old)
            take_over(p, l, by_fd[l->fd]);
        else
            listener_start(l, p->loop, l->fd, p->conf->backlog, &proxy_accept_events);
        p->listeners[i].is_old = false;
    }
    p->host.upstream = upstream;
    upstream_watch(upstream, &p->watch, on_reachable);
    p->is_watching = true;
    listen_as_due(p);
}

void
proxy_set_access_log(struct proxy *p, int access_log)
{
    p->host.access_log = access_log;
}

static void
stop_waiting_for_room(struct proxy *p)
{
    if (p->is_paused)
        TAILQ_REMOVE(&p->group->paused, p, paused_link);
    p->is_paused = false;
}

void
proxy_stop_accepting(struct proxy *p)
{
    p->is_stopped = true;
    ev_timer_stop(p->loop, &p->relisten);
    for (size_t i = 0; i < p->n_listeners; i++) {
        struct listener *l = &p->listeners[i].listener;
        if (l->fd < 0)
            continue;
        if (!l->paused)
            listener_drain_backlog(l);
        listener_stop(l);
    }
}

void
proxy_retire(struct proxy *p, struct proxy *by_name)
{
    if (p->is_retired)
        return;
    p->is_retired = true;
    p->by_name = by_name;
    for (size_t i = 0; i < p->n_listeners; i++) {
        if (!p->listeners[i].heir)
            p->listeners[i].heir = by_name;
    }
    proxy_stop_accepting(p);
    stop_waiting_for_room(p);
}

void
proxy_follow(struct proxy *p)
{
    for (size_t i = 0; i < p->n_listeners; i++) {
        struct proxy_listener *l = &p->listeners[i];
        while (l->heir && l->heir->is_retired) {
            struct proxy *next = heir_of(l->heir, l->addr);
            l->heir = next ? next : l->heir->by_name;
        }
    }
}

struct session_host *
proxy_host(struct proxy *p)
{
    return &p->host;
}

struct generation *
proxy_generation(const struct proxy *p)
{
    return p->generation;
}

bool
proxy_is_idle(const struct proxy *p)
{
    return TAILQ_EMPTY(&p->host.sessions);
}

void
proxy_cut(struct proxy *p)
{
    session_abort_all(&p->host, SESSION_DRAIN);
}

void
proxy_free(struct proxy *p)
{
    if (!p)
        return;
    ev_timer_stop(p->loop, &p->relisten);
    stop_waiting_for_room(p);
    if (p->is_watching)
        upstream_unwatch(p->host.upstream, &p->watch);
    for (size_t i = 0; i < p->n_listeners; i++)
        listener_fini(&p->listeners[i].listener);
    generation_put(p->generation);
    free(p->listeners);
    free(p);
}
