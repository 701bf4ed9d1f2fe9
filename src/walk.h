/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_WALK_H
#define REDIAL_WALK_H

#include "dialer.h"

struct addrlist;
struct conf_server;
struct conf_upstream;
struct endpoint;
struct stats_server;
struct walk;

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

/**
 * walk_start(opts, endpoint, done, arg):
 * Dial. ${opts} itself is copied, and holds a reference to the list. Borrows ${endpoint}, and calls ${done}, as dialer_start() does; when every address has failed, with the failure of
 * the first one, which is the preferred; without addresses with DIAL_UNRESOLVED.
 *
 * Returns a handle for walk_cancel(), dead once ${done} runs; or NULL with errno ENOMEM.
 */
struct walk *walk_start(const struct walk_opts *opts, struct endpoint *endpoint,
                        void (*done)(void *arg, int fd, enum dial_result result, int err),
                        void *arg) __attribute__((warn_unused_result));

/** walk_cancel(walk): end it without a callback; NULL is fine. */
void walk_cancel(struct walk *walk);

#endif
