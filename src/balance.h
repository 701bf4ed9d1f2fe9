/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_BALANCE_H
#define REDIAL_BALANCE_H

#include <stddef.h>
#include <stdint.h>

struct addr;

/* Which of several servers gets the next client. Pure: no clock, no socket; the caller knows who is up and has room. */
enum balance_policy {
    BALANCE_ROUND_ROBIN, /* in turn, by weight */
    BALANCE_LEAST_CONN,  /* the least sessions for its weight; among equals, in turn by weight */
    BALANCE_SOURCE_HASH, /* the same server for a client each time; without a key, round robin */
    BALANCE_FIRST,       /* the first */
};

/* What is kept of a server from one pick to the next. */
struct balance_server {
    uint64_t seed; /* of its name */
    unsigned weight;
    int credit; /* smooth weighted round robin */
};

struct balance_candidate {
    struct balance_server *server;
    unsigned sessions; /* it has now */
};

/** balance_init(server, name, weight): ${name} is what source_hash knows it by; 1 <= ${weight}. Cannot fail. */
void balance_init(struct balance_server *server, const char *name, unsigned weight);

/**
 * balance_key(client):
 * What source_hash knows a client by: its IP address, IPv4-mapped as IPv4, without port and scope. The same on every machine. Returns 0 when it has no
 * IP address, and for no other.
 */
uint64_t balance_key(const struct addr *client);

/**
 * balance_pick(policy, key, candidates, n):
 * Pick one of the ${n} > 0 candidates, for the client ${key} (balance_key()). Returns its index. Costs O(n).
 *
 * With source_hash it depends on the key and on the candidates' names and weights alone, not on their order. A candidate that goes moves its own clients
 * only, each to the candidate that is next for it; one that comes takes its share from all, and nobody moves between the others.
 */
size_t balance_pick(enum balance_policy policy, uint64_t key,
                    const struct balance_candidate *candidates, size_t n);

#endif
