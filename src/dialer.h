/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DIALER_H
#define REDIAL_DIALER_H

#include "addr.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct endpoints;
struct ev_loop;
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

struct dial;

/**
 * dialer_start(addr, opts, endpoint, done, arg):
 * Dial ${addr}. Borrows ${addr}, ${opts} and ${endpoint}, which is in no table, until ${done} runs or the dial is cancelled.
 *
 * Calls ${done}(${arg}, fd, result, err) exactly once, from ${opts->loop}, never before this function has returned: with DIAL_OK and fd, non-blocking,
 * now the callee's, as is ${endpoint}, which a TCP connection has put into the table; or with fd -1, another result, and the errno that decided (0: none did).
 * Returns a handle for dialer_cancel(), dead once ${done} runs; or NULL with errno ENOMEM.
 */
struct dial *dialer_start(const struct addr *addr, const struct dial_opts *opts,
                          struct endpoint *endpoint,
                          void (*done)(void *arg, int fd, enum dial_result result, int err),
                          void *arg) __attribute__((warn_unused_result));

/** dialer_cancel(dial): end it without a callback; NULL is fine. */
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
