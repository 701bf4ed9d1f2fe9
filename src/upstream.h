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
struct generation;
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
    bool wants_new;  /* a connection made for it: one that was made before has failed it */
    bool has_waited; /* in the line of an upstream that was retired: there is always room for it */
    double waited_s; /* since it came: wait_timeout began then */
    /* Asked while it waits: is it a dial of ours that has come in a circle? */
    bool (*is_loop)(void *arg);
    /* Asked before it gets a connection that was made before it came: may it be a dial of ours all the same? Then it has one made for it. */
    bool (*may_be_ours)(void *arg);
};

enum claim_result {
    CLAIM_SERVED,
    CLAIM_CLIENT_RESET,  /* the client was reset while it waited */
    CLAIM_CLIENT_CLOSED, /* the client went, and had sent nothing (UNIX: TCP cannot tell) */
    CLAIM_TIMEOUT,       /* wait_timeout */
    CLAIM_NO_SERVER,     /* every server is down, and when_down says not to wait */
    CLAIM_QUEUE_FULL,    /* max_waiting */
    CLAIM_LOOP,          /* is_loop() says so */
    CLAIM_RETIRED,       /* this upstream is of no configuration any more, and has no line */
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
 * upstream_new(generation, index, env):
 * One worker's part in the ${index}-th upstream of ${generation}, to which it has a reference. Borrows ${env}. It touches nothing that lives on a loop: it may be
 * made on another thread. Returns a new upstream that dials nothing yet, for upstream_free(); or NULL with errno set.
 */
struct upstream *upstream_new(struct generation *generation, size_t index,
                              const struct upstream_env *env) __attribute__((warn_unused_result));

/** upstream_free(upstream): every claim and session must have ended; NULL is fine. */
void upstream_free(struct upstream *upstream);

/** upstream_begin(upstream): dial for the first time each server that this worker probes, and has not yet. */
void upstream_begin(struct upstream *upstream);

/** upstream_succeed(upstream, before): ${before} is its like in the generation before: take over what is known of the servers that both have. Before upstream_begin(). */
void upstream_succeed(struct upstream *upstream, struct upstream *before);

/**
 * upstream_retire(upstream):
 * It is of no configuration any more: no standby connections, no probes; those in line get CLAIM_RETIRED, and so do those whose dials fail. Sessions go on, and dials.
 */
void upstream_retire(struct upstream *upstream);

/** upstream_is_idle(upstream): has it no claim, no session at a server of it, and nobody who watches it? */
bool upstream_is_idle(const struct upstream *upstream);

/** upstream_is_reachable(upstream): is some server not down? */
bool upstream_is_reachable(const struct upstream *upstream);

/** upstream_id(upstream): for trail_extend(). */
uint32_t upstream_id(const struct upstream *upstream);

/** upstream_name_of(upstream, id): the name of the one with ${id}, in the generation of ${upstream}; NULL when there is none. */
const char *upstream_name_of(const struct upstream *upstream, uint32_t id);

/** upstream_drain(upstream): no new clients will come: let the standby connections go. */
void upstream_drain(struct upstream *upstream);

/** upstream_watch(upstream, watch, on_reachable): borrows ${watch} until the upstream is freed. */
void upstream_watch(struct upstream *upstream, struct upstream_watch *watch,
                    void (*on_reachable)(struct upstream_watch *watch, bool reachable));

/** upstream_unwatch(upstream, watch): undo that. */
void upstream_unwatch(struct upstream *upstream, struct upstream_watch *watch);

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
