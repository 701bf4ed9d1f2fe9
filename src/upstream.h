/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_UPSTREAM_H
#define REDIAL_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct addr;
struct claim;
struct conf_upstream;
struct endpoint;
struct ev_loop;
struct edge_set;
struct portrange;
struct process;
struct resolver;
struct server;
struct standby_conn;
struct upstream;

/* All borrowed. */
struct upstream_env {
    struct ev_loop *loop;
    struct edge_set *edges;
    struct resolver *resolver;
    const struct portrange *range;
    struct process *process;
    unsigned worker; /* which of the process's this is */
};

/*
 * The servers behind a proxy, and the line of clients that wait for one.
 *
 * A session claims a connection. A server that is up is picked and dialled; on failure the next one at once; when none is left the
 * client waits in line, first come, first served, and is not read from meanwhile. A server that comes back serves the line, at most
 * UPSTREAM_LINE_DIALS dials at a time. Backup servers are picked only while no other is up.
 *
 * With source_hash a client has a server of its own. One that is full is passed over, as one that is down: its clients may wait for long. One that is merely
 * busy with the line, or whose first dial has not ended, is waited for, since it takes a moment; those behind whose servers are ready go ahead.
 */
#define UPSTREAM_LINE_DIALS 64

/* Who claims. */
struct claim_client {
    int fd;                  /* borrowed, and watched for a hang-up while it waits */
    const struct addr *addr; /* for source_hash */
    /* Borrowed: for the dials, by the client's way and this upstream; in no table. */
    struct endpoint *endpoint;
    bool wants_new; /* a connection made for it: one that was made before has failed it */
    /* Asked while it waits: is it a dial of ours that has come in a circle? */
    bool (*is_loop)(void *arg);
};

enum claim_result {
    CLAIM_SERVED,
    CLAIM_CLIENT_RESET,  /* the client was reset while it waited */
    CLAIM_CLIENT_CLOSED, /* the client went, and had sent nothing (UNIX: TCP cannot tell) */
    CLAIM_TIMEOUT,       /* wait_timeout */
    CLAIM_NO_SERVER,     /* every server is down, and when_down says not to wait */
    CLAIM_QUEUE_FULL,    /* max_waiting */
    CLAIM_LOOP,          /* is_loop() says so */
};

struct claim_answer {
    enum claim_result result;
    struct server *server; /* served: its place there is held until upstream_release() */
    int fd; /* served: connected, non-blocking, the callee's now, as is the client's endpoint; else -1 */
    struct standby_conn *
        standby; /* served: whose edge watches fd, the callee's as well; NULL: fd was made for this client */
    unsigned dials; /* how many were made for this claim */
    double dial_s;  /* how long the last one took, 0 when there was a connection already */
};

/* Whoever wants to know when the last server goes down or the first comes back. */
struct upstream_watch {
    TAILQ_ENTRY(upstream_watch) link;
    void (*on_reachable)(struct upstream_watch *watch, bool reachable);
};

/**
 * upstream_new(conf, index, first, env):
 * One worker's part in the upstream ${conf}, the ${index}-th of the configuration, whose first server is the ${first}-th of all. Every n-th
 * server of all is probed by this worker. Borrows ${conf} and ${env}. Returns a new upstream that dials nothing yet, for upstream_free(); or NULL
 * with errno set.
 */
struct upstream *upstream_new(const struct conf_upstream *conf, size_t index, size_t first,
                              const struct upstream_env *env) __attribute__((warn_unused_result));

/** upstream_free(upstream): every claim and session must have ended; NULL is fine. */
void upstream_free(struct upstream *upstream);

/** upstream_begin(upstream): dial for the first time each server that this worker probes. */
void upstream_begin(struct upstream *upstream);

/** upstream_drain(upstream): no new clients will come: let the standby connections go. */
void upstream_drain(struct upstream *upstream);

/** upstream_watch(upstream, watch, on_reachable): borrows ${watch} until the upstream is freed. */
void upstream_watch(struct upstream *upstream, struct upstream_watch *watch,
                    void (*on_reachable)(struct upstream_watch *watch, bool reachable));

/**
 * upstream_claim(upstream, client, done, arg):
 * Ask for a connection to a server for ${client}, the struct for the call only.
 *
 * Calls ${done}(${arg}, answer) exactly once, later, within wait_timeout. Returns a handle for upstream_claim_cancel(), dead once ${done}
 * runs; or NULL with errno ENOMEM.
 */
struct claim *upstream_claim(struct upstream *upstream, const struct claim_client *client,
                             void (*done)(void *arg, const struct claim_answer *answer), void *arg)
    __attribute__((warn_unused_result));

/** upstream_claim_cancel(claim): no callback follows; NULL is fine. */
void upstream_claim_cancel(struct claim *claim);

/** upstream_release(upstream, server): a session at ${server} has ended: its place is free for who waits. */
void upstream_release(struct upstream *upstream, struct server *server);

/** upstream_on_wake(upstream, wake): another worker, or a prober, has news: a set of WAKE_... */
void upstream_on_wake(struct upstream *upstream, unsigned wake);

/** upstream_conf(upstream): its configuration. */
const struct conf_upstream *upstream_conf(const struct upstream *upstream);

#endif
