/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROCESS_H
#define REDIAL_PROCESS_H

#include "limit.h"

#include <stdatomic.h>
#include <stddef.h>

struct conf;
struct endpoints;
struct mailbox;
struct prober;
struct server;

/*
 * What belongs to the process rather than to one worker: limits, what is known of each server, and the connections that were dialled. Workers read and change it without
 * locks, but for the short ones of the latter, and wake one another when there is news.
 */

/* What a worker is woken for; a set of bits. */
enum process_wake {
    WAKE_SERVERS = 1, /* the state of some server has changed */
    WAKE_PLACES = 2,  /* a place is free where there was none */
    WAKE_WAITING = 4, /* a client waits */
    WAKE_PROBE = 8,   /* a probe is held that may be among those who wait */
};

struct process_server {
    /* enum health_state, with PROCESS_TAINTED while the owner's health counts failures. Written by the owner alone. */
    atomic_uint state;
    struct limit sessions; /* it has, dials included, and max_sessions */
    struct prober *owner;  /* lives on one worker; set before the workers run, as is its mailbox */
    struct mailbox *owner_mailbox;
    struct server **views; /* by worker, where each lives; set before the workers run */
};
#define PROCESS_TAINTED 0x100U

struct process_upstream {
    const char *name;     /* the configuration's */
    struct limit waiting; /* max_waiting */
    struct process_server *servers;
    struct server **views; /* theirs */
    size_t n_servers;
};

struct process_proxy {
    struct limit sessions; /* max_sessions */
    atomic_uint_fast64_t
        next_told; /* when the log may be told again that it is full, monotonic_ms() */
};

/* How many the descriptors are enough for; > 0. */
struct process_most {
    unsigned sessions;
    unsigned standby;
};

struct process {
    struct limit sessions;              /* of all proxies: descriptors are the limit */
    struct limit standby;               /* connections that no client has: likewise */
    struct process_proxy *proxies;      /* in the order of the configuration */
    struct process_upstream *upstreams; /* in the order of the configuration */
    struct endpoints *endpoints;        /* of the connections that were dialled */
    struct mailbox **mailboxes;         /* by worker; set before the workers run */
    unsigned n_workers;
    size_t n_upstreams;
};

/** process_new(conf, n_workers, most): for at most ${most} sessions and standby connections; returns a new one for process_free(), or NULL with errno ENOMEM. */
struct process *process_new(const struct conf *conf, unsigned n_workers,
                            const struct process_most *most) __attribute__((warn_unused_result));

/** process_free(process): after the workers; NULL is fine. */
void process_free(struct process *process);

/* What goes on, in figures. */
struct process_figures {
    unsigned sessions; /* with those that wait */
    unsigned waiting;
    size_t servers, servers_up;
};

/** process_figures(process): those of this moment. Any thread. */
struct process_figures process_figures(const struct process *process);

/** process_wake(process, wake, but): wake every worker but ${but} (n_workers or more: all) for the set ${wake}. Any thread. */
void process_wake(struct process *process, unsigned wake, unsigned but);

#endif
