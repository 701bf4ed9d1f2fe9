/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DAEMON_INTERNAL_H
#define REDIAL_DAEMON_INTERNAL_H

#include "daemon.h"
#include "manager.h"
#include "portrange.h"

#include <ev.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * What the parts of daemon share.
 *
 *   daemon        from the start to the end: limits, privileges, signals, workers
 *   daemon_bind   the listening sockets
 */

struct binding;
struct conf;
struct process;
struct worker;

enum daemon_phase {
    DAEMON_SERVING,
    DAEMON_LAME, /* a signal has come: clients are accepted for lame_duck */
    DAEMON_DRAINING,
    DAEMON_CUTTING, /* the sessions that are left */
};

struct daemon {
    const struct conf *conf;
    struct portrange range;
    struct binding *bindings;
    size_t n_bindings;
    unsigned n_workers;
    int *fds; /* of all workers: n_bindings of the first, then of the second, ... */
    struct process *process;
    struct worker **workers;
    struct ev_loop *loop;
    ev_async news;
    ev_signal sigterm, sigint, sighup, sigusr2;
    ev_timer deadline; /* of the phase */
    ev_timer progress;
    enum daemon_phase phase;
    struct manager manager;
    unsigned n_cut; /* sessions that the deadline, or a second signal, ended */
};

/** daemon_signal_set(set): the signals that the main loop hears. */
void daemon_signal_set(sigset_t *set);

/** daemon_start_failed(status, what): say that the step ${what} failed, and errno. Returns ${status}. */
int daemon_start_failed(int status, const char *what);

/** daemon_bind_all(d): make the bindings of every proxy. Returns an exit status, the reason told; or -1 when a signal asked for the end meanwhile. */
int daemon_bind_all(struct daemon *d);

/** daemon_open_worker_sockets(d): one set of sockets for each worker. Returns 0, or -1 with errno set. */
int daemon_open_worker_sockets(struct daemon *d);

/** daemon_close_bindings(d): once and for all. */
void daemon_close_bindings(struct daemon *d);

#endif
