/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_WORKER_INTERNAL_H
#define REDIAL_WORKER_INTERNAL_H

#include "proxy.h"
#include "relay.h"
#include "upstream.h"
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

/*
 * What the parts of worker share.
 *
 *   worker      the thread, its loop, and what it is asked and tells
 *   worker_list its sessions, for those who want to see them
 *   worker_set  what it serves: the proxies and upstreams of one generation, and how one follows another
 */

struct ev_loop;
struct listener;
struct mailbox;
struct resolver;

/* One worker's part in a generation. */
struct worker_set {
    TAILQ_ENTRY(worker_set) link;  /* among those retired */
    struct generation *generation; /* a reference */
    /* In the order of the configuration; NULL where the one of the set before is kept. Once this set is retired, those that the next one has not, and that are not freed. */
    struct upstream **upstreams;
    struct proxy **proxies;
    size_t n_upstreams, n_proxies;
    struct listener *
        *by_fd; /* of the set before: the table for proxy_begin(); NULL once it has begun */
    size_t n_fds;
};
TAILQ_HEAD(worker_sets, worker_set);

struct worker {
    struct worker_opts opts;
    struct ev_loop *loop;
    struct mailbox *mailbox;
    atomic_uint news;  /* WORKER_... */
    uint64_t asked_ms; /* when it was last asked whether it is alive, 0: never; of who made it */
    pthread_t thread;
    bool is_running, is_draining;
    struct relay_shared shared;
    struct proxy_group group;
    struct upstream_env env;
    struct resolver *resolver;
    struct worker_set *first;                /* to begin with; NULL: it has */
    struct worker_set *set;                  /* NULL: not begun */
    struct worker_sets retired;              /* that have sessions */
    _Atomic(struct worker_set *) next;       /* to go over to */
    struct session_census *counting;         /* under way; NULL: none is */
    _Atomic(struct session_census *) census; /* the last one, until it is taken */
};

/** worker_tell(w, news): and wake who made it. */
void worker_tell(struct worker *w, enum worker_news news);

/* So many of them in a turn of the loop. */
#define WORKER_ROWS_IN_TURN 256

/** worker_list_begin(w): list the sessions. worker_list_go_on(w): the next few of them; returns whether more are left. */
void worker_list_begin(struct worker *w);
bool worker_list_go_on(struct worker *w);

/** worker_for_each_proxy(w, call, arg): those of sets that were retired, too. */
void worker_for_each_proxy(struct worker *w, void (*call)(struct proxy *proxy, void *arg),
                           void *arg);

/** worker_set_begin(w, set): serve it, after the one before; takes it. */
void worker_set_begin(struct worker *w, struct worker_set *set);

/** worker_set_drain(set): accept no more; no new clients will come. */
void worker_set_drain(struct worker_set *set);

/** worker_set_cut(w): end every session, of those retired, too. */
void worker_set_cut(struct worker *w);

/** worker_set_wake(w, flags): there is news for all upstreams, a set of WAKE_... */
void worker_set_wake(struct worker *w, unsigned flags);

/** worker_set_free_idle(w): free what was retired and has no session any more. worker_set_free_all(w): everything; there are no sessions. */
void worker_set_free_idle(struct worker *w);
void worker_set_free_all(struct worker *w);

#endif
