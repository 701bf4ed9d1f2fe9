/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_UPSTREAM_INTERNAL_H
#define REDIAL_UPSTREAM_INTERNAL_H

#include "upstream.h"

#include <ev.h>

/* What upstream.c (servers, picking, news) and upstream_claim.c (claims, the line) share. */

struct balance_candidate;
struct limit;

TAILQ_HEAD(line, claim);

struct upstream {
    struct generation *generation; /* a reference */
    const struct generation_upstream *plan;
    const struct conf_upstream *conf;
    const struct upstream_env *env;
    struct ev_loop *loop;
    struct edge_set *edges;
    struct limit *waiting; /* of the process */
    struct server *servers;
    struct balance_candidate *candidates; /* for one pick: primaries, then backups */
    struct line line;                     /* by number */
    unsigned n_line;
    uint64_t next_number;
    bool reachable; /* some server is not down */
    bool is_retired;
    unsigned n_users; /* claims, and sessions that have a place at a server */
    ev_timer shortage;
    TAILQ_HEAD(, upstream_watch) watches;
};

/**
 * upstream_pick(u, key, for_line):
 * The server that gets the next client, whose key is ${key} (balance_key()); NULL when none can now, for this or any client. For a client out of the line pacing
 * counts as well. With source_hash it may be one for which the client must wait: ask upstream_must_wait().
 */
struct server *upstream_pick(struct upstream *u, uint64_t key, bool for_line);

/** upstream_must_wait(server, for_line): ${server} was picked: may it not be dialled just now? */
bool upstream_must_wait(const struct server *server, bool for_line);

/** upstream_wake_others(u): a place at a server of ${u} is free: wake the other workers, and, should ${u} be retired, its successor, which may be on this one. */
void upstream_wake_others(const struct upstream *u);

/** upstream_hurry(u): somebody has begun to wait: tell the probers that live here. */
void upstream_hurry(struct upstream *u);

/** upstream_serve_line(u): dial for those in line, as far as servers have room. */
void upstream_serve_line(struct upstream *u);

/** upstream_serve_line_anew(u): the same, when servers have changed: who waits for one may find another. */
void upstream_serve_line_anew(struct upstream *u);

/** upstream_look_for_loops(u): ask those in line, and end their waiting with CLAIM_LOOP. */
void upstream_look_for_loops(struct upstream *u);

/** upstream_refuse_line(u, why): end all waiting so. */
void upstream_refuse_line(struct upstream *u, enum claim_result why);

/**
 * upstream_offer(u, server, fd, endpoint):
 * Give ${fd}, connected to ${server}, to the first in line. ${endpoint} is the connection's, and is moved. Returns false when that cannot be: then both are still
 * the caller's.
 */
bool upstream_offer(struct upstream *u, struct server *server, int fd, struct endpoint *endpoint);

/** upstream_on_shortage_over(loop, timer, revents): the callback of ${u->shortage}. */
void upstream_on_shortage_over(struct ev_loop *loop, ev_timer *timer, int revents);

#endif
