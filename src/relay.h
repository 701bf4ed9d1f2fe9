/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_RELAY_H
#define REDIAL_RELAY_H

#include "edge.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

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

/* For a socket to which nothing was written yet, and that waits for its relay. */
#define RELAY_EVENTS ((uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET))

/* The two non-blocking stream sockets, by side. */
struct relay_ends {
    int fd[2];
    bool is_unix[2];
    struct stats_bytes *bytes[2]; /* borrowed: two counts of what is delivered */
    bool server_nodelay;          /* TCP_NODELAY is wanted on the server's, and not set yet */

    /* Of a server's connection that was made before there was a client: it may prove dead, see on_unserved. */
    struct edge
        *server_edge; /* watches it for RELAY_EVENTS; taken over. NULL: made for this client */
    uint32_t server_events; /* what that was told */
    bool asks_server;       /* look whether it lives before the first byte is written */

    struct relay_rest
        *rest; /* bytes of the client's that on_unserved gave back; taken. NULL: none */
};

/* How it ended: side is the one that closed first, or that failed with errno err. */
struct relay_result {
    enum relay_outcome outcome;
    enum relay_side side;
    int err;
};

struct pipepool;
struct relay;
struct relay_rest;
struct stats_bytes;

/* What the relays of one loop share. */
struct relay_shared {
    struct edge_set *edges;
    char *buffer;           /* RELAY_BUFFER_SIZE bytes, from the beginning of a page */
    struct pipepool *pipes; /* NULL: every byte is copied */
};

struct relay_events {
    /* One side has ended, or failed, and the other goes on; on_end may follow at once. */
    void (*on_half_closed)(struct relay *relay, enum relay_side side);
    /* Over: the sockets are closed, the relay may be freed from here. */
    void (*on_end)(struct relay *relay, const struct relay_result *result);
    /*
     * Over as well: the server's connection was dead before a byte of the client's was written to it, and is closed. The client has seen nothing of that; its
     * socket is the callee's, and so is ${rest}, what was read from it, if anything: for the next relay, or free().
     */
    void (*on_unserved)(struct relay *relay, int client_fd, struct relay_rest *rest);
};

/* One direction, named for where its bytes come from. */
struct relay_dir {
    struct relay_rest *rest; /* what a short write left over; NULL: nothing */
    struct pipe *pipe;       /* what is on its way by splice(2); NULL: nothing */
    uint64_t bytes;          /* delivered */
    uint8_t run;             /* reads in a row that speak for the other way to move bytes */
    bool splices;            /* splice(2) rather than recv(2) and send(2) */
    bool ready;              /* the source may have something: bytes, its end, or an error */
    bool read_on;            /* a short read does not mean that there is no more */
    bool has_urgent;         /* the source has sent urgent data, tcp(7) */
    bool sets_nodelay;       /* on the sink, when it begins to matter */
    bool eof;                /* the source has no more to give */
    bool shut;               /* its end was passed on, or will never be */
};

struct relay {
    struct edge edge[2];     /* by side */
    struct relay_dir dir[2]; /* by the side that the bytes come from */
    struct ev_loop *loop;
    const struct relay_shared *shared;
    const struct relay_events *events;
    struct stats_bytes *bytes[2];
    struct relay_linger
        *linger;         /* waits for the other side to take what was sent before it is reset */
    ev_tstamp last_byte; /* when a byte was last read or written */
    int err;             /* of the failed side */
    int8_t failed;       /* that side, -1: none */
    int8_t first_eof;    /* the side whose end came first, -1: none */
    bool is_unproven;    /* nothing was written to the server, whose connection may be dead */
    bool asks_server;
    uint32_t watched[2]; /* by side: the events of epoll_ctl(2) */
};

/**
 * relay_start(relay, loop, shared, ends, events):
 * Begin to move bytes between ${ends}, which the relay takes. Borrows ${shared} and ${events}. Calls ${events->on_end} exactly once, later, unless relay_abort() comes first.
 *
 * Returns 0, or -1 with errno set: then the sockets and the rest are still the caller's.
 */
int relay_start(struct relay *relay, struct ev_loop *loop, const struct relay_shared *shared,
                const struct relay_ends *ends, const struct relay_events *events)
    __attribute__((warn_unused_result));

/** relay_abort(relay): reset both sides at once; no callback follows. */
void relay_abort(struct relay *relay);

/** relay_fd(relay, side): the socket of ${side}; borrowed. */
int relay_fd(const struct relay *relay, enum relay_side side);

#endif
