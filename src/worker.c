/* SPDX-License-Identifier: MIT */
#include "worker.h"

#include "conf.h"
#include "edge.h"
#include "mailbox.h"
#include "pipepool.h"
#include "process.h"
#include "proxy.h"
#include "relay.h"
#include "resolver.h"
#include "session.h"
#include "upstream.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* What the main thread asks of it: flags of the mailbox beside WAKE_... */
enum { ASK_DRAIN = 0x100, ASK_CUT = 0x200, ASK_STOP = 0x400, ASK_ALIVE = 0x800 };

struct worker {
    struct worker_opts opts;
    struct ev_loop *loop;
    struct mailbox *mailbox;
    atomic_uint news; /* WORKER_... */
    pthread_t thread;
    bool is_running, is_draining;
    struct relay_shared shared;
    struct proxy_group group;
    struct upstream_env env;
    struct resolver *resolver;
    struct upstream **upstreams;
    struct proxy **proxies;
};

static void
tell(struct worker *w, enum worker_news news)
{
    atomic_fetch_or(&w->news, news);
    w->opts.on_news(w->opts.arg);
}

static void
on_empty(struct proxy_group *group)
{
    struct worker *w = (struct worker *)((char *)group - offsetof(struct worker, group));

    if (w->is_draining)
        tell(w, WORKER_EMPTY);
}

static void
drain(struct worker *w)
{
    if (w->is_draining)
        return;
    for (size_t i = 0; i < w->opts.conf->n_proxies; i++)
        proxy_stop_accepting(w->proxies[i]);
    for (size_t i = 0; i < w->opts.conf->n_upstreams; i++)
        upstream_drain(w->upstreams[i]);
    w->is_draining = true;
    tell(w, WORKER_QUIET);
    if (w->group.sessions == 0)
        tell(w, WORKER_EMPTY);
}

static void
on_flags(void *arg, unsigned flags)
{
    struct worker *w = arg;

    if (flags & ASK_ALIVE)
        tell(w, WORKER_ALIVE);
    if (flags & (ASK_DRAIN | ASK_CUT))
        drain(w);
    if (flags & ASK_CUT) {
        for (size_t i = 0; i < w->opts.conf->n_proxies; i++)
            proxy_cut(w->proxies[i]);
    }
    if (flags & ASK_STOP) {
        ev_break(w->loop, EVBREAK_ALL);
        return;
    }
    if (flags & WAKE_PLACES)
        proxy_resume_paused(&w->group);
    for (size_t i = 0; i < w->opts.conf->n_upstreams; i++)
        upstream_on_wake(w->upstreams[i], flags);
}

void
worker_drain(struct worker *w)
{
    mailbox_raise(w->mailbox, ASK_DRAIN);
}

void
worker_cut(struct worker *w)
{
    mailbox_raise(w->mailbox, ASK_CUT);
}

void
worker_ask_alive(struct worker *w)
{
    atomic_fetch_and(&w->news, ~(unsigned)WORKER_ALIVE);
    mailbox_raise(w->mailbox, ASK_ALIVE);
}

unsigned
worker_news(struct worker *w)
{
    return atomic_load(&w->news);
}

static int
make_upstreams(struct worker *w)
{
    const struct conf *conf = w->opts.conf;
    size_t first = 0;

    w->env = (struct upstream_env){
        .loop = w->loop,
        .edges = w->shared.edges,
        .resolver = w->resolver,
        .range = w->opts.range,
        .process = w->opts.process,
        .worker = w->opts.index,
    };
    w->upstreams = calloc(conf->n_upstreams + 1, sizeof(struct upstream *));
    if (!w->upstreams)
        return -1;
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        w->upstreams[i] = upstream_new(conf->upstreams[i], i, first, &w->env);
        if (!w->upstreams[i])
            return -1;
        first += conf->upstreams[i]->n_servers;
    }
    return 0;
}

static int
make_proxies(struct worker *w)
{
    const struct conf *conf = w->opts.conf;
    const int *fds = w->opts.fds;
    const struct proxy_opts opts = {
        .loop = w->loop,
        .shared = &w->shared,
        .group = &w->group,
        .process = w->opts.process,
        .worker = w->opts.index,
        .access_log = conf->daemon.access_log,
    };

    w->proxies = calloc(conf->n_proxies + 1, sizeof(struct proxy *));
    if (!w->proxies)
        return -1;
    for (size_t i = 0; i < conf->n_proxies; i++) {
        const struct conf_proxy *proxy = &conf->proxies[i];
        w->proxies[i] = proxy_new(proxy, i, w->upstreams[proxy->upstream->index], fds, &opts);
        if (!w->proxies[i])
            return -1;
        fds += proxy->n_listens;
    }
    return 0;
}

struct worker *
worker_new(const struct worker_opts *opts)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->opts = *opts;
    w->group.on_empty = on_empty;
    TAILQ_INIT(&w->group.paused);
    w->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    w->shared.buffer = malloc(RELAY_BUFFER_SIZE);
    if (!w->loop || !w->shared.buffer)
        goto fail;
    w->mailbox = mailbox_new(w->loop, on_flags, w);
    if (!w->mailbox)
        goto fail;
    opts->process->mailboxes[opts->index] = w->mailbox;
    w->resolver = resolver_new(w->loop);
    if (!w->resolver)
        goto fail;
    w->shared.edges = edge_set_new(w->loop);
    if (opts->conf->daemon.splice != SPLICE_OFF) {
        w->shared.pipes = pipepool_new(w->loop, WORKER_PIPES_MAX);
        if (!w->shared.pipes)
            goto fail;
    }
    if (!w->shared.edges || make_upstreams(w) != 0 || make_proxies(w) != 0)
        goto fail;
    return w;

    int err;
fail:
    err = errno;
    worker_free(w);
    errno = err;
    return NULL;
}

static void *
run(void *arg)
{
    struct worker *w = arg;
    char name[16];

    snprintf(name, sizeof(name), "worker %u", w->opts.index);
    pthread_setname_np(pthread_self(), name);
    for (size_t i = 0; i < w->opts.conf->n_upstreams; i++)
        upstream_begin(w->upstreams[i]);
    for (size_t i = 0; i < w->opts.conf->n_proxies; i++)
        proxy_begin(w->proxies[i]);
    ev_run(w->loop, 0);
    return NULL;
}

int
worker_start(struct worker *w)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->is_running = err == 0;
    errno = err;
    return err == 0 ? 0 : -1;
}

void
worker_stop(struct worker *w)
{
    if (!w || !w->is_running)
        return;
    mailbox_raise(w->mailbox, ASK_CUT | ASK_STOP);
    pthread_join(w->thread, NULL);
    w->is_running = false;
}

void
worker_free(struct worker *w)
{
    if (!w)
        return;
    for (size_t i = 0; w->proxies && w->proxies[i]; i++)
        proxy_free(w->proxies[i]);
    for (size_t i = 0; w->upstreams && w->upstreams[i]; i++)
        upstream_free(w->upstreams[i]);
    resolver_free(w->resolver);
    edge_set_free(w->shared.edges);
    pipepool_free(w->shared.pipes);
    mailbox_free(w->mailbox);
    if (w->loop)
        ev_loop_destroy(w->loop);
    free(w->proxies);
    free(w->upstreams);
    free(w->shared.buffer);
    free(w);
}
