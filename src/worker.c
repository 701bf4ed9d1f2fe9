/* SPDX-License-Identifier: MIT */
#include "worker_internal.h"

#include "edge.h"
#include "mailbox.h"
#include "monotonic.h"
#include "pipepool.h"
#include "process.h"
#include "proxy.h"
#include "resolver.h"
#include "session.h"
#include "upstream.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* What the main thread, or it itself, asks of it: flags of the mailbox beside WAKE_... */
enum {
    ASK_DRAIN = 0x100,
    ASK_CUT = 0x200,
    ASK_STOP = 0x400,
    ASK_ALIVE = 0x800,
    ASK_RELOAD = 0x1000,
    ASK_LIST = 0x4000,
    ASK_LIST_MORE = 0x8000,
    ASK_FREE = 0x2000, /* what was retired, and has no session any more */
};

void
worker_tell(struct worker *w, enum worker_news news)
{
    atomic_fetch_or(&w->news, news);
    w->opts.on_news(w->opts.arg);
}

static struct worker *
of_group(struct proxy_group *group)
{
    return (struct worker *)((char *)group - offsetof(struct worker, group));
}

static void
on_empty(struct proxy_group *group)
{
    struct worker *w = of_group(group);

    if (w->is_draining)
        worker_tell(w, WORKER_EMPTY);
}

/* Not now: it is a callback from what would be freed. */
static void
on_idle(struct proxy_group *group)
{
    mailbox_raise(of_group(group)->mailbox, ASK_FREE);
}

static void
drain(struct worker *w)
{
    if (w->is_draining)
        return;
    worker_set_drain(w->set);
    w->is_draining = true;
    worker_tell(w, WORKER_QUIET);
    if (w->group.sessions == 0)
        worker_tell(w, WORKER_EMPTY);
}

static void
reload(struct worker *w)
{
    struct worker_set *set = atomic_exchange(&w->next, NULL);

    if (!set)
        return;
    worker_set_begin(w, set);
    worker_tell(w, WORKER_RELOADED);
}

static void
on_flags(void *arg, unsigned flags)
{
    struct worker *w = arg;

    if (flags & ASK_ALIVE)
        worker_tell(w, WORKER_ALIVE);
    if (flags & ASK_RELOAD)
        reload(w);
    if (flags & ASK_LIST)
        worker_list_begin(w);
    if ((flags & (ASK_LIST | ASK_LIST_MORE)) && worker_list_go_on(w))
        mailbox_raise(w->mailbox, ASK_LIST_MORE);
    if (flags & (ASK_DRAIN | ASK_CUT))
        drain(w);
    if (flags & ASK_CUT)
        worker_set_cut(w);
    if (flags & ASK_STOP) {
        ev_break(w->loop, EVBREAK_ALL);
        return;
    }
    if (flags & WAKE_PLACES)
        proxy_resume_paused(&w->group);
    worker_set_wake(w, flags);
    if (flags & WAKE_PROBE)
        process_on_turn(w->opts.process, w->opts.index);
    if (flags & ASK_FREE)
        worker_set_free_idle(w);
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

static bool
owes_answer(const struct worker *w)
{
    return w->asked_ms > 0 && !(atomic_load(&w->news) & WORKER_ALIVE);
}

void
worker_ask_alive(struct worker *w)
{
    if (owes_answer(w))
        return;
    w->asked_ms = monotonic_ms();
    atomic_fetch_and(&w->news, ~(unsigned)WORKER_ALIVE);
    mailbox_raise(w->mailbox, ASK_ALIVE);
}

uint64_t
worker_still_ms(const struct worker *w)
{
    return owes_answer(w) ? monotonic_ms() - w->asked_ms : 0;
}

bool
worker_is_alive(const struct worker *w, uint64_t ms)
{
    return w->asked_ms > 0 && !owes_answer(w) && monotonic_ms() - w->asked_ms < ms;
}

void
worker_reload(struct worker *w, struct worker_set *set)
{
    atomic_fetch_and(&w->news, ~(unsigned)WORKER_RELOADED);
    atomic_store(&w->next, set);
    mailbox_raise(w->mailbox, ASK_RELOAD);
}

void
worker_list(struct worker *w)
{
    atomic_fetch_and(&w->news, ~(unsigned)WORKER_LISTED);
    mailbox_raise(w->mailbox, ASK_LIST);
}

unsigned
worker_news(struct worker *w)
{
    return atomic_load(&w->news);
}

static int
make_shared(struct worker *w)
{
    /* The kernel's rep movsb from a page into memory that begins 16 bytes into one, as malloc(3)'s does, takes four times as long on some processors (AMD's with FSRM). */
    w->shared.buffer = aligned_alloc(4096, RELAY_BUFFER_SIZE);
    w->resolver = resolver_new(w->loop);
    w->shared.edges = edge_set_new(w->loop);
    if (w->opts.splice) {
        w->shared.pipes = pipepool_new(w->loop, WORKER_PIPES_MAX);
        if (!w->shared.pipes)
            return -1;
    }
    return w->shared.buffer && w->resolver && w->shared.edges ? 0 : -1;
}

struct worker *
worker_new(const struct worker_opts *opts)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->opts = *opts;
    w->group.on_empty = on_empty;
    w->group.on_idle = on_idle;
    TAILQ_INIT(&w->group.paused);
    TAILQ_INIT(&w->retired);
    w->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!w->loop)
        goto fail;
    w->mailbox = mailbox_new(w->loop, on_flags, w);
    if (!w->mailbox)
        goto fail;
    opts->process->mailboxes[opts->index] = w->mailbox;
    if (make_shared(w) != 0)
        goto fail;
    w->env = (struct upstream_env){
        .loop = w->loop,
        .edges = w->shared.edges,
        .resolver = w->resolver,
        .process = opts->process,
        .worker = opts->index,
    };
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
    struct worker_set *first = w->first;
    w->first = NULL;
    worker_set_begin(w, first);
    ev_run(w->loop, 0);
    return NULL;
}

int
worker_start(struct worker *w, struct worker_set *set)
{
    sigset_t all, before;

    w->first = set;
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
    worker_set_free(w->first);
    worker_set_free(atomic_load(&w->next));
    worker_set_free_all(w);
    session_census_free(w->counting);
    session_census_free(atomic_load(&w->census));
    resolver_free(w->resolver);
    edge_set_free(w->shared.edges);
    pipepool_free(w->shared.pipes);
    mailbox_free(w->mailbox);
    if (w->loop)
        ev_loop_destroy(w->loop);
    free(w->shared.buffer);
    free(w);
}
