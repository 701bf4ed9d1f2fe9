/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_WALK_H
#define REDIAL_WALK_H

#include "dialer.h"

struct addrlist;
struct conf_server;
struct conf_upstream;
struct endpoint;
struct stats_server;

/*
 * A dial of a server: its addresses in turn until one accepts. What time is left is shared out among the addresses that are left, so that a dead one does not
 * use up all of it.
 */
struct walk_opts {
    const struct conf_server *server;     /* borrowed */
    const struct conf_upstream *upstream; /* borrowed; for the log */
    struct addrlist *addrs;               /* NULL: its name has no address yet */
    const struct dial_opts *dial;         /* borrowed; timeout_ms is for all of it, refuse_if_local
                                             is decided for each address */
    struct stats_server *stats;           /* borrowed: this worker's */
};

/* One that is under way, in its owner's memory: but for is_active, which is false in one that is all zeros, it is the walk's alone. */
struct walk {
    bool is_active;
    bool is_dialling;
    struct walk_opts opts; /* with a reference to the list */
    struct endpoint *endpoint;
    struct dial_opts dial_opts; /* of this attempt */
    struct dial dial;
    ev_timer nowhere; /* never started: fed when there is no address */
    double began;     /* monotonic_s() */
    double deadline;  /* of several addresses, monotonic_s() */
    unsigned next;
    enum dial_result result; /* of the first address */
    int err;
    void (*done)(void *arg, int fd, enum dial_result result, int err);
    void *arg;
};

/**
 * walk_start(walk, opts, endpoint, done, arg):
 * Dial; ${walk} must not be active, and is until ${done} runs or walk_cancel(). ${opts} itself is copied, and holds a reference to the list. Borrows ${endpoint}, and calls ${done}, as dialer_start() does; when every address has failed, with the failure of
 * the first one, which is the preferred; without addresses with DIAL_UNRESOLVED.
 */
void walk_start(struct walk *walk, const struct walk_opts *opts, struct endpoint *endpoint,
                void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg);

/** walk_cancel(walk): end it without a callback; nothing happens when it is not active. */
void walk_cancel(struct walk *walk);

#endif
