/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_RELAY_H
#define REDIAL_RELAY_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Moves bytes between two connected sockets, both ways, until both have ended.
 *
 * An end of file is passed on as shutdown(SHUT_WR) once its bytes are; the other direction goes on. When one end fails, what had arrived from it
 * is delivered first, then the other end is reset: a cut stream never looks like a complete one, but to a UNIX peer (see sock_close_reset()). What cannot be written stops the reading.
 *
 * An idle relay holds no buffer and no pipe: one buffer is shared by all relays of a loop, and only what a short write leaves over is kept in
 * memory of its own. A direction that moves much goes through a pipe with splice(2), which copies nothing; when it moves little, back to the buffer.
 */
enum relay_side { RELAY_CLIENT, RELAY_SERVER };

#define RELAY_BUFFER_SIZE ((size_t)256 * 1024)

enum relay_outcome {
    RELAY_CLOSED, /* both ends have ended and every byte was delivered; both sockets were closed */
    RELAY_FAILED, /* one end failed, the other was reset */
};

/* How it ended: side is the one that closed first, or that failed with errno err. */
struct relay_result {
    enum relay_outcome outcome;
    enum relay_side side;
    int err;
};

struct pipepool;
struct relay;

/* What the relays of one loop share. */
struct relay_shared {
    char *buffer;           /* RELAY_BUFFER_SIZE bytes */
    struct pipepool *pipes; /* NULL: every byte is copied */
};

struct relay_events {
    /* A sink takes no more, and its source is not read: that one could be reset without being heard. Once until ${relay->stalled} is cleared. */
    void (*on_stalled)(struct relay *relay);
    /* One side has ended, or failed, and the other goes on; on_end may follow at once. */
    void (*on_half_closed)(struct relay *relay, enum relay_side side);
    /* Over: the sockets are closed, the relay may be freed from here. */
    void (*on_end)(struct relay *relay, const struct relay_result *result);
};

/* One direction, named for where its bytes come from. */
struct relay_dir {
    struct relay_rest *rest; /* what a short write left over; NULL: nothing */
    struct pipe *pipe;       /* what is on its way by splice(2); NULL: nothing */
    uint64_t bytes;          /* delivered */
    uint8_t run;             /* reads in a row that speak for the other way to move bytes */
    bool splices;            /* splice(2) rather than recv(2) and send(2) */
    bool eof;                /* the source has no more to give */
    bool shut;               /* its end was passed on, or will never be */
};

struct relay {
    ev_io io[2];             /* by side */
    struct relay_dir dir[2]; /* by the side that the bytes come from */
    struct ev_loop *loop;
    const struct relay_shared *shared;
    const struct relay_events *events;
    struct relay_linger
        *linger;         /* waits for the other side to take what was sent before it is reset */
    ev_tstamp last_byte; /* when a byte was last read or written */
    int err;             /* of the failed side */
    int8_t failed;       /* that side, -1: none */
    int8_t first_eof;    /* the side whose end came first, -1: none */
    bool stalled;        /* on_stalled was called */
};

/**
 * relay_start(relay, loop, shared, fds, events):
 * Begin to move bytes between ${fds[RELAY_CLIENT]} and ${fds[RELAY_SERVER]}, non-blocking stream sockets, which the relay takes. Borrows
 * ${shared} and ${events}. Calls ${events->on_end} exactly once, later, unless relay_abort() comes first. Cannot fail.
 */
void relay_start(struct relay *relay, struct ev_loop *loop, const struct relay_shared *shared,
                 const int fds[2], const struct relay_events *events);

/**
 * relay_fail(relay, side, err):
 * Act as if ${side} had failed with ${err}: what arrived from it is delivered, then both are reset. May call on_end at once.
 */
void relay_fail(struct relay *relay, enum relay_side side, int err);

/** relay_abort(relay): reset both sides at once; no callback follows. */
void relay_abort(struct relay *relay);

/** relay_fd(relay, side): the socket of ${side}; borrowed. */
int relay_fd(const struct relay *relay, enum relay_side side);

/** relay_is_reading(relay, side): is ${side} read from, so that its reset is heard at once? */
bool relay_is_reading(const struct relay *relay, enum relay_side side);

#endif
