/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_UPSTREAM_INTERNAL_H
#define REDIAL_UPSTREAM_INTERNAL_H

#include "upstream.h"

#include <ev.h>

/* What upstream.c (servers, picking, news) and upstream_claim.c (claims, the line) share. */

struct limit;

TAILQ_HEAD(line, claim);

struct upstream {
    const struct conf_upstream *conf;
    const struct upstream_env *env;
    struct ev_loop *loop;
    struct edge_set *edges;
    struct limit *waiting; /* of the process */
    struct server *servers;
    struct line line; /* by number */
    unsigned n_line;
    uint64_t next_number;
    bool reachable; /* some server is not down */
    ev_timer shortage;
    TAILQ_HEAD(, upstream_watch) watches;
};

/** upstream_pick(u, for_line): the server that gets the next client, NULL when none can now. For a client out of the line pacing counts as well. */
struct server *upstream_pick(struct upstream *u, bool for_line);

/** upstream_is_reachable(u): is some server not down? */
bool upstream_is_reachable(const struct upstream *u);

/** upstream_hurry(u): somebody has begun to wait: tell the probers that live here. */
void upstream_hurry(struct upstream *u);

/** upstream_serve_line(u): dial for those in line, as far as servers have room. */
void upstream_serve_line(struct upstream *u);

/** upstream_refuse_line(u): end all waiting with CLAIM_NO_SERVER. */
void upstream_refuse_line(struct upstream *u);

/** upstream_offer(u, server, fd): give ${fd}, connected to ${server} and taken, to the first in line, or close it. */
void upstream_offer(struct upstream *u, struct server *server, int fd);

/** upstream_on_shortage_over(loop, timer, revents): the callback of ${u->shortage}. */
void upstream_on_shortage_over(struct ev_loop *loop, ev_timer *timer, int revents);

#endif
