/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_STANDBY_H
#define REDIAL_STANDBY_H

#include "edge.h"
#include "endpoints.h"

#include <stdbool.h>
#include <stdint.h>

struct limit;
struct server;
struct standby;

/*
 * Connections to one server that no client has yet, dialled ahead by one worker. The next client is served at once, and the end of such a connection
 * is heard the moment it comes: then the server is dialled again, which shows whether it is down.
 *
 * So many are kept as are wanted, while the server is up and has places for more sessions (max_sessions), and the process has descriptors for them. They are dialled one at a time, under a backoff of their
 * own, which begins when one does not live for a second.
 *
 * Where the number is `auto', a server that speaks first, or that hangs up on idle connections three times running, gets no more of them.
 */
struct standby_opts {
    struct edge_set *edges;      /* borrowed */
    struct endpoints *endpoints; /* borrowed */
    struct limit *places;        /* of the process, for all of its standby connections; borrowed */
    uint32_t upstream;           /* its index */
    unsigned wanted;             /* > 0 */
    bool learns;                 /* standby = auto */
    /* ${fd} was dialled for it and is the callee's, who may give it to a client that waits, or to standby_put(), and moves or takes out its ${endpoint}. */
    void (*on_connected)(struct server *server, int fd, struct endpoint *endpoint);
};

/* One of them, taken out. */
struct standby_conn {
    TAILQ_ENTRY(standby_conn) link;
    struct standby *standby; /* NULL: taken */
    struct edge_set *edges;
    struct endpoints *endpoints;
    struct endpoint endpoint;
    struct edge edge;  /* watches for RELAY_EVENTS; edge.fd is the socket */
    uint32_t events;   /* what it was told so far */
    bool is_over;      /* the server has ended it */
    bool is_settled;   /* it has lived for HEALTH_STABLE_MS */
    bool has_survived; /* it has lived for HEALTH_HANGUP_MS */
    double since;      /* monotonic_s() */
    double trial;      /* it is replaced at that age, in seconds; 0: not for that */
};

/** standby_new(server, opts): borrows ${server}; dials nothing yet. Returns a new one for standby_free(), or NULL with errno ENOMEM. */
struct standby *standby_new(struct server *server, const struct standby_opts *opts)
    __attribute__((warn_unused_result));

/* Where nothing is wanted there is none: all of these take NULL for ${standby}. */

/** standby_free(standby): let all go. */
void standby_free(struct standby *standby);

/** standby_succeed(standby, before): ${before} is of the same server in another configuration: take over its connections, as far as they are wanted and would be made so today, but not what it has learned. */
void standby_succeed(struct standby *standby, struct standby *before);

/** standby_fill(standby): the server is up, or has a place: dial what is missing, in a later turn of the loop. */
void standby_fill(struct standby *standby);

/** standby_drop(standby): the server is down: let all go, with a FIN, and dial none. */
void standby_drop(struct standby *standby);

/** standby_check_addrs(standby): the server's addresses have changed: let go those to one that it has no more. */
void standby_check_addrs(struct standby *standby);

/** standby_put(standby, fd, endpoint): keep ${fd}, a connection that was just made, and move its ${endpoint}. Returns false when it is not wanted: then both are still the caller's. */
bool standby_put(struct standby *standby, int fd, struct endpoint *endpoint);

/** standby_take(standby): the youngest, whose edge and endpoint the caller moves elsewhere, and which it frees by standby_conn_free(); NULL: there is none. Another is dialled later. */
struct standby_conn *standby_take(struct standby *standby);

/** standby_make_room(standby): a client is about to have a connection dialled for the place that it has taken: let the oldest go that are too many now for max_sessions. */
void standby_make_room(struct standby *standby);

/** standby_conn_free(conn): free one that was taken; closes its socket, unless the edge has moved. NULL is fine. */
void standby_conn_free(struct standby_conn *conn);

#endif
