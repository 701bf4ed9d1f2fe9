/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_WORKER_H
#define REDIAL_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct generation;
struct process;
struct process_server;
struct proxy_socket;
struct session_census;
struct worker;
struct worker_set;

/*
 * A thread with a loop, and everything that lives on it: its part in every proxy and upstream, and its sessions. It shares with other threads the
 * configuration, which nobody changes, the process's limits and states (process.h), and mailboxes.
 */

/* Directions of sessions that may have bytes in a pipe at one time; more of them copy. Two descriptors each. */
#define WORKER_PIPES_MAX 32

/* What it tells the thread that made it. */
enum worker_news {
    WORKER_QUIET = 1,    /* it has closed the listening sockets */
    WORKER_EMPTY = 2,    /* and its last session has ended: it may be stopped */
    WORKER_ALIVE = 4,    /* its loop has turned since worker_ask_alive() */
    WORKER_LISTED = 16,  /* worker_take_census() has what worker_list() asked for */
    WORKER_RELOADED = 8, /* it has begun with the set of worker_reload() */
};

struct worker_opts {
    unsigned index; /* which of the process's it is */
    bool splice;
    struct process *process;    /* borrowed */
    void (*on_news)(void *arg); /* called on the worker's thread: ask worker_news() on your own */
    void *arg;
};

/** worker_new(opts): returns a new worker, not running yet, for worker_free(); or NULL with errno set. */
struct worker *worker_new(const struct worker_opts *opts) __attribute__((warn_unused_result));

/* The sockets of one proxy for one worker. */
struct worker_sockets {
    const struct proxy_socket *sockets;
    size_t n;
};

/**
 * worker_set_new(worker, generation, sockets):
 * All that ${worker} needs to serve ${generation}, to which it has references; ${sockets} are those of each proxy, in the order of the configuration, borrowed for the call.
 * Nothing of what the worker serves now is changed. From the thread that made the worker.
 *
 * Returns a new set for worker_start(), worker_reload() or worker_set_free(), or NULL with errno set.
 */
struct worker_set *worker_set_new(struct worker *worker, struct generation *generation,
                                  const struct worker_sockets *sockets)
    __attribute__((warn_unused_result));

/** worker_set_free(set): one that nobody has taken; its sockets stay as they are. NULL is fine. */
void worker_set_free(struct worker_set *set);

/**
 * worker_start(worker, set):
 * Run it on a thread of its own, all signals blocked there, once every worker of the process was made, and serve ${set}, which is taken. From then on the listening sockets are the
 * worker's: closed by another thread, they could be somebody else's while its loop still knows them. Returns 0, or -1 with errno set.
 */
int worker_start(struct worker *worker, struct worker_set *set) __attribute__((warn_unused_result));

/**
 * worker_reload(worker, set):
 * Go over to ${set}, which is taken: WORKER_RELOADED is no news any more, but will be when that is done. What the generation before has and this one has not ends with its
 * last session; sockets that are not in ${set} are closed. One at a time, and not after worker_drain(). From the thread that made it.
 */
void worker_reload(struct worker *worker, struct worker_set *set);

/** worker_drain(worker), worker_cut(worker): accept no more and let the sessions end; end them at once. From any thread. */
void worker_drain(struct worker *worker);
void worker_cut(struct worker *worker);

/** worker_list(worker): have it list its sessions, a few in a turn of its loop: WORKER_LISTED is no news any more, but will be. One at a time. */
void worker_list(struct worker *worker);

/** worker_take_census(worker): what it has listed, for session_census_free(); NULL when there was no memory. From the thread that made it, once it is news. */
struct session_census *worker_take_census(struct worker *worker);

/**
 * worker_abort_at(worker, server): end its sessions at ${server}, of which it takes a reference, at once. From the thread that made it. Returns 0, or -1 with errno ENOMEM.
 */
int worker_abort_at(struct worker *worker, struct process_server *server)
    __attribute__((warn_unused_result));

/**
 * worker_ask_alive(worker): WORKER_ALIVE is no news any more, but will be when the worker's loop turns. Who was asked and has not answered yet owes that one answer to all who
 * want to know. worker_still_ms(worker): for how long it has owed an answer; 0: it owes none. worker_is_alive(worker, ms): has it answered what it was asked within
 * the last ${ms}? All from the thread that made it.
 */
void worker_ask_alive(struct worker *worker);
uint64_t worker_still_ms(const struct worker *worker);
bool worker_is_alive(const struct worker *worker, uint64_t ms);

/** worker_news(worker): the set of WORKER_... so far. From any thread. */
unsigned worker_news(struct worker *worker);

/** worker_stop(worker): cut its sessions, end its thread and wait for it; NULL is fine. Every worker of the process is stopped before the first is freed. */
void worker_stop(struct worker *worker);

/** worker_free(worker): free everything; NULL is fine. */
void worker_free(struct worker *worker);

#endif
