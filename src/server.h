/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SERVER_H
#define REDIAL_SERVER_H

#include "balance.h"
#include "dialer.h"
#include "health.h"
#include "log.h"
#include "prober.h"

struct addrlist;
struct conf_server;
struct conf_upstream;
struct mailbox;
struct namewatch;
struct portrange;
struct process;
struct process_server;
struct resolver;
struct standby;
struct stats_server;
struct upstream;
struct walk;

/*
 * One worker's view of a server: dials for its sessions, and what it tells the prober of them. The state is the process's, see prober.h.
 */
struct server {
    const struct conf_server *conf;
    const struct conf_upstream *upstream;
    struct process_server *shared;
    struct stats_server *stats; /* this worker's */
    struct dial_opts dial_opts;
    struct addrlist *addrs;    /* NULL: its name has none yet, or they are not known here */
    unsigned addrs_generation; /* counts the lists that ${addrs} was */
    struct prober *prober;     /* NULL: on another worker */
    struct namewatch *names;   /* beside prober, for a host; else NULL */
    struct process *process;
    unsigned worker; /* which of the process's this is */
    bool doubted;    /* a dial failed here, and the prober has not answered yet: as good as down */
    struct log_limit self_connect_limit;

    /* The upstream's, which is the one that picks. */
    struct upstream *owner;
    void (*on_addrs)(struct server *server); /* its addresses are others now */
    unsigned line_dials;                     /* dials for clients out of the line */
    struct standby *standby;                 /* NULL: none are wanted here */
    struct balance_server balance;
};

/**
 * server_init(server, loop, conf, upstream, range):
 * Borrows all of them; ${server->shared}, ${server->process}, ${server->worker} and what is the upstream's are the caller's to set. Returns 0, or -1 with errno ENOMEM; server_fini() is due
 * in either case.
 */
int server_init(struct server *server, struct ev_loop *loop, const struct conf_server *conf,
                const struct conf_upstream *upstream, const struct portrange *range)
    __attribute__((warn_unused_result));

/** server_own(server, resolver, opts): this worker probes it, and looks its name up; dial, addrs, process, shared and on_failed of ${opts} are filled in here. Returns as server_init(). */
int server_own(struct server *server, struct resolver *resolver, const struct prober_opts *opts)
    __attribute__((warn_unused_result));

/** server_begin(server): from now on it is this worker's view of the server, and is told its addresses. Dial it for the first time, once these are known, if it was made to probe it. */
void server_begin(struct server *server);

/**
 * server_succeed(server, before, resolver, opts):
 * ${before} is the same server in the configuration before, and goes on for the sessions that it has; what probes it and looks its name up goes over to ${server}, as do
 * its addresses and the pace of its log lines. Arguments as for server_own(). ${server} has not begun.
 */
void server_succeed(struct server *server, struct server *before, struct resolver *resolver,
                    const struct prober_opts *opts);

/** server_retire(server): it is of no configuration any more: probe it no longer. Its sessions go on. */
void server_retire(struct server *server);

/** server_fini(server): end its probes and lookups, free what it holds; a zeroed one is fine. */
void server_fini(struct server *server);

/** server_state(server): what is known of it; a moment old. */
enum health_state server_state(const struct server *server);

/** server_is_disabled(server): was it taken out by hand? A moment old. */
bool server_is_disabled(const struct server *server);

/** server_is_untried(server): has its very first dial not ended yet? A moment old. */
bool server_is_untried(const struct server *server);

/**
 * server_dial(server, walk, endpoint, done, arg):
 * Dial it for a client, as walk_start(); the callee of ${done} must hand the result on to server_on_dialled() at once.
 */
void server_dial(struct server *server, struct walk *walk, struct endpoint *endpoint,
                 void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg);

/** server_doubt(server): a dial has failed: hold it for down here until server_on_dialled(), which must follow, has told its prober. */
void server_doubt(struct server *server);

/** server_on_dialled(server, result, err, began): a client's dial, begun at ${began} (monotonic_s()), has ended so. */
void server_on_dialled(struct server *server, enum dial_result result, int err, double began);

/**
 * server_on_life(server, life):
 * So a session's connection has gone, told once it has brought a byte and lived for HEALTH_STABLE_MS, and when the server or the session has ended it.
 */
void server_on_life(struct server *server, const struct server_life *life);

#endif
