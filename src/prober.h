/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROBER_H
#define REDIAL_PROBER_H

#include "dialer.h"

#include <stdbool.h>
#include <stdint.h>

struct addrlist;
struct conf_server;
struct conf_upstream;
struct endpoint;
struct ev_loop;
struct limit;
struct process;
struct process_server;
struct prober;
struct stats_server;

/*
 * What the process knows of one server, and the dials that find out when it is back. One worker has it; the others read what it publishes and tell
 * it how their own connections went. Each change of state is logged once.
 *
 * The address is dialled once at the start. While it is down it is dialled at the pace of the backoff, one dial at a time, whether or not a
 * client waits. Once it is up it is never probed: the dials of sessions tell how it is.
 */
struct prober_opts {
    const struct dial_opts *dial; /* borrowed */
    struct addrlist *addrs;       /* borrowed, until prober_set_addrs(); NULL: none yet */
    const struct limit
        *waiting; /* borrowed: while it is used, no pause is longer than backoff_waiting */
    struct process *process; /* borrowed */
    struct process_server
        *shared;                /* borrowed: where the state is published, and where it is found */
    struct stats_server *stats; /* borrowed: this worker's */
    uint32_t upstream;          /* its index */
    /* A probe has connected: fd is the callee's now, who moves or takes out its endpoint before it returns. */
    void (*on_probed)(void *arg, int fd, struct endpoint *endpoint);
    void (*on_failed)(void *arg); /* a dial has failed that was news */
    void *arg;
};

/* How a session's connection went: what the backoff wants to know of it. */
struct server_life {
    uint64_t lived_ms; /* since it connected */
    bool brought_byte; /* from the server */
    bool hung_up;      /* the server ended it, by FIN or RST, before the client did */
};

/** prober_new(loop, conf, upstream, opts): borrows all but ${opts}; begins no dial. Returns a new prober for prober_free(), or NULL with errno ENOMEM. */
struct prober *prober_new(struct ev_loop *loop, const struct conf_server *conf,
                          const struct conf_upstream *upstream, const struct prober_opts *opts)
    __attribute__((warn_unused_result));

/**
 * prober_set_conf(prober, conf, upstream, opts):
 * Go on for the same server in another configuration, with all that is known of it. Borrows as prober_new(). A probe under way is begun anew.
 */
void prober_set_conf(struct prober *prober, const struct conf_server *conf,
                     const struct conf_upstream *upstream, const struct prober_opts *opts);

/** prober_begin(prober): dial for the first time. */
void prober_begin(struct prober *prober);

/** prober_set_addrs(prober, addrs): the server's addresses are ${addrs} now, borrowed. While it is down they are dialled at once. */
void prober_set_addrs(struct prober *prober, struct addrlist *addrs);

/** prober_free(prober): end its probes; NULL is fine. */
void prober_free(struct prober *prober);

/** prober_on_dialled(prober, result, err, began): a client's dial, begun at ${began} (monotonic_s()), has ended so. */
void prober_on_dialled(struct prober *prober, enum dial_result result, int err, double began);

/** prober_on_life(prober, life): so a session's connection has gone up to now, or up to its end. */
void prober_on_life(struct prober *prober, const struct server_life *life);

/** prober_hurry(prober): somebody has begun to wait. */
void prober_hurry(struct prober *prober);

#endif
