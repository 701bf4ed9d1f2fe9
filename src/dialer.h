/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DIALER_H
#define REDIAL_DIALER_H

#include "addr.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct endpoints;
struct portrange;

/*
 * One attempt to connect to one address, with the guard against self-connection. The only place that calls connect(2) on a
 * stream socket.
 *
 * A dialled TCP socket is never handed out before its two ends were compared. A self-connection is closed with a RST, which frees the port at once
 * (an ordinary close leaves TIME_WAIT on it for 60 s), and dialled again, three times in all. Where a self-connection is possible,
 * the socket's own port range (IP_LOCAL_PORT_RANGE, Linux 6.3) leaves the destination port out, so that it cannot happen.
 * Its ends are kept in the table of endpoints from then on, so that it is known when it comes in at a listener of ours.
 */
#define DIAL_RESULTS(X)                                                                            \
    X(DIAL_OK, "ok", "connected")                                                                  \
    X(DIAL_REFUSED, "refused", "it refuses connections")                                           \
    X(DIAL_TIMEOUT, "timeout", "no answer in time")                                                \
    X(DIAL_UNREACHABLE, "unreachable", "no route to it")                                           \
    X(DIAL_SELF_CONNECT, "self_connect", "nobody listens there: the socket met itself")            \
    X(DIAL_LOOP, "loop", "it leads back to this daemon")                                           \
    X(DIAL_NO_PORT, "no_port", "no free local port toward it")                                     \
    X(DIAL_NO_SOURCE, "no_source", "the source address is not on this host")                       \
    X(DIAL_UNRESOLVED, "unresolved", "its name has no address")                                    \
    X(DIAL_SHORTAGE, "shortage", "out of descriptors or memory")                                   \
    X(DIAL_ERROR, "error", "the operating system refused")

enum dial_result {
#define X(name, text, sentence) name,
    DIAL_RESULTS(X)
#undef X
};

struct dial_opts {
    struct ev_loop *loop;
    struct endpoints *endpoints;   /* borrowed */
    const struct portrange *range; /* borrowed */
    const struct addr *source;     /* borrowed; NULL or without an address: the kernel picks */
    uint64_t timeout_ms;           /* for the whole dial, > 0 */
    uint64_t user_timeout_ms;      /* TCP_USER_TIMEOUT, 0: off */
    bool refuse_if_local;          /* fail with DIAL_LOOP when the address is one of this host */
    /* Told of each self-connection that was met, or NULL. */
    void (*on_self_connect)(const struct dial_opts *opts);
};

enum dial_ends { ENDS_NOT_CONNECTED, ENDS_DIFFER, ENDS_SAME };

/* One that is under way: the dialler's alone. In its owner's memory, because there is one for each connection. */
struct dial {
    ev_io io;
    ev_timer timer; /* the deadline; while a UNIX backlog is full, the next try */
    struct ev_loop *loop;
    const struct addr *addr;
    const struct dial_opts *opts;
    struct endpoint *endpoint; /* in the table: this attempt has connected */
    void (*done)(void *arg, int fd, enum dial_result result, int err);
    void *arg;
    ev_tstamp deadline; /* monotonic_s(); of a UNIX address, which may be tried again later */
    int fd;
    int err;             /* why this attempt failed at once; 0: it did not */
    enum dial_ends ends; /* what is known of this attempt's two ends */
    bool no_source;      /* the source address could not be bound */
    unsigned attempts;   /* self-connections and EADDRNOTAVAIL so far */
    bool looped;
};

/**
 * dialer_start(dial, addr, opts, endpoint, done, arg):
 * Dial ${addr}. Borrows ${dial}, whose contents do not matter, ${addr}, ${opts} and ${endpoint}, which is in no table, until ${done} runs or the dial is cancelled.
 *
 * Calls ${done}(${arg}, fd, result, err) exactly once, from ${opts->loop}, never before this function has returned: with DIAL_OK and fd, non-blocking,
 * now the callee's, as is ${endpoint}, which a TCP connection has put into the table; or with fd -1, another result, and the errno that decided (0: none did).
 */
void dialer_start(struct dial *dial, const struct addr *addr, const struct dial_opts *opts,
                  struct endpoint *endpoint,
                  void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg);

/** dialer_cancel(dial): end one that was started, without a callback; nothing happens when it has ended. */
void dialer_cancel(struct dial *dial);

/**
 * dialer_is_unix_alive(addr):
 * Does a process listen on the UNIX address ${addr}? Dials it and hangs up. Anything but a plain refusal counts as alive.
 */
bool dialer_is_unix_alive(const struct addr *addr);

/** dial_result_str(result), dial_result_sentence(result): its name, and what it means in words. Cannot fail. */
const char *dial_result_str(enum dial_result result);
const char *dial_result_sentence(enum dial_result result);

#endif
