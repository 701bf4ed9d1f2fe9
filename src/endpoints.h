/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ENDPOINTS_H
#define REDIAL_ENDPOINTS_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct addr;
struct endpoints;

/*
 * The ends of all connections that this process has dialled and holds, to know them again when they come in: from one proxy of ours to
 * another, or by a rule that redirects them. Any thread; one short lock in each call.
 *
 * The kernel gives one local port to connections with different destinations, so that a client on this host may well have the address and port of one of our
 * own. Only both ends together tell them apart.
 */

/*
 * The way that a client has come: which upstreams have dialled. A way leads in a circle once it comes back to an upstream that is on it. Not all are kept:
 * those in a circle are met over and over, so that the mark, set at every power of two (as in Brent's search for cycles), is met as well.
 */
struct trail {
    uint32_t first, mark, last; /* by index, see trail_extend() */
    uint16_t
        hops; /* dials of ours so far; 0: the client is not ours, and the others mean nothing */
};

/** trail_extend(trail, upstream): the upstream of that index dials. */
void trail_extend(struct trail *trail, uint32_t upstream);

/** trail_leads_back(trail, upstream, hops_max): would the upstream of that index, if it dialled now, go in a circle, or beyond ${hops_max} dials? */
bool trail_leads_back(const struct trail *trail, uint32_t upstream, size_t hops_max);

/*
 * One connection; part of whatever holds the socket. Who closes the socket takes it out first, or at once after that, and who hands the socket on moves it.
 *
 * A connection that was dialled before its client came tells of no hop but its own. Given to a client that is ours itself it would close a circle
 * unseen: such a client has a connection dialled for it.
 */
struct endpoint {
    SLIST_ENTRY(endpoint) link;
    struct in6_addr local, peer; /* IPv4 in its mapped form */
    in_port_t local_port, peer_port;
    struct trail trail; /* with the hop that this connection is */
    bool is_in;
    atomic_bool came_back; /* it was met where it leads in a circle */
};

/** endpoints_new(hops_max): returns a new table for endpoints_free(), or NULL with errno ENOMEM. No client comes by more than ${hops_max} dials of ours but in a circle. */
struct endpoints *endpoints_new(size_t hops_max) __attribute__((warn_unused_result));

/** endpoints_set_hops_max(table, hops_max): from now on. */
void endpoints_set_hops_max(struct endpoints *table, size_t hops_max);

/** endpoints_free(table): every endpoint must have been taken out; NULL is fine. */
void endpoints_free(struct endpoints *table);

/** endpoint_init(endpoint, trail): for dials by ${trail}, these included; in no table yet. */
void endpoint_init(struct endpoint *endpoint, const struct trail *trail);

/** endpoint_is_inner(endpoint): is the client ours that it dials for? */
bool endpoint_is_inner(const struct endpoint *endpoint);

/** endpoint_is_in(endpoint): is it in the table? */
bool endpoint_is_in(const struct endpoint *endpoint);

/** endpoint_came_back(endpoint): is it in, and has endpoints_arrive() met it where it leads in a circle? */
bool endpoint_came_back(const struct endpoint *endpoint);

/** endpoints_add(table, endpoint, local, peer): put in a connection between these two TCP addresses. ${endpoint} stays where it is until it is taken out or moved. */
void endpoints_add(struct endpoints *table, struct endpoint *endpoint, const struct addr *local,
                   const struct addr *peer);

/** endpoints_remove(table, endpoint): take it out; one that is not in is left alone. */
void endpoints_remove(struct endpoints *table, struct endpoint *endpoint);

/** endpoints_move(table, from, to): the connection of ${from}, in or not, is the one of ${to} from now on. */
void endpoints_move(struct endpoints *table, struct endpoint *from, struct endpoint *to);

/**
 * endpoints_begin_dial(table), endpoints_end_dial(table):
 * Around connect(2), until the connection is in: where another worker accepts it meanwhile, it is not known yet.
 */
void endpoints_begin_dial(struct endpoints *table);
void endpoints_end_dial(struct endpoints *table);

/** endpoints_is_dialling(table): may there be a connection of ours that came in, and is not in the table yet? */
bool endpoints_is_dialling(const struct endpoints *table);

/** endpoints_has(table, local): does a connection in the table begin at ${local}? Mostly not, which saves asking where it leads. */
bool endpoints_has(struct endpoints *table, const struct addr *local);

enum arrival {
    ARRIVAL_UNKNOWN, /* not in the table: not ours */
    ARRIVAL_OWN,     /* ours */
    ARRIVAL_LOOP,    /* ours, and serving it would lead in a circle: who holds it is told */
};

/**
 * endpoints_arrive(table, local, peer, upstream, trail):
 * A client has come from ${local}, whose connection was to ${peer}, and would be served by the upstream of that index. ${*trail} is
 * the way it has come, when it is ours, else left alone.
 */
enum arrival endpoints_arrive(struct endpoints *table, const struct addr *local,
                              const struct addr *peer, uint32_t upstream, struct trail *trail);

#endif
