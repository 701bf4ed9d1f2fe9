/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_HEALTH_H
#define REDIAL_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What is known of one server, and when to dial it again. Pure: no clock, no socket, no random numbers of its own.
 *
 *   unknown --begin--> dialing --ok--> up
 *   up --dial failed--> dialing (the first retry, at once) --failed--> down
 *   up --hung up, three in a row--> down
 *   down --ok--> up        down --failed--> down, with a longer pause
 */
#define HEALTH_STATES(X)                                                                           \
    X(HEALTH_UNKNOWN, "unknown")                                                                   \
    X(HEALTH_DIALING, "dialing")                                                                   \
    X(HEALTH_UP, "up")                                                                             \
    X(HEALTH_DOWN, "down")

enum health_state {
#define X(name, text) name,
    HEALTH_STATES(X)
#undef X
};

/* Bounds of the pauses between dials, in milliseconds; 0 < backoff_min <= backoff_max. */
struct health_opts {
    uint64_t backoff_min_ms;
    uint64_t backoff_max_ms;
};

struct health {
    enum health_state state;
    unsigned
        failures; /* in a row: dials that failed and connections that hung up; cleared by health_on_stable() */
    unsigned hangups; /* accepted, then hung up, in a row */
};

/* A connection accepted and hung up within this long, before any byte, is a failure. */
#define HEALTH_HANGUP_MS 1000
/* So many of them in a row mark the server down. */
#define HEALTH_HANGUPS_MAX 3
/* A connection that lived this long clears the backoff, as does the server's first byte. */
#define HEALTH_STABLE_MS 10000

/* health_str(state): its name. Cannot fail. */
const char *health_str(enum health_state state);

/** health_init(h): nothing is known yet. */
void health_init(struct health *h);

/** health_begin(h): the first dial begins: unknown becomes dialing. */
void health_begin(struct health *h);

/** health_on_connected(h): a dial has connected: up. The backoff goes on counting until health_on_stable(). */
void health_on_connected(struct health *h);

/**
 * health_on_failed(h, opts, random):
 * A dial failed. Returns the pause before the next one in milliseconds: 0 after the first failure, then drawn by ${random} (uniform
 * over all 32-bit values) from [backoff_min, min(backoff_max, backoff_min * 2^n)] for the n-th pause.
 *
 * A first failure of an unproven or up server makes it dialing (the retry at once will decide); any other makes it down.
 * A server that is down stays down and its pause is drawn, even when health_on_stable() has cleared its failures meanwhile.
 */
uint64_t health_on_failed(struct health *h, const struct health_opts *opts, uint32_t random);

/**
 * health_on_hung_up(h, opts, random):
 * A connection was accepted, then hung up. Counts as a failure; the third in a row marks an up server down. On a server that
 * is not up it is a failed probe of a suspect.
 *
 * Returns the pause before the next dial in milliseconds; it has no meaning while the server is still up.
 */
uint64_t health_on_hung_up(struct health *h, const struct health_opts *opts, uint32_t random);

/** health_on_survived(h): a connection lived HEALTH_HANGUP_MS without being hung up: the row of hang-ups is broken. */
void health_on_survived(struct health *h);

/** health_on_stable(h): a connection brought a byte from the server, or lived HEALTH_STABLE_MS: the backoff starts anew, the row of hang-ups is broken. */
void health_on_stable(struct health *h);

/** health_is_suspect(h): did the last HEALTH_HANGUPS_MAX connections hang up, so that a mere connect proves nothing? */
bool health_is_suspect(const struct health *h);

#endif
