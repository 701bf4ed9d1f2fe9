/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_WORKER_H
#define REDIAL_WORKER_H

struct conf;
struct portrange;
struct process;
struct worker;

/*
 * A thread with a loop, and everything that lives on it: its part in every proxy and upstream, and its sessions. It shares with other threads the
 * configuration, which nobody changes, the process's limits and states (process.h), and mailboxes.
 */

/* Directions of sessions that may have bytes in a pipe at one time; more of them copy. Two descriptors each. */
#define WORKER_PIPES_MAX 32

/* What it tells the thread that made it. */
enum worker_news {
    WORKER_QUIET = 1, /* it has closed the listening sockets */
    WORKER_EMPTY = 2, /* and its last session has ended: it may be stopped */
    WORKER_ALIVE = 4, /* its loop has turned since worker_ask_alive() */
};

struct worker_opts {
    unsigned index;          /* which of the process's it is */
    const struct conf *conf; /* borrowed */
    const int *
        fds; /* borrowed by worker_new(); every proxy's listeners, in the order of the configuration */
    const struct portrange *range; /* borrowed */
    struct process *process;       /* borrowed */
    void (*on_news)(void *arg); /* called on the worker's thread: ask worker_news() on your own */
    void *arg;
};

/** worker_new(opts): returns a new worker, not running yet, for worker_free(); or NULL with errno set. */
struct worker *worker_new(const struct worker_opts *opts) __attribute__((warn_unused_result));

/**
 * worker_start(worker):
 * Run it on a thread of its own, all signals blocked there, once every worker of the process was made. From then on the listening sockets are the
 * worker's: closed by another thread, they could be somebody else's while its loop still knows them. Returns 0, or -1 with errno set.
 */
int worker_start(struct worker *worker) __attribute__((warn_unused_result));

/** worker_drain(worker), worker_cut(worker): accept no more and let the sessions end; end them at once. From any thread. */
void worker_drain(struct worker *worker);
void worker_cut(struct worker *worker);

/** worker_ask_alive(worker): WORKER_ALIVE is no news any more, but will be when the worker's loop turns. From the thread that made it. */
void worker_ask_alive(struct worker *worker);

/** worker_news(worker): the set of WORKER_... so far. From any thread. */
unsigned worker_news(struct worker *worker);

/** worker_stop(worker): cut its sessions, end its thread and wait for it; NULL is fine. Every worker of the process is stopped before the first is freed. */
void worker_stop(struct worker *worker);

/** worker_free(worker): free everything; NULL is fine. */
void worker_free(struct worker *worker);

#endif
